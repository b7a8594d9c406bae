//! What peers are known to have, the notes that are due to them, and the requests for what they have noted.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Push,
    turns::{FIRST_NOTE_DELAY, NOTE_DELAY},
};
use crate::protocol::{
    delta::{Delta, NodeDelta},
    gossip::Have,
    id::{Generation, NodeId, Version},
    known::Notes,
    overlay,
    requests::{Announced, REQUEST_DELAY, REQUEST_DELAY_ABROAD},
    time::Time,
};
use std::time::Duration;

impl Push {
    /// A note is due to a peer.
    pub(super) fn note_later(&mut self, now: Time, peer: &NodeId) {
        let delay = if overlay::dials(&self.node, peer) { FIRST_NOTE_DELAY } else { NOTE_DELAY };
        if !self.known.is_empty()
            && let Some(link) = self.links.get_mut(peer)
        {
            link.notes.want(now, delay);
        }
    }

    /// A peer has sent notes: this end has the next turn.
    pub fn was_noted(&mut self, now: Time, by: &NodeId) {
        if let Some(link) = self.links.get_mut(by) {
            link.notes.heard(now);
        }
    }

    /// The notes to send now, by peer: the owners of whom one is due, each with how far the peer is known to reach.
    pub fn take_notes(&mut self, now: Time) -> Vec<(NodeId, Notes)> {
        let Self { links, known, rules, .. } = self;
        let notes = links.iter_mut().filter_map(|(peer, link)| {
            link.notes.take(now).then(|| {
                let mut notes = known.take_notes(peer);
                if !rules.filters {
                    notes.iter_mut().for_each(|(_, has)| *has = (Generation::ZERO, Version::ZERO));
                }
                (peer.clone(), notes)
            })
        });
        notes.collect()
    }

    /// A peer says how far it reaches.
    pub fn reaches(
        &mut self,
        now: Time,
        peer: &NodeId,
        owner: &NodeId,
        head: (Generation, Version),
    ) {
        self.known.set(now, peer, owner, head);
    }

    /// A peer was sent these updates besides those that [`Push::share`] gave it.
    pub fn sent(&mut self, now: Time, peer: &NodeId, news: &Delta) {
        for delta in news.nodes.iter().filter(|delta| delta.to > Version::ZERO) {
            self.known.raise(now, peer, &delta.node, (delta.generation, delta.to));
        }
    }

    /// A peer sent this update. Returns whether it had been asked for.
    pub fn arrived(&mut self, now: Time, from: &NodeId, delta: &NodeDelta, is_new: bool) -> bool {
        let head = (delta.generation, delta.to);
        self.repeated(now, from, &delta.node, head);
        is_new && self.requests.arrived(&delta.node, head)
    }

    /// A peer sent an update that reaches this far, and that may have been here already.
    pub fn repeated(
        &mut self,
        now: Time,
        from: &NodeId,
        owner: &NodeId,
        head: (Generation, Version),
    ) {
        if head.1 > Version::ZERO {
            self.known.raise(now, from, owner, head);
        }
    }

    /// A peer announces an update that has not arrived here yet: wait for it, then ask. `known`: whether this
    /// generation of its owner is known.
    pub fn heard_of(&mut self, now: Time, from: &NodeId, have: Have, known: bool, lag: Duration) {
        let abroad = self.edges.as_ref().is_some_and(|edges| edges.is_abroad(from));
        // The peer is likely to be as late, on the way there and on the way back.
        let wait = lag * LATE_ANSWERS + if abroad { REQUEST_DELAY_ABROAD } else { REQUEST_DELAY };
        self.requests.announced(now, from, Announced { have, known, wait });
    }

    /// The announced updates that should have arrived by now.
    #[must_use]
    pub fn awaited(&self, now: Time) -> Vec<Have> {
        self.requests.awaited(now)
    }

    /// Of these the ones that have not, `lacked`, by the peer to ask. None of the others is awaited any more.
    pub fn overdue(
        &mut self,
        now: Time,
        lacked: &BTreeSet<NodeId>,
    ) -> BTreeMap<NodeId, Vec<NodeId>> {
        let links = &self.links;
        let takes = |peer: &NodeId| links.get(peer).is_some_and(|link| !link.congested);
        self.requests.overdue(now, lacked, takes)
    }
}

/// How long a request may take longer, in units of this node's lag.
const LATE_ANSWERS: u32 = 3;
