//! Decides with which peers to gossip, and when: the machine inside the scheduler actor.
//!
//! A node keeps connections to a few neighbours ([`overlay`](super::overlay), [`links`](super::links)).
//! Updates go out on them as they happen, without this machine. Once a round it sends the neighbours its
//! root, if that has changed, and begins exchanges with those whose root shows that something was lost
//! ([`repair`](super::repair)): while nothing changes, nothing is sent.
//!
//! Gossip among neighbours cannot detect a split cluster. So the scheduler also tries peers that are not
//! neighbours:
//!
//! - a dead peer now and then, as in the original (with probability dead / (live + 1), so always if no peer
//!   is live);
//! - a seed if too few peers are live;
//! - a live peer far away once a minute;
//! - a seed that is not a live member now and then, in any case: otherwise two halves that have forgotten
//!   each other never meet again;
//! - the last known addresses of forgotten peers, tried like seeds, for nodes whose seeds are gone;
//! - other nodes of a datacenter in which no neighbour is heard, until one answers:
//!   [`datacenters`](super::datacenters) decides whether that datacenter is reachable.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::{
    RngExt, SeedableRng,
    rngs::SmallRng,
    seq::{IndexedRandom, IteratorRandom},
};

use super::{
    event::Event,
    gossip::Gossip,
    id::{Datacenter, NodeId},
    links::{Links, LinksConfig},
    overlay::{FELLOWS_MIN, NEIGHBOURS, Overlay},
    repair::Repair,
    route::{
        Counter, DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target, TransportInput,
    },
    time::Time,
};

mod abroad;
mod farewell;
mod islands;
mod members;
mod rounds;
mod targets;

pub use targets::IN_FLIGHT_MAX;

use abroad::Abroad;
use farewell::Farewell;
use islands::Islands;
use members::{Changed, Members, Peer};
use rounds::Rounds;
use targets::{Pace, Targets};

/// The settings of the scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// This node.
    pub node: NodeId,
    /// Where it is.
    pub datacenter: Datacenter,
    /// Time between two rounds, and between two heartbeats.
    pub gossip_interval: Duration,
    /// Most peers with which a round repairs, and most that a node without a connection asks.
    pub gossip_fanout: usize,
    /// Below this many live peers every round tries a seed too.
    pub minimum_live_peers: usize,
    /// Addresses that can be tried at any time.
    pub seeds: Vec<String>,
    /// Addresses of peers known from an earlier run: tried while too few are live.
    pub candidates: Vec<String>,
    /// How often a seed that is not a live member is tried in any case.
    pub seed_interval: Duration,
    /// After this time an exchange whose end was not reported does not count any more.
    pub exchange_timeout: Duration,
}

/// The gossip scheduler of one node.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    rng: SmallRng,
    members: Members,
    links: Links,
    repair: Repair,
    targets: Targets,
    rounds: Rounds,
    islands: Islands,
    abroad: Abroad,
    /// Storage was asked for the root: for a round, or only for a new link.
    asked: Option<Asked>,
    /// The peers that this node votes on, and those that it only listens to, as the detector was informed.
    observed: Option<Observed>,
    /// For when a wake-up was asked for last.
    alarm: Option<Time>,
    leaving: Option<Farewell>,
}

/// The peers that the detector observes: `judged` and `witnessed`.
type Observed = (Arc<[NodeId]>, Arc<[NodeId]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    ForLinks,
    ForRound,
}

impl Scheduler {
    /// No peer is known; the first round is due at once.
    #[must_use]
    pub fn new(config: SchedulerConfig, now: Time, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let links = LinksConfig {
            node: config.node.clone(),
            interval: config.gossip_interval,
            dial_timeout: config.exchange_timeout,
        };
        let interval = config.gossip_interval;
        Self {
            members: Members::new(config.node.clone(), config.datacenter.clone()),
            links: Links::new(links),
            repair: Repair::new(config.node.clone()),
            targets: Targets::default(),
            rounds: Rounds::new(now, interval),
            islands: Islands::new(now, interval, config.seed_interval, &mut rng),
            abroad: Abroad::new(interval),
            asked: None,
            observed: None,
            alarm: None,
            leaving: None,
            rng,
            config,
        }
    }

    /// Handles a message that needs no reply.
    pub fn handle(&mut self, now: Time, input: SchedulerInput, out: &mut Vec<Output>) {
        match input {
            SchedulerInput::Tick => self.tick(now, out),
            SchedulerInput::Located(peer, datacenter) => self.located(now, peer, &datacenter),
            SchedulerInput::Peer(peer, reach) => self.reached(now, peer, reach),
            SchedulerInput::Suspected(peer, suspected) => {
                self.abroad.hearing_changed(self.members.is_abroad(&peer));
                if !suspected {
                    self.abroad.acquit(&peer);
                }
                self.change(now, &peer, |peer| peer.suspected = suspected);
            }
            SchedulerInput::Witness { peer, heard: true } => self.answered(now, &peer),
            SchedulerInput::Witness { peer, heard: false } => self.missed(now, peer, out),
            SchedulerInput::Severed(peer, from) => self.abroad.said(peer, from),
            SchedulerInput::Removal { peer, by } => self.removed_by_others(peer, by, out),
            SchedulerInput::Remember(peer, addresses) => {
                self.targets.remember(&peer, addresses, &self.config.seeds);
            }
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
                let told = self.leaving.as_mut().and_then(|leaving| leaving.ended(&target, ok));
                out.extend(told.map(Output::Farewell));
                self.ended(now, target, node, ok, out);
            }
            SchedulerInput::Interrupted => self.interrupted(now, out),
            SchedulerInput::Leave => self.leave(out),
        }
        self.keep_links(now, out);
        self.keep_datacenters(now, out);
        self.wake(now, out);
    }

    /// All of these are live, and no other peer is known: the same as reporting them one by one.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Datacenter)>) {
        self.members.reset(members.into_iter().filter(|(node, _)| *node != self.config.node));
        self.links.aim(now, self.members.overlay().neighbours(), self.members.len());
    }

    /// Takes over the published state of an earlier scheduler, and asks storage for the rest.
    pub fn restore(
        &mut self,
        unreachable: Arc<BTreeSet<Datacenter>>,
        severed: BTreeSet<Datacenter>,
    ) {
        self.abroad.restore(unreachable, severed);
    }

    /// The nodes to which a connection is kept, by name.
    #[must_use]
    pub fn neighbours(&self) -> &[NodeId] {
        self.links.wanted()
    }

    /// The datacenters that are unreachable from ours.
    #[must_use]
    pub const fn unreachable(&self) -> &Arc<BTreeSet<Datacenter>> {
        self.abroad.unreachable()
    }

    /// The connections there are.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    // --- rest

    /// When this has to be called next, as it has requested.
    #[must_use]
    pub fn due(&self) -> Time {
        let dues = [self.links.due(), self.abroad.due()];
        dues.into_iter().flatten().fold(self.rounds.due(), Time::min)
    }

    /// When it has to be called next if it gets no input until then and our root stays `root`, since the
    /// rounds before that would do nothing; `None`: when it has requested. For simulations with thousands of
    /// idle nodes in one process; a caller that leaves out calls reports it by [`Scheduler::skip_to`].
    #[must_use]
    pub fn rests_until(&self, root: u64) -> Option<Time> {
        let busy = !self.rounds.have_begun()
            || self.asked.is_some()
            || self.islands.is_asking()
            || self.leaving.is_some()
            || !self.targets.is_idle()
            || !self.members.dead().is_empty()
            || self.is_short()
            || !self.abroad.is_at_rest()
            || self.config.seeds.iter().any(|seed| !self.targets.has_answered(seed));
        if busy {
            return None;
        }
        let refresh = self.rounds.after(self.repair.idle_rounds(root)?);
        let acts = self.islands.dues().into_iter().map(|due| self.rounds.not_before(due));
        acts.chain([refresh]).chain(self.links.due()).min()
    }

    /// Reports that the rounds before `now` were left out on purpose and, if `inclusive`, one that was due
    /// just now as well.
    pub fn skip_to(&mut self, now: Time, inclusive: bool) {
        self.alarm = None;
        while self.rounds.skip(now, inclusive) {
            self.repair.skip_round();
        }
    }

    // --- time

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.alarm = None;
        self.targets.expire(now, self.config.exchange_timeout);
        if self.rounds.begin(now, &mut self.rng) {
            self.round(now, out);
        }
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
            // Earlier requests may be lost.
            self.asked = None;
            self.ask(Asked::ForRound, out);
        }
        self.abroad.begin_round();
        let mut targets = self.some_live_if_lonely(now);
        targets.extend(self.maybe_dead(now));
        targets.extend(self.maybe_seed(now));
        targets.extend(self.unmet_seeds(now));
        targets.extend(self.maybe_distant(now));
        targets.extend(self.somebody_else_abroad(now));
        self.begin(now, targets, out);
    }

    fn begin(&mut self, now: Time, targets: BTreeSet<Target>, out: &mut Vec<Output>) {
        let targets: Vec<_> = targets.into_iter().take(self.targets.room()).collect();
        if targets.is_empty() || self.leaving.is_some() {
            return;
        }
        self.targets.begin(now, &targets);
        out.push(Output::Storage(StorageInput::BeginRound(targets)));
    }

    // --- members

    fn located(&mut self, now: Time, node: NodeId, datacenter: &Datacenter) {
        if node != self.config.node {
            let changed = self.members.locate(node, datacenter);
            self.follow(now, changed);
        }
    }

    /// Changes the known state of a peer, and everything that follows from it.
    fn change(&mut self, now: Time, node: &NodeId, change: impl FnOnce(&mut Peer)) {
        let changed = self.members.change(node, change);
        self.follow(now, changed);
    }

    fn follow(&mut self, now: Time, Changed { site, neighbours, few }: Changed) {
        self.abroad.members_changed(site);
        if neighbours {
            self.links.aim(now, self.members.overlay().neighbours(), self.members.len());
        }
        self.abroad.hearing_changed(few);
    }

    fn reached(&mut self, now: Time, node: NodeId, reach: Reach) {
        if node == self.config.node {
            return;
        }
        if !self.members.contains(&node) {
            let home = self.config.datacenter.clone();
            self.located(now, node.clone(), &home);
        }
        self.change(now, &node, |peer| peer.reach = Some(reach));
        self.targets.reached(node);
    }

    /// A peer that no node here can judge is considered gone.
    fn removed_by_others(&self, node: NodeId, by: NodeId, out: &mut Vec<Output>) {
        let unreachable = self.abroad.unreachable();
        if self.members.place_name(&node).is_some_and(|at| unreachable.contains(at)) {
            out.push(Output::Storage(StorageInput::Remove { peer: node, by: Some(by) }));
        }
    }

    fn forgotten(&mut self, now: Time, node: &NodeId) {
        self.change(now, node, |peer| peer.reach = None);
        self.members.forget(node);
        self.targets.forget(node);
        self.abroad.forget(node);
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
        self.abroad.hearing_changed(self.members.is_abroad(peer));
        if was_linked && self.links.is_empty() {
            let soon = self.config.gossip_interval.mul_f64(self.rng.random_range(0.0..0.25));
            self.rounds.hurry(now + soon);
        }
    }

    fn keep_links(&mut self, now: Time, out: &mut Vec<Output>) {
        let changed = self.links.tick(now, &mut self.rng, out);
        self.abroad.hearing_changed(changed);
        // Until the first time all peers are observed: that must not last in a large cluster.
        let many = self.observed.is_none() && self.members.len() > NEIGHBOURS;
        if changed || many || (self.abroad.has_hearing_changed() && self.observed.is_some()) {
            self.observe(now, out);
        }
    }

    /// Decides whose silence counts: in our datacenter that of all neighbours, in others that of the last few
    /// nodes. A datacenter of one node looks the same whether it is dead or cut off, so the node is declared
    /// dead, and may refute that. If two nodes fall silent together, neither is declared dead: the other one
    /// has to answer first.
    fn observe(&mut self, now: Time, out: &mut Vec<Output>) {
        let judged = |node: &&NodeId| {
            let Some(at) = self.members.place(node) else { return true };
            let overlay = self.members.overlay();
            at == Overlay::HOME
                || match overlay.members(at) {
                    0..=1 => !self.abroad.unreachable().contains(overlay.name(at)),
                    FELLOWS_MIN => self.abroad.misses_alone(node, now),
                    _ => false,
                }
        };
        let (judged, witnessed): (Vec<_>, Vec<_>) = self.links.wanted().iter().partition(judged);
        let shared = |nodes: Vec<&NodeId>| nodes.into_iter().cloned().collect::<Arc<[_]>>();
        let observed = (shared(judged), shared(witnessed));
        self.abroad.listen_to(|node| observed.0.contains(node) || observed.1.contains(node));
        if self.observed.as_ref() != Some(&observed) {
            let (judged, witnessed) = observed.clone();
            self.observed = Some(observed);
            out.push(Output::Detector(DetectorInput::Observe { judged, witnessed }));
        }
    }

    // --- other datacenters

    /// A peer that this node only listens to is not heard any more.
    fn missed(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        if !self.members.is_abroad(&node) {
            return;
        }
        self.abroad.miss(node, &self.members);
        self.abroad.hear(now, &self.members, &self.links);
        let targets = self.somebody_else_abroad(now);
        self.begin(now, targets.into_iter().collect(), out);
    }

    /// A peer has answered just now.
    fn answered(&mut self, now: Time, node: &NodeId) {
        self.abroad.answered(now, node, &self.members, self.config.gossip_interval);
    }

    fn keep_datacenters(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.abroad.has_hearing_changed() {
            self.abroad.hear(now, &self.members, &self.links);
        }
        if let Some(severed) = self.abroad.tick(now, &self.members) {
            out.push(Output::Storage(StorageInput::Severed(severed)));
        }
        if let Some((lost, found)) = self.abroad.assess(&self.members) {
            self.assessed(now, lost, found, out);
        }
    }

    /// Reports which datacenters are unreachable: the set has changed.
    fn assessed(
        &mut self,
        now: Time,
        lost: Vec<Datacenter>,
        found: Vec<Datacenter>,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Unreachable(Arc::clone(self.abroad.unreachable())));
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

    /// Where no neighbour is heard: another node there that may be live. Where one of two is missed: the
    /// other one, and if that one has answered, the missed one.
    fn somebody_else_abroad(&mut self, now: Time) -> Vec<Target> {
        let (doubted, again) = self.abroad.doubted(now, &self.members);
        let again = again.into_iter().map(|node| Target::Peer(node.clone()));
        let mut targets: Vec<_> = again.filter(|target| self.is_free(now, target)).collect();
        for place in doubted {
            let there = self.members.iter().filter(|(_, peer)| {
                peer.datacenter == place && matches!(peer.reach, Some(Reach::Unheard | Reach::Live))
            });
            let free = there
                .map(|(node, _)| (node, Target::Peer(node.clone())))
                .filter(|(_, target)| self.is_free(now, target));
            let (missed, others): (Vec<_>, Vec<_>) =
                free.partition(|(node, _)| self.abroad.misses(node));
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
            let room = if self.rounds.is_late() { 0 } else { self.config.gossip_fanout };
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

    /// Whether an exchange is under way that may bring the state in which others differ: from two at once
    /// much of it would come twice.
    fn is_catching_up(&self) -> bool {
        self.targets.in_flight().any(|target| match target {
            Target::Peer(node) => self.links.has(node),
            Target::Address(_) => !self.links.is_empty(),
        })
    }

    /// New neighbours with other state than ours.
    fn repair_at_once(&mut self, now: Time, differ: Vec<NodeId>, out: &mut Vec<Output>) {
        if self.is_catching_up() {
            return;
        }
        let targets = differ.into_iter().map(Target::Peer);
        let free = targets.filter(|target| self.is_free(now, target));
        let targets: BTreeSet<_> = free.take(self.rounds.at_once()).collect();
        self.rounds.compared(targets.len());
        self.begin(now, targets, out);
    }

    // --- islands

    fn some_live_if_lonely(&mut self, now: Time) -> BTreeSet<Target> {
        if !self.links.is_empty() || self.members.live_count() == 0 {
            return BTreeSet::new();
        }
        let live = self.members.live();
        let live = live.map(|(node, _)| Target::Peer(node.clone()));
        let free: Vec<_> = live.filter(|target| self.is_free(now, target)).collect();
        free.into_iter().sample(&mut self.rng, self.config.gossip_fanout).into_iter().collect()
    }

    fn maybe_dead(&mut self, now: Time) -> Option<Target> {
        let dead = self.members.dead();
        if dead.is_empty() {
            return None;
        }
        let chance = (dead.len() as f64 / (self.members.live_count() as f64 + 1.0)).min(1.0);
        if !self.rng.random_bool(chance) {
            return None;
        }
        let some = dead.iter().sample(&mut self.rng, DEAD_TRIES);
        let mut some = some.into_iter().map(|node| Target::Peer(node.clone()));
        some.find(|target| self.is_free(now, target))
    }

    /// A live peer that neither we nor our neighbours are likely to exchange with, now and then in another
    /// datacenter: the bridges compare state there every round, and as long as the connection lasts updates
    /// take that way as well.
    fn maybe_distant(&mut self, now: Time) -> Option<Target> {
        if !self.islands.is_distant_due(now, self.config.gossip_interval, &mut self.rng) {
            return None;
        }
        let live = self.members.live();
        let anywhere = self.rng.random_ratio(1, DISTANT_ABROAD);
        let here = Overlay::HOME;
        let distant = live
            .filter(|(node, peer)| (anywhere || peer.datacenter == here) && !self.links.has(node));
        let (node, _) = distant.choose(&mut self.rng)?;
        let target = Target::Peer(node.clone());
        self.islands.ask(node.clone());
        self.is_free(now, &target).then_some(target)
    }

    fn maybe_seed(&mut self, now: Time) -> Option<Target> {
        let short = self.is_short();
        if !self.islands.is_seed_due(now, self.config.seed_interval, &mut self.rng) && !short {
            return None;
        }
        let candidates = self.config.candidates.iter().filter(|_| short);
        let remembered = self.targets.remembered();
        let addresses = self.config.seeds.iter().chain(candidates).chain(remembered);
        let free: Vec<_> = addresses
            .filter(|address| !self.is_taken(now, address))
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.choose(&mut self.rng).cloned()
    }

    /// Sends it to some live peers, whatever exchanges are under way with them.
    fn leave(&mut self, out: &mut Vec<Output>) {
        let live = self.members.live();
        let (linked, others): (Vec<_>, Vec<_>) =
            live.map(|(node, _)| node.clone()).partition(|node| self.links.has(node));
        let mut told = linked.into_iter().map(Target::Peer).sample(&mut self.rng, FAREWELLS);
        let more = FAREWELLS - told.len();
        told.extend(others.into_iter().map(Target::Peer).sample(&mut self.rng, more));
        let endings = |target: &Target| 1 + u32::from(self.targets.is_in_flight(target));
        let pending = told.iter().map(|target| (target.clone(), endings(target)));
        self.leaving = Some(Farewell::to(pending));
        if told.is_empty() {
            out.push(Output::Farewell(0));
        } else {
            out.push(Output::Storage(StorageInput::BeginRound(told)));
        }
    }

    /// Exchanges whose end will not be reported do not count any more; the transport reports its connections
    /// again.
    fn interrupted(&mut self, now: Time, out: &mut Vec<Output>) {
        self.targets.interrupt();
        self.asked = None;
        self.links.reset(now);
        self.repair.reset();
        self.abroad.interrupt();
        if self.observed.take().is_some() {
            self.observe(now, out);
        }
        out.push(Output::Storage(StorageInput::Severed(self.abroad.told().clone())));
        out.extend(self.leaving.as_mut().and_then(Farewell::interrupt).map(Output::Farewell));
    }

    /// Seeds that have never answered, few at a time. Nodes that start together, each with another first
    /// seed, would otherwise stay with the first nodes that they met, and form islands for a while.
    fn unmet_seeds(&mut self, now: Time) -> Vec<Target> {
        let unmet = self.config.seeds.iter().filter(|seed| !self.targets.has_answered(seed));
        let free: Vec<_> = unmet
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.into_iter().sample(&mut self.rng, UNMET_SEEDS_MAX)
    }

    /// Whether this node itself or a live member answers at an address, as of some time ago: a name may
    /// resolve to another address by now. All nodes together look about once in an interval.
    fn is_taken(&self, now: Time, address: &str) -> bool {
        let live = u32::try_from(self.members.live_count()).unwrap_or(u32::MAX);
        let believed = self.config.seed_interval.saturating_mul(live.max(ANSWER_INTERVALS_MIN));
        let taken = |(node, at): &(NodeId, Time)| {
            let live = self.members.is_live(node);
            let there = *node == self.config.node || (live && !self.links.is_empty());
            there && now.since(*at) < believed
        };
        self.targets.answerer(address).is_some_and(taken)
    }

    /// Whether an exchange with it may be begun now.
    fn is_free(&self, now: Time, target: &Target) -> bool {
        let pace = Pace { interval: self.config.gossip_interval, short: self.is_short() };
        self.targets.is_free(now, target, pace)
    }

    fn is_short(&self) -> bool {
        self.members.live_count() < self.config.minimum_live_peers || self.links.is_empty()
    }

    fn ended(
        &mut self,
        now: Time,
        target: Target,
        node: Option<NodeId>,
        ok: bool,
        out: &mut Vec<Output>,
    ) {
        self.targets.ended(&target);
        if let Target::Peer(peer) = &target
            && self.islands.ended(peer)
        {
            self.links.release(now, peer, out);
        }
        if let (Target::Address(address), Some(node)) = (&target, node) {
            self.targets.answered(now, address.clone(), node);
        }
        if let (Target::Peer(peer), true) = (&target, ok) {
            self.answered(now, &peer.clone());
        }
        // The peer may have been forgotten meanwhile.
        let known = match &target {
            Target::Peer(peer) => self.members.contains(peer),
            Target::Address(_) => true,
        };
        if ok || !known {
            self.targets.succeeded(&target);
        } else {
            self.targets.failed(now, target, &mut self.rng);
        }
    }
}

/// How many peers are sent that this node leaves; they pass it on.
const FAREWELLS: usize = 3;
/// Of this many peers one may be in another datacenter.
const DISTANT_ABROAD: u32 = 8;
/// The least number of intervals for which a node that answered at a seed's address is assumed to be there.
const ANSWER_INTERVALS_MIN: u32 = 10;
/// How many of the dead are examined to find one that may be tried again.
const DEAD_TRIES: usize = 4;
/// Seeds that have never answered, tried in one round.
const UNMET_SEEDS_MAX: usize = 3;
