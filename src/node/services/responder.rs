//! The way back to a caller.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::lane::Lane;
use crate::protocol::service::{
    calls::Outcome,
    frame::{Code, Frame, LANE_BODY_MAX},
};

/// Answers one request. If it is dropped without an answer, the caller gets the refusal `NoAnswer` or `Panicked`.
#[derive(Debug)]
pub(crate) struct Responder {
    to: Option<To>,
}

#[derive(Debug)]
enum To {
    Lane(Arc<Lane>, u64),
    /// The caller is in this process.
    Here(oneshot::Sender<Outcome>),
}

impl Responder {
    pub(crate) const fn lane(lane: Arc<Lane>, id: u64) -> Self {
        Self { to: Some(To::Lane(lane, id)) }
    }

    pub(crate) const fn here(to: oneshot::Sender<Outcome>) -> Self {
        Self { to: Some(To::Here(to)) }
    }

    /// A test loses the answer.
    pub(crate) const fn nowhere() -> Self {
        Self { to: None }
    }

    /// Sends the answer. `load`: how full the service is.
    pub(crate) fn reply(mut self, load: u8, body: Bytes) {
        match self.to.take() {
            Some(To::Lane(lane, id)) if body.len() > LANE_BODY_MAX => {
                lane.answer_long(id, load, body);
            }
            Some(To::Lane(lane, id)) => lane.answer(id, &Frame::Reply { id, load, body }),
            Some(To::Here(to)) => drop(to.send(Outcome::Reply { load, body })),
            None => {}
        }
    }

    /// Sends the reason why there is no answer.
    pub(crate) fn refuse(mut self, code: Code, retry_after: Duration, words: impl Into<String>) {
        self.send(code, retry_after, words.into());
    }

    fn send(&mut self, code: Code, retry_after: Duration, words: String) {
        match self.to.take() {
            Some(To::Lane(lane, id)) => {
                let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                lane.answer(id, &Frame::Refuse { id, code, retry_after_ms, words });
            }
            Some(To::Here(to)) => drop(to.send(Outcome::Refused { code, retry_after, words })),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let code = if std::thread::panicking() { Code::Panicked } else { Code::NoAnswer };
        self.send(code, Duration::ZERO, String::new());
    }
}
