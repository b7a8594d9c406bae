//! A cluster that is being upgraded: somebody of a later version among those of this one.

use gossipmonger::{
    Generation, Key, PeerState, Version,
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        digest::{Digest, DigestEntry},
        message::{Hello, Message},
        record::{NodeRecord, Status},
    },
};
use quinn::TransportConfig;

use crate::{
    attacker::{Member, Scene, frame, hello, read},
    harness::{id, until},
};

const LIFE: Generation = Generation(2_000);

// C100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_later_version_joins_gossips_and_leaves() {
    let mut scene = Scene::new(|_| {}).await;
    scene.node.set("color", "green").await.unwrap();
    // It offers its own major version first and ours second, and can do what we have never heard of.
    let mut tls = scene.member("later");
    tls.alpn_protocols = vec![b"gossipmonger/2".to_vec(), b"gossipmonger/1".to_vec()];
    let later = Member::dial(tls, scene.address(), TransportConfig::default()).await.unwrap();
    let first = Hello { generation: LIFE, features: u64::MAX, ..hello("demo", "later") };
    let welcome = later.introduce(first).await;
    assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");

    let theirs = exchange(&later, Status::Up, 2).await;
    let told = theirs.nodes.iter().find(|news| news.node == id("m")).unwrap();
    assert!(told.entries.iter().any(|entry| entry.key == Key::from("color")), "{told:?}");
    for node in [&scene.node, &scene.friend] {
        until("its key is everywhere", || {
            node.get_str(&id("later"), "size").as_deref() == Some("large")
        })
        .await;
    }

    exchange(&later, Status::Left, 3).await;
    for node in [&scene.node, &scene.friend] {
        until("all know that it left", || {
            node.snapshot().member(&id("later")).is_some_and(|m| m.state == PeerState::Left)
        })
        .await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

/// An exchange that it begins: tells its record and key, hears what the node tells.
async fn exchange(later: &Member, status: Status, upto: u64) -> Delta {
    let own = DigestEntry {
        generation: LIFE,
        max_version: Version(upto),
        horizon: Version(upto),
        record: Version(upto),
        ..DigestEntry::unknown(id("later"))
    };
    let (mut send, mut receive) = later.open().await;
    let syn = Message::Syn { digest: Digest { entries: vec![own] } };
    send.write_all(&frame(&syn)).await.unwrap();
    let Some(Message::SynAck { wants, delta }) = read(&mut receive).await else {
        panic!("no answer to a Syn");
    };
    assert!(wants.get(&id("later")).is_some(), "it wants to be told of the newcomer: {wants:?}");
    let news = Delta { nodes: vec![news(status, upto)], more: false };
    send.write_all(&frame(&Message::Ack { delta: news })).await.unwrap();
    send.finish().unwrap();
    delta
}

fn news(status: Status, upto: u64) -> NodeDelta {
    let record = NodeRecord {
        datacenter: "dc1".parse().unwrap(),
        addresses: vec!["127.0.0.1:1".into()],
        tags: [].into(),
        wire: (1, 2),
        status,
        incarnation: Default::default(),
        severed: [].into(),
        not_before: None,
        not_after: None,
    };
    let value = DeltaContent::Value { value: "large".into(), ttl_ms: None };
    let size = DeltaEntry { key: "size".into(), version: Version(2), content: value };
    let is_first = upto == 2;
    NodeDelta {
        sealed: None,
        node: id("later"),
        generation: LIFE,
        ancestry: Vec::new(),
        from: if is_first { Version::ZERO } else { Version(2) },
        to: Version(upto),
        horizon: Version(upto),
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: gossipmonger::protocol::verdict::Verdict::default(),
        record: Some((Version(if is_first { 1 } else { upto }), record)),
        entries: if is_first { vec![size] } else { Vec::new() },
    }
}
