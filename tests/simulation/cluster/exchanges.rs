//! Exchanges on connections: both halves, and what becomes of them when one breaks off.

use gossipmonger::protocol::{
    exchange::{Ask, Half, Initiator, Reply, Responder, Step, Summary},
    id::NodeId,
    message::{FRAME_BYTES_MAX, LENGTH_BYTES, Message, frame_len},
    peering::{ConnectionId, PeeringInput},
    rates::Traffic,
    route::{Output, SchedulerInput, StorageInput, Target},
};

use super::{Cluster, Machine, Side, What, wires::RESEND};

/// An exchange under way.
pub(super) struct Exchange {
    target: Target,
    wire: u64,
    /// Which ends of the connection the halves are at.
    ends: [usize; 2],
    /// What it was opened with.
    summary: Summary,
    /// It was begun on another connection, which broke off.
    retried: bool,
    initiator: Initiator,
    responder: Responder,
    /// The first frame has come, and was within the rates of the peer.
    admitted: bool,
    /// What each half is to send next, and may not yet.
    pending: [Option<Vec<u8>>; 2],
    /// When the last frame to each half arrives: streams keep their order.
    arrivals: [u64; 2],
    /// When anything last moved at each half.
    moved: [u64; 2],
    /// The initiator is through, and waits for its last frame to arrive.
    lingers: bool,
    /// Each half is through, or has given up.
    over: [bool; 2],
    /// A frame was lost for good, so nothing that is sent later arrives.
    broken: bool,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

impl Exchange {
    fn half(&mut self, side: Side) -> &mut dyn Half {
        match side {
            Side::Initiator => &mut self.initiator,
            Side::Responder => &mut self.responder,
        }
    }

    pub(super) const fn place(&self, side: Side) -> (u64, usize) {
        (self.wire, self.ends[side as usize])
    }
}

impl Cluster {
    /// Whether an exchange is under way at an end of a connection.
    pub(super) fn is_under_way(&self, wire: u64, end: usize) -> bool {
        self.exchanges.values().any(|exchange| {
            let sides = [Side::Initiator, Side::Responder];
            let mut here = sides.into_iter().filter(|side| exchange.place(*side) == (wire, end));
            here.any(|side| !exchange.over[side as usize])
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
        self.scheduled += 1;
        let (id, now) = (self.scheduled, self.now);
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
            lingers: false,
            over: [false; 2],
            broken: false,
        };
        self.exchanges.insert(id, exchange);
        let side = Side::Initiator;
        self.at(now + super::EXCHANGE_TIMEOUT, What::TimedOut { exchange: id, side });
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
                    let bytes = self.encode(id, side, message);
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.pending[side as usize] = Some(bytes);
                    if !self.flush(id, side) {
                        return;
                    }
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).sent()
                }
                Step::Read => return,
                Step::Done => return self.through(id, side, peer),
                Step::Broken(breach) => self.fail(format!("an honest peer is blamed: {breach}")),
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

    fn ask(&mut self, slot: usize, peer: &NodeId, ask: Ask) -> Option<Reply> {
        let now = self.local(slot);
        let replica = &mut self.slots[slot].node.as_mut()?.replica;
        let mut out = Vec::new();
        let reply = replica.serve(now, peer, ask, &mut out);
        self.deliver(slot, Machine::Storage, out);
        self.slots[slot].node.is_some().then_some(reply)
    }

    // --- frames

    fn encode(&mut self, id: u64, side: Side, mut message: Message) -> Vec<u8> {
        if let Some((slot, peer)) = self.at_work(id, side)
            && let Some(liar) = self.liars.get_mut(&slot)
            && let Some(node) = &self.slots[slot].node
        {
            let own = (&self.slots[slot].name, node.replica.own());
            liar.message(&mut self.rng, own, &peer, &mut message);
        }
        message.encode().expect("what nodes say fits a frame")
    }

    /// Sends what a half has to send, unless it has to wait; says whether it did.
    fn flush(&mut self, id: u64, side: Side) -> bool {
        let Some((slot, _)) = self.at_work(id, side) else { return false };
        let exchange = &self.exchanges[&id];
        let Some(len) = exchange.pending[side as usize].as_ref().map(Vec::len) else {
            return false;
        };
        let ((wire, end), broken) = (exchange.place(side), exchange.broken);
        let other = self.wires[&wire].slots[1 - end];
        let cut = !self.network.reaches(slot, other) || !self.network.reaches(other, slot);
        let full = self.is_full(wire, end).map(|at| at - self.now);
        let wait = full.or_else(|| cut.then_some(RESEND)).or_else(|| {
            let now = self.local(slot);
            let wait = self.node(slot).peering.bulk_waits(ConnectionId(wire), now)?;
            Some(u64::try_from(wait.as_micros()).unwrap().max(1))
        });
        if let Some(wait) = wait {
            self.at(self.now + wait, What::Flush { exchange: id, side });
            return false;
        }
        self.peering(slot, PeeringInput::Bulk(ConnectionId(wire), len));
        let departs = self.departs(wire, end, len);
        // A broken stream is noticed when the exchange times out.
        let travel = self.network.frame(&mut self.rng, slot, other).filter(|_| !broken);
        let (now, to) = (self.now, side.other());
        let Some(exchange) = self.exchanges.get_mut(&id) else { return false };
        let Some(bytes) = exchange.pending[side as usize].take() else { return false };
        exchange.moved[side as usize] = now;
        let Some(travel) = travel else {
            exchange.broken = true;
            return true;
        };
        let at = (departs + travel).max(exchange.arrivals[to as usize] + 1);
        exchange.arrivals[to as usize] = at;
        self.at(at, What::Frame { exchange: id, to, bytes });
        true
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

    pub(super) fn frame(&mut self, id: u64, to: Side, bytes: Vec<u8>) {
        let Some((slot, _)) = self.at_work(id, to) else { return };
        let (wire, end) = self.exchanges[&id].place(to);
        if to == Side::Initiator && self.exchanges[&id].lingers {
            return;
        }
        if !self.wires[&wire].ends[end].introduced {
            let what = What::Frame { exchange: id, to, bytes };
            return self.at(self.now + super::wires::UNREAD, what);
        }
        self.arrived(wire, end);
        let connection = ConnectionId(wire);
        if to == Side::Responder && !self.exchanges[&id].admitted {
            let admit = PeeringInput::Admit(connection, Traffic::Exchange(EXCHANGES_PER_PEER));
            if !self.peering(slot, admit).admitted {
                return self.give_up(id, to);
            }
            let timed_out = What::TimedOut { exchange: id, side: to };
            self.at(self.now + super::EXCHANGE_TIMEOUT, timed_out);
        }
        let (length, frame) = bytes.split_at(LENGTH_BYTES);
        let len = frame_len(length.try_into().expect("four bytes"), FRAME_BYTES_MAX);
        assert_eq!(len, Ok(frame.len()));
        let message = Message::decode(frame).expect("what nodes say can be decoded");
        let now = self.now;
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.admitted = true;
        exchange.moved[to as usize] = now;
        let step = exchange.half(to).frame(message);
        self.drive(id, to, step);
        // Only now: the frame may have introduced the very peer that sent it.
        self.peering(slot, PeeringInput::Frame(connection));
    }

    // --- the end

    /// A half is through, and ends its direction of the stream.
    fn through(&mut self, id: u64, side: Side, peer: NodeId) {
        let now = self.now;
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
        let due = exchange.moved[side as usize] + super::EXCHANGE_TIMEOUT;
        if exchange.over[side as usize] {
            return;
        }
        if self.now < due {
            return self.at(due, What::TimedOut { exchange: id, side });
        }
        self.give_up(id, side);
    }

    /// A half gives the stream up, and the other one learns of that.
    fn give_up(&mut self, id: u64, side: Side) {
        if let Some((slot, _)) = self.at_work(id, side) {
            let (wire, end) = self.exchanges[&id].place(side);
            let other = self.wires[&wire].slots[1 - end];
            if let Some(travel) = self.network.frame(&mut self.rng, slot, other) {
                self.at(self.now + travel, What::Reset { exchange: id, to: side.other() });
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
            self.exchanges.remove(&id);
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
                self.exchanges.remove(&id);
            }
        }
    }

    fn exchanges_at(&self, wire: u64, end: usize) -> Vec<(u64, Side)> {
        let sides = [Side::Initiator, Side::Responder];
        let all = self.exchanges.iter();
        let halves = all.flat_map(|(id, exchange)| sides.map(|side| (*id, side, exchange)));
        let here = halves.filter(|(_, side, exchange)| exchange.place(*side) == (wire, end));
        here.map(|(id, side, _)| (id, side)).collect()
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

/// Exchanges that a peer may begin in a second.
const EXCHANGES_PER_PEER: u32 = 500;
