//! Calls between nodes over QUIC, and members that break the rules of calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use gossipmonger::{
    Counter, Generation, Gossipmonger,
    protocol::service::{
        ServiceId, ServiceName,
        frame::{Code, Frame, Frames, Hello, LANE_FRAME_MAX, Request},
        identity::Tag,
    },
    service::{
        Access, CallFailure, Lost, NotRun, Offer,
        codec::{Bincode, Codec},
    },
};
use quinn::{RecvStream, SendStream, TransportConfig};
use serde::{Deserialize, Serialize};

use crate::{
    attacker::{MISBEHAVIOUR, Member, Scene, TIMEOUT, UNWELCOME, refused},
    harness::{Cluster, all_live, id, until},
    revocation::revoke,
};

#[derive(Debug, Serialize, Deserialize)]
struct Echo(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Wait;

#[derive(Debug, Serialize, Deserialize)]
struct Told(u64);

gossipmonger::service! {
    /// For tests.
    struct Tester = "tester", 1.0;

    1: call Echo -> Vec<u8>, idempotent;
    2: call Wait -> ();
    3: cast Told;
}

const LONG: Duration = Duration::from_secs(600);
/// Close codes of the wire.
const OLD_GENERATION: u64 = 3;
const RESTARTED: u64 = 12;
const BUSY: u64 = 11;

async fn offers(node: &Gossipmonger, access: Access) -> (Offer, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let offer = node
        .offer::<Tester>(access)
        .call(|ask: Echo, _| async move { ask.0 })
        .call(|_: Wait, _| std::future::pending())
        .cast(move |_: Told, _| {
            count.fetch_add(1, Ordering::Relaxed);
            async {}
        })
        .start()
        .await
        .unwrap();
    (offer, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_casts_reach_another_node_over_one_connection() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let (_offer, told) = offers(&nodes[1], Access::members()).await;
    let tester = nodes[0].service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    let calls = (0..200_u32).map(|n| {
        let tester = tester.clone();
        tokio::spawn(async move {
            let body = vec![n as u8; n as usize * 70];
            assert_eq!(tester.call(Echo(body.clone())).await.unwrap(), body);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    // A caller may have 640 under way, and more are dropped.
    for batch in 1..=4 {
        for n in 0..250 {
            tester.cast(Told(n)).await.unwrap();
        }
        until("all have arrived", || told.load(Ordering::Relaxed) == batch * 250).await;
    }
    let counters = nodes[1].counters();
    assert_eq!(counters.get(Counter::CallsAnswered), 200);
    assert_eq!(counters.get(Counter::ServiceConnectionsAccepted), 1);
    let too_large = tester.call(Echo(vec![0; 1 << 20])).await.unwrap_err();
    assert!(
        matches!(too_large.failure(), CallFailure::NotRun(NotRun::TooLarge { .. })),
        "{too_large}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_offers_nothing_accepts_no_connection_for_calls() {
    let scene = Scene::new(|_| {}).await;
    let error = dial(&scene).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("120") || error.to_string().contains("protocol"), "{error}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_rests_on_the_certificate() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let (_offer, _) = offers(&nodes[2], Access::node(id("n1"))).await;
    for (node, permitted) in [(&nodes[0], false), (&nodes[1], true)] {
        let tester = node.service::<Tester>();
        tester.ready(1, LONG).await.unwrap();
        let answer = tester.call(Echo(vec![1])).await;
        assert_eq!(answer.is_ok(), permitted, "{answer:?}");
    }
    assert_eq!(nodes[2].counters().get(Counter::CallsRefused), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_without_a_word_ends_the_calls_to_it_at_the_verdict() {
    let cluster = Cluster::new("demo");
    let (config, network) = crate::attacker::with_transport(&cluster, "victim");
    let a = cluster.spawn("a", &[]).await;
    let b = cluster.spawn("b", &[&a]).await;
    let mut config = config;
    config.seeds = a.addresses().to_vec();
    let victim = crate::start::spawn(config).await.unwrap().0;
    all_live(&[a.clone(), b.clone(), victim.clone()]).await;
    let (_offer, _) = offers(&victim, Access::members()).await;
    let tester = a.service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    let calls: Vec<_> =
        (0..50).map(|_| tokio::spawn(tester.call(Wait).within(LONG).into_future())).collect();
    assert_eq!(tester.call(Echo(vec![7])).await.unwrap(), [7]);
    network.silence();
    for call in calls {
        let failed = tokio::time::timeout(crate::harness::PATIENCE, call).await;
        let failed = failed.expect("it waits on").unwrap().unwrap_err();
        assert_eq!(*failed.failure(), CallFailure::Unknown(Lost::NodeDead), "{failed}");
    }
    assert_eq!(a.dead_peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_node_that_does_not_answer_the_dial_ends_at_its_deadline() {
    let cluster = Cluster::new("demo");
    let (mut config, network) = crate::attacker::with_transport(&cluster, "victim");
    let a = cluster.spawn("a", &[]).await;
    config.seeds = a.addresses().to_vec();
    // It is not declared dead before the deadline.
    config.gossip_interval = Duration::from_secs(20);
    let victim = crate::start::spawn(config).await.unwrap().0;
    until("they see each other", || a.live_peers().len() == 1).await;
    let (_offer, _) = offers(&victim, Access::members()).await;
    let tester = a.service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    network.silence();
    let failed = tester.call(Wait).within(Duration::from_millis(300)).await.unwrap_err();
    assert!(!failed.may_have_run(), "{failed}");
    assert_eq!(a.counters().get(Counter::ServiceDialsFailed), 0, "it is being dialed");
}

/// Says when it is dropped.
struct Dropped(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_loses_its_calls_in_the_middle() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let (drops, mut dropped) = tokio::sync::mpsc::unbounded_channel();
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let _offer = nodes[1]
        .offer::<Tester>(Access::members())
        .call(|ask: Echo, _| async move { ask.0 })
        .call(move |_: Wait, _| {
            let (dropped, begins) = (Dropped(drops.clone()), begins.clone());
            async move {
                let _dropped = dropped;
                let _ = begins.send(());
                std::future::pending::<()>().await;
            }
        })
        .cast(|_: Told, _| async {})
        .start()
        .await
        .unwrap();
    let tester = nodes[2].service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    let call = tokio::spawn(tester.call(Wait).within(LONG).into_future());
    begun.recv().await.unwrap();
    nodes[0].revoke(revoke(&cluster, "n2")).await.unwrap();
    let failed = tokio::time::timeout(crate::harness::PATIENCE, call).await;
    assert!(failed.expect("it waits on").unwrap().is_err());
    let stopped = tokio::time::timeout(crate::harness::PATIENCE, dropped.recv()).await;
    stopped.expect("the handler runs on").unwrap();
}

/// A lane made by hand.
pub(crate) struct Lane {
    pub(crate) member: Member,
    send: SendStream,
    receive: RecvStream,
    frames: Frames,
}

pub(crate) async fn dial(scene: &Scene) -> Result<Lane, quinn::ConnectionError> {
    dial_as(scene, "x").await
}

pub(crate) async fn dial_as(scene: &Scene, name: &str) -> Result<Lane, quinn::ConnectionError> {
    let mut tls = scene.member(name);
    tls.alpn_protocols = vec![SERVICES_ALPN.to_vec()];
    let member = Member::dial(tls, scene.address(), TransportConfig::default()).await?;
    Lane::open(member).await
}

/// The protocol of calls.
pub(crate) const SERVICES_ALPN: &[u8] = b"gossipmonger-services/1";

impl Lane {
    pub(crate) async fn open(member: Member) -> Result<Self, quinn::ConnectionError> {
        let (send, receive) = member.connection.open_bi().await?;
        Ok(Self { member, send, receive, frames: Frames::default() })
    }

    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        // The node may have closed already.
        let _ = self.send.write_all(&bytes).await;
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.take().unwrap() {
                return Some(frame);
            }
            let chunk = self.receive.read_chunk(65_536, true).await.ok()??;
            self.frames.push(chunk.bytes);
        }
    }
}

pub(crate) fn hello_of(scene: &Scene, name: &str) -> Frame {
    let (generation, _) = scene.node.snapshot().version(scene.node.node()).unwrap();
    Frame::Hello(Hello {
        cluster: "demo".parse().unwrap(),
        node: id(name),
        generation: Generation(1_000),
        expected: generation,
        features: 0,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_it_is_introduced_a_caller_brings_16_kib_on_one_stream() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut lane = dial(&scene).await.unwrap();
    // The node grants what it grants in the handshake, so nothing has to be waited for.
    assert!(lane.member.connection.open_bi().now_or_never().is_none());
    assert!(lane.member.connection.open_uni().now_or_never().is_none());
    let brought = lane.send.write(&vec![0; 8 << 20]).now_or_never();
    assert_eq!(brought.expect("nothing is granted").unwrap(), 16 << 10);
    scene.end().await;
}

fn bind(index: u32) -> Frame {
    let name = ServiceName::new("tester").unwrap();
    Frame::Bind { index, service: ServiceId { name, major: 1 } }
}

pub(crate) fn request(index: u32, id: u64, method: u16, body: &'static [u8]) -> Frame {
    let body = Bytes::from_static(body);
    Frame::Request(Request { index, id, method, left_ms: 60_000, tag: Tag::default(), body })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_break_the_protocol_are_cut_off_and_counted() {
    let mut scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut too_long = BytesMut::new();
    bincode::encode_into_std_write(
        LANE_FRAME_MAX as u64 + 1,
        &mut bytes::BufMut::writer(&mut too_long),
        bincode::config::standard(),
    )
    .unwrap();
    let hello = hello_of(&scene, "x");
    let cases: Vec<(Vec<Frame>, &[u8])> = vec![
        (vec![bind(0)], &[]),
        (vec![hello.clone(), hello.clone()], &[]),
        (vec![hello.clone(), bind(1)], &[]),
        (vec![hello.clone(), request(0, 1, 1, &[])], &[]),
        (vec![hello.clone(), bind(0), request(0, 1, 2, &[]), request(0, 1, 2, &[])], &[]),
        (vec![hello.clone(), Frame::Welcome], &[]),
        (vec![hello.clone()], &[1, 99]),
        (vec![hello.clone()], &too_long),
    ];
    for (n, (frames, raw)) in cases.into_iter().enumerate() {
        let before = scene.refused("service_protocol");
        let mut lane = dial(&scene).await.unwrap();
        lane.send(&frames).await;
        let _ = lane.send.write_all(raw).await;
        assert_eq!(lane.member.cut_off().await.0, MISBEHAVIOUR, "case {n}");
        until("it is counted", || scene.refused("service_protocol") == before + 1).await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_who_their_certificate_says_and_call_who_is_there() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut impostor = dial(&scene).await.unwrap();
    impostor.send(&[hello_of(&scene, "n")]).await;
    assert_eq!(impostor.member.cut_off().await.0, UNWELCOME);
    assert_eq!(scene.refused("impostor"), 1);
    let mut old = dial(&scene).await.unwrap();
    let Frame::Hello(mut hello) = hello_of(&scene, "x") else { unreachable!() };
    hello.expected = Generation(hello.expected.0 - 1);
    old.send(&[Frame::Hello(hello), bind(0), request(0, 1, 1, &[0])]).await;
    assert_eq!(old.member.cut_off().await.0, RESTARTED);
    assert_eq!(scene.node.counters().get(Counter::CallsAnswered), 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_says_nothing_or_opens_too_much_is_sent_away() {
    let scene = Scene::new(|config| {
        config.quic.handshake_timeout = Duration::from_secs(2);
        config.services.connections_per_peer = 2;
    })
    .await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let silent = dial(&scene).await.unwrap();
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let mut lane = dial_as(&scene, "y").await.unwrap();
        lane.send(&[hello_of(&scene, "y")]).await;
        assert_eq!(lane.next().await, Some(Frame::Welcome));
        lanes.push(lane);
    }
    let mut third = dial_as(&scene, "y").await.unwrap();
    third.send(&[hello_of(&scene, "y")]).await;
    assert_eq!(third.member.cut_off().await.0, BUSY);
    // Another member has its own places.
    let mut other = dial_as(&scene, "z").await.unwrap();
    other.send(&[hello_of(&scene, "z")]).await;
    assert_eq!(other.next().await, Some(Frame::Welcome));
    // A place is free again when its connection ends.
    lanes.pop().unwrap().member.connection.close(0_u32.into(), b"");
    until("a place is free", || {
        scene.node.counters().get(Counter::ServiceConnectionsAccepted) == 3
    })
    .await;
    assert_eq!(silent.member.cut_off().await.0, TIMEOUT);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_one_by_one() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut lane = dial(&scene).await.unwrap();
    let other = ServiceId { name: ServiceName::new("none").unwrap(), major: 1 };
    lane.send(&[
        hello_of(&scene, "x"),
        bind(0),
        Frame::Bind { index: 1, service: other },
        request(0, 1, 99, &[]),
        request(0, 2, 3, &[]),
        request(0, 3, 1, &[0xff; 9]),
        request(1, 4, 1, &[]),
        request(0, 5, 1, &[2, 7, 7]),
    ])
    .await;
    assert_eq!(lane.next().await, Some(Frame::Welcome));
    let mut answers = std::collections::BTreeMap::new();
    for _ in 0..5 {
        match lane.next().await.unwrap() {
            Frame::Refuse { id, code, .. } => answers.insert(id, Err(code)),
            Frame::Reply { id, body, .. } => answers.insert(id, Ok(body)),
            other => panic!("{other:?}"),
        };
    }
    let expected = [
        (1, Err(Code::NoSuchMethod)),
        (2, Err(Code::NoSuchMethod)),
        (3, Err(Code::Malformed)),
        (4, Err(Code::NoSuchService)),
        (5, Ok(Bytes::from_static(&[2, 7, 7]))),
    ];
    assert_eq!(answers, expected.into());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_floods_gets_its_part_and_others_are_answered() {
    let mut scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut lane = dial(&scene).await.unwrap();
    let mut frames = vec![hello_of(&scene, "x"), bind(0)];
    frames.extend((0..1_000).map(|id| request(0, id, 2, &[])));
    lane.send(&frames).await;
    assert_eq!(lane.next().await, Some(Frame::Welcome));
    // Half of the places, 128 that run and 512 that wait, is the most that one caller gets.
    for _ in 0..1_000 - 640 {
        let refusal = lane.next().await.unwrap();
        assert!(matches!(refusal, Frame::Refuse { code: Code::PeerOverloaded, .. }), "{refusal:?}");
    }
    let tester = scene.friend.service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    // Requests of the flood run and wait, and none of them ends.
    for n in 0..50 {
        assert_eq!(tester.call(Echo(vec![n])).within(LONG).await.unwrap(), [n]);
    }
    assert_eq!(refused(&scene.node, "service_protocol"), 0);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_reads_no_answers_is_read_no_further() {
    const BODY: usize = 14_000;
    let mut scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut tls = scene.member("x");
    tls.alpn_protocols = vec![b"gossipmonger-services/1".to_vec()];
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(100_000_u32.into());
    let member = Member::dial(tls, scene.address(), transport).await.unwrap();
    let (mut send, _receive) = member.connection.open_bi().await.unwrap();
    let mut body = BytesMut::new();
    let encoded = Echo(vec![7; BODY]);
    <Bincode as Codec<Echo>>::encode(&encoded, &mut body).unwrap();
    let body = body.freeze();
    let ask = |id| {
        Frame::Request(Request {
            index: 0,
            id,
            method: 1,
            left_ms: 600_000,
            tag: Tag::default(),
            body: body.clone(),
        })
    };
    let mut bytes = BytesMut::new();
    [hello_of(&scene, "x"), bind(0)].iter().for_each(|frame| frame.encode(&mut bytes));
    (0..1_000).for_each(|id| ask(id).encode(&mut bytes));
    // 14 MB, of which the node takes what fits: it never ends.
    let written = tokio::spawn(async move { send.write_all(&bytes).await.map(|()| send) });
    until("it answers what it has read", || scene.node.counters().get(Counter::CallsAnswered) > 10)
        .await;
    scene.still_gossips().await;
    let tester = scene.friend.service::<Tester>();
    tester.ready(1, LONG).await.unwrap();
    assert_eq!(tester.call(Echo(vec![1])).await.unwrap(), [1]);
    // 256 KiB of answers wait, 100 KB are under way, and one chunk of requests was read beyond that.
    let answered = scene.node.counters().get(Counter::CallsAnswered);
    assert!(answered < 100, "{answered} of 1,000");
    assert!(!written.is_finished());
    written.abort();
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_process_of_a_caller_is_sent_away() {
    let scene = Scene::new(|_| {}).await;
    let (_offer, _) = offers(&scene.node, Access::members()).await;
    let mut lane = dial_as(&scene, "n").await.unwrap();
    // It has the name and the key of `n`, and another process of `n` is known.
    lane.send(&[hello_of(&scene, "n"), bind(0), request(0, 1, 1, &[0])]).await;
    assert_eq!(lane.member.cut_off().await.0, OLD_GENERATION);
    assert_eq!(scene.refused("old_generation"), 1);
    assert_eq!(scene.node.counters().get(Counter::CallsAnswered), 0);
    scene.end().await;
}
