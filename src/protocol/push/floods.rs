//! Floods: the tree comes first, the other links a little later.
//!
//! The edges of the tree carry one copy to each node. That costs least, so it is quickest where many nodes share
//! a processor. A link beside the tree gets the update after [`FLOOD_DELAY`], unless its other end is known to have
//! it by then: so a broken tree costs this much for each hop around the break, and no request. The
//! ends of a link do not send at the same time, so one of them usually hears of the other's copy before its own is due.

use std::time::Duration;

use super::{Push, item::Item};
use crate::protocol::{
    digest::DigestEntry,
    id::{Generation, NodeId, Version},
    overlay,
    time::Time,
};

/// A link beside the tree gets a flooded update after this long, and after twice the node's lag.
pub const FLOOD_DELAY: Duration = Duration::from_millis(50);
/// The same at the end that dials the link.
pub const FIRST_FLOOD_DELAY: Duration = Duration::from_millis(10);
/// Most floods that wait: further updates are sent over all links at once.
pub const FLOODS_WAITING_MAX: usize = 64;

/// The floods that wait for the links beside the tree.
#[derive(Debug, Default)]
pub(super) struct Floods {
    waiting: Vec<Flood>,
}

#[derive(Debug)]
struct Flood {
    due: Time,
    /// The line of the owner before the update.
    since: DigestEntry,
    /// How far the update reaches, if a peer that reaches as far has it.
    upto: Option<(Generation, Version)>,
    to: Vec<NodeId>,
}

impl Floods {
    pub(super) fn due(&self) -> Option<Time> {
        self.waiting.iter().map(|flood| flood.due).min()
    }

    fn add(&mut self, due: Time, item: &Item, to: Vec<NodeId>) {
        if !to.is_empty() {
            let head = (item.delta.generation, item.delta.to);
            let upto = item.advances().then_some(head);
            self.waiting.push(Flood { due, since: item.fresh.since.clone(), upto, to });
        }
    }
}

impl Push {
    /// Whether the links beside the tree may get a flooded item later.
    pub(super) fn may_flood_later(&self, item: &Item) -> bool {
        let room = self.floods.waiting.len() < FLOODS_WAITING_MAX;
        self.rules.tree_first && room && !item.introduces() && !item.fresh.requested
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

    /// The floods that are due: each with the line of its owner before the update, and the peers that may lack it.
    pub fn take_floods(&mut self, now: Time) -> Vec<(DigestEntry, Vec<NodeId>)> {
        let due = self.floods.waiting.extract_if(.., |flood| flood.due <= now);
        let mut floods = Vec::new();
        for Flood { since, upto, mut to, .. } in due {
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
}

/// How much later the links beside the tree get an update, in units of this node's lag.
const LATE_COPIES: u32 = 2;
