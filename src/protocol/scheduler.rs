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

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    event::Event,
    gate::Kind,
    id::{Datacenter, NodeId},
    links::{Links, LinksConfig},
    overlay::{FELLOWS_MIN, NEIGHBOURS, Overlay},
    repair::Repair,
    route::{Counter, DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target},
    rules::Rules,
    time::Time,
};

mod abroad;
mod breaking;
mod choosing;
mod comparing;
mod edges;
mod farewell;
mod islands;
mod load;
mod members;
mod rounds;
mod starting;
mod targets;

pub use targets::IN_FLIGHT_MAX;

use abroad::Abroad;
use edges::Leading;
use farewell::Farewell;
use islands::Islands;
use load::Load;
use members::{Changed, Members, Peer};
use rounds::Rounds;
use targets::Targets;

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
    /// The rules in force.
    pub rules: Rules,
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
    load: Load,
    leading: Leading,
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
            rules: config.rules,
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
            load: Load::new(now, config.rules),
            leading: Leading::default(),
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
            SchedulerInput::Busy(peer) => self.links.busy(now, &peer, &mut self.rng),
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
            SchedulerInput::Deferred(target) => {
                let told = self.leaving.as_mut().and_then(|leaving| leaving.ended(&target, false));
                out.extend(told.map(Output::Farewell));
                self.deferred(now, target, out);
            }
            SchedulerInput::Interrupted => self.interrupted(now, out),
            SchedulerInput::Leave => self.leave(out),
            SchedulerInput::Lag(lag) => {
                self.load.lag = lag;
                self.links.set_lag(now, lag);
            }
            SchedulerInput::Late(late) => {
                self.load.served.set_late(late);
                self.links.set_late(late);
            }
            SchedulerInput::Repaired(spent) => self.load.spare.spend(now, spent),
            SchedulerInput::EdgesWanted { has } => self.leading.wanted(now, has),
        }
        self.keep_links(now, out);
        let rest = |since, last| self.links.rest_after(since, last);
        let edges = self.leading.take(now, &self.config.node, &self.members, rest);
        out.extend(edges.map(|edges| Output::Storage(StorageInput::Edges(edges))));
        self.keep_datacenters(now, out);
        self.wake(now, out);
    }

    /// All of these are live, and no other peer is known: the same as reporting them one by one.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Datacenter)>) {
        self.members.reset(members.into_iter().filter(|(node, _)| *node != self.config.node));
        self.leading = Leading::default();
        self.aim(now);
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

    /// Whether the neighbours of the present member list are the ones that are kept.
    #[must_use]
    pub fn has_settled(&self) -> bool {
        self.members.overlay().neighbours() == self.links.wanted()
    }

    /// The connections there are.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// How late this node is served, as it was told last.
    #[must_use]
    pub const fn lag(&self) -> Duration {
        self.load.lag
    }

    // --- rest

    /// When this has to be called next, as it has requested.
    #[must_use]
    pub fn due(&self) -> Time {
        let rest = |since, last| self.links.rest_after(since, last);
        let dues = [self.links.due(), self.abroad.due(), self.leading.due(rest)];
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
        let rest = |since, last| self.links.rest_after(since, last);
        acts.chain([refresh]).chain(self.links.due()).chain(self.leading.due(rest)).min()
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
        let served = self.load.served.at(now);
        self.targets.expire(now, served, self.config.exchange_timeout);
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
        let some_live = self.some_live_if_lonely(now);
        let dead = self.maybe_dead(now);
        let seeds = self.seeds(now);
        let mut errands: BTreeSet<_> = dead.into_iter().collect();
        errands.extend(self.maybe_distant(now));
        errands.extend(self.somebody_else_abroad(now));
        let mut targets = self.admit(now, Kind::Seed, some_live.into_iter().chain(seeds), out);
        targets.extend(self.admit(now, Kind::Errand, errands, out));
        targets.sort_unstable();
        self.begin(targets, out);
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

    fn follow(&mut self, now: Time, changed: Changed) {
        let Changed { site, listed, members, neighbours, few } = changed;
        self.abroad.members_changed(site);
        if site {
            self.leading.changed(now, members);
        }
        if listed {
            self.links.moved(now, self.members.len());
        }
        if neighbours {
            self.aim(now);
        }
        self.abroad.hearing_changed(few);
    }

    fn aim(&mut self, now: Time) {
        let overlay = self.members.overlay();
        let (neighbours, first) = (overlay.neighbours(), overlay.first_edges());
        self.links.aim(now, neighbours, first, self.members.len());
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
        self.links.set_learning(now, !self.targets.is_idle());
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
        let targets = self.admit(now, Kind::Errand, targets, out);
        self.begin(targets, out);
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
        let seed = matches!(target, Target::Address(_));
        if ok || !known {
            self.targets.succeeded(&target);
        } else {
            self.targets.failed(now, target, &mut self.rng);
            if seed {
                self.try_another_seed(now, out);
            }
        }
    }
}
