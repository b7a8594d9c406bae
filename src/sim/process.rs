//! Processes: how they start and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use rand::RngExt;

use super::{
    event::Machine,
    pool::Pool,
    queue::micros,
    slot::{Node, Views, wall},
    world::World,
};
use crate::protocol::{
    close::Close,
    durable::Stored,
    id::Generation,
    lag::Lag,
    liveness::Liveness,
    peering::{Peering, PeeringInput},
    replica::{Replica, ReplicaConfig},
    revocation::{Authorities, Revocation, RevocationError},
    route::{DetectorInput, Output, SchedulerInput, TransportInput},
    scheduler::{Scheduler, SchedulerConfig},
    session::FEATURES,
    time::Time,
};

impl World {
    /// Starts a process on a machine, on what its disk holds.
    pub fn boot(&mut self, slot: usize) {
        let at = &mut self.slots[slot];
        assert!(at.node.is_none(), "it runs already");
        at.epoch += 1;
        at.displaced = false;
        let (address, datacenter, skew) = (at.address.clone(), at.datacenter.clone(), at.skew);
        self.note(format_args!("boot {slot} at {address} in {datacenter}, clock {skew} ms ahead"));
        let out = self.install(slot);
        self.deliver(slot, Machine::Storage, out);
        self.set_going(slot);
    }

    /// Puts the machines of a process in place; they have not been woken yet. Returns what storage said.
    pub(super) fn install(&mut self, slot: usize) -> Vec<Output> {
        let (settings, at) = (&self.settings, &self.slots[slot]);
        let seeds = self.seeds.iter().chain(self.names.keys()).cloned().collect();
        let candidates = at.stored.peers.values().flat_map(|peer| peer.addresses.clone()).collect();
        let rules = settings.rules_of(slot);
        let scheduler = SchedulerConfig {
            rules,
            ..settings.scheduler(&at.name, &at.datacenter, seeds, candidates)
        };
        let liveness = Liveness::new(settings.liveness(&at.name));
        let peering = Peering::new(settings.peering(&at.name, &at.datacenter));
        let features = if rules.trees { FEATURES } else { 0 };
        let session = super::introductions::session(at.name.clone()).with_features(features);
        let scheduler = Scheduler::new(scheduler, Time::ZERO, self.rng.random());
        let booted = self.origin();
        let (replica, mut out) = self.start_storage(slot, Time::ZERO, &OrdMap::new(), false);
        self.slots[slot].node = Some(Box::new(Node {
            liveness,
            scheduler,
            peering,
            session,
            dials: BTreeMap::new(),
            wires: BTreeSet::new(),
            booted,
            wakes: [0; 4],
            generation: replica.own().generation(),
            seen: BTreeMap::new(),
            views: OrdMap::new(),
            replica,
            rest: None,
            drowsy: None,
            lag: Lag::new(),
            lateness: Duration::ZERO,
        }));
        if let Some(offers) = self.slots[slot].offers.clone() {
            self.offer(slot, &offers, &mut out);
        }
        out
    }

    /// Wakes the machines of a process for the first time.
    pub(super) fn set_going(&mut self, slot: usize) {
        self.input(slot, Machine::Scheduler, Output::Scheduler(SchedulerInput::Tick));
        self.input(slot, Machine::Detector, Output::Detector(DetectorInput::Tick));
        if self.switches.packets {
            self.arm(slot, Machine::Transport, self.settings.look());
        }
        self.measure_lag(slot);
    }

    /// The origin of the clock of a process that starts now. Those of a large cluster do not tick together, unless
    /// their heartbeats are left out.
    fn origin(&mut self) -> u64 {
        let now = self.queue.now();
        if !self.switches.packets || self.switches.checks {
            return now;
        }
        let span = micros(self.settings.gossip_interval);
        now.saturating_sub(self.rng.random_range(0..span))
    }

    /// The storage actor of a process fails and starts again, on the disk and on what readers saw.
    pub fn restart_storage(&mut self, slot: usize) {
        self.note(format_args!("restart the storage of {slot}"));
        self.lose_unsynced(slot);
        let now = self.local(slot);
        let node = self.node(slot);
        let (views, renewed) = (node.views.clone(), node.replica.renewed());
        let (replica, out) = self.start_storage(slot, now, &views, renewed);
        let Some(node) = self.node_mut(slot) else { return };
        node.generation = replica.own().generation();
        node.replica = replica;
        self.deliver(slot, Machine::Storage, out);
        let interrupted = SchedulerInput::Interrupted;
        self.input(slot, Machine::Scheduler, Output::Scheduler(interrupted));
        self.peering(slot, PeeringInput::Transport(TransportInput::TellLinks));
    }

    pub(super) fn start_storage(
        &mut self,
        slot: usize,
        now: Time,
        copies: &Views,
        renewed: bool,
    ) -> (Replica, Vec<Output>) {
        let at = &mut self.slots[slot];
        let stored = at.stored.clone();
        let head = stored.head.clone();
        let wall = wall(self.queue.now(), at.skew);
        let mut out = Vec::new();
        let config = ReplicaConfig {
            rules: self.settings.rules_of(slot),
            ..self.settings.replica(&at.name, &at.datacenter, &at.address)
        };
        let mut replica = Replica::start(config, stored, copies, renewed, now, wall, &mut out);
        if let Some(seals) = self.settings.seals() {
            replica.set_seals(Some(seals));
        }
        if self.switches.share {
            replica.share_copies(Arc::<Pool>::clone(&self.pool));
        }
        replica.set_authorities(now, Arc::new(Authority), &mut out);
        // Nothing is sent before the new generation is on the disk.
        out.retain(|output| match output {
            Output::Persist(changes) => {
                if self.settings.disk > 0 {
                    changes.iter().for_each(|change| at.stored.apply(change));
                }
                false
            }
            _ => true,
        });
        let (name, acknowledged) = (at.name.clone(), at.acknowledged.take());
        if let Some((generation, version)) = acknowledged
            && (head.generation, head.max_version) < (generation, version)
        {
            self.fail(format!("{name} forgot version {version}, which was acknowledged"));
        }
        let continues =
            (head.generation > Generation::ZERO).then_some((head.generation, head.max_version));
        if let Some(witness) = &mut self.hooks.witness {
            let begun = witness.begin(&name, replica.own().generation(), continues);
            self.promise(begun);
        }
        (replica, out)
    }

    /// Ends a process without any notice. What was not on the disk is lost, from some commit on.
    pub fn crash(&mut self, slot: usize) {
        self.note(format_args!("crash {slot}"));
        self.lose_unsynced(slot);
        self.vanish(slot);
        self.slots[slot].node = None;
    }

    pub(super) fn lose_unsynced(&mut self, slot: usize) {
        let kept = self.slots[slot].unsynced.len();
        let kept = self.rng.random_range(0..=kept);
        for _ in 0..kept {
            self.sync_one(slot);
        }
        self.slots[slot].unsynced.clear();
    }

    /// Ends a process; everything is on the disk.
    pub fn stop(&mut self, slot: usize) {
        self.note(format_args!("stop {slot}"));
        while !self.slots[slot].unsynced.is_empty() {
            self.sync_one(slot);
        }
        for wire in self.wires_of(slot) {
            let end = self.wires[&wire].end(slot);
            self.close(wire, end, Close::Shutdown.with("the node ends"));
        }
        self.vanish(slot);
        self.slots[slot].node = None;
    }

    /// Empties the disk. The clock is set so that no generation can come again: who loses both
    /// the disk and the time has to be told by others.
    pub fn wipe(&mut self, slot: usize) {
        let at = &mut self.slots[slot];
        at.skew = at.skew.max(0) + 100_000_000;
        at.stored = Stored::default();
        at.acknowledged = None;
    }

    /// Empties the disk and nothing else.
    pub fn wipe_only(&mut self, slot: usize) {
        self.slots[slot].stored = Stored::default();
        self.slots[slot].acknowledged = None;
    }
}

/// Whose signature counts.
#[derive(Debug)]
struct Authority;

impl Authorities for Authority {
    fn verify(&self, statement: &Revocation) -> Result<(), RevocationError> {
        let signed = statement.signature == SIGNATURE;
        signed.then_some(()).ok_or(RevocationError::Forged(statement.issuer))
    }

    fn valid_from(&self) -> Option<u64> {
        None
    }
}

/// A signature that counts. No node of a run forges one.
pub(super) const SIGNATURE: &[u8] = b"signed";
