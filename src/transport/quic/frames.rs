//! Frames on a QUIC stream: length, limit, deadline.
//!
//! The length is checked before anything is allocated, and memory grows with what has really
//! arrived. All frames on their way in share [`INBOUND_BYTES_MAX`]; who finds it used up waits,
//! at most for the deadline.

use std::{sync::Arc, time::Duration};

use quinn::{ReadExactError, RecvStream, SendStream};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    protocol::{
        message::{FRAME_BYTES_MAX, LENGTH_BYTES, Message, WireError, frame_len},
        route::Counter,
    },
    transport::{
        NodeLink,
        exchange::{FrameError, Frames},
    },
};

/// Most bytes of frames being received, over all peers of one node.
pub(super) const INBOUND_BYTES_MAX: usize = 64 << 20;
/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 1 << 10;

/// Room for frames on their way in.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(INBOUND_BYTES_MAX / UNIT)))
    }
}

impl Room {
    async fn take(&self, bytes: usize) -> SemaphorePermit<'_> {
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
        self.0.acquire_many(units).await.expect("the semaphore is never closed")
    }
}

/// One bidirectional stream.
pub(super) struct StreamFrames {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) deadline: Duration,
    pub(super) max: usize,
    pub(super) room: Room,
    pub(super) node: NodeLink,
}

impl StreamFrames {
    /// For an exchange on an introduced connection.
    pub(super) fn new(
        (send, receive): (SendStream, RecvStream),
        room: &Room,
        node: &NodeLink,
    ) -> Self {
        let deadline = node.config().quic.exchange_timeout;
        let (room, node) = (room.clone(), node.clone());
        Self { send, receive, deadline, max: FRAME_BYTES_MAX, room, node }
    }

    /// Ends our direction of the stream.
    pub(super) fn finish(&mut self) {
        // It fails if the stream is gone, which is as good.
        let _ = self.send.finish();
    }

    async fn read(&mut self) -> Result<Option<Message>, FrameError> {
        let mut length = [0; LENGTH_BYTES];
        match self.receive.read_exact(&mut length).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(FrameError::Lost(error.to_string())),
        }
        let len = frame_len(length, self.max)?;
        let room = self.room.clone();
        let _permit = room.take(len).await;
        let mut frame = Vec::new();
        while frame.len() < len {
            let filled = frame.len();
            frame.resize(len.min(filled + CHUNK_BYTES), 0);
            let read = self.receive.read_exact(&mut frame[filled..]).await;
            read.map_err(|error| FrameError::Lost(error.to_string()))?;
        }
        Ok(Some(Message::decode(&frame)?))
    }

    fn count(&self, error: &FrameError) {
        if let FrameError::Wire(wire) = error {
            self.node.count(match wire {
                WireError::TooLong { .. } => Counter::FramesRefused,
                _ => Counter::FramesMalformed,
            });
        }
    }
}

impl Frames for StreamFrames {
    async fn send(&mut self, message: &Message) -> Result<(), FrameError> {
        let frame = message.encode()?;
        // The deadline is for progress: a chunk that goes nowhere, not a long frame on a slow path.
        for chunk in frame.chunks(CHUNK_BYTES) {
            match tokio::time::timeout(self.deadline, self.send.write_all(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(FrameError::Lost(error.to_string())),
                Err(_) => return Err(FrameError::Stalled),
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Message>, FrameError> {
        let deadline = self.deadline;
        let read = match tokio::time::timeout(deadline, self.read()).await {
            Ok(read) => read,
            Err(_) => Err(FrameError::Stalled),
        };
        read.inspect_err(|error| self.count(error))
    }
}
