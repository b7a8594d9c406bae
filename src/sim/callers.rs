//! What callers of a node ask for, and people for its network.

use std::{collections::BTreeMap, time::SystemTime};

use rand::RngExt;

use super::{
    cpu::Work,
    event::{Machine, What},
    process::SIGNATURE,
    slot::wall,
    world::World,
};
use crate::protocol::{
    close::Close,
    id::NodeId,
    message::{Call, Heartbeat},
    record::Status,
    revocation::{IssuerId, Revocation},
    route::{Output, SchedulerInput, StorageInput},
    service::manifest::Manifest,
    state::PeerState,
    write::Write,
};

impl World {
    /// Writes a batch on a node.
    pub fn write(&mut self, slot: usize, batch: Vec<Write>) {
        self.note(format_args!("write {:?} at {slot}", Brief(&batch)));
        let now = self.local(slot);
        let mut out = Vec::new();
        let Some(node) = self.node_mut(slot) else { return };
        let Ok(written) = node.replica.write(now, batch, &mut out) else { return };
        self.works(slot, Work::Signatures, |costs| costs.sign);
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    /// A node says what services it offers.
    pub fn announce(&mut self, slot: usize, manifest: &Manifest) {
        self.note(format_args!("announce {} services at {slot}", manifest.offers.len()));
        let mut out = Vec::new();
        self.offer(slot, manifest, &mut out);
        self.deliver(slot, Machine::Storage, out);
    }

    pub(super) fn offer(&mut self, slot: usize, manifest: &Manifest, out: &mut Vec<Output>) {
        let now = self.local(slot);
        let Some(node) = self.node_mut(slot) else { return };
        let Ok(written) = node.replica.announce(now, manifest, out) else { return };
        self.persist_written(slot, written);
    }

    /// A person removes a peer, at a node.
    pub fn remove(&mut self, slot: usize, peer: &str) {
        self.note(format_args!("remove {peer} at {slot}"));
        let peer = NodeId::new(peer).expect("a label");
        let remove = Output::Storage(StorageInput::Remove { peer, by: None });
        self.input(slot, Machine::Storage, remove);
    }

    /// A person revokes the certificates that a peer has, at a node.
    pub fn revoke(&mut self, slot: usize, peer: usize) {
        let (now, seconds) = (self.local(slot), self.wall_seconds());
        let statement = Revocation {
            node: self.slots[peer].name.clone(),
            issuer: IssuerId([0; 32]),
            cutoff: seconds,
            expires: seconds + 100_000,
            signature: SIGNATURE.to_vec(),
        };
        let mut out = Vec::new();
        let Some(node) = self.node_mut(slot) else { return };
        let Ok(written) = node.replica.revoke(now, statement, &mut out) else { return };
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    pub(super) fn wall_seconds(&self) -> u64 {
        let wall = wall(self.queue.now(), 0).duration_since(SystemTime::UNIX_EPOCH);
        wall.map_or(0, |wall| wall.as_secs())
    }

    /// Closes the connections to those whose certificate is revoked, as a transport does.
    pub(super) fn cut_off_revoked(&mut self, slot: usize) {
        for wire in self.wires_of(slot) {
            let [one, other] = self.wires[&wire].slots;
            if self.refuses(one, other) {
                let (end, peer) =
                    (self.wires[&wire].end(slot), if one == slot { other } else { one });
                let revoked = self.node(slot).replica.revocations();
                let statement = revoked.of(&self.slots[peer].name).max_by_key(|one| one.cutoff);
                let closing = Close::revoked(statement.map_or(0, |one| one.cutoff), statement);
                self.close(wire, end, closing);
            }
        }
    }

    /// Whether one of the two does not accept the certificate of the other.
    pub(super) fn refuses(&self, one: usize, other: usize) -> bool {
        let bars = |by: usize, whom: usize| {
            let node = self.slots[by].node.as_ref();
            let name = &self.slots[whom].name;
            node.is_some_and(|node| node.replica.revocations().cutoff(name).is_some())
        };
        bars(one, other) || bars(other, one)
    }

    /// A person removes one of those that a node thinks are gone.
    pub fn remove_one_of_the_dead(&mut self, slot: usize) {
        let gone = |state| matches!(state, PeerState::Dead | PeerState::Left);
        let mut lives = self.node(slot).liveness.lives();
        let peer = lives.find(|(_, life)| gone(life.state)).map(|(peer, _)| peer.to_string());
        drop(lives);
        peer.into_iter().for_each(|peer| self.remove(slot, &peer));
    }

    /// Replaces the tags of a node.
    pub fn tag(&mut self, slot: usize, name: &str, value: &str) {
        let now = self.local(slot);
        let mut out = Vec::new();
        self.note(format_args!("tag {name} {value} at {slot}"));
        let Some(node) = self.node_mut(slot) else { return };
        let tags = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let Ok(written) = node.replica.set_tags(now, tags, &mut out) else { return };
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    /// A node says that it leaves, and ends once some peers have heard it.
    pub fn leave(&mut self, slot: usize) {
        self.note(format_args!("leave {slot}"));
        let now = self.local(slot);
        let mut out = Vec::new();
        let Some(node) = self.node_mut(slot) else { return };
        let written = node.replica.set_status(now, Status::Left, &mut out);
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
        self.input(slot, Machine::Scheduler, Output::Scheduler(SchedulerInput::Leave));
    }

    /// A node gets another certificate: the ends that dialed its connections dial again.
    pub fn renew_certificate(&mut self, slot: usize) {
        self.note(format_args!("renew the certificate of {slot}"));
        self.slots[slot].certificate += 1;
        for wire in self.wires_of(slot) {
            let spread = self.rng.random_range(0..RENEWAL_SPREAD);
            self.after(spread, What::Renew { wire });
        }
    }

    /// A process sends another one so many heartbeats at once.
    pub fn flood(&mut self, slot: usize, peer: usize, heartbeats: u64) {
        let name = self.slots[peer].name.clone();
        let Some(wire) = self.connection(slot, &name) else { return };
        self.note(format_args!("{slot} floods {peer}"));
        let end = self.wires[&wire].end(slot);
        let generation = self.node(slot).replica.own().generation();
        for sequence in 0..heartbeats {
            let beat = Heartbeat { generation, sequence, call: Call::Beat, health: 0 };
            self.send_datagram(wire, end, beat.encode());
        }
    }

    /// Breaks the connection between two processes, if there is one.
    pub fn break_connection(&mut self, slot: usize, peer: usize) {
        let name = self.slots[peer].name.clone();
        if let Some(wire) = self.connection(slot, &name) {
            self.note(format_args!("break the connection of {slot} and {peer}"));
            self.break_off(wire);
        }
    }

    /// A process dials a peer as if it had no connection to it.
    pub fn dial_again(&mut self, slot: usize, peer: usize) {
        let name = self.slots[peer].name.clone();
        self.dial_anew(slot, name);
    }

    /// Whether two are connected, and by one and the same connection.
    pub fn share_a_connection(&self, one: usize, other: usize) -> bool {
        let [there, back] = [(one, other), (other, one)]
            .map(|(slot, peer)| self.connection(slot, &self.slots[peer].name));
        there.is_some() && there == back
    }
}

/// A batch without its values.
struct Brief<'a>(&'a [Write]);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |write: &Write| match (&write.value, write.ttl) {
            (None, _) => format!("delete {}", write.key),
            (Some(value), None) => format!("set {} to {} bytes", write.key, value.len()),
            (Some(value), Some(ttl)) => {
                format!("set {} to {} bytes for {ttl:?}", write.key, value.len())
            }
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// After a new certificate connections are renewed within so long, in microseconds.
const RENEWAL_SPREAD: u64 = 1_000_000;
