//! The gate of this machine, and the waves that wait at it.

use std::{collections::VecDeque, time::Duration};

use rand::{SeedableRng, rngs::SmallRng};

use crate::protocol::{
    gate::{Gate, Kind},
    hash::hash,
    id::NodeId,
    rules::Rules,
    time::Time,
    wave::Swell,
};

/// The gate of this machine.
#[derive(Debug)]
pub(super) struct Gating {
    pub(super) gate: Gate,
    rng: SmallRng,
    /// When the last one began whose end this machine does not hear of.
    begun: [Option<Time>; 2],
    /// The waves of this node that wait to be sent.
    pub(super) held: VecDeque<Swell>,
}

impl Gating {
    /// Nothing has begun.
    pub(super) fn new(node: &NodeId, rules: Rules) -> Self {
        Self {
            gate: Gate::new(rules.gate),
            rng: SmallRng::seed_from_u64(hash(node.as_str())),
            begun: [None; 2],
            held: VecDeque::new(),
        }
    }

    /// Begins one of a kind, if it may.
    pub(super) fn begins(
        &mut self,
        now: Time,
        lag: Duration,
        kind: Kind,
        under_way: usize,
    ) -> bool {
        let may = self.gate.may(now, lag, kind, under_way);
        if may {
            self.gate.begin(now, kind, &mut self.rng);
        }
        may
    }

    /// The same for a kind whose ends this machine does not hear of: one counts as under way for a while.
    pub(super) fn begins_unheard(&mut self, now: Time, lag: Duration, kind: Kind) -> bool {
        let slot = usize::from(kind == Kind::Introduction);
        let under_way = self.begun[slot].is_some_and(|at| now.since(at) < ASSUMED);
        let begins = self.begins(now, lag, kind, usize::from(under_way));
        if begins {
            self.begun[slot] = Some(now);
        }
        begins
    }
}

/// For so long one counts as under way whose end is not heard of.
const ASSUMED: Duration = Duration::from_secs(1);
