//! What the parts of a call cost: the directory, the choice of a provider, frames, both halves of a lane, and a call of a
//! node to itself.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gossipmonger::{
    Backends, ClusterId, Config, Gossipmonger,
    net::memory::MemoryNetwork,
    protocol::{
        entry::Value,
        id::{Datacenter, Generation, NodeId},
        service::{
            ServiceId, ServiceName, ServiceVersion,
            balance::{Ask, Balance, Bounds, Outcome as Judged, Prefer, by_key},
            calls::{Calls, LaneLimits, Outcome},
            clients::Clients,
            directory::{Directory, Seen},
            frame::{Frame, Frames, Hello, Request},
            identity::Tag,
            intake::{Arrived, Intake},
            manifest::{Manifest, Offered},
            stream::{StreamFrame, StreamFrames},
        },
        state::PeerState,
        time::Time,
    },
    service::{
        Access, Offer, Service,
        codec::{Bincode, Codec},
    },
    tls::PeerName,
};
use rand::{SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

/// Nodes in the directory.
const NODES: usize = 10_000;
/// Services that each of them offers.
const OFFERS: u8 = 20;
/// Bytes of a small body.
const BODY: usize = 64;

fn node(n: usize) -> NodeId {
    NodeId::new(&format!("node-{n:05}")).unwrap()
}

fn datacenter(n: usize) -> Datacenter {
    Datacenter::new(["eu", "us", "ap"][n % 3]).unwrap()
}

fn service(n: u8) -> ServiceId {
    ServiceId { name: ServiceName::new(&format!("service-{n:02}")).unwrap(), major: 1 }
}

/// The list of a node's services; `weight` tells one from another.
fn manifest(weight: u8) -> Value {
    let offers = (0..OFFERS).map(|n| Offered {
        name: service(n).name,
        version: ServiceVersion::new(1, 0),
        weight,
        clients: Clients::default(),
        epoch: 1,
    });
    Value::from(Manifest { draining: false, offers: offers.collect() }.encode())
}

fn see(directory: &mut Directory, n: usize, manifest: &Value) -> usize {
    let datacenter = datacenter(n);
    let seen = Seen {
        generation: Generation(1),
        datacenter: &datacenter,
        state: PeerState::Live,
        manifest: Some(manifest),
    };
    let mut out = Vec::new();
    directory.update(&node(n), Some(seen), &mut out);
    out.len()
}

fn directory(c: &mut Criterion) {
    let mut directory = Directory::default();
    let manifests = [manifest(1), manifest(2)];
    for n in 0..NODES {
        assert_eq!(see(&mut directory, n, &manifests[0]), usize::from(OFFERS));
    }
    let mut group = c.benchmark_group("directory");
    let mut turn = 0;
    group.bench_function("20 offers of one of 10,000 nodes change", |b| {
        b.iter(|| {
            let other = &manifests[(turn / NODES + 1) % 2];
            assert_eq!(see(&mut directory, turn % NODES, other), usize::from(OFFERS));
            turn += 1;
            directory.listings()
        });
    });
    group.bench_function("nothing of a node changes", |b| {
        see(&mut directory, 0, &manifests[0]);
        b.iter(|| assert_eq!(see(&mut directory, 0, &manifests[0]), 0));
    });
    group.finish();
    choice(c, &directory);
}

fn choice(c: &mut Criterion, directory: &Directory) {
    let listings = directory.listings();
    let listing = listings.get(&service(3)).unwrap();
    let mut balance = Balance::new(node(0), datacenter(0));
    let (now, mut rng) = (Time::ZERO, SmallRng::seed_from_u64(1));
    for n in 0..1_000 {
        let took = Duration::from_micros(n as u64 + 100);
        balance.began(now, &node(n));
        balance.ended(now, &node(n), took, Some(10), Judged::Answered);
    }
    let mut group = c.benchmark_group("choice");
    for (name, prefer) in [("nearest", Prefer::Nearest), ("anywhere", Prefer::Anywhere)] {
        let ask = Ask { since: 0, prefer: &prefer, tried: &[], bounds: Bounds::default() };
        group.bench_function(format!("one of 10,000, {name}"), |b| {
            b.iter(|| {
                let pick = balance.pick(listing, &ask, now, &mut rng, |_| 0.0).unwrap();
                black_box(pick.provider.generation)
            });
        });
    }
    let mut key = 0_u64;
    group.bench_function("the provider of a key, of 10,000", |b| {
        b.iter(|| {
            key += 1;
            by_key(listing, None, Bounds::default(), key).unwrap().generation
        });
    });
    group.finish();
}

#[derive(Clone, Serialize, Deserialize)]
struct Question {
    item: String,
    count: u32,
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    for bytes in [BODY, 4_096] {
        let request = Frame::Request(Request {
            index: 3,
            id: 70_000,
            method: 2,
            left_ms: 5_000,
            tag: Tag::default(),
            body: Bytes::from(vec![7; bytes]),
        });
        let mut to = BytesMut::new();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("encode a request of {bytes} B"), |b| {
            b.iter(|| {
                to.clear();
                black_box(&request).encode(&mut to);
            });
        });
        let encoded = to.clone().freeze();
        group.bench_function(format!("decode a request of {bytes} B"), |b| {
            b.iter(|| {
                let mut frames = Frames::default();
                frames.push(encoded.clone());
                frames.take().unwrap().unwrap()
            });
        });
        let item = StreamFrame::Item(Bytes::from(vec![7; bytes]));
        let encoded = Bytes::from(item.clone().pieces().concat());
        group.bench_function(format!("an item of {bytes} B of a stream"), |b| {
            b.iter(|| {
                let pieces = black_box(&item).clone().pieces();
                let mut frames = StreamFrames::new(1 << 20);
                frames.push(encoded.clone());
                (pieces, frames.take().unwrap().unwrap())
            });
        });
    }
    let question = Question { item: "tea".to_owned(), count: 3 };
    group.throughput(Throughput::Elements(1));
    group.bench_function("a question through the default codec", |b| {
        b.iter(|| {
            let mut to = BytesMut::new();
            Bincode::encode(black_box(&question), &mut to).unwrap();
            let decoded: Question = Bincode::decode(to.freeze()).unwrap();
            decoded
        });
    });
    group.finish();
}

/// A call through both halves of a lane, without a network: queued, written, taken, answered, settled.
fn lane(c: &mut Criterion) {
    let mut group = c.benchmark_group("lane");
    for at_once in [1, 256] {
        let mut calls = Calls::new(LaneLimits { calls: 1_024, queue_bytes: 1 << 20 });
        calls.welcomed();
        let mut intake = Intake::<ServiceId, ()>::default();
        introduce(&mut intake);
        let (body, deadline) = (Bytes::from(vec![7; BODY]), Time::ZERO + Duration::from_secs(5));
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(format!("{at_once} calls at once"), |b| {
            b.iter(|| {
                for n in 0..at_once {
                    let question = (1, body.clone());
                    calls.call(&service(0), question, deadline, n).map_err(drop).unwrap();
                }
                let (mut sent, mut done, mut frames) =
                    (BytesMut::new(), Vec::new(), Frames::default());
                calls.write(Time::ZERO, usize::MAX, &mut sent, &mut done);
                frames.push(sent.freeze());
                let mut answered = 0;
                while let Some(frame) = frames.take().unwrap() {
                    match intake.frame(frame).unwrap() {
                        Arrived::Bind(service) => intake.bind(service),
                        Arrived::Request(_, request) => {
                            intake.began(request.id, (), deadline);
                            assert!(intake.finished(request.id));
                            let reply = Outcome::Reply { load: 0, body: request.body };
                            answered +=
                                u64::from(calls.answered(request.id, reply).unwrap().is_some());
                        }
                        _ => unreachable!("a caller sends nothing else"),
                    }
                }
                assert_eq!(answered, at_once);
            });
        });
    }
    group.finish();
}

fn introduce(intake: &mut Intake<ServiceId, ()>) {
    let hello = Hello {
        cluster: "bench".parse().unwrap(),
        node: node(0),
        generation: Generation(1),
        expected: Generation(1),
        features: 0,
    };
    assert!(matches!(intake.frame(Frame::Hello(hello)), Ok(Arrived::Hello(_))));
}

#[derive(Serialize, Deserialize)]
struct Ping(u64);

gossipmonger::service! {
    struct Echo = "echo", 1.0;
    1: call Ping -> u64, idempotent;
}

/// A call of a node to itself passes no network.
fn local(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let (node, _offer) = runtime.block_on(offered());
    let echo = node.service::<Echo>();
    c.bench_function("a call of a node to itself", |b| {
        b.to_async(&runtime).iter(|| async {
            assert_eq!(echo.call(Ping(7)).await.unwrap(), 7);
        });
    });
    runtime.block_on(node.shutdown());
}

async fn offered() -> (Gossipmonger, Offer) {
    let cluster = ClusterId::new("bench").unwrap();
    let name = PeerName { cluster, datacenter: datacenter(0), node: node(0) };
    let config = Config::new(&name).local();
    let backends = Backends::new(MemoryNetwork::new().place());
    let (node, _ended) = Gossipmonger::spawn(config, backends).await.unwrap();
    let offer = node.offer::<Echo>(Access::members()).call(|ping: Ping, _| async move { ping.0 });
    let offer = offer.start().await.unwrap();
    assert_eq!(Echo::NAME, "echo");
    (node, offer)
}

criterion_group!(benches, directory, frames, lane, local);
criterion_main!(benches);
