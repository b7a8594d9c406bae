//! Every setting of a node: its unit, its default, its range, and the cost of changing it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    protocol::{
        entry::KEY_BYTES_MAX,
        id::{ClusterId, Datacenter, NodeId},
        seal::Signing,
    },
    tls::PeerName,
};

pub use crate::{
    net::limits::QuicLimits,
    protocol::service::limits::{ServiceLimits, ServiceRates},
};

pub(crate) mod address;
pub(crate) mod check;
mod error;
#[cfg(feature = "config-file")]
pub(crate) mod file;
mod machines;

pub use self::error::ConfigError;

/// The configuration of a node, as plain data. Start from [`Config::new`], apply a preset, change fields. The network and
/// the store are passed beside it: [`Backends`](crate::Backends).
///
/// Everything is checked when the node is spawned; see [`Config::check`] for the ranges.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The cluster. With the QUIC transport the certificate determines it.
    pub cluster: ClusterId,
    /// This node, unique in the cluster. With the QUIC transport the certificate determines it.
    pub node: NodeId,
    /// The datacenter. With the QUIC transport the certificate determines it.
    pub datacenter: Datacenter,
    /// Tags set by the operator; tags set at run time and kept by the store take precedence.
    pub tags: BTreeMap<String, String>,
    /// Addresses to bind, at least one for QUIC. Default `127.0.0.1:0`: any free port of loopback.
    pub listen: Vec<SocketAddr>,
    /// The addresses at which others dial this node, `host:port` each, best first. Empty: the bound
    /// addresses; that is refused if one of them is unspecified (`0.0.0.0`, `[::]`), since it
    /// cannot be dialed.
    pub advertise: Vec<String>,
    /// The original's `seeds`: addresses (`host:port`; names are resolved at every use) of some
    /// members of the cluster. The node's own address among them is harmless.
    pub seeds: Vec<String>,
    /// The original's `GOSSIP_INTERVAL`: time between two rounds and between two heartbeats.
    /// Default 1 s. Half of it doubles idle traffic and halves the time to detect a failure.
    pub gossip_interval: Duration,
    /// The number of peers with which a round repairs at most, if their state differs. Default 3;
    /// the original contacts 1 in each round, whatever its state.
    pub gossip_fanout: usize,
    /// The original's `DEAD_PEER_PHI`: a peer is dead when its silence is as improbable as 10^-phi
    /// for a live one. Default 8, which means four missed heartbeats; 4 means two.
    pub dead_peer_phi: f64,
    /// The original's `MAX_DELTAS_PER_GOSSIP`: maximum entries of one delta. Default 10,000 (the
    /// original has 5, and waits a round for the next 5; here the next delta follows at once).
    pub max_deltas_per_gossip: usize,
    /// Maximum bytes of one delta, unless a single value or batch is larger. Default 256 KiB.
    /// Larger ones move bulk a little faster and hold more memory at both ends.
    pub max_delta_bytes: usize,
    /// The original's `MINIMUM_LIVE_PEERS`: with fewer live peers, every round contacts a seed too.
    /// Default 1.
    pub minimum_live_peers: usize,
    /// What this node signs, and requires others to sign: see [`Signing`]. Default: require. If the
    /// transport has no certificates nothing is signed, whatever this says.
    pub signing: Signing,
    /// What a node may hold. Must be the same in the whole cluster: news beyond it is refused.
    pub limits: Limits,
    /// Most nodes known at once. Default 10,000, at most 32,000.
    pub peers_max: usize,
    /// How long a deleted key leaves a tombstone. Default 1 h. A copy that was disconnected for
    /// longer is sent the whole map again.
    pub tombstone_grace: Duration,
    /// How long a dead peer and its keys are kept. Default 24 h. The node stops passing it on after
    /// half of it.
    pub forget_after: Duration,
    /// Events queued for a subscriber that does not read them; beyond that it receives a notice
    /// that it lags. An event may hold a value of up to `limits.value_bytes`. Default 4,096.
    pub event_queue: usize,
    /// Maximum bytes of writes that wait for the store; further ones wait for room. Default 64 MiB.
    pub write_queue_bytes: usize,
    /// Maximum bytes of news pushed to one peer in a second. Default 16 MiB. News that waits is
    /// merged: the last value of a key is sent, not all of them. If the budget is too small for the
    /// changes of the whole cluster, they arrive late, but never wrong.
    pub push_bytes_per_second: usize,
    /// Maximum bytes of news and of copies that this node sends to all peers of another datacenter
    /// together in a second. Default 64 MiB. Copies use what news leaves; liveness and membership
    /// never wait. A few nodes of each datacenter send to another, and each has this budget.
    pub wan_bytes_per_second: usize,
    /// Start even if the store records that this node left on purpose. Default `false`: refuse.
    pub rejoin: bool,
    /// How often the node's actors may fail and be restarted before the node as a whole fails.
    pub restarts: Restarts,
    /// Limits of the QUIC transport.
    pub quic: QuicLimits,
    /// Limits of calls between nodes.
    pub services: ServiceLimits,
    /// The rules of the machines that tests may switch off.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    pub rules: crate::protocol::rules::Rules,
}

/// What one node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one key: 1 to this. Default and maximum: 512.
    pub key_bytes: usize,
    /// Bytes of one value. Default 1 MiB.
    pub value_bytes: usize,
    /// Live keys of one node. Default 1,000,000.
    pub keys: usize,
    /// Bytes of all keys and values of one node. Default 256 MiB.
    pub state_bytes: usize,
}

/// How often actors may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Restarts {
    /// Restarts allowed within `window`. Default 10.
    pub most: usize,
    /// See `most`. Default 60 s.
    pub window: Duration,
    /// The wait before a restart, doubled with each within the window. Default 10 ms.
    pub back_off: Duration,
}

impl Config {
    /// The defaults, for a node with this name: over QUIC, the one that its certificate proves
    /// ([`Identity::name`](crate::tls::Identity::name)).
    #[must_use]
    pub fn new(name: &PeerName) -> Self {
        let PeerName { cluster, datacenter, node } = name.clone();
        Self {
            cluster,
            node,
            datacenter,
            tags: BTreeMap::new(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            advertise: Vec::new(),
            seeds: Vec::new(),
            gossip_interval: Duration::from_secs(1),
            gossip_fanout: 3,
            dead_peer_phi: 8.0,
            max_deltas_per_gossip: 10_000,
            max_delta_bytes: 256 << 10,
            minimum_live_peers: 1,
            signing: Signing::default(),
            limits: Limits::default(),
            peers_max: 10_000,
            tombstone_grace: HOUR,
            forget_after: 24 * HOUR,
            event_queue: 4_096,
            write_queue_bytes: 64 << 20,
            push_bytes_per_second: 16 << 20,
            wan_bytes_per_second: 64 << 20,
            rejoin: false,
            restarts: Restarts::default(),
            quic: QuicLimits::default(),
            services: ServiceLimits::default(),
            #[cfg(feature = "sim")]
            rules: crate::protocol::rules::Rules::default(),
        }
    }

    /// One machine: a round every 200 ms, a failure is detected within a second.
    #[must_use]
    pub fn local(self) -> Self {
        Self { gossip_interval: Duration::from_millis(200), ..self }
    }

    /// One datacenter: the defaults.
    #[must_use]
    pub fn lan(self) -> Self {
        Self { gossip_interval: Duration::from_secs(1), dead_peer_phi: 8.0, ..self }
    }

    /// Several datacenters: a round every 2 s, and one more heartbeat may be missed.
    #[must_use]
    pub fn wan(self) -> Self {
        Self { gossip_interval: Duration::from_secs(2), dead_peer_phi: 10.0, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: KEY_BYTES_MAX,
            value_bytes: 1 << 20,
            keys: 1_000_000,
            state_bytes: 256 << 20,
        }
    }
}

impl Default for Restarts {
    fn default() -> Self {
        Self { most: 10, window: MINUTE, back_off: MILLI * 10 }
    }
}

const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
