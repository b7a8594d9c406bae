//! This node's map and its copies of all others: what the storage actor wraps.
//!
//! Pure: time is handed in, what is to be persisted or told comes out. Only the owner writes a map;
//! everybody else's are changed by news alone, and only as [`NodeMap::apply`] allows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::{
    bulk::Bulk,
    delta::{Delta, DeltaEntry, NodeDelta, entry_len_max},
    digest::{Digest, DigestEntry},
    entry::{Content, Entry, Key, Value},
    event::{Event, Problem, ProtocolEvent},
    flow::{Flow, FlowConfig},
    gossip::{Gossip, Have, OWNERS_MAX, Wave},
    id::{Generation, Incarnation, NodeId, Version},
    map::{Applied, Budget, KeyChange, MapLimits, NodeMap, Refusal},
    push::{FLOOD_BYTES_MAX, Fresh, Item, PUSH_BYTES_MAX, Push, Told},
    record::{NodeRecord, RecordError, Status, check_tags},
    route::{
        Counter, DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target, TransportInput,
    },
    sketch::Sketch,
    sketch::SketchKey,
    time::Time,
    verdict::{INCARNATION_MAX, Level, Verdict},
    wave::{Census, Swell, Waves},
};
use crate::store::{Change, Head, KnownPeer, Stored, StoredEntry};

mod reconciliation;
mod serving;

pub use reconciliation::SKETCH_LINES_MIN;

/// Most bytes of one batch, frame overhead included: a batch is one version and is never split.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

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
    /// How long the name of a forgotten peer is remembered, so that it is not taken up again from
    /// hearsay; ten minutes at most.
    pub forget_after: Duration,
    /// What the cluster's sketches are hashed with. Nodes with different keys exchange full digests.
    pub sketch_key: SketchKey,
}

/// All that a node knows.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    own: NodeMap,
    copies: BTreeMap<NodeId, Arc<NodeMap>>,
    /// Where equal copies of other nodes in this process are; who shares them has no readers.
    pool: Option<Arc<dyn CopyPool>>,
    /// Peers no longer told of, soon to be forgotten.
    retired: BTreeSet<NodeId>,
    /// Peers forgotten: news up to this generation is refused until then.
    marks: BTreeMap<NodeId, (Generation, Time)>,
    /// Peers of an earlier run that have not been met in this one, and until when the store keeps them.
    unmet: (BTreeSet<NodeId>, Time),
    /// Own tombstones, oldest first, and when each may be collected.
    tombstones: VecDeque<(Version, Time)>,
    /// Own keys that expire, earliest first.
    expiries: BTreeSet<(Time, Key)>,
    digest: Option<Arc<Digest>>,
    /// The sums of its lines, kept up to date with every change.
    sketch: Sketch,
    bulk: Bulk,
    view: OrdMap<NodeId, Arc<NodeView>>,
    changed: BTreeSet<NodeId>,
    /// The wall clock at the origin of the monotonic one, for what has to outlive the process.
    wall_origin: SystemTime,
    /// This process has already taken a newer generation because its name was heard.
    renewed: bool,
    /// What is to be told to whom.
    push: Push,
    /// How fast own writes are pushed; the own line before the first that waits, and until when at most.
    flow: Flow,
    held: Option<(DigestEntry, Time)>,
    /// Who has which version, while that is being asked.
    waves: Waves,
    /// The wave that asks whether tombstones may go, the version it asks about, when the last one was
    /// sent, and how long to wait for the next.
    collecting: Option<(u64, Version)>,
    collected: (Time, Duration),
    /// What others say of this life and is not refuted yet, and when something last was.
    accused: Option<(Generation, Verdict)>,
    refuted: Option<Time>,
    /// When this is called again.
    armed: Option<Time>,
}

/// Where nodes in one process find equal copies of a peer's map, so that they keep one together.
pub trait CopyPool: std::fmt::Debug + Send + Sync {
    /// Replaces `copy` by an equal one of another node, or keeps it for others to find.
    ///
    /// Copies of one owner are equal if generation, reach, horizon, floor, record and verdict are,
    /// unless [`NodeMap::is_settled`] denies it.
    fn share(&self, owner: &NodeId, copy: &mut Arc<NodeMap>);
}

/// One node's map as readers see it: immutable and cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The owner's life.
    pub generation: Generation,
    /// Earlier lives that this one continues.
    pub ancestry: Vec<(Generation, Version)>,
    /// Every live entry up to here is in `entries`.
    pub max_version: Version,
    /// How far those had got who told it: below here it may lack what was overwritten since.
    pub horizon: Version,
    /// The last write that replaced a part of a batch whose other part still stands.
    pub torn: Version,
    /// Up to which version tombstones are gone.
    pub gc_floor: Version,
    /// The owner's record and its version.
    pub record: Option<(Version, Arc<NodeRecord>)>,
    /// What is thought of the owner in this life.
    pub verdict: Verdict,
    /// All entries, tombstones included.
    pub entries: OrdMap<Key, Entry>,
    /// How many of them are not tombstones.
    pub live_keys: usize,
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The value; `None` deletes the key.
    pub value: Option<Value>,
    /// How long the value stays; `None`: until it is overwritten or deleted.
    pub ttl: Option<Duration>,
}

impl Write {
    /// Sets a key.
    pub fn set(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: Some(value.into()), ttl: None }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self { key: key.into(), value: None, ttl: None }
    }

    /// An upper bound of its bytes on the wire.
    fn encoded_len_max(&self) -> usize {
        entry_len_max(self.key.as_str().len(), self.value.as_ref().map_or(0, |value| value.len()))
    }

    /// The same, gone after `ttl`.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }
}

/// What a batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version it took, or, if it changed nothing, that of the last write.
    pub version: Version,
    /// Whether it changed anything.
    pub changed: bool,
    /// What the store has to keep before the write is acknowledged.
    pub persist: Vec<Change>,
}

/// A write was refused. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is empty or too long.
    #[error("key of {len} bytes refused: 1 to {max} are allowed (limit key_bytes)")]
    Key {
        /// Its length, in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The value is too long.
    #[error(
        "value of {len} bytes for key {key:?} refused: at most {max} are allowed (limit value_bytes)"
    )]
    Value {
        /// Whose value.
        key: Key,
        /// Its length, in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The node would have too many keys.
    #[error("refused: the node would hold {len} keys, at most {max} are allowed (limit keys)")]
    Keys {
        /// How many it would be.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The node would hold too much.
    #[error(
        "refused: the node would hold {len} bytes, at most {max} are allowed (limit state_bytes)"
    )]
    State {
        /// How many bytes it would be.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The batch is too large to become visible at once.
    #[error("batch of {len} bytes refused: at most {max} are allowed (limit BATCH_BYTES_MAX)")]
    Batch {
        /// Its bytes, what frames add included.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A time to live of zero.
    #[error("ttl of zero for key {key:?} refused: delete the key instead")]
    Ttl {
        /// The key.
        key: Key,
    },
    /// Tags or addresses outside their limits.
    #[error(transparent)]
    Record(#[from] RecordError),
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
        let mut this = Self {
            own: NodeMap::default(),
            copies: BTreeMap::new(),
            pool: None,
            retired: BTreeSet::new(),
            marks: BTreeMap::new(),
            unmet: (stored.peers.keys().cloned().collect(), now + config.forget_after),
            tombstones: VecDeque::new(),
            expiries: BTreeSet::new(),
            digest: None,
            sketch: Sketch::new(config.sketch_key),
            bulk: Bulk::default(),
            view: OrdMap::new(),
            changed: BTreeSet::new(),
            wall_origin: origin(now, wall),
            renewed,
            push: Push::new(now),
            flow: Flow::new(FlowConfig { interval: FLOW_INTERVAL }, now),
            held: None,
            waves: Waves::default(),
            collecting: None,
            collected: (now, COLLECT_INTERVAL),
            accused: None,
            refuted: None,
            armed: None,
            config,
        };
        this.own = this.restored(stored, now, wall);
        for (node, view) in copies.iter().filter(|(node, _)| **node != this.config.node) {
            this.copies.insert(node.clone(), Arc::new(NodeMap::from_view(view)));
            this.unmet.0.remove(node);
            this.changed.insert(node.clone());
        }
        let record = this.config.record.clone();
        let persist = this.write_record(record);
        this.sum_all();
        out.push(Output::Persist(persist));
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
        &self.own
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
        self.digest = None;
        match sums {
            Some(sums) => self.sketch = sums,
            None => self.sum_all(),
        }
    }

    /// From now on copies are shared with other nodes of this process, as far as they are equal, and
    /// nothing is kept for readers: [`Replica::view`] shows no change, and a digest is made anew each
    /// time. For those who run thousands of nodes in one process.
    pub fn share_copies(&mut self, pool: Arc<dyn CopyPool>) {
        self.pool = Some(pool);
        self.changed.clear();
        self.digest = None;
    }

    /// The sum of all that is known here.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.sketch.root()
    }

    /// How many peers are known.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.copies.len()
    }

    /// Whether this life has taken a newer generation because its name was heard.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.renewed
    }

    /// Says what the wall clock shows now. It may have been set since the start: a machine without a
    /// battery begins in 1970, where every generation of others lies absurdly far ahead.
    pub fn set_wall(&mut self, now: Time, wall: SystemTime) {
        self.wall_origin = origin(now, wall);
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: StorageInput, out: &mut Vec<Output>) {
        match input {
            StorageInput::Tick => self.tick(now, out),
            StorageInput::BeginRound(targets) => self.begin_round(targets, out),
            // Every peer that is up to date says our own generation.
            StorageInput::HeardOfSelf(generation) if generation <= self.own.generation() => {}
            StorageInput::HeardOfSelf(generation) => self.heard_of_self(now, generation, out),
            StorageInput::Back(peer) => self.confront(&peer, out),
            StorageInput::Accuse(peer, generation, verdict) => {
                self.accuse(&peer, generation, verdict, out);
            }
            StorageInput::Retire(peer) => self.retire(peer),
            StorageInput::Forget(peer) => self.forget(now, &peer, out),
            StorageInput::Linked(peer, up) => {
                if !up {
                    let swells = self.waves.unlinked(now, &peer);
                    self.swell(now, swells, out);
                }
                // This life may have begun, or gone on, while nobody could be told.
                if up {
                    let (node, map) = (self.config.node.clone(), &self.own);
                    let (generation, version) = (map.generation(), map.max_version());
                    tell(
                        vec![peer.clone()],
                        Gossip::Have(vec![Have { node, generation, version }]),
                        out,
                    );
                }
                self.push.linked(peer, up);
            }
            StorageInput::Congested(peer, congested) => self.congested(now, &peer, congested, out),
            StorageInput::Gossip(from, gossip) => self.gossip(now, &from, *gossip, out),
            StorageInput::TellRoot => {
                out.push(Output::Scheduler(SchedulerInput::OwnRoot(self.sketch.root())));
            }
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
            let version = self.own.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        self.check_room(&batch)?;
        let before = self.before(&self.config.node);
        let version = self.own.next_version();
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
            let version = self.own.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        let before = self.before(&self.config.node);
        let mut persist = self.write_record(NodeRecord { tags: tags.clone(), ..old });
        persist.push(Change::Tags(tags));
        self.touched_own(now, before, out);
        Ok(Written { version: self.own.max_version(), changed: true, persist })
    }

    /// Says that the node is leaving, or has left. Whether a later start is to remember it, the caller
    /// decides ([`Change::Left`]).
    pub fn set_status(&mut self, now: Time, status: Status, out: &mut Vec<Output>) -> Written {
        let before = self.before(&self.config.node);
        let persist = self.write_record(NodeRecord { status, ..self.own_record() });
        self.touched_own(now, before, out);
        Written { version: self.own.max_version(), changed: true, persist }
    }

    /// How far all maps reach.
    #[must_use]
    pub fn digest(&mut self) -> Arc<Digest> {
        if let Some(digest) = &self.digest {
            return Arc::clone(digest);
        }
        let told = self.copies.iter().filter(|(node, _)| !self.retired.contains(*node));
        let mut entries: Vec<_> = told
            .map(|(node, map)| map.digest_entry(node.clone()))
            .chain([self.own.digest_entry(self.config.node.clone())])
            .collect();
        entries.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        let digest = Arc::new(Digest { entries });
        self.digest = self.pool.is_none().then(|| Arc::clone(&digest));
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
        self.look_for_self(now, digest, out);
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
        self.look_for_self(now, wants, out);
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
        let delta = self.lacking(now, peer, &theirs, all, Occasion::Pulled);
        self.bulk.told(now, peer, &delta, true);
        theirs.advance(&delta);
        (theirs, delta)
    }

    /// Applies what was pulled from a peer. Returns whether there was any use in it: not if all of it
    /// was refused.
    pub fn take(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) -> bool {
        self.apply(now, from, news, out);
        let useful = news.nodes.iter().any(|delta| {
            let copy =
                self.copies.get(&delta.node).map(|copy| copy.digest_entry(delta.node.clone()));
            copy.is_some_and(|copy| {
                (copy.generation, copy.max_version) >= (delta.generation, delta.to)
            })
        });
        self.bulk.pulled(now, from, news, !(news.more && useful));
        useful
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
        if self.changed.is_empty() {
            return None;
        }
        for node in std::mem::take(&mut self.changed) {
            match self.map_of(&node).map(NodeMap::view) {
                Some(view) => self.view.insert(node, Arc::new(view)),
                None => self.view.remove(&node),
            };
        }
        Some(self.view.clone())
    }

    // --- starting

    fn restored(&mut self, stored: Stored, now: Time, wall: SystemTime) -> NodeMap {
        let head = stored.head;
        let millis = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let by_clock = Generation(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut map = NodeMap::new(head.generation, head.ancestry);
        for (key, entry) in stored.entries {
            self.restore_entry(&mut map, now, wall, key, entry);
        }
        map.restore(head.max_version, head.gc_floor);
        map.forget_batches();
        self.tombstones = VecDeque::from(self.tombstones_of(&map, now));
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
            self.expiries.insert((at, key.clone()));
        }
        let content = match entry.value {
            Some(value) => Content::Value { value, expires },
            None => Content::Tombstone,
        };
        map.write(key, Entry { version: entry.version, content });
    }

    /// The grace of what was deleted before the restart begins anew.
    fn tombstones_of(&self, map: &NodeMap, now: Time) -> Vec<(Version, Time)> {
        let due = self.collection(now);
        let dead = map.entries().iter().filter(|(_, entry)| entry.is_tombstone());
        let mut dead: Vec<_> = dead.map(|(_, entry)| (entry.version, due)).collect();
        dead.sort_unstable();
        dead
    }

    // --- writing

    fn check_write(&self, write: &Write) -> Result<(), WriteError> {
        let (key, limits) = (&write.key, &self.config.limits);
        // What is here can be deleted, also if the limits were higher when it was written.
        if write.value.is_none() && self.own.entries().contains_key(key) {
            return Ok(());
        }
        let len = key.as_str().len();
        if !(1..=limits.key_bytes).contains(&len) {
            return Err(WriteError::Key { len, max: limits.key_bytes });
        }
        let len = write.value.as_ref().map_or(0, |value| value.len());
        if len > limits.value_bytes {
            return Err(WriteError::Value { key: key.clone(), len, max: limits.value_bytes });
        }
        if write.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(WriteError::Ttl { key: key.clone() });
        }
        Ok(())
    }

    /// Drops what would change nothing, and all but the last write of a key.
    fn without_idle(&self, now: Time, batch: Vec<Write>) -> Vec<Write> {
        let mut sorted = batch;
        // Stable, and little work for what is in order already, as large batches mostly are.
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut last: Vec<Write> = Vec::with_capacity(sorted.len());
        for write in sorted {
            match last.last_mut() {
                Some(before) if before.key == write.key => *before = write,
                _ => last.push(write),
            }
        }
        last.retain(|write| !self.is_idle(now, write));
        last
    }

    fn is_idle(&self, now: Time, write: &Write) -> bool {
        match (self.own.entries().get(&write.key), &write.value) {
            (None, None) => true,
            (Some(old), None) => old.is_tombstone(),
            (Some(old), Some(value)) => {
                let lasting = matches!(old.content, Content::Value { expires: None, .. });
                lasting && write.ttl.is_none() && old.visible(now) == Some(value)
            }
            (None, Some(_)) => false,
        }
    }

    fn check_room(&self, batch: &[Write]) -> Result<(), WriteError> {
        let limits = &self.config.limits;
        let (mut keys, mut bytes) = (self.own.live_keys(), self.own.bytes());
        let batch_bytes: usize = batch.iter().map(Write::encoded_len_max).sum();
        if batch.len() > 1 && batch_bytes > BATCH_BYTES_MAX {
            return Err(WriteError::Batch { len: batch_bytes, max: BATCH_BYTES_MAX });
        }
        // Far from the limits nobody has to look what is replaced.
        if keys + batch.len() <= limits.keys && bytes + batch_bytes <= limits.bytes {
            return Ok(());
        }
        for write in batch {
            let key = write.key.as_str().len();
            let value = write.value.as_ref().map_or(0, |value| value.len());
            let old = self.own.entries().get(&write.key);
            bytes = (bytes + value).saturating_sub(old.map_or(0, Entry::value_len));
            bytes += if old.is_none() { key } else { 0 };
            keys += usize::from(write.value.is_some());
            keys -= usize::from(old.is_some_and(|old| !old.is_tombstone()));
        }
        let grows = |now: usize, before: usize, max| now > max && now > before;
        if grows(keys, self.own.live_keys(), limits.keys) {
            return Err(WriteError::Keys { len: keys, max: limits.keys });
        }
        if grows(bytes, self.own.bytes(), limits.bytes) {
            return Err(WriteError::State { len: bytes, max: limits.bytes });
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        now: Time,
        version: Version,
        write: Write,
        out: &mut Vec<Output>,
    ) -> Change {
        let Write { key, value, ttl } = write;
        let expires = ttl.map(|ttl| now + ttl);
        self.expect_expiry(&key, expires);
        let content = match value.clone() {
            Some(value) => Content::Value { value, expires },
            None => Content::Tombstone,
        };
        if value.is_none() {
            self.tombstones.push_back((version, self.collection(now)));
        }
        out.push(Output::Event(self.own_event(&key, value.as_ref(), version)));
        self.own.write(key.clone(), Entry { version, content });
        let expires = expires.and_then(|at| self.wall_origin.checked_add(at.since_origin()));
        Change::Put { key, entry: StoredEntry { version, value, expires } }
    }

    fn expect_expiry(&mut self, key: &Key, expires: Option<Time>) {
        if !self.expiries.is_empty()
            && let Some(Entry { content: Content::Value { expires: Some(at), .. }, .. }) =
                self.own.entries().get(key)
        {
            self.expiries.remove(&(*at, key.clone()));
        }
        if let Some(at) = expires {
            self.expiries.insert((at, key.clone()));
        }
    }

    fn own_event(&self, key: &Key, value: Option<&Value>, version: Version) -> Event {
        let (peer, generation) = (self.config.node.clone(), self.own.generation());
        match value.cloned() {
            Some(value) => Event::Updated { peer, key: key.clone(), value, generation, version },
            None => Event::Deleted { peer, key: key.clone(), generation, version },
        }
    }

    fn own_record(&self) -> NodeRecord {
        self.own.record().map_or_else(|| self.config.record.clone(), |record| (**record).clone())
    }

    fn write_record(&mut self, record: NodeRecord) -> Vec<Change> {
        let version = self.own.next_version();
        self.own.write_record(version, record);
        self.digest = None;
        self.shown_anew(self.config.node.clone());
        vec![Change::Head(self.head())]
    }

    fn head(&self) -> Head {
        Head {
            generation: self.own.generation(),
            max_version: self.own.max_version(),
            gc_floor: self.own.gc_floor(),
            ancestry: self.own.ancestry().to_vec(),
        }
    }

    /// The own map has changed: readers and peers are to see it. `before`: its line before that.
    fn touched_own(&mut self, now: Time, before: Before, out: &mut Vec<Output>) {
        self.touched(&before);
        let since = self.held.take().map_or(before.line, |(since, _)| since);
        self.push.note(since, None, false);
        self.tell_news(now, out);
    }

    /// Own keys have changed: after an overload that waits to be pushed. In an exchange whoever asks is
    /// told all the same.
    fn wrote(&mut self, now: Time, before: Before, entries: usize, out: &mut Vec<Output>) {
        self.flow.wrote(now, entries, usize::from(self.held.is_some()));
        if self.flow.may_send(now) {
            return self.touched_own(now, before, out);
        }
        self.touched(&before);
        self.held.get_or_insert((before.line, now + HOLD_MAX));
        self.arm(now, out);
    }

    /// When own writes that wait may be pushed.
    fn held_until(&self, now: Time) -> Option<Time> {
        self.held.as_ref().map(|(_, at_most)| self.flow.next_at(now).min(*at_most))
    }

    /// A node's map has changed, or is gone: readers and sums are to follow.
    fn touched(&mut self, before: &Before) {
        self.sum_up(before);
        self.shown_anew(before.line.node.clone());
    }

    /// Replaces a line in the sums of all lines.
    fn sum_up(&mut self, before: &Before) {
        self.digest = None;
        let key = self.config.sketch_key;
        let node = &before.line.node;
        let old = before.told.then(|| key.symbol(&before.line));
        let new = self.is_told_of(node).then(|| key.symbol(&self.line(node)));
        if old != new {
            old.into_iter().for_each(|symbol| self.sketch.remove(symbol));
            new.into_iter().for_each(|symbol| self.sketch.insert(symbol));
        }
    }

    /// A node's line as it is now.
    fn before(&self, node: &NodeId) -> Before {
        Before { line: self.line(node), told: self.is_told_of(node) }
    }

    /// Whether a node is in our digest.
    fn is_told_of(&self, node: &NodeId) -> bool {
        *node == self.config.node
            || (self.copies.contains_key(node) && !self.retired.contains(node))
    }

    fn shown_anew(&mut self, node: NodeId) {
        match &self.pool {
            None => {
                self.changed.insert(node);
            }
            Some(pool) => {
                if let Some(copy) = self.copies.get_mut(&node) {
                    pool.share(&node, copy);
                }
            }
        }
    }

    // --- exchanging

    fn begin_round(&mut self, targets: Vec<Target>, out: &mut Vec<Output>) {
        let summary = self.summary();
        out.push(Output::Transport(TransportInput::Round { targets, summary }));
    }

    fn look_for_self(&mut self, now: Time, digest: &Digest, out: &mut Vec<Output>) {
        let Some(entry) = digest.get(&self.config.node) else { return };
        self.judged_by_others(now, entry.generation, entry.verdict, out);
        let later =
            entry.generation == self.own.generation() && entry.max_version > self.own.max_version();
        if entry.generation > self.own.generation() || later {
            self.heard_of_self(now, entry.generation, out);
        }
    }

    /// Somebody has a later state of ours than we do. The first time that may be our own past, with
    /// its store lost or the clock set back: take a later generation. The second time it is a twin.
    fn heard_of_self(&mut self, now: Time, heard: Generation, out: &mut Vec<Output>) {
        let ours = self.own.generation();
        if heard < ours {
            return;
        }
        if self.is_absurd(now, heard) {
            out.push(Output::Count(Counter::NewsRefused, 1));
            return;
        }
        out.push(Output::Count(Counter::NameConflicts, 1));
        if self.renewed {
            out.push(Output::Stop(Problem::Displaced { heard }));
            return;
        }
        self.renewed = true;
        let before = self.before(&self.config.node);
        self.own.renew_alone(heard.next());
        let persist = self.write_record(self.own_record());
        out.push(Output::Persist(persist));
        out.push(Output::Event(Event::Error(Problem::NameConflict { heard, ours })));
        self.touched_own(now, before, out);
    }

    fn is_absurd(&self, now: Time, generation: Generation) -> bool {
        generation.is_absurd(self.wall_origin + now.since_origin())
    }

    /// Of what a peer's digest offers, what we lack.
    fn wants(&self, now: Time, from: &NodeId, digest: &Digest) -> Digest {
        let entries = digest
            .entries
            .iter()
            .filter(|theirs| theirs.node != self.config.node)
            .filter_map(|theirs| self.want(now, from, theirs))
            .collect();
        Digest { entries }
    }

    fn want(&self, now: Time, from: &NodeId, theirs: &DigestEntry) -> Option<DigestEntry> {
        let absurd = self.is_absurd(now, theirs.generation);
        if absurd || self.is_marked(now, from, &theirs.node, theirs.generation) {
            return None;
        }
        let Some(copy) = self.copies.get(&theirs.node) else {
            let room = self.copies.len() < self.config.peers_max;
            return room.then(|| DigestEntry::unknown(theirs.node.clone()));
        };
        let ours = copy.digest_entry(theirs.node.clone());
        // The peer has to hear that somebody writes under its name.
        if theirs.node == *from
            && (ours.generation, ours.max_version) > (theirs.generation, theirs.max_version)
        {
            return Some(ours);
        }
        let newer = (theirs.generation, theirs.max_version) > (ours.generation, ours.max_version)
            || (theirs.generation == ours.generation
                && (theirs.record > ours.record
                    || theirs.gc_floor > ours.gc_floor
                    || theirs.verdict > ours.verdict));
        newer.then_some(ours)
    }

    /// What a peer lacks; what it is being fed comes that way.
    fn tell_peer(&mut self, now: Time, peer: &NodeId, theirs: &Digest, all: bool) -> Delta {
        let fed = self.bulk.fed(now, peer, theirs);
        let is_fed = fed.is_some();
        let delta = self.lacking(now, peer, theirs, all, Occasion::Told { fed });
        if !is_fed {
            self.bulk.told(now, peer, &delta, false);
        }
        delta
    }

    /// What `theirs` lacks, cut to the budget: nodes the peer has never heard of first, so that the
    /// large do not starve the small, then the most outdated. `all`: nodes that `theirs` does not
    /// list are unknown to it; otherwise it wants only what it lists.
    fn lacking(
        &self,
        now: Time,
        peer: &NodeId,
        theirs: &Digest,
        all: bool,
        occasion: Occasion<'_>,
    ) -> Delta {
        let mut left_out = false;
        let fed = match occasion {
            Occasion::Pulled => None,
            Occasion::Told { fed } => fed,
        };
        let mut stale: Vec<(bool, u64, DigestEntry)> = Vec::new();
        let mut consider = |entry: DigestEntry| {
            let Some(map) = self.map_of(&entry.node) else { return };
            if entry.generation == Generation::ZERO && self.is_gone(&entry.node) {
                return;
            }
            if let Some(versions) = map.staleness(&entry) {
                if fed == Some(&entry.node) {
                    left_out = true;
                    return;
                }
                stale.push((entry.generation == Generation::ZERO, versions, entry));
            }
        };
        if all {
            let nodes = self.copies.keys().chain([&self.config.node]);
            nodes
                .filter(|node| *node != peer && !self.retired.contains(*node))
                .map(|node| match theirs.get(node) {
                    Some(entry) => entry.clone(),
                    None => DigestEntry::unknown(node.clone()),
                })
                .for_each(&mut consider);
        } else {
            let listed = theirs.entries.iter().filter(|e| e.node != *peer);
            listed.cloned().for_each(&mut consider);
        }
        // Unknown ones: the small before the large. Known ones: the most outdated first.
        stale.sort_by_key(|(unknown, versions, _)| {
            (!unknown, if *unknown { *versions } else { u64::MAX - versions })
        });
        let pulled = matches!(occasion, Occasion::Pulled);
        let mut news = self.cut(now, stale.into_iter().map(|(_, _, entry)| entry), pulled);
        news.more |= left_out;
        news
    }

    /// What of these there is room for. `untouched`: the first version in any case.
    fn cut(&self, now: Time, stale: impl Iterator<Item = DigestEntry>, untouched: bool) -> Delta {
        let mut budget = Budget {
            bytes: self.config.delta_bytes.saturating_sub(DELTA_FIXED_BYTES_MAX),
            entries: self.config.delta_entries,
            untouched,
        };
        let mut news = Delta::default();
        for entry in stale {
            let Some(map) = self.map_of(&entry.node) else { continue };
            match map.delta(now, &entry, &mut budget) {
                Some((delta, cut)) => {
                    news.more |= cut;
                    if !cut || delta.to > delta.from || delta.record.is_some() {
                        news.nodes.push(delta);
                    }
                }
                None => news.more = true,
            }
        }
        news
    }

    fn map_of(&self, node: &NodeId) -> Option<&NodeMap> {
        if *node == self.config.node { Some(&self.own) } else { self.copy(node) }
    }

    // --- applying

    /// The line of a node in our digest.
    fn line(&self, node: &NodeId) -> DigestEntry {
        match self.map_of(node) {
            Some(map) => map.digest_entry(node.clone()),
            None => DigestEntry::unknown(node.clone()),
        }
    }

    fn apply_one(
        &mut self,
        now: Time,
        from: &NodeId,
        delta: &NodeDelta,
        before: &Before,
        out: &mut Vec<Output>,
    ) -> Outcome {
        out.push(Output::Count(Counter::EntriesReceived, delta.entries.len() as u64));
        if delta.node == self.config.node {
            // A relay may know more of us than we do, but only we write our map.
            if delta.generation > self.own.generation() {
                self.heard_of_self(now, delta.generation, out);
            }
            self.judged_by_others(now, delta.generation, delta.verdict, out);
            return Outcome::Ignored;
        }
        if self.is_absurd(now, delta.generation) {
            return Outcome::Refused(Refusal::Malformed);
        }
        if self.is_marked(now, from, &delta.node, delta.generation) {
            return Outcome::Ignored;
        }
        let known = self.copies.contains_key(&delta.node);
        if !known && delta.record.is_none() {
            out.push(Output::Count(Counter::UnknownPeers, 1));
            let peer = delta.node.clone();
            out.push(Output::Protocol(ProtocolEvent::UnknownPeer { peer }));
            return Outcome::Unintroduced;
        }
        if !known && self.copies.len() >= self.config.peers_max {
            out.push(Output::Count(Counter::PeersShed, 1));
            return Outcome::Ignored;
        }
        if self.copies.get(&delta.node).is_some_and(|copy| copy.covers(delta)) {
            return Outcome::Known;
        }
        let copy = Arc::make_mut(self.copies.entry(delta.node.clone()).or_default());
        let applied = copy.apply(now, delta, &self.config.limits);
        // What is thought of a node does not depend on how much of its keys is here.
        let judged = copy.generation() == delta.generation && copy.judge(delta.verdict);
        let outcome = match applied {
            Ok(applied) => self.applied(delta, known, applied, before, out),
            Err(refusal) => {
                if !known {
                    self.copies.remove(&delta.node);
                    return Outcome::Refused(refusal);
                }
                Outcome::Refused(refusal)
            }
        };
        if judged {
            if !matches!(outcome, Outcome::News) {
                self.touched(before);
            }
            self.tell_detector(&delta.node, out);
            // The others are to hear it whatever we lack.
            if matches!(outcome, Outcome::Refused(_)) {
                self.push.note(before.line.clone(), Some(from), false);
            }
            return if matches!(outcome, Outcome::Known) { Outcome::News } else { outcome };
        }
        outcome
    }

    fn applied(
        &mut self,
        delta: &NodeDelta,
        known: bool,
        applied: Applied,
        before: &Before,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let peer = &delta.node;
        let news = applied.generation || applied.record || applied.advanced;
        if !news {
            return Outcome::Known;
        }
        if applied.generation {
            self.marks.remove(peer);
        }
        // It lives anew, or has refuted that it is dead: the others tell of it again.
        if applied.generation || (applied.record && !self.is_gone(peer)) {
            self.retired.remove(peer);
        }
        self.touched(before);
        if applied.generation || applied.record {
            self.unmet.0.remove(peer);
            self.introduce(peer, known, out);
        }
        out.push(Output::Count(Counter::EntriesApplied, delta.entries.len() as u64));
        let generation = delta.generation;
        out.extend(applied.changes.into_iter().map(|change| {
            let peer = peer.clone();
            Output::Event(match change {
                KeyChange::Updated(key, value, version) => {
                    Event::Updated { peer, key, value, generation, version }
                }
                KeyChange::Deleted(key, version) => {
                    Event::Deleted { peer, key, generation, version }
                }
            })
        }));
        Outcome::News
    }

    fn introduce(&self, peer: &NodeId, known: bool, out: &mut Vec<Output>) {
        let Some(map) = self.copies.get(peer) else { return };
        let Some(record) = map.record() else { return };
        let generation = map.generation();
        out.push(Output::Event(if known {
            Event::PeerChanged { peer: peer.clone(), generation }
        } else {
            Event::NewPeer { peer: peer.clone() }
        }));
        // It may have moved.
        let datacenter = record.datacenter.clone();
        out.push(Output::Scheduler(SchedulerInput::Located(peer.clone(), datacenter)));
        if !known {
            let reach = SchedulerInput::Peer(peer.clone(), Reach::Unheard);
            out.push(Output::Scheduler(reach));
        }
        self.tell_detector(peer, out);
        out.push(Output::Persist(vec![Change::Peer(KnownPeer {
            node: peer.clone(),
            datacenter: record.datacenter.clone(),
            addresses: record.addresses.clone(),
            generation,
            dead: record.status != Status::Up,
        })]));
    }

    // --- what is thought of others, and of us

    fn tell_detector(&self, peer: &NodeId, out: &mut Vec<Output>) {
        let Some(map) = self.copies.get(peer) else { return };
        let Some(record) = map.record() else { return };
        let (generation, status, verdict) = (map.generation(), record.status, map.verdict());
        let peer = peer.clone();
        out.push(Output::Detector(DetectorInput::Member { peer, generation, status, verdict }));
    }

    /// Our detector is convinced: from now on everybody is to know.
    fn accuse(
        &mut self,
        peer: &NodeId,
        generation: Generation,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let before = self.before(peer);
        let Some(copy) = self.copies.get_mut(peer) else { return };
        if copy.generation() == generation && Arc::make_mut(copy).judge(verdict) {
            self.touched(&before);
            self.push.note(before.line, None, false);
            self.tell_detector(peer, out);
        }
    }

    /// Tells a peer what is said of it, so that it can refute that.
    fn confront(&mut self, peer: &NodeId, out: &mut Vec<Output>) {
        let before = self.before(peer);
        if self.retired.remove(peer) {
            self.sum_up(&before);
        }
        let Some(copy) = self.copies.get(peer).filter(|copy| copy.verdict().level > Level::Alive)
        else {
            return;
        };
        if self.push.is_linked(peer) {
            let delta = Delta { nodes: vec![copy.judgement(peer.clone())], more: false };
            tell(vec![peer.clone()], Gossip::Push(delta), out);
        }
    }

    /// Refutes what others say of us in this life.
    fn judged_by_others(
        &mut self,
        now: Time,
        generation: Generation,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let record = self.own_record();
        let ours = Verdict::alive(record.incarnation);
        let absurd = verdict.incarnation > INCARNATION_MAX;
        let left = record.status == Status::Left;
        if generation != self.own.generation() || verdict <= ours || left || absurd {
            return;
        }
        if self.refuted.is_some_and(|at| now.since(at) < REFUTE_INTERVAL) {
            self.accused = self.accused.max(Some((generation, verdict)));
            return self.arm(now, out);
        }
        self.refuted = Some(now);
        let before = self.before(&self.config.node);
        let incarnation = match verdict.level {
            Level::Alive => verdict.incarnation,
            Level::Suspect | Level::Dead => verdict.incarnation.next(),
        };
        // Nothing is beyond the last incarnation but another life.
        let incarnation = if incarnation > INCARNATION_MAX {
            self.own.renew(generation.next());
            Incarnation::ZERO
        } else {
            incarnation
        };
        out.push(Output::Count(Counter::Refutations, 1));
        let persist = self.write_record(NodeRecord { incarnation, ..record });
        out.push(Output::Persist(persist));
        self.touched_own(now, before, out);
    }

    // --- news

    /// Tells what is new, if it is time to, and asks for what others have and has not come.
    fn tell_news(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.held_until(now).is_some_and(|at| at <= now)
            && let Some((since, _)) = self.held.take()
        {
            self.push.note(since, None, false);
        }
        let fresh = self.push.take(now);
        if !fresh.is_empty() {
            let items = self.items(now, fresh);
            let bulk = &self.bulk;
            let fed = |peer: &NodeId, owner: &NodeId| bulk.is_feeding(now, peer, owner);
            let shares = self.push.share(now, &items, fed);
            hand_out(&items, shares, out);
            self.pace(now, &items);
        }
        for (from, have) in self.push.overdue(now) {
            let coming = self.bulk.is_coming(now, &have.node);
            if self.lacks(&have) && self.push.is_linked(&from) && !coming {
                out.push(Output::Count(Counter::Grafts, 1));
                tell(vec![from], Gossip::Graft(vec![self.line(&have.node)]), out);
            }
        }
        self.arm(now, out);
    }

    /// Counts what has been told of this node's own, and looks whether the links could take it.
    fn pace(&mut self, now: Time, items: &[Item]) {
        let own = items.iter().filter(|item| item.delta.node == self.config.node);
        let entries: usize = own.map(|item| item.delta.entries.len()).sum();
        if entries > 0 {
            self.flow.sent(now, entries, usize::from(self.held.is_some()));
        }
        if self.push.is_crowded(now) {
            self.flow.overflowed(now);
        } else {
            self.flow.fitted(now);
        }
    }

    /// Cuts the news from the maps as they are now. What does not fit follows.
    fn items(&mut self, now: Time, fresh: Vec<Fresh>) -> Vec<Item> {
        let mut budget =
            Budget { bytes: PUSH_BYTES_MAX, entries: self.config.delta_entries, untouched: true };
        let mut items = Vec::with_capacity(fresh.len());
        for fresh in fresh {
            let node = &fresh.since.node;
            if self.retired.contains(node) {
                continue;
            }
            let Some(map) = self.map_of(node) else { continue };
            if map.staleness(&fresh.since).is_none() {
                continue;
            }
            if fresh.relayed {
                items.extend(relayed(now, map, fresh));
                continue;
            }
            let (room, full) = (budget.bytes, map.digest_entry(node.clone()));
            let Some((delta, cut)) = map.delta(now, &fresh.since, &mut budget) else {
                self.push.note(fresh.since, fresh.except.as_ref(), fresh.relayed);
                continue;
            };
            if cut {
                let since = DigestEntry { max_version: delta.to, ..full };
                self.push.note(since, fresh.except.as_ref(), fresh.relayed);
            }
            let bytes = room.saturating_sub(budget.bytes);
            items.push(Item { delta, bytes, noted: false, fresh });
        }
        items
    }

    /// A link has no room any more, or has room again: then it gets what it has missed.
    fn congested(&mut self, now: Time, peer: &NodeId, congested: bool, out: &mut Vec<Output>) {
        let mut owed = self.push.congested(peer, congested);
        owed.retain(|line| !self.bulk.is_feeding(now, peer, &line.node));
        if owed.is_empty() {
            return;
        }
        let news = self.cut(now, owed.into_iter(), true);
        let more = news.more;
        tell(vec![peer.clone()], Gossip::Push(news), out);
        if more && self.push.may_begin(now, peer) {
            self.begin_round(vec![Target::Peer(peer.clone())], out);
        }
    }

    fn gossip(&mut self, now: Time, from: &NodeId, gossip: Gossip, out: &mut Vec<Output>) {
        match gossip {
            Gossip::Root(root) => {
                out.push(Output::Scheduler(SchedulerInput::Root(from.clone(), root)));
            }
            Gossip::Push(news) => self.pushed(now, from, &news, out),
            Gossip::Have(haves) => {
                for have in haves {
                    if self.lacks(&have) {
                        self.push.heard_of(now, from, have);
                    }
                }
            }
            Gossip::Graft(lines) => self.grafted(now, from, lines, out),
            Gossip::Prune(owners) => self.push.pruned(from, &owners),
            Gossip::Wave(wave) => self.waved(now, from, wave, out),
            Gossip::Echo(echo) => {
                let swells = self.waves.echo(now, from, echo);
                self.swell(now, swells, out);
            }
        }
    }

    /// News that a peer tells unasked. What does not connect to what is here is asked for.
    fn pushed(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) {
        let (mut pruned, mut asked) = (Vec::new(), Vec::new());
        for delta in &news.nodes {
            let before = self.before(&delta.node);
            match self.apply_one(now, from, delta, &before, out) {
                Outcome::News => {
                    self.push.arrived(from, &delta.node);
                    self.push.note(before.line, Some(from), false);
                }
                Outcome::Known => {
                    out.push(Output::Count(Counter::PushesRepeated, 1));
                    let bytes = delta.entries.iter().map(DeltaEntry::encoded_len_max).sum();
                    let has_keys = !delta.entries.is_empty();
                    // The owner's own edge is the last to be given up.
                    let relayed = *from != delta.node;
                    if relayed && has_keys && self.push.repeated(from, &delta.node, bytes) {
                        pruned.push(delta.node.clone());
                    }
                }
                Outcome::Unintroduced if delta.verdict.level != Level::Dead => {
                    asked.push(before.line);
                }
                Outcome::Refused(Refusal::Gap | Refusal::Collected) => {
                    out.push(Output::Count(Counter::PushGaps, 1));
                    if !self.bulk.is_coming(now, &delta.node) {
                        asked.push(self.line(&delta.node));
                    }
                }
                Outcome::Refused(refusal) => refused(from, delta, refusal, out),
                Outcome::Unintroduced | Outcome::Ignored => {}
            }
        }
        asked.truncate(OWNERS_MAX);
        pruned.truncate(OWNERS_MAX);
        if !pruned.is_empty() {
            tell(vec![from.clone()], Gossip::Prune(pruned), out);
        }
        if !asked.is_empty() {
            tell(vec![from.clone()], Gossip::Graft(asked), out);
        }
    }

    /// A peer asks for what it lacks of some owners.
    fn grafted(
        &mut self,
        now: Time,
        from: &NodeId,
        lines: Vec<DigestEntry>,
        out: &mut Vec<Output>,
    ) {
        lines.iter().for_each(|line| self.push.grafted(from, &line.node));
        let told = |line: &DigestEntry| {
            line.node != *from
                && !self.retired.contains(&line.node)
                && !self.bulk.is_feeding(now, from, &line.node)
        };
        let lacking = lines.into_iter().filter(told).filter(|line| {
            self.map_of(&line.node).is_some_and(|map| map.staleness(line).is_some())
        });
        let lacking: Vec<_> = lacking.collect();
        let news = self.cut(now, lacking.into_iter(), true);
        let more = news.more;
        if !news.is_empty() {
            tell(vec![from.clone()], Gossip::Push(news), out);
        }
        if more && self.push.may_begin(now, from) {
            // It is far behind: that is what exchanges are for.
            self.begin_round(vec![Target::Peer(from.clone())], out);
        }
    }

    fn lacks(&self, have: &Have) -> bool {
        let Some(map) = self.map_of(&have.node) else { return true };
        have.node != self.config.node
            && (have.generation, have.version) > (map.generation(), map.max_version())
    }

    // --- who has what

    /// Asks everybody who has a version of ours, for so long. [`Output::Counted`] answers, with the
    /// number returned here.
    pub fn count(
        &mut self,
        now: Time,
        version: Version,
        patience: Duration,
        out: &mut Vec<Output>,
    ) -> u64 {
        let about = (self.own.generation(), version);
        let links = self.asked();
        let (id, swells) = self.waves.begin(now, &self.config.node, about, links, patience);
        self.swell(now, swells, out);
        self.arm(now, out);
        id
    }

    fn waved(&mut self, now: Time, from: &NodeId, wave: Wave, out: &mut Vec<Output>) {
        let has = wave.origin == self.config.node
            || self.copies.get(&wave.origin).is_some_and(|copy| {
                (copy.generation(), copy.max_version()) >= (wave.generation, wave.version)
            });
        let own = Census {
            have: usize::from(has),
            lack: usize::from(!has),
            behind: if has { Vec::new() } else { vec![self.config.node.clone()] },
            complete: true,
        };
        let links = self.asked();
        let swells = self.waves.wave(now, from, wave, own, links);
        self.swell(now, swells, out);
    }

    /// Whom a wave goes to: who is dead does not answer, and nobody is to wait for it.
    fn asked(&self) -> BTreeSet<NodeId> {
        self.push.links().filter(|peer| !self.is_gone(peer)).cloned().collect()
    }

    fn swell(&mut self, now: Time, swells: Vec<Swell>, out: &mut Vec<Output>) {
        for swell in swells {
            match swell {
                Swell::Pass(to, wave) => tell(to, Gossip::Wave(wave), out),
                Swell::Answer(to, echo) => tell(vec![to], Gossip::Echo(echo), out),
                Swell::Over(id, census) => match self.collecting {
                    Some((asked, version)) if asked == id => {
                        self.collecting = None;
                        self.collect_passed(now, version, &census, out);
                    }
                    _ => out.push(Output::Counted(id, census)),
                },
            }
        }
    }

    /// Asks whether everybody has passed the tombstones, so that they need not wait for their time.
    fn ask_to_collect(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = now >= self.collected.0 + self.collected.1;
        let Some((version, _)) = self.tombstones.back() else { return };
        if !due || self.collecting.is_some() || self.push.links().next().is_none() {
            return;
        }
        let version = *version;
        // Each asks everybody: what is in vain is tried less and less often.
        self.collected = (now, (self.collected.1 * 2).min(COLLECT_INTERVAL_MAX));
        let about = (self.own.generation(), version);
        let links = self.asked();
        let patience = COLLECT_INTERVAL / 2;
        let (id, swells) = self.waves.begin(now, &self.config.node, about, links, patience);
        self.collecting = Some((id, version));
        self.swell(now, swells, out);
    }

    /// Drops the tombstones that every live peer has passed. Whoever was not asked, since it seems
    /// to be dead, is told the whole map if it comes back.
    fn collect_passed(
        &mut self,
        now: Time,
        version: Version,
        census: &Census,
        out: &mut Vec<Output>,
    ) {
        let live = 1 + self.copies.keys().filter(|peer| !self.is_gone(peer)).count();
        if !census.complete || census.lack > 0 || census.have < live {
            return;
        }
        self.collected.1 = COLLECT_INTERVAL;
        while self.tombstones.front().is_some_and(|(at, _)| *at <= version) {
            self.tombstones.pop_front();
        }
        self.raise_floor(now, version, out);
    }

    // --- forgetting

    /// Whether `from` tells of a life that was forgotten a short while ago. Who tells of itself is
    /// there.
    fn is_marked(&self, now: Time, from: &NodeId, node: &NodeId, generation: Generation) -> bool {
        let marked = |(upto, until): &(Generation, Time)| generation <= *upto && now < *until;
        node != from && self.marks.get(node).is_some_and(marked)
    }

    /// Whether a peer is dead or has left.
    fn is_gone(&self, node: &NodeId) -> bool {
        let over = |copy: &Arc<NodeMap>| {
            copy.verdict().level == Level::Dead
                || copy.record().is_some_and(|r| r.status == Status::Left)
        };
        self.copies.get(node).is_some_and(over)
    }

    fn retire(&mut self, peer: NodeId) {
        let before = self.before(&peer);
        if self.copies.contains_key(&peer) && self.retired.insert(peer) {
            self.sum_up(&before);
        }
    }

    fn forget(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        // Even if nothing is left to forget here: who asked has to hear that it is gone.
        out.push(Output::Detector(DetectorInput::Forgotten(peer.clone())));
        out.push(Output::Scheduler(SchedulerInput::Forgotten(peer.clone())));
        let before = self.before(peer);
        let Some(copy) = self.copies.remove(peer) else { return };
        self.retired.remove(peer);
        self.touched(&before);
        let until = now + self.config.forget_after.min(MARK_MAX);
        self.marks.insert(peer.clone(), (copy.generation(), until));
        while self.marks.len() > self.config.peers_max {
            let first = self.marks.iter().min_by_key(|(_, (_, until))| *until);
            let Some(node) = first.map(|(node, _)| node.clone()) else { break };
            self.marks.remove(&node);
        }
        for (key, entry) in copy.entries().iter().filter(|(_, e)| !e.is_tombstone()) {
            out.push(Output::Event(Event::Deleted {
                peer: peer.clone(),
                key: key.clone(),
                generation: copy.generation(),
                version: entry.version,
            }));
        }
        out.push(Output::Event(Event::PeerForgotten { peer: peer.clone() }));
        out.push(Output::Transport(TransportInput::Forget(peer.clone())));
        out.push(Output::Persist(vec![Change::ForgetPeer(peer.clone())]));
    }

    // --- time

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.armed = None;
        self.expire(now, out);
        self.collect(now, out);
        if let Some((generation, verdict)) = self.accused.take() {
            self.judged_by_others(now, generation, verdict, out);
        }
        let swells = self.waves.tick(now);
        self.swell(now, swells, out);
        self.ask_to_collect(now, out);
        self.marks.retain(|_, (_, until)| now < *until);
        self.bulk.tidy(now);
        self.forget_unmet(now, out);
        self.wake(now, out);
    }

    /// Whom only the store knows nobody else will forget: it would grow with every restart.
    fn forget_unmet(&mut self, now: Time, out: &mut Vec<Output>) {
        if now < self.unmet.1 || self.unmet.0.is_empty() {
            return;
        }
        let unmet = std::mem::take(&mut self.unmet.0);
        out.push(Output::Persist(unmet.into_iter().map(Change::ForgetPeer).collect()));
    }

    /// Asks to be called when something expires, may be collected or is to be told next.
    fn wake(&mut self, now: Time, out: &mut Vec<Output>) {
        let next = [
            self.expiries.first().map(|(at, _)| *at),
            self.tombstones.front().map(|(_, due)| *due),
            self.marks.values().map(|(_, until)| *until).min(),
        ];
        let wait = next.into_iter().flatten().min().map_or(TICK_MAX, |at| at.since(now));
        let wait = if self.excess_tombstones() > 0 { TICK_MIN } else { wait };
        self.arm_at(now, now + wait.clamp(TICK_MIN, TICK_MAX), out);
        self.arm(now, out);
    }

    /// Asks to be called when there is something to be told or asked.
    fn arm(&mut self, now: Time, out: &mut Vec<Output>) {
        let asks = !self.tombstones.is_empty()
            && self.collecting.is_none()
            && self.push.links().next().is_some();
        let collecting = asks.then(|| self.collected.0 + self.collected.1);
        let (held, refutes) = (self.held_until(now), self.accused.and(self.refuted));
        let refutes = refutes.map(|at| at + REFUTE_INTERVAL);
        let dues = [self.push.due(now), self.waves.due(), collecting, held, refutes];
        for due in dues.into_iter().flatten() {
            self.arm_at(now, due, out);
        }
    }

    fn arm_at(&mut self, now: Time, due: Time, out: &mut Vec<Output>) {
        // A call that has been asked for and is overdue is on its way.
        if self.armed.is_none_or(|armed| due < armed) {
            self.armed = Some(due);
            out.push(Output::Wake(due.since(now)));
        }
    }

    /// Turns own keys that have expired into tombstones: one version for all of them.
    fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut batch = Vec::new();
        while batch.len() < EXPIRIES_PER_TICK_MAX
            && self.expiries.first().is_some_and(|(at, _)| *at <= now)
        {
            batch.extend(self.expiries.pop_first().map(|(_, key)| Write::delete(key)));
        }
        if let Ok(Written { changed: true, persist, .. }) = self.write(now, batch, out) {
            out.push(Output::Persist(persist));
        }
    }

    /// When a tombstone of now may be collected: after the grace, together with those that come a
    /// little later. Each time that the floor rises, the whole map goes once more to whoever is still
    /// behind it, from the start: if it rose with every deletion, a large map would never be through.
    fn collection(&self, now: Time) -> Time {
        let step = (self.config.tombstone_grace / COLLECTIONS_PER_GRACE).as_micros().max(1);
        let due = (now + self.config.tombstone_grace).since_origin().as_micros();
        let due = u64::try_from(due.next_multiple_of(step)).unwrap_or(u64::MAX);
        Time::from_origin(Duration::from_micros(due))
    }

    /// How many tombstones have to go before their time, many at once for the same reason.
    fn excess_tombstones(&self) -> usize {
        let (held, max) = (self.tombstones.len(), self.config.limits.keys);
        if held > max { held - max / 2 } else { 0 }
    }

    fn collect(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut floor = None;
        let mut excess = self.excess_tombstones();
        while self.tombstones.front().is_some_and(|(_, due)| *due <= now) || excess > 0 {
            excess = excess.saturating_sub(1);
            floor = self.tombstones.pop_front().map(|(version, _)| version);
        }
        let Some(floor) = floor else { return };
        self.raise_floor(now, floor, out);
    }

    fn raise_floor(&mut self, now: Time, floor: Version, out: &mut Vec<Output>) {
        let before = self.before(&self.config.node);
        let removed = self.own.collect(floor);
        self.touched_own(now, before, out);
        let mut persist: Vec<_> = removed.into_iter().map(Change::Remove).collect();
        persist.push(Change::Head(self.head()));
        out.push(Output::Persist(persist));
    }
}

impl NodeMap {
    /// The map as readers see it.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let shown = self.shown();
        NodeView {
            generation: self.generation(),
            ancestry: self.ancestry().to_vec(),
            max_version: shown.max_version,
            horizon: self.horizon(),
            torn: self.torn(),
            gc_floor: shown.gc_floor,
            record: self.record().map(|record| (self.record_version(), Arc::clone(record))),
            verdict: self.verdict(),
            entries: shown.entries,
            live_keys: shown.live_keys,
        }
    }

    /// The map that readers saw.
    #[must_use]
    pub fn from_view(view: &NodeView) -> Self {
        let mut map = Self::new(view.generation, view.ancestry.clone());
        for (key, entry) in &view.entries {
            map.write(key.clone(), entry.clone());
        }
        if let Some((version, record)) = &view.record {
            map.restore_record(*version, Arc::clone(record));
        }
        map.restore(view.max_version, view.gc_floor);
        map.restore_horizon(view.horizon);
        map.restore_torn(view.torn);
        map.judge(view.verdict);
        map
    }
}

fn origin(now: Time, wall: SystemTime) -> SystemTime {
    wall.checked_sub(now.since_origin()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn refused(from: &NodeId, delta: &NodeDelta, refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Count(Counter::NewsRefused, 1));
    // News that lost a race against other news is no fault of anybody.
    if matches!(refusal, Refusal::Malformed | Refusal::TooLarge) {
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
        news.map(|(delta, cut)| (delta, cut, bytes - budget.bytes))
    };
    if let Some((delta, false, bytes)) = whole(FLOOD_BYTES_MAX, FLOOD_BYTES_MAX) {
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

/// How often the flow control changes what may be told: as often as the paper's nodes gossip.
const FLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Own writes wait no longer than this to be pushed: by then the comparison of roots tells them.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Bounds of the time between two looks at what expires.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(60);
/// A mark outlives the moment until everybody has noticed a death, since the dead are not told of
/// anew after that, but not by much: it also keeps out, unless they speak for themselves, those who
/// were cut off for so long that everybody forgot them.
const MARK_MAX: Duration = Duration::from_secs(600);
/// How often it is asked whether everybody has passed the tombstones.
const COLLECT_INTERVAL: Duration = Duration::from_secs(2);
const COLLECT_INTERVAL_MAX: Duration = Duration::from_secs(64);
/// Least time between two refutations, each of which floods: a member that accuses without end is not
/// to set the pace. Between a suspicion and a conviction there are some rounds.
const REFUTE_INTERVAL: Duration = Duration::from_millis(200);
/// How often within one grace the floor may rise.
const COLLECTIONS_PER_GRACE: u32 = 4;
/// Most keys that become tombstones in one step; a tombstone of the longest key takes 540 bytes, and
/// a batch at most [`BATCH_BYTES_MAX`].
const EXPIRIES_PER_TICK_MAX: usize = 4_096;
/// Count of nodes (9) and `more` (1).
const DELTA_FIXED_BYTES_MAX: usize = 10;
