//! What this caller has itself seen of each node: calls outstanding, latency, load, refusals.
//!
//! What is known of one node fades to nothing within [`FADES_IN`], but for the number of outstanding calls.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use super::ask::Outcome;
use crate::protocol::{id::NodeId, time::Time};

/// A figure fades linearly, and is forgotten this long after the last sample: one bad second must not keep callers
/// away for longer.
pub const FADES_IN: Duration = Duration::from_secs(10);
/// A node that answered `Overloaded` so recently gets no call as long as there is another one.
pub const OVERLOADED_FOR: Duration = Duration::from_secs(1);
/// Nodes with figures: at most 200 KiB with the free slots of the table. A node with outstanding calls is never
/// dropped, and one more is then left out. That does not happen as long as a node has fewer outgoing service
/// connections than this.
pub const FIGURES_MAX: usize = 1_024;
/// The least weight of a new sample in the mean: that of the smoothed round trip in RFC 6298, section 2.
pub const GAIN_MIN: f64 = 1.0 / 8.0;
/// Latencies below this count as this. Differences below it come from the scheduler of the operating system, and a
/// node must not prefer itself for them.
pub const LATENCY_MIN: Duration = Duration::from_micros(100);
/// A failed call counts as one that took at least so long: a node that fails at once must not seem fast.
pub const FAILED_COUNTS_AS: Duration = Duration::from_secs(1);

/// The figures of all nodes.
#[derive(Debug, Default)]
pub(super) struct Figures {
    nodes: HashMap<NodeId, Seen, BuildHasherDefault<DefaultHasher>>,
    /// Latency of answers, whoever gave them: the best guess for a node that has not answered yet. It does not fade,
    /// since nodes are only compared with each other.
    typical: Option<Mean>,
    /// When the latest `Overloaded` came, of any node.
    overloaded: Option<Time>,
    /// When faded entries were last dropped.
    tidied: Time,
}

/// The figures of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    outstanding: u32,
    latency: Option<Mean>,
    load: Option<(u8, Time)>,
    /// When it last refused for lack of room, and for how long it asked to be left alone.
    overloaded: Option<(Time, Duration)>,
    touched: Time,
}

/// An exponentially weighted moving average, in seconds.
#[derive(Clone, Copy, Debug)]
struct Mean {
    value: f64,
    at: Time,
}

impl Figures {
    pub(super) fn began(&mut self, now: Time, node: &NodeId) {
        if let Some(seen) = self.entry(now, node) {
            seen.outstanding = seen.outstanding.saturating_add(1);
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Time,
        node: &NodeId,
        latency: Duration,
        load: Option<u8>,
        outcome: Outcome,
    ) {
        if let Outcome::Answered = outcome {
            add(&mut self.typical, now, latency.max(LATENCY_MIN));
        }
        if let Outcome::Overloaded { .. } = outcome {
            self.overloaded = Some(now);
        }
        if let Some(seen) = self.entry(now, node) {
            seen.outstanding = seen.outstanding.saturating_sub(1);
            seen.learn(now, latency, load, outcome);
        }
    }

    /// How long a node is still to be left alone since it answered `Overloaded` within [`OVERLOADED_FOR`]; zero if
    /// it did and asked for no longer pause, `None` if it did not.
    pub(super) fn overloaded(&self, now: Time, node: &NodeId) -> Option<Duration> {
        // Usually nobody has, and there is nothing to look up.
        self.overloaded.filter(|latest| now.since(*latest) < OVERLOADED_FOR)?;
        let (at, pause) = self.nodes.get(node)?.overloaded?;
        let age = now.since(at);
        (age < OVERLOADED_FOR).then(|| pause.min(OVERLOADED_FOR).saturating_sub(age))
    }

    pub(super) fn outstanding(&self, node: &NodeId) -> u32 {
        self.nodes.get(node).map_or(0, |seen| seen.outstanding)
    }

    /// How expensive another call to a node is: (outstanding + 1) x latency x load, of which latency is in seconds.
    /// A node that is not known counts as a typical one, but not as nearer than `round_trip`.
    pub(super) fn cost(&self, now: Time, node: &NodeId, round_trip: Option<Duration>) -> f64 {
        let least = round_trip.unwrap_or_default().max(LATENCY_MIN).as_secs_f64();
        let typical = self.typical.map_or(least, |mean| mean.value.max(least));
        self.nodes.get(node).map_or(typical, |seen| seen.cost(now, typical))
    }

    /// How many nodes have figures.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Of a node without figures there is a new entry, unless as many nodes as possible have outstanding calls.
    fn entry(&mut self, now: Time, node: &NodeId) -> Option<&mut Seen> {
        let full = self.nodes.len() >= FIGURES_MAX && !self.nodes.contains_key(node);
        if full || now.since(self.tidied) >= FADES_IN {
            self.tidy(now);
        }
        if self.nodes.len() >= FIGURES_MAX && !self.nodes.contains_key(node) {
            return None;
        }
        let new =
            Seen { outstanding: 0, latency: None, load: None, overloaded: None, touched: now };
        let seen = self.nodes.entry(node.clone()).or_insert(new);
        seen.touched = now;
        Some(seen)
    }

    /// Drops what has faded. If that is not enough, drops the older half of the entries without outstanding calls, so
    /// that the next entries cost nothing.
    fn tidy(&mut self, now: Time) {
        self.tidied = now;
        self.nodes.retain(|_, seen| seen.outstanding > 0 || now.since(seen.touched) < FADES_IN);
        if self.nodes.len() < FIGURES_MAX {
            return;
        }
        let idle = self.nodes.iter().filter(|(_, seen)| seen.outstanding == 0);
        let mut idle: Vec<_> = idle.map(|(node, seen)| (seen.touched, node.clone())).collect();
        idle.sort_unstable();
        for (_, node) in idle.iter().take(idle.len().div_ceil(2)) {
            self.nodes.remove(node);
        }
    }
}

impl Seen {
    fn learn(&mut self, now: Time, latency: Duration, load: Option<u8>, outcome: Outcome) {
        if let Some(load) = load {
            self.load = Some((load, now));
        }
        match outcome {
            Outcome::Answered => add(&mut self.latency, now, latency.max(LATENCY_MIN)),
            Outcome::Failed => add(&mut self.latency, now, latency.max(FAILED_COUNTS_AS)),
            Outcome::Cancelled => {
                // It would have taken longer, so a short wait says nothing.
                let least = self.latency.map_or(0.0, |mean| mean.value);
                if latency.as_secs_f64() > least {
                    add(&mut self.latency, now, latency.max(LATENCY_MIN));
                }
            }
            // To refuse is quick, and says nothing about the time that work takes.
            Outcome::Overloaded { retry_after } => {
                self.load = Some((u8::MAX, now));
                self.overloaded = Some((now, retry_after));
            }
            Outcome::Refused => {}
        }
    }

    fn cost(&self, now: Time, typical: f64) -> f64 {
        let latency = self.latency.map_or(typical, |mean| mean.faded(now, typical));
        let load = self.load.map_or(0.0, |(load, at)| f64::from(load) * freshness(now, at));
        (f64::from(self.outstanding) + 1.0) * latency * crowding(load)
    }
}

impl Mean {
    /// A sample counts the more, the longer the one before is past.
    fn add(&mut self, now: Time, sample: f64) {
        let gain = (1.0 - freshness(now, self.at)).max(GAIN_MIN);
        self.value += gain * (sample - self.value);
        self.at = now;
    }

    /// What is left of it; the rest is `otherwise`.
    fn faded(self, now: Time, otherwise: f64) -> f64 {
        otherwise + (self.value - otherwise) * freshness(now, self.at)
    }
}

fn add(mean: &mut Option<Mean>, now: Time, sample: Duration) {
    let sample = sample.as_secs_f64();
    mean.get_or_insert(Mean { value: sample, at: now }).add(now, sample);
}

/// 1 for a sample of this moment, 0 after [`FADES_IN`].
fn freshness(now: Time, at: Time) -> f64 {
    (1.0 - now.since(at).as_secs_f64() / FADES_IN.as_secs_f64()).max(0.0)
}

/// How many times longer a call takes at a service that is `load` / 256 full: 1 / (1 - utilisation), as in a queue
/// with one server and random arrivals (M/M/1).
fn crowding(load: f64) -> f64 {
    LOADS / (LOADS - load)
}

/// One more than the largest byte of load.
const LOADS: f64 = 256.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn node(number: usize) -> NodeId {
        NodeId::new(&format!("n{number:05}")).unwrap()
    }

    fn at(since: Duration) -> Time {
        Time::ZERO + since
    }

    #[test]
    fn a_node_without_outstanding_calls_is_dropped_when_it_has_faded() {
        let mut figures = Figures::default();
        figures.began(at(SECOND), &node(1));
        figures.ended(at(SECOND), &node(1), MS, None, Outcome::Answered);
        figures.began(at(SECOND), &node(2));
        figures.began(at(FADES_IN * 3), &node(3));
        assert_eq!(figures.len(), 2, "the one with a call under way stays");
        assert_eq!([1, 2, 3].map(|of| figures.outstanding(&node(of))), [0, 1, 1]);
    }

    #[test]
    fn never_remembers_more_nodes_than_the_limit() {
        let mut figures = Figures::default();
        for number in 0..FIGURES_MAX * 4 {
            figures.began(Time::ZERO, &node(number));
            figures.ended(Time::ZERO, &node(number), MS, None, Outcome::Answered);
            assert!(figures.len() <= FIGURES_MAX);
        }
        assert!(figures.len() >= FIGURES_MAX / 2);
        for number in 0..FIGURES_MAX * 2 {
            figures.began(Time::ZERO, &node(number));
            assert!(figures.len() <= FIGURES_MAX);
        }
        assert_eq!(figures.outstanding(&node(0)), 1, "a call under way is not forgotten");
        assert_eq!(figures.outstanding(&node(FIGURES_MAX * 2 - 1)), 0, "there was no room");
        figures.ended(Time::ZERO, &node(FIGURES_MAX * 2 - 1), MS, None, Outcome::Answered);
    }

    #[test]
    fn an_end_without_a_beginning_changes_no_count() {
        let mut figures = Figures::default();
        figures.ended(Time::ZERO, &node(1), MS, None, Outcome::Answered);
        assert_eq!(figures.outstanding(&node(1)), 0);
    }

    #[test]
    fn a_failure_or_a_refusal_does_not_make_a_node_seem_fast() {
        for (outcome, load) in [
            (Outcome::Failed, None),
            (Outcome::Overloaded { retry_after: MS }, None),
            (Outcome::Refused, None),
            (Outcome::Cancelled, None),
        ] {
            let mut figures = Figures::default();
            figures.ended(Time::ZERO, &node(1), 10 * MS, load, Outcome::Answered);
            let before = figures.cost(Time::ZERO, &node(1), None);
            figures.ended(Time::ZERO, &node(1), Duration::ZERO, load, outcome);
            assert!(figures.cost(Time::ZERO, &node(1), None) >= before, "{outcome:?}");
        }
    }

    #[test]
    fn the_mean_approaches_what_is_measured_and_forgets_in_ten_seconds() {
        let mut figures = Figures::default();
        figures.ended(Time::ZERO, &node(2), MS, None, Outcome::Answered);
        figures.ended(Time::ZERO, &node(1), 900 * MS, None, Outcome::Failed);
        let cost = |figures: &Figures, now| figures.cost(now, &node(1), None);
        assert!((cost(&figures, Time::ZERO) - 1.0).abs() < 1e-9);
        assert!((cost(&figures, at(FADES_IN / 2)) - 0.5).abs() < 1e-3);
        assert!(cost(&figures, at(FADES_IN)) <= 0.001);
        for _ in 0..50 {
            figures.ended(Time::ZERO, &node(1), MS, None, Outcome::Answered);
        }
        assert!((cost(&figures, Time::ZERO) - 0.001).abs() < 0.002);
    }

    #[test]
    fn a_full_service_costs_more_until_that_is_past() {
        let mut figures = Figures::default();
        figures.ended(Time::ZERO, &node(1), MS, Some(0), Outcome::Answered);
        let empty = figures.cost(Time::ZERO, &node(1), None);
        figures.ended(Time::ZERO, &node(1), MS, Some(128), Outcome::Answered);
        assert!((figures.cost(Time::ZERO, &node(1), None) / empty - 2.0).abs() < 1e-9);
        figures.ended(Time::ZERO, &node(1), MS, Some(255), Outcome::Answered);
        assert!((figures.cost(Time::ZERO, &node(1), None) / empty - 256.0).abs() < 1e-9);
        assert!(figures.cost(at(FADES_IN), &node(1), None) <= empty);
    }

    #[test]
    fn an_unknown_node_counts_as_a_typical_one_and_no_nearer_than_its_datacenter() {
        let mut figures = Figures::default();
        assert!((figures.cost(Time::ZERO, &node(9), None) - 0.0001).abs() < 1e-9);
        figures.ended(Time::ZERO, &node(1), 5 * MS, None, Outcome::Answered);
        assert!((figures.cost(Time::ZERO, &node(9), None) - 0.005).abs() < 1e-9);
        assert!((figures.cost(Time::ZERO, &node(9), Some(80 * MS)) - 0.08).abs() < 1e-9);
    }

    #[test]
    fn the_pause_that_a_peer_asks_for_has_a_limit() {
        let mut figures = Figures::default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(figures.overloaded(Time::ZERO, &node(1)), None);
        let refused = Outcome::Overloaded { retry_after: hour };
        figures.ended(Time::ZERO, &node(1), MS, None, refused);
        assert_eq!(figures.overloaded(Time::ZERO, &node(1)), Some(OVERLOADED_FOR));
        assert_eq!(figures.overloaded(Time::ZERO, &node(2)), None);
        assert_eq!(figures.overloaded(at(OVERLOADED_FOR), &node(1)), None);
    }
}
