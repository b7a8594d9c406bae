//! Updates as they spread: an update that is new here goes on to linked peers at once, and each of them to
//! which it is new passes it on once.
//!
//! This is not a queue of messages. It keeps, per owner, the line of the digest before the first change that
//! has not been sent. When an update goes out it is cut from the map at that time, so an older version of a
//! key that has been replaced meanwhile never travels. For a link whose queue is full the same is kept until
//! it has room again.
//!
//! The owner of an update decides how it travels ([`mode`](super::mode)). Flooded, it goes to all linked peers,
//! over the edges of a tree first. Along a tree it goes over the [`edges`](super::edges) that all nodes compute from the
//! member list; over the other links goes a note that there is an update, with others in one frame after [`NOTE_DELAY`],
//! and at once beside an edge that does not work. A node that lacks a noted update asks for it
//! ([`requests`](super::requests)). What a peer is known to have is not sent to it ([`known`](super::known)).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    bucket::Bucket,
    digest::DigestEntry,
    edges::{Edges, Way},
    gossip::OWNERS_MAX,
    id::{Datacenter, Generation, NodeId, Version},
    known::Known,
    mode::{FLOODS_BELOW_PER_SECOND, Mode, Pace},
    requests::Requests,
    rules::Rules,
    time::Time,
};

mod flooding;
mod floods;
mod item;
mod notes;
mod plan;
mod turns;

pub use super::mode::FLOOD_BYTES_MAX;

pub use floods::{FIRST_FLOOD_DELAY, FLOOD_DELAY, FLOODS_WAITING_MAX};
pub use item::{Fresh, Item, Limits, Told};
pub use turns::{FIRST_NOTE_DELAY, NOTE_DELAY, NOTE_INTERVAL};

use floods::Floods;
use item::Plan;
use turns::Turns;

/// Most bytes of updates sent at once; the rest follows.
pub const PUSH_BYTES_MAX: usize = 256 << 10;
/// Least time between two batches of updates; the first goes out at once.
pub const PUSH_INTERVAL: Duration = Duration::from_millis(1);
/// A link that is full for a moment is normal; links that stay full this long are an overload. A large state
/// of one owner is not: each link gets what it missed, the latest only, as fast as it can take it.
pub const CROWDED_AFTER: Duration = Duration::from_secs(3);
/// Introductions that one node floods in a second, if there are more than this many at once: they are long,
/// because of the certificates in them, and each receiver has to verify them. While more nodes join, others
/// are sent only a note that there are introductions, and ask one neighbour for all of them.
pub const INTRODUCTIONS_PER_SECOND: u32 = 10;
/// Least time between two batches of updates, and of notes on a link, during such joins.
pub const CROWD_INTERVAL: Duration = Duration::from_millis(100);

/// The updates to send, and their receivers.
#[derive(Debug)]
pub struct Push {
    node: NodeId,
    datacenter: Datacenter,
    rules: Rules,
    links: BTreeMap<NodeId, Link>,
    fresh: BTreeMap<NodeId, Fresh>,
    floods: Floods,
    requests: Requests,
    known: Known,
    pace: Pace,
    edges: Option<Arc<Edges>>,
    /// When the scheduler was last asked for the edges.
    asked: Option<Time>,
    last: Option<Time>,
    /// The time since which half of the links or more have been congested at every batch of updates.
    crowded: Option<Time>,
    introductions: Introductions,
}

/// How many introductions may be told unasked.
#[derive(Debug)]
struct Introductions {
    bucket: Bucket,
    /// Those that may still be told in this batch, and those that this has held.
    left: usize,
    held: u64,
}

/// A connection to a peer.
#[derive(Debug, Default)]
struct Link {
    congested: bool,
    /// The updates that could not be sent to it: the line of each owner before them.
    owed: BTreeMap<NodeId, DigestEntry>,
    /// The owners of updates and notes that were dropped on the way to it: their notes are due first.
    shed: BTreeSet<NodeId>,
    /// When an exchange with it was last begun because it is far behind, unless it has all since then.
    begun: Option<Time>,
    /// Another one is to be begun when that may be.
    waits: bool,
    notes: Turns,
}

/// What a peer has missed while its link was full.
#[derive(Debug, Default)]
pub struct Missed {
    /// The updates that it was not sent: the line of each owner before them.
    pub owed: Vec<DigestEntry>,
    /// The owners of whom a frame was dropped: the peer needs a note, and asks for what it lacks.
    pub shed: BTreeSet<NodeId>,
}

impl Push {
    /// No links and no updates.
    #[must_use]
    pub fn new(now: Time, node: NodeId, datacenter: Datacenter, rules: Rules) -> Self {
        Self {
            node,
            datacenter,
            rules,
            links: BTreeMap::new(),
            fresh: BTreeMap::new(),
            floods: Floods::default(),
            requests: Requests::default(),
            known: Known::default(),
            pace: Pace::default(),
            edges: None,
            asked: None,
            last: None,
            crowded: None,
            introductions: Introductions {
                bucket: Bucket::holding(now, INTRODUCTIONS_PER_SECOND as f64),
                left: usize::MAX,
                held: 0,
            },
        }
    }

    // --- links

    /// All linked peers.
    pub fn links(&self) -> impl Iterator<Item = &NodeId> {
        self.links.keys()
    }

    /// Whether there is a link to a peer.
    #[must_use]
    pub fn is_linked(&self, peer: &NodeId) -> bool {
        self.links.contains_key(peer)
    }

    /// A link to a peer was opened or closed.
    pub fn linked(&mut self, now: Time, peer: NodeId, up: bool) {
        self.known.linked(&peer, up);
        if up {
            self.links.entry(peer.clone()).or_default();
            self.note_later(now, &peer);
        } else {
            self.links.remove(&peer);
        }
    }

    /// A link takes no more for now, or does again; returns the updates that it has missed meanwhile.
    pub fn congested(&mut self, peer: &NodeId, congested: bool) -> Missed {
        let Some(link) = self.links.get_mut(peer) else { return Missed::default() };
        link.congested = congested;
        if congested { Missed::default() } else { link.take_missed() }
    }

    /// A frame for a peer was dropped, with updates or notes of these owners. It needs notes of them once its link
    /// has room. If the link counts as having room, they wait for their turn: a peer that reads nothing would
    /// have each note dropped as well, and at once another one sent.
    pub fn shed(&mut self, now: Time, peer: &NodeId, owners: Vec<NodeId>) {
        for owner in &owners {
            self.known.forget(peer, owner);
        }
        let Some(link) = self.links.get_mut(peer) else { return };
        if link.congested {
            let room = OWNERS_MAX.saturating_sub(link.shed.len());
            // Beyond this the comparison of roots finds the missing updates.
            link.shed.extend(owners.into_iter().take(room));
            return;
        }
        let kept = owners.iter().filter(|owner| self.known.note(now, peer, owner)).count();
        if kept > 0 {
            self.note_later(now, peer);
        }
    }

    /// Whether nodes send more than the network carries: for [`CROWDED_AFTER`], whenever there were updates,
    /// half of the links or more could not take them.
    #[must_use]
    pub fn is_crowded(&self, now: Time) -> bool {
        self.crowded.is_some_and(|since| now.since(since) >= CROWDED_AFTER)
    }

    /// The edges for updates along trees have changed.
    pub fn lead(&mut self, edges: Arc<Edges>) {
        self.edges = self.rules.trees.then_some(edges);
    }

    // --- updates

    /// An owner has changed: `since` is its line before. `from`: the sender, if it was received. Of this node's
    /// own updates the mode is chosen later.
    pub fn note(&mut self, since: DigestEntry, from: Option<&NodeId>, relayed: bool) {
        let except = from.cloned();
        self.add(Fresh { since, except, relayed, mode: Mode::Flood, requested: false });
    }

    /// The same for an update that a peer has sent unasked or on request.
    pub fn pass_on(&mut self, since: DigestEntry, from: &NodeId, mode: Mode, requested: bool) {
        self.add(Fresh { since, except: Some(from.clone()), relayed: false, mode, requested });
    }

    fn add(&mut self, new: Fresh) {
        if self.links.is_empty() {
            return;
        }
        match self.fresh.get_mut(&new.since.node) {
            Some(fresh) => {
                if fresh.except != new.except {
                    fresh.except = None;
                }
                fresh.relayed &= new.relayed;
                fresh.mode = fresh.mode.min(new.mode);
                fresh.requested |= new.requested;
            }
            None => {
                self.fresh.insert(new.since.node.clone(), new);
            }
        }
    }

    /// Whether there are updates to send.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Puts back what had no room in a batch.
    pub fn put_back(&mut self, fresh: Fresh) {
        self.add(fresh);
    }

    /// How an update of this node is to travel.
    pub fn choose(&mut self, now: Time, bytes: usize, lag: Duration) -> Mode {
        let mode = self.pace.choose(now, bytes, lag);
        if self.rules.trees { mode } else { Mode::Flood }
    }

    /// How updates on request travel on: many have to be told to few.
    #[must_use]
    pub fn mode_on_request(&self, now: Time) -> Mode {
        let many = self.rules.trees && self.pace.rate(now) >= FLOODS_BELOW_PER_SECOND;
        if many { Mode::Tree } else { Mode::Flood }
    }

    /// When this has to be called again without further input.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        let news = (!self.fresh.is_empty()).then(|| self.next(now));
        let waits = self.links.values().filter(|link| link.waits);
        let exchange = waits.map(|link| link.begun.map_or(now, |at| at + BEGIN_INTERVAL)).min();
        let notes = self.links.values().filter_map(|link| link.notes.due()).min();
        let dues = [news, self.floods.due(), self.requests.due(), exchange, notes];
        dues.into_iter().flatten().min()
    }

    /// The updates to send, if it is time to send them.
    pub fn take(&mut self, now: Time) -> Vec<Fresh> {
        if self.fresh.is_empty() || now < self.next(now) {
            return Vec::new();
        }
        self.last = Some(now);
        std::mem::take(&mut self.fresh).into_values().collect()
    }

    /// The earliest time for the next batch.
    fn next(&self, now: Time) -> Time {
        let rate = f64::from(INTRODUCTIONS_PER_SECOND);
        let wait = if self.introductions.bucket.tokens_at(now, rate) < 1.0
            && self.fresh.values().all(|fresh| fresh.since.generation == Generation::ZERO)
        {
            CROWD_INTERVAL
        } else {
            PUSH_INTERVAL
        };
        self.last.map_or(now, |last| last + wait)
    }

    /// Decides which parts of a batch each link gets. The parts that a congested link misses are kept for
    /// later. `at`: where an owner is. `fed`: whether a peer is being fed the map of an owner.
    pub fn share<'a>(
        &mut self,
        now: Time,
        items: &[Item],
        limits: Limits,
        at: impl Fn(&NodeId) -> Option<&'a Datacenter>,
        fed: impl Fn(&NodeId, &NodeId) -> bool,
    ) -> Vec<(NodeId, Told)> {
        let congested = self.links.values().filter(|link| link.congested).count();
        let crowded = congested > 0 && congested * 2 >= self.links.len();
        self.crowded = crowded.then(|| self.crowded.unwrap_or(now));
        self.introductions.left = limits.introductions;
        let updates = items.iter().filter(|item| !item.delta.entries.is_empty()).count();
        self.pace.told(now, u32::try_from(updates).unwrap_or(u32::MAX));
        let plans: Vec<_> =
            items.iter().map(|item| self.plan(now, item, limits.lag, &at)).collect();
        let mut told = Vec::with_capacity(self.links.len());
        // Those to whom notes are due, and whether soon.
        let mut later = BTreeMap::<NodeId, bool>::new();
        let mut beside = vec![Vec::new(); items.len()];
        for (peer, link) in &mut self.links {
            let mut share = Told::default();
            for (index, (item, plan)) in items.iter().zip(&plans).enumerate() {
                let (owner, verdict) = (&item.delta.node, matches!(plan, Plan::Verdict));
                // Only the node itself writes its map.
                if item.fresh.except.as_ref() == Some(peer) || owner == peer {
                    continue;
                }
                if fed(peer, owner) && !verdict {
                    continue;
                }
                if link.congested && !verdict {
                    link.owe(&item.fresh.since);
                    self.known.forget(peer, owner);
                    continue;
                }
                let head = (item.delta.generation, item.delta.to);
                let has =
                    self.rules.filters && item.advances() && self.known.has(peer, owner, head);
                // A note tells only how far there is something.
                let notes = matches!(plan, Plan::Notes | Plan::LateNotes);
                let noted = notes && self.rules.filters && self.known.has(peer, owner, head);
                let way = match plan {
                    Plan::Verdict => Way::News,
                    _ if noted => continue,
                    Plan::Notes => Way::NoteNow,
                    Plan::LateNotes => Way::Note,
                    _ if has => continue,
                    Plan::Flood { tree_first: false } => Way::News,
                    Plan::Flood { tree_first: true } => {
                        let course = item.course(&self.datacenter, &self.node, &at);
                        if self.edges.as_ref().is_some_and(|edges| edges.is_beside(peer, &course)) {
                            beside[index].push(peer.clone());
                            continue;
                        }
                        Way::News
                    }
                    Plan::Tree { broken } => {
                        let course = item.course(&self.datacenter, &self.node, &at);
                        let edges = self.edges.as_ref();
                        match edges.map_or(Way::News, |edges| edges.way(peer, &course)) {
                            Way::Note if *broken => Way::NoteNow,
                            way => way,
                        }
                    }
                };
                match way {
                    Way::News => {
                        if item.delta.to > Version::ZERO {
                            self.known.raise(now, peer, owner, head);
                        }
                        share.news.push(index);
                    }
                    Way::Note if self.known.note(now, peer, owner) => {
                        let crowd = matches!(plan, Plan::LateNotes) && limits.lag < LATE_NOTES;
                        *later.entry(peer.clone()).or_default() |= crowd;
                    }
                    Way::Note | Way::NoteNow => share.notes.push(index),
                }
            }
            if !(share.news.is_empty() && share.notes.is_empty()) {
                told.push((peer.clone(), share));
            }
        }
        for (item, peers) in items.iter().zip(beside) {
            self.flood_later(now, limits.lag, item, peers);
        }
        for (peer, soon) in later {
            self.note_later(now, &peer);
            if let Some(link) = self.links.get_mut(&peer).filter(|_| soon) {
                link.notes.hurry(now + CROWD_INTERVAL);
            }
        }
        told
    }

    /// How many introductions were announced since the last call although the budget had room for them.
    pub const fn take_held(&mut self) -> u64 {
        std::mem::replace(&mut self.introductions.held, 0)
    }

    /// Whether to ask the scheduler for the edges, and whether there are any yet.
    pub fn wants_edges(&mut self, now: Time, items: &[Item]) -> Option<bool> {
        let along_trees = |item: &Item| {
            let tree = item.fresh.mode == Mode::Tree || self.rules.tree_first && !item.introduces();
            !item.is_verdict() && tree
        };
        let lately = self.asked.is_some_and(|at| now.since(at) < EDGES_INTERVAL);
        (self.rules.trees && !lately && items.iter().any(along_trees)).then(|| {
            self.asked = Some(now);
            self.edges.is_some()
        })
    }

    // --- what waits for a link

    /// Whether updates for a peer wait for its connection already.
    #[must_use]
    pub fn is_congested(&self, peer: &NodeId) -> bool {
        self.links.get(peer).is_some_and(|link| link.congested)
    }

    /// Send a peer the updates after this line, once its connection takes them.
    pub fn owe(&mut self, peer: &NodeId, since: &DigestEntry) {
        if let Some(link) = self.links.get_mut(peer) {
            link.owe(since);
        }
    }

    /// Whether an exchange with a peer may be begun because it lacks more than can be sent at once. The peer may
    /// ask as often as it likes. If it may not be begun yet, [`Push::overdue_exchanges`] tells when it may.
    pub fn may_begin(&mut self, now: Time, peer: &NodeId) -> bool {
        self.links.get_mut(peer).is_some_and(|link| link.may_begin(now))
    }

    /// A peer was sent all that it lacked, as it has asked for it: the next exchange may be begun at once.
    pub fn fed(&mut self, peer: &NodeId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.begun = None;
        }
    }

    /// An exchange with a peer that might be begun is not: [`Push::overdue_exchanges`] names it again.
    pub fn put_off(&mut self, peer: &NodeId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.waits = true;
        }
    }

    /// The peers with which an exchange may be begun now, and could not be before.
    pub fn overdue_exchanges(&mut self, now: Time) -> Vec<NodeId> {
        let waits = self.links.iter_mut().filter(|(_, link)| link.waits);
        waits.filter_map(|(peer, link)| link.may_begin(now).then(|| peer.clone())).collect()
    }
}

impl Link {
    /// Of an owner whose updates were dropped the state of the peer is not known, so it is only noted.
    fn take_missed(&mut self) -> Missed {
        let shed = std::mem::take(&mut self.shed);
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|owner, _| !shed.contains(owner));
        Missed { owed: owed.into_values().collect(), shed }
    }

    fn may_begin(&mut self, now: Time) -> bool {
        let may = self.begun.is_none_or(|at| now.since(at) >= BEGIN_INTERVAL);
        if may {
            self.begun = Some(now);
        }
        self.waits = !may;
        may
    }

    fn owe(&mut self, since: &DigestEntry) {
        // Beyond this the comparison of roots finds the missing updates.
        if self.owed.len() < OWNERS_MAX {
            self.owed.entry(since.node.clone()).or_insert_with(|| since.clone());
        }
    }
}

/// A node with more lag than this notes introductions no sooner than other updates.
const LATE_NOTES: Duration = Duration::from_millis(20);
/// Least time between two exchanges begun with a peer that asks and does not take what it asks for.
const BEGIN_INTERVAL: Duration = Duration::from_millis(500);
/// How often the scheduler is told that updates travel along trees.
const EDGES_INTERVAL: Duration = Duration::from_secs(1);
