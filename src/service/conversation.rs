//! A stream of one call at the caller.

use std::time::Duration;

use bytes::Bytes;

use super::{
    error::{CallError, CallFailure, Failure},
    side::AbortOnDrop,
};
use crate::{
    node::services::{
        framed::{Broken, FrameReader, FrameWriter, Framed},
        stream::{OpenStream, UnderWay},
    },
    protocol::{
        id::NodeId,
        service::{
            attempt::Ending,
            calls::Outcome,
            failure::{refused, refused_after_begun},
            stream::StreamFrame,
        },
    },
};

/// An open stream. Dropping it informs the other end that the caller does not wait any more.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) node: NodeId,
    pub(super) writer: FrameWriter,
    pub(super) reader: FrameReader,
    pub(super) guard: Guard,
    /// The handler has begun: the call may have run.
    begun: bool,
}

/// Keeps a stream counted, and served.
#[derive(Debug)]
pub(super) struct Guard {
    under_way: UnderWay,
    /// The task of the other end, if that is in this process.
    served: Option<AbortOnDrop>,
}

impl Guard {
    const fn new(under_way: UnderWay, served: Option<AbortOnDrop>) -> Self {
        Self { under_way, served }
    }

    /// The handler finds out by its bytes that the caller is gone, also if it is in this process.
    pub(super) fn detached(mut self) -> Self {
        if let Some(served) = self.served.take() {
            served.detach();
        }
        self
    }

    /// Why the stream has failed.
    async fn failure(&self, why: &str) -> CallFailure {
        let why = self.under_way.why(why).await;
        let ending = Ending::settle(Outcome::Ended { sent: true }, || why);
        ending.result.expect_err("it has no answer")
    }
}

impl Conversation {
    /// A stream that was opened to a node. Nothing has come over it.
    pub(super) fn new(node: NodeId, opened: OpenStream, served: Option<AbortOnDrop>) -> Self {
        let OpenStream { writer, reader, under_way } = opened;
        Self { node, writer, reader, guard: Guard::new(under_way, served), begun: false }
    }

    /// The next frame of the callee that means something to the caller.
    pub(super) async fn next(&mut self) -> Result<Framed, CallFailure> {
        match self.reader.next().await {
            Ok(Some(Framed {
                frame: StreamFrame::Refuse { code, retry_after_ms, words }, ..
            })) => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                let means = if self.begun { refused_after_begun } else { refused };
                Err(means(code, retry_after, words))
            }
            Ok(Some(framed)) => {
                // Its first frame is `Begun`, or the answer itself.
                self.begun = true;
                Ok(framed)
            }
            Ok(None) => Err(self.guard.failure("the node has broken the stream off").await),
            Err(Broken::Bad(crate::protocol::service::frame::BadFrame::TooLong(bytes))) => {
                Err(CallFailure::Failed(Failure::ReplyTooLarge(format!("{bytes} bytes"))))
            }
            Err(broken) => Err(self.guard.failure(&broken.to_string()).await),
        }
    }

    /// The answer of a method that has one.
    pub(super) async fn answer(&mut self) -> Result<(u8, Bytes), CallFailure> {
        let mut answer = None;
        loop {
            let Framed { frame, .. } = self.next().await?;
            match (frame, answer.take()) {
                (StreamFrame::Begun, None) => {}
                (StreamFrame::Item(body), None) => answer = Some(body),
                (StreamFrame::End { load }, Some(body)) => return Ok((load, body)),
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// The node breaks the protocol.
    pub(super) fn unexpected(&self) -> CallFailure {
        CallFailure::Failed(Failure::NotDecoded(
            "a frame that this stream does not take".to_owned(),
        ))
    }

    /// The error that the caller gets for this failure.
    pub(super) fn error(&self, failure: CallFailure) -> CallError {
        let reason = failure.reason();
        CallError::new(failure, vec![(self.node.clone(), reason)])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        net::pipe,
        node::services::{room::Rooms, stream},
        protocol::service::{
            failure::NotRun,
            frame::Code::{self, Deadline, Draining, Malformed, Overloaded, TooLarge},
        },
    };

    /// What becomes of a stream that brings these frames, and then a refusal.
    async fn refused(frames: &[StreamFrame], code: Code) -> CallFailure {
        let (near, far) = pipe::two_way();
        let rooms = Rooms::of_peer(&Arc::new(Semaphore::new(100_000)), 100_000, 50_000);
        let opened = stream::here(near, 50_000, rooms);
        let mut conversation = Conversation::new(NodeId::new("b").unwrap(), opened, None);
        let writer = FrameWriter::new(far.0);
        for frame in frames {
            writer.write(frame.clone()).await.unwrap();
        }
        let words = "so".to_owned();
        writer.finish([StreamFrame::Refuse { code, retry_after_ms: 0, words }]).await;
        conversation.answer().await.unwrap_err()
    }

    #[tokio::test]
    async fn a_call_that_has_begun_is_never_said_not_to_have_run() {
        let item = || StreamFrame::Item(Bytes::from_static(b"a part"));
        for code in [Deadline, Draining, Malformed, Overloaded, TooLarge] {
            for begun in [vec![StreamFrame::Begun], vec![item()], vec![StreamFrame::Begun, item()]]
            {
                let failure = refused(&begun, code).await;
                assert_eq!(failure, CallFailure::Failed(Failure::NoAnswer), "{code:?}");
            }
        }
        let panicked = refused(&[StreamFrame::Begun], Code::Panicked).await;
        assert_eq!(panicked, CallFailure::Failed(Failure::Panicked));
        assert_eq!(refused(&[], Draining).await, CallFailure::NotRun(NotRun::Draining));
    }
}
