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
        digest::DigestEntry,
        event::{Event, Problem},
        exchange::{Ask, Half, Initiator, Reply, Responder, Step, Summary},
        gossip::Gossip,
        id::{ClusterId, Datacenter, Generation, Incarnation, NodeId, Version},
        liveness::{DEFIANCE, Liveness, LivenessConfig},
        map::{MapLimits, NodeMap},
        message::{Call, FRAME_BYTES_MAX, Heartbeat, Hello, LENGTH_BYTES, Message, frame_len},
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        revocation::{Authorities, IssuerId, Revocation, RevocationError},
        route::{
            DetectorInput, Output, SchedulerInput, Sign, StorageInput, Target, TransportInput,
        },
        scheduler::{Scheduler, SchedulerConfig},
        seal::{Seals, Signing},
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

use crate::{attacks::Liar, network::Network, notary::TestNotary, oracle::Oracle};

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
    links: BTreeMap<u64, Link>,
    /// Those that an end still has, by that end and the peer.
    ends: BTreeMap<(usize, NodeId), u64>,
    /// Before every name.
    first: NodeId,
    /// Connections ever made.
    pub(crate) connected: u64,
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

/// A machine that a node may run on, with its disk.
pub(crate) struct Slot {
    pub(crate) name: NodeId,
    pub(crate) address: String,
    pub(crate) datacenter: Datacenter,
    /// How far its wall clock is ahead of the true one, in milliseconds.
    pub(crate) skew: i64,
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
    booted: u64,
    wakes: [u64; 3],
    generation: Generation,
    /// How far each map reached when readers saw it last.
    seen: BTreeMap<NodeId, (Generation, Version)>,
    /// What readers saw last.
    views: Views,
}

type Views = OrdMap<NodeId, Arc<NodeView>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Machine {
    Storage,
    Detector,
    Scheduler,
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
    Frame { exchange: u64, to: Side, bytes: Vec<u8> },
    TimedOut { exchange: u64 },
    Unreached { slot: usize, epoch: u64, target: Target, node: Option<NodeId> },
    Datagram { to: usize, from: NodeId, bytes: Vec<u8> },
    Dialed { slots: [usize; 2], epochs: [u64; 2] },
    Undialed { slot: usize, epoch: u64, peer: NodeId },
    Pump { link: u64, to: usize },
    Gossip { link: u64, to: usize, bytes: Vec<u8> },
    Probe { link: u64 },
    Closed { link: u64 },
    Synced { slot: usize, epoch: u64, commit: u64 },
}

struct Exchange {
    target: Target,
    slots: [usize; 2],
    epochs: [u64; 2],
    /// Of the peer of each side, from its hello.
    generations: [Generation; 2],
    initiator: Initiator,
    /// What the initiator does once the two have been introduced.
    opening: Option<Step>,
    responder: Responder,
    /// When the last frame to each side arrives: streams keep their order.
    arrivals: [u64; 2],
    /// A frame was lost for good, so nothing that is sent later arrives.
    broken: bool,
}

/// A connection.
struct Link {
    /// Who dialed, and who answered.
    slots: [usize; 2],
    epochs: [u64; 2],
    /// Whether each end still has it.
    up: [bool; 2],
    /// What waits to be sent to each end, and when the last of what was sent arrives.
    queues: [VecDeque<Vec<u8>>; 2],
    arrivals: [u64; 2],
    /// When something last got through.
    alive: u64,
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
            links: BTreeMap::new(),
            ends: BTreeMap::new(),
            first: NodeId::new("-").expect("a label"),
            connected: 0,
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
        let scheduler = Scheduler::new(scheduler, Time::ZERO, self.rng.random());
        let (replica, out) = self.start_storage(slot, Time::ZERO, &OrdMap::new(), false);
        self.slots[slot].node = Some(Node {
            liveness: Liveness::new(liveness),
            scheduler,
            booted: self.now,
            wakes: [0; 3],
            generation: replica.own().generation(),
            seen: BTreeMap::new(),
            views: OrdMap::new(),
            replica,
        });
        self.deliver(slot, Machine::Storage, out);
        self.input(slot, Machine::Scheduler, Output::Scheduler(SchedulerInput::Tick));
        self.input(slot, Machine::Detector, Output::Detector(DetectorInput::Tick));
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
        self.tell_links(slot);
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
        self.slots[slot].node = None;
        for link in self.links_of(slot) {
            self.hang_up(link, slot);
        }
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
        for id in self.links_of(slot) {
            let [one, other] = self.links[&id].slots;
            if self.refuses(one, other) {
                self.hang_up(id, slot);
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
        let slots = match what {
            What::Wake { slot, .. }
            | What::Unreached { slot, .. }
            | What::Undialed { slot, .. }
            | What::Datagram { to: slot, .. } => [*slot; 2],
            What::Dialed { slots, .. } => *slots,
            What::Frame { exchange, to, .. } => {
                [self.exchanges.get(exchange)?.slots[usize::from(*to == Side::Responder)]; 2]
            }
            What::Gossip { link, to, .. } => [self.links.get(link)?.slots[*to]; 2],
            What::TimedOut { exchange } => [self.exchanges.get(exchange)?.slots[0]; 2],
            What::Pump { .. } | What::Probe { .. } | What::Closed { .. } | What::Synced { .. } => {
                return None;
            }
        };
        let until = slots.iter().filter_map(|slot| self.frozen.get(slot)).max()?;
        (*until > self.now).then_some(*until)
    }

    fn at(&mut self, at: u64, what: What) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.scheduled, what }));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Wake { slot, epoch, machine, token } => self.wake(slot, epoch, machine, token),
            What::Frame { exchange, to, bytes } => self.frame(exchange, to, &bytes),
            What::TimedOut { exchange } => {
                if let Some(exchange) = self.exchanges.remove(&exchange) {
                    self.ended(exchange.slots[0], exchange.epochs[0], exchange.target, None, false);
                }
            }
            What::Unreached { slot, epoch, target, node } => {
                self.ended(slot, epoch, target, node, false);
            }
            What::Datagram { to, from, bytes } => self.datagram(to, from, &bytes),
            What::Dialed { slots, epochs } => self.dialed(slots, epochs),
            What::Undialed { slot, epoch, peer } => {
                if self.slots[slot].epoch == epoch {
                    let failed = Output::Scheduler(SchedulerInput::DialFailed(peer));
                    self.input(slot, Machine::Scheduler, failed);
                }
            }
            What::Pump { link, to } => self.pump(link, to),
            What::Gossip { link, to, bytes } => self.told(link, to, &bytes),
            What::Probe { link } => self.probe(link),
            What::Closed { link } => self.break_off(link),
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
                    self.transport(slot, input);
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

    fn transport(&mut self, slot: usize, input: TransportInput) {
        match input {
            TransportInput::Round { targets, summary } => {
                for target in targets {
                    // Every other time, as in a cluster that is large enough.
                    let summary = match self.rng.random::<bool>() {
                        true => Summary::Sketch(self.node(slot).replica.sketch()),
                        false => summary.clone(),
                    };
                    let (initiator, opening) = summary.open();
                    self.dial(slot, target, initiator, opening);
                }
            }
            TransportInput::Heartbeat { peers, .. } => {
                peers.iter().for_each(|peer| self.heartbeat(slot, peer, Call::Beat, 0));
            }
            TransportInput::Probe { probes, .. } => {
                for (peer, number) in probes {
                    self.heartbeat(slot, &peer, Call::Probe, number);
                }
            }
            TransportInput::Dial(peers) => {
                peers.into_iter().for_each(|peer| self.dial_peer(slot, peer));
            }
            TransportInput::Close(peers) => {
                peers.iter().for_each(|peer| self.close(slot, peer));
            }
            TransportInput::Forget(peer) => self.close(slot, &peer),
            TransportInput::TellLinks => self.tell_links(slot),
            // Connections of this network have no timers of their own.
            TransportInput::Renew(_) => {}
            // Nobody is cut off here.
            TransportInput::HoldAgainst { .. } => {}
            TransportInput::Gossip { to, gossip } => {
                let bytes = gossip.encode().expect("what nodes say fits a frame");
                for peer in to {
                    let bytes = match self.liars.get_mut(&slot) {
                        None => bytes.clone(),
                        Some(liar) => {
                            let mut lie = (*gossip).clone();
                            let node = self.slots[slot].node.as_ref().expect("it runs");
                            let own = (&self.slots[slot].name, node.replica.own());
                            liar.gossip(&mut self.rng, own, &peer, &mut lie);
                            lie.encode().expect("what liars say fits a frame")
                        }
                    };
                    self.tell(slot, &peer, bytes);
                }
            }
        }
    }

    // --- connections

    /// The connections of a process.
    fn links_of(&self, slot: usize) -> Vec<u64> {
        let all = self.ends.range((slot, self.first.clone())..);
        let own = all.take_while(|((of, _), _)| *of == slot).map(|(_, id)| *id);
        own.filter(|id| self.is_of(*id, slot)).collect()
    }

    /// The connection that a process has to a peer.
    fn link_to(&self, slot: usize, peer: &NodeId) -> Option<u64> {
        let id = *self.ends.get(&(slot, peer.clone()))?;
        self.is_of(id, slot).then_some(id)
    }

    /// Whether a connection is of the process that runs now, and not of one before.
    fn is_of(&self, id: u64, slot: usize) -> bool {
        let link = &self.links[&id];
        link.epochs[link.end(slot)] == self.slots[slot].epoch
    }

    /// One end has it no longer.
    fn drop_end(&mut self, id: u64, end: usize) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        if !std::mem::take(&mut link.up[end]) {
            return false;
        }
        let of = (link.slots[end], self.slots[link.slots[1 - end]].name.clone());
        if self.ends.get(&of) == Some(&id) {
            self.ends.remove(&of);
        }
        true
    }

    fn close(&mut self, slot: usize, peer: &NodeId) {
        if let Some(link) = self.link_to(slot, peer) {
            self.hang_up(link, slot);
        }
    }

    fn dial_peer(&mut self, slot: usize, peer: NodeId) {
        if let Some(id) = self.link_to(slot, &peer) {
            self.tell_link(id, slot, true);
            return;
        }
        let epoch = self.slots[slot].epoch;
        let other = self.find(slot, &Target::Peer(peer.clone()));
        let other = other.filter(|other| self.slots[*other].name == peer);
        let there = other.and_then(|other| {
            let forth = self.network.frame(&mut self.rng, slot, other)?;
            Some((other, forth + self.network.frame(&mut self.rng, other, slot)?))
        });
        match there {
            Some((other, travel)) => {
                let epochs = [epoch, self.slots[other].epoch];
                self.at(self.now + travel, What::Dialed { slots: [slot, other], epochs });
            }
            None => self.at(self.now + CONNECT_TIMEOUT, What::Undialed { slot, epoch, peer }),
        }
    }

    fn dialed(&mut self, slots: [usize; 2], epochs: [u64; 2]) {
        let runs = |n: usize| {
            let at = &self.slots[slots[n]];
            at.epoch == epochs[n] && at.node.is_some()
        };
        if !runs(0) {
            return;
        }
        if !runs(1) || self.refuses(slots[0], slots[1]) {
            let peer = self.slots[slots[1]].name.clone();
            let (slot, epoch) = (slots[0], epochs[0]);
            self.at(self.now + CONNECT_TIMEOUT, What::Undialed { slot, epoch, peer });
            return;
        }
        for (here, there) in [(slots[0], slots[1]), (slots[1], slots[0])] {
            let hello = self.hello(there, here);
            let known = StorageInput::HeardOfSelf(hello.known, Heard::Said(hello.node.clone()));
            self.input(here, Machine::Storage, Output::Storage(known));
            if self.slots[here].node.is_none() || self.slots[there].node.is_none() {
                return;
            }
            self.heard(here, hello.node, hello.generation, Sign::Traffic);
        }
        self.connect(slots);
    }

    /// Two that have introduced themselves are connected, unless they are already.
    fn connect(&mut self, slots: [usize; 2]) {
        let names = slots.map(|slot| self.slots[slot].name.clone());
        let epochs = slots.map(|slot| self.slots[slot].epoch);
        if slots.iter().any(|slot| self.slots[*slot].node.is_none())
            || self.refuses(slots[0], slots[1])
        {
            return;
        }
        for (n, &slot) in slots.iter().enumerate() {
            let Some(id) = self.link_to(slot, &names[1 - n]) else { continue };
            let link = &self.links[&id];
            let end = link.end(slot);
            let same = (link.slots[1 - end], link.epochs[1 - end]) == (slots[1 - n], epochs[1 - n]);
            if same && link.up == [true; 2] {
                return;
            }
            // It is with an earlier process of that name.
            self.hang_up(id, slot);
        }
        self.scheduled += 1;
        let id = self.scheduled;
        let link = Link {
            slots,
            epochs,
            up: [true; 2],
            queues: Default::default(),
            arrivals: [0; 2],
            alive: self.now,
        };
        self.links.insert(id, link);
        self.connected += 1;
        for (end, name) in names.iter().enumerate() {
            self.ends.insert((slots[1 - end], name.clone()), id);
        }
        self.at(self.now + PROBE, What::Probe { link: id });
        for slot in slots {
            self.tell_link(id, slot, true);
        }
    }

    /// Tells a process that it has a connection, or has it no longer.
    fn tell_link(&mut self, id: u64, slot: usize, up: bool) {
        let Some(link) = self.links.get(&id) else { return };
        let end = link.end(slot);
        if self.slots[slot].epoch != link.epochs[end] || self.slots[slot].node.is_none() {
            return;
        }
        let peer = self.slots[link.slots[1 - end]].name.clone();
        let dialed = end == 0;
        let stored = StorageInput::Linked(peer.clone(), up);
        self.input(slot, Machine::Storage, Output::Storage(stored));
        let heard = DetectorInput::Linked { peer: peer.clone(), up, dialed };
        self.input(slot, Machine::Detector, Output::Detector(heard));
        let linked = SchedulerInput::Linked { peer, up, dialed };
        self.input(slot, Machine::Scheduler, Output::Scheduler(linked));
    }

    fn tell_links(&mut self, slot: usize) {
        for id in self.links_of(slot) {
            let link = &self.links[&id];
            if link.up[link.end(slot)] {
                self.tell_link(id, slot, true);
            }
        }
    }

    /// One end closes a connection; the other one hears of it, if anything reaches it.
    fn hang_up(&mut self, id: u64, slot: usize) {
        let Some(link) = self.links.get(&id) else { return };
        let end = link.end(slot);
        let other = link.slots[1 - end];
        if !self.drop_end(id, end) {
            return;
        }
        if let Some(travel) = self.network.frame(&mut self.rng, slot, other) {
            let at = (self.now + travel).max(self.links[&id].arrivals[1 - end] + 1);
            self.at(at, What::Closed { link: id });
        }
        self.tell_link(id, slot, false);
    }

    /// A connection is gone for whoever still has it.
    fn break_off(&mut self, id: u64) {
        let Some(slots) = self.links.get(&id).map(|link| link.slots) else { return };
        for (end, slot) in slots.into_iter().enumerate() {
            if self.drop_end(id, end) {
                self.tell_link(id, slot, false);
            }
        }
        self.links.remove(&id);
    }

    /// Notices that nothing gets through any more.
    fn probe(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let runs = |n: usize| {
            let at = &self.slots[link.slots[n]];
            at.epoch == link.epochs[n] && at.node.is_some()
        };
        let [one, other] = link.slots;
        let through = self.network.reaches(one, other)
            && self.network.reaches(other, one)
            && ![one, other]
                .into_iter()
                .any(|slot| self.frozen.get(&slot).is_some_and(|until| *until > self.now));
        if through && link.up == [true; 2] && runs(0) && runs(1) {
            link.alive = self.now;
        }
        if self.now - link.alive >= IDLE_TIMEOUT {
            self.break_off(id);
        } else {
            self.at(self.now + PROBE, What::Probe { link: id });
        }
    }

    fn tell(&mut self, slot: usize, peer: &NodeId, bytes: Vec<u8>) {
        let Some(id) = self.link_to(slot, peer) else { return };
        let link = self.links.get_mut(&id).expect("just found");
        let to = 1 - link.end(slot);
        link.queues[to].push_back(bytes);
        if link.queues[to].len() == 1 {
            self.pump(id, to);
        }
    }

    /// Sends what waits: a stream keeps its order, and repeats what is lost.
    fn pump(&mut self, id: u64, to: usize) {
        while let Some(link) = self.links.get_mut(&id) {
            let (from, towards) = (link.slots[1 - to], link.slots[to]);
            if !self.network.reaches(from, towards) || !self.network.reaches(towards, from) {
                if !link.queues[to].is_empty() {
                    self.at(self.now + RESEND, What::Pump { link: id, to });
                }
                return;
            }
            let Some(bytes) = link.queues[to].pop_front() else { return };
            let Some(travel) = self.network.frame(&mut self.rng, from, towards) else {
                self.break_off(id);
                return;
            };
            let at = (self.now + travel).max(link.arrivals[to] + 1);
            link.arrivals[to] = at;
            self.at(at, What::Gossip { link: id, to, bytes });
        }
    }

    fn told(&mut self, id: u64, to: usize, bytes: &[u8]) {
        let Some(link) = self.links.get(&id) else { return };
        let (slot, epoch, peer) = (link.slots[to], link.epochs[to], link.slots[1 - to]);
        if !link.up[to] || self.slots[slot].epoch != epoch || self.slots[slot].node.is_none() {
            return;
        }
        let from = self.slots[peer].name.clone();
        let Ok(Message::Gossip(gossip)) = Message::decode(&bytes[LENGTH_BYTES..]) else {
            self.fail("what nodes say can be decoded")
        };
        let revokes = matches!(gossip, Gossip::Revocations(_) | Gossip::RevocationSum(_));
        if revokes && self.deaf.contains(&slot) {
            return;
        }
        let told = StorageInput::Gossip(from, Box::new(gossip));
        self.input(slot, Machine::Storage, Output::Storage(told));
    }

    /// Who would answer: the machine at the address, whoever runs there.
    fn find(&self, slot: usize, target: &Target) -> Option<usize> {
        let address = match target {
            Target::Address(address) => address.clone(),
            Target::Peer(peer) => {
                let copy = self.node(slot).replica.copy(peer)?;
                copy.record()?.addresses.first()?.clone()
            }
        };
        let runs = |n: &usize| self.slots[*n].node.is_some() && !self.refuses(slot, *n);
        if let Some(named) = self.names.get(&address) {
            return Some(*named).filter(runs);
        }
        let at = |n: &usize| self.slots[*n].address == address && runs(n);
        (0..self.slots.len()).find(at)
    }

    fn dial(&mut self, slot: usize, target: Target, initiator: Initiator, opening: Step) {
        let epoch = self.slots[slot].epoch;
        let other = self.find(slot, &target);
        let name = other.map(|other| self.slots[other].name.clone());
        let right = match (&target, &name) {
            (_, None) => false,
            (Target::Peer(peer), Some(name)) => peer == name,
            (Target::Address(_), Some(name)) => *name != self.slots[slot].name,
        };
        let Some(other) = other.filter(|_| right) else {
            let node = name.filter(|_| matches!(target, Target::Address(_)));
            let at = self.now + CONNECT_TIMEOUT;
            self.at(at, What::Unreached { slot, epoch, target, node });
            return;
        };
        self.scheduled += 1;
        let id = self.scheduled;
        let exchange = Exchange {
            target,
            slots: [slot, other],
            epochs: [epoch, self.slots[other].epoch],
            generations: [Generation::ZERO; 2],
            initiator,
            opening: Some(opening),
            responder: Responder::new(),
            arrivals: [0; 2],
            broken: false,
        };
        self.exchanges.insert(id, exchange);
        let hello = Message::Hello(self.hello(slot, other));
        self.send(id, Side::Responder, &hello);
        let at = self.now + EXCHANGE_TIMEOUT;
        self.at(at, What::TimedOut { exchange: id });
    }

    fn hello(&self, slot: usize, to: usize) -> Hello {
        let replica = &self.node(slot).replica;
        let known = replica.copy(&self.slots[to].name);
        Hello {
            cluster: ClusterId::new("sim").expect("a label"),
            node: self.slots[slot].name.clone(),
            generation: replica.own().generation(),
            known: known.map_or(Generation::ZERO, |copy| copy.generation()),
            features: 0,
        }
    }

    fn send(&mut self, id: u64, to: Side, message: &Message) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let (from, towards) = match to {
            Side::Responder => (exchange.slots[0], exchange.slots[1]),
            Side::Initiator => (exchange.slots[1], exchange.slots[0]),
        };
        let mut message = message.clone();
        if let Some(liar) = self.liars.get_mut(&from)
            && let Some(node) = &self.slots[from].node
        {
            let own = (&self.slots[from].name, node.replica.own());
            liar.message(&mut self.rng, own, &self.slots[towards].name, &mut message);
        }
        let bytes = message.encode().expect("what nodes say fits a frame");
        // A broken stream is noticed when the exchange times out.
        let travel = self.network.frame(&mut self.rng, from, towards).filter(|_| !exchange.broken);
        let Some(travel) = travel else {
            exchange.broken = true;
            return;
        };
        let at = (self.now + travel).max(exchange.arrivals[to as usize] + 1);
        exchange.arrivals[to as usize] = at;
        self.at(at, What::Frame { exchange: id, to, bytes });
    }

    fn frame(&mut self, id: u64, to: Side, bytes: &[u8]) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let slots = exchange.slots;
        let (at, other) = if to == Side::Initiator { (0, 1) } else { (1, 0) };
        let (slot, peer) = (slots[at], slots[other]);
        if self.slots[slot].epoch != exchange.epochs[at] || self.slots[slot].node.is_none() {
            return;
        }
        let (length, frame) = bytes.split_at(LENGTH_BYTES);
        let len = frame_len(length.try_into().expect("four bytes"), FRAME_BYTES_MAX);
        assert_eq!(len, Ok(frame.len()));
        let message = Message::decode(frame).expect("what nodes say can be decoded");
        let peer = self.slots[peer].name.clone();
        match message {
            Message::Hello(hello) | Message::Welcome(hello) => {
                self.introduced(id, to, &peer, &hello);
            }
            message => {
                let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                let generation = exchange.generations[to as usize];
                let step = match to {
                    Side::Initiator => exchange.initiator.frame(message),
                    Side::Responder => exchange.responder.frame(message),
                };
                self.heard(slot, peer, generation, Sign::Traffic);
                self.drive(id, to, step);
            }
        }
    }

    fn introduced(&mut self, id: u64, side: Side, peer: &NodeId, hello: &Hello) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        assert_eq!(*peer, hello.node);
        exchange.generations[side as usize] = hello.generation;
        let opening = exchange.opening.take_if(|_| side == Side::Initiator);
        let [initiator, responder] = exchange.slots;
        let slot = if side == Side::Initiator { initiator } else { responder };
        let known = StorageInput::HeardOfSelf(hello.known, Heard::Said(hello.node.clone()));
        self.input(slot, Machine::Storage, Output::Storage(known));
        if self.slots[slot].node.is_none() {
            return;
        }
        self.heard(slot, peer.clone(), hello.generation, Sign::Traffic);
        if side == Side::Initiator {
            self.connect([initiator, responder]);
        }
        match opening {
            Some(step) => self.drive(id, side, step),
            None => {
                let welcome = Message::Welcome(self.hello(responder, initiator));
                self.send(id, Side::Initiator, &welcome);
            }
        }
    }

    /// Does what one half of an exchange says, until it waits for the network.
    fn drive(&mut self, id: u64, side: Side, mut step: Step) {
        loop {
            let Some(exchange) = self.exchanges.get(&id) else { return };
            let slot = exchange.slots[usize::from(side == Side::Responder)];
            let peer = exchange.slots[usize::from(side == Side::Initiator)];
            let peer = self.slots[peer].name.clone();
            step = match step {
                Step::Ask(ask) => {
                    let Some(reply) = self.ask(slot, &peer, ask) else { return };
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).reply(reply)
                }
                Step::Send(message) => {
                    let to =
                        if side == Side::Initiator { Side::Responder } else { Side::Initiator };
                    self.send(id, to, &message);
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).sent()
                }
                Step::Read => return,
                Step::Done if side == Side::Responder => {
                    // It ends the stream, under what the other one may still send.
                    if let Some(exchange) = self.exchanges.get_mut(&id) {
                        exchange.epochs[1] = 0;
                    }
                    return;
                }
                Step::Done => {
                    self.done(id, peer);
                    return;
                }
                Step::Broken(breach) => self.fail(format!("an honest peer is blamed: {breach}")),
            };
        }
    }

    /// The initiator is through; its last frame may still be on the way.
    fn done(&mut self, id: u64, peer: NodeId) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let (slot, epoch) = (exchange.slots[0], exchange.epochs[0]);
        let target = exchange.target.clone();
        // What times out later is nobody's any more.
        exchange.epochs[0] = 0;
        self.ended(slot, epoch, target, Some(peer), true);
    }

    fn ask(&mut self, slot: usize, peer: &NodeId, ask: Ask) -> Option<Reply> {
        let now = self.local(slot);
        let replica = &mut self.slots[slot].node.as_mut()?.replica;
        let mut out = Vec::new();
        let reply = replica.serve(now, peer, ask, &mut out);
        self.deliver(slot, Machine::Storage, out);
        self.slots[slot].node.is_some().then_some(reply)
    }

    fn ended(&mut self, slot: usize, epoch: u64, target: Target, node: Option<NodeId>, ok: bool) {
        if self.slots[slot].epoch == epoch {
            let ended = SchedulerInput::Ended { target, node, ok };
            self.input(slot, Machine::Scheduler, Output::Scheduler(ended));
        }
    }

    fn heartbeat(&mut self, slot: usize, peer: &NodeId, call: Call, sequence: u64) {
        let Some(id) = self.link_to(slot, peer) else { return };
        let link = &self.links[&id];
        let to = link.slots[1 - link.end(slot)];
        let Some(node) = self.slots[slot].node.as_ref() else { return };
        let generation = node.replica.own().generation();
        let bytes = Heartbeat { generation, sequence, call, health: 0 }.encode();
        // What QUIC is not told the arrival of it asks for again; of echoes it does not know.
        let tries: &[u64] = if call == Call::Beat { &[0, 27_000, 81_000] } else { &[0] };
        for late in tries {
            let travels: Vec<_> =
                self.network.datagram(&mut self.rng, slot, to).into_iter().collect();
            for travel in &travels {
                let from = self.slots[slot].name.clone();
                self.at(
                    self.now + late + *travel,
                    What::Datagram { to, from, bytes: bytes.clone() },
                );
            }
            if !travels.is_empty() {
                break;
            }
        }
    }

    /// A heartbeat is acknowledged, a probe echoed.
    fn datagram(&mut self, to: usize, from: NodeId, bytes: &[u8]) {
        let heartbeat = Heartbeat::decode(bytes).expect("what nodes say can be decoded");
        let sign = match (heartbeat.call, heartbeat.sequence) {
            (Call::Echo, 0) => Sign::Traffic,
            (Call::Echo, number) => Sign::Echo(number),
            (Call::Beat | Call::Probe, _) => {
                self.heartbeat(to, &from, Call::Echo, heartbeat.sequence);
                Sign::Heartbeat
            }
        };
        self.heard(to, from, heartbeat.generation, sign);
    }

    fn heard(&mut self, slot: usize, peer: NodeId, generation: Generation, sign: Sign) {
        let heard = DetectorInput::Heard { peer, generation, sign, at: self.local(slot) };
        self.input(slot, Machine::Detector, Output::Detector(heard));
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

impl Link {
    fn end(&self, slot: usize) -> usize {
        usize::from(self.slots[0] != slot)
    }
}

impl Exchange {
    fn half(&mut self, side: Side) -> &mut dyn Half {
        match side {
            Side::Initiator => &mut self.initiator,
            Side::Responder => &mut self.responder,
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
/// How long a suspect has to refute that.
const SUSPICION: Duration = Duration::from_secs(2);
/// After so long nobody answers at an address, in microseconds.
const CONNECT_TIMEOUT: u64 = 1_000_000;
/// How often a connection is looked at whether anything gets through, in microseconds.
const PROBE: u64 = 1_000_000;
/// After so long without anything a connection is gone, in microseconds.
const IDLE_TIMEOUT: u64 = 30_000_000;
/// After so long a stream tries again what does not get through, in microseconds.
const RESEND: u64 = 300_000;
/// After so long an exchange is given up, in microseconds.
const EXCHANGE_TIMEOUT: u64 = 10_000_000;
/// The wall clock when a run begins.
const EPOCH_MILLIS: i64 = 1_700_000_000_000;
