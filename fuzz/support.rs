//! A replica with small limits, watched for what must hold whatever it is told.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        digest::Digest,
        exchange::Ask,
        gossip::Gossip,
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        map::{MapLimits, NodeMap},
        message::{LENGTH_BYTES, Message},
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        route::{Output, StorageInput},
        sketch::SketchKey,
        time::Time,
        write::Write,
    },
    store::Stored,
};
use imbl::OrdMap;

/// One of five names; the watched replica is the first.
pub fn name(n: u8) -> NodeId {
    NodeId::new(&format!("n{}", n % 5)).expect("a label")
}

/// News in small numbers, so that they meet.
#[derive(Debug, arbitrary::Arbitrary)]
pub struct News {
    pub node: u8,
    generation: u8,
    ancestry: Vec<(u8, u8)>,
    from: u8,
    to: u8,
    floor: u8,
    record: Option<(u8, bool)>,
    entries: Vec<(u8, u8, Option<(u8, Option<u16>)>)>,
    /// Puts the entries in order, which most honest news is.
    sorted: bool,
}

impl News {
    pub fn into_delta(self) -> NodeDelta {
        let mut entries: Vec<_> = self.entries.into_iter().take(30).map(entry).collect();
        if self.sorted {
            entries.sort_by_key(|entry| entry.version);
            entries.retain(|e| e.version.0 > self.from.into() && e.version.0 <= self.to.into());
        }
        let ancestor = |(g, v): (u8, u8)| (Generation(g.into()), Version(v.into()));
        NodeDelta {
            sealed: None,
            node: name(self.node),
            generation: Generation(self.generation.into()),
            ancestry: self.ancestry.into_iter().take(10).map(ancestor).collect(),
            from: Version(self.from.into()),
            to: Version(self.to.into()),
            horizon: Version(u64::from(self.to) + u64::from(self.floor) % 3),
            torn: Version(u64::from(self.to) / 2 + u64::from(self.from)),
            gc_floor: Version(self.floor.into()),
            verdict: gossipmonger::protocol::verdict::Verdict::default(),
            record: self.record.map(|(version, left)| (Version(version.into()), record(left))),
            entries,
        }
    }
}

fn entry((key, version, content): (u8, u8, Option<(u8, Option<u16>)>)) -> DeltaEntry {
    let content = content.map_or(DeltaContent::Tombstone, |(len, ttl)| DeltaContent::Value {
        value: vec![7; usize::from(len)].into(),
        ttl_ms: ttl.map(u64::from),
    });
    DeltaEntry { key: format!("k{}", key % 30).into(), version: Version(version.into()), content }
}

fn record(left: bool) -> NodeRecord {
    NodeRecord {
        datacenter: Datacenter::new("dc").expect("a label"),
        addresses: vec!["host:1".into()],
        tags: BTreeMap::new(),
        wire: (1, 1),
        status: if left { Status::Left } else { Status::Up },
        incarnation: Incarnation::ZERO,
        severed: BTreeSet::new(),
        not_before: None,
        not_after: None,
    }
}

pub struct Watched {
    replica: Replica,
    now: Time,
    out: Vec<Output>,
    stored: Stored,
    seen: BTreeMap<NodeId, (Generation, Version)>,
    own: (Generation, Version),
}

const LIMITS: MapLimits = MapLimits { keys: 10, bytes: 1_000, key_bytes: 3, value_bytes: 200 };
const DELTA_BYTES: usize = 500;

impl Watched {
    pub fn new() -> Self {
        let mut out = Vec::new();
        let stored = Stored::default();
        let replica = start(stored.clone(), &OrdMap::new(), false, Time::ZERO, &mut out);
        let own = reach(replica.own());
        let mut this = Self { replica, now: Time::ZERO, out, stored, seen: BTreeMap::new(), own };
        this.settle();
        this
    }

    pub fn apply(&mut self, from: u8, delta: &Delta) {
        let own = self.replica.own().entries().clone();
        self.replica.apply(self.now, &name(from), delta, &mut self.out);
        assert!(own == *self.replica.own().entries(), "somebody else wrote our map");
    }

    pub fn merge(&mut self, from: u8, delta: &Delta) {
        let wants = Digest::default();
        let told = self.replica.merge(self.now, &name(from), &wants, delta, &mut self.out);
        assert!(told.is_empty());
    }

    pub fn set(&mut self, key: u8, len: u8, ttl: Option<u16>) {
        let write = Write::set(format!("k{}", key % 30), vec![7; usize::from(len)]);
        let ttl = ttl.map(|millis| Duration::from_millis(millis.into()));
        self.write(Write { ttl, ..write });
    }

    pub fn delete(&mut self, key: u8) {
        self.write(Write::delete(format!("k{}", key % 30)));
    }

    fn write(&mut self, write: Write) {
        if let Ok(written) = self.replica.write(self.now, vec![write], &mut self.out) {
            written.persist.iter().for_each(|change| self.stored.apply(change));
        }
    }

    pub fn pass(&mut self, millis: u16) {
        self.now = self.now + Duration::from_millis(millis.into());
        self.cast(StorageInput::Tick);
    }

    /// Entries of all copies together, at most: of each what it was and what replaces it.
    pub const ENTRIES_MAX: usize = 3 * 2 * 4 * LIMITS.keys;

    pub fn now(&self) -> Time {
        self.now
    }

    pub fn wait(&mut self, millis: u16) {
        self.now = self.now + Duration::from_millis(millis.into());
    }

    /// One turn for what an exchange or a frame asks; what the replica says.
    pub fn serve(&mut self, from: u8, ask: Ask) -> Vec<Output> {
        let mut out = Vec::new();
        self.replica.serve(self.now, &name(from), ask, &mut out);
        self.forget_the_dropped();
        out
    }

    /// One turn for what another machine says; what the replica says.
    pub fn turn(&mut self, input: StorageInput) -> Vec<Output> {
        if let StorageInput::Forget(peer, _) | StorageInput::Remove { peer, .. } = &input {
            self.seen.remove(peer);
        }
        let mut out = Vec::new();
        self.replica.handle(self.now, input, &mut out);
        self.forget_the_dropped();
        out
    }

    /// A replica may drop copies by itself: when it has stood still for too long, or at a removal. Later
    /// news of their owners begins from nothing.
    fn forget_the_dropped(&mut self) {
        let replica = &self.replica;
        self.seen.retain(|peer, _| replica.copy(peer).is_some());
    }

    /// What a turn said is done.
    pub fn settle_with(&mut self, out: Vec<Output>) {
        self.out.extend(out);
        self.settle();
    }

    pub fn cast(&mut self, input: StorageInput) {
        let out = self.turn(input);
        self.out.extend(out);
    }

    /// Somebody tells this unasked.
    pub fn hear(&mut self, from: u8, gossip: Gossip) {
        self.cast(StorageInput::Gossip(name(from), Box::new(gossip)));
    }

    pub fn restart(&mut self) {
        let copies = self.replica.view().unwrap_or_default();
        self.seen.retain(|peer, _| copies.contains_key(peer));
        self.settle();
        let renewed = self.replica.renewed();
        self.replica = start(self.stored.clone(), &copies, renewed, self.now, &mut self.out);
    }

    pub fn answer(&mut self, from: u8, digest: &Digest) {
        let (wants, delta) = self.replica.answer(self.now, &name(from), digest, &mut self.out);
        assert!(wants.is_sorted());
        check_budget(&delta);
    }

    pub fn wants(&mut self, from: u8, digest: &Digest) {
        let nothing = Delta::default();
        let told = self.replica.merge(self.now, &name(from), digest, &nothing, &mut self.out);
        check_budget(&told);
    }

    /// What must hold after every step.
    pub fn check(&mut self) {
        self.settle();
        for (peer, copy) in self.replica.peers() {
            check_map(copy);
            assert!(*peer != name(0));
            assert!(copy.entries().len() <= LIMITS.keys * 4 && copy.bytes() <= LIMITS.bytes * 4);
            let before = self.seen.insert(peer.clone(), reach(copy));
            assert!(before.is_none_or(|before| before <= reach(copy)), "{peer} fell back");
        }
        check_map(self.replica.own());
        assert!(self.own <= reach(self.replica.own()), "our own map fell back");
        self.own = reach(self.replica.own());
        let digest = self.replica.digest();
        assert!(digest.is_sorted() && digest.get(&name(0)).is_some());
        let syn = Message::Syn { digest: (*digest).clone() };
        let frame = syn.encode().expect("it fits a frame");
        assert_eq!(Message::decode(&frame[LENGTH_BYTES..]), Ok(syn));
    }

    fn settle(&mut self) {
        for output in self.out.drain(..) {
            if let Output::Persist(changes) = output {
                changes.iter().for_each(|change| self.stored.apply(change));
            }
        }
    }
}

fn start(
    stored: Stored,
    copies: &OrdMap<NodeId, std::sync::Arc<gossipmonger::protocol::view::NodeView>>,
    renewed: bool,
    now: Time,
    out: &mut Vec<Output>,
) -> Replica {
    let config = ReplicaConfig {
        node: name(0),
        record: record(false),
        limits: LIMITS,
        peers_max: 3,
        delta_bytes: DELTA_BYTES,
        delta_entries: 8,
        tombstone_grace: Duration::from_millis(1_000),
        forget_after: Duration::from_secs(5),
        interval: Duration::from_secs(1),
        sketch_key: SketchKey([7; 16]),
        rules: Default::default(),
    };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(100);
    Replica::start(config, stored, copies, renewed, now, wall, out)
}

fn reach(map: &NodeMap) -> (Generation, Version) {
    (map.generation(), map.max_version())
}

/// What is counted is what is there.
fn check_map(map: &NodeMap) {
    let entries = map.entries();
    let bytes: usize = entries.iter().map(|(k, e)| k.as_str().len() + e.value_len()).sum();
    assert_eq!(map.bytes(), bytes);
    assert_eq!(map.tombstones(), entries.values().filter(|e| e.is_tombstone()).count());
    assert!(entries.values().all(|e| e.version <= map.max_version()));
    let dead = |e: &&gossipmonger::protocol::entry::Entry| e.is_tombstone();
    assert!(entries.values().filter(dead).all(|e| e.version > map.gc_floor()));
}

fn check_budget(delta: &Delta) {
    let message = Message::Ack { delta: delta.clone() };
    let frame = message.encode().expect("it fits a frame");
    let bytes = frame.len() - LENGTH_BYTES - 2;
    let single =
        |node: &NodeDelta| node.entries.windows(2).all(|pair| pair[0].version == pair[1].version);
    assert!(bytes <= DELTA_BYTES || delta.nodes.first().is_some_and(single), "{bytes}: {delta:?}");
    assert_eq!(Message::decode(&frame[LENGTH_BYTES..]), Ok(message));
}
