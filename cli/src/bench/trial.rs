//! A steady load on all nodes, and how long its updates take to reach all others.
//!
//! Every node writes at its share of the rate, one key at a time; the shares are shifted against each other, so that
//! updates come evenly and not in bursts. Some updates are sampled: the trial reads the key at each other node until it
//! finds the update's value, or a later one of the same key.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    protocol::{entry::Value, id::Version, route::Counter},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    cluster::Cluster,
    counts::Counts,
    faults::Faults,
    machine,
    values::{fresh, number_of},
};
use crate::stopwatch::Stopwatch;

/// What is written, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Updates a second, over all nodes.
    pub(super) rate: f64,
    /// Keys that each node writes in turn.
    pub(super) keys: u64,
    /// Bytes of each value.
    pub(super) bytes: usize,
    /// Seconds of load before it counts.
    pub(super) lead_in: f64,
    /// Seconds that count.
    pub(super) seconds: f64,
    /// Seconds to wait at the end for updates in transit.
    pub(super) drain: f64,
    /// Updates a second that are sampled, at most.
    pub(super) followed: f64,
}

/// The result. Counts are those after the lead-in, unless noted otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    /// The rate that was requested, in updates a second.
    pub(super) asked: f64,
    /// Seconds between the two measurements of usage.
    pub(super) seconds: f64,
    pub(super) nodes: usize,
    /// Updates that took a version.
    pub(super) updates: u64,
    /// Updates that took no version, since the value was set already; including the lead-in.
    pub(super) unchanged: u64,
    /// Updates that the node refused; including the lead-in.
    pub(super) refused: u64,
    /// Milliseconds until all other nodes showed each sampled update.
    pub(super) shown: Vec<f64>,
    /// The same for updates of which some node showed only a later value of the key: the update was replaced before it
    /// was sent, or between two looks.
    pub(super) replaced: Vec<f64>,
    /// Sampled updates that were not at all other nodes at the end.
    pub(super) unseen: usize,
    /// Times that a node was seen to show exactly the value of a sampled update.
    pub(super) deliveries: u64,
    /// Pairs of owner and reader in which the reader lacked the owner's last update at the end.
    pub(super) behind_pairs: usize,
    /// Entries that nodes applied, from the start of the lead-in to the end.
    pub(super) applied: u64,
    /// CPU seconds of the process.
    pub(super) cpu: f64,
    pub(super) wire: machine::Wire,
    pub(super) udp_receive_errors: u64,
    /// The counters of all nodes.
    pub(super) counts: Counts,
}

impl Trial {
    /// The conditions under which the figures count.
    pub(super) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        faults.require(self.updates > 0, || "no update was made".to_owned());
        faults.require(self.unchanged == 0, || {
            format!("{} updates took no version: their values were there already", self.unchanged)
        });
        faults.require(self.followed() > 0, || "no update was followed".to_owned());
        faults.require(self.deliveries > 0 || self.replaced.len() == self.followed(), || {
            "no followed update was shown by another node".to_owned()
        });
        faults.require(self.applied >= self.deliveries, || {
            let Self { deliveries, applied, .. } = self;
            format!("{deliveries} values were shown by nodes that have applied {applied}")
        });
        let least = (self.shown.len() * self.nodes.saturating_sub(1)) as u64;
        faults.require(self.deliveries >= least, || {
            format!(
                "{} updates need {least} deliveries, {} were seen",
                self.shown.len(),
                self.deliveries
            )
        });
        faults
    }

    /// Sampled updates with any result.
    pub(super) fn followed(&self) -> usize {
        self.shown.len() + self.replaced.len() + self.unseen
    }

    /// Updates a second that were made.
    pub(super) fn made_per_s(&self) -> f64 {
        self.updates as f64 / self.seconds
    }

    /// Updates a second that were delivered themselves: without the part that was replaced before.
    pub(super) fn delivered_per_s(&self) -> f64 {
        let replaced = self.replaced.len() as f64 / (self.followed() as f64).max(1.0);
        self.made_per_s() * (1.0 - replaced)
    }

    /// A total, divided by the updates.
    pub(super) fn per_update(&self, total: f64) -> f64 {
        total / self.updates as f64
    }
}

/// Runs the trial.
pub(super) async fn run(cluster: &Cluster, plan: Plan) -> Trial {
    let watch = Stopwatch::start();
    let end = plan.lead_in + plan.seconds;
    let nodes = cluster.running().count();
    let first = cluster.counts();
    let mut writers = JoinSet::new();
    let mut logs = Vec::new();
    for (place, (index, node)) in cluster.running().enumerate() {
        let log = Shared::default();
        logs.push((index, Arc::clone(&log)));
        let phase = place as f64 / nodes as f64;
        let share = Share { plan, nodes, phase };
        writers.spawn(share.write(node.clone(), watch, log));
    }
    let mut trial = Trial { asked: plan.rate, nodes, ..Trial::default() };
    let mut open = Vec::new();
    let (mut before, mut after) = (None, None);
    loop {
        tokio::time::sleep(POLL).await;
        for (index, log) in &logs {
            let followed = std::mem::take(&mut lock(log).followed);
            open.extend(followed.into_iter().map(|update| Open::new(cluster, *index, update)));
        }
        look(cluster, &watch, &mut open, &mut trial);
        let now = watch.seconds();
        if now >= plan.lead_in && before.is_none() {
            before = Some(Usage::now(cluster, now));
        }
        if now >= end && after.is_none() {
            after = Some(Usage::now(cluster, now));
        }
        while writers.try_join_next().is_some() {}
        let behind = || logs.iter().any(|(index, log)| behind(cluster, *index, lock(log).last) > 0);
        let done = writers.is_empty() && open.is_empty() && !behind();
        if now >= end + plan.drain || now >= end && done {
            break;
        }
    }
    writers.shutdown().await;
    let now = || Usage::now(cluster, watch.seconds());
    let (before, after) = (before.unwrap_or_else(now), after.unwrap_or_else(now));
    trial.seconds = after.at - before.at;
    trial.cpu = after.cpu - before.cpu;
    trial.wire = after.wire.since(&before.wire);
    trial.udp_receive_errors = after.errors.saturating_sub(before.errors);
    trial.counts = after.counts.since(&before.counts);
    trial.applied = cluster.counts().since(&first).get(Counter::EntriesApplied);
    for (index, log) in &logs {
        let log = lock(log);
        trial.updates += log.updates;
        trial.unchanged += log.unchanged;
        trial.refused += log.refused;
        trial.unseen += log.followed.len();
        trial.behind_pairs += behind(cluster, *index, log.last);
    }
    trial.unseen += open.len();
    trial
}

/// The resources used so far.
#[derive(Debug)]
struct Usage {
    at: f64,
    cpu: f64,
    wire: machine::Wire,
    errors: u64,
    counts: Counts,
}

impl Usage {
    fn now(cluster: &Cluster, at: f64) -> Self {
        let (cpu, wire) = (machine::cpu_seconds(), machine::loopback());
        Self { at, cpu, wire, errors: machine::udp_receive_errors(), counts: cluster.counts() }
    }
}

/// What one node has written.
#[derive(Debug, Default)]
struct Log {
    updates: u64,
    unchanged: u64,
    refused: u64,
    /// The version of the last update.
    last: Version,
    /// Sampled updates that the trial has not collected yet.
    followed: Vec<Update>,
}

type Shared = Arc<Mutex<Log>>;

/// An update that is sampled.
#[derive(Clone, Debug)]
struct Update {
    key: String,
    number: u64,
    /// When `set` was called.
    at: f64,
}

/// An update that is not everywhere yet.
#[derive(Debug)]
struct Open {
    owner: usize,
    update: Update,
    /// The nodes that lack it.
    lacks: Vec<usize>,
    replaced: bool,
}

impl Open {
    fn new(cluster: &Cluster, owner: usize, update: Update) -> Self {
        let others = cluster.running().map(|(index, _)| index).filter(|index| *index != owner);
        Self { owner, update, lacks: others.collect(), replaced: false }
    }
}

/// One node's part of a plan.
#[derive(Clone, Copy, Debug)]
struct Share {
    plan: Plan,
    nodes: usize,
    /// The shift of this node's updates, as a part of the time between two of them.
    phase: f64,
}

impl Share {
    /// Writes the updates that are due, in a loop.
    async fn write(self, node: Gossipmonger, watch: Stopwatch, log: Shared) {
        let Plan { rate, keys, bytes, lead_in, seconds, followed, .. } = self.plan;
        let (end, share) = (lead_in + seconds, rate / self.nodes as f64);
        let follows = (followed / rate).min(1.0);
        let mut last = node.snapshot().version(node.node()).map_or(Version::ZERO, |(_, v)| v);
        // So that not all nodes write at the same moment.
        tokio::time::sleep(WRITE_TICK.mul_f64(self.phase)).await;
        let mut ticks = interval(WRITE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut made = 0_u64;
        while watch.seconds() < end {
            ticks.tick().await;
            let due = (watch.seconds().min(end) * share + self.phase) as u64;
            while made < due {
                let at = watch.seconds();
                if at >= end {
                    return;
                }
                made += 1;
                let (key, value) = (format!("key-{:04}", made % keys), fresh(bytes));
                let version = match node.set(key.clone(), value.text).await {
                    Ok(version) => version,
                    Err(error) => {
                        tracing::warn!(node = %node.node(), %error, "an update was refused");
                        lock(&log).refused += 1;
                        continue;
                    }
                };
                let mut log = lock(&log);
                if version <= last {
                    log.unchanged += 1;
                    continue;
                }
                last = version;
                log.last = version;
                if at >= lead_in {
                    log.updates += 1;
                    let turn = |made: u64| (made as f64 * follows + self.phase) as u64;
                    if turn(made) > turn(made - 1) {
                        log.followed.push(Update { key, number: value.number, at });
                    }
                }
            }
        }
    }
}

/// Removes the open updates that have arrived everywhere.
fn look(cluster: &Cluster, watch: &Stopwatch, open: &mut Vec<Open>, trial: &mut Trial) {
    open.retain_mut(|Open { owner, update, lacks, replaced }| {
        let owner = cluster.name(*owner);
        lacks.retain(|index| {
            let Some(node) = cluster.node(*index) else { return true };
            let snapshot = node.snapshot();
            let shown = snapshot.get(owner, &update.key).and_then(Value::as_str);
            let shown = shown.and_then(number_of).unwrap_or(0);
            trial.deliveries += u64::from(shown == update.number);
            *replaced |= shown > update.number;
            shown < update.number
        });
        if lacks.is_empty() {
            let late = (watch.seconds() - update.at) * 1e3;
            let seen = if *replaced { &mut trial.replaced } else { &mut trial.shown };
            seen.push(late);
        }
        !lacks.is_empty()
    });
}

/// How many nodes lack this version of an owner.
fn behind(cluster: &Cluster, owner: usize, version: Version) -> usize {
    let owner = cluster.name(owner);
    let lacks = |node: &Gossipmonger| {
        node.snapshot().version(owner).map_or(Version::ZERO, |(_, has)| has) < version
    };
    cluster.running().filter(|(_, node)| lacks(node)).count()
}

fn lock(log: &Shared) -> MutexGuard<'_, Log> {
    // No code under the lock can panic halfway.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

const WRITE_TICK: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three nodes made ten updates, of which two were sampled and arrived.
    pub(in super::super) fn good() -> Trial {
        Trial {
            asked: 10.0,
            seconds: 1.0,
            nodes: 3,
            updates: 10,
            shown: vec![3.0, 4.0],
            deliveries: 4,
            applied: 20,
            ..Trial::default()
        }
    }

    #[test]
    fn a_trial_in_which_updates_took_no_version_is_void() {
        let void = Trial { unchanged: 1, ..good() };
        assert!(good().faults().is_empty());
        assert!(!void.faults().is_empty());
    }

    #[test]
    fn a_trial_without_updates_followers_or_deliveries_is_void() {
        let none = Trial { updates: 0, ..good() };
        let unfollowed = Trial { shown: Vec::new(), deliveries: 0, ..good() };
        let undelivered = Trial { deliveries: 3, ..good() };
        let unapplied = Trial { applied: 3, ..good() };
        for void in [none, unfollowed, undelivered, unapplied] {
            assert!(!void.faults().is_empty(), "{void:?}");
        }
    }

    #[test]
    fn what_was_replaced_before_it_was_sent_is_not_delivered() {
        let trial = Trial { replaced: vec![5.0, 6.0], ..good() };
        assert!(trial.faults().is_empty());
        assert_eq!((trial.made_per_s(), trial.delivered_per_s()), (10.0, 5.0));
    }
}
