//! The frames of one stream, read and written.

use std::{fmt, pin::Pin};

use bytes::Bytes;
use tokio::{sync::Mutex, time::Sleep};

use super::{
    room::{Held, Rooms},
    unfinished::Unfinished,
};
use crate::{
    net::{ReceiveStream, SendStream, StreamError},
    protocol::service::{
        frame::{BadFrame, LANE_BODY_MAX},
        stream::{StreamFrame, StreamFrames, body_time},
    },
};

/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;

/// Reads the frames of a stream. Nothing is lost if a read is dropped.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: Box<dyn ReceiveStream>,
    frames: StreamFrames,
    /// `None`: long bodies use no room.
    rooms: Option<Rooms>,
    long: Option<Long>,
}

/// A long body that arrives.
#[derive(Debug)]
struct Long {
    held: Held,
    /// The end of its time.
    late: Pin<Box<Sleep>>,
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
    /// A body that uses room has not arrived in its time.
    Late,
}

impl FrameReader {
    pub(crate) fn new(stream: Box<dyn ReceiveStream>, body_max: usize, rooms: Rooms) -> Self {
        Self { stream, frames: StreamFrames::new(body_max), rooms: Some(rooms), long: None }
    }

    /// Long bodies use no room from now on, and have no time limit: who waits for the frames holds one at a time.
    pub(crate) fn use_no_room(&mut self) {
        self.rooms = None;
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Framed>, Broken> {
        loop {
            let wants = self.frames.wants().map_err(Broken::Bad)?;
            if let (Some(rooms), Some(bytes), None) =
                (&self.rooms, wants.filter(|bytes| *bytes > LANE_BODY_MAX), &self.long)
            {
                let held = rooms.take(bytes).await;
                let late = Box::pin(tokio::time::sleep(body_time(bytes)));
                self.long = Some(Long { held, late });
            }
            if let Some(frame) = self.frames.take().map_err(Broken::Bad)? {
                return Ok(Some(Framed { frame, held: self.long.take().map(|long| long.held) }));
            }
            let read = self.stream.read(READ_BYTES);
            let read = match &mut self.long {
                // What is there counts, also if nobody has read for long.
                Some(Long { late, .. }) => tokio::select! {
                    biased;
                    read = read => read,
                    () = late.as_mut() => return Err(Broken::Late),
                },
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
            Self::Late => f.write_str("a long body has not arrived in its time"),
        }
    }
}

/// Writes the frames of a stream.
///
/// A write that is dropped ends the stream: the other end must not take the next frame for the rest of this one. So does
/// dropping the writer: only [`FrameWriter::finish`] is a proper end.
#[derive(Debug)]
pub(crate) struct FrameWriter(Mutex<Option<Unfinished>>);

/// The stream takes nothing more: the other end has stopped it, or the connection has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over;

impl FrameWriter {
    pub(crate) fn new(stream: Box<dyn SendStream>) -> Self {
        Self(Mutex::new(Some(Unfinished::new(stream))))
    }

    /// Writes a frame; it waits for the other end's window.
    pub(crate) async fn write(&self, frame: StreamFrame) -> Result<(), Over> {
        let mut place = self.0.lock().await;
        let mut stream = place.take().ok_or(Over)?;
        stream.write(&mut frame.pieces()).await.map_err(|_| Over)?;
        *place = Some(stream);
        Ok(())
    }

    /// Writes the last frames.
    pub(crate) async fn finish(&self, frames: impl IntoIterator<Item = StreamFrame>) {
        for frame in frames {
            if self.write(frame).await.is_err() {
                return;
            }
        }
        if let Some(stream) = self.take().await {
            stream.finish();
        }
    }

    /// The stream, for plain bytes.
    pub(crate) async fn take(&self) -> Option<Unfinished> {
        self.0.lock().await.take()
    }

    /// The same, where nobody else writes.
    pub(crate) fn into_stream(self) -> Option<Unfinished> {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

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
    async fn a_long_body_that_trickles_has_one_time_and_gives_its_room_back() {
        let (mut out, mut reader, room) = reader();
        let trickles = async {
            for at in 0.. {
                let byte = item(40_000).slice(at..=at);
                if out.write(&mut [byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = trickles => panic!("it is read on"),
            read = reader.next() => assert!(matches!(read, Err(Broken::Late))),
        }
        drop(reader);
        assert_eq!(room.available_permits(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_without_room_has_no_time_limit() {
        let (mut out, mut reader, room) = reader();
        reader.use_no_room();
        out.write(&mut [item(40_000).slice(..20_000)]).await.unwrap();
        assert!(tokio::time::timeout(body_time(40_000) * 2, reader.next()).await.is_err());
        assert_eq!(room.available_permits(), 100_000);
        out.write(&mut [item(40_000).slice(20_000..)]).await.unwrap();
        let read = reader.next().await.unwrap().unwrap();
        assert!(matches!(read.frame, StreamFrame::Item(body) if body.len() == 40_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_has_no_proper_end_before_it_is_finished() {
        for finish in [false, true] {
            let (out, stream) = pipe::one_way();
            let room = Arc::new(Semaphore::new(100_000));
            let rooms = Rooms::of_peer(&room, 100_000, 50_000);
            let mut reader = FrameReader::new(Box::new(stream), 50_000, rooms);
            let writer = FrameWriter::new(Box::new(out));
            writer.write(StreamFrame::Begun).await.unwrap();
            if finish {
                writer.finish([]).await;
            }
            drop(writer);
            assert!(reader.next().await.unwrap().is_some());
            assert_eq!(reader.next().await.is_ok(), finish);
        }
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
