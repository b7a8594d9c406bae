//! Certificates issued by a running node that has the authority's key: the first one for a token,
//! every further one for the previous one.
//!
//! An [`Issuer`] has the authority's directory with the ledger of its tokens; a [`Door`] is its UDP
//! port, separate from the one of the gossip, since strangers use it. [`join()`] and [`renew`] are the
//! other side. A token's secret never crosses the wire: the joining node proves it for one connection,
//! one name and one key, and so does the issuer for its answer. It refuses to be a general authority: it
//! takes only the public key from a certificate request and decides everything else itself.

pub(crate) mod client;
mod cluster;
pub(crate) mod connection;
mod grant;
mod ledger;
mod places;
pub(crate) mod renewal;
pub(crate) mod request;
mod server;
pub(crate) mod token;

pub use self::{
    client::{Asked, ClaimError, Joined, join, renew},
    cluster::Cluster,
    grant::{Issuer, IssuerError},
    ledger::{LedgerError, Terms, TokenState, TokenView},
    request::Refused,
    server::{Door, DoorError},
    token::{Token, TokenError, TokenId},
};

#[cfg(test)]
mod tests;
