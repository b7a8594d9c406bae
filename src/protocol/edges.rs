//! Over which of its links a node sends the news that travels along trees.
//!
//! The scheduler, which has the member list, computes them once the list has come to rest, and hands them to
//! storage, which tells the news. Inside a datacenter they are those of its [`spanning`](super::spanning) trees.
//! Where all nodes of it are neighbours, the owner tells each of them, and of news from abroad the end of the bridge
//! does. Of the bridges between two datacenters one carries the news of an owner; over the others goes a note
//! at once.

use std::collections::BTreeSet;

use super::{
    hash::{hash, mix},
    id::{Datacenter, NodeId},
    spanning::{TREES, tree_of},
};

/// The edges of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edges {
    /// Those inside its datacenter.
    pub home: Home,
    /// The bridges that begin at it.
    pub bridges: Vec<Bridge>,
    /// Which of the other ends are suspected.
    pub suspects: BTreeSet<NodeId>,
}

/// The edges of a node inside its datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// All other nodes, by name: the owner of news, or the node that it reaches first, tells them.
    Star(Vec<NodeId>),
    /// The nodes next to it in each tree, by name.
    Trees([Vec<NodeId>; TREES]),
}

/// A bridge to another datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The other end.
    pub to: NodeId,
    /// Where that is.
    pub there: Datacenter,
    /// Which one it is of how many healthy ones between the two datacenters; `None` if it is not healthy.
    pub place: Option<(u64, u64)>,
    /// Mixed into the choice of the bridge for an owner: the same for both datacenters.
    pub seed: u64,
    /// Each datacenter has bridges to each other one, so that news crosses one bridge only.
    pub direct: bool,
}

/// News, as far as it matters for its way.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// Whose it is.
    pub owner: &'a NodeId,
    /// Where the owner is, if that is known.
    pub at: Option<&'a Datacenter>,
    /// Where this node is.
    pub here: &'a Datacenter,
    /// From which peer it came, if from one only.
    pub from: Option<&'a NodeId>,
    /// It is this node's own.
    pub own: bool,
}

/// What a peer gets of news that travels along trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The news itself.
    News,
    /// A note, with others.
    Note,
    /// A note at once.
    NoteNow,
}

impl Edges {
    /// What a linked peer gets.
    #[must_use]
    pub fn way(&self, peer: &NodeId, course: &Course<'_>) -> Way {
        let mut bridges = self.bridges.iter().filter(|bridge| bridge.to == *peer).peekable();
        if bridges.peek().is_none() {
            return if self.next(course).contains(peer) { Way::News } else { Way::Note };
        }
        let ways = bridges.map(|bridge| bridge.way(course));
        ways.min_by_key(|way| *way as u8).unwrap_or(Way::Note)
    }

    /// Whether a linked peer of this datacenter gets flooded news later, since the way does not lead to it.
    #[must_use]
    pub fn is_beside(&self, peer: &NodeId, course: &Course<'_>) -> bool {
        !self.is_abroad(peer) && !self.next(course).contains(peer)
    }

    /// Whether the way inside the datacenter is broken here: a node that is next on it is suspected, or `lacks`
    /// a link that takes the news. Then notes go to all other links at once.
    #[must_use]
    pub fn is_broken(&self, course: &Course<'_>, lacks: impl Fn(&NodeId) -> bool) -> bool {
        let next = self.next(course).iter();
        let mut awaited = next.filter(|peer| Some(*peer) != course.from && *peer != course.owner);
        awaited.any(|peer| self.suspects.contains(peer) || lacks(peer))
    }

    /// The nodes next on the way inside the datacenter.
    fn next(&self, course: &Course<'_>) -> &[NodeId] {
        match &self.home {
            Home::Trees(trees) => &trees[tree_of(course.owner)],
            Home::Star(all) => {
                let in_reach = |peer: &NodeId| all.binary_search(peer).is_ok();
                let brought_in = !in_reach(course.owner) && !course.from.is_some_and(in_reach);
                if course.own || brought_in { all } else { &[] }
            }
        }
    }

    /// Whether a peer is the other end of a bridge.
    #[must_use]
    pub fn is_abroad(&self, peer: &NodeId) -> bool {
        self.bridges.iter().any(|bridge| bridge.to == *peer)
    }

    /// All other ends.
    pub fn ends(&self) -> impl Iterator<Item = &NodeId> {
        let home: Vec<&[NodeId]> = match &self.home {
            Home::Star(all) => vec![all],
            Home::Trees(trees) => trees.iter().map(Vec::as_slice).collect(),
        };
        let bridges = self.bridges.iter().map(|bridge| &bridge.to);
        home.into_iter().flatten().chain(bridges)
    }
}

impl Bridge {
    fn way(&self, course: &Course<'_>) -> Way {
        let ends = [course.here, &self.there];
        if self.direct && course.at.is_some_and(|at| !ends.contains(&at)) {
            return Way::Note;
        }
        let chosen = mix(hash(course.owner.as_str()) ^ self.seed);
        match self.place {
            Some((place, of)) if chosen % of.max(1) == place => Way::News,
            _ => Way::NoteNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn place(name: &str) -> Datacenter {
        Datacenter::new(name).unwrap()
    }

    fn star() -> Edges {
        let all = ["a", "b", "c"].map(id).to_vec();
        Edges { home: Home::Star(all), bridges: Vec::new(), suspects: BTreeSet::new() }
    }

    fn bridge(place_of: Option<(u64, u64)>) -> Bridge {
        Bridge { to: id("x"), there: place("far"), place: place_of, seed: 5, direct: true }
    }

    /// What a peer gets of the news of `owner`, which is at `at` and came from `from`.
    fn way(edges: &Edges, peer: &str, owner: &str, at: &str, from: Option<&str>) -> Way {
        let (owner, from, at, here) = (id(owner), from.map(id), place(at), place("home"));
        let own = owner == id("me");
        let course = Course { owner: &owner, at: Some(&at), here: &here, from: from.as_ref(), own };
        edges.way(&id(peer), &course)
    }

    #[test]
    fn among_neighbours_only_who_brings_news_in_tells_it() {
        let star = star();
        assert_eq!(way(&star, "b", "me", "home", None), Way::News);
        assert_eq!(way(&star, "b", "a", "home", Some("a")), Way::Note);
        assert_eq!(way(&star, "b", "a", "home", Some("c")), Way::Note);
        assert_eq!(way(&star, "b", "y", "far", Some("x")), Way::News);
        assert_eq!(way(&star, "b", "y", "far", Some("a")), Way::Note);
        assert_eq!(way(&star, "stranger", "me", "home", None), Way::Note);
    }

    #[test]
    fn each_owner_has_its_tree() {
        let trees = [vec![id("a")], vec![id("b")]];
        let edges = Edges { home: Home::Trees(trees), ..star() };
        for owner in (0..20).map(|n| format!("o{n}")) {
            let told = if tree_of(&id(&owner)) == 0 { "a" } else { "b" };
            for peer in ["a", "b"] {
                let expected = if peer == told { Way::News } else { Way::Note };
                assert_eq!(way(&edges, peer, &owner, "home", None), expected);
            }
        }
    }

    #[test]
    fn one_bridge_carries_the_news_of_an_owner_and_the_others_a_note_at_once() {
        for owner in (0..20).map(|n| format!("o{n}")) {
            let carries = |place| {
                let edges = Edges { bridges: vec![bridge(place)], ..star() };
                way(&edges, "x", &owner, "home", None)
            };
            let ways = [0, 1, 2].map(|place| carries(Some((place, 3))));
            assert_eq!(ways.iter().filter(|way| **way == Way::News).count(), 1);
            assert_eq!(ways.iter().filter(|way| **way == Way::NoteNow).count(), 2);
            assert_eq!(carries(None), Way::NoteNow);
        }
    }

    #[test]
    fn news_crosses_no_bridge_between_two_other_datacenters_if_there_is_a_direct_one() {
        let edges = Edges { bridges: vec![bridge(Some((0, 1)))], ..star() };
        assert_eq!(way(&edges, "x", "o", "third", Some("a")), Way::Note);
        let through = Bridge { direct: false, ..bridge(Some((0, 1))) };
        let edges = Edges { bridges: vec![through], ..star() };
        assert_eq!(way(&edges, "x", "o", "third", Some("a")), Way::News);
    }

    #[test]
    fn a_way_is_broken_where_the_next_node_is_suspected_or_has_no_link() {
        let here = place("home");
        let mut edges =
            Edges { home: Home::Trees([vec![id("a"), id("b")], vec![id("a"), id("b")]]), ..star() };
        let (owner, from) = (id("o"), id("a"));
        let course = Course { owner: &owner, at: None, here: &here, from: Some(&from), own: false };
        assert!(!edges.is_broken(&course, |_| false));
        assert!(!edges.is_broken(&course, |peer| *peer == from), "it has come from there");
        assert!(edges.is_broken(&course, |peer| *peer != from));
        edges.suspects.insert(id("b"));
        assert!(edges.is_broken(&course, |_| false));
        let course = Course { owner: &id("b"), ..course };
        assert!(!edges.is_broken(&course, |_| false), "it is the owner");
    }
}
