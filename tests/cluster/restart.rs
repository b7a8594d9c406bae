//! The same node again: on the same address, at another one, from its file, after a crash.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gossipmonger::{
    Gossipmonger,
    net::quic::QuicNetwork,
    protocol::route::Counter,
    store::{Change, EndpointKeys, Store, StoreError, Stored},
};

use crate::start::Start;
use crate::{
    harness::{Cluster, all_live, id, until},
    membership::end,
};

// C46
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_from_its_file_without_sending_everything_again() {
    use gossipmonger::{Event, Write, store::redb::RedbStore};

    const KEYS: usize = 1_000;
    let cluster = Cluster::new("demo");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let a = cluster.spawn("a", &[]).await;
    let config = || {
        let mut config = cluster.config("b");
        config.storage = Arc::new(RedbStore::open(&file).unwrap());
        config
    };
    let mut first = config();
    first.seeds = a.addresses().to_vec();
    let b = crate::start::spawn(first).await.unwrap().0;
    let address = b.addresses()[0].parse().unwrap();
    let batch = (0..KEYS).map(|n| Write::set(format!("k{n}"), "v"));
    b.set_many(batch.collect()).await.unwrap();
    let has = |node: &Gossipmonger, keys| node.snapshot().len(&id("b")) == keys;
    let entries = |node: &Gossipmonger| node.counters().get(Counter::EntriesApplied);
    // They are counted after they can be read.
    until("a has all", || has(&a, KEYS) && entries(&a) >= KEYS as u64).await;
    let applied = entries(&a);
    let mut events = a.subscribe();
    // The handle is kept: the file must be free all the same.
    b.shutdown().await;

    // The same address, no seeds: a is known from the file.
    let mut again = config();
    again.listen = vec![address];
    let kept = crate::start::spawn(again).await.unwrap().0;
    assert!(has(&kept, KEYS), "own keys come back");
    kept.set("later", "v").await.unwrap();
    until("a has the later one too", || has(&a, KEYS + 1)).await;
    let more = entries(&a) - applied;
    assert!(more <= 1, "{more} entries were sent again");
    while let Ok(Ok(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        assert!(!matches!(event, Event::Deleted { .. }), "{event:?}");
    }
    kept.shutdown().await;

    // C47: without the file, at another address: the keys of the earlier lives are gone.
    let new = cluster.spawn("b", &[&a]).await;
    new.set("new", "v").await.unwrap();
    until("only the new life's keys are there", || has(&a, 1)).await;
    assert_eq!(a.snapshot().member(&id("b")).unwrap().addresses, new.addresses());
    end(&[a, new]).await;
}

// C59 C62
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_seen_by_all_and_so_is_the_return() {
    let cluster = Cluster::new("demo");
    let mut nodes = cluster.spawn_many(3).await;
    let crashing = Crashing::spawn(&cluster, "c", &nodes[0]).await;
    nodes.push(crashing.node.clone());
    all_live(&nodes).await;
    nodes.pop();
    let address = crashing.crash().await;
    until("everybody finds it dead", || {
        nodes.iter().all(|node| node.dead_peers().iter().any(|dead| dead.node == id("c")))
    })
    .await;
    assert!(nodes.iter().all(|node| node.live_peers().len() == 2), "others were blamed");
    let mut config = cluster.config("c");
    config.listen = vec![address];
    config.seeds = nodes[1].addresses().to_vec();
    nodes.push(start(config).await);
    all_live(&nodes).await;
    end(&nodes).await;
}

/// The connection to a crashed peer would be kept for ten minutes, and the new process dials nobody:
/// they meet only because its first packet of an unknown connection is answered by a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_noticed_by_a_stateless_reset() {
    let cluster = Cluster::new("demo");
    let mut config = cluster.config("a");
    config.quic.idle_timeout = Duration::from_secs(600);
    config.quic.exchange_timeout = Duration::from_secs(600);
    let a = crate::start::spawn(config).await.unwrap().0;
    let crashing = Crashing::spawn(&cluster, "b", &a).await;
    all_live(&[a.clone(), crashing.node.clone()]).await;
    let keys = crashing.keys.clone();
    let address = crashing.crash().await;
    let mut config = cluster.config("b");
    config.listen = vec![address];
    config.quic.idle_timeout = Duration::from_secs(600);
    config.storage = keys;
    assert!(config.seeds.is_empty());
    let dialed = a.counters().get(Counter::ConnectionsDialed);
    let b = start(config).await;
    all_live(&[a.clone(), b.clone()]).await;
    assert!(a.counters().get(Counter::ConnectionsDialed) > dialed, "a has dialed anew");
    assert_eq!(b.counters().get(Counter::ConnectionsDialed), 0);
    end(&[a, b]).await;
}

/// A node that can be made to vanish without a word.
struct Crashing {
    node: Gossipmonger,
    transport: Arc<QuicNetwork>,
    keys: Arc<KeysOnly>,
}

impl Crashing {
    async fn spawn(cluster: &Cluster, name: &str, seed: &Gossipmonger) -> Self {
        let (identity, roots) = cluster.identity(name);
        let transport = Arc::new(QuicNetwork::new(identity, roots).unwrap());
        let keys = Arc::new(KeysOnly::default());
        let mut config = Start::quic(Arc::clone(&transport)).local();
        config.gossip_interval = Duration::from_millis(100);
        config.quic.idle_timeout = Duration::from_secs(600);
        config.seeds = seed.addresses().to_vec();
        config.storage = keys.clone();
        let node = crate::start::spawn(config).await.unwrap().0;
        Self { node, transport, keys }
    }

    /// Falls silent, then ends; gives the address that is free again.
    async fn crash(self) -> SocketAddr {
        let address = self.node.addresses()[0].parse().unwrap();
        self.transport.silence();
        self.node.shutdown().await;
        address
    }
}

/// As soon as the address is free, which the system decides.
async fn start(config: Start) -> Gossipmonger {
    let mut node = None;
    for _ in 0..500 {
        match crate::start::spawn(config.clone()).await {
            Ok((started, _)) => {
                node = Some(started);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    node.expect("the address does not become free")
}

/// Keeps the keys of the endpoint, and forgets the rest.
#[derive(Debug, Default)]
struct KeysOnly(std::sync::Mutex<Option<EndpointKeys>>);

impl Store for KeysOnly {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(Stored { endpoint_keys: self.0.lock().unwrap().clone(), ..Stored::default() })
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            if let Change::EndpointKeys(keys) = change {
                *self.0.lock().unwrap() = Some(keys.clone());
            }
        }
        Ok(())
    }
}
