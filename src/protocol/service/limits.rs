//! The limits of calls between nodes: plain numbers, checked by the configuration.

use std::time::Duration;

/// The limits of calls between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceLimits {
    /// The deadline of a call that names none. Default 5 s; at most [`DEADLINE_MAX`].
    pub deadline: Duration,
    /// Calls of this process to all nodes that have no answer yet. Default 4,096; a further one waits for room until its
    /// deadline.
    pub calls_in_flight: usize,
    /// Calls to one node that wait for an answer. Default 1,024; a further one waits for room until its deadline.
    pub calls_per_link: usize,
    /// Bytes of bodies that wait to be sent to one node. Default 256 KiB. Then a cast waits, and `try_cast` fails.
    pub lane_queue_bytes: usize,
    /// The longest question, message or item of a caller that this node sends or takes, in bytes. Default 1 MiB; at most
    /// [`BODY_MAX`].
    ///
    /// [`BODY_MAX`]: super::stream::BODY_MAX
    pub request_bytes: usize,
    /// The longest answer or item of an answer that this node sends or takes, in bytes. Default 1 MiB; at most 16 MiB.
    pub reply_bytes: usize,
    /// Bytes of bodies above 16 KiB that this node receives at once, in questions, and the same in answers. Default
    /// 64 MiB. A further body waits; one peer gets at most a sixteenth, or the longest body if that is more, over all its
    /// connections. The items of a stream that a caller reads do not count. The same limit is that of long answers that
    /// wait to be sent; of these one caller may use half.
    pub room_bytes: usize,
    /// Bytes that all connections for calls may bring before this node reads them. Default 512 MiB. Of these 64 KiB are
    /// kept for each connection that may be open; the more of the rest is in use, the smaller are the windows of new
    /// connections. If it does not suffice for 64 KiB each, fewer connections are admitted.
    pub window_bytes: usize,
    /// Connections for calls that this node has open to others. Default 512. Above it the one that was idle for longest
    /// is closed.
    pub connections_out: usize,
    /// Connections for calls that others have open to this node. Default 2,048; further ones are refused.
    pub connections_in: usize,
    /// Of these, those of clients that are not members. Default 1,024; further ones are refused.
    pub client_connections_in: usize,
    /// The connections for calls of one node or client. Default 4; one that uses streams
    /// needs 2.
    pub connections_per_peer: usize,
    /// What may pass in a second.
    pub rates: ServiceRates,
    /// A connection for calls is closed after this time without one. Default 60 s.
    pub idle: Duration,
    /// How long a node that leaves lets requests finish. Default 10 s.
    pub drain: Duration,
}

/// The limits on what passes in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServiceRates {
    /// Bytes of questions, messages and items that one caller may send to this node in a second, over all its
    /// connections. Default 256 MiB. Above it requests are refused, and streams wait.
    pub bytes_per_second: usize,
    /// Requests and messages that one caller may send to this node in a second, over all its connections; further ones
    /// are refused. Default `None`, no limit: what runs at once is limited in any case.
    pub calls_per_second: Option<usize>,
    /// Bytes of streams and of bodies above 16 KiB that this node sends to other datacenters in a second. Default
    /// 64 MiB. Above it they wait: what fills a queue in the network delays heartbeats on every connection.
    pub wan_bytes_per_second: usize,
}

impl Default for ServiceRates {
    fn default() -> Self {
        Self { bytes_per_second: 256 << 20, calls_per_second: None, wan_bytes_per_second: 64 << 20 }
    }
}

/// The longest deadline of a call.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            calls_in_flight: 4_096,
            calls_per_link: 1_024,
            lane_queue_bytes: 256 << 10,
            request_bytes: 1 << 20,
            reply_bytes: 1 << 20,
            room_bytes: 64 << 20,
            window_bytes: 512 << 20,
            connections_out: 512,
            connections_in: 2_048,
            client_connections_in: 1_024,
            connections_per_peer: 4,
            rates: ServiceRates::default(),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}
