//! The nodes of the demo: it starts, kills and restarts them, and listens to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gossipmonger::{
    Backends, Gossipmonger, Snapshot,
    net::quic::QuicNetwork,
    protocol::{event::Event, id::NodeId},
    service::Offer,
    store::{Store, memory::MemoryStore},
    subscription::{Events, SubscriptionError},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::calls;
use crate::{
    error::CliError,
    stopwatch::Stopwatch,
    throwaway::{Credentials, Throwaway},
};

/// An event that one node has seen, and when.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) observer: NodeId,
    /// `Err`: the demo missed this many events.
    pub(super) event: Result<Event, u64>,
    life: u64,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Stage {
    clock: Stopwatch,
    places: BTreeMap<NodeId, Place>,
    seed: NodeId,
    sender: mpsc::Sender<Seen>,
    events: mpsc::Receiver<Seen>,
}

/// The place of a node, whether it runs or not.
#[derive(Debug)]
struct Place {
    datacenter: String,
    credentials: Credentials,
    /// Outlives the node, as a disk does.
    store: Arc<dyn Store>,
    life: u64,
    running: Option<Running>,
    /// The last run of the node, while it is being shut down, and the socket that it keeps bound.
    ending: Option<JoinHandle<Arc<QuicNetwork>>>,
}

#[derive(Debug)]
struct Running {
    node: Gossipmonger,
    transport: Arc<QuicNetwork>,
    /// The service that the node offers.
    offer: Offer,
}

impl Stage {
    /// Makes names and certificates; starts no node.
    pub(super) fn build(nodes: usize, datacenters: usize) -> Result<Self, CliError> {
        let authority = Throwaway::new("demo")?;
        let mut places = BTreeMap::new();
        let mut seed = None;
        for index in 0..nodes {
            let datacenter = datacenter(index % datacenters);
            let name = format!("{datacenter}-{}", index / datacenters + 1);
            let credentials = authority.issue(&name, &datacenter)?;
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let name = NodeId::new(&name).map_err(CliError::failed)?;
            let place =
                Place { datacenter, credentials, store, life: 0, running: None, ending: None };
            seed.get_or_insert_with(|| name.clone());
            places.insert(name, place);
        }
        let seed = seed.ok_or_else(|| CliError::usage("a cluster has one node at least"))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Ok(Self { clock: Stopwatch::start(), places, seed, sender, events })
    }

    /// All names, with the seed's first.
    pub(super) fn names(&self) -> Vec<NodeId> {
        let others = self.places.keys().filter(|name| **name != self.seed);
        std::iter::once(&self.seed).chain(others).cloned().collect()
    }

    pub(super) fn datacenter(&self, name: &NodeId) -> &str {
        self.places.get(name).map_or("", |place| &place.datacenter)
    }

    /// The node, if it runs.
    pub(super) fn node(&self, name: &NodeId) -> Option<&Gossipmonger> {
        Some(&self.places.get(name)?.running.as_ref()?.node)
    }

    /// The snapshots of all running nodes.
    pub(super) fn snapshots(&self) -> BTreeMap<NodeId, Snapshot> {
        let running = self.places.iter().filter_map(|(name, place)| {
            Some((name.clone(), place.running.as_ref()?.node.snapshot()))
        });
        running.collect()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Starts a node, for the first time or again, on any free port. Returns its address.
    pub(super) async fn start(&mut self, name: &NodeId) -> Result<String, CliError> {
        let seeds = self.node(&self.seed).map(|seed| seed.addresses().to_vec());
        let nodes = self.places.len();
        let place = self.places.get_mut(name).ok_or_else(|| CliError::failed("no such node"))?;
        if let Some(ending) = place.ending.take() {
            let _ = timeout(END_TIMEOUT, ending).await;
        }
        let (config, transport) = place.credentials.config()?;
        let mut config = if nodes > LOCAL_MAX { config.lan() } else { config.local() };
        config.seeds = seeds.unwrap_or_default();
        let backends = Backends::from(Arc::clone(&transport)).with_store(Arc::clone(&place.store));
        let spawned = Gossipmonger::spawn(config, backends).await;
        let (node, _) =
            spawned.map_err(|error| CliError::failed(format!("{name} cannot start: {error}")))?;
        place.life += 1;
        let offer = calls::offer(&node, place.life).await;
        let offer = offer.map_err(|error| CliError::failed(format!("{name}: {error}")))?;
        let told = (name.clone(), place.life, self.clock);
        tokio::spawn(forward(node.subscribe(), told, self.sender.clone()));
        let address = node.addresses().join(", ");
        place.running = Some(Running { node, transport, offer });
        Ok(address)
    }

    /// Silences a node, as if its host had lost power: it informs no peer and answers nothing.
    pub(super) fn kill(&mut self, name: &NodeId) {
        let Some(place) = self.places.get_mut(name) else { return };
        let Some(running) = place.running.take() else { return };
        running.transport.silence();
        place.ending = Some(tokio::spawn(running.end()));
    }

    /// Ends all nodes.
    pub(super) async fn clear(&mut self) {
        let running = self.places.values_mut().filter_map(|place| place.running.take());
        let mut ends: JoinSet<_> = running.map(Running::end).collect();
        let _ = timeout(END_TIMEOUT, async { while ends.join_next().await.is_some() {} }).await;
    }

    /// The next event that a running node has seen.
    pub(super) async fn seen(&mut self) -> Seen {
        loop {
            let Some(seen) = self.events.recv().await else {
                // This holds a sender itself.
                return std::future::pending().await;
            };
            if self.is_current(&seen) {
                return seen;
            }
        }
    }

    /// The same, if there is one already.
    pub(super) fn try_seen(&mut self) -> Option<Seen> {
        loop {
            let seen = self.events.try_recv().ok()?;
            if self.is_current(&seen) {
                return Some(seen);
            }
        }
    }

    /// Events of a dead node do not count.
    fn is_current(&self, seen: &Seen) -> bool {
        let place = self.places.get(&seen.observer);
        place.is_some_and(|place| place.running.is_some() && place.life == seen.life)
    }
}

impl Running {
    async fn end(self) -> Arc<QuicNetwork> {
        self.node.shutdown().await;
        drop(self.offer);
        self.transport
    }
}

async fn forward(
    mut events: Events,
    (observer, life, clock): (NodeId, u64, Stopwatch),
    sender: mpsc::Sender<Seen>,
) {
    loop {
        let event = match events.next().await {
            Ok(event) => Ok(event),
            Err(SubscriptionError::Lagged(missed)) => Err(missed),
            Err(_) => return,
        };
        let seen = Seen { at: clock.elapsed(), observer: observer.clone(), event, life };
        if sender.send(seen).await.is_err() {
            return;
        }
    }
}

fn datacenter(index: usize) -> String {
    DATACENTERS.get(index).map_or_else(|| format!("dc{}", index + 1), |name| (*name).to_owned())
}

/// At most this many nodes gossip every 200 ms, more of them once a second: each has a heartbeat for each other, and a
/// small machine has no time for more.
pub(super) const LOCAL_MAX: usize = 16;
const DATACENTERS: [&str; 6] = ["eu", "us", "ap", "sa", "af", "au"];
/// Events that wait for the view; a node whose events wait reports that it lags.
const EVENTS_MAX: usize = 4_096;
const END_TIMEOUT: Duration = Duration::from_secs(2);
