//! The highest rate of updates, over all nodes, at which nearly all are everywhere within a second.
//!
//! Every node writes at its share of the rate, one key at a time. An update is stale for as long as
//! one node lacks it. The rate is doubled until it is too high, then the middle is tried a few times.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    BASE_PORT, Report, SETTLE,
    cluster::{Cluster, Settings, value},
    in_range, machine, rounded,
    statistics::quantile,
    until,
};
use crate::{
    cli::{error::CliError, stopwatch::Stopwatch},
    node::Gossipmonger,
    protocol::{id::Version, route::Counter},
};

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
    let joined = until(&Stopwatch::start(), JOIN_TIMEOUT, POLL_MIN, || cluster.is_full()).await;
    joined.ok_or_else(|| CliError::failed("the nodes did not find each other"))?;
    tokio::time::sleep(SETTLE).await;
    let steps = search(&cluster, args).await;
    let best =
        steps.iter().filter(|step| step.passes(args)).max_by(|a, b| a.asked.total_cmp(&b.asked));
    let mut out = best.map_or_else(Report::new, |best| best.describe(args));
    out.insert("scenario".into(), "throughput".into());
    out.insert("nodes".into(), args.nodes.into());
    out.insert("value_bytes".into(), args.value_bytes.into());
    out.insert("settings".into(), settings.describe());
    let rate = best.map_or(0.0, |best| best.reached);
    out.insert("updates_per_s".into(), rounded(rate, 0));
    let steps = steps.iter().map(|step| Json::Object(step.describe(args))).collect();
    out.insert("steps".into(), Json::Array(steps));
    Ok(out)
}

impl Args {
    fn check(&self) -> Result<(), CliError> {
        in_range("nodes", self.nodes, 2, super::NODES_MAX)?;
        in_range("value-bytes", self.value_bytes, 16, 1 << 20)?;
        in_range("keys", self.keys, 1, 1_000_000)?;
        in_range("refine", self.refine, 0, 16)?;
        in_range("seconds", usize::try_from(self.seconds).unwrap_or(usize::MAX), 1, 3_600)?;
        if (1.0..=RATE_MAX).contains(&self.start_rate) {
            return Ok(());
        }
        let rate = self.start_rate;
        Err(CliError::usage(format!("--start-rate {rate} is refused: 1 to {RATE_MAX} is allowed")))
    }
}

async fn search(cluster: &Cluster, args: &Args) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut good, mut bad) = (None, None);
    let mut rate = args.start_rate;
    let mut refined = 0;
    while refined <= args.refine && (1.0..=RATE_MAX).contains(&rate) {
        let step = try_rate(cluster, args, rate).await;
        eprintln!("{}", Json::Object(step.describe(args)));
        let passes = step.passes(args);
        steps.push(step);
        // What was too much has to be dealt with before the next one.
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

/// One rate, tried.
#[derive(Debug)]
struct Step {
    asked: f64,
    reached: f64,
    /// In milliseconds, sorted; infinite if it was not seen everywhere.
    staleness: Vec<f64>,
    unseen: usize,
    cpu_per_second: f64,
    cpu_per_update: f64,
    bytes_per_update: f64,
    copies_per_update: f64,
}

impl Step {
    fn passes(&self, args: &Args) -> bool {
        let stale = quantile(&self.staleness, 0.99);
        let fresh = stale.is_some_and(|stale| stale <= args.staleness_ms as f64);
        fresh && self.reached >= REACHED_MIN * self.asked
    }

    fn describe(&self, args: &Args) -> Report {
        let stale = |part| match quantile(&self.staleness, part) {
            Some(stale) if stale.is_finite() => rounded(stale, 1),
            _ => Json::Null,
        };
        let entries = [
            ("asked_per_s", rounded(self.asked, 0)),
            ("reached_per_s", rounded(self.reached, 0)),
            ("passes", self.passes(args).into()),
            (
                "staleness_ms",
                json!({ "p50": stale(0.5), "p99": stale(0.99), "max": stale(1.0), "n": self.staleness.len() }),
            ),
            ("unseen", self.unseen.into()),
            ("cpu_s_per_s", rounded(self.cpu_per_second, 3)),
            ("cpu_us_per_update", rounded(self.cpu_per_update * 1e6, 1)),
            ("wire_bytes_per_update", rounded(self.bytes_per_update, 1)),
            ("copies_per_update", rounded(self.copies_per_update, 2)),
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The updates of one node that are not everywhere yet, oldest first, each with its time.
type Waiting = Arc<Mutex<VecDeque<(Version, f64)>>>;

async fn try_rate(cluster: &Cluster, args: &Args, rate: f64) -> Step {
    let watch = Stopwatch::start();
    let end = LEAD_IN + args.seconds as f64;
    let share = rate / args.nodes as f64;
    let mut writers = JoinSet::new();
    let mut waiting = Vec::new();
    for (index, node) in cluster.running() {
        let mine = Waiting::default();
        waiting.push((index, Arc::clone(&mine)));
        let load = Load { share, end, keys: args.keys, bytes: args.value_bytes };
        writers.spawn(write(node.clone(), load, watch, mine));
    }
    let poll = if args.nodes > POLL_NODES { POLL_MAX } else { POLL_MIN };
    let mut seen = Vec::new();
    let (mut before, mut after) = (None, None);
    loop {
        tokio::time::sleep(poll).await;
        look(cluster, &waiting, &watch, &mut seen);
        let now = watch.seconds();
        if now >= LEAD_IN && before.is_none() {
            before = Some(Usage::now(cluster, now));
        }
        if now >= end && after.is_none() {
            after = Some(Usage::now(cluster, now));
        }
        let left = waiting.iter().any(|(_, waiting)| !lock(waiting).is_empty());
        if now >= end + DRAIN || now >= end && !left && writers.is_empty() {
            break;
        }
        while writers.try_join_next().is_some() {}
    }
    writers.shutdown().await;
    let unseen = waiting
        .iter()
        .map(|(_, waiting)| lock(waiting).iter().filter(|(_, at)| *at >= LEAD_IN).count());
    let now = || Usage::now(cluster, watch.seconds());
    let (before, after) = (before.unwrap_or_else(now), after.unwrap_or_else(now));
    summarize(rate, &before, &after, seen, unseen.sum())
}

fn summarize(asked: f64, before: &Usage, after: &Usage, seen: Vec<f64>, unseen: usize) -> Step {
    let seconds = after.at - before.at;
    let mut staleness = seen;
    staleness.extend(std::iter::repeat_n(f64::INFINITY, unseen));
    staleness.sort_by(f64::total_cmp);
    let updates = (staleness.len() as f64).max(1.0);
    let cpu = after.cpu - before.cpu;
    Step {
        asked,
        reached: staleness.len() as f64 / seconds,
        unseen,
        cpu_per_second: cpu / seconds,
        cpu_per_update: cpu / updates,
        bytes_per_update: after.wire.since(&before.wire).bytes as f64 / updates,
        copies_per_update: (after.copies - before.copies) as f64 / updates,
        staleness,
    }
}

/// What has been used up so far.
#[derive(Clone, Copy, Debug)]
struct Usage {
    at: f64,
    cpu: f64,
    wire: machine::Wire,
    copies: u64,
}

impl Usage {
    fn now(cluster: &Cluster, at: f64) -> Self {
        let received = |node: &Gossipmonger| node.counters().get(Counter::EntriesReceived);
        let copies = cluster.running().map(|(_, node)| received(node)).sum();
        Self { at, cpu: machine::cpu_seconds(), wire: machine::loopback(), copies }
    }
}

/// What one node writes.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// A second.
    share: f64,
    /// Until then.
    end: f64,
    keys: usize,
    bytes: usize,
}

/// Writes what is due by now, again and again.
async fn write(node: Gossipmonger, load: Load, watch: Stopwatch, waiting: Waiting) {
    let mut ticks = interval(WRITE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut made = 0_u64;
    loop {
        ticks.tick().await;
        let due = (watch.seconds().min(load.end) * load.share) as u64;
        while made < due {
            let now = watch.seconds();
            if now >= load.end {
                return;
            }
            made += 1;
            let key = format!("key-{:08}", made % load.keys as u64);
            match node.set(key, value(made, load.bytes)).await {
                Ok(version) => lock(&waiting).push_back((version, now)),
                Err(error) => {
                    tracing::warn!(node = %node.node(), %error, "an update was refused");
                    return;
                }
            }
        }
        if watch.seconds() >= load.end {
            return;
        }
    }
}

/// Takes out what is everywhere by now.
fn look(cluster: &Cluster, waiting: &[(usize, Waiting)], watch: &Stopwatch, seen: &mut Vec<f64>) {
    let snapshots: Vec<_> = cluster.running().map(|(_, node)| node.snapshot()).collect();
    let now = watch.seconds();
    for (owner, waiting) in waiting {
        let name = cluster.name(*owner);
        let everywhere =
            snapshots.iter().map(|s| s.version(name).map_or(Version::ZERO, |(_, v)| v));
        let everywhere = everywhere.min().unwrap_or(Version::ZERO);
        let mut waiting = lock(waiting);
        while let Some((version, at)) = waiting.front().copied()
            && version <= everywhere
        {
            waiting.pop_front();
            if at >= LEAD_IN {
                seen.push((now - at) * 1e3);
            }
        }
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, VecDeque<(Version, f64)>> {
    // Nothing under the lock can panic half way.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds at each rate before it counts.
const LEAD_IN: f64 = 1.0;
/// Seconds to wait for what is on its way at the end.
const DRAIN: f64 = 5.0;
/// A rate has been tried if this part of it was reached.
const REACHED_MIN: f64 = 0.95;
const RATE_MAX: f64 = 1e7;
const WRITE_TICK: Duration = Duration::from_millis(5);
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(20);
/// From more nodes than this on, it is looked less often.
const POLL_NODES: usize = 20;
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);
