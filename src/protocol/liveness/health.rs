//! How slow this node finds itself.

use std::time::Duration;

use crate::protocol::{rules::Rules, time::Time, watch::TICKS_PER_INTERVAL};

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
    /// How long the ticks have to be on time until it falls by one.
    recovery: Duration,
    /// How long this process stood still recently, and until when that counts.
    stall: (Duration, Time),
}

impl Health {
    /// It is normal.
    pub(super) fn new(interval: Duration, rules: &Rules) -> Self {
        let tick = interval / TICKS_PER_INTERVAL;
        let recovery = if rules.linear_patience { tick * RECOVERY_TICKS } else { interval };
        let stall = (Duration::ZERO, Time::ZERO);
        Self { interval, score: 0, since: Time::ZERO, recovery, stall }
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
        let tick = self.interval / TICKS_PER_INTERVAL;
        let ticks = late.as_nanos() / tick.as_nanos().max(1);
        if ticks > 0 {
            self.fall_ill(now);
        }
        // It falls soon, so that each late tick has to count, and not each stall.
        if self.recovery < self.interval {
            let more = u32::try_from(ticks.saturating_sub(1)).unwrap_or(HEALTH_MAX);
            self.score = self.score.saturating_add(more).min(HEALTH_MAX);
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

    /// Time passes, and the ticks are on time.
    pub(super) fn recover(&mut self, now: Time) {
        if self.score > 0 && now.since(self.since) >= self.recovery {
            self.score -= 1;
            self.since = now;
        }
    }
}

/// The score rises by one with each late tick, and falls by one with this many that are on time.
const RECOVERY_TICKS: u32 = 2;
/// For this many intervals a stall is reported with every verdict.
const STALL_MEMORY: u32 = 10;
