//! The two experiments of "Efficient reconciliation and flow control for anti-entropy protocols" (van Renesse,
//! Dumitriu, Gough, Thomas, LADIS 2008), in virtual time: how stale the copies are, and how many entries are stale,
//! while the write rate exceeds the capacity of gossip.
//!
//! Every node owns some keys; writes come at random (Poisson) to random keys of random owners. Once a second every node
//! exchanges with a random other one: each sends the other what it lacks, within the budget. There is no network: an
//! exchange takes no time and none is lost.
//!
//! [`Scheme::Ours`] runs the shipped state machines, [`Replica`] and [`Flow`]; the paper's other ways to cut a delta
//! are a compact [`model`]. If a delta was cut, the shipped node would begin the next exchange at once, and before that
//! it would have pushed the change; here it may not.
//!
//! [`Replica`]: gossipmonger::protocol::replica::Replica

use std::time::Duration;

use gossipmonger::protocol::{
    flow::{Flow, FlowConfig},
    time::Time,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use self::ledger::{Ledger, Reach};
pub(crate) use self::{ledger::Staleness, model::Order};
use super::error::CliError;

mod ledger;
mod model;
mod shipped;

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How many nodes.
    pub(crate) nodes: usize,
    /// Keys of each; at most [`KEYS_MAX`].
    pub(crate) keys: usize,
    /// Most entries that one node sends the other in an exchange.
    pub(crate) budget: usize,
    /// The write rate, as a part of the capacity of gossip, and its seconds: in order.
    pub(crate) load: Vec<(f64, u64)>,
    /// The seed of the random numbers.
    pub(crate) seed: u64,
}

/// The rule that decides what is sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// One of the paper's orders, without flow control.
    Paper(Order),
    /// The shipped machines: unknown owners first, then the most outdated, and an owner sends no more than the flow
    /// control allows.
    Ours,
    /// The same without the flow control.
    OursUnlimited,
}

/// A measurement of all copies, once a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at_s: f64,
    /// The result.
    pub(crate) staleness: Staleness,
    /// Entries a second that all owners together have sent since the last measurement.
    pub(crate) told_per_s: f64,
}

impl Settings {
    /// The paper's: 128 nodes of 64 keys, 100 deltas a message; half of the capacity at first, `load` times the
    /// capacity for a minute and a half, then half again.
    pub(crate) fn paper(load: f64, seed: u64) -> Self {
        let load = vec![(CALM, CALM_S), (load, OVERLOAD_S), (CALM, RECOVERY_S)];
        Self { nodes: 128, keys: 64, budget: 100, load, seed }
    }

    /// Writes a second, over all nodes, that each node can receive in the exchanges that it begins. It receives as many
    /// again in those that others begin with it, but not evenly; at twice this rate no order keeps up.
    pub(crate) fn capacity(&self) -> f64 {
        self.budget as f64
    }

    /// When the load is highest, in seconds from the start.
    pub(crate) fn overload(&self) -> std::ops::Range<f64> {
        let (mut begin, mut worst) = (0.0, (f64::MIN, 0.0..0.0));
        for (load, seconds) in &self.load {
            let end = begin + *seconds as f64;
            if *load > worst.0 {
                worst = (*load, begin..end);
            }
            begin = end;
        }
        worst.1
    }
}

impl Scheme {
    /// All schemes that are compared, in the order of the paper.
    pub(crate) const ALL: [Self; 6] = [
        Self::Paper(Order::NewestFirst),
        Self::Paper(Order::OldestFirst),
        Self::Paper(Order::Breadth),
        Self::Paper(Order::Depth),
        Self::OursUnlimited,
        Self::Ours,
    ];

    /// Its name in tables, plots and JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Paper(Order::NewestFirst) => "newest-first",
            Self::Paper(Order::OldestFirst) => "oldest-first",
            Self::Paper(Order::Breadth) => "breadth",
            Self::Paper(Order::Depth) => "depth",
            Self::OursUnlimited => "ours-unlimited",
            Self::Ours => "ours",
        }
    }
}

/// Ours in the paper's network under twice the load that it can carry: a sample for each second, and their summary.
///
/// # Errors
/// The machines refuse the settings.
pub(crate) fn overload(seed: u64) -> Result<(Vec<Sample>, Summary), CliError> {
    let settings = Settings::paper(2.0, seed);
    let samples = run(Scheme::Ours, &settings)?;
    let summary = Summary::new(&settings, &samples);
    Ok((samples, summary))
}

/// Runs one scheme; the same seed gives the same writes and the same exchanges to all of them.
///
/// # Errors
/// The machines refuse the settings.
pub(crate) fn run(scheme: Scheme, settings: &Settings) -> Result<Vec<Sample>, CliError> {
    if settings.nodes < 2 || !(1..=KEYS_MAX).contains(&settings.keys) {
        let message = format!("an experiment has 2 nodes or more, of 1 to {KEYS_MAX} keys each");
        return Err(CliError::usage(message));
    }
    Ok(match scheme {
        Scheme::Paper(order) => Run::new(settings, model::Model::new(order, settings), false).run(),
        Scheme::Ours => Run::new(settings, shipped::Shipped::new(settings)?, true).run(),
        Scheme::OursUnlimited => Run::new(settings, shipped::Shipped::new(settings)?, false).run(),
    })
}

/// The summary of a run. Unless noted otherwise, for the overload once it has lasted for [`ONSET_S`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// The age of the stalest entry at the worst moment: seconds since the value that it lacks was sent.
    pub(crate) max_s: f64,
    /// The mean over all stale entries and moments.
    pub(crate) mean_s: f64,
    /// The mean number of stale entries.
    pub(crate) entries: f64,
    /// The same as `max_s` in the part of the overload before [`ONSET_S`].
    pub(crate) onset_max_s: f64,
    /// Seconds since the value that the stalest entry lacks was written, sent or not, at the worst moment.
    pub(crate) written_max_s: f64,
    /// The mean over all entries that lack a written value, and all moments.
    pub(crate) written_mean_s: f64,
    /// The mean number of entries that lack a written value.
    pub(crate) written_entries: f64,
    /// Entries a second that all owners together have sent.
    pub(crate) told_per_s: f64,
}

impl Summary {
    pub(crate) fn new(settings: &Settings, samples: &[Sample]) -> Self {
        let overload = settings.overload();
        let settled = overload.start + ONSET_S;
        let within = |from: f64, to: f64| {
            samples.iter().filter(move |sample| sample.at_s > from && sample.at_s <= to)
        };
        let largest = |from: f64, to: f64, value: fn(&Staleness) -> f64| {
            within(from, to).map(|sample| value(&sample.staleness)).fold(0.0, f64::max)
        };
        let count = within(settled, overload.end).count().max(1) as f64;
        let total =
            |value: fn(&Sample) -> f64| -> f64 { within(settled, overload.end).map(value).sum() };
        let entries = total(|sample| sample.staleness.entries as f64);
        let written = total(|sample| sample.staleness.written_entries as f64);
        let age = total(|sample| sample.staleness.mean_s * sample.staleness.entries as f64);
        let written_age = total(|sample| {
            sample.staleness.written_mean_s * sample.staleness.written_entries as f64
        });
        Self {
            max_s: largest(settled, overload.end, |staleness| staleness.max_s),
            mean_s: age / entries.max(1.0),
            entries: entries / count,
            onset_max_s: largest(overload.start, settled, |staleness| staleness.max_s),
            written_max_s: largest(settled, overload.end, |staleness| staleness.written_max_s),
            written_mean_s: written_age / written.max(1.0),
            written_entries: written / count,
            told_per_s: total(|sample| sample.told_per_s) / count,
        }
    }
}

/// Nodes that can write and exchange.
trait System {
    /// An owner writes a key and sends it. Returns the version.
    fn write(&mut self, now: Time, owner: usize, key: usize) -> u64;

    /// Two nodes send each other what they lack, within the budget.
    fn exchange(&mut self, now: Time, from: usize, to: usize, rng: &mut SmallRng) -> Fit;

    /// How far the copy of an owner reaches at a node.
    fn reach(&self, node: usize, owner: usize) -> Reach<'_>;
}

/// Whether everything that each of the two had to send was within the budget.
#[derive(Clone, Copy, Debug)]
struct Fit {
    from: bool,
    to: bool,
}

/// A run in progress.
struct Run<'a, S> {
    settings: &'a Settings,
    system: S,
    owners: Vec<Owner>,
    ledger: Ledger,
    writes: SmallRng,
    exchanges: SmallRng,
    ties: SmallRng,
    told: u64,
}

/// What an owner has written and not sent yet.
struct Owner {
    flow: Option<Flow>,
    /// The keys, in the order of their last writes.
    waiting: Vec<usize>,
}

impl<'a, S: System> Run<'a, S> {
    fn new(settings: &'a Settings, system: S, limited: bool) -> Self {
        let config = FlowConfig { interval: INTERVAL };
        let flow = || limited.then(|| Flow::new(config, Time::ZERO));
        let owners = (0..settings.nodes).map(|_| Owner { flow: flow(), waiting: Vec::new() });
        let mut seeds = SmallRng::seed_from_u64(settings.seed);
        Self {
            settings,
            system,
            owners: owners.collect(),
            ledger: Ledger::new(settings.nodes),
            writes: SmallRng::seed_from_u64(seeds.random()),
            exchanges: SmallRng::seed_from_u64(seeds.random()),
            ties: SmallRng::seed_from_u64(seeds.random()),
            told: 0,
        }
    }

    fn run(mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let nodes = self.settings.nodes;
        // Every node has its own moment in the second.
        let mut turns: Vec<(Duration, usize)> =
            (0..nodes).map(|node| (INTERVAL.mul_f64(self.exchanges.random()), node)).collect();
        turns.sort_unstable();
        let loads = self.settings.load.iter();
        let seconds = loads.flat_map(|(load, seconds)| (0..*seconds).map(|_| *load));
        let mut due = Time::ZERO;
        for (second, load) in (0_u64..).zip(seconds) {
            let start = Time::from_origin(Duration::from_secs(second));
            let pause = 1.0 / (load * self.settings.capacity());
            for (offset, node) in &turns {
                let now = start + *offset;
                while due <= now {
                    self.write(due);
                    // The time between two events of a Poisson process.
                    due = due
                        + Duration::from_secs_f64(
                            -pause * (1.0 - self.writes.random::<f64>()).ln(),
                        );
                }
                self.tell(now, *node);
                self.exchange(now, *node);
            }
            samples.push(self.sample(start + INTERVAL));
        }
        samples
    }

    fn write(&mut self, now: Time) {
        let owner = self.writes.random_range(0..self.settings.nodes);
        let key = self.writes.random_range(0..self.settings.keys);
        self.ledger.wrote(owner, key, now);
        let Owner { flow, waiting } = &mut self.owners[owner];
        waiting.retain(|other| *other != key);
        waiting.push(key);
        if let Some(flow) = flow {
            flow.wrote(now, 1, waiting.len());
        }
        if !flow.as_ref().is_some_and(Flow::is_limited) {
            self.tell(now, owner);
        }
    }

    /// Sends what has waited longest, as much as the flow control allows.
    fn tell(&mut self, now: Time, owner: usize) {
        let Owner { flow, waiting } = &mut self.owners[owner];
        while let Some(key) = waiting.first().copied()
            && flow.as_ref().is_none_or(|flow| flow.may_send(now))
        {
            waiting.remove(0);
            if let Some(flow) = flow {
                flow.sent(now, 1, waiting.len());
            }
            self.told += 1;
            let version = self.system.write(now, owner, key);
            self.ledger.told(owner, key, version, now);
        }
    }

    fn exchange(&mut self, now: Time, from: usize) {
        let to = (from + self.exchanges.random_range(1..self.settings.nodes)) % self.settings.nodes;
        let fit = self.system.exchange(now, from, to, &mut self.ties);
        let rates = |node: usize| self.owners[node].flow.as_ref().map(|flow| flow.rates(now));
        let (Some(ours), Some(theirs)) = (rates(from), rates(to)) else { return };
        for (node, fits, ours, theirs) in
            [(from, fit.from, ours, theirs), (to, fit.to, theirs, ours)]
        {
            let Some(flow) = &mut self.owners[node].flow else { continue };
            flow.met(now, ours, theirs);
            if fits {
                flow.fitted(now);
            } else {
                flow.overflowed(now);
            }
        }
    }

    fn sample(&mut self, now: Time) -> Sample {
        let reach = |node, owner| self.system.reach(node, owner);
        let staleness = self.ledger.measure(self.settings.nodes, now, reach);
        let told_per_s = std::mem::take(&mut self.told) as f64;
        Sample { at_s: now.since_origin().as_secs_f64(), staleness, told_per_s }
    }
}

/// Most keys of a node in an experiment.
pub(crate) const KEYS_MAX: usize = 64;
/// The load before and after the overload, as a part of the capacity of gossip.
const CALM: f64 = 0.5;
const CALM_S: u64 = 30;
const OVERLOAD_S: u64 = 90;
/// The owners need at most this long to find out how much they may send.
const ONSET_S: f64 = 30.0;
const RECOVERY_S: u64 = 60;
/// How often each node begins an exchange, and the length of each sample.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Small enough for a build without optimisation.
    fn small(seed: u64) -> Settings {
        Settings {
            nodes: 16,
            keys: 16,
            budget: 12,
            load: vec![(0.25, 5), (2.5, 90), (0.25, 20)],
            seed,
        }
    }

    fn summary(scheme: Scheme, settings: &Settings) -> Summary {
        Summary::new(settings, &run(scheme, settings).unwrap())
    }

    #[test]
    fn refuses_what_it_cannot_run() {
        for settings in [
            Settings { nodes: 1, ..small(1) },
            Settings { keys: 0, ..small(1) },
            Settings { keys: KEYS_MAX + 1, ..small(1) },
        ] {
            assert!(run(Scheme::Ours, &settings).is_err());
        }
    }

    #[test]
    fn a_seed_gives_the_same_run_again() {
        for scheme in Scheme::ALL {
            let settings = Settings { load: vec![(2.0, 5)], ..small(7) };
            let runs = [(), ()].map(|()| run(scheme, &settings).unwrap());
            let [first, second] = runs.map(|run| run.last().unwrap().staleness);
            assert_eq!(first, second, "{scheme:?}");
            assert!(first.entries > 0);
        }
    }

    #[test]
    fn nothing_stays_stale_once_nobody_writes() {
        for scheme in Scheme::ALL {
            let settings = Settings { load: vec![(2.0, 10), (0.001, 60)], ..small(3) };
            let last = *run(scheme, &settings).unwrap().last().unwrap();
            assert_eq!(last.staleness.written_entries, 0, "{scheme:?}: {last:?}");
        }
    }

    #[test]
    fn the_flow_control_keeps_what_was_told_fresh() {
        let settings = small(1);
        let ours = summary(Scheme::Ours, &settings);
        let unlimited = summary(Scheme::OursUnlimited, &settings);
        assert!(ours.max_s * 2.0 < unlimited.max_s, "{ours:?} {unlimited:?}");
        assert!(ours.told_per_s < settings.capacity() * 1.25, "{ours:?}");
        assert!(ours.told_per_s > settings.capacity() * 0.5, "{ours:?}");
    }

    #[test]
    fn newest_first_starves_the_old() {
        let settings = small(1);
        let newest = summary(Scheme::Paper(Order::NewestFirst), &settings);
        for order in [Order::Breadth, Order::Depth] {
            assert!(newest.max_s > summary(Scheme::Paper(order), &settings).max_s, "{order:?}");
        }
    }

    #[test]
    fn the_shipped_order_without_flow_control_is_depth() {
        let settings = small(1);
        let depth = summary(Scheme::Paper(Order::Depth), &settings);
        let ours = summary(Scheme::OursUnlimited, &settings);
        let ratio = ours.mean_s / depth.mean_s;
        assert!((0.8..1.25).contains(&ratio), "{ours:?} {depth:?}");
    }
}
