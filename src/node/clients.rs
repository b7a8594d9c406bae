//! Clients: connections that send this node requests, and are not part of the cluster.
//!
//! They use their own protocol (ALPN) on the node's own port. Every request goes to the
//! [`ClientHandler`], one stream per request; none of it reaches the gossip. This module does not
//! interpret requests. Without a handler clients are refused in the handshake.

pub(crate) mod guest;
pub(crate) mod places;

use std::fmt;

use crate::{
    net::{BoxFuture, Stream},
    tls::Client,
};

/// Clients connected at once.
pub const CLIENTS_MAX: usize = 32;
/// Of these, the places reserved for clients of role `admin`: clients that may only read or watch cannot
/// keep an operator out.
pub const ADMIN_PLACES: usize = 8;
/// Connections of one client, so that one client cannot shut out the others.
pub const CONNECTIONS_PER_CLIENT: usize = 8;
/// Concurrent requests on one connection.
pub const REQUESTS_PER_CONNECTION: usize = 8;
/// A client without an open request is disconnected after this many times the `idle_timeout` of
/// [`QuicLimits`](crate::net::limits::QuicLimits): it has kept its connection alive without use.
pub const IDLE_TIMEOUTS: u32 = 2;

/// What a node does for clients; see
/// [`Gossipmonger::serve_clients`](crate::Gossipmonger::serve_clients).
pub trait ClientHandler: fmt::Debug + Send + Sync + 'static {
    /// Answers one request: a stream that a client has opened. The client's identity is verified at this moment; when
    /// it stops being valid, the connection is closed and with it the stream.
    fn answer(&self, visitor: Visitor, stream: Stream) -> BoxFuture<'static, ()>;
}

/// A client and its address.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visitor {
    /// Its name and role.
    pub client: Client,
    /// Its address. It proves nothing.
    pub remote: String,
}
