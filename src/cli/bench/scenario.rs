//! What all libraries are measured by: joining and idling, spreading a change.

use std::time::Duration;

use rand::RngExt;

use serde_json::{Value, json};

use super::{
    Cluster, Common, MIB, Report, SETTLE,
    cluster::value,
    join_all, machine, rounded,
    statistics::{quantile, quantiles},
    until,
};
use crate::cli::{error::CliError, stopwatch::Stopwatch};

/// Joins, then looks at the idle cluster.
pub(super) async fn join(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("join");
    let resident = machine::resident_bytes();
    let cluster = join_all(common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let (cpu, wire, errors) =
        (machine::cpu_seconds(), machine::loopback(), machine::udp_receive_errors());
    let watch = Stopwatch::start();
    tokio::time::sleep(Duration::from_secs(common.seconds)).await;
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let errors = machine::udp_receive_errors().saturating_sub(errors);
    let (seconds, nodes) = (watch.seconds(), common.nodes as f64);
    let grown = machine::resident_bytes().saturating_sub(resident);
    let resident = machine::resident_bytes();
    let per_node = |total: f64| total / seconds / nodes;
    out.insert("idle_s".into(), rounded(seconds, 2));
    out.insert("idle_cpu_s_per_node_s".into(), rounded(per_node(cpu), 6));
    out.insert("idle_cpu_cores".into(), rounded(cpu / seconds, 4));
    out.insert("idle_wire_bytes_per_node_s".into(), rounded(per_node(wire.bytes as f64), 0));
    out.insert("idle_wire_packets_per_node_s".into(), rounded(per_node(wire.packets as f64), 1));
    out.insert("idle_udp_rcvbuf_errors".into(), errors.into());
    out.insert("rss_mib".into(), rounded(resident as f64 / MIB, 1));
    out.insert("rss_kib_per_node".into(), rounded(grown as f64 / 1024.0 / nodes, 0));
    out.insert("still_full_after_idle".into(), cluster.is_full().into());
    out.insert("counters".into(), cluster.counters());
    Ok(out)
}

/// Sets a key on a random node, time and again, and waits until all others have it.
pub(super) async fn spread(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("spread");
    let cluster = join_all(common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let (mut all, mut each, mut incomplete, mut missing) = (Vec::new(), Vec::new(), 0, 0);
    for version in 1..=common.reps as u64 {
        let pause = rand::rng().random_range(0..SPREAD_PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let origin = rand::rng().random_range(0..common.nodes);
        let Some(node) = cluster.node(origin) else { continue };
        let mut left: Vec<_> = cluster.running().filter(|(index, _)| *index != origin).collect();
        let watch = Stopwatch::start();
        node.set("k", value(version, common.value_bytes)).await.map_err(CliError::failed)?;
        let done = until(&watch, common.timeout(), SPREAD_POLL, || {
            left.retain(|(_, node)| {
                let has = cluster.has(node, origin, "k", version);
                each.extend(has.then(|| watch.seconds() * 1e3));
                !has
            });
            left.is_empty()
        });
        match done.await {
            Some(seconds) => all.push(seconds * 1e3),
            None => {
                incomplete += 1;
                missing += left.len();
            }
        }
    }
    out.insert("all_ms".into(), quantiles(all));
    out.insert("each_ms".into(), quantiles(each));
    out.insert("incomplete_reps".into(), incomplete.into());
    out.insert("missing_deliveries".into(), missing.into());
    out.insert("counters".into(), cluster.counters());
    Ok(out)
}

/// How long changes took to be at each of the others, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Spread {
    each: Vec<f64>,
    all: Vec<f64>,
    incomplete: usize,
}

impl Spread {
    pub(super) fn report(&self) -> Value {
        let (each, all) = (quantiles(self.each.clone()), quantiles(self.all.clone()));
        json!({ "each": each, "all": all, "incomplete": self.incomplete })
    }

    /// Of a change at one other node.
    pub(super) fn p99(&self) -> f64 {
        let mut each = self.each.clone();
        each.sort_by(f64::total_cmp);
        quantile(&each, 0.99).unwrap_or(f64::NAN)
    }
}

/// Changes for so long, by nodes in turn, as fast as one after the other may come; `version` goes on
/// from call to call.
pub(super) async fn spread_for(
    cluster: &Cluster,
    common: &Common,
    length: Duration,
    version: &mut u64,
) -> Result<Spread, CliError> {
    let (mut spread, whole) = (Spread::default(), Stopwatch::start());
    while whole.elapsed() < length {
        tokio::time::sleep(SHORT_PAUSE).await;
        *version += 1;
        let origin = *version as usize % common.nodes;
        let Some(node) = cluster.node(origin) else { continue };
        let mut left: Vec<_> = cluster.running().filter(|(index, _)| *index != origin).collect();
        let watch = Stopwatch::start();
        node.set("k", value(*version, common.value_bytes)).await.map_err(CliError::failed)?;
        let done = until(&watch, common.timeout(), SHORT_POLL, || {
            left.retain(|(_, node)| {
                let has = cluster.has(node, origin, "k", *version);
                spread.each.extend(has.then(|| watch.seconds() * 1e3));
                !has
            });
            left.is_empty()
        });
        match done.await {
            Some(seconds) => spread.all.push(seconds * 1e3),
            None => spread.incomplete += 1,
        }
    }
    Ok(spread)
}

const SHORT_PAUSE: Duration = Duration::from_millis(20);
const SHORT_POLL: Duration = Duration::from_micros(500);
const SPREAD_PAUSE_MS: u64 = 1_000;
const SPREAD_POLL: Duration = Duration::from_millis(2);
