//! The result: one JSON object for programs, a table for people, a curve for both.

use serde_json::{Map, Value, json};

use super::{
    super::plot::{Axis, Chart},
    busy::Busy,
    calls::Calls,
    failures::Outcome,
    services::Services,
};

/// The figures of a run; a scenario fills in its own.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) spread_ms: Option<[f64; 3]>,
    pub(super) node_ms: Option<[f64; 3]>,
    pub(super) reached: Option<f64>,
    pub(super) copies_per_node: Option<f64>,
    pub(super) wan_messages_per_update: Option<f64>,
    pub(super) idle_bytes_per_node_s: Option<f64>,
    pub(super) idle_packets_per_node_s: Option<f64>,
    pub(super) idle_wan_bytes_per_s: Option<f64>,
    pub(super) reconcile_bytes: Option<[f64; 2]>,
    pub(super) reconcile_news_bytes: Option<[f64; 2]>,
    pub(super) reconcile_cpu_ms: Option<f64>,
    pub(super) reconciled: Option<bool>,
    pub(super) join_s: Option<f64>,
    pub(super) joiners: Option<u32>,
    pub(super) join_bytes_per_joiner: Option<f64>,
    pub(super) heal_s: Option<f64>,
    pub(super) staleness_s_max: Option<f64>,
    pub(super) onset_staleness_s_max: Option<f64>,
    pub(super) written_staleness_s_max: Option<f64>,
    pub(super) realtime_factor: Option<f64>,
    pub(super) rss_bytes_per_pair: Option<f64>,
    /// Experiments with failures.
    pub(super) failures: Vec<Outcome>,
    pub(super) calls: Option<Calls>,
    pub(super) services: Option<Services>,
    pub(super) busy: Option<Busy>,
    /// The label of the ordinate, the label of the abscissa, and the points.
    pub(super) curve: Option<Curve>,
}

/// A line to be drawn.
pub(super) type Curve = (&'static str, &'static str, Vec<(f64, f64)>);

/// The updates of the scenario `spread`.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// For each update, when it reached the last node that it ever reached, in milliseconds.
    last: Vec<f64>,
    /// For each node and update.
    each: Vec<f64>,
    missed: usize,
    payloads: u64,
    wan_messages: u64,
}

impl Spread {
    pub(super) fn add(&mut self, arrivals: &[Vec<Option<u64>>], payloads: u64, wan_messages: u64) {
        for update in arrivals {
            let had: Vec<_> = update.iter().flatten().map(|at| *at as f64 / 1e3).collect();
            self.missed += update.len() - had.len();
            self.last.push(had.iter().copied().fold(0.0, f64::max));
            self.each.extend(had);
        }
        self.payloads += payloads;
        self.wan_messages += wan_messages;
    }

    pub(super) fn report(mut self) -> Report {
        self.last.sort_by(f64::total_cmp);
        self.each.sort_by(f64::total_cmp);
        let (had, updates) = (self.each.len() as f64, self.last.len() as f64);
        let step = (self.each.len() / CURVE_POINTS).max(1);
        let points = self.each.iter().enumerate().step_by(step);
        let curve = points.map(|(n, ms)| (*ms, 100.0 * (n + 1) as f64 / had)).collect();
        Report {
            spread_ms: Some(spread(&self.last)),
            node_ms: Some(spread(&self.each)),
            reached: Some(had / (had + self.missed as f64)),
            copies_per_node: Some(self.payloads as f64 / had),
            wan_messages_per_update: Some(self.wan_messages as f64 / updates),
            curve: Some(("% of nodes that have it", "milliseconds", curve)),
            ..Report::default()
        }
    }
}

impl Report {
    /// The scenario's keys.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let three = |of: [f64; 3]| json!({"p50": rounded(of[0]), "p99": rounded(of[1]), "max": rounded(of[2])});
        let mut put = |key: &str, value: Option<Value>| {
            out.extend(value.map(|value| (key.to_owned(), value)));
        };
        let number = |value: Option<f64>| value.map(rounded);
        put("spread_ms", self.spread_ms.map(three));
        put("node_ms", self.node_ms.map(three));
        put("reached", self.reached.map(Value::from));
        put("copies_per_node", number(self.copies_per_node));
        put("wan_messages_per_update", number(self.wan_messages_per_update));
        put("idle_bytes_per_node_s", number(self.idle_bytes_per_node_s));
        put("idle_packets_per_node_s", number(self.idle_packets_per_node_s));
        put("idle_wan_bytes_per_s", number(self.idle_wan_bytes_per_s));
        let two = |of: [f64; 2]| json!({"mean": rounded(of[0]), "p99": rounded(of[1])});
        put("reconcile_bytes", self.reconcile_bytes.map(two));
        put("reconcile_news_bytes", self.reconcile_news_bytes.map(two));
        put("reconcile_cpu_ms", number(self.reconcile_cpu_ms));
        put("reconciled", self.reconciled.map(Value::from));
        put("join_s", number(self.join_s));
        put("joiners", self.joiners.map(Value::from));
        put("join_bytes_per_joiner", number(self.join_bytes_per_joiner));
        put("heal_s", number(self.heal_s));
        put("staleness_s_max", number(self.staleness_s_max));
        put("onset_staleness_s_max", number(self.onset_staleness_s_max));
        put("written_staleness_s_max", number(self.written_staleness_s_max));
        put("rss_bytes_per_pair", number(self.rss_bytes_per_pair));
        put("realtime_factor", number(self.realtime_factor));
        out.extend(self.calls.iter().flat_map(Calls::to_json));
        out.extend(self.services.iter().flat_map(Services::to_json));
        out.extend(self.busy.iter().flat_map(Busy::to_json));
        match &*self.failures {
            [] => {}
            [one] => out.extend(one.to_json()),
            all => {
                let all = all.iter().map(|outcome| Value::Object(outcome.to_json()));
                out.insert("experiments".into(), all.collect());
            }
        }
        out
    }

    /// The curve of the run, as a chart.
    pub(super) fn chart(&self, title: &str) -> Option<Chart> {
        if let [outcome] = &*self.failures {
            return outcome.chart(title);
        }
        if let Some(calls) = &self.calls {
            return Some(calls.chart(title));
        }
        if let Some(busy) = &self.busy {
            return Some(busy.chart(title));
        }
        let (y, x, points) = self.curve.as_ref()?;
        let chart = Chart::new(title, Axis::linear(*x), Axis::linear(*y));
        Some(chart.line(*y, points.iter().copied()))
    }

    /// The same as lines of a table.
    pub(super) fn rows(&self, nodes: u32) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut put = |name: &'static str, value: Option<String>| {
            rows.extend(value.map(|value| (name.to_owned(), value)));
        };
        let three = |of: [f64; 3]| format!("{:.1} / {:.1} / {:.1} ms", of[0], of[1], of[2]);
        let seconds = |of: f64| {
            if of.is_finite() { format!("{of:.2} s") } else { "not before the time-out".to_owned() }
        };
        put("at all live nodes, p50 / p99 / worst update", self.spread_ms.map(three));
        put("at a node, p50 / p99 / worst", self.node_ms.map(three));
        put("live nodes reached", self.reached.map(|r| format!("{:.4} %", r * 100.0)));
        put("payload copies a node", self.copies_per_node.map(|c| format!("{c:.2}")));
        put(
            "messages between datacenters",
            self.wan_messages_per_update.map(|m| format!("{m:.1}")),
        );
        put("idle, B a node and second", self.idle_bytes_per_node_s.map(|b| format!("{b:.0}")));
        put("idle, packets", self.idle_packets_per_node_s.map(|p| format!("{p:.1}")));
        put("idle between datacenters, B/s", self.idle_wan_bytes_per_s.map(|b| format!("{b:.0}")));
        let two = |of: [f64; 2]| format!("{:.0} / {:.0} B", of[0], of[1]);
        put("to find ten differences, mean / p99", self.reconcile_bytes.map(two));
        put("to tell them", self.reconcile_news_bytes.map(two));
        put("CPU for both", self.reconcile_cpu_ms.map(|ms| format!("{ms:.2} ms")));
        put("both know the same after it", self.reconciled.map(|yes| yes.to_string()));
        put("joining nodes", self.joiners.map(|n| n.to_string()));
        put("until all list all", self.join_s.map(seconds));
        put(
            "sent for a joining node",
            self.join_bytes_per_joiner.map(|b| format!("{:.0} kB", b / 1e3)),
        );
        put("one view after the cut heals", self.heal_s.map(seconds));
        put("most stale under overload, told", self.staleness_s_max.map(seconds));
        put("most stale in the first 30 s of it", self.onset_staleness_s_max.map(seconds));
        put("most stale under overload, written", self.written_staleness_s_max.map(seconds));
        put("memory, B a node and peer", self.rss_bytes_per_pair.map(|b| format!("{b:.0}")));
        put("faster than real time", self.realtime_factor.map(|f| format!("{f:.1} times")));
        rows.extend(self.failures.iter().flat_map(Outcome::rows));
        rows.extend(self.calls.iter().flat_map(Calls::rows));
        rows.extend(self.services.iter().flat_map(|services| services.rows(nodes)));
        rows.extend(self.busy.iter().flat_map(Busy::rows));
        rows
    }
}

/// Median, 99th percentile and the last of sorted values.
pub(super) fn spread(sorted: &[f64]) -> [f64; 3] {
    let at = |part: f64| {
        let n = (sorted.len() as f64 * part).ceil() as usize;
        sorted.get(n.max(1) - 1).copied().unwrap_or(0.0)
    };
    [at(0.5), at(0.99), at(1.0)]
}

/// Rounded to three places; null for infinity.
pub(super) fn rounded(value: f64) -> Value {
    if value.is_finite() { Value::from((value * 1e3).round() / 1e3) } else { Value::Null }
}

/// Points of a curve, at most about this many.
const CURVE_POINTS: usize = 500;
