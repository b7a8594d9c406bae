//! What a run of ten thousand nodes leaves out: heartbeats on connections that are well, and calls of machines that
//! would have no effect.
//!
//! A heartbeat on a connection that is well is noted instead of sent, and counted with its packets later. While
//! nothing is missing a detector is not called at all: the times at which its peers were heard follow from the rule
//! by which they send. A connection on which nothing gets through is *sick*. Its heartbeats go through
//! [`Peering`](crate::protocol::peering::Peering) like those of any node, so that it becomes stale.

use std::time::Duration;

use rand::RngExt;

use super::{
    event::{Machine, What},
    queue::micros,
    wire::Wire,
    world::World,
};
use crate::protocol::{
    id::NodeId,
    liveness::TICKS_PER_INTERVAL,
    peering::{ConnectionId, PeeringInput},
    route::{DetectorInput, Output, Sign, TransportInput},
};

impl World {
    /// Separates the nodes for which `side` holds from the others.
    pub fn cut(&mut self, side: impl Fn(usize) -> bool) {
        self.network.divide(side);
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            let [one, other] = self.wires[&id].slots;
            if !self.network.connects(one, other) {
                self.sicken(id);
            }
        }
    }

    /// All nodes reach each other again. The data that surviving connections held back is sent at their next
    /// probe: those come at growing distances, up to as long again as the cut took.
    pub fn heal(&mut self, took: Duration) {
        self.network.heal();
        let backed_off = micros(took).min(micros(self.settings.idle_timeout) / 2);
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            let wire = &self.wires[&id];
            let there = [0, 1].iter().all(|end| self.runs(wire, *end));
            if wire.beats.sick.is_none() || !wire.is_up() || !there {
                continue;
            }
            let at = self.queue.now() + self.rng.random_range(0..=backed_off);
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            (wire.beats.sick, wire.beats.quiet, wire.beats.counted) = (None, at, 0);
            for end in 0..2 {
                wire.ends[end].received += 1;
            }
            (0..2).for_each(|end| self.pump_at(id, end, at));
        }
    }

    /// Counts all traffic so far.
    pub fn settle_accounts(&mut self) {
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            self.count_heartbeats(id);
        }
    }

    /// Notes heartbeats and probes on connections that are well, and has the others sent.
    pub(super) fn note_heartbeats(&mut self, slot: usize, input: TransportInput) -> Vec<Output> {
        match input {
            TransportInput::Heartbeat { peers, health } => {
                let peers = peers.into_iter().filter(|peer| !self.is_well(slot, peer));
                let peers: Vec<_> = peers.collect();
                if peers.is_empty() {
                    return Vec::new();
                }
                let input = TransportInput::Heartbeat { peers, health };
                self.tell(slot, PeeringInput::Transport(input)).routes
            }
            TransportInput::Probe { probes, health } => {
                let (mut answered, mut lost) = (Vec::new(), Vec::new());
                for (peer, sequence) in probes {
                    if !self.is_well(slot, &peer) {
                        lost.push((peer, sequence));
                    } else if let Some(heard) = self.heard(slot, &peer, Sign::Echo(sequence)) {
                        answered.push(heard);
                    }
                }
                if !lost.is_empty() {
                    let input = TransportInput::Probe { probes: lost, health };
                    answered.extend(self.tell(slot, PeeringInput::Transport(input)).routes);
                }
                answered
            }
            input => self.tell(slot, PeeringInput::Transport(input)).routes,
        }
    }

    /// Whether packets on the connection to a peer get through; if so, both ends have been heard now.
    fn is_well(&mut self, slot: usize, peer: &NodeId) -> bool {
        let now = self.queue.now();
        let Some(id) = self.connection(slot, peer) else { return false };
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.is_well(now)) else {
            return false;
        };
        wire.beats.heard = [now; 2];
        true
    }

    fn heard(&self, slot: usize, peer: &NodeId, sign: Sign) -> Option<Output> {
        let at = self.local(slot);
        let node = self.slots[slot].node.as_ref()?;
        let met = node.peering.met(ConnectionId(self.connection(slot, peer)?))?;
        let heard = DetectorInput::Heard { peer: met.node, generation: met.generation, sign, at };
        Some(Output::Detector(heard))
    }

    /// Reports to the detector of a node the peers that it has heard, up to a moment that has just been or is
    /// now.
    pub(super) fn tell_heard(&mut self, slot: usize, now: u64) {
        if self.switches.packets {
            return;
        }
        let Some(node) = &self.slots[slot].node else { return };
        let links = node.peering.connections().filter_map(|(_, connection)| {
            let (met, wire) = (node.peering.met(connection)?, self.wires.get(&connection.0)?);
            let at = node.clock(self.heard_at(wire, wire.end(slot), now));
            let (peer, generation, sign) = (met.node, met.generation, Sign::Traffic);
            Some(DetectorInput::Heard { peer, generation, sign, at })
        });
        for heard in links.collect::<Vec<_>>() {
            self.input(slot, Machine::Detector, Output::Detector(heard));
        }
    }

    /// When an end of a connection heard the other last, as of now.
    fn heard_at(&self, wire: &Wire, end: usize, now: u64) -> u64 {
        let beats = &wire.beats;
        if !wire.is_well(now) {
            return beats.heard[end];
        }
        self.last_beat(wire, now).unwrap_or(0).max(beats.heard[end]).max(beats.quiet)
    }

    /// The last heartbeat on a connection, if the detector that sends them is not called now.
    fn last_beat(&self, wire: &Wire, now: u64) -> Option<u64> {
        let [dialer, peer] = wire.slots;
        let node = self.slots[dialer].node.as_ref()?;
        let first = node.rest?;
        let turn = node.liveness.heartbeat_tick(&self.slots[peer].name)?;
        let tick = self.tick();
        let ticks = now.checked_sub(node.booted)? / tick;
        let since = (ticks + DETECTOR_TICKS - turn) % DETECTOR_TICKS;
        let at = node.booted + ticks.checked_sub(since)? * tick;
        (at >= first).then_some(at)
    }

    fn tick(&self) -> u64 {
        micros(self.settings.gossip_interval) / DETECTOR_TICKS
    }

    /// Records when both ends of the connections of a node were heard, before its detector is called again or
    /// for the last time.
    pub(super) fn settle_beats(&mut self, slot: usize) {
        let Some(node) = self.slots[slot].node.as_ref().filter(|node| node.rest.is_some()) else {
            return;
        };
        for id in node.wires.clone() {
            self.settle_heard(id);
        }
    }

    fn settle_heard(&mut self, id: u64) {
        let now = self.queue.now();
        let Some(wire) = self.wires.get(&id) else { return };
        let heard = [0, 1].map(|end| self.heard_at(wire, end, now));
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.beats.heard = heard;
        }
    }

    /// Records what was left out on a connection, before an end of it closes.
    pub(super) fn settle_beats_of(&mut self, id: u64) {
        if !self.switches.packets {
            self.count_heartbeats(id);
            self.settle_heard(id);
        }
    }

    /// Both ends of a connection have been heard now, by another packet than a heartbeat.
    pub(super) fn stir(&mut self, id: u64) {
        let now = self.queue.now();
        if let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.beats.sick.is_none()) {
            wire.beats.heard = [now; 2];
        }
    }

    /// Counts the heartbeats that have been sent since the last look.
    fn count_heartbeats(&mut self, id: u64) {
        let (now, interval) = (self.queue.now(), micros(self.settings.gossip_interval));
        let packets = self.switches.packets;
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.is_up() && !packets) else {
            return;
        };
        let beats = &mut wire.beats;
        let upto = beats.sick.unwrap_or(now).min(now);
        let sent = upto.saturating_sub(beats.quiet) / interval;
        for nth in beats.counted + 1..=sent {
            self.network.count_heartbeat(id, nth, wire.slots);
        }
        beats.counted = sent.max(beats.counted);
    }

    /// Nothing gets through on a connection any more.
    pub(super) fn sicken(&mut self, id: u64) {
        if self.switches.packets {
            return;
        }
        let now = self.queue.now();
        self.count_heartbeats(id);
        self.settle_heard(id);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.beats.sick.is_none()) else {
            return;
        };
        wire.beats.sick = Some(now);
        let slots = wire.slots;
        let open = [0, 1].map(|end| wire.ends[end].open);
        for end in (0..2).filter(|end| open[*end]) {
            self.rouse(slots[end]);
            self.after(micros(self.settings.idle_timeout), What::Idle { wire: id, end });
        }
    }

    /// An end may have heard nothing for so long that the connection is given up.
    pub(super) fn idle(&mut self, id: u64, end: usize) {
        let (now, timeout) = (self.queue.now(), micros(self.settings.idle_timeout));
        let Some(wire) = self.wires.get(&id) else { return };
        if wire.beats.sick.is_some() && now - self.heard_at(wire, end, now) >= timeout {
            self.break_end(id, end);
        }
    }

    /// The detector of a node has something to judge again.
    pub(super) fn rouse(&mut self, slot: usize) {
        let (now, tick) = (self.queue.now(), self.tick());
        self.settle_beats(slot);
        let at = &mut self.slots[slot];
        let Some(node) = at.node.as_deref_mut() else { return };
        let Some(first) = node.rest.take() else { return };
        // The ticks that were left out came at `first` and every `tick` after it.
        let left_out = if now < first { 0 } else { (now - first) / tick + 1 };
        let (last, next) = (first + left_out * tick - tick, first + left_out * tick);
        node.wakes[Machine::Detector as usize] += 1;
        let token = node.wakes[Machine::Detector as usize];
        node.liveness.skip_to(node.clock(last));
        let wake = What::Wake { slot, epoch: at.epoch, machine: Machine::Detector, token };
        self.queue.ranked(next, slot as u32 + 1, wake);
        self.tell_heard(slot, now);
    }

    /// Whether a node's detector need not be called before something happens to it.
    pub(super) fn may_rest(&self, slot: usize) -> bool {
        let Some(node) = &self.slots[slot].node else { return false };
        let now = self.queue.now();
        let well = |(_, connection): (&NodeId, ConnectionId)| {
            let wire = self.wires.get(&connection.0);
            wire.is_some_and(|wire| wire.beats.sick.is_none() && wire.beats.quiet <= now)
        };
        self.switches.elide
            && node.liveness.is_at_rest()
            && node.peering.connections().all(well)
            && node.scheduler.neighbours().iter().all(|peer| self.connection(slot, peer).is_some())
    }

    /// A scheduler that was not to be called before something happens is called once its root is another.
    pub(super) fn wake_scheduler(&mut self, slot: usize) {
        let now = self.queue.now();
        let Some(node) = self.node_mut(slot) else { return };
        if node.drowsy.take_if(|root| *root != node.replica.root()).is_some() {
            let clock = node.clock(now);
            node.scheduler.skip_to(clock, true);
            let wait = node.scheduler.due().since(clock);
            self.arm(slot, Machine::Scheduler, wait);
        }
    }
}

impl Wire {
    /// Whether heartbeats get through on it.
    fn is_well(&self, now: u64) -> bool {
        self.beats.sick.is_none() && self.is_up() && now >= self.beats.quiet
    }
}

/// How often silence is judged within one heartbeat interval.
const DETECTOR_TICKS: u64 = TICKS_PER_INTERVAL as u64;
