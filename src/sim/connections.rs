//! Connections as the network has them: what is on its way, what is acknowledged, and what still gets through.

use bytes::Bytes;
use rand::RngExt;

use super::{
    cpu::Work,
    event::{Machine, What},
    introductions::{PROBE, UNREAD},
    network::{ACK_FRAME, HEARTBEAT_FRAME, PING_FRAME},
    queue::micros,
    wire::{End, Wire},
    world::World,
};
use crate::protocol::{
    claim::Heard,
    close::{Close, Closed, Closing},
    exchange::Ask,
    gossip::{Gossip, RevocationList},
    id::NodeId,
    message::{LENGTH_BYTES, Message},
    peering::{ConnectionId, Next, PeeringInput, REPLACED},
    rates::Traffic,
    route::{Output, SchedulerInput, StorageInput},
    session::later_generation,
    skim::{Heading, skim},
};

impl World {
    /// The connections of a process that are open at its end.
    pub(super) fn wires_of(&self, slot: usize) -> Vec<u64> {
        let Some(node) = &self.slots[slot].node else { return Vec::new() };
        let open =
            |id: &&u64| self.wires.get(id).is_some_and(|wire| wire.ends[wire.end(slot)].open);
        node.wires.iter().filter(open).copied().collect()
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

    pub(super) fn end_mut(&mut self, id: u64, end: usize) -> Option<&mut End> {
        self.wires.get_mut(&id).map(|wire| &mut wire.ends[end])
    }

    // --- what is sent

    /// Sends a packet that is acknowledged: a datagram, or if it is empty nothing but the request for that.
    pub(super) fn send_datagram(&mut self, id: u64, end: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, end) else { return };
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        let body = if bytes.is_empty() { PING_FRAME } else { HEARTBEAT_FRAME };
        let now = self.queue.now();
        if !self.switches.packets {
            // Only on a connection on which nothing gets through.
            return;
        }
        let travels = self.network.datagram(&mut self.rng, now, [slot, other], body);
        if let Some(end) = self.end_mut(id, end) {
            end.packets.sent += 1;
            end.packets.lost += u64::from(travels.is_empty());
        }
        for travel in travels {
            let (to, bytes) = (1 - end, bytes.clone());
            self.at(now + travel, What::Datagram { wire: id, to, bytes });
        }
        self.expect(id, end, false);
    }

    /// Has the timer run for what was sent, if it does not yet.
    fn expect(&mut self, id: u64, end: usize, again: bool) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let late = self.network.probe_timeout(wire.slots[end], wire.slots[1 - end]);
        let timer = &mut wire.ends[end].timer;
        if !self.switches.packets || (timer.armed && !again) {
            return;
        }
        timer.armed = true;
        timer.number += 1;
        let (late, timer) = (late << timer.backoff.min(BACKOFF_MAX), timer.number);
        self.after(late, What::Unacknowledged { wire: id, end, timer });
    }

    /// What was sent was not acknowledged in time: asks for that, less and less often.
    pub(super) fn unacknowledged(&mut self, id: u64, end: usize, timer: u64) {
        if self.open_wire(id, end).is_none() {
            return;
        }
        let due = |at: &&mut End| at.timer.armed && at.timer.number == timer;
        let Some(at) = self.end_mut(id, end).filter(due) else { return };
        at.timer.backoff += 1;
        self.send_datagram(id, end, Vec::new());
        self.expect(id, end, true);
    }

    /// When something of this length that an end sends now is on its way.
    pub(super) fn departs(&mut self, id: u64, end: usize, len: usize) -> u64 {
        let now = self.queue.now();
        let Some(wire) = self.wires.get_mut(&id) else { return now };
        let rate = self.network.rates.get(&(wire.slots[end], wire.slots[1 - end]));
        let Some(rate) = rate else { return now };
        let stream = &mut wire.ends[end].stream;
        stream.busy = stream.busy.max(now) + len as u64 * 1_000_000 / rate;
        stream.busy
    }

    /// Until when an end has to wait since the path is full.
    pub(super) fn is_full(&self, id: u64, end: usize) -> Option<u64> {
        let busy = self.wires.get(&id)?.ends[end].stream.busy;
        (busy > self.queue.now() + PATH).then(|| busy - PATH / 2)
    }

    /// Asks the machine at an end for frames of gossip at this time.
    pub(super) fn pump_at(&mut self, id: u64, end: usize, at: u64) {
        let Some(own) = self.end_mut(id, end) else { return };
        if own.stream.pumping.is_none_or(|settled| at < settled) {
            own.stream.pumping = Some(at);
            self.at(at, What::Pump { wire: id, end });
        }
    }

    /// Sends what waits, as far as it may be on its way without an acknowledgement.
    pub(super) fn pump(&mut self, id: u64, end: usize) {
        if self.end_mut(id, end).and_then(|at| at.stream.pumping.take()).is_none() {
            return;
        }
        while let Some(wire) = self.open_wire(id, end).filter(|wire| wire.ends[end].introduced) {
            let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
            let (now, sick) = (self.queue.now(), wire.beats.sick.is_some());
            if !self.has_window(id, end) {
                return;
            }
            if sick && !self.switches.packets {
                // It goes on when the network heals.
                return;
            }
            if !self.network.connects(slot, other) {
                return self.pump_at(id, end, now + RESEND);
            }
            if let Some(at) = self.is_full(id, end) {
                return self.pump_at(id, end, at);
            }
            match self.peering(slot, PeeringInput::Ready(ConnectionId(id))).next {
                None | Some(Next::Nothing) => return,
                Some(Next::Wait(pause)) => {
                    self.counts.waits += 1;
                    return self.pump_at(id, end, now + micros(pause).max(1));
                }
                Some(Next::Frame(_, bytes)) => self.send_gossip(id, end, bytes),
            }
        }
    }

    /// Whether an end may have more on its way without an acknowledgement.
    fn has_window(&mut self, id: u64, end: usize) -> bool {
        let now = self.queue.now();
        let Some(wire) = self.wires.get_mut(&id) else { return false };
        let stream = &mut wire.ends[end].stream;
        while let Some((at, bytes)) = stream.under_way.front().copied().filter(|(at, _)| *at <= now)
        {
            stream.acknowledged += bytes;
            stream.under_way.pop_front();
            debug_assert!(at <= now);
        }
        if stream.sent - stream.acknowledged < WINDOW {
            return true;
        }
        if let Some((at, _)) = stream.under_way.front().copied() {
            self.pump_at(id, end, at);
        }
        false
    }

    fn send_gossip(&mut self, id: u64, end: usize, bytes: Bytes) {
        let Some(wire) = self.open_wire(id, end) else { return };
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        let now = self.queue.now();
        let travel = self.network.stream(&mut self.rng, now, [slot, other], bytes.len());
        let Some(travel) = travel else { return self.break_off(id) };
        let departs = self.departs(id, end, bytes.len());
        let back = self.network.travel(&mut self.rng, other, slot);
        let packets = self.switches.packets;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let at = (departs + travel).max(wire.ends[1 - end].stream.arrival + 1);
        wire.ends[1 - end].stream.arrival = at;
        let from = &mut wire.ends[end];
        from.stream.sent += bytes.len() as u64;
        from.packets.sent += 1;
        if !packets {
            from.stream.under_way.push_back((at + back, bytes.len() as u64));
        }
        self.at(at, What::Gossip { wire: id, to: 1 - end, bytes });
        self.expect(id, end, false);
    }

    // --- what arrives

    /// A packet has arrived; it is acknowledged.
    pub(super) fn arrived(&mut self, id: u64, to: usize) {
        if !self.switches.packets {
            return self.stir(id);
        }
        let now = self.queue.now();
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[to].received += 1;
        let (slot, other, delivered) =
            (wire.slots[to], wire.slots[1 - to], wire.ends[to].stream.delivered);
        if self.network.reaches(slot, other) && !self.network.is_lost(&mut self.rng, now, other) {
            let travel = self.network.travel(&mut self.rng, slot, other);
            self.at(now + travel, What::Acknowledged { wire: id, to: 1 - to, delivered });
        }
    }

    pub(super) fn acknowledged(&mut self, id: u64, to: usize, delivered: u64) {
        if self.open_wire(id, to).is_none() {
            return;
        }
        let Some(at) = self.end_mut(id, to) else { return };
        at.received += 1;
        at.timer.backoff = 0;
        at.timer.armed = false;
        at.stream.acknowledged = at.stream.acknowledged.max(delivered);
        if at.stream.sent > at.stream.acknowledged {
            self.expect(id, to, true);
        }
        self.pump_at(id, to, self.queue.now());
    }

    pub(super) fn datagram(&mut self, id: u64, to: usize, bytes: Vec<u8>) {
        let Some(wire) = self.open_wire(id, to) else { return };
        let (slot, other) = (wire.slots[to], wire.slots[1 - to]);
        // Streams count the acknowledgements of their packets themselves.
        self.network.count(slot, other, ACK_FRAME, 1);
        self.arrived(id, to);
        if !bytes.is_empty() {
            self.peering(slot, PeeringInput::Datagram(ConnectionId(id), bytes.into()));
        }
    }

    /// A frame of gossip has come. One that comes before its peer is admitted waits.
    pub(super) fn gossip(&mut self, id: u64, to: usize, bytes: Bytes) {
        let Some(wire) = self.open_wire(id, to) else { return };
        if !wire.ends[to].introduced {
            return self.after(UNREAD, What::Gossip { wire: id, to, bytes });
        }
        let (slot, peer) = (wire.slots[to], wire.slots[1 - to]);
        if let Some(end) = self.end_mut(id, to) {
            end.stream.delivered += bytes.len() as u64;
        }
        self.arrived(id, to);
        let connection = ConnectionId(id);
        let admits = |world: &mut Self, traffic| {
            world.peering(slot, PeeringInput::Admit(connection, traffic)).admitted
        };
        let told = match self.has_processors() {
            true => skim(&bytes[LENGTH_BYTES..]).map_or(0, |headings| headings.len() as u64),
            false => 0,
        };
        self.counts.received += told;
        if self.is_known(slot, &bytes[LENGTH_BYTES..]) && admits(self, Traffic::Duplicate) {
            let headings = skim(&bytes[LENGTH_BYTES..]).unwrap_or_default();
            self.counts.news += headings.len() as u64;
            self.bill(Work::News, |costs| costs.duplicate * told);
            let repeated = headings.iter().filter_map(Heading::have).collect();
            let peer = self.slots[peer].name.clone();
            self.ask(slot, &peer, Ask::Repeated(repeated));
            return self.dealt_with(slot, connection);
        }
        let from = self.slots[peer].name.clone();
        let Ok(Message::Gossip(gossip)) = Message::decode(&bytes[LENGTH_BYTES..]) else {
            self.fail("what nodes say can be decoded")
        };
        if let Some((_, delta)) = gossip.news() {
            self.counts.news += delta.nodes.len() as u64;
            self.bill_news(slot, &delta.nodes);
        }
        match gossip {
            Gossip::Root(root) => {
                if admits(self, Traffic::Root) {
                    let told = SchedulerInput::Root(from, root);
                    self.input(slot, Machine::Scheduler, Output::Scheduler(told));
                }
            }
            Gossip::Graft(_) if !admits(self, Traffic::Graft) => {}
            Gossip::Revocations(_) | Gossip::RevocationSum(_)
                if self.hooks.deaf.contains(&slot) => {}
            gossip => {
                let told = StorageInput::Gossip(from, Box::new(gossip));
                self.input(slot, Machine::Storage, Output::Storage(told));
            }
        }
        self.dealt_with(slot, connection);
        self.note_arrivals(slot);
    }

    /// A frame of gossip was dealt with. Where heartbeats are left out, both ends have been heard already.
    fn dealt_with(&mut self, slot: usize, connection: ConnectionId) {
        if self.switches.packets {
            self.peering(slot, PeeringInput::Frame(connection));
        }
    }

    /// Whether readers of a process have the news in a frame already; without readers, whether its storage has.
    fn is_known(&self, slot: usize, frame: &[u8]) -> bool {
        let Some(node) = &self.slots[slot].node else { return false };
        let known = |news: &Heading<'_>| {
            if self.hooks.witness.is_some() {
                return node.views.get(news.node).is_some_and(|map| news.is_within(&map.reach()));
            }
            let copy = NodeId::new(news.node).ok().and_then(|owner| node.replica.copy(&owner));
            copy.is_some_and(|copy| news.is_within(&copy.reach()))
        };
        skim(frame).is_some_and(|headings| headings.iter().all(known))
    }

    // --- the end

    /// One end closes a connection. The other one hears of it if anything reaches it.
    pub(super) fn close(&mut self, id: u64, end: usize, closing: Closing) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if !wire.ends[end].open {
            return;
        }
        self.settle_beats_of(id);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[end].open = false;
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        // The tasks of the connection learn of it a moment later.
        let moment = self.rng.random_range(1..=MOMENT);
        self.after(moment, What::Ended { wire: id, end });
        if let Some(travel) = self.network.close(&mut self.rng, slot, other) {
            let (to, code, words) = (1 - end, closing.code as u8, closing.words);
            self.after(travel, What::Closed { wire: id, to, code, words });
        }
    }

    /// Closes a connection as soon as no exchange is under way on it.
    pub(super) fn finish(&mut self, id: u64, end: usize, closing: Closing) {
        let Some(at) = self.end_mut(id, end) else { return };
        at.finishing = Some(closing);
        self.after(micros(self.settings.exchange_timeout), What::Finish { wire: id, end });
        self.finish_if_idle(id, end);
    }

    pub(super) fn finish_if_idle(&mut self, id: u64, end: usize) {
        let finishing = self.wires.get(&id).is_some_and(|wire| wire.ends[end].finishing.is_some());
        if finishing && !self.is_under_way(id, end) {
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
            return self.after(RETIRING, What::Retire { wire: id, end });
        }
        self.close(id, end, Close::Duplicate.with(REPLACED));
    }

    pub(super) fn closed(&mut self, id: u64, to: usize, code: u8, words: Vec<u8>) {
        self.settle_beats_of(id);
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
        if let Some(statement) = statement.filter(|_| !self.hooks.deaf.contains(&slot)) {
            let list = RevocationList { statements: vec![statement], all: false };
            let told = StorageInput::Gossip(peer, Box::new(Gossip::Revocations(list)));
            self.input(slot, Machine::Storage, Output::Storage(told));
        }
        self.exchanges_ended(id, end);
        if end == 0 {
            let is = |code| closed.is_some_and(|closed| closed.is(code));
            self.dial_ended(slot, id, is(Close::Duplicate));
        }
        if !self.switches.packets {
            self.remove_ended(id);
        }
    }

    /// A connection is gone for both ends.
    pub(super) fn break_off(&mut self, id: u64) {
        (0..2).for_each(|end| self.break_end(id, end));
    }

    /// A connection is gone for one end.
    pub(super) fn break_end(&mut self, id: u64, end: usize) {
        self.settle_beats_of(id);
        let Some(at) = self.end_mut(id, end) else { return };
        if std::mem::take(&mut at.open) {
            let moment = self.rng.random_range(1..=MOMENT);
            self.after(moment, What::Ended { wire: id, end });
        }
    }

    /// The process of a machine is gone without a word.
    pub(super) fn vanish(&mut self, slot: usize) {
        self.settle_beats(slot);
        self.drop_work(slot);
        let Some(node) = self.slots[slot].node.as_deref_mut() else { return };
        for id in std::mem::take(&mut node.wires) {
            self.sicken(id);
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            let end = wire.end(slot);
            wire.ends[end].open = false;
            wire.ends[end].ended = true;
            self.exchanges_vanished(id, end);
            self.remove_ended(id);
        }
    }

    /// Forgets a connection that has ended at both ends.
    pub(super) fn remove_ended(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        if !wire.ends.iter().all(|end| end.ended) {
            return;
        }
        for slot in wire.slots {
            if let Some(node) = self.node_mut(slot) {
                node.wires.remove(&id);
            }
        }
        self.wires.remove(&id);
        self.handshakes.remove(&id);
    }

    /// Notices that nothing gets through any more.
    pub(super) fn probe(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        let [one, other] = wire.slots;
        let stands = |slot| self.frozen(slot).is_some();
        let through = self.network.connects(one, other) && !stands(one) && !stands(other);
        let both = [0, 1].into_iter().all(|end| wire.ends[end].open && self.runs(wire, end));
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let now = self.queue.now();
        if through && both {
            wire.alive = now;
        }
        if wire.ends.iter().all(|end| end.ended) {
            return self.remove_ended(id);
        }
        if now - wire.alive >= micros(self.settings.idle_timeout) {
            self.break_off(id);
        }
        self.after(PROBE, What::Probe { wire: id });
    }
}

/// After so long a stream tries again what does not get through, in microseconds.
pub(super) const RESEND: u64 = 300_000;
/// Bytes of gossip on their way that are not acknowledged.
const WINDOW: u64 = 64 << 10;
/// A slow path holds so much, in microseconds.
const PATH: u64 = 200_000;
/// The timer for acknowledgements doubles so often at most.
const BACKOFF_MAX: u32 = 10;
/// A task learns what another one did within so long, in microseconds.
const MOMENT: u64 = 500;
/// A replaced connection with an exchange under way is looked at again after so long, in microseconds.
const RETIRING: u64 = 1_000_000;
