//! What is kept of nodes that came back with less than they had, this one included.

use std::collections::VecDeque;

use crate::protocol::{gossip::Have, id::NodeId};

/// Who came back with less than it had.
#[derive(Debug, Default)]
pub(super) struct ReturnedPeers {
    /// What was known of each before; of the last ones.
    behind: VecDeque<Have>,
    /// The most versions that somebody says this node has lost, and how often that was reported.
    told: (u64, u32),
}

impl ReturnedPeers {
    /// What was known of the earlier life of a peer that it came back without.
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

    /// A peer is in another life.
    pub(super) fn forget(&mut self, peer: &NodeId) {
        self.behind.retain(|have| have.node != *peer);
    }

    /// Somebody says that this node has lost so many versions. Says whether that is to be reported.
    pub(super) const fn reports(&mut self, versions: u64) -> bool {
        let (most, reports) = self.told;
        let reported = versions > most && reports < BEHIND_REPORTS_MAX;
        if reported {
            self.told = (versions, reports + 1);
        }
        reported
    }
}

/// Most peers of which is kept what they came back without; the oldest goes first.
const BEHIND_MAX: usize = 1_024;
/// Most reports of what this node has lost, each of more than the one before: any peer can make it up.
const BEHIND_REPORTS_MAX: u32 = 8;
