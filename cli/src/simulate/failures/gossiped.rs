//! The method of other libraries: heartbeats that are gossiped, and judged by every node that learns of them.
//!
//! A compact model of the contacts alone. Once a round every node raises its heartbeat and exchanges digests with three
//! others, chosen at random as chitchat does; a digest is one packet, which is lost like any other and not sent again.
//! It does not model those libraries themselves: it has no deltas, no limit on a packet's length, and no node is given
//! up as a partner (all of which is in their favour). All rules judge the same contacts.

use std::rc::Rc;

use gossipmonger::sim::{faults::Faults, network::Network, queue::Queue};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::index::sample};

use super::{
    outcome::{Figures, Tally, Views, mark},
    rules::{LEVELS, RULES, Rule, Tick, Window},
};

/// A run of the model.
#[derive(Debug)]
pub(super) struct Gossiped<'a> {
    faults: &'a Faults,
    network: &'a Network,
    interval: u64,
    start: u64,
    threshold: u8,
    seeds: Option<&'a [u32]>,
    rng: SmallRng,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    /// The highest heartbeat of each node that each node knows: one row for each knower.
    beats: Vec<u32>,
    windows: Vec<Window>,
    /// By rule and threshold.
    tallies: Vec<Tally>,
    views: [Views; RULES],
}

#[derive(Clone, Debug, Default)]
struct Node {
    crashed: bool,
    round: u32,
    messages: u32,
    /// The nodes among which it may choose.
    known: Vec<u32>,
    /// Cassandra judges no node for a while after a pause of its own.
    judged: u64,
    paused: Option<u64>,
}

#[derive(Clone, Debug)]
enum Event {
    Round(u32),
    Crash(u32),
    Digest { from: u32, to: u32, beats: Rc<[u32]>, answer: bool },
}

/// The result for one rule.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rule: Rule,
    /// At the thresholds 1 to 16.
    pub(super) figures: Vec<Figures>,
    pub(super) views: Views,
}

impl<'a> Gossiped<'a> {
    /// All nodes know each other, or (`cold`) each knows only the seeds. Verdicts count from `start` on; views are
    /// those at `threshold`.
    pub(super) fn new(
        seed: u64,
        faults: &'a Faults,
        network: &'a Network,
        interval: u64,
        start: u64,
        threshold: u8,
        seeds: Option<&'a [u32]>,
    ) -> Self {
        let nodes = network.nodes();
        let count = nodes as u32;
        let mut run = Self {
            faults,
            network,
            interval,
            start,
            threshold,
            seeds,
            rng: SmallRng::seed_from_u64(seed),
            queue: Queue::new(),
            nodes: vec![Node::default(); nodes],
            beats: vec![0; nodes * nodes],
            windows: vec![Window::NEW; nodes * nodes],
            tallies: (0..RULES * LEVELS).map(|_| Tally::new(faults, count, start)).collect(),
            views: std::array::from_fn(|_| Views::new(count)),
        };
        for node in 0..count {
            let begins = run.rng.random_range(0..interval);
            run.queue.at(begins, Event::Round(node));
            let known = |other: &u32| *other != node;
            run.nodes[node as usize].known = match seeds {
                Some(seeds) => seeds.iter().copied().filter(known).collect(),
                None => (0..count).filter(known).collect(),
            };
        }
        for (at, node) in faults.crashes() {
            run.queue.at(at, Event::Crash(node as u32));
        }
        run
    }

    /// Advances time to `end`.
    pub(super) fn run(&mut self, end: u64) {
        while let Some(event) = self.queue.next(end) {
            let node = match &event {
                Event::Round(node) | Event::Crash(node) => *node,
                Event::Digest { to, .. } => *to,
            };
            let now = self.queue.now();
            match self.faults.stalled(node as usize, now) {
                Some(until) if !matches!(event, Event::Crash(_)) => self.queue.at(until, event),
                _ => self.happen(now, event),
            }
        }
    }

    pub(super) fn judged(self) -> Vec<Judged> {
        let mut figures = self.tallies.iter().map(Tally::figures);
        let mut of =
            |rule, views| Judged { rule, figures: figures.by_ref().take(LEVELS).collect(), views };
        Rule::ALL.into_iter().zip(self.views).map(|(rule, views)| of(rule, views)).collect()
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Crash(node) => self.nodes[node as usize].crashed = true,
            Event::Round(node) => self.round(now, node),
            Event::Digest { from, to, beats, answer } => {
                if self.nodes[to as usize].crashed {
                    return;
                }
                self.nodes[to as usize].messages += 1;
                self.learn(now, to, &beats);
                if answer {
                    let beats = self.digest(to);
                    self.send(now, to, from, &beats, false);
                }
            }
        }
    }

    fn round(&mut self, now: u64, node: u32) {
        let at = &mut self.nodes[node as usize];
        if at.crashed {
            return;
        }
        (at.round, at.messages) = (at.round + 1, 0);
        self.queue.at(now + self.interval, Event::Round(node));
        self.judge(now, node);
        let known = self.nodes[node as usize].known.len();
        let chosen = sample(&mut self.rng, known, FANOUT.min(known));
        let beats = self.digest(node);
        for nth in chosen {
            let to = self.nodes[node as usize].known[nth];
            self.send(now, node, to, &beats, true);
        }
    }

    /// The heartbeats that a node knows, including its own.
    fn digest(&mut self, node: u32) -> Rc<[u32]> {
        let nodes = self.nodes.len();
        let at = &self.nodes[node as usize];
        let own = at.round * MESSAGES_MAX + at.messages.min(MESSAGES_MAX - 1);
        let row = &mut self.beats[node as usize * nodes..][..nodes];
        row[node as usize] = own;
        Rc::from(&*row)
    }

    fn send(&mut self, now: u64, from: u32, to: u32, beats: &Rc<[u32]>, answer: bool) {
        if self.network.is_lost(&mut self.rng, now, to as usize) {
            return;
        }
        let at = now + self.network.travel(&mut self.rng, from as usize, to as usize);
        self.queue.at(at, Event::Digest { from, to, beats: Rc::clone(beats), answer });
    }

    fn learn(&mut self, now: u64, node: u32, told: &[u32]) {
        let nodes = self.nodes.len();
        let (row, tick, interval) = (node as usize * nodes, tick(now), tick(self.interval));
        for (other, told) in told.iter().enumerate() {
            let known = &mut self.beats[row + other];
            if told <= known || other == node as usize {
                continue;
            }
            let round = told / MESSAGES_MAX > *known / MESSAGES_MAX;
            let other = other as u32;
            if *known == 0 && self.seeds.is_some_and(|seeds| !seeds.contains(&other)) {
                self.nodes[node as usize].known.push(other);
            }
            *known = *told;
            let window = &mut self.windows[row + other as usize];
            let before = window.levels;
            window.hear(tick, round, interval);
            if before != window.levels && self.faults.crash_of(other as usize).is_some() {
                let back = before.iter().zip(window.levels).enumerate();
                for (rule, (before, after)) in back {
                    for level in after..*before {
                        self.tallies[rule * LEVELS + usize::from(level)].live(node, other);
                    }
                }
            }
        }
    }

    /// Judges every known node, as those libraries do once a round.
    fn judge(&mut self, now: u64, node: u32) {
        let nodes = self.nodes.len();
        let at = &mut self.nodes[node as usize];
        let late = now.saturating_sub(at.judged);
        if at.judged > 0 && late > LOCAL_PAUSE {
            at.paused = Some(now);
        }
        at.judged = now;
        let excused = at.paused.is_some_and(|since| now - since < LOCAL_PAUSE);
        let counts = now >= self.start;
        let mut sets = [(mark(node), 1); RULES];
        let tick = tick(now);
        for other in (0..nodes as u32).filter(|other| *other != node) {
            let window = &mut self.windows[node as usize * nodes + other as usize];
            for rule in Rule::ALL {
                let n = rule as usize;
                let Some(phi) = window.phi(rule, tick) else { continue };
                let (before, level) = (window.levels[n], (phi as usize).min(LEVELS) as u8);
                if level > before && !(excused && rule == Rule::Cassandra) {
                    window.levels[n] = level;
                    for crossed in before..level {
                        self.tallies[n * LEVELS + usize::from(crossed)].dead(now, node, other);
                    }
                }
                if window.levels[n] < self.threshold {
                    sets[n] = (sets[n].0 ^ mark(other), sets[n].1 + 1);
                }
            }
        }
        if counts && !self.faults.is_faulty(node as usize) {
            let views = self.views.iter_mut().zip(sets);
            views.for_each(|(views, (set, size))| views.look(now, node, set, size));
        }
    }
}

const fn tick(micros: u64) -> Tick {
    (micros / 100) as Tick
}

/// The nodes that each node contacts in a round (chitchat's `GOSSIP_COUNT`).
const FANOUT: usize = 3;
/// Messages within a round that raise a heartbeat.
const MESSAGES_MAX: u32 = 64;
/// Cassandra's `MAX_LOCAL_PAUSE_IN_MS`, in microseconds.
const LOCAL_PAUSE: u64 = 5_000_000;
