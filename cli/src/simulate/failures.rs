//! Which nodes notice a failure, how fast, and which healthy nodes they suspect: the experiments that others have
//! published, with our rule and theirs on the same faults.
//!
//! Our rule is the shipped state machines (`failures/ours.rs`); the others are compact models of gossiped heartbeats
//! and of the rules that judge them (`failures/gossiped.rs`, `failures/rules.rs`).

use std::time::Duration;

use clap::ValueEnum;
use gossipmonger::sim::{faults::Faults, network::Network, queue::micros};
use serde_json::{Map, Value, json};

use super::{
    super::plot::{Axis, Chart},
    Plan,
    report::{rounded, spread},
};

mod gossiped;
mod ours;
mod outcome;
mod rules;

use gossiped::{Gossiped, Judged};
use ours::Ours;
use outcome::{Figures, Views};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// Nodes crash, at once, `--runs` times if there are enough of them.
    Crash,
    /// Nodes lose 80 % of what is sent to them, for good.
    Ingress,
    /// Nodes hear nothing for 20 s, then everything for 20 s, and so on; they are heard all the time.
    Flip,
    /// The processes of nodes stand still for 2 s, run for a quarter of one, and so on.
    Slow,
    /// All nodes start at once.
    Join,
    /// Nothing but the losses that any way has.
    None,
    /// Each of them: the crash of one, of ten, and of a quarter.
    All,
}

/// The run, with checked arguments.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) fault: Fault,
    /// How many nodes are faulty; 0: as many as in the publication.
    pub(super) stopped: u32,
    /// How long the cluster is observed; `None`: as long as it takes.
    pub(super) time: Option<Duration>,
    /// How often each process pauses in an hour.
    pub(super) pauses: f64,
    /// Whether to leave out the rules of others.
    pub(super) only_ours: bool,
    /// Whether to compare thresholds.
    pub(super) thresholds: bool,
}

/// One experiment, the same for all rules. Its time begins with the faults.
#[derive(Clone, Debug)]
struct Experiment {
    plan: Plan,
    fault: Fault,
    stopped: u32,
    faults: Faults,
    /// In microseconds.
    length: u64,
}

/// The result of one experiment.
#[derive(Debug)]
pub(super) struct Outcome {
    fault: Fault,
    stopped: u32,
    nodes: u32,
    rules: Vec<Line>,
}

/// The result for one rule.
#[derive(Debug)]
struct Line {
    name: &'static str,
    figures: Figures,
    views: Views,
    /// In microseconds of the views' clock.
    start: u64,
    node_hours: f64,
    ours: Option<Ours>,
    /// For each threshold, the median of the detections in milliseconds, and false deaths per node-hour.
    curve: Vec<(f64, f64)>,
}

/// Runs the experiments.
pub(super) fn run(plan: &Plan, setup: &Setup) -> Vec<Outcome> {
    let one = |fault, stopped| Experiment::new(plan, setup, fault, stopped).run(setup);
    if setup.fault != Fault::All {
        return vec![one(setup.fault, setup.stopped)];
    }
    let crashes = [1, 10.min(plan.nodes / 4), plan.nodes / 4];
    let crashes = crashes.map(|stopped| one(Fault::Crash, stopped.max(1)));
    let others = [Fault::Ingress, Fault::Flip, Fault::Slow, Fault::Join, Fault::None];
    crashes.into_iter().chain(others.map(|fault| one(fault, setup.stopped))).collect()
}

impl Experiment {
    fn new(plan: &Plan, setup: &Setup, fault: Fault, stopped: u32) -> Self {
        let mut faults = Faults::none(plan.nodes);
        let part = if stopped > 0 { stopped } else { (plan.nodes / 100).max(1) };
        let time = |usual: Duration| micros(setup.time.unwrap_or(usual));
        let (seed, mut length) = (plan.seed, time(LASTING));
        let stopped = match fault {
            Fault::Crash => {
                let each = stopped.max(1);
                let groups = (plan.nodes / 4 / each).clamp(1, plan.runs);
                faults.crash(seed, 0, groups, each, APART);
                length = micros(APART) * u64::from(groups - 1) + time(NOTICED);
                each
            }
            Fault::Ingress => {
                faults.deafen(seed, 0, part, INGRESS_LOSS);
                part
            }
            Fault::Flip => {
                faults.flip(seed, 0, part, FLIP);
                part
            }
            Fault::Slow => {
                faults.slow(seed, 0, length, part, [STILL, RUNS]);
                part
            }
            Fault::Join => {
                length = time(JOINED);
                0
            }
            Fault::None | Fault::All => 0,
        };
        faults.pause_all(seed, length, setup.pauses, PAUSE);
        Self { plan: plan.clone(), fault, stopped, faults, length }
    }

    fn run(self, setup: &Setup) -> Outcome {
        let mut rules = vec![self.ours(setup)];
        if !setup.only_ours {
            rules.extend(self.others());
        }
        let Self { fault, stopped, plan, .. } = self;
        Outcome { fault, stopped, nodes: plan.nodes, rules }
    }

    /// Whether no node knows another at the start.
    fn is_cold(&self) -> bool {
        self.fault == Fault::Join
    }

    /// Hours that all nodes together ran, from the first fault on.
    fn node_hours(&self) -> f64 {
        let ran = |crash: Option<u64>| crash.unwrap_or(self.length).min(self.length);
        let all: u64 =
            (0..self.plan.nodes as usize).map(|node| ran(self.faults.crash_of(node))).sum();
        all as f64 / HOUR
    }

    fn network(&self) -> Network {
        let Plan { seed, wan_rtt, loss, .. } = self.plan;
        Network::new(seed, micros(wan_rtt), loss, self.plan.sites())
    }

    fn ours(&self, setup: &Setup) -> Line {
        let run = |threshold| ours::run(self, f64::from(threshold));
        let (figures, views, start, ours) = run(THRESHOLD);
        let mut curve = Vec::new();
        if setup.thresholds {
            let at = |threshold| {
                if threshold == THRESHOLD { figures.clone() } else { run(threshold).0 }
            };
            curve = self.curve((1..=rules::LEVELS as u8).map(at));
        }
        let (name, node_hours) = ("ours", self.node_hours());
        Line { name, figures, views, start, node_hours, ours: Some(ours), curve }
    }

    fn others(&self) -> Vec<Line> {
        let start = if self.is_cold() { 0 } else { micros(WARM) };
        let (faults, mut network) = (self.faults.later(start), self.network());
        network.afflict(faults.clone());
        let seeds = self.plan.seeds(self.plan.nodes);
        let seeds = self.is_cold().then_some(&*seeds);
        let interval = micros(self.plan.interval);
        let mut run =
            Gossiped::new(self.plan.seed, &faults, &network, interval, start, THRESHOLD, seeds);
        run.run(start + self.length);
        let line = |judged: Judged| {
            let Judged { rule, mut figures, views } = judged;
            let curve = self.curve(figures.iter().cloned());
            let figures = figures.swap_remove(usize::from(THRESHOLD) - 1);
            let (name, node_hours) = (rule.name(), self.node_hours());
            Line { name, figures, views, start, node_hours, ours: None, curve }
        };
        run.judged().into_iter().map(line).collect()
    }

    fn curve(&self, figures: impl Iterator<Item = Figures>) -> Vec<(f64, f64)> {
        let hours = self.node_hours();
        let found = figures.filter(|figures| !figures.detect_ms.is_empty());
        found.map(|f| (spread(&f.detect_ms)[0], f.false_deaths as f64 / hours)).collect()
    }
}

impl Outcome {
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("fault".into(), name(self.fault).into());
        out.insert("stopped".into(), self.stopped.into());
        let rules = self.rules.iter().map(|line| (line.name.to_owned(), line.to_json()));
        out.insert("rules".into(), Value::Object(rules.collect()));
        out
    }

    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let title = match self.fault {
            Fault::Join | Fault::None => name(self.fault),
            _ => format!("{} of {}", name(self.fault), self.stopped),
        };
        let rows = self.rules.iter().flat_map(|line| line.rows(&title, self.nodes));
        rows.collect()
    }

    /// False deaths against the time of detection; `None` if there was no node to detect.
    pub(super) fn chart(&self, title: &str) -> Option<Chart> {
        if self.rules.iter().all(|line| line.curve.is_empty()) {
            return None;
        }
        let x = Axis::log("crash to dead, median, milliseconds");
        let y = Axis::log("false deaths per node-hour (at the lower edge: none)");
        let chart = Chart::new(format!("{title}, thresholds 1 to 16"), x, y);
        let lines = self.rules.iter();
        Some(lines.fold(chart, |chart, line| chart.line(line.name, line.curve.iter().copied())))
    }
}

impl Line {
    fn to_json(&self) -> Value {
        let Figures { undetected, false_deaths, false_deaths_by_faulty, false_nodes, .. } =
            self.figures;
        let mut out = json!({
            "detect_ms": three(&self.figures.detect_ms),
            "undetected": undetected,
            "false_deaths": false_deaths,
            "false_death_targets": false_nodes,
            "false_deaths_by_faulty": false_deaths_by_faulty,
            "node_hours": rounded(self.node_hours),
            "views": self.views.distinct(),
            "view_sizes": self.views.sizes(),
            "view_changes": self.views.changes(),
            "last_change_s": self.last_change().map(rounded),
        });
        if let (Some(out), Some(ours)) = (out.as_object_mut(), &self.ours) {
            out.insert("quorum_ms".into(), three(&ours.quorum_ms));
            out.insert("suspect_ms".into(), three(&ours.suspicions.detect_ms));
            out.insert("unsuspected".into(), ours.suspicions.undetected.into());
            out.insert("false_suspicions".into(), ours.suspicions.false_deaths.into());
            out.insert("false_suspicion_targets".into(), ours.suspicions.false_nodes.into());
            out.insert("bytes_per_node_s".into(), rounded(ours.bytes_per_node_s));
            out.insert("realtime_factor".into(), rounded(ours.realtime));
        }
        out
    }

    /// When a view last changed, in seconds after the faults began.
    fn last_change(&self) -> Option<f64> {
        self.views.last_change().map(|at| at.saturating_sub(self.start) as f64 / 1e6)
    }

    fn rows(&self, title: &str, nodes: u32) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut put = |what: &str, value: String| {
            rows.push((format!("{title}, {}: {what}", self.name), value));
        };
        let times = |sorted: &[f64], missed: u64| match sorted {
            [] => "never".to_owned(),
            _ => {
                let [p50, p99, max] = spread(sorted);
                let never = if missed > 0 { format!(", {missed} never") } else { String::new() };
                format!("{p50:.0} / {p99:.0} / {max:.0} ms{never}")
            }
        };
        let found = |figures: &Figures| times(&figures.detect_ms, figures.undetected);
        if let Some(ours) = &self.ours {
            if !ours.quorum_ms.is_empty() {
                put("to a quorum, p50 / p99 / worst", times(&ours.quorum_ms, 0));
                put("to suspect", found(&ours.suspicions));
            }
            put("false suspicions", ours.suspicions.false_deaths.to_string());
            put("B a node and second", format!("{:.0}", ours.bytes_per_node_s));
            put("faster than real time", format!("{:.1} times", ours.realtime));
        }
        let Figures { detect_ms, undetected, false_deaths, false_nodes, .. } = &self.figures;
        if !detect_ms.is_empty() || *undetected > 0 {
            put("to dead, p50 / p99 / worst", found(&self.figures));
        }
        let hours = self.node_hours;
        let deaths = format!("{false_deaths} of {false_nodes} nodes in {hours:.1} node-hours");
        put("false deaths", deaths);
        let (views, sizes) = (self.views.distinct(), self.views.sizes());
        let changes = self.views.changes() as f64 / f64::from(nodes);
        let last = self.last_change().map_or_else(String::new, |at| format!(", last at {at:.0} s"));
        put("views", format!("{views} of {sizes} sizes, {changes:.1} changes a node{last}"));
        rows
    }
}

/// Median, 99th percentile and maximum; null without values.
fn three(sorted: &[f64]) -> Value {
    if sorted.is_empty() {
        return Value::Null;
    }
    let [p50, p99, max] = spread(sorted).map(rounded);
    json!({"p50": p50, "p99": p99, "max": max})
}

fn name(fault: Fault) -> String {
    fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `dead_peer_phi`, and the corresponding setting of all others.
const THRESHOLD: u8 = 8;
/// An hour, in microseconds.
const HOUR: f64 = 3.6e9;
/// The time to learn the usual heartbeats before the faults.
const WARM: Duration = Duration::from_secs(60);
/// Between two crashes.
const APART: Duration = Duration::from_secs(5);
/// By then every node has noticed the last one.
const NOTICED: Duration = Duration::from_secs(60);
/// How long a lasting fault is observed.
const LASTING: Duration = Duration::from_secs(120);
const JOINED: Duration = Duration::from_secs(30);
/// As in Rapid's experiments (USENIX ATC 2018, section 7): 80 % of the packets, and 20 s in turn, both
/// at 1 % of the nodes.
const INGRESS_LOSS: f64 = 0.8;
const FLIP: Duration = Duration::from_secs(20);
/// Lifeguard's anomalies (DSN 2018, section V): blocked for up to 32 s, with 1 ms to 16 s between.
const STILL: Duration = Duration::from_millis(2_048);
const RUNS: Duration = Duration::from_millis(256);
/// The mean of a pause, as after a garbage collection.
const PAUSE: Duration = Duration::from_millis(500);
