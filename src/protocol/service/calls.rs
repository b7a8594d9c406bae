//! The caller's half of a lane: what waits to be sent, what waits for an answer, and how each call ends.
//!
//! Every call ends exactly once: by its answer, by a refusal, by its deadline, or with the link. The end says whether
//! the request had been handed to the transport. If not, it has certainly not run. The line is drawn when the writer
//! takes the bytes, so in doubt a request counts as sent. It takes none before the other end has admitted this one: a
//! node that refuses the connection has run nothing.
//!
//! A node that is about to stop says so on each lane ([`Frame::Drain`]). From then on the lane takes nothing, what was
//! not sent is refused, and when all else is answered the caller closes the lane. So no request crosses the end of the
//! node, as with `GOAWAY` in HTTP/2 (RFC 9113, section 6.8).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    ServiceId,
    frame::{Cast, Code, Frame, Request},
    identity::{Question, Tag},
};
use crate::protocol::time::Time;

/// Services that one lane may bind.
pub const BINDS_MAX: usize = 1_024;
/// What a call or cast that waits to be sent counts beside its body, in bytes: about what it takes in memory. Without it
/// any number of empty messages could wait.
pub const WAITING_BYTES: usize = 64;
/// The number of a call's slot is in the low bits of its id.
const SLOT_BITS: u32 = 16;

/// The limits of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Calls that wait for an answer: at most 65,536.
    pub calls: usize,
    /// Bytes of bodies that wait to be sent; each counts [`WAITING_BYTES`] more.
    pub queue_bytes: usize,
}

/// How a call has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer.
    Reply {
        /// How full the service is: 0 is idle, 255 is full.
        load: u8,
        /// The encoded answer.
        body: Bytes,
    },
    /// The node has refused it, or it has failed there.
    Refused {
        /// Why.
        code: Code,
        /// When it makes sense to ask again.
        retry_after: Duration,
        /// The node's reason for people. It proves nothing.
        words: String,
    },
    /// The deadline has passed.
    Deadline {
        /// Whether it may have run.
        sent: bool,
    },
    /// The link has ended; its owner knows why.
    Ended {
        /// Whether it may have run.
        sent: bool,
    },
}

/// Why a lane takes no call or cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// As many calls as allowed wait for an answer.
    #[error("too many calls wait for an answer")]
    Calls,
    /// As many bytes as allowed wait to be sent.
    #[error("too many bytes wait to be sent")]
    Bytes,
    /// The lane has bound as many services as it may.
    #[error("too many services are called over one lane")]
    Binds,
    /// The other end takes no new requests.
    #[error("the node is about to stop")]
    Draining,
    /// The link has ended.
    #[error("the link has ended")]
    Ended,
}

/// A frame that the other end of a lane must not send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer to the request {0}, which was never sent")]
pub struct NeverAsked(pub u64);

/// The caller's half of one lane. `T` is what a caller waits with.
#[derive(Debug)]
pub struct Calls<T> {
    limits: LaneLimits,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    bound: BTreeMap<ServiceId, u32>,
    /// No deadline is earlier.
    earliest: Option<Time>,
    /// The other end has admitted this one.
    welcome: bool,
    /// The other end takes no new requests.
    draining: bool,
    ended: bool,
}

/// Room for one call at a time.
#[derive(Debug)]
struct Slot<T> {
    /// How many calls have used it.
    round: u64,
    call: Option<Pending<T>>,
}

#[derive(Debug)]
struct Pending<T> {
    token: T,
    deadline: Time,
    sent: bool,
}

/// What waits to be sent.
#[derive(Debug)]
enum Waiting {
    Bind { index: u32, service: ServiceId },
    Request { index: u32, id: u64, method: u16, tag: Tag, body: Bytes },
    Cast(Cast),
    Cancel(u64),
}

impl<T> Calls<T> {
    /// A lane that nothing has been sent on.
    #[must_use]
    pub const fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            bound: BTreeMap::new(),
            earliest: None,
            welcome: false,
            draining: false,
            ended: false,
        }
    }

    /// Queues a call; returns its id, for [`Calls::cancel`].
    ///
    /// # Errors
    /// [`NoRoom`], with the token: the call has not begun.
    pub fn call(
        &mut self,
        service: &ServiceId,
        question: impl Into<Question>,
        deadline: Time,
        token: T,
    ) -> Result<u64, (NoRoom, T)> {
        let Question { method, body, tag } = question.into();
        let checked = match self.is_full() {
            false => self.bind(service, body.len()),
            true => Err(NoRoom::Calls),
        };
        let index = match checked {
            Ok(index) => index,
            Err(full) => return Err((self.closed().unwrap_or(full), token)),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { round: 0, call: None });
            (self.slots.len() - 1) as u32
        });
        let held = &mut self.slots[slot as usize];
        held.call = Some(Pending { token, deadline, sent: false });
        let id = held.round << SLOT_BITS | u64::from(slot);
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        self.waiting_bytes += WAITING_BYTES + body.len();
        self.waiting.push_back(Waiting::Request { index, id, method, tag, body });
        Ok(id)
    }

    /// Queues a message without an answer.
    ///
    /// # Errors
    /// [`NoRoom`]: it was not queued.
    pub fn cast(
        &mut self,
        service: &ServiceId,
        message: impl Into<Question>,
    ) -> Result<(), NoRoom> {
        let Question { method, body, tag } = message.into();
        let index = self.bind(service, body.len())?;
        self.waiting_bytes += WAITING_BYTES + body.len();
        self.waiting.push_back(Waiting::Cast(Cast { index, method, tag, body }));
        Ok(())
    }

    /// Why it takes nothing at all any more, if it does not.
    #[must_use]
    pub const fn closed(&self) -> Option<NoRoom> {
        match (self.ended, self.draining) {
            (true, _) => Some(NoRoom::Ended),
            (false, true) => Some(NoRoom::Draining),
            (false, false) => None,
        }
    }

    /// The other end has admitted this one: what waits may be sent.
    pub const fn welcomed(&mut self) {
        self.welcome = true;
    }

    /// The other end takes no new requests: those that were not sent are refused, and so is all that comes.
    pub fn drain(&mut self, done: &mut Vec<(T, Outcome)>) {
        self.draining = true;
        self.waiting.retain(|waiting| matches!(waiting, Waiting::Cancel(_)));
        self.waiting_bytes = 0;
        let unsent: Vec<_> = self.ids(|call| !call.sent).collect();
        for id in unsent {
            let Some(call) = self.take(id) else { continue };
            let (code, retry_after, words) = (Code::Draining, Duration::ZERO, String::new());
            done.push((call.token, Outcome::Refused { code, retry_after, words }));
        }
    }

    /// Whether the other end takes no new requests and has answered all: the link is to be closed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.pending_calls() == 0
    }

    /// The number of a service on this lane, if there is room for a body.
    fn bind(&mut self, service: &ServiceId, body: usize) -> Result<u32, NoRoom> {
        if let Some(closed) = self.closed() {
            return Err(closed);
        }
        let with = self.waiting_bytes + WAITING_BYTES + body;
        if self.waiting_bytes > 0 && with > self.limits.queue_bytes {
            return Err(NoRoom::Bytes);
        }
        if let Some(index) = self.bound.get(service) {
            return Ok(*index);
        }
        if self.bound.len() >= BINDS_MAX {
            return Err(NoRoom::Binds);
        }
        let index = self.bound.len() as u32;
        self.bound.insert(service.clone(), index);
        self.waiting.push_back(Waiting::Bind { index, service: service.clone() });
        Ok(index)
    }

    /// The caller does not wait any more; returns its token. The other end is told if the request was sent.
    pub fn cancel(&mut self, id: u64) -> Option<T> {
        let pending = self.take(id)?;
        if pending.sent && !self.ended {
            self.waiting.push_back(Waiting::Cancel(id));
        }
        Some(pending.token)
    }

    /// Appends what waits to `to`, as long as that has fewer than `most` bytes. A call whose deadline has passed is
    /// not sent: its end is appended to `done`.
    pub fn write(
        &mut self,
        now: Time,
        most: usize,
        to: &mut BytesMut,
        done: &mut Vec<(T, Outcome)>,
    ) {
        while self.welcome && to.len() < most {
            let Some(next) = self.waiting.pop_front() else { return };
            match next {
                Waiting::Bind { index, service } => Frame::Bind { index, service }.encode(to),
                Waiting::Cancel(id) => Frame::Cancel { id }.encode(to),
                Waiting::Cast(cast) => {
                    self.waiting_bytes -= WAITING_BYTES + cast.body.len();
                    Frame::Cast(cast).encode(to);
                }
                Waiting::Request { index, id, method, tag, body } => {
                    self.waiting_bytes -= WAITING_BYTES + body.len();
                    let Some(call) = self.pending(id) else { continue };
                    let left = call.deadline.since(now);
                    if left.is_zero() {
                        let call = self.take(id).expect("it is pending");
                        done.push((call.token, Outcome::Deadline { sent: false }));
                        continue;
                    }
                    call.sent = true;
                    // Rounded up: a request with some time left does not arrive with none.
                    let left_ms =
                        u32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
                    Frame::Request(Request { index, id, method, left_ms, tag, body }).encode(to);
                }
            }
        }
    }

    /// Takes an answer. An answer to a call that has ended already is ignored.
    ///
    /// # Errors
    /// [`NeverAsked`]: the other end breaks the protocol.
    pub fn answered(
        &mut self,
        id: u64,
        outcome: Outcome,
    ) -> Result<Option<(T, Outcome)>, NeverAsked> {
        let slot = self.slot(id).ok_or(NeverAsked(id))?;
        let round = id >> SLOT_BITS;
        let is_present = slot.round == round && slot.call.as_ref().is_some_and(|call| call.sent);
        if !is_present {
            return if slot.round > round { Ok(None) } else { Err(NeverAsked(id)) };
        }
        Ok(self.take(id).map(|call| (call.token, outcome)))
    }

    /// Ends the calls whose deadline has passed. The other end is told.
    pub fn tick(&mut self, now: Time, done: &mut Vec<(T, Outcome)>) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        let late: Vec<_> = self.ids(|call| call.deadline <= now).collect();
        for id in late {
            let Some(call) = self.take(id) else { continue };
            if call.sent && !self.ended {
                self.waiting.push_back(Waiting::Cancel(id));
            }
            done.push((call.token, Outcome::Deadline { sent: call.sent }));
        }
        self.earliest =
            self.slots.iter().filter_map(|slot| Some(slot.call.as_ref()?.deadline)).min();
    }

    /// The link has ended, and with it all calls. It takes nothing from now on.
    pub fn end(&mut self, done: &mut Vec<(T, Outcome)>) {
        self.ended = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        let all: Vec<_> = self.ids(|_| true).collect();
        for id in all {
            let Some(call) = self.take(id) else { continue };
            done.push((call.token, Outcome::Ended { sent: call.sent }));
        }
    }

    /// Whether [`Calls::end`] was called.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// When [`Calls::tick`] has something to do at the earliest.
    #[must_use]
    pub const fn wake(&self) -> Option<Time> {
        self.earliest
    }

    /// Calls that wait for an answer, or to be sent.
    #[must_use]
    pub fn pending_calls(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether as many calls as allowed wait for an answer.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending_calls() >= self.limits.calls.min(1 << SLOT_BITS)
    }

    /// Whether something waits to be sent, or to be admitted.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What waits to be sent, in bytes; see [`LaneLimits::queue_bytes`].
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn slot(&self, id: u64) -> Option<&Slot<T>> {
        self.slots.get((id & ((1 << SLOT_BITS) - 1)) as usize)
    }

    fn pending(&mut self, id: u64) -> Option<&mut Pending<T>> {
        let slot = self.slots.get_mut((id & ((1 << SLOT_BITS) - 1)) as usize)?;
        slot.call.as_mut().filter(|_| slot.round == id >> SLOT_BITS)
    }

    fn take(&mut self, id: u64) -> Option<Pending<T>> {
        self.pending(id)?;
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let call = self.slots[slot].call.take();
        self.slots[slot].round += 1;
        self.free.push(slot as u32);
        call
    }

    fn ids(&self, wanted: impl Fn(&Pending<T>) -> bool) -> impl Iterator<Item = u64> {
        self.slots.iter().enumerate().filter_map(move |(at, slot)| {
            let wanted = slot.call.as_ref().is_some_and(&wanted);
            wanted.then_some(slot.round << SLOT_BITS | at as u64)
        })
    }
}

#[cfg(test)]
mod tests;
