//! What a rule made of the faults: which nodes it detected and how fast, which healthy ones it called dead, and how
//! many different views of the membership there were meanwhile.

use std::collections::HashSet;

use gossipmonger::sim::faults::Faults;

/// The verdicts of one rule at one threshold.
#[derive(Debug)]
pub(super) struct Tally {
    /// The victims, and the time from which each is certainly faulty.
    victims: Vec<Option<Victim>>,
    /// Verdicts before this time come from nodes that were still learning.
    start: u64,
    observers: usize,
    /// Since when each observer considers each victim dead, in microseconds.
    since: Vec<u64>,
    false_deaths: u64,
    false_deaths_by_faulty: u64,
    wronged: Vec<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Victim {
    nth: usize,
    since: u64,
    crashes: bool,
}

/// The same, in figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// For each pair of observer and victim, in milliseconds, sorted.
    pub(super) detect_ms: Vec<f64>,
    /// Pairs in which the observer never noticed.
    pub(super) undetected: u64,
    /// Verdicts of healthy nodes about healthy, running ones.
    pub(super) false_deaths: u64,
    /// The same, by nodes that are faulty themselves.
    pub(super) false_deaths_by_faulty: u64,
    /// The number of nodes that the verdicts of healthy nodes were about.
    pub(super) false_nodes: u64,
}

impl Tally {
    /// The faults begin at `start`, and so does the counting.
    pub(super) fn new(faults: &Faults, nodes: u32, start: u64) -> Self {
        let mut count = 0;
        let victim = |node| {
            faults.is_faulty(node).then(|| {
                count += 1;
                let crash = faults.crash_of(node);
                let since = crash.unwrap_or(start);
                Victim { nth: count - 1, since, crashes: crash.is_some() }
            })
        };
        let victims: Vec<_> = (0..nodes as usize).map(victim).collect();
        let observers = nodes as usize;
        Self {
            victims,
            start,
            observers,
            since: vec![NEVER; count * observers],
            false_deaths: 0,
            false_deaths_by_faulty: 0,
            wronged: vec![false; observers],
        }
    }

    /// From now on `observer` considers `subject` dead.
    pub(super) fn dead(&mut self, now: u64, observer: u32, subject: u32) {
        let runs = self.victims[subject as usize].is_none_or(|v| v.crashes && now < v.since);
        let counts = runs && now >= self.start;
        if counts && !self.is_faulty(observer, now) {
            self.false_deaths += 1;
            self.wronged[subject as usize] = true;
        } else if counts {
            self.false_deaths_by_faulty += 1;
        }
        if let Some(victim) = self.victims[subject as usize] {
            let since = &mut self.since[victim.nth * self.observers + observer as usize];
            // A victim that still runs may come and go: then its first detection counts.
            if victim.crashes || *since == NEVER {
                *since = now;
            }
        }
    }

    /// From now on it does not.
    pub(super) fn live(&mut self, observer: u32, subject: u32) {
        if let Some(victim) = self.victims[subject as usize].filter(|victim| victim.crashes) {
            self.since[victim.nth * self.observers + observer as usize] = NEVER;
        }
    }

    /// Whether a node's own opinion does not count: a node that will crash is healthy until then.
    fn is_faulty(&self, observer: u32, now: u64) -> bool {
        self.victims[observer as usize].is_some_and(|victim| !victim.crashes || victim.since <= now)
    }

    pub(super) fn figures(&self) -> Figures {
        let mut detect_ms = Vec::new();
        let mut undetected = 0;
        for victim in self.victims.iter().flatten() {
            let row = &self.since[victim.nth * self.observers..][..self.observers];
            for (since, observer) in row.iter().zip(&self.victims) {
                match *since {
                    _ if observer.is_some() => {}
                    NEVER => undetected += 1,
                    since => detect_ms.push(since.saturating_sub(victim.since) as f64 / 1e3),
                }
            }
        }
        detect_ms.sort_by(f64::total_cmp);
        Figures {
            detect_ms,
            undetected,
            false_deaths: self.false_deaths,
            false_deaths_by_faulty: self.false_deaths_by_faulty,
            false_nodes: self.wronged.iter().filter(|wronged| **wronged).count() as u64,
        }
    }
}

/// The nodes' views of the membership, observed once a second as Rapid's authors did.
#[derive(Debug, Default)]
pub(super) struct Views {
    sets: HashSet<u64>,
    sizes: HashSet<u32>,
    latest: Vec<u64>,
    changes: u64,
    changed: Option<u64>,
}

impl Views {
    pub(super) fn new(nodes: u32) -> Self {
        Self { latest: vec![0; nodes as usize], ..Self::default() }
    }

    /// A healthy node considers this set live, itself included.
    pub(super) fn look(&mut self, now: u64, observer: u32, set: u64, size: u32) {
        let before = std::mem::replace(&mut self.latest[observer as usize], set);
        if before == set {
            return;
        }
        self.sets.insert(set);
        self.sizes.insert(size);
        if before != 0 {
            self.changes += 1;
            self.changed = Some(now);
        }
    }

    /// The number of different sets of members.
    pub(super) fn distinct(&self) -> usize {
        self.sets.len()
    }

    /// The number of different sizes.
    pub(super) fn sizes(&self) -> usize {
        self.sizes.len()
    }

    /// How often a view changed, over all nodes.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// When a view last changed.
    pub(super) const fn last_change(&self) -> Option<u64> {
        self.changed
    }
}

/// A node's contribution to the hash of a set (the finalizer of splitmix64: sets that differ almost certainly have
/// different sums).
pub(super) const fn mark(node: u32) -> u64 {
    let z = (node as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000;

    fn crashed() -> (Faults, u32) {
        let mut faults = Faults::none(4);
        faults.crash(3, 1_000 * MS, 1, 1, Duration::ZERO);
        let victim = faults.crashes()[0].1;
        (faults, victim as u32)
    }

    #[test]
    fn the_verdict_that_stays_is_the_detection() {
        let (faults, victim) = crashed();
        let mut tally = Tally::new(&faults, 4, 1_000 * MS);
        let others: Vec<_> = (0..4).filter(|node| *node != victim).collect();
        tally.dead(1_200 * MS, others[0], victim);
        tally.live(others[0], victim);
        tally.dead(1_500 * MS, others[0], victim);
        tally.dead(1_700 * MS, others[1], victim);
        let figures = tally.figures();
        assert_eq!((figures.detect_ms, figures.undetected), (vec![500.0, 700.0], 1));
        assert_eq!(figures.false_deaths, 0);
    }

    #[test]
    fn whoever_runs_is_wronged() {
        let (faults, victim) = crashed();
        let mut tally = Tally::new(&faults, 4, 0);
        let others: Vec<_> = (0..4).filter(|node| *node != victim).collect();
        tally.dead(900 * MS, others[0], victim);
        tally.dead(900 * MS, others[0], others[1]);
        tally.dead(2_000 * MS, victim, others[2]);
        let figures = tally.figures();
        assert_eq!((figures.false_deaths, figures.false_nodes), (2, 2));
        assert_eq!(figures.false_deaths_by_faulty, 1);
    }

    #[test]
    fn a_view_is_counted_once_whoever_has_it() {
        let mut views = Views::new(2);
        for (at, set) in [(1, 7), (2, 7), (3, 8), (4, 7)] {
            (0..2).for_each(|node| views.look(at, node, set, set as u32));
        }
        assert_eq!((views.distinct(), views.sizes(), views.changes()), (2, 2, 4));
        assert_eq!(views.last_change(), Some(4));
    }
}
