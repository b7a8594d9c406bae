//! What it costs that each node announces its services: bytes, memory, and the time until all know of a change.
//!
//! The same cluster runs twice, the second time without services: what is left then is the cost of the members
//! themselves.

use std::time::Duration;

use gossipmonger::{
    Datacenter, NodeId,
    protocol::{
        entry::Value as Bytes,
        id::Generation,
        service::{
            ServiceName, ServiceVersion,
            clients::Clients,
            directory::{Directory, Seen},
            manifest::{Manifest, Offered},
        },
        state::PeerState,
    },
    sim::{warm, world::World},
};
use rand::seq::IteratorRandom;
use serde_json::{Map, Value, json};

use super::{
    super::{
        bench::machine::{cpu_seconds, resident_bytes},
        error::CliError,
    },
    Plan,
    report::{rounded, spread},
    scenario::{self, SECOND, SETTLE},
};

/// What announcing costs.
#[derive(Debug, Default)]
pub(super) struct Services {
    manifest_bytes: usize,
    directory_bytes: f64,
    directory_update_us: f64,
    /// Of each change that reached all nodes, until the last one had it, in milliseconds and in order.
    everywhere_ms: Vec<f64>,
    /// Changes that some node never had.
    missed: usize,
    /// Bytes of a change at each node, and the frames with it.
    change_bytes: f64,
    change_copies: f64,
    with: Cost,
    without: Cost,
    seed: u64,
    realtime: f64,
}

/// What grows with the services.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Sent to a node that knows nobody.
    join_bytes: usize,
    /// Sent at each node for each node that restarts.
    restart_bytes: f64,
}

/// Runs the cluster, with services and without.
pub(super) fn run(plan: &Plan) -> Services {
    let (directory_bytes, directory_update_us) = directory(plan);
    let begun = cpu_seconds();
    let (mut restarts, mut virtual_s) = ([0.0; 2], 0.0);
    let (mut everywhere_ms, mut missed, mut change) = (Vec::new(), 0, [0.0; 2]);
    for (offers, restart) in [true, false].into_iter().zip(&mut restarts) {
        let mut world = scenario::cold_world(plan, plan.seed, plan.nodes);
        offer(&mut world, offers);
        warm::start(&mut world, plan.nodes as usize);
        plan.charge(&mut world);
        world.run_for(SETTLE);
        let start = world.micros();
        if offers {
            ((everywhere_ms, missed), change) = changes(&mut world, plan);
        }
        *restart = rolling_restart(&mut world, plan, offers);
        virtual_s += (world.micros() - start) as f64 / 1e6;
    }
    let realtime = virtual_s / (cpu_seconds() - begun);
    let [with, without] = [(true, restarts[0]), (false, restarts[1])]
        .map(|(offers, restart_bytes)| Cost { join_bytes: joined(plan, offers), restart_bytes });
    Services {
        manifest_bytes: manifest(0, false).encode().len(),
        directory_bytes,
        directory_update_us,
        everywhere_ms,
        missed,
        change_bytes: change[0],
        change_copies: change[1],
        with,
        without,
        seed: plan.seed,
        realtime,
    }
}

/// Every node offers its services as soon as it runs.
fn offer(world: &mut World, offers: bool) {
    for (node, slot) in world.slots.iter_mut().enumerate() {
        slot.offers = offers.then(|| manifest(node, false));
    }
}

/// Some nodes change what they offer: how long it takes to all nodes, and what it costs.
fn changes(world: &mut World, plan: &Plan) -> ((Vec<f64>, usize), [f64; 2]) {
    let before = world.counts.clone();
    let nodes = (0..plan.nodes as usize).sample(&mut world.rng, plan.runs as usize);
    for &node in &nodes {
        world.watch(node);
        world.announce(node, &manifest(node, true));
        world.run_for(BETWEEN_CHANGES);
    }
    world.run_while(STEP, TIMEOUT, World::is_everywhere);
    let everywhere = everywhere(&world.arrivals());
    let each = nodes.len() as f64 * f64::from(plan.nodes);
    let bytes = (world.counts.payload_bytes - before.payload_bytes) as f64 / each;
    let copies = (world.counts.payloads - before.payloads) as f64 / each;
    nodes.iter().for_each(|node| world.announce(*node, &manifest(*node, false)));
    world.run_for(SETTLE);
    (everywhere, [bytes, copies])
}

/// When the last node had each change, in milliseconds and in order, and how many changes some node never had.
/// `arrivals`: of each change, when each node had it, in microseconds.
fn everywhere(arrivals: &[Vec<Option<u64>>]) -> (Vec<f64>, usize) {
    let last = |nodes: &Vec<Option<u64>>| {
        nodes.iter().try_fold(0, |last, at| Some(u64::max(last, (*at)?)))
    };
    let mut times: Vec<_> =
        arrivals.iter().filter_map(last).map(|micros| micros as f64 / 1e3).collect();
    times.sort_by(f64::total_cmp);
    let missed = arrivals.len() - times.len();
    (times, missed)
}

/// Nodes restart one after another: bytes for each of them, at each node.
fn rolling_restart(world: &mut World, plan: &Plan, offers: bool) -> f64 {
    let all = plan.nodes as usize;
    let time = Duration::from_secs(plan.seconds);
    let restarts = (all * plan.seconds as usize / 3_600).clamp(RESTARTS_MIN.min(all / 2), all / 2);
    let each = time.div_f64(restarts as f64).max(AWAY + DRAIN);
    let mut spent = [0, 0];
    for (restart, spent) in [false, true].into_iter().zip(&mut spent) {
        world.settle_accounts();
        let before = world.network.sent;
        for node in (0..all).rev().take(restarts) {
            if restart {
                if offers {
                    world.announce(node, &manifest(node, true));
                }
                world.run_for(DRAIN);
                world.leave(node);
                world.run_for(LEAVES);
                world.stop(node);
                world.run_for(AWAY - LEAVES);
                world.boot(node);
                world.run_for(each - AWAY - DRAIN);
            } else {
                world.run_for(each);
            }
        }
        world.run_for(SETTLE);
        world.settle_accounts();
        *spent = world.network.sent.since(before).bytes;
    }
    let [idle, busy] = spent.map(|bytes| bytes as f64);
    (busy - idle) / (restarts as f64 * f64::from(plan.nodes))
}

/// Bytes sent to a node that knows nobody, by one that knows all.
fn joined(plan: &Plan, offers: bool) -> usize {
    let mut world = scenario::cold_world(plan, plan.seed, plan.nodes);
    offer(&mut world, offers);
    warm::know_all(&mut world, plan.nodes as usize, 1);
    let mut bytes = 0;
    for _ in 0..EXCHANGES_MAX {
        if world.agree(0, 1) {
            break;
        }
        let cost = world.reconcile(1, 0);
        bytes += cost.found + cost.told;
    }
    bytes
}

/// Bytes of the directory at each node, and microseconds for a change of all offers of one node.
fn directory(plan: &Plan) -> (f64, f64) {
    let nodes = plan.nodes as usize;
    let names: Vec<_> =
        (0..nodes).map(|n| NodeId::new(&format!("n{n}")).expect("a label")).collect();
    let site = |node: usize| node % usize::from(plan.datacenters);
    let sites: Vec<_> = (0..usize::from(plan.datacenters))
        .map(|site| Datacenter::new(&format!("dc{site}")).expect("a label"))
        .collect();
    let manifests = |draining| -> Vec<Bytes> {
        (0..nodes).map(|node| manifest(node, draining).encode().into()).collect()
    };
    let known = manifests(false);
    let feed = |directory: &mut Directory, node: usize, manifest: &Bytes| {
        let seen = Seen {
            generation: Generation(1),
            datacenter: &sites[site(node)],
            state: PeerState::Live,
            manifest: Some(manifest),
        };
        directory.update(&names[node], Some(seen), &mut Vec::new());
    };
    let copies = MEASURED_NODES.div_ceil(nodes);
    let before = resident_bytes();
    let mut directories: Vec<_> = (0..copies).map(|_| Directory::default()).collect();
    for directory in &mut directories {
        known.iter().enumerate().for_each(|(node, manifest)| feed(directory, node, manifest));
    }
    let grown = resident_bytes().saturating_sub(before) as f64 / copies as f64;
    let changed = manifests(true);
    let begun = cpu_seconds();
    for directory in &mut directories {
        changed.iter().enumerate().for_each(|(node, manifest)| feed(directory, node, manifest));
    }
    let took = cpu_seconds() - begun;
    (grown, took * 1e6 / (copies * nodes) as f64)
}

/// A node offers some of the services of the cluster.
fn manifest(node: usize, draining: bool) -> Manifest {
    let offer = |nth: usize| Offered {
        name: ServiceName::new(&format!("shop.warehouse{nth:02}")).expect("a label"),
        version: ServiceVersion::new(1, 0),
        weight: 1,
        clients: Clients::default(),
        epoch: 1,
    };
    let apart = SERVICES / OFFERS;
    let offers = (0..OFFERS).map(|nth| offer(nth * apart + node % apart)).collect();
    Manifest { draining, offers }
}

impl Services {
    /// That each change has reached all nodes.
    pub(super) fn verdict(&self) -> Result<(), CliError> {
        if self.missed == 0 {
            return Ok(());
        }
        let (missed, changes, seed) = (self.missed, self.changes(), self.seed);
        let limit = TIMEOUT.as_secs();
        Err(CliError::failed(format!(
            "{missed} of {changes} changes are not at all nodes {limit} s after the last one, with seed {seed}"
        )))
    }

    fn changes(&self) -> usize {
        self.everywhere_ms.len() + self.missed
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let everywhere = (!self.everywhere_ms.is_empty()).then(|| {
            let [p50, p99, max] = spread(&self.everywhere_ms).map(rounded);
            json!({ "p50": p50, "p99": p99, "max": max })
        });
        let cost = |cost: &Cost| {
            json!({
                "join_bytes": cost.join_bytes,
                "restart_bytes_per_node": rounded(cost.restart_bytes),
            })
        };
        let out = json!({
            "services_per_node": OFFERS,
            "manifest_bytes": self.manifest_bytes,
            "directory_bytes": rounded(self.directory_bytes),
            "directory_update_us": rounded(self.directory_update_us),
            "everywhere_ms": everywhere,
            "changes_missed": self.missed,
            "change_bytes_per_node": rounded(self.change_bytes),
            "change_copies_per_node": rounded(self.change_copies),
            "with_services": cost(&self.with),
            "without_services": cost(&self.without),
            "realtime_factor": rounded(self.realtime),
        });
        match out {
            Value::Object(out) => out,
            _ => Map::new(),
        }
    }

    pub(super) fn rows(&self, nodes: u32) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut put = |name: &str, value: String| rows.push((name.to_owned(), value));
        put("services of a node, bytes of its key", format!("{OFFERS}, {} B", self.manifest_bytes));
        let kilo = |bytes: f64| format!("{:.1} kB", bytes / 1e3);
        let both = |of: fn(&Cost) -> f64, with: &Cost, without: &Cost| {
            format!("{}, without services {}", kilo(of(with)), kilo(of(without)))
        };
        let join = both(|cost| cost.join_bytes as f64, &self.with, &self.without);
        put("sent to a node that joins", join);
        put("directory, at each node", kilo(self.directory_bytes));
        put(
            "CPU of the directory for a change of one node",
            format!("{:.1} us", self.directory_update_us),
        );
        let everywhere = match &*self.everywhere_ms {
            [] => "none".to_owned(),
            sorted => {
                let [p50, p99, max] = spread(sorted);
                format!("{p50:.1} / {p99:.1} / {max:.1} ms")
            }
        };
        put("a change at all nodes, p50 / p99 / worst", everywhere);
        let missed = format!("{} of {}", self.missed, self.changes());
        put("changes that some node never had", missed);
        let change = format!("{:.0} B in {:.1} copies", self.change_bytes, self.change_copies);
        put("bytes of a change, at each node", change);
        let restart = both(|cost| cost.restart_bytes, &self.with, &self.without);
        put("a node restarts, at each node", restart);
        let hour = |cost: &Cost| cost.restart_bytes * f64::from(nodes) / 3_600.0;
        let [with, without] = [&self.with, &self.without].map(|cost| kilo(hour(cost)));
        put(
            "all restart within an hour, at each node and second",
            format!("{with}, without services {without}"),
        );
        put("faster than real time", format!("{:.1} times", self.realtime));
        rows
    }
}

/// Services of each node, of those that the cluster has.
const OFFERS: usize = 20;
const SERVICES: usize = 100;
/// The memory of the directory is measured for so many nodes, in several directories if they are fewer.
const MEASURED_NODES: usize = 2_000;
const STEP: Duration = Duration::from_millis(50);
const BETWEEN_CHANGES: Duration = Duration::from_millis(200);
/// A change that has not arrived by then never does.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Enough exchanges for a node to learn of all others.
const EXCHANGES_MAX: usize = 10_000;
const RESTARTS_MIN: usize = 3;
/// How long a node drains, how long it takes to leave after it, and when it is back.
const DRAIN: Duration = SECOND;
const LEAVES: Duration = Duration::from_millis(500);
const AWAY: Duration = SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_change_that_a_node_never_has_is_counted_and_is_an_error() {
        let all = vec![Some(2_000), Some(4_000)];
        let (everywhere_ms, missed) = everywhere(&[all, vec![Some(1_000), None]]);
        let services = Services { everywhere_ms, missed, seed: 4711, ..Services::default() };
        let json = services.to_json();
        assert_eq!(json["everywhere_ms"], json!({ "p50": 4.0, "p99": 4.0, "max": 4.0 }));
        assert_eq!(json["changes_missed"], 1);
        let error = services.verdict().unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        assert_eq!(
            error.to_string(),
            "1 of 2 changes are not at all nodes 10 s after the last one, with seed 4711"
        );
        let rows = services.rows(2);
        let row = |name: &str| rows.iter().find(|row| row.0.starts_with(name)).unwrap().1.clone();
        assert_eq!(row("a change at all nodes"), "4.0 / 4.0 / 4.0 ms");
        assert_eq!(row("changes that some node"), "1 of 2");
    }

    #[test]
    fn changes_that_all_nodes_have_are_no_error_and_none_at_all_have_no_times() {
        let (everywhere_ms, missed) = everywhere(&[vec![Some(1)], vec![Some(2)]]);
        assert_eq!((everywhere_ms.len(), missed), (2, 0));
        let services = Services { everywhere_ms, missed, ..Services::default() };
        assert!(services.verdict().is_ok());
        let (everywhere_ms, missed) = everywhere(&[vec![None]]);
        let services = Services { everywhere_ms, missed, ..Services::default() };
        assert_eq!(services.to_json()["everywhere_ms"], Value::Null);
    }
}
