//! How a process comes by a connection: dials, introductions both ways, and who waits for them.

use rand::RngExt;

use super::{
    dial::{Dial, Purpose},
    event::{Machine, What},
    network::{HELLO_FRAME, PING_FRAME},
    queue::micros,
    slot::{Node, wall},
    wire::{View, Wire},
    world::World,
};
use crate::protocol::{
    close::Close,
    delta::Delta,
    gossip::Gossip,
    id::{ClusterId, Generation, NodeId},
    message::{Hello, LENGTH_BYTES, Message},
    peering::{ConnectionId, HURRY_AFTER, Introduced, PeeringInput, REPLACED_GRACE, Settled},
    route::{Output, SchedulerInput, StorageInput, Target},
    served::DIALER_MAX,
    session::{Met, Session, Unwelcome},
};

impl World {
    fn view<'a>(&'a self, slot: usize, node: &Node) -> View<'a> {
        let own = node.replica.own().generation();
        View { wires: &self.wires, slot, own, wall: wall(self.queue.now(), self.slots[slot].skew) }
    }

    /// The open connection to a peer.
    pub(super) fn connection(&self, slot: usize, peer: &NodeId) -> Option<u64> {
        let node = self.slots[slot].node.as_ref()?;
        node.peering.connection(&self.view(slot, node), peer).map(|connection| connection.0)
    }

    fn barred(&self, slot: usize, peer: &NodeId) -> Option<String> {
        let node = self.slots[slot].node.as_ref()?;
        node.peering.barred(peer, self.local(slot)).map(|(_, why)| why)
    }

    /// A connection that this process dialed to an address, unless it has been silent for too long.
    fn dialed_at(&self, slot: usize, address: &str) -> Option<u64> {
        let node = self.slots[slot].node.as_ref()?;
        let (view, now) = (self.view(slot, node), self.local(slot));
        let mut all = node.peering.connections().map(|(_, connection)| connection);
        let there = all.find(|connection| {
            let wire = &self.wires[&connection.0];
            let dialed = node.peering.is_dialed(*connection) && wire.ends[0].open;
            dialed && wire.address == address && !node.peering.is_stale(now, &view, *connection)
        });
        there.map(|connection| connection.0)
    }

    /// Comes by a connection: the one there is, or a new one.
    pub(super) fn reach(&mut self, slot: usize, target: &Target, purpose: Purpose) {
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        match target {
            Target::Peer(peer) => {
                let fresh = node.peering.fresh(self.local(slot), &self.view(slot, node), peer);
                if fresh.is_some() || self.barred(slot, peer).is_some() {
                    let node = fresh.map(|_| peer.clone());
                    return self.reached(slot, fresh.map(|it| it.0), node, purpose);
                }
                let Some(node) = self.slots[slot].node.as_mut() else { return };
                let same = |dial: &&mut Dial| dial.wanted() == Some(peer);
                if let Some(dial) = node.dials.values_mut().find(same) {
                    return dial.purposes.push(purpose);
                }
            }
            Target::Address(address) => {
                if let Some(wire) = self.dialed_at(slot, address) {
                    let peer = self.slots[self.wires[&wire].slots[1]].name.clone();
                    return self.reached(slot, Some(wire), Some(peer), purpose);
                }
            }
        }
        self.begin_dial(slot, target, purpose);
    }

    /// Dials once more the other end of a connection: an end has another certificate.
    pub(super) fn renew(&mut self, id: u64) {
        let Some(wire) = self.open_wire(id, 0) else { return };
        let (slot, other) = (wire.slots[0], wire.slots[1]);
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        let peer = self.slots[other].name.clone();
        let claimed = node.dials.values().any(|dial| dial.wanted() == Some(&peer));
        if node.peering.is_current(ConnectionId(id)) && !claimed {
            self.begin_dial(slot, &Target::Peer(peer), Purpose::Replace);
        }
    }

    /// Dials a peer, whatever connection there is, unless it is being dialed.
    pub(super) fn dial_anew(&mut self, slot: usize, peer: NodeId) {
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        if node.dials.values().any(|dial| dial.wanted() == Some(&peer)) {
            return;
        }
        self.begin_dial(slot, &Target::Peer(peer), Purpose::Replace);
    }

    fn begin_dial(&mut self, slot: usize, target: &Target, purpose: Purpose) {
        self.counts.dials += 1;
        let (id, begun) = (self.number(), self.queue.now());
        let epoch = self.slots[slot].epoch;
        let patience = self.patience(slot, self.settings.handshake_timeout, DIALER_MAX);
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let address = match target {
            Target::Address(address) => Some(address.clone()),
            Target::Peer(peer) => {
                let record = node.replica.copy(peer).and_then(|copy| copy.record());
                record.and_then(|record| record.addresses.first().cloned())
            }
        };
        let timeout = micros(self.settings.handshake_timeout);
        let wait = if address.is_some() { timeout } else { NOWHERE };
        let (own, target) = (node.replica.own().generation(), target.clone());
        let dial = Dial {
            target,
            address,
            own,
            begun,
            patience,
            round: 0,
            wire: None,
            purposes: vec![purpose],
        };
        node.dials.insert(id, dial);
        self.after(wait, What::Undone { slot, epoch, dial: id, round: 0 });
        self.knock(slot, epoch, id, 0, 0);
    }

    /// Others say that a peer lives: a handshake with it that has waited for an answer begins anew, and a silent
    /// connection is replaced.
    pub(super) fn hurry(&mut self, slot: usize, peer: &NodeId, stale: bool) {
        let (now, epoch) = (self.queue.now(), self.slots[slot].epoch);
        let patience = self.patience(slot, self.settings.handshake_timeout, DIALER_MAX);
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let of_it = |(_, dial): &(&u64, &mut Dial)| dial.wanted() == Some(peer);
        let Some((id, dial)) = node.dials.iter_mut().find(of_it) else {
            if stale {
                self.counts.hurried += 1;
                self.reach(slot, &Target::Peer(peer.clone()), Purpose::Replace);
            }
            return;
        };
        if dial.round > 0 || now - dial.begun < micros(HURRY_AFTER) {
            return;
        }
        (dial.round, dial.begun, dial.patience) = (1, now, patience);
        self.counts.hurried += 1;
        let (id, before) = (*id, dial.wire.take());
        if let Some(before) = before {
            self.close(before, 0, Close::Unneeded.with("begun anew"));
        }
        self.at(
            now + micros(self.settings.handshake_timeout),
            What::Undone { slot, epoch, dial: id, round: 1 },
        );
        self.knock(slot, epoch, id, 1, 0);
    }

    /// Sends the first packet of a handshake, for the first time or again.
    pub(super) fn knock(&mut self, slot: usize, epoch: u64, id: u64, round: u32, number: u32) {
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        let Some(dial) = node.dials.get(&id) else { return };
        if self.slots[slot].epoch != epoch || dial.wire.is_some() || dial.round != round {
            return;
        }
        let Some(address) = dial.address.clone() else { return };
        let wanted = dial.wanted().cloned();
        let again = What::Knock { slot, epoch, dial: id, round, number: number + 1 };
        self.after(AGAIN << number, again);
        let there = self.find(&address).filter(|other| self.network.connects(slot, *other));
        let now = self.queue.now();
        if let Some(other) = there.filter(|other| self.is_awaited(slot, *other, wanted.as_ref())) {
            let wire = self.new_wire(slot, other, address);
            if let Some(dial) = self.node_mut(slot).and_then(|node| node.dials.get_mut(&id)) {
                dial.wire = Some(wire);
            }
            return self.begin_handshake(wire);
        }
        let shaken = there.and_then(|other| {
            let breaks = self.network.breakage > 0.0 && self.rng.random_bool(self.network.breakage);
            let shaken = self.network.handshake(&mut self.rng, now, [slot, other]);
            shaken.filter(|_| !breaks).map(|shaken| (other, shaken))
        });
        let Some((other, shaken)) = shaken else {
            return self
                .network
                .unanswered(slot, there.or_else(|| self.nowhere(&address)).unwrap_or(slot));
        };
        let name = self.slots[other].name.clone();
        if other == slot {
            // The node has dialed itself.
            return self.after(shaken, What::Refused { slot, epoch, dial: id, by: Some(name) });
        }
        if wanted.is_some_and(|wanted| wanted != name) || self.refuses(slot, other) {
            return self.after(shaken, What::Refused { slot, epoch, dial: id, by: None });
        }
        let wire = self.new_wire(slot, other, address);
        if let Some(dial) = self.node_mut(slot).and_then(|node| node.dials.get_mut(&id)) {
            dial.wire = Some(wire);
        }
        let Ok(bytes) = Message::Hello(self.hello(slot, &name)).encode() else { return };
        self.after(shaken, What::Hello { wire, bytes });
    }

    /// Whether a handshake with the machine that answers goes on as work: there are processors, and the machine is the
    /// one that is wanted.
    fn is_awaited(&self, slot: usize, other: usize, wanted: Option<&NodeId>) -> bool {
        let same = wanted.is_none_or(|wanted| *wanted == self.slots[other].name);
        self.has_processors() && same && other != slot && !self.refuses(slot, other)
    }

    /// A new connection between two processes.
    pub(super) fn new_wire(&mut self, slot: usize, other: usize, address: String) -> u64 {
        let (wire, now) = (self.number(), self.queue.now());
        let of = |slot: usize| (self.slots[slot].epoch, self.slots[slot].certificate);
        let ((one, ours), (two, theirs)) = (of(slot), of(other));
        let new = Wire::new([slot, other], [one, two], [ours, theirs], address, now);
        self.wires.insert(wire, new);
        for end in [slot, other] {
            if let Some(node) = self.node_mut(end) {
                node.wires.insert(wire);
            }
        }
        if self.switches.packets {
            self.after(PROBE, What::Probe { wire });
        }
        wire
    }

    /// The machine that was at an address, for the account of packets to it.
    fn nowhere(&self, address: &str) -> Option<usize> {
        number_at(address).filter(|n| *n < self.slots.len())
    }

    /// The machine at an address, whoever runs there.
    fn find(&self, address: &str) -> Option<usize> {
        let runs = |n: &usize| self.slots[*n].node.is_some();
        if let Some(named) = self.names.get(address) {
            return Some(*named).filter(runs);
        }
        let at = |n: &usize| self.slots[*n].address == address && runs(n);
        if let Some(n) = number_at(address).filter(|n| *n < self.slots.len()) {
            return Some(n).filter(at);
        }
        (0..self.slots.len()).find(at)
    }

    pub(super) fn hello(&self, slot: usize, to: &NodeId) -> Hello {
        let node = self.node(slot);
        node.session.hello(node.replica.own().generation(), self.known(slot, to))
    }

    fn known(&self, slot: usize, peer: &NodeId) -> Generation {
        let copy = self.slots[slot].node.as_ref().and_then(|node| node.replica.copy(peer));
        copy.map_or(Generation::ZERO, |copy| copy.generation())
    }

    /// The answering end hears the one that has dialed, and introduces itself.
    pub(super) fn heard_hello(&mut self, id: u64, bytes: &[u8]) {
        let Some(wire) = self.open_wire(id, 1) else { return };
        let [dialer, slot] = wire.slots;
        let own = self.node(slot).replica.own().generation();
        let Ok(Message::Hello(hello)) = Message::decode(&bytes[LENGTH_BYTES..]) else {
            self.fail("what nodes say can be decoded")
        };
        let Some(met) = self.judge(id, 1, &hello, None) else { return };
        let welcome = Message::Welcome(self.hello(slot, &met.node));
        let Ok(welcome) = welcome.encode() else { return };
        let view = self.node(slot).views.get(&met.node);
        let later = view.filter(|view| view.generation > met.generation);
        let later = later.and_then(|view| view.signed_head(&met.node)).and_then(|head| {
            let news = Gossip::Push(Delta { nodes: vec![head], more: false });
            news.encode().ok()
        });
        let now = self.queue.now();
        let travel = self.network.stream(&mut self.rng, now, [slot, dialer], HELLO_FRAME);
        let Some(travel) = travel else { return self.break_off(id) };
        self.counts.handshakes.accepted += 1;
        self.welcome(id, travel, welcome, later);
        let early = met.generation < self.known(slot, &met.node);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[1].own = own;
            wire.ends[1].met = Some(met);
        }
        if early {
            // The connection is about to be closed, and what tells the peer of its later life is to arrive first.
            let back = self.network.stream(&mut self.rng, now, [dialer, slot], PING_FRAME);
            let back = back.unwrap_or_else(|| micros(self.settings.handshake_timeout));
            self.after(travel + back, What::Adopt { wire: id });
        } else {
            self.adopt(id, 1);
        }
    }

    /// The end that has dialed hears the one that answers.
    pub(super) fn heard_welcome(&mut self, id: u64, bytes: &[u8], later: Option<Vec<u8>>) {
        let Some(wire) = self.open_wire(id, 0) else { return };
        let [slot, other] = wire.slots;
        let Some((dial, wanted, own)) = self.dial_of(slot, id) else { return };
        let Ok(Message::Welcome(hello)) = Message::decode(&bytes[LENGTH_BYTES..]) else {
            self.fail("what nodes say can be decoded")
        };
        let Some(met) = self.judge(id, 0, &hello, wanted.as_ref()) else {
            return self.dialed(slot, dial, None, None);
        };
        let from = self.slots[other].name.clone();
        if hello.known > own
            && let Some(later) = later
            && let Ok(Message::Gossip(news)) = Message::decode(&later[LENGTH_BYTES..])
        {
            let shown = StorageInput::Gossip(from.clone(), Box::new(news));
            self.input(slot, Machine::Storage, Output::Storage(shown));
        }
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[0].own = own;
            wire.ends[0].met = Some(met);
        }
        self.counts.handshakes.finished += 1;
        let link = self.adopt(id, 0);
        self.dialed(slot, dial, link, Some(from));
    }

    /// Judges how the other end introduces itself, and closes the connection if it is not admitted.
    fn judge(
        &mut self,
        id: u64,
        end: usize,
        hello: &Hello,
        wanted: Option<&NodeId>,
    ) -> Option<Met> {
        let wire = &self.wires[&id];
        let (slot, other) = (wire.slots[end], wire.slots[1 - end]);
        let proved = self.slots[other].name.clone();
        if let Some(why) = self.barred(slot, &proved) {
            self.close(id, end, Close::Misbehaviour.with(why));
            return None;
        }
        if self.refuses(slot, other) {
            self.close(id, end, Close::Unwelcome.with("revoked"));
            return None;
        }
        let (node, mut out) = (self.node(slot), Vec::new());
        let here = (node.replica.own().generation(), wall(self.queue.now(), self.slots[slot].skew));
        let met = node.session.judge(hello, &proved, wanted, here, &mut out);
        self.deliver(slot, Machine::Transport, out);
        self.slots[slot].node.as_ref()?;
        match met {
            Ok(met) => Some(met),
            Err(unwelcome) => {
                if !matches!(unwelcome, Unwelcome::Twin | Unwelcome::Unexpected { .. }) {
                    self.fail(format!("n{slot} rejects {proved}: {unwelcome}"));
                }
                let closing = Close::from(&unwelcome).with(unwelcome.to_string());
                self.close(id, end, closing);
                None
            }
        }
    }

    /// Takes a connection whose peer was admitted; returns the one to be used for its peer.
    pub(super) fn adopt(&mut self, id: u64, end: usize) -> Option<u64> {
        let wire = self.open_wire(id, end)?;
        let (slot, other, own) = (wire.slots[end], wire.slots[1 - end], wire.ends[end].own);
        let (proof, met) = (format!("{:?}", wire.certificates).into(), wire.ends[end].met.clone()?);
        let datacenter = self.slots[other].datacenter.clone();
        let connection = ConnectionId(id);
        let new = Introduced { connection, met, own, dialed: end == 0, proof, datacenter };
        match self.peering(slot, PeeringInput::Introduced(new)).settled {
            Some(Settled::Kept) => self.counts.connected += u64::from(end == 1),
            Some(Settled::Renews(old)) => {
                self.counts.renewed += 1;
                let (wire, end) = (old.0, self.wires[&old.0].end(slot));
                self.after(micros(REPLACED_GRACE), What::Retire { wire, end });
            }
            Some(Settled::Duplicate(stays)) => {
                self.counts.duplicates += 1;
                return Some(stays.0);
            }
            Some(Settled::Outlived | Settled::Ended) | None => return None,
        }
        let now = self.queue.now();
        let wire = self.wires.get_mut(&id)?;
        wire.ends[end].introduced = true;
        (wire.beats.heard[end], wire.beats.quiet) = (now, now);
        self.peering(slot, PeeringInput::Frame(connection));
        Some(id)
    }

    // --- what comes of a dial

    /// The dial that a connection comes from, whom it wants, and the generation with which it began.
    fn dial_of(&self, slot: usize, wire: u64) -> Option<(u64, Option<NodeId>, Generation)> {
        let node = self.slots[slot].node.as_ref()?;
        let (id, dial) = node.dials.iter().find(|(_, dial)| dial.wire == Some(wire))?;
        Some((*id, dial.wanted().cloned(), dial.own))
    }

    /// The handshake was refused, or the node has dialed itself.
    pub(super) fn refused(&mut self, slot: usize, epoch: u64, dial: u64, by: Option<NodeId>) {
        if self.slots[slot].epoch == epoch {
            self.dialed(slot, dial, None, by);
        }
    }

    /// No peer has answered in time.
    pub(super) fn undone(&mut self, slot: usize, epoch: u64, id: u64, round: u32) {
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        let Some(dial) = node.dials.get(&id) else { return };
        if self.slots[slot].epoch != epoch || dial.round != round {
            return;
        }
        if let Some(left) = dial.wire.and_then(|_| self.left(slot, &dial.patience)) {
            return self.after(left, What::Undone { slot, epoch, dial: id, round });
        }
        if let Some(wire) = dial.wire {
            self.counts.handshakes.dialer_timeouts += 1;
            self.close(wire, 0, Close::Timeout.with("no introduction in time"));
        }
        self.dialed(slot, id, None, None);
    }

    /// A connection has ended before its peer was admitted; `duplicate`: since another one stays.
    pub(super) fn dial_ended(&mut self, slot: usize, wire: u64, duplicate: bool) {
        let Some((dial, ..)) = self.dial_of(slot, wire) else { return };
        let peer = self.slots[self.wires[&wire].slots[1]].name.clone();
        let peer = Some(peer).filter(|_| duplicate);
        let link = peer.as_ref().and_then(|peer| self.connection(slot, peer));
        self.dialed(slot, dial, link, peer);
    }

    fn dialed(&mut self, slot: usize, id: u64, link: Option<u64>, by: Option<NodeId>) {
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let Some(dial) = node.dials.remove(&id) else { return };
        // What has waited for long may yet be answered.
        let link = link.or_else(|| self.connection(slot, dial.wanted()?));
        let by = by.or_else(|| dial.wanted().filter(|_| link.is_some()).cloned());
        for purpose in dial.purposes {
            self.reached(slot, link, by.clone(), purpose);
        }
    }

    fn reached(&mut self, slot: usize, link: Option<u64>, node: Option<NodeId>, purpose: Purpose) {
        let (epoch, soon) = (self.slots[slot].epoch, self.queue.now() + UNREAD);
        match (purpose, link) {
            (Purpose::Exchange(target, summary), Some(wire)) => {
                self.open_exchange(wire, slot, target, summary, false);
            }
            (Purpose::Exchange(target, _), None) => {
                self.at(soon, What::Unreached { slot, epoch, target, node });
            }
            (Purpose::Dial(peer), None) => self.at(soon, What::Undialed { slot, epoch, peer }),
            (Purpose::Dial(_), Some(_)) | (Purpose::Replace, _) => {}
        }
    }

    /// A peer that was to be dialed is not connected.
    pub(super) fn undialed(&mut self, slot: usize, epoch: u64, peer: NodeId) {
        if self.slots[slot].epoch == epoch {
            let failed = Output::Scheduler(SchedulerInput::DialFailed(peer));
            self.input(slot, Machine::Scheduler, failed);
        }
    }
}

/// The number of a machine in its first address.
fn number_at(address: &str) -> Option<usize> {
    let (host, _) = address.split_once(':')?;
    if let Some(number) = host.strip_prefix("host-") {
        return number.parse().ok();
    }
    let mut parts = host.strip_prefix("10.")?.splitn(3, '.').map(str::parse::<u8>);
    let mut next = || Some(usize::from(parts.next()?.ok()?));
    Some((next()? << 16) | (next()? << 8) | next()?)
}

pub(super) fn session(node: NodeId) -> Session {
    Session::new(ClusterId::new("sim").expect("a label"), node)
}

/// Its first packet is repeated after so long, and then less and less often, in microseconds.
const AGAIN: u64 = 1_000_000;
/// A dial without an address fails after so long, in microseconds.
const NOWHERE: u64 = 1_000;
/// How often a connection is looked at whether anything gets through, in microseconds.
pub(super) const PROBE: u64 = 1_000_000;
/// A frame that comes before its peer is admitted is looked at again after so long, in microseconds.
pub(super) const UNREAD: u64 = 1_000;
