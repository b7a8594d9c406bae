//! Floods: the tree comes first, the other links a little later.
//!
//! The edges of the tree carry one copy to each node. That costs least, so it is quickest where many nodes share
//! a processor. A link beside the tree gets the update after [`FLOOD_DELAY`], unless its other end is known to have
//! it by then: so a broken tree costs this much for each hop around the break, and no request. The
//! ends of a link do not send at the same time, so one of them usually hears of the other's copy before its own is due.

use std::time::Duration;

use super::item::Item;
use crate::protocol::{
    digest::DigestEntry,
    id::{Generation, NodeId, Version},
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

/// An update that some links get later.
#[derive(Debug)]
pub(super) struct Flood {
    due: Time,
    /// The line of the owner before the update.
    pub(super) since: DigestEntry,
    /// How far the update reaches, if a peer that reaches as far has it.
    pub(super) upto: Option<(Generation, Version)>,
    pub(super) to: Vec<NodeId>,
}

impl Floods {
    pub(super) fn due(&self) -> Option<Time> {
        self.waiting.iter().map(|flood| flood.due).min()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < FLOODS_WAITING_MAX
    }

    pub(super) fn take_due(&mut self, now: Time) -> Vec<Flood> {
        self.waiting.extract_if(.., |flood| flood.due <= now).collect()
    }

    pub(super) fn add(&mut self, due: Time, item: &Item, to: Vec<NodeId>) {
        if !to.is_empty() {
            let head = (item.delta.generation, item.delta.to);
            let upto = item.advances().then_some(head);
            self.waiting.push(Flood { due, since: item.fresh.since.clone(), upto, to });
        }
    }
}
