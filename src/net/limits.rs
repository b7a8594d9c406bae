//! The limits of the QUIC transport: plain numbers, checked by the configuration.

use std::time::Duration;

/// The limits of the QUIC transport. The defaults suit a member on an open network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QuicLimits {
    /// How long a handshake, up to the first frames, may take. Default 5 s. Time in which this node itself is late does
    /// not count, up to eight times as long; twice as long before the peer of an accepted one has proved its name.
    pub handshake_timeout: Duration,
    /// How long an exchange may go without progress. Default 10 s. Time in which this node itself is late does not count,
    /// up to eight times as long.
    pub exchange_timeout: Duration,
    /// A connection without any packet for this long is lost. Default 30 s.
    pub idle_timeout: Duration,
    /// Concurrent handshakes. Default 256; others are refused.
    pub handshakes: usize,
    /// From this many handshakes on, an address must prove itself by a Retry. Default 32.
    pub retry_above: usize,
    /// New connections per second from one source address, or IPv6 network of 64 bits. Default 512.
    pub handshakes_per_source: u32,
    /// Concurrent connections. Default 11,000.
    pub connections: usize,
    /// Exchanges answered concurrently, over all peers. Default 256; others are shed.
    pub exchanges: usize,
    /// Exchanges per second that one peer may begin. Default 500; further ones are shed.
    pub exchanges_per_peer: u32,
    /// How long a member disconnected for a protocol violation is refused. Default 30 s.
    pub bar: Duration,
    /// Bytes of the socket's buffers, in each direction. Default 4 MiB; 0 keeps the system's.
    pub socket_buffer: usize,
    /// Whether to use the kernel's segmentation offload. Default `true`.
    pub gso: bool,
}

impl Default for QuicLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            exchange_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            handshakes: 256,
            retry_above: 32,
            handshakes_per_source: 512,
            connections: 11_000,
            exchanges: 256,
            exchanges_per_peer: 500,
            bar: Duration::from_secs(30),
            socket_buffer: 4 << 20,
            gso: true,
        }
    }
}
