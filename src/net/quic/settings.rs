//! The settings of quinn: windows, limits, keys. The reasons are beside the numbers.
//!
//! The handshake advertises limits that cannot be taken back, and its protocol is known only after it. So a connection
//! that is accepted starts with what every protocol needs, and each protocol widens it.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::{
    net::{Connection, limits::QuicLimits},
    store::EndpointKeys,
    tls::Tls,
};

/// Exchanges that a peer may have open concurrently on one connection.
pub(super) const STREAMS_PER_PEER: u32 = 32;
/// Streams for gossip that a peer may have open concurrently.
const GOSSIP_STREAMS: u32 = 1;
/// Bytes that a connection may bring, over all its streams, until its protocol widens it. A stream's own window cannot be
/// changed after the handshake, so it is that of gossip from the start, and this one is what limits.
const FIRST_WINDOW: u32 = 16 << 10;
/// Bidirectional streams that a peer may open until its protocol lets it open more. No protocol needs unidirectional
/// ones so early.
const FIRST_STREAMS: u32 = 1;
/// Bytes in flight to us per connection.
const RECEIVE_WINDOW: u32 = 4 << 20;
/// The same per stream: as many as the other end may hold, so that bulk, which is one stream, moves
/// 25 MB/s over a path of 80 ms, and not so many that an unread stream holds up the others.
const STREAM_RECEIVE_WINDOW: u32 = 2 << 20;
/// Unacknowledged bytes that we hold per connection.
const SEND_WINDOW: u64 = 2 << 20;
/// Maximum bytes of bulk in flight from one node to another, besides the delta that each end is
/// handling: sent and unacknowledged data, and data that has arrived but was not read.
pub const BULK_WINDOW: usize = SEND_WINDOW as usize + STREAM_RECEIVE_WINDOW as usize;
/// Bytes of waiting datagrams, in each direction: heartbeats of 20 bytes or so.
const DATAGRAM_BUFFER: usize = 16 << 10;
/// Bytes of packets held for one handshake that has not been processed, and for all of them.
const INCOMING_BUFFER: u64 = 16 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 1 << 20;

/// The round trip that is assumed before one was measured: RFC 9002 section 6.2.2.
pub(super) const INITIAL_RTT: Duration = Duration::from_millis(333);
/// The most that is assumed of a late node.
const INITIAL_RTT_MAX: Duration = Duration::from_secs(4);

/// Keys that outlive the process: a peer that still sends to the previous process receives a
/// stateless reset (RFC 9000 section 10.3) if the keys are the same.
pub(super) fn endpoint(keys: &EndpointKeys) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    let connection_id = keys.connection_id;
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id)));
    config
}

pub(super) fn server(
    tls: &Tls,
    limits: &QuicLimits,
    transport: Arc<TransportConfig>,
) -> ServerConfig {
    let (crypto, _) = tls.accept();
    let mut server = ServerConfig::with_crypto(crypto);
    server
        .transport_config(transport)
        // A peer that moves dials again; connection migration could be abused.
        .migration(false)
        .max_incoming(limits.handshakes)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    server
}

/// Of connections that are accepted, until their protocol is known.
pub(super) fn accepted(limits: &QuicLimits) -> Arc<TransportConfig> {
    let mut transport = common(limits);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(FIRST_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Arc::new(transport)
}

/// An accepted connection is for gossip.
pub(super) fn widen_for_gossip(connection: &dyn Connection) {
    connection.set_receive_window(RECEIVE_WINDOW);
    connection.set_streams(STREAMS_PER_PEER, GOSSIP_STREAMS);
}

/// Of connections that are dialed for gossip by a node that is this late.
pub(super) fn dialed(limits: &QuicLimits, lag: Duration) -> Arc<TransportConfig> {
    let mut transport = common(limits);
    expect_late_answers(&mut transport, lag);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_PEER))
        .max_concurrent_uni_streams(VarInt::from_u32(GOSSIP_STREAMS))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // For connections without heartbeats, because the two are not neighbours.
        .keep_alive_interval(Some(limits.idle_timeout / 3));
    Arc::new(transport)
}

/// Of connections that are dialed for calls: the other end opens no streams until it may, and sends no datagrams.
pub(super) fn calling(limits: &QuicLimits, lag: Duration) -> Arc<TransportConfig> {
    let mut transport = common(limits);
    expect_late_answers(&mut transport, lag);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(FIRST_WINDOW))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(limits.idle_timeout / 3));
    Arc::new(transport)
}

/// Before it has measured a path, QUIC sends the packets of a handshake again after three times this. A node that is
/// late would repeat all of them.
fn expect_late_answers(transport: &mut TransportConfig, lag: Duration) {
    transport.initial_rtt((lag * 2).clamp(INITIAL_RTT, INITIAL_RTT_MAX));
}

fn common(limits: &QuicLimits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .enable_segmentation_offload(limits.gso)
        // Probing for larger packets costs 11 kB a connection, and has its own failures.
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(idle_timeout(limits.idle_timeout)));
    transport
}

fn idle_timeout(idle: Duration) -> IdleTimeout {
    // The configuration allows at most ten minutes, the wire 2^62 milliseconds.
    IdleTimeout::try_from(idle).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX))
}
