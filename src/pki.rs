//! A certificate authority for clusters without a PKI: it issues certificates, revokes them, and can be replaced.
//!
//! How a node uses certificates, whoever issued them, is in [`tls`](crate::tls).

mod authority;
mod directory;
mod error;
pub mod file;
mod files;
mod issued;
#[cfg(feature = "issuer")]
mod issuing;
mod leaf;
mod phase;
#[cfg(all(test, unix))]
mod real_world;
mod revoked;
pub mod rotation;
#[cfg(all(test, unix))]
mod samples;

pub use self::{
    authority::{Authority, AuthorityOptions},
    error::AuthorityError,
    files::Existing,
    issued::Issued,
    leaf::{
        AUTHORITY_VALIDITY, BACKDATE, KeyKind, LEAF_VALIDITY, LEAF_VALIDITY_AUTOMATED, LeafOptions,
        Usage,
    },
};
#[cfg(feature = "issuer")]
pub(crate) use self::{
    files::{read_secret, write_secret},
    issuing::{Requested, pem_of},
};
