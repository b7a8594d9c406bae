//! What the QUIC transport allows: plain numbers, checked by the configuration.

use std::time::Duration;

/// What the QUIC transport allows. The defaults suit a member on an open network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuicLimits {
    /// How long a handshake, up to the first frames, may take. Default 5 s.
    pub handshake_timeout: Duration,
    /// How long an exchange may go without progress. Default 10 s.
    pub exchange_timeout: Duration,
    /// A connection without any packet for so long is gone. Default 30 s.
    pub idle_timeout: Duration,
    /// Handshakes under way at once. Default 256; others are refused.
    pub handshakes: usize,
    /// From this many on, an address must prove itself by a Retry. Default 32.
    pub retry_above: usize,
    /// New connections a second from one source address, or IPv6 network of 64 bits. Default 512.
    pub handshakes_per_source: u32,
    /// Connections at once. Default 11,000.
    pub connections: usize,
    /// Exchanges answered at once, over all peers. Default 256; others are shed.
    pub exchanges: usize,
    /// Exchanges a second that one peer may begin. Default 500; what it begins beyond is shed.
    pub exchanges_per_peer: u32,
    /// For how long a member is turned away that was cut off since it does not keep to the protocol.
    /// Default 30 s.
    pub bar: Duration,
    /// Bytes of the socket's buffers, each way. Default 4 MiB; 0 leaves the system's.
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
