//! All nodes of a run, their connections, and the one place that delivers the machines' outputs: the
//! counterpart of actors and transport in production.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

mod beats;

pub use beats::News;
use beats::{Acknowledgement, End, Packet};

use super::{
    network::Network,
    node::{Machine, Machines, number},
    pool::Pool,
    queue::{Queue, micros},
    size::encoded_len,
};
use crate::{
    node::config::Config,
    protocol::{
        delta::{Delta, NodeDelta},
        event::Event,
        exchange::{Ask, Half, Initiator, Reply, Responder, Step},
        gossip::Gossip,
        id::{ClusterId, Datacenter, Generation, NodeId, Version},
        liveness::TICKS_PER_INTERVAL,
        map::Budget,
        message::{Call, Message},
        overlay,
        route::{
            DetectorInput, Output, SchedulerInput, Sign, StorageInput, Target, TransportInput,
        },
        skim::SKIM_BYTES_MAX,
        write::Write,
    },
    tls::PeerName,
};

/// A run.
#[derive(Debug)]
pub struct World {
    pub network: Network,
    pub tally: Tally,
    pub nodes: Vec<Node>,
    /// The growth of this process's memory when they were started.
    pub bytes_per_pair: f64,
    rng: SmallRng,
    queue: Queue<What>,
    pool: Arc<Pool>,
    connections: Vec<Connection>,
    exchanges: BTreeMap<u64, Exchange>,
    exchanged: u64,
    config: Config,
    /// The numbers of the nodes that are seeds of all others.
    seeds: Vec<u32>,
    /// Connections being opened, by dialer and peer; the number is that of no connection if no node answers.
    dialing: BTreeMap<(u32, u32), u32>,
    watched: Vec<Watched>,
    /// Whether calls without effect are left out.
    elide: bool,
    /// Whether heartbeats are packets of their own: see `world/beats.rs`.
    whole: bool,
    /// The states of the nodes as seen by each other, if they are wanted.
    sightings: Option<Vec<Sighting>>,
    #[cfg(test)]
    pub trace: Vec<String>,
}

/// A node changed its mind about another.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    pub at: u64,
    pub observer: u32,
    pub subject: u32,
    pub seen: Seen,
}

/// The state of a node as seen by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Live,
    Suspect,
    /// Dead, or gone on purpose.
    Dead,
}

/// A place for a node.
#[derive(Debug)]
pub struct Node {
    pub name: NodeId,
    /// Counts the processes that ran here.
    epoch: u32,
    pub machines: Option<Box<Machines>>,
    /// When it crashed.
    crashed: Option<u64>,
}

/// The counts besides bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Frames between datacenters with a watched write, or that steer its spreading.
    pub wan_messages: u64,
    /// Frames with a watched write, anywhere.
    pub payloads: u64,
    /// Connections opened.
    pub handshakes: u64,
    /// Exchanges of digests begun.
    pub exchanges: u64,
}

/// A write whose spreading is watched.
#[derive(Debug)]
struct Watched {
    owner: u32,
    version: Version,
    begun: u64,
    /// After how many microseconds each node had it.
    reached: Vec<Option<u64>>,
    left: usize,
}

/// A connection, in one of the two directions in which it may have been opened.
#[derive(Debug)]
struct Connection {
    /// The dialer, then the accepter.
    ends: [u32; 2],
    epochs: [u32; 2],
    /// Which ends have been introduced to the other and have not lost it since.
    up: [bool; 2],
    /// When each end heard the other last, except for heartbeats that were left out.
    heard: [u64; 2],
    /// Since when it carries heartbeats, and up to which one they are counted.
    quiet: u64,
    counted: u64,
    /// Since when nothing gets through: an end is dead, or the two are cut off from each other.
    sick: Option<u64>,
    /// When the last frame of gossip to each end arrives: a stream keeps its order.
    arrivals: [u64; 2],
    /// Frames that could not be sent since the two were cut off from each other.
    held: Vec<(usize, Arc<Gossip>)>,
    /// The packets between the two besides streams.
    life: [End; 2],
    /// Exchanges that wait for the introduction.
    waiting: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Initiator,
    Responder,
}

#[derive(Debug)]
enum What {
    Wake {
        node: u32,
        epoch: u32,
        machine: Machine,
        token: u32,
    },
    Gossip {
        connection: u32,
        to: u8,
        gossip: Arc<Gossip>,
    },
    Introduced {
        connection: u32,
        end: u8,
    },
    /// A dial without an answer.
    Unreached {
        node: u32,
        epoch: u32,
        target: Target,
        exchange: Option<u64>,
    },
    /// An end learns that the connection is closed.
    Closed {
        connection: u32,
        end: u8,
    },
    /// A node looks at its connections.
    Look {
        node: u32,
        epoch: u32,
        nth: u64,
    },
    Packet(Packet),
    Acked(Acknowledgement),
    /// An end finds that something was not acknowledged.
    Unacknowledged {
        connection: u32,
        end: u8,
    },
    /// Nothing was heard on a connection for long.
    Idle {
        connection: u32,
        end: u8,
    },
    Frame {
        exchange: u64,
        to: Side,
        message: Box<Message>,
    },
    TimedOut {
        exchange: u64,
    },
}

#[derive(Debug)]
struct Exchange {
    target: Target,
    /// The initiator, then the responder.
    nodes: [u32; 2],
    epochs: [u32; 2],
    initiator: Initiator,
    opening: Option<Step>,
    responder: Responder,
    /// Which halves are through.
    done: [bool; 2],
}

impl World {
    /// `sites`: the datacenter of each node. None runs yet.
    pub fn new(seed: u64, sites: &[u16], seeds: Vec<u32>, network: Network) -> Self {
        let digits = sites.len().max(2).ilog10() as usize + 1;
        let name = |n| NodeId::new(&format!("n{n:0digits$}")).expect("a label");
        let nodes = (0..sites.len()).map(|n| Node {
            name: name(n),
            epoch: 0,
            machines: None,
            crashed: None,
        });
        let nodes: Vec<_> = nodes.collect();
        let mut config = Config::new(&PeerName {
            cluster: ClusterId::new("simulated").expect("a label"),
            datacenter: Datacenter::new("dc").expect("a label"),
            node: nodes[0].name.clone(),
        });
        config.peers_max = config.peers_max.max(sites.len());
        config.seeds = seeds.iter().map(|n| address(*n)).collect();
        Self {
            network,
            tally: Tally::default(),
            nodes,
            bytes_per_pair: 0.0,
            rng: SmallRng::seed_from_u64(seed),
            queue: Queue::new(),
            pool: Arc::default(),
            connections: Vec::new(),
            exchanges: BTreeMap::new(),
            exchanged: 0,
            config,
            seeds,
            dialing: BTreeMap::new(),
            watched: Vec::new(),
            elide: true,
            whole: false,
            sightings: None,
            #[cfg(test)]
            trace: Vec::new(),
        }
    }

    /// Whether calls without effect are left out, as they are by default.
    #[cfg(test)]
    pub const fn leave_out(&mut self, elide: bool) {
        self.elide = elide;
    }

    /// Changes the settings of all nodes that are not in place yet.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Records from now on the states of the nodes as seen by each other.
    pub fn watch_verdicts(&mut self) {
        self.sightings = Some(Vec::new());
    }

    /// The records.
    pub fn sightings(&self) -> &[Sighting] {
        self.sightings.as_deref().unwrap_or_default()
    }

    /// Virtual time, in microseconds.
    pub const fn now(&self) -> u64 {
        self.queue.now()
    }

    pub const fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    /// The addresses of the seeds, and their numbers.
    pub fn seeds(&self) -> Vec<(String, NodeId)> {
        let seed = |n: &u32| (address(*n), self.nodes[*n as usize].name.clone());
        self.seeds.iter().map(seed).collect()
    }

    /// The machines of a node that runs.
    pub fn machines(&self, node: u32) -> Option<&Machines> {
        self.nodes[node as usize].machines.as_deref()
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = u32> {
        let all = self.nodes.iter().zip(0..);
        all.filter(|(node, _)| node.machines.is_some()).map(|(_, n)| n)
    }

    // --- processes

    /// Starts a node that knows only the seeds.
    pub fn boot(&mut self, node: u32) {
        let out = self.install(node);
        self.deliver(node, Machine::Storage, out);
        self.set_going(node);
    }

    /// Puts the machines of a node in place; they have not been woken yet.
    pub fn install(&mut self, node: u32) -> Vec<Output> {
        let (now, seed) = (self.origin(), self.rng.random());
        let mut out = Vec::new();
        let mut config = self.config.clone();
        config.node = self.nodes[node as usize].name.clone();
        let site = self.network.site(node);
        config.datacenter = Datacenter::new(&format!("dc{site}")).expect("a label");
        config.advertise = vec![address(node)];
        let machines = Machines::start(&config, &self.pool, seed, now, &mut out);
        let at = &mut self.nodes[node as usize];
        at.epoch += 1;
        at.crashed = None;
        at.machines = Some(Box::new(machines));
        out
    }

    /// Wakes the machines of a node for the first time.
    pub fn set_going(&mut self, node: u32) {
        self.input(node, Machine::Scheduler, Output::Scheduler(SchedulerInput::Tick));
        self.input(node, Machine::Detector, Output::Detector(DetectorInput::Tick));
        if self.whole {
            self.begin_looking(node);
        }
    }

    /// Ends a node without any notice.
    pub fn crash(&mut self, node: u32) {
        let now = self.now();
        self.settle_beats(node);
        let Some(machines) = self.nodes[node as usize].machines.take() else { return };
        self.nodes[node as usize].crashed = Some(now);
        for (_, connection) in machines.links {
            self.sicken(connection);
        }
    }

    fn interval(&self) -> u64 {
        micros(self.config.gossip_interval)
    }

    // --- callers

    /// Sets a key on a node.
    pub fn set(&mut self, node: u32, key: &str, value: &[u8]) -> Option<Version> {
        let now = self.now();
        let machines = self.nodes[node as usize].machines.as_mut()?;
        let mut out = Vec::new();
        let batch = vec![Write::set(key, value.to_vec())];
        let written = machines.replica.write(machines.clock(now), batch, &mut out).ok()?;
        self.deliver(node, Machine::Storage, out);
        Some(written.version)
    }

    /// Sets a key, and records from now on which nodes have it.
    pub fn set_watched(&mut self, node: u32, key: &str, value: &[u8]) {
        let begun = self.now();
        let Some(next) = self.machines(node).map(|m| m.replica.own().next_version()) else {
            return;
        };
        let mut reached = vec![None; self.nodes.len()];
        reached[node as usize] = Some(0);
        let left = self.running().count().saturating_sub(1);
        self.watched.push(Watched { owner: node, version: next, begun, reached, left });
        self.set(node, key, value);
    }

    /// Whether all running nodes have all watched writes.
    pub fn is_everywhere(&self) -> bool {
        self.watched.iter().all(|watched| watched.left == 0)
    }

    /// For each watched write, after how many microseconds each running node except the writer had it.
    /// Watching ends.
    pub fn arrivals(&mut self) -> Vec<Vec<Option<u64>>> {
        let watched = std::mem::take(&mut self.watched);
        let of = |w: &Watched| {
            let others = self.running().filter(|node| *node != w.owner);
            others.map(|node| w.reached[node as usize]).collect()
        };
        watched.iter().map(of).collect()
    }

    fn note_arrivals(&mut self, node: u32) {
        let now = self.queue.now();
        let Some(machines) = &self.nodes[node as usize].machines else { return };
        for watched in &mut self.watched {
            if watched.left == 0 || watched.reached[node as usize].is_some() {
                continue;
            }
            let owner = &self.nodes[watched.owner as usize].name;
            let copy = machines.replica.copy(owner);
            if copy.is_some_and(|copy| copy.max_version() >= watched.version) {
                watched.reached[node as usize] = Some(now - watched.begun);
                watched.left -= 1;
            }
        }
    }

    /// Whether a frame is about a watched write.
    fn is_watched(&self, gossip: &Gossip) -> bool {
        let watched = |name: &NodeId| {
            number(name).is_some_and(|n| self.watched.iter().any(|watched| watched.owner == n))
        };
        match gossip {
            Gossip::Push(delta) => delta.nodes.iter().any(|delta| watched(&delta.node)),
            Gossip::Have(owners) => owners.iter().any(|have| watched(&have.node)),
            Gossip::Graft(owners) => owners.iter().any(|entry| watched(&entry.node)),
            Gossip::Prune(owners) => owners.iter().any(watched),
            Gossip::Root(_)
            | Gossip::Wave(_)
            | Gossip::Echo(_)
            | Gossip::Ask(_)
            | Gossip::Answer(_)
            | Gossip::Accusation(_)
            | Gossip::Removal(_)
            | Gossip::Equivocation(_)
            | Gossip::RevocationSum(_)
            | Gossip::Revocations(_) => false,
        }
    }

    // --- two nodes apart from all others

    /// Has some nodes write a key, and sends the writes to only one of them.
    pub fn write_apart(&mut self, writers: &[u32], to: u32, value: &str) {
        let now = self.now();
        for writer in writers {
            let name = self.nodes[*writer as usize].name.clone();
            let Some(machines) = self.nodes[*writer as usize].machines.as_mut() else { continue };
            let (clock, mut out) = (machines.clock(now), Vec::new());
            let batch = vec![Write::set("key", value.as_bytes().to_vec())];
            let written = machines.replica.write(clock, batch, &mut out);
            debug_assert!(written.is_ok(), "a short key is within the limits");
            let Some(machines) = self.machines(to) else { return };
            let Some(copy) = machines.replica.copy(&name) else { continue };
            let mut budget = Budget { bytes: usize::MAX, entries: usize::MAX, untouched: true };
            let line = copy.digest_entry(name.clone());
            let own = self.machines(*writer).map(|m| m.replica.own());
            let news = own.and_then(|own| own.delta(clock, &line, &mut budget));
            let nodes = news.into_iter().map(|(delta, _)| delta).collect();
            if let Some(machines) = self.nodes[to as usize].machines.as_mut() {
                let delta = Delta { nodes, more: false };
                machines.replica.apply(clock, &name, &delta, &mut out);
            }
        }
    }

    /// Runs an exchange between two nodes at once, and returns its cost.
    pub fn reconcile(&mut self, one: u32, other: u32) -> Reconciled {
        let mut bytes = Reconciled::default();
        let Some(machines) = self.nodes[one as usize].machines.as_mut() else { return bytes };
        let (initiator, opening) = machines.replica.summary().open();
        let (mut initiator, mut responder) = (initiator, Responder::new());
        let names = [one, other].map(|n| self.nodes[n as usize].name.clone());
        let mut side = 0;
        let mut step = opening;
        loop {
            let nodes = [one, other];
            let half: &mut dyn Half = if side == 0 { &mut initiator } else { &mut responder };
            step = match step {
                Step::Ask(ask) => {
                    let Some(reply) = self.ask_quietly(nodes[side], &names[1 - side], ask) else {
                        return bytes;
                    };
                    half.reply(reply)
                }
                Step::Send(message) => {
                    bytes.add(&message);
                    let after = half.sent();
                    side = 1 - side;
                    let half: &mut dyn Half =
                        if side == 0 { &mut initiator } else { &mut responder };
                    let next = half.frame(message);
                    match after {
                        Step::Read | Step::Done => next,
                        Step::Ask(_) | Step::Send(_) | Step::Broken(_) => return bytes,
                    }
                }
                Step::Read | Step::Done | Step::Broken(_) => return bytes,
            };
        }
    }

    /// Whether two nodes know the same.
    pub fn agree(&self, one: u32, other: u32) -> bool {
        let root = |node| self.machines(node).map(|m| m.replica.sketch().root());
        root(one) == root(other)
    }

    // --- time

    /// Executes all events that are due within `span`.
    pub fn run_for(&mut self, span: Duration) {
        self.run_to(self.now() + micros(span));
    }

    /// Executes all events that are due by `end`.
    pub fn run_to(&mut self, end: u64) {
        while let Some(what) = self.queue.next(end) {
            self.happen(what);
        }
    }

    /// Lets time pass until `reached`, checking every `step`; returns whether it was before `deadline`.
    pub fn run_until(
        &mut self,
        step: Duration,
        deadline: Duration,
        mut reached: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now() + micros(deadline);
        while !reached(self) {
            if self.now() >= end {
                return false;
            }
            self.run_for(step);
        }
        true
    }

    fn happen(&mut self, what: What) {
        // A node that stands still does everything later, in the same order.
        let stalled = self.who(&what).and_then(|n| self.network.faults().stalled(n, self.now()));
        if let Some(until) = stalled {
            return self.queue.at(until, what);
        }
        match what {
            What::Wake { node, epoch, machine, token } => self.wake(node, epoch, machine, token),
            What::Gossip { connection, to, gossip } => {
                self.gossip_arrives(connection, usize::from(to), &gossip);
            }
            What::Introduced { connection, end } => self.introduced(connection, usize::from(end)),
            What::Unreached { node, epoch, target, exchange } => {
                self.unreached(node, epoch, target, exchange);
            }
            What::Closed { connection, end } => self.lost(connection, usize::from(end)),
            What::Idle { connection, end } => self.idle(connection, usize::from(end)),
            What::Frame { exchange, to, message } => self.frame(exchange, to, *message),
            What::TimedOut { exchange } => self.timed_out(exchange),
            What::Look { node, epoch, nth } => self.look(node, epoch, nth),
            What::Packet(packet) => self.packet(packet),
            What::Acked(acknowledgement) => self.acked(acknowledgement),
            What::Unacknowledged { connection, end } => {
                self.unacknowledged(connection, usize::from(end));
            }
        }
    }

    /// The node whose process does it.
    fn who(&self, what: &What) -> Option<u32> {
        let end = |connection: &u32, end: &u8| {
            self.connections[*connection as usize].ends[usize::from(*end)]
        };
        Some(match what {
            What::Wake { node, .. } | What::Unreached { node, .. } | What::Look { node, .. } => {
                *node
            }
            What::Packet(Packet { connection, to, .. })
            | What::Acked(Acknowledgement { connection, to, .. })
            | What::Unacknowledged { connection, end: to } => end(connection, to),
            What::Gossip { connection, to, .. } => end(connection, to),
            What::Introduced { connection, end: e }
            | What::Closed { connection, end: e }
            | What::Idle { connection, end: e } => end(connection, e),
            What::Frame { exchange, to, .. } => {
                self.exchanges.get(exchange)?.nodes[usize::from(*to == Side::Responder)]
            }
            What::TimedOut { exchange } => self.exchanges.get(exchange)?.nodes[0],
        })
    }

    fn wake(&mut self, node: u32, epoch: u32, machine: Machine, token: u32) {
        let at = &self.nodes[node as usize];
        let due = at.machines.as_ref().is_some_and(|m| m.wakes[machine as usize] == token);
        if at.epoch != epoch || !due {
            return;
        }
        if machine == Machine::Detector && !self.whole {
            self.tell_heard(node, self.now());
        }
        let tick = match machine {
            Machine::Storage => Output::Storage(StorageInput::Tick),
            Machine::Detector => Output::Detector(DetectorInput::Tick),
            Machine::Scheduler => Output::Scheduler(SchedulerInput::Tick),
        };
        self.input(node, machine, tick);
    }

    // --- the routing table

    pub fn input(&mut self, node: u32, machine: Machine, output: Output) {
        self.deliver(node, machine, vec![output]);
    }

    /// Delivers the outputs of a machine, and those of the others to these, in order.
    pub fn deliver(&mut self, node: u32, machine: Machine, out: Vec<Output>) {
        let mut queue: VecDeque<_> = out.into_iter().map(|output| (machine, output)).collect();
        let mut out = Vec::new();
        while let Some((machine, output)) = queue.pop_front() {
            let now = self.queue.now();
            let Some(machines) = self.nodes[node as usize].machines.as_mut() else { return };
            let clock = machines.clock(now);
            let to = match output {
                Output::Storage(input) => {
                    machines.replica.handle(clock, input, &mut out);
                    Machine::Storage
                }
                Output::Detector(input) => {
                    let heard = matches!(input, DetectorInput::Heard { .. });
                    if !heard && machines.rest.is_some() {
                        self.rouse(node);
                        queue.push_front((machine, Output::Detector(input)));
                        continue;
                    }
                    machines.liveness.handle(clock, input, &mut out);
                    drop(machines.liveness.take_changed());
                    Machine::Detector
                }
                Output::Scheduler(input) => {
                    if machines.drowsy.take().is_some() {
                        machines.scheduler.skip_to(clock, input != SchedulerInput::Tick);
                    }
                    machines.scheduler.handle(clock, input, &mut out);
                    Machine::Scheduler
                }
                Output::Transport(input) => {
                    self.transport(node, input);
                    continue;
                }
                Output::Wake(after) => {
                    self.arm(node, machine, after);
                    continue;
                }
                Output::Stop(_) | Output::Farewell(_) => {
                    self.crash(node);
                    return;
                }
                Output::Event(event) => {
                    self.sight(node, &event);
                    continue;
                }
                Output::Protocol(_)
                | Output::Unreachable(_)
                | Output::Count(..)
                | Output::Counted(..)
                | Output::Revoked(_)
                | Output::Persist(_) => {
                    continue;
                }
            };
            queue.extend(out.drain(..).map(|output| (to, output)));
        }
        self.wake_scheduler(node);
    }

    fn sight(&mut self, observer: u32, event: &Event) {
        let (peer, seen) = match event {
            Event::PeerLive { peer, .. } => (peer, Seen::Live),
            Event::PeerSuspect { peer, .. } => (peer, Seen::Suspect),
            Event::PeerDead { peer, .. } | Event::PeerLeft { peer, .. } => (peer, Seen::Dead),
            _ => return,
        };
        let at = self.queue.now();
        if let (Some(sightings), Some(subject)) = (&mut self.sightings, number(peer)) {
            sightings.push(Sighting { at, observer, subject, seen });
        }
    }

    /// A scheduler that was not to be called before something happens is called once its root is another.
    fn wake_scheduler(&mut self, node: u32) {
        let now = self.now();
        let Some(machines) = self.nodes[node as usize].machines.as_mut() else { return };
        if machines.drowsy.take_if(|root| *root != machines.replica.root()).is_some() {
            let clock = machines.clock(now);
            machines.scheduler.skip_to(clock, true);
            let wait = machines.scheduler.due().since(clock);
            self.arm(node, Machine::Scheduler, wait);
        }
    }

    fn arm(&mut self, node: u32, machine: Machine, after: Duration) {
        let rests = machine == Machine::Detector && self.may_rest(node);
        let at = &mut self.nodes[node as usize];
        let Some(machines) = at.machines.as_mut() else { return };
        let mut at_next = self.queue.now() + micros(after).max(1);
        if self.elide && machine == Machine::Scheduler {
            let root = machines.replica.root();
            if let Some(until) = machines.scheduler.rests_until(root) {
                machines.drowsy = Some(root);
                at_next = at_next.max(machines.booted + micros(until.since_origin()));
            }
        }
        if rests {
            machines.rest = Some(self.queue.now() + micros(after));
            return;
        }
        machines.wakes[machine as usize] += 1;
        let token = machines.wakes[machine as usize];
        let wake = What::Wake { node, epoch: at.epoch, machine, token };
        self.queue.ranked(at_next, node + 1, wake);
    }

    // --- the transport

    fn transport(&mut self, node: u32, input: TransportInput) {
        match input {
            TransportInput::Round { targets, summary } => {
                for target in targets {
                    self.tally.exchanges += 1;
                    let (initiator, opening) = summary.clone().open();
                    self.begin(node, target, initiator, opening);
                }
            }
            TransportInput::Dial(peers) => {
                for peer in peers.iter().filter_map(number) {
                    if self.machines(node).is_some_and(|m| m.link(peer).is_none()) {
                        self.dial(node, peer, None);
                    }
                }
            }
            TransportInput::Close(peers) => {
                peers.iter().filter_map(number).for_each(|peer| self.close(node, peer));
            }
            TransportInput::Forget(peer) => {
                if let Some(peer) = number(&peer) {
                    self.close(node, peer);
                }
            }
            // Connections of this network have no timers of their own.
            TransportInput::Renew(_) => {}
            // No node is cut off here.
            TransportInput::HoldAgainst { .. } => {}
            TransportInput::Gossip { to, gossip } => self.gossip(node, &to, &gossip),
            TransportInput::Heartbeat { peers, health } if self.whole => {
                for peer in peers.iter().filter_map(number) {
                    self.datagram(node, peer, Call::Beat, 0, health);
                }
            }
            TransportInput::Probe { probes, health } if self.whole => {
                for (peer, sequence) in probes {
                    let peer = number(&peer).into_iter();
                    peer.for_each(|p| self.datagram(node, p, Call::Probe, sequence, health));
                }
            }
            TransportInput::Heartbeat { peers, .. } => {
                peers.iter().filter_map(number).for_each(|peer| self.beat(node, peer, None));
            }
            TransportInput::Probe { probes, .. } => {
                for (peer, sequence) in probes {
                    number(&peer).into_iter().for_each(|p| self.beat(node, p, Some(sequence)));
                }
            }
            TransportInput::TellLinks => self.tell_links(node),
        }
    }

    /// A heartbeat, or a probe: if it is lost, QUIC sends again before it counts as missed.
    fn beat(&mut self, node: u32, peer: u32, probe: Option<u64>) {
        let Some(connection) = self.machines(node).and_then(|m| m.link(peer)) else { return };
        let now = self.now();
        let c = &mut self.connections[connection as usize];
        if c.sick.is_some() || c.up != [true; 2] || now < c.quiet {
            return;
        }
        c.heard = [now; 2];
        let there = self.machines(peer).map(|m| m.replica.own().generation());
        if let (Some(sequence), Some(generation)) = (probe, there) {
            self.heard(node, peer, generation, Sign::Echo(sequence));
        }
    }

    fn tell_links(&mut self, node: u32) {
        let Some(machines) = self.machines(node) else { return };
        for (peer, connection) in machines.links.clone() {
            let dialed = self.connections[connection as usize].ends[0] == node;
            let name = self.nodes[peer as usize].name.clone();
            self.linked(node, &name, true, dialed);
        }
    }

    /// Opens a connection, for an exchange or to keep.
    fn dial(&mut self, node: u32, to: u32, exchange: Option<u64>) {
        if let Some(connection) = self.dialing.get(&(node, to)) {
            if let Some(connection) = self.connections.get_mut(*connection as usize) {
                connection.waiting.extend(exchange);
            }
            return;
        }
        self.tally.handshakes += 1;
        if !self.is_there(node, to) {
            // The first flight, again and again.
            self.network.unanswered(node, to, DIAL_BYTES, DIAL_PACKETS);
            return self.in_vain(node, to, exchange);
        }
        let now = self.now();
        let introduced = self.network.handshake(&mut self.rng, now, node, to);
        let Some((accepter, dialer)) = introduced else {
            return self.in_vain(node, to, exchange);
        };
        let connection = self.new_connection(node, to, exchange);
        self.dialing.insert((node, to), connection);
        self.queue.at(now + accepter, What::Introduced { connection, end: 1 });
        self.queue.at(now + dialer, What::Introduced { connection, end: 0 });
    }

    /// A dial that is given up some day.
    fn in_vain(&mut self, node: u32, to: u32, exchange: Option<u64>) {
        let target = Target::Peer(self.nodes[to as usize].name.clone());
        let at = self.now() + micros(self.config.quic.handshake_timeout);
        let epoch = self.nodes[node as usize].epoch;
        self.queue.at(at, What::Unreached { node, epoch, target, exchange });
        self.dialing.insert((node, to), u32::MAX);
    }

    /// Whether a node wants a connection to a peer.
    pub fn is_neighbour(&self, node: u32, peer: u32) -> bool {
        let peer = &self.nodes[peer as usize].name;
        self.machines(node).is_some_and(|m| m.scheduler.neighbours().contains(peer))
    }

    /// Sends an input to the scheduler of a node; of its outputs only the peers to observe are passed on.
    pub fn ask_scheduler(&mut self, node: u32, input: SchedulerInput) {
        let now = self.now();
        let Some(machines) = self.nodes[node as usize].machines.as_mut() else { return };
        let mut out = Vec::new();
        machines.scheduler.handle(machines.clock(now), input, &mut out);
        out.retain(|output| matches!(output, Output::Detector(_)));
        self.deliver(node, Machine::Scheduler, out);
    }

    /// Puts a connection in place that has existed for long.
    pub fn connect(&mut self, node: u32, peer: u32) {
        let now = self.now();
        let connection = self.new_connection(node, peer, None);
        let c = &mut self.connections[connection as usize];
        (c.up, c.quiet) = ([true; 2], now - now.min(u64::from(connection) * 7_919 % 1_000_000));
        for (end, node, peer) in [(0, node, peer), (1, peer, node)] {
            if let Some(machines) = self.nodes[node as usize].machines.as_mut() {
                machines.insert_link(peer, connection);
            }
            let name = self.nodes[peer as usize].name.clone();
            let there = self.nodes[peer as usize].machines.as_ref();
            let generation = there.map(|m| m.replica.own().generation()).unwrap_or_default();
            self.heard(node, peer, generation, Sign::Traffic);
            self.linked(node, &name, true, end == 0);
        }
    }

    fn new_connection(&mut self, node: u32, to: u32, exchange: Option<u64>) -> u32 {
        let now = self.now();
        let connection = self.connections.len() as u32;
        self.connections.push(Connection {
            ends: [node, to],
            epochs: [node, to].map(|n| self.nodes[n as usize].epoch),
            up: [false; 2],
            heard: [now; 2],
            quiet: now,
            counted: 0,
            sick: None,
            arrivals: [0; 2],
            held: Vec::new(),
            life: [End::default(); 2],
            waiting: exchange.into_iter().collect(),
        });
        connection
    }

    fn is_there(&self, from: u32, to: u32) -> bool {
        self.network.reaches(from, to)
            && self.nodes.get(to as usize).is_some_and(|node| node.machines.is_some())
    }

    /// One end of a new connection knows the other.
    fn introduced(&mut self, connection: u32, end: usize) {
        let now = self.now();
        let c = &mut self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let alive = self.nodes[node as usize].epoch == c.epochs[end];
        (c.heard[end], c.quiet) = (now, now);
        if end == 0 {
            self.dialing.remove(&(node, peer));
        }
        let waiting = if end == 0 { std::mem::take(&mut c.waiting) } else { Vec::new() };
        let there = self.nodes[peer as usize].machines.as_ref();
        let generation = there.map(|m| m.replica.own().generation());
        let name = self.nodes[peer as usize].name.clone();
        let own = &self.nodes[node as usize];
        let Some(before) = own.machines.as_ref().map(|machines| machines.link(peer)) else {
            return;
        };
        let Some(generation) = generation.filter(|_| alive) else { return };
        // If two nodes dial each other at once, one connection is kept; the other one is closed unused.
        let keep = before.is_none() || overlay::keeps(&own.name, &name, end == 0);
        if keep {
            if let Some(machines) = self.nodes[node as usize].machines.as_mut() {
                machines.insert_link(peer, connection);
            }
            self.connections[connection as usize].up[end] = true;
            if let Some(before) = before {
                self.connections[before as usize].up = [false; 2];
            }
            self.heard(node, peer, generation, Sign::Traffic);
            if before.is_none() {
                self.linked(node, &name, true, end == 0);
            }
        }
        for exchange in waiting {
            self.open(exchange);
        }
    }

    fn linked(&mut self, node: u32, peer: &NodeId, up: bool, dialed: bool) {
        let storage = Output::Storage(StorageInput::Linked(peer.clone(), up));
        self.input(node, Machine::Storage, storage);
        let peer = peer.clone();
        let detector = DetectorInput::Linked { peer: peer.clone(), up, dialed };
        self.input(node, Machine::Detector, Output::Detector(detector));
        let scheduler = Output::Scheduler(SchedulerInput::Linked { peer, up, dialed });
        self.input(node, Machine::Scheduler, scheduler);
    }

    fn heard(&mut self, node: u32, peer: u32, generation: Generation, sign: Sign) {
        let Some(machines) = self.machines(node) else { return };
        let at = machines.clock(self.now());
        let peer = self.nodes[peer as usize].name.clone();
        let heard = DetectorInput::Heard { peer, generation, sign, at };
        self.input(node, Machine::Detector, Output::Detector(heard));
    }

    /// A dial was not answered.
    fn unreached(&mut self, node: u32, epoch: u32, target: Target, exchange: Option<u64>) {
        if let Target::Peer(peer) = &target
            && let Some(peer) = number(peer)
        {
            self.dialing.remove(&(node, peer));
        }
        if self.nodes[node as usize].epoch != epoch {
            return;
        }
        if let Some(exchange) = exchange {
            self.timed_out(exchange);
        } else if let Target::Peer(peer) = target {
            let failed = Output::Scheduler(SchedulerInput::DialFailed(peer));
            self.input(node, Machine::Scheduler, failed);
        }
    }

    /// Ends a connection.
    fn close(&mut self, node: u32, peer: u32) {
        let Some(connection) = self.machines(node).and_then(|m| m.link(peer)) else { return };
        let c = &self.connections[connection as usize];
        let end = usize::from(c.ends[0] != node);
        if self.is_there(node, peer) {
            let after = self.network.close(&mut self.rng, node, peer);
            let end = 1 - end as u8;
            self.queue.at(self.queue.now() + after, What::Closed { connection, end });
        }
        self.lost(connection, end);
    }

    /// An end of a connection does not need it any more.
    fn lost(&mut self, connection: u32, end: usize) {
        let c = &self.connections[connection as usize];
        let (node, peer) = (c.ends[end], c.ends[1 - end]);
        let current = self.nodes[node as usize].epoch == c.epochs[end];
        if !c.up[end] || !current {
            return;
        }
        self.count_heartbeats(connection);
        self.rouse(node);
        self.connections[connection as usize].up[end] = false;
        let name = self.nodes[peer as usize].name.clone();
        let Some(machines) = self.nodes[node as usize].machines.as_mut() else { return };
        machines.remove_link(peer);
        self.linked(node, &name, false, end == 0);
    }

    // --- signs of life

    /// Reports to the detector of a node the peers that it has heard, up to a moment that has just been or is
    /// now.
    fn tell_heard(&mut self, node: u32, now: u64) {
        if self.whole {
            return;
        }
        let Some(machines) = self.machines(node) else { return };
        for (peer, connection) in machines.links.clone() {
            let end = usize::from(self.connections[connection as usize].ends[0] != node);
            let at = self.heard_at(connection, end, now);
            let there = self.nodes[peer as usize].machines.as_ref();
            let generation = there.map(|m| m.replica.own().generation());
            let Some(machines) = self.machines(node) else { return };
            // Signs of life from the dead are of the generation in which the connection was opened.
            let known = || machines.replica.copy(&self.nodes[peer as usize].name);
            let Some(generation) = generation.or_else(|| known().map(|c| c.generation())) else {
                continue;
            };
            let at = machines.clock(at);
            let peer = self.nodes[peer as usize].name.clone();
            let heard = DetectorInput::Heard { peer, generation, sign: Sign::Traffic, at };
            self.input(node, Machine::Detector, Output::Detector(heard));
        }
    }

    /// When an end of a connection heard the other last, as of now.
    fn heard_at(&self, connection: u32, end: usize, now: u64) -> u64 {
        let c = &self.connections[connection as usize];
        if self.whole {
            return c.heard[end];
        }
        if c.sick.is_some() || c.up != [true; 2] || now < c.quiet {
            return c.heard[end];
        }
        let beat = self.last_beat(connection, now).unwrap_or(0);
        beat.max(c.heard[end]).max(c.quiet)
    }

    /// The last heartbeat on a connection, if the detector that sends them is not called now.
    fn last_beat(&self, connection: u32, now: u64) -> Option<u64> {
        let [dialer, peer] = self.connections[connection as usize].ends;
        let machines = self.machines(dialer)?;
        let first = machines.rest?;
        let slot = machines.liveness.heartbeat_tick(&self.nodes[peer as usize].name)?;
        let tick = self.interval() / DETECTOR_TICKS;
        let ticks = now.checked_sub(machines.booted)? / tick;
        let since = (ticks + DETECTOR_TICKS - slot) % DETECTOR_TICKS;
        let at = machines.booted + ticks.checked_sub(since)? * tick;
        (at >= first).then_some(at)
    }

    /// Records when both ends of the connections of a node were heard, before its detector is called again or
    /// for the last time.
    fn settle_beats(&mut self, node: u32) {
        let now = self.now();
        let Some(machines) = self.machines(node).filter(|machines| machines.rest.is_some()) else {
            return;
        };
        for (_, connection) in machines.links.clone() {
            let heard = [0, 1].map(|end| self.heard_at(connection, end, now));
            self.connections[connection as usize].heard = heard;
        }
    }

    /// Both ends of a connection have been heard now, by another packet than a heartbeat.
    fn stir(&mut self, connection: u32) {
        self.connections[connection as usize].heard = [self.now(); 2];
    }

    /// Counts the heartbeats that have been sent since the last look.
    fn count_heartbeats(&mut self, connection: u32) {
        let c = &self.connections[connection as usize];
        if c.up != [true; 2] || self.whole {
            return;
        }
        let upto = c.sick.unwrap_or_else(|| self.queue.now()).min(self.queue.now());
        let sent = upto.saturating_sub(c.quiet) / micros(self.config.gossip_interval);
        for nth in c.counted + 1..=sent {
            self.network.count_heartbeat(connection, nth, c.ends);
        }
        let c = &mut self.connections[connection as usize];
        c.counted = sent.max(c.counted);
    }

    /// Nothing gets through on a connection any more.
    fn sicken(&mut self, connection: u32) {
        let now = self.now();
        self.count_heartbeats(connection);
        if self.connections[connection as usize].sick.is_some() {
            return;
        }
        let heard = [0, 1].map(|end| self.heard_at(connection, end, now));
        let c = &mut self.connections[connection as usize];
        (c.heard, c.sick) = (heard, Some(now));
        let (ends, up) = (c.ends, c.up);
        for end in (0..2).filter(|end| up[*end]) {
            self.rouse(ends[end]);
            let timeout = now + micros(self.config.quic.idle_timeout);
            self.queue.at(timeout, What::Idle { connection, end: end as u8 });
        }
    }

    /// The detector of a node has something to judge again.
    fn rouse(&mut self, node: u32) {
        let (now, tick) = (self.now(), self.interval() / DETECTOR_TICKS);
        self.settle_beats(node);
        let at = &mut self.nodes[node as usize];
        let Some(machines) = at.machines.as_mut() else { return };
        let Some(first) = machines.rest.take() else { return };
        // The ticks that were left out came at `first` and every `tick` after it.
        let left_out = if now < first { 0 } else { (now - first) / tick + 1 };
        let (last, next) = (first + left_out * tick - tick, first + left_out * tick);
        machines.wakes[Machine::Detector as usize] += 1;
        let token = machines.wakes[Machine::Detector as usize];
        machines.liveness.skip_to(machines.clock(last));
        let wake = What::Wake { node, epoch: at.epoch, machine: Machine::Detector, token };
        self.queue.ranked(next, node + 1, wake);
        self.tell_heard(node, now);
    }

    /// Whether a node's detector need not be called before something happens to it.
    fn may_rest(&self, node: u32) -> bool {
        let Some(machines) = self.machines(node) else { return false };
        let well = |(_, c): &(u32, u32)| {
            let c = &self.connections[*c as usize];
            c.sick.is_none() && c.quiet <= self.queue.now()
        };
        let linked = |name: &NodeId| number(name).is_some_and(|n| machines.link(n).is_some());
        self.elide
            && machines.links.iter().all(well)
            && machines.liveness.is_at_rest()
            && machines.scheduler.neighbours().iter().all(linked)
    }

    fn idle(&mut self, connection: u32, end: usize) {
        let heard = self.heard_at(connection, end, self.now());
        let sick = self.connections[connection as usize].sick.is_some();
        if sick && self.now() - heard >= micros(self.config.quic.idle_timeout) {
            self.lost(connection, end);
        }
    }

    // --- gossip

    fn gossip(&mut self, node: u32, to: &[NodeId], gossip: &Arc<Gossip>) {
        let len = encoded_len(&**gossip);
        #[cfg(test)]
        self.trace.push(format!("{} {node} gossip {to:?} {gossip:?}", self.now()));
        for peer in to.iter().filter_map(number) {
            let Some(connection) = self.machines(node).and_then(|m| m.link(peer)) else { continue };
            self.send_gossip(connection, node, peer, gossip, len);
        }
    }

    fn send_gossip(
        &mut self,
        connection: u32,
        node: u32,
        peer: u32,
        gossip: &Arc<Gossip>,
        len: usize,
    ) {
        let c = &mut self.connections[connection as usize];
        let to = usize::from(c.ends[0] == node);
        if c.sick.is_some() && !self.network.reaches(node, peer) {
            if c.held.len() < HELD_MAX {
                c.held.push((to, Arc::clone(gossip)));
            }
            return;
        }
        if c.sick.is_some() {
            self.network.unanswered(node, peer, (len + FRAME_BYTES) as u64, 1);
            return;
        }
        if self.is_watched(gossip) {
            self.tally.wan_messages += u64::from(self.network.is_wan(node, peer));
            self.tally.payloads += u64::from(matches!(**gossip, Gossip::Push(_)));
        }
        let now = self.queue.now();
        let travel = self.network.stream(&mut self.rng, now, node, peer, len + FRAME_BYTES);
        let Some(travel) = travel else { return };
        let c = &mut self.connections[connection as usize];
        let at = (self.queue.now() + travel).max(c.arrivals[to]);
        c.arrivals[to] = at;
        let gossip = Arc::clone(gossip);
        self.queue.at(at, What::Gossip { connection, to: to as u8, gossip });
    }

    fn gossip_arrives(&mut self, connection: u32, to: usize, gossip: &Gossip) {
        let c = &self.connections[connection as usize];
        let (node, from) = (c.ends[to], c.ends[1 - to]);
        if !c.up[to] || self.nodes[node as usize].epoch != c.epochs[to] || c.sick.is_some() {
            return;
        }
        // The acknowledgement is heard as well.
        if self.whole {
            self.stream_received(connection, to);
        } else {
            self.stir(connection);
        }
        let peer = self.nodes[from as usize].name.clone();
        if let Gossip::Root(root) = gossip {
            let root = Output::Scheduler(SchedulerInput::Root(peer, *root));
            self.input(node, Machine::Scheduler, root);
            return;
        }
        if self.is_known(node, gossip) {
            return;
        }
        let gossip = Output::Storage(StorageInput::Gossip(peer, Box::new(gossip.clone())));
        self.input(node, Machine::Storage, gossip);
        self.note_arrivals(node);
    }

    /// Whether a frame is an update that a node has already, and so short that the transport skims it: such a
    /// frame does not reach storage.
    fn is_known(&self, node: u32, gossip: &Gossip) -> bool {
        let Gossip::Push(news) = gossip else { return false };
        let Some(machines) = self.machines(node) else { return false };
        let known = |delta: &NodeDelta| {
            machines.replica.copy(&delta.node).is_some_and(|copy| {
                let record = delta.record.as_ref().map_or(Version::ZERO, |(version, _)| *version);
                copy.generation() == delta.generation
                    && copy.max_version() >= delta.to
                    && copy.horizon() >= delta.horizon
                    && copy.torn() >= delta.torn
                    && copy.gc_floor() >= delta.gc_floor
                    && copy.verdict() >= delta.verdict
                    && copy.record_version() >= record
            })
        };
        news.nodes.iter().all(known) && encoded_len(gossip) + FRAME_BYTES <= SKIM_BYTES_MAX
    }

    /// Separates the nodes for which `side` holds from the others.
    pub fn cut(&mut self, side: impl Fn(u32) -> bool) {
        self.network.cut(side);
        for connection in 0..self.connections.len() as u32 {
            let [a, b] = self.connections[connection as usize].ends;
            if !self.network.reaches(a, b) {
                self.sicken(connection);
            }
        }
    }

    /// All nodes reach each other again. The data that surviving connections held back is sent at their next
    /// probe: those come at growing distances, up to as long again as the cut took.
    pub fn heal(&mut self, took: Duration) {
        self.network.heal();
        let backed_off = micros(took).min(micros(self.config.quic.idle_timeout) / 2);
        for n in 0..self.connections.len() {
            let c = &mut self.connections[n];
            let there = c.ends.map(|n| self.nodes[n as usize].machines.is_some());
            if c.sick.is_none() || c.up != [true; 2] || there != [true; 2] {
                continue;
            }
            let at = self.queue.now() + self.rng.random_range(0..=backed_off);
            (c.sick, c.quiet, c.counted) = (None, at, 0);
            for (to, gossip) in std::mem::take(&mut c.held) {
                self.queue.at(at, What::Gossip { connection: n as u32, to: to as u8, gossip });
            }
        }
    }

    /// Counts all traffic so far.
    pub fn settle_accounts(&mut self) {
        (0..self.connections.len() as u32).for_each(|c| self.count_heartbeats(c));
    }

    // --- exchanges

    fn begin(&mut self, node: u32, target: Target, initiator: Initiator, opening: Step) {
        let peer = match &target {
            Target::Peer(peer) => number(peer),
            Target::Address(address) => number_at(address),
        };
        let known = peer.filter(|peer| (*peer as usize) < self.nodes.len());
        let Some(peer) = known.filter(|peer| *peer != node) else {
            let ended = SchedulerInput::Ended {
                node: known.map(|peer| self.nodes[peer as usize].name.clone()),
                target,
                ok: false,
            };
            return self.input(node, Machine::Scheduler, Output::Scheduler(ended));
        };
        #[cfg(test)]
        self.trace.push(format!("{} {node} exchange {peer}", self.now()));
        self.exchanged += 1;
        let id = self.exchanged;
        let nodes = [node, peer];
        let epochs = nodes.map(|n| self.nodes[n as usize].epoch);
        let responder = Responder::new();
        let (opening, done) = (Some(opening), [false; 2]);
        self.exchanges
            .insert(id, Exchange { target, nodes, epochs, initiator, opening, responder, done });
        let timeout = self.now() + micros(self.config.quic.exchange_timeout);
        self.queue.at(timeout, What::TimedOut { exchange: id });
        match self.machines(node).and_then(|m| m.link(peer)) {
            Some(_) => self.open(id),
            None => self.dial(node, peer, Some(id)),
        }
    }

    fn open(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        if let Some(step) = exchange.opening.take() {
            self.drive(id, Side::Initiator, step);
        }
    }

    fn timed_out(&mut self, id: u64) {
        let Some(exchange) = self.exchanges.remove(&id) else { return };
        let Exchange { target, nodes, epochs, done, .. } = exchange;
        if !done[0] {
            self.ended(nodes[0], epochs[0], target, None, false);
        }
    }

    fn ended(&mut self, node: u32, epoch: u32, target: Target, peer: Option<NodeId>, ok: bool) {
        if self.nodes[node as usize].epoch == epoch {
            let ended = SchedulerInput::Ended { target, node: peer, ok };
            self.input(node, Machine::Scheduler, Output::Scheduler(ended));
        }
    }

    fn frame(&mut self, id: u64, to: Side, message: Message) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let at = usize::from(to == Side::Responder);
        let (node, peer) = (exchange.nodes[at], exchange.nodes[1 - at]);
        let alive = self.nodes[node as usize].epoch == exchange.epochs[at]
            && self.nodes[node as usize].machines.is_some();
        let there = self.nodes[peer as usize].machines.as_ref();
        let Some(generation) = there.map(|m| m.replica.own().generation()) else { return };
        if !alive {
            return;
        }
        let step = exchange.half(to).frame(message);
        match self.machines(node).and_then(|m| m.link(peer)).filter(|_| self.whole) {
            Some(connection) => {
                let end = usize::from(self.connections[connection as usize].ends[0] != node);
                self.stream_received(connection, end);
            }
            None => self.heard(node, peer, generation, Sign::Traffic),
        }
        self.drive(id, to, step);
    }

    /// Executes the steps of one half of an exchange, until it waits for the network.
    fn drive(&mut self, id: u64, side: Side, mut step: Step) {
        loop {
            let Some(exchange) = self.exchanges.get(&id) else { return };
            let at = usize::from(side == Side::Responder);
            let (node, peer) = (exchange.nodes[at], exchange.nodes[1 - at]);
            let name = self.nodes[peer as usize].name.clone();
            step = match step {
                Step::Ask(ask) => {
                    let Some(reply) = self.ask(node, &name, ask) else { return };
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).reply(reply)
                }
                Step::Send(message) => {
                    self.send(id, node, peer, side, message);
                    let Some(exchange) = self.exchanges.get_mut(&id) else { return };
                    exchange.half(side).sent()
                }
                Step::Read => return,
                Step::Done => return self.done(id, side, name),
                Step::Broken(_) => return self.timed_out(id),
            };
        }
    }

    /// One half of an exchange is complete; its last message may still be on the way.
    fn done(&mut self, id: u64, side: Side, peer: NodeId) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        exchange.done[usize::from(side == Side::Responder)] = true;
        let (node, epoch, target) =
            (exchange.nodes[0], exchange.epochs[0], exchange.target.clone());
        if exchange.done == [true; 2] {
            self.exchanges.remove(&id);
        }
        if side == Side::Initiator {
            self.ended(node, epoch, target, Some(peer), true);
        }
    }

    fn send(&mut self, id: u64, node: u32, peer: u32, side: Side, message: Message) {
        // A message that does not arrive is noticed when the exchange times out.
        if !self.is_there(node, peer) {
            return;
        }
        let len = message_len(&message) + FRAME_BYTES;
        let now = self.queue.now();
        // A message that is given up is noticed in the same way.
        let Some(travel) = self.network.stream(&mut self.rng, now, node, peer, len) else { return };
        let to = if side == Side::Initiator { Side::Responder } else { Side::Initiator };
        let frame = What::Frame { exchange: id, to, message: Box::new(message) };
        self.queue.at(self.queue.now() + travel, frame);
    }

    fn ask(&mut self, node: u32, peer: &NodeId, ask: Ask) -> Option<Reply> {
        let mut out = Vec::new();
        let reply = self.ask_storage(node, peer, ask, &mut out)?;
        self.deliver(node, Machine::Storage, out);
        self.note_arrivals(node);
        self.nodes[node as usize].machines.is_some().then_some(reply)
    }

    /// The same, without delivering storage's other outputs.
    fn ask_quietly(&mut self, node: u32, peer: &NodeId, ask: Ask) -> Option<Reply> {
        self.ask_storage(node, peer, ask, &mut Vec::new())
    }

    fn ask_storage(
        &mut self,
        node: u32,
        peer: &NodeId,
        ask: Ask,
        out: &mut Vec<Output>,
    ) -> Option<Reply> {
        let now = self.now();
        let machines = self.nodes[node as usize].machines.as_mut()?;
        let now = machines.clock(now);
        Some(machines.replica.serve(now, peer, ask, out))
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

/// The traffic of an exchange between two nodes, frames included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconciled {
    /// Bytes until both knew the difference.
    pub found: usize,
    /// Bytes of the lines and entries sent then.
    pub told: usize,
}

impl Reconciled {
    fn add(&mut self, message: &Message) {
        let len = message_len(message) + FRAME_BYTES;
        match message {
            Message::SynAck { .. } | Message::Ack { .. } | Message::More { .. } => {
                self.told += len;
            }
            _ => self.found += len,
        }
    }
}

/// Bytes of a message without the length, kind and version of its frame.
fn message_len(message: &Message) -> usize {
    match message {
        Message::SynAck { wants, delta } => encoded_len(wants) + encoded_len(delta),
        Message::Ack { delta } | Message::More { delta } => encoded_len(delta),
        Message::Gossip(gossip) => encoded_len(gossip),
        // Messages without an update are short, except for the digest of an exchange, which is rare.
        _ => message.encode().map_or(0, |frame| frame.len() - FRAME_BYTES),
    }
}

/// The address of a node: one of usual length that contains its number.
fn address(node: u32) -> String {
    let [_, b, c, d] = node.to_be_bytes();
    format!("10.{b}.{c}.{d}:7946")
}

fn number_at(address: &str) -> Option<u32> {
    let (host, _) = address.split_once(':')?;
    let host: std::net::Ipv4Addr = host.parse().ok()?;
    Some(u32::from(host) & 0x00ff_ffff)
}

/// Length, kind and version of a frame.
const FRAME_BYTES: usize = 6;
/// The packets of a dial until it is given up: the first flight, sent three times.
const DIAL_BYTES: u64 = 7_368;
const DIAL_PACKETS: usize = 6;
/// How often silence is judged within one heartbeat interval.
const DETECTOR_TICKS: u64 = TICKS_PER_INTERVAL as u64;
/// Frames of gossip that a connection holds while it is cut.
const HELD_MAX: usize = 1_024;
