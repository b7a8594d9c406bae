//! The trees along which news travels inside a datacenter.
//!
//! Every node computes them from the member list alone, so nodes with the same list have the same trees, and no
//! message makes, changes or repairs one. The edges are those of the rings of [`overlay`](super::overlay), so
//! there is a connection along each of them. [`TREES`] trees share the load, and differ as much as they can: an
//! edge that an earlier tree uses costs more in a later one, and so does a node that has many children already.
//!
//! A datacenter in which all nodes are neighbours has no trees: the owner tells each of them itself.
//!
//! The weights, the hashes and the order of ties are part of the protocol.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    hash::{hash, mix},
    id::NodeId,
    overlay::{NEIGHBOURS, RINGS, position},
};

/// Trees of one datacenter.
pub const TREES: usize = 2;

/// The tree along which the news of an owner travels.
#[must_use]
pub fn tree_of(owner: &NodeId) -> usize {
    usize::from(mix(hash(owner.as_str()).rotate_left(43)) >> 63 == 1)
}

/// The spanning trees of one datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trees {
    /// All members, by name.
    members: Vec<NodeId>,
    /// The place of each member's parent in `members`; `None` for the root.
    parents: [Vec<Option<usize>>; TREES],
}

impl Trees {
    /// The trees of a datacenter with these members, in any order; `None` if all of them are neighbours.
    #[must_use]
    pub fn of(members: impl IntoIterator<Item = NodeId>) -> Option<Self> {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        if members.len() <= NEIGHBOURS + 1 {
            return None;
        }
        let hashes: Vec<_> = members.iter().map(|member| hash(member.as_str())).collect();
        let mut graph = Graph::of_rings(&hashes);
        let parents = std::array::from_fn(|tree| {
            // The positions beyond the last ring belong to no ring.
            let place = |member: &usize| (position(hashes[*member], RINGS + tree), *member);
            let root = (0..hashes.len()).min_by_key(place).unwrap_or(0);
            graph.grow(root)
        });
        Some(Self { members, parents })
    }

    /// The nodes next to one in a tree: its parent and its children, by name.
    #[must_use]
    pub fn neighbours(&self, tree: usize, node: &NodeId) -> Vec<NodeId> {
        let Ok(here) = self.members.binary_search(node) else { return Vec::new() };
        let parents = &self.parents[tree % TREES];
        let beside = |(other, parent): (usize, &Option<usize>)| {
            let next_to = *parent == Some(here) || parents[here] == Some(other);
            next_to.then(|| self.members[other].clone())
        };
        parents.iter().enumerate().filter_map(beside).collect()
    }

    /// The node through which the root of a tree reaches this one; `None` for the root itself, and for others.
    #[must_use]
    pub fn parent(&self, tree: usize, node: &NodeId) -> Option<&NodeId> {
        let here = self.members.binary_search(node).ok()?;
        self.parents[tree % TREES][here].map(|parent| &self.members[parent])
    }
}

/// The edges of all rings of a datacenter, each once.
struct Graph {
    /// Per member: the other end and the number of each of its edges.
    ends: Vec<Vec<(usize, usize)>>,
    /// Per edge: how many trees use it.
    used: Vec<u64>,
}

impl Graph {
    fn of_rings(hashes: &[u64]) -> Self {
        let count = hashes.len();
        let mut edges = Vec::with_capacity(count * RINGS);
        let mut order: Vec<_> = (0..count).collect();
        for ring in 0..RINGS {
            order.sort_unstable_by_key(|member| (position(hashes[*member], ring), *member));
            let next = order.iter().skip(1).chain(order.first());
            edges.extend(order.iter().zip(next).map(|(a, b)| (*a.min(b), *a.max(b))));
        }
        edges.sort_unstable();
        edges.dedup();
        let mut ends = vec![Vec::new(); count];
        for (number, (a, b)) in edges.iter().enumerate() {
            ends[*a].push((*b, number));
            ends[*b].push((*a, number));
        }
        Self { ends, used: vec![0; edges.len()] }
    }

    /// The tree of the shortest paths from a root; counts its edges as used. Returns the parents.
    fn grow(&mut self, root: usize) -> Vec<Option<usize>> {
        let count = self.ends.len();
        let (mut parents, mut children) = (vec![None; count], vec![0; count]);
        let mut costs: Vec<Option<u64>> = vec![None; count];
        costs[root] = Some(0);
        let mut border = BinaryHeap::new();
        let offer = |border: &mut BinaryHeap<_>, used: &[u64], cost: u64, from: usize| {
            for (to, edge) in &self.ends[from] {
                let step = EDGE + USED_EDGE * used[*edge];
                border.push(Reverse((cost + step, *to, from, *edge, 0_u64)));
            }
        };
        offer(&mut border, &self.used, 0, root);
        while let Some(Reverse((cost, node, from, edge, counted))) = border.pop() {
            if costs[node].is_some() {
                continue;
            }
            // The parent may have got children since this was offered.
            if children[from] > counted {
                let more = CHILD * (children[from] - counted);
                border.push(Reverse((cost + more, node, from, edge, children[from])));
                continue;
            }
            (costs[node], parents[node]) = (Some(cost), Some(from));
            children[from] += 1;
            self.used[edge] += 1;
            offer(&mut border, &self.used, cost, node);
        }
        parents
    }
}

/// The weight of an edge.
const EDGE: u64 = 1_000;
/// More for each tree that uses it already.
const USED_EDGE: u64 = 600;
/// More for each child that its upper end has already.
const CHILD: u64 = 40;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

    use super::*;
    use crate::protocol::overlay::ring_neighbours;

    fn members(count: usize, seed: u64) -> Vec<NodeId> {
        (0..count).map(|n| NodeId::new(&format!("s{seed}-{n}")).unwrap()).collect()
    }

    /// How many steps a node is away from the root.
    fn depth(trees: &Trees, tree: usize, node: &NodeId) -> usize {
        let up = |node: &&NodeId| trees.parent(tree, node);
        std::iter::successors(Some(node), up).take(trees.members.len() + 1).count() - 1
    }

    #[test]
    fn a_datacenter_whose_nodes_are_all_neighbours_has_no_trees() {
        assert_eq!(Trees::of(members(0, 1)), None);
        assert_eq!(Trees::of(members(NEIGHBOURS + 1, 1)), None);
        assert!(Trees::of(members(NEIGHBOURS + 2, 1)).is_some());
    }

    #[test]
    fn the_trees_are_those_of_every_version() {
        let names = (1..=20).map(|n| NodeId::new(&format!("node-{n}")).unwrap());
        let trees = Trees::of(names).unwrap();
        let parents = |tree: usize| {
            let parent = |node| trees.parent(tree, node).map_or("-", NodeId::as_str);
            let parents: Vec<_> = trees.members.iter().map(parent).collect();
            parents.join(" ").replace("node-", "")
        };
        assert_eq!(parents(0), "13 8 10 8 8 8 8 14 10 8 18 12 13 8 15 8 8 14 - 10");
        assert_eq!(parents(1), "16 3 19 11 5 11 20 19 19 19 - 11 19 19 17 19 16 11 3 19");
        let of = |n: u32| tree_of(&NodeId::new(&format!("node-{n}")).unwrap());
        let owners: Vec<_> = (1..=12).map(of).collect();
        assert_eq!(owners, [1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn all_nodes_have_the_same_shallow_spanning_trees(count in 12_usize..300, seed: u64) {
            let mut members = members(count, seed);
            let trees = Trees::of(members.clone()).unwrap();
            members.shuffle(&mut SmallRng::seed_from_u64(seed));
            let shuffled = Trees::of(members.clone());
            prop_assert_eq!(Some(&trees), shuffled.as_ref());
            for tree in 0..TREES {
                let roots = members.iter().filter(|node| trees.parent(tree, node).is_none());
                prop_assert_eq!(roots.count(), 1);
                let deepest = members.iter().map(|node| depth(&trees, tree, node)).max().unwrap();
                let most = 2.0 * (count as f64).log2();
                prop_assert!(deepest as f64 <= most, "{} steps, {} nodes", deepest, count);
            }
        }

        #[test]
        fn the_edges_are_those_of_the_rings_and_both_ends_know_them(
            count in 12_usize..120,
            seed: u64,
        ) {
            let members = members(count, seed);
            let trees = Trees::of(members.clone()).unwrap();
            for node in &members {
                let fellows = members.iter().filter(|fellow| *fellow != node);
                let rings = ring_neighbours(node, fellows, 1);
                for tree in 0..TREES {
                    let beside = trees.neighbours(tree, node);
                    prop_assert!(!beside.is_empty());
                    for other in beside {
                        prop_assert!(rings.contains(&other));
                        prop_assert!(trees.neighbours(tree, &other).contains(node));
                    }
                }
            }
        }

        #[test]
        fn trees_differ(seed: u64) {
            let members = members(100, seed);
            let trees = Trees::of(members.clone()).unwrap();
            let edges = |tree: usize| -> BTreeSet<_> {
                let up = |node: &NodeId| {
                    let parent = trees.parent(tree, node)?;
                    Some((node.min(parent).clone(), node.max(parent).clone()))
                };
                members.iter().filter_map(up).collect()
            };
            let shared = edges(0).intersection(&edges(1)).count();
            prop_assert!(shared <= 60, "{} of 99", shared);
        }
    }
}
