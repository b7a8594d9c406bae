//! A cluster that has run for long: all nodes know each other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{node::number, world::World};
use crate::protocol::{
    delta::NodeDelta,
    digest::DigestEntry,
    id::{Datacenter, NodeId},
    map::{Budget, MapLimits, NodeMap},
    overlay,
    route::{SchedulerInput, Target},
    sketch::Sketch,
    time::Time,
};

/// Starts the first `count` nodes as if they had met long ago.
pub fn start(world: &mut World, count: u32) {
    know_all(world, count, count);
    // There are no events yet: time passes, and each node takes the neighbours that it has computed.
    world.run_for(REST);
    (0..count).for_each(|node| settle(world, node));
    (0..count).for_each(|node| connect(world, node));
    (0..count).for_each(|node| world.set_going(node));
}

/// Puts `count` nodes in place, of which the first few know all others.
pub fn know_all(world: &mut World, count: u32, few: u32) {
    let mut copies = BTreeMap::new();
    for node in 0..count {
        drop(world.install(node));
        let Some(machines) = world.machines(node) else { continue };
        let name = world.nodes[node as usize].name.clone();
        copies.insert(name.clone(), Arc::new(copy_of(&name, machines.replica.own())));
    }
    let seeds = world.seeds();
    for node in 0..few {
        // All hold the same lines, so they have the same sums.
        let first = world.machines(0).filter(|_| node > 0).map(|m| m.replica.sketch());
        meet_all(world, node, &copies, first, &seeds);
    }
}

/// Has a node take its neighbours.
fn settle(world: &mut World, node: u32) {
    let name = world.nodes[node as usize].name.clone();
    let here = Datacenter::new("here").expect("a label");
    // The location of the node itself has no effect: the scheduler only does what is due.
    world.ask_scheduler(node, SchedulerInput::Located(name, here));
}

/// Connects a node with those neighbours that it would have dialed.
fn connect(world: &mut World, node: u32) {
    let Some(machines) = world.machines(node) else { return };
    let peers = machines.scheduler.neighbours().to_vec();
    for peer in peers.iter().filter_map(number) {
        let [name, other] = [node, peer].map(|n| &world.nodes[n as usize].name);
        if overlay::dials(name, other) || !world.is_neighbour(peer, node) {
            world.connect(node, peer);
        }
    }
}

/// The state of a peer that has received everything.
fn copy_of(name: &NodeId, own: &NodeMap) -> NodeMap {
    let mut budget = Budget { bytes: usize::MAX, entries: usize::MAX, untouched: true };
    let unknown = DigestEntry::unknown(name.clone());
    let delta: Option<(NodeDelta, bool)> = own.delta(Time::ZERO, &unknown, &mut budget);
    let mut copy = NodeMap::default();
    let limits =
        MapLimits { keys: usize::MAX, bytes: usize::MAX, key_bytes: 512, value_bytes: 1 << 20 };
    if let Some((delta, _)) = delta {
        copy.apply(Time::ZERO, &delta, &limits).expect("a node's own news is sound");
    }
    copy
}

fn meet_all(
    world: &mut World,
    node: u32,
    copies: &BTreeMap<NodeId, Arc<NodeMap>>,
    sums: Option<Sketch>,
    seeds: &[(String, NodeId)],
) {
    let name = world.nodes[node as usize].name.clone();
    let now = world.now();
    let Some(machines) = world.nodes[node as usize].machines.as_mut() else { return };
    let mut others = copies.clone();
    others.remove(&name);
    let clock = machines.clock(now);
    let mut out = Vec::new();
    let lives = others.iter().map(|(peer, copy)| (peer.clone(), copy.generation()));
    machines.liveness.meet_all(clock, lives);
    let place = |copy: &NodeMap| copy.record().map(|record| record.datacenter.clone());
    let places = others.iter().filter_map(|(peer, copy)| Some((peer.clone(), place(copy)?)));
    machines.scheduler.meet_all(clock, places);
    machines.replica.adopt(others, sums);
    for (address, seed) in seeds {
        let target = Target::Address(address.clone());
        let met = SchedulerInput::Ended { target, node: Some(seed.clone()), ok: true };
        machines.scheduler.handle(clock, met, &mut out);
    }
}

/// Longer than a node waits while its neighbours change.
const REST: Duration = Duration::from_secs(60);
