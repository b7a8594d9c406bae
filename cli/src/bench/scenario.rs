//! The measurements that all libraries share: joining and idling, spreading a change.

use std::time::Duration;

use rand::RngExt;

use gossipmonger::protocol::{id::Version, route::Counter};
use serde_json::{Value, json};

use super::{
    Cluster, Common, MIB, Report, SETTLE,
    counts::Counts,
    faults::Faults,
    join_all, machine, rounded,
    statistics::{quantile, quantiles},
    until,
    values::fresh,
};
use crate::{error::CliError, stopwatch::Stopwatch};

/// Starts the cluster, then measures it while it is idle.
pub(super) async fn join(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("join");
    let resident = machine::resident_bytes();
    let cluster = join_all(common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let full = cluster.is_full();
    let (cpu, wire, errors) =
        (machine::cpu_seconds(), machine::loopback(), machine::udp_receive_errors());
    let counts = cluster.counts();
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
    out.insert("counters".into(), cluster.counters_json());
    let counts = cluster.counts().since(&counts);
    idle_faults(full, &counts, wire).judge(&mut out, &IDLE_FIGURES);
    let mut faults = Faults::default();
    faults.require_joined(&out);
    faults.judge(&mut out, &IDLE_FIGURES);
    Ok(out)
}

/// A cluster is idle if its nodes consider each other live and hear each other.
fn idle_faults(full: bool, counts: &Counts, wire: machine::Wire) -> Faults {
    let mut faults = Faults::default();
    faults.require(full, || "not all nodes had each other for live when they idled".to_owned());
    let heard = counts.get(Counter::HeartbeatsReceived);
    faults.require(heard > 0, || "no node heard another while they idled".to_owned());
    faults.require(wire.packets > 0, || "nothing passed over loopback while they idled".to_owned());
    faults
}

const IDLE_FIGURES: [&str; 6] = [
    "idle_cpu_s_per_node_s",
    "idle_cpu_cores",
    "idle_wire_bytes_per_node_s",
    "idle_wire_packets_per_node_s",
    "rss_mib",
    "rss_kib_per_node",
];

/// Sets a key on a random node, repeatedly, and waits each time until all others have it.
pub(super) async fn spread(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("spread");
    let cluster = join_all(common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let (mut spread, counts) = (Spread::default(), cluster.counts());
    for _ in 0..common.reps {
        let pause = rand::rng().random_range(0..SPREAD_PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let origin = rand::rng().random_range(0..common.nodes);
        change(&cluster, common, origin, SPREAD_POLL, &mut spread).await?;
    }
    let applied = cluster.counts().since(&counts).get(Counter::EntriesApplied);
    out.insert("all_ms".into(), quantiles(spread.all.clone()));
    out.insert("each_ms".into(), quantiles(spread.each.clone()));
    out.insert("incomplete_reps".into(), spread.incomplete.into());
    out.insert("missing_deliveries".into(), spread.missing.into());
    out.insert("counters".into(), cluster.counters_json());
    let mut faults = spread.faults(common.nodes, applied);
    faults.require(spread.changes == common.reps, || {
        format!("{} of {} changes were made", spread.changes, common.reps)
    });
    faults.require_joined(&out);
    faults.judge(&mut out, &["all_ms", "each_ms"]);
    Ok(out)
}

/// How long changes took to each of the other nodes, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread {
    each: Vec<f64>,
    all: Vec<f64>,
    changes: usize,
    /// Changes that took no version, since the value was set already.
    unchanged: usize,
    incomplete: usize,
    missing: usize,
}

impl Spread {
    pub(super) fn report(&self) -> Value {
        let (each, all) = (quantiles(self.each.clone()), quantiles(self.all.clone()));
        json!({ "each": each, "all": all, "incomplete": self.incomplete })
    }

    /// For a change at one other node.
    pub(super) fn p99(&self) -> f64 {
        let mut each = self.each.clone();
        each.sort_by(f64::total_cmp);
        quantile(&each, 0.99).unwrap_or(f64::NAN)
    }

    /// Every change must be at all other nodes, and they must have applied it.
    pub(super) fn faults(&self, nodes: usize, applied: u64) -> Faults {
        let mut faults = Faults::default();
        let wanted = self.changes * nodes.saturating_sub(1);
        faults
            .require(wanted > 0, || "nothing was changed that another node could show".to_owned());
        faults.require(self.unchanged == 0, || {
            format!("{} changes took no version: their values were there already", self.unchanged)
        });
        faults.require(self.each.len() == wanted, || {
            format!("{} of {wanted} deliveries came in time", self.each.len())
        });
        faults.require(applied >= self.each.len() as u64, || {
            format!("{} values were shown by nodes that have applied {applied}", self.each.len())
        });
        faults
    }
}

/// Sets a key on one node, and waits until all others show the value.
async fn change(
    cluster: &Cluster,
    common: &Common,
    origin: usize,
    poll: Duration,
    spread: &mut Spread,
) -> Result<(), CliError> {
    let node = cluster.node(origin).ok_or_else(|| CliError::failed("a node is gone"))?;
    let mut left: Vec<_> = cluster.running().filter(|(index, _)| *index != origin).collect();
    let before = node.snapshot().version(node.node()).map_or(Version::ZERO, |(_, v)| v);
    let value = fresh(common.value_bytes);
    let watch = Stopwatch::start();
    let version = node.set("k", value.text).await.map_err(CliError::failed)?;
    spread.changes += 1;
    spread.unchanged += usize::from(version <= before);
    let done = until(&watch, common.timeout(), poll, || {
        left.retain(|(_, node)| {
            let has = cluster.has(node, origin, "k", value.number);
            spread.each.extend(has.then(|| watch.seconds() * 1e3));
            !has
        });
        left.is_empty()
    });
    match done.await {
        Some(seconds) => spread.all.push(seconds * 1e3),
        None => {
            spread.incomplete += 1;
            spread.missing += left.len();
        }
    }
    Ok(())
}

/// Makes changes for this time, by each node in turn, one right after the other.
pub(super) async fn spread_for(
    cluster: &Cluster,
    common: &Common,
    length: Duration,
) -> Result<Spread, CliError> {
    let (mut spread, whole) = (Spread::default(), Stopwatch::start());
    while whole.elapsed() < length {
        tokio::time::sleep(SHORT_PAUSE).await;
        let origin = spread.changes % common.nodes;
        change(cluster, common, origin, SHORT_POLL, &mut spread).await?;
    }
    Ok(spread)
}

const SHORT_PAUSE: Duration = Duration::from_millis(20);
const SHORT_POLL: Duration = Duration::from_micros(500);
const SPREAD_PAUSE_MS: u64 = 1_000;
const SPREAD_POLL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_without_deliveries_is_void() {
        let good =
            Spread { each: vec![1.0; 4], all: vec![1.0; 2], changes: 2, ..Spread::default() };
        assert!(good.faults(3, 4).is_empty());
        assert!(!Spread::default().faults(3, 0).is_empty(), "nothing was changed");
        assert!(!good.faults(1, 4).is_empty(), "there is nobody else");
        assert!(!good.faults(3, 3).is_empty(), "a value was shown that nobody has applied");
        let unchanged = Spread { unchanged: 1, ..good.clone() };
        assert!(!unchanged.faults(3, 4).is_empty(), "a value was there already");
        let missing = Spread { each: vec![1.0; 3], incomplete: 1, missing: 1, ..good };
        assert!(!missing.faults(3, 4).is_empty(), "a node lacks a value");
    }

    #[test]
    fn the_idle_figures_of_nodes_that_do_not_hear_each_other_are_void() {
        let wire = machine::Wire { bytes: 1, packets: 1 };
        assert!(!idle_faults(true, &Counts::default(), wire).is_empty());
        assert!(!idle_faults(false, &Counts::default(), wire).is_empty());
    }
}
