//! Every option, event, storage and transport verb of the original npm package has its counterpart here.
//! One cluster of two nodes goes through all of them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Event, NodeId, PeerState, Problem, ProtocolEvent, Write,
    net::memory::MemoryNetwork,
    store::{Change, Store, StoreError, Stored, memory::MemoryStore},
    tls::PeerName,
};

use crate::start::{Start, spawn};

const PATIENCE: Duration = Duration::from_secs(60);

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// `peerInfo` and `options`, all that the original takes.
fn config(network: &MemoryNetwork, name: &str, seeds: &[&str], storage: Arc<dyn Store>) -> Start {
    let (cluster, datacenter) = (ClusterId::new("demo").unwrap(), Datacenter::new("eu").unwrap());
    // `peerInfo.id`, and `options.transport`.
    let name = PeerName { cluster, datacenter, node: id(name) };
    let mut config = Start::on(Config::new(&name), network.place());
    config.dead_peer_phi = 8.0;
    config.gossip_interval = Duration::from_millis(100);
    config.max_deltas_per_gossip = 5;
    config.minimum_live_peers = 1;
    config.seeds = seeds.iter().map(|seed| MemoryNetwork::address(&id(seed))).collect();
    // `peerInfo.data` and `maxVersionSeen` are what the storage holds.
    config.storage = storage;
    config
}

/// A custom storage module that fails on request.
#[derive(Debug, Default)]
struct Own {
    kept: MemoryStore,
    fails: AtomicBool,
}

impl Store for Own {
    fn load(&self) -> Result<Stored, StoreError> {
        self.kept.load()
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Io { location: "own".into(), reason: "it was told to".into() });
        }
        self.kept.commit(changes)
    }

    fn is_instant(&self) -> bool {
        true
    }
}

async fn soon<T>(what: &str, state: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, state).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

#[tokio::test(start_paused = true)]
async fn every_option_event_and_verb_of_the_original_has_its_counterpart() {
    let network = MemoryNetwork::default();
    let own = Arc::new(Own::default());
    let (a, _) = spawn(config(&network, "a", &[], own.clone())).await.unwrap();
    let (mut events, mut protocol) = (a.subscribe(), a.subscribe_protocol());
    // `transport.listen()` and `gossip()` are part of the start.
    let (b, _) = spawn(config(&network, "b", &["a"], Arc::new(MemoryStore::new()))).await.unwrap();

    // Events `new peer`, `peer live` and `update`; more keys than one delta may have.
    let batch = (0..12).map(|n| Write::set(format!("k{n}"), "v")).collect();
    b.set_many(batch).await.unwrap();
    let (mut new, mut live, mut updated) = (false, false, 0);
    soon("new peer, peer live, 12 updates", async {
        while !(new && live && updated == 12) {
            match events.next().await.unwrap() {
                Event::NewPeer { peer } => new |= peer == id("b"),
                Event::PeerLive { peer, .. } => live |= peer == id("b"),
                Event::Updated { peer, .. } => updated += u32::from(peer == id("b")),
                _ => {}
            }
        }
    })
    .await;

    // `update`, `storage.get`, `livePeers`.
    b.set("foo", "bar").await.unwrap();
    soon("the copy of foo", async {
        while a.get(&id("b"), "foo").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(a.live_peers().len(), 1);
    assert!(a.dead_peers().is_empty());
    assert_eq!(a.peers()[0].node, id("b"));

    // Events `digest send`, `digest receive`, `deltas send` and `deltas receive`.
    let mut seen = [false; 4];
    soon("digests and deltas both ways", async {
        let mut n = 0;
        while seen.contains(&false) {
            n += 1;
            let next = tokio::time::timeout(Duration::from_millis(300), protocol.next()).await;
            match next {
                Ok(Ok(ProtocolEvent::DigestSent { .. })) => seen[0] = true,
                Ok(Ok(ProtocolEvent::DigestReceived { .. })) => seen[1] = true,
                Ok(Ok(ProtocolEvent::DeltasSent { .. })) => seen[2] = true,
                Ok(Ok(ProtocolEvent::DeltasReceived { .. })) => seen[3] = true,
                // What differs after a cut is exchanged.
                _ => {
                    network.cut(&id("a"), &id("b"));
                    network.cut(&id("b"), &id("a"));
                    a.set("n", n.to_string()).await.unwrap();
                    b.set("n", n.to_string()).await.unwrap();
                    network.heal();
                }
            }
        }
    })
    .await;

    // Event `peer dead`, `deadPeers`.
    network.cut(&id("a"), &id("b"));
    network.cut(&id("b"), &id("a"));
    soon("peer dead", async {
        loop {
            if matches!(events.next().await.unwrap(), Event::PeerDead { peer, .. } if peer == id("b")) {
                break;
            }
        }
    })
    .await;
    assert_eq!(a.dead_peers().len(), 1);
    assert_eq!(a.dead_peers()[0].state, PeerState::Dead);

    // Event `error`, of the storage; never an exception. (`unknown peer` is `ProtocolEvent::UnknownPeer`: no
    // honest peer brings it about.)
    own.fails.store(true, Ordering::Relaxed);
    assert!(a.set("foo", "not kept").await.is_err());
    soon("error", async {
        while !matches!(events.next().await.unwrap(), Event::Error(Problem::Store { .. })) {}
    })
    .await;
    a.shutdown().await;
    b.shutdown().await;
}
