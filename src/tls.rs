//! TLS 1.3 with a certificate on both sides, and no weaker mode.
//!
//! No tickets, no resumption and no 0-RTT: each would let a peer in without a new check of its
//! certificate. No process-wide default provider either, so that a program may have another. The
//! certificate identifies a peer ([`PeerName`]); a host name or an address does not.
//!
//! TLS checks dates only during a handshake. A live connection survives the expiry of both
//! certificates and a reload. The owner of a connection must close it at
//! [`CertificateSummary::expires`], see [`Tls::summary`].

mod calling;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod config;
#[cfg(feature = "issuer")]
pub(crate) mod door;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod kind;
pub(crate) mod name;
mod naming;
mod notary;
pub(crate) mod pem;
pub(crate) mod provider;
pub(crate) mod refusal;
pub(crate) mod revoked;
mod revoking;
pub(crate) mod role;
pub(crate) mod roots;
pub(crate) mod state;
mod verifier;
pub(crate) mod visit;

pub(crate) use self::calling::{CallerState, CallerTls};
pub(crate) use self::certificate::chain_fingerprint;
#[cfg(feature = "issuer")]
pub(crate) use self::door::{Pin, Pinned, Unpinned, strangers};
pub use self::{
    certificate::CertificateSummary,
    client::Client,
    config::{ReloadError, Tls},
    files::LoadError,
    identity::Identity,
    name::{NameError, PeerName},
    naming::{Naming, NamingError},
    refusal::{Refusal, RefusedBy, Rejection},
    role::{ClientName, ClientRoles, Role, UnknownRole},
    roots::Roots,
    visit::ClientIdentity,
};
pub(crate) use self::{
    certificate::date,
    config::Admitted,
    provider::{ADMIN_ALPN, SERVER_NAME, SERVICES_ALPN},
    refusal::Verdict,
    state::Expect,
    visit::{Host, rustls_visit},
};
