//! The neighbours of a node: the peers with which it keeps a connection, exchanges heartbeats and shares
//! updates.
//!
//! The neighbours follow from the member list alone, so two nodes that hold the same list agree on
//! every edge, and none is ever negotiated. Within a datacenter all members stand on [`RINGS`] rings,
//! each in another order, and a node keeps its successor and predecessor on each: such a graph is an
//! expander, which stays connected and shallow while many of its nodes are dead (Suresh et al.,
//! "Stable and consistent membership at scale with Rapid", USENIX ATC 2018, section 4.1). Two
//! datacenters are joined by a few bridges; the ends of a bridge are chosen by rendezvous hashing
//! among the healthy (Thaler and Ravishankar, 1998), so that a death moves one bridge. Where there
//! are more datacenters than a node has neighbours, they stand on rings as well.
//!
//! A join or a death changes about 2 [`NEIGHBOURS`] edges in the whole cluster. A node does not store the
//! places of all others: it keeps the nodes next to it and compares each new node with them. Only when one of
//! those leaves are all members examined again.
//!
//! The hashes are part of the protocol: nodes of all versions and machines have to compute the same.

use std::collections::BTreeSet;

use super::{
    hash::{hash, mix},
    id::{Datacenter, NodeId},
};

/// Most neighbours of a node in its datacenter. With at most one node more in all, every node is every other
/// node's neighbour.
pub const NEIGHBOURS: usize = 10;
/// Rings of one datacenter: a node has two neighbours on each.
pub const RINGS: usize = NEIGHBOURS / 2;
/// A datacenter with fewer other nodes than this does not judge its own nodes alone: nodes with a bridge to
/// it have a vote.
pub const FELLOWS_MIN: usize = 2;
/// Bridges between two datacenters, at most.
pub const BRIDGES_MAX: usize = 5;
/// Neighbours of one node, at most: those of its datacenter and, if it is alone there, all bridges to each of
/// as many other datacenters.
pub const NEIGHBOURS_MAX: usize = NEIGHBOURS + NEIGHBOURS * BRIDGES_MAX;

/// Which end of an edge dials, so that both do not dial at once; the other one does if nothing has come after
/// a while. Both ends compute the same, and every node dials about half of its edges: the end that dials
/// sends the heartbeats, and spreads them over time.
#[must_use]
pub fn dials(local: &NodeId, remote: &NodeId) -> bool {
    let (lesser, greater) =
        (hash(local.as_str().min(remote.as_str())), hash(local.as_str().max(remote.as_str())));
    let lesser_dials = mix(lesser.rotate_left(32) ^ greater) & 1 == 0;
    (local < remote) == lesser_dials
}

/// A number from 0 to `below`, the same for a node each time, so that nodes that start together do not act
/// together.
#[must_use]
pub fn offset(node: &NodeId, below: u64) -> u64 {
    mix(hash(node.as_str()).rotate_left(17)) % below.max(1)
}

/// Of two connections between the same nodes, whether the one dialed by us (or by them) stays. Both
/// ends agree.
#[must_use]
pub fn keeps(local: &NodeId, remote: &NodeId, dialed_by_us: bool) -> bool {
    dials(local, remote) == dialed_by_us
}

/// How many bridges join two datacenters, by the number of members of the larger one.
#[must_use]
pub const fn bridges(members: usize) -> usize {
    match members {
        0..=100 => 2,
        101..=5_000 => 3,
        _ => BRIDGES_MAX,
    }
}

/// The nodes next to one on the rings of its datacenter, this many on each side of each ring: with one the
/// nodes that observe it, with two those that may, as member lists differ a little. `fellows`: the other
/// members of its datacenter.
#[must_use]
pub fn ring_neighbours<'a>(
    node: &NodeId,
    fellows: impl Iterator<Item = &'a NodeId>,
    each_side: usize,
) -> BTreeSet<&'a NodeId> {
    let fellows: Vec<_> = fellows.map(|fellow| (hash(fellow.as_str()), fellow)).collect();
    if fellows.len() <= NEIGHBOURS {
        return fellows.into_iter().map(|(_, fellow)| fellow).collect();
    }
    let here = hash(node.as_str());
    let mut neighbours = BTreeSet::new();
    for ring in 0..RINGS {
        let at = position(here, ring);
        // A few on either side: kept sorted, the nearest first.
        let (mut after, mut before) = (Vec::new(), Vec::new());
        for (hash, fellow) in &fellows {
            let distance = position(*hash, ring).wrapping_sub(at);
            nearest(&mut after, (distance, *fellow), each_side);
            nearest(&mut before, (distance.wrapping_neg(), *fellow), each_side);
        }
        neighbours.extend(after.into_iter().chain(before).map(|(_, fellow)| fellow));
    }
    neighbours
}

fn nearest<'a>(kept: &mut Vec<(u64, &'a NodeId)>, offer: (u64, &'a NodeId), most: usize) {
    if kept.len() < most || kept.last().is_some_and(|last| offer < *last) {
        let at = kept.partition_point(|entry| *entry < offer);
        kept.insert(at, offer);
        kept.truncate(most);
    }
}

/// The edges of a node that connect all nodes, as few as possible: for as long as the member list moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstEdges {
    /// Those that the other end counts among its own as well, by the same member list: the ones to both neighbours
    /// on the first ring, and the bridges.
    pub shared: Vec<NodeId>,
    /// The one to the successor on the second ring, which accepts it.
    pub own: Option<NodeId>,
}

/// A datacenter, as numbered by one [`Overlay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatacenterIndex(u16);

/// The properties of a member that the overlay depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where it is.
    pub datacenter: DatacenterIndex,
    /// Whether it is not suspected: a suspect keeps its place on the rings, but is an end of a bridge only if
    /// there is no other node.
    pub healthy: bool,
}

/// The neighbours of one node, updated with every change.
#[derive(Debug)]
pub struct Overlay {
    local: NodeId,
    rings: [Ring; RINGS],
    datacenters: Vec<Place>,
    /// The other datacenters to which ours has bridges.
    pairs: Vec<Pair>,
    /// All members but this node, while they are few.
    all: Few,
    /// Those of our datacenter, while they are few.
    home: Few,
    neighbours: Vec<NodeId>,
    /// An input of the neighbours has changed.
    dirty: bool,
}

/// A datacenter.
#[derive(Debug)]
struct Place {
    name: Datacenter,
    /// How many nodes were reported there. With none the entry may be used for another datacenter.
    known: u32,
    /// How many members there are.
    members: usize,
}

/// A bridge that begins at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The other end.
    pub to: NodeId,
    /// The datacenter of the other end.
    pub with: DatacenterIndex,
    /// Which one it is of how many bridges between the two datacenters whose ends are healthy; `None` if an end
    /// of this one is not.
    pub place: Option<(u64, u64)>,
    /// A number that both datacenters have for the pair of them.
    pub seed: u64,
}

/// One ring, seen from our place on it.
#[derive(Debug, Default)]
struct Ring {
    /// The nodes next to us, each with its distance in rising direction.
    successor: Option<(u64, NodeId)>,
    predecessor: Option<(u64, NodeId)>,
}

/// The bridges between our datacenter and another: edge `n` joins the `n`th of each side.
#[derive(Debug)]
struct Pair {
    with: DatacenterIndex,
    seed: u64,
    ours: Vec<End>,
    theirs: Vec<End>,
}

/// An end of a bridge.
#[derive(Debug)]
struct End {
    node: NodeId,
    hash: u64,
    healthy: bool,
}

/// A list that is kept as long as it is short.
#[derive(Debug, Default)]
struct Few {
    nodes: Vec<NodeId>,
    /// How many items there are, whether kept or not.
    count: usize,
}

impl Overlay {
    /// The node is the only member.
    #[must_use]
    pub fn new(local: NodeId, datacenter: Datacenter) -> Self {
        Self {
            local,
            rings: Default::default(),
            datacenters: vec![Place { name: datacenter, known: 1, members: 1 }],
            pairs: Vec::new(),
            all: Few::default(),
            home: Few::default(),
            neighbours: Vec::new(),
            dirty: false,
        }
    }

    /// The datacenter of this node.
    pub const HOME: DatacenterIndex = DatacenterIndex(0);

    /// The number of a datacenter in which a node was reported, to be given back by [`Overlay::release`].
    pub fn locate(&mut self, name: &Datacenter) -> DatacenterIndex {
        let known = self.datacenters.iter().position(|place| place.name == *name);
        let index = known.unwrap_or_else(|| self.room(name));
        self.datacenters[index].known += 1;
        numbered(index)
    }

    /// A node is no longer there.
    pub fn release(&mut self, datacenter: DatacenterIndex) {
        let place = &mut self.datacenters[usize::from(datacenter.0)];
        place.known = place.known.saturating_sub(1);
    }

    /// These are the members now, without this node.
    pub fn reset<'a>(&mut self, members: impl Iterator<Item = (&'a NodeId, Site)>) {
        self.rebuild(members);
        self.dirty = false;
        self.neighbours = self.compute();
    }

    /// A node becomes a member, changes, or ceases to be one. `members` has all other members after that,
    /// without this node; it is called only if needed. Returns whether the neighbours changed.
    pub fn update<'a, I>(
        &mut self,
        node: &NodeId,
        was: Option<Site>,
        is: Option<Site>,
        members: impl FnOnce() -> I,
    ) -> bool
    where
        I: Iterator<Item = (&'a NodeId, Site)>,
    {
        let stale = match (was, is) {
            (None, None) => return false,
            (None, Some(site)) => self.insert(node, site),
            (Some(site), None) => self.remove(node, site),
            (Some(was), Some(is)) if was == is => return false,
            (Some(was), Some(is)) if was.datacenter == is.datacenter => self.reassess(node, is),
            (Some(_), Some(_)) => true,
        };
        if stale {
            self.rebuild(members());
        }
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        let neighbours = self.compute();
        let changed = neighbours != self.neighbours;
        self.neighbours = neighbours;
        changed
    }

    /// The neighbours, by name.
    #[must_use]
    pub fn neighbours(&self) -> &[NodeId] {
        &self.neighbours
    }

    /// The edges to begin with.
    #[must_use]
    pub fn first_edges(&self) -> FirstEdges {
        if self.all.is_complete() || self.home.is_complete() {
            return FirstEdges { shared: self.neighbours.clone(), own: None };
        }
        let [first, second, ..] = &self.rings;
        let ends = [&first.successor, &first.predecessor].into_iter().flatten();
        let mut shared: Vec<_> = ends.map(|(_, node)| node.clone()).collect();
        shared.extend(self.bridged().cloned());
        let own = second.successor.as_ref().map(|(_, node)| node.clone());
        FirstEdges { own: own.filter(|node| !shared.contains(node)), shared }
    }

    /// The neighbours in other datacenters, by name.
    pub fn bridged(&self) -> impl Iterator<Item = &NodeId> {
        self.pairs.iter().flat_map(|pair| self.edges(pair))
    }

    /// The bridges that begin at this node; where there are few nodes it may be several ones to the same node.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let of = |pair: &Pair| {
            let ends = |edge: usize| {
                let (ours, theirs) = (&pair.ours, &pair.theirs);
                (&ours[edge % ours.len()], &theirs[edge % theirs.len()])
            };
            let healthy: Vec<_> = (0..self.edge_count(pair))
                .filter(|edge| ends(*edge).0.healthy && ends(*edge).1.healthy)
                .collect();
            let here = (0..self.edge_count(pair)).filter(|edge| ends(*edge).0.node == self.local);
            let span = |edge| {
                let place = healthy.iter().position(|other| *other == edge);
                let place = place.map(|place| (place as u64, healthy.len() as u64));
                Span { to: ends(edge).1.node.clone(), with: pair.with, place, seed: pair.seed }
            };
            here.map(span).collect::<Vec<_>>()
        };
        self.pairs.iter().flat_map(of).collect()
    }

    /// All other members, if each of them is this node's neighbour; else those of its datacenter, if each of them
    /// is.
    #[must_use]
    pub fn all_neighbours(&self) -> Option<&[NodeId]> {
        let all = [&self.all, &self.home].into_iter().find(|few| few.is_complete());
        all.map(|few| few.nodes.as_slice())
    }

    /// Whether each datacenter has bridges to each other one.
    #[must_use]
    pub fn is_meshed(&self) -> bool {
        self.inhabited().count() <= NEIGHBOURS + 1
    }

    /// The name of a datacenter.
    #[must_use]
    pub fn name(&self, datacenter: DatacenterIndex) -> &Datacenter {
        &self.datacenters[usize::from(datacenter.0)].name
    }

    /// How many members a datacenter has.
    #[must_use]
    pub fn members(&self, datacenter: DatacenterIndex) -> usize {
        self.datacenters[usize::from(datacenter.0)].members
    }

    /// The datacenters with members.
    pub fn inhabited(&self) -> impl Iterator<Item = DatacenterIndex> {
        let all = self.datacenters.iter().enumerate();
        all.filter(|(_, place)| place.members > 0).map(|(index, _)| numbered(index))
    }

    /// The datacenters to which one has bridges.
    #[must_use]
    pub fn partners(&self, of: DatacenterIndex) -> Vec<DatacenterIndex> {
        let home = self.name(of);
        let others = || self.inhabited().filter(move |other| *other != of);
        if others().count() <= NEIGHBOURS {
            return others().collect();
        }
        let ends = (0..RINGS).flat_map(|ring| {
            let at = |name: &Datacenter| position(hash(name.as_str()), ring);
            let from_us = |other: &DatacenterIndex| {
                let name = self.name(*other);
                (at(name).wrapping_sub(at(home)), name.clone())
            };
            [others().min_by_key(from_us), others().max_by_key(from_us)]
        });
        let mut chosen: Vec<_> = ends.flatten().collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// Whether there are so few members that each is every other one's neighbour.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.all.is_complete()
    }

    /// An entry for a datacenter that has none. Datacenters beyond the largest number count as one.
    fn room(&mut self, name: &Datacenter) -> usize {
        let place = Place { name: name.clone(), known: 0, members: 0 };
        let unused = self.datacenters.iter().position(|place| place.known == 0);
        match unused.filter(|unused| *unused > 0) {
            Some(unused) => {
                self.datacenters[unused] = place;
                unused
            }
            None => {
                if self.datacenters.len() <= usize::from(u16::MAX) {
                    self.datacenters.push(place);
                }
                self.datacenters.len() - 1
            }
        }
    }

    /// Returns whether everything has to be computed again; so do the next ones.
    fn insert(&mut self, node: &NodeId, site: Site) -> bool {
        let place = &mut self.datacenters[usize::from(site.datacenter.0)];
        place.members += 1;
        if place.members == 1 {
            return true;
        }
        self.dirty |= bridges(place.members) != bridges(place.members - 1);
        self.offer(node, site);
        false
    }

    fn remove(&mut self, node: &NodeId, site: Site) -> bool {
        let place = &mut self.datacenters[usize::from(site.datacenter.0)];
        place.members -= 1;
        self.dirty |= bridges(place.members) != bridges(place.members + 1);
        let gone = place.members == 0;
        let mattered = self.all.remove(node) | self.matters(node, site);
        self.dirty |= self.all.is_complete() || self.home.is_complete();
        gone || mattered || (site.datacenter == Self::HOME && self.home.remove(node))
    }

    /// It is suspect now, or is not any more.
    fn reassess(&mut self, node: &NodeId, site: Site) -> bool {
        let ends = self.pairs.iter().any(|pair| pair.has(node));
        if !ends && site.healthy {
            self.offer_bridges(node, site);
        }
        ends
    }

    /// Whether the node is next to us, or an end of a bridge.
    fn matters(&self, node: &NodeId, site: Site) -> bool {
        let home = site.datacenter == Self::HOME;
        (home && self.rings.iter().any(|ring| ring.has(node)))
            || self.pairs.iter().any(|pair| pair.has(node))
    }

    fn rebuild<'a>(&mut self, members: impl Iterator<Item = (&'a NodeId, Site)>) {
        let members: Vec<_> = members.collect();
        self.dirty = true;
        self.rings = Default::default();
        (self.all, self.home) = (Few::default(), Few::default());
        self.datacenters.iter_mut().for_each(|place| place.members = 0);
        self.datacenters[0].members = 1;
        for (_, site) in &members {
            self.datacenters[usize::from(site.datacenter.0)].members += 1;
        }
        self.pairs = self.paired();
        let local = self.local.clone();
        self.offer_bridges(&local, Site { datacenter: Self::HOME, healthy: true });
        for (node, site) in members {
            self.offer(node, site);
        }
    }

    fn paired(&self) -> Vec<Pair> {
        let home = self.name(Self::HOME);
        let pair = |with: DatacenterIndex| Pair {
            with,
            seed: pair_seed(home, self.name(with)),
            ours: Vec::new(),
            theirs: Vec::new(),
        };
        self.partners(Self::HOME).into_iter().map(pair).collect()
    }

    fn offer(&mut self, node: &NodeId, site: Site) {
        self.dirty |= self.all.insert(node);
        self.offer_bridges(node, site);
        if site.datacenter != Self::HOME {
            return;
        }
        self.dirty |= self.home.insert(node);
        let (ours, theirs) = (hash(self.local.as_str()), hash(node.as_str()));
        for (number, ring) in self.rings.iter_mut().enumerate() {
            let distance = position(theirs, number).wrapping_sub(position(ours, number));
            self.dirty |= ring.offer(distance, node);
        }
    }

    fn offer_bridges(&mut self, node: &NodeId, site: Site) {
        if self.pairs.is_empty() {
            return;
        }
        let hash = hash(node.as_str());
        for pair in &mut self.pairs {
            let Pair { seed, ours, theirs, .. } = pair;
            let ends = match site.datacenter {
                Self::HOME => ours,
                other if other == pair.with => theirs,
                _ => continue,
            };
            let end = End { node: node.clone(), hash, healthy: site.healthy };
            self.dirty |= offer_end(ends, *seed, end);
        }
    }

    fn compute(&self) -> Vec<NodeId> {
        if self.all.is_complete() {
            return self.all.nodes.clone();
        }
        let mut neighbours = if self.home.is_complete() {
            self.home.nodes.clone()
        } else {
            let ends = self.rings.iter().flat_map(|ring| [&ring.successor, &ring.predecessor]);
            ends.flatten().map(|(_, node)| node.clone()).collect()
        };
        neighbours.extend(self.bridged().cloned());
        neighbours.sort_unstable();
        neighbours.dedup();
        neighbours
    }

    /// How many bridges there are between two datacenters.
    fn edge_count(&self, pair: &Pair) -> usize {
        let members = |index: DatacenterIndex| self.datacenters[usize::from(index.0)].members;
        let wanted = bridges(members(Self::HOME).max(members(pair.with)));
        let (ours, theirs) = (pair.ours.len(), pair.theirs.len());
        if theirs == 0 { 0 } else { wanted.min(ours.max(theirs)) }
    }

    /// The other ends of the bridges that begin here. A datacenter with too few nodes uses each of them for
    /// several bridges.
    fn edges<'a>(&'a self, pair: &'a Pair) -> impl Iterator<Item = &'a NodeId> {
        let (ours, theirs, edges) = (pair.ours.len(), pair.theirs.len(), self.edge_count(pair));
        let here = (0..edges).filter(move |edge| pair.ours[edge % ours].node == self.local);
        here.map(move |edge| &pair.theirs[edge % theirs].node)
    }
}

impl Ring {
    /// Returns whether the node is next to us.
    fn offer(&mut self, distance: u64, node: &NodeId) -> bool {
        let here = || Some((distance, node.clone()));
        let key = (distance, node);
        let succeeds = self.successor.as_ref().is_none_or(|(at, next)| key < (*at, next));
        if succeeds {
            self.successor = here();
        }
        let precedes = self.predecessor.as_ref().is_none_or(|(at, last)| key > (*at, last));
        if precedes {
            self.predecessor = here();
        }
        succeeds || precedes
    }

    fn has(&self, node: &NodeId) -> bool {
        [&self.successor, &self.predecessor].into_iter().flatten().any(|(_, at)| at == node)
    }
}

impl Pair {
    fn has(&self, node: &NodeId) -> bool {
        self.ours.iter().chain(&self.theirs).any(|end| end.node == *node)
    }
}

impl Few {
    /// Returns whether the list changed, or is not kept any more.
    fn insert(&mut self, node: &NodeId) -> bool {
        let was_complete = self.is_complete();
        self.count += 1;
        if !self.is_complete() {
            self.nodes.clear();
        } else if let Err(at) = self.nodes.binary_search(node) {
            self.nodes.insert(at, node.clone());
        }
        was_complete
    }

    /// Returns whether the list has to be kept from now on, and is missing.
    fn remove(&mut self, node: &NodeId) -> bool {
        self.count -= 1;
        if let Ok(at) = self.nodes.binary_search(node) {
            self.nodes.remove(at);
        }
        self.is_complete() && self.nodes.len() != self.count
    }

    const fn is_complete(&self) -> bool {
        self.count <= NEIGHBOURS
    }
}

/// Slot by slot, the greatest node without an earlier slot takes it. A node that loses its slot tries the
/// next one, so the result does not depend on the order in which nodes come. Returns whether any slot changed
/// hands.
fn offer_end(ends: &mut Vec<End>, seed: u64, mut end: End) -> bool {
    let mut changed = false;
    for slot in 0..BRIDGES_MAX {
        let Some(held) = ends.get_mut(slot) else {
            ends.push(end);
            return true;
        };
        if held.score(seed, slot) < end.score(seed, slot) {
            std::mem::swap(held, &mut end);
            changed = true;
        }
    }
    changed
}

impl End {
    fn score(&self, seed: u64, slot: usize) -> (bool, u64, &NodeId) {
        (self.healthy, mix(self.hash ^ position(seed, slot)), &self.node)
    }
}

fn numbered(index: usize) -> DatacenterIndex {
    DatacenterIndex(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Of a pair of datacenters, in either order.
fn pair_seed(one: &Datacenter, other: &Datacenter) -> u64 {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    mix(hash(first.as_str()).rotate_left(1) ^ hash(second.as_str()))
}

/// The place of something on the ring of this number.
pub(super) const fn position(hash: u64, ring: usize) -> u64 {
    mix(hash.wrapping_add((ring as u64 + 1).wrapping_mul(GOLDEN)))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn the_hashes_are_those_of_every_version() {
        assert_eq!(hash("node-1"), 1_411_048_690_986_509_909);
        assert_eq!(position(hash("node-1"), 4), 8_835_268_554_604_716_635);
    }

    type Members = BTreeMap<NodeId, (Datacenter, bool)>;

    /// The neighbours as the definition has them: sort everything, and look.
    fn oracle(local: &NodeId, members: &Members) -> BTreeSet<NodeId> {
        let home = &members[local].0;
        let inside: Vec<_> = members.iter().filter(|(_, (place, _))| place == home).collect();
        let mut neighbours: BTreeSet<NodeId> = BTreeSet::new();
        for ring in 0..RINGS {
            let mut order: Vec<_> = inside
                .iter()
                .map(|(node, _)| (position(hash(node.as_str()), ring), (*node).clone()))
                .collect();
            order.sort();
            let us = order.iter().position(|(_, node)| node == local).unwrap();
            neighbours.insert(order[(us + 1) % order.len()].1.clone());
            neighbours.insert(order[(us + order.len() - 1) % order.len()].1.clone());
        }
        if inside.len() <= NEIGHBOURS + 1 {
            neighbours.extend(inside.iter().map(|(node, _)| (*node).clone()));
        }
        let places: BTreeSet<_> = members.values().map(|(place, _)| place).collect();
        for other in places.into_iter().filter(|place| *place != home) {
            let seed = pair_seed(home, other);
            let (ours, theirs) = (ends(members, home, seed), ends(members, other, seed));
            let size = |of| members.values().filter(|(place, _)| place == of).count();
            let wanted = bridges(size(home).max(size(other)));
            for edge in 0..wanted.min(ours.len().max(theirs.len())) {
                if ours[edge % ours.len()] == *local {
                    neighbours.insert(theirs[edge % theirs.len()].clone());
                }
            }
        }
        if members.len() <= NEIGHBOURS + 1 {
            neighbours.extend(members.keys().cloned());
        }
        neighbours.remove(local);
        neighbours
    }

    fn ends(members: &Members, of: &Datacenter, seed: u64) -> Vec<NodeId> {
        let mut chosen: Vec<NodeId> = Vec::new();
        for slot in 0..BRIDGES_MAX {
            let candidates = members
                .iter()
                .filter(|(node, (place, _))| place == of && !chosen.contains(node))
                .map(|(node, (_, healthy))| {
                    (*healthy, mix(hash(node.as_str()) ^ position(seed, slot)), node)
                });
            chosen.extend(candidates.max().map(|(.., node)| node.clone()));
        }
        chosen
    }

    #[test]
    fn the_neighbours_are_those_of_the_definition() {
        for seed in 0..300 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let datacenters = rng.random_range(1..=4);
            let place = |n: u32| Datacenter::new(&format!("dc{n}")).unwrap();
            let local = NodeId::new("n0").unwrap();
            let mut overlay = Overlay::new(local.clone(), place(0));
            let mut members = Members::from([(local.clone(), (place(0), true))]);
            let mut sites = BTreeMap::new();
            for _ in 0..rng.random_range(0..120) {
                let node = NodeId::new(&format!("n{}", rng.random_range(1..60))).unwrap();
                let was = sites.remove(&node);
                members.remove(&node);
                if was.is_none() || rng.random_bool(0.6) {
                    let (at, healthy) = (place(rng.random_range(0..datacenters)), rng.random());
                    let site = Site { datacenter: overlay.locate(&at), healthy };
                    members.insert(node.clone(), (at, healthy));
                    sites.insert(node.clone(), site);
                }
                let others = || sites.iter().map(|(node, site)| (node, *site));
                overlay.update(&node, was, sites.get(&node).copied(), others);
                if let Some(was) = was {
                    overlay.release(was.datacenter);
                }
                let neighbours = overlay.neighbours().iter().cloned().collect();
                assert_eq!(oracle(&local, &members), neighbours, "SEED={seed}");
            }
        }
    }
}
