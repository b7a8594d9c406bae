//! Decides which connections a node has: which to dial, keep and close.
//!
//! Wanted connections are those to the neighbours, as the overlay has them once it has settled: while many
//! nodes join, the neighbours of each change with every new node, and the passing ones are not worth a
//! handshake. As long as the member list moves, a node wants only the [`FirstEdges`] besides the connections
//! that it has; they connect all. Of two neighbours one dials, chosen by a hash of their names; the other dials
//! if nothing has come for a while. There are also connections that were dialed for one exchange: the end that dialed closes
//! such a connection after a while, unless it is the node's only one. So the first connection of a joining
//! node, to its seed, lasts until others have replaced it, and a seed has many connections only for a moment.
//!
//! What a connection carries, and whether the peer is alive, is decided elsewhere: a connection to a dead
//! peer ends by itself.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, RngExt};

use super::{
    gate::{self, Gate, Kind},
    id::NodeId,
    overlay::{self, FirstEdges, NEIGHBOURS, NEIGHBOURS_MAX},
    route::{Counter, Output, TransportInput},
    rules::Rules,
    served::Served,
    time::Time,
};

mod moving;

use moving::Moving;

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
    /// Those of them that are wanted although the list moves.
    first: FirstEdges,
    /// The neighbours when the list was last at rest, by name.
    wanted: Vec<NodeId>,
    /// When the two began to differ, and when the first last changed.
    unrest: Option<(Time, Time)>,
    /// How much longer than in a small cluster the list may take to come to rest.
    patience: u32,
    moving: Moving,
    missing: BTreeMap<NodeId, Missing>,
    /// All other times here are served time.
    served: Served,
    /// When something is due, in served time.
    due: Option<Time>,
    gate: Gate,
    /// When the gate lets a dial begin that waits, in plain time.
    opens: Option<Time>,
    /// How late this node is served.
    lag: Duration,
    /// An exchange of this node is under way: more members may follow.
    learning: bool,
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
    /// The rules in force.
    pub rules: Rules,
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
    /// The gate held it when it was due.
    held: bool,
}

impl Links {
    /// No connections, and none wanted.
    #[must_use]
    pub fn new(config: LinksConfig) -> Self {
        Self {
            gate: Gate::new(config.rules.gate),
            config,
            links: BTreeMap::new(),
            aim: Vec::new(),
            first: FirstEdges::default(),
            wanted: Vec::new(),
            unrest: None,
            patience: 1,
            moving: Moving::default(),
            missing: BTreeMap::new(),
            served: Served::default(),
            due: None,
            opens: None,
            lag: Duration::ZERO,
            learning: false,
        }
    }

    /// How late this node is served now.
    pub fn set_lag(&mut self, now: Time, lag: Duration) {
        let now = self.served.at(now);
        self.lag = lag;
        self.opens = None;
        self.call_at(now);
    }

    /// How late this node was served since its start, in all.
    pub fn set_late(&mut self, late: Duration) {
        self.served.set_late(late);
    }

    /// An exchange of this node is under way, or none.
    pub fn set_learning(&mut self, now: Time, learning: bool) {
        if std::mem::replace(&mut self.learning, learning) && !learning && self.unrest.is_some() {
            let now = self.served.at(now);
            self.call_at(now);
        }
    }

    /// A member came or went; there are so many now.
    pub fn moved(&mut self, now: Time, members: usize) {
        let now = self.served.at(now);
        self.moving.note(now, members);
    }

    /// Whether the member list moves.
    pub fn is_moving(&mut self, now: Time) -> bool {
        let now = self.served.at(now);
        self.config.rules.three_edges && self.moving.is_moving(now)
    }

    /// The overlay has other neighbours, among this many members.
    pub fn aim(&mut self, now: Time, neighbours: &[NodeId], first: FirstEdges, members: usize) {
        let now = self.served.at(now);
        let patience = u32::try_from(members / CROWDED).unwrap_or(u32::MAX);
        self.patience = patience.clamp(1, PATIENCE_FACTOR_MAX);
        self.aim = neighbours.to_vec();
        self.first = first;
        let since = self.unrest.map_or(now, |(since, _)| since);
        self.unrest = (self.aim != self.wanted).then_some((since, now));
        if self.unrest.is_some() {
            self.call_at(self.at_rest());
        }
    }

    /// A connection to a peer was opened. Returns whether it was being dialed as one to a neighbour.
    pub fn up(&mut self, now: Time, peer: NodeId, dialed: bool) -> bool {
        let now = self.served.at(now);
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
        let now = self.served.at(now);
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
        let now = self.served.at(now);
        self.fail(now, peer, rng);
    }

    /// A peer was too busy to be dialed: that is no failure.
    pub fn busy(&mut self, now: Time, peer: &NodeId, rng: &mut impl Rng) {
        let now = self.served.at(now);
        let Some(missing) = self.missing.get(peer) else { return };
        let wait = gate::pause(self.lag).mul_f64(rng.random_range(1.0..1.5));
        self.lack(peer.clone(), missing.failures, now + wait);
        self.call_at(now);
    }

    /// The open connections will be reported again.
    pub fn reset(&mut self, now: Time) {
        let now = self.served.at(now);
        self.links.clear();
        self.missing.clear();
        for peer in self.wanted.clone() {
            self.lack(peer, 0, now + self.config.interval);
        }
    }

    /// The purpose of a dialed connection is fulfilled: if nothing else needs it, it is closed.
    pub fn release(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        let now = self.served.at(now);
        let established = self.may_close(now);
        let Some(link) = self.links.get_mut(peer) else { return };
        if link.dialed && link.idle.is_some() && link.closed.is_none() && established {
            link.closed = Some(now);
            out.push(Output::Transport(TransportInput::Close(vec![peer.clone()])));
        }
    }

    /// Does the work that is due. Returns whether the wanted neighbours have changed.
    pub fn tick(&mut self, now: Time, rng: &mut impl Rng, out: &mut Vec<Output>) -> bool {
        let (clock, now) = (now, self.served.at(now));
        let opens = self.opens.is_some_and(|opens| opens <= clock);
        if !opens && self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = self.due.filter(|due| now < *due);
        let changed = self.settle(now);
        if changed {
            out.push(Output::Count(Counter::Settlements, 1));
        }
        self.give_up(now, rng);
        self.dial((clock, now), rng, out);
        self.close(now, out);
        changed
    }

    /// When there is something to do.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        let due = self.due.map(|due| self.served.earliest(due));
        [due, self.opens].into_iter().flatten().min()
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
        self.missing.insert(peer, Missing { failures, dialing: None, next, held: false });
        self.call_at(next);
    }

    fn fail(&mut self, now: Time, peer: &NodeId, rng: &mut impl Rng) {
        let Some(missing) = self.missing.get(peer) else { return };
        let failures = missing.failures + 1;
        let wait = self.back_off(failures, rng);
        self.lack(peer.clone(), failures, now + wait);
        self.call_at(now);
    }

    fn back_off(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let doublings = (failures - 1).min(DIAL_DOUBLINGS_MAX);
        (self.config.interval * (1 << doublings)).mul_f64(rng.random_range(0.5..1.0))
    }

    fn linger(&self) -> Duration {
        self.config.interval * LINGER
    }

    /// When a list that began to change at one time, and last did at another, counts as settled.
    #[must_use]
    pub fn rest_after(&self, since: Time, last: Time) -> Time {
        let interval = self.config.interval;
        let rest = interval / REST * self.patience;
        (last + rest).min(since + interval * UNREST_MAX * self.patience)
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
        let wanted = if self.may_settle(now) {
            self.unrest = None;
            self.aim.clone()
        } else {
            let rest = self.moving.rests_at().filter(|at| *at > now);
            self.call_at(rest.unwrap_or(now + self.config.interval / REST));
            self.passing()
        };
        if wanted == self.wanted && self.unrest.is_some() {
            return false;
        }
        self.wanted = wanted;
        let Self { links, missing, wanted, .. } = self;
        missing.retain(|peer, _| wanted.binary_search(peer).is_ok());
        for (peer, link) in links {
            let is_wanted = wanted.binary_search(peer).is_ok();
            link.idle = if is_wanted { None } else { link.idle.or(Some(now)) };
        }
        for peer in self.wanted.clone() {
            if !self.links.contains_key(&peer) && !self.missing.contains_key(&peer) {
                let ours = overlay::dials(&self.config.node, &peer)
                    || (self.unrest.is_some() && self.first.own.as_ref() == Some(&peer));
                let patience = if ours { 0 } else { PATIENCE };
                self.lack(peer, 0, now + self.config.interval * patience);
            }
        }
        true
    }

    /// Whether all neighbours are worth a connection: the list rests, nothing may bring more of it, and this node
    /// has time for them. A list that never rests is taken as it is.
    fn may_settle(&self, now: Time) -> bool {
        if !self.config.rules.three_edges {
            return true;
        }
        let since = self.unrest.map_or(now, |(since, _)| since);
        let rests = !self.moving.is_moving(now) && self.lag < SETTLE_BELOW;
        let waited = now.since(since);
        rests && (!self.learning || waited >= LEARNING_MAX) || waited >= SETTLE_MAX
    }

    /// The neighbours that are wanted while the list moves: those that connect all, and those that there are.
    fn passing(&self) -> Vec<NodeId> {
        let FirstEdges { shared, own } = &self.first;
        let first = |peer: &NodeId| shared.contains(peer) || own.as_ref() == Some(peer);
        let kept =
            |peer: &&NodeId| first(peer) || self.is_wanted(peer) || self.links.contains_key(*peer);
        self.aim.iter().filter(kept).cloned().collect()
    }

    /// Dials whose end was not reported.
    fn give_up(&mut self, now: Time, rng: &mut impl Rng) {
        let timeout = self.config.dial_timeout;
        let over =
            |missing: &Missing| missing.dialing.is_some_and(|begun| now.since(begun) >= timeout);
        let over: Vec<_> = self.missing.iter().filter(|(_, missing)| over(missing)).collect();
        for peer in over.into_iter().map(|(peer, _)| peer.clone()).collect::<Vec<_>>() {
            self.fail(now, &peer, rng);
        }
    }

    /// A few at a time: of a thousand handshakes begun at once on a busy machine possibly none completes in
    /// time, and all were wasted.
    fn dial(&mut self, (clock, now): (Time, Time), rng: &mut impl Rng, out: &mut Vec<Output>) {
        self.opens = None;
        let under_way = self.missing.values().filter(|missing| missing.dialing.is_some()).count();
        let waits = self.missing.iter_mut().filter(|(_, missing)| missing.dialing.is_none());
        let mut due: Vec<_> = waits.filter(|(_, missing)| missing.next <= now).collect();
        // A peer that has failed before is likely to hold up the others.
        due.sort_by_key(|(_, missing)| missing.failures);
        let room = DIALS_MAX.saturating_sub(under_way);
        let mut dialed = Vec::new();
        let mut held = 0;
        for (peer, missing) in due.into_iter().take(room) {
            if self.gate.may(clock, self.lag, Kind::Dial, under_way + dialed.len()) {
                self.gate.begin(clock, Kind::Dial, rng);
                missing.dialing = Some(now);
                dialed.push(peer.clone());
            } else {
                held += u64::from(!std::mem::replace(&mut missing.held, true));
                self.opens = self.gate.due(self.lag, Kind::Dial).filter(|opens| *opens > clock);
            }
        }
        if held > 0 {
            out.push(Output::Count(Kind::Dial.held(), held));
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
        let (linger, established) = (self.linger(), self.may_close(now));
        // A connection that was to be closed and still exists by then is closed again.
        let closing = |link: &Link| link.closed.is_some_and(|at| now.since(at) < linger);
        let idle = self.links.iter().filter(|(_, link)| !closing(link));
        let mut idle: Vec<_> =
            idle.filter_map(|(peer, link)| Some((link.idle?, peer, link))).collect();
        idle.sort_unstable_by_key(|(since, ..)| *since);
        let (errands, crowd): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|(.., link)| link.dialed);
        let rests = self.may_shrink(now);
        let old = |since: Time| rests && now.since(since) >= linger;
        let served = errands.iter().filter(|(since, ..)| established && old(*since)).count();
        let errands_closed = served.max(errands.len().saturating_sub(ERRANDS_MAX));
        let aged = crowd.iter().filter(|(since, ..)| old(*since)).count();
        let crowd_closed = aged.saturating_sub(ACCEPTED_MAX);
        let crowd_closed = crowd_closed.max(crowd.len().saturating_sub(CROWD_MAX));
        let kept = errands[errands_closed..].iter().chain(&crowd[crowd_closed..]);
        let next = kept.map(|(since, ..)| *since + linger).filter(|at| *at > now);
        let waits = !rests && errands.len() + crowd.len() > 0;
        let again = (waits || served < errands.len() || crowd_closed + errands_closed > 0)
            .then(|| now + self.config.interval);
        let next = next.chain(again).min();
        let closed = errands[..errands_closed].iter().chain(&crowd[..crowd_closed]);
        let closed = closed.map(|(_, peer, _)| (*peer).clone()).collect();
        next.into_iter().for_each(|at| self.call_at(at));
        closed
    }

    /// Whether connections may be closed that are not wanted. While the list moves both ends may soon want one, and
    /// a node that is late has better things to do.
    fn may_shrink(&self, now: Time) -> bool {
        let late = self.config.rules.gate && self.lag > CLOSE_UP_TO;
        let moves = self.config.rules.three_edges && self.moving.is_moving(now);
        !late && !moves
    }

    /// Whether connections may be closed that have served their purpose.
    fn may_close(&self, now: Time) -> bool {
        self.is_established() && self.may_shrink(now)
    }

    /// Whether enough neighbours are connected that no other connection has to be kept.
    pub fn is_established(&self) -> bool {
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
/// With less lag than this all neighbours are worth a connection.
const SETTLE_BELOW: Duration = Duration::from_millis(100);
/// After so long without rest the list is taken as it is.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// For so long an exchange under way may put that off.
const LEARNING_MAX: Duration = Duration::from_secs(2);
/// With more lag than this no connection is closed but for the limits.
const CLOSE_UP_TO: Duration = Duration::from_millis(50);
/// Rounds within which the other end of an edge is expected to dial: one that is late may need them.
const PATIENCE: u32 = 12;
/// Rounds for which an unwanted connection is kept.
const LINGER: u32 = 5;
/// A neighbour that cannot be reached is dialed again after at most 16 rounds.
const DIAL_DOUBLINGS_MAX: u32 = 4;
