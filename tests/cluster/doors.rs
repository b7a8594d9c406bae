//! What a member or a stranger may make of a node's doors: throttled, cut off, turned away for a
//! while, and never held in more than its limits.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Config, Generation,
    protocol::penalties::THROTTLED_MAX,
    protocol::{
        delta::Delta,
        digest::Digest,
        gossip::Gossip,
        message::{Call, Heartbeat, Message},
        reason::{Cause, Reason},
    },
};
use quinn::TransportConfig;

use crate::start::spawn;
use crate::{
    attacker::{
        MISBEHAVIOUR, Member, Scene, first_flights, frame, hello, raw_frame, read, resident,
        with_transport,
    },
    forge::Forge,
    harness::{Cluster, PATIENCE, id, until},
    hostile_peer::news,
};

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_then_cuts_off_a_member_that_floods_and_says_why() {
    let mut scene = Scene::new(bars).await;
    let member = known_member(&scene).await;
    let mut sequence = 0;
    while member.connection.close_reason().is_none() {
        sequence += 1;
        let (call, generation) = (Call::Beat, Generation(1_000));
        let beat = Heartbeat { generation, sequence, call, health: 0 };
        if member.connection.send_datagram_wait(beat.encode().into()).await.is_err() {
            break;
        }
    }
    let (code, words) = member.cut_off().await;
    assert_eq!(code, MISBEHAVIOUR);
    assert!(words.contains("more heartbeats than 500 a second"), "{words}");
    // Throttled first.
    assert!(scene.count("frames_throttled") >= THROTTLED_MAX as u64);
    cut_off_once(&scene, "heartbeats").await;
    turned_away_then_let_in(&scene).await;
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_then_cuts_off_a_member_that_begins_too_many_exchanges() {
    let mut scene = Scene::new(|config| {
        bars(config);
        config.quic.exchanges_per_peer = 20;
    })
    .await;
    let member = known_member(&scene).await;
    let syn = frame(&Message::Syn { digest: Digest::default() });
    let flood = async {
        // Dropping the other half takes back what was asked for.
        while let Ok((mut send, _)) = member.connection.open_bi().await {
            let _ = send.write_all(&syn).await;
            let _ = send.finish();
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("never cut off");
    assert!(member.cut_off().await.1.contains("more exchanges than it may begin"));
    assert!(scene.count("exchanges_shed") >= THROTTLED_MAX as u64);
    cut_off_once(&scene, "exchanges").await;
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_then_cuts_off_a_member_that_tells_its_root_without_end() {
    let mut scene = Scene::new(bars).await;
    let member = known_member(&scene).await;
    let mut stream = member.connection.open_uni().await.unwrap();
    let root = frame(&Message::Gossip(Gossip::Root(1))).repeat(100);
    let flood = async { while stream.write_all(&root).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("never cut off");
    assert!(member.cut_off().await.1.contains("more roots than 200 a second"));
    cut_off_once(&scene, "roots").await;
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_away_for_a_while_a_member_that_sent_what_is_no_message() {
    let mut scene = Scene::new(bars).await;
    let member = known_member(&scene).await;
    assert_eq!(member.ask(&raw_frame(b"garbage of any kind")).await, None);
    assert_eq!(member.cut_off().await.0, MISBEHAVIOUR);
    cut_off_once(&scene, "").await;
    turned_away_then_let_in(&scene).await;
    scene.still_gossips().await;
    scene.end().await;
}

/// The whole of an attacker without a certificate: 20,000 handshakes that never go on, by a node of
/// the default limits. What it holds is bounded by them, and what it answers by what it was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_no_more_than_its_limits_under_twenty_thousand_handshakes_that_never_go_on() {
    let cluster = Cluster::new("demo");
    let (config, transport) = with_transport(&cluster, "m");
    let limits = config.quic;
    let node = spawn(config).await.unwrap().0;
    let friend = cluster.spawn("n", &[&node]).await;
    let live = || node.live_peers().len() == 1 && friend.live_peers().len() == 1;
    until("the two see each other", live).await;
    let accepted = node.counters().all()["connections_accepted"];
    let before = resident();
    let stranger = crate::attacker::client(Cluster::new("strangers").identity("x"));
    let forge = Forge::new(&first_flights(stranger, 1).await[0]).unwrap();
    let to: std::net::SocketAddr = node.addresses()[0].parse().unwrap();
    let sockets: Vec<_> = (1..=64).map(attacker_socket).collect();
    let looked_at = || {
        let counts = node.counters().all();
        counts["handshakes_retried"] + counts["handshakes_shed"]
    };
    let (mut sent, mut answered, mut most, mut number) = (0, 0, transport.load(), 0_u64);
    let mut buffer = [0; 2_048];
    let flood = async {
        while number < 20_000 || looked_at() < 20_000 {
            // Not more at once than the socket of the node has room for.
            for _ in 0..100 {
                number += 1;
                let socket = &sockets[number as usize % sockets.len()];
                for datagram in forge.flight(number).unwrap() {
                    sent += socket.send_to(&datagram, to).unwrap_or(0);
                }
                while let Ok(received) = socket.recv(&mut buffer) {
                    answered += received;
                }
            }
            let load = transport.load();
            most.handshakes = most.handshakes.max(load.handshakes);
            most.connections = most.connections.max(load.connections);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(4 * PATIENCE, flood).await.expect("20,000 handshakes take too long");
    for socket in &sockets {
        while let Ok(received) = socket.recv(&mut buffer) {
            answered += received;
        }
    }
    println!("{number} sent, held at most {most:?}, {answered} bytes answered to {sent}");
    assert!(most.handshakes <= limits.handshakes, "{most:?}");
    // From then on an address has to prove itself, and none of these can; the others are members,
    // and those that were given up and are draining.
    assert!(most.handshakes <= limits.retry_above, "{most:?}");
    assert!(most.connections <= limits.handshakes, "{most:?}");
    assert!(answered <= 3 * sent, "{answered} bytes for {sent}");
    // 256 handshakes of 42 KiB, 1 MiB of packets that wait, and whatever other tests hold.
    if let (Some(before), Some(now)) = (before, resident()) {
        assert!(now.saturating_sub(before) < 512 << 20);
    }
    // The member has stayed, on the connection that it had.
    assert!(live());
    assert_eq!(node.counters().all()["connections_accepted"], accepted);
    node.set("after", "the flood").await.unwrap();
    until("news get through", || friend.get_str(&id("m"), "after").is_some()).await;
    let newcomer = cluster.spawn("o", &[&node]).await;
    until("a member gets in", || newcomer.live_peers().len() == 2).await;
    until("all are given up", || transport.load().handshakes == 0).await;
    tokio::join!(node.shutdown(), friend.shutdown(), newcomer.shutdown());
}

fn bars(config: &mut Config) {
    config.quic.bar = Duration::from_secs(2);
}

/// A member `x` that has told of itself, so that something can be thought of it.
async fn known_member(scene: &Scene) -> Member {
    let member = scene.introduced("x").await;
    let (mut send, mut receive) = member.open().await;
    send.write_all(&frame(&Message::Syn { digest: Digest::default() })).await.unwrap();
    assert!(matches!(read(&mut receive).await, Some(Message::SynAck { .. })));
    let delta = Delta { nodes: vec![news("x", |_| {})], more: false };
    send.write_all(&frame(&Message::Ack { delta })).await.unwrap();
    until("it is known", || scene.node.peers().iter().any(|peer| peer.node == id("x"))).await;
    member
}

/// Exactly once, with the deed in the history of the member.
async fn cut_off_once(scene: &Scene, deed: &str) {
    until("it is counted", || scene.count("peers_cut_off") == 1).await;
    assert_eq!(scene.refused("misbehaviour"), 1);
    let told = || -> Option<Arc<Reason>> {
        let snapshot = scene.node.snapshot();
        let history = snapshot.why(&id("x"))?;
        let cut_off = |reason: &&Arc<Reason>| reason.cause == Cause::CutOff;
        history.iter().map(|change| &change.reason).find(cut_off).cloned()
    };
    until("why says so", || told().is_some()).await;
    let told = told().unwrap().deed.clone().unwrap();
    assert!(told.contains(deed), "{told}");
}

async fn turned_away_then_let_in(scene: &Scene) {
    let dial = || Member::dial(scene.member("x"), scene.address(), TransportConfig::default());
    let early = dial().await.unwrap();
    assert_eq!(early.introduce(hello("demo", "x")).await, None);
    let (code, words) = early.cut_off().await;
    assert_eq!(code, MISBEHAVIOUR);
    assert!(words.contains("it may try again in"), "{words}");
    until("it is counted", || scene.refused("barred") > 0).await;
    let admitted = async {
        while dial().await.unwrap().introduce(hello("demo", "x")).await.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.expect("never let in again");
}

fn attacker_socket(n: u8) -> UdpSocket {
    // Systems other than Linux have one address of loopback only.
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 9, 0, n), 0))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}
