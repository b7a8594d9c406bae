//! The highest rate of updates, over all nodes, at which nearly all updates are everywhere within a second.
//!
//! The benchmark doubles the rate until it is too high, then bisects a few times. It runs one [`trial`] for each rate.
//! A trial in which updates took no version ends the search, and the result is void.

use std::time::Duration;

use gossipmonger::protocol::route::Counter;
use serde_json::{Value as Json, json};

use super::{
    BASE_PORT, Report, SETTLE,
    cluster::{Cluster, Settings},
    faults::Faults,
    in_range, rounded,
    statistics::quantile,
    trial::{self, Plan, Trial},
    until,
};
use crate::{error::CliError, stopwatch::Stopwatch};

/// The arguments of `bench throughput`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// How many nodes, all in this process; all write.
    #[arg(long, default_value_t = 10, value_name = "N")]
    nodes: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100, value_name = "B")]
    value_bytes: usize,
    /// Keys that each node writes in turn.
    #[arg(long, default_value_t = 1_000, value_name = "K")]
    keys: usize,
    /// The gossip interval; the default is the library's.
    #[arg(long, value_name = "I")]
    interval_ms: Option<u64>,
    /// How long each rate is tried, after a second to get going.
    #[arg(long, default_value_t = 5, value_name = "S")]
    seconds: u64,
    /// The 99th percentile of the staleness may be so high.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    staleness_ms: u64,
    /// The first rate tried, in updates a second over all nodes.
    #[arg(long, default_value_t = 100.0, value_name = "RATE")]
    start_rate: f64,
    /// How often the middle between the best and the lowest failing rate is tried.
    #[arg(long, default_value_t = 3, value_name = "R")]
    refine: usize,
    /// How many rates are tried at most.
    #[arg(long, default_value_t = 24, value_name = "M")]
    steps_max: usize,
    /// The first node's port, the others' follow; 0 takes any free ones.
    #[arg(long, default_value_t = BASE_PORT, value_name = "PORT")]
    base_port: u16,
}

/// Searches the rate.
pub(super) async fn throughput(args: &Args) -> Result<Report, CliError> {
    args.check()?;
    let settings = Settings {
        nodes: args.nodes,
        interval: args.interval_ms.map(Duration::from_millis),
        base_port: args.base_port,
    };
    let mut cluster = Cluster::new(settings)?;
    cluster.start_all().await?;
    let joined = until(&Stopwatch::start(), JOIN_TIMEOUT, POLL, || cluster.is_full()).await;
    joined.ok_or_else(|| CliError::failed("the nodes did not find each other"))?;
    tokio::time::sleep(SETTLE).await;
    let steps = search(&cluster, args).await;
    let passing = steps.iter().filter(|step| step.passes(args.staleness_ms));
    let best = passing.max_by(|a, b| a.trial.asked.total_cmp(&b.trial.asked));
    let mut out = best.map_or_else(Report::new, |best| best.describe(args));
    out.insert("scenario".into(), "throughput".into());
    out.insert("nodes".into(), args.nodes.into());
    out.insert("value_bytes".into(), args.value_bytes.into());
    out.insert("settings".into(), settings.describe());
    let rate = best.map_or(0.0, |best| best.trial.delivered_per_s());
    out.insert("updates_per_s".into(), rounded(rate, 0));
    out.insert(
        "steps".into(),
        steps.iter().map(|step| Json::Object(step.describe(args))).collect(),
    );
    let mut faults = Faults::default();
    faults.require(!steps.is_empty(), || "no rate was tried".to_owned());
    faults.judge(&mut out, &["updates_per_s"]);
    for step in &steps {
        step.trial.faults().judge(&mut out, &["updates_per_s"]);
    }
    Ok(out)
}

impl Args {
    fn check(&self) -> Result<(), CliError> {
        in_range("nodes", self.nodes, 2, super::NODES_MAX)?;
        in_range("value-bytes", self.value_bytes, 16, 1 << 20)?;
        in_range("keys", self.keys, 1, 1_000_000)?;
        in_range("refine", self.refine, 0, 16)?;
        in_range("steps-max", self.steps_max, 1, STEPS_MAX)?;
        in_range("seconds", usize::try_from(self.seconds).unwrap_or(usize::MAX), 1, 3_600)?;
        in_range("start-rate", self.start_rate, 1.0, RATE_MAX)
    }
}

async fn search(cluster: &Cluster, args: &Args) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut good, mut bad) = (None, None);
    let mut rate = args.start_rate;
    let mut refined = 0;
    while refined <= args.refine && steps.len() < args.steps_max && (1.0..=RATE_MAX).contains(&rate)
    {
        let plan = Plan {
            rate,
            keys: args.keys as u64,
            bytes: args.value_bytes,
            lead_in: LEAD_IN,
            seconds: args.seconds as f64,
            drain: DRAIN,
            followed: FOLLOWED,
        };
        let step = Step::new(trial::run(cluster, plan).await);
        eprintln!("{}", Json::Object(step.describe(args)));
        let (passes, void) = (step.passes(args.staleness_ms), step.is_void());
        steps.push(step);
        if void {
            break;
        }
        // The backlog of an overload must be gone before the next trial.
        tokio::time::sleep(SETTLE).await;
        *(if passes { &mut good } else { &mut bad }) = Some(rate);
        rate = match (good, bad) {
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) => bad / 2.0,
            (Some(good), Some(bad)) => {
                refined += 1;
                f64::sqrt(good * bad)
            }
            (None, None) => break,
        };
    }
    steps
}

/// The trial of one rate.
#[derive(Debug)]
struct Step {
    trial: Trial,
    /// The milliseconds of updates that were shown themselves, sorted; infinite if one was not seen everywhere.
    staleness: Vec<f64>,
}

impl Step {
    fn new(trial: Trial) -> Self {
        let mut staleness = trial.shown.clone();
        staleness.extend(std::iter::repeat_n(f64::INFINITY, trial.unseen));
        staleness.sort_by(f64::total_cmp);
        Self { trial, staleness }
    }

    fn is_void(&self) -> bool {
        !self.trial.faults().is_empty()
    }

    /// Whether the nodes carried the rate: they reached it, refused nothing, and all updates arrived, nearly all in
    /// time.
    fn passes(&self, staleness_ms: u64) -> bool {
        let stale = quantile(&self.staleness, 0.99);
        let fresh = stale.is_some_and(|stale| stale <= staleness_ms as f64);
        let Trial { asked, refused, unseen, behind_pairs, .. } = self.trial;
        let came = refused == 0 && unseen == 0 && behind_pairs == 0;
        let reached = self.trial.delivered_per_s() >= REACHED_MIN * asked;
        !self.is_void() && fresh && came && reached
    }

    fn describe(&self, args: &Args) -> Report {
        let Self { trial, staleness } = self;
        let stale = |part| match quantile(staleness, part) {
            Some(stale) if stale.is_finite() => rounded(stale, 1),
            _ => Json::Null,
        };
        let count = |counter| trial.per_update(trial.counts.get(counter) as f64);
        let stale = json!({ "p50": stale(0.5), "p99": stale(0.99), "max": stale(1.0), "n": staleness.len() });
        let bytes = trial.per_update(trial.wire.bytes as f64);
        let entries = [
            ("asked_per_s", rounded(trial.asked, 0)),
            ("reached_per_s", rounded(trial.delivered_per_s(), 0)),
            ("made_per_s", rounded(trial.made_per_s(), 0)),
            ("passes", self.passes(args.staleness_ms).into()),
            ("staleness_ms", stale),
            ("followed", trial.followed().into()),
            ("unseen", trial.unseen.into()),
            ("replaced", trial.replaced.len().into()),
            ("unchanged_updates", trial.unchanged.into()),
            ("refused_updates", trial.refused.into()),
            ("behind_pairs", trial.behind_pairs.into()),
            ("cpu_s_per_s", rounded(trial.cpu / trial.seconds, 3)),
            ("cpu_us_per_update", rounded(trial.per_update(trial.cpu * 1e6), 1)),
            ("wire_bytes_per_update", rounded(bytes, 1)),
            ("copies_per_update", rounded(count(Counter::EntriesReceived), 2)),
            ("applied_per_update", rounded(count(Counter::EntriesApplied), 2)),
        ];
        let mut out: Report =
            entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        trial.faults().judge(&mut out, &FIGURES);
        out
    }
}

/// Void if the updates changed nothing.
const FIGURES: [&str; 7] = [
    "reached_per_s",
    "staleness_ms",
    "cpu_s_per_s",
    "cpu_us_per_update",
    "wire_bytes_per_update",
    "copies_per_update",
    "applied_per_update",
];
/// Seconds at each rate before it counts.
const LEAD_IN: f64 = 1.0;
/// Seconds to wait at the end for updates in transit.
const DRAIN: f64 = 5.0;
/// Updates a second that are sampled.
const FOLLOWED: f64 = 500.0;
/// A rate counts as tried if this part of it was reached.
const REACHED_MIN: f64 = 0.95;
const RATE_MAX: f64 = 1e7;
const STEPS_MAX: usize = 64;
const POLL: Duration = Duration::from_millis(5);
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::{super::trial::tests::good, *};

    #[test]
    fn a_step_in_which_updates_took_no_version_fails_and_has_no_figures() {
        let void = Step::new(Trial { unchanged: 10, updates: 0, ..good() });
        assert!(void.is_void() && !void.passes(1_000));
        let mut out = Report::new();
        void.trial.faults().judge(&mut out, &FIGURES);
        assert!(out["reached_per_s"].is_null() && Faults::check(&out).is_err(), "{out:?}");
    }

    #[test]
    fn a_step_passes_only_if_every_followed_update_came_itself() {
        let passes = |trial| Step::new(trial).passes(1_000);
        assert!(passes(good()));
        assert!(!passes(Trial { unseen: 1, ..good() }), "one did not come");
        assert!(!passes(Trial { behind_pairs: 1, ..good() }), "a copy lacks the last one");
        assert!(!passes(Trial { refused: 1, ..good() }), "a node refused one");
        assert!(!passes(Trial { replaced: vec![1.0; 2], ..good() }), "half were replaced before");
        assert!(!passes(Trial { shown: vec![1_500.0, 4.0], ..good() }), "one came late");
        assert!(!passes(Trial { asked: 20.0, ..good() }), "half of the rate was reached");
    }
}
