//! Nodes that come back with less than they had: they are informed, and this node is informed about itself.

use std::sync::Arc;

use super::{Replica, outgoing::tell};
use crate::protocol::{
    event::{Behind, Event, Problem},
    gossip::{Gossip, Have},
    id::{NodeId, Version},
    returning::{Return, kept},
    route::{Counter, DetectorInput, Output},
};

impl Replica {
    /// A peer is in another generation, or at another address. `known`: how far the earlier generation was
    /// known.
    pub(super) fn returned(
        &mut self,
        peer: &NodeId,
        how: Return,
        known: Version,
        out: &mut Vec<Output>,
    ) {
        self.returned.forget(peer);
        if how.lost_keys {
            let node = peer.clone();
            self.returned.remember(Have { node, generation: how.earlier, version: known });
            if self.push.is_linked(peer) {
                self.tell_past(peer, out);
            }
        }
        out.push(Output::Detector(DetectorInput::Returned(peer.clone(), Arc::new(how))));
    }

    /// Sends a peer the known extent of its earlier generation, without which it came back.
    pub(super) fn tell_past(&self, peer: &NodeId, out: &mut Vec<Output>) {
        if let Some(past) = self.returned.past(peer) {
            tell(vec![peer.clone()], Gossip::Have(vec![past.clone()]), out);
        }
    }

    /// A peer reports how far it knew this node in an earlier generation. That is reported, and changes
    /// nothing.
    pub(super) fn told_of_past(&mut self, from: &NodeId, past: &Have, out: &mut Vec<Output>) {
        let (generation, known) = (past.generation, past.version);
        if generation >= self.own.map.generation() {
            return;
        }
        let kept = kept((generation, known), self.own.map.ancestry(), self.own.map.max_version());
        let versions = known.0.saturating_sub(kept.0);
        if versions == 0 {
            return;
        }
        out.push(Output::Count(Counter::BehindTold, 1));
        if self.returned.reports(versions) {
            let behind = Behind { generation, versions, told_by: from.clone() };
            out.push(Output::Event(Event::Error(Problem::Behind(behind))));
        }
    }
}
