//! The record of nodes that came back with less than they had, this one included.

use std::collections::VecDeque;

use crate::protocol::{gossip::Have, id::NodeId};

/// The nodes that came back with less than they had.
#[derive(Debug, Default)]
pub(super) struct ReturnedPeers {
    /// The former state of each that was known; of the last ones.
    behind: VecDeque<Have>,
    /// The most versions that a peer says this node has lost, and how often that was reported.
    told: (u64, u32),
}

impl ReturnedPeers {
    /// The known state of a peer's earlier generation, without which it came back.
    pub(super) fn past(&self, peer: &NodeId) -> Option<&Have> {
        self.behind.iter().find(|have| have.node == *peer)
    }

    /// A peer came back without this.
    pub(super) fn remember(&mut self, past: Have) {
        self.behind.push_back(past);
        if self.behind.len() > BEHIND_MAX {
            self.behind.pop_front();
        }
    }

    /// A peer is in another generation.
    pub(super) fn forget(&mut self, peer: &NodeId) {
        self.behind.retain(|have| have.node != *peer);
    }

    /// A peer says that this node has lost this many versions. Returns whether to report that.
    pub(super) const fn reports(&mut self, versions: u64) -> bool {
        let (most, reports) = self.told;
        let reported = versions > most && reports < BEHIND_REPORTS_MAX;
        if reported {
            self.told = (versions, reports + 1);
        }
        reported
    }
}

/// Most peers whose lost state is recorded; the oldest is dropped first.
const BEHIND_MAX: usize = 1_024;
/// Most reports of this node's lost writes, each of more than the one before: any peer can invent them.
const BEHIND_REPORTS_MAX: u32 = 8;
