//! When to try nodes that are not neighbours: a seed, or a live peer far away.

use std::time::Duration;

use rand::{RngExt, rngs::SmallRng};

use crate::protocol::{id::NodeId, time::Time};

/// When a peer far away is tried next.
#[derive(Debug)]
pub(super) struct Islands {
    next_seed: Time,
    next_distant: Time,
    /// The peers that are being asked although they are not neighbours.
    distant: Option<NodeId>,
}

impl Islands {
    /// `gossip`: the time between two rounds; `seed`: how often a seed is tried.
    pub(super) fn new(now: Time, gossip: Duration, seed: Duration, rng: &mut SmallRng) -> Self {
        Self {
            next_seed: now + seed,
            next_distant: now + distant_interval(gossip, rng),
            distant: None,
        }
    }

    /// When something is due.
    pub(super) const fn dues(&self) -> [Time; 2] {
        [self.next_seed, self.next_distant]
    }

    /// Whether a seed is to be tried now.
    pub(super) fn is_seed_due(
        &mut self,
        now: Time,
        interval: Duration,
        rng: &mut SmallRng,
    ) -> bool {
        let due = now >= self.next_seed;
        if due {
            let jitter = rng.random_range(0.75..1.25);
            self.next_seed = now + interval.mul_f64(jitter);
        }
        due
    }

    /// Whether a peer far away is to be tried now. `interval`: the time between two rounds.
    pub(super) fn is_distant_due(
        &mut self,
        now: Time,
        interval: Duration,
        rng: &mut SmallRng,
    ) -> bool {
        let due = now >= self.next_distant;
        if due {
            self.next_distant = now + distant_interval(interval, rng);
        }
        due
    }

    /// Whether a peer is being asked although it is not a neighbour.
    pub(super) const fn is_asking(&self) -> bool {
        self.distant.is_some()
    }

    /// This peer is asked although it is not a neighbour.
    pub(super) fn ask(&mut self, node: NodeId) {
        self.distant = Some(node);
    }

    /// An exchange with a peer has ended. Returns whether it was asked although it is not a neighbour.
    pub(super) fn ended(&mut self, node: &NodeId) -> bool {
        self.distant.take_if(|distant| distant == node).is_some()
    }
}

fn distant_interval(gossip: Duration, rng: &mut SmallRng) -> Duration {
    (gossip * DISTANT_INTERVALS).mul_f64(rng.random_range(0.75..1.25))
}

/// A live peer that is not a neighbour is asked once in this many rounds: once a minute by default.
const DISTANT_INTERVALS: u32 = 60;
