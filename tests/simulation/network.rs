//! What lies between the nodes: who reaches whom, how late, and what is lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, rngs::SmallRng};

/// The state of the network; nodes are numbered.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Probability that a datagram is lost, or that a frame of a stream has to be sent again.
    pub(crate) loss: f64,
    /// Probability that a datagram arrives twice.
    pub(crate) duplication: f64,
    /// Probability that an exchange breaks at any one of its frames.
    pub(crate) breakage: f64,
    /// One way, in microseconds.
    pub(crate) delay: u64,
    /// Added to it at random, up to so much: packets overtake each other.
    pub(crate) jitter: u64,
    /// Nodes that lose more of what is sent to them.
    pub(crate) ingress: BTreeMap<usize, f64>,
    /// Bytes a second from one node to another, where that is little.
    pub(crate) rates: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// Everybody reaches everybody within a millisecond, nothing is lost.
    pub(crate) fn perfect() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            breakage: 0.0,
            delay: 500,
            jitter: 200,
            ingress: BTreeMap::new(),
            rates: BTreeMap::new(),
            cut: BTreeSet::new(),
        }
    }

    /// The same, but that so much is lost.
    pub(crate) fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::perfect() }
    }

    /// Some network between a good one in a rack and a bad one between continents.
    pub(crate) fn random(rng: &mut SmallRng) -> Self {
        let bad = rng.random_range(0.0..1.0_f64).powi(3);
        Self {
            loss: bad * 0.2,
            duplication: bad * 0.1,
            breakage: bad * 0.1,
            delay: rng.random_range(200..40_000),
            jitter: rng.random_range(0..30_000),
            ingress: BTreeMap::new(),
            rates: BTreeMap::new(),
            cut: BTreeSet::new(),
        }
    }

    /// Nothing gets from `from` to `to` any more.
    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Nothing gets between the two groups any more.
    pub(crate) fn cut(&mut self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut_one_way(a, b);
                self.cut_one_way(b, a);
            }
        }
    }

    /// Everybody reaches everybody again.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Whether anything gets from `from` to `to`.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// When a datagram sent now arrives: never, once or twice.
    pub(crate) fn datagram(&self, rng: &mut SmallRng, from: usize, to: usize) -> Vec<u64> {
        if !self.reaches(from, to) || rng.random_bool(self.loss_to(to)) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.random_bool(self.duplication));
        (0..copies).map(|_| self.travel(rng)).collect()
    }

    /// When a frame of a stream sent now arrives, after being sent again as often as needed; `None`
    /// if the connection is gone.
    pub(crate) fn frame(&self, rng: &mut SmallRng, from: usize, to: usize) -> Option<u64> {
        if !self.reaches(from, to) || !self.reaches(to, from) || rng.random_bool(self.breakage) {
            return None;
        }
        let mut travel = self.travel(rng);
        // Either it or its acknowledgement is lost.
        while rng.random_bool(self.loss_to(to).max(self.loss_to(from))) {
            travel += RETRANSMIT;
        }
        Some(travel)
    }

    fn loss_to(&self, to: usize) -> f64 {
        self.ingress.get(&to).copied().unwrap_or_default().max(self.loss)
    }

    fn travel(&self, rng: &mut SmallRng) -> u64 {
        self.delay + rng.random_range(0..=self.jitter)
    }
}

/// After so long QUIC sends again what was lost.
const RETRANSMIT: u64 = 150_000;
