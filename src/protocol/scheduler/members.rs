//! The members, and their datacenters.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{
    id::{Datacenter, NodeId},
    overlay::{DatacenterIndex, FELLOWS_MIN, Overlay, Site},
    route::Reach,
};

/// The known state of a peer. There may be ten thousand of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) datacenter: DatacenterIndex,
    /// `None`: not reported yet.
    pub(super) reach: Option<Reach>,
    pub(super) suspected: bool,
}

/// All peers, and their places in the overlay.
#[derive(Debug)]
pub(super) struct Members {
    peers: BTreeMap<NodeId, Peer>,
    live: usize,
    dead: BTreeSet<NodeId>,
    overlay: Overlay,
}

/// The consequences of a change of the known state of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Its place among the members.
    pub(super) site: bool,
    /// Whether it is a member.
    pub(super) listed: bool,
    /// Whether it is a member, or of which datacenter.
    pub(super) members: bool,
    /// The neighbours.
    pub(super) neighbours: bool,
    /// Whether the silence of the nodes of a datacenter gets another meaning: it has few nodes.
    pub(super) few: bool,
}

impl Members {
    /// No peer is known.
    pub(super) fn new(node: NodeId, datacenter: Datacenter) -> Self {
        Self {
            peers: BTreeMap::new(),
            live: 0,
            dead: BTreeSet::new(),
            overlay: Overlay::new(node, datacenter),
        }
    }

    /// All of these are live, and no other peer is known.
    pub(super) fn reset(&mut self, members: impl Iterator<Item = (NodeId, Datacenter)>) {
        let Self { overlay, peers, .. } = self;
        let mut met = |(node, datacenter): (NodeId, Datacenter)| {
            let datacenter = overlay.locate(&datacenter);
            (node, Peer { datacenter, reach: Some(Reach::Live), suspected: false })
        };
        *peers = members.map(&mut met).collect();
        self.live = peers.len();
        self.dead.clear();
        overlay.reset(peers.iter().filter_map(|(node, peer)| Some((node, peer.site()?))));
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.peers.contains_key(node)
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Those that are live.
    pub(super) fn live(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.reach == Some(Reach::Live))
    }

    /// How many are live.
    pub(super) const fn live_count(&self) -> usize {
        self.live
    }

    pub(super) fn is_live(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.reach == Some(Reach::Live))
    }

    /// Those that are dead.
    pub(super) const fn dead(&self) -> &BTreeSet<NodeId> {
        &self.dead
    }

    pub(super) const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Where a peer is.
    pub(super) fn place(&self, node: &NodeId) -> Option<DatacenterIndex> {
        self.peers.get(node).map(|peer| peer.datacenter)
    }

    /// The name of the datacenter that a peer is in.
    pub(super) fn place_name(&self, node: &NodeId) -> Option<&Datacenter> {
        self.place(node).map(|at| self.overlay.name(at))
    }

    /// Whether a peer is in another datacenter.
    pub(super) fn is_abroad(&self, node: &NodeId) -> bool {
        self.place(node).is_some_and(|at| at != Overlay::HOME)
    }

    /// A peer is in this datacenter.
    pub(super) fn locate(&mut self, node: NodeId, datacenter: &Datacenter) -> Changed {
        let datacenter = self.overlay.locate(datacenter);
        match self.place(&node) {
            Some(before) => {
                let changed = self.change(&node, |peer| peer.datacenter = datacenter);
                self.overlay.release(before);
                changed
            }
            None => {
                self.peers.insert(node, Peer { datacenter, reach: None, suspected: false });
                Changed::default()
            }
        }
    }

    /// Changes the known state of a peer, and its place in the overlay.
    pub(super) fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut Peer)) -> Changed {
        let Some(peer) = self.peers.get_mut(node) else { return Changed::default() };
        let before = *peer;
        change(peer);
        let after = *peer;
        self.live -= usize::from(before.reach == Some(Reach::Live));
        self.live += usize::from(after.reach == Some(Reach::Live));
        if after.reach == Some(Reach::Dead) {
            self.dead.insert(node.clone());
        } else if before.reach == Some(Reach::Dead) {
            self.dead.remove(node);
        }
        let Self { overlay, peers, .. } = self;
        let members =
            || peers.iter().filter_map(|(node, peer)| peer.site().map(|site| (node, site)));
        let neighbours = overlay.update(node, before.site(), after.site(), members);
        // The silence of the last few nodes of a datacenter has another meaning.
        let counted = before.site().is_some() != after.site().is_some();
        let few = |at| at != Overlay::HOME && overlay.members(at) <= FELLOWS_MIN;
        let moved = before.datacenter != after.datacenter;
        let few = moved || (counted && (few(before.datacenter) || few(after.datacenter)));
        let place = |site: Option<Site>| site.map(|site| site.datacenter);
        let members = place(before.site()) != place(after.site());
        let site = before.site() != after.site();
        Changed { site, listed: counted, members, neighbours, few }
    }

    /// A peer is forgotten.
    pub(super) fn forget(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.remove(node) {
            self.overlay.release(peer.datacenter);
        }
    }
}

impl Peer {
    /// Its place among the members, if it is one.
    pub(super) fn site(&self) -> Option<Site> {
        let member = matches!(self.reach, Some(Reach::Unheard | Reach::Live));
        member.then_some(Site { datacenter: self.datacenter, healthy: !self.suspected })
    }
}
