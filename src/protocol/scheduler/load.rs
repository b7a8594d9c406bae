//! How busy this node is: how late it is served, what it may begin, and how much of storage's time exchanges may use.

use std::time::Duration;

use crate::protocol::{bucket::Bucket, gate::Gate, rules::Rules, served::Served, time::Time};

/// How busy this node is.
#[derive(Debug)]
pub(super) struct Load {
    /// How late this node is served.
    pub(super) lag: Duration,
    pub(super) served: Served,
    /// Whether work may begin.
    pub(super) gate: Gate,
    /// The budget of repair.
    pub(super) spare: Spare,
}

impl Load {
    /// It is idle.
    pub(super) fn new(now: Time, rules: Rules) -> Self {
        Self {
            lag: Duration::ZERO,
            served: Served::default(),
            gate: Gate::new(rules.gate),
            spare: Spare::new(now),
        }
    }
}

/// What exchanges may still use, in seconds of storage's time.
#[derive(Debug)]
pub(super) struct Spare(Bucket);

impl Spare {
    /// All of the last ten seconds' share.
    pub(super) const fn new(now: Time) -> Self {
        Self(Bucket::holding(now, MOST))
    }

    /// Storage has worked for so long for exchanges.
    pub(super) fn spend(&mut self, now: Time, spent: Duration) {
        self.0.charge_of(now, SHARE, MOST, spent.as_secs_f64());
    }

    /// Whether another exchange may begin.
    pub(super) fn is_left(&self, now: Time) -> bool {
        self.0.wait(now, SHARE, MOST, 0.0).is_none()
    }
}

/// Exchanges may use a tenth of storage's time, and what they have left of the last ten seconds.
const SHARE: f64 = 0.1;
const MOST: f64 = 10.0 * SHARE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_last_ten_seconds_may_be_used() {
        let start = Time::ZERO;
        let mut spare = Spare::new(start);
        spare.spend(start, Duration::from_millis(900));
        assert!(spare.is_left(start));
        spare.spend(start, Duration::from_millis(300));
        assert!(!spare.is_left(start));
        assert!(!spare.is_left(start + Duration::from_millis(1_900)));
        assert!(spare.is_left(start + Duration::from_millis(2_100)));
    }
}
