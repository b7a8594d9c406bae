//! The callee's end of a lane: its requests under way, and the answers that wait to be sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::{caller::Caller, running::Running};
use crate::protocol::{
    service::{ServiceId, exposed::WrongNumbers, frame::Frame, intake::Intake},
    time::Time,
};

/// Bytes written to the stream at once.
pub(crate) const WRITE_BYTES: usize = 48 << 10;

/// The callee's end of one lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) caller: Arc<Caller>,
    /// Bytes of answers that wait to be sent, above which no further request is read.
    queue_bytes: usize,
    state: Mutex<State>,
    /// An answer waits.
    pub(super) answers: Notify,
    /// Answers were sent.
    pub(super) sent: Notify,
    /// The lane was ended by this end.
    pub(super) over: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) intake: Intake<ServiceId, Arc<Running>>,
    pub(super) wrong_numbers: WrongNumbers,
    out: BytesMut,
    ended: bool,
}

impl Lane {
    pub(super) fn new(caller: Caller, queue_bytes: usize) -> Self {
        Self {
            caller: Arc::new(caller),
            queue_bytes,
            state: Mutex::default(),
            answers: Notify::new(),
            sent: Notify::new(),
            over: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Code under the lock does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the answer to a request, if the caller still waits for it.
    pub(super) fn answer(&self, id: u64, frame: &Frame) {
        let mut state = self.lock();
        if !state.ended && state.intake.finished(id) {
            frame.encode(&mut state.out);
            drop(state);
            self.answers.notify_one();
        }
    }

    /// Queues a frame that answers no request.
    pub(super) fn say(&self, frame: &Frame) {
        frame.encode(&mut self.lock().out);
        self.answers.notify_one();
    }

    /// The next bytes to write; `None` if nothing waits.
    pub(super) fn next_write(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let most = state.out.len().min(WRITE_BYTES);
        (most > 0).then(|| state.out.split_to(most).freeze())
    }

    /// Whether too many answers wait for the caller to read them.
    pub(super) fn is_full(&self) -> bool {
        self.lock().out.len() > self.queue_bytes
    }

    /// Stops the requests whose deadline has passed; returns when to look again.
    pub(super) fn stop_late(&self, now: Time) -> Option<Time> {
        let mut state = self.lock();
        let late = state.intake.late(now);
        let next = state.intake.wake();
        drop(state);
        late.iter().for_each(|running| running.cancel());
        next
    }

    /// Stops all requests, and has the task of the connection close it.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let running = state.intake.end();
        drop(state);
        running.iter().for_each(|running| running.cancel());
        self.over.notify_one();
    }
}
