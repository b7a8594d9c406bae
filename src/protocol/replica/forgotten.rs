//! The peers that are forgotten, or will be soon.

use std::collections::BTreeSet;

use super::marks::Marks;
use crate::protocol::{id::NodeId, time::Time};

/// The peers that are forgotten, or will be soon.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// Peers forgotten or removed, whose old state is refused.
    pub(super) marks: Marks,
    /// Peers left out of digests, soon to be forgotten.
    retired: BTreeSet<NodeId>,
    /// Peers of an earlier run that have not been met in this one.
    unmet: BTreeSet<NodeId>,
    /// Until when the store keeps them.
    unmet_until: Time,
}

impl Forgotten {
    /// There are none. `unmet`: the peers that only the store knows; it keeps them for this long.
    pub(super) fn new(unmet: BTreeSet<NodeId>, unmet_until: Time) -> Self {
        Self { marks: Marks::default(), retired: BTreeSet::new(), unmet, unmet_until }
    }

    /// Whether a peer is left out of digests.
    pub(super) fn is_retired(&self, peer: &NodeId) -> bool {
        self.retired.contains(peer)
    }

    /// How many peers are left out of digests.
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// A peer is left out of digests. Returns whether that is new.
    pub(super) fn retire(&mut self, peer: NodeId) -> bool {
        self.retired.insert(peer)
    }

    /// A peer is in digests again, or is forgotten. Returns whether it was left out.
    pub(super) fn take_back(&mut self, peer: &NodeId) -> bool {
        self.retired.remove(peer)
    }

    /// A peer is met in this run.
    pub(super) fn met(&mut self, peer: &NodeId) {
        self.unmet.remove(peer);
    }

    /// No other node will forget the peers that only the store knows: the store would grow with every
    /// restart. Returns them, once it is time.
    pub(super) fn take_unmet(&mut self, now: Time) -> BTreeSet<NodeId> {
        if now < self.unmet_until { BTreeSet::new() } else { std::mem::take(&mut self.unmet) }
    }
}
