//! What it costs to meet and to exchange over QUIC on loopback.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions, LEAF_VALIDITY},
    protocol::{
        exchange::{Ask, Reply, Summary},
        message::Message,
        route::{Counter, Target},
        seal::Signing,
    },
    reins::Reins,
    tls::{Identity, Roots, Tls},
    unstable::{Expect, SERVER_NAME, peer_name},
};
use quinn::{ClientConfig, ConnectionError, Endpoint, ServerConfig, VarInt};
use tokio::runtime::Runtime;

/// Bytes of the value that each exchange carries; 0: it carries nothing but digests.
const UPDATES: [usize; 3] = [0, 100, 65_536];
/// The accepting end knows who has dialed.
const CHECKED: VarInt = VarInt::from_u32(7);
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole handshake, both certificates checked, over sockets that are there already.
fn handshake(c: &mut Criterion) {
    let runtime = runtime();
    let authority = authority();
    let tls = |name| {
        let (identity, roots) = credentials(&authority, name);
        Tls::new(identity, roots).unwrap()
    };
    let _guard = runtime.enter();
    let (server, dialer) = (tls("a"), tls("b"));
    let config = ServerConfig::with_crypto(server.accept().0);
    let server = Endpoint::server(config, loopback()).unwrap();
    let address = server.local_addr().unwrap();
    runtime.spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.unwrap();
                if peer_name(&connection).is_ok_and(|name| name.node.as_str() == "b") {
                    connection.close(CHECKED, b"");
                }
            });
        }
    });
    let client = Endpoint::client(loopback()).unwrap();
    c.bench_function("handshake", |b| {
        b.to_async(&runtime).iter(|| async {
            let config = ClientConfig::new(dialer.dial(Expect::AnyNode).0);
            let dialed = client.connect_with(config, address, SERVER_NAME).unwrap().await.unwrap();
            assert!(peer_name(&dialed).is_ok());
            // The other end has checked our certificate when it closes, and not before.
            match dialed.closed().await {
                ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, CHECKED),
                other => panic!("the other end did not finish: {other}"),
            }
        });
    });
}

/// One exchange after another between two nodes.
fn exchange(c: &mut Criterion) {
    let runtime = runtime();
    let pair = runtime.block_on(Pair::start());
    let mut group = c.benchmark_group("exchange");
    for bytes in UPDATES {
        let digest = runtime.block_on(pair.digest_bytes());
        group.throughput(Throughput::Bytes(digest + bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.to_async(&runtime).iter_custom(|times| pair.exchange(times, bytes));
        });
    }
    group.finish();
    runtime.block_on(async { tokio::join!(pair.from.shutdown(), pair.to.shutdown()) });
}

/// Two nodes; the first one's exchanges are begun by us.
struct Pair {
    from: Gossipmonger,
    to: Gossipmonger,
    reins: Reins,
}

impl Pair {
    async fn start() -> Self {
        let authority = authority();
        let to = spawn(&authority, "b", Vec::new()).await;
        let from = spawn(&authority, "a", to.addresses().to_vec()).await;
        let pair = Self { reins: Reins::of(&from), from, to };
        pair.until(|| pair.from.live_peers().len() + pair.to.live_peers().len() == 2).await;
        // From now on news travels in exchanges and not otherwise.
        pair.reins.push_nothing();
        Reins::of(&pair.to).push_nothing();
        pair
    }

    async fn exchange(&self, times: u64, bytes: usize) -> Duration {
        let mut spent = Duration::ZERO;
        let counted = |counter| self.to.counters().get(counter);
        let (answered, applied) = (Counter::ExchangesAnswered, Counter::EntriesApplied);
        let before = (counted(answered), counted(applied), counted(Counter::GossipReceived));
        for _ in 0..times {
            let version = match bytes {
                0 => None,
                bytes => Some(self.from.set("k", fresh_value(bytes)).await.unwrap()),
            };
            let began = now();
            let (ended, digest) = (self.ended(), self.digest().await);
            self.reins.begin(Target::Peer(self.to.node().clone()), Summary::Digest(digest));
            self.until(|| {
                let known = self.to.snapshot().version(self.from.node()).map(|(_, known)| known);
                self.ended() > ended && known >= version
            })
            .await;
            spent += began.elapsed();
        }
        self.until(|| counted(answered) >= before.0 + times).await;
        let wanted = if bytes == 0 { 0 } else { times };
        assert!(counted(applied) >= before.1 + wanted, "an exchange brought no update");
        assert_eq!(counted(Counter::GossipReceived), before.2, "updates came otherwise");
        spent
    }

    fn ended(&self) -> u64 {
        self.from.counters().get(Counter::ExchangesInitiated)
    }

    async fn digest(&self) -> Arc<gossipmonger::protocol::digest::Digest> {
        match self.reins.ask(self.to.node(), Ask::Digest).await {
            Some(Reply::Digest(digest)) => digest,
            other => panic!("{other:?}"),
        }
    }

    async fn digest_bytes(&self) -> u64 {
        let digest = (*self.digest().await).clone();
        Message::Syn { digest }.encode().unwrap().len() as u64
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        let began = now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "it does not come about");
            tokio::task::yield_now().await;
        }
    }
}

fn fresh_value(bytes: usize) -> Vec<u8> {
    use std::sync::atomic::AtomicU64;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut value = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
    value.resize(bytes, 0);
    value
}

#[allow(clippy::disallowed_methods, reason = "this is a benchmark")]
fn now() -> Instant {
    Instant::now()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn authority() -> Authority {
    Authority::create(ClusterId::new("bench").unwrap(), &AuthorityOptions::default()).unwrap()
}

fn credentials(authority: &Authority, name: &str) -> (Identity, Roots) {
    let (node, datacenter) = (NodeId::new(name).unwrap(), Datacenter::new("dc1").unwrap());
    let issued = authority.issue(node, datacenter, LEAF_VALIDITY).unwrap();
    let identity =
        Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    (identity, Roots::from_pem(issued.roots_pem.as_bytes()).unwrap())
}

async fn spawn(authority: &Authority, name: &str, seeds: Vec<String>) -> Gossipmonger {
    let (identity, roots) = credentials(authority, name);
    let mut config = Config::new(identity.name());
    config.seeds = seeds;
    // An exchange is measured, no signature.
    config.signing = Signing::Off;
    // As many as there can be is what is measured.
    config.quic.exchanges_per_peer = 1 << 20;
    let network = QuicNetwork::new(identity, roots).unwrap();
    Gossipmonger::spawn(config, network).await.unwrap().0
}

criterion_group!(benches, handshake, exchange);
criterion_main!(benches);
