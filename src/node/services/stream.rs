//! Streams of single calls at the caller's end of a connection, and long answers to calls on its lane.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    framed::{Broken, FrameReader, FrameWriter, Framed},
    link::Link,
    room::Rooms,
};
use crate::{
    net::{Connection, Stream},
    protocol::service::{
        calls::{NoRoom, Outcome},
        frame::{BadFrame, Code},
        link_end::LinkEnd,
        stream::{STREAMS_PER_PEER, StreamFrame},
    },
};

/// A stream that is open, and counts at its link.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) writer: FrameWriter,
    pub(crate) reader: FrameReader,
    pub(crate) under_way: UnderWay,
}

/// One of the streams of a link, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Option<Arc<Link>>);

impl UnderWay {
    /// Of a call to this node itself.
    pub(crate) const fn here() -> Self {
        Self(None)
    }

    /// Why the stream has failed, now that it has.
    pub(crate) async fn why(&self, failed: &str) -> LinkEnd {
        let Some(link) = &self.0 else { return LinkEnd::Connection(failed.to_owned()) };
        if link.has_ended() {
            return link.why();
        }
        if link.connection().is_some_and(|connection| !connection.is_open()) {
            // The task of the connection is about to find out why.
            link.ended().await;
            return link.why();
        }
        LinkEnd::Connection(failed.to_owned())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(link) = &self.0 else { return };
        let now = link.clock.now();
        let mut state = link.lock();
        state.streams -= 1;
        state.used = now;
        drop(state);
        link.room.notify_waiters();
        link.end_if_drained();
    }
}

impl Link {
    /// Opens a stream, once the node has admitted this one. `body_max`: the longest body of an answer, in bytes.
    pub(crate) async fn open(self: &Arc<Self>, body_max: usize) -> Result<OpenStream, NoRoom> {
        let under_way = self.begin()?;
        tokio::select! {
            biased;
            () = self.ended() => return Err(NoRoom::Ended),
            () = self.welcome.wait() => {}
        }
        let connection = self.connection().ok_or(NoRoom::Ended)?;
        let opened = tokio::select! {
            biased;
            () = self.ended() => return Err(NoRoom::Ended),
            opened = connection.open() => opened,
        };
        let Ok((send, receive)) = opened else {
            self.ended().await;
            return Err(NoRoom::Ended);
        };
        let (send, _) = self.abroad.sends(send, connection.peer());
        let reader = FrameReader::new(receive, body_max, self.rooms.clone());
        Ok(OpenStream { writer: FrameWriter::new(send), reader, under_way })
    }

    fn begin(self: &Arc<Self>) -> Result<UnderWay, NoRoom> {
        let now = self.clock.now();
        let mut state = self.lock();
        if let Some(closed) = state.calls.closed() {
            return Err(closed);
        }
        if state.streams >= STREAMS_PER_PEER {
            return Err(NoRoom::Calls);
        }
        state.streams += 1;
        state.used = now;
        drop(state);
        Ok(UnderWay(Some(Arc::clone(self))))
    }
}

/// The caller's end of a stream to this node itself.
pub(crate) fn here((send, receive): Stream, body_max: usize, rooms: Rooms) -> OpenStream {
    let reader = FrameReader::new(receive, body_max, rooms);
    OpenStream { writer: FrameWriter::new(send), reader, under_way: UnderWay::here() }
}

/// Long answers of a node that arrive at once on one connection.
const LONG_ANSWERS_MAX: u32 = 16;

/// Takes the long answers of a node; returns if it breaks the protocol.
pub(super) async fn long_answers(
    link: &Arc<Link>,
    connection: &dyn Connection,
    body_max: usize,
) -> LinkEnd {
    connection.set_streams(0, LONG_ANSWERS_MAX);
    let mut answers: JoinSet<Result<(), String>> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = answers.join_next() => {
                if let Ok(Err(why)) = done {
                    return link.offended(&why);
                }
            }
            opened = connection.accept_one_way() => match opened {
                Ok(stream) => {
                    let (link, rooms) = (Arc::clone(link), link.rooms.clone());
                    let reader = FrameReader::new(stream, body_max, rooms);
                    answers.spawn(async move { long_answer(&link, reader).await });
                }
                // The connection has ended, which its task finds out.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Takes one long answer. It counts against the room for answers until its caller has it.
async fn long_answer(link: &Link, mut reader: FrameReader) -> Result<(), String> {
    let (id, load) = match reader.next().await {
        Ok(Some(Framed { frame: StreamFrame::Answer { id, load }, .. })) => (id, load),
        Ok(Some(_)) => return Err("a stream that brings no answer".to_owned()),
        // Its call ends by its deadline.
        Ok(None) | Err(Broken::Failed(_) | Broken::Cut | Broken::Late) => return Ok(()),
        Err(Broken::Bad(bad)) => return Err(bad.to_string()),
    };
    let refused =
        |code, words: String| Outcome::Refused { code, retry_after: Duration::ZERO, words };
    let read = reader.next().await;
    let outcome = match &read {
        Ok(Some(Framed { frame: StreamFrame::Item(body), .. })) => {
            Outcome::Reply { load, body: body.clone() }
        }
        // The node may have another limit.
        Err(Broken::Bad(BadFrame::TooLong(bytes))) => {
            refused(Code::ReplyTooLarge, format!("{bytes} bytes"))
        }
        Ok(None) => refused(Code::NoAnswer, "the answer breaks off".to_owned()),
        Err(broken @ (Broken::Failed(_) | Broken::Cut | Broken::Late)) => {
            refused(Code::NoAnswer, format!("the answer breaks off: {broken}"))
        }
        Ok(Some(_)) | Err(Broken::Bad(_)) => {
            return Err("a stream that brings no answer".to_owned());
        }
    };
    link.answered(id, outcome).map_err(|error| error.to_string())
}
