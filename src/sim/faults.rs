//! The faults of a run: which nodes crash, which are deaf, whose processes stand still, and when.
//!
//! The faults are drawn once from the seed, before anything runs, and are the same for every rule that is
//! compared. They do not depend on how nodes notice them.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::index::sample};

use super::queue::micros;

/// The faults of all nodes. Times are in microseconds of the run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    nodes: Vec<Trouble>,
}

/// The faults of one node.
#[derive(Clone, Debug, Default)]
struct Trouble {
    crash: Option<u64>,
    deaf: Option<Deaf>,
    /// The spans in which its process stands still, in order.
    stalls: Vec<(u64, u64)>,
    /// Whether it should be detected; a pause now and then is not a failure.
    faulty: bool,
}

/// Packets that do not reach a node, though its own packets arrive.
#[derive(Clone, Copy, Debug)]
struct Deaf {
    /// Part of them.
    loss: f64,
    from: u64,
    /// How long each span lasts, and how long the pause before the next is; no end without a second span.
    on: u64,
    off: u64,
}

impl Faults {
    /// Nothing befalls `count` nodes.
    pub fn none(count: u32) -> Self {
        Self { nodes: vec![Trouble::default(); count as usize] }
    }

    /// Whether nothing befalls any node.
    pub fn is_none(&self) -> bool {
        self.nodes.is_empty()
    }

    /// `groups` times, `apart` from each other, `each` of the nodes crash at once.
    pub fn crash(&mut self, seed: u64, from: u64, groups: u32, each: u32, apart: Duration) {
        let mut rng = SmallRng::seed_from_u64(seed ^ DRAW);
        let victims = sample(&mut rng, self.nodes.len(), (groups * each) as usize);
        for (nth, victim) in victims.into_iter().enumerate() {
            let group = (nth / each as usize) as u64;
            let at = from + group * micros(apart);
            let trouble = &mut self.nodes[victim];
            (trouble.crash, trouble.faulty) = (Some(at), true);
        }
    }

    /// `count` nodes lose this share of the packets that are sent to them.
    pub fn deafen(&mut self, seed: u64, from: u64, count: u32, loss: f64) {
        let deaf = Deaf { loss, from, on: u64::MAX, off: 0 };
        self.pick(seed, count, |trouble, _| trouble.deaf = Some(deaf));
    }

    /// `count` nodes hear nothing for `span`, then everything for `span`, and so on.
    pub fn flip(&mut self, seed: u64, from: u64, count: u32, span: Duration) {
        let deaf = Deaf { loss: 1.0, from, on: micros(span), off: micros(span) };
        self.pick(seed, count, |trouble, _| trouble.deaf = Some(deaf));
    }

    /// The processes of `count` nodes stand still for `still`, run for `run`, and so on until `end`.
    pub fn slow(
        &mut self,
        seed: u64,
        from: u64,
        end: u64,
        count: u32,
        [still, run]: [Duration; 2],
    ) {
        let (still, cycle) = (micros(still), micros(still) + micros(run));
        self.pick(seed, count, |trouble, rng| {
            let first = from + rng.random_range(0..cycle);
            let starts = (first..end).step_by(cycle as usize);
            trouble.stalls = starts.map(|at| (at, at + still)).collect();
        });
    }

    /// The process of every node that is not slow anyway pauses `per_hour` times an hour, for `mean`
    /// in the mean; both times are exponentially distributed.
    pub fn pause_all(&mut self, seed: u64, end: u64, per_hour: f64, mean: Duration) {
        if per_hour <= 0.0 {
            return;
        }
        let mut rng = SmallRng::seed_from_u64(seed ^ PAUSES);
        let mut exponential = |mean: f64| (-mean * (1.0 - rng.random::<f64>()).ln()) as u64;
        for trouble in self.nodes.iter_mut().filter(|trouble| trouble.stalls.is_empty()) {
            let mut at = exponential(HOUR / per_hour);
            while at < end {
                let until = at + exponential(micros(mean) as f64).max(1);
                trouble.stalls.push((at, until));
                at = until + exponential(HOUR / per_hour).max(1);
            }
        }
    }

    fn pick(&mut self, seed: u64, count: u32, mut befall: impl FnMut(&mut Trouble, &mut SmallRng)) {
        let mut rng = SmallRng::seed_from_u64(seed ^ DRAW);
        for node in sample(&mut rng, self.nodes.len(), count as usize) {
            self.nodes[node].faulty = true;
            befall(&mut self.nodes[node], &mut rng);
        }
    }

    /// The same, so much later.
    pub fn later(&self, by: u64) -> Self {
        let mut later = self.clone();
        for trouble in &mut later.nodes {
            trouble.crash.iter_mut().for_each(|at| *at += by);
            trouble.deaf.iter_mut().for_each(|deaf| deaf.from += by);
            trouble.stalls.iter_mut().for_each(|(from, until)| {
                *from += by;
                *until += by;
            });
        }
        later
    }

    /// Whether a node should be detected as failed.
    pub fn is_faulty(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|trouble| trouble.faulty)
    }

    /// When a node crashes.
    pub fn crash_of(&self, node: usize) -> Option<u64> {
        self.nodes.get(node)?.crash
    }

    /// All crashes, in the order of their times.
    pub fn crashes(&self) -> Vec<(u64, usize)> {
        let all = self.nodes.iter().enumerate();
        let mut crashes: Vec<_> =
            all.filter_map(|(node, trouble)| Some((trouble.crash?, node))).collect();
        crashes.sort_unstable();
        crashes
    }

    /// The end of the present standstill of a node's process.
    pub fn stalled(&self, node: usize, now: u64) -> Option<u64> {
        let stalls = &self.nodes.get(node)?.stalls;
        let (_, until) = stalls[..stalls.partition_point(|(from, _)| *from <= now)].last()?;
        (now < *until).then_some(*until)
    }

    /// The share of packets lost on the way to a node, besides those that any way loses.
    pub fn deafness(&self, node: usize, now: u64) -> f64 {
        let deaf = self.nodes.get(node).and_then(|trouble| trouble.deaf);
        deaf.map_or(0.0, |deaf| if deaf.holds(now) { deaf.loss } else { 0.0 })
    }
}

impl Deaf {
    const fn holds(&self, now: u64) -> bool {
        let Some(since) = now.checked_sub(self.from) else { return false };
        self.on == u64::MAX || since % (self.on + self.off) < self.on
    }
}

/// An hour, in microseconds.
const HOUR: f64 = 3.6e9;
/// Separate from the numbers that others draw from the same seed.
const DRAW: u64 = 0x6661_756c_7473;
const PAUSES: u64 = 0x7061_7573_6573;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_flipping_node_is_deaf_every_other_span() {
        let mut faults = Faults::none(3);
        faults.flip(1, 10 * SECOND, 3, Duration::from_secs(20));
        let deaf = |second: u64| faults.deafness(0, second * SECOND);
        assert_eq!([5, 10, 29, 30, 49, 50].map(deaf), [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_process_stands_still_and_runs_in_turn() {
        let mut faults = Faults::none(1);
        let spans = [Duration::from_secs(2), Duration::from_secs(1)];
        faults.slow(1, 0, 600 * SECOND, 1, spans);
        let (first, until) = faults.nodes[0].stalls[0];
        assert_eq!(faults.stalled(0, first), Some(until));
        assert_eq!(faults.stalled(0, until), None);
        assert_eq!(faults.stalled(0, until + SECOND), Some(until + 3 * SECOND));
    }

    #[test]
    fn crashes_come_in_groups_of_nodes_that_all_differ() {
        let mut faults = Faults::none(50);
        faults.crash(7, SECOND, 3, 4, Duration::from_secs(5));
        let crashes = faults.crashes();
        let times: Vec<_> = crashes.iter().map(|(at, _)| at / SECOND).collect();
        assert_eq!(times, [1, 1, 1, 1, 6, 6, 6, 6, 11, 11, 11, 11]);
        assert_eq!((0..50).filter(|node| faults.is_faulty(*node)).count(), 12);
        assert_eq!(faults.later(SECOND).crashes()[0].0, 2 * SECOND);
    }
}
