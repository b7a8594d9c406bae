//! The nodes that are measured, all in this process. Each is complete: its own certificate, endpoint and actors, with
//! default settings except for the interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Config, Gossipmonger,
    net::quic::QuicNetwork,
    protocol::{entry::Value, id::NodeId},
};
use serde_json::{Value as Json, json};

use super::{counts::Counts, values::number_of};
use crate::{
    error::CliError,
    throwaway::{Credentials, Throwaway},
};

/// How the nodes are set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) nodes: usize,
    /// `None`: the default.
    pub(super) interval: Option<Duration>,
    /// 0: any free ports.
    pub(super) base_port: u16,
}

/// The index of the node with a name.
pub(super) type Indices = BTreeMap<NodeId, usize>;

/// All nodes.
#[derive(Debug)]
pub(super) struct Cluster {
    settings: Settings,
    credentials: Vec<Credentials>,
    names: Vec<NodeId>,
    indices: Arc<Indices>,
    nodes: Vec<Option<Node>>,
    /// The networks of stopped nodes: their sockets stay bound.
    silenced: Vec<Arc<QuicNetwork>>,
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) node: Gossipmonger,
    transport: Arc<QuicNetwork>,
}

impl Settings {
    /// For the report.
    pub(super) fn describe(&self) -> Json {
        let interval = self.interval.unwrap_or(DEFAULT_INTERVAL);
        json!({
            "gossip_interval_ms": interval.as_millis() as u64,
            "phi": 8.0,
            "fanout": 3,
            "transport": "quic, mutual tls 1.3",
            "handshakes_per_source": HANDSHAKES_PER_SOURCE,
        })
    }

    fn apply(&self, config: &mut Config) {
        config.gossip_interval = self.interval.unwrap_or(config.gossip_interval);
        // All nodes share one address here, and one process, so they share the limits of a host.
        config.quic.handshakes_per_source = HANDSHAKES_PER_SOURCE;
    }
}

impl Cluster {
    /// Makes the certificates; starts no node.
    pub(super) fn new(settings: Settings) -> Result<Self, CliError> {
        let authority = Throwaway::new("bench")?;
        let mut credentials = Vec::with_capacity(settings.nodes);
        let mut names = Vec::with_capacity(settings.nodes);
        for index in 0..settings.nodes {
            let name = format!("node-{index}");
            credentials.push(authority.issue(&name, "here")?);
            names.push(NodeId::new(&name).map_err(CliError::failed)?);
        }
        let indices = names.iter().cloned().enumerate().map(|(index, name)| (name, index));
        let indices = Arc::new(indices.collect());
        Ok(Self { settings, credentials, names, indices, nodes: Vec::new(), silenced: Vec::new() })
    }

    /// Starts the next node; `index` is its index.
    pub(super) async fn start(&mut self, index: usize) -> Result<(), CliError> {
        let (mut config, transport) = self.credentials[index].config()?;
        self.settings.apply(&mut config);
        let port = match self.settings.base_port {
            0 => 0,
            base => base.checked_add(u16::try_from(index).unwrap_or(u16::MAX)).unwrap_or(0),
        };
        config.listen = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        config.seeds = self.nodes.first().into_iter().flatten().flat_map(Node::addresses).collect();
        let spawned = Gossipmonger::spawn(config, Arc::clone(&transport)).await;
        let (node, _) = spawned
            .map_err(|error| CliError::failed(format!("node {index} cannot start: {error}")))?;
        self.nodes.push(Some(Node { node, transport }));
        Ok(())
    }

    /// Starts all nodes.
    pub(super) async fn start_all(&mut self) -> Result<(), CliError> {
        for index in 0..self.settings.nodes {
            self.start(index).await?;
        }
        Ok(())
    }

    pub(super) fn name(&self, index: usize) -> &NodeId {
        &self.names[index]
    }

    pub(super) fn indices(&self) -> Arc<Indices> {
        Arc::clone(&self.indices)
    }

    /// A node that has not been stopped.
    pub(super) fn node(&self, index: usize) -> Option<&Gossipmonger> {
        self.nodes.get(index)?.as_ref().map(|node| &node.node)
    }

    /// All nodes that have not been stopped.
    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Gossipmonger)> {
        let running = self.nodes.iter().enumerate();
        running.filter_map(|(index, node)| Some((index, &node.as_ref()?.node)))
    }

    /// Whether every running node considers all others live.
    pub(super) fn is_full(&self) -> bool {
        let running: Vec<_> = self.running().map(|(index, _)| self.name(index)).collect();
        // Counting is cheap, and nearly always enough for a no.
        self.running().all(|(_, node)| node.snapshot().live().count() >= running.len())
            && self.running().all(|(_, node)| {
                let snapshot = node.snapshot();
                let live: BTreeSet<_> = snapshot.live().collect();
                running.iter().all(|name| live.contains(name))
            })
    }

    /// The sums of the counters of all running nodes, without zeros.
    pub(super) fn counters_json(&self) -> Json {
        let mut sums = BTreeMap::<String, u64>::new();
        for (_, node) in self.running() {
            let refusals = node.counters().refusals().into_iter();
            let refusals = refusals.map(|(reason, count)| (format!("refused_{reason}"), count));
            let counts = node.counters().all().into_iter();
            let counts = counts.map(|(name, count)| (name.to_owned(), count));
            counts
                .chain(refusals)
                .for_each(|(name, count)| *sums.entry(name).or_default() += count);
        }
        sums.retain(|_, sum| *sum > 0);
        json!(sums)
    }

    /// How many nodes each considers live, including itself.
    pub(super) fn live_counts(&self) -> Vec<usize> {
        self.running().map(|(_, node)| node.snapshot().live().count()).collect()
    }

    /// The sums of the counters of all running nodes.
    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.running().map(|(_, node)| node))
    }

    /// Whether a node shows this value of another node's key, by its number, or a later one.
    pub(super) fn has(&self, node: &Gossipmonger, origin: usize, key: &str, number: u64) -> bool {
        let snapshot = node.snapshot();
        let value = snapshot.get(self.name(origin), key);
        value.and_then(Value::as_str).and_then(number_of).is_some_and(|found| found >= number)
    }

    /// Silences a node: no close, no answer, and its socket stays bound.
    pub(super) fn kill(&mut self, index: usize) {
        if let Some(Node { node, transport }) = self.nodes.get_mut(index).and_then(Option::take) {
            transport.silence();
            self.silenced.push(transport);
            tokio::spawn(async move { node.shutdown().await });
        }
    }
}

impl Node {
    fn addresses(&self) -> Vec<String> {
        self.node.addresses().to_vec()
    }
}

/// The default of [`Config`].
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const HANDSHAKES_PER_SOURCE: u32 = 100_000;
