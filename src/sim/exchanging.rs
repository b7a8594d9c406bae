//! Exchanges on connections: both halves, and what becomes of them when one breaks off.

use std::time::Duration;

use super::{
    connections::RESEND,
    event::{Machine, Payload, Side, What},
    exchange::Exchange,
    introductions::UNREAD,
    network::PING_FRAME,
    queue::micros,
    size::encoded_len,
    world::World,
};
use crate::protocol::{
    exchange::{Ask, Reply, Responder, Step, Summary},
    id::NodeId,
    message::{LENGTH_BYTES, Message},
    peering::{ConnectionId, PeeringInput},
    rates::Traffic,
    route::{Output, SchedulerInput, StorageInput, Target},
    served::DIALER_MAX,
};

impl World {
    /// Whether an exchange is under way at an end of a connection.
    pub(super) fn is_under_way(&self, wire: u64, end: usize) -> bool {
        self.exchanges_at(wire, end).into_iter().any(|(id, side)| {
            self.exchanges.get(&id).is_some_and(|exchange| !exchange.over[side as usize])
        })
    }

    pub(super) fn open_exchange(
        &mut self,
        wire: u64,
        slot: usize,
        target: Target,
        summary: Summary,
        retried: bool,
    ) {
        let end = self.wires[&wire].end(slot);
        self.counts.exchanges += 1;
        let (id, now) = (self.number(), self.queue.now());
        let other = self.wires[&wire].slots[1 - end];
        let late = [slot, other].map(|slot| self.late(slot));
        let (initiator, opening) = summary.clone().open();
        let exchange = Exchange {
            target,
            wire,
            ends: [end, 1 - end],
            summary,
            retried,
            initiator,
            responder: Responder::new(),
            admitted: false,
            pending: [None, None],
            arrivals: [0; 2],
            moved: [now; 2],
            late,
            lingers: false,
            over: [false; 2],
            broken: false,
        };
        self.exchanges.insert(id, exchange);
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.exchanges.push(id);
        }
        let side = Side::Initiator;
        self.after(self.exchange_timeout(), What::TimedOut { exchange: id, side });
        self.drive(id, side, opening);
    }

    /// Does what one half of an exchange says, until it waits for the network.
    fn drive(&mut self, id: u64, side: Side, mut step: Step) {
        while let Some((slot, peer)) = self.at_work(id, side) {
            step = match step {
                Step::Ask(ask) => {
                    let Some(reply) = self.ask(slot, &peer, ask) else { return };
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).reply(reply)
                }
                Step::Send(message) => {
                    let payload = self.encode(id, side, message);
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.pending[side as usize] = Some(payload);
                    if !self.flush(id, side) {
                        return;
                    }
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).sent()
                }
                Step::Read => return,
                Step::Done => return self.through(id, side, peer),
                Step::Broken(breach) if self.switches.checks => {
                    self.fail(format!("an honest peer is blamed: {breach}"))
                }
                Step::Broken(_) => return self.give_up(id, side),
            };
        }
    }

    /// The machine on which a half works, and its peer, unless the half is over or its connection is.
    fn at_work(&self, id: u64, side: Side) -> Option<(usize, NodeId)> {
        let exchange = self.exchanges.get(&id).filter(|it| !it.over[side as usize])?;
        let (wire, end) = exchange.place(side);
        let wire = self.open_wire(wire, end)?;
        Some((wire.slots[end], self.slots[wire.slots[1 - end]].name.clone()))
    }

    pub(super) fn ask(&mut self, slot: usize, peer: &NodeId, ask: Ask) -> Option<Reply> {
        let now = self.local(slot);
        let replica = &mut self.node_mut(slot)?.replica;
        let mut out = Vec::new();
        let reply = replica.serve(now, peer, ask, &mut out);
        self.deliver(slot, Machine::Storage, out);
        self.note_arrivals(slot);
        self.slots[slot].node.is_some().then_some(reply)
    }

    // --- frames

    fn encode(&mut self, id: u64, side: Side, mut message: Message) -> Payload {
        if !self.hooks.liars.is_empty()
            && let Some((slot, peer)) = self.at_work(id, side)
            && let Some(liar) = self.hooks.liars.get_mut(&slot)
            && let Some(node) = &self.slots[slot].node
        {
            let own = (&self.slots[slot].name, node.replica.own());
            liar.message(&mut self.rng, own, &peer, &mut message);
        }
        if !self.switches.codec {
            let len = message_len(&message) + FRAME_BYTES;
            return Payload::Message(Box::new(message), len);
        }
        match message.encode() {
            Ok(bytes) => Payload::Bytes(bytes),
            Err(error) => self.fail(format!("a message does not fit a frame: {error}")),
        }
    }

    /// Sends what a half has to send, unless it has to wait; says whether it did.
    fn flush(&mut self, id: u64, side: Side) -> bool {
        let Some((slot, _)) = self.at_work(id, side) else { return false };
        let exchange = &self.exchanges[&id];
        let Some(len) = exchange.pending[side as usize].as_ref().map(Payload::len) else {
            return false;
        };
        let ((wire, end), broken) = (exchange.place(side), exchange.broken);
        let other = self.wires[&wire].slots[1 - end];
        let now = self.queue.now();
        let cut = !self.network.connects(slot, other);
        let full = self.is_full(wire, end).map(|at| at - now);
        let wait = full.or_else(|| cut.then_some(RESEND)).or_else(|| {
            let wait = self.node(slot).peering.bulk_waits(ConnectionId(wire), self.local(slot))?;
            Some(micros(wait).max(1))
        });
        if let Some(wait) = wait {
            self.after(wait, What::Flush { exchange: id, side });
            return false;
        }
        self.peering(slot, PeeringInput::Bulk(ConnectionId(wire), len));
        let departs = self.departs(wire, end, len);
        // A broken stream is noticed when the exchange times out.
        let travel = self.network.stream(&mut self.rng, now, [slot, other], len);
        let (to, late) = (side.other(), self.late(slot));
        let Some(exchange) = self.exchanges.get_mut(&id) else { return false };
        let Some(payload) = exchange.pending[side as usize].take() else { return false };
        exchange.moved[side as usize] = now;
        exchange.late[side as usize] = late;
        let Some(travel) = travel.filter(|_| !broken) else {
            exchange.broken = true;
            return true;
        };
        let at = (departs + travel).max(exchange.arrivals[to as usize] + 1);
        exchange.arrivals[to as usize] = at;
        self.at(at, What::Frame { exchange: id, to, payload });
        true
    }

    fn exchange_timeout(&self) -> u64 {
        micros(self.settings.exchange_timeout)
    }

    /// What had to wait may go now.
    pub(super) fn flush_again(&mut self, id: u64, side: Side) {
        if self.flush(id, side)
            && let Some(exchange) = self.exchanges.get_mut(&id)
        {
            let step = exchange.half(side).sent();
            self.drive(id, side, step);
        }
    }

    pub(super) fn frame(&mut self, id: u64, to: Side, payload: Payload) {
        let Some((slot, _)) = self.at_work(id, to) else { return };
        let (wire, end) = self.exchanges[&id].place(to);
        if to == Side::Initiator && self.exchanges[&id].lingers {
            return;
        }
        if !self.wires[&wire].ends[end].introduced {
            return self.after(UNREAD, What::Frame { exchange: id, to, payload });
        }
        self.arrived(wire, end);
        let connection = ConnectionId(wire);
        if to == Side::Responder && !self.exchanges[&id].admitted {
            let traffic = Traffic::Exchange(self.settings.exchanges_per_peer);
            let admit = PeeringInput::Admit(connection, traffic);
            if !self.peering(slot, admit).admitted {
                return self.give_up(id, to);
            }
            self.after(self.exchange_timeout(), What::TimedOut { exchange: id, side: to });
        }
        let message = match payload {
            Payload::Message(message, _) => *message,
            Payload::Bytes(bytes) => match Message::decode(&bytes[LENGTH_BYTES..]) {
                Ok(message) => message,
                Err(error) => self.fail(format!("a message cannot be decoded: {error}")),
            },
        };
        if let Message::SynAck { delta, .. } | Message::Ack { delta } | Message::More { delta } =
            &message
        {
            self.bill_news(slot, &delta.nodes);
        }
        let (now, late) = (self.queue.now(), self.late(slot));
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.admitted = true;
        exchange.moved[to as usize] = now;
        exchange.late[to as usize] = late;
        let step = exchange.half(to).frame(message);
        self.drive(id, to, step);
        // Only now: the frame may have introduced the very peer that sent it.
        self.peering(slot, PeeringInput::Frame(connection));
    }

    // --- the end

    /// A half is through, and ends its direction of the stream.
    fn through(&mut self, id: u64, side: Side, peer: NodeId) {
        let now = self.queue.now();
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let (to, target) = (side.other(), exchange.target.clone());
        let at = exchange.arrivals[to as usize].max(now) + 1;
        let ((wire, end), broken) = (exchange.place(side), exchange.broken);
        // The initiator waits until the peer has all of it.
        exchange.lingers |= side == Side::Initiator;
        let slot = self.wires[&wire].slots[end];
        if !broken {
            self.at(at, What::Fin { exchange: id, to });
        }
        if side == Side::Responder {
            return self.is_over(id, side);
        }
        self.at(at + self.network.delay, What::Delivered { exchange: id });
        self.ended(slot, self.slots[slot].epoch, target, Some(peer), true);
    }

    /// The peer has ended its direction of the stream.
    pub(super) fn fin(&mut self, id: u64, to: Side) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        if exchange.over[to as usize] {
            return;
        }
        if to == Side::Responder && exchange.responder.may_end() {
            self.is_over(id, to);
        } else {
            self.break_exchange(id, to);
        }
    }

    pub(super) fn timed_out(&mut self, id: u64, side: Side) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        if exchange.over[side as usize] {
            return;
        }
        let (wire, end) = exchange.place(side);
        let late = self.wires.get(&wire).map_or(Duration::ZERO, |wire| self.late(wire.slots[end]));
        let late = micros(late.saturating_sub(exchange.late[side as usize]));
        let timeout = self.exchange_timeout();
        let patience = (timeout + late).min(timeout * u64::from(DIALER_MAX));
        let due = exchange.moved[side as usize] + patience;
        if self.queue.now() < due {
            return self.at(due, What::TimedOut { exchange: id, side });
        }
        self.give_up(id, side);
    }

    /// A half gives the stream up, and the other one learns of that.
    fn give_up(&mut self, id: u64, side: Side) {
        if let Some((slot, _)) = self.at_work(id, side) {
            let (wire, end) = self.exchanges[&id].place(side);
            let other = self.wires[&wire].slots[1 - end];
            let now = self.queue.now();
            let travel = self.network.stream(&mut self.rng, now, [slot, other], PING_FRAME);
            if let Some(travel) = travel {
                self.after(travel, What::Reset { exchange: id, to: side.other() });
            }
        }
        self.break_exchange(id, side);
    }

    /// A half breaks off. What was applied before that stays: it was whole.
    pub(super) fn break_exchange(&mut self, id: u64, side: Side) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        if exchange.over[side as usize] {
            return;
        }
        let (bulk, lingers) = (exchange.half(side).is_bulk(), exchange.lingers);
        let (target, summary, retried) =
            (exchange.target.clone(), exchange.summary.clone(), exchange.retried);
        let (wire, end) = exchange.place(side);
        let at = self.wires.get(&wire).filter(|wire| self.runs(wire, end));
        let at = at.map(|wire| (wire.slots[end], wire.slots[1 - end], wire.epochs[end]));
        self.is_over(id, side);
        let Some((slot, other, epoch)) = at else { return };
        let peer = self.slots[other].name.clone();
        if bulk && !lingers {
            self.counts.bulk_broken += 1;
            let broken = StorageInput::BulkBroken(peer.clone());
            self.input(slot, Machine::Storage, Output::Storage(broken));
        }
        if side == Side::Responder || lingers {
            return;
        }
        // Two that dial each other at once agree on one connection, and close the other one in the middle of what
        // it is used for.
        match self.connection(slot, &peer).filter(|current| *current != wire && !retried) {
            Some(current) => self.open_exchange(current, slot, target, summary, true),
            None => self.ended(slot, epoch, target, Some(peer), false),
        }
    }

    pub(super) fn delivered(&mut self, id: u64) {
        self.is_over(id, Side::Initiator);
    }

    fn is_over(&mut self, id: u64, side: Side) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.over[side as usize] = true;
        let (wire, end) = exchange.place(side);
        if exchange.over == [true; 2] {
            self.remove_exchange(id, wire);
        }
        self.finish_if_idle(wire, end);
    }

    /// The connection has ended at one end.
    pub(super) fn exchanges_ended(&mut self, wire: u64, end: usize) {
        for (id, side) in self.exchanges_at(wire, end) {
            self.break_exchange(id, side);
        }
    }

    /// The process at one end is gone.
    pub(super) fn exchanges_vanished(&mut self, wire: u64, end: usize) {
        for (id, side) in self.exchanges_at(wire, end) {
            let Some(exchange) = self.exchanges.get_mut(&id) else { continue };
            exchange.over[side as usize] = true;
            if exchange.over == [true; 2] {
                self.remove_exchange(id, wire);
            }
        }
    }

    fn remove_exchange(&mut self, id: u64, wire: u64) {
        self.exchanges.remove(&id);
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.exchanges.retain(|other| *other != id);
        }
    }

    fn exchanges_at(&self, wire: u64, end: usize) -> Vec<(u64, Side)> {
        let ids = self.wires.get(&wire).map_or(&[][..], |wire| &wire.exchanges);
        let halves = ids.iter().filter_map(|id| {
            let exchange = self.exchanges.get(id)?;
            let sides = [Side::Initiator, Side::Responder];
            let side = sides.into_iter().find(|side| exchange.place(*side) == (wire, end))?;
            Some((*id, side))
        });
        halves.collect()
    }

    /// Tells the scheduler that an exchange has ended.
    pub(super) fn ended(
        &mut self,
        slot: usize,
        epoch: u64,
        target: Target,
        node: Option<NodeId>,
        ok: bool,
    ) {
        if self.slots[slot].epoch == epoch {
            let ended = SchedulerInput::Ended { target, node, ok };
            self.input(slot, Machine::Scheduler, Output::Scheduler(ended));
        }
    }
}

/// Length, kind and version of a frame.
pub(super) const FRAME_BYTES: usize = 6;

/// Bytes of a message without the length, kind and version of its frame.
pub(super) fn message_len(message: &Message) -> usize {
    match message {
        Message::SynAck { wants, delta } => encoded_len(wants) + encoded_len(delta),
        Message::Ack { delta } | Message::More { delta } => encoded_len(delta),
        Message::Gossip(gossip) => encoded_len(gossip),
        // Messages without an update are short, except for the digest of an exchange, which is rare.
        _ => message.encode().map_or(0, |frame| frame.len() - FRAME_BYTES),
    }
}
