//! Who is whose neighbour: against a computation from scratch, and as a graph.

use std::collections::{BTreeMap, BTreeSet};

use gossipmonger::protocol::{
    id::{Datacenter, NodeId},
    overlay::{BRIDGES_MAX, NEIGHBOURS, NEIGHBOURS_MAX, Overlay, Site, bridges},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use crate::support::node;

/// A member list: where each is, and whether it is healthy.
type Members = BTreeMap<NodeId, (usize, bool)>;
type Edges = BTreeSet<(NodeId, NodeId)>;

/// One node's overlay with the member list that it was told.
struct View {
    overlay: Overlay,
    local: NodeId,
    members: BTreeMap<NodeId, Site>,
}

impl View {
    fn new(local: &NodeId, datacenter: usize) -> Self {
        let overlay = Overlay::new(local.clone(), place(datacenter));
        Self { overlay, local: local.clone(), members: BTreeMap::new() }
    }

    /// Of all members, told in some order.
    fn of(local: &NodeId, members: &Members, rng: &mut SmallRng) -> Self {
        let mut view = Self::new(local, members[local].0);
        let others = members.iter().filter(|(member, _)| *member != local);
        for (member, (datacenter, healthy)) in others.sample(rng, members.len()) {
            view.tell(member, Some((*datacenter, *healthy)));
        }
        view
    }

    fn tell(&mut self, member: &NodeId, is: Option<(usize, bool)>) -> bool {
        if *member == self.local {
            return false;
        }
        let is = is.map(|(datacenter, healthy)| Site {
            datacenter: self.overlay.locate(&place(datacenter)),
            healthy,
        });
        let was = match is {
            Some(site) => self.members.insert(member.clone(), site),
            None => self.members.remove(member),
        };
        if let Some(was) = was {
            self.overlay.release(was.datacenter);
        }
        let members = || self.members.iter().map(|(member, site)| (member, *site));
        self.overlay.update(member, was, is, members)
    }
}

fn place(number: usize) -> Datacenter {
    Datacenter::new(&format!("dc{number}")).unwrap()
}

fn cluster(nodes: usize, datacenters: usize) -> Members {
    (0..nodes).map(|n| (node(&format!("n{n}")), (n % datacenters, true))).collect()
}

fn random_cluster(rng: &mut SmallRng) -> Members {
    let nodes = rng.random_range(1..60);
    let datacenters = if rng.random_bool(0.2) { 30 } else { rng.random_range(1..5) };
    let site = |rng: &mut SmallRng| (rng.random_range(0..datacenters), rng.random_bool(0.8));
    (0..nodes).map(|n| (node(&format!("n{n}")), site(rng))).collect()
}

/// All edges, each once, computed by every node for itself.
fn edges(members: &Members, rng: &mut SmallRng) -> Edges {
    let mut edges = Edges::new();
    for member in members.keys() {
        for neighbour in View::of(member, members, rng).overlay.neighbours() {
            edges.insert(ordered(member, neighbour));
        }
    }
    edges
}

fn ordered(one: &NodeId, other: &NodeId) -> (NodeId, NodeId) {
    if one < other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) }
}

fn parts<'a>(nodes: impl Iterator<Item = &'a NodeId>, edges: &Edges) -> usize {
    let mut adjacent: BTreeMap<&NodeId, Vec<&NodeId>> =
        nodes.map(|node| (node, Vec::new())).collect();
    for (one, other) in edges {
        if adjacent.contains_key(one) && adjacent.contains_key(other) {
            adjacent.get_mut(one).unwrap().push(other);
            adjacent.get_mut(other).unwrap().push(one);
        }
    }
    let mut parts = 0;
    while let Some((start, neighbours)) = adjacent.pop_first() {
        parts += 1;
        let mut reached = neighbours;
        let _ = start;
        while let Some(next) = reached.pop() {
            reached.extend(adjacent.remove(next).unwrap_or_default());
        }
    }
    parts
}

#[test]
fn the_order_of_news_does_not_matter() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut members = random_cluster(&mut rng);
        let local = members.keys().choose(&mut rng).unwrap().clone();
        let mut view = View::of(&local, &members, &mut rng);
        for step in 0..60 {
            let who = node(&format!("n{}", rng.random_range(0..70)));
            let before = view.overlay.neighbours().to_vec();
            let changed = if rng.random_bool(0.5) || who == local {
                members.retain(|member, _| *member != who || who == local);
                view.tell(&who, None)
            } else {
                let site = (rng.random_range(0..5), rng.random_bool(0.7));
                members.insert(who.clone(), site);
                view.tell(&who, Some(site))
            };
            let neighbours = view.overlay.neighbours();
            assert_eq!(changed, before != neighbours, "SEED={seed} step {step}");
            let anew = View::of(&local, &members, &mut rng);
            assert_eq!(neighbours, anew.overlay.neighbours(), "SEED={seed} step {step}");
        }
    }
}

#[test]
fn both_ends_compute_the_same_edges() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // All agree on who is suspect but the suspects themselves, who are going to refute it.
        let members: Members =
            random_cluster(&mut rng).into_iter().map(|(n, (dc, _))| (n, (dc, true))).collect();
        let views: BTreeMap<_, _> =
            members.keys().map(|n| (n, View::of(n, &members, &mut rng).overlay)).collect();
        for (member, overlay) in &views {
            let neighbours = overlay.neighbours();
            assert!(neighbours.is_sorted() && !neighbours.contains(member), "SEED={seed}");
            for neighbour in neighbours {
                let back = views[neighbour].neighbours().contains(member);
                assert!(back, "SEED={seed}: {member} -> {neighbour} only");
            }
        }
    }
}

#[test]
fn small_clusters_are_full_wherever_their_nodes_are() {
    let mut rng = SmallRng::seed_from_u64(1);
    for nodes in 1..=NEIGHBOURS + 1 {
        let members = cluster(nodes, 4);
        assert_eq!(edges(&members, &mut rng).len(), nodes * (nodes - 1) / 2, "{nodes} nodes");
    }
    let small = cluster(3 * NEIGHBOURS, 3);
    let within = |(a, b): &&(NodeId, NodeId)| small[a].0 == small[b].0;
    let inside = edges(&small, &mut rng).iter().filter(within).count();
    assert_eq!(inside, 3 * NEIGHBOURS * (NEIGHBOURS - 1) / 2, "three small datacenters");
}

#[test]
fn the_number_of_neighbours_is_bounded() {
    let mut rng = SmallRng::seed_from_u64(1);
    for (nodes, datacenters) in [(12, 1), (500, 1), (500, 3), (200, 100), (300, 300), (14, 14)] {
        let members = cluster(nodes, datacenters);
        for member in members.keys().sample(&mut rng, 60) {
            let view = View::of(member, &members, &mut rng);
            let bridged: BTreeSet<_> = view.overlay.bridged().collect();
            let count = view.overlay.neighbours().len();
            assert!(count <= NEIGHBOURS_MAX, "{count} of {nodes} in {datacenters}");
            assert!(count - bridged.len() <= NEIGHBOURS, "{count} of {nodes} in {datacenters}");
        }
    }
}

#[test]
fn a_tenth_of_the_nodes_may_be_dead_before_anybody_notices() {
    for (seed, nodes) in [12, 13, 20, 35, 50, 100, 200, 400].into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(seed as u64);
        let members = cluster(nodes, 1);
        let edges = edges(&members, &mut rng);
        for _ in 0..20 {
            let dead: BTreeSet<_> =
                members.keys().sample(&mut rng, nodes / 10).into_iter().collect();
            let rest = members.keys().filter(|member| !dead.contains(member));
            assert_eq!(parts(rest, &edges), 1, "{nodes} nodes without {dead:?}");
        }
    }
}

#[test]
fn any_number_of_datacenters_is_one_cluster() {
    let mut rng = SmallRng::seed_from_u64(1);
    for (nodes, datacenters) in [(30, 2), (90, 3), (60, 12), (100, 40), (150, 150)] {
        let members = cluster(nodes, datacenters);
        let edges = edges(&members, &mut rng);
        assert_eq!(parts(members.keys(), &edges), 1, "{nodes} in {datacenters}");
    }
}

#[test]
fn each_pair_of_datacenters_has_its_bridges() {
    let mut rng = SmallRng::seed_from_u64(1);
    for (nodes, datacenters, expected) in [(40, 2, 2), (300, 3, 2), (303, 3, 3), (202, 2, 3)] {
        let members = cluster(nodes, datacenters);
        let mut bridged: BTreeMap<_, usize> = BTreeMap::new();
        for (one, other) in edges(&members, &mut rng) {
            let pair = BTreeSet::from([members[&one].0, members[&other].0]);
            *bridged.entry(pair).or_default() += usize::from(members[&one].0 != members[&other].0);
        }
        bridged.retain(|pair, _| pair.len() == 2);
        assert_eq!(bridged.len(), datacenters * (datacenters - 1) / 2);
        assert!(bridged.values().all(|count| *count == expected), "{nodes}: {bridged:?}");
    }
    assert_eq!(bridges(5_001), BRIDGES_MAX);
}

#[test]
fn a_datacenter_of_one_has_as_many_bridges_as_a_large_one() {
    let mut members = cluster(30, 1);
    members.insert(node("alone"), (1, true));
    let mut rng = SmallRng::seed_from_u64(1);
    let view = View::of(&node("alone"), &members, &mut rng);
    assert_eq!(view.overlay.neighbours().len(), 2);
}

#[test]
fn a_suspect_is_the_end_of_a_bridge_only_where_there_is_nobody_else() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut members = cluster(40, 2);
    let before = edges(&members, &mut rng);
    let bridge = before.iter().find(|(a, b)| members[a].0 != members[b].0).unwrap().clone();
    members.get_mut(&bridge.0).unwrap().1 = false;
    let healthy: Members = members.clone().into_iter().filter(|(n, _)| *n != bridge.0).collect();
    for member in healthy.keys() {
        let view = View::of(member, &members, &mut rng);
        let anywhere = view.overlay.bridged().any(|other| *other == bridge.0);
        assert!(!anywhere, "{member} still has a bridge to {}", bridge.0);
    }
    let moved = |(a, b): &&(NodeId, NodeId)| members[a].0 != members[b].0;
    let after = edges(&healthy, &mut rng);
    let kept = before.intersection(&after).filter(moved).count();
    assert_eq!(kept, bridges(20) - 1, "the other bridge stays where it is");

    members.get_mut(&bridge.0).unwrap().1 = true;
    members.values_mut().filter(|(dc, _)| *dc == 1).for_each(|member| member.1 = false);
    let view = View::of(&node("n0"), &members, &mut rng);
    let all: usize = members
        .iter()
        .filter(|(_, (dc, _))| *dc == 0)
        .map(|(n, _)| View::of(n, &members, &mut rng).overlay.bridged().count())
        .sum();
    assert_eq!(all, 2, "{:?}", view.overlay);
}

#[test]
fn a_join_or_a_death_changes_few_edges() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut worst = 0;
    let mut sum = 0;
    let all = cluster(160, 2);
    let without = edges(&all, &mut rng);
    let changes = 20;
    for gone in all.keys().sample(&mut rng, changes) {
        let rest: Members = all.clone().into_iter().filter(|(member, _)| member != gone).collect();
        let changed = without.symmetric_difference(&edges(&rest, &mut rng)).count();
        worst = worst.max(changed);
        sum += changed;
    }
    // Ten edges go, and on each ring those beside it join hands: fifteen, and a bridge at times.
    assert!(sum / changes <= 16, "{} on average", sum / changes);
    assert!(worst <= 2 * NEIGHBOURS, "{worst}");
}
