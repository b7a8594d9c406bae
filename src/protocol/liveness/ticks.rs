//! When this machine is called, and whether this process stood still meanwhile.

use std::{ops::Range, time::Duration};

use crate::protocol::{time::Time, watch::TICKS_PER_INTERVAL};

/// The ticks of one node.
#[derive(Debug)]
pub(super) struct Ticks {
    interval: Duration,
    last: Option<Time>,
    /// When a wake-up was asked for.
    armed: Option<Time>,
    /// The planned time between the last tick and the next one.
    expected: Duration,
    /// The next tick, counted from the origin.
    next: u64,
    /// The transport looks at its connections once in a tick, and reports when it has.
    looked_after: bool,
}

impl Ticks {
    /// There was none yet.
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: None,
            armed: None,
            expected: Duration::ZERO,
            next: 0,
            looked_after: false,
        }
    }

    /// Counted from the origin.
    fn number(&self, now: Time) -> u64 {
        let tick = (self.interval / TICKS_PER_INTERVAL).as_micros().max(1);
        u64::try_from(now.since_origin().as_micros() / tick).unwrap_or(u64::MAX)
    }

    /// The transport has looked at its connections.
    pub(super) const fn looked_after(&mut self) {
        self.looked_after = true;
    }

    /// The time up to now is taken into account.
    pub(super) const fn reached(&mut self, now: Time) {
        self.last = Some(now);
    }

    /// The ticks that have come due.
    pub(super) fn take_due(&mut self, now: Time) -> Range<u64> {
        let this = self.number(now);
        let due = self.next.min(this + 1)..this + 1;
        self.next = this + 1;
        due
    }

    /// The ticks up to `now` were left out on purpose.
    pub(super) fn skip_to(&mut self, now: Time) {
        self.last = Some(now);
        self.next = self.number(now) + 1;
    }

    /// How long this process itself stood still: it could not hear any peer then, so the silence of peers in
    /// that time does not count.
    pub(super) fn stalled(&self, now: Time) -> Option<Duration> {
        let late = now.since(self.last? + self.expected);
        (late >= STALL_MIN).then_some(late)
    }

    /// A call was asked for at once.
    pub(super) const fn hurry(&mut self, now: Time) {
        self.armed = Some(now);
    }

    /// How long to wait until the next call, if it has to be requested. `look`: when a peer has to be checked
    /// before the next tick.
    pub(super) fn wait(&mut self, now: Time, look: Option<Time>) -> Option<Duration> {
        let tick = self.interval / TICKS_PER_INTERVAL;
        let elapsed = tick.as_micros().max(1);
        let into = Duration::from_micros((now.since_origin().as_micros() % elapsed) as u64);
        let look = look.map(|at| at.since(now).max(WAIT_MIN));
        // The transport, which looks at the connections, reports when it has: the clock here only stands in
        // for it.
        let regular = if self.looked_after { tick + tick / 2 } else { tick - into };
        self.expected = look.unwrap_or(regular).min(regular).max(WAIT_MIN);
        let wait = match look {
            None if self.looked_after => self.interval,
            _ => self.expected,
        };
        // A call that is under way is as good, unless it is too late.
        let pending = self.armed.is_some_and(|at| at > now && at <= now + wait);
        if pending {
            return None;
        }
        self.armed = Some(now + wait);
        Some(wait)
    }
}

/// A tick that comes this much too late counts as a stall.
const STALL_MIN: Duration = Duration::from_millis(10);
/// No wait is shorter.
const WAIT_MIN: Duration = Duration::from_millis(1);
