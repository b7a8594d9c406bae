//! Words that are no proof: of somebody without a name, of a client, of a member about another.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Config, Event, Generation, Gossipmonger,
    protocol::{
        claim::ANSWER_STEP,
        delta::{Delta, NodeDelta},
        digest::{Digest, DigestEntry},
        event::Problem,
        gossip::Gossip,
        id::Version,
        message::Message,
        seal::Signing,
        verdict::Verdict as NodeVerdict,
    },
    tls::{
        ALPN, ClientIdentity, ClientName, Host, LeafOptions, Role, Roots, Verdict, rustls_visit,
    },
    transport::{
        BoxFuture,
        quic::{
            QuicTransport,
            clients::{ClientHandler, Visitor},
        },
    },
};
use quinn::{RecvStream, SendStream, TransportConfig, VarInt};

use crate::{
    attacker::{Member, Scene, frame, hello, refused},
    harness::{Cluster, id, until},
    signed_heads::{Owner, push},
};

/// Frame types of RFC 9000, section 19.19.
const CONNECTION_CLOSE: u8 = 0x1c;
const APPLICATION_CLOSE: u8 = 0x1d;
/// The close code of an earlier life, and of a revoked certificate.
const OLD_GENERATION: u8 = 3;
const REVOKED: u8 = 10;
/// The TLS alert certificate_revoked as a QUIC error code, a variable-length integer of two bytes.
const ALERT_REVOKED: [u8; 2] = [0x41, 0x2c];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_says_who_has_shown_no_certificate_changes_nothing_but_a_counter() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let (told, before) = (Told::new(&scene.node), life(&scene.node));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let later = |n: u64| format!("a later life of you is known: generation {}", ahead(30) + n);
    let alert: Vec<u8> = [&ALERT_REVOKED[..], &[0]].concat();
    let closes: Vec<(u8, Vec<u8>, Vec<u8>)> = vec![
        (APPLICATION_CLOSE, vec![OLD_GENERATION], later(0).into_bytes()),
        (APPLICATION_CLOSE, vec![OLD_GENERATION], later(5_000).into_bytes()),
        (APPLICATION_CLOSE, vec![REVOKED], b"your certificates are revoked".to_vec()),
        (APPLICATION_CLOSE, vec![1], b"it is a member of another cluster".to_vec()),
        (CONNECTION_CLOSE, alert, b"your certificate was revoked".to_vec()),
    ];
    for (n, (kind, code, words)) in closes.iter().enumerate() {
        let packet = initial([n as u8 + 1; 8], *kind, code, words);
        socket.send_to(&packet, scene.address()).unwrap();
        let counted = n as u64 + 1;
        until("it is counted", || scene.refused("unproved") == counted).await;
    }
    assert_eq!(scene.node.counters().refusals(), [("unproved", 5)].into());
    assert_eq!((life(&scene.node), scene.count("name_conflicts")), (before, 0));
    assert_eq!(told.all(), [], "nothing is told of it");
    scene.still_gossips().await;
    scene.end().await;
}

/// A dialer that refuses the node's certificate, in a Handshake packet, has not shown its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_off_the_handshake_is_no_peer_that_refuses_us() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let told = Told::new(&scene.node);
    let stranger = crate::attacker::client(Cluster::new("other").identity("x"));
    let dialed = Member::dial(stranger, scene.address(), TransportConfig::default()).await;
    assert!(dialed.is_err(), "it trusts another authority");
    until("it is counted", || scene.refused("unproved") == 1).await;
    assert_eq!(scene.node.counters().refusals(), [("unproved", 1)].into());
    assert_eq!(told.all(), []);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_may_read_ends_no_node_by_the_close_of_its_connection() {
    let cluster = Cluster::new("demo");
    let (identity, roots) = cluster.identity("m");
    let transport = Arc::new(QuicTransport::new(identity, roots).unwrap());
    let mut config = Config::with_quic(Arc::clone(&transport)).local();
    config.gossip_interval = Duration::from_millis(100);
    transport.serve_clients(Arc::new(Nothing));
    let node = Gossipmonger::spawn(config).await.unwrap().0;
    let (before, to): (_, SocketAddr) = (life(&node), node.addresses()[0].parse().unwrap());
    let (role, client) = (Role::Read, "alice".parse().unwrap());
    let name = ClientName { cluster: "demo".parse().unwrap(), role, client };
    let options = LeafOptions::client(&name, Duration::from_secs(3_600));
    let issued = cluster.authority.issue_with(&options).unwrap();
    let (pem, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = ClientIdentity::from_pem(pem, key).unwrap();
    let roots = Roots::from_pem(cluster.authority.certificate_pem().as_bytes()).unwrap();
    let host = Host::Uri("spiffe://demo/dc1/m".to_owned());
    let mut tls = rustls_visit(&identity, roots, host, Verdict::default()).unwrap();
    tls.alpn_protocols = vec![ALPN[0].to_vec()];
    for n in 0..30 {
        let member = Member::dial(tls.clone(), to, TransportConfig::default()).await.unwrap();
        let words = format!("a later life of you is known: generation {}", ahead(30) + n * 5_000);
        member.connection.close(VarInt::from_u32(OLD_GENERATION.into()), words.as_bytes());
        let failed = || node.counters().all()["handshakes_failed"];
        until("it is over", || failed() > n).await;
    }
    assert_eq!((life(&node), node.counters().all()["name_conflicts"]), (before, 0));
    assert!(refused(&node, "client_certificate") > 0, "{:?}", node.counters().refusals());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_begins_and_ends_no_life_of_another_node_by_what_it_says() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let (told, before) = (Told::new(&scene.node), life(&scene.node));
    let claims = |least| scene.counts("claims_unproved", least);
    // In a digest.
    let member = scene.introduced("x").await;
    for n in 0..2 {
        let generation = Generation(ahead(30) + n);
        let line = DigestEntry { generation, ..DigestEntry::unknown(id("m")) };
        let digest = Digest { entries: vec![line] };
        assert!(member.ask(&frame(&Message::Syn { digest })).await.is_some());
    }
    claims(2).await;
    // In news without a signature.
    let mut stream = member.connection.open_uni().await.unwrap();
    let delta = Delta { nodes: vec![bare(2), bare(3)], more: false };
    stream.write_all(&frame(&Message::Gossip(Gossip::Push(delta)))).await.unwrap();
    claims(4).await;
    // By the close of a connection over which it has introduced itself.
    let words = format!("a later life of you is known: generation {}", ahead(31));
    member.connection.close(VarInt::from_u32(OLD_GENERATION.into()), words.as_bytes());
    claims(5).await;
    // By introducing itself.
    for n in 0..2 {
        let transport = TransportConfig::default();
        let member = Member::dial(scene.member("x"), scene.address(), transport).await.unwrap();
        let mut hello = hello("demo", "x");
        hello.generation = Generation(2_000 + n);
        hello.known = Generation(ahead(30) + 10 + n);
        assert!(member.introduce(hello).await.is_some());
    }
    claims(7).await;
    assert_eq!((life(&scene.node), scene.count("name_conflicts")), (before, 0));
    let named = |problem: &Problem| matches!(problem, Problem::ClaimUnproved { from, .. } if *from == id("x"));
    until("it is told who says so", || told.all().iter().any(named)).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_life_that_the_nodes_own_name_has_signed_is_followed_and_one_that_answers_ends_it()
{
    let scene = Scene::with(Signing::Require, |_| {}).await;
    let before = life(&scene.node);
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    // Of another key than a certificate of this name vouches for: refused, and told by whom.
    let wall = SystemTime::now() + Duration::from_secs(60);
    let mut stranger = Owner::of(Cluster::new("demo").identity("m"), "m", wall, |_| {});
    push(&mut stream, stranger.told()).await;
    scene.counts("news_refused", 1).await;
    assert_eq!(life(&scene.node), before);
    // Two lives of its own past, as a node hears of that has lost its store and its clock.
    let mut expected = before;
    for seconds in [60, 120] {
        let wall = SystemTime::now() + Duration::from_secs(seconds);
        let mut past = Owner::of(scene.cluster.identity("m"), "m", wall, |_| {});
        let past = past.told();
        expected = Generation(past.generation.0 + ANSWER_STEP);
        push(&mut stream, past).await;
        until("it begins a later life", || life(&scene.node) == expected).await;
    }
    // One that answers the life it has just begun is of another process.
    let answer = SystemTime::UNIX_EPOCH + Duration::from_millis(expected.0 + ANSWER_STEP);
    let mut twin = Owner::of(scene.cluster.identity("m"), "m", answer, |_| {});
    push(&mut stream, twin.told()).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), scene.node.ended()).await;
    assert!(matches!(ended, Ok(Some(Problem::Displaced { .. }))), "{ended:?}");
    scene.friend.shutdown().await;
}

fn life(node: &Gossipmonger) -> Generation {
    node.snapshot().member(node.node()).unwrap().generation
}

/// So many days from now, as a generation.
fn ahead(days: u64) -> u64 {
    Generation::of(SystemTime::now() + Duration::from_secs(days * 86_400)).0
}

/// News of `m` that nobody has signed.
fn bare(n: u64) -> NodeDelta {
    NodeDelta {
        node: id("m"),
        generation: Generation(ahead(30) + n),
        ancestry: Vec::new(),
        from: Version::ZERO,
        to: Version::ZERO,
        horizon: Version::ZERO,
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: NodeVerdict::default(),
        record: None,
        entries: Vec::new(),
        sealed: None,
    }
}

/// One Initial packet, whose keys follow from a connection id that the sender chooses (RFC 9001, section
/// 5.2), with a close in it.
fn initial(dcid: [u8; 8], kind: u8, code: &[u8], words: &[u8]) -> Vec<u8> {
    use rustls::quic::{Keys, Version};
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), &dcid, rustls::Side::Client);
    let four = |len: usize| (len as u32 | 0x8000_0000).to_be_bytes();
    let mut payload = [&[kind], code, &four(words.len()), words].concat();
    payload.resize(1_200, 0);
    let mut packet = [&[0xc3, 0, 0, 0, 1, 8], &dcid[..], &[8], &[7; 8], &[0]].concat();
    packet.extend(four(4 + payload.len() + 16));
    let at = packet.len();
    packet.extend([0, 0, 0, 0]);
    let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut payload).unwrap();
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let sample: Vec<u8> = packet[at + 4..at + 20].to_vec();
    let (head, rest) = packet.split_at_mut(at);
    keys.local.header.encrypt_in_place(&sample, &mut head[0], &mut rest[..4]).unwrap();
    packet
}

/// What the operator of a node is told.
struct Told(Arc<Mutex<Vec<Problem>>>);

impl Told {
    fn new(node: &Gossipmonger) -> Self {
        let (mut events, told) = (node.subscribe(), Arc::<Mutex<Vec<Problem>>>::default());
        let problems = Arc::clone(&told);
        tokio::spawn(async move {
            while let Ok(event) = events.next().await {
                if let Event::Error(problem) = event {
                    problems.lock().unwrap().push(problem);
                }
            }
        });
        Self(told)
    }

    fn all(&self) -> Vec<Problem> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct Nothing;

impl ClientHandler for Nothing {
    fn answer(&self, _: Visitor, _: (SendStream, RecvStream)) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
