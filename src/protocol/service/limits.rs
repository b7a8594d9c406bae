//! The limits of calls between nodes: plain numbers, checked by the configuration.

use std::time::Duration;

/// The limits of calls between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceLimits {
    /// The deadline of a call that names none. Default 5 s; at most [`DEADLINE_MAX`].
    pub deadline: Duration,
    /// Calls to one node that wait for an answer. Default 1,024; a further one waits for room until its deadline.
    pub calls_per_link: usize,
    /// Bytes of bodies that wait to be sent to one node. Default 256 KiB. Then a cast waits, and `try_cast` fails.
    pub lane_queue_bytes: usize,
    /// Connections for calls that this node has open to others. Default 512. Above it the one that was idle for longest
    /// is closed.
    pub connections_out: usize,
    /// Connections for calls that others have open to this node. Default 2,048; further ones are refused.
    pub connections_in: usize,
    /// Of these, those of clients that are not members. Default 1,024; further ones are refused.
    pub client_connections_in: usize,
    /// The connections for calls of one node or client. Default 4.
    pub connections_per_peer: usize,
    /// A connection for calls is closed after this time without one. Default 60 s.
    pub idle: Duration,
    /// How long a node that leaves lets requests finish. Default 10 s.
    pub drain: Duration,
}

/// The longest deadline of a call.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            calls_per_link: 1_024,
            lane_queue_bytes: 256 << 10,
            connections_out: 512,
            connections_in: 2_048,
            client_connections_in: 1_024,
            connections_per_peer: 4,
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}
