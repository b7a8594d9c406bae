//! Frames on a QUIC stream: length, limit, deadline, room.
//!
//! The length is checked before anything is allocated, and memory grows with what has really
//! arrived. Frames of up to [`SHORT_BYTES`], which is all but long values and batches, are held back
//! by nothing but the limit on exchanges. Longer ones share [`LONG_BYTES_MAX`] in each direction, and
//! of one peer one at a time: whoever lies about a length or stalls is in its own way first. Room is
//! taken once per frame, before its first byte and never for a second frame while one is held, so
//! nobody waits for room while holding some that another waits for.
//!
//! A frame has to begin within the deadline, every [`CHUNK_BYTES`] of it have to move within the
//! deadline, and all of it has to move at [`BYTES_PER_SECOND_MIN`]: a thin path passes, a peer that
//! sends a byte now and then does not.

use std::{sync::Arc, time::Duration};

use quinn::{ReadExactError, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{close::STREAM_BROKEN, table::Link};
use crate::{
    protocol::{
        gossip::Class,
        message::{FRAME_BYTES_MAX, LENGTH_BYTES, Message, WireError, frame_len},
        route::Counter,
    },
    transport::{
        NodeLink,
        budget::Allowance,
        exchange::{FrameError, Frames},
        share::Share,
    },
};

/// Frames up to this length need no room.
pub(super) const SHORT_BYTES: usize = 512 << 10;
/// Most bytes of longer frames on their way in one direction, over all peers of one node.
pub(super) const LONG_BYTES_MAX: usize = 64 << 20;
/// The least rate of a frame on its way. With it 256 KiB may take 18 s at the default deadline, and
/// the longest frame less than five minutes.
const BYTES_PER_SECOND_MIN: usize = 32 << 10;
/// Moved at once.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 1 << 10;

/// Room for long frames, both ways.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) inbound: Way,
    pub(super) outbound: Way,
}

/// Room in one direction: what all share, and the turn of one peer.
#[derive(Clone, Debug)]
pub(super) struct Way {
    shared: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// Room taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _shared: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        let way = || Way {
            shared: Arc::new(Semaphore::new(LONG_BYTES_MAX / UNIT)),
            turn: Arc::new(Semaphore::new(1)),
        };
        Self { inbound: way(), outbound: way() }
    }
}

impl Room {
    /// The same room with the turns of another peer.
    pub(super) fn for_peer(&self, share: &Share) -> Self {
        let way = |way: &Way, turn: &Arc<Semaphore>| Way { turn: Arc::clone(turn), ..way.clone() };
        Self {
            inbound: way(&self.inbound, &share.inbound),
            outbound: way(&self.outbound, &share.outbound),
        }
    }
}

impl Way {
    /// Waits for room. The peer's own turn comes first, so that it waits there without holding any.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        if bytes <= SHORT_BYTES {
            return None;
        }
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect(NEVER_CLOSED);
        let shared = Arc::clone(&self.shared).acquire_many_owned(units).await.expect(NEVER_CLOSED);
        Some(Taken { _shared: shared, _turn: turn })
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
    /// What may be sent to the peer, once it is known who it is.
    allowance: Option<Allowance>,
    /// What the peer may use up, once it is known who it is.
    share: Option<Arc<Share>>,
    /// A frame of the peer's was decoded and is being dealt with: no other one is held decoded.
    decoded: Option<OwnedSemaphorePermit>,
}

impl StreamFrames {
    /// For an exchange on an introduced connection.
    pub(super) fn new(stream: (SendStream, RecvStream), link: &Link, node: &NodeLink) -> Self {
        let allowance = Some(link.outbox.allowance().clone());
        let share = Some(Arc::clone(&link.share));
        Self { allowance, share, ..Self::nameless(stream, &link.room, node) }
    }

    /// Before the peer has introduced itself.
    pub(super) fn nameless(
        (send, receive): (SendStream, RecvStream),
        room: &Room,
        node: &NodeLink,
    ) -> Self {
        let deadline = node.config().quic.exchange_timeout;
        let (room, node) = (room.clone(), node.clone());
        let (max, allowance, share, decoded) = (FRAME_BYTES_MAX, None, None, None);
        Self { send, receive, deadline, max, room, node, allowance, share, decoded }
    }

    /// Ends our direction of the stream.
    pub(super) fn finish(&mut self) {
        self.decoded = None;
        // It fails if the stream is gone, which is as good.
        let _ = self.send.finish();
    }

    /// Ends our direction of the stream, and waits until the peer has received all of it.
    pub(super) async fn finished(mut self) {
        self.finish();
        // It fails if the connection is gone.
        let _ = within(self.deadline, self.send.stopped()).await;
    }

    /// Gives the stream up. What a peer has not read would otherwise stay in memory for as long as
    /// the connection: dropping a stream finishes it.
    pub(super) fn abort(mut self) {
        let _ = self.send.reset(STREAM_BROKEN);
        let _ = self.receive.stop(STREAM_BROKEN);
    }

    async fn read(&mut self) -> Result<Option<Message>, FrameError> {
        let mut length = [0; LENGTH_BYTES];
        match within(self.deadline, self.receive.read_exact(&mut length)).await? {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(FrameError::Lost(error.to_string())),
        }
        let len = frame_len(length, self.max)?;
        let _room = within(self.deadline, self.room.inbound.take(len)).await?;
        let whole = self.deadline + travel_time(len);
        let frame = within(whole, self.body(len)).await??;
        if let Some(share) = &self.share {
            self.decoded = Some(share.decode().await);
        }
        Ok(Some(Message::decode(&frame)?))
    }

    async fn body(&mut self, len: usize) -> Result<Vec<u8>, FrameError> {
        let mut frame = Vec::new();
        while frame.len() < len {
            let filled = frame.len();
            frame.resize(len.min(filled + CHUNK_BYTES), 0);
            let read = self.receive.read_exact(&mut frame[filled..]);
            let read = within(self.deadline, read).await?;
            read.map_err(|error| FrameError::Lost(error.to_string()))?;
        }
        Ok(frame)
    }

    /// Waits for the budget between datacenters.
    async fn afford(&self, bytes: usize) {
        let Some(allowance) = &self.allowance else { return };
        while let Some(wait) = allowance.wait(self.node.now(), Class::Bulk) {
            tokio::time::sleep(wait).await;
        }
        allowance.charge(self.node.now(), Class::Bulk, bytes);
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        for chunk in frame.chunks(CHUNK_BYTES) {
            self.afford(chunk.len()).await;
            let written = within(self.deadline, self.send.write_all(chunk)).await?;
            written.map_err(|error| FrameError::Lost(error.to_string()))?;
        }
        Ok(())
    }
}

impl Frames for StreamFrames {
    async fn send(&mut self, message: &Message) -> Result<(), FrameError> {
        self.decoded = None;
        let frame = message.encode()?;
        let _room = within(self.deadline, self.room.outbound.take(frame.len())).await?;
        within(self.deadline + travel_time(frame.len()), self.write(&frame)).await?
    }

    async fn receive(&mut self) -> Result<Option<Message>, FrameError> {
        self.decoded = None;
        self.read().await.inspect_err(|error| count(&self.node, error))
    }
}

/// Counts what is no message.
pub(super) fn count(node: &NodeLink, error: &FrameError) {
    if let FrameError::Wire(wire) = error {
        node.count(match wire {
            WireError::TooLong { .. } => Counter::FramesRefused,
            _ => Counter::FramesMalformed,
        });
    }
}

pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = T>,
) -> Result<T, FrameError> {
    tokio::time::timeout(deadline, work).await.map_err(|_| FrameError::Stalled)
}

/// How long bytes may be on their way at the least rate.
pub(super) fn travel_time(bytes: usize) -> Duration {
    // At most FRAME_BYTES_MAX, far below what 32 bits hold.
    Duration::from_secs(1) * u32::try_from(bytes / BYTES_PER_SECOND_MIN).unwrap_or(u32::MAX)
}

const NEVER_CLOSED: &str = "the semaphore is never closed";
