//! Nodes without sockets, and waiting for a state to come.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Event, Gossipmonger, NodeId,
    net::memory::MemoryNetwork,
    store::{Change, Store, StoreError, Stored, memory::MemoryStore},
    subscription::{Events, SubscriptionError},
    tls::PeerName,
};

use crate::start::Start;

/// How long a state may take to come, in virtual time where it is paused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A network and the nodes on it.
#[derive(Default)]
pub(crate) struct Lab {
    pub(crate) network: MemoryNetwork,
}

impl Lab {
    pub(crate) fn config(&self, name: &str) -> Start {
        self.config_in("dc", name)
    }

    pub(crate) fn config_in(&self, datacenter: &str, name: &str) -> Start {
        let cluster = ClusterId::new("test").unwrap();
        let datacenter = Datacenter::new(datacenter).unwrap();
        let name = PeerName { cluster, datacenter, node: id(name) };
        Start::on(Config::new(&name), self.network.place()).local()
    }

    /// A node that begins with the seeds.
    pub(crate) async fn spawn(&self, name: &str, seeds: &[&str]) -> Gossipmonger {
        self.spawn_with(self.config(name), seeds).await
    }

    pub(crate) async fn spawn_with(&self, mut config: Start, seeds: &[&str]) -> Gossipmonger {
        config.seeds = seeds.iter().map(|seed| MemoryNetwork::address(&id(seed))).collect();
        crate::start::spawn(config).await.unwrap().0
    }

    /// Two nodes that see each other live.
    pub(crate) async fn pair(&self) -> (Gossipmonger, Gossipmonger) {
        let a = self.spawn("a", &[]).await;
        let b = self.spawn("b", &["a"]).await;
        all_live(&[&a, &b]).await;
        (a, b)
    }

    /// Cuts a node off, both ways.
    pub(crate) fn isolate(&self, node: &NodeId, from: &[&Gossipmonger]) {
        for other in from {
            self.network.cut(node, other.node());
            self.network.cut(other.node(), node);
        }
    }
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(crate) fn names(peers: &[gossipmonger::Member]) -> Vec<&str> {
    peers.iter().map(|peer| peer.node.as_str()).collect()
}

/// Waits until `holds` holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

pub(crate) async fn all_live(nodes: &[&Gossipmonger]) {
    until("everybody sees everybody live", || {
        nodes.iter().all(|node| node.live_peers().len() + 1 == nodes.len())
    })
    .await;
}

/// The next event that `picks` picks.
pub(crate) async fn next_event<T>(
    events: &mut Events,
    mut picks: impl FnMut(Event) -> Option<T>,
) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(picked) = picks(events.next().await.unwrap()) {
                return picked;
            }
        }
    });
    waited.await.expect("no such event")
}

/// The events that have arrived so far.
pub(crate) async fn drain(events: &mut Events) -> Vec<Event> {
    let mut drained = Vec::new();
    while let Ok(next) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        match next {
            Ok(event) => drained.push(event),
            Err(SubscriptionError::Lagged(_)) => panic!("lagged"),
            Err(_) => break,
        }
    }
    drained
}

/// A store in memory that can be made to fail, to panic, or to take its time.
#[derive(Debug, Default)]
pub(crate) struct Moody {
    pub(crate) inner: MemoryStore,
    pub(crate) fails: AtomicBool,
    pub(crate) panics: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
}

impl Moody {
    pub(crate) fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    /// What is kept under a key.
    pub(crate) fn kept(&self, key: &str) -> Option<String> {
        let stored = self.inner.load().unwrap();
        stored.entries.get(key)?.value.as_ref()?.as_str().map(str::to_owned)
    }
}

impl Store for Moody {
    fn load(&self) -> Result<Stored, StoreError> {
        self.inner.load()
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.released.wait(held).unwrap();
        }
        drop(held);
        assert!(!self.panics.load(Ordering::SeqCst), "the store panics on purpose");
        if self.fails.load(Ordering::SeqCst) {
            let (location, reason) = ("moody".to_owned(), "no space left on device".to_owned());
            return Err(StoreError::Io { location, reason });
        }
        self.inner.commit(changes)
    }
}

/// So that a test that fails does not wait for a store that is held.
pub(crate) struct Held(pub(crate) Arc<Moody>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}
