//! Decides which connections a node has: which to dial, keep and close.
//!
//! Wanted connections are those to the neighbours, as the overlay has them once it has settled: while many
//! nodes join, the neighbours of each change with every new node, and the passing ones are not worth a
//! handshake. Of two neighbours one dials, chosen by a hash of their names; the other dials if nothing has
//! come for a while. There are also connections that were dialed for one exchange: the end that dialed closes
//! such a connection after a while, unless it is the node's only one. So the first connection of a joining
//! node, to its seed, lasts until others have replaced it, and a seed has many connections only for a moment.
//!
//! What a connection carries, and whether the peer is alive, is decided elsewhere: a connection to a dead
//! peer ends by itself.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, RngExt};

use super::{
    id::NodeId,
    overlay::{self, NEIGHBOURS, NEIGHBOURS_MAX},
    route::{Output, TransportInput},
    time::Time,
};

/// Most connections, in the long run, that others dialed and this node does not want. Member lists differ for
/// a while, and a node has to accept the neighbours that another one computes.
pub const ACCEPTED_MAX: usize = 2 * NEIGHBOURS;
/// Most of them while they are new: nodes that join through this one, all at once.
pub const CROWD_MAX: usize = 1_024;
/// Most connections that this node dialed for other purposes than as a neighbour.
pub const ERRANDS_MAX: usize = 2 * NEIGHBOURS;
/// Most neighbours dialed at once.
pub const DIALS_MAX: usize = 3;
/// Most connections of a node in all. Connections beyond it are closed in the same turn.
pub const LINKS_MAX: usize = NEIGHBOURS_MAX + CROWD_MAX + ERRANDS_MAX;

/// The connections of one node, and those that it still has to dial.
#[derive(Debug)]
pub struct Links {
    config: LinksConfig,
    links: BTreeMap<NodeId, Link>,
    /// The neighbours by the present member list.
    aim: Vec<NodeId>,
    /// The neighbours when the list was last at rest, by name.
    wanted: Vec<NodeId>,
    /// When the two began to differ, and when the first last changed.
    unrest: Option<(Time, Time)>,
    /// How much longer than in a small cluster the list may take to come to rest.
    patience: u32,
    missing: BTreeMap<NodeId, Missing>,
    due: Option<Time>,
}

/// The scale of the rules.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// This node.
    pub node: NodeId,
    /// Time between two rounds.
    pub interval: Duration,
    /// After this time a dial whose end was not reported has failed.
    pub dial_timeout: Duration,
}

#[derive(Debug)]
struct Link {
    dialed: bool,
    since: Time,
    /// Since when it has not been wanted.
    idle: Option<Time>,
    /// When the transport was asked to close it.
    closed: Option<Time>,
    /// How often in a row it could not be opened, or did not last.
    failures: u32,
}

/// A neighbour without a connection.
#[derive(Debug)]
struct Missing {
    failures: u32,
    /// Since when it has been dialed, if it is.
    dialing: Option<Time>,
    /// When to dial it.
    next: Time,
}

impl Links {
    /// No connections, and none wanted.
    #[must_use]
    pub const fn new(config: LinksConfig) -> Self {
        Self {
            config,
            links: BTreeMap::new(),
            aim: Vec::new(),
            wanted: Vec::new(),
            unrest: None,
            patience: 1,
            missing: BTreeMap::new(),
            due: None,
        }
    }

    /// The overlay has other neighbours, among this many members.
    pub fn aim(&mut self, now: Time, neighbours: &[NodeId], members: usize) {
        let patience = u32::try_from(members / CROWDED).unwrap_or(u32::MAX);
        self.patience = patience.clamp(1, PATIENCE_FACTOR_MAX);
        self.aim = neighbours.to_vec();
        let since = self.unrest.map_or(now, |(since, _)| since);
        self.unrest = (self.aim != self.wanted).then_some((since, now));
        if self.unrest.is_some() {
            self.call_at(self.at_rest());
        }
    }

    /// A connection to a peer was opened. Returns whether it was being dialed as one to a neighbour.
    pub fn up(&mut self, now: Time, peer: NodeId, dialed: bool) -> bool {
        let missing = self.missing.remove(&peer);
        let wanted = self.is_wanted(&peer);
        let failures = missing.as_ref().map_or(0, |missing| missing.failures);
        if !self.missing.is_empty() {
            self.call_at(now);
        }
        let idle = (!wanted).then_some(now);
        self.links.insert(peer, Link { dialed, since: now, idle, closed: None, failures });
        if !wanted {
            self.call_at(now);
        }
        wanted && missing.is_some_and(|missing| missing.dialing.is_some())
    }

    /// The connection was closed. The end that dialed dials again, if both ends want it. The other one may
    /// have closed it as not wanted there, and gets a little longer to change its decision.
    pub fn down(&mut self, now: Time, peer: &NodeId, rng: &mut impl Rng) {
        let Some(link) = self.links.remove(peer) else { return };
        // A node without connections takes the neighbours it knows of.
        if self.unrest.is_some() {
            self.call_at(self.at_rest());
        }
        if !self.is_wanted(peer) {
            return;
        }
        let lasted = now.since(link.since) >= self.linger();
        let failures = if lasted { 0 } else { link.failures + 1 };
        let wait = match failures {
            0 if link.dialed => self.config.interval.mul_f64(rng.random_range(0.0..0.125)),
            0 => self.config.interval.mul_f64(rng.random_range(0.5..1.0)),
            failures => self.back_off(failures, rng),
        };
        self.lack(peer.clone(), failures, now + wait);
    }

    /// A peer could not be dialed.
    pub fn failed(&mut self, now: Time, peer: &NodeId, rng: &mut impl Rng) {
        let Some(missing) = self.missing.get(peer) else { return };
        let failures = missing.failures + 1;
        let wait = self.back_off(failures, rng);
        self.lack(peer.clone(), failures, now + wait);
        self.call_at(now);
    }

    /// The open connections will be reported again.
    pub fn reset(&mut self, now: Time) {
        self.links.clear();
        self.missing.clear();
        for peer in self.wanted.clone() {
            self.lack(peer, 0, now + self.config.interval);
        }
    }

    /// The purpose of a dialed connection is fulfilled: if nothing else needs it, it is closed.
    pub fn release(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        let established = self.is_established();
        let Some(link) = self.links.get_mut(peer) else { return };
        if link.dialed && link.idle.is_some() && link.closed.is_none() && established {
            link.closed = Some(now);
            out.push(Output::Transport(TransportInput::Close(vec![peer.clone()])));
        }
    }

    /// Does the work that is due. Returns whether the wanted neighbours have changed.
    pub fn tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Vec<Output>) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = None;
        let changed = self.settle(now);
        self.give_up(now, rng);
        self.dial(now, out);
        self.close(now, out);
        changed
    }

    /// When there is something to do.
    #[must_use]
    pub const fn due(&self) -> Option<Time> {
        self.due
    }

    /// The nodes to which a connection is wanted, by name.
    #[must_use]
    pub fn wanted(&self) -> &[NodeId] {
        &self.wanted
    }

    /// The connected nodes, by name.
    pub fn peers(&self) -> impl Iterator<Item = &NodeId> {
        self.links.keys()
    }

    /// Whether there is a connection to a peer.
    #[must_use]
    pub fn has(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are no connections.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn is_wanted(&self, peer: &NodeId) -> bool {
        self.wanted.binary_search(peer).is_ok()
    }

    fn call_at(&mut self, at: Time) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn lack(&mut self, peer: NodeId, failures: u32, next: Time) {
        self.missing.insert(peer, Missing { failures, dialing: None, next });
        self.call_at(next);
    }

    fn back_off(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let doublings = (failures - 1).min(DIAL_DOUBLINGS_MAX);
        (self.config.interval * (1 << doublings)).mul_f64(rng.random_range(0.5..1.0))
    }

    fn linger(&self) -> Duration {
        self.config.interval * LINGER
    }

    // --- actions

    /// When the neighbours count as settled.
    fn at_rest(&self) -> Time {
        let Some((since, last)) = self.unrest else { return Time::ZERO };
        let interval = self.config.interval;
        if self.links.is_empty() {
            since + interval / LONELY_REST
        } else {
            let rest = interval / REST * self.patience;
            (last + rest).min(since + interval * UNREST_MAX * self.patience)
        }
    }

    fn settle(&mut self, now: Time) -> bool {
        if self.unrest.is_none() {
            return false;
        }
        let at = self.at_rest();
        if now < at {
            self.call_at(at);
            return false;
        }
        self.unrest = None;
        self.wanted.clone_from(&self.aim);
        let Self { links, missing, wanted, .. } = self;
        missing.retain(|peer, _| wanted.binary_search(peer).is_ok());
        for (peer, link) in links {
            let is_wanted = wanted.binary_search(peer).is_ok();
            link.idle = if is_wanted { None } else { link.idle.or(Some(now)) };
        }
        for peer in self.wanted.clone() {
            if !self.links.contains_key(&peer) && !self.missing.contains_key(&peer) {
                let ours = overlay::dials(&self.config.node, &peer);
                let patience = if ours { 0 } else { PATIENCE };
                self.lack(peer, 0, now + self.config.interval * patience);
            }
        }
        true
    }

    /// Dials whose end was not reported.
    fn give_up(&mut self, now: Time, rng: &mut impl Rng) {
        let timeout = self.config.dial_timeout;
        let over =
            |missing: &Missing| missing.dialing.is_some_and(|begun| now.since(begun) >= timeout);
        let over: Vec<_> = self.missing.iter().filter(|(_, missing)| over(missing)).collect();
        for peer in over.into_iter().map(|(peer, _)| peer.clone()).collect::<Vec<_>>() {
            self.failed(now, &peer, rng);
        }
    }

    /// A few at a time: of a thousand handshakes begun at once on a busy machine possibly none completes in
    /// time, and all were wasted.
    fn dial(&mut self, now: Time, out: &mut Vec<Output>) {
        let under_way = self.missing.values().filter(|missing| missing.dialing.is_some()).count();
        let waits = self.missing.iter().filter(|(_, missing)| missing.dialing.is_none());
        let mut due: Vec<_> = waits.filter(|(_, missing)| missing.next <= now).collect();
        // A peer that has failed before is likely to hold up the others.
        due.sort_by_key(|(_, missing)| missing.failures);
        let room = DIALS_MAX.saturating_sub(under_way);
        let dialed: Vec<_> = due.into_iter().take(room).map(|(peer, _)| peer.clone()).collect();
        for peer in &dialed {
            if let Some(missing) = self.missing.get_mut(peer) {
                missing.dialing = Some(now);
            }
        }
        let timeout = self.config.dial_timeout;
        let call = |missing: &Missing| missing.dialing.map_or(missing.next, |at| at + timeout);
        // Those that are due and not dialed get their turn when a dial has ended.
        let next = self.missing.values().map(call).filter(|at| *at > now).min();
        next.into_iter().for_each(|at| self.call_at(at));
        if !dialed.is_empty() {
            out.push(Output::Transport(TransportInput::Dial(dialed)));
        }
    }

    fn close(&mut self, now: Time, out: &mut Vec<Output>) {
        let closed = self.surplus(now);
        for peer in &closed {
            if let Some(link) = self.links.get_mut(peer) {
                link.closed = Some(now);
            }
        }
        if !closed.is_empty() {
            out.push(Output::Transport(TransportInput::Close(closed)));
        }
    }

    /// The connections that are too many, or have served their purpose. It is called again when another may
    /// be.
    fn surplus(&mut self, now: Time) -> Vec<NodeId> {
        let (linger, established) = (self.linger(), self.is_established());
        // A connection that was to be closed and still exists by then is closed again.
        let closing = |link: &Link| link.closed.is_some_and(|at| now.since(at) < linger);
        let idle = self.links.iter().filter(|(_, link)| !closing(link));
        let mut idle: Vec<_> =
            idle.filter_map(|(peer, link)| Some((link.idle?, peer, link))).collect();
        idle.sort_unstable_by_key(|(since, ..)| *since);
        let (errands, crowd): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|(.., link)| link.dialed);
        let old = |since: Time| now.since(since) >= linger;
        let served = errands.iter().filter(|(since, ..)| established && old(*since)).count();
        let errands_closed = served.max(errands.len().saturating_sub(ERRANDS_MAX));
        let aged = crowd.iter().filter(|(since, ..)| old(*since)).count();
        let crowd_closed = aged.saturating_sub(ACCEPTED_MAX);
        let crowd_closed = crowd_closed.max(crowd.len().saturating_sub(CROWD_MAX));
        let kept = errands[errands_closed..].iter().chain(&crowd[crowd_closed..]);
        let next = kept.map(|(since, ..)| *since + linger).filter(|at| *at > now);
        let again = (served < errands.len() || crowd_closed + errands_closed > 0)
            .then(|| now + self.config.interval);
        let next = next.chain(again).min();
        let closed = errands[..errands_closed].iter().chain(&crowd[..crowd_closed]);
        let closed = closed.map(|(_, peer, _)| (*peer).clone()).collect();
        next.into_iter().for_each(|at| self.call_at(at));
        closed
    }

    /// Whether enough neighbours are connected that no other connection has to be kept.
    fn is_established(&self) -> bool {
        let up = self.links.values().filter(|link| link.idle.is_none()).count();
        self.unrest.is_none() && up >= self.wanted.len().min(NEIGHBOURS / 2)
    }
}

/// The neighbours count as settled after a fifth of a round without change, or after two rounds with changes:
/// 200 ms and 2 s by default.
const REST: u32 = 5;
const UNREST_MAX: u32 = 2;
/// Both times are longer with more members, up to five times from 500 members on: the list of a large cluster
/// takes longer to be complete, and dials to the neighbours of an incomplete list are wasted.
const CROWDED: usize = 100;
const PATIENCE_FACTOR_MAX: u32 = 5;
/// Without any connection they count as settled after a fiftieth of a round.
const LONELY_REST: u32 = 50;
/// Rounds within which the other end of an edge is expected to dial.
const PATIENCE: u32 = 3;
/// Rounds for which an unwanted connection is kept.
const LINGER: u32 = 5;
/// A neighbour that cannot be reached is dialed again after at most 16 rounds.
const DIAL_DOUBLINGS_MAX: u32 = 4;
