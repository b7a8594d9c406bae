//! Clients, from the attacker's side: none ever becomes a node, whatever it says on whichever port, and
//! no node is a client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Config, Gossipmonger,
    clients::{ClientHandler, Visitor},
    net::{BoxFuture, Stream, quic::QuicNetwork, read_to_end},
    pki::{Issued, LeafOptions, Usage},
    protocol::{
        digest::Digest,
        message::{Call, Heartbeat, Message},
    },
    tls::{ClientIdentity, ClientName, ClientRoles, Role, Roots, Tls},
    unstable::{
        ADMIN_ALPN, ADMIN_PLACES, ALPN, CLIENTS_MAX, CONNECTIONS_PER_CLIENT, Expect, Host,
        REQUESTS_PER_CONNECTION, Verdict, rustls_visit,
    },
};
use quinn::TransportConfig;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::start::spawn;
use crate::{
    attacker::{EXPIRED, Member, UNWELCOME, frame, hello, refused, server, with_transport},
    harness::{Cluster, PATIENCE, until},
};

/// With the right certificate for a client, an attacker tries to be a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dials_as_a_node_is_refused_before_any_state_flows() {
    for served in [true, false] {
        let house = House::new(served).await;
        let mut as_node = house.client("alice", Role::Admin);
        as_node.alpn_protocols = vec![ALPN[0].to_vec()];
        let mut as_both = as_node.clone();
        as_both.alpn_protocols = vec![ADMIN_ALPN.to_vec(), ALPN[0].to_vec()];
        for (tries, client) in [(1, as_node), (2, as_both)] {
            for name in ["alice", "m", "n"] {
                let Ok(member) = house.dial(client.clone()).await else { continue };
                assert_eq!(member.introduce(hello("demo", name)).await, None);
                let asked = Message::Syn { digest: Digest::default() };
                assert_eq!(member.ask(&frame(&asked)).await, None);
            }
            let expected = 3 * tries;
            until("all are counted", || house.refused("client_certificate") == expected).await;
        }
        house.is_alone();
        house.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_a_client_sends_reaches_the_gossip() {
    let house = House::new(true).await;
    let client = house.dial(house.client("alice", Role::Admin)).await.unwrap();
    // As bytes of a request it is taken, and answered by whoever answers requests.
    let introduced = frame(&Message::Hello(hello("demo", "alice")));
    assert_eq!(client.echo(&introduced).await.as_deref(), Some(&introduced[..]));
    let heartbeat = Heartbeat {
        generation: gossipmonger::Generation(1_000),
        sequence: 1,
        call: Call::Probe,
        health: 0,
    };
    for _ in 0..100 {
        let _ = client.connection.send_datagram(heartbeat.encode().into());
    }
    if let Ok(Ok(mut gossip)) =
        tokio::time::timeout(Duration::from_millis(200), client.connection.open_uni()).await
    {
        let _ = gossip.write_all(&introduced).await;
    }
    assert_eq!(client.echo(b"still here").await.as_deref(), Some(&b"still here"[..]));
    assert_eq!(house.node.counters().all()["heartbeats_received"], 0);
    assert_eq!(house.node.counters().all()["frames_malformed"], 0);
    house.is_alone();
    house.end().await;
}

/// A node that dials a seed which shows a client's certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_as_a_node_is_refused() {
    let cluster = Cluster::new("demo");
    let alice = client_name("demo", "alice", Role::Admin);
    for (usages, label) in [
        (vec![Usage::Client], "wrong_purpose"),
        (vec![Usage::Client, Usage::Server], "client_certificate"),
        (vec![], "client_certificate"),
    ] {
        let options = LeafOptions { usages, ..LeafOptions::client(&alice, HOUR) };
        let issued = cluster.authority.issue_with(&options).unwrap();
        let (identity, roots) = cluster.identity("x");
        let mut tls = Tls::new(identity, roots).unwrap().rustls_server(Verdict::default());
        tls.cert_resolver = Arc::new(Shows(certified(&issued)));
        let impostor = server(tls);
        let seed = impostor.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            while let Some(incoming) = impostor.accept().await {
                let Ok(connection) = incoming.await else { continue };
                while let Ok((mut send, _)) = connection.accept_bi().await {
                    let welcome = Message::Welcome(hello("demo", "alice"));
                    let _ = send.write_all(&frame(&welcome)).await;
                }
            }
        });
        let mut config = cluster.config("m");
        config.seeds = vec![seed];
        let node = spawn(config).await.unwrap().0;
        until(label, || refused(&node, label) > 0).await;
        assert_eq!(node.snapshot().members().count(), 1);
        node.shutdown().await;
        answering.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_no_client_unless_a_role_is_given_to_it() {
    let house = House::new(true).await;
    let mut node = Tls::new(house.cluster.identity("x").0, house.cluster.identity("x").1)
        .unwrap()
        .rustls_client(Expect::AnyNode, Verdict::default());
    node.alpn_protocols = vec![ADMIN_ALPN.to_vec()];
    let client = house.dial(node.clone()).await.unwrap();
    let (code, words) = client.cut_off().await;
    assert_eq!((code, words.contains("no role")), (UNWELCOME, true), "{words}");
    assert_eq!(client.echo(b"x").await, None);
    assert_eq!((house.refused("no_role"), house.asked()), (1, 0));

    let name = "spiffe://demo/dc1/x".to_owned();
    house.transport.set_roles(ClientRoles::from_iter([(name, Role::Read)]));
    let client = house.dial(node).await.unwrap();
    assert_eq!(client.echo(b"x").await.as_deref(), Some(&b"x"[..]));
    house.transport.set_roles(ClientRoles::default());
    assert_eq!(client.cut_off().await.0, UNWELCOME);
    house.is_alone();
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_clients_with_the_wrong_papers() {
    let house = House::new(true).await;
    let ours = &house.cluster.authority;
    let (foreign, same) = (Cluster::new("other"), Cluster::new("demo"));
    let alice = |cluster: &str| client_name(cluster, "alice", Role::Admin);
    let options = |cluster| LeafOptions::client(&alice(cluster), HOUR);
    let uris = |uris: &[&str]| {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        LeafOptions { uris, ..options("demo") }
    };
    let now = now();
    let at = |from: i64, until: i64| {
        let at = |hours: i64| match u64::try_from(hours) {
            Ok(hours) => now + HOUR * u32::try_from(hours).unwrap(),
            Err(_) => now - HOUR * u32::try_from(-hours).unwrap(),
        };
        LeafOptions { not_before: at(from), not_after: at(until), ..options("demo") }
    };
    let server_only = LeafOptions { usages: vec![Usage::Server], ..options("demo") };
    let good = "spiffe://demo/client/admin/alice";
    let cases = [
        ("unknown_authority", foreign.authority.issue_with(&options("demo"))),
        ("bad_signature", same.authority.issue_with(&options("demo"))),
        ("expired", ours.issue_with(&at(-3, -2))),
        ("not_yet_valid", ours.issue_with(&at(2, 3))),
        ("wrong_cluster", ours.issue_with(&options("staging"))),
        ("wrong_purpose", ours.issue_with(&server_only)),
        ("no_name", ours.issue_with(&uris(&[]))),
        ("no_name", ours.issue_with(&uris(&[good, good]))),
        ("no_name", ours.issue_with(&uris(&["spiffe://demo/client/root/alice"]))),
        ("no_name", ours.issue_with(&uris(&["spiffe://demo/client/admin/alice/x"]))),
    ];
    for (label, issued) in cases {
        let before = house.refused(label);
        let tls = house.with(&issued.unwrap());
        if let Ok(client) = house.dial(tls).await {
            assert_eq!(client.echo(b"x").await, None, "{label}");
        }
        until(label, || house.refused(label) == before + 1).await;
    }
    assert_eq!(house.asked(), 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_handler_there_is_nothing_for_clients() {
    let house = House::new(false).await;
    let client = house.client("alice", Role::Admin);
    if let Ok(client) = house.dial(client).await {
        assert_eq!(client.echo(b"x").await, None);
    }
    until("counted", || house.refused("no_common_version") == 1).await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_its_certificate_ends_a_clients_connection() {
    let house = House::new(true).await;
    let name = client_name("demo", "alice", Role::Watch);
    let options = LeafOptions::client(&name, 6 * SECOND);
    let issued = house.cluster.authority.issue_with(&options).unwrap();
    let client = house.dial(house.with(&issued)).await.unwrap();
    assert_eq!(client.echo(b"x").await.as_deref(), Some(&b"x"[..]));
    // With a request under way.
    let (mut send, mut receive) = client.open().await;
    send.write_all(b"stay").await.unwrap();
    let (code, words) = client.cut_off().await;
    assert_eq!((code, words.contains("renew it")), (EXPIRED, true), "{words}");
    assert!(receive.read_to_end(100).await.is_err());
    assert_eq!(house.refused("expired"), 1);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_that_do_not_vouch_for_a_client_any_more_end_its_connection() {
    let house = House::new(true).await;
    let client = house.dial(house.client("alice", Role::Read)).await.unwrap();
    assert!(client.echo(b"x").await.is_some());
    let (identity, other) = (house.transport.identity(), Cluster::new("demo").identity("y").1);
    house.transport.reload(identity, other).unwrap();
    assert_eq!(client.cut_off().await.0, UNWELCOME);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_does_not_take_the_place_of_all() {
    let house = House::new(true).await;
    let mut inside = Vec::new();
    let mut enter = async |name: &str| {
        let client = house.dial(house.client(name, Role::Read)).await.unwrap();
        let entered = client.echo(b"x").await.is_some();
        inside.extend(entered.then_some(client));
        entered
    };
    for _ in 0..CONNECTIONS_PER_CLIENT {
        assert!(enter("greedy").await);
    }
    assert!(!enter("greedy").await, "its own are all it may have");
    let others = (CLIENTS_MAX - ADMIN_PLACES - CONNECTIONS_PER_CLIENT) / 4;
    for n in 0..others {
        for _ in 0..4 {
            assert!(enter(&format!("c{n}")).await);
        }
    }
    assert!(!enter("late").await, "there is room for so many");
    assert_eq!(house.refused("clients_max"), 2);
    // Who goes makes room.
    inside.pop();
    let mut entered = false;
    for _ in 0..1_000 {
        let client = house.dial(house.client("late", Role::Read)).await.unwrap();
        entered = client.echo(b"x").await.is_some();
        if entered {
            break;
        }
    }
    assert!(entered);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_a_connection_for_nothing_is_sent_away() {
    let house = House::tuned(true, |config| config.quic.idle_timeout = 3 * SECOND).await;
    let alive = || {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(SECOND / 5));
        transport
    };
    let busy = house.dial_with(house.client("busy", Role::Watch), alive()).await.unwrap();
    let (mut send, mut receive) = busy.open().await;
    send.write_all(b"x").await.unwrap();
    let idle = house.dial_with(house.client("idle", Role::Watch), alive()).await.unwrap();
    assert!(idle.echo(b"x").await.is_some());
    let (code, words) = idle.cut_off().await;
    assert_eq!((code, words.as_str()), (UNNEEDED, "idle for too long"));
    // Whoever waits for an answer is not idle.
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(10).await.unwrap(), b"x");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_so_many_requests_under_way_and_no_more() {
    let house = House::new(true).await;
    let client = house.dial(house.client("alice", Role::Watch)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..REQUESTS_PER_CONNECTION {
        let (mut send, receive) = client.open().await;
        send.write_all(b"stay").await.unwrap();
        held.push((send, receive));
    }
    until("all are heard", || house.asked() == REQUESTS_PER_CONNECTION).await;
    let (mut send, mut receive) = client.open().await;
    send.write_all(b"x").await.unwrap();
    send.finish().unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), receive.read_to_end(10)).await;
    assert!(waited.is_err(), "it waits for room");
    // One ends, the next one is heard.
    held.pop().unwrap().0.finish().unwrap();
    let answer = tokio::time::timeout(PATIENCE, receive.read_to_end(10)).await.unwrap().unwrap();
    assert_eq!(answer, b"x");
    house.end().await;
}

/// A node, and somebody at its door.
struct House {
    cluster: Cluster,
    node: Gossipmonger,
    transport: Arc<QuicNetwork>,
    asked: Arc<AtomicUsize>,
}

impl House {
    async fn new(served: bool) -> Self {
        Self::tuned(served, |_| {}).await
    }

    async fn tuned(served: bool, tune: impl Fn(&mut Config)) -> Self {
        let cluster = Cluster::new("demo");
        let (mut config, transport) = with_transport(&cluster, "m");
        tune(&mut config);
        // All that come here come from one address.
        config.quic.handshakes_per_source = 1_000;
        let asked = Arc::<AtomicUsize>::default();
        let node = spawn(config).await.unwrap().0;
        if served {
            assert!(node.serve_clients(Arc::new(Echo(Arc::clone(&asked)))));
        }
        Self { cluster, node, transport, asked }
    }

    fn refused(&self, label: &str) -> u64 {
        refused(&self.node, label)
    }

    /// Requests that were heard.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Nobody is known here, or connected as a node.
    fn is_alone(&self) {
        assert_eq!(self.node.snapshot().members().count(), 1);
        assert_eq!(self.node.counters().all()["connections_accepted"], 0);
    }

    /// A client's TLS that is open to tampering.
    fn client(&self, name: &str, role: Role) -> rustls::ClientConfig {
        let options = LeafOptions::client(&client_name("demo", name, role), HOUR);
        self.with(&self.cluster.authority.issue_with(&options).unwrap())
    }

    fn with(&self, issued: &Issued) -> rustls::ClientConfig {
        let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        // Loaded when it was valid.
        let loaded = issued.certificate.not_before + Duration::from_secs(1);
        let identity = ClientIdentity::from_pem_at(certificate, key, loaded).unwrap();
        let roots = Roots::from_pem(self.cluster.authority.certificate_pem().as_bytes()).unwrap();
        let host = Host::Uri("spiffe://demo/dc1/m".to_owned());
        rustls_visit(&identity, roots, host, Verdict::default()).unwrap()
    }

    async fn dial(&self, tls: rustls::ClientConfig) -> Result<Member, quinn::ConnectionError> {
        self.dial_with(tls, TransportConfig::default()).await
    }

    async fn dial_with(
        &self,
        tls: rustls::ClientConfig,
        transport: TransportConfig,
    ) -> Result<Member, quinn::ConnectionError> {
        let to: SocketAddr = self.node.addresses()[0].parse().unwrap();
        Member::dial(tls, to, transport).await
    }

    async fn end(self) {
        self.node.shutdown().await;
    }
}

impl Member {
    /// What comes back of a request.
    async fn echo(&self, request: &[u8]) -> Option<Vec<u8>> {
        let (mut send, mut receive) = self.connection.open_bi().await.ok()?;
        send.write_all(request).await.ok()?;
        send.finish().ok()?;
        receive.read_to_end(1_000).await.ok()
    }
}

/// Gives every request back when it is complete.
#[derive(Debug)]
struct Echo(Arc<AtomicUsize>);

impl ClientHandler for Echo {
    fn answer(&self, visitor: Visitor, (mut send, mut receive): Stream) -> BoxFuture<'static, ()> {
        assert!(
            visitor.remote.starts_with("127.0.0.1:")
                && visitor.client.name.starts_with("spiffe://")
        );
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if let Ok(request) = read_to_end(receive.as_mut(), 1_000).await {
                let _ = send.write(&mut [request.into()]).await;
                send.finish();
                send.delivered().await;
            }
        })
    }
}

/// Shows this certificate to those who dial.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn certified(issued: &Issued) -> Arc<CertifiedKey> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(chain.collect::<Result<_, _>>().unwrap(), key))
}

pub(crate) fn client_name(cluster: &str, client: &str, role: Role) -> ClientName {
    ClientName::from_uri(&format!("spiffe://{cluster}/client/{role}/{client}")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The close code for what nobody needs.
const UNNEEDED: u64 = 9;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
