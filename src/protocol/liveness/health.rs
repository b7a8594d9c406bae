//! How slow this node finds itself.

use std::time::Duration;

use crate::protocol::{time::Time, watch::TICKS_PER_INTERVAL};

/// How slow a node may consider itself at most (Dadgar, Phillips and Currey, "Lifeguard", DSN-W 2018, section
/// IV-A).
pub const HEALTH_MAX: u32 = 8;

/// How slow this node considers itself: the slower it is, the more patient it is with others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health {
    interval: Duration,
    score: u32,
    /// When it last changed.
    since: Time,
    /// How long this process stood still recently, and until when that counts.
    stall: (Duration, Time),
}

impl Health {
    /// It is normal.
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, score: 0, since: Time::ZERO, stall: (Duration::ZERO, Time::ZERO) }
    }

    /// 0 is normal.
    pub(super) const fn score(&self) -> u32 {
        self.score
    }

    pub(super) fn as_byte(&self) -> u8 {
        u8::try_from(self.score).unwrap_or(u8::MAX)
    }

    /// How long this process stood still recently.
    pub(super) fn stall(&self, now: Time) -> Duration {
        if now <= self.stall.1 { self.stall.0 } else { Duration::ZERO }
    }

    /// This process stood still.
    pub(super) fn stalled(&mut self, now: Time, late: Duration) {
        self.stall = (late, now + self.interval * STALL_MEMORY);
        if late >= self.interval / TICKS_PER_INTERVAL {
            self.fall_ill(now);
        }
    }

    /// It is slower than it considered itself. Once in a tick is enough.
    pub(super) fn fall_ill(&mut self, now: Time) {
        let tick = self.interval / TICKS_PER_INTERVAL;
        if self.score > 0 && now.since(self.since) < tick {
            return;
        }
        self.score = (self.score + 1).min(HEALTH_MAX);
        self.since = now;
    }

    /// Time passes.
    pub(super) fn recover(&mut self, now: Time) {
        if self.score > 0 && now.since(self.since) >= self.interval {
            self.score -= 1;
            self.since = now;
        }
    }
}

/// For this many intervals a stall is reported with every verdict.
const STALL_MEMORY: u32 = 10;
