//! The state of each peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::protocol::{
    id::{Generation, Incarnation, NodeId},
    reason::{Cause, History, Reason, Transition},
    record::Status,
    state::{PeerLife, PeerState},
    time::Time,
    verdict::{Level, Verdict},
};

/// The states of all peers, and the peers that have to be checked again because of them.
#[derive(Debug, Default)]
pub(super) struct Lives {
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Dead or left, to be forgotten later.
    gone: BTreeSet<NodeId>,
    suspects: BTreeSet<NodeId>,
    /// Heard here though others accuse them, and not yet refuted by them.
    pub(super) defied: BTreeSet<NodeId>,
    /// Heard here in a generation that storage does not know yet.
    pub(super) ahead: BTreeMap<NodeId, Ahead>,
    histories: BTreeMap<NodeId, Arc<History>>,
    /// Peers whose state has changed since the changes were last taken.
    pub(super) changed: BTreeSet<NodeId>,
}

/// A thousand million of these fit into the memory of a machine that simulates a large cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) since: Time,
    pub(super) generation: Generation,
    pub(super) incarnation: u32,
    pub(super) level: Level,
    pub(super) state: PeerState,
    pub(super) retired: bool,
}

/// What storage knows of a peer that this node has heard in a later generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) generation: Generation,
    pub(super) incarnation: u32,
    pub(super) level: Level,
    pub(super) left: bool,
    /// When the later generation was last heard.
    pub(super) heard: Time,
}

impl Lives {
    /// All of these are live, according to others, and no other peer is known.
    pub(super) fn reset(
        &mut self,
        now: Time,
        members: impl IntoIterator<Item = (NodeId, Generation)>,
    ) {
        let met = |generation| Peer { state: PeerState::Live, ..Peer::unheard(now, generation) };
        self.peers = members.into_iter().map(|(node, life)| (node, met(life))).collect();
        self.gone = BTreeSet::new();
        self.ahead.clear();
    }

    /// Takes over the state of a peer. Returns whether it is gone.
    pub(super) fn restore(
        &mut self,
        node: &NodeId,
        life: PeerLife,
        history: Option<Arc<History>>,
    ) -> bool {
        let PeerLife { state, since, generation } = life;
        let level = if state == PeerState::Dead { Level::Dead } else { Level::Alive };
        let peer = Peer { since, generation, incarnation: 0, level, state, retired: false };
        if peer.is_gone() {
            self.gone.insert(node.clone());
        } else if state == PeerState::Suspect {
            self.suspects.insert(node.clone());
        }
        if let Some(history) = history {
            self.histories.insert(node.clone(), history);
        }
        self.changed.insert(node.clone());
        self.peers.insert(node.clone(), peer);
        peer.is_gone()
    }

    /// A peer is forgotten.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
        self.gone.remove(&node);
        self.defied.remove(&node);
        self.ahead.remove(&node);
        self.suspects.remove(&node);
        self.histories.remove(&node);
        self.changed.insert(node);
    }

    /// The state of a peer.
    pub(super) fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// Whether any peer is gone, or is checked again for another reason than a suspicion.
    pub(super) fn are_at_rest(&self) -> bool {
        self.gone.is_empty() && self.defied.is_empty() && self.ahead.is_empty()
    }

    /// Whether a peer is dead or has left.
    pub(super) fn is_gone(&self, node: &NodeId) -> bool {
        self.gone.contains(node)
    }

    pub(super) fn is_suspect(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.state == PeerState::Suspect)
    }

    /// The suspects.
    pub(super) const fn suspects(&self) -> &BTreeSet<NodeId> {
        &self.suspects
    }

    /// Changes the state of a peer. Returns the former one, if it was another.
    pub(super) fn enter(&mut self, now: Time, node: &NodeId, next: PeerState) -> Option<PeerState> {
        let peer = self.peers.get_mut(node)?;
        let before = peer.state;
        if before == next {
            return None;
        }
        (peer.state, peer.since, peer.retired) = (next, now, false);
        if peer.is_gone() {
            self.gone.insert(node.clone());
        } else {
            self.gone.remove(node);
        }
        self.changed.insert(node.clone());
        if next == PeerState::Suspect {
            self.suspects.insert(node.clone());
        } else if before == PeerState::Suspect {
            self.suspects.remove(node);
        }
        Some(before)
    }

    /// The latest state transitions of a peer.
    pub(super) fn history(&self, node: &NodeId) -> Option<&Arc<History>> {
        self.histories.get(node)
    }

    /// Records a state transition of a peer.
    pub(super) fn remember(&mut self, node: &NodeId, transition: Transition) {
        Arc::make_mut(self.histories.entry(node.clone()).or_default()).push(transition);
    }

    /// Records an offence of a peer beside its state transitions.
    pub(super) fn note(&mut self, now: Time, node: &NodeId, cause: Cause, deed: Arc<str>) {
        let Some(peer) = self.peers.get(node) else { return };
        let reason = Arc::new(Reason { deed: Some(deed), ..Reason::of(cause) });
        let transition = Transition { at: now, from: peer.state, to: peer.state, reason };
        self.remember(node, transition);
        self.changed.insert(node.clone());
    }

    /// Others may report a state of a peer that this node does not accept.
    pub(super) fn note_defiance(&mut self, node: &NodeId) {
        if self.peers.get(node).is_some_and(Peer::is_defied) {
            self.defied.insert(node.clone());
        }
    }

    /// The observers that agreed on the suspicion.
    pub(super) fn suspected_by(&self, node: &NodeId) -> Arc<[NodeId]> {
        let last = self.histories.get(node).and_then(|history| history.last_change());
        last.map_or_else(Arc::default, |last| Arc::clone(&last.reason.observers))
    }

    /// Excludes time from the waiting.
    pub(super) fn excuse(&mut self, stalled: Duration, now: Time) {
        self.ahead.values_mut().for_each(|ahead| ahead.heard = (ahead.heard + stalled).min(now));
        // A suspect could not be heard, and so could not refute that.
        for node in &self.suspects {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            peer.since = (peer.since + stalled).min(now);
            self.changed.insert(node.clone());
        }
    }

    /// The peers that have been gone for long, and their generations: to be forgotten after all of the time,
    /// and to be left out of digests after half of it, which is returned once.
    pub(super) fn age(
        &mut self,
        now: Time,
        forget_after: Duration,
    ) -> Vec<(Aged, NodeId, Generation)> {
        let mut aged = Vec::new();
        for node in &self.gone {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            let age = now.since(peer.since);
            if age >= forget_after {
                aged.push((Aged::Forget, node.clone(), peer.generation));
            } else if age >= forget_after / 2 && !peer.retired {
                peer.retired = true;
                aged.push((Aged::Retire, node.clone(), peer.generation));
            }
        }
        aged
    }
}

/// The next step for a peer that has been gone for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aged {
    /// It is left out of digests.
    Retire,
    /// It is forgotten.
    Forget,
}

impl Peer {
    pub(super) const fn unheard(now: Time, generation: Generation) -> Self {
        Self {
            since: now,
            generation,
            incarnation: 0,
            level: Level::Alive,
            state: PeerState::Unheard,
            retired: false,
        }
    }

    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.state, PeerState::Dead | PeerState::Left)
    }

    /// Whether others accuse it and this node considers it in a better state.
    pub(super) fn is_defied(&self) -> bool {
        match self.level {
            Level::Alive => false,
            Level::Suspect => !self.is_gone() && self.state != PeerState::Suspect,
            Level::Dead => !self.is_gone(),
        }
    }

    /// Its state according to the accusation of others, if there is one.
    pub(super) const fn accused_as(&self) -> Option<PeerState> {
        match self.level {
            Level::Alive => None,
            Level::Suspect => Some(PeerState::Suspect),
            Level::Dead => Some(PeerState::Dead),
        }
    }

    /// What storage knows of it, as long as nothing else was heard.
    pub(super) fn as_told(&self) -> Ahead {
        let Self { generation, incarnation, level, .. } = *self;
        let left = self.state == PeerState::Left;
        Ahead { generation, incarnation, level, left, heard: Time::ZERO }
    }

    /// The verdict of an accusation: one that it has refuted already is not repeated.
    pub(super) fn accusation(&self, level: Level) -> (Generation, Verdict) {
        let incarnation = Incarnation(self.incarnation.into());
        (self.generation, Verdict { incarnation, level })
    }
}

impl Ahead {
    pub(super) fn of(
        generation: Generation,
        status: Status,
        verdict: Verdict,
        heard: Time,
    ) -> Self {
        let incarnation = u32::try_from(verdict.incarnation.0).unwrap_or(u32::MAX);
        Self { generation, incarnation, level: verdict.level, left: status == Status::Left, heard }
    }
}
