//! A cluster that has run for long: all nodes know each other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{event::Machine, slot::number, world::World};
use crate::protocol::{
    delta::NodeDelta,
    digest::DigestEntry,
    id::{Datacenter, NodeId},
    map::{Budget, MapLimits, NodeMap},
    overlay,
    peering::{ConnectionId, Introduced, PeeringInput},
    route::{Output, SchedulerInput, Target},
    session::{FEATURES, Met},
    sketch::Sketch,
    time::Time,
};

/// Starts the first `count` nodes as if they had met long ago.
pub fn start(world: &mut World, count: usize) {
    know_all(world, count, count);
    // There are no events yet: time passes, and each node takes the neighbours that it has computed.
    world.run_for(REST);
    (0..count).for_each(|node| settle(world, node));
    (0..count).for_each(|node| connect(world, node));
    (0..count).for_each(|node| world.set_going(node));
}

/// Puts `count` nodes in place, of which the first few know all others.
pub fn know_all(world: &mut World, count: usize, few: usize) {
    let mut copies = BTreeMap::new();
    for node in 0..count {
        world.slots[node].epoch += 1;
        // Storage is called when it asks for that: a node whose call never comes sends nothing later.
        let mut out = world.install(node);
        out.retain(|output| matches!(output, Output::Wake(_)));
        world.deliver(node, Machine::Storage, out);
        let Some(at) = &world.slots[node].node else { continue };
        let name = world.slots[node].name.clone();
        copies.insert(name.clone(), Arc::new(copy_of(&name, at.replica.own())));
    }
    for node in 0..few {
        // All hold the same lines, so they have the same sums.
        let first = world.slots[0].node.as_ref().filter(|_| node > 0);
        let first = first.map(|first| first.replica.sketch());
        meet_all(world, node, &copies, first);
    }
}

/// Has a node take its neighbours.
fn settle(world: &mut World, node: usize) {
    let name = world.slots[node].name.clone();
    let here = Datacenter::new("here").expect("a label");
    // The location of the node itself has no effect: the scheduler only does what is due. Of what it says only the
    // peers to observe are passed on.
    let clock = world.local(node);
    let Some(at) = world.node_mut(node) else { return };
    let mut out = Vec::new();
    at.scheduler.handle(clock, SchedulerInput::Located(name, here), &mut out);
    out.retain(|output| matches!(output, Output::Detector(_)));
    world.deliver(node, Machine::Scheduler, out);
}

/// Connects a node with those neighbours that it would have dialed.
fn connect(world: &mut World, node: usize) {
    let Some(at) = &world.slots[node].node else { return };
    let peers = at.scheduler.neighbours().to_vec();
    for peer in peers.iter().filter_map(number) {
        let [name, other] = [node, peer].map(|n| &world.slots[n].name);
        let wanted = world.slots[peer].node.as_ref();
        let wanted = wanted.is_some_and(|peer| peer.scheduler.neighbours().contains(name));
        if overlay::dials(name, other) || !wanted {
            link(world, node, peer);
        }
    }
}

/// Puts a connection in place that has existed for long.
fn link(world: &mut World, node: usize, peer: usize) {
    let now = world.queue.now();
    let address = world.slots[peer].address.clone();
    let id = world.new_wire(node, peer, address);
    if let Some(wire) = world.wires.get_mut(&id) {
        wire.beats.quiet = now - now.min(id * 7_919 % 1_000_000);
        wire.ends.iter_mut().for_each(|end| end.introduced = true);
    }
    let connection = ConnectionId(id);
    for (slot, other, dialed) in [(node, peer, true), (peer, node, false)] {
        let generations = [slot, other].map(|n| {
            let node = world.slots[n].node.as_ref();
            node.map_or_else(Default::default, |node| node.replica.own().generation())
        });
        let (node, datacenter) =
            (world.slots[other].name.clone(), world.slots[other].datacenter.clone());
        let features = if world.settings.rules_of(other).trees { FEATURES } else { 0 };
        let new = Introduced {
            connection,
            met: Met { node, generation: generations[1], features },
            own: generations[0],
            dialed,
            proof: "[0, 0]".into(),
            datacenter,
        };
        world.peering(slot, PeeringInput::Introduced(new));
        world.peering(slot, PeeringInput::Frame(connection));
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
    node: usize,
    copies: &BTreeMap<NodeId, Arc<NodeMap>>,
    sums: Option<Sketch>,
) {
    let seeds = world.settings.seeds.iter().copied().zip(world.seeds.clone());
    let seeds = seeds.map(|(slot, address)| (address, world.slots[slot].name.clone()));
    let seeds: Vec<_> = seeds.collect();
    let (clock, name) = (world.local(node), world.slots[node].name.clone());
    let Some(at) = world.node_mut(node) else { return };
    let mut others = copies.clone();
    others.remove(&name);
    let mut out = Vec::new();
    let lives = others.iter().map(|(peer, copy)| (peer.clone(), copy.generation()));
    at.liveness.meet_all(clock, lives);
    let place = |copy: &NodeMap| copy.record().map(|record| record.datacenter.clone());
    let places = others.iter().filter_map(|(peer, copy)| Some((peer.clone(), place(copy)?)));
    at.scheduler.meet_all(clock, places);
    at.replica.adopt(others, sums);
    for (address, seed) in seeds {
        let target = Target::Address(address);
        let met = SchedulerInput::Ended { target, node: Some(seed), ok: true };
        at.scheduler.handle(clock, met, &mut out);
    }
}

/// Longer than a node waits while its neighbours change.
const REST: Duration = Duration::from_secs(60);
