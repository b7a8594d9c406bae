//! Words that are no proof: of somebody without a name, of a client, of a member about another.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Event, Generation, Gossipmonger,
    clients::{ClientHandler, Visitor},
    net::{BoxFuture, Stream, quic::QuicNetwork},
    pki::LeafOptions,
    protocol::{
        claim::ANSWER_STEP,
        delta::NodeDelta,
        digest::{Digest, DigestEntry},
        event::Problem,
        id::Version,
        message::Message,
        record::NodeRecord,
        seal::Signing,
        verdict::Verdict as NodeVerdict,
    },
    tls::{ClientIdentity, ClientName, Identity, PeerName, Role, Roots},
    unstable::{ALPN, Host, SERVER_NAME, Verdict, rustls_visit},
};
use quinn::{TransportConfig, VarInt};
use rustls::quic::{ClientConnection, DirectionalKeys, KeyChange, Keys, Version as QuicVersion};

use crate::start::{Start, spawn};
use crate::{
    attacker::{Member, Scene, frame, hello, refused},
    harness::{Cluster, PATIENCE, id, until},
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
    let mut sent = 0;
    for (kind, code, words) in &closes {
        for in_handshake in [false, true] {
            sent += 1;
            let dcid = [sent; 8];
            if in_handshake {
                handshake(&scene, dcid, *kind, code, words);
            } else {
                let packet = initial(dcid, *kind, code, words);
                socket.send_to(&packet, scene.address()).unwrap();
            }
            let counted = u64::from(sent);
            until("it is counted", || scene.refused("unproved") == counted).await;
        }
    }
    assert_eq!(scene.node.counters().refusals(), [("unproved", 10)].into());
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
    let transport = Arc::new(QuicNetwork::new(identity, roots).unwrap());
    let mut config = Start::quic(Arc::clone(&transport)).local();
    config.gossip_interval = Duration::from_millis(100);
    let node = spawn(config).await.unwrap().0;
    node.serve_clients(Arc::new(Nothing));
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
    for n in 2..4 {
        push(&mut stream, bare(n)).await;
    }
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
    let wall = today() + Duration::from_secs(60);
    let mut stranger = Owner::of(Cluster::new("demo").identity("m"), "m", wall, |_| {});
    push(&mut stream, stranger.told()).await;
    scene.counts("news_refused", 1).await;
    assert_eq!(life(&scene.node), before);
    // Two lives of its own past, as a node hears of that has lost its store and its clock.
    let mut expected = before;
    for seconds in [60, 120] {
        let wall = today() + Duration::from_secs(seconds);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_expired_vouches_for_no_life_that_begins_today() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let owner = scene.cluster.spawn("v", &[&scene.node]).await;
    owner.set("color", "green").await.unwrap();
    let color = |node: &Gossipmonger| node.get_str(&id("v"), "color");
    until("v is known", || color(&scene.node).as_deref() == Some("green")).await;
    until("to both", || color(&scene.friend).as_deref() == Some("green")).await;
    // Its certificate of last month was stolen, and a member carries what the thief says.
    let (day, now) = (Duration::from_secs(86_400), today());
    let name = PeerName::from_uri("spiffe://demo/dc1/v").unwrap();
    let (not_before, not_after) = (now - 30 * day, now - 27 * day);
    let options = LeafOptions { not_before, not_after, ..LeafOptions::new(&name, day) };
    let issued = scene.cluster.authority.issue_with(&options).unwrap();
    let (pem, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_at(pem, key, now - 29 * day).unwrap();
    let stolen = (identity, Roots::from_pem(issued.roots_pem.as_bytes()).unwrap());
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    let mut black = async |refused, begins| {
        let mut thief = Owner::of(stolen.clone(), "v", begins, |_| {});
        thief.set("color", "black");
        push(&mut stream, thief.told()).await;
        scene.counts("news_refused", refused).await;
    };
    black(1, now).await;
    owner.shutdown().await;
    // Nor once the owner is down and nobody contradicts.
    black(2, today() + Duration::from_secs(5)).await;
    for node in [&scene.node, &scene.friend] {
        assert_ne!(color(node).as_deref(), Some("black"));
    }
    assert_eq!(owner.counters().all()["name_conflicts"], 0, "it has met no conflict of names");
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_in_no_other_datacenter_than_its_certificate_says() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let elsewhere = |record: &mut NodeRecord| record.datacenter = "elsewhere".parse().unwrap();
    let wall = today();
    let mut owner = Owner::of(scene.cluster.identity("x"), "x", wall, elsewhere);
    owner.set("k", "v");
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    push(&mut stream, owner.told()).await;
    scene.counts("news_refused", 1).await;
    assert!(scene.node.snapshot().member(&id("x")).is_none());
    // The same where its certificate says so.
    let identity = scene.cluster.identity_in("elsewhere", "y");
    let mut owner = Owner::of(identity, "y", wall, elsewhere);
    push(&mut stream, owner.told()).await;
    let place = || scene.node.snapshot().member(&id("y")).map(|member| member.datacenter);
    until("it is there", || place().is_some_and(|place| place.as_str() == "elsewhere")).await;
    scene.still_gossips().await;
    scene.end().await;
}

fn life(node: &Gossipmonger) -> Generation {
    node.snapshot().member(node.node()).unwrap().generation
}

/// So many days from now, as a generation.
fn ahead(days: u64) -> u64 {
    Generation::of(today() + Duration::from_secs(days * 86_400)).0
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
    let mut payload = close(kind, code, words);
    payload.resize(INITIAL_BYTES, 0);
    seal(&initial_keys(&dcid).local, (INITIAL, 0), &dcid, payload)
}

/// One Handshake packet with a close in it, of a client that has shown no certificate: it has agreed on
/// keys with the node, as anybody can.
fn handshake(scene: &Scene, dcid: [u8; 8], kind: u8, code: &[u8], words: &[u8]) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(scene.address()).unwrap();
    let (tls, name) = (Arc::new(scene.member("x")), SERVER_NAME.try_into().unwrap());
    // The one transport parameter that has to be there: our connection id.
    let parameters = [&[0x0f, 8], &SOURCE[..]].concat();
    let mut client = ClientConnection::new(tls, QuicVersion::V1, name, parameters).unwrap();
    let (keys, mut hello) = (initial_keys(&dcid), Vec::new());
    client.write_hs(&mut hello);
    for (number, part) in hello.chunks(INITIAL_BYTES / 2).enumerate() {
        let offset = four(number * INITIAL_BYTES / 2);
        let mut payload = [&[CRYPTO], &offset[..], &four(part.len())[..], part].concat();
        payload.resize(INITIAL_BYTES, 0);
        let packet = seal(&keys.local, (INITIAL, u32::try_from(number).unwrap()), &dcid, payload);
        socket.send(&packet).unwrap();
    }
    let (mut parts, mut read, mut datagram) = (BTreeMap::new(), 0, vec![0; 2_000]);
    loop {
        let len = socket.recv(&mut datagram).unwrap();
        let Some((source, payload)) = open(&keys.remote, &mut datagram[..len]) else { continue };
        crypto(&payload, &mut parts);
        while let Some(part) = parts.remove(&read) {
            read += part.len();
            client.read_hs(&part).unwrap();
        }
        if let Some(KeyChange::Handshake { keys }) = client.write_hs(&mut Vec::new()) {
            let packet = seal(&keys.local, (HANDSHAKE, 0), &source, close(kind, code, words));
            socket.send(&packet).unwrap();
            return;
        }
    }
}

fn close(kind: u8, code: &[u8], words: &[u8]) -> Vec<u8> {
    [&[kind], code, &four(words.len()), words].concat()
}

fn initial_keys(dcid: &[u8]) -> Keys {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    Keys::initial(QuicVersion::V1, suite, suite.quic.unwrap(), dcid, rustls::Side::Client)
}

/// A packet with a long header (RFC 9000, section 17.2), protected.
fn seal(
    keys: &DirectionalKeys,
    (kind, number): (u8, u32),
    dcid: &[u8],
    mut payload: Vec<u8>,
) -> Vec<u8> {
    let length = u8::try_from(dcid.len()).unwrap();
    let token: &[u8] = if kind == INITIAL { &[0] } else { &[] };
    let mut packet = [&[kind, 0, 0, 0, 1, length], dcid, &[8], &SOURCE, token].concat();
    packet.extend(four(4 + payload.len() + TAG_BYTES));
    let at = packet.len();
    packet.extend(number.to_be_bytes());
    let tag = keys.packet.encrypt_in_place(number.into(), &packet, &mut payload).unwrap();
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let sample: Vec<u8> = packet[at + 4..at + 20].to_vec();
    let (head, rest) = packet.split_at_mut(at);
    keys.header.encrypt_in_place(&sample, &mut head[0], &mut rest[..4]).unwrap();
    packet
}

/// The source and the frames of the Initial packet that a datagram begins with, if it begins with one.
fn open(keys: &DirectionalKeys, datagram: &mut [u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if datagram[0] & 0xf0 != INITIAL & 0xf0 {
        return None;
    }
    let mut at = 6 + usize::from(datagram[5]);
    let source = datagram[at + 1..at + 1 + usize::from(datagram[at])].to_vec();
    at += 1 + source.len();
    // Servers send no token.
    assert_eq!(number(datagram, &mut at), 0);
    let length = number(datagram, &mut at);
    let (head, rest) = datagram.split_at_mut(at);
    let sample: Vec<u8> = rest[4..20].to_vec();
    keys.header.decrypt_in_place(&sample, &mut head[0], &mut rest[..4]).ok()?;
    let digits = usize::from(head[0] & 3) + 1;
    let packet = rest[..digits].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let header = [&*head, &rest[..digits]].concat();
    let payload = keys.packet.decrypt_in_place(packet, &header, &mut rest[digits..length]).ok()?;
    Some((source, payload.to_vec()))
}

/// The parts of the handshake in the frames of a packet, by their place.
fn crypto(payload: &[u8], parts: &mut BTreeMap<usize, Vec<u8>>) {
    let mut at = 0;
    while at < payload.len() {
        let kind = payload[at];
        at += 1;
        match kind {
            // Padding, and a ping.
            0 | 1 => {}
            CRYPTO => {
                let (offset, len) = (number(payload, &mut at), number(payload, &mut at));
                parts.insert(offset, payload[at..at + len].to_vec());
                at += len;
            }
            ACK => {
                let [_, _, ranges, _] = [(); 4].map(|()| number(payload, &mut at));
                for _ in 0..2 * ranges {
                    number(payload, &mut at);
                }
            }
            other => panic!("a frame of kind {other:#x}"),
        }
    }
}

/// A variable-length integer (RFC 9000, section 16).
fn number(bytes: &[u8], at: &mut usize) -> usize {
    let len = 1 << (bytes[*at] >> 6);
    let first = usize::from(bytes[*at] & 0x3f);
    let rest = &bytes[*at + 1..*at + len];
    *at += len;
    rest.iter().fold(first, |number, byte| number << 8 | usize::from(*byte))
}

/// The same, in four bytes.
fn four(number: usize) -> [u8; 4] {
    (u32::try_from(number).unwrap() | 0x8000_0000).to_be_bytes()
}

/// Kinds of packets, with a number of four bytes, and of frames.
const INITIAL: u8 = 0xc3;
const HANDSHAKE: u8 = 0xe3;
const ACK: u8 = 2;
const CRYPTO: u8 = 6;
/// A client pads its first packets to this at least.
const INITIAL_BYTES: usize = 1_200;
const TAG_BYTES: usize = 16;
/// The connection id of whoever makes such packets.
const SOURCE: [u8; 8] = [7; 8];

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
    fn answer(&self, _: Visitor, _: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn today() -> SystemTime {
    SystemTime::now()
}
