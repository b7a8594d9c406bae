//! What the balance reads of the directory: the providers of one service, by datacenter.

use crate::protocol::id::{Datacenter, NodeId};

/// A provider of the service that is called: a live node that offers it in the right major version.
pub trait Candidate {
    /// The node.
    fn node(&self) -> &NodeId;

    /// The minor version that it offers.
    fn minor(&self) -> u16;

    /// How many calls it wants, relative to others; 0 counts as 1.
    fn weight(&self) -> u8;

    /// Whether it takes no new calls since it is about to stop.
    fn draining(&self) -> bool;

    /// Whether this node suspects that it is dead.
    fn suspect(&self) -> bool;

    /// 64 bits that follow from its name alone, so that all callers compute the same.
    fn name_hash(&self) -> u64;
}

/// The candidates of one datacenter, sorted by the name of the node.
pub trait Sequence {
    /// What it holds.
    type Item: Candidate;

    /// How many there are.
    fn len(&self) -> usize;

    /// The candidate at this position, in O(log n).
    fn get(&self, position: usize) -> Option<&Self::Item>;

    /// All of them.
    fn iter(&self) -> impl Iterator<Item = &Self::Item>;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The candidate of this node, by binary search.
    fn find(&self, node: &NodeId) -> Option<&Self::Item> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            let found = self.get(middle)?;
            match found.node().cmp(node) {
                std::cmp::Ordering::Equal => return Some(found),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }
}

/// All candidates for a call, by datacenter.
pub trait Candidates {
    /// A candidate.
    type Item: Candidate;
    /// Those of one datacenter.
    type Sequence: Sequence<Item = Self::Item>;

    /// This datacenter and its candidates, if it has any.
    fn within(&self, datacenter: &Datacenter) -> Option<(&Datacenter, &Self::Sequence)>;

    /// All datacenters that have candidates.
    fn datacenters(&self) -> impl Iterator<Item = (&Datacenter, &Self::Sequence)>;
}
