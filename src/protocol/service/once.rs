//! The calls that an offer has run, and their answers: a repeated call is answered from memory.
//!
//! A call that was lost may have run, and its caller cannot know. If it asks the same node again with the same identity
//! (its caller and its [number](super::identity::Tag::number)), the node answers what it has answered before, and runs it at most once. It
//! holds as long as the node lives and for a window of time.
//!
//! If there is no room to remember a new call, it is refused: otherwise it could run twice when memory runs out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::frame::Code;
use crate::protocol::time::Time;

/// Calls that one offer remembers.
pub const ONCE_MAX: usize = 65_536;
/// Of these, calls of one caller: a sixteenth of the most.
pub const ONCE_PER_CALLER: usize = ONCE_MAX / 16;
/// The longest answer that is remembered, in bytes.
pub const ONCE_REPLY_MAX: usize = 4 << 10;
/// The answers that one offer remembers, in bytes. Of a longer one, or one more, only that it ran is remembered.
pub const ONCE_BYTES_MAX: usize = 32 << 20;

/// The calls that an offer has run. `C` is the name of a caller, `I` identifies a call of it, `W` is the way back to it.
#[derive(Debug)]
pub struct Once<C, I, W> {
    window: Duration,
    calls: BTreeMap<(C, I), State<W>>,
    /// Calls that have ended, by the time of their end.
    ended: VecDeque<(Time, (C, I))>,
    /// How many there are of each caller.
    callers: BTreeMap<C, usize>,
    bytes: usize,
}

#[derive(Debug)]
enum State<W> {
    /// It runs; a caller that has asked again waits for its end.
    Runs(Option<W>),
    Ended(Recalled),
}

/// How a call has ended, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// The answer.
    Reply(Bytes),
    /// It ran; its answer was not kept: it is too long, or there was no room for it.
    NotKept,
    /// It ran, and came to no answer.
    Failed(Code),
}

/// What becomes of a call that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun<W> {
    /// It is new: it runs, and [`Once::ended`] or [`Once::forget`] must follow.
    New(W),
    /// It runs already; its end answers this one. One that has waited for it before waits no more.
    Waits(Option<W>),
    /// It has ended.
    Recalled(W, Recalled),
    /// It is new, and cannot be remembered.
    NoRoom(W, Code),
}

impl<C: Clone + Ord, I: Copy + Ord, W> Once<C, I, W> {
    /// Remembers each call for this time after its end.
    #[must_use]
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            calls: BTreeMap::new(),
            ended: VecDeque::new(),
            callers: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// A call of a caller arrives.
    pub fn begin(&mut self, now: Time, caller: &C, call: I, back: W) -> Begun<W> {
        self.expire(now);
        let key = (caller.clone(), call);
        let is_full = self.calls.len() >= ONCE_MAX;
        match self.calls.get_mut(&key) {
            Some(State::Runs(waits)) => Begun::Waits(waits.replace(back)),
            Some(State::Ended(how)) => Begun::Recalled(back, how.clone()),
            None if is_full => Begun::NoRoom(back, Code::Overloaded),
            None if self.callers.get(caller).is_some_and(|own| *own >= ONCE_PER_CALLER) => {
                Begun::NoRoom(back, Code::PeerOverloaded)
            }
            None => {
                self.calls.insert(key, State::Runs(None));
                *self.callers.entry(caller.clone()).or_default() += 1;
                Begun::New(back)
            }
        }
    }

    /// A call has ended; returns the repetition that waits for it, and its answer.
    pub fn ended(
        &mut self,
        now: Time,
        caller: &C,
        call: I,
        how: Recalled,
    ) -> Option<(W, Recalled)> {
        let key = (caller.clone(), call);
        let State::Runs(waits) = self.calls.get_mut(&key)? else { return None };
        let waits = waits.take();
        let kept = match &how {
            Recalled::Reply(body)
                if body.len() > ONCE_REPLY_MAX || self.bytes + body.len() > ONCE_BYTES_MAX =>
            {
                Recalled::NotKept
            }
            // A copy: the answer may be a part of more.
            Recalled::Reply(body) => Recalled::Reply(Bytes::copy_from_slice(body)),
            other => other.clone(),
        };
        self.bytes += bytes(&kept);
        self.calls.insert(key.clone(), State::Ended(kept));
        self.ended.push_back((now, key));
        waits.map(|waits| (waits, how))
    }

    /// A call has not run: a repetition is a new call. Returns the repetition that waits for it.
    pub fn forget(&mut self, caller: &C, call: I) -> Option<W> {
        let key = (caller.clone(), call);
        if !matches!(self.calls.get(&key), Some(State::Runs(_))) {
            return None;
        }
        match self.remove(&key) {
            Some(State::Runs(waits)) => waits,
            _ => None,
        }
    }

    /// Calls that it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    fn expire(&mut self, now: Time) {
        while let Some((at, key)) = self.ended.front() {
            if now.since(*at) < self.window {
                return;
            }
            let key = key.clone();
            self.ended.pop_front();
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &(C, I)) -> Option<State<W>> {
        let removed = self.calls.remove(key)?;
        if let State::Ended(how) = &removed {
            self.bytes -= bytes(how);
        }
        if let Some(own) = self.callers.get_mut(&key.0) {
            *own -= 1;
            if *own == 0 {
                self.callers.remove(&key.0);
            }
        }
        Some(removed)
    }
}

fn bytes(how: &Recalled) -> usize {
    match how {
        Recalled::Reply(body) => body.len(),
        Recalled::NotKept | Recalled::Failed(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn reply(bytes: usize) -> Recalled {
        Recalled::Reply(Bytes::from(vec![7; bytes]))
    }

    #[test]
    fn a_caller_cannot_make_it_remember_more_than_its_part_nor_all_more_than_there_is_room() {
        let mut once = Once::<_, u64, _>::new(WINDOW);
        for caller in 0..16 {
            for number in 0..ONCE_PER_CALLER as u64 {
                assert_eq!(once.begin(at(0), &caller, number, ()), Begun::New(()));
            }
            let more = once.begin(at(0), &caller, u64::MAX, ());
            let full = if caller < 15 { Code::PeerOverloaded } else { Code::Overloaded };
            assert_eq!(more, Begun::NoRoom((), full));
        }
        assert_eq!(once.begin(at(0), &16, 0, ()), Begun::NoRoom((), Code::Overloaded));
        // What has ended makes room after its window.
        assert_eq!(once.ended(at(0), &3, 5, reply(1)), None);
        assert_eq!(once.begin(at(60), &16, 0, ()), Begun::New(()));
        assert_eq!(once.len(), ONCE_MAX);
    }

    #[test]
    fn answers_take_no_more_bytes_than_allowed() {
        let mut once = Once::<_, u64, _>::new(WINDOW);
        let fit = (ONCE_BYTES_MAX / ONCE_REPLY_MAX) as u64;
        for number in 0..=fit {
            let caller = number / ONCE_PER_CALLER as u64;
            once.begin(at(0), &caller, number, ());
            once.ended(at(0), &caller, number, reply(ONCE_REPLY_MAX));
        }
        let recalled = |once: &mut Once<_, _, _>, number: u64| {
            once.begin(at(1), &(number / ONCE_PER_CALLER as u64), number, ())
        };
        assert_eq!(recalled(&mut once, 0), Begun::Recalled((), reply(ONCE_REPLY_MAX)));
        assert_eq!(recalled(&mut once, fit), Begun::Recalled((), Recalled::NotKept));
        assert_eq!(once.bytes, ONCE_BYTES_MAX);
        assert_eq!(once.begin(at(60), &99, 0, ()), Begun::New(()));
        assert_eq!((once.bytes, once.len(), once.callers.len()), (0, 1, 1));
    }

    #[test]
    fn a_call_that_comes_again_is_answered_from_memory() {
        let mut once = Once::<_, u64, _>::new(WINDOW);
        assert_eq!(once.begin(at(0), &"a", 1, "first"), Begun::New("first"));
        assert_eq!(once.begin(at(1), &"b", 1, "other"), Begun::New("other"));
        assert_eq!(once.ended(at(2), &"a", 1, reply(3)), None);
        assert_eq!(once.begin(at(3), &"a", 1, "again"), Begun::Recalled("again", reply(3)));
        assert_eq!(once.begin(at(62), &"a", 1, "late"), Begun::New("late"), "after the window");
    }

    #[test]
    fn a_call_that_comes_again_while_it_runs_waits_for_its_end() {
        let mut once = Once::<_, u64, _>::new(WINDOW);
        once.begin(at(0), &"a", 1, 0);
        assert_eq!(once.begin(at(0), &"a", 1, 1), Begun::Waits(None));
        assert_eq!(once.begin(at(0), &"a", 1, 2), Begun::Waits(Some(1)));
        // The whole answer, though it is not kept.
        let long = reply(ONCE_REPLY_MAX + 1);
        assert_eq!(once.ended(at(1), &"a", 1, long.clone()), Some((2, long)));
        assert_eq!(once.begin(at(1), &"a", 1, 3), Begun::Recalled(3, Recalled::NotKept));
    }

    #[test]
    fn one_that_did_not_run_is_forgotten_and_one_that_failed_is_not() {
        let mut once = Once::<_, u64, _>::new(WINDOW);
        once.begin(at(0), &"a", 1, 0);
        once.begin(at(0), &"a", 1, 1);
        assert_eq!(once.forget(&"a", 1), Some(1));
        assert_eq!(once.forget(&"a", 1), None);
        assert_eq!(once.begin(at(0), &"a", 1, 2), Begun::New(2));
        once.ended(at(0), &"a", 1, Recalled::Failed(Code::Panicked));
        assert_eq!(once.forget(&"a", 1), None, "it ran");
        let failed = Recalled::Failed(Code::Panicked);
        assert_eq!(once.begin(at(0), &"a", 1, 3), Begun::Recalled(3, failed));
    }
}
