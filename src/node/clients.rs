//! Clients: connections that send this node requests, and are not part of the cluster.
//!
//! They use their own protocol (ALPN) on the node's own port. Every request goes to the
//! [`ClientHandler`], one stream per request; none of it reaches the gossip. This module does not
//! interpret requests. Without a handler clients are refused in the handshake.

pub(crate) mod guest;
pub(crate) mod limits;
pub(crate) mod places;

use std::fmt;

use crate::{
    net::{BoxFuture, Stream},
    tls::Client,
};

/// What a node does for clients; see
/// [`Gossipmonger::serve_clients`](crate::Gossipmonger::serve_clients).
pub trait ClientHandler: fmt::Debug + Send + Sync + 'static {
    /// Answers one request: a stream that a client has opened. The client's identity is verified at this moment; when
    /// it stops being valid, the connection is closed and with it the stream.
    fn answer(&self, visitor: Visitor, stream: Stream) -> BoxFuture<'static, ()>;
}

/// A client and its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Visitor {
    /// Its name and role.
    pub client: Client,
    /// Its address. It proves nothing.
    pub remote: String,
}
