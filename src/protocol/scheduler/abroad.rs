//! The peers in other datacenters that this node hears, and the datacenters that are unreachable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::members::Members;
use crate::protocol::{
    datacenters::Datacenters,
    id::{Datacenter, NodeId},
    links::Links,
    overlay::{DatacenterIndex, FELLOWS_MIN, Overlay},
    time::Time,
};

/// What is known of other datacenters.
#[derive(Debug)]
pub(super) struct Abroad {
    datacenters: Datacenters,
    /// The peers that this node only listens to and that are silent; and, if another node of that datacenter
    /// has answered since, the time from which the silence counts by itself.
    missed: BTreeMap<NodeId, Option<Time>>,
    /// The peers in other datacenters that this node hears, or has to hear, may have changed.
    heard_changed: bool,
    /// The members, or their reports of lost contact.
    members_changed: bool,
}

impl Abroad {
    /// All datacenters are reachable.
    pub(super) fn new(gossip_interval: Duration) -> Self {
        Self {
            datacenters: Datacenters::new(gossip_interval),
            missed: BTreeMap::new(),
            heard_changed: false,
            members_changed: false,
        }
    }

    /// Takes over what was known before.
    pub(super) fn restore(
        &mut self,
        unreachable: Arc<BTreeSet<Datacenter>>,
        severed: BTreeSet<Datacenter>,
    ) {
        self.datacenters.restore(unreachable, severed);
        self.members_changed = true;
    }

    /// The unreachable datacenters.
    pub(super) const fn unreachable(&self) -> &Arc<BTreeSet<Datacenter>> {
        self.datacenters.unreachable()
    }

    /// The datacenters with which this node has reported lost contact.
    pub(super) const fn told(&self) -> &BTreeSet<Datacenter> {
        self.datacenters.told()
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.datacenters.due()
    }

    /// Whether all peers are heard.
    pub(super) fn is_at_rest(&self) -> bool {
        self.datacenters.is_at_rest() && self.missed.is_empty()
    }

    /// The members may have changed.
    pub(super) const fn members_changed(&mut self, changed: bool) {
        self.members_changed |= changed;
    }

    /// The peers that this node hears, or has to hear, may have changed.
    pub(super) const fn hearing_changed(&mut self, changed: bool) {
        self.heard_changed |= changed;
    }

    /// Whether that has to be examined.
    pub(super) const fn has_hearing_changed(&self) -> bool {
        self.heard_changed
    }

    /// A round begins.
    pub(super) fn begin_round(&mut self) {
        self.heard_changed |= !self.missed.is_empty();
    }

    /// A peer reports with which datacenters it has lost contact.
    pub(super) fn said(&mut self, peer: NodeId, from: BTreeSet<Datacenter>) {
        self.datacenters.said(peer, from);
        self.members_changed = true;
    }

    /// A peer is forgotten.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.datacenters.forgotten(node);
        self.missed.remove(node);
    }

    /// A peer is not missed any more.
    pub(super) fn acquit(&mut self, node: &NodeId) {
        self.missed.remove(node);
    }

    /// Earlier misses have no meaning any more.
    pub(super) fn interrupt(&mut self) {
        self.missed.clear();
        self.heard_changed = true;
    }

    /// Only these are listened to.
    pub(super) fn listen_to(&mut self, is_heard: impl Fn(&NodeId) -> bool) {
        self.missed.retain(|node, _| is_heard(node));
    }

    /// Whether a peer is missed.
    pub(super) fn misses(&self, node: &NodeId) -> bool {
        self.missed.contains_key(node)
    }

    /// Whether a peer is missed though another node there has answered for long enough.
    pub(super) fn misses_alone(&self, node: &NodeId, now: Time) -> bool {
        self.missed.get(node).copied().flatten().is_some_and(|from| from <= now)
    }

    /// A peer that this node only listens to is not heard any more.
    pub(super) fn miss(&mut self, node: NodeId, members: &Members) {
        // It may have answered before the silence of another one was to count, and be silent itself now.
        let place = members.place(&node);
        for (other, from) in &mut self.missed {
            if members.place(other) == place {
                *from = None;
            }
        }
        self.missed.insert(node, None);
    }

    /// A peer has answered just now. `interval`: the time between two rounds.
    pub(super) fn answered(
        &mut self,
        now: Time,
        node: &NodeId,
        members: &Members,
        interval: Duration,
    ) {
        self.missed.remove(node);
        let Some(place) = members.place(node) else { return };
        if place == Overlay::HOME {
            return;
        }
        self.heard_changed = true;
        self.datacenters.answered(now, members.overlay().name(place));
        for (other, from) in &mut self.missed {
            if members.place(other) == Some(place) {
                // After a network cut they do not all answer at the same moment.
                from.get_or_insert(now + interval * ANSWER_PATIENCE);
            }
        }
    }

    /// Looks which datacenters are heard.
    pub(super) fn hear(&mut self, now: Time, members: &Members, links: &Links) {
        self.heard_changed = false;
        let mut heard = BTreeMap::new();
        for node in links.wanted() {
            let Some(peer) = members.get(node) else { continue };
            if peer.datacenter != Overlay::HOME {
                let missed = peer.suspected || self.missed.contains_key(node);
                let hears = links.has(node) && !missed;
                let name = members.overlay().name(peer.datacenter);
                *heard.entry(name.clone()).or_default() |= hears;
            }
        }
        self.datacenters.bridged(now, &heard);
    }

    /// Time passes. Returns the datacenters with which this node has lost contact, if the set has changed.
    pub(super) fn tick(&mut self, now: Time, members: &Members) -> Option<BTreeSet<Datacenter>> {
        let overlay = members.overlay();
        let single = |name: &Datacenter| {
            overlay.inhabited().any(|at| overlay.name(at) == name && overlay.members(at) == 1)
        };
        let severed = self.datacenters.tick(now, single);
        self.members_changed |= severed.is_some();
        severed
    }

    /// Returns the datacenters that have become unreachable, and those that are reachable again.
    pub(super) fn assess(
        &mut self,
        members: &Members,
    ) -> Option<(Vec<Datacenter>, Vec<Datacenter>)> {
        if !std::mem::take(&mut self.members_changed) || self.datacenters.is_whole() {
            return None;
        }
        let others = members.iter().filter_map(|(node, peer)| Some((node, peer.site()?)));
        let (lost, found) = self.datacenters.assess(members.overlay(), others);
        (!lost.is_empty() || !found.is_empty()).then_some((lost, found))
    }

    /// The datacenters where other nodes are to be tried, and the peers to be tried again: where no neighbour
    /// is heard, and where one of two is missed.
    pub(super) fn doubted(
        &self,
        now: Time,
        members: &Members,
    ) -> (BTreeSet<DatacenterIndex>, Vec<&NodeId>) {
        let overlay = members.overlay();
        let by_name = |name: &Datacenter| overlay.inhabited().find(|at| overlay.name(*at) == name);
        let mut doubted: BTreeSet<_> = self.datacenters.doubted(now).filter_map(by_name).collect();
        let few =
            |node: &NodeId| members.place(node).filter(|at| overlay.members(*at) == FELLOWS_MIN);
        let mut again = Vec::new();
        for (node, from) in &self.missed {
            match (few(node), from) {
                (None, _) => {}
                (Some(place), None) => {
                    doubted.insert(place);
                }
                (Some(_), Some(_)) => again.push(node),
            }
        }
        (doubted, again)
    }
}

/// Rounds for the other one of two to answer, when one has.
const ANSWER_PATIENCE: u32 = 2;
