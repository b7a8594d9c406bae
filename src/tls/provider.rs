//! Settings common to all handshakes: the cryptography provider, and the names of the protocols.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The protocol versions of nodes, the best first; each is a major version.
pub const ALPN: &[&[u8]] = &[b"gossipmonger/1"];

/// The clients' protocol version; see [`Tls::client`](super::Tls::client).
pub const ADMIN_ALPN: &[u8] = b"gossipmonger-admin/1";

/// The protocol version of calls between services.
pub(crate) const SERVICES_ALPN: &[u8] = b"gossipmonger-services/1";

/// The server name for dialing. It is neither sent nor compared.
pub const SERVER_NAME: &str = "gossipmonger";

/// The one provider, with the groups named so that no feature flag elsewhere can reorder them.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

pub(super) fn alpn() -> Vec<Vec<u8>> {
    ALPN.iter().map(|version| version.to_vec()).collect()
}

pub(crate) const TLS13_SUITES: &str = "aws-lc-rs has the suites of TLS 1.3";
