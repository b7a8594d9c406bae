//! Streams between nodes over QUIC, and members that break the rules of streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gossipmonger::{
    Counter, Gossipmonger,
    protocol::service::{
        ServiceId, ServiceName,
        exposed::exposed,
        frame::{Code, Frame},
        identity::Tag,
        introduction::STREAMS,
        stream::{Open, STREAMS_PER_PEER, StreamFrame, StreamFrames},
    },
    service::{Access, Offer, stream::ItemError},
};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{
    attacker::{MISBEHAVIOUR, Scene},
    calls::{Lane, dial, dial_as, hello_of},
    harness::{Cluster, PATIENCE, all_live, until},
    revocation::revoke,
};

#[derive(Debug, Serialize, Deserialize)]
struct Numbers {
    to: u32,
    pad: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Number(u32, Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Sum;

#[derive(Debug, Serialize, Deserialize)]
struct Echo;

#[derive(Debug, Serialize, Deserialize)]
struct Length(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Grow(usize);

/// It is never answered.
#[derive(Debug, Serialize, Deserialize)]
struct Hang;

gossipmonger::service! {
    struct Flow = "flow", 1.0;

    1: stream Numbers -> Number;
    2: collect Sum of Number -> u64;
    3: duplex Echo;
    4: call Length -> usize, idempotent;
    5: call Grow -> Vec<u8>, idempotent;
    6: call Hang -> u8;
}

const LONG: Duration = Duration::from_secs(600);
/// A close code of the wire.
const BUSY: u64 = 11;

/// Says when it is dropped.
struct Dropped(UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn offers(node: &Gossipmonger) -> (Offer, UnboundedReceiver<()>) {
    let (drops, dropped) = unbounded_channel();
    let offer = node
        .offer::<Flow>(Access::members())
        .stream(move |ask: Numbers, mut items, _| {
            let dropped = Dropped(drops.clone());
            async move {
                let _dropped = dropped;
                for number in 0..ask.to {
                    items.send(&Number(number, vec![0; ask.pad])).await?;
                }
                Ok(())
            }
        })
        .collect(|_: Sum, mut items, _| async move {
            let mut sum = 0;
            while let Some(Number(number, _)) = items.next().await? {
                sum += u64::from(number);
            }
            Ok::<_, ItemError>(sum)
        })
        .duplex(|_: Echo, (mut tx, mut rx), _| async move {
            tokio::io::copy(&mut rx, &mut tx).await?;
            tx.finish().await
        })
        .call(|ask: Length, _| async move { ask.0.len() })
        .call(|ask: Grow, _| async move { vec![1; ask.0] })
        .call(|_: Hang, _| std::future::pending())
        .start()
        .await
        .unwrap();
    (offer, dropped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_long_messages_go_over_a_connection_of_their_own() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let (_offer, mut dropped) = offers(&nodes[1]).await;
    let flow = nodes[0].service::<Flow>();
    flow.ready(1, LONG).await.unwrap();
    for bytes in [1_000, 100_000, 1_000_000] {
        assert_eq!(flow.call(Length(vec![0; bytes])).within(LONG).await.unwrap(), bytes);
        assert_eq!(flow.call(Grow(bytes)).within(LONG).await.unwrap(), vec![1; bytes]);
        assert_eq!(flow.call(Grow(bytes)).within(LONG).await.unwrap().len(), bytes);
    }
    let mut items = flow.stream(Numbers { to: 2_000, pad: 1_000 }).await.unwrap();
    let mut count = 0;
    while let Some(Number(number, pad)) = items.next().await.unwrap() {
        assert_eq!((number, pad.len()), (count, 1_000));
        count += 1;
    }
    assert_eq!(count, 2_000);
    dropped.recv().await.unwrap();
    let mut upload = flow.collect(Sum).await.unwrap();
    for number in 0..500 {
        upload.send(&Number(number, vec![0; 1_000])).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), 124_750);
    let (mut tx, mut rx) = flow.duplex(Echo).await.unwrap();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|byte| (byte / 7) as u8).collect();
    let mut read = Vec::new();
    let writes = async {
        tx.write_all(&sent).await.unwrap();
        tx.shutdown().await.unwrap();
    };
    let (_, ended) = tokio::join!(writes, rx.read_to_end(&mut read));
    assert!(ended.unwrap() == sent.len() && read == sent);
    assert_eq!(nodes[1].counters().get(Counter::ServiceConnectionsAccepted), 2);
    // A caller that drops a stream in the middle stops the handler.
    let mut items = flow.stream(Numbers { to: u32::MAX, pad: 1_000 }).await.unwrap();
    items.next().await.unwrap().unwrap();
    drop(items);
    tokio::time::timeout(PATIENCE, dropped.recv()).await.expect("it runs on").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_and_small_calls_go_on_beside_bulk() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let (_offer, _) = offers(&nodes[1]).await;
    let flow = nodes[0].service::<Flow>();
    flow.ready(1, LONG).await.unwrap();
    let bulk: Vec<_> = (0..4)
        .map(|_| {
            let flow = flow.clone();
            tokio::spawn(async move {
                let mut items = flow.stream(Numbers { to: 100, pad: 100_000 }).await.unwrap();
                let mut bytes = 0;
                while let Some(Number(_, pad)) = items.next().await.unwrap() {
                    bytes += pad.len();
                }
                bytes
            })
        })
        .collect();
    let mut calls = 0;
    while !bulk.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(flow.call(Length(vec![0; 64])).within(LONG).await.unwrap(), 64);
        calls += 1;
    }
    for done in bulk {
        assert_eq!(done.await.unwrap(), 10_000_000);
    }
    assert!(calls > 0);
    for node in &nodes {
        assert_eq!(node.live_peers().len(), 2, "{} misses a node", node.node());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_loses_its_streams_in_the_middle() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let (_offer, mut dropped) = offers(&nodes[1]).await;
    let flow = nodes[2].service::<Flow>();
    flow.ready(1, LONG).await.unwrap();
    let mut items = flow.stream(Numbers { to: u32::MAX, pad: 10 }).await.unwrap();
    items.next().await.unwrap().unwrap();
    nodes[0].revoke(revoke(&cluster, "n2")).await.unwrap();
    let ends = async { while items.next().await.is_ok_and(|item| item.is_some()) {} };
    tokio::time::timeout(PATIENCE, ends).await.expect("it goes on");
    tokio::time::timeout(PATIENCE, dropped.recv()).await.expect("it runs on").unwrap();
}

/// A connection for streams, made by hand.
async fn introduced(scene: &Scene) -> Lane {
    let mut lane = dial(scene).await.unwrap();
    let Frame::Hello(mut hello) = hello_of(scene, "x") else { unreachable!() };
    hello.features = STREAMS;
    lane.send(&[Frame::Hello(hello)]).await;
    assert_eq!(lane.next().await, Some(Frame::Welcome));
    lane
}

fn open(method: u16) -> StreamFrame {
    let service = ServiceId { name: ServiceName::new("flow").unwrap(), major: 1 };
    StreamFrame::Open(Open { service, method, left_ms: 600_000, tag: Tag::default() })
}

fn item(bytes: &'static [u8]) -> StreamFrame {
    StreamFrame::Item(Bytes::from_static(bytes))
}

/// A question of the method `Numbers`: a thousand of them.
const THOUSAND: &[u8] = &[251, 232, 3, 0];
/// The same, of 60,000 bytes each: the handler has not ended when the caller breaks the protocol.
const THOUSAND_LONG: &[u8] = &[251, 232, 3, 251, 96, 234];

async fn send(stream: &mut SendStream, frames: &[StreamFrame]) {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    // The node may have closed already.
    let _ = stream.write_all(&bytes).await;
}

async fn next(stream: &mut RecvStream, frames: &mut StreamFrames) -> Option<StreamFrame> {
    loop {
        if let Some(frame) = frames.take().unwrap() {
            return Some(frame);
        }
        frames.push(stream.read_chunk(65_536, true).await.ok()??.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_break_the_protocol_of_streams_are_cut_off_and_counted() {
    let mut scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node).await;
    let cases: Vec<(Vec<StreamFrame>, &[u8])> = vec![
        (vec![StreamFrame::Begun], &[]),
        (vec![item(&[1])], &[]),
        (vec![open(1), StreamFrame::End { load: 0 }], &[]),
        (vec![open(1), item(THOUSAND_LONG), item(&[1])], &[]),
        (vec![open(2), item(&[]), open(2)], &[]),
        (vec![open(1)], &[1, 99]),
        (vec![], &[1, 32]),
    ];
    for (n, (frames, raw)) in cases.into_iter().enumerate() {
        let before = scene.refused("service_protocol");
        let lane = introduced(&scene).await;
        let (mut tx, _rx) = lane.member.connection.open_bi().await.unwrap();
        send(&mut tx, &frames).await;
        let _ = tx.write_all(raw).await;
        assert_eq!(lane.member.cut_off().await.0, MISBEHAVIOUR, "case {n}");
        until("it is counted", || scene.refused("service_protocol") == before + 1).await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_streams_are_refused_one_by_one() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node).await;
    let lane = introduced(&scene).await;
    let unknown = ServiceId { name: ServiceName::new("other").unwrap(), major: 1 };
    let unknown = StreamFrame::Open(Open {
        service: unknown,
        method: 1,
        left_ms: 1_000,
        tag: Tag::default(),
    });
    let mut long = BytesMut::new();
    StreamFrame::Item(Bytes::from(vec![0; (1 << 20) + 600])).encode(&mut long);
    let cases: Vec<(Vec<StreamFrame>, &[u8], Code)> = vec![
        (vec![unknown, item(&[])], &[], Code::NoSuchService),
        (vec![open(77), item(&[])], &[], Code::NoSuchMethod),
        (vec![open(1), item(&[1, 2, 3, 4, 5])], &[], Code::Malformed),
        (vec![open(4)], &long[..10], Code::TooLarge),
    ];
    for (n, (frames, raw, expected)) in cases.into_iter().enumerate() {
        let (mut tx, mut rx) = lane.member.connection.open_bi().await.unwrap();
        send(&mut tx, &frames).await;
        let _ = tx.write_all(raw).await;
        let answer = next(&mut rx, &mut StreamFrames::new(1 << 20)).await;
        let refused =
            matches!(&answer, Some(StreamFrame::Refuse { code, .. }) if *code == expected);
        assert!(refused, "case {n}: {answer:?}");
    }
    // Without exposed actors none is asked for, before the number has arrived.
    let exposed = StreamFrame::Open(Open {
        service: exposed(),
        method: 1,
        left_ms: 600_000,
        tag: Tag::default(),
    });
    let (mut tx, mut rx) = lane.member.connection.open_bi().await.unwrap();
    send(&mut tx, &[exposed]).await;
    let answer = next(&mut rx, &mut StreamFrames::new(1 << 20)).await;
    let refused = matches!(&answer, Some(StreamFrame::Refuse { code: Code::NoSuchService, .. }));
    assert!(refused, "{answer:?}");
    // The connection goes on.
    let (mut tx, mut rx) = lane.member.connection.open_bi().await.unwrap();
    send(&mut tx, &[open(1), item(THOUSAND)]).await;
    assert_eq!(next(&mut rx, &mut StreamFrames::new(1_000)).await, Some(StreamFrame::Begun));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_have_run_is_not_refused_as_one_that_has_not() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node).await;
    let lane = introduced(&scene).await;
    // It runs until its deadline: the stream breaks off.
    let service = ServiceId { name: ServiceName::new("flow").unwrap(), major: 1 };
    let late = StreamFrame::Open(Open { service, method: 6, left_ms: 300, tag: Tag::default() });
    let (mut tx, mut rx) = lane.member.connection.open_bi().await.unwrap();
    send(&mut tx, &[late, item(&[])]).await;
    assert_eq!(next(&mut rx, &mut StreamFrames::new(1_000)).await, None);
    // Its handler has begun when an item comes that is too long.
    let mut long = BytesMut::new();
    StreamFrame::Item(Bytes::from(vec![0; (1 << 20) + 600])).encode(&mut long);
    let (mut tx, mut rx) = lane.member.connection.open_bi().await.unwrap();
    send(&mut tx, &[open(2), item(&[])]).await;
    let mut frames = StreamFrames::new(1_000);
    assert_eq!(next(&mut rx, &mut frames).await, Some(StreamFrame::Begun));
    let _ = tx.write_all(&long[..10]).await;
    let answer = next(&mut rx, &mut frames).await;
    let broken = matches!(&answer, Some(StreamFrame::Refuse { code: Code::NoAnswer, .. }));
    assert!(broken, "{answer:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_opens_streams_and_stalls_holds_up_nobody() {
    let mut scene = Scene::new(|config| {
        config.quic.handshake_timeout = Duration::from_millis(500);
        config.services.room_bytes = 8 << 20;
    })
    .await;
    let (_offer, _) = offers(&scene.node).await;
    let flow = scene.friend.service::<Flow>();
    flow.ready(1, LONG).await.unwrap();
    // Streams that bring nothing are given up, and make room for others.
    let silent = introduced(&scene).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_PER_PEER {
        let mut stream = silent.member.connection.open_bi().await.unwrap();
        stream.0.write_all(&[1]).await.unwrap();
        streams.push(stream);
    }
    assert_eq!(flow.call(Length(vec![0; 300_000])).within(LONG).await.unwrap(), 300_000);
    for (tx, mut rx) in streams {
        let answer = next(&mut rx, &mut StreamFrames::new(1_000)).await;
        let given_up = matches!(&answer, Some(StreamFrame::Refuse { code: Code::Deadline, .. }));
        assert!(given_up, "{answer:?}");
        drop(tx);
    }
    let further = silent.member.connection.open_bi();
    tokio::time::timeout(PATIENCE, further).await.expect("there is room again").unwrap();
    // Long questions that do not go on use the part of their sender.
    let stalls = introduced(&scene).await;
    let mut long = BytesMut::new();
    [open(4), StreamFrame::Item(Bytes::from(vec![0; 900_000]))]
        .iter()
        .for_each(|frame| frame.encode(&mut long));
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = stalls.member.connection.open_bi().await.unwrap();
        stream.0.write_all(&long[..30_000]).await.unwrap();
        stalled.push(stream);
    }
    for _ in 0..5 {
        let called = flow.call(Length(vec![0; 500_000])).within(LONG).await;
        assert_eq!(called.unwrap(), 500_000);
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_windows_to_grant_admits_no_further_connection() {
    let scene = Scene::new(|config| config.services.window_bytes = 8 << 20).await;
    let (_offer, _) = offers(&scene.node).await;
    let mut open = Vec::new();
    let busy = loop {
        // Each name may have some connections only.
        let name = format!("x{}", open.len() / 4);
        let mut lane = dial_as(&scene, &name).await.unwrap();
        lane.send(&[hello_of(&scene, &name)]).await;
        match lane.next().await {
            Some(Frame::Welcome) => open.push(lane),
            _ => break lane.member.cut_off().await.0,
        }
    };
    assert_eq!(busy, BUSY);
    // The least windows of so many, and nothing beyond them.
    assert_eq!(open.len(), 128);
    assert_eq!(scene.refused("service_connections_max"), 1);
    open.clear();
    let flow = scene.friend.service::<Flow>();
    flow.ready(1, LONG).await.unwrap();
    until("the windows are given back", || {
        scene.node.counters().get(Counter::CallsAnswered) > 0 || {
            tokio::spawn(flow.call(Length(vec![0; 64])).within(LONG).into_future());
            false
        }
    })
    .await;
    scene.end().await;
}
