//! What the pure machines cost: digests and deltas made, taken in, encoded and decoded, and phi.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::{Duration, SystemTime},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gossipmonger::{
    Write,
    protocol::{
        delta::{Delta, NodeDelta},
        digest::{Digest, DigestEntry},
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        map::MapLimits,
        message::{LENGTH_BYTES, Message},
        phi::{INTERVALS_MAX, PhiWindow},
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        sketch::{
            CELLS_CACHED, CELLS_MAX, CELLS_MORE, Decoder, Progress, Sketch, SketchKey, Symbol,
        },
        time::Time,
    },
    store::Stored,
};
use imbl::OrdMap;

/// Nodes that a digest tells of.
const NODES: [usize; 3] = [10, 100, 1_000];
/// Keys of one delta, and bytes of each value.
const DELTAS: [(usize, usize); 3] = [(10, 100), (1_000, 100), (16, 65_536)];
const LIMITS: MapLimits =
    MapLimits { keys: 1_000_000, bytes: 256 << 20, key_bytes: 512, value_bytes: 1 << 20 };
const DELTA_BYTES: usize = 4 << 20;
const INTERVAL: Duration = Duration::from_secs(1);

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let digests =
        NODES.map(|nodes| (format!("digest/{nodes}"), Message::Syn { digest: digest(nodes) }));
    let deltas = DELTAS.map(|(keys, bytes)| {
        (format!("delta/{keys}x{bytes}"), Message::Ack { delta: delta(keys, bytes) })
    });
    for (name, message) in digests.into_iter().chain(deltas) {
        let frame = message.encode().unwrap();
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("encode", &name), |b| {
            b.iter(|| black_box(&message).encode().unwrap());
        });
        group.bench_function(BenchmarkId::new("decode", &name), |b| {
            b.iter(|| Message::decode(black_box(&frame[LENGTH_BYTES..])).unwrap());
        });
    }
    group.finish();
}

/// Making a digest anew, after one copy has changed; and comparing one that says the same as ours.
fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("digest");
    for nodes in NODES {
        let mut replica = replica_that_knows(nodes);
        let bytes = frame_len(&Message::Syn { digest: (*replica.digest()).clone() });
        group.throughput(Throughput::Bytes(bytes));
        let mut version = 1;
        group.bench_function(BenchmarkId::new("make", nodes), |b| {
            b.iter(|| {
                version += 1;
                let news = news(node(0), version - 1, version);
                replica.apply(now(), &node(0), &news, &mut Vec::new());
                replica.digest()
            });
        });
        let line = replica.digest().get(&node(0)).map(|line| line.max_version);
        assert_eq!(line, Some(Version(version)), "every change was taken up");
        let theirs = replica.digest();
        group.bench_function(BenchmarkId::new("compare", nodes), |b| {
            b.iter(|| replica.answer(now(), &node(0), &theirs, &mut Vec::new()));
        });
        let (wants, delta) = replica.answer(now(), &node(0), &theirs, &mut Vec::new());
        assert!(wants.entries.is_empty() && delta.nodes.is_empty(), "both say the same");
    }
    group.finish();
}

/// Collecting what a peer lacks, of one node's keys.
fn deltas(c: &mut Criterion) {
    let mut group = c.benchmark_group("delta");
    for (keys, bytes) in DELTAS {
        let mut owner = owner(keys, bytes);
        let nothing = Digest { entries: vec![DigestEntry::unknown(owner.node().clone())] };
        group.throughput(Throughput::Bytes(frame_len(&Message::Ack { delta: delta(keys, bytes) })));
        group.bench_function(BenchmarkId::from_parameter(format!("{keys}x{bytes}")), |b| {
            b.iter(|| owner.answer(now(), &node(0), &nothing, &mut Vec::new()));
        });
        let (_, last) = owner.answer(now(), &node(0), &nothing, &mut Vec::new());
        assert_eq!((last.len(), last.more), (keys, false), "each answer has all of it");
    }
    group.finish();
}

/// Taking a delta in, events included.
fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for (keys, bytes) in DELTAS {
        let delta = delta(keys, bytes);
        let mut reader = replica("b");
        reader.apply(now(), &node(0), &delta, &mut Vec::new());
        let taken: usize = reader.peers().map(|(_, copy)| copy.entries().len()).sum();
        assert_eq!(taken, keys, "a replica takes all of it up");
        group.throughput(Throughput::Bytes(frame_len(&Message::Ack { delta: delta.clone() })));
        group.bench_function(BenchmarkId::from_parameter(format!("{keys}x{bytes}")), |b| {
            b.iter_batched(
                || replica("b"),
                |mut replica| {
                    let mut out = Vec::new();
                    replica.apply(now(), &node(0), &delta, &mut out);
                    (replica, out)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// What a changed line costs, what 20 symbols that differ cost to find from the cells that it takes,
/// and what a reconciliation beyond the cells that are kept costs: cells of all lines anew.
fn sketches(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch");
    let key = SketchKey([7; 16]);
    let lines: Vec<_> = (0..10_000).map(|index| line(index, 1)).collect();
    let symbols: Vec<_> = lines.iter().map(|line| key.symbol(line)).collect();
    let ours = Sketch::collect(key, CELLS_CACHED, symbols.iter().copied());
    let mut sketch = ours.clone();
    let mut changing = line(7, 1);
    group.bench_function("change", |b| {
        b.iter(|| {
            sketch.remove(key.symbol(&changing));
            changing.max_version = changing.max_version.next();
            sketch.insert(key.symbol(&changing));
        });
    });
    let mut theirs = Sketch::collect(key, CELLS_MAX, symbols.iter().copied());
    for index in 0..10 {
        theirs.remove(key.symbol(&line(index, 1)));
        theirs.insert(key.symbol(&line(index, 2)));
    }
    let wanted = cells_wanted(&ours, &theirs);
    let batch = theirs.batch(0, wanted);
    let found = Decoder::new(ours.clone()).take(&batch);
    assert!(matches!(found, Progress::Done(_)), "20 symbols are found: {found:?}");
    group.bench_function(BenchmarkId::new("decode20", format!("{wanted}cells")), |b| {
        b.iter(|| Decoder::new(ours.clone()).take(black_box(&batch)));
    });
    for cells in [CELLS_CACHED, 2 * CELLS_CACHED, CELLS_MAX] {
        group.bench_function(BenchmarkId::new("collect10000", cells), |b| {
            b.iter(|| Sketch::collect(key, cells, symbols.iter().copied()));
        });
    }
    group.bench_function("symbols10000", |b| {
        b.iter(|| lines.iter().map(|line| key.symbol(line)).collect::<Vec<Symbol>>());
    });
    group.finish();
}

fn cells_wanted(ours: &Sketch, theirs: &Sketch) -> usize {
    let mut decoder = Decoder::new(ours.clone());
    while let Progress::More(_) = decoder.take(&theirs.batch(decoder.received(), CELLS_MORE)) {}
    decoder.received()
}

fn line(index: usize, version: u64) -> DigestEntry {
    DigestEntry {
        generation: Generation(1_700_000_000_000),
        max_version: Version(version),
        ..DigestEntry::unknown(node(index))
    }
}

fn phi(c: &mut Criterion) {
    let mut window = PhiWindow::new(Time::ZERO, INTERVAL);
    let mut at = Time::ZERO;
    let mut beat = || {
        at = Time::from_origin(at.since_origin() + INTERVAL);
        at
    };
    (0..INTERVALS_MAX).for_each(|_| window.heartbeat(beat()));
    c.bench_function("phi/heartbeat", |b| b.iter(|| window.heartbeat(beat())));
    let late = Time::from_origin(beat().since_origin() + INTERVAL * 3);
    assert!(window.phi(late) > 0.0, "it is late");
    c.bench_function("phi/level", |b| b.iter(|| window.phi(black_box(late))));
}

fn node(index: usize) -> NodeId {
    NodeId::new(&format!("node-{index}")).unwrap()
}

fn now() -> Time {
    Time::from_origin(INTERVAL)
}

fn record(name: &str) -> NodeRecord {
    NodeRecord {
        datacenter: Datacenter::new("dc1").unwrap(),
        addresses: vec![format!("{name}.example:7100")],
        tags: BTreeMap::new(),
        wire: (1, 1),
        status: Status::Up,
        incarnation: Incarnation::ZERO,
        severed: BTreeSet::new(),
        not_before: None,
        not_after: None,
    }
}

fn replica(name: &str) -> Replica {
    let config = ReplicaConfig {
        node: NodeId::new(name).unwrap(),
        record: record(name),
        limits: LIMITS,
        peers_max: 10_000,
        delta_bytes: DELTA_BYTES,
        delta_entries: 1_000_000,
        tombstone_grace: INTERVAL,
        forget_after: INTERVAL,
        interval: INTERVAL,
        sketch_key: SketchKey([7; 16]),
        rules: Default::default(),
    };
    let wall = SystemTime::UNIX_EPOCH + INTERVAL;
    let (stored, copies) = (Stored::default(), OrdMap::new());
    Replica::start(config, stored, &copies, false, Time::ZERO, wall, &mut Vec::new())
}

fn news(node: NodeId, from: u64, to: u64) -> Delta {
    let record = (from == 0).then(|| (Version(1), record(node.as_str())));
    let node = NodeDelta {
        sealed: None,
        node,
        generation: Generation(1),
        ancestry: Vec::new(),
        from: Version(from),
        to: Version(to),
        horizon: Version(to),
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: gossipmonger::protocol::verdict::Verdict::default(),
        record,
        entries: Vec::new(),
    };
    Delta { nodes: vec![node], more: false }
}

fn replica_that_knows(nodes: usize) -> Replica {
    let mut replica = replica("a");
    for index in 0..nodes - 1 {
        replica.apply(now(), &node(0), &news(node(index), 0, 1), &mut Vec::new());
    }
    assert_eq!(replica.digest().entries.len(), nodes);
    replica
}

fn digest(nodes: usize) -> Digest {
    (*replica_that_knows(nodes).digest()).clone()
}

fn owner(keys: usize, bytes: usize) -> Replica {
    let mut owner = replica("a");
    for key in 0..keys {
        let write = Write::set(format!("key-{key:08}"), "v".repeat(bytes));
        owner.write(now(), vec![write], &mut Vec::new()).unwrap();
    }
    owner
}

fn delta(keys: usize, bytes: usize) -> Delta {
    let (_, delta) =
        owner(keys, bytes).answer(now(), &node(0), &Digest::default(), &mut Vec::new());
    assert_eq!((delta.len(), delta.more), (keys, false));
    delta
}

fn frame_len(message: &Message) -> u64 {
    message.encode().unwrap().len() as u64
}

criterion_group!(benches, codec, digests, deltas, apply, sketches, phi);
criterion_main!(benches);
