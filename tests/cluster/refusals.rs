//! Who is refused by a running node, how it is counted, and what its operator reads.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Event, Gossipmonger, Problem,
    pki::{Authority, AuthorityOptions, Issued, LeafOptions},
    protocol::{
        digest::Digest,
        message::{Hello, Message},
    },
    tls::{Identity, PeerName, Roots, Tls},
    unstable::Verdict,
};
use quinn::{Endpoint, TransportConfig};
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use tokio::sync::Barrier;

use crate::start::{Start, spawn};
use crate::{
    attacker::{
        EXPIRED, Member, Relay, Scene, UNWELCOME, client, frame, hello, read, refused, server,
        server_at, tls,
    },
    harness::{Cluster, PATIENCE, all_live, until},
};

// C83, C89, C92, C100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_those_who_dial_it_with_the_wrong_papers() {
    let mut scene = Scene::new(|_| {}).await;
    let told = Told::new(&scene.node);
    let ours = &scene.cluster.authority;
    let mut nobody = scene.member("x");
    nobody.client_auth_cert_resolver = Arc::new(NoCertificate);
    let mut other_version = scene.member("x");
    other_version.alpn_protocols = vec![b"gossipmonger/999".to_vec()];
    let shows = |issued: &Issued, at| {
        let mut client = scene.member("x");
        client.client_auth_cert_resolver = Arc::new(Shows(identity(issued, at)));
        client
    };
    let of = |authority: &Authority| issue(authority, "demo", 0, 1);
    let cases = [
        ("no_certificate", "it showed no certificate", nobody),
        ("unknown_authority", "not among our roots", shows(&of(&authority("other")), 0)),
        ("bad_signature", "another authority of the same name", shows(&of(&authority("demo")), 0)),
        ("expired", "its certificate has expired", shows(&issue(ours, "demo", -3, -2), -3)),
        ("not_yet_valid", "is not valid yet", shows(&issue(ours, "demo", 2, 3), 2)),
        ("wrong_cluster", "is of another cluster", shows(&issue(ours, "staging", 0, 1), 0)),
        ("no_common_version", "no version of the protocol in common", other_version),
    ];
    for (label, line, client) in cases {
        let before = scene.refused(label);
        // The dialer may believe for a moment that it is connected; it gets no word out of it.
        if let Ok(member) = Member::dial(client, scene.address(), TransportConfig::default()).await
        {
            assert_eq!(member.introduce(hello("demo", "x")).await, None, "{label}");
            let asked = Message::Syn { digest: Digest::default() };
            assert_eq!(member.ask(&frame(&asked)).await, None, "{label}");
        }
        until(label, || scene.refused(label) == before + 1).await;
        told.line("127.0.0.1:", line).await;
    }
    assert_eq!(scene.count("connections_accepted"), 1, "the friend's alone");
    scene.still_gossips().await;
    scene.end().await;
}

// C84, C92
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_those_who_introduce_themselves_as_others() {
    let mut scene = Scene::new(|_| {}).await;
    let told = Told::new(&scene.node);
    let cases = [
        ("impostor", "it calls itself n, its certificate says x", hello("demo", "n")),
        ("impostor", "it calls itself m, its certificate says x", hello("demo", "m")),
        ("wrong_cluster", "it is a member of cluster staging", hello("staging", "x")),
    ];
    for (label, line, words) in cases {
        let before = scene.refused(label);
        let member = Member::dial(scene.member("x"), scene.address(), TransportConfig::default());
        let member = member.await.unwrap();
        assert_eq!(member.introduce(words).await, None, "{line}");
        let (code, reason) = member.cut_off().await;
        assert_eq!(code, UNWELCOME);
        assert!(reason.contains(line), "{reason}");
        until(label, || scene.refused(label) == before + 1).await;
        told.line("127.0.0.1:", line).await;
    }
    let unknown = scene.node.peers().len();
    assert_eq!(unknown, 1, "nobody else was taken up");
    scene.still_gossips().await;
    scene.end().await;
}

// C55, C83, C84, C89, C92, C100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_seeds_with_the_wrong_papers_before_it_says_anything() {
    let cluster = Cluster::new("demo");
    let ours = &cluster.authority;
    let of = |authority: &Authority| issue(authority, "demo", 0, 1);
    let accepting = |identity| {
        let roots = Roots::from_pem(ours.certificate_pem().as_bytes()).unwrap();
        Tls::new(identity, roots).unwrap().rustls_server(Verdict::default())
    };
    let mut other_version = accepting(identity(&of(ours), 0));
    other_version.alpn_protocols = vec![b"gossipmonger/999".to_vec()];
    let cases = [
        (
            "unknown_authority",
            "not among our roots",
            accepting(identity(&of(&authority("other")), 0)),
        ),
        (
            "bad_signature",
            "another authority of the same name",
            accepting(identity(&of(&authority("demo")), 0)),
        ),
        (
            "expired",
            "its certificate has expired",
            accepting(identity(&issue(ours, "demo", -3, -2), -3)),
        ),
        ("not_yet_valid", "is not valid yet", accepting(identity(&issue(ours, "demo", 2, 3), 2))),
        (
            "wrong_cluster",
            "is of another cluster",
            accepting(identity(&issue(ours, "staging", 0, 1), 0)),
        ),
        // It ends the handshake before it shows a certificate.
        ("unproved", "no version of the protocol in common", other_version),
    ];
    let mut config = cluster.config("m");
    let (heard, mut seeds) = (Heard::default(), Vec::new());
    for (_, _, tls) in &cases {
        let seed = server(tls.clone());
        config.seeds.push(seed.local_addr().unwrap().to_string());
        seeds.push(tokio::spawn(heard.clone().listen(seed, None)));
    }
    let node = spawn(config.clone()).await.unwrap().0;
    let told = Told::new(&node);
    for (at, (label, line, _)) in cases.iter().enumerate() {
        until(label, || refused(&node, label) > 0).await;
        told.line(&config.seeds[at], line).await;
    }
    assert_eq!(heard.all(), [], "not a word to those who have not proved who they are");
    node.shutdown().await;
    seeds.iter().for_each(tokio::task::JoinHandle::abort);
}

// C55, C84, C92
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_a_seed_of_false_words_nothing_but_its_own_name() {
    let cluster = Cluster::new("demo");
    let mut config = cluster.config("m");
    let (heard, mut seeds) = (Heard::default(), Vec::new());
    for words in [hello("demo", "other"), hello("staging", "x")] {
        let seed = server(tls(cluster.identity("x")).rustls_server(Verdict::default()));
        config.seeds.push(seed.local_addr().unwrap().to_string());
        seeds.push(tokio::spawn(heard.clone().listen(seed, Some(words))));
    }
    let node = spawn(config.clone()).await.unwrap().0;
    node.set("secret", "value").await.unwrap();
    let told = Told::new(&node);
    until("both refused", || refused(&node, "impostor") > 0 && refused(&node, "wrong_cluster") > 0)
        .await;
    told.line(&config.seeds[0], "it calls itself other, its certificate says x").await;
    told.line(&config.seeds[1], "it is a member of cluster staging").await;
    let heard = heard.all();
    assert!(!heard.is_empty());
    assert!(heard.iter().all(|message| matches!(message, Message::Hello(_))), "{heard:?}");
    assert!(node.peers().is_empty());
    node.shutdown().await;
    seeds.iter().for_each(tokio::task::JoinHandle::abort);
}

// C84
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_another_node_at_the_address_of_a_known_one() {
    let cluster = Cluster::new("demo");
    let node = cluster.spawn("m", &[]).await;
    let squatter = server_at(
        tls(cluster.identity("x")).rustls_server(Verdict::default()),
        ([127, 0, 0, 1], 0).into(),
    );
    let address = squatter.local_addr().unwrap().to_string();
    let mut config = cluster.config("n");
    config.seeds = node.addresses().to_vec();
    config.advertise = vec![address.clone()];
    let peer = spawn(config).await.unwrap().0;
    all_live(&[node.clone(), peer.clone()]).await;
    let told = Told::new(&node);
    let heard = Heard::default();
    let squatting = tokio::spawn(heard.clone().listen(squatter, Some(hello("demo", "n"))));
    peer.shutdown().await;
    until("it was dialed and refused", || refused(&node, "wrong_name") > 0).await;
    told.line(&address, "its certificate is another node's").await;
    assert_eq!(heard.all(), []);
    node.shutdown().await;
    squatting.abort();
}

// C89
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_a_connection_whose_certificate_expires_meanwhile() {
    let mut scene = Scene::new(|_| {}).await;
    let told = Told::new(&scene.node);
    let name = scene.cluster.identity("x").0.name().clone();
    let options =
        LeafOptions { not_after: day(0) + Duration::from_secs(5), ..LeafOptions::new(&name, DAY) };
    let issued = scene.cluster.authority.issue_with(&options).unwrap();
    let roots = scene.cluster.identity("x").1;
    let member = client((identity(&issued, 0), roots));
    let member = Member::dial(member, scene.address(), TransportConfig::default()).await.unwrap();
    let welcome = member.introduce(hello("demo", "x")).await;
    assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");
    assert_eq!(member.cut_off().await.0, EXPIRED);
    until("it is counted", || scene.refused("expired") == 1).await;
    told.line("x", "the certificate of x expired on 20").await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_no_fault_with_its_own_address_among_the_seeds() {
    let cluster = Cluster::new("demo");
    let mut own = Relay::new(&Arc::new(Barrier::new(1))).await;
    let mut config = cluster.config("m");
    config.seeds = vec![own.address.clone()];
    let node = spawn(config).await.unwrap().0;
    own.lead_to(&node);
    until("it has dialed itself", || node.counters().all()["handshakes_failed"] > 0).await;
    let friend = cluster.spawn("n", &[&node]).await;
    all_live(&[node.clone(), friend.clone()]).await;
    assert_eq!(node.counters().refusals().len(), 0, "{:?}", node.counters().refusals());
    assert_eq!(node.counters().all()["dials_failed"], 0);
    tokio::join!(node.shutdown(), friend.shutdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lets_nodes_with_chains_made_by_openssl_in() {
    let openssl = Command::new("openssl").arg("version").output();
    if !openssl.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no openssl command on this host, so no chain made by it was tried");
        return;
    }
    for kind in ["p256", "rsa"] {
        let directory = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Gossipmonger> = Vec::new();
        for name in ["a", "b"] {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/openssl-chain.sh");
            let made = Command::new("sh")
                .args([script, directory.path().to_str().unwrap(), kind, "demo", "eu", name])
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let file = |extension| directory.path().join(name).with_extension(extension);
            let identity = Identity::from_pem_files(file("pem"), file("key")).unwrap();
            let roots = Roots::from_pem_file(directory.path().join("roots.pem")).unwrap();
            let mut config = Start::new(identity, roots).unwrap().local();
            config.seeds = nodes.iter().flat_map(|node| node.addresses().to_vec()).collect();
            nodes.push(spawn(config).await.unwrap().0);
        }
        all_live(&nodes).await;
        nodes[1].set("chain", kind).await.unwrap();
        let (at, owner) = (&nodes[0], nodes[1].node());
        until("its value arrives", || at.get_str(owner, "chain").as_deref() == Some(kind)).await;
        for node in &nodes {
            node.shutdown().await;
        }
    }
}

/// What an operator is told.
struct Told(Arc<Mutex<Vec<(String, String)>>>);

impl Told {
    fn new(node: &Gossipmonger) -> Self {
        let mut events = node.subscribe();
        let told = Self(Arc::default());
        let lines = Arc::clone(&told.0);
        tokio::spawn(async move {
            while let Ok(event) = events.next().await {
                if let Event::Error(Problem::Connection { remote, reason }) = event {
                    lines.lock().unwrap().push((remote, reason));
                }
            }
        });
        told
    }

    /// Waits for a line about `remote` that says this.
    async fn line(&self, remote: &str, says: &str) {
        let found = || {
            let lines = self.0.lock().unwrap();
            lines.iter().any(|(about, line)| about.starts_with(remote) && line.contains(says))
        };
        let waited = tokio::time::timeout(PATIENCE, async {
            while !found() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "no line of {remote}: {says}; {:?}", self.0.lock().unwrap());
    }
}

/// What a node says to those it dials.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Message>>>);

impl Heard {
    fn all(&self) -> Vec<Message> {
        self.0.lock().unwrap().clone()
    }

    /// Notes everything that arrives; answers the first words of a connection with `words`.
    async fn listen(self, endpoint: Endpoint, words: Option<Hello>) {
        while let Some(incoming) = endpoint.accept().await {
            let (this, mut words) = (self.clone(), words.clone());
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                    let Some(message) = read(&mut receive).await else { continue };
                    this.0.lock().unwrap().push(message);
                    if let Some(words) = words.take() {
                        let _ = send.write_all(&frame(&Message::Welcome(words))).await;
                    }
                }
            });
        }
    }
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Shows this identity, whatever the verifier beside it belongs to.
#[derive(Debug)]
struct Shows(Identity);

impl ResolvesClientCert for Shows {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let roots = Cluster::new("demo").identity("any").1;
        client((self.0.clone(), roots)).client_auth_cert_resolver.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn authority(cluster: &str) -> Authority {
    Authority::create(cluster.parse().unwrap(), &AuthorityOptions::default()).unwrap()
}

/// A certificate of node `x`, valid from and until so many days from now.
fn issue(authority: &Authority, cluster: &str, from: i64, until: i64) -> Issued {
    let name = PeerName {
        cluster: cluster.parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        node: "x".parse().unwrap(),
    };
    let (not_before, not_after) = (day(from) - Duration::from_secs(60), day(until));
    let options = LeafOptions { not_before, not_after, ..LeafOptions::new(&name, DAY) };
    authority.issue_with(&options).unwrap()
}

/// Loaded by a clock that is so many days ahead, or it would be refused at home.
fn identity(issued: &Issued, at: i64) -> Identity {
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    Identity::from_pem_at(certificate, key, day(at)).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn day(days: i64) -> SystemTime {
    let distance = DAY * u32::try_from(days.unsigned_abs()).unwrap();
    if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
