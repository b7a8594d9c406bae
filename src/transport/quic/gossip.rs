//! The streams for gossip: one from each end of a connection, opened with the first frame.

use quinn::{ConnectionError, RecvStream, SendStream, WriteError};

use bytes::Bytes;

use super::{frames, table::Link};
use crate::{
    protocol::{
        message::{FRAME_BYTES_MAX, LENGTH_BYTES, frame_len},
        route::Counter,
    },
    transport::{
        NodeLink,
        exchange::{ExchangeError, FrameError},
        gossip::Ear,
    },
};

/// Tells the peer what waits for it, until the connection ends.
pub(super) async fn tell(node: &NodeLink, link: &Link) -> ConnectionError {
    let mut batch = Vec::new();
    let mut stream = None;
    loop {
        if batch.is_empty() {
            batch.push(link.outbox.next(node).await.1);
        }
        if stream.is_none() {
            // A peer need not let us open it: then all waits here, within the limits of the queue.
            match open(link).await {
                Ok(opened) => stream = Some(opened),
                Err(reason) => return reason,
            }
        }
        // What waits has waited together.
        let mut bytes: usize = batch.iter().map(Bytes::len).sum();
        while bytes < BATCH_BYTES
            && let Some((_, frame)) = link.outbox.try_next(node)
        {
            bytes += frame.len();
            batch.push(frame);
        }
        let Some(opened) = &mut stream else { continue };
        node.counters().add(Counter::GossipSent, batch.len() as u64);
        match opened.write_all_chunks(&mut batch).await {
            Ok(()) => batch = Vec::new(),
            Err(WriteError::ConnectionLost(reason)) => return reason,
            // The task that read it has ended there, and another one comes: what was on its way is
            // made up for by reconciliation.
            Err(_) => (stream, batch) = (None, Vec::new()),
        }
    }
}

async fn open(link: &Link) -> Result<SendStream, ConnectionError> {
    let stream = link.connection.open_uni().await?;
    // It fails if the stream is gone, which its first use will tell.
    let _ = stream.set_priority(PRIORITY);
    Ok(stream)
}

/// Hears what the peer tells, until the connection ends.
pub(super) async fn hear(node: &NodeLink, link: &Link) -> ConnectionError {
    loop {
        let stream = match link.connection.accept_uni().await {
            Ok(stream) => stream,
            Err(reason) => return reason,
        };
        // Boxed, since most of the time most connections wait here.
        if let Err(error) = Box::pin(listen(node, link, stream)).await {
            if error.is_misbehaviour() {
                link.cut_off(node, &error);
            } else {
                tracing::debug!(node = %node.node(), peer = %link.node(), %error, "gossip lost");
            }
        }
    }
}

async fn listen(node: &NodeLink, link: &Link, stream: RecvStream) -> Result<(), ExchangeError> {
    let mut ear = Ear::new(node, link.node());
    let mut frames = Incoming { stream, chunk: Bytes::new() };
    loop {
        let frame = frames.next(node, link).await;
        let frame = frame.inspect_err(|error| frames::count(node, error))?;
        let Some(frame) = frame else { return Ok(()) };
        if !ear.hear(node, &link.met(), &frame).await? {
            link.throttle(node, "more roots than 200 a second, or more grafts than 100");
        }
    }
}

/// The frames of one stream. Most arrive whole, and are not copied.
struct Incoming {
    stream: RecvStream,
    /// Received, and not yet taken.
    chunk: Bytes,
}

impl Incoming {
    /// The next frame, without its length; `None` at the end of the stream. It may be long in coming,
    /// but once it has begun it has to move on.
    async fn next(&mut self, node: &NodeLink, link: &Link) -> Result<Option<Bytes>, FrameError> {
        if self.chunk.is_empty() && !self.receive().await? {
            return Ok(None);
        }
        let deadline = node.config().quic.exchange_timeout;
        let length = frames::within(deadline, self.take(LENGTH_BYTES)).await??;
        let length = length[..].try_into().expect("so many bytes were asked for");
        let len = frame_len(length, FRAME_BYTES_MAX)?;
        if self.chunk.len() >= len {
            return Ok(Some(self.chunk.split_to(len)));
        }
        let _room = frames::within(deadline, link.room.inbound.take(len)).await?;
        let whole = deadline + frames::travel_time(len);
        Ok(Some(frames::within(whole, self.take(len)).await??))
    }

    /// So many bytes. Memory grows with what has really arrived.
    async fn take(&mut self, len: usize) -> Result<Bytes, FrameError> {
        if self.chunk.len() >= len {
            return Ok(self.chunk.split_to(len));
        }
        let mut taken = Vec::new();
        loop {
            let missing = len - taken.len();
            let part = self.chunk.split_to(missing.min(self.chunk.len()));
            taken.extend_from_slice(&part);
            if taken.len() == len {
                return Ok(taken.into());
            }
            if !self.receive().await? {
                return Err(FrameError::Lost("the stream ended within a frame".to_owned()));
            }
        }
    }

    /// Waits for more bytes; `false` at the end of the stream.
    async fn receive(&mut self) -> Result<bool, FrameError> {
        let lost = |error: quinn::ReadError| FrameError::Lost(error.to_string());
        let chunk = self.stream.read_chunk(frames::CHUNK_BYTES, true).await.map_err(lost)?;
        let more = chunk.is_some();
        self.chunk = chunk.map_or_else(Bytes::new, |chunk| chunk.bytes);
        Ok(more)
    }
}

/// Above that of exchanges, which is zero: news and who is there are not to wait for bulk.
const PRIORITY: i32 = 1;
/// Handed to the connection at once.
const BATCH_BYTES: usize = 32 << 10;
