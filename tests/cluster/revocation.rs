//! Who is revoked is cut off by everybody, and does not come back by any way. The attacker's side is
//! raw: it ignores what it is told.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Event, Generation, Gossipmonger, Problem, Revocation,
    pki::{Authority, AuthorityOptions, KeyKind},
    protocol::{
        delta::{Delta, NodeDelta},
        gossip::{Gossip, RevocationList},
        id::{ClusterId, Datacenter, Version},
        message::Message,
        revocation::IssuerId,
        verdict::Verdict,
    },
    tls::{Identity, Roots},
};
use quinn::{ConnectionError, TransportConfig, TransportErrorCode};

use crate::start::Start;
use crate::{
    attacker::{Member, Scene, client, frame, hello, record, refused},
    harness::{Cluster, PATIENCE, all_live, id, until},
    membership::end,
};

/// The close code of the wire.
const REVOKED: u64 = 10;
/// The TLS alert `certificate_revoked`.
const CERTIFICATE_REVOKED: u8 = 0x2c;

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_cut_off_everywhere_and_ends() {
    let cluster = Cluster::new("demo");
    let mut nodes = cluster.spawn_many(5).await;
    let stolen = cluster.identity("n4");
    all_live(&nodes).await;
    let revoked = nodes.pop().unwrap();
    revoked.set("secret", "x").await.unwrap();
    let mut events = nodes[3].subscribe();
    let statement = revoke(&cluster, "n4");
    nodes[0].revoke(statement.clone()).await.unwrap();
    // It is told why, by a statement that it can verify.
    let ended = tokio::time::timeout(PATIENCE, revoked.ended()).await.expect("it goes on");
    assert!(matches!(ended, Some(Problem::Revoked { cutoff }) if cutoff == statement.cutoff));
    until("everybody has forgotten it", || {
        nodes.iter().all(|node| {
            node.snapshot().member(&id("n4")).is_none() && node.revocations().len() == 1
        })
    })
    .await;
    let told = async {
        loop {
            if let Event::PeerRevoked { peer, .. } = events.next().await.unwrap() {
                return peer;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, told).await.unwrap(), id("n4"));

    // With the same certificate nobody lets it in, and says why.
    for node in &nodes {
        let before = refused(node, "revoked");
        is_refused(&stolen, node).await;
        until("it is counted", || refused(node, "revoked") == before + 1).await;
    }
    // With a new one it is as welcome as anybody.
    nodes.push(cluster.spawn("n4", &[&nodes[1]]).await);
    all_live(&nodes).await;
    assert!(nodes.iter().all(|node| node.live_peers().len() == 4));
    end(&nodes).await;
}

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_up_is_closed_with_the_statement() {
    let scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    let statement = revoke(&scene.cluster, "x");
    scene.friend.revoke(statement.clone()).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, member.connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = ended else { panic!("{ended}") };
    assert_eq!(closed.error_code.into_inner(), REVOKED);
    let end = closed.reason.iter().position(|byte| *byte == 0).unwrap();
    let words = String::from_utf8_lossy(&closed.reason[..end]);
    assert!(words.starts_with("your certificates of until 20"), "{words}");
    assert_eq!(Revocation::decode(&closed.reason[end + 1..]).unwrap(), statement);
    until("it is counted", || scene.refused("revoked") == 1).await;
    scene.end().await;
}

/// A connection that was renewed stays open for a while: by opening another one in time nobody keeps it.
// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_another_has_taken_the_place_of_is_closed_as_well() {
    let mut scene = Scene::new(|_| {}).await;
    // With another certificate each.
    let (first, second) = (scene.introduced("x").await, scene.introduced("x").await);
    scene.friend.revoke(revoke(&scene.cluster, "x")).await.unwrap();
    assert_eq!((first.cut_off().await.0, second.cut_off().await.0), (REVOKED, REVOKED));
    scene.still_gossips().await;
    scene.end().await;
}

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_goes_on_telling_of_the_revoked_is_not_believed() {
    let mut scene = Scene::new(|_| {}).await;
    // It hears nothing, and so does not know.
    let relay = scene.introduced("relay").await;
    let mut stream = relay.connection.open_uni().await.unwrap();
    stream.write_all(&frame(&news_of("x", 1))).await.unwrap();
    until("it is believed at first", || knows(&scene.node, "x") && knows(&scene.friend, "x")).await;
    scene.friend.revoke(revoke(&scene.cluster, "x")).await.unwrap();
    until("both have forgotten it", || !knows(&scene.node, "x") && !knows(&scene.friend, "x"))
        .await;
    for round in 2..12 {
        let before = scene.count("revoked_news_refused");
        stream.write_all(&frame(&news_of("x", round))).await.unwrap();
        scene.counts("revoked_news_refused", before + 1).await;
        assert!(!knows(&scene.node, "x") && !knows(&scene.friend, "x"));
    }
    scene.still_gossips().await;
    assert!(!knows(&scene.friend, "x"), "and it was not passed on");
    scene.end().await;
}

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_statements_that_no_authority_of_ours_has_signed() {
    let mut scene = Scene::new(|_| {}).await;
    let mut events = scene.node.subscribe();
    let genuine = revoke(&scene.cluster, "n");
    let foreign = authority("demo", KeyKind::Ed25519).revoke(id("n"), now()).unwrap();
    // By the key of a node; under the name of the authority.
    let issued = scene
        .cluster
        .authority
        .issue(id("evil"), Datacenter::new("dc1").unwrap(), Duration::from_secs(60))
        .unwrap();
    let key = rcgen::KeyPair::from_pem(&issued.key_pem).unwrap();
    let message = genuine.message(&ClusterId::new("demo").unwrap());
    let signature = rcgen::SigningKey::sign(&key, &message).unwrap();
    let by_a_node = Revocation { signature, ..genuine.clone() };
    let unsigned = Revocation { signature: Vec::new(), ..genuine.clone() };
    let later = Revocation { cutoff: genuine.cutoff + 1, ..genuine.clone() };
    let nobody = Revocation { issuer: IssuerId([7; 32]), ..genuine.clone() };
    let evil = scene.introduced("evil").await;
    let mut stream = evil.connection.open_uni().await.unwrap();
    for (number, forged) in [foreign, by_a_node, unsigned, later, nobody].into_iter().enumerate() {
        assert!(scene.friend.revoke(forged.clone()).await.is_err(), "nor from its own operator");
        stream.write_all(&frame(&told(vec![forged]))).await.unwrap();
        scene.counts("revocations_refused", number as u64 + 1).await;
    }
    let blamed = async {
        loop {
            let event = events.next().await.unwrap();
            if let Event::Error(Problem::RevocationRefused { from, about, .. }) = event {
                return (from, about);
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, blamed).await.unwrap(), (id("evil"), id("n")));
    assert!(scene.node.revocations().is_empty() && scene.friend.revocations().is_empty());
    // With the first forged one the rest is dropped, and each frame is verified once at most.
    let forged = |n| Revocation { cutoff: n, ..genuine.clone() };
    let before = scene.count("revocations_refused");
    stream.write_all(&frame(&told((0..500).map(forged).collect()))).await.unwrap();
    scene.still_gossips().await;
    scene.counts("revocations_refused", before + 1).await;
    assert_eq!(scene.count("revocations_refused"), before + 1);
    scene.end().await;
}

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_store_brings_nobody_back() {
    use gossipmonger::store::redb::RedbStore;

    let cluster = Cluster::new("demo");
    let directory = tempfile::tempdir().unwrap();
    let (file, old) = (directory.path().join("store"), directory.path().join("old"));
    let a = cluster.spawn("a", &[]).await;
    let spawn = async |seeds: &[&Gossipmonger]| {
        let mut config = cluster.config("b");
        config.storage = Arc::new(RedbStore::open(&file).unwrap());
        config.seeds = seeds.iter().flat_map(|seed| seed.addresses().to_vec()).collect();
        crate::start::spawn(config).await.unwrap().0
    };
    let stolen = cluster.identity("x");
    let b = spawn(&[&a]).await;
    all_live(&[a.clone(), b.clone()]).await;
    b.shutdown().await;
    std::fs::copy(&file, &old).unwrap();

    let b = spawn(&[&a]).await;
    a.revoke(revoke(&cluster, "x")).await.unwrap();
    until("b has it", || b.revocations().len() == 1).await;
    b.shutdown().await;
    // Alone, it knows from its own store, and from the first handshake on.
    let alone = spawn(&[]).await;
    is_refused(&stolen, &alone).await;
    until("it is counted", || refused(&alone, "revoked") == 1).await;
    alone.shutdown().await;
    // With the store from before, it is told again by whoever it meets.
    std::fs::copy(&old, &file).unwrap();
    let again = spawn(&[&a]).await;
    until("b has it again", || again.revocations().len() == 1).await;
    is_refused(&stolen, &again).await;
    end(&[a, again]).await;
}

// C88
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_two_issuers_are_both_kept() {
    let issuers = [authority("demo", KeyKind::P256), authority("demo", KeyKind::Ed25519)];
    let roots = issuers.each_ref().map(Authority::certificate_pem).concat();
    let spawn = async |issuer: usize, node: &str, seeds: &[&Gossipmonger]| {
        let datacenter = Datacenter::new("dc1").unwrap();
        let issued = issuers[issuer].issue(id(node), datacenter, Duration::from_secs(600)).unwrap();
        let (pem, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let identity = Identity::from_pem(pem, key).unwrap();
        let roots = Roots::from_pem(roots.as_bytes()).unwrap();
        let mut config = Start::new(identity, roots).unwrap().local();
        config.gossip_interval = Duration::from_millis(100);
        config.seeds = seeds.iter().flat_map(|seed| seed.addresses().to_vec()).collect();
        crate::start::spawn(config).await.unwrap().0
    };
    let (a, b) = (spawn(0, "a", &[]).await, spawn(1, "b", &[]).await);
    a.revoke(issuers[0].revoke(id("x"), now()).unwrap()).await.unwrap();
    b.revoke(issuers[1].revoke(id("x"), now()).unwrap()).await.unwrap();
    b.revoke(issuers[1].revoke(id("y"), now()).unwrap()).await.unwrap();
    // Only now do they meet: by one who knows nothing.
    let c = spawn(0, "c", &[&a, &b]).await;
    let all = [a, b, c];
    until("all have all", || all.iter().all(|node| node.revocations().len() == 3)).await;
    assert!(all.iter().all(|node| node.revocations().sum() == all[0].revocations().sum()));
    assert_eq!(all[2].counters().all()["revocations_refused"], 0);
    end(&all).await;
}

/// What its operator would do; it issues later certificates from then on.
pub(crate) fn revoke(cluster: &Cluster, node: &str) -> Revocation {
    cluster.authority.revoke(id(node), now()).unwrap()
}

/// Dials with this certificate, and is told by the TLS alert why that is not accepted.
async fn is_refused(stolen: &(Identity, Roots), node: &Gossipmonger) {
    let address = node.addresses()[0].parse().unwrap();
    let dialed = Member::dial(client(stolen.clone()), address, TransportConfig::default()).await;
    let ended = match dialed {
        // The dialer may believe for a moment that it is connected; it gets no word out of it.
        Ok(member) => {
            let name = stolen.0.name().node.to_string();
            assert_eq!(member.introduce(hello("demo", &name)).await, None);
            tokio::time::timeout(PATIENCE, member.connection.closed()).await.unwrap()
        }
        Err(ended) => ended,
    };
    let ConnectionError::ConnectionClosed(closed) = ended else { panic!("{ended}") };
    assert_eq!(closed.error_code, TransportErrorCode::crypto(CERTIFICATE_REVOKED));
}

fn knows(node: &Gossipmonger, peer: &str) -> bool {
    node.snapshot().member(&id(peer)).is_some()
}

fn told(statements: Vec<Revocation>) -> Message {
    Message::Gossip(Gossip::Revocations(RevocationList { statements, all: false }))
}

/// What a relay tells of a node in a life that began long ago.
fn news_of(node: &str, version: u64) -> Message {
    let record = record();
    let node = NodeDelta {
        node: id(node),
        generation: Generation(1_000),
        ancestry: Vec::new(),
        from: Version(version - 1),
        to: Version(version),
        horizon: Version(version),
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: Verdict::default(),
        record: Some((Version(version), record)),
        entries: Vec::new(),
        sealed: None,
    };
    Message::Gossip(Gossip::Push(Delta { nodes: vec![node], more: false }))
}

fn authority(cluster: &str, key: KeyKind) -> Authority {
    let options = AuthorityOptions { key, ..AuthorityOptions::default() };
    Authority::create(ClusterId::new(cluster).unwrap(), &options).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "statements have dates by the wall clock")]
fn now() -> SystemTime {
    SystemTime::now()
}
