//! Frames on a stream: their length limit and deadline. Long ones also need [`room`](super::room).
//!
//! The length is checked before anything is allocated, and memory grows only with the bytes that have arrived. A
//! frame has to begin within the deadline, every [`CHUNK_BYTES`] of it have to move within the deadline, and all of
//! it has to move at [`BYTES_PER_SECOND_MIN`]. A slow path passes; a peer that sends a byte now and then does not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{super::host::Host, link::Link, room::Room, table::Links};
use crate::{
    lateness::TooLate,
    net::{ReceiveStream, SendStream, Stream, StreamError},
    protocol::{
        message::{FRAME_BYTES_MAX, LENGTH_BYTES, Message, WireError, frame_len},
        peering::PeeringInput,
        route::Counter,
        served::DIALER_MAX,
    },
};

/// The minimum rate of a frame in flight. With it 256 KiB may take 18 s at the default deadline, and the longest
/// frame less than five minutes.
const BYTES_PER_SECOND_MIN: usize = 32 << 10;
/// Bytes moved at once.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// Frames of gossip that have arrived are handed on together, up to this many bytes.
pub(super) const GOSSIP_BYTES: usize = 64 << 10;
/// The same, in frames: a frame of a few bytes takes hundreds of bytes of memory when it is decoded.
const GOSSIP_FRAMES_MAX: usize = 64;
/// Looks for further bytes in one such batch: a peer may send a frame byte by byte, and each look copies what has
/// arrived of it.
const GOSSIP_READS_MAX: usize = 64;
/// The code of a stream reset for lack of room; it only appears in traces.
pub(crate) const STREAM_SHED: u32 = 1;
/// Like [`STREAM_SHED`]: the exchange broke off.
const STREAM_BROKEN: u32 = 2;

/// A frame was not transferred.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The peer sent bytes that are not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream or the connection is gone.
    #[error("{0}")]
    Lost(String),
    /// Nothing moved for too long.
    #[error("nothing moved within the exchange timeout")]
    Stalled,
}

impl From<StreamError> for FrameError {
    fn from(error: StreamError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// The bytes that arrive on a stream. Most frames arrive complete, and are not copied.
#[derive(Debug)]
struct Reader {
    stream: Box<dyn ReceiveStream>,
    /// Received, and not yet taken.
    chunk: Bytes,
}

impl Reader {
    /// Takes `len` bytes, and allocates only for bytes that have arrived. `None` if the stream ends before the
    /// first one.
    async fn take(&mut self, len: usize) -> Result<Option<Bytes>, FrameError> {
        if len > 0 && self.chunk.is_empty() && !self.receive().await? {
            return Ok(None);
        }
        if self.chunk.len() >= len {
            return Ok(Some(self.chunk.split_to(len)));
        }
        let mut taken = Vec::new();
        loop {
            let missing = len - taken.len();
            let part = self.chunk.split_to(missing.min(self.chunk.len()));
            taken.extend_from_slice(&part);
            if taken.len() == len {
                return Ok(Some(taken.into()));
            }
            if !self.receive().await? {
                return Err(FrameError::Lost("the stream ended within a frame".to_owned()));
            }
        }
    }

    /// The same, if every [`CHUNK_BYTES`] arrive within the deadline.
    async fn body(
        &mut self,
        host: &Host,
        len: usize,
        deadline: Duration,
    ) -> Result<Bytes, FrameError> {
        if len <= CHUNK_BYTES {
            return within(host, deadline, self.take(len)).await??.ok_or_else(cut_short);
        }
        let mut body = Vec::new();
        while body.len() < len {
            let part = self.take(CHUNK_BYTES.min(len - body.len()));
            body.extend_from_slice(&within(host, deadline, part).await??.ok_or_else(cut_short)?);
        }
        Ok(body.into())
    }

    /// Appends bytes that have arrived already to those that are not taken yet; `false` if there are none.
    async fn receive_more(&mut self) -> Result<bool, FrameError> {
        let more = tokio::select! {
            biased;
            more = self.stream.read(CHUNK_BYTES) => more?,
            () = std::future::ready(()) => None,
        };
        let Some(more) = more else { return Ok(false) };
        let before = std::mem::take(&mut self.chunk);
        self.chunk = if before.is_empty() { more } else { [before, more].concat().into() };
        Ok(true)
    }

    /// A frame, and those that have arrived whole behind it.
    async fn arrived(&mut self, first: Bytes) -> Vec<Bytes> {
        let (mut bytes, mut reads, mut frames) = (first.len(), 0, vec![first]);
        while bytes < GOSSIP_BYTES && frames.len() < GOSSIP_FRAMES_MAX {
            match self.next_len() {
                // A long one needs room of its own; and a wrong length is for the next call to find.
                Some(len) if len > GOSSIP_BYTES => break,
                Some(len) if self.chunk.len() >= LENGTH_BYTES + len => {
                    let mut frame = self.chunk.split_to(LENGTH_BYTES + len);
                    bytes += frame.len();
                    frames.push(frame.split_off(LENGTH_BYTES));
                }
                None if self.chunk.len() >= LENGTH_BYTES => break,
                _ if reads == GOSSIP_READS_MAX => break,
                // An error comes again with the next call.
                _ => match self.receive_more().await {
                    Ok(true) => reads += 1,
                    Ok(false) | Err(_) => break,
                },
            }
        }
        frames
    }

    /// The length of the next frame, if it has arrived.
    fn next_len(&self) -> Option<usize> {
        let length = self.chunk.first_chunk::<LENGTH_BYTES>()?;
        frame_len(*length, FRAME_BYTES_MAX).ok()
    }

    /// Waits for more bytes; `false` at the end of the stream.
    async fn receive(&mut self) -> Result<bool, FrameError> {
        let chunk = self.stream.read(CHUNK_BYTES).await?;
        let more = chunk.is_some();
        self.chunk = chunk.unwrap_or_default();
        Ok(more)
    }
}

fn cut_short() -> FrameError {
    FrameError::Lost("the stream ended within a frame".to_owned())
}

/// The frames of gossip that a peer sends on one stream.
#[derive(Debug)]
pub(super) struct Incoming(Reader);

impl Incoming {
    pub(super) fn new(stream: Box<dyn ReceiveStream>) -> Self {
        Self(Reader { stream, chunk: Bytes::new() })
    }

    /// The next frames, without their lengths: one, and those that have arrived whole behind it, up to
    /// [`GOSSIP_BYTES`] and [`GOSSIP_FRAMES_MAX`]. Empty at the end of the stream.
    pub(super) async fn together(
        &mut self,
        host: &Host,
        link: &Link,
    ) -> Result<Vec<Bytes>, FrameError> {
        let Some(first) = self.next(host, link).await? else { return Ok(Vec::new()) };
        Ok(self.0.arrived(first).await)
    }

    /// The next frame, without its length; `None` at the end of the stream. The wait for a frame is unlimited, but
    /// once it has begun it has to keep moving.
    pub(super) async fn next(
        &mut self,
        host: &Host,
        link: &Link,
    ) -> Result<Option<Bytes>, FrameError> {
        if self.0.chunk.is_empty() && !self.0.receive().await? {
            return Ok(None);
        }
        let deadline = host.config().quic.exchange_timeout;
        let length =
            within(host, deadline, self.0.take(LENGTH_BYTES)).await??.ok_or_else(cut_short)?;
        let length = length[..].try_into().expect("so many bytes were asked for");
        let len = frame_len(length, FRAME_BYTES_MAX)?;
        if self.0.chunk.len() >= len {
            return Ok(Some(self.0.chunk.split_to(len)));
        }
        let _room = within(host, deadline, link.room.inbound.take(len)).await?;
        let whole = deadline + travel_time(len);
        Ok(Some(within(host, whole, self.0.take(len)).await??.ok_or_else(cut_short)?))
    }
}

/// A bidirectional stream of frames.
pub(super) struct StreamFrames {
    send: Box<dyn SendStream>,
    receive: Reader,
    pub(super) deadline: Duration,
    pub(super) max: usize,
    room: Room,
    links: Arc<Links>,
    /// The connection, once the peer's name is known.
    link: Option<Arc<Link>>,
    /// A frame of the peer was decoded and is being handled: no second one is held decoded.
    decoded: Option<OwnedSemaphorePermit>,
}

impl StreamFrames {
    /// For an exchange with an admitted peer.
    pub(super) fn new(stream: Stream, link: &Arc<Link>, links: &Arc<Links>) -> Self {
        Self { link: Some(Arc::clone(link)), ..Self::with_room(stream, link.room.clone(), links) }
    }

    /// Before the peer's introduction.
    pub(super) fn nameless(stream: Stream, links: &Arc<Links>) -> Self {
        Self::with_room(stream, links.room().clone(), links)
    }

    fn with_room((send, receive): Stream, room: Room, links: &Arc<Links>) -> Self {
        Self {
            send,
            receive: Reader { stream: receive, chunk: Bytes::new() },
            deadline: links.host().config().quic.exchange_timeout,
            max: FRAME_BYTES_MAX,
            room,
            links: Arc::clone(links),
            link: None,
            decoded: None,
        }
    }

    /// Ends our direction of the stream.
    pub(super) fn finish(&mut self) {
        self.decoded = None;
        self.send.finish();
    }

    /// Waits until the peer has received all that was sent.
    pub(super) async fn delivered(&mut self) {
        self.send.delivered().await;
    }

    /// Ends our direction of the stream, and waits until the peer has received all of it.
    pub(super) async fn finished(mut self) {
        self.finish();
        let _ = within(self.links.host(), self.deadline, self.send.delivered()).await;
    }

    /// Aborts the stream. Otherwise, data that the peer has not read would stay in memory as long as the
    /// connection: dropping a stream finishes it.
    pub(super) fn abort(mut self) {
        self.send.reset(STREAM_BROKEN);
        self.receive.stream.stop(STREAM_BROKEN);
    }

    /// Sends a frame.
    pub(super) async fn send(&mut self, message: &Message) -> Result<(), FrameError> {
        self.decoded = None;
        let frame = Bytes::from(message.encode()?);
        let _room =
            within(self.links.host(), self.deadline, self.room.outbound.take(frame.len())).await?;
        let (links, whole) = (Arc::clone(&self.links), self.deadline + travel_time(frame.len()));
        within(links.host(), whole, self.write(frame)).await?
    }

    /// The next frame; `None` when the peer has ended the stream between two frames.
    pub(super) async fn receive(&mut self) -> Result<Option<Message>, FrameError> {
        self.decoded = None;
        self.read().await.inspect_err(|error| count(self.links.host(), error))
    }

    async fn read(&mut self) -> Result<Option<Message>, FrameError> {
        let length =
            within(self.links.host(), self.deadline, self.receive.take(LENGTH_BYTES)).await??;
        let Some(length) = length else { return Ok(None) };
        let length = length[..].try_into().expect("so many bytes were asked for");
        let len = frame_len(length, self.max)?;
        let _room = within(self.links.host(), self.deadline, self.room.inbound.take(len)).await?;
        let whole = self.deadline + travel_time(len);
        let host = self.links.host();
        let frame = within(host, whole, self.receive.body(host, len, self.deadline)).await??;
        if let Some(link) = &self.link {
            self.decoded = Some(link.share.decode().await);
        }
        Ok(Some(Message::decode(&frame)?))
    }

    async fn write(&mut self, mut frame: Bytes) -> Result<(), FrameError> {
        while !frame.is_empty() {
            let chunk = frame.split_to(CHUNK_BYTES.min(frame.len()));
            self.afford(chunk.len()).await;
            within(self.links.host(), self.deadline, self.send.write(&mut [chunk])).await??;
        }
        Ok(())
    }

    /// Waits for the budget between datacenters.
    async fn afford(&self, bytes: usize) {
        let Some(link) = &self.link else { return };
        while let Some(wait) = self.links.bulk_waits(link) {
            tokio::time::sleep(wait).await;
        }
        self.links.handle(PeeringInput::Bulk(link.id, bytes));
    }
}

/// Counts bytes that are not a message.
pub(super) fn count(host: &Host, error: &FrameError) {
    if let FrameError::Wire(wire) = error {
        host.count(match wire {
            WireError::TooLong { .. } => Counter::FramesRefused,
            _ => Counter::FramesMalformed,
        });
    }
}

/// Waits for some work on the served clock.
async fn within<T>(
    host: &Host,
    deadline: Duration,
    work: impl Future<Output = T>,
) -> Result<T, FrameError> {
    let done = host.lateness().within(deadline, deadline * DIALER_MAX, work).await;
    done.map_err(|TooLate| FrameError::Stalled)
}

/// How long this many bytes may be in flight at the minimum rate.
fn travel_time(bytes: usize) -> Duration {
    // At most FRAME_BYTES_MAX, which fits into 32 bits by far.
    Duration::from_secs(1) * u32::try_from(bytes / BYTES_PER_SECOND_MIN).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe;

    fn frame(len: usize) -> Bytes {
        let length = u32::try_from(len).unwrap().to_be_bytes();
        [&length[..], &vec![7; len]].concat().into()
    }

    /// How many of the frames in these chunks are handed on with the first.
    async fn together(chunks: impl IntoIterator<Item = Bytes>) -> usize {
        let (mut out, stream) = pipe::one_way();
        let mut reader = Reader { stream: Box::new(stream), chunk: Bytes::new() };
        for chunk in chunks {
            if tokio::time::timeout(Duration::ZERO, out.write(&mut [chunk])).await.is_err() {
                break;
            }
        }
        reader.arrived(Bytes::from_static(b"first")).await.len()
    }

    #[tokio::test]
    async fn tiny_frames_are_handed_on_so_many_at_a_time() {
        let many: Vec<u8> = (0..10_000).flat_map(|_| frame(2)).collect();
        assert_eq!(together([many.into()]).await, GOSSIP_FRAMES_MAX);
    }

    #[tokio::test]
    async fn frames_are_handed_on_up_to_so_many_bytes() {
        let frames = (0..30).map(|_| frame(10_000));
        assert_eq!(together(frames).await, 1 + GOSSIP_BYTES.div_ceil(10_000));
    }

    #[tokio::test]
    async fn what_has_not_arrived_whole_waits_for_the_next_call() {
        let whole = frame(9);
        let half = whole.slice(..7);
        assert_eq!(together([whole.clone(), half]).await, 2);
        assert_eq!(together([whole.clone(), frame(GOSSIP_BYTES + 1), whole]).await, 2);
        assert_eq!(together([]).await, 1);
    }
}
