//! All nodes of a run, their connections, and the queue of what happens next.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use rand::{SeedableRng, rngs::SmallRng};

use super::{
    cpu::Cpu,
    event::{Side, What},
    exchange::Exchange,
    hooks::{Liar, Witness},
    network::Network,
    orders::Tracked,
    pool::Pool,
    queue::{Queue, micros},
    settings::{Settings, Switches},
    shake::{self, Handshake},
    slot::{Node, Slot},
    watched::{Counts, Said, Watched},
    wire::Wires,
};

/// A run.
#[derive(Debug)]
pub struct World {
    pub rng: SmallRng,
    pub network: Network,
    pub settings: Settings,
    pub slots: Vec<Slot>,
    /// Two machines have the same name.
    pub twins: bool,
    /// Names that lead to machines, beside their addresses: the DNS.
    pub names: BTreeMap<String, usize>,
    pub hooks: Hooks,
    pub counts: Counts,
    pub said: Said,
    pub(super) switches: Switches,
    pub(super) queue: Queue<What>,
    /// Numbers given to connections, dials and exchanges.
    pub(super) numbers: u64,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    pub(super) wires: Wires,
    pub(super) tracked: Tracked,
    pub(super) watched: Vec<Watched>,
    pub(super) pool: Arc<Pool>,
    /// The processors, if they are modelled.
    pub(super) cpu: Option<Cpu>,
    /// Handshakes under way, by their connections.
    pub(super) handshakes: BTreeMap<u64, Handshake>,
    /// The addresses of the seeds.
    pub(super) seeds: Vec<String>,
    /// Processes that stand still, and until when.
    frozen: BTreeMap<usize, u64>,
    pub(super) log: Log,
}

/// What a test adds to a run.
#[derive(Debug, Default)]
pub struct Hooks {
    /// The judge of all that readers see.
    pub witness: Option<Box<dyn Witness>>,
    /// Members that lie.
    pub liars: BTreeMap<usize, Box<dyn Liar>>,
    /// Members that do not listen to revocations.
    pub deaf: BTreeSet<usize>,
}

/// What is needed to see a failure again.
#[derive(Debug)]
pub(super) struct Log {
    seed: u64,
    pub(super) trace: DefaultHasher,
    /// What was done to the cluster, oldest first.
    history: Vec<String>,
}

impl World {
    /// `count` machines, none of which runs. Nothing is left out of the run.
    #[must_use]
    pub fn new(seed: u64, count: usize, settings: Settings, network: Network) -> Self {
        let slots = (0..count).map(|n| Slot::new(&format!("n{n}"), format!("host-{n}:1"), "dc1"));
        Self::of(seed, slots.collect(), settings, network, Switches::whole())
    }

    /// A machine for each of the network's `count` places, none of which runs.
    #[must_use]
    pub fn large(seed: u64, count: usize, settings: Settings, network: Network) -> Self {
        let digits = count.max(2).ilog10() as usize + 1;
        let slots = (0..count).map(|n| {
            let (name, site) = (format!("n{n:0digits$}"), network.site(n));
            Slot::new(&name, address(n), &format!("dc{site}"))
        });
        Self::of(seed, slots.collect(), settings, network, Switches::large())
    }

    fn of(
        seed: u64,
        slots: Vec<Slot>,
        settings: Settings,
        network: Network,
        switches: Switches,
    ) -> Self {
        let seeds = settings.seeds.iter().map(|n| slots[*n].address.clone()).collect();
        Self {
            rng: SmallRng::seed_from_u64(seed),
            network,
            settings,
            slots,
            twins: false,
            names: BTreeMap::new(),
            hooks: Hooks::default(),
            counts: Counts::default(),
            said: Said::default(),
            switches,
            queue: Queue::new(),
            numbers: 0,
            exchanges: BTreeMap::new(),
            wires: BTreeMap::new(),
            tracked: Tracked::default(),
            watched: Vec::new(),
            pool: Arc::default(),
            cpu: None,
            handshakes: BTreeMap::new(),
            seeds,
            frozen: BTreeMap::new(),
            log: Log { seed, trace: DefaultHasher::new(), history: Vec::new() },
        }
    }

    /// Which parts are modelled. Change it before anything runs.
    pub const fn switches(&mut self) -> &mut Switches {
        &mut self.switches
    }

    /// All that happened, as one number.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.log.trace.finish()
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub const fn now(&self) -> Duration {
        Duration::from_micros(self.queue.now())
    }

    /// The same, in microseconds.
    #[must_use]
    pub const fn micros(&self) -> u64 {
        self.queue.now()
    }

    /// Ends the run: something that was promised does not hold.
    ///
    /// # Panics
    /// Always, with the seed of the run and what was done to the cluster.
    pub fn fail(&self, what: impl std::fmt::Display) -> ! {
        let (seed, now, picture) = (self.log.seed, self.now(), self.picture());
        panic!("SEED={seed} after {now:?}: {what}{picture}\n  {}", self.log.history.join("\n  "));
    }

    /// Ends the run if a promise was broken.
    pub fn promise(&self, kept: Result<(), String>) {
        if let Err(broken) = kept {
            self.fail(broken);
        }
    }

    /// What was done to the cluster, oldest first.
    #[must_use]
    pub fn history(&self) -> &[String] {
        &self.log.history
    }

    /// Remembers what is done to the cluster, so that a failure shows how it came about.
    pub fn note(&mut self, what: impl std::fmt::Display) {
        if self.switches.checks {
            self.log.history.push(format!("{:?} {what}", self.now()));
        }
    }

    /// The machines with a process.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&n| self.slots[n].node.is_some()).collect()
    }

    /// The process on a machine that must have one.
    ///
    /// # Panics
    /// If none runs there.
    #[must_use]
    pub fn node(&self, slot: usize) -> &Node {
        self.slots[slot].node.as_ref().expect("it runs")
    }

    pub(super) fn node_mut(&mut self, slot: usize) -> Option<&mut Node> {
        self.slots[slot].node.as_deref_mut()
    }

    /// A number that is given once.
    pub(super) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // --- time

    /// Lets everything happen that is due within `span`.
    pub fn run_for(&mut self, span: Duration) {
        self.run_by(self.queue.now() + micros(span));
    }

    /// Lets everything happen that is due by `end`, in microseconds.
    pub fn run_by(&mut self, end: u64) {
        while let Some(what) = self.queue.next(end) {
            if let Some(until) = self.stalled(&what) {
                // A node that stands still does everything later, in the same order.
                self.queue.at(until, what);
                continue;
            }
            match self.cpu.is_some() {
                true => self.happen_in_turn(what),
                false => self.happen_now(what),
            }
        }
        if self.switches.checks {
            self.promise(self.suspicions_end());
            self.promise(self.equal_sums_are_of_equal_copies());
        }
    }

    /// Lets time pass until `reached`, or fails after `deadline`.
    pub fn run_until(&mut self, deadline: Duration, reached: impl Fn(&Self) -> Result<(), String>) {
        let end = self.now() + deadline;
        loop {
            self.run_for(Duration::from_millis(500));
            match reached(self) {
                Ok(()) => return,
                Err(why) if self.now() >= end => self.fail(format!("never got there: {why}")),
                Err(_) => {}
            }
        }
    }

    /// Lets time pass until `reached`, checking every `step`; returns whether it was before `deadline`.
    pub fn run_while(
        &mut self,
        step: Duration,
        deadline: Duration,
        mut reached: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now() + deadline;
        while !reached(self) {
            if self.now() >= end {
                return false;
            }
            self.run_for(step);
        }
        true
    }

    /// Lets time pass until something is so for the first time, looking after each event, or fails after a
    /// minute.
    pub fn run_to(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let end = self.queue.now() + 60_000_000;
        while !reached(self) {
            if self.queue.now() >= end {
                self.fail(format!("never came to this: {what}"));
            }
            let next = self.queue.due().unwrap_or(end);
            self.run_by(next);
        }
        self.note(what);
    }

    /// Stops a process as SIGSTOP does: what is sent to it waits until it goes on.
    pub fn freeze(&mut self, slot: usize, span: Duration) {
        self.frozen.insert(slot, self.queue.now() + micros(span));
    }

    /// Until when the process of a machine stands still, if it does.
    pub(super) fn frozen(&self, slot: usize) -> Option<u64> {
        let now = self.queue.now();
        let frozen = self.frozen.get(&slot).copied().filter(|until| *until > now);
        frozen.max(self.network.faults().stalled(slot, now))
    }

    pub(super) fn stalled(&self, what: &What) -> Option<u64> {
        if self.frozen.is_empty() && self.network.faults().is_none() {
            return None;
        }
        self.frozen(self.who(what)?)
    }

    /// The machine whose process does it.
    pub(super) fn who(&self, what: &What) -> Option<usize> {
        let end = |wire: &u64, end: usize| self.wires.get(wire).map(|wire| wire.slots[end]);
        let half = |exchange: &u64, side: Side| {
            let (wire, place) = self.exchanges.get(exchange)?.place(side);
            end(&wire, place)
        };
        match what {
            What::Wake { slot, .. }
            | What::Knock { slot, .. }
            | What::Refused { slot, .. }
            | What::Undone { slot, .. }
            | What::Undialed { slot, .. }
            | What::Unreached { slot, .. }
            | What::Write { slot, .. }
            | What::Tick { slot, .. }
            | What::Tock { slot, .. } => Some(*slot),
            What::Welcome { wire, .. } | What::Renew { wire } => end(wire, 0),
            What::Hello { wire, .. } | What::Adopt { wire } | What::Unproved { wire } => {
                end(wire, 1)
            }
            What::Datagram { wire, to, .. }
            | What::Gossip { wire, to, .. }
            | What::Acknowledged { wire, to, .. }
            | What::Closed { wire, to, .. }
            | What::Unacknowledged { wire, end: to, .. }
            | What::Pump { wire, end: to }
            | What::Finish { wire, end: to }
            | What::Retire { wire, end: to }
            | What::Idle { wire, end: to }
            | What::Ended { wire, end: to } => end(wire, *to),
            What::Frame { exchange, to: side, .. }
            | What::Flush { exchange, side }
            | What::Fin { exchange, to: side }
            | What::Reset { exchange, to: side }
            | What::TimedOut { exchange, side } => half(exchange, *side),
            What::Delivered { exchange } => half(exchange, Side::Initiator),
            What::Passage { wire, step } => end(wire, shake::end_of(*step)),
            What::Flight { wire, flight } => end(wire, 1 - flight % 2),
            What::Repeat { wire, flight, .. } => end(wire, flight % 2),
            What::Probe { .. } | What::Synced { .. } | What::Run { .. } => None,
        }
    }

    pub(super) fn at(&mut self, at: u64, what: What) {
        self.queue.at(at, what);
    }

    /// Schedules an event so many microseconds from now.
    pub(super) fn after(&mut self, wait: u64, what: What) {
        self.queue.at(self.queue.now() + wait, what);
    }

    pub(super) fn happen(&mut self, what: What) {
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
            What::Idle { wire, end } => self.idle(wire, end),
            What::Frame { exchange, to, payload } => self.frame(exchange, to, payload),
            What::Flush { exchange, side } => self.flush_again(exchange, side),
            What::Fin { exchange, to } => self.fin(exchange, to),
            What::Reset { exchange, to } => self.break_exchange(exchange, to),
            What::Delivered { exchange } => self.delivered(exchange),
            What::TimedOut { exchange, side } => self.timed_out(exchange, side),
            // Taken apart by the processor.
            What::Run { .. } => {}
            What::Synced { slot, epoch, commit } => self.synced(slot, epoch, commit),
            What::Tick { slot, epoch } => self.lag_tick(slot, epoch),
            What::Tock { slot, epoch } => self.lag_probe(slot, epoch),
            What::Passage { wire, step } => self.passage(wire, step),
            What::Flight { wire, flight } => self.flight(wire, flight),
            What::Repeat { wire, flight, number } => self.repeat(wire, flight, number),
            What::Unproved { wire } => self.unproved(wire),
            What::Write { slot, epoch, number } => self.write_in_turn(slot, epoch, number),
        }
    }

    /// What every node holds and thinks, for a failure message.
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
}

/// The address of a node: one of usual length that contains its number.
fn address(node: usize) -> String {
    let [.., b, c, d] = node.to_be_bytes();
    format!("10.{b}.{c}.{d}:7946")
}
