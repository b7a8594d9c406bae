//! This node's map and its copies of all others: what the storage actor wraps.
//!
//! Pure: time is handed in, what is to be persisted or told comes out. Only the owner writes a map;
//! everybody else's are changed by news alone, and only as [`NodeMap::apply`] allows.

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

/// How many lines a digest has at least when a sketch is sent instead: 32 cells take 490 bytes, and
/// the sketch one more way across the network; the lines of 64 nodes take 1,700.
pub const SKETCH_LINES_MIN: usize = 64;

/// What the owner's map and the copies may hold, and for how long.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node.
    pub node: NodeId,
    /// What it says of itself at the start.
    pub record: NodeRecord,
    /// What one node may hold.
    pub limits: MapLimits,
    /// Most nodes to be known at once.
    pub peers_max: usize,
    /// Most bytes of one delta, unless a single version is larger.
    pub delta_bytes: usize,
    /// Most entries of one delta, unless a single version has more.
    pub delta_entries: usize,
    /// How long a tombstone is kept at least.
    pub tombstone_grace: Duration,
    /// How long a dead peer is kept. A node that stood still for longer drops what it knew of others.
    pub forget_after: Duration,
    /// What the cluster's sketches are hashed with. Nodes with different keys exchange full digests.
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
    /// What is to be told to whom.
    push: Push,
    bulk: Bulk,
    /// Who has which version, while that is being asked.
    waves: Waves,
    /// Who asks who hears whom.
    questions: Questions,
    accusations: Accusations,
    signing: Signing,
    revoked: Revoked,
    /// What others may still have this node do: begin other lives of theirs, take verdicts over.
    quotas: Quotas,
    /// Who came back with less than it had, and what others say of this node's own past.
    returned: ReturnedPeers,
}

impl Replica {
    /// Starts a new life of the node on what the store kept, and on the copies that an earlier
    /// storage actor of this process had published, if there was one. The first output persists the
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

    /// Takes over copies that another node of this process holds, and tells nobody. `sums`: the sketch
    /// of them and this node's own line, if it is known.
    pub fn adopt(&mut self, copies: BTreeMap<NodeId, Arc<NodeMap>>, sums: Option<Sketch>) {
        self.copies = copies;
        self.published.outdate();
        match sums {
            Some(sums) => self.published.set_sketch(sums),
            None => self.sum_all(),
        }
    }

    /// From now on copies are shared with other nodes of this process, as far as they are equal, and
    /// nothing is kept for readers: [`Replica::view`] shows no change, and a digest is made anew each
    /// time. For those who run thousands of nodes in one process.
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

    /// Whether this process has begun a later life since its name was heard, with a proof.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.own.name.renewed()
    }

    /// The same, with a proof or upon what several members said.
    #[must_use]
    pub const fn has_answered_for_its_name(&self) -> bool {
        self.own.name.has_answered()
    }

    /// Gives what the numbers of this node's questions are made of: 32 random bytes that nobody else knows.
    pub const fn set_secret(&mut self, secret: [u8; 32]) {
        self.questions.set_key(secret);
    }

    /// Says what the wall clock shows now. It may have been set since the start: a machine without a
    /// battery begins in 1970, where every generation of others lies absurdly far ahead.
    pub fn set_wall(&mut self, now: Time, wall: SystemTime) {
        self.clock.set_wall(now, wall);
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: StorageInput, out: &mut Vec<Output>) {
        self.drop_if_overslept(now, out);
        out.extend(self.signing.take_untold().map(|problem| Output::Event(Event::Error(problem))));
        match input {
            StorageInput::Tick => self.tick(now, out),
            StorageInput::BeginRound(targets) => self.begin_round(targets, out),
            // Every peer that is up to date says our own generation.
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
                // This life may have begun, or gone on, while nobody could be told.
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
    /// Writing what is there already takes no version.
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

    /// Says that the node is leaving, or has left. Whether a later start is to remember it, the caller
    /// decides ([`Change::Left`]).
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
        let told = self.copies.iter().filter(|(node, _)| !self.forgotten.is_retired(*node));
        let mut entries: Vec<_> = told
            .map(|(node, map)| map.digest_entry(node.clone()))
            .chain([self.own.map.digest_entry(self.config.node.clone())])
            .collect();
        entries.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        let digest = Arc::new(Digest { entries });
        self.published.set_digest(&digest);
        digest
    }

    /// Answers a peer's digest: what we want to be told, and what the peer lacks.
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

    /// Takes a peer's answer to our digest: applies its news, and returns what it wants.
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

    /// Asks for the right to pull from a peer that has more than fits one delta. Returns how far we
    /// are, of these nodes or of all; `None` while there is another pull.
    pub fn pull(&mut self, now: Time, from: &NodeId, about: Option<&[NodeId]>) -> Option<Digest> {
        let may = self.bulk.begin_pull(now, from);
        may.then(|| match about {
            None => (*self.digest()).clone(),
            Some(nodes) => self.lines(nodes, &[]).0,
        })
    }

    /// What a peer that pulls lacks, as much as fits one delta, and how far it will be with it.
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

    /// Applies what was pulled from a peer. Returns whether the pull is to go on: not if all of it was
    /// refused, nor if the peer is too slow ([`PULL_BYTES_PER_SECOND_MIN`]).
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

    /// Applies news, node by node. What would break a copy is refused, counted and told.
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

/// Holds the price of news that was refused against the one who sent it.
fn hold_against(peer: &NodeId, price: u32, out: &mut Vec<Output>) {
    if price > 0 {
        let (peer, why) = (peer.clone(), Misconduct::RefusedNews);
        out.push(Output::Transport(TransportInput::HoldAgainst { peer, price, why }));
    }
}

/// Refuses news, and holds its price against the one who sent it.
fn refused(from: &NodeId, delta: &NodeDelta, refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Count(Counter::NewsRefused, 1));
    hold_against(from, refusal.price(), out);
    // News that lost a race against other news is no fault of anybody.
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

/// What came of news of one node.
#[derive(Debug)]
enum Outcome {
    /// It is new.
    News,
    /// It was here already.
    Known,
    /// It would have broken the copy.
    Refused(Refusal),
    /// Nobody has introduced the node.
    Unintroduced,
    /// It is not for us to take.
    Ignored,
}

/// Has each link told its share, those with the same share together.
/// Why a peer is told what it lacks.
#[derive(Clone, Copy, Debug)]
enum Occasion<'a> {
    /// It pulls.
    Pulled,
    /// It said how far it is. A batch larger than the budget it may pull: several tell it at once.
    Told {
        /// Whose news it is being fed.
        fed: Option<&'a NodeId>,
    },
}

/// What came by an exchange. Of more than a little the others are only told that it is to be had, so
/// it is not cut from the map.
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
