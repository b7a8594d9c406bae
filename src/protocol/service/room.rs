//! The room of one offered service: how many requests run, how many wait, and how much of that one caller may use.
//!
//! Nobody waits behind a full queue: a request without room is refused at once, with the time after which it makes
//! sense to ask again. Half of the room is kept for callers that use none yet, so that a few busy ones do not keep the
//! others out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::frame::Code;

/// The shortest and the longest advice when to ask again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The weight of the latest request in the mean time that a request takes: one part of so many.
const MEAN_OVER: u32 = 8;

/// The limits of one offered service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Requests that run at once.
    pub concurrency: usize,
    /// Requests that wait.
    pub queue: usize,
    /// Of both, what one caller may use: a percentage.
    pub per_caller: usize,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self { concurrency: 256, queue: 1_024, per_caller: 50 }
    }
}

/// The room of one service. `K` is a caller, `T` a request.
#[derive(Debug)]
pub struct Room<K, T> {
    limits: RoomLimits,
    running: usize,
    waiting: VecDeque<(K, T)>,
    /// Requests of each caller that run or wait.
    used: BTreeMap<K, usize>,
    draining: bool,
    mean: Duration,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered<T> {
    /// It runs now; [`Room::leave`] must follow.
    Runs(T),
    /// It waits: [`Room::leave`] of another one returns it.
    Waits,
    /// It is refused.
    Refused {
        /// The request.
        request: T,
        /// Why.
        code: Code,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
}

impl<K: Clone + Ord, T> Room<K, T> {
    /// An empty room.
    #[must_use]
    pub fn new(limits: RoomLimits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: VecDeque::new(),
            used: BTreeMap::new(),
            draining: false,
            mean: Duration::ZERO,
        }
    }

    /// A request of a caller arrives.
    pub fn enter(&mut self, caller: &K, request: T) -> Entered<T> {
        let own = self.used.get(caller).copied().unwrap_or(0);
        let all = self.limits.concurrency + self.limits.queue;
        let present = self.running + self.waiting.len();
        let code = if self.draining {
            Code::Draining
        } else if own >= (all * self.limits.per_caller / 100).max(1) {
            Code::PeerOverloaded
        } else if present >= all || own > 0 && present >= all.div_ceil(2) && self.is_busy(present) {
            Code::Overloaded
        } else {
            *self.used.entry(caller.clone()).or_default() += 1;
            if self.running < self.limits.concurrency {
                self.running += 1;
                return Entered::Runs(request);
            }
            self.waiting.push_back((caller.clone(), request));
            return Entered::Waits;
        };
        let retry_after = self.retry_after(code);
        Entered::Refused { request, code, retry_after }
    }

    /// Whether the second half of the room is being used, by several callers: then it is only for new ones.
    fn is_busy(&self, present: usize) -> bool {
        self.used.len() > 1 || present >= self.limits.concurrency + self.limits.queue
    }

    /// A running request of a caller has ended after this time. Returns the one that runs in its place.
    pub fn leave(&mut self, caller: &K, took: Duration) -> Option<(K, T)> {
        self.mean = (self.mean * (MEAN_OVER - 1) + took) / MEAN_OVER;
        self.release(caller);
        match self.waiting.pop_front() {
            Some(next) => Some(next),
            None => {
                self.running -= 1;
                None
            }
        }
    }

    /// Removes the waiting requests whose callers are gone, and returns them.
    pub fn purge(&mut self, is_gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        for (caller, request) in std::mem::take(&mut self.waiting) {
            if is_gone(&request) {
                self.release(&caller);
                gone.push(request);
            } else {
                kept.push_back((caller, request));
            }
        }
        self.waiting = kept;
        gone
    }

    fn release(&mut self, caller: &K) {
        if let Some(used) = self.used.get_mut(caller) {
            *used -= 1;
            if *used == 0 {
                self.used.remove(caller);
            }
        }
    }

    /// Takes no new requests from now on; those that run or wait are finished.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes new requests again.
    pub fn resume(&mut self) {
        self.draining = false;
    }

    /// How full it is: 0 is idle, 255 is full.
    #[must_use]
    pub fn load(&self) -> u8 {
        let all = (self.limits.concurrency + self.limits.queue).max(1);
        let present = self.running + self.waiting.len();
        (present * 255 / all).min(255) as u8
    }

    /// Requests that run.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests of each caller that run or wait.
    pub fn callers(&self) -> impl Iterator<Item = (&K, usize)> {
        self.used.iter().map(|(caller, used)| (caller, *used))
    }

    /// The time in which half of what waits will have run; nothing that drains will have room again.
    fn retry_after(&self, code: Code) -> Duration {
        if code == Code::Draining {
            return Duration::ZERO;
        }
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let at_once = u32::try_from(self.limits.concurrency).unwrap_or(u32::MAX).max(1);
        let half = self.mean.saturating_mul(waiting) / at_once / 2;
        half.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RoomLimits = RoomLimits { concurrency: 4, queue: 6, per_caller: 50 };

    fn fill(room: &mut Room<&'static str, u32>, caller: &'static str) -> (usize, Code) {
        for n in 0..100 {
            if let Entered::Refused { code, .. } = room.enter(&caller, n) {
                return (n as usize, code);
            }
        }
        panic!("nothing is refused");
    }

    #[test]
    fn one_caller_uses_no_more_than_its_part() {
        let mut room = Room::new(LIMITS);
        assert_eq!(fill(&mut room, "a"), (5, Code::PeerOverloaded));
        assert_eq!((room.running(), room.waiting()), (4, 1));
    }

    #[test]
    fn the_second_half_is_kept_for_callers_that_use_none() {
        let mut room = Room::new(LIMITS);
        fill(&mut room, "a");
        assert_eq!(fill(&mut room, "b"), (1, Code::Overloaded));
        assert_eq!(fill(&mut room, "c"), (1, Code::Overloaded));
        for caller in ["d", "e", "f"] {
            assert_eq!(room.enter(&caller, 0), Entered::Waits, "{caller}");
        }
        assert_eq!(fill(&mut room, "g"), (0, Code::Overloaded));
        assert_eq!(room.load(), 255);
    }

    #[test]
    fn what_waits_runs_in_order_and_nothing_is_lost() {
        let mut room = Room::new(LIMITS);
        for (caller, n) in [("a", 0), ("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
            room.enter(&caller, n);
        }
        assert_eq!(room.leave(&"a", Duration::ZERO), Some(("d", 4)));
        assert_eq!(room.leave(&"a", Duration::ZERO), Some(("e", 5)));
        for caller in ["b", "c", "d", "e"] {
            assert_eq!(room.leave(&caller, Duration::ZERO), None);
        }
        assert_eq!((room.running(), room.waiting(), room.callers().count()), (0, 0, 0));
    }

    #[test]
    fn those_whose_callers_are_gone_make_room() {
        let mut room = Room::new(LIMITS);
        fill(&mut room, "a");
        assert_eq!(room.purge(|n| *n == 4), [4]);
        assert_eq!(room.enter(&"a", 9), Entered::Waits);
    }

    #[test]
    fn a_draining_room_refuses_and_finishes() {
        let mut room = Room::new(LIMITS);
        room.enter(&"a", 0);
        room.drain();
        let refused = room.enter(&"a", 1);
        assert!(matches!(refused, Entered::Refused { code: Code::Draining, .. }));
        assert_eq!(room.leave(&"a", Duration::ZERO), None);
        room.resume();
        assert_eq!(room.enter(&"a", 2), Entered::Runs(2));
    }

    #[test]
    fn the_advice_when_to_ask_again_grows_with_the_queue_and_has_an_end() {
        let mut room = Room::new(RoomLimits { concurrency: 1, queue: 99, per_caller: 100 });
        for n in 0..50 {
            room.enter(&"a", n);
        }
        for _ in 0..40 {
            room.leave(&"a", Duration::from_millis(20));
        }
        let short = room.retry_after(Code::Overloaded);
        assert!(
            short > Duration::from_millis(50) && short < Duration::from_millis(100),
            "{short:?}"
        );
        for n in 0..500 {
            room.enter(&"a", n);
        }
        assert!(room.retry_after(Code::Overloaded) > Duration::from_millis(500));
        room.mean = Duration::from_secs(60);
        assert_eq!(room.retry_after(Code::Overloaded), RETRY_AFTER.1);
    }
}
