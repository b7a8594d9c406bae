//! The gate: whether work may begin, by how late the node is served ([`lag`](super::lag)).
//!
//! A limit that counts things admits as much work when each thing takes longer, of which less is finished in time.
//! So whatever begins work asks here first, and what has begun is finished:
//!
//! | lag | may begin |
//! |---|---|
//! | below [`OPEN_BELOW`] | whatever the limits of the kind allow |
//! | up to [`SHUT_ABOVE`] | one of a kind, if none of the kind is under way |
//! | above | the trickle: one of a kind in [`pause`], and up to [`JITTER_MAX`] more, so that nodes do not begin together |
//!
//! Without the trickle a machine that is always late would never join. Never gated are answers, what has begun,
//! heartbeats, verdicts and the node's own writes. Questions about missed peers have a rule of their own
//! ([`liveness`](super::liveness)). What is held is not a failure: it waits, and has no back-off.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{counter::Counter, time::Time};

/// With less lag than this the gate is open.
pub const OPEN_BELOW: Duration = Duration::from_millis(20);
/// With more lag than this only the trickle begins.
pub const SHUT_ABOVE: Duration = Duration::from_millis(100);
/// The least time between two of a kind in the trickle.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The same as a multiple of the lag.
pub const PAUSE_LAGS: u32 = 10;
/// The most that one of the trickle is put off beyond that.
pub const JITTER_MAX: Duration = Duration::from_secs(1);

/// The kinds of work that may wait. If several wait in one turn of a machine, it asks for them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A dial to a neighbour.
    Dial,
    /// An exchange with a seed, or with whoever lives while the node has no connection.
    Seed,
    /// An exchange with a neighbour whose root differs.
    Repair,
    /// An exchange with a peer that asks for more than can be sent at once.
    Owed,
    /// An exchange with a peer that is no neighbour.
    Errand,
    /// An introduction of another node that is told unasked; the others are announced.
    Introduction,
    /// A wave that counts the nodes with a version.
    Wave,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Dial,
        Self::Seed,
        Self::Repair,
        Self::Owed,
        Self::Errand,
        Self::Introduction,
        Self::Wave,
    ];

    /// What counts those of this kind that were held.
    #[must_use]
    pub const fn held(self) -> Counter {
        match self {
            Self::Dial => Counter::DialsHeld,
            Self::Seed => Counter::SeedsHeld,
            Self::Repair => Counter::RepairsHeld,
            Self::Owed => Counter::OwedHeld,
            Self::Errand => Counter::ErrandsHeld,
            Self::Introduction => Counter::IntroductionsHeld,
            Self::Wave => Counter::WavesHeld,
        }
    }
}

/// The gate of one machine.
#[derive(Clone, Debug)]
pub struct Gate {
    enabled: bool,
    begun: [Option<Begun>; Kind::ALL.len()],
}

/// The last one of a kind.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Time,
    /// How much longer than the pause the next one of the trickle waits.
    jitter: Duration,
}

impl Gate {
    /// Nothing has begun. `enabled`: otherwise everything may.
    #[must_use]
    pub const fn new(enabled: bool) -> Self {
        Self { enabled, begun: [None; Kind::ALL.len()] }
    }

    /// Whether one more of a kind may begin, of which this many are under way. The limits of the kind hold besides.
    #[must_use]
    pub fn may(&self, now: Time, lag: Duration, kind: Kind, under_way: usize) -> bool {
        if !self.enabled || lag < OPEN_BELOW {
            true
        } else if lag <= SHUT_ABOVE {
            under_way == 0
        } else {
            self.due(lag, kind).is_none_or(|due| due <= now)
        }
    }

    /// One of a kind begins.
    pub fn begin(&mut self, now: Time, kind: Kind, rng: &mut impl Rng) {
        let jitter = JITTER_MAX.mul_f64(rng.random_range(0.0..1.0));
        self.begun[kind as usize] = Some(Begun { at: now, jitter });
    }

    /// When the trickle lets the next one of a kind begin; `None`: at any time.
    #[must_use]
    pub fn due(&self, lag: Duration, kind: Kind) -> Option<Time> {
        let shut = self.enabled && lag > SHUT_ABOVE;
        let Begun { at, jitter } = self.begun[kind as usize].filter(|_| shut)?;
        Some(at + pause(lag) + jitter)
    }
}

/// The time between two of a kind in the trickle. A peer that was too busy for a dial is dialed again after it.
#[must_use]
pub fn pause(lag: Duration) -> Duration {
    lag.saturating_mul(PAUSE_LAGS).max(PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    /// For any course of the lag and any requests the starts obey the table, and none waits for longer than the
    /// trickle allows.
    #[test]
    fn what_begins_obeys_the_table_and_the_trickle() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut gate = Gate::new(true);
            let (mut now, mut lag, mut under_way) = (Time::ZERO, Duration::ZERO, 0_usize);
            // The last start, and since when one has waited for the trickle at this lag or less.
            let (mut last, mut waits): (Option<Time>, Option<(Time, Duration)>) = (None, None);
            for _ in 0..2_000 {
                now = now + Duration::from_millis(rng.random_range(0..200));
                if rng.random_ratio(1, 20) {
                    lag = Duration::from_millis(rng.random_range(0..800));
                }
                under_way -= usize::from(under_way > 0 && rng.random_ratio(1, 4));
                if rng.random_ratio(1, 3) {
                    continue;
                }
                let may = gate.may(now, lag, Kind::Dial, under_way);
                if lag < OPEN_BELOW {
                    assert!(may, "SEED={seed}");
                } else if lag <= SHUT_ABOVE {
                    assert_eq!(may, under_way == 0, "SEED={seed}");
                } else if may {
                    let since = last.map(|last| now.since(last));
                    assert!(since.is_none_or(|since| since >= pause(lag)), "SEED={seed}");
                }
                if may {
                    gate.begin(now, Kind::Dial, &mut rng);
                    (last, waits) = (Some(now), None);
                    under_way += 1;
                } else if lag > SHUT_ABOVE {
                    let (since, most) = waits.unwrap_or((now, lag));
                    let most = most.max(lag);
                    waits = Some((since, most));
                    let limit = most * PAUSE_LAGS + JITTER_MAX;
                    assert!(now.since(since) <= limit, "SEED={seed}: held for too long");
                } else {
                    waits = None;
                }
            }
        }
    }

    #[test]
    fn a_kind_does_not_wait_for_another() {
        let mut gate = Gate::new(true);
        let (late, mut rng) = (Duration::from_millis(300), SmallRng::seed_from_u64(1));
        for kind in Kind::ALL {
            assert!(gate.may(Time::ZERO, late, kind, 0), "{kind:?}");
            gate.begin(Time::ZERO, kind, &mut rng);
            assert!(!gate.may(Time::ZERO, late, kind, 0), "{kind:?}");
        }
    }

    #[test]
    fn one_under_way_does_not_stop_the_trickle() {
        let mut gate = Gate::new(true);
        let (late, mut rng) = (Duration::from_millis(300), SmallRng::seed_from_u64(1));
        gate.begin(Time::ZERO, Kind::Dial, &mut rng);
        let due = gate.due(late, Kind::Dial).unwrap();
        assert!(due.since(Time::ZERO) >= pause(late));
        assert!(gate.may(due, late, Kind::Dial, 7));
    }

    #[test]
    fn a_gate_that_is_off_holds_nothing() {
        let mut gate = Gate::new(false);
        gate.begin(Time::ZERO, Kind::Dial, &mut SmallRng::seed_from_u64(1));
        assert!(gate.may(Time::ZERO, Duration::from_secs(9), Kind::Dial, 9));
        assert_eq!(gate.due(Duration::from_secs(9), Kind::Dial), None);
    }
}
