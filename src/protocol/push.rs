//! Updates as they spread: an update that is new here goes to all linked peers at once, and each of them to
//! which it is new passes it on once.
//!
//! This is not a queue of messages. It keeps, per owner, the line of the digest before the first change that
//! has not been sent. When an update goes out it is cut from the map at that time, so an older version of a
//! key that has been replaced meanwhile never travels. For a link whose queue is full the same is kept until
//! it has room again.
//!
//! Small updates flood. An update of more than [`FLOOD_BYTES_MAX`], or more often than [`FLOODS_PER_SECOND`],
//! goes along a tree per owner, which forms by itself: a node that receives an update twice prunes the later
//! edge, on which from then on only a note is sent that there is an update; a node that does not receive an
//! announced update grafts the edge back (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS
//! 2007).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    bucket::Bucket,
    delta::NodeDelta,
    digest::DigestEntry,
    gossip::{Have, OWNERS_MAX},
    id::{Generation, NodeId},
    time::Time,
};

/// Updates of one owner up to this size flood; larger ones go along the tree. Bytes, bounds included.
pub const FLOOD_BYTES_MAX: usize = 512;
/// Updates that one node floods in a second; more frequent ones go along the tree.
pub const FLOODS_PER_SECOND: u32 = 64;
/// Most bytes of updates sent at once; the rest follows.
pub const PUSH_BYTES_MAX: usize = 256 << 10;
/// Least time between two batches of updates; the first goes out at once.
pub const PUSH_INTERVAL: Duration = Duration::from_millis(1);
/// A link that is full for a moment is normal; links that stay full this long are an overload. A large state
/// of one owner is not: each link gets what it missed, the latest only, as fast as it can take it.
pub const CROWDED_AFTER: Duration = Duration::from_secs(3);
/// The same while a node has more to send than it may flood: a frame costs as much as the updates of many
/// keys in it.
pub const BUSY_INTERVAL: Duration = Duration::from_millis(20);
/// How long an announced update may take to arrive by itself, before it is requested.
pub const GRAFT_DELAY: Duration = Duration::from_millis(100);

/// Introductions that one node floods in a second, if there are more than this many at once: they are long,
/// because of the certificates in them, and each receiver has to verify them. While more nodes join, others
/// are sent only a note that there are introductions, and ask one neighbour for all of them.
pub const INTRODUCTIONS_PER_SECOND: u32 = 10;
/// Least time between two batches of updates during such joins.
pub const CROWD_INTERVAL: Duration = Duration::from_millis(100);
/// The same delay for an unknown node: while many nodes join, their introductions, with certificates in them,
/// are not sent unasked, so the only reason to wait is to ask for several together.
pub const INTRODUCTION_DELAY: Duration = Duration::from_millis(50);

/// The updates to send, and their receivers.
#[derive(Debug)]
pub struct Push {
    links: BTreeMap<NodeId, Link>,
    fresh: BTreeMap<NodeId, Fresh>,
    missing: BTreeMap<NodeId, Missing>,
    /// Nodes whose introduction has been requested, and when: no other node is asked for it at once.
    asked: BTreeMap<NodeId, Time>,
    last: Option<Time>,
    /// The time since which half of the links or more have been congested at every batch of updates.
    crowded: Option<Time>,
    /// Floods that may still be begun, and when they were counted.
    floods: (f64, Time),
    introductions: Bucket,
    /// Introductions that may still be told unasked in this batch, and those that this has held.
    introduces: usize,
    held: u64,
}

/// A connection to a peer.
#[derive(Debug, Default)]
struct Link {
    congested: bool,
    /// The updates that could not be sent to it: the line of each owner before them.
    owed: BTreeMap<NodeId, DigestEntry>,
    /// Owners whose updates it receives from another node.
    lazy: BTreeSet<NodeId>,
    /// When an exchange with it was last begun because it is far behind, unless it has all since then.
    begun: Option<Time>,
    /// Another one is to be begun when that may be.
    waits: bool,
}

/// The unsent updates of one owner.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The state of the receivers, as far as is known: the line before the update.
    pub since: DigestEntry,
    /// The sender of the update, if there is only one.
    pub except: Option<NodeId>,
    /// It came by an exchange, so others are likely to have it: if it is more than a little, they are only
    /// sent a note that it is available.
    pub relayed: bool,
}

/// Updates that a peer has announced.
#[derive(Clone, Debug)]
struct Missing {
    have: Have,
    from: NodeId,
    due: Time,
}

/// Updates of one owner, about to be sent.
#[derive(Clone, Debug)]
pub struct Item {
    /// The updates.
    pub delta: NodeDelta,
    /// Its size, an upper bound.
    pub bytes: usize,
    /// It is too large, and is only announced: its entries are not in it.
    pub noted: bool,
    /// Where it comes from.
    pub fresh: Fresh,
}

/// The frames for one link: all of this at once.
#[derive(Debug, Default)]
pub struct Told {
    /// Indices of the items whose updates it gets.
    pub news: Vec<usize>,
    /// Indices of the items that are announced to it.
    pub notes: Vec<usize>,
}

impl Push {
    /// No links and no updates.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self {
            links: BTreeMap::new(),
            fresh: BTreeMap::new(),
            missing: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: None,
            crowded: None,
            floods: (FLOODS_PER_SECOND as f64, now),
            introductions: Bucket::holding(now, INTRODUCTIONS_PER_SECOND as f64),
            introduces: usize::MAX,
            held: 0,
        }
    }

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
    pub fn linked(&mut self, peer: NodeId, up: bool) {
        if up {
            self.links.entry(peer).or_default();
        } else {
            self.links.remove(&peer);
        }
    }

    /// A link takes no more for now, or does again; returns the updates that it has missed meanwhile.
    pub fn congested(&mut self, peer: &NodeId, congested: bool) -> Vec<DigestEntry> {
        let Some(link) = self.links.get_mut(peer) else { return Vec::new() };
        link.congested = congested;
        if congested { Vec::new() } else { std::mem::take(&mut link.owed).into_values().collect() }
    }

    /// Whether nodes send more than the network carries: for [`CROWDED_AFTER`], whenever there were updates,
    /// half of the links or more could not take them.
    #[must_use]
    pub fn is_crowded(&self, now: Time) -> bool {
        self.crowded.is_some_and(|since| now.since(since) >= CROWDED_AFTER)
    }

    /// An owner has changed: `since` is its line before. `from`: the sender, if it was received.
    pub fn note(&mut self, since: DigestEntry, from: Option<&NodeId>, relayed: bool) {
        if self.links.is_empty() {
            return;
        }
        match self.fresh.get_mut(&since.node) {
            Some(fresh) => {
                if fresh.except.as_ref() != from {
                    fresh.except = None;
                }
                fresh.relayed &= relayed;
            }
            None => {
                let fresh = Fresh { since, except: from.cloned(), relayed };
                self.fresh.insert(fresh.since.node.clone(), fresh);
            }
        }
    }

    /// Whether there are updates to send.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// When this has to be called again without further input.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        let news = (!self.fresh.is_empty()).then(|| self.next(now));
        let missing = self.missing.values().map(|missing| missing.due).min();
        let waits = self.links.values().filter(|link| link.waits);
        let exchange = waits.map(|link| link.begun.map_or(now, |at| at + BEGIN_INTERVAL)).min();
        [news, missing, exchange].into_iter().flatten().min()
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
        let wait = if self.floods.0 < BUSY_FLOODS {
            BUSY_INTERVAL
        } else if self.introductions.tokens_at(now, rate) < 1.0
            && self.fresh.values().all(|fresh| fresh.since.generation == Generation::ZERO)
        {
            CROWD_INTERVAL
        } else {
            PUSH_INTERVAL
        };
        self.last.map_or(now, |last| last + wait)
    }

    /// Decides which parts of a batch each link gets. The parts that a congested link misses are kept for
    /// later. `introductions`: how many this node has time to tell unasked.
    pub fn share(
        &mut self,
        now: Time,
        items: &[Item],
        introductions: usize,
        fed: impl Fn(&NodeId, &NodeId) -> bool,
    ) -> Vec<(NodeId, Told)> {
        let congested = self.links.values().filter(|link| link.congested).count();
        let crowded = congested > 0 && congested * 2 >= self.links.len();
        self.crowded = crowded.then(|| self.crowded.unwrap_or(now));
        self.introduces = introductions;
        let floods: Vec<bool> = items.iter().map(|item| self.floods(now, item)).collect();
        let mut told = Vec::with_capacity(self.links.len());
        for (peer, link) in &mut self.links {
            let mut share = Told::default();
            for (index, item) in items.iter().enumerate() {
                // Only the node itself writes its map.
                if item.fresh.except.as_ref() == Some(peer) || item.delta.node == *peer {
                    continue;
                }
                if fed(peer, &item.delta.node) && !is_verdict(item) {
                    continue;
                }
                if link.congested && !is_verdict(item) {
                    link.owe(&item.fresh.since);
                } else if item.noted
                    || !floods[index]
                        && (item.fresh.relayed
                            || item.introduces()
                            || link.lazy.contains(&item.delta.node))
                {
                    share.notes.push(index);
                } else {
                    share.news.push(index);
                }
            }
            if !(share.news.is_empty() && share.notes.is_empty()) {
                told.push((peer.clone(), share));
            }
        }
        told
    }

    /// How many introductions were announced since the last call although the budget had room for them.
    pub const fn take_held(&mut self) -> u64 {
        std::mem::replace(&mut self.held, 0)
    }

    /// A peer sent updates that are not new here, of this many bytes. Returns whether to prune the edge.
    pub fn repeated(&mut self, from: &NodeId, owner: &NodeId, bytes: usize) -> bool {
        let flooded = bytes <= FLOOD_BYTES_MAX && self.floods.0 >= 1.0;
        !flooded && self.links.get_mut(from).is_some_and(|link| link.set_lazy(owner))
    }

    /// A peer sent updates that are new here: its edge belongs to the tree.
    pub fn arrived(&mut self, from: &NodeId, owner: &NodeId) {
        if let Some(link) = self.links.get_mut(from) {
            link.lazy.remove(owner);
        }
        self.missing.remove(owner);
        self.asked.remove(owner);
    }

    /// A peer wants notes instead of the updates of these owners.
    pub fn pruned(&mut self, by: &NodeId, owners: &[NodeId]) {
        if let Some(link) = self.links.get_mut(by) {
            for owner in owners {
                link.set_lazy(owner);
            }
        }
    }

    /// A peer wants all updates of an owner again.
    pub fn grafted(&mut self, by: &NodeId, owner: &NodeId) {
        if let Some(link) = self.links.get_mut(by) {
            link.lazy.remove(owner);
        }
    }

    /// A peer announces an update that has not arrived here yet: wait for it, then ask. `known`: whether this
    /// generation of its owner is known.
    pub fn heard_of(&mut self, now: Time, from: &NodeId, have: Have, known: bool) {
        if self.missing.len() >= OWNERS_MAX && !self.missing.contains_key(&have.node) {
            return;
        }
        let missing = self.missing.entry(have.node.clone()).or_insert_with(|| Missing {
            have: have.clone(),
            from: from.clone(),
            due: match self.asked.get(&have.node) {
                // The owner has it first.
                _ if *from == have.node => now,
                _ if known => now + GRAFT_DELAY,
                Some(asked) => (*asked + GRAFT_DELAY).max(now),
                None => now + INTRODUCTION_DELAY,
            },
        });
        if (have.generation, have.version) > (missing.have.generation, missing.have.version) {
            missing.have = have;
        }
    }

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

    /// The announced updates that have not arrived, and the peers that announced them.
    pub fn overdue(&mut self, now: Time) -> Vec<(NodeId, Have)> {
        let over = self.missing.iter().filter(|(_, missing)| missing.due <= now);
        let over: Vec<_> = over.map(|(owner, _)| owner.clone()).collect();
        if !over.is_empty() {
            self.asked.retain(|_, at| now.since(*at) < GRAFT_DELAY);
            self.asked.extend(over.iter().take(OWNERS_MAX).map(|owner| (owner.clone(), now)));
        }
        over.iter()
            .filter_map(|owner| self.missing.remove(owner))
            .map(|missing| (missing.from, missing.have))
            .collect()
    }

    /// Whether the update is to flood; counts it.
    fn floods(&mut self, now: Time, item: &Item) -> bool {
        if is_verdict(item) {
            return true;
        }
        if item.noted || item.introduces_others() {
            return false;
        }
        let most = f64::from(FLOODS_PER_SECOND);
        let earned = now.since(self.floods.1).as_secs_f64() * most;
        self.floods = ((self.floods.0 + earned).min(most), now);
        let floods = item.bytes <= FLOOD_BYTES_MAX
            && self.floods.0 >= 1.0
            && (!item.introduces() || self.may_introduce(now));
        if floods {
            self.floods.0 -= 1.0;
        }
        floods
    }
}

impl Push {
    /// Whether one more introduction may be told unasked; counts it.
    fn may_introduce(&mut self, now: Time) -> bool {
        let rate = f64::from(INTRODUCTIONS_PER_SECOND);
        if !self.introductions.pays_of(now, rate, rate) {
            return false;
        }
        let may = self.introduces > 0;
        self.introduces = self.introduces.saturating_sub(1);
        self.held += u64::from(!may);
        may
    }
}

impl Item {
    /// Whether it comes with a certificate that the receivers do not have.
    pub(super) fn introduces(&self) -> bool {
        self.delta.sealed.as_ref().is_some_and(|sealed| sealed.credential.is_some())
    }

    /// Whether it is such an introduction that an exchange has brought, of another node than the one it came
    /// from: others are likely to know that node already.
    fn introduces_others(&self) -> bool {
        let Fresh { except, relayed, .. } = &self.fresh;
        *relayed && self.introduces() && except.as_ref() != Some(&self.delta.node)
    }
}

impl Link {
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

    /// Returns whether it was not lazy before.
    fn set_lazy(&mut self, owner: &NodeId) -> bool {
        if self.lazy.len() >= OWNERS_MAX && !self.lazy.contains(owner) {
            // The trees of owners that have been quiet form again.
            self.lazy.pop_first();
        }
        self.lazy.insert(owner.clone())
    }
}

/// A node with fewer floods left than this is busy.
const BUSY_FLOODS: f64 = 8.0;
/// Least time between two exchanges begun with a peer that asks and does not take what it asks for.
const BEGIN_INTERVAL: Duration = Duration::from_millis(500);

/// Whether it is a verdict alone, which every node needs at once: it brings no key, no record and no certificate.
fn is_verdict(item: &Item) -> bool {
    let Item { delta, noted, .. } = item;
    delta.entries.is_empty() && delta.record.is_none() && !item.introduces() && !noted
}
