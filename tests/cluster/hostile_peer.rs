//! Members of the cluster that break the rules: their papers are good, what they say is not.
//!
//! What one of them can make a node hold: 4 MiB of stream data that waits, one long frame of 8 MiB
//! each way (64 MiB over all peers), and as many short ones of 512 KiB as there are turns for
//! exchanges; half of the turns are for peers that have none.

use std::time::Duration;

use bincode::config::standard;
use gossipmonger::{
    Config, Generation, Version,
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        digest::{Digest, DigestEntry},
        gossip::Gossip,
        message::{Call, Heartbeat, Hello, Message},
        record::{NodeRecord, Status},
    },
};
use quinn::{TransportConfig, VarInt};
use tokio::task::JoinSet;

use crate::{
    attacker::{MISBEHAVIOUR, Member, Scene, TIMEOUT, frame, hello, raw_frame, read},
    harness::{id, until},
};

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_those_who_do_not_begin_with_hello() {
    let mut scene = Scene::new(|_| {}).await;
    let syn = Message::Syn { digest: Digest::default() };
    let cases = [
        ("frames_malformed", raw_frame(b"garbage of any kind")),
        ("frames_malformed", raw_frame(&[])),
        ("frames_malformed", raw_frame(&[200, 1, 0])),
        ("frames_malformed", raw_frame(&[1, 99, 0])),
        ("frames_malformed", raw_frame(&[&[1, 1][..], &[0xff; 60]].concat())),
        ("frames_refused", u32::MAX.to_be_bytes().to_vec()),
        ("frames_refused", (4_097_u32).to_be_bytes().to_vec()),
        ("frames_refused", frame(&syn)),
        ("frames_refused", frame(&Message::Welcome(hello("demo", "x")))),
    ];
    for (counter, bytes) in cases {
        let before = (scene.count(counter), scene.refused("misbehaviour"));
        let member = Member::dial(scene.member("x"), scene.address(), TransportConfig::default());
        let member = member.await.unwrap();
        assert_eq!(member.ask(&bytes).await, None);
        assert_eq!(member.cut_off().await.0, MISBEHAVIOUR, "{bytes:?}");
        until(counter, || {
            (scene.count(counter), scene.refused("misbehaviour")) == (before.0 + 1, before.1 + 1)
        })
        .await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_those_who_never_introduce_themselves() {
    let mut scene =
        Scene::new(|config| config.quic.handshake_timeout = Duration::from_secs(2)).await;
    let silent = Member::dial(scene.member("x"), scene.address(), TransportConfig::default());
    let slow = Member::dial(scene.member("y"), scene.address(), TransportConfig::default());
    let (silent, slow) = (silent.await.unwrap(), slow.await.unwrap());
    let (mut send, _receive) = slow.open().await;
    send.write_all(&frame(&Message::Hello(hello("demo", "y")))[..9]).await.unwrap();
    for member in [silent, slow] {
        assert_eq!(member.cut_off().await.0, TIMEOUT);
    }
    until("both are counted", || scene.refused("timeout") == 2).await;
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_members_that_send_garbage() {
    let mut scene = Scene::new(|_| {}).await;
    let many = |kind: u8, count: u64| {
        let count = bincode::encode_to_vec(count, standard()).unwrap();
        raw_frame(&[&[kind, 1][..], &count, b"and little of it"].concat())
    };
    let unsorted =
        Digest { entries: vec![DigestEntry::unknown(id("z")), DigestEntry::unknown(id("a"))] };
    let doubled = Message::Syn {
        digest: Digest {
            entries: vec![DigestEntry::unknown(id("z")), DigestEntry::unknown(id("z"))],
        },
    };
    let left_over = [&frame(&Message::Syn { digest: Digest::default() })[4..], b"more"].concat();
    let cases = [
        ("frames_malformed", raw_frame(&[99, 1, 2, 3])),
        ("frames_malformed", raw_frame(&[3, 2, 0])),
        ("frames_malformed", raw_frame(&[3, 1])),
        ("frames_malformed", many(3, u64::MAX)),
        ("frames_malformed", many(3, 1 << 40)),
        ("frames_malformed", many(3, 300_000)),
        ("frames_malformed", many(5, u64::MAX)),
        ("frames_malformed", raw_frame(&left_over)),
        ("frames_malformed", frame(&Message::Syn { digest: unsorted })),
        ("frames_malformed", frame(&doubled)),
        ("frames_refused", u32::MAX.to_be_bytes().to_vec()),
        ("frames_refused", ((8_u32 << 20) + 1).to_be_bytes().to_vec()),
        ("frames_refused", frame(&Message::Ack { delta: Delta::default() })),
        (
            "frames_refused",
            frame(&Message::SynAck { wants: Digest::default(), delta: Delta::default() }),
        ),
        ("frames_refused", frame(&Message::Hello(hello("demo", "x")))),
        ("frames_refused", frame(&Message::Hello(hello("demo", "n")))),
    ];
    for (counter, bytes) in cases {
        let before = (scene.count(counter), scene.refused("misbehaviour"));
        let member = scene.introduced("x").await;
        assert_eq!(member.ask(&bytes).await, None);
        assert_eq!(member.cut_off().await.0, MISBEHAVIOUR, "{bytes:?}");
        until(counter, || {
            scene.count(counter) == before.0 + 1 && scene.refused("misbehaviour") == before.1 + 1
        })
        .await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_news_that_would_break_a_copy() {
    let mut scene = Scene::new(|_| {}).await;
    scene.friend.set("kept", "as it is").await.unwrap();
    until("it has the friend's value", || {
        scene.node.get_str(&id("n"), "kept").as_deref() == Some("as it is")
    })
    .await;
    let member = scene.introduced("x").await;
    let cases = [
        news("v", |delta| delta.entries.swap(0, 1)),
        news("v", |delta| delta.generation = Generation::ZERO),
        news("v", |delta| delta.entries[1].version = Version(u64::MAX)),
        news("v", |delta| (delta.from, delta.to) = (Version(9), Version(1))),
        news("v", |delta| delta.from = Version(1_000)),
        news("v", |delta| delta.entries[0].key = "k".repeat(600).into()),
        news("v", |delta| delta.entries[0].key = "".into()),
        // Of the friend, whose copy is there: of an earlier life, or with a gap.
        news("n", |delta| delta.generation = Generation(1)),
    ];
    for (at, delta) in cases.into_iter().enumerate() {
        let before = scene.count("news_refused");
        let (mut send, mut receive) = member.open().await;
        let syn = Message::Syn { digest: Digest::default() };
        send.write_all(&frame(&syn)).await.unwrap();
        let answer = read(&mut receive).await;
        assert!(matches!(answer, Some(Message::SynAck { .. })), "{answer:?}");
        let delta = Delta { nodes: vec![delta], more: false };
        send.write_all(&frame(&Message::Ack { delta })).await.unwrap();
        until(&format!("case {at} is refused"), || scene.count("news_refused") > before).await;
    }
    assert_eq!(scene.node.get_str(&id("n"), "kept").as_deref(), Some("as it is"));
    assert!(scene.node.peers().iter().all(|peer| peer.node.as_str() != "v"));
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_members_whose_datagrams_are_no_heartbeats() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    let most = member.connection.max_datagram_size().unwrap();
    for n in (0_u8..20).cycle() {
        let datagram = vec![n; if n % 2 == 0 { most } else { usize::from(n) }];
        if member.connection.send_datagram(datagram.into()).is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(member.cut_off().await.0, MISBEHAVIOUR);
    until("it is counted", || scene.refused("misbehaviour") == 1).await;
    assert!(scene.count("frames_malformed") >= 16);
    scene.still_gossips().await;
    scene.end().await;
}

/// Or whoever has the name after it could not be heard any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn believes_no_life_that_no_clock_can_have_given() {
    let mut scene = Scene::new(|_| {}).await;
    let absurd = Generation(u64::MAX - 1);
    let dialed = Member::dial(scene.member("x"), scene.address(), TransportConfig::default()).await;
    let liar = dialed.unwrap();
    let welcome = liar.introduce(Hello { generation: absurd, ..hello("demo", "x") }).await;
    assert_eq!(welcome, None);
    until("it is counted", || scene.refused("absurd_generation") == 1).await;
    let liar = scene.introduced("x").await;
    let before = scene.count("frames_refused");
    let heartbeat = Heartbeat { generation: absurd, sequence: 1, call: Call::Beat, health: 0 };
    liar.connection.send_datagram(heartbeat.encode().into()).unwrap();
    scene.counts("frames_refused", before + 1).await;
    // A later life is still met as one.
    let later = Generation(2_000);
    let dialed = Member::dial(scene.member("x"), scene.address(), TransportConfig::default()).await;
    let honest = dialed.unwrap();
    let welcome = honest.introduce(Hello { generation: later, ..hello("demo", "x") }).await;
    assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");
    liar.cut_off().await;
    assert_eq!(honest.connection.close_reason(), None);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_heartbeats_on_at_a_rate_only() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    for sequence in 0.. {
        let heartbeat =
            Heartbeat { generation: Generation(1_000), sequence, call: Call::Beat, health: 0 };
        member.connection.send_datagram_wait(heartbeat.encode().into()).await.unwrap();
        if scene.count("frames_refused") > 100 {
            break;
        }
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_turns_for_others_while_a_member_opens_streams_and_sends_nothing() {
    let mut scene = Scene::new(|config| {
        hurried(config);
        config.quic.exchanges = 4;
    })
    .await;
    let member = scene.introduced("x").await;
    let failed = scene.friend.counters().all()["exchanges_failed"];
    let mut held = Vec::new();
    for _ in 0..3 {
        for _ in 0..16 {
            let (mut send, receive) = member.open().await;
            // A byte, or the stream would not be seen.
            let _ = send.write_all(&[0]).await;
            held.push((send, receive));
        }
        scene.still_gossips().await;
        held.clear();
    }
    scene.counts("exchanges_shed", 1).await;
    scene.counts("exchanges_failed", 1).await;
    // Its own streams were turned away, never the friend's.
    assert_eq!(scene.friend.counters().all()["exchanges_failed"], failed);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_on_a_member_that_never_reads() {
    let mut scene = Scene::new(hurried).await;
    scene.node.set("large", vec![7_u8; 1 << 20]).await.unwrap();
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(VarInt::from_u32(1_000));
    let member = scene.introduced_with("x", narrow).await;
    let before = scene.count("exchanges_failed");
    let mut held = Vec::new();
    for _ in 0..16 {
        let (mut send, receive) = member.open().await;
        let syn = Message::Syn { digest: Digest::default() };
        send.write_all(&frame(&syn)).await.unwrap();
        held.push((send, receive));
    }
    scene.still_gossips().await;
    scene.counts("exchanges_failed", before + 16).await;
    // What it has not read is not kept for it: the streams were reset.
    for (_, receive) in &mut held {
        let reset = receive.received_reset().await.unwrap();
        assert_eq!(reset, Some(VarInt::from_u32(2)));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lets_long_frames_of_others_pass_those_that_do_not_come() {
    let mut scene = Scene::new(hurried).await;
    let mut attacks = Vec::new();
    for name in ["x", "y", "z"] {
        let member = scene.introduced(name).await;
        attacks.push(tokio::spawn(claim_long_frames(member)));
    }
    scene.counts("exchanges_failed", 16).await;
    let value = vec![7_u8; 1 << 20];
    scene.friend.set("large", value.clone()).await.unwrap();
    until("a long value gets through", || {
        scene.node.get(&id("n"), "large").is_some_and(|found| *found == *value)
    })
    .await;
    scene.still_gossips().await;
    attacks.iter().for_each(tokio::task::JoinHandle::abort);
    scene.end().await;
}

/// Says on 16 streams that 8 MiB will follow, lets some follow, and begins again when given up.
async fn claim_long_frames(member: Member) {
    let mut claims = JoinSet::new();
    for _ in 0..16 {
        let connection = member.connection.clone();
        claims.spawn(async move {
            while let Ok((mut send, _receive)) = connection.open_bi().await {
                let start = [&((8_u32 << 20) - 1).to_be_bytes()[..], &[3, 1]].concat();
                let _ = send.write_all(&start).await;
                // Enough not to be given up.
                while send.write_all(&[0; 48 << 10]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        });
    }
    claims.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_frames_that_drip() {
    let mut scene = Scene::new(hurried).await;
    let before = scene.count("exchanges_failed");
    let member = scene.introduced("x").await;
    let (mut send, mut receive) = member.open().await;
    send.write_all(&[0, 0, 100, 0, 3, 1]).await.unwrap();
    let dripping = async {
        // Far within the deadline each, and never done.
        while send.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, dripping).await.expect("never given up");
    assert!(read(&mut receive).await.is_none());
    scene.counts("exchanges_failed", before + 1).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_up_on_a_member_that_lets_it_open_no_stream() {
    let mut scene = Scene::new(hurried).await;
    let mut closed = TransportConfig::default();
    closed.max_concurrent_bidi_streams(VarInt::from_u32(0));
    let member = scene.introduced_with("x", closed).await;
    let (mut send, mut receive) = member.open().await;
    send.write_all(&frame(&Message::Syn { digest: Digest::default() })).await.unwrap();
    assert!(matches!(read(&mut receive).await, Some(Message::SynAck { .. })));
    // It tells of itself, so that the node has a reason to gossip with it.
    let delta = Delta { nodes: vec![news("x", |_| {})], more: false };
    send.write_all(&frame(&Message::Ack { delta })).await.unwrap();
    until("it is known", || scene.node.peers().iter().any(|peer| peer.node.as_str() == "x")).await;
    // What it claims to know is something else, for ever.
    let mut stream = member.connection.open_uni().await.unwrap();
    let root = Message::Gossip(Gossip::Root(1));
    stream.write_all(&frame(&root)).await.unwrap();
    scene.counts("exchanges_failed", 2).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_one_connection_of_a_member_that_dials_again_and_again() {
    let mut scene = Scene::new(|_| {}).await;
    let mut last = scene.introduced("x").await;
    for _ in 0..10 {
        let next = scene.introduced("x").await;
        let (code, _) = last.cut_off().await;
        assert_eq!(code, 2, "replaced");
        last = next;
    }
    let old = Member::dial(scene.member("x"), scene.address(), TransportConfig::default());
    let old = old.await.unwrap();
    let past = Hello { generation: Generation(1), ..hello("demo", "x") };
    let _ = old.introduce(past).await;
    assert_eq!(old.cut_off().await.0, 3, "of an earlier life");
    assert!(last.connection.close_reason().is_none());
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_no_more_connections_than_it_may() {
    let mut scene = Scene::new(|config| {
        config.quic.connections = 3;
        // None of them is to be given up meanwhile.
        config.quic.handshake_timeout = Duration::from_secs(60);
    })
    .await;
    let mut held = Vec::new();
    for n in 0..6 {
        let member = scene.member(&format!("x{n}"));
        held.extend(Member::dial(member, scene.address(), TransportConfig::default()).await);
    }
    assert!(held.len() <= 2, "{} beside the friend", held.len());
    scene.counts("handshakes_shed", 4).await;
    scene.still_gossips().await;
    drop(held);
    // Those that end count until they are gone.
    let admitted = async {
        let member =
            || Member::dial(scene.member("y"), scene.address(), TransportConfig::default());
        while member().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, admitted).await.expect("never let in again");
    scene.end().await;
}

/// News of a node that are in order, until they are tampered with.
pub(crate) fn news(node: &str, tamper: impl FnOnce(&mut NodeDelta)) -> NodeDelta {
    let entry = |n: u64| DeltaEntry {
        key: format!("key{n}").into(),
        version: Version(n),
        content: DeltaContent::Value { value: "value".into(), ttl_ms: None },
    };
    let record = NodeRecord {
        datacenter: "dc1".parse().unwrap(),
        addresses: vec!["127.0.0.1:1".into()],
        tags: [].into(),
        wire: (1, 1),
        status: Status::Up,
        incarnation: Default::default(),
        severed: [].into(),
        not_before: None,
        not_after: None,
    };
    let mut delta = NodeDelta {
        sealed: None,
        node: id(node),
        generation: Generation(1_000),
        ancestry: Vec::new(),
        from: Version::ZERO,
        to: Version(3),
        horizon: Version(3),
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: gossipmonger::protocol::verdict::Verdict::default(),
        record: Some((Version(1), record)),
        entries: vec![entry(2), entry(3)],
    };
    tamper(&mut delta);
    delta
}

fn hurried(config: &mut Config) {
    config.quic.exchange_timeout = Duration::from_secs(1);
}
