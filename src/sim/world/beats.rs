//! Heartbeats, probes and their answers, packet by packet: nothing is left out here.
//!
//! A datagram is never sent again, but QUIC notices that it is not acknowledged and probes the path (RFC 9002
//! section 6.2), which is a sign of life as well for the receiver. The two ends of a connection find the
//! packets that they have received when they look at it, ten times in an interval. A packet is acknowledged
//! after 25 ms, or at once if it is the second unacknowledged one; a timer is armed only where a packet is
//! known to be lost or late, since it would find everything acknowledged elsewhere.

use rand::RngExt;

use super::{
    super::network::{ACK_FRAME, HEARTBEAT_FRAME, PING_FRAME},
    Machine, What, World, micros,
};
use crate::protocol::{
    id::NodeId,
    liveness::TICKS_PER_INTERVAL,
    message::Call,
    route::{DetectorInput, Output, Sign},
};

/// One end of a connection, as far as packets without streams are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// When this end last sent a packet that is to be acknowledged, and up to which ones were.
    sent: u64,
    acked: u64,
    /// How often in a row it has probed the path.
    probed: u32,
    armed: bool,
    /// When its next acknowledgement goes out.
    acks_at: u64,
    /// Whether an acknowledgement is looked for, and when the last heartbeat came.
    expects: bool,
    beaten: u64,
    /// How slow the other end says it is.
    health: u8,
    /// Packets sent, and lost, since the loss was last looked at, and what it was.
    packets: u32,
    lost: u32,
    loss: f64,
}

/// A packet that is to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) connection: u32,
    /// The end that it is sent to.
    pub(super) to: u8,
    sent: u64,
    /// The packets that it acknowledges itself.
    acks: u64,
    /// Its contents, if any.
    content: Option<(Call, u64, u8)>,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub(super) connection: u32,
    /// The end that it is sent to.
    pub(super) to: u8,
    sent: u64,
    acks: u64,
}

/// The packets that a node received since it last looked at its connections: the sender, the time, and
/// whether it was a heartbeat.
pub type News = Vec<(u32, u64, bool)>;

impl World {
    /// From now on heartbeats are packets like others, and nothing is left out.
    pub const fn send_heartbeats(&mut self) {
        (self.whole, self.elide) = (true, false);
    }

    /// A node begins to look at its connections.
    pub(super) fn begin_looking(&mut self, node: u32) {
        let every = self.look_interval();
        let after = self.rng.random_range(0..every);
        let epoch = self.nodes[node as usize].epoch;
        self.queue.ranked(self.now() + after, node + 1, What::Look { node, epoch, nth: 1 });
    }

    fn look_interval(&self) -> u64 {
        (self.interval() / u64::from(TICKS_PER_INTERVAL)).max(LOOK_MIN)
    }

    /// Sends a datagram on the connection to a peer, if there is one.
    pub(super) fn datagram(&mut self, node: u32, peer: u32, call: Call, number: u64, health: u8) {
        let Some(connection) = self.machines(node).and_then(|m| m.link(peer)) else { return };
        let c = &mut self.connections[connection as usize];
        let end = usize::from(c.ends[0] != node);
        c.life[end].expects = true;
        if let Some(machines) = self.nodes[node as usize].machines.as_mut() {
            machines.news.retain(|(from, _, is_beat)| *from != peer || *is_beat);
        }
        self.send_packet(connection, end, Some((call, number, health)), 0);
    }

    fn send_packet(
        &mut self,
        connection: u32,
        end: usize,
        content: Option<(Call, u64, u8)>,
        acks: u64,
    ) {
        let now = self.now();
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let body = if content.is_some() { HEARTBEAT_FRAME } else { PING_FRAME };
        self.network.count(node, peer, body, 1);
        let e = &mut c.life[end];
        (e.sent, e.packets) = (now, e.packets + 1);
        if !self.network.reaches(node, peer) || self.network.is_lost(&mut self.rng, now, peer) {
            e.lost += 1;
            return self.arm_probe(connection, end);
        }
        let at = now + self.network.travel(&mut self.rng, node, peer);
        if self.network.faults().stalled(peer, at).is_some() {
            self.arm_probe(connection, end);
        }
        let to = 1 - end as u8;
        self.queue.at(at, What::Packet(Packet { connection, to, sent: now, acks, content }));
    }

    pub(super) fn packet(&mut self, packet: Packet) {
        let Packet { connection, to, sent, acks, content } = packet;
        let (end, now) = (usize::from(to), self.now());
        let c = &self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        if !c.up[end] || self.nodes[node as usize].epoch != c.epochs[end] || !self.runs(node) {
            return self.arm_probe(connection, 1 - end);
        }
        let is_beat = matches!(content, Some((Call::Beat | Call::Probe, ..)));
        self.received(connection, end, now, is_beat);
        self.acknowledged(connection, end, acks);
        let Some((call, number, health)) = content else {
            return self.acknowledge(connection, end, sent, true);
        };
        let told = &mut self.connections[connection as usize].life[end].health;
        if call != Call::Echo && std::mem::replace(told, health) != health {
            let name = self.nodes[peer as usize].name.clone();
            let health = Output::Detector(DetectorInput::Health(name, health));
            self.input(node, Machine::Detector, health);
        }
        match call {
            Call::Beat => self.acknowledge(connection, end, sent, false),
            Call::Probe => self.send_packet(connection, end, Some((Call::Echo, number, 0)), sent),
            Call::Echo => {
                self.acknowledge(connection, end, sent, false);
                let there = self.machines(peer).map(|m| m.replica.own().generation());
                if let Some(generation) = there {
                    self.heard(node, peer, generation, Sign::Echo(number));
                }
            }
        }
    }

    /// An end has to acknowledge the packets sent until `acks`.
    fn acknowledge(&mut self, connection: u32, end: usize, acks: u64, at_once: bool) {
        let now = self.now();
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let e = &mut c.life[end];
        // The second one is answered at once, and both are.
        let sent = if at_once || e.acks_at > now {
            now
        } else {
            let due = now + ACK_DELAY;
            e.acks_at = due;
            self.network.faults().stalled(node, due).unwrap_or(due)
        };
        self.network.count(node, peer, ACK_FRAME, 1);
        if !self.network.reaches(node, peer) || self.network.is_lost(&mut self.rng, sent, peer) {
            return self.arm_probe(connection, 1 - end);
        }
        let at = sent + self.network.travel(&mut self.rng, node, peer);
        let to = 1 - end as u8;
        self.queue.at(at, What::Acked(Acknowledgement { connection, to, sent, acks }));
    }

    pub(super) fn acked(&mut self, acknowledgement: Acknowledgement) {
        let Acknowledgement { connection, to, sent, acks } = acknowledgement;
        let (end, now) = (usize::from(to), self.now());
        let c = &self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        if self.nodes[node as usize].epoch != c.epochs[end] || !self.runs(node) {
            return;
        }
        // It died before it could say so.
        if self.nodes[peer as usize].crashed.is_some_and(|at| at < sent) {
            return self.arm_probe(connection, end);
        }
        self.received(connection, end, now, false);
        self.acknowledged(connection, end, acks);
    }

    fn acknowledged(&mut self, connection: u32, end: usize, acks: u64) {
        let e = &mut self.connections[connection as usize].life[end];
        if acks > 0 {
            (e.acked, e.probed) = (e.acked.max(acks), 0);
        }
    }

    /// An end will find that a packet is not acknowledged.
    fn arm_probe(&mut self, connection: u32, end: usize) {
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let e = &mut c.life[end];
        if std::mem::replace(&mut e.armed, true) {
            return;
        }
        let at = e.sent + (self.network.probe_timeout(node, peer) << e.probed.min(PROBES_MAX));
        self.queue.at(at, What::Unacknowledged { connection, end: end as u8 });
    }

    /// It looks whether there is.
    pub(super) fn unacknowledged(&mut self, connection: u32, end: usize) {
        let now = self.now();
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let e = &mut c.life[end];
        e.armed = false;
        let (acked, due) = (e.acked >= e.sent, self.network.probe_timeout(node, peer));
        let due = e.sent + (due << e.probed.min(PROBES_MAX));
        let alive = c.up[end] && self.nodes[node as usize].epoch == c.epochs[end];
        if acked || !alive || self.nodes[node as usize].machines.is_none() {
            return;
        }
        if now < due {
            return self.arm_probe(connection, end);
        }
        e.probed += 1;
        self.send_packet(connection, end, None, 0);
    }

    /// A packet arrived at an end of a connection.
    pub(super) fn received(&mut self, connection: u32, end: usize, at: u64, is_beat: bool) {
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        c.heard[end] = at;
        if is_beat {
            c.life[end].beaten = at;
        }
        if let Some(machines) = self.nodes[node as usize].machines.as_mut() {
            machines.news.push((peer, at, is_beat));
        }
    }

    /// A node looks at its connections, and its detector at all peers.
    pub(super) fn look(&mut self, node: u32, epoch: u32, nth: u64) {
        let (now, interval) = (self.now(), self.config.gossip_interval);
        if self.nodes[node as usize].epoch != epoch {
            return;
        }
        let Some(machines) = self.nodes[node as usize].machines.as_mut() else { return };
        let mut news = std::mem::take(&mut machines.news);
        // Of each peer the last heartbeat or, if there was none, the fact that a packet came.
        news.sort_unstable_by_key(|(peer, at, is_beat)| (*peer, !is_beat, std::cmp::Reverse(*at)));
        news.dedup_by_key(|(peer, ..)| *peer);
        let (mut heard, mut later) = (Vec::with_capacity(news.len()), News::new());
        for (peer, at, is_beat) in news {
            let Some(machines) = self.machines(node) else { return };
            let Some(connection) = machines.link(peer) else { continue };
            let c = &mut self.connections[connection as usize];
            let end = usize::from(c.ends[0] != node);
            let e = &mut c.life[end];
            // Only then the connection itself is asked: that costs more than all the rest.
            let is_due = e.expects || (end == 1 && now - e.beaten >= micros(interval));
            if !is_beat && !is_due && !nth.is_multiple_of(FULL_LOOKS) {
                later.push((peer, at, is_beat));
                continue;
            }
            e.expects = is_beat && e.expects;
            let Some(machines) = self.machines(node) else { return };
            let name = &self.nodes[peer as usize].name;
            let there = self.machines(peer).map(|m| m.replica.own().generation());
            let known = || machines.replica.copy(name).map(|copy| copy.generation());
            let Some(generation) = there.or_else(known) else { continue };
            let (sign, at) = if is_beat { (Sign::Heartbeat, at) } else { (Sign::Traffic, now) };
            heard.push((name.clone(), generation, sign, machines.clock(at)));
        }
        if let Some(machines) = self.nodes[node as usize].machines.as_mut() {
            machines.news = later;
        }
        if nth.is_multiple_of(LOSS_LOOKS) {
            self.measure_losses(node);
        }
        self.input(node, Machine::Detector, Output::Detector(DetectorInput::HeardAll(heard)));
        let next = What::Look { node, epoch, nth: nth + 1 };
        self.queue.ranked(now + self.look_interval(), node + 1, next);
    }

    /// Sends the detector the measurements of a node's connections.
    fn measure_losses(&mut self, node: u32) {
        let mut told: Vec<(NodeId, f64)> = Vec::new();
        let Some(machines) = self.nodes[node as usize].machines.as_ref() else { return };
        for (peer, connection) in &machines.links {
            let c = &mut self.connections[*connection as usize];
            let e = &mut c.life[usize::from(c.ends[0] != node)];
            let (packets, lost) = (std::mem::take(&mut e.packets), std::mem::take(&mut e.lost));
            if packets == 0 {
                continue;
            }
            let before = e.loss;
            let weight = (f64::from(packets) / LOSS_PACKETS).min(1.0);
            e.loss += (f64::from(lost) / f64::from(packets) - before) * weight;
            if (e.loss - before).abs() > LOSS_STEP {
                told.push((self.nodes[*peer as usize].name.clone(), e.loss));
            }
        }
        for (peer, loss) in told {
            let loss = Output::Detector(DetectorInput::Loss(peer, loss));
            self.input(node, Machine::Detector, loss);
        }
    }

    fn runs(&self, node: u32) -> bool {
        self.nodes[node as usize].machines.is_some()
    }

    /// A frame of a stream arrived; its acknowledgement, unless it is lost, is not far.
    pub(super) fn stream_received(&mut self, connection: u32, end: usize) {
        let now = self.now();
        self.received(connection, end, now, false);
        let sender = self.connections[connection as usize].ends[1 - end];
        if !self.network.is_lost(&mut self.rng, now, sender) {
            self.received(connection, 1 - end, now, false);
        }
    }

    /// The origin of the clock of a node that starts now: no two tick together.
    pub(super) fn origin(&mut self) -> u64 {
        let now = self.now();
        if !self.whole {
            return now;
        }
        let span = micros(self.config.gossip_interval);
        now.saturating_sub(self.rng.random_range(0..span))
    }
}

/// max_ack_delay, in microseconds.
const ACK_DELAY: u64 = 25_000;
/// The time between two probes of the path is doubled this often at most: to about half a minute.
const PROBES_MAX: u32 = 10;
/// Connections are not looked at more often than this, in microseconds.
const LOOK_MIN: u64 = 5_000;
/// Every this many looks all connections are asked.
const FULL_LOOKS: u64 = 5;
/// How often the loss is looked at, in looks; and as it is measured by a real node.
const LOSS_LOOKS: u64 = 100;
const LOSS_PACKETS: f64 = 120.0;
const LOSS_STEP: f64 = 0.002;
