//! Connections as the network has them: what is on its way, what is acknowledged, and what still gets through.

use std::time::SystemTime;

use gossipmonger::protocol::{
    close::{Close, Closed, Closing},
    gossip::{Gossip, RevocationList},
    id::Generation,
    message::{LENGTH_BYTES, Message},
    peering::{ConnectionId, Next, Packets, PeeringInput, REPLACED, Surroundings},
    rates::Traffic,
    route::{Output, SchedulerInput, StorageInput},
    session::{Met, later_generation},
};
use rand::RngExt;

use super::{Cluster, Heard, Machine, What, Wires};

/// A connection, from the first packet of its handshake on.
pub(super) struct Wire {
    /// Who dialed, and who answered.
    pub(super) slots: [usize; 2],
    pub(super) epochs: [u64; 2],
    pub(super) ends: [End; 2],
    /// The certificates that the two have shown.
    pub(super) certificates: [u64; 2],
    /// What was dialed.
    pub(super) address: String,
    /// When something could last get through.
    alive: u64,
}

/// What one end of a connection has.
#[derive(Default)]
pub(super) struct End {
    /// It has not closed the connection, and has not heard that the other end did.
    pub(super) open: bool,
    /// Its process was told of the end.
    ended: bool,
    /// The peer was admitted, and the connection is served.
    pub(super) introduced: bool,
    pub(super) met: Option<Met>,
    /// With which generation it introduced itself.
    pub(super) own: Generation,
    /// How the other end has closed it.
    closed: Option<(u8, Vec<u8>)>,
    /// How it is to be closed once no exchange is under way.
    finishing: Option<Closing>,
    received: u64,
    packets: Packets,
    /// Bytes of gossip sent, and of these acknowledged.
    sent: u64,
    acknowledged: u64,
    /// Bytes of gossip received.
    delivered: u64,
    /// When the last frame of gossip to this end arrives: a stream keeps its order.
    arrival: u64,
    /// Until when the path away from this end carries what was sent already.
    pub(super) busy: u64,
    /// When this end sends again, if that is settled.
    pumping: Option<u64>,
    /// The timer for what was not acknowledged: the valid one, and how often it has run out.
    timer: u64,
    armed: bool,
    backoff: u32,
}

impl Wire {
    pub(super) fn new(
        slots: [usize; 2],
        epochs: [u64; 2],
        certificates: [u64; 2],
        address: String,
        now: u64,
    ) -> Self {
        let end = || End { open: true, ..End::default() };
        Self { slots, epochs, ends: [end(), end()], certificates, address, alive: now }
    }

    pub(super) fn end(&self, slot: usize) -> usize {
        usize::from(self.slots[0] != slot)
    }
}

/// What a machine may ask.
pub(super) struct View<'a> {
    pub(super) wires: &'a Wires,
    pub(super) slot: usize,
    pub(super) own: Generation,
    pub(super) wall: SystemTime,
}

impl View<'_> {
    fn end(&self, connection: ConnectionId) -> Option<&End> {
        let wire = self.wires.get(&connection.0)?;
        Some(&wire.ends[wire.end(self.slot)])
    }
}

impl Surroundings for View<'_> {
    fn own(&self) -> Generation {
        self.own
    }

    fn wall(&self) -> SystemTime {
        self.wall
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        self.end(connection).is_some_and(|end| end.open)
    }

    fn received(&self, connection: ConnectionId) -> u64 {
        self.end(connection).map_or(0, |end| end.received)
    }

    fn packets(&self, connection: ConnectionId) -> Packets {
        self.end(connection).map_or_else(Packets::default, |end| end.packets)
    }
}

impl Cluster {
    /// The connections of a process that are open at its end.
    pub(super) fn wires_of(&self, slot: usize) -> Vec<u64> {
        let epoch = self.slots[slot].epoch;
        let own = self.wires.iter().filter(|(_, wire)| {
            let end = wire.end(slot);
            wire.slots[end] == slot && wire.epochs[end] == epoch && wire.ends[end].open
        });
        own.map(|(id, _)| *id).collect()
    }

    /// Whether the process at an end still runs.
    pub(super) fn runs(&self, wire: &Wire, end: usize) -> bool {
        let at = &self.slots[wire.slots[end]];
        at.epoch == wire.epochs[end] && at.node.is_some()
    }

    /// The wire, if its process at this end runs and has it open.
    pub(super) fn open_wire(&self, id: u64, end: usize) -> Option<&Wire> {
        self.wires.get(&id).filter(|wire| wire.ends[end].open && self.runs(wire, end))
    }

    fn end_mut(&mut self, id: u64, end: usize) -> Option<&mut End> {
        self.wires.get_mut(&id).map(|wire| &mut wire.ends[end])
    }

    // --- what is sent

    /// Sends a packet that is acknowledged: a datagram, or if it is empty nothing but the request for that.
    pub(super) fn send_datagram(&mut self, id: u64, end: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, end) else { return };
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        let travels = self.network.datagram(&mut self.rng, slot, other);
        if let Some(end) = self.end_mut(id, end) {
            end.packets.sent += 1;
            end.packets.lost += u64::from(travels.is_empty());
        }
        for travel in travels {
            let (to, bytes) = (1 - end, bytes.clone());
            self.at(self.now + travel, What::Datagram { wire: id, to, bytes });
        }
        self.expect(id, end, false);
    }

    /// Has the timer run for what was sent, if it does not yet.
    fn expect(&mut self, id: u64, end: usize, again: bool) {
        let base = 2 * (self.network.delay + self.network.jitter) + ACKNOWLEDGED_AFTER;
        let now = self.now;
        let Some(at) = self.end_mut(id, end) else { return };
        if at.armed && !again {
            return;
        }
        at.armed = true;
        at.timer += 1;
        let timer = at.timer;
        let late = base << at.backoff.min(BACKOFF_MAX);
        self.at(now + late, What::Unacknowledged { wire: id, end, timer });
    }

    /// What was sent was not acknowledged in time: asks for that, less and less often.
    pub(super) fn unacknowledged(&mut self, id: u64, end: usize, timer: u64) {
        if self.open_wire(id, end).is_none() {
            return;
        }
        let Some(at) = self.end_mut(id, end).filter(|at| at.armed && at.timer == timer) else {
            return;
        };
        at.backoff += 1;
        self.send_datagram(id, end, Vec::new());
        self.expect(id, end, true);
    }

    /// When something of this length that an end sends now is on its way.
    pub(super) fn departs(&mut self, id: u64, end: usize, len: usize) -> u64 {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else { return now };
        let rate = self.network.rates.get(&(wire.slots[end], wire.slots[1 - end]));
        let Some(rate) = rate else { return now };
        let at = &mut wire.ends[end];
        at.busy = at.busy.max(now) + len as u64 * 1_000_000 / rate;
        at.busy
    }

    /// Until when an end has to wait since the path is full.
    pub(super) fn is_full(&self, id: u64, end: usize) -> Option<u64> {
        let busy = self.wires.get(&id)?.ends[end].busy;
        (busy > self.now + PATH).then(|| busy - PATH / 2)
    }

    /// Asks the machine at an end for frames of gossip at this time.
    pub(super) fn pump_at(&mut self, id: u64, end: usize, at: u64) {
        let Some(own) = self.end_mut(id, end) else { return };
        if own.pumping.is_none_or(|settled| at < settled) {
            own.pumping = Some(at);
            self.at(at, What::Pump { wire: id, end });
        }
    }

    /// Sends what waits, as far as it may be on its way without an acknowledgement.
    pub(super) fn pump(&mut self, id: u64, end: usize) {
        if self.end_mut(id, end).and_then(|at| at.pumping.take()).is_none() {
            return;
        }
        while let Some(wire) = self.open_wire(id, end).filter(|wire| wire.ends[end].introduced) {
            let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
            if wire.ends[end].sent - wire.ends[end].acknowledged >= WINDOW {
                return;
            }
            if !self.network.reaches(slot, other) || !self.network.reaches(other, slot) {
                return self.pump_at(id, end, self.now + RESEND);
            }
            if let Some(at) = self.is_full(id, end) {
                return self.pump_at(id, end, at);
            }
            match self.peering(slot, PeeringInput::Ready(ConnectionId(id))).next {
                None | Some(Next::Nothing) => return,
                Some(Next::Wait(pause)) => {
                    self.counts.waits += 1;
                    let pause = u64::try_from(pause.as_micros()).unwrap().max(1);
                    return self.pump_at(id, end, self.now + pause);
                }
                Some(Next::Frame(_, bytes)) => self.send_gossip(id, end, bytes.to_vec()),
            }
        }
    }

    fn send_gossip(&mut self, id: u64, end: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, end) else { return };
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        let Some(travel) = self.network.frame(&mut self.rng, slot, other) else {
            return self.break_off(id);
        };
        let departs = self.departs(id, end, bytes.len());
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[end].sent += bytes.len() as u64;
        wire.ends[end].packets.sent += 1;
        let at = (departs + travel).max(wire.ends[1 - end].arrival + 1);
        wire.ends[1 - end].arrival = at;
        self.at(at, What::Gossip { wire: id, to: 1 - end, bytes });
        self.expect(id, end, false);
    }

    // --- what arrives

    /// A packet has arrived; it is acknowledged.
    pub(super) fn arrived(&mut self, id: u64, to: usize) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[to].received += 1;
        let (slot, other, delivered) =
            (wire.slots[to], wire.slots[1 - to], wire.ends[to].delivered);
        if let Some(travel) = self.network.datagram(&mut self.rng, slot, other).first() {
            let at = self.now + travel;
            self.at(at, What::Acknowledged { wire: id, to: 1 - to, delivered });
        }
    }

    pub(super) fn acknowledged(&mut self, id: u64, to: usize, delivered: u64) {
        if self.open_wire(id, to).is_none() {
            return;
        }
        let Some(at) = self.end_mut(id, to) else { return };
        at.received += 1;
        at.backoff = 0;
        at.armed = false;
        at.acknowledged = at.acknowledged.max(delivered);
        if at.sent > at.acknowledged {
            self.expect(id, to, true);
        }
        self.pump_at(id, to, self.now);
    }

    pub(super) fn datagram(&mut self, id: u64, to: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, to) else { return };
        let slot = wire.slots[to];
        self.arrived(id, to);
        if !bytes.is_empty() {
            self.peering(slot, PeeringInput::Datagram(ConnectionId(id), bytes.into()));
        }
    }

    /// A frame of gossip has come. One that comes before its peer is admitted waits.
    pub(super) fn gossip(&mut self, id: u64, to: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, to) else { return };
        if !wire.ends[to].introduced {
            return self.at(self.now + UNREAD, What::Gossip { wire: id, to, bytes });
        }
        let (slot, peer) = (wire.slots[to], wire.slots[1 - to]);
        if let Some(end) = self.end_mut(id, to) {
            end.delivered += bytes.len() as u64;
        }
        self.arrived(id, to);
        let from = self.slots[peer].name.clone();
        let Ok(Message::Gossip(gossip)) = Message::decode(&bytes[LENGTH_BYTES..]) else {
            self.fail("what nodes say can be decoded")
        };
        let connection = ConnectionId(id);
        let admits = |cluster: &mut Self, traffic| {
            cluster.peering(slot, PeeringInput::Admit(connection, traffic)).admitted
        };
        match gossip {
            Gossip::Root(root) => {
                if admits(self, Traffic::Root) {
                    let told = SchedulerInput::Root(from, root);
                    self.input(slot, Machine::Scheduler, Output::Scheduler(told));
                }
            }
            Gossip::Graft(_) if !admits(self, Traffic::Graft) => {}
            Gossip::Revocations(_) | Gossip::RevocationSum(_) if self.deaf.contains(&slot) => {}
            gossip => {
                let told = StorageInput::Gossip(from, Box::new(gossip));
                self.input(slot, Machine::Storage, Output::Storage(told));
            }
        }
        self.peering(slot, PeeringInput::Frame(connection));
    }

    // --- the end

    /// One end closes a connection. The other one hears of it if anything reaches it.
    pub(super) fn close(&mut self, id: u64, end: usize, closing: Closing) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if !std::mem::take(&mut wire.ends[end].open) {
            return;
        }
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        // The tasks of the connection learn of it a moment later.
        let at = self.now + self.rng.random_range(1..=MOMENT);
        self.at(at, What::Ended { wire: id, end });
        if let Some(travel) = self.network.frame(&mut self.rng, slot, other) {
            let (to, code, words) = (1 - end, closing.code as u8, closing.words);
            self.at(self.now + travel, What::Closed { wire: id, to, code, words });
        }
    }

    /// Closes a connection as soon as no exchange is under way on it.
    pub(super) fn finish(&mut self, id: u64, end: usize, closing: Closing) {
        let Some(at) = self.end_mut(id, end) else { return };
        at.finishing = Some(closing);
        self.at(self.now + super::EXCHANGE_TIMEOUT, What::Finish { wire: id, end });
        self.finish_if_idle(id, end);
    }

    pub(super) fn finish_if_idle(&mut self, id: u64, end: usize) {
        if !self.is_under_way(id, end) {
            self.finish_now(id, end);
        }
    }

    pub(super) fn finish_now(&mut self, id: u64, end: usize) {
        if let Some(closing) = self.end_mut(id, end).and_then(|at| at.finishing.take()) {
            self.close(id, end, closing);
        }
    }

    /// A connection that another one has replaced is closed once what is on its way has arrived.
    pub(super) fn retire(&mut self, id: u64, end: usize) {
        if self.is_under_way(id, end) {
            return self.at(self.now + RETIRING, What::Retire { wire: id, end });
        }
        self.close(id, end, Close::Duplicate.with(REPLACED));
    }

    pub(super) fn closed(&mut self, id: u64, to: usize, code: u8, words: Vec<u8>) {
        let Some(at) = self.end_mut(id, to) else { return };
        if std::mem::take(&mut at.open) {
            at.closed = Some((code, words));
            self.connection_ended(id, to);
        }
    }

    /// The process at an end is told that the connection has ended, and why.
    pub(super) fn connection_ended(&mut self, id: u64, end: usize) {
        let Some(at) = self.end_mut(id, end) else { return };
        if std::mem::replace(&mut at.ended, true) {
            return;
        }
        let closed = at.closed.take();
        let wire = &self.wires[&id];
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        if !self.runs(wire, end) {
            return;
        }
        self.peering(slot, PeeringInput::Ended(ConnectionId(id)));
        let peer = self.slots[other].name.clone();
        let closed = closed.as_ref().map(|(code, words)| Closed { code: u64::from(*code), words });
        if let Some(node) = &self.slots[slot].node {
            let own = node.replica.own().generation();
            let later = closed.and_then(|closed| closed.later_generation());
            let later =
                later.and_then(|later| later_generation(later, own, Heard::Said(peer.clone())));
            later.into_iter().for_each(|later| self.input(slot, Machine::Storage, later));
        }
        let statement = closed.and_then(|closed| closed.revocation());
        if let Some(statement) = statement.filter(|_| !self.deaf.contains(&slot)) {
            let list = RevocationList { statements: vec![statement], all: false };
            let told = StorageInput::Gossip(peer, Box::new(Gossip::Revocations(list)));
            self.input(slot, Machine::Storage, Output::Storage(told));
        }
        self.exchanges_ended(id, end);
        if end == 0 {
            let is = |code| closed.is_some_and(|closed| closed.is(code));
            self.dial_ended(slot, id, is(Close::Duplicate));
        }
    }

    /// A connection is gone for whoever still has it.
    pub(super) fn break_off(&mut self, id: u64) {
        for end in [0, 1] {
            let Some(at) = self.end_mut(id, end) else { return };
            if std::mem::take(&mut at.open) {
                let at = self.now + self.rng.random_range(1..=MOMENT);
                self.at(at, What::Ended { wire: id, end });
            }
        }
    }

    /// The process of a machine is gone without a word.
    pub(super) fn vanish(&mut self, slot: usize) {
        let epoch = self.slots[slot].epoch;
        let mut gone = Vec::new();
        for (id, wire) in &mut self.wires {
            for end in [0, 1] {
                if (wire.slots[end], wire.epochs[end]) == (slot, epoch) {
                    wire.ends[end].open = false;
                    wire.ends[end].ended = true;
                    gone.push((*id, end));
                }
            }
        }
        gone.into_iter().for_each(|(id, end)| self.exchanges_vanished(id, end));
    }

    /// Notices that nothing gets through any more.
    pub(super) fn probe(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        let [one, other] = wire.slots;
        let stands = |slot| self.frozen.get(&slot).is_some_and(|until| *until > self.now);
        let through = self.network.reaches(one, other)
            && self.network.reaches(other, one)
            && !stands(one)
            && !stands(other);
        let both = [0, 1].into_iter().all(|end| wire.ends[end].open && self.runs(wire, end));
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if wire.ends.iter().all(|end| end.ended) {
            self.wires.remove(&id);
            return;
        }
        if through && both {
            wire.alive = self.now;
        }
        if self.now - wire.alive >= IDLE_TIMEOUT {
            self.break_off(id);
        }
        self.at(self.now + PROBE, What::Probe { wire: id });
    }
}

/// How often a connection is looked at whether anything gets through, in microseconds.
pub(super) const PROBE: u64 = 1_000_000;
/// After so long without anything a connection is gone, in microseconds.
const IDLE_TIMEOUT: u64 = 30_000_000;
/// After so long a stream tries again what does not get through, in microseconds.
pub(super) const RESEND: u64 = 300_000;
/// Bytes of gossip on their way that are not acknowledged.
const WINDOW: u64 = 64 << 10;
/// A slow path holds so much, in microseconds.
const PATH: u64 = 200_000;
/// An end acknowledges within so long, in microseconds.
const ACKNOWLEDGED_AFTER: u64 = 27_000;
/// The timer for acknowledgements doubles so often at most.
const BACKOFF_MAX: u32 = 10;
/// A task learns what another one did within so long, in microseconds.
const MOMENT: u64 = 500;
/// A replaced connection with an exchange under way is looked at again after so long, in microseconds.
const RETIRING: u64 = 1_000_000;
/// What nobody reads yet is looked at again after so long, in microseconds.
pub(super) const UNREAD: u64 = 1_000;
