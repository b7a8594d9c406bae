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
        stream::UnderWay,
    },
    protocol::{
        id::NodeId,
        service::{attempt::Ending, calls::Outcome, stream::StreamFrame},
    },
};

/// An open stream. Dropping it informs the other end that the caller does not wait any more.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) node: NodeId,
    pub(super) writer: FrameWriter,
    pub(super) reader: FrameReader,
    pub(super) guard: Guard,
}

/// Keeps a stream counted, and served.
#[derive(Debug)]
pub(super) struct Guard {
    under_way: UnderWay,
    /// The task of the other end, if that is in this process.
    _served: Option<AbortOnDrop>,
}

impl Guard {
    pub(super) const fn new(under_way: UnderWay, served: Option<AbortOnDrop>) -> Self {
        Self { under_way, _served: served }
    }

    /// Why the stream has failed.
    async fn failure(&self, why: &str) -> CallFailure {
        let why = self.under_way.why(why).await;
        let ending = Ending::settle(Outcome::Ended { sent: true }, || why);
        ending.result.expect_err("it has no answer")
    }
}

impl Conversation {
    /// The next frame of the callee that means something to the caller.
    pub(super) async fn next(&mut self) -> Result<Framed, CallFailure> {
        match self.reader.next().await {
            Ok(Some(Framed {
                frame: StreamFrame::Refuse { code, retry_after_ms, words }, ..
            })) => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                let outcome = Outcome::Refused { code, retry_after, words };
                let ending = Ending::settle(outcome, || unreachable!("the link has not ended"));
                Err(ending.result.expect_err("it is refused"))
            }
            Ok(Some(framed)) => Ok(framed),
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
