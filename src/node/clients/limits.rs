//! The limits of clients.

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
/// [`QuicLimits`](crate::QuicLimits): it has kept its connection alive without use.
pub(crate) const IDLE_TIMEOUTS: u32 = 2;
