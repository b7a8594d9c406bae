//! Who is forgotten, or soon to be.

use std::collections::BTreeSet;

use super::marks::Marks;
use crate::protocol::{id::NodeId, time::Time};

/// Who is forgotten, or soon to be.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// Peers forgotten or removed, whose old news is refused.
    pub(super) marks: Marks,
    /// Peers no longer told of, soon to be forgotten.
    retired: BTreeSet<NodeId>,
    /// Peers of an earlier run that have not been met in this one.
    unmet: BTreeSet<NodeId>,
    /// Until when the store keeps them.
    unmet_until: Time,
}

impl Forgotten {
    /// Nobody is. `unmet`: whom only the store knows; it keeps them for so long.
    pub(super) fn new(unmet: BTreeSet<NodeId>, unmet_until: Time) -> Self {
        Self { marks: Marks::default(), retired: BTreeSet::new(), unmet, unmet_until }
    }

    /// Whether a peer is no longer told of.
    pub(super) fn is_retired(&self, peer: &NodeId) -> bool {
        self.retired.contains(peer)
    }

    /// How many peers are no longer told of.
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// A peer is no longer told of. Says whether that is new.
    pub(super) fn retire(&mut self, peer: NodeId) -> bool {
        self.retired.insert(peer)
    }

    /// A peer is told of again, or is forgotten. Says whether it was not told of.
    pub(super) fn take_back(&mut self, peer: &NodeId) -> bool {
        self.retired.remove(peer)
    }

    /// A peer is met in this run.
    pub(super) fn met(&mut self, peer: &NodeId) {
        self.unmet.remove(peer);
    }

    /// Whom only the store knows nobody else will forget: it would grow with every restart. Returns
    /// them, once it is time.
    pub(super) fn take_unmet(&mut self, now: Time) -> BTreeSet<NodeId> {
        if now < self.unmet_until { BTreeSet::new() } else { std::mem::take(&mut self.unmet) }
    }
}
