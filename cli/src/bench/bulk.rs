//! How fast a large state arrives, what that costs, and whether a node is missed meanwhile.
//!
//! Either one node writes while the others listen, or (`--late`) the state exists before the last node starts, which
//! then catches up.

use std::{collections::BTreeMap, time::Duration};

use gossipmonger::{
    Gossipmonger,
    protocol::{
        delta::entry_len_max, entry::Value, id::NodeId, replica::BATCH_BYTES_MAX, route::Counter,
        time::Time, write::Write,
    },
};

use super::{
    Common, MIB, Report, SETTLE,
    cluster::Cluster,
    faults::Faults,
    in_range, join_first, machine, rounded,
    statistics::quantiles,
    until,
    values::{fresh, number_of},
};
use crate::{error::CliError, stopwatch::Stopwatch};

/// The arguments of `bench bulk`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// The size of the state, keys included; as many keys as fit.
    #[arg(long, conflicts_with = "keys", value_name = "MIB")]
    state_mib: Option<usize>,
    /// The state is there before the node that receives it starts.
    #[arg(long)]
    late: bool,
    /// Nodes besides the two; with `--late` they have the state already, else they receive it too.
    #[arg(long, default_value_t = 0, value_name = "N")]
    bystanders: usize,
}

/// Transfers a state and measures.
pub(super) async fn bulk(args: &Args) -> Result<Report, CliError> {
    let Args { late, bystanders, .. } = *args;
    let (common, keys) = args.check()?;
    let nodes = bystanders + 2;
    let mut out = common.report("bulk");
    let state = keys * (KEY_BYTES + common.value_bytes);
    let mut cluster = join_first(nodes - usize::from(late), &common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let before = machine::resident_bytes();
    let (numbers, batches) = batches(keys, common.value_bytes);
    if late {
        set_bulk(cluster.node(0), batches.clone()).await?;
        let all = || (1..nodes - 1).all(|index| held(&cluster, index) >= keys);
        let held = until(&Stopwatch::start(), common.timeout(), POLL, all).await;
        held.ok_or_else(|| CliError::failed("the bystanders do not have the state in time"))?;
        tokio::time::sleep(SETTLE).await;
    }
    let mut seen = Seen::default();
    let (cpu, wire) = (machine::cpu_seconds(), machine::loopback());
    let resident = machine::resident_bytes();
    let entries = received(&cluster);
    let watch = Stopwatch::start();
    let mut set = 0.0;
    let receivers = if late {
        drop(batches);
        cluster.start(nodes - 1).await?;
        nodes - 1..nodes
    } else {
        let node = cluster.node(0).cloned();
        let setting = tokio::spawn(async move { set_bulk(node.as_ref(), batches).await });
        let is_set = || {
            seen.look(&cluster);
            setting.is_finished()
        };
        set = until(&watch, common.timeout(), POLL, is_set).await.unwrap_or_default();
        setting.await.map_err(CliError::failed)??;
        1..nodes
    };
    let done = until(&watch, common.timeout(), POLL, || {
        seen.look(&cluster);
        receivers.clone().all(|index| held(&cluster, index) >= keys)
    });
    let done = done.await;
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let seconds = done.unwrap_or_else(|| watch.seconds());
    let arrived = receivers.clone().map(|index| held(&cluster, index)).min().unwrap_or(0);
    let entries = received(&cluster) - entries;
    let right = receivers.clone().map(|index| right(&cluster, index, &numbers)).sum();
    let mib = |bytes: u64| rounded(bytes as f64 / MIB, 1);
    out.insert("keys".into(), keys.into());
    out.insert("value_bytes".into(), common.value_bytes.into());
    out.insert("state_bytes".into(), state.into());
    out.insert("late".into(), late.into());
    out.insert("set_s".into(), rounded(set, 3));
    out.insert("complete".into(), done.is_some().into());
    out.insert("received".into(), arrived.into());
    out.insert("bulk_s".into(), rounded(seconds, 3));
    out.insert("keys_per_s".into(), rounded(arrived as f64 / seconds, 1));
    let bytes = state as f64 * arrived as f64 / keys as f64;
    out.insert("mb_per_s".into(), rounded(bytes / seconds / 1e6, 1));
    out.insert("bulk_cpu_s".into(), rounded(cpu, 3));
    out.insert("bulk_wire_bytes".into(), wire.bytes.into());
    out.insert("bulk_wire_packets".into(), wire.packets.into());
    let wanted = (keys * receivers.len()) as f64;
    out.insert("copies".into(), rounded(entries as f64 / wanted, 3));
    let wanted = (state * receivers.len()) as f64;
    out.insert("wire_copies".into(), rounded(wire.bytes as f64 / wanted, 3));
    out.insert("rss_grown_mib".into(), mib(seen.resident.saturating_sub(resident)));
    out.insert("rss_grown_in_all_mib".into(), mib(seen.resident.saturating_sub(before)));
    out.insert("state_mib".into(), mib(state as u64));
    let steps = cluster.running().map(|(_, node)| node.counters().longest_storage_step());
    let longest = steps.max().map(millis).unwrap_or_default();
    out.insert("longest_storage_step_ms".into(), rounded(longest, 2));
    out.insert("bulk_in_flight_max".into(), seen.in_flight.into());
    out.insert("silence_ms".into(), quantiles(seen.silences(&cluster)));
    out.insert("counters".into(), cluster.counters_json());
    let moved = Moved { wanted: keys * receivers.len(), right, entries, complete: done.is_some() };
    let mut faults = moved.faults();
    faults.require_joined(&out);
    faults.judge(&mut out, &FIGURES);
    Ok(out)
}

/// What was transferred, over all receivers.
#[derive(Clone, Copy, Debug)]
struct Moved {
    wanted: usize,
    /// Values at the end that equal those that were set.
    right: usize,
    /// Entries that arrived, including those that were known already.
    entries: u64,
    complete: bool,
}

impl Moved {
    /// The whole state must have arrived, and over the network.
    fn faults(&self) -> Faults {
        let Self { wanted, right, entries, complete } = *self;
        let mut faults = Faults::default();
        faults.require(wanted > 0, || "nothing was to be moved".to_owned());
        faults.require(complete, || "the state did not arrive in time".to_owned());
        faults.require(right == wanted, || {
            format!("{right} of {wanted} values at the receivers are those that were set")
        });
        faults.require(entries >= wanted as u64, || {
            format!("{wanted} values need as many entries, {entries} came")
        });
        faults
    }
}

impl Args {
    /// Checks the numbers of nodes and keys.
    fn check(&self) -> Result<(Common, usize), CliError> {
        in_range("bystanders", self.bystanders, 0, 98)?;
        let common = Common { nodes: self.bystanders + 2, ..self.common.clone() };
        let Some(mib) = self.state_mib else { return Ok((common.clone().check(2)?, common.keys)) };
        in_range("state-mib", mib, 1, 256)?;
        let keys = ((mib << 20) / (KEY_BYTES + common.value_bytes)).max(1);
        Ok((Common { keys, ..common }.check(2)?, keys))
    }
}

/// What was seen during the transfer.
#[derive(Debug, Default)]
struct Seen {
    resident: u64,
    /// Bytes sent to the pulling nodes that they have not applied yet.
    in_flight: u64,
    /// When each node last heard each other one.
    heard: BTreeMap<(usize, NodeId), Time>,
    silences: Vec<f64>,
}

impl Seen {
    fn look(&mut self, cluster: &Cluster) {
        self.resident = self.resident.max(machine::resident_bytes());
        let count = |counter| cluster.running().map(|(_, node)| node.counters().get(counter)).sum();
        // In this order: what a node applies between the two reads is no longer in flight.
        let sent: u64 = count(Counter::BulkBytesSent);
        let taken: u64 = count(Counter::BulkBytesTaken);
        self.in_flight = self.in_flight.max(sent.saturating_sub(taken));
        for (index, node) in cluster.running() {
            let snapshot = node.snapshot();
            for peer in snapshot.peers().map(|member| member.node) {
                let Some(heard) = snapshot.last_heard(&peer) else { continue };
                let before = self.heard.insert((index, peer), heard).unwrap_or(heard);
                self.silences.extend((heard > before).then(|| millis(heard.since(before))));
            }
        }
    }

    /// All silences, including those that still last.
    fn silences(mut self, cluster: &Cluster) -> Vec<f64> {
        for ((index, _), heard) in &self.heard {
            let now = cluster.node(*index).map(|node| node.snapshot().now());
            self.silences.extend(now.map(|now| millis(now.since(*heard))));
        }
        self.silences
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn held(cluster: &Cluster, index: usize) -> usize {
    cluster.node(index).map_or(0, |node| node.snapshot().held_keys(cluster.name(0)))
}

fn received(cluster: &Cluster) -> u64 {
    let counted = |node: &Gossipmonger| node.counters().get(Counter::EntriesReceived);
    cluster.running().map(|(_, node)| counted(node)).sum()
}

/// The writes in batches of the largest size, and the numbers of the values in the order of the keys.
fn batches(keys: usize, bytes: usize) -> (Vec<u64>, Vec<Vec<Write>>) {
    let (mut batches, mut size, mut numbers) = (vec![Vec::new()], 0, Vec::with_capacity(keys));
    for index in 0..keys {
        let (key, value) = (key(index), fresh(bytes));
        let len = entry_len_max(key.len(), value.text.len());
        if size + len > BATCH_BYTES_MAX {
            batches.push(Vec::new());
            size = 0;
        }
        size += len;
        numbers.push(value.number);
        batches.last_mut().expect("one from the start").push(Write::set(key, value.text));
    }
    (numbers, batches)
}

fn key(index: usize) -> String {
    format!("key-{index:08}")
}

/// How many values of the first node this node holds unchanged.
fn right(cluster: &Cluster, index: usize, numbers: &[u64]) -> usize {
    let Some(node) = cluster.node(index) else { return 0 };
    let (snapshot, owner) = (node.snapshot(), cluster.name(0));
    let is_right = |(index, number): &(usize, &u64)| {
        let value = snapshot.get(owner, &key(*index)).and_then(Value::as_str);
        value.and_then(number_of) == Some(**number)
    };
    numbers.iter().enumerate().filter(is_right).count()
}

async fn set_bulk(node: Option<&Gossipmonger>, batches: Vec<Vec<Write>>) -> Result<(), CliError> {
    let node = node.ok_or_else(|| CliError::failed("the first node is not there"))?;
    for batch in batches {
        node.set_many(batch).await.map_err(CliError::failed)?;
    }
    Ok(())
}

/// The length of `key-00000000`.
const KEY_BYTES: usize = 12;
const POLL: Duration = Duration::from_millis(2);
/// Void if a part of the state did not arrive. How much arrived is still reported.
const FIGURES: [&str; 8] = [
    "bulk_s",
    "keys_per_s",
    "mb_per_s",
    "bulk_cpu_s",
    "bulk_wire_bytes",
    "bulk_wire_packets",
    "copies",
    "wire_copies",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_did_not_bring_every_value_is_void() {
        let good = Moved { wanted: 10, right: 10, entries: 10, complete: true };
        assert!(good.faults().is_empty());
        for void in [
            Moved { wanted: 0, right: 0, ..good },
            Moved { right: 9, ..good },
            Moved { entries: 0, ..good },
            Moved { complete: false, ..good },
        ] {
            assert!(!void.faults().is_empty(), "{void:?}");
        }
    }
}
