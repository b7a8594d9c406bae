//! TLS 1.3 with a certificate on both sides, and nothing weaker.
//!
//! No tickets, no resumption and no 0-RTT: each would let a peer in without looking at its
//! certificate again. No process-wide default provider either, so that a program may have another.
//! The certificate says who a peer is; a host name or an address never does.
//!
//! TLS looks at dates only during a handshake. A live connection survives the expiry of both
//! certificates and a reload: who holds connections closes them at
//! [`CertificateSummary::not_after`].

mod authority;
mod identity;

use std::{sync::Arc, time::SystemTime};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::{
    authority::{
        AUTHORITY_VALIDITY, Authority, AuthorityError, AuthorityOptions, BACKDATE, Existing,
        Issued, KeyKind, LEAF_VALIDITY, LEAF_VALIDITY_AUTOMATED, LeafOptions, Usage, file,
    },
    identity::{CertificateSummary, Identity, LoadError, NameError, PEM_FILE_MAX, PeerName},
};

/// The one provider, with the groups named so that no feature flag elsewhere can reorder them.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// The wall clock. rustls reads it in every handshake to look at dates; what we say about dates
/// has to agree with that.
#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time, as in rustls")]
fn now() -> SystemTime {
    SystemTime::now()
}
