//! The nodes of one run, the queue of what happens next, and the one place that delivers outputs: what
//! the actors are in production.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        claim::Heard,
        close::Close,
        digest::DigestEntry,
        event::{Event, Problem},
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        liveness::{DEFIANCE, Liveness, LivenessConfig, TICKS_PER_INTERVAL},
        map::{MapLimits, NodeMap},
        message::{Call, Heartbeat},
        peering::{Peering, PeeringConfig, PeeringInput},
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        revocation::{Authorities, IssuerId, Revocation, RevocationError},
        route::{DetectorInput, Output, SchedulerInput, StorageInput, Target, TransportInput},
        scheduler::{Scheduler, SchedulerConfig},
        seal::{Seals, Signing},
        session::Session,
        sketch::SketchKey,
        state::PeerState,
        time::Time,
        view::NodeView,
        write::{Write, Written},
    },
    store::{Change, Stored},
};
use imbl::OrdMap;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use self::{dials::Dial, exchanges::Exchange, wires::Wire};
use crate::{attacks::Liar, network::Network, notary::TestNotary, oracle::Oracle};

mod dials;
mod exchanges;
mod shell;
mod wires;

/// What all nodes of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) delta_bytes: usize,
    pub(crate) delta_entries: usize,
    pub(crate) tombstone_grace: Duration,
    pub(crate) forget_after: Duration,
    pub(crate) fanout: usize,
    /// A commit is on the disk after so long at most, in microseconds.
    pub(crate) disk: u64,
    pub(crate) limits: MapLimits,
    /// Which nodes' first addresses are seeds.
    pub(crate) seeds: Vec<usize>,
    /// All sign what they say of themselves, and take nothing that is not signed.
    pub(crate) signed: bool,
    /// Bytes of news to one peer, and of all to another datacenter, in a second.
    pub(crate) push_bytes: usize,
    pub(crate) wan_bytes: usize,
    /// How long a disconnected peer is refused.
    pub(crate) bar: Duration,
}

impl Settings {
    /// Room for everything, nothing is forgotten.
    pub(crate) fn roomy() -> Self {
        Self {
            delta_bytes: 64 << 10,
            delta_entries: 1_000,
            tombstone_grace: Duration::from_secs(5),
            forget_after: Duration::from_secs(3_600),
            fanout: 3,
            disk: 30_000,
            limits: MapLimits { keys: 1_000, bytes: 1 << 20, key_bytes: 64, value_bytes: 64 << 10 },
            seeds: vec![0],
            signed: false,
            push_bytes: 16 << 20,
            wan_bytes: 64 << 20,
            bar: Duration::from_secs(30),
        }
    }
}

/// A run.
pub(crate) struct Cluster {
    pub(crate) rng: SmallRng,
    pub(crate) network: Network,
    pub(crate) settings: Settings,
    pub(crate) slots: Vec<Slot>,
    /// Two machines have the same name.
    pub(crate) twins: bool,
    oracle: Oracle,
    seed: u64,
    now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    exchanges: BTreeMap<u64, Exchange>,
    wires: Wires,
    /// What became of connections.
    pub(crate) counts: Counts,
    /// Who was called dead, and which datacenters came and went: when and by whom.
    pub(crate) told: Vec<(Duration, usize, Event)>,
    /// Who was suspected: when, by whom.
    pub(crate) suspected: Vec<(Duration, usize, NodeId)>,
    /// Names that lead to machines, beside their addresses: the DNS.
    pub(crate) names: BTreeMap<String, usize>,
    /// Members that lie.
    pub(crate) liars: BTreeMap<usize, Liar>,
    /// Who has said of whom that it has signed two states as one.
    pub(crate) equivocations: Vec<(usize, NodeId)>,
    /// Those that do not listen to revocations.
    pub(crate) deaf: BTreeSet<usize>,
    /// Processes that stand still, and until when.
    frozen: BTreeMap<usize, u64>,
    trace: DefaultHasher,
    /// What was done to the cluster, oldest first, for a failure message.
    history: Vec<String>,
}

/// What became of the connections of a run.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections ever made.
    pub(crate) connected: u64,
    /// Connections that took the place of one with older certificates, at one end.
    pub(crate) renewed: u64,
    /// Connections that were refused since there was one, at one end.
    pub(crate) duplicates: u64,
    /// Handshakes begun anew and silent connections replaced, since others said that the peer lives.
    pub(crate) hurried: u64,
    /// How often storage was told that a connection is congested.
    pub(crate) congestions: u64,
    /// How often news waited for its budget.
    pub(crate) waits: u64,
    /// How often bulk broke off, at one end.
    pub(crate) bulk_broken: u64,
    /// Who was disconnected for misbehaviour: when, by whom.
    pub(crate) disconnected: Vec<(Duration, usize, NodeId)>,
}

/// A machine that a node may run on, with its disk.
pub(crate) struct Slot {
    pub(crate) name: NodeId,
    pub(crate) address: String,
    pub(crate) datacenter: Datacenter,
    /// How far its wall clock is ahead of the true one, in milliseconds.
    pub(crate) skew: i64,
    /// Which certificate its node shows.
    certificate: u64,
    /// What is on the disk.
    stored: Stored,
    /// Commits not on the disk yet, oldest first.
    unsynced: VecDeque<Commit>,
    commits: u64,
    /// The last version of each life that was acknowledged to a caller.
    acknowledged: Option<(Generation, Version)>,
    /// Counts the processes that ran here.
    epoch: u64,
    pub(crate) node: Option<Node>,
    /// The last process ended because another one uses its name.
    pub(crate) displaced: bool,
}

/// Changes on their way to the disk.
struct Commit {
    number: u64,
    changes: Vec<Change>,
    /// What a caller is told once they are there.
    acknowledges: Option<(Generation, Version)>,
}

/// A process.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) liveness: Liveness,
    pub(crate) scheduler: Scheduler,
    pub(crate) peering: Peering,
    session: Session,
    /// Dials under way.
    dials: BTreeMap<u64, Dial>,
    booted: u64,
    wakes: [u64; 4],
    generation: Generation,
    /// How far each map reached when readers saw it last.
    seen: BTreeMap<NodeId, (Generation, Version)>,
    /// What readers saw last.
    views: Views,
}

type Views = OrdMap<NodeId, Arc<NodeView>>;

type Wires = BTreeMap<u64, Wire>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Machine {
    Storage,
    Detector,
    Scheduler,
    Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Side {
    Initiator,
    Responder,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Scheduled {
    at: u64,
    order: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    Wake { slot: usize, epoch: u64, machine: Machine, token: u64 },
    // Dials and introductions.
    Knock { slot: usize, epoch: u64, dial: u64, round: u32, number: u32 },
    Refused { slot: usize, epoch: u64, dial: u64, by: Option<NodeId> },
    Undone { slot: usize, epoch: u64, dial: u64, round: u32 },
    Undialed { slot: usize, epoch: u64, peer: NodeId },
    Unreached { slot: usize, epoch: u64, target: Target, node: Option<NodeId> },
    Hello { wire: u64, bytes: Vec<u8> },
    Welcome { wire: u64, bytes: Vec<u8>, later: Option<Vec<u8>> },
    Adopt { wire: u64 },
    Renew { wire: u64 },
    // Connections.
    Datagram { wire: u64, to: usize, bytes: Vec<u8> },
    Gossip { wire: u64, to: usize, bytes: Vec<u8> },
    Acknowledged { wire: u64, to: usize, delivered: u64 },
    Unacknowledged { wire: u64, end: usize, timer: u64 },
    Pump { wire: u64, end: usize },
    Finish { wire: u64, end: usize },
    Retire { wire: u64, end: usize },
    Closed { wire: u64, to: usize, code: u8, words: Vec<u8> },
    Ended { wire: u64, end: usize },
    Probe { wire: u64 },
    // Exchanges.
    Frame { exchange: u64, to: Side, bytes: Vec<u8> },
    Flush { exchange: u64, side: Side },
    Fin { exchange: u64, to: Side },
    Reset { exchange: u64, to: Side },
    Delivered { exchange: u64 },
    TimedOut { exchange: u64, side: Side },
    // The disk.
    Synced { slot: usize, epoch: u64, commit: u64 },
}

impl Cluster {
    /// `count` machines, all switched off.
    pub(crate) fn new(seed: u64, count: usize, settings: Settings, network: Network) -> Self {
        let slots =
            (0..count).map(|n| Slot::new(&format!("n{n}"), format!("host-{n}:1"))).collect();
        Self {
            rng: SmallRng::seed_from_u64(seed),
            network,
            settings,
            slots,
            twins: false,
            oracle: Oracle::default(),
            seed,
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            exchanges: BTreeMap::new(),
            wires: BTreeMap::new(),
            counts: Counts::default(),
            told: Vec::new(),
            suspected: Vec::new(),
            names: BTreeMap::new(),
            liars: BTreeMap::new(),
            equivocations: Vec::new(),
            deaf: BTreeSet::new(),
            frozen: BTreeMap::new(),
            trace: DefaultHasher::new(),
            history: Vec::new(),
        }
    }

    /// All that happened, as one number.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Virtual time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// Ends the run: something that was promised does not hold.
    pub(crate) fn fail(&self, what: impl std::fmt::Display) -> ! {
        let (seed, now, picture) = (self.seed, self.now(), self.picture());
        panic!("SEED={seed} after {now:?}: {what}{picture}\n  {}", self.history.join("\n  "));
    }

    /// What was done to the cluster, oldest first.
    pub(crate) fn history(&self) -> &[String] {
        &self.history
    }

    /// Remembers what is done to the cluster, so that a failure shows how it came about.
    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        self.history.push(format!("{:?} {what}", self.now()));
    }

    // --- processes

    /// Starts a process on a machine, on what its disk holds.
    pub(crate) fn boot(&mut self, slot: usize) {
        let at = &mut self.slots[slot];
        assert!(at.node.is_none(), "it runs already");
        at.epoch += 1;
        at.displaced = false;
        let (address, datacenter, skew) = (at.address.clone(), at.datacenter.clone(), at.skew);
        self.note(format_args!("boot {slot} at {address} in {datacenter}, clock {skew} ms ahead"));
        let at = &mut self.slots[slot];
        let seeds = self.settings.seeds.iter().map(|n| format!("host-{n}:1"));
        let seeds = seeds.chain(self.names.keys().cloned()).collect();
        let candidates = at.stored.peers.values().flat_map(|peer| peer.addresses.clone()).collect();
        let scheduler = scheduler_config(&self.settings, at, seeds, candidates);
        let liveness = LivenessConfig {
            node: at.name.clone(),
            suspicion: SUSPICION,
            heartbeat_interval: INTERVAL,
            dead_peer_phi: 8.0,
            join_grace: Duration::from_secs(10),
            forget_after: self.settings.forget_after,
        };
        let peering = PeeringConfig {
            node: at.name.clone(),
            datacenter: at.datacenter.clone(),
            gossip_interval: INTERVAL,
            bar: self.settings.bar,
            push_bytes_per_second: self.settings.push_bytes,
            wan_bytes_per_second: self.settings.wan_bytes,
        };
        let scheduler = Scheduler::new(scheduler, Time::ZERO, self.rng.random());
        let (replica, out) = self.start_storage(slot, Time::ZERO, &OrdMap::new(), false);
        self.slots[slot].node = Some(Node {
            liveness: Liveness::new(liveness),
            scheduler,
            booted: self.now,
            peering: Peering::new(peering),
            session: dials::session(self.slots[slot].name.clone()),
            dials: BTreeMap::new(),
            wakes: [0; 4],
            generation: replica.own().generation(),
            seen: BTreeMap::new(),
            views: OrdMap::new(),
            replica,
        });
        self.deliver(slot, Machine::Storage, out);
        self.input(slot, Machine::Scheduler, Output::Scheduler(SchedulerInput::Tick));
        self.input(slot, Machine::Detector, Output::Detector(DetectorInput::Tick));
        self.arm(slot, Machine::Transport, LOOK);
    }

    /// The storage actor of a process fails and starts again, on the disk and on what readers saw.
    pub(crate) fn restart_storage(&mut self, slot: usize) {
        self.note(format_args!("restart the storage of {slot}"));
        self.lose_unsynced(slot);
        let now = self.local(slot);
        let node = self.node(slot);
        let (views, renewed) = (node.views.clone(), node.replica.renewed());
        let (replica, out) = self.start_storage(slot, now, &views, renewed);
        let node = self.slots[slot].node.as_mut().expect("it runs");
        node.generation = replica.own().generation();
        node.replica = replica;
        self.deliver(slot, Machine::Storage, out);
        let interrupted = SchedulerInput::Interrupted;
        self.input(slot, Machine::Scheduler, Output::Scheduler(interrupted));
        self.peering(slot, PeeringInput::Transport(TransportInput::TellLinks));
    }

    fn start_storage(
        &mut self,
        slot: usize,
        now: Time,
        copies: &Views,
        renewed: bool,
    ) -> (Replica, Vec<Output>) {
        let at = &mut self.slots[slot];
        let stored = at.stored.clone();
        let head = stored.head.clone();
        let wall = wall(self.now, at.skew);
        let mut out = Vec::new();
        let config = replica_config(&self.settings, at);
        let mut replica = Replica::start(config, stored, copies, renewed, now, wall, &mut out);
        if self.settings.signed {
            let notary = Arc::new(TestNotary::new(1));
            replica.set_seals(Some(Seals { notary, signing: Signing::Require }));
        }
        replica.set_authorities(now, Arc::new(Authority), &mut out);
        // Nothing is sent before the new generation is on the disk.
        out.retain(|output| match output {
            Output::Persist(changes) => {
                changes.iter().for_each(|change| at.stored.apply(change));
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
        let begun = self.oracle.begin(&name, replica.own().generation(), continues);
        self.promise(begun);
        (replica, out)
    }

    /// Ends a process without any notice. What was not on the disk is lost, from some commit on.
    pub(crate) fn crash(&mut self, slot: usize) {
        self.note(format_args!("crash {slot}"));
        self.lose_unsynced(slot);
        self.vanish(slot);
        self.slots[slot].node = None;
    }

    fn lose_unsynced(&mut self, slot: usize) {
        let kept = self.slots[slot].unsynced.len();
        let kept = self.rng.random_range(0..=kept);
        for _ in 0..kept {
            self.sync_one(slot);
        }
        self.slots[slot].unsynced.clear();
    }

    /// Ends a process; everything is on the disk.
    pub(crate) fn stop(&mut self, slot: usize) {
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
    pub(crate) fn wipe(&mut self, slot: usize) {
        let at = &mut self.slots[slot];
        at.skew = at.skew.max(0) + 100_000_000;
        at.stored = Stored::default();
        at.acknowledged = None;
    }

    /// Empties the disk and nothing else.
    pub(crate) fn wipe_only(&mut self, slot: usize) {
        self.slots[slot].stored = Stored::default();
        self.slots[slot].acknowledged = None;
    }

    /// The slots with a process.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&n| self.slots[n].node.is_some()).collect()
    }

    /// The process on a machine that must have one.
    pub(crate) fn node(&self, slot: usize) -> &Node {
        self.slots[slot].node.as_ref().expect("it runs")
    }

    // --- callers

    /// Writes a batch on a node.
    pub(crate) fn write(&mut self, slot: usize, batch: Vec<Write>) {
        self.note(format_args!("write {:?} at {slot}", Brief(&batch)));
        let now = self.local(slot);
        let mut out = Vec::new();
        let node = self.slots[slot].node.as_mut().expect("it runs");
        let Ok(written) = node.replica.write(now, batch, &mut out) else { return };
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    /// A person removes a peer, at a node.
    pub(crate) fn remove(&mut self, slot: usize, peer: &str) {
        self.note(format_args!("remove {peer} at {slot}"));
        let peer = NodeId::new(peer).expect("a label");
        let remove = Output::Storage(StorageInput::Remove { peer, by: None });
        self.input(slot, Machine::Storage, remove);
    }

    /// A person revokes the certificates that a peer has, at a node.
    pub(crate) fn revoke(&mut self, slot: usize, peer: usize) {
        let (now, seconds) = (self.local(slot), self.wall_seconds());
        let statement = Revocation {
            node: self.slots[peer].name.clone(),
            issuer: IssuerId([0; 32]),
            cutoff: seconds,
            expires: seconds + 100_000,
            signature: SIGNATURE.to_vec(),
        };
        let mut out = Vec::new();
        let node = self.slots[slot].node.as_mut().expect("it runs");
        let written = node.replica.revoke(now, statement, &mut out).expect("it is signed");
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    fn wall_seconds(&self) -> u64 {
        let wall = wall(self.now, 0).duration_since(SystemTime::UNIX_EPOCH);
        wall.expect("after 1970").as_secs()
    }

    /// Closes the connections to those whose certificate is revoked, as a transport does.
    fn cut_off_revoked(&mut self, slot: usize) {
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
    fn refuses(&self, one: usize, other: usize) -> bool {
        let bars = |by: usize, whom: usize| {
            let node = self.slots[by].node.as_ref();
            let name = &self.slots[whom].name;
            node.is_some_and(|node| node.replica.revocations().cutoff(name).is_some())
        };
        bars(one, other) || bars(other, one)
    }

    /// A person removes one of those that a node thinks are gone.
    pub(crate) fn remove_one_of_the_dead(&mut self, slot: usize) {
        let gone = |state| matches!(state, PeerState::Dead | PeerState::Left);
        let mut lives = self.node(slot).liveness.lives();
        let peer = lives.find(|(_, life)| gone(life.state)).map(|(peer, _)| peer.to_string());
        drop(lives);
        peer.into_iter().for_each(|peer| self.remove(slot, &peer));
    }

    /// Replaces the tags of a node.
    pub(crate) fn tag(&mut self, slot: usize, name: &str, value: &str) {
        let now = self.local(slot);
        let mut out = Vec::new();
        self.note(format_args!("tag {name} {value} at {slot}"));
        let node = self.slots[slot].node.as_mut().expect("it runs");
        let tags = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let written = node.replica.set_tags(now, tags, &mut out).expect("within its limits");
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
    }

    /// A node says that it leaves, and ends once some peers have heard it.
    pub(crate) fn leave(&mut self, slot: usize) {
        self.note(format_args!("leave {slot}"));
        let now = self.local(slot);
        let mut out = Vec::new();
        let node = self.slots[slot].node.as_mut().expect("it runs");
        let written = node.replica.set_status(now, Status::Left, &mut out);
        self.persist_written(slot, written);
        self.deliver(slot, Machine::Storage, out);
        self.input(slot, Machine::Scheduler, Output::Scheduler(SchedulerInput::Leave));
    }

    // --- time

    /// Lets everything happen that is due within `span`.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_micros()).unwrap();
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            let Some(Reverse(Scheduled { at, what, .. })) = self.queue.pop() else { break };
            self.now = at;
            if let Some(until) = self.frozen_until(&what) {
                self.at(until, what);
                continue;
            }
            (at, &what).hash(&mut self.trace);
            self.happen(what);
        }
        self.now = end;
        self.promise(self.suspicions_end());
        self.promise(self.equal_sums_are_of_equal_copies());
    }

    /// Lets time pass until `reached`, or fails after `deadline`.
    pub(crate) fn run_until(
        &mut self,
        deadline: Duration,
        reached: impl Fn(&Self) -> Result<(), String>,
    ) {
        let end = self.now + u64::try_from(deadline.as_micros()).unwrap();
        loop {
            self.run_for(Duration::from_millis(500));
            match reached(self) {
                Ok(()) => return,
                Err(why) if self.now >= end => self.fail(format!("never got there: {why}")),
                Err(_) => {}
            }
        }
    }

    /// Lets time pass until something is so for the first time, looking after each event, or fails after a
    /// minute.
    pub(crate) fn run_to(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let end = self.now + 60_000_000;
        while !reached(self) {
            if self.now >= end {
                self.fail(format!("never came to this: {what}"));
            }
            let next = self.queue.peek().map_or(end, |Reverse(next)| next.at);
            self.run_for(Duration::from_micros(next.saturating_sub(self.now)));
        }
        self.note(what);
    }

    /// Stops a process as SIGSTOP does: what is sent to it waits until it goes on.
    pub(crate) fn freeze(&mut self, slot: usize, span: Duration) {
        let until = self.now + u64::try_from(span.as_micros()).unwrap();
        self.frozen.insert(slot, until);
    }

    fn frozen_until(&self, what: &What) -> Option<u64> {
        if self.frozen.is_empty() {
            return None;
        }
        let end = |wire: &u64, end: usize| self.wires.get(wire).map(|wire| wire.slots[end]);
        let half = |exchange: &u64, side: Side| {
            let (wire, place) = self.exchanges.get(exchange)?.place(side);
            end(&wire, place)
        };
        let slot = match what {
            What::Wake { slot, .. }
            | What::Knock { slot, .. }
            | What::Refused { slot, .. }
            | What::Undone { slot, .. }
            | What::Undialed { slot, .. }
            | What::Unreached { slot, .. } => *slot,
            What::Welcome { wire, .. } | What::Renew { wire } => end(wire, 0)?,
            What::Hello { wire, .. } | What::Adopt { wire } => end(wire, 1)?,
            What::Datagram { wire, to, .. }
            | What::Gossip { wire, to, .. }
            | What::Acknowledged { wire, to, .. }
            | What::Closed { wire, to, .. }
            | What::Unacknowledged { wire, end: to, .. }
            | What::Pump { wire, end: to }
            | What::Finish { wire, end: to }
            | What::Retire { wire, end: to }
            | What::Ended { wire, end: to } => end(wire, *to)?,
            What::Frame { exchange, to: side, .. }
            | What::Flush { exchange, side }
            | What::Fin { exchange, to: side }
            | What::Reset { exchange, to: side }
            | What::TimedOut { exchange, side } => half(exchange, *side)?,
            What::Delivered { exchange } => half(exchange, Side::Initiator)?,
            What::Probe { .. } | What::Synced { .. } => return None,
        };
        let until = self.frozen.get(&slot)?;
        (*until > self.now).then_some(*until)
    }

    fn at(&mut self, at: u64, what: What) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.scheduled, what }));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Wake { slot, epoch, machine, token } => self.wake(slot, epoch, machine, token),
            What::Knock { slot, epoch, dial, round, number } => {
                self.knock(slot, epoch, dial, round, number);
            }
            What::Refused { slot, epoch, dial, by } => self.refused(slot, epoch, dial, by),
            What::Undone { slot, epoch, dial, round } => self.undone(slot, epoch, dial, round),
            What::Undialed { slot, epoch, peer } => self.undialed(slot, epoch, peer),
            What::Unreached { slot, epoch, target, node } => {
                self.ended(slot, epoch, target, node, false);
            }
            What::Hello { wire, bytes } => self.heard_hello(wire, &bytes),
            What::Welcome { wire, bytes, later } => self.heard_welcome(wire, &bytes, later),
            What::Adopt { wire } => drop(self.adopt(wire, 1)),
            What::Renew { wire } => self.renew(wire),
            What::Datagram { wire, to, bytes } => self.datagram(wire, to, bytes),
            What::Gossip { wire, to, bytes } => self.gossip(wire, to, bytes),
            What::Acknowledged { wire, to, delivered } => self.acknowledged(wire, to, delivered),
            What::Unacknowledged { wire, end, timer } => self.unacknowledged(wire, end, timer),
            What::Pump { wire, end } => self.pump(wire, end),
            What::Finish { wire, end } => self.finish_now(wire, end),
            What::Retire { wire, end } => self.retire(wire, end),
            What::Closed { wire, to, code, words } => self.closed(wire, to, code, words),
            What::Ended { wire, end } => self.connection_ended(wire, end),
            What::Probe { wire } => self.probe(wire),
            What::Frame { exchange, to, bytes } => self.frame(exchange, to, bytes),
            What::Flush { exchange, side } => self.flush_again(exchange, side),
            What::Fin { exchange, to } => self.fin(exchange, to),
            What::Reset { exchange, to } => self.break_exchange(exchange, to),
            What::Delivered { exchange } => self.delivered(exchange),
            What::TimedOut { exchange, side } => self.timed_out(exchange, side),
            What::Synced { slot, epoch, commit } => {
                while self.slots[slot].epoch == epoch
                    && self.slots[slot].unsynced.front().is_some_and(|next| next.number <= commit)
                {
                    self.sync_one(slot);
                }
            }
        }
    }

    fn wake(&mut self, slot: usize, epoch: u64, machine: Machine, token: u64) {
        let at = &self.slots[slot];
        let due = at.node.as_ref().is_some_and(|node| node.wakes[machine as usize] == token);
        if at.epoch != epoch || !due {
            return;
        }
        let tick = match machine {
            Machine::Storage => Output::Storage(StorageInput::Tick),
            Machine::Detector => Output::Detector(DetectorInput::Tick),
            Machine::Scheduler => Output::Scheduler(SchedulerInput::Tick),
            Machine::Transport => return self.look_at_connections(slot),
        };
        self.input(slot, machine, tick);
    }

    /// A node's own clock, which began when it booted.
    fn local(&self, slot: usize) -> Time {
        let booted = self.slots[slot].node.as_ref().map_or(0, |node| node.booted);
        Time::from_origin(Duration::from_micros(self.now - booted))
    }

    // --- the routing table

    fn input(&mut self, slot: usize, machine: Machine, output: Output) {
        self.deliver(slot, machine, vec![output]);
    }

    /// Delivers what a machine said, and what the others say to that, in order.
    fn deliver(&mut self, slot: usize, machine: Machine, out: Vec<Output>) {
        self.record(slot, &out);
        let mut queue: VecDeque<_> = out.into_iter().map(|output| (machine, output)).collect();
        while let Some((machine, output)) = queue.pop_front() {
            let now = self.local(slot);
            let Some(node) = self.slots[slot].node.as_mut() else { return };
            let mut out = Vec::new();
            let to = match output {
                Output::Storage(input) => {
                    node.replica.handle(now, input, &mut out);
                    Machine::Storage
                }
                Output::Detector(input) => {
                    node.liveness.handle(now, input, &mut out);
                    Machine::Detector
                }
                Output::Scheduler(input) => {
                    node.scheduler.handle(now, input, &mut out);
                    Machine::Scheduler
                }
                Output::Transport(input) => {
                    let out = self.transport(slot, input);
                    queue.extend(out.into_iter().map(|output| (Machine::Transport, output)));
                    continue;
                }
                Output::Counted(..) => continue,
                Output::Revoked(_) => {
                    self.cut_off_revoked(slot);
                    continue;
                }
                Output::Persist(changes) => {
                    self.persist(slot, changes);
                    continue;
                }
                Output::Wake(after) => {
                    self.arm(slot, machine, after);
                    continue;
                }
                Output::Stop(Problem::Revoked { .. }) => {
                    self.crash(slot);
                    return;
                }
                Output::Stop(problem) => {
                    assert!(matches!(problem, Problem::Displaced { .. }), "{problem}");
                    if !self.twins {
                        self.fail(format!("n{slot} ends without a twin: {problem}"));
                    }
                    self.crash(slot);
                    self.slots[slot].displaced = true;
                    return;
                }
                // Some peers know; nobody has to wait for the rest.
                Output::Farewell(_) => {
                    self.stop(slot);
                    return;
                }
                Output::Unreachable(_) => continue,
                Output::Event(
                    event @ (Event::PeerDead { .. }
                    | Event::DatacenterUnreachable { .. }
                    | Event::DatacenterReachable { .. }),
                ) => {
                    self.told.push((self.now(), slot, event));
                    continue;
                }
                Output::Event(Event::Error(Problem::Equivocation { peer })) => {
                    self.equivocations.push((slot, peer));
                    continue;
                }
                Output::Event(Event::PeerSuspect { peer, .. }) => {
                    self.suspected.push((self.now(), slot, peer));
                    continue;
                }
                Output::Event(_) | Output::Protocol(_) | Output::Count(..) => continue,
            };
            self.record(slot, &out);
            queue.extend(out.into_iter().map(|output| (to, output)));
            self.look(slot);
        }
        self.look(slot);
    }

    fn arm(&mut self, slot: usize, machine: Machine, after: Duration) {
        let epoch = self.slots[slot].epoch;
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        node.wakes[machine as usize] += 1;
        let token = node.wakes[machine as usize];
        let at = self.now + u64::try_from(after.as_micros()).unwrap().max(1);
        self.at(at, What::Wake { slot, epoch, machine, token });
    }

    /// Tells the oracle what the node has written.
    fn record(&mut self, slot: usize, out: &[Output]) {
        self.note_generation(slot);
        let name = self.slots[slot].name.clone();
        for output in out {
            let Output::Event(event) = output else { continue };
            let wrote = match event {
                Event::Updated { peer, key, value, generation, version } if *peer == name => {
                    self.oracle.wrote(peer, *generation, *version, key, Some(value))
                }
                Event::Deleted { peer, key, generation, version } if *peer == name => {
                    self.oracle.wrote(peer, *generation, *version, key, None)
                }
                _ => Ok(()),
            };
            self.promise(wrote);
        }
    }

    /// A node that took a newer generation goes on from what it had written.
    fn note_generation(&mut self, slot: usize) {
        let name = self.slots[slot].name.clone();
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let generation = node.replica.own().generation();
        if generation != node.generation {
            let earlier = std::mem::replace(&mut node.generation, generation);
            let begun = self.oracle.begin(&name, generation, Some((earlier, Version(u64::MAX))));
            self.promise(begun);
        }
    }

    /// What everybody holds and thinks, for a failure message.
    fn picture(&self) -> String {
        let mut lines = String::new();
        for n in self.running() {
            let at = &self.slots[n];
            let node = self.node(n);
            let own = node.replica.own();
            lines += &format!(
                "\n  {} at {} in {} {}/{}:",
                at.name,
                at.address,
                at.datacenter,
                own.generation(),
                own.max_version()
            );
            for (peer, copy) in node.replica.peers() {
                let life = node.liveness.life(peer).map(|life| life.state);
                lines += &format!(" {peer} {}/{} {life:?};", copy.generation(), copy.max_version());
            }
        }
        lines
    }

    pub(crate) fn promise(&self, kept: Result<(), String>) {
        if let Err(broken) = kept {
            self.fail(broken);
        }
    }

    /// Looks at what readers see of a node now, if it changed.
    fn look(&mut self, slot: usize) {
        let name = self.slots[slot].name.clone();
        let two_faced = self.liars.iter().filter(|(_, liar)| matches!(liar, Liar::Equivocator));
        let two_faced: Vec<_> = two_faced.map(|(slot, _)| self.slots[*slot].name.clone()).collect();
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let Some(views) = node.replica.view() else { return };
        node.views = views.clone();
        node.seen.retain(|peer, _| views.contains_key(peer));
        for (peer, view) in &views {
            let reach = (view.generation, view.max_version);
            let before = node.seen.insert(peer.clone(), reach);
            if before.is_some_and(|before| before > reach) {
                self.fail(format!("{name} fell back on {peer}: {before:?} -> {reach:?}"));
            }
            // Who tells half of the others something else has only itself to blame.
            if two_faced.contains(peer) {
                continue;
            }
            if let Err(broken) = self.oracle.check(peer, view) {
                self.fail(format!("{name} holds of {peer}: {broken}"));
            }
        }
    }

    // --- the disk

    fn persist(&mut self, slot: usize, changes: Vec<Change>) {
        self.commit(slot, changes, None);
    }

    fn persist_written(&mut self, slot: usize, written: Written) {
        let generation = self.node(slot).replica.own().generation();
        self.commit(slot, written.persist, Some((generation, written.version)));
    }

    fn commit(
        &mut self,
        slot: usize,
        changes: Vec<Change>,
        acknowledges: Option<(Generation, Version)>,
    ) {
        if changes.is_empty() {
            return;
        }
        let delay = self.rng.random_range(0..self.settings.disk);
        let (epoch, at) = (self.slots[slot].epoch, self.now + delay);
        let disk = &mut self.slots[slot];
        disk.commits += 1;
        let number = disk.commits;
        disk.unsynced.push_back(Commit { number, changes, acknowledges });
        self.at(at, What::Synced { slot, epoch, commit: number });
    }

    fn sync_one(&mut self, slot: usize) {
        let disk = &mut self.slots[slot];
        let Some(commit) = disk.unsynced.pop_front() else { return };
        commit.changes.iter().for_each(|change| disk.stored.apply(change));
        disk.acknowledged = commit.acknowledges.or(disk.acknowledged);
    }

    // --- the network

    /// A node gets another certificate: those who have dialed dial again.
    pub(crate) fn renew_certificate(&mut self, slot: usize) {
        self.note(format_args!("renew the certificate of {slot}"));
        self.slots[slot].certificate += 1;
        for wire in self.wires_of(slot) {
            let spread = self.rng.random_range(0..RENEWAL_SPREAD);
            self.at(self.now + spread, What::Renew { wire });
        }
    }

    /// A process sends another one so many heartbeats at once.
    pub(crate) fn flood(&mut self, slot: usize, peer: usize, heartbeats: u64) {
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
    pub(crate) fn break_connection(&mut self, slot: usize, peer: usize) {
        let name = self.slots[peer].name.clone();
        if let Some(wire) = self.connection(slot, &name) {
            self.note(format_args!("break the connection of {slot} and {peer}"));
            self.break_off(wire);
        }
    }

    /// A process dials a peer as if it had no connection to it.
    pub(crate) fn dial_again(&mut self, slot: usize, peer: usize) {
        let name = self.slots[peer].name.clone();
        self.dial_anew(slot, name);
    }

    /// Whether two are connected, and by one and the same connection.
    pub(crate) fn share_a_connection(&self, one: usize, other: usize) -> bool {
        let [there, back] = [(one, other), (other, one)]
            .map(|(slot, peer)| self.connection(slot, &self.slots[peer].name));
        there.is_some() && there == back
    }

    // --- what must hold in the end

    /// Whether all who run hold the same maps of all who run, and think them live.
    pub(crate) fn converged(&self) -> Result<(), String> {
        let running = self.running();
        for &reader in &running {
            for &owner in running.iter().filter(|owner| **owner != reader) {
                self.holds(reader, owner)?;
                self.thinks_live(reader, owner)?;
            }
            self.thinks_no_ghost_live(reader)?;
            self.agrees_with_itself(reader)?;
            let unreachable = self.node(reader).scheduler.unreachable();
            if !unreachable.is_empty() {
                return Err(format!("n{reader} cannot reach {unreachable:?}"));
            }
        }
        self.agree_on_the_gone()
    }

    /// Whether all who run hold the same maps of all who run, whatever they think of them.
    pub(crate) fn holds_all(&self) -> Result<(), String> {
        let running = self.running();
        for &reader in &running {
            for &owner in running.iter().filter(|owner| **owner != reader) {
                self.holds(reader, owner)?;
            }
        }
        Ok(())
    }

    fn holds(&self, reader: usize, owner: usize) -> Result<(), String> {
        let name = &self.slots[owner].name;
        let own = self.node(owner).replica.own();
        let who = format!("{} of {name}", self.slots[reader].name);
        let Some(copy) = self.node(reader).replica.copy(name) else {
            return Err(format!("{who}: nothing is known"));
        };
        let line = |map: &NodeMap| map.digest_entry(name.clone());
        if line(copy) != line(own) {
            return Err(format!("{who}: {:?}, own {:?}", line(copy), line(own)));
        }
        if contents(copy) != contents(own) || copy.record() != own.record() {
            self.fail(format!("{who}: differs at the same version"));
        }
        Ok(())
    }

    fn thinks_live(&self, reader: usize, owner: usize) -> Result<(), String> {
        let name = &self.slots[owner].name;
        let record = self.node(owner).replica.own().record().expect("always written");
        let life = self.node(reader).liveness.life(name).map(|life| life.state);
        let right = match record.status {
            Status::Left => life == Some(PeerState::Left),
            _ => matches!(life, Some(PeerState::Live | PeerState::Suspect)),
        };
        if right { Ok(()) } else { Err(format!("n{reader} thinks {name} {life:?}")) }
    }

    /// The detector and the storage of a process agree on who there is and in which life.
    fn agrees_with_itself(&self, reader: usize) -> Result<(), String> {
        let node = self.node(reader);
        let stored: Vec<_> =
            node.replica.peers().map(|(peer, copy)| (peer, copy.generation())).collect();
        let judged: Vec<_> =
            node.liveness.lives().map(|(peer, life)| (peer, life.generation)).collect();
        if stored == judged {
            return Ok(());
        }
        Err(format!("n{reader} holds copies of {stored:?} and judges {judged:?}"))
    }

    /// Nobody is suspect for longer than a suspicion may last: it is refuted, or the suspect is dead.
    fn suspicions_end(&self) -> Result<(), String> {
        for reader in self.running().into_iter().filter(|slot| !self.frozen.contains_key(slot)) {
            let now = self.local(reader);
            let suspects = self.node(reader).liveness.lives();
            for (peer, life) in suspects.filter(|(_, life)| life.state == PeerState::Suspect) {
                let age = now.since(life.since);
                if age > SUSPICION * DEFIANCE + INTERVAL {
                    return Err(format!("n{reader} suspects {peer} for {age:?}"));
                }
            }
        }
        Ok(())
    }

    /// Two who sum up the same hold the same.
    fn equal_sums_are_of_equal_copies(&self) -> Result<(), String> {
        let mut holders: BTreeMap<u64, usize> = BTreeMap::new();
        for reader in self.running() {
            let (sum, twins) = (self.node(reader).replica.root(), self.twins);
            let first = *holders.entry(sum).or_insert(reader);
            if first == reader || twins || !self.liars.is_empty() {
                continue;
            }
            for (owner, copy) in self.node(reader).replica.peers() {
                let Some(other) = self.node(first).replica.copy(owner) else { continue };
                let same =
                    copy.generation() == other.generation() && contents(copy) == contents(other);
                let part = |copy: &NodeMap| {
                    copy.is_told_anew() || copy.digest_entry(owner.clone()).is_part()
                };
                // If a copy is being replaced, the sum has the replacement. Parts and copies that are about
                // to be forgotten are in no sum.
                let is_summed = |slot: usize| {
                    let replica = &self.node(slot).replica;
                    replica.lists(owner) && !replica.copy(owner).is_none_or(part)
                };
                let same = same || !is_summed(first) || !is_summed(reader);
                if !same {
                    let [one, two] = [copy, other].map(|copy| {
                        let line = copy.digest_entry(owner.clone());
                        format!("{line:?} {:?}", contents(copy))
                    });
                    let who = format!("n{first} and n{reader} have one sum");
                    return Err(format!("{who} and hold of {owner}: {two} and {one}"));
                }
            }
        }
        Ok(())
    }

    fn thinks_no_ghost_live(&self, reader: usize) -> Result<(), String> {
        let names: BTreeSet<_> = self.running().iter().map(|&n| &self.slots[n].name).collect();
        for (peer, life) in self.node(reader).liveness.lives() {
            let gone = matches!(life.state, PeerState::Dead | PeerState::Left);
            if !gone && !names.contains(peer) {
                return Err(format!("n{reader} thinks {peer} {:?}, which is gone", life.state));
            }
        }
        Ok(())
    }

    /// Those who still know somebody who is gone hold the same of it, unless it is being forgotten. A part is
    /// excused if no whole copy reaches as far as what it is a part of: nobody is there to complete it.
    fn agree_on_the_gone(&self) -> Result<(), String> {
        if self.settings.forget_after < Duration::from_secs(1_000) {
            return Ok(());
        }
        let running = self.running();
        let names: BTreeSet<_> = running.iter().map(|&n| &self.slots[n].name).collect();
        let mut held: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
        for &reader in &running {
            let peers = self.node(reader).replica.peers();
            for (peer, copy) in peers.filter(|(peer, _)| !names.contains(peer)) {
                let line = copy.digest_entry(peer.clone());
                held.entry(peer.clone()).or_default().push((line, contents(copy)));
            }
        }
        for (peer, copies) in held {
            let whole = copies.iter().filter(|(line, _)| !line.is_part());
            let first = whole.clone().max_by_key(|(line, _)| (line.generation, line.max_version));
            let Some(first) = first else { continue };
            let reach = (first.0.generation, first.0.max_version);
            let excused =
                |line: &DigestEntry| line.is_part() && (line.generation, line.horizon) > reach;
            let other = copies.iter().find(|copy| *copy != first && !excused(&copy.0));
            if let Some(other) = other {
                return Err(format!("of {peer}, which is gone, are held {first:?} and {other:?}"));
            }
        }
        Ok(())
    }
}

impl Slot {
    fn new(name: &str, address: String) -> Self {
        Self {
            name: NodeId::new(name).expect("a label"),
            address,
            datacenter: Datacenter::new("dc1").expect("a label"),
            skew: 0,
            certificate: 0,
            stored: Stored::default(),
            unsynced: VecDeque::new(),
            commits: 0,
            acknowledged: None,
            epoch: 0,
            node: None,
            displaced: false,
        }
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

/// Everything but the time at which values expire, which each node tells by its own clock.
type Contents = Vec<(String, Version, Option<Vec<u8>>)>;

fn contents(map: &NodeMap) -> Contents {
    use gossipmonger::protocol::entry::Content;
    map.entries()
        .iter()
        .map(|(key, entry)| {
            let value = match &entry.content {
                Content::Value { value, .. } => Some(value.to_vec()),
                Content::Tombstone => None,
            };
            (key.to_string(), entry.version, value)
        })
        .collect()
}

fn replica_config(settings: &Settings, slot: &Slot) -> ReplicaConfig {
    ReplicaConfig {
        node: slot.name.clone(),
        record: NodeRecord {
            datacenter: slot.datacenter.clone(),
            addresses: vec![slot.address.clone()],
            tags: BTreeMap::new(),
            wire: (1, 1),
            status: Status::Up,
            incarnation: Incarnation::ZERO,
            severed: BTreeSet::new(),
            not_before: None,
            not_after: None,
        },
        limits: settings.limits,
        peers_max: 1_000,
        delta_bytes: settings.delta_bytes,
        delta_entries: settings.delta_entries,
        tombstone_grace: settings.tombstone_grace,
        forget_after: settings.forget_after,
        sketch_key: SketchKey(*b"of the simulator"),
    }
}

fn scheduler_config(
    settings: &Settings,
    slot: &Slot,
    seeds: Vec<String>,
    candidates: Vec<String>,
) -> SchedulerConfig {
    SchedulerConfig {
        node: slot.name.clone(),
        datacenter: slot.datacenter.clone(),
        gossip_interval: INTERVAL,
        gossip_fanout: settings.fanout,
        minimum_live_peers: 1,
        seeds,
        candidates,
        seed_interval: Duration::from_secs(30),
        exchange_timeout: Duration::from_secs(15),
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

/// Nobody here tries to make it.
const SIGNATURE: &[u8] = b"signed";

fn wall(now: u64, skew: i64) -> SystemTime {
    let millis = i64::try_from(now / 1_000).unwrap() + EPOCH_MILLIS + skew;
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap())
}

/// Between two rounds, and between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at all connections.
const LOOK: Duration = Duration::from_millis(1_000 / TICKS_PER_INTERVAL as u64);
/// After a new certificate connections are renewed within so long, in microseconds.
const RENEWAL_SPREAD: u64 = 1_000_000;
/// How long a suspect has to refute that.
const SUSPICION: Duration = Duration::from_secs(2);
/// After so long an exchange is given up, in microseconds.
const EXCHANGE_TIMEOUT: u64 = 10_000_000;
/// The wall clock when a run begins.
const EPOCH_MILLIS: i64 = 1_700_000_000_000;
