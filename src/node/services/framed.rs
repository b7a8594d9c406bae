//! The frames of one stream, read and written.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::room::{Held, Rooms};
use crate::{
    net::{ReceiveStream, SendStream, StreamError},
    protocol::service::{
        frame::{BadFrame, LANE_BODY_MAX},
        stream::{StreamFrame, StreamFrames},
    },
};

/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;
/// A body that uses room has to go on within this time.
const STALL: Duration = Duration::from_secs(10);

/// Reads the frames of a stream. Nothing is lost if a read is dropped.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: Box<dyn ReceiveStream>,
    frames: StreamFrames,
    rooms: Rooms,
    held: Option<Held>,
}

/// A frame, and the room that its body uses.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) frame: StreamFrame,
    pub(crate) held: Option<Held>,
}

/// Why there is no further frame.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The stream or its connection has failed.
    Failed(StreamError),
    /// The other end breaks the protocol.
    Bad(BadFrame),
    /// The stream ends within a frame.
    Cut,
    /// A body that uses room does not go on.
    Stalled,
}

impl FrameReader {
    pub(crate) fn new(stream: Box<dyn ReceiveStream>, body_max: usize, rooms: Rooms) -> Self {
        Self { stream, frames: StreamFrames::new(body_max), rooms, held: None }
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Framed>, Broken> {
        loop {
            let wants = self.frames.wants().map_err(Broken::Bad)?;
            if let (Some(bytes), None) = (wants.filter(|bytes| *bytes > LANE_BODY_MAX), &self.held)
            {
                self.held = Some(self.rooms.take(bytes).await);
            }
            if let Some(frame) = self.frames.take().map_err(Broken::Bad)? {
                return Ok(Some(Framed { frame, held: self.held.take() }));
            }
            let read = self.stream.read(READ_BYTES);
            let read = match self.held {
                Some(_) => tokio::time::timeout(STALL, read).await.map_err(|_| Broken::Stalled)?,
                None => read.await,
            };
            match read.map_err(Broken::Failed)? {
                Some(chunk) => self.frames.push(chunk),
                None if wants.is_some() => return Err(Broken::Cut),
                None => return Ok(None),
            }
        }
    }

    /// The plain bytes behind the last frame, and the stream that brings more.
    pub(crate) fn into_bytes(mut self) -> (Bytes, Box<dyn ReceiveStream>) {
        (self.frames.rest(), self.stream)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Bad(error) => error.fmt(f),
            Self::Cut => f.write_str("the stream ends within a frame"),
            Self::Stalled => write!(f, "a long body does not go on within {STALL:?}"),
        }
    }
}

/// Writes the frames of a stream.
///
/// A write that is dropped ends the stream: the other end must not take the next frame for the rest of this one.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    stream: Mutex<Option<Box<dyn SendStream>>>,
    begun: AtomicBool,
}

/// The stream takes nothing more: the other end has stopped it, or the connection has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over;

impl FrameWriter {
    pub(crate) fn new(stream: Box<dyn SendStream>) -> Self {
        Self { stream: Mutex::new(Some(stream)), begun: AtomicBool::new(false) }
    }

    /// Writes a frame; it waits for the other end's window.
    pub(crate) async fn write(&self, frame: StreamFrame) -> Result<(), Over> {
        let mut place = self.stream.lock().await;
        let mut stream = place.take().ok_or(Over)?;
        stream.write(&mut frame.pieces()).await.map_err(|_| Over)?;
        *place = Some(stream);
        Ok(())
    }

    /// Tells the caller that the handler begins.
    pub(crate) async fn begin(&self) -> Result<(), Over> {
        self.begun.store(true, Ordering::Release);
        self.write(StreamFrame::Begun).await
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Writes the last frames.
    pub(crate) async fn finish(&self, frames: impl IntoIterator<Item = StreamFrame>) {
        for frame in frames {
            if self.write(frame).await.is_err() {
                return;
            }
        }
        if let Some(mut stream) = self.take().await {
            stream.finish();
        }
    }

    /// The stream, for plain bytes.
    pub(crate) async fn take(&self) -> Option<Box<dyn SendStream>> {
        self.stream.lock().await.take()
    }

    /// The same, where nobody else writes.
    pub(crate) fn into_stream(self) -> Option<Box<dyn SendStream>> {
        self.stream.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::net::pipe;

    fn item(bytes: usize) -> Bytes {
        let mut to = BytesMut::new();
        StreamFrame::Item(Bytes::from(vec![0; bytes])).encode(&mut to);
        to.freeze()
    }

    fn reader() -> (pipe::PipeSender, FrameReader, Arc<Semaphore>) {
        let (out, stream) = pipe::one_way();
        let room = Arc::new(Semaphore::new(100_000));
        let rooms = Rooms::of_peer(&room, 100_000, 50_000);
        (out, FrameReader::new(Box::new(stream), 50_000, rooms), room)
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_that_stalls_gives_its_room_back() {
        let (mut out, mut reader, room) = reader();
        out.write(&mut [item(40_000).slice(..20_000)]).await.unwrap();
        assert!(matches!(reader.next().await, Err(Broken::Stalled)));
        drop(reader);
        assert_eq!(room.available_permits(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_uses_room_until_its_frame_is_dropped_and_a_short_one_none() {
        let (mut out, mut reader, room) = reader();
        out.write(&mut [item(16_000), item(40_000)]).await.unwrap();
        let short = reader.next().await.unwrap().unwrap();
        assert!(short.held.is_none());
        let long = reader.next().await.unwrap().unwrap();
        assert!(room.available_permits() < 60_001, "{}", room.available_permits());
        drop(long);
        assert_eq!(room.available_permits(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_within_a_frame_is_cut() {
        let (mut out, mut reader, _) = reader();
        out.write(&mut [item(10), item(10).slice(..5)]).await.unwrap();
        out.finish();
        assert!(reader.next().await.unwrap().is_some());
        assert!(matches!(reader.next().await, Err(Broken::Cut)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_dropped_ends_the_stream() {
        let (out, _stream) = pipe::one_way();
        let writer = FrameWriter::new(Box::new(out));
        let endless = async { while writer.write(StreamFrame::Begun).await.is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_secs(1), endless).await.is_err());
        assert!(writer.write(StreamFrame::Begun).await.is_err());
    }
}
