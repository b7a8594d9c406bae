//! The served clock: time without the lateness of this node.
//!
//! Patience is counted on it. A deadline in plain time throws away work that is nearly done when the node itself
//! is late: the end that waits gives up, and the other one goes on. The served clock stands still while the node
//! is not served, never runs backwards, and never faster than time. What others count on a node to do, and what
//! expires, does not run on it.

use std::time::Duration;

use super::time::Time;

/// The served clock of one machine, by the lateness that it was told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    late: Duration,
    last: Time,
}

impl Served {
    /// This was the lateness since the start, in all.
    pub fn set_late(&mut self, late: Duration) {
        self.late = self.late.max(late);
    }

    /// The present served time.
    pub fn at(&mut self, now: Time) -> Time {
        let served = Time::from_origin(now.since_origin().saturating_sub(self.late));
        self.last = self.last.max(served);
        self.last
    }

    /// The earliest time at which the served clock can show this.
    #[must_use]
    pub fn earliest(&self, served: Time) -> Time {
        served + self.late
    }
}

/// How long something may take: on the served clock, and at most so long in plain time.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    begun: Time,
    late: Duration,
    served: Duration,
    most: Duration,
}

impl Patience {
    /// It begins now; `late`: the lateness of the node so far, in all.
    #[must_use]
    pub const fn new(now: Time, late: Duration, served: Duration, most: Duration) -> Self {
        Self { begun: now, late, served, most }
    }

    /// How long to wait before looking again; `None` if it is over.
    #[must_use]
    pub fn left(&self, now: Time, late: Duration) -> Option<Duration> {
        let passed = now.since(self.begun);
        let served = passed.saturating_sub(late.saturating_sub(self.late));
        let left = self.served.saturating_sub(served).min(self.most.saturating_sub(passed));
        (!left.is_zero()).then_some(left)
    }
}

/// A dialer waits for at most this many times its patience in plain time.
pub const DIALER_MAX: u32 = 8;
/// An end that has accepted a peer which has proved nothing yet waits for at most this many times its patience:
/// lateness is no gift to attackers.
pub const ACCEPTOR_MAX: u32 = 2;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn it_never_runs_backwards_nor_faster_than_time() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut clock = Served::default();
            let (mut now, mut late) = (Time::ZERO, Duration::ZERO);
            let mut before = clock.at(now);
            for _ in 0..1_000 {
                let millis = rng.random_range(0..300);
                let step = Duration::from_millis(millis);
                now = now + step;
                // It is told of its lateness afterwards, and of no more than has passed.
                if rng.random_bool(0.3) {
                    late += Duration::from_millis(rng.random_range(0..=millis));
                    clock.set_late(late);
                }
                let served = clock.at(now);
                assert!(served >= before && served.since(before) <= step, "SEED={seed}");
                assert!(now.since(served) >= late, "SEED={seed}");
                assert!(clock.earliest(served + step) <= now + step, "SEED={seed}");
                before = served;
            }
            assert_eq!(now.since(before), late, "SEED={seed}: in the end all of it is taken out");
        }
    }

    #[test]
    fn it_stands_still_while_the_node_is_late() {
        let mut clock = Served::default();
        let second = Duration::from_secs(1);
        let now = Time::ZERO + 10 * second;
        assert_eq!(clock.at(now), now);
        for stalled in 1..5 {
            clock.set_late(stalled * second);
            assert_eq!(clock.at(now + stalled * second), now);
        }
        assert_eq!(clock.at(now + 5 * second), now + second);
    }

    #[test]
    fn patience_ends_in_served_time_or_at_its_cap() {
        let second = Duration::from_secs(1);
        let patience = Patience::new(Time::ZERO, second, 5 * second, 40 * second);
        let left = |passed: u32, late: u32| {
            patience
                .left(Time::ZERO + passed * second, (1 + late) * second)
                .map(|left| left.as_secs())
        };
        assert_eq!(left(0, 0), Some(5));
        assert_eq!(left(4, 0), Some(1));
        assert_eq!(left(5, 0), None);
        assert_eq!(left(5, 4), Some(4));
        assert_eq!(left(39, 38), Some(1));
        assert_eq!(left(40, 38), None);
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut now, mut late) = (Time::ZERO, Duration::ZERO);
            let patience = Patience::new(now, late, 5 * second, 40 * second);
            while let Some(left) = patience.left(now, late) {
                let lateness = Duration::from_millis(rng.random_range(0..3_000));
                now = now + left + lateness;
                late += lateness;
            }
            let served = now.since(Time::ZERO) - late;
            assert!(served >= 5 * second || now >= Time::ZERO + 40 * second, "SEED={seed}");
        }
    }
}
