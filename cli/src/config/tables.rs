//! The keys of a configuration file.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use gossipmonger::{ClusterId, Datacenter, Signing, tls::Role};
#[cfg(doc)]
use gossipmonger::{Config, Limits, QuicLimits, Restarts, ServiceLimits, tls::Naming};
use serde::{Deserialize, Deserializer};

/// A configuration file; each key is described at the field of [`Config`] with the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// `local`, `lan` or `wan`: applied before the other keys.
    pub(crate) preset: Option<Preset>,
    /// File of this node's certificate chain, PEM. Default `node.pem` beside the file.
    pub(crate) certificate: Option<PathBuf>,
    /// File of its private key, PEM, mode 0600. Default `node.key` beside the file.
    pub(crate) key: Option<PathBuf>,
    /// File of the cluster's CA certificates, PEM. Default `roots.pem` beside the file.
    pub(crate) roots: Option<PathBuf>,
    /// Whether the agent waits at its start for a usable certificate, key and roots. Default: it ends at
    /// once if they are unusable.
    pub(crate) wait_for_certificate: Option<bool>,
    /// How the URI of a certificate names cluster, datacenter and node: see
    /// [`Naming`]. Default `spiffe://{cluster}/{datacenter}/{node}`.
    pub(crate) identity: Option<String>,
    /// The cluster, if `identity` does not contain it.
    pub(crate) cluster: Option<ClusterId>,
    /// The datacenter of this node, if `identity` does not contain it.
    pub(crate) datacenter: Option<Datacenter>,
    /// File of the store. Default `store.redb` beside the file; `memory`: none.
    pub(crate) store: Option<PathBuf>,
    /// The address at which Prometheus metrics are served. Default: none.
    pub(crate) metrics: Option<SocketAddr>,
    /// The log filter: `error`, `warn`, `info`, `debug`, `trace`, or directives of the tracing crate.
    pub(crate) log: Option<String>,
    /// `text` or `json`.
    pub(crate) log_format: Option<LogFormat>,
    /// Roles of clients whose certificates contain none: their URI, and `read`, `watch` or `admin`.
    pub(crate) clients: Option<BTreeMap<String, Role>>,
    /// The directory of the cluster's authority (`ca.pem`, `ca.key`): this node issues certificates.
    pub(crate) issuer: Option<PathBuf>,
    /// The addresses for nodes that join. Default: each address of `listen`, one port higher.
    pub(crate) issuer_listen: Option<Vec<SocketAddr>>,
    /// The validity of certificates that this node issues. Default 72 h.
    #[serde(deserialize_with = "duration")]
    pub(crate) issuer_validity: Option<Duration>,
    /// The addresses (`host:port`) of issuers, at which this node renews its certificate.
    pub(crate) issuers: Option<Vec<String>>,
    /// See [`Config::tags`].
    pub(crate) tags: Option<BTreeMap<String, String>>,
    /// See [`Config::listen`].
    pub(crate) listen: Option<Vec<SocketAddr>>,
    /// See [`Config::advertise`].
    pub(crate) advertise: Option<Vec<String>>,
    /// See [`Config::seeds`].
    pub(crate) seeds: Option<Vec<String>>,
    /// See [`Config::gossip_interval`].
    #[serde(deserialize_with = "duration")]
    pub(crate) gossip_interval: Option<Duration>,
    /// See [`Config::gossip_fanout`].
    pub(crate) gossip_fanout: Option<usize>,
    /// See [`Config::dead_peer_phi`].
    pub(crate) dead_peer_phi: Option<f64>,
    /// See [`Config::max_deltas_per_gossip`].
    pub(crate) max_deltas_per_gossip: Option<usize>,
    /// See [`Config::max_delta_bytes`].
    pub(crate) max_delta_bytes: Option<usize>,
    /// See [`Config::signing`]: `off`, `prefer` or `require`.
    pub(crate) signing: Option<Signing>,
    /// See [`Config::minimum_live_peers`].
    pub(crate) minimum_live_peers: Option<usize>,
    /// See [`Config::peers_max`].
    pub(crate) peers_max: Option<usize>,
    /// See [`Config::tombstone_grace`].
    #[serde(deserialize_with = "duration")]
    pub(crate) tombstone_grace: Option<Duration>,
    /// See [`Config::forget_after`].
    #[serde(deserialize_with = "duration")]
    pub(crate) forget_after: Option<Duration>,
    /// See [`Config::event_queue`].
    pub(crate) event_queue: Option<usize>,
    /// See [`Config::write_queue_bytes`].
    pub(crate) write_queue_bytes: Option<usize>,
    /// See [`Config::push_bytes_per_second`].
    pub(crate) push_bytes_per_second: Option<usize>,
    /// See [`Config::wan_bytes_per_second`].
    pub(crate) wan_bytes_per_second: Option<usize>,
    /// See [`Config::rejoin`].
    pub(crate) rejoin: Option<bool>,
    /// See [`Config::limits`].
    pub(crate) limits: LimitsTable,
    /// See [`Config::restarts`].
    pub(crate) restarts: RestartsTable,
    /// See [`Config::quic`].
    pub(crate) quic: QuicTable,
    /// See [`Config::services`].
    pub(crate) services: ServicesTable,
}

/// See [`Config::local`] and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    /// [`Config::local`].
    Local,
    /// [`Config::lan`].
    Lan,
    /// [`Config::wan`].
    Wan,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The table `limits`; see [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsTable {
    pub(crate) key_bytes: Option<usize>,
    pub(crate) value_bytes: Option<usize>,
    pub(crate) keys: Option<usize>,
    pub(crate) state_bytes: Option<usize>,
}

/// The table `restarts`; see [`Restarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RestartsTable {
    pub(crate) most: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub(crate) window: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(crate) back_off: Option<Duration>,
}

/// The table `quic`; see [`QuicLimits`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuicTable {
    #[serde(deserialize_with = "duration")]
    pub(crate) handshake_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(crate) exchange_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) handshakes: Option<usize>,
    pub(crate) retry_above: Option<usize>,
    pub(crate) handshakes_per_source: Option<u32>,
    pub(crate) connections: Option<usize>,
    pub(crate) exchanges: Option<usize>,
    pub(crate) exchanges_per_peer: Option<u32>,
    #[serde(deserialize_with = "duration")]
    pub(crate) bar: Option<Duration>,
    pub(crate) socket_buffer: Option<usize>,
    pub(crate) gso: Option<bool>,
}

/// The table `services`; see [`ServiceLimits`], and
/// [`offer_directory`](gossipmonger::Gossipmonger::offer_directory) for `directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServicesTable {
    #[serde(deserialize_with = "duration")]
    pub(crate) deadline: Option<Duration>,
    pub(crate) calls_in_flight: Option<usize>,
    pub(crate) calls_per_link: Option<usize>,
    pub(crate) lane_queue_bytes: Option<usize>,
    pub(crate) request_bytes: Option<usize>,
    pub(crate) reply_bytes: Option<usize>,
    pub(crate) room_bytes: Option<usize>,
    pub(crate) window_bytes: Option<usize>,
    pub(crate) connections_out: Option<usize>,
    pub(crate) connections_in: Option<usize>,
    pub(crate) client_connections_in: Option<usize>,
    pub(crate) connections_per_peer: Option<usize>,
    pub(crate) bytes_per_second: Option<usize>,
    pub(crate) calls_per_second: Option<usize>,
    pub(crate) wan_bytes_per_second: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub(crate) idle: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(crate) drain: Option<Duration>,
    /// Whether this node tells clients what they may call at all nodes. Default: not if it offers them nothing itself.
    pub(crate) directory: Option<bool>,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from).map_err(|_| {
        serde::de::Error::custom("a duration is text with a unit, such as \"500ms\" or \"1s\"")
    })?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is no duration such as \"500ms\": {error}"))
    })
}
