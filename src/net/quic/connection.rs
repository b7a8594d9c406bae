//! One QUIC connection, and its streams.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, TransportErrorCode, VarInt, WriteError};

use super::{
    super::{
        BoxFuture, Connection, Ended, Peer, Protocol, ReceiveStream, SendStream, Stream,
        StreamError, Traffic,
    },
    credentials::Credentials,
    peer::{peer_chain, protocol},
};
use crate::tls::{ADMIN_ALPN, SERVICES_ALPN, Verdict};

/// A connection with a completed handshake.
#[derive(Debug)]
pub(super) struct QuicConnection {
    inner: quinn::Connection,
    protocol: Protocol,
    peer: Peer,
    verdict: Verdict,
}

impl QuicConnection {
    /// `ours`: what this end has shown.
    pub(super) fn made(
        inner: quinn::Connection,
        ours: &Credentials,
        verdict: Verdict,
    ) -> Result<Arc<dyn Connection>, Ended> {
        let protocol = match protocol(&inner).as_slice() {
            ADMIN_ALPN => Protocol::Clients,
            SERVICES_ALPN => Protocol::Services,
            _ => Protocol::Gossip,
        };
        // The certificates are read once for the whole connection.
        let peer = peer_chain(&inner).and_then(|chain| ours.peer(chain));
        let peer = peer.map_err(|error| Ended::Lost(error.to_string()))?;
        Ok(Arc::new(Self { inner, protocol, peer, verdict }))
    }

    fn end(&self, error: &ConnectionError) -> Ended {
        end(error, &self.verdict)
    }
}

/// The meaning of a connection's end. `verdict`: the finding of this node's verifier in its handshake.
pub(super) fn end(error: &ConnectionError, verdict: &Verdict) -> Ended {
    if let Some(refusal) = verdict.refusal(error) {
        return Ended::Refused(Box::new(refusal));
    }
    match error {
        ConnectionError::ApplicationClosed(closed) => {
            Ended::Closed { code: closed.error_code.into_inner(), words: closed.reason.clone() }
        }
        ConnectionError::LocallyClosed => Ended::Here,
        ConnectionError::Reset => Ended::Reset,
        ConnectionError::ConnectionClosed(closed)
            if closed.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            Ended::Busy
        }
        ConnectionError::ConnectionClosed(_) => Ended::Failed(error.to_string()),
        lost => Ended::Lost(lost.to_string()),
    }
}

impl Connection for QuicConnection {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn remote(&self) -> String {
        self.inner.remote_address().to_string()
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let opened = self.inner.open_bi().await;
            opened.map(both).map_err(|error| self.end(&error))
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let accepted = self.inner.accept_bi().await;
            accepted.map(both).map_err(|error| self.end(&error))
        })
    }

    fn open_one_way(&self) -> BoxFuture<'_, Result<Box<dyn SendStream>, Ended>> {
        Box::pin(async {
            let opened = self.inner.open_uni().await.map_err(|error| self.end(&error))?;
            Ok(Box::new(Outgoing(opened)) as Box<dyn SendStream>)
        })
    }

    fn accept_one_way(&self) -> BoxFuture<'_, Result<Box<dyn ReceiveStream>, Ended>> {
        Box::pin(async {
            let accepted = self.inner.accept_uni().await.map_err(|error| self.end(&error))?;
            Ok(Box::new(Ingoing(accepted)) as Box<dyn ReceiveStream>)
        })
    }

    fn send_datagram(&self, datagram: Bytes) -> bool {
        self.inner.send_datagram(datagram).is_ok()
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, Ended>> {
        Box::pin(async { self.inner.read_datagram().await.map_err(|error| self.end(&error)) })
    }

    fn received(&self) -> u64 {
        frames_received(&self.inner.stats())
    }

    fn packets(&self) -> (u64, u64) {
        let path = self.inner.stats().path;
        (path.sent_packets, path.lost_packets)
    }

    fn traffic(&self) -> Traffic {
        let stats = self.inner.stats();
        Traffic {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_sent: stats.path.sent_packets,
            packets_received: stats.udp_rx.datagrams,
            packets_lost: stats.path.lost_packets,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.inner.rtt())
    }

    fn congestion_window(&self) -> Option<u64> {
        Some(self.inner.stats().path.cwnd)
    }

    fn set_receive_window(&self, bytes: u32) {
        self.inner.set_receive_window(VarInt::from_u32(bytes));
    }

    fn set_streams(&self, two_way: u32, one_way: u32) {
        self.inner.set_max_concurrent_bi_streams(VarInt::from_u32(two_way));
        self.inner.set_max_concurrent_uni_streams(VarInt::from_u32(one_way));
    }

    fn close(&self, code: u32, words: &[u8]) {
        self.inner.close(VarInt::from_u32(code), words);
    }

    fn ended(&self) -> Option<Ended> {
        self.inner.close_reason().map(|error| self.end(&error))
    }

    fn is_open(&self) -> bool {
        self.inner.close_reason().is_none()
    }

    fn closed(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            let error = self.inner.closed().await;
            self.end(&error)
        })
    }
}

/// Frames received in authentic packets.
fn frames_received(stats: &quinn::ConnectionStats) -> u64 {
    let rx = &stats.frame_rx;
    let rare = rx.ack_frequency
        + rx.connection_close
        + u64::from(rx.handshake_done)
        + rx.immediate_ack
        + rx.new_connection_id
        + rx.new_token
        + rx.path_challenge
        + rx.path_response
        + rx.retire_connection_id;
    let flow = rx.data_blocked
        + rx.max_data
        + rx.max_stream_data
        + rx.max_streams_bidi
        + rx.max_streams_uni
        + rx.stream_data_blocked
        + rx.streams_blocked_bidi
        + rx.streams_blocked_uni;
    let data = rx.crypto + rx.datagram + rx.reset_stream + rx.stop_sending + rx.stream;
    rx.acks + rx.ping + data + flow + rare
}

fn both((send, receive): (quinn::SendStream, RecvStream)) -> Stream {
    (Box::new(Outgoing(send)), Box::new(Ingoing(receive)))
}

#[derive(Debug)]
struct Outgoing(quinn::SendStream);

impl SendStream for Outgoing {
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>> {
        Box::pin(async {
            self.0.write_all_chunks(chunks).await.map_err(|error| match error {
                WriteError::ConnectionLost(error) => lost(&error),
                error => StreamError::Stream(error.to_string()),
            })
        })
    }

    fn finish(&mut self) {
        // It fails if the stream is gone, which is equivalent.
        let _ = self.0.finish();
    }

    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // It fails if the connection is gone.
            let _ = self.0.stopped().await;
        })
    }

    fn reset(&mut self, code: u32) {
        let _ = self.0.reset(VarInt::from_u32(code));
    }

    fn set_priority(&mut self, priority: i32) {
        // It fails if the stream is gone, which its first use will report.
        let _ = self.0.set_priority(priority);
    }
}

#[derive(Debug)]
struct Ingoing(RecvStream);

impl ReceiveStream for Ingoing {
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>> {
        Box::pin(async move {
            match self.0.read_chunk(most, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(ReadError::ConnectionLost(error)) => Err(lost(&error)),
                Err(error) => Err(StreamError::Stream(error.to_string())),
            }
        })
    }

    fn stop(&mut self, code: u32) {
        let _ = self.0.stop(VarInt::from_u32(code));
    }
}

fn lost(error: &ConnectionError) -> StreamError {
    StreamError::Connection(end(error, &Verdict::default()))
}
