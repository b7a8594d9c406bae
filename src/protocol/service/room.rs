//! The room of one offered service: how many requests run, how many wait, and how much of that one caller may use.
//!
//! No request waits behind a full queue: one without room is refused at once, with the time after which it makes
//! sense to ask again. Callers that wait take turns, so that a caller with many requests does not hold up one with few.
//! A part of the places is kept for callers without a running request, so a few callers whose requests never end do not
//! keep the others out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::frame::Code;

/// The shortest and the longest time after which a refused caller is advised to ask again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The weight of the latest request in the mean time that a request takes: one part of so many.
const MEAN_OVER: u32 = 8;
/// One place in so many is kept for callers without a running request.
const KEPT_PART: usize = 8;

/// The limits of one offered service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Requests that run at once.
    pub concurrency: usize,
    /// Requests that wait.
    pub queue: usize,
    /// Of each of the two, what one caller may use: a percentage.
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
    waiting: usize,
    /// Callers with a request that runs or waits.
    callers: BTreeMap<K, Held<T>>,
    /// The callers with a waiting request that may run, in the order of their turns.
    turns: VecDeque<K>,
    draining: bool,
    mean: Duration,
}

/// The requests of one caller.
#[derive(Debug)]
struct Held<T> {
    running: usize,
    waiting: VecDeque<T>,
    /// It is among the turns.
    has_turn: bool,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { running: 0, waiting: VecDeque::new(), has_turn: false }
    }
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
    pub const fn new(limits: RoomLimits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: 0,
            callers: BTreeMap::new(),
            turns: VecDeque::new(),
            draining: false,
            mean: Duration::ZERO,
        }
    }

    /// A request of a caller arrives.
    pub fn enter(&mut self, caller: &K, request: T) -> Entered<T> {
        if self.draining {
            let code = Code::Draining;
            return Entered::Refused { request, code, retry_after: Duration::ZERO };
        }
        let (own_running, own_waiting) =
            self.callers.get(caller).map_or((0, 0), |held| (held.running, held.waiting.len()));
        if own_waiting == 0 && self.may_run(own_running) {
            self.running += 1;
            self.callers.entry(caller.clone()).or_default().running += 1;
            return Entered::Runs(request);
        }
        let code = if self.waiting >= self.limits.queue {
            Code::Overloaded
        } else if own_waiting >= self.part(self.limits.queue) {
            Code::PeerOverloaded
        } else {
            self.waiting += 1;
            let held = self.callers.entry(caller.clone()).or_default();
            held.waiting.push_back(request);
            self.give_turn(caller);
            return Entered::Waits;
        };
        Entered::Refused { request, code, retry_after: self.retry_after() }
    }

    /// A request of a caller arrives. If there is no room for it, the waiting requests whose callers are gone make room:
    /// they are removed and returned as well.
    pub fn enter_or_purge(
        &mut self,
        caller: &K,
        request: T,
        is_gone: impl Fn(&T) -> bool,
    ) -> (Entered<T>, Vec<T>) {
        match self.enter(caller, request) {
            Entered::Refused { request, code: Code::Overloaded | Code::PeerOverloaded, .. } => {
                let gone = self.purge(is_gone);
                (self.enter(caller, request), gone)
            }
            entered => (entered, Vec::new()),
        }
    }

    /// What one caller may use of a limit.
    fn part(&self, of: usize) -> usize {
        (of * self.limits.per_caller / 100).max(1)
    }

    /// Whether one more request may run of a caller that has so many running.
    fn may_run(&self, own: usize) -> bool {
        let kept = if own > 0 { self.limits.concurrency / KEPT_PART } else { 0 };
        self.running + kept < self.limits.concurrency && own < self.part(self.limits.concurrency)
    }

    /// A caller takes turns if one of its requests waits, and may run once a place is free.
    fn give_turn(&mut self, caller: &K) {
        let part = self.part(self.limits.concurrency);
        let Some(held) = self.callers.get_mut(caller) else { return };
        if !held.has_turn && !held.waiting.is_empty() && held.running < part {
            held.has_turn = true;
            self.turns.push_back(caller.clone());
        }
    }

    /// A running request of a caller has ended after this time. Returns one that runs in its place; [`Room::next_turn`]
    /// must follow, until there is none.
    pub fn leave(&mut self, caller: &K, took: Duration) -> Option<(K, T)> {
        self.mean = (self.mean * (MEAN_OVER - 1) + took) / MEAN_OVER;
        self.running -= 1;
        if let Some(held) = self.callers.get_mut(caller) {
            held.running -= 1;
        }
        self.give_turn(caller);
        self.forget_idle(caller);
        self.next_turn()
    }

    /// One more request that may run now.
    pub fn next_turn(&mut self) -> Option<(K, T)> {
        for _ in 0..self.turns.len() {
            let caller = self.turns.pop_front()?;
            let own = self.callers.get(&caller).map_or(0, |held| held.running);
            if !self.may_run(own) {
                self.turns.push_back(caller);
                continue;
            }
            let held = self.callers.get_mut(&caller)?;
            held.has_turn = false;
            let request = held.waiting.pop_front();
            if request.is_some() {
                held.running += 1;
                self.running += 1;
                self.waiting -= 1;
            }
            self.give_turn(&caller);
            if let Some(request) = request {
                return Some((caller, request));
            }
        }
        None
    }

    fn forget_idle(&mut self, caller: &K) {
        let Some(held) = self.callers.get(caller) else { return };
        if held.running > 0 || !held.waiting.is_empty() {
            return;
        }
        // Only one whose requests were purged still has a turn.
        if held.has_turn {
            self.turns.retain(|turn| turn != caller);
        }
        self.callers.remove(caller);
    }

    /// Removes the waiting requests whose callers are gone, and returns them.
    pub fn purge(&mut self, is_gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        for held in self.callers.values_mut() {
            let (leave, stay): (Vec<_>, Vec<_>) =
                std::mem::take(&mut held.waiting).into_iter().partition(|waiting| is_gone(waiting));
            held.waiting = stay.into();
            gone.extend(leave);
        }
        self.waiting -= gone.len();
        let idle = self.callers.iter().filter(|(_, held)| held.waiting.is_empty());
        let idle: Vec<_> = idle.map(|(caller, _)| caller.clone()).collect();
        idle.iter().for_each(|caller| self.forget_idle(caller));
        gone
    }

    /// Takes no new requests from now on; those that run or wait are finished.
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes new requests again.
    pub const fn resume(&mut self) {
        self.draining = false;
    }

    /// How full it is: 0 is idle, 255 is full.
    #[must_use]
    pub fn load(&self) -> u8 {
        let all = (self.limits.concurrency + self.limits.queue).max(1);
        ((self.running + self.waiting) * 255 / all).min(255) as u8
    }

    /// Requests that run.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Requests that wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests of each caller that run or wait.
    pub fn callers(&self) -> impl Iterator<Item = (&K, usize)> {
        self.callers.iter().map(|(caller, held)| (caller, held.running + held.waiting.len()))
    }

    /// The time in which half of what waits will have run.
    fn retry_after(&self) -> Duration {
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        let at_once = u32::try_from(self.limits.concurrency).unwrap_or(u32::MAX).max(1);
        let half = self.mean.saturating_mul(waiting) / at_once / 2;
        half.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    const LIMITS: RoomLimits = RoomLimits { concurrency: 4, queue: 6, per_caller: 50 };

    fn fill(room: &mut Room<&'static str, u32>, caller: &'static str) -> (usize, Code) {
        for n in 0..10_000 {
            if let Entered::Refused { code, .. } = room.enter(&caller, n) {
                return (n as usize, code);
            }
        }
        panic!("nothing is refused");
    }

    #[test]
    fn one_caller_uses_no_more_than_its_part_of_both() {
        let mut room = Room::new(LIMITS);
        assert_eq!(fill(&mut room, "a"), (5, Code::PeerOverloaded));
        assert_eq!((room.running(), room.waiting()), (2, 3));
        assert_eq!(fill(&mut room, "b"), (5, Code::Overloaded));
        assert_eq!((room.running(), room.waiting(), room.load()), (4, 6, 255));
        assert_eq!(fill(&mut room, "c"), (0, Code::Overloaded));
    }

    #[test]
    fn a_part_of_the_places_is_kept_for_callers_of_which_nothing_runs() {
        let mut room = Room::new(RoomLimits::default());
        for caller in ["a", "b", "c"] {
            fill(&mut room, caller);
        }
        assert_eq!(room.running(), 256 - 256 / KEPT_PART + 1, "one is of c");
        // The queue is full, and yet a request of another caller runs.
        assert_eq!(room.enter(&"d", 0), Entered::Runs(0));
        assert!(matches!(room.enter(&"d", 1), Entered::Refused { .. }));
    }

    #[test]
    fn callers_take_turns() {
        let mut room = Room::new(RoomLimits { concurrency: 1, queue: 100, per_caller: 100 });
        for n in 0..10 {
            room.enter(&"a", n);
        }
        room.enter(&"b", 100);
        room.enter(&"b", 101);
        let mut order = Vec::new();
        let mut runs = "a";
        while let Some((caller, n)) = room.leave(&runs, Duration::ZERO) {
            order.push(n);
            runs = caller;
        }
        assert_eq!(order, [100, 1, 101, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((room.running(), room.waiting(), room.callers().count()), (0, 0, 0));
    }

    #[test]
    fn those_whose_callers_are_gone_make_room() {
        let mut room = Room::new(LIMITS);
        fill(&mut room, "a");
        let (entered, gone) = room.enter_or_purge(&"a", 8, |n| *n == 9);
        assert!(matches!(entered, Entered::Refused { request: 8, .. }) && gone.is_empty());
        assert_eq!(room.enter_or_purge(&"a", 9, |n| *n == 4), (Entered::Waits, vec![4]));
        assert_eq!(room.purge(|_| true).len(), 3);
        assert_eq!(room.leave(&"a", Duration::ZERO), None);
        assert_eq!(room.leave(&"a", Duration::ZERO), None);
        assert_eq!((room.running(), room.waiting(), room.callers().count()), (0, 0, 0));
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
        let short = room.retry_after();
        assert!(
            short > Duration::from_millis(50) && short < Duration::from_millis(100),
            "{short:?}"
        );
        for n in 0..500 {
            room.enter(&"a", n);
        }
        assert!(room.retry_after() > Duration::from_millis(500));
        room.mean = Duration::from_secs(60);
        assert_eq!(room.retry_after(), RETRY_AFTER.1);
    }

    /// Random callers come, run, and are purged: no request is lost or runs twice, no limit is exceeded, and nothing
    /// waits that may run.
    #[test]
    fn nothing_is_lost_and_nothing_waits_without_need() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let limits = RoomLimits {
                concurrency: rng.random_range(1..20),
                queue: rng.random_range(0..20),
                per_caller: rng.random_range(1..=100),
            };
            let mut room = Room::new(limits);
            let (mut runs, mut waits) = (Vec::<(u32, u32)>::new(), Vec::<u32>::new());
            for n in 0..2_000 {
                match rng.random_range(0..20) {
                    0..10 => {
                        let caller = rng.random_range(0..5);
                        match room.enter(&caller, n) {
                            Entered::Runs(n) => runs.push((caller, n)),
                            Entered::Waits => waits.push(n),
                            Entered::Refused { request, .. } => assert_eq!(request, n),
                        }
                    }
                    10..19 if !runs.is_empty() => {
                        let (caller, _) = runs.swap_remove(rng.random_range(0..runs.len()));
                        let mut turn = room.leave(&caller, Duration::ZERO);
                        while let Some((caller, next)) = turn {
                            let at = waits.iter().position(|n| *n == next);
                            waits.remove(at.unwrap_or_else(|| panic!("seed {seed}: {next}")));
                            runs.push((caller, next));
                            turn = room.next_turn();
                        }
                    }
                    _ => {
                        let odd = rng.random_range(2..5);
                        let gone = room.purge(|n| n % odd == 0);
                        assert_eq!(gone.len(), waits.iter().filter(|n| **n % odd == 0).count());
                        waits.retain(|n| n % odd != 0);
                    }
                }
                assert_eq!(
                    (room.running(), room.waiting()),
                    (runs.len(), waits.len()),
                    "seed {seed}"
                );
                assert!(runs.len() <= limits.concurrency && waits.len() <= limits.queue);
                for caller in 0..5 {
                    let own = runs.iter().filter(|(of, _)| *of == caller).count();
                    assert!(own <= room.part(limits.concurrency), "seed {seed}");
                    let idles = room.callers.get(&caller).is_some_and(|h| !h.waiting.is_empty());
                    assert!(
                        !(idles && room.may_run(own)),
                        "seed {seed}: {caller} waits without need"
                    );
                }
            }
        }
    }
}
