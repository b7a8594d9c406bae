//! Whom to gossip with, and when: what the scheduler actor wraps.
//!
//! The choice is the original's: some random live peers, a dead one now and then (with probability
//! dead / (live + 1), so surely if nobody is live), a seed if too few are live. Beside it, one seed
//! that is not a live member is tried every now and then, whatever the rest looks like: without that
//! two halves that have forgotten each other never meet again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use super::{
    id::NodeId,
    overlay,
    route::{Output, Reach, SchedulerInput, StorageInput, Target, TransportInput},
    time::Time,
};

/// Most exchanges of one node's own making under way at once.
pub const IN_FLIGHT_MAX: usize = 64;

/// When and with whom to gossip.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// This node.
    pub node: NodeId,
    /// Time between two rounds, and between two heartbeats.
    pub gossip_interval: Duration,
    /// How many live peers a round goes to.
    pub gossip_fanout: usize,
    /// Below this many live peers every round goes to a seed too.
    pub minimum_live_peers: usize,
    /// Addresses that are always there to be tried.
    pub seeds: Vec<String>,
    /// Addresses of peers known from an earlier run: tried while too few are live.
    pub candidates: Vec<String>,
    /// Least time between a piece of news and the round that spreads it.
    pub news_delay: Duration,
    /// How often a seed that is not a live member is tried, whatever else holds.
    pub seed_interval: Duration,
    /// After this time an exchange that nobody reported the end of does not count any more.
    pub exchange_timeout: Duration,
}

/// The gossip scheduler of one node.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    rng: SmallRng,
    peers: BTreeMap<NodeId, Reach>,
    neighbours: Vec<NodeId>,
    in_flight: BTreeMap<Target, Time>,
    failures: BTreeMap<Target, Failures>,
    /// Which node answered at an address, this one included.
    answered: BTreeMap<String, NodeId>,
    next_round: Time,
    next_seed: Time,
    /// When to tell the news, if there is some.
    news: Option<Time>,
    /// There was news and nobody free to be told: it goes out when an exchange has ended.
    owed: bool,
    last_round: Option<Time>,
    leaving: Option<Farewell>,
}

/// Who is being told that this node leaves.
#[derive(Debug, Default)]
struct Farewell {
    /// How many exchanges with each have still to end: one that was under way already began before
    /// there was anything to tell.
    pending: BTreeMap<Target, u32>,
    acknowledged: usize,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Time,
    /// Part of the wait that is waited, so that nodes that failed together try apart.
    jitter: f64,
}

impl Scheduler {
    /// Nobody is known; the first round is due at once.
    #[must_use]
    pub fn new(config: SchedulerConfig, now: Time, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            neighbours: Vec::new(),
            in_flight: BTreeMap::new(),
            failures: BTreeMap::new(),
            answered: BTreeMap::new(),
            next_round: now,
            next_seed: now + config.seed_interval,
            news: None,
            owed: false,
            last_round: None,
            leaving: None,
            config,
        }
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: SchedulerInput, out: &mut Vec<Output>) {
        match input {
            SchedulerInput::Tick => self.tick(now, out),
            SchedulerInput::News => self.news(now, out),
            SchedulerInput::Peer(peer, reach) => {
                self.peers.insert(peer.clone(), reach);
                self.failures.remove(&Target::Peer(peer));
                self.update_neighbours(out);
            }
            SchedulerInput::Forgotten(peer) => {
                self.peers.remove(&peer);
                self.failures.remove(&Target::Peer(peer));
                self.update_neighbours(out);
            }
            SchedulerInput::Ended { target, node, ok } => {
                self.bid_farewell(&target, ok, out);
                self.ended(now, target, node, ok);
                if std::mem::take(&mut self.owed) {
                    self.news(now, out);
                }
            }
            SchedulerInput::Located(..)
            | SchedulerInput::Suspected(..)
            | SchedulerInput::Linked { .. }
            | SchedulerInput::DialFailed(_)
            | SchedulerInput::Root(..)
            | SchedulerInput::OwnRoot(_) => {}
            SchedulerInput::Interrupted => self.interrupted(out),
            SchedulerInput::Leave => self.leave(out),
        }
    }

    /// The nodes a connection is kept to.
    #[must_use]
    pub fn neighbours(&self) -> &[NodeId] {
        &self.neighbours
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.in_flight.retain(|_, begun| now.since(*begun) < self.config.exchange_timeout);
        if now >= self.next_round {
            self.next_round = self.following_round(now);
            self.heartbeat(out);
            self.round(now, out);
        } else if self.news.is_some_and(|due| now >= due) {
            self.spread(now, out);
        }
        self.wake(now, out);
    }

    /// The first rounds of nodes that start together are soon out of step.
    fn following_round(&mut self, now: Time) -> Time {
        let interval = self.config.gossip_interval;
        if self.last_round.is_none() {
            return now + interval.mul_f64(self.rng.random_range(0.5..1.0));
        }
        // A stalled process does not make up for the rounds it missed.
        let next = self.next_round + interval;
        if next > now { next } else { now + interval }
    }

    fn wake(&self, now: Time, out: &mut Vec<Output>) {
        let due = self.news.map_or(self.next_round, |news| news.min(self.next_round));
        out.push(Output::Wake(due.since(now)));
    }

    fn news(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.news.is_some() {
            return;
        }
        let earliest = self.last_round.map_or(now, |last| last + self.config.news_delay);
        self.news = Some(earliest.max(now + NEWS_BATCH));
        self.wake(now, out);
    }

    /// Heartbeats go to the dead as well, as far as they are still connected: if we are wrong about
    /// one and fell silent ourselves, it would be wrong about us next.
    fn heartbeat(&self, out: &mut Vec<Output>) {
        if !self.peers.is_empty() {
            let peers = self.peers.keys().cloned().collect();
            out.push(Output::Transport(TransportInput::Heartbeat(peers)));
        }
    }

    /// The regular round.
    fn round(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut targets = self.some_live(now);
        targets.extend(self.maybe_dead(now));
        targets.extend(self.maybe_seed(now));
        targets.extend(self.unmet_seeds(now));
        self.begin(now, targets, out);
    }

    /// A round between the regular ones, for what is new.
    fn spread(&mut self, now: Time, out: &mut Vec<Output>) {
        let targets = self.some_live(now);
        self.begin(now, targets, out);
    }

    fn begin(&mut self, now: Time, targets: BTreeSet<Target>, out: &mut Vec<Output>) {
        self.owed |= self.news.take().is_some() && targets.is_empty();
        self.last_round = Some(now);
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight.len());
        let targets: Vec<_> = targets.into_iter().take(room).collect();
        if targets.is_empty() || self.leaving.is_some() {
            return;
        }
        self.in_flight.extend(targets.iter().map(|target| (target.clone(), now)));
        out.push(Output::Storage(StorageInput::BeginRound(targets)));
    }

    fn some_live(&mut self, now: Time) -> BTreeSet<Target> {
        let fanout = self.config.gossip_fanout;
        let mut free = self.free(now, Reach::Live);
        if free.is_empty() {
            free = self.free(now, Reach::Unheard);
        }
        free.into_iter().sample(&mut self.rng, fanout).into_iter().collect()
    }

    fn maybe_dead(&mut self, now: Time) -> Option<Target> {
        let dead = self.count(Reach::Dead) as f64;
        let chance = (dead / (self.count(Reach::Live) as f64 + 1.0)).min(1.0);
        if !self.rng.random_bool(chance) {
            return None;
        }
        self.free(now, Reach::Dead).into_iter().choose(&mut self.rng)
    }

    fn maybe_seed(&mut self, now: Time) -> Option<Target> {
        let short = self.is_short();
        if now >= self.next_seed {
            let jitter = self.rng.random_range(0.75..1.25);
            self.next_seed = now + self.config.seed_interval.mul_f64(jitter);
        } else if !short {
            return None;
        }
        let candidates = self.config.candidates.iter().filter(|_| short);
        let addresses = self.config.seeds.iter().chain(candidates);
        let free: Vec<_> = addresses
            .filter(|address| !self.is_taken(address))
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.into_iter().choose(&mut self.rng)
    }

    /// Tells some live peers, whatever else is under way with them.
    fn leave(&mut self, out: &mut Vec<Output>) {
        let live = self.peers.iter().filter(|(_, reach)| **reach == Reach::Live);
        let live: Vec<_> = live.map(|(peer, _)| Target::Peer(peer.clone())).collect();
        let told = live.into_iter().sample(&mut self.rng, FAREWELLS);
        let endings = |target: &Target| 1 + u32::from(self.in_flight.contains_key(target));
        let pending = told.iter().map(|target| (target.clone(), endings(target))).collect();
        self.leaving = Some(Farewell { pending, acknowledged: 0 });
        if told.is_empty() {
            out.push(Output::Farewell(0));
        } else {
            out.push(Output::Storage(StorageInput::BeginRound(told)));
        }
    }

    /// Of exchanges that nobody will report the end of, none is waited for.
    fn interrupted(&mut self, out: &mut Vec<Output>) {
        self.in_flight.clear();
        let neighbours = self.neighbours.as_slice().into();
        out.push(Output::Transport(TransportInput::Neighbours(neighbours)));
        if let Some(farewell) = &mut self.leaving
            && !farewell.pending.is_empty()
        {
            farewell.pending.clear();
            out.push(Output::Farewell(farewell.acknowledged));
        }
    }

    fn bid_farewell(&mut self, target: &Target, ok: bool, out: &mut Vec<Output>) {
        let Some(farewell) = &mut self.leaving else { return };
        let Some(endings) = farewell.pending.get_mut(target) else { return };
        *endings -= 1;
        if *endings > 0 {
            return;
        }
        farewell.pending.remove(target);
        farewell.acknowledged += usize::from(ok);
        if farewell.pending.is_empty() {
            out.push(Output::Farewell(farewell.acknowledged));
        }
    }

    /// Seeds that have never answered, few at a time: nodes that start together, each with another
    /// first seed, would otherwise be content with whom they met first, and be islands for a while.
    fn unmet_seeds(&mut self, now: Time) -> Vec<Target> {
        let unmet = self.config.seeds.iter().filter(|seed| !self.answered.contains_key(*seed));
        let free: Vec<_> = unmet
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.into_iter().sample(&mut self.rng, UNMET_SEEDS_MAX)
    }

    fn is_short(&self) -> bool {
        self.count(Reach::Live) < self.config.minimum_live_peers
    }

    /// Whether this node itself or a live member answers at an address.
    fn is_taken(&self, address: &str) -> bool {
        self.answered.get(address).is_some_and(|node| {
            *node == self.config.node || self.peers.get(node) == Some(&Reach::Live)
        })
    }

    fn free(&self, now: Time, of: Reach) -> Vec<Target> {
        self.peers
            .iter()
            .filter(|(_, reach)| **reach == of)
            .map(|(peer, _)| Target::Peer(peer.clone()))
            .filter(|target| self.is_free(now, target))
            .collect()
    }

    fn is_free(&self, now: Time, target: &Target) -> bool {
        !self.in_flight.contains_key(target)
            && self
                .failures
                .get(target)
                .is_none_or(|failures| now.since(failures.last) >= self.back_off(target, *failures))
    }

    fn back_off(&self, target: &Target, failures: Failures) -> Duration {
        let doublings = match target {
            Target::Peer(_) => PEER_DOUBLINGS_MAX,
            Target::Address(_) if self.is_short() => NEEDED_SEED_DOUBLINGS_MAX,
            Target::Address(_) => SEED_DOUBLINGS_MAX,
        };
        let rounds = 1_u32 << (failures.count - 1).min(doublings);
        (self.config.gossip_interval * rounds).mul_f64(failures.jitter)
    }

    fn count(&self, reach: Reach) -> usize {
        self.peers.values().filter(|r| **r == reach).count()
    }

    fn ended(&mut self, now: Time, target: Target, node: Option<NodeId>, ok: bool) {
        self.in_flight.remove(&target);
        if let (Target::Address(address), Some(node)) = (&target, node) {
            self.answered.insert(address.clone(), node);
        }
        // A peer may have been forgotten meanwhile.
        let known = match &target {
            Target::Peer(peer) => self.peers.contains_key(peer),
            Target::Address(_) => true,
        };
        if ok || !known {
            self.failures.remove(&target);
            return;
        }
        let count = self.failures.get(&target).map_or(0, |failures| failures.count) + 1;
        let jitter = self.rng.random_range(0.5..1.0);
        self.failures.insert(target, Failures { count, last: now, jitter });
    }

    fn update_neighbours(&mut self, out: &mut Vec<Output>) {
        let hopeful = self.peers.iter().filter(|(_, reach)| **reach != Reach::Dead);
        let neighbours = overlay::neighbours(&self.config.node, hopeful.map(|(peer, _)| peer));
        if neighbours != self.neighbours {
            self.neighbours = neighbours;
            let neighbours = self.neighbours.as_slice().into();
            out.push(Output::Transport(TransportInput::Neighbours(neighbours)));
        }
    }
}

/// How many peers are told that this node leaves; they tell the others.
const FAREWELLS: usize = 3;
/// News that comes in quick succession is told together.
const NEWS_BATCH: Duration = Duration::from_millis(2);
/// A peer that fails is tried again after at most 16 rounds.
const PEER_DOUBLINGS_MAX: u32 = 4;
/// A seed that fails is tried again after at most 4 rounds while too few peers are live, since it
/// may be all there is, and after at most 32 rounds otherwise.
const NEEDED_SEED_DOUBLINGS_MAX: u32 = 2;
const SEED_DOUBLINGS_MAX: u32 = 5;
/// Seeds that have never answered, tried in one round.
const UNMET_SEEDS_MAX: usize = 3;
