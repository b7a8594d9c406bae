//! A certificate authority for clusters without a PKI: it issues certificates, revokes them, and can be replaced.
//!
//! How a node uses certificates, whoever issued them, is in [`tls`](crate::tls).

mod authority;
mod directory;
mod error;
pub(crate) mod file;
mod files;
mod issued;
#[cfg(feature = "issuer")]
mod issuing;
pub(crate) mod leaf;
mod phase;
#[cfg(all(test, unix))]
mod real_world;
mod revoked;
pub(crate) mod rotation;
#[cfg(all(test, unix))]
mod samples;
mod throwaway;

pub use self::{
    authority::{Authority, AuthorityOptions},
    error::AuthorityError,
    files::Existing,
    issued::Issued,
    leaf::{KeyKind, LEAF_VALIDITY, LeafOptions, Usage},
    phase::RotationPhase,
    throwaway::throwaway,
};
#[cfg(feature = "issuer")]
pub(crate) use self::{
    files::{read_secret, write_secret},
    issuing::{Requested, pem_of},
};
