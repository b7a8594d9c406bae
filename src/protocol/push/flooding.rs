//! What floods over the links beside the tree, and when.

use std::time::Duration;

use super::{
    Push,
    floods::{FIRST_FLOOD_DELAY, FLOOD_DELAY, Flood},
    item::Item,
};
use crate::protocol::{digest::DigestEntry, id::NodeId, mode::LATE, overlay, time::Time};

impl Push {
    /// Whether the links beside the tree may get a flooded item later.
    pub(super) fn may_flood_later(&self, item: &Item) -> bool {
        self.rules.tree_first
            && self.floods.has_room()
            && !item.introduces()
            && !item.fresh.requested
    }

    /// A flooded item was not told to these peers, whose links are beside the tree.
    pub(super) fn flood_later(
        &mut self,
        now: Time,
        lag: Duration,
        item: &Item,
        peers: Vec<NodeId>,
    ) {
        let dials = |peer: &NodeId| overlay::dials(&self.node, peer);
        let (first, second) = peers.into_iter().partition(dials);
        let lag = lag * LATE_COPIES;
        self.floods.add(now + FIRST_FLOOD_DELAY + lag, item, first);
        self.floods.add(now + FLOOD_DELAY + lag, item, second);
    }

    /// The floods that are due: each with the line of its owner before the update, and the peers that may lack it. A node
    /// that is late floods nothing: a note is due to these peers instead.
    pub fn take_floods(&mut self, now: Time, lag: Duration) -> Vec<(DigestEntry, Vec<NodeId>)> {
        let mut floods = Vec::new();
        for Flood { since, upto, mut to, .. } in self.floods.take_due(now) {
            if lag >= LATE {
                to.retain(|peer| !self.note_instead(now, peer, &since.node));
            }
            to.retain(|peer| {
                let Some(link) = self.links.get_mut(peer) else { return false };
                let has = |upto| self.rules.filters && self.known.has(peer, &since.node, upto);
                if upto.is_some_and(has) {
                    return false;
                }
                if link.congested {
                    link.owe(&since);
                    self.known.forget(peer, &since.node);
                }
                !link.congested
            });
            if !to.is_empty() {
                floods.push((since, to));
            }
        }
        floods
    }

    /// Says whether there is room for the note.
    fn note_instead(&mut self, now: Time, peer: &NodeId, owner: &NodeId) -> bool {
        let noted = self.known.note(now, peer, owner);
        if noted {
            self.note_later(now, peer);
        }
        noted
    }
}

/// How much later the links beside the tree get an update, in units of this node's lag.
const LATE_COPIES: u32 = 2;
