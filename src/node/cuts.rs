//! Why connections with peers were last ended on purpose, to answer why a peer is missing.

use crate::{
    latest::Latest,
    protocol::{id::NodeId, time::Time},
};

/// Why the connection with a peer was last ended on purpose, by either end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// Whether the peer ended it, rather than this node.
    pub by_peer: bool,
    /// The label under which it is counted among the refusals.
    pub label: &'static str,
    /// What happened, for an operator. A peer's words are as trustworthy as the peer.
    pub reason: String,
}

/// The last one of each peer.
#[derive(Debug, Default)]
pub(crate) struct Cuts(Latest<Cut>);

impl Cuts {
    pub(crate) fn note(&self, peer: &NodeId, cut: Cut) {
        self.0.note(peer, cut.at, cut);
    }

    pub(crate) fn get(&self, peer: &NodeId) -> Option<Cut> {
        self.0.get(peer).map(|(_, cut)| cut)
    }
}
