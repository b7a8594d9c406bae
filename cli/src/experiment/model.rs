//! The paper's own ways to cut a delta, as a compact model: versions in arrays, no values, no bytes.
//!
//! Precise reconciliation (newest or oldest first) compares entry by entry, as if a digest of all entries cost nothing.
//! Scuttlebutt compares one number for each owner, and never skips a version of it.

use gossipmonger::protocol::time::Time;
use rand::{rngs::SmallRng, seq::SliceRandom};

use super::{Fit, Settings, System, ledger::Reach};

/// Which deltas go first when not all fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Precise: the last write first.
    NewestFirst,
    /// Precise: the first write first.
    OldestFirst,
    /// Scuttlebutt: the oldest of every owner, then the second of every owner, and so on.
    Breadth,
    /// Scuttlebutt: all of the owner that has most, then all of the next.
    Depth,
}

/// Nodes, each with a copy of all maps.
#[derive(Debug)]
pub(super) struct Model {
    order: Order,
    nodes: usize,
    keys: usize,
    budget: usize,
    /// The last version; every write of any owner takes the next one.
    version: u32,
    /// By node, owner and key.
    copies: Vec<u32>,
    /// By node and owner: how far the copy reaches (Scuttlebutt).
    marks: Vec<u32>,
}

/// An owner, a key of it, and the version it has there.
type Delta = (usize, usize, u32);

impl Model {
    /// All nodes have everything.
    pub(super) fn new(order: Order, settings: &Settings) -> Self {
        let (nodes, keys, budget) = (settings.nodes, settings.keys, settings.budget);
        let copies = vec![0; nodes * nodes * keys];
        Self { order, nodes, keys, budget, version: 0, copies, marks: vec![0; nodes * nodes] }
    }

    fn copy(&self, node: usize, owner: usize) -> &[u32] {
        let at = (node * self.nodes + owner) * self.keys;
        &self.copies[at..at + self.keys]
    }

    fn mark(&self, node: usize, owner: usize) -> u32 {
        self.marks[node * self.nodes + owner]
    }

    /// What `from` sends `to`, and whether that is everything.
    fn cut(&self, from: usize, to: usize, rng: &mut SmallRng) -> (Vec<Delta>, bool) {
        let mut deltas = match self.order {
            Order::NewestFirst | Order::OldestFirst => self.precise(from, to),
            Order::Breadth => self.breadth(from, to, rng),
            Order::Depth => self.depth(from, to, rng),
        };
        match self.order {
            Order::NewestFirst => deltas.sort_unstable_by_key(|(_, _, version)| u32::MAX - version),
            Order::OldestFirst => deltas.sort_unstable_by_key(|(_, _, version)| *version),
            Order::Breadth | Order::Depth => {}
        }
        let fits = deltas.len() <= self.budget;
        deltas.truncate(self.budget);
        (deltas, fits)
    }

    fn precise(&self, from: usize, to: usize) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for owner in 0..self.nodes {
            let pairs = self.copy(from, owner).iter().zip(self.copy(to, owner));
            let newer = pairs.enumerate().filter(|(_, (theirs, ours))| theirs > ours);
            deltas.extend(newer.map(|(key, (version, _))| (owner, key, *version)));
        }
        deltas
    }

    /// What `to` lacks of each owner, oldest first.
    fn scuttlebutt(&self, from: usize, to: usize, rng: &mut SmallRng) -> Vec<Vec<Delta>> {
        let mut owners = Vec::new();
        for owner in 0..self.nodes {
            let mark = self.mark(to, owner);
            if self.mark(from, owner) <= mark {
                continue;
            }
            let versions = self.copy(from, owner).iter().enumerate();
            let newer = versions.filter(|(_, version)| **version > mark);
            let mut deltas: Vec<_> = newer.map(|(key, version)| (owner, key, *version)).collect();
            deltas.sort_unstable_by_key(|(_, _, version)| *version);
            owners.push(deltas);
        }
        // Equal owners are in random order, or the same ones would starve everywhere.
        owners.shuffle(rng);
        owners
    }

    fn depth(&self, from: usize, to: usize, rng: &mut SmallRng) -> Vec<Delta> {
        let mut owners = self.scuttlebutt(from, to, rng);
        owners.sort_by_key(|deltas| usize::MAX - deltas.len());
        owners.concat()
    }

    fn breadth(&self, from: usize, to: usize, rng: &mut SmallRng) -> Vec<Delta> {
        let owners = self.scuttlebutt(from, to, rng);
        let most = owners.iter().map(Vec::len).max().unwrap_or_default();
        let rank = |rank: usize| owners.iter().filter_map(move |deltas| deltas.get(rank).copied());
        (0..most).flat_map(rank).collect()
    }

    fn apply(&mut self, to: usize, deltas: &[Delta]) {
        for (owner, key, version) in deltas {
            let row = to * self.nodes + owner;
            self.copies[row * self.keys + key] = *version;
            // Versions in between were overwritten before they arrived.
            self.marks[row] = self.marks[row].max(*version);
        }
    }
}

impl System for Model {
    fn write(&mut self, _: Time, owner: usize, key: usize) -> u64 {
        self.version += 1;
        self.apply(owner, &[(owner, key, self.version)]);
        u64::from(self.version)
    }

    fn exchange(&mut self, _: Time, from: usize, to: usize, rng: &mut SmallRng) -> Fit {
        let (answer, answered) = self.cut(to, from, rng);
        let (news, told) = self.cut(from, to, rng);
        self.apply(from, &answer);
        self.apply(to, &news);
        Fit { from: told, to: answered }
    }

    fn reach(&self, node: usize, owner: usize) -> Reach<'_> {
        match self.order {
            Order::NewestFirst | Order::OldestFirst => Reach::Each(self.copy(node, owner)),
            Order::Breadth | Order::Depth => Reach::UpTo(u64::from(self.mark(node, owner))),
        }
    }
}
