//! Who has a version? A question that runs over all links, and the answers that run back: the echo
//! algorithm (Chang, "Echo algorithms: depth parallel operations on general graphs", 1982).
//!
//! Whoever hears a wave for the first time passes it on to all its links but the one it came from and
//! answers that one when all others have answered. Where two meet that have heard of it already, each
//! takes the other's wave for its answer. Every link is crossed once in each direction; every node
//! reached is counted once. Nobody waits longer than the origin allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    gossip::{BEHIND_MAX, Echo, Wave},
    id::{Generation, NodeId, Version},
    time::Time,
};

/// Most waves that a node takes part in at once.
pub const WAVES_MAX: usize = 64;
/// The longest time a wave may be out.
pub const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// The waves a node takes part in.
#[derive(Debug, Default)]
pub struct Waves {
    next: u64,
    out: BTreeMap<(NodeId, u64), Part>,
}

/// What came back to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many nodes have the version, the origin included.
    pub have: usize,
    /// How many were reached and have it not.
    pub lack: usize,
    /// Some of those, at most [`BEHIND_MAX`].
    pub behind: Vec<NodeId>,
    /// Everybody who was asked has answered in time.
    pub complete: bool,
}

/// What is to be sent or told next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swell {
    /// Pass the wave on to these.
    Pass(Vec<NodeId>, Wave),
    /// Answer.
    Answer(NodeId, Echo),
    /// A wave of our own is over.
    Over(u64, Census),
}

/// One node's part in one wave.
#[derive(Debug)]
struct Part {
    /// Whom to answer; `None` for the origin.
    parent: Option<NodeId>,
    waiting: BTreeSet<NodeId>,
    census: Census,
    until: Time,
    /// It was answered: kept until its time is over, so that nobody is counted twice.
    over: bool,
}

impl Waves {
    /// Sends a wave about a version of our own; returns its number.
    pub fn begin(
        &mut self,
        now: Time,
        origin: &NodeId,
        (generation, version): (Generation, Version),
        links: BTreeSet<NodeId>,
        patience: Duration,
    ) -> (u64, Vec<Swell>) {
        self.next += 1;
        let (id, patience) = (self.next, patience.min(PATIENCE_MAX));
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let wave = Wave { origin: origin.clone(), id, generation, version, patience_ms };
        let own = Census { have: 1, complete: true, ..Census::default() };
        (id, self.join(now, wave, None, own, links))
    }

    /// A peer passed a wave on. `own`: what this node itself answers.
    pub fn wave(
        &mut self,
        now: Time,
        from: &NodeId,
        wave: Wave,
        own: Census,
        mut links: BTreeSet<NodeId>,
    ) -> Vec<Swell> {
        self.expire(now);
        let key = (wave.origin.clone(), wave.id);
        if let Some(part) = self.out.get_mut(&key) {
            // It has heard of it elsewhere.
            if part.waiting.remove(from) {
                return self.settle(&key);
            }
            let echo = Echo { origin: key.0, id: key.1, have: 0, lack: 0, behind: Vec::new() };
            return vec![Swell::Answer(from.clone(), echo)];
        }
        links.remove(from);
        // Those behind have to answer a little earlier.
        let patience_ms = wave.patience_ms.min(PATIENCE_MAX.as_millis() as u32) / 8 * 7;
        self.join(now, Wave { patience_ms, ..wave }, Some(from.clone()), own, links)
    }

    /// A peer answered.
    pub fn echo(&mut self, from: &NodeId, echo: Echo) -> Vec<Swell> {
        let key = (echo.origin, echo.id);
        let Some(part) = self.out.get_mut(&key) else { return Vec::new() };
        if !part.waiting.remove(from) {
            return Vec::new();
        }
        part.census.have = part.census.have.saturating_add(echo.have as usize);
        part.census.lack = part.census.lack.saturating_add(echo.lack as usize);
        let room = BEHIND_MAX.saturating_sub(part.census.behind.len());
        part.census.behind.extend(echo.behind.into_iter().take(room));
        self.settle(&key)
    }

    /// A link is gone: nothing is to be waited for from there.
    pub fn unlinked(&mut self, peer: &NodeId) -> Vec<Swell> {
        let keys: Vec<_> = self
            .out
            .iter()
            .filter(|(_, part)| part.waiting.contains(peer))
            .map(|(k, _)| k.clone())
            .collect();
        let mut swells = Vec::new();
        for key in keys {
            if let Some(part) = self.out.get_mut(&key) {
                part.waiting.remove(peer);
                part.census.complete = false;
            }
            swells.extend(self.settle(&key));
        }
        swells
    }

    /// Ends what has taken too long, with the answers there are.
    pub fn tick(&mut self, now: Time) -> Vec<Swell> {
        let late = self.out.iter().filter(|(_, part)| part.until <= now && !part.over);
        let late: Vec<_> = late.map(|(key, _)| key.clone()).collect();
        let mut swells = Vec::new();
        for key in late {
            if let Some(part) = self.out.get_mut(&key) {
                part.waiting.clear();
                part.census.complete = false;
            }
            swells.extend(self.settle(&key));
        }
        self.expire(now);
        swells
    }

    /// When to call [`Waves::tick`].
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.out.values().map(|part| part.until).min()
    }

    fn join(
        &mut self,
        now: Time,
        wave: Wave,
        parent: Option<NodeId>,
        census: Census,
        links: BTreeSet<NodeId>,
    ) -> Vec<Swell> {
        if self.out.len() >= WAVES_MAX {
            // Not counted, and not passed on: whoever asked learns that not all were reached.
            return Vec::new();
        }
        let until = now + Duration::from_millis(wave.patience_ms.into());
        let key = (wave.origin.clone(), wave.id);
        let part = Part { parent, waiting: links.clone(), census, until, over: false };
        self.out.insert(key.clone(), part);
        let mut swells = Vec::new();
        if !links.is_empty() {
            swells.push(Swell::Pass(links.into_iter().collect(), wave));
        }
        swells.extend(self.settle(&key));
        swells
    }

    /// Answers if nobody is waited for any more.
    fn settle(&mut self, key: &(NodeId, u64)) -> Vec<Swell> {
        let Some(part) = self.out.get_mut(key) else { return Vec::new() };
        if part.over || !part.waiting.is_empty() {
            return Vec::new();
        }
        part.over = true;
        let census = std::mem::take(&mut part.census);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        vec![match part.parent.clone() {
            None => Swell::Over(key.1, census),
            Some(parent) => {
                let Census { have, lack, behind, .. } = census;
                let (origin, id) = key.clone();
                let echo = Echo { origin, id, have: count(have), lack: count(lack), behind };
                Swell::Answer(parent, echo)
            }
        }]
    }

    fn expire(&mut self, now: Time) {
        self.out.retain(|_, part| !part.over || part.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}")).unwrap()
    }

    /// Nodes joined by these edges; those in `behind` do not have the version. Delivers in an order
    /// drawn from the seed.
    fn census(nodes: usize, edges: &[(usize, usize)], behind: &[usize], seed: u64) -> Census {
        use rand::{RngExt, SeedableRng, rngs::SmallRng};
        let mut rng = SmallRng::seed_from_u64(seed);
        let links = |n: usize| -> BTreeSet<NodeId> {
            let other = |(a, b): &(usize, usize)| match n {
                n if n == *a => Some(node(*b)),
                n if n == *b => Some(node(*a)),
                _ => None,
            };
            edges.iter().filter_map(other).collect()
        };
        let mut waves: Vec<Waves> = (0..nodes).map(|_| Waves::default()).collect();
        let now = Time::from_origin(Duration::from_secs(1));
        let about = (Generation(1), Version(1));
        let (_, first) = waves[0].begin(now, &node(0), about, links(0), Duration::from_secs(1));
        let mut queue: Vec<(usize, Swell)> = first.into_iter().map(|swell| (0, swell)).collect();
        let at = |id: &NodeId| id.as_str()[1..].parse::<usize>().unwrap();
        let mut over = None;
        while !queue.is_empty() {
            let (from, swell) = queue.swap_remove(rng.random_range(0..queue.len()));
            match swell {
                Swell::Pass(mut to, wave) => {
                    let first = to.swap_remove(rng.random_range(0..to.len()));
                    if !to.is_empty() {
                        queue.push((from, Swell::Pass(to, wave.clone())));
                    }
                    let n = at(&first);
                    let lacks = behind.contains(&n);
                    let own = Census {
                        have: usize::from(!lacks),
                        lack: usize::from(lacks),
                        behind: lacks.then(|| node(n)).into_iter().collect(),
                        complete: true,
                    };
                    let next = waves[n].wave(now, &node(from), wave, own, links(n));
                    queue.extend(next.into_iter().map(|swell| (n, swell)));
                }
                Swell::Answer(to, echo) => {
                    let n = at(&to);
                    let next = waves[n].echo(&node(from), echo);
                    queue.extend(next.into_iter().map(|swell| (n, swell)));
                }
                Swell::Over(_, census) => over = Some(census),
            }
        }
        over.expect("it comes back")
    }

    #[test]
    fn everybody_is_counted_once_whatever_the_links() {
        for seed in 0..200 {
            use rand::{RngExt, SeedableRng, rngs::SmallRng};
            let mut rng = SmallRng::seed_from_u64(seed);
            let nodes = rng.random_range(1..30);
            let mut edges = BTreeSet::new();
            for n in 1..nodes {
                edges.insert((rng.random_range(0..n), n));
                let (a, b) = (rng.random_range(0..=n), rng.random_range(0..=n));
                if a != b {
                    edges.insert((a.min(b), a.max(b)));
                }
            }
            let behind: Vec<usize> = (1..nodes).filter(|_| rng.random_bool(0.2)).collect();
            let edges: Vec<_> = edges.into_iter().collect();
            let census = census(nodes, &edges, &behind, seed);
            assert!(census.complete, "seed {seed}");
            assert_eq!(
                (census.have, census.lack),
                (nodes - behind.len(), behind.len()),
                "seed {seed}"
            );
            let named: BTreeSet<_> = census.behind.into_iter().collect();
            assert_eq!(named, behind.iter().map(|n| node(*n)).collect(), "seed {seed}");
        }
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let now = Time::from_origin(Duration::from_secs(1));
        let about = (Generation(1), Version(1));
        let links = BTreeSet::from([node(1), node(2)]);
        let mut waves = Waves::default();
        let (id, _) = waves.begin(now, &node(0), about, links, Duration::from_secs(1));
        let echo = Echo { origin: node(0), id, have: 3, lack: 0, behind: Vec::new() };
        assert_eq!(waves.echo(&node(1), echo), []);
        assert_eq!(waves.tick(now), []);
        let over = waves.tick(now + Duration::from_secs(1));
        let [Swell::Over(_, census)] = over.as_slice() else { panic!("{over:?}") };
        assert_eq!((census.have, census.complete), (4, false));
    }

    #[test]
    fn takes_part_in_no_more_than_so_many() {
        let now = Time::from_origin(Duration::from_secs(1));
        let mut waves = Waves::default();
        for id in 0..2 * WAVES_MAX as u64 {
            let (generation, version) = (Generation(1), Version(1));
            let wave = Wave { origin: node(9), id, generation, version, patience_ms: u32::MAX };
            let links = BTreeSet::from([node(1), node(2)]);
            waves.wave(now, &node(1), wave, Census::default(), links);
        }
        assert_eq!(waves.out.len(), WAVES_MAX);
    }
}
