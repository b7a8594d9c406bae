//! Counts the nodes that have a version, by a question that runs over all links, and the answers that run
//! back: the echo algorithm (Chang, "Echo algorithms: depth parallel operations on general graphs", 1982).
//!
//! A node that receives a wave for the first time passes it on to all its links except the one it came from,
//! and answers that one when all others have answered. If two nodes that both have received it send it to
//! each other, each takes the other's wave for its answer. Every link is crossed once in each direction;
//! every node reached is counted once. No node waits longer than the origin allows, and a wave that is over
//! is remembered for longer than any copy of it may be on its way: a node that forgot it would pass it on
//! again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    gossip::{BEHIND_MAX, Echo, Wave},
    id::{Generation, NodeId, Version},
    time::Time,
};

/// Most waves of others that a node takes part in at once, and most of its own.
pub const WAVES_MAX: usize = 64;
/// Most waves of others that a node joins in a second, in the long run.
pub const WAVES_PER_SECOND: u32 = 256;
/// Most waves that are remembered once they are over.
pub const REMEMBERED_MAX: usize = 4_096;
/// The longest time a wave may be out.
pub const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// The waves a node takes part in.
#[derive(Debug, Default)]
pub struct Waves {
    last: u64,
    out: BTreeMap<Key, Part>,
    /// Waves that are over, and until when they are remembered, the oldest first, so that no node is counted
    /// twice.
    over: BTreeSet<Key>,
    forgotten: VecDeque<(Time, Key)>,
    /// Waves of others that may still be joined, and when they were counted.
    joins: Option<(f64, Time)>,
}

/// The node that asks, and its number.
type Key = (NodeId, u64);

/// The result that came back to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many nodes have the version, the origin included.
    pub have: usize,
    /// How many were reached and have it not.
    pub lack: usize,
    /// Some of those, at most [`BEHIND_MAX`].
    pub behind: Vec<NodeId>,
    /// All nodes that were asked have answered in time.
    pub complete: bool,
}

/// The next frame to send or report.
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
    /// The link to answer; `None` for the origin.
    parent: Option<NodeId>,
    waiting: BTreeSet<NodeId>,
    census: Census,
    until: Time,
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
        // Greater than any of an earlier generation, whose answers may still be on their way.
        self.last = generation.0.max(self.last.saturating_add(1));
        let (id, patience) = (self.last, patience.min(PATIENCE_MAX));
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let wave = Wave { origin: origin.clone(), id, generation, version, patience_ms };
        let own = Census { have: 1, complete: true, ..Census::default() };
        self.forget(now);
        if self.taking_part(None) >= WAVES_MAX {
            return (id, vec![Swell::Over(id, Census { complete: false, ..own })]);
        }
        (id, self.join(now, wave, None, own, links))
    }

    /// A peer passed a wave on. `own`: the answer of this node itself.
    pub fn wave(
        &mut self,
        now: Time,
        from: &NodeId,
        wave: Wave,
        own: Census,
        mut links: BTreeSet<NodeId>,
    ) -> Vec<Swell> {
        self.forget(now);
        let key = (wave.origin.clone(), wave.id);
        if let Some(part) = self.out.get_mut(&key) {
            // It has heard of it elsewhere.
            if part.waiting.remove(from) {
                return self.settle(now, &key);
            }
            return vec![nobody(from, key, true)];
        }
        if self.over.contains(&key) {
            return vec![nobody(from, key, true)];
        }
        // The node that asked learns that not all were reached.
        if self.taking_part(Some(from)) >= WAVES_MAX || !self.may_join(now) {
            return vec![nobody(from, key, false)];
        }
        links.remove(from);
        // The nodes behind have to answer a little earlier.
        let patience_ms = wave.patience_ms.min(PATIENCE_MAX.as_millis() as u32) / 8 * 7;
        let mut own = own;
        if patience_ms == 0 {
            own.complete &= links.is_empty();
            links.clear();
        }
        self.join(now, Wave { patience_ms, ..wave }, Some(from.clone()), own, links)
    }

    /// Whether this node takes part in a wave, or did so a moment ago.
    #[must_use]
    pub fn is_known(&self, wave: &Wave) -> bool {
        let key = (wave.origin.clone(), wave.id);
        self.out.contains_key(&key) || self.over.contains(&key)
    }

    /// Whether a wave is under way here.
    #[must_use]
    pub fn is_out(&self, wave: &Wave) -> bool {
        self.out.contains_key(&(wave.origin.clone(), wave.id))
    }

    /// How many waves of this node are under way.
    #[must_use]
    pub fn own(&self) -> usize {
        self.taking_part(None)
    }

    /// The answer to a wave that this node does not take part in: not all were reached.
    #[must_use]
    pub fn decline(from: &NodeId, wave: Wave) -> Vec<Swell> {
        vec![nobody(from, (wave.origin, wave.id), false)]
    }

    /// A peer answered.
    pub fn echo(&mut self, now: Time, from: &NodeId, echo: Echo) -> Vec<Swell> {
        self.forget(now);
        let key = (echo.origin, echo.id);
        let Some(part) = self.out.get_mut(&key) else { return Vec::new() };
        if !part.waiting.remove(from) {
            return Vec::new();
        }
        part.census.have = part.census.have.saturating_add(echo.have as usize);
        part.census.lack = part.census.lack.saturating_add(echo.lack as usize);
        part.census.complete &= echo.complete;
        let room = BEHIND_MAX.saturating_sub(part.census.behind.len());
        part.census.behind.extend(echo.behind.into_iter().take(room));
        self.settle(now, &key)
    }

    /// A link is gone: do not wait for its answers.
    pub fn unlinked(&mut self, now: Time, peer: &NodeId) -> Vec<Swell> {
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
            swells.extend(self.settle(now, &key));
        }
        swells
    }

    /// Ends the waves that have taken too long, with the answers received.
    pub fn tick(&mut self, now: Time) -> Vec<Swell> {
        let late = self.out.iter().filter(|(_, part)| part.until <= now);
        let late: Vec<_> = late.map(|(key, _)| key.clone()).collect();
        let mut swells = Vec::new();
        for key in late {
            if let Some(part) = self.out.get_mut(&key) {
                part.waiting.clear();
                part.census.complete = false;
            }
            swells.extend(self.settle(now, &key));
        }
        self.forget(now);
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
        let until = now + Duration::from_millis(wave.patience_ms.into());
        let key = (wave.origin.clone(), wave.id);
        let part = Part { parent, waiting: links.clone(), census, until };
        self.out.insert(key.clone(), part);
        let mut swells = Vec::new();
        if !links.is_empty() {
            swells.push(Swell::Pass(links.into_iter().collect(), wave));
        }
        swells.extend(self.settle(now, &key));
        swells
    }

    /// Answers if all other links have answered.
    fn settle(&mut self, now: Time, key: &Key) -> Vec<Swell> {
        if self.out.get(key).is_none_or(|part| !part.waiting.is_empty()) {
            return Vec::new();
        }
        let Some(Part { parent, census, .. }) = self.out.remove(key) else { return Vec::new() };
        self.over.insert(key.clone());
        self.forgotten.push_back((now + REMEMBERED, key.clone()));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        vec![match parent {
            None => Swell::Over(key.1, census),
            Some(parent) => {
                let Census { have, lack, behind, complete } = census;
                let ((origin, id), have, lack) = (key.clone(), count(have), count(lack));
                Swell::Answer(parent, Echo { origin, id, have, lack, behind, complete })
            }
        }]
    }

    /// How many waves this node takes part in: its own, or those of others. One peer may take up half of
    /// these.
    fn taking_part(&self, from: Option<&NodeId>) -> usize {
        let Some(from) = from else {
            return self.out.values().filter(|part| part.parent.is_none()).count();
        };
        let others = self.out.values().filter_map(|part| part.parent.as_ref());
        let (all, of_it) = others
            .fold((0, 0), |(all, of_it), parent| (all + 1, of_it + usize::from(parent == from)));
        all.max(2 * of_it)
    }

    /// Counts the waves of others: each is passed on to all links.
    fn may_join(&mut self, now: Time) -> bool {
        let most = f64::from(WAVES_PER_SECOND);
        let (left, at) = self.joins.unwrap_or((most, now));
        let left = (left + now.since(at).as_secs_f64() * most).min(most);
        let may = left >= 1.0;
        self.joins = Some((if may { left - 1.0 } else { left }, now));
        may
    }

    fn forget(&mut self, now: Time) {
        let old = |(until, _): &(Time, Key)| *until <= now;
        while self.forgotten.len() > REMEMBERED_MAX || self.forgotten.front().is_some_and(old) {
            let Some((_, key)) = self.forgotten.pop_front() else { return };
            self.over.remove(&key);
        }
    }
}

/// The answer of a node that was, or is, counted elsewhere.
fn nobody(to: &NodeId, (origin, id): Key, complete: bool) -> Swell {
    let echo = Echo { origin, id, have: 0, lack: 0, behind: Vec::new(), complete };
    Swell::Answer(to.clone(), echo)
}

/// How long a wave that is over is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

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
                    let next = waves[n].echo(now, &node(from), echo);
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
        let echo =
            Echo { origin: node(0), id, have: 3, lack: 0, behind: Vec::new(), complete: true };
        assert_eq!(waves.echo(now, &node(1), echo), []);
        assert_eq!(waves.tick(now), []);
        let over = waves.tick(now + Duration::from_secs(1));
        let [Swell::Over(_, census)] = over.as_slice() else { panic!("{over:?}") };
        assert_eq!((census.have, census.complete), (4, false));
    }

    #[test]
    fn takes_part_in_no_more_than_so_many_and_says_so() {
        let now = Time::from_origin(Duration::from_secs(1));
        let mut waves = Waves::default();
        let links = || BTreeSet::from([node(1), node(2), node(3)]);
        for id in 0..4 * WAVES_MAX as u64 {
            let wave = wave(id, u32::MAX);
            let from = node(1 + id as usize % 3);
            let swells = waves.wave(now, &from, wave, Census::default(), links());
            let incomplete =
                |swell: &Swell| matches!(swell, Swell::Answer(_, echo) if !echo.complete);
            assert_eq!(swells.iter().any(incomplete), id >= WAVES_MAX as u64);
        }
        assert_eq!(waves.out.len(), WAVES_MAX);
        // Its own waves are over at once if they are too many, and those of others do not hold them up.
        for n in 0..2 * WAVES_MAX {
            let about = (Generation(1), Version(1));
            let (_, swells) = waves.begin(now, &node(0), about, links(), Duration::from_secs(1));
            let over = matches!(&swells[..], [Swell::Over(_, Census { complete: false, .. })]);
            assert_eq!(over, n >= WAVES_MAX);
        }
    }

    #[test]
    fn one_peer_takes_up_no_more_than_half() {
        let (now, mut waves) = (Time::from_origin(Duration::from_secs(1)), Waves::default());
        let links = || BTreeSet::from([node(1), node(2)]);
        for id in 0..2 * WAVES_MAX as u64 {
            waves.wave(now, &node(1), wave(id, u32::MAX), Census::default(), links());
        }
        assert_eq!(waves.out.len(), WAVES_MAX / 2);
    }

    #[test]
    fn passes_a_wave_on_once_however_little_patience_it_has() {
        let mut now = Time::from_origin(Duration::from_secs(1));
        for patience in [0, 1, 7, 8, 100] {
            let mut waves = Waves::default();
            let mut passed = 0;
            for n in 0..20 {
                let links = (1..10).map(node).collect();
                let from = node(1 + n % 9);
                let swells = waves.wave(now, &from, wave(1, patience), Census::default(), links);
                let late = waves.tick(now + Duration::from_millis(200));
                let all = swells.iter().chain(&late);
                passed += all.filter(|swell| matches!(swell, Swell::Pass(..))).count();
                now = now + Duration::from_millis(201);
            }
            assert_eq!(passed, usize::from(patience >= 8), "{patience} ms");
        }
    }

    #[test]
    fn who_was_not_reached_is_missed_at_the_origin() {
        let (now, mut waves) = (Time::from_origin(Duration::from_secs(1)), Waves::default());
        let (about, links) = ((Generation(1), Version(1)), BTreeSet::from([node(1)]));
        let (id, _) = waves.begin(now, &node(0), about, links, Duration::from_secs(1));
        let echo =
            Echo { origin: node(0), id, have: 9, lack: 0, behind: Vec::new(), complete: false };
        let over = waves.echo(now, &node(1), echo);
        let [Swell::Over(_, census)] = over.as_slice() else { panic!("{over:?}") };
        assert!(!census.complete);
    }

    #[test]
    fn an_answer_to_an_earlier_life_answers_nothing() {
        let now = Time::from_origin(Duration::from_secs(1));
        let begin = |generation| {
            let (mut waves, links) = (Waves::default(), BTreeSet::from([node(1)]));
            let about = (Generation(generation), Version(1));
            waves.begin(now, &node(0), about, links, Duration::from_secs(1)).0
        };
        assert_ne!(begin(1_000), begin(1_001));
    }

    fn wave(id: u64, patience_ms: u32) -> Wave {
        let (generation, version) = (Generation(1), Version(1));
        Wave { origin: node(99), id, generation, version, patience_ms }
    }
}
