//! This node's map and its copies of all other maps: the machine inside the storage actor.
//!
//! Pure: time is an input, and the changes to persist and the frames to send are outputs. Only the owner
//! writes a map; copies of other nodes' maps are changed only by updates, and only as [`NodeMap::apply`]
//! allows.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::{
    bulk::Bulk,
    claim::OwnName,
    delta::{Delta, NodeDelta},
    digest::{Digest, DigestEntry},
    entry::{Content, Entry, Key},
    event::{Event, Problem},
    gossip::{Gossip, Have, OWNERS_MAX},
    id::{Generation, NodeId},
    map::{Budget, MapLimits, NodeMap, Refusal},
    push::{FLOOD_BYTES_MAX, Fresh, Item, Push, Told},
    questions::Questions,
    record::{NodeRecord, Status, check_tags},
    route::{Counter, Misconduct, Output, SchedulerInput, StorageInput, TransportInput},
    sketch::Sketch,
    sketch::SketchKey,
    time::Time,
    view::NodeView,
    wave::Waves,
    write::{Write, WriteError, Written},
};
use crate::protocol::durable::{Change, Stored, StoredEntry};

mod accusations;
mod ageing;
mod applying;
mod census;
mod clock;
mod exchanging;
mod forgotten;
mod marks;
mod news;
mod opinion;
mod own;
mod published;
mod quotas;
mod reconciliation;
mod returned;
mod returning;
mod revoked;
mod revoking;
mod sealing;
mod serving;
mod signing;
mod tombstones;
mod writing;

use accusations::Accusations;
use clock::Clock;
use forgotten::Forgotten;
use own::{Expiries, Own, Pace};
pub use published::CopyPool;
use published::Published;
use quotas::Quotas;
use returned::ReturnedPeers;
use revoked::Revoked;
use signing::Signing;
use tombstones::Tombstones;

pub use super::delta::BATCH_BYTES_MAX;
pub use marks::{MARK_MAX, MARKS_MAX};
pub use quotas::{
    ACCUSATIONS_PER_SECOND, ACCUSATIONS_SAVED_MAX, LIVES_PER_MINUTE, LIVES_SAVED_MAX,
    OWN_HEADS_PER_SECOND, OWN_HEADS_SAVED_MAX, RELAYS_PER_PEER, REVOCATIONS_PER_SECOND,
    REVOCATIONS_SAVED_MAX, VERDICTS_PER_SECOND, VERDICTS_SAVED_MAX, WAVES_PER_PEER,
};

/// The least number of lines of a digest for which a sketch is sent instead: 32 cells take 490 bytes, and the
/// sketch one more trip across the network; the lines of 64 nodes take 1,700.
pub const SKETCH_LINES_MIN: usize = 64;

/// The limits of the owner's map and of the copies, and how long they are kept.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node.
    pub node: NodeId,
    /// The node's record at the start.
    pub record: NodeRecord,
    /// The limits of one node's map.
    pub limits: MapLimits,
    /// Most nodes to be known at once.
    pub peers_max: usize,
    /// Most bytes of one delta, unless a single version is larger.
    pub delta_bytes: usize,
    /// Most entries of one delta, unless a single version has more.
    pub delta_entries: usize,
    /// How long a tombstone is kept at least.
    pub tombstone_grace: Duration,
    /// How long a dead peer is kept. A node that stood still for longer drops its state of others.
    pub forget_after: Duration,
    /// The hash key of the cluster's sketches. Nodes with different keys exchange full digests.
    pub sketch_key: SketchKey,
}

/// All that a node knows.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    own: Own,
    copies: BTreeMap<NodeId, Arc<NodeMap>>,
    forgotten: Forgotten,
    published: Published,
    clock: Clock,
    /// The updates to send, and their receivers.
    push: Push,
    bulk: Bulk,
    /// The waves that count the nodes with a version.
    waves: Waves,
    /// The questions under way about which nodes hear a peer.
    questions: Questions,
    accusations: Accusations,
    signing: Signing,
    revoked: Revoked,
    /// How much work others may still cause: generations of theirs to begin, verdicts to take over.
    quotas: Quotas,
    /// The peers that came back with less state than they had, and reports of others about this node's own
    /// past.
    returned: ReturnedPeers,
}

impl Replica {
    /// Starts a new generation of the node with the state that the store kept, and with the copies that an
    /// earlier storage actor of this process had published, if there was one. The first output persists the
    /// new generation; nothing may be sent before that is done.
    #[must_use]
    pub fn start(
        config: ReplicaConfig,
        stored: Stored,
        copies: &OrdMap<NodeId, Arc<NodeView>>,
        renewed: bool,
        now: Time,
        wall: SystemTime,
        out: &mut Vec<Output>,
    ) -> Self {
        let unmet = stored.peers.keys().cloned().collect();
        let own = Own {
            map: NodeMap::default(),
            name: OwnName::new(renewed),
            expiries: Expiries::default(),
            tombstones: Tombstones::new(now, config.tombstone_grace, config.limits.keys),
            pace: Pace::new(now),
        };
        let mut this = Self {
            own,
            copies: BTreeMap::new(),
            forgotten: Forgotten::new(unmet, now + config.forget_after),
            published: Published::new(config.sketch_key),
            clock: Clock::new(now, wall, config.forget_after),
            push: Push::new(now),
            bulk: Bulk::default(),
            waves: Waves::default(),
            questions: Questions::new(now),
            accusations: Accusations::default(),
            signing: Signing::default(),
            revoked: Revoked::new(now, stored.revocations.iter().cloned()),
            quotas: Quotas::default(),
            returned: ReturnedPeers::default(),
            config,
        };
        this.own.map = this.restored(stored, now, wall);
        for (node, view) in copies.iter().filter(|(node, _)| **node != this.config.node) {
            if this.revoked.union.ends(node, view.generation) {
                continue;
            }
            this.copies.insert(node.clone(), Arc::new(NodeMap::from_view(view)));
            this.forgotten.met(node);
            this.published.show(node.clone());
        }
        let record = this.config.record.clone();
        let persist = this.write_record(record);
        this.sum_all();
        out.push(Output::Persist(persist));
        if !this.revoked.union.is_empty() {
            out.push(Output::Revoked(Arc::clone(&this.revoked.union)));
        }
        this.tick(now, out);
        this
    }

    /// This node's name.
    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.config.node
    }

    /// This node's own map.
    #[must_use]
    pub const fn own(&self) -> &NodeMap {
        &self.own.map
    }

    /// The copy of a peer's map.
    #[must_use]
    pub fn copy(&self, peer: &NodeId) -> Option<&NodeMap> {
        self.copies.get(peer).map(Arc::as_ref)
    }

    /// All peers known.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeId, &NodeMap)> {
        self.copies.iter().map(|(node, map)| (node, &**map))
    }

    /// Takes over copies that another node of this process holds, without sending them. `sums`: the sketch of
    /// them and this node's own line, if it is known.
    pub fn adopt(&mut self, copies: BTreeMap<NodeId, Arc<NodeMap>>, sums: Option<Sketch>) {
        self.copies = copies;
        self.published.outdate();
        match sums {
            Some(sums) => self.published.set_sketch(sums),
            None => self.sum_all(),
        }
    }

    /// From now on copies are shared with other nodes of this process, as far as they are equal, and nothing
    /// is kept for readers: [`Replica::view`] shows no change, and a digest is made again each time. For
    /// simulations with thousands of nodes in one process.
    pub fn share_copies(&mut self, pool: Arc<dyn CopyPool>) {
        self.published.share(pool);
    }

    /// The sum of all that is known here.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.published.sketch().root()
    }

    /// How many peers are known.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.copies.len()
    }

    /// Whether this process has begun a later generation because of its name, with a proof.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.own.name.renewed()
    }

    /// The same, with a proof or after claims of several members.
    #[must_use]
    pub const fn has_answered_for_its_name(&self) -> bool {
        self.own.name.has_answered()
    }

    /// Sets the seed of the numbers of this node's questions: 32 random bytes, which must stay secret.
    pub const fn set_secret(&mut self, secret: [u8; 32]) {
        self.questions.set_key(secret);
    }

    /// Sets the present time of the wall clock. It may have been set since the start: a machine without a
    /// battery begins in 1970, where every generation of other nodes lies absurdly far ahead.
    pub fn set_wall(&mut self, now: Time, wall: SystemTime) {
        self.clock.set_wall(now, wall);
    }

    /// Handles a message that needs no reply.
    pub fn handle(&mut self, now: Time, input: StorageInput, out: &mut Vec<Output>) {
        self.drop_if_overslept(now, out);
        out.extend(self.signing.take_untold().map(|problem| Output::Event(Event::Error(problem))));
        match input {
            StorageInput::Tick => self.tick(now, out),
            StorageInput::BeginRound(targets) => self.begin_round(targets, out),
            // Every peer that is up to date reports our own generation.
            StorageInput::HeardOfSelf(generation, _) if generation <= self.own.map.generation() => {
            }
            StorageInput::HeardOfSelf(generation, by) => {
                self.heard_of_self(now, generation, by, out);
            }
            StorageInput::Back(peer) => self.confront(&peer, out),
            StorageInput::Accuse(peer, generation, verdict, observers) => {
                self.accuse(&peer, generation, verdict, &observers, out);
            }
            StorageInput::Ask(peer, generation) => self.ask(peer, generation, out),
            StorageInput::Answer(ask, hears) => self.answer_question(ask, hears, out),
            StorageInput::Retire(peer, generation) => self.retire(peer, generation),
            StorageInput::Forget(peer, generation) => self.forget(now, &peer, generation, out),
            StorageInput::Remove { peer, by } => self.remove(now, &peer, by, out),
            StorageInput::Linked(peer, up) => {
                if !up {
                    let swells = self.waves.unlinked(now, &peer);
                    self.swell(now, swells, out);
                }
                // This generation may have begun, or gone on, while no peer could be reached.
                if up {
                    let (node, map) = (self.config.node.clone(), &self.own.map);
                    let (generation, version) = (map.generation(), map.max_version());
                    tell(
                        vec![peer.clone()],
                        Gossip::Have(vec![Have { node, generation, version }]),
                        out,
                    );
                    self.tell_revocation_sum(vec![peer.clone()], out);
                    self.tell_past(&peer, out);
                }
                self.push.linked(peer, up);
            }
            StorageInput::Congested(peer, congested) => self.congested(now, &peer, congested, out),
            StorageInput::Gossip(from, gossip) => self.gossip(now, &from, *gossip, out),
            StorageInput::TellRoot => {
                out.push(Output::Scheduler(SchedulerInput::OwnRoot(
                    self.published.sketch().root(),
                )));
            }
            StorageInput::Severed(from) => self.sever(now, from, out),
            StorageInput::BulkBroken(peer) => self.bulk.broken(&peer),
        }
        self.tell_news(now, out);
    }

    /// Writes a batch: all of it becomes visible at once, as one version, or none of it.
    ///
    /// A write that changes nothing takes no version.
    ///
    /// # Errors
    /// [`WriteError`] names the limit; then nothing has changed.
    pub fn write(
        &mut self,
        now: Time,
        batch: Vec<Write>,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        batch.iter().try_for_each(|write| self.check_write(write))?;
        let batch = self.without_idle(now, batch);
        if batch.is_empty() {
            let version = self.own.map.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        self.check_room(&batch)?;
        let before = self.before(&self.config.node);
        let version = self.own.map.next_version();
        let mut persist = Vec::with_capacity(batch.len() + 1);
        let timed = batch.iter().any(|write| write.ttl.is_some() || write.value.is_none());
        let entries = batch.len();
        for write in batch {
            persist.push(self.write_one(now, version, write, out));
        }
        if timed {
            self.wake(now, out);
        }
        persist.push(Change::Head(self.head()));
        self.wrote(now, before, entries, out);
        Ok(Written { version, changed: true, persist })
    }

    /// Replaces the tags.
    ///
    /// # Errors
    /// [`WriteError::Record`] if there are too many or too long ones.
    pub fn set_tags(
        &mut self,
        now: Time,
        tags: BTreeMap<String, String>,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        check_tags(&tags)?;
        let old = self.own_record();
        if old.tags == tags {
            let version = self.own.map.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        let before = self.before(&self.config.node);
        let mut persist = self.write_record(NodeRecord { tags: tags.clone(), ..old });
        persist.push(Change::Tags(tags));
        self.touched_own(now, before, out);
        Ok(Written { version: self.own.map.max_version(), changed: true, persist })
    }

    /// Publishes that the node is leaving, or has left. The caller decides whether a later start remembers it
    /// ([`Change::Left`]).
    pub fn set_status(&mut self, now: Time, status: Status, out: &mut Vec<Output>) -> Written {
        let before = self.before(&self.config.node);
        let persist = self.write_record(NodeRecord { status, ..self.own_record() });
        self.touched_own(now, before, out);
        Written { version: self.own.map.max_version(), changed: true, persist }
    }

    /// Whether the digest has a line of this peer: it has none once the peer is about to be forgotten.
    #[must_use]
    pub fn lists(&self, peer: &NodeId) -> bool {
        self.copies.contains_key(peer) && !self.forgotten.is_retired(peer)
    }

    /// How far all maps reach.
    #[must_use]
    pub fn digest(&mut self) -> Arc<Digest> {
        if let Some(digest) = self.published.digest() {
            return Arc::clone(digest);
        }
        let told = self.copies.iter().filter(|(node, _)| !self.forgotten.is_retired(node));
        let mut entries: Vec<_> = told
            .map(|(node, map)| map.digest_entry(node.clone()))
            .chain([self.own.map.digest_entry(self.config.node.clone())])
            .collect();
        entries.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        let digest = Arc::new(Digest { entries });
        self.published.set_digest(&digest);
        digest
    }

    /// Answers a peer's digest: the lines of what we want, and the delta that the peer lacks.
    pub fn answer(
        &mut self,
        now: Time,
        from: &NodeId,
        digest: &Digest,
        out: &mut Vec<Output>,
    ) -> (Digest, Delta) {
        self.look_for_self(now, from, digest, out);
        self.remind(from, digest, out);
        let wants = self.wants(now, from, digest);
        let delta = self.tell_peer(now, from, digest, true);
        (wants, delta)
    }

    /// Takes a peer's answer to our digest: applies its updates, and returns what it wants.
    pub fn merge(
        &mut self,
        now: Time,
        from: &NodeId,
        wants: &Digest,
        news: &Delta,
        out: &mut Vec<Output>,
    ) -> Delta {
        self.look_for_self(now, from, wants, out);
        self.remind(from, wants, out);
        self.apply(now, from, news, out);
        self.tell_peer(now, from, wants, false)
    }

    /// Asks for the right to pull from a peer that has more than fits one delta. Returns how far our copies
    /// reach, of these nodes or of all; `None` while there is another pull.
    pub fn pull(&mut self, now: Time, from: &NodeId, about: Option<&[NodeId]>) -> Option<Digest> {
        let may = self.bulk.begin_pull(now, from);
        may.then(|| match about {
            None => (*self.digest()).clone(),
            Some(nodes) => self.lines(nodes, &[]).0,
        })
    }

    /// The state that a pulling peer lacks, as much as fits one delta, and how far the peer will be with it.
    /// `all`: as for an answer.
    pub fn feed(
        &mut self,
        now: Time,
        peer: &NodeId,
        mut theirs: Digest,
        all: bool,
    ) -> (Digest, Delta) {
        if !self.bulk.may_feed(now, peer) {
            return (theirs, Delta::default());
        }
        self.seal_own();
        let delta = self.lacking(now, peer, &theirs, all, Occasion::Pulled);
        self.bulk.told(now, peer, &delta, true);
        theirs.advance(&delta);
        (theirs, delta)
    }

    /// Applies the delta that was pulled from a peer. Returns whether the pull is to go on: not if all of it
    /// was refused, nor if the peer is too slow ([`PULL_BYTES_PER_SECOND_MIN`]).
    ///
    /// [`PULL_BYTES_PER_SECOND_MIN`]: super::bulk::PULL_BYTES_PER_SECOND_MIN
    pub fn take(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) -> bool {
        let reach = |this: &Self, node: &NodeId| {
            let line = this.line(node);
            (line.generation, line.max_version)
        };
        let before: Vec<_> = news.nodes.iter().map(|delta| reach(self, &delta.node)).collect();
        self.apply(now, from, news, out);
        let (mut useful, mut bytes) = (false, 0);
        for (delta, before) in news.nodes.iter().zip(before) {
            let after = reach(self, &delta.node);
            useful |=
                self.copies.contains_key(&delta.node) && after >= (delta.generation, delta.to);
            if after > before {
                bytes += delta.encoded_len_max();
            }
        }
        let goes_on = self.bulk.pulled(now, from, news, bytes, !(news.more && useful));
        if !goes_on {
            out.push(Output::Count(Counter::PullsGivenUp, 1));
        }
        useful && goes_on
    }

    /// Applies updates, node by node. Updates that would break a copy are refused, counted and reported.
    pub fn apply(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) {
        for delta in &news.nodes {
            let before = self.before(&delta.node);
            match self.apply_one(now, from, delta, &before, out) {
                Outcome::News => {
                    self.push.note(before.line, Some(from), true);
                }
                Outcome::Refused(refusal) => refused(from, delta, refusal, out),
                Outcome::Known | Outcome::Unintroduced | Outcome::Ignored => {}
            }
        }
        self.tell_news(now, out);
    }

    /// The maps as readers may have them now; `None` if nothing changed since the last call.
    pub fn view(&mut self) -> Option<OrdMap<NodeId, Arc<NodeView>>> {
        let changed = self.published.take_changed();
        if changed.is_empty() {
            return None;
        }
        for node in changed {
            let view = self.map_of(&node).map(NodeMap::view);
            self.published.set_view(node, view);
        }
        Some(self.published.view().clone())
    }

    // --- starting

    fn restored(&mut self, stored: Stored, now: Time, wall: SystemTime) -> NodeMap {
        let head = stored.head;
        let by_clock = Generation::of(wall);
        let mut map = NodeMap::new(head.generation, head.ancestry);
        for (key, entry) in stored.entries {
            self.restore_entry(&mut map, now, wall, key, entry);
        }
        map.restore(head.max_version, head.gc_floor);
        map.forget_batches();
        self.own.tombstones.restore(now, &map);
        if head.generation == Generation::ZERO {
            return NodeMap::new(by_clock.max(Generation(1)), Vec::new());
        }
        map.renew(by_clock.max(head.generation.next()));
        if let Some(tags) = stored.tags {
            self.config.record.tags = tags;
        }
        map
    }

    fn restore_entry(
        &mut self,
        map: &mut NodeMap,
        now: Time,
        wall: SystemTime,
        key: Key,
        entry: StoredEntry,
    ) {
        let expires = entry.expires.map(|at| now + at.duration_since(wall).unwrap_or_default());
        if let Some(at) = expires {
            self.own.expiries.insert(at, key.clone());
        }
        let content = match entry.value {
            Some(value) => Content::Value { value, expires },
            None => Content::Tombstone,
        };
        map.write(key, Entry { version: entry.version, content });
    }
}

/// Charges the cost of a refused update to its sender.
fn hold_against(peer: &NodeId, price: u32, out: &mut Vec<Output>) {
    if price > 0 {
        let (peer, why) = (peer.clone(), Misconduct::RefusedNews);
        out.push(Output::Transport(TransportInput::HoldAgainst { peer, price, why }));
    }
}

/// Refuses an update, and charges its cost to the sender.
fn refused(from: &NodeId, delta: &NodeDelta, refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Count(Counter::NewsRefused, 1));
    hold_against(from, refusal.price(), out);
    // If an update lost a race against another one, no peer is at fault.
    if matches!(
        refusal,
        Refusal::Malformed
            | Refusal::TooLarge
            | Refusal::Unsigned
            | Refusal::Forged
            | Refusal::BadCredential
            | Refusal::Misplaced
    ) {
        let (from, about) = (from.clone(), delta.node.clone());
        out.push(Output::Event(Event::Error(Problem::NewsRefused { from, about, refusal })));
    }
}

/// A node's line before a change, and whether it was in our digest.
#[derive(Debug)]
struct Before {
    line: DigestEntry,
    told: bool,
}

/// The result of an update of one node.
#[derive(Debug)]
enum Outcome {
    /// It is new.
    News,
    /// It was here already.
    Known,
    /// It would have broken the copy.
    Refused(Refusal),
    /// The node has not been introduced.
    Unintroduced,
    /// This node does not take it.
    Ignored,
}

/// The reason for sending a peer the state that it lacks.
#[derive(Clone, Copy, Debug)]
enum Occasion<'a> {
    /// It pulls.
    Pulled,
    /// It reported how far it is. A batch larger than the budget it may pull: several peers might send it at
    /// once.
    Told {
        /// The nodes whose state it is being fed.
        fed: Option<&'a NodeId>,
    },
}

/// An update that came by an exchange. If it is more than a little it is only announced to the others, so it
/// is not cut from the map.
fn relayed(now: Time, map: &NodeMap, fresh: Fresh) -> Option<Item> {
    let whole = |bytes, entries| {
        let mut budget = Budget { bytes, entries, untouched: false };
        let news = map.delta(now, &fresh.since, &mut budget);
        news.map(|(delta, cut)| {
            let bytes = bytes.saturating_sub(budget.bytes).saturating_sub(delta.sealed_len_max());
            (delta, cut, bytes)
        })
    };
    let short = FLOOD_BYTES_MAX + map.sealed_len_max();
    if let Some((delta, false, bytes)) = whole(short, FLOOD_BYTES_MAX)
        && bytes <= FLOOD_BYTES_MAX
    {
        return Some(Item { delta, bytes, noted: false, fresh });
    }
    let (mut delta, cut, bytes) = whole(usize::MAX, 0)?;
    if cut {
        delta.to = map.max_version();
    }
    Some(Item { delta, bytes, noted: cut, fresh })
}

fn hand_out(items: &[Item], shares: Vec<(NodeId, Told)>, out: &mut Vec<Output>) {
    let mut groups: BTreeMap<(Vec<usize>, Vec<usize>), Vec<NodeId>> = BTreeMap::new();
    for (peer, Told { news, notes }) in shares {
        groups.entry((news, notes)).or_default().push(peer);
    }
    for ((news, notes), peers) in groups {
        if !notes.is_empty() {
            let have = |index: usize| {
                let delta = &items[index].delta;
                let (generation, version) = (delta.generation, delta.to);
                Have { node: delta.node.clone(), generation, version }
            };
            for notes in notes.chunks(OWNERS_MAX) {
                let haves = notes.iter().map(|index| have(*index)).collect();
                tell(peers.clone(), Gossip::Have(haves), out);
            }
        }
        if !news.is_empty() {
            let nodes = news.into_iter().map(|index| items[index].delta.clone()).collect();
            tell(peers, Gossip::Push(Delta { nodes, more: false }), out);
        }
    }
}

fn tell(to: Vec<NodeId>, gossip: Gossip, out: &mut Vec<Output>) {
    out.push(Output::Transport(TransportInput::Gossip { to, gossip: Arc::new(gossip) }));
}
