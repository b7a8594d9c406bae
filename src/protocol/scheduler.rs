//! Whom to gossip with, and when: what the scheduler actor wraps.
//!
//! A node keeps connections to a few neighbours ([`overlay`](super::overlay), [`links`](super::links)).
//! News is told on them as it happens, and that is not this machine's business. Once a round it tells
//! them its root, if that has changed, and begins exchanges with those whose root says that something
//! was lost ([`repair`](super::repair)): where nothing happens, nothing is sent.
//!
//! What neighbours cannot find out are islands. So a dead peer is tried now and then, as in the
//! original (with probability dead / (live + 1), so surely if nobody is live), a seed if too few are
//! live, some live peer far away once a minute, and one seed that is not a live member every now and
//! then, whatever the rest looks like: without that two halves that have forgotten each other never
//! meet again. Where the last were who were forgotten is tried like a seed, for those whose seeds are gone. And if none of the neighbours in another datacenter is heard, some others there are
//! tried until one answers: whether it can be reached at all, [`datacenters`](super::datacenters) says.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{
    RngExt, SeedableRng,
    rngs::SmallRng,
    seq::{IndexedRandom, IteratorRandom},
};

use super::{
    datacenters::Datacenters,
    event::Event,
    gossip::Gossip,
    id::{Datacenter, NodeId},
    links::{Links, LinksConfig},
    overlay::{DatacenterIndex, FELLOWS_MIN, NEIGHBOURS, Overlay, Site},
    repair::Repair,
    route::{
        Counter, DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target, TransportInput,
    },
    time::Time,
};

/// Most exchanges of one node's own making under way at once.
pub const IN_FLIGHT_MAX: usize = 64;

/// When and with whom to gossip.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// This node.
    pub node: NodeId,
    /// Where it is.
    pub datacenter: Datacenter,
    /// Time between two rounds, and between two heartbeats.
    pub gossip_interval: Duration,
    /// With how many peers a round repairs at most, and how many are asked by a node that has no
    /// connection.
    pub gossip_fanout: usize,
    /// Below this many live peers every round goes to a seed too.
    pub minimum_live_peers: usize,
    /// Addresses that are always there to be tried.
    pub seeds: Vec<String>,
    /// Addresses of peers known from an earlier run: tried while too few are live.
    pub candidates: Vec<String>,
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
    peers: BTreeMap<NodeId, Peer>,
    live: usize,
    dead: BTreeSet<NodeId>,
    overlay: Overlay,
    links: Links,
    repair: Repair,
    in_flight: BTreeMap<Target, Time>,
    failures: BTreeMap<Target, Failures>,
    /// Which node answered at an address, this one included, and when.
    answered: BTreeMap<String, (NodeId, Time)>,
    /// Where those were who are forgotten, the last ones: they may have forgotten us as well.
    remembered: VecDeque<(NodeId, String)>,
    next_round: Time,
    next_seed: Time,
    next_distant: Time,
    /// Who is being asked although it is no neighbour.
    distant: Option<NodeId>,
    begun: bool,
    /// Storage was asked for the root: for a round, or for a new link only.
    asked: Option<Asked>,
    /// The last round began much later than it was to.
    late: bool,
    /// Links that may still be compared at once in this round.
    at_once: usize,
    /// Whose silence this node votes on, and whom it only listens to, as the detector was told.
    observed: Option<Observed>,
    datacenters: Datacenters,
    /// Who is not heard, of those whom this node only listens to; and if another one of that datacenter
    /// has answered since, from when on this one's silence counts by itself.
    missed: BTreeMap<NodeId, Option<Time>>,
    /// Whom it hears in other datacenters may have changed, or who is to be heard.
    heard_changed: bool,
    /// Who is there, or what they say they are cut off from.
    members_changed: bool,
    /// For when a wake-up was asked for last.
    alarm: Option<Time>,
    leaving: Option<Farewell>,
}

/// What is known of a peer. There may be ten thousand of them.
#[derive(Clone, Copy, Debug)]
struct Peer {
    datacenter: DatacenterIndex,
    /// `None`: nobody has said yet.
    reach: Option<Reach>,
    suspected: bool,
}

/// Whom the detector is to hear: `judged` and `witnessed`.
type Observed = (Arc<[NodeId]>, Arc<[NodeId]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    ForLinks,
    ForRound,
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
        let mut rng = SmallRng::seed_from_u64(seed);
        let links = LinksConfig {
            node: config.node.clone(),
            interval: config.gossip_interval,
            dial_timeout: config.exchange_timeout,
        };
        Self {
            peers: BTreeMap::new(),
            live: 0,
            dead: BTreeSet::new(),
            overlay: Overlay::new(config.node.clone(), config.datacenter.clone()),
            links: Links::new(links),
            repair: Repair::new(config.node.clone()),
            in_flight: BTreeMap::new(),
            failures: BTreeMap::new(),
            answered: BTreeMap::new(),
            remembered: VecDeque::new(),
            next_round: now,
            next_seed: now + config.seed_interval,
            next_distant: now + distant_interval(&config, &mut rng),
            distant: None,
            begun: false,
            asked: None,
            late: false,
            at_once: AT_ONCE_MAX,
            observed: None,
            datacenters: Datacenters::new(config.gossip_interval),
            missed: BTreeMap::new(),
            heard_changed: false,
            members_changed: false,
            alarm: None,
            leaving: None,
            rng,
            config,
        }
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: SchedulerInput, out: &mut Vec<Output>) {
        match input {
            SchedulerInput::Tick => self.tick(now, out),
            SchedulerInput::Located(peer, datacenter) => self.located(now, peer, &datacenter),
            SchedulerInput::Peer(peer, reach) => self.reached(now, peer, reach),
            SchedulerInput::Suspected(peer, suspected) => {
                self.heard_changed |= self.is_abroad(&peer);
                if !suspected {
                    self.missed.remove(&peer);
                }
                self.change(now, &peer, |peer| peer.suspected = suspected);
            }
            SchedulerInput::Witness { peer, heard: true } => self.answered(now, &peer),
            SchedulerInput::Witness { peer, heard: false } => self.missed(now, peer, out),
            SchedulerInput::Severed(peer, from) => {
                self.datacenters.said(peer, from);
                self.members_changed = true;
            }
            SchedulerInput::Removal { peer, by } => self.removed_by_others(peer, by, out),
            SchedulerInput::Remember(peer, addresses) => self.remember(&peer, addresses),
            SchedulerInput::Forgotten(peer) => self.forgotten(now, &peer),
            SchedulerInput::Linked { peer, up: true, dialed } => {
                self.linked(now, peer, dialed, out);
            }
            SchedulerInput::Linked { peer, up: false, .. } => self.unlinked(now, &peer),
            SchedulerInput::DialFailed(peer) => self.links.failed(now, &peer, &mut self.rng),
            SchedulerInput::Root(peer, root) => {
                if self.repair.heard(&peer, root) {
                    self.repair_at_once(now, vec![peer], out);
                }
            }
            SchedulerInput::OwnRoot(root) => self.own_root(now, root, out),
            SchedulerInput::Ended { target, node, ok } => {
                self.bid_farewell(&target, ok, out);
                self.ended(now, target, node, ok, out);
            }
            SchedulerInput::Interrupted => self.interrupted(now, out),
            SchedulerInput::Leave => self.leave(out),
        }
        self.keep_links(now, out);
        self.keep_datacenters(now, out);
        self.wake(now, out);
    }

    /// All of these are live, and nobody else is known: the same as being told so one by one.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Datacenter)>) {
        let Self { overlay, peers, .. } = self;
        let mut met = |(node, datacenter): (NodeId, Datacenter)| {
            let datacenter = overlay.locate(&datacenter);
            (node, Peer { datacenter, reach: Some(Reach::Live), suspected: false })
        };
        let others = members.into_iter().filter(|(node, _)| *node != self.config.node);
        *peers = others.map(&mut met).collect();
        self.live = peers.len();
        self.dead.clear();
        overlay.reset(peers.iter().filter_map(|(node, peer)| Some((node, peer.site()?))));
        self.links.aim(now, overlay.neighbours(), peers.len());
    }

    /// Takes over what the scheduler before this one had published, and had storage say.
    pub fn restore(
        &mut self,
        unreachable: Arc<BTreeSet<Datacenter>>,
        severed: BTreeSet<Datacenter>,
    ) {
        self.datacenters.restore(unreachable, severed);
        self.members_changed = true;
    }

    /// The nodes a connection is kept to, by name.
    #[must_use]
    pub fn neighbours(&self) -> &[NodeId] {
        self.links.wanted()
    }

    /// The datacenters that cannot be reached from ours.
    #[must_use]
    pub const fn unreachable(&self) -> &Arc<BTreeSet<Datacenter>> {
        self.datacenters.unreachable()
    }

    /// The connections there are.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    // --- rest

    /// When this has to be called next, as it has asked.
    #[must_use]
    pub fn due(&self) -> Time {
        let dues = [self.links.due(), self.datacenters.due()];
        dues.into_iter().flatten().fold(self.next_round, Time::min)
    }

    /// When it has to be called next if it is told nothing until then and our root stays `root`, since
    /// the rounds before that would do nothing; `None`: when it has asked. For those who run thousands
    /// of idle nodes in one process; whoever leaves out calls says so by [`Scheduler::skip_to`].
    #[must_use]
    pub fn rests_until(&self, root: u64) -> Option<Time> {
        let busy = !self.begun
            || self.asked.is_some()
            || self.distant.is_some()
            || self.leaving.is_some()
            || !self.in_flight.is_empty()
            || !self.dead.is_empty()
            || self.is_short()
            || !self.datacenters.is_at_rest()
            || !self.missed.is_empty()
            || self.config.seeds.iter().any(|seed| !self.answered.contains_key(seed));
        if busy {
            return None;
        }
        let interval = self.config.gossip_interval;
        let refresh = self.next_round + interval * self.repair.idle_rounds(root)?;
        let acts = [self.next_seed, self.next_distant].into_iter().map(|due| {
            let rounds = due.since(self.next_round).as_micros().div_ceil(interval.as_micros());
            self.next_round + interval * u32::try_from(rounds).unwrap_or(u32::MAX)
        });
        acts.chain([refresh]).chain(self.links.due()).min()
    }

    /// Says that the rounds before `now` were left out on purpose, and, if `inclusive`, one that was
    /// due just now as well.
    pub fn skip_to(&mut self, now: Time, inclusive: bool) {
        self.alarm = None;
        while self.next_round < now || (inclusive && self.next_round == now) {
            self.next_round = self.next_round + self.config.gossip_interval;
            self.repair.skip_round();
            self.at_once = AT_ONCE_MAX;
        }
    }

    // --- time

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.alarm = None;
        self.in_flight.retain(|_, begun| now.since(*begun) < self.config.exchange_timeout);
        if now >= self.next_round {
            // Who cannot keep its own time has no time for what can wait.
            self.late = now.since(self.next_round) > self.config.gossip_interval / LATE;
            self.next_round = self.following_round(now);
            self.begun = true;
            self.round(now, out);
        }
    }

    /// The first rounds of nodes that start together are soon out of step.
    fn following_round(&mut self, now: Time) -> Time {
        let interval = self.config.gossip_interval;
        if !self.begun {
            return now + interval.mul_f64(self.rng.random_range(0.5..1.0));
        }
        // A stalled process does not make up for the rounds it missed.
        let next = self.next_round + interval;
        if next > now { next } else { now + interval }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self.due();
        if self.alarm != Some(due) {
            self.alarm = Some(due);
            out.push(Output::Wake(due.since(now)));
        }
    }

    fn round(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.links.is_empty() {
            // What was asked before may be lost.
            self.asked = None;
            self.ask(Asked::ForRound, out);
        }
        self.at_once = if self.late { 0 } else { AT_ONCE_MAX };
        self.heard_changed |= !self.missed.is_empty();
        let mut targets = self.some_live_if_lonely(now);
        targets.extend(self.maybe_dead(now));
        targets.extend(self.maybe_seed(now));
        targets.extend(self.unmet_seeds(now));
        targets.extend(self.maybe_distant(now));
        targets.extend(self.somebody_else_abroad(now));
        self.begin(now, targets, out);
    }

    fn begin(&mut self, now: Time, targets: BTreeSet<Target>, out: &mut Vec<Output>) {
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight.len());
        let targets: Vec<_> = targets.into_iter().take(room).collect();
        if targets.is_empty() || self.leaving.is_some() {
            return;
        }
        self.in_flight.extend(targets.iter().map(|target| (target.clone(), now)));
        out.push(Output::Storage(StorageInput::BeginRound(targets)));
    }

    // --- who is there

    fn located(&mut self, now: Time, node: NodeId, datacenter: &Datacenter) {
        if node == self.config.node {
            return;
        }
        let datacenter = self.overlay.locate(datacenter);
        match self.peers.get(&node).map(|peer| peer.datacenter) {
            Some(before) => {
                self.change(now, &node, |peer| peer.datacenter = datacenter);
                self.overlay.release(before);
            }
            None => {
                self.peers.insert(node, Peer { datacenter, reach: None, suspected: false });
            }
        }
    }

    fn reached(&mut self, now: Time, node: NodeId, reach: Reach) {
        if node == self.config.node {
            return;
        }
        if !self.peers.contains_key(&node) {
            let home = self.config.datacenter.clone();
            self.located(now, node.clone(), &home);
        }
        self.change(now, &node, |peer| peer.reach = Some(reach));
        self.remembered.retain(|(known, _)| *known != node);
        self.failures.remove(&Target::Peer(node));
    }

    /// Whom nobody here can say anything about is believed to be gone.
    fn removed_by_others(&self, node: NodeId, by: NodeId, out: &mut Vec<Output>) {
        let unreachable = self.datacenters.unreachable();
        let at = self.peers.get(&node).map(|peer| self.overlay.name(peer.datacenter));
        if at.is_some_and(|at| unreachable.contains(at)) {
            out.push(Output::Storage(StorageInput::Remove { peer: node, by: Some(by) }));
        }
    }

    /// Two that have forgotten each other would not meet again if no seed is there any more.
    fn remember(&mut self, node: &NodeId, addresses: Vec<String>) {
        self.remembered.retain(|(known, _)| known != node);
        self.remembered.extend(addresses.into_iter().map(|address| (node.clone(), address)));
        while self.remembered.len() > REMEMBERED_MAX {
            let Some((_, address)) = self.remembered.pop_front() else { break };
            if !self.config.seeds.contains(&address) {
                self.answered.remove(&address);
                self.failures.remove(&Target::Address(address));
            }
        }
    }

    fn forgotten(&mut self, now: Time, node: &NodeId) {
        self.change(now, node, |peer| peer.reach = None);
        if let Some(peer) = self.peers.remove(node) {
            self.overlay.release(peer.datacenter);
        }
        self.failures.remove(&Target::Peer(node.clone()));
        self.datacenters.forgotten(node);
        self.missed.remove(node);
    }

    /// Changes what is known of a peer, and all that follows from it.
    fn change(&mut self, now: Time, node: &NodeId, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let before = *peer;
        change(peer);
        let after = *peer;
        self.live -= usize::from(before.reach == Some(Reach::Live));
        self.live += usize::from(after.reach == Some(Reach::Live));
        if after.reach == Some(Reach::Dead) {
            self.dead.insert(node.clone());
        } else if before.reach == Some(Reach::Dead) {
            self.dead.remove(node);
        }
        self.members_changed |= before.site() != after.site();
        let Self { overlay, peers, .. } = self;
        let members =
            || peers.iter().filter_map(|(node, peer)| peer.site().map(|site| (node, site)));
        if overlay.update(node, before.site(), after.site(), members) {
            self.links.aim(now, overlay.neighbours(), peers.len());
        }
        // Of the last few of a datacenter silence means something else.
        let counted = before.site().is_some() != after.site().is_some();
        let few = |at| at != Overlay::HOME && self.overlay.members(at) <= FELLOWS_MIN;
        let moved = before.datacenter != after.datacenter;
        self.heard_changed |=
            moved || (counted && (few(before.datacenter) || few(after.datacenter)));
    }

    // --- connections

    fn linked(&mut self, now: Time, peer: NodeId, dialed: bool, out: &mut Vec<Output>) {
        let eager = self.links.up(now, peer.clone(), dialed);
        self.answered(now, &peer);
        self.repair.up(peer, eager);
        self.ask(Asked::ForLinks, out);
    }

    fn unlinked(&mut self, now: Time, peer: &NodeId) {
        let was_linked = self.links.has(peer);
        self.links.down(now, peer, &mut self.rng);
        self.repair.down(peer);
        self.heard_changed |= self.is_abroad(peer);
        if was_linked && self.links.is_empty() {
            let soon = self.config.gossip_interval.mul_f64(self.rng.random_range(0.0..0.25));
            self.next_round = self.next_round.min(now + soon);
        }
    }

    fn keep_links(&mut self, now: Time, out: &mut Vec<Output>) {
        let changed = self.links.tick(now, &mut self.rng, out);
        self.heard_changed |= changed;
        // Until the first time everybody is observed: that is not to last among many.
        let many = self.observed.is_none() && self.peers.len() > NEIGHBOURS;
        if changed || many || (self.heard_changed && self.observed.is_some()) {
            self.observe(now, out);
        }
    }

    /// Says whose silence counts: in our datacenter that of all neighbours, in others that of the last
    /// few. A datacenter of one cannot be told from one that is cut off, so it is called dead, and may
    /// refute that. Of two who fall silent together neither is: the other one has to answer first.
    fn observe(&mut self, now: Time, out: &mut Vec<Output>) {
        let judged = |node: &&NodeId| {
            let Some(peer) = self.peers.get(*node) else { return true };
            let at = peer.datacenter;
            at == Overlay::HOME
                || match self.overlay.members(at) {
                    0..=1 => !self.datacenters.unreachable().contains(self.overlay.name(at)),
                    FELLOWS_MIN => {
                        self.missed.get(*node).copied().flatten().is_some_and(|from| from <= now)
                    }
                    _ => false,
                }
        };
        let (judged, witnessed): (Vec<_>, Vec<_>) = self.links.wanted().iter().partition(judged);
        let shared = |nodes: Vec<&NodeId>| nodes.into_iter().cloned().collect::<Arc<[_]>>();
        let observed = (shared(judged), shared(witnessed));
        self.missed.retain(|node, _| observed.0.contains(node) || observed.1.contains(node));
        if self.observed.as_ref() != Some(&observed) {
            let (judged, witnessed) = observed.clone();
            self.observed = Some(observed);
            out.push(Output::Detector(DetectorInput::Observe { judged, witnessed }));
        }
    }

    // --- other datacenters

    fn is_abroad(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.datacenter != Overlay::HOME)
    }

    /// A peer that this node only listens to is not heard any more.
    fn missed(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        if !self.is_abroad(&node) {
            return;
        }
        // It may have answered before another one's silence was to count, and is silent itself now.
        let place = self.peers.get(&node).map(|peer| peer.datacenter);
        for (other, from) in &mut self.missed {
            if self.peers.get(other).map(|peer| peer.datacenter) == place {
                *from = None;
            }
        }
        self.missed.insert(node, None);
        self.hear_abroad(now);
        let targets = self.somebody_else_abroad(now);
        self.begin(now, targets.into_iter().collect(), out);
    }

    /// A peer has answered just now.
    fn answered(&mut self, now: Time, node: &NodeId) {
        self.missed.remove(node);
        let Some(place) = self.peers.get(node).map(|peer| peer.datacenter) else { return };
        if place == Overlay::HOME {
            return;
        }
        self.heard_changed = true;
        self.datacenters.answered(now, self.overlay.name(place));
        for (other, from) in &mut self.missed {
            if self.peers.get(other).is_some_and(|peer| peer.datacenter == place) {
                // After a cut they do not all answer at the same moment.
                from.get_or_insert(now + self.config.gossip_interval * ANSWER_PATIENCE);
            }
        }
    }

    /// Looks which datacenters are heard.
    fn hear_abroad(&mut self, now: Time) {
        self.heard_changed = false;
        let mut heard = BTreeMap::new();
        for node in self.links.wanted() {
            let Some(peer) = self.peers.get(node) else { continue };
            if peer.datacenter != Overlay::HOME {
                let missed = peer.suspected || self.missed.contains_key(node);
                let hears = self.links.has(node) && !missed;
                *heard.entry(self.overlay.name(peer.datacenter).clone()).or_default() |= hears;
            }
        }
        self.datacenters.bridged(now, &heard);
    }

    fn keep_datacenters(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.heard_changed {
            self.hear_abroad(now);
        }
        let overlay = &self.overlay;
        let single = |name: &Datacenter| {
            overlay.inhabited().any(|at| overlay.name(at) == name && overlay.members(at) == 1)
        };
        if let Some(severed) = self.datacenters.tick(now, single) {
            self.members_changed = true;
            out.push(Output::Storage(StorageInput::Severed(severed)));
        }
        if std::mem::take(&mut self.members_changed) && !self.datacenters.is_whole() {
            self.assess(now, out);
        }
    }

    /// Says which datacenters cannot be reached, if these are not the same as before.
    fn assess(&mut self, now: Time, out: &mut Vec<Output>) {
        let others = self.peers.iter().filter_map(|(node, peer)| Some((node, peer.site()?)));
        let (lost, found) = self.datacenters.assess(&self.overlay, others);
        if lost.is_empty() && found.is_empty() {
            return;
        }
        out.push(Output::Unreachable(Arc::clone(self.datacenters.unreachable())));
        for datacenter in lost {
            out.push(Output::Count(Counter::DatacentersLost, 1));
            out.push(Output::Event(Event::DatacenterUnreachable { datacenter }));
        }
        for datacenter in found {
            out.push(Output::Event(Event::DatacenterReachable { datacenter }));
        }
        if self.observed.is_some() {
            self.observe(now, out);
        }
    }

    /// Where no neighbour is heard: somebody there who may be. Where one of two is missed: the other, and
    /// if that one has answered, the one that is missed.
    fn somebody_else_abroad(&mut self, now: Time) -> Vec<Target> {
        let mut doubted: BTreeSet<_> = {
            let doubted = self.datacenters.doubted(now);
            let by_name = |name: &Datacenter| {
                self.overlay.inhabited().find(|at| self.overlay.name(*at) == name)
            };
            doubted.filter_map(by_name).collect()
        };
        let few = |node: &NodeId| {
            let place = self.peers.get(node).map(|peer| peer.datacenter);
            place.filter(|at| self.overlay.members(*at) == FELLOWS_MIN)
        };
        let mut targets = Vec::new();
        for (node, from) in &self.missed {
            match (few(node), from) {
                (None, _) => {}
                (Some(place), None) => {
                    doubted.insert(place);
                }
                (Some(_), Some(_)) => {
                    let target = Target::Peer(node.clone());
                    targets.extend(self.is_free(now, &target).then_some(target));
                }
            }
        }
        for place in doubted {
            let there = self.peers.iter().filter(|(_, peer)| {
                peer.datacenter == place && matches!(peer.reach, Some(Reach::Unheard | Reach::Live))
            });
            let free = there
                .map(|(node, _)| (node, Target::Peer(node.clone())))
                .filter(|(_, target)| self.is_free(now, target));
            let (missed, others): (Vec<_>, Vec<_>) =
                free.partition(|(node, _)| self.missed.contains_key(*node));
            let some = if others.is_empty() { missed } else { others };
            targets.extend(some.choose(&mut self.rng).map(|(_, target)| target.clone()));
        }
        targets
    }

    // --- roots

    fn ask(&mut self, what: Asked, out: &mut Vec<Output>) {
        if self.asked.is_none() {
            out.push(Output::Storage(StorageInput::TellRoot));
        }
        self.asked = self.asked.max(Some(what));
    }

    fn own_root(&mut self, now: Time, root: u64, out: &mut Vec<Output>) {
        let (mut told, differ) = self.repair.introduce(root);
        self.repair_at_once(now, differ, out);
        if self.asked.take() == Some(Asked::ForRound) {
            let linked = self.links.peers().map(|node| Target::Peer(node.clone()));
            let busy: BTreeSet<_> = linked.filter(|target| !self.is_free(now, target)).collect();
            let free = |node: &NodeId| !busy.contains(&Target::Peer(node.clone()));
            let room = if self.late { 0 } else { self.config.gossip_fanout };
            let moving = usize::from(!self.is_catching_up());
            let (changed, differ) = self.repair.round(root, room, moving, free, &mut self.rng);
            told.extend(changed);
            self.begin(now, differ.into_iter().map(Target::Peer).collect(), out);
        }
        if !told.is_empty() {
            let gossip = Gossip::Root(root).into();
            out.push(Output::Transport(TransportInput::Gossip { to: told, gossip }));
        }
    }

    /// Whether an exchange is under way that may bring what others differ in: from two at once much
    /// would come twice.
    fn is_catching_up(&self) -> bool {
        self.in_flight.keys().any(|target| match target {
            Target::Peer(node) => self.links.has(node),
            Target::Address(_) => !self.links.is_empty(),
        })
    }

    /// Neighbours that are new and know something else.
    fn repair_at_once(&mut self, now: Time, differ: Vec<NodeId>, out: &mut Vec<Output>) {
        if self.is_catching_up() {
            return;
        }
        let targets = differ.into_iter().map(Target::Peer);
        let free = targets.filter(|target| self.is_free(now, target));
        let targets: BTreeSet<_> = free.take(self.at_once).collect();
        self.at_once -= targets.len();
        self.begin(now, targets, out);
    }

    // --- islands

    fn some_live_if_lonely(&mut self, now: Time) -> BTreeSet<Target> {
        if !self.links.is_empty() || self.live == 0 {
            return BTreeSet::new();
        }
        let live = self.peers.iter().filter(|(_, peer)| peer.reach == Some(Reach::Live));
        let live = live.map(|(node, _)| Target::Peer(node.clone()));
        let free: Vec<_> = live.filter(|target| self.is_free(now, target)).collect();
        free.into_iter().sample(&mut self.rng, self.config.gossip_fanout).into_iter().collect()
    }

    fn maybe_dead(&mut self, now: Time) -> Option<Target> {
        if self.dead.is_empty() {
            return None;
        }
        let chance = (self.dead.len() as f64 / (self.live as f64 + 1.0)).min(1.0);
        if !self.rng.random_bool(chance) {
            return None;
        }
        let some = self.dead.iter().sample(&mut self.rng, DEAD_TRIES);
        let mut some = some.into_iter().map(|node| Target::Peer(node.clone()));
        some.find(|target| self.is_free(now, target))
    }

    /// Somebody live whom neither we nor our neighbours are likely to talk to, now and then in another
    /// datacenter: the bridges compare what is known there every round, and as long as the connection
    /// lasts news takes that way as well.
    fn maybe_distant(&mut self, now: Time) -> Option<Target> {
        if now < self.next_distant {
            return None;
        }
        self.next_distant = now + distant_interval(&self.config, &mut self.rng);
        let live = self.peers.iter().filter(|(_, peer)| peer.reach == Some(Reach::Live));
        let anywhere = self.rng.random_ratio(1, DISTANT_ABROAD);
        let here = Overlay::HOME;
        let distant = live
            .filter(|(node, peer)| (anywhere || peer.datacenter == here) && !self.links.has(node));
        let (node, _) = distant.choose(&mut self.rng)?;
        let target = Target::Peer(node.clone());
        self.distant = Some(node.clone());
        self.is_free(now, &target).then_some(target)
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
        let remembered = self.remembered.iter().map(|(_, address)| address);
        let addresses = self.config.seeds.iter().chain(candidates).chain(remembered);
        let free: Vec<_> = addresses
            .filter(|address| !self.is_taken(now, address))
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.choose(&mut self.rng).cloned()
    }

    /// Tells some live peers, whatever else is under way with them.
    fn leave(&mut self, out: &mut Vec<Output>) {
        let live = self.peers.iter().filter(|(_, peer)| peer.reach == Some(Reach::Live));
        let (linked, others): (Vec<_>, Vec<_>) =
            live.map(|(node, _)| node.clone()).partition(|node| self.links.has(node));
        let mut told = linked.into_iter().map(Target::Peer).sample(&mut self.rng, FAREWELLS);
        let more = FAREWELLS - told.len();
        told.extend(others.into_iter().map(Target::Peer).sample(&mut self.rng, more));
        let endings = |target: &Target| 1 + u32::from(self.in_flight.contains_key(target));
        let pending = told.iter().map(|target| (target.clone(), endings(target))).collect();
        self.leaving = Some(Farewell { pending, acknowledged: 0 });
        if told.is_empty() {
            out.push(Output::Farewell(0));
        } else {
            out.push(Output::Storage(StorageInput::BeginRound(told)));
        }
    }

    /// Of exchanges that nobody will report the end of, none is waited for; and of what connections
    /// there are the transport tells again.
    fn interrupted(&mut self, now: Time, out: &mut Vec<Output>) {
        self.in_flight.clear();
        self.asked = None;
        self.links.reset(now);
        self.repair.reset();
        self.missed.clear();
        self.heard_changed = true;
        if self.observed.take().is_some() {
            self.observe(now, out);
        }
        out.push(Output::Storage(StorageInput::Severed(self.datacenters.told().clone())));
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
        self.live < self.config.minimum_live_peers || self.links.is_empty()
    }

    /// Whether this node itself or a live member answers at an address, as of some time ago: a name may
    /// lead elsewhere by now. All nodes together look about once in an interval.
    fn is_taken(&self, now: Time, address: &str) -> bool {
        let live = u32::try_from(self.live).unwrap_or(u32::MAX);
        let believed = self.config.seed_interval.saturating_mul(live.max(ANSWER_INTERVALS_MIN));
        let taken = |(node, at): &(NodeId, Time)| {
            let live = self.peers.get(node).is_some_and(|peer| peer.reach == Some(Reach::Live));
            let there = *node == self.config.node || (live && !self.links.is_empty());
            there && now.since(*at) < believed
        };
        self.answered.get(address).is_some_and(taken)
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

    fn ended(
        &mut self,
        now: Time,
        target: Target,
        node: Option<NodeId>,
        ok: bool,
        out: &mut Vec<Output>,
    ) {
        self.in_flight.remove(&target);
        if let Target::Peer(peer) = &target
            && self.distant.take_if(|distant| distant == peer).is_some()
        {
            self.links.release(now, peer, out);
        }
        if let (Target::Address(address), Some(node)) = (&target, node) {
            self.answered.insert(address.clone(), (node, now));
        }
        if let (Target::Peer(peer), true) = (&target, ok) {
            self.answered(now, &peer.clone());
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
}

impl Peer {
    /// Its place among the members, if it is one.
    fn site(&self) -> Option<Site> {
        let member = matches!(self.reach, Some(Reach::Unheard | Reach::Live));
        member.then_some(Site { datacenter: self.datacenter, healthy: !self.suspected })
    }
}

fn distant_interval(config: &SchedulerConfig, rng: &mut SmallRng) -> Duration {
    (config.gossip_interval * DISTANT_INTERVALS).mul_f64(rng.random_range(0.75..1.25))
}

/// Rounds that the other one of two is given to answer, when one has.
const ANSWER_PATIENCE: u32 = 2;
/// How many peers are told that this node leaves; they tell the others.
const FAREWELLS: usize = 3;
/// Of so many of these one may be in another datacenter.
const DISTANT_ABROAD: u32 = 8;
/// A live peer that is no neighbour is asked once in so many rounds: once a minute by default.
const DISTANT_INTERVALS: u32 = 60;
/// A round that is later than a fourth of the interval repairs nothing: this process has too little of
/// the processor, and exchanges would take more of it.
const LATE: u32 = 4;
/// New neighbours that are compared with at once, within one round.
const AT_ONCE_MAX: usize = 1;
/// For so many intervals at least it is believed who answered at a seed's address.
const ANSWER_INTERVALS_MIN: u32 = 10;
/// Addresses of forgotten peers that are tried like seeds.
const REMEMBERED_MAX: usize = 64;
/// How many of the dead are looked at to find one that may be tried again.
const DEAD_TRIES: usize = 4;
/// A peer that fails is tried again after at most 4 rounds.
const PEER_DOUBLINGS_MAX: u32 = 2;
/// A seed that fails is tried again after at most 4 rounds while too few peers are live, since it
/// may be all there is, and after at most 32 rounds otherwise.
const NEEDED_SEED_DOUBLINGS_MAX: u32 = 2;
const SEED_DOUBLINGS_MAX: u32 = 5;
/// Seeds that have never answered, tried in one round.
const UNMET_SEEDS_MAX: usize = 3;
