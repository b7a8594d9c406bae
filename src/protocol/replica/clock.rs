//! The times of this machine's calls, the time of the wall clock, how late this node is served, and whether this
//! process slept.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use super::batching::Batching;
use crate::protocol::{id::Generation, time::Time};

/// The two clocks of one node.
#[derive(Debug)]
pub(super) struct Clock {
    /// When this is called again.
    armed: Option<Time>,
    /// The wall clock at the origin of the monotonic one, for times that have to outlive the process.
    origin: SystemTime,
    /// How much the wall clock has gone ahead of the monotonic one, if that is enough to be reported.
    suspended: Duration,
    /// The amount that is enough.
    patience: Duration,
    /// How late this node is served.
    lag: Duration,
    /// Since when that has been an overload.
    overloaded: Option<Time>,
    /// When new updates are sent.
    pub(super) batching: Batching,
}

impl Clock {
    pub(super) fn new(now: Time, wall: SystemTime, patience: Duration) -> Self {
        Self {
            armed: None,
            origin: origin(now, wall),
            suspended: Duration::ZERO,
            patience,
            lag: Duration::ZERO,
            overloaded: None,
            batching: Batching::default(),
        }
    }

    /// How late this node is served now.
    pub(super) fn set_lag(&mut self, now: Time, lag: Duration) {
        self.lag = lag;
        let since = self.overloaded.unwrap_or(now);
        self.overloaded = (lag > OVERLOAD).then_some(since);
    }

    /// How late this node is served.
    pub(super) const fn lag(&self) -> Duration {
        self.lag
    }

    /// Whether this node has been so late for a while that its owner should send less.
    pub(super) fn is_overloaded(&self, now: Time) -> bool {
        self.overloaded.is_some_and(|since| now.since(since) >= OVERLOADED_AFTER)
    }

    /// The wall clock shows this now.
    pub(super) fn set_wall(&mut self, now: Time, wall: SystemTime) {
        let origin = origin(now, wall);
        // The monotonic clock may stand still while the machine is suspended. The wall clock goes on.
        let ahead = origin.duration_since(self.origin).unwrap_or_default();
        if ahead >= self.patience {
            self.suspended = ahead;
        }
        self.origin = origin;
    }

    /// The time of the wall clock.
    pub(super) fn wall(&self, at: Time) -> SystemTime {
        self.origin + at.since_origin()
    }

    /// The time that it will show, if it can.
    pub(super) fn wall_then(&self, at: Time) -> Option<SystemTime> {
        self.origin.checked_add(at.since_origin())
    }

    /// The same in seconds since 1970.
    pub(super) fn wall_seconds(&self, now: Time) -> u64 {
        self.wall(now).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// The generation that the clock yields now.
    pub(super) fn generation(&self, now: Time) -> Generation {
        Generation::of(self.wall(now))
    }

    /// How long this process slept, if it was long enough to be reported.
    pub(super) fn slept(&mut self, now: Time) -> Option<Duration> {
        let overdue = self.armed.map_or(Duration::ZERO, |due| now.since(due));
        let slept = overdue.max(mem::take(&mut self.suspended));
        if slept < self.patience {
            return None;
        }
        // The requested call is on its way.
        self.armed = Some(now);
        Some(slept)
    }

    /// The requested call has come.
    pub(super) const fn called(&mut self) {
        self.armed = None;
    }

    /// Requests a call at this time, unless it comes sooner anyway. Returns how long to wait for it.
    pub(super) fn arm(&mut self, now: Time, due: Time) -> Option<Duration> {
        // A requested call that is overdue is on its way.
        let sooner = self.armed.is_none_or(|armed| due < armed);
        sooner.then(|| {
            self.armed = Some(due);
            due.since(now)
        })
    }
}

/// More lag than this is an overload, once it has lasted for so long.
const OVERLOAD: Duration = Duration::from_millis(200);
const OVERLOADED_AFTER: Duration = Duration::from_secs(1);

fn origin(now: Time, wall: SystemTime) -> SystemTime {
    wall.checked_sub(now.since_origin()).unwrap_or(SystemTime::UNIX_EPOCH)
}
