//! The parts of a snapshot: immutable, and replaced as a whole.

use std::sync::Arc;

use imbl::OrdMap;

use crate::protocol::{
    id::NodeId, phi::PhiEstimate, reason::History, state::PeerLife, view::NodeView,
};

/// The maps as readers see them.
pub(crate) type Maps = OrdMap<NodeId, Arc<NodeView>>;
/// The detector's state of all peers.
pub(crate) type Lives = OrdMap<NodeId, PeerLife>;
/// The reasons for these states.
pub(crate) type Histories = OrdMap<NodeId, Arc<History>>;

/// The silence estimates of the peers that this node observes itself; a few, and always changing.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Vec<(NodeId, PhiEstimate)>);

impl Estimates {
    /// `estimates`: by name.
    pub(crate) fn new<'a>(estimates: impl Iterator<Item = (&'a NodeId, PhiEstimate)>) -> Self {
        Self(estimates.map(|(node, estimate)| (node.clone(), estimate)).collect())
    }

    pub(crate) fn get(&self, peer: &NodeId) -> Option<&PhiEstimate> {
        let at = self.0.binary_search_by(|(node, _)| node.cmp(peer)).ok()?;
        Some(&self.0[at].1)
    }
}
