//! Calls between the nodes of a large cluster, while providers die and drain: what callers see of it.

use std::time::Duration;

use gossipmonger::sim::calls::{
    even::SETTLE,
    figures::{Death, Figures, SPAN},
    oracle::Report as Judged,
    settings::{Faults, Latency, Settings, Traffic},
    world::World,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        bench::machine::cpu_seconds,
        error::CliError,
        plot::{Axis, Chart},
    },
    Plan,
    report::{rounded, spread},
};

/// The run, with checked arguments.
#[derive(Clone, Debug)]
pub(super) struct Traffics {
    /// Nodes that offer the service.
    pub(super) providers: u32,
    /// Calls that each node begins in a second.
    pub(super) rate: f64,
    /// Idempotent calls go to a second node after so long.
    pub(super) hedge: Option<Duration>,
    /// The longest time of most handlers.
    pub(super) work: Duration,
    /// Providers that die, and as many that drain.
    pub(super) stopped: u32,
    /// How long nodes call.
    pub(super) time: Duration,
}

/// What callers saw.
#[derive(Debug)]
pub(super) struct Calls {
    figures: Figures,
    judged: Judged,
    /// Providers that drained.
    drains: u32,
    seed: u64,
    realtime: f64,
}

/// Runs the cluster.
pub(super) fn run(plan: &Plan, traffic: &Traffics) -> Calls {
    let begun = cpu_seconds();
    let settings = traffic.settings(plan);
    let (judged, world) = World::run(plan.seed, settings);
    let realtime = traffic.time.as_secs_f64() / (cpu_seconds() - begun);
    let (figures, drains) = (world.figures().clone(), traffic.stopped);
    Calls { figures, judged, drains, seed: plan.seed, realtime }
}

impl Traffics {
    fn settings(&self, plan: &Plan) -> Settings {
        let stopped = self.stopped as usize;
        let (nodes, providers) = (plan.nodes as usize, self.providers as usize);
        let shipped = Settings::planned(nodes, providers, SETTLE + self.time);
        let Traffic::Even { deadline, .. } = shipped.traffic else { return shipped };
        Settings {
            traffic: Traffic::Even { period: Duration::from_secs(1).div_f64(self.rate), deadline },
            datacenters: plan.datacenters.into(),
            latency: Latency::Sites { wan_rtt: plan.wan_rtt, loss: plan.loss },
            work: self.work,
            hedge: self.hedge,
            spread: NEWS + plan.wan_rtt,
            suspect_after: plan.interval / 2,
            dead_after: plan.interval / 2 + 2 * plan.interval,
            faults: Faults { deaths: stopped, drains: stopped, ..Faults::default() },
            ..shipped
        }
    }
}

impl Calls {
    /// The promise that was broken, if one was.
    pub(super) fn verdict(&self) -> Result<(), CliError> {
        let Some((property, what)) = &self.judged.found else { return Ok(()) };
        let seed = self.seed;
        let message = format!("a promise is broken with seed {seed}: property {property}: {what}");
        Err(CliError::failed(message))
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let Judged { calls, answered, ran_twice, repeated, ref found, .. } = self.judged;
        let sum = |of: fn(&Death) -> u64| self.figures.deaths.iter().map(of).sum::<u64>();
        let mut failed: Map<String, Value> = Map::new();
        for ((kind, reason), number) in &self.figures.failures {
            let kind = failed.entry(*kind).or_insert_with(|| json!({}));
            kind[reason] = (*number).into();
        }
        let broken = found.as_ref().map(|(property, what)| json!([property, what]));
        let out = json!({
            "calls": calls,
            "answered": answered,
            "failed": failed,
            "unfinished": self.unfinished(),
            "latency_ms": three(&self.took_ms()),
            "retried": self.figures.retried,
            "hedged": self.figures.hedged,
            "ran_twice": ran_twice,
            "repeated": repeated,
            "deaths": self.figures.deaths.len(),
            "drains": self.drains,
            "waited_for_dead": sum(|death| death.waited),
            "ended_by_verdict": sum(|death| death.by_verdict),
            "after_verdict_ms": three(&self.after_verdict_ms()),
            "full_rate_ms": three(&self.full_rate_ms()),
            "realtime_factor": rounded(self.realtime),
            "broken": broken,
        });
        match out {
            Value::Object(out) => out,
            _ => Map::new(),
        }
    }

    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut put = |name: &str, value: String| rows.push((name.to_owned(), value));
        let times = |sorted: &[f64]| match sorted {
            [] => "none".to_owned(),
            _ => {
                let [p50, p99, max] = spread(sorted);
                format!("{p50:.1} / {p99:.1} / {max:.1} ms")
            }
        };
        let Judged { calls, answered, ran_twice, repeated, .. } = self.judged;
        put("calls, answered", format!("{calls}, {answered}"));
        put("answered after, p50 / p99 / worst", times(&self.took_ms()));
        for ((kind, reason), number) in &self.figures.failures {
            put(&format!("failed, {kind}: {reason}"), number.to_string());
        }
        put("without an end, since the caller died", self.unfinished().to_string());
        let Figures { retried, hedged, .. } = self.figures;
        put("tried again, at a second node meanwhile", format!("{retried}, {hedged}"));
        put("ran twice, and must not", ran_twice.to_string());
        put("ran twice, and may", repeated.to_string());
        let deaths = &self.figures.deaths;
        put("providers that died, drained", format!("{}, {}", deaths.len(), self.drains));
        let waited: u64 = deaths.iter().map(|death| death.waited).sum();
        let by_verdict: u64 = deaths.iter().map(|death| death.by_verdict).sum();
        put("waited for a dead provider", format!("{waited}, {by_verdict} until the verdict"));
        let after = times(&self.after_verdict_ms());
        put("these ended after the verdict, p50 / p99 / worst", after);
        let back = times(&self.full_rate_ms());
        put("callers back at full rate after a death, p50 / p99 / worst", back);
        put("faster than real time", format!("{:.1} times", self.realtime));
        rows
    }

    /// Answers a second.
    pub(super) fn chart(&self, title: &str) -> Chart {
        let chart =
            Chart::new(title, Axis::linear("seconds"), Axis::linear("calls answered a second"));
        let span = SPAN as f64 / 1e6;
        let points = self.figures.answers.iter().enumerate();
        chart.line("answers", points.map(|(nth, n)| (nth as f64 * span, f64::from(*n) / span)))
    }

    /// Calls whose caller died before they ended.
    fn unfinished(&self) -> u64 {
        let failed: u64 = self.figures.failures.values().sum();
        (self.judged.calls as u64).saturating_sub(self.judged.answered as u64 + failed)
    }

    fn took_ms(&self) -> Vec<f64> {
        sorted(self.figures.took.iter().copied())
    }

    fn after_verdict_ms(&self) -> Vec<f64> {
        sorted(self.figures.deaths.iter().flat_map(|death| death.after_verdict.iter().copied()))
    }

    /// For each death, until the last attempt there had ended.
    fn full_rate_ms(&self) -> Vec<f64> {
        sorted(self.figures.deaths.iter().map(|death| death.last))
    }
}

/// Microseconds as milliseconds, in order.
fn sorted(micros: impl Iterator<Item = u64>) -> Vec<f64> {
    let mut millis: Vec<_> = micros.map(|micros| micros as f64 / 1e3).collect();
    millis.sort_by(f64::total_cmp);
    millis
}

fn three(sorted: &[f64]) -> Value {
    if sorted.is_empty() {
        return Value::Null;
    }
    let [p50, p99, max] = spread(sorted).map(rounded);
    json!({ "p50": p50, "p99": p99, "max": max })
}

/// News takes so long to all nodes, and between datacenters a round trip more.
const NEWS: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_broken_promise_is_an_error_that_names_the_seed() {
        let judged = Judged { found: Some((2, "call 7 runs 2 times".into())), ..Judged::default() };
        let (figures, drains, seed, realtime) = (Figures::default(), 0, 4711, 1.0);
        let mut calls = Calls { figures, judged, drains, seed, realtime };
        let error = calls.verdict().unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        assert_eq!(
            error.to_string(),
            "a promise is broken with seed 4711: property 2: call 7 runs 2 times"
        );
        calls.judged.found = None;
        assert!(calls.verdict().is_ok());
    }
}
