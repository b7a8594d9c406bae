//! Why connections with peers were last ended on purpose, for whoever asks why a peer is not there.

use crate::{
    latest::{LATEST_MAX, Latest},
    protocol::{id::NodeId, time::Time},
};

/// Most peers of which it is kept; beyond that the oldest is dropped.
pub const CUTS_MAX: usize = LATEST_MAX;

/// Why the connection with a peer was last ended on purpose, by either end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// Whether the peer ended it, and not this node.
    pub by_peer: bool,
    /// One word for it, as it is counted among the refusals.
    pub label: &'static str,
    /// What happened, for an operator. Of a peer's words no more is to be believed than of the peer.
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
