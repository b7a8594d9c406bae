//! Every knob of a node: its unit, its default, its range, and what turning it costs.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use crate::{
    protocol::{
        digest::PEERS_MAX,
        entry::KEY_BYTES_MAX,
        id::{ClusterId, Datacenter, NodeId},
        record,
        seal::Signing,
    },
    store::{Store, memory::MemoryStore},
    tls::{Identity, LoadError, Roots},
    transport::{Transport, quic::QuicTransport},
};

pub use crate::transport::limits::QuicLimits;

mod file;
mod known;
mod links;
mod machines;

pub use file::{
    ConfigFile, ENV_PREFIX, FileError, LimitsTable, LogFormat, Preset, QuicTable, RestartsTable,
};
pub use links::is_service_link;

/// How a node is to behave. Start from [`Config::new`], apply a preset, change fields.
///
/// Everything is checked when the node is spawned; see [`Config::check`] for the ranges.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The cluster. With the QUIC transport it is what the certificate says.
    pub cluster: ClusterId,
    /// This node, unique in the cluster. With the QUIC transport it is what the certificate says.
    pub node: NodeId,
    /// Where it is. With the QUIC transport it is what the certificate says.
    pub datacenter: Datacenter,
    /// What its operator calls it; tags set while it ran and kept by the store come before these.
    pub tags: BTreeMap<String, String>,
    /// Addresses to bind, at least one for QUIC. Default `127.0.0.1:0`: any free port of loopback.
    pub listen: Vec<SocketAddr>,
    /// Where others are to dial, `host:port` each, best first. Empty: the bound addresses; that is
    /// refused if one of them is unspecified (`0.0.0.0`, `[::]`), since nobody can dial it.
    pub advertise: Vec<String>,
    /// The original's `seeds`: addresses (`host:port`; names are resolved at every use) where
    /// somebody of the cluster answers. The own address among them does no harm.
    pub seeds: Vec<String>,
    /// The original's `GOSSIP_INTERVAL`: time between two rounds and between two heartbeats.
    /// Default 1 s. Half of it doubles idle traffic and halves the time to notice a death.
    pub gossip_interval: Duration,
    /// With how many peers a round repairs at most, if they know something else. Default 3; the
    /// original goes to 1 each round, whatever it knows.
    pub gossip_fanout: usize,
    /// The original's `DEAD_PEER_PHI`: a peer is dead when its silence is as improbable as
    /// 10^-phi for a live one. Default 8, which is four missed heartbeats; 4 is two.
    pub dead_peer_phi: f64,
    /// The original's `MAX_DELTAS_PER_GOSSIP`: most entries of one delta. Default 10,000 (the
    /// original has 5, and waits a round for the next 5; here the next delta follows at once).
    pub max_deltas_per_gossip: usize,
    /// Most bytes of one delta, unless a single value or batch is larger. Default 256 KiB. Larger
    /// ones move bulk a little faster and hold more memory at both ends.
    pub max_delta_bytes: usize,
    /// The original's `MINIMUM_LIVE_PEERS`: with fewer live peers, every round goes to a seed too.
    /// Default 1.
    pub minimum_live_peers: usize,
    /// What is signed, and asked of others: see [`Signing`]. Default: require. Where the transport has
    /// no certificates nothing is signed, whatever this says.
    pub signing: Signing,
    /// What a node may hold. Must be the same in the whole cluster: news above it is refused.
    pub limits: Limits,
    /// Most nodes known at once. Default 10,000, at most 32,000.
    pub peers_max: usize,
    /// How long a deleted key leaves a tombstone. Default 1 h. A copy that was cut off for longer is
    /// sent the whole map again.
    pub tombstone_grace: Duration,
    /// How long a dead peer and its keys are kept. Default 24 h. It is no longer told of after half
    /// of it.
    pub forget_after: Duration,
    /// Events held for a subscriber that does not take them; then it is told that it lags. An event
    /// may hold a value of up to `limits.value_bytes`. Default 4,096.
    pub event_queue: usize,
    /// Most bytes of writes that wait for the store; further ones wait for room. Default 64 MiB.
    pub write_queue_bytes: usize,
    /// Most bytes of news pushed to one peer in a second. Default 16 MiB. What waits is joined: the
    /// last value of a key goes out, not all of them. Too little for the changes of the whole cluster
    /// makes them late, never wrong.
    pub push_bytes_per_second: usize,
    /// Most bytes of news and of copies that this node sends to all peers of another datacenter
    /// together in a second. Default 64 MiB. Copies take what news leaves; what is about who is there
    /// never waits. A few nodes of each datacenter send to another, and each has this budget.
    pub wan_bytes_per_second: usize,
    /// Start although the store says that this node left on purpose. Default `false`: refuse.
    pub rejoin: bool,
    /// How often the actors inside may fail and be restarted before the node as a whole fails.
    pub restarts: Restarts,
    /// Limits of the QUIC transport.
    pub quic: QuicLimits,
    /// The original's `storage`. Default: in memory.
    pub storage: Arc<dyn Store>,
    /// The original's `transport`. Default: QUIC with mutual TLS.
    pub transport: Arc<dyn Transport>,
}

/// What one node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one key: 1 to this. Default and most: 512.
    pub key_bytes: usize,
    /// Bytes of one value. Default 1 MiB.
    pub value_bytes: usize,
    /// Live keys of one node. Default 1,000,000.
    pub keys: usize,
    /// Bytes of all keys and values of one node. Default 256 MiB.
    pub state_bytes: usize,
}

/// How often actors may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restarts {
    /// Restarts allowed within `window`. Default 10.
    pub most: usize,
    /// See `most`. Default 60 s.
    pub window: Duration,
    /// The wait before a restart, doubled with each within the window. Default 10 ms.
    pub back_off: Duration,
}

/// A value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value} is refused: {allowed}")]
pub struct ConfigError {
    /// Which knob.
    pub key: &'static str,
    /// What it was set to.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl Config {
    /// A node with the name that its certificate proves, in the cluster of these roots.
    ///
    /// # Errors
    /// [`LoadError`] if the two cannot be used.
    pub fn new(identity: Identity, roots: Roots) -> Result<Self, LoadError> {
        Ok(Self::with_quic(Arc::new(QuicTransport::new(identity, roots)?)))
    }

    /// The same, with a transport that the caller keeps a hold of: to reload its identity.
    #[must_use]
    pub fn with_quic(transport: Arc<QuicTransport>) -> Self {
        let name = transport.identity().name().clone();
        Self::with_transport(name.cluster, name.datacenter, name.node, transport)
    }

    /// A node with this name on another transport.
    #[must_use]
    pub fn with_transport(
        cluster: ClusterId,
        datacenter: Datacenter,
        node: NodeId,
        transport: Arc<dyn Transport>,
    ) -> Self {
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
            storage: Arc::new(MemoryStore::new()),
            transport,
        }
    }

    /// One machine: a round every 200 ms, a death is noticed within a second.
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

    /// Checks every value, as spawning does.
    ///
    /// # Errors
    /// [`ConfigError`] names the first key out of range, its value, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_gossip()?;
        self.check_sizes()?;
        self.check_addresses()?;
        self.check_quic()
    }

    fn check_gossip(&self) -> Result<(), ConfigError> {
        duration("gossip_interval", self.gossip_interval, MILLI * 10..=MINUTE)?;
        number("gossip_fanout", self.gossip_fanout, 1..=32)?;
        if !(0.5..=50.0).contains(&self.dead_peer_phi) {
            let allowed = "0.5 to 50 is allowed".to_owned();
            let value = self.dead_peer_phi.to_string();
            return Err(ConfigError { key: "dead_peer_phi", value, allowed });
        }
        number("minimum_live_peers", self.minimum_live_peers, 0..=1_000)?;
        // Of what is collected or forgotten before others could hear of it they would tell anew.
        let round = self.gossip_interval;
        duration("tombstone_grace", self.tombstone_grace, round..=DAY * 30)?;
        duration("forget_after", self.forget_after, round * FORGET_ROUNDS_MIN..=DAY * 366)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        number("max_deltas_per_gossip", self.max_deltas_per_gossip, 1..=1_000_000)?;
        number("max_delta_bytes", self.max_delta_bytes, 1_024..=4 << 20)?;
        number("limits.key_bytes", self.limits.key_bytes, 1..=KEY_BYTES_MAX)?;
        number("limits.value_bytes", self.limits.value_bytes, 1..=VALUE_BYTES_MAX)?;
        number("limits.keys", self.limits.keys, 1..=10_000_000)?;
        number("limits.state_bytes", self.limits.state_bytes, 1..=16 << 30)?;
        number("peers_max", self.peers_max, 1..=PEERS_MAX)?;
        number("event_queue", self.event_queue, 1..=1 << 20)?;
        number("write_queue_bytes", self.write_queue_bytes, 8 << 20..=4 << 30)?;
        number("push_bytes_per_second", self.push_bytes_per_second, BUDGET_MIN..=BUDGET_MAX)?;
        number("wan_bytes_per_second", self.wan_bytes_per_second, BUDGET_MIN..=BUDGET_MAX)?;
        number("restarts.most", self.restarts.most, 0..=1_000)?;
        duration("restarts.window", self.restarts.window, MILLI..=DAY)?;
        duration("restarts.back_off", self.restarts.back_off, Duration::ZERO..=MINUTE)
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        record::check_tags(&self.tags).map_err(|error| ConfigError {
            key: "tags",
            value: format!("{} tags", self.tags.len()),
            allowed: error.to_string(),
        })?;
        number("listen", self.listen.len(), 1..=8)?;
        check_listen("listen", &self.listen)?;
        number("seeds", self.seeds.len(), 0..=1_000)?;
        number("advertise", self.advertise.len(), 0..=record::ADDRESSES_MAX)?;
        let named = [("advertise", &self.advertise), ("seeds", &self.seeds)];
        for (key, addresses) in named {
            addresses.iter().try_for_each(|address| check_address(key, address))?;
        }
        let unspecified = self.listen.iter().find(|address| address.ip().is_unspecified());
        match unspecified {
            Some(address) if self.advertise.is_empty() => Err(ConfigError {
                key: "listen",
                value: address.to_string(),
                allowed: "nobody can dial an unspecified address: set advertise (--advertise) to \
                          the address or name by which others reach this node"
                    .to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn check_quic(&self) -> Result<(), ConfigError> {
        let quic = &self.quic;
        duration("quic.handshake_timeout", quic.handshake_timeout, MILLI * 100..=MINUTE)?;
        duration("quic.exchange_timeout", quic.exchange_timeout, MILLI * 100..=MINUTE * 10)?;
        duration("quic.idle_timeout", quic.idle_timeout, MILLI * 100..=MINUTE * 10)?;
        number("quic.handshakes", quic.handshakes, 1..=65_536)?;
        number("quic.retry_above", quic.retry_above, 0..=65_536)?;
        number("quic.handshakes_per_source", quic.handshakes_per_source as usize, 1..=1 << 20)?;
        number("quic.connections", quic.connections, 1..=100_000)?;
        number("quic.exchanges", quic.exchanges, 1..=65_536)?;
        number("quic.exchanges_per_peer", quic.exchanges_per_peer as usize, 1..=1 << 20)?;
        duration("quic.bar", quic.bar, Duration::ZERO..=MINUTE * 60)?;
        number("quic.socket_buffer", quic.socket_buffer, 0..=1 << 30)
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

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("cluster", &self.cluster)
            .field("datacenter", &self.datacenter)
            .field("node", &self.node)
            .field("listen", &self.listen)
            .field("seeds", &self.seeds)
            .field("storage", &self.storage)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

fn number(
    key: &'static str,
    value: usize,
    range: RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("{} to {} is allowed", range.start(), range.end());
    Err(ConfigError { key, value: value.to_string(), allowed })
}

fn duration(
    key: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let shown = |d: Duration| humantime::format_duration(d).to_string();
    let allowed = format!("{} to {} is allowed", shown(*range.start()), shown(*range.end()));
    Err(ConfigError { key, value: shown(value), allowed })
}

/// What a socket can be bound to, for those who wrote something else.
pub(crate) const SOCKET_ADDRESS: &str =
    "write IP:PORT, such as 10.0.0.1:7101 or [::1]:7101; a name is not taken here";

/// Reads an address for a socket from the command line.
///
/// # Errors
/// What to write instead.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| SOCKET_ADDRESS.to_owned())
}

/// Refuses addresses that no socket can be bound to, or no second one. `key`: the setting they are from.
///
/// # Errors
/// The first such address, and why.
pub fn check_listen(key: &'static str, addresses: &[SocketAddr]) -> Result<(), ConfigError> {
    let refused = |address: &SocketAddr, allowed: &str| {
        Err(ConfigError { key, value: address.to_string(), allowed: allowed.to_owned() })
    };
    for (n, address) in addresses.iter().enumerate() {
        if address.ip().is_multicast() {
            return refused(address, "a multicast address is nobody's own: name one of this host");
        }
        if address.port() != 0 && addresses[..n].contains(address) {
            return refused(address, "each address may be named once");
        }
    }
    Ok(())
}

/// Refuses an address that nobody can dial. `key`: the setting it is from.
///
/// # Errors
/// The address, and what is allowed.
pub fn check_address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let refused = |allowed: String| ConfigError { key, value: format!("{address:?}"), allowed };
    let parts = address.rsplit_once(':');
    let good = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
        let allowed = "nobody can dial an unspecified address: name one by which others reach it";
        return Err(refused(allowed.to_owned()));
    }
    if let Some((host, _)) = parts.filter(|_| good && address.len() <= record::ADDRESS_BYTES_MAX) {
        return check_host(host).map_err(|why| refused(format!("{why}; write {HOST_AND_PORT}")));
    }
    Err(refused(format!(
        "host:port with a port of 1 to 65535, at most {} bytes (IPv6 as [::1]:7101)",
        record::ADDRESS_BYTES_MAX
    )))
}

/// Refuses what no system resolves.
fn check_host(host: &str) -> Result<(), &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (address, scope) = inner.split_once('%').unwrap_or((inner, "0"));
        return match (address.parse::<Ipv6Addr>(), scope.parse::<u32>()) {
            (Ok(_), Ok(_)) => Ok(()),
            (Ok(_), Err(_)) => Err("after % the number of the interface is expected, not its name"),
            (Err(_), _) => Err("in brackets an IPv6 address is expected"),
        };
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.strip_suffix(':').is_some() {
        return Err("an IPv6 address needs brackets");
    }
    if host.contains("://") {
        return Err("a URL is not expected");
    }
    if host.contains([',', ';', ' ']) {
        return Err("one address is expected; give several as a list");
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(letters)
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err("the host is neither an IP address nor the name of a host");
    }
    Ok(())
}

const HOST_AND_PORT: &str = "host:port (IPv6 as [::1]:7101)";
/// Longest name of a host and longest part of it between two dots (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A value is one version, so it has to fit into a frame with what surrounds it.
const VALUE_BYTES_MAX: usize = 4 << 20;
/// Least and most of a budget, in bytes a second.
const BUDGET_MIN: usize = 64 << 10;
const BUDGET_MAX: usize = 16 << 30;
/// A dead peer is kept for at least so many rounds.
const FORGET_ROUNDS_MIN: u32 = 10;
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
