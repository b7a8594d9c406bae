//! How late this node was served lately, and how seldom it asks about others while it is late: their silence may
//! be its own.

use std::time::Duration;

use crate::protocol::time::Time;

/// A node that is served later than this is late.
pub const LATE: Duration = Duration::from_millis(50);
/// A node that is late asks about one peer in an interval, or in this many times its lag if that is longer.
pub const ASK_LAGS: u32 = 10;

/// The lag of the node, as far as the detector depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    interval: Duration,
    lag: Duration,
    /// The largest lag since the node began to be late, and until when that counts; `None`: it is on time.
    worst: Option<Duration>,
    /// When it last was late.
    last: Time,
    /// When it began to be late, or last asked since then.
    asked: Time,
}

impl Lateness {
    /// It is on time.
    pub(super) const fn new(interval: Duration) -> Self {
        let (last, asked) = (Time::ZERO, Time::ZERO);
        Self { interval, lag: Duration::ZERO, worst: None, last, asked }
    }

    /// The node is served this late from now on.
    pub(super) fn set(&mut self, now: Time, lag: Duration) {
        self.pass(now);
        self.lag = lag;
        if lag > LATE {
            if self.worst.is_none() {
                self.asked = now;
            }
            self.worst = Some(self.worst.unwrap_or_default().max(lag));
            self.last = now;
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, now: Time) {
        if self.lag > LATE {
            self.last = now;
        } else if now.since(self.last) >= self.interval {
            self.worst = None;
        }
    }

    /// How late the node was served within the last interval at worst; zero if it was not late.
    pub(super) fn worst(&self) -> Duration {
        self.worst.unwrap_or_default()
    }

    /// How late the node is served now.
    pub(super) const fn lag(&self) -> Duration {
        self.lag
    }

    /// Whether it may ask about a peer now.
    pub(super) fn may_ask(&self, now: Time) -> bool {
        self.worst.is_none_or(|worst| now.since(self.asked) >= self.interval.max(worst * ASK_LAGS))
    }

    /// It asks.
    pub(super) const fn asked(&mut self, now: Time) {
        self.asked = now;
    }
}
