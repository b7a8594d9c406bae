//! The callee's end of a lane: its requests under way, and the answers that wait to be sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use super::{
    caller::Caller,
    callers::Bound,
    long::Long,
    rates::CallerRates,
    room::{NO_ROOM, Unsent},
    running::Running,
};
use crate::protocol::{
    service::{
        exposed::WrongNumbers,
        frame::{Code, Frame},
        intake::Intake,
    },
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
    /// Answers that are too long for the lane. `unsent` limits them.
    long: mpsc::UnboundedSender<Long>,
    unsent: Arc<Unsent>,
    /// What its caller may send in a second.
    pub(super) rates: Arc<CallerRates>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) intake: Intake<Bound, Arc<Running>>,
    pub(super) wrong_numbers: WrongNumbers,
    out: BytesMut,
    ended: bool,
}

impl Lane {
    /// The lane, and its answers that are too long for it.
    pub(super) fn new(
        caller: Caller,
        queue_bytes: usize,
        unsent: Arc<Unsent>,
        rates: Arc<CallerRates>,
    ) -> (Self, mpsc::UnboundedReceiver<Long>) {
        let (long, waiting) = mpsc::unbounded_channel();
        let lane = Self {
            caller: Arc::new(caller),
            queue_bytes,
            state: Mutex::default(),
            answers: Notify::new(),
            sent: Notify::new(),
            over: Notify::new(),
            long,
            unsent,
            rates,
        };
        (lane, waiting)
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

    /// Queues an answer that is too long for the lane, if the caller still waits for it.
    pub(super) fn answer_long(&self, id: u64, load: u8, body: Bytes) {
        let Some(counted) = self.unsent.count(self.caller.name(), body.len()) else {
            let (code, words) = (Code::ReplyTooLarge, NO_ROOM.to_owned());
            return self.answer(id, &Frame::Refuse { id, code, retry_after_ms: 0, words });
        };
        let mut state = self.lock();
        if !state.ended && state.intake.finished(id) {
            drop(state);
            // It fails if the connection has ended.
            let _ = self.long.send(Long { id, load, body, counted });
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
