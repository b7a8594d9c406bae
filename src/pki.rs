//! A certificate authority of one's own: it issues certificates, revokes them, and is replaced.
//!
//! It is for clusters without a PKI. What a node does with certificates, whoever issued them, is in
//! [`tls`](crate::tls).

mod authority;
#[cfg(feature = "issuer")]
mod issuing;
#[cfg(all(test, unix, feature = "cli"))]
mod real_world;
pub mod rotation;

pub use self::authority::{
    AUTHORITY_VALIDITY, Authority, AuthorityError, AuthorityOptions, BACKDATE, Existing, Issued,
    KeyKind, LEAF_VALIDITY, LEAF_VALIDITY_AUTOMATED, LeafOptions, Usage, file,
};
#[cfg(feature = "issuer")]
pub(crate) use self::issuing::{
    Pin, Pinned, Requested, Unpinned, pem_of, read_secret, strangers, write_secret,
};
