//! Nodes that come back with less than they had: they are told, and this node hears it of itself.

use std::{collections::VecDeque, sync::Arc};

use super::{Replica, tell};
use crate::protocol::{
    event::{Behind, Event, Problem},
    gossip::{Gossip, Have},
    id::{NodeId, Version},
    returning::{Return, kept},
    route::{Counter, DetectorInput, Output},
};

/// Who came back with less than it had.
#[derive(Debug, Default)]
pub(super) struct ReturnedPeers {
    /// What was known of each before; of the last ones.
    behind: VecDeque<Have>,
    /// The most versions that somebody says this node has lost, and how often that was reported.
    told: (u64, u32),
}

impl Replica {
    /// A peer is in another life, or at another address. `known`: how far the earlier life was known.
    pub(super) fn returned(
        &mut self,
        peer: &NodeId,
        how: Return,
        known: Version,
        out: &mut Vec<Output>,
    ) {
        self.returned.behind.retain(|have| have.node != *peer);
        if how.lost_keys {
            let node = peer.clone();
            let past = Have { node, generation: how.earlier, version: known };
            self.returned.behind.push_back(past);
            if self.returned.behind.len() > BEHIND_MAX {
                self.returned.behind.pop_front();
            }
            if self.push.is_linked(peer) {
                self.tell_past(peer, out);
            }
        }
        out.push(Output::Detector(DetectorInput::Returned(peer.clone(), Arc::new(how))));
    }

    /// Tells a peer what was known of its earlier life that it came back without.
    pub(super) fn tell_past(&self, peer: &NodeId, out: &mut Vec<Output>) {
        let past = self.returned.behind.iter().find(|have| have.node == *peer);
        if let Some(past) = past {
            tell(vec![peer.clone()], Gossip::Have(vec![past.clone()]), out);
        }
    }

    /// A peer says how far it knew this node in an earlier life. That is reported, and changes nothing.
    pub(super) fn told_of_past(&mut self, from: &NodeId, past: &Have, out: &mut Vec<Output>) {
        let (generation, known) = (past.generation, past.version);
        if generation >= self.own.generation() {
            return;
        }
        let kept = kept((generation, known), self.own.ancestry(), self.own.max_version());
        let versions = known.0.saturating_sub(kept.0);
        if versions == 0 {
            return;
        }
        out.push(Output::Count(Counter::BehindTold, 1));
        let (most, reports) = self.returned.told;
        if versions > most && reports < BEHIND_REPORTS_MAX {
            self.returned.told = (versions, reports + 1);
            let behind = Behind { generation, versions, told_by: from.clone() };
            out.push(Output::Event(Event::Error(Problem::Behind(behind))));
        }
    }
}

/// Most peers of which is kept what they came back without; the oldest goes first.
const BEHIND_MAX: usize = 1_024;
/// Most reports of what this node has lost, each of more than the one before: any peer can make it up.
const BEHIND_REPORTS_MAX: u32 = 8;
