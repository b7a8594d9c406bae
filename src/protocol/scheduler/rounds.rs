//! The times of the rounds, and how many new links may be compared in each.

use std::time::Duration;

use rand::{RngExt, rngs::SmallRng};

use crate::protocol::time::Time;

/// The rounds of one node.
#[derive(Debug)]
pub(super) struct Rounds {
    interval: Duration,
    next: Time,
    begun: bool,
    /// Links that may still be compared at once in this round.
    at_once: usize,
}

impl Rounds {
    /// The first round is due at once.
    pub(super) const fn new(now: Time, interval: Duration) -> Self {
        Self { interval, next: now, begun: false, at_once: AT_ONCE_MAX }
    }

    /// When the next round is due.
    pub(super) const fn due(&self) -> Time {
        self.next
    }

    /// Whether there was a round yet.
    pub(super) const fn have_begun(&self) -> bool {
        self.begun
    }

    /// Begins a round, if one is due.
    pub(super) fn begin(&mut self, now: Time, rng: &mut SmallRng) -> bool {
        if now < self.next {
            return false;
        }
        self.next = self.following(now, rng);
        self.begun = true;
        self.at_once = AT_ONCE_MAX;
        true
    }

    /// The first rounds of nodes that start together are soon out of step.
    fn following(&self, now: Time, rng: &mut SmallRng) -> Time {
        if !self.begun {
            return now + self.interval.mul_f64(rng.random_range(0.5..1.0));
        }
        // A stalled process does not repeat the rounds it missed.
        let next = self.next + self.interval;
        if next > now { next } else { now + self.interval }
    }

    /// The next round is at this time or earlier.
    pub(super) fn hurry(&mut self, at: Time) {
        self.next = self.next.min(at);
    }

    /// How many links may still be compared at once in this round.
    pub(super) const fn at_once(&self) -> usize {
        self.at_once
    }

    /// This many were compared.
    pub(super) const fn compared(&mut self, count: usize) {
        self.at_once -= count;
    }

    /// The time of the round that is this many rounds after the next one.
    pub(super) fn after(&self, rounds: u32) -> Time {
        self.next + self.interval * rounds
    }

    /// The first round that is not before this.
    pub(super) fn not_before(&self, due: Time) -> Time {
        let rounds = due.since(self.next).as_micros().div_ceil(self.interval.as_micros());
        self.after(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Leaves out a round if it was before `now`, or, if `inclusive`, is due now.
    pub(super) fn skip(&mut self, now: Time, inclusive: bool) -> bool {
        let skips = self.next < now || (inclusive && self.next == now);
        if skips {
            self.next = self.next + self.interval;
            self.at_once = AT_ONCE_MAX;
        }
        skips
    }
}

/// New neighbours that are compared with at once, within one round.
const AT_ONCE_MAX: usize = 1;
