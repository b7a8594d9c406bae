//! Certificates issued by a running node that has the authority's key: the first one for a token,
//! every further one for the previous one.
//!
//! An [`Issuer`] has the authority's directory with the ledger of its tokens; a [`Door`] is its UDP
//! port, separate from the one of the gossip, since strangers use it. [`join()`] and [`renew`] are the
//! other side. A token's secret never crosses the wire: the joining node proves it for one connection,
//! one name and one key, and so does the issuer for its answer. It refuses to be a general authority: it
//! takes only the public key from a certificate request and decides everything else itself.

mod client;
mod cluster;
mod connection;
mod grant;
mod ledger;
mod places;
mod renewal;
mod request;
mod server;
mod token;

pub use self::{
    client::{Asked, ClaimError, Joined, host_and_port, join, renew},
    cluster::Cluster,
    connection::REQUEST_TIMEOUT,
    grant::{Issuer, IssuerError, VALIDITY_MAX, VALIDITY_MIN},
    ledger::{
        LedgerError, NAME_HELD, TOKENS_FILE, TOKENS_MAX, TTL_MAX, Terms, TokenState, TokenView,
        USES_MAX,
    },
    places::{MEMBERS_MAX, PLACES_PER_MEMBER, VISITORS_MAX, VISITORS_PER_SOURCE},
    renewal::{lifetime, renewal_due},
    request::{
        ANSWER_BYTES_MAX, Answer, CsrError, Granted, JOIN_ALPN, Join, PublicKey, REQUEST_BYTES_MAX,
        Refused, Request, Unreadable,
    },
    server::{ATTEMPTS_PER_MINUTE, CONNECTIONS_MAX, Door, DoorError, SOURCES_MAX},
    token::{TOKEN_CHARS_MAX, Token, TokenError, TokenId},
};

#[cfg(test)]
mod tests;
