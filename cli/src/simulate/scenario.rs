//! The scenarios: what happens in a run, and what is measured.

use std::time::Duration;

use gossipmonger::{
    Write,
    sim::{network::Network, slot::Node, warm, world::World},
};
use rand::{
    RngExt,
    seq::{IteratorRandom, SliceRandom},
};

use super::{
    super::{
        bench::machine::{cpu_seconds, resident_bytes},
        error::CliError,
        experiment,
    },
    Plan,
    report::{Report, Spread},
};

/// The cost of an idle cluster.
pub(super) fn idle(plan: &Plan) -> Report {
    let (mut world, grown) = measured(plan);
    world.run_for(SETTLE);
    world.settle_accounts();
    let before = world.network.sent;
    let begun = cpu_seconds();
    let mut curve = Vec::new();
    for second in 1..=plan.seconds {
        let earlier = world.network.sent;
        world.run_for(SECOND);
        world.settle_accounts();
        let sent = world.network.sent.since(earlier);
        curve.push((second as f64, sent.bytes as f64 / f64::from(plan.nodes)));
    }
    let took = cpu_seconds() - begun;
    let sent = world.network.sent.since(before);
    let per = f64::from(plan.nodes) * plan.seconds as f64;
    Report {
        idle_bytes_per_node_s: Some(sent.bytes as f64 / per),
        idle_packets_per_node_s: Some(sent.packets as f64 / per),
        idle_wan_bytes_per_s: Some(sent.wan_bytes as f64 / plan.seconds as f64),
        realtime_factor: Some(plan.seconds as f64 / took),
        rss_bytes_per_pair: Some(grown),
        curve: Some(("B a node and second", "seconds", curve)),
        ..Report::default()
    }
}

/// Some updates right after a tenth of the nodes has died.
pub(super) fn spread(plan: &Plan) -> Report {
    let mut spread = Spread::default();
    let (mut virtual_s, mut took) = (0.0, 0.0);
    for batch in 0..plan.runs.div_ceil(RUNS_PER_WORLD) {
        let runs = (plan.runs - batch * RUNS_PER_WORLD).min(RUNS_PER_WORLD);
        let mut world = warm_world(plan, plan.seed + u64::from(batch), plan.nodes);
        world.run_for(SETTLE);
        let (start, begun) = (world.micros(), cpu_seconds());
        spread_batch(&mut world, plan, runs, &mut spread);
        took += cpu_seconds() - begun;
        virtual_s += seconds(world.micros() - start);
    }
    let realtime = virtual_s / took;
    Report { realtime_factor: Some(realtime), ..spread.report() }
}

fn spread_batch(world: &mut World, plan: &Plan, runs: u32, spread: &mut Spread) {
    let mut nodes = world.running();
    nodes.shuffle(&mut world.rng);
    let dead = (f64::from(plan.nodes) * plan.dead) as usize;
    let mut live = nodes.split_off(dead.min(nodes.len().saturating_sub(2)));
    if plan.writers > 0 {
        let writers = live[..live.len().min(plan.writers as usize)].to_vec();
        for nth in 0..WARM_UP_WRITES {
            for writer in &writers {
                let value = value(plan, &format!("before {nth}"));
                world.write(*writer, vec![Write::set("key", value)]);
                world.run_for(BETWEEN_RUNS);
            }
        }
        live = writers;
    }
    nodes.into_iter().for_each(|node| world.crash(node));
    let before = world.counts.clone();
    for run in 0..runs {
        let writer = live[world.rng.random_range(0..live.len())];
        // Writing the same value again would change nothing.
        world.write_watched(writer, vec![Write::set("key", value(plan, &run.to_string()))]);
        world.run_for(BETWEEN_RUNS);
    }
    world.run_while(STEP, SPREAD_TIMEOUT, World::is_everywhere);
    let arrivals = world.arrivals();
    let payloads = world.counts.payloads - before.payloads;
    spread.add(&arrivals, payloads, world.counts.wan_messages - before.wan_messages);
}

/// A value of the planned size with this beginning.
fn value(plan: &Plan, beginning: &str) -> Vec<u8> {
    let mut value = beginning.as_bytes().to_vec();
    value.resize(plan.value_bytes.max(value.len()), b'.');
    value
}

/// A part of the nodes joins the others at the same time, through the seeds.
pub(super) fn join(plan: &Plan) -> Report {
    let joiners = if plan.joiners > 0 { plan.joiners } else { (plan.nodes / 5).max(1) };
    let old = plan.nodes - joiners;
    let mut world = warm_world(plan, plan.seed, old);
    world.run_for(SETTLE);
    let (start, sent) = (world.micros(), world.network.sent);
    let begun = cpu_seconds();
    (old..plan.nodes).for_each(|node| world.boot(node as usize));
    let all = plan.nodes as usize - 1;
    let mut curve = Vec::new();
    let done = world.run_while(STEP, JOIN_TIMEOUT, |world| {
        let complete = world.running();
        let complete = complete.iter().filter(|node| lists(world.node(**node)) >= all).count();
        let at = seconds(world.micros() - start);
        curve.push((at, 100.0 * complete as f64 / f64::from(plan.nodes)));
        complete == plan.nodes as usize
    });
    world.settle_accounts();
    let spent = world.network.sent.since(sent);
    let elapsed = seconds(world.micros() - start);
    Report {
        join_s: Some(if done { elapsed } else { f64::INFINITY }),
        joiners: Some(joiners),
        join_bytes_per_joiner: Some(spent.bytes as f64 / f64::from(joiners)),
        realtime_factor: Some(elapsed / (cpu_seconds() - begun)),
        curve: Some(("% of nodes that list all", "seconds", curve)),
        ..Report::default()
    }
}

fn lists(node: &Node) -> usize {
    node.replica.peer_count()
}

/// One datacenter (or, if there is only one, half of it) is partitioned off, and comes back.
pub(super) fn heal(plan: &Plan) -> Report {
    let mut world = warm_world(plan, plan.seed, plan.nodes);
    world.run_for(SETTLE);
    let half = plan.nodes as usize / 2;
    let sites = plan.sites();
    let one = plan.datacenters == 1;
    let begun_all = world.micros();
    let begun = cpu_seconds();
    world.cut(|node| if one { node < half } else { sites[node] == 0 });
    world.run_for(plan.cut);
    world.heal(plan.cut);
    let start = world.micros();
    let mut curve = Vec::new();
    let done = world.run_while(STEP, HEAL_TIMEOUT, |world| {
        let united = world.running().into_iter().filter(|node| sees_all(world, *node)).count();
        let at = seconds(world.micros() - start);
        curve.push((at, 100.0 * united as f64 / f64::from(plan.nodes)));
        united == plan.nodes as usize
    });
    let elapsed = seconds(world.micros() - start);
    let virtual_s = seconds(world.micros() - begun_all);
    Report {
        heal_s: Some(if done { elapsed } else { f64::INFINITY }),
        realtime_factor: Some(virtual_s / (cpu_seconds() - begun)),
        curve: Some(("% of nodes that see all live", "seconds", curve)),
        ..Report::default()
    }
}

/// Whether a node considers all others live, and can reach them.
fn sees_all(world: &World, node: usize) -> bool {
    let machines = world.node(node);
    let all = world.running().len() - 1;
    let live = machines.liveness.lives().filter(|(_, life)| life.state.is_live()).count();
    live == all && machines.scheduler.unreachable().is_empty()
}

/// The paper's overload, on the shipped state machines.
pub(super) fn overload(plan: &Plan) -> Result<Report, CliError> {
    let begun = cpu_seconds();
    let (samples, summary) = experiment::overload(plan.seed)?;
    let took = cpu_seconds() - begun;
    let end = samples.last().map_or(0.0, |last| last.at_s);
    let stale = samples.iter().map(|sample| (sample.at_s, sample.staleness.max_s));
    Ok(Report {
        staleness_s_max: Some(summary.max_s),
        onset_staleness_s_max: Some(summary.onset_max_s),
        written_staleness_s_max: Some(summary.written_max_s),
        realtime_factor: Some(end / took),
        curve: Some(("staleness of the most stale entry, s", "seconds", stale.collect())),
        ..Report::default()
    })
}

/// Two nodes that know all others; of ten of these, one of the two knows more.
pub(super) fn reconcile(plan: &Plan) -> Report {
    let mut world = cold_world(plan, plan.seed, plan.nodes);
    warm::know_all(&mut world, plan.nodes as usize, 2);
    let (mut found, mut told, mut exchanges) = (Vec::new(), Vec::new(), 0.0);
    let begun = cpu_seconds();
    for run in 0..plan.runs {
        let others = (2..plan.nodes as usize).sample(&mut world.rng, DIFFERENT);
        world.write_apart(&others, 0, &run.to_string());
        let bytes = world.reconcile(0, 1);
        found.push(bytes.found as f64);
        told.push(bytes.told as f64);
        exchanges += 1.0;
    }
    let took = cpu_seconds() - begun;
    Report {
        reconcile_bytes: Some(mean_and_p99(&mut found)),
        reconcile_news_bytes: Some(mean_and_p99(&mut told)),
        reconciled: Some(world.agree(0, 1)),
        reconcile_cpu_ms: Some(took / exchanges * 1e3),
        ..Report::default()
    }
}

fn mean_and_p99(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * 0.99).ceil() as usize;
    [values.iter().sum::<f64>() / values.len() as f64, values[at.max(1) - 1]]
}

pub(super) fn cold_world(plan: &Plan, seed: u64, running: u32) -> World {
    let sites = plan.sites();
    let wan = u64::try_from(plan.wan_rtt.as_micros()).unwrap_or(u64::MAX);
    let network = Network::new(seed, wan, plan.loss, sites);
    World::large(seed, plan.nodes as usize, plan.settings(running), network)
}

fn warm_world(plan: &Plan, seed: u64, running: u32) -> World {
    let mut world = cold_world(plan, seed, running);
    warm::start(&mut world, running as usize);
    plan.charge(&mut world);
    world
}

/// A warm world, and by how many bytes it has grown for each pair of nodes.
fn measured(plan: &Plan) -> (World, f64) {
    let before = resident_bytes();
    let world = warm_world(plan, plan.seed, plan.nodes);
    let grown = resident_bytes().saturating_sub(before) as f64;
    let nodes = f64::from(plan.nodes);
    (world, grown / (nodes * (nodes - 1.0).max(1.0)))
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Lines of which one of two nodes knows more.
const DIFFERENT: usize = 10;
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// The time to open connections before the measurement.
pub(super) const SETTLE: Duration = Duration::from_secs(4);
/// How often the scenario checks whether it is over: the resolution of `join_s` and `heal_s`.
const STEP: Duration = Duration::from_millis(50);
/// This many updates end before the dead nodes are known to be dead.
const RUNS_PER_WORLD: u32 = 20;
const BETWEEN_RUNS: Duration = Duration::from_millis(60);
/// A tree is at its thinnest after a few writes.
const WARM_UP_WRITES: u32 = 8;
/// An update that has not arrived by then never does.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(10);
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const HEAL_TIMEOUT: Duration = Duration::from_secs(120);
