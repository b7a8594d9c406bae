//! The keys of a configuration file.
#![expect(missing_docs, reason = "each key of a table is documented at the field of the same name")]

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer};

#[cfg(doc)]
use super::super::{Config, Limits, QuicLimits, Restarts, ServiceLimits};
#[cfg(doc)]
use crate::tls::Naming;
use crate::{
    protocol::{
        id::{ClusterId, Datacenter},
        seal::Signing,
    },
    tls::Role,
};

/// A configuration file; each key is described at the field of [`Config`] with the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// `local`, `lan` or `wan`: applied before the other keys.
    pub preset: Option<Preset>,
    /// File of this node's certificate chain, PEM. Default `node.pem` beside the file.
    pub certificate: Option<PathBuf>,
    /// File of its private key, PEM, mode 0600. Default `node.key` beside the file.
    pub key: Option<PathBuf>,
    /// File of the cluster's CA certificates, PEM. Default `roots.pem` beside the file.
    pub roots: Option<PathBuf>,
    /// Whether the agent waits at its start for a usable certificate, key and roots. Default: it ends at
    /// once if they are unusable.
    pub wait_for_certificate: Option<bool>,
    /// How the URI of a certificate names cluster, datacenter and node: see
    /// [`Naming`]. Default `spiffe://{cluster}/{datacenter}/{node}`.
    pub identity: Option<String>,
    /// The cluster, if `identity` does not contain it.
    pub cluster: Option<ClusterId>,
    /// The datacenter of this node, if `identity` does not contain it.
    pub datacenter: Option<Datacenter>,
    /// File of the store. Default `store.redb` beside the file; `memory`: none.
    pub store: Option<PathBuf>,
    /// The address at which Prometheus metrics are served. Default: none.
    pub metrics: Option<SocketAddr>,
    /// The address of the HTTP interface: the API, the web view, the probes and the metrics. Default: none.
    pub http: Option<SocketAddr>,
    /// Whether it speaks TLS, with the node's certificate. Default: yes, except on a loopback address.
    pub http_tls: Option<bool>,
    /// File of the tokens for browsers and scrapers. Default `http-tokens.toml` beside the file.
    pub http_tokens: Option<PathBuf>,
    /// Whether everybody who reaches the address may read `/metrics`. Default: no.
    pub http_metrics_public: Option<bool>,
    /// The log filter: `error`, `warn`, `info`, `debug`, `trace`, or directives of the tracing crate.
    pub log: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<LogFormat>,
    /// Roles of clients whose certificates contain none: their URI, and `read`, `watch` or `admin`.
    pub clients: Option<BTreeMap<String, Role>>,
    /// The directory of the cluster's authority (`ca.pem`, `ca.key`): this node issues certificates.
    pub issuer: Option<PathBuf>,
    /// The addresses for nodes that join. Default: each address of `listen`, one port higher.
    pub issuer_listen: Option<Vec<SocketAddr>>,
    /// The validity of certificates that this node issues. Default 72 h.
    #[serde(deserialize_with = "duration")]
    pub issuer_validity: Option<Duration>,
    /// The addresses (`host:port`) of issuers, at which this node renews its certificate.
    pub issuers: Option<Vec<String>>,
    /// See [`Config::tags`].
    pub tags: Option<BTreeMap<String, String>>,
    /// See [`Config::listen`].
    pub listen: Option<Vec<SocketAddr>>,
    /// See [`Config::advertise`].
    pub advertise: Option<Vec<String>>,
    /// See [`Config::seeds`].
    pub seeds: Option<Vec<String>>,
    /// See [`Config::gossip_interval`].
    #[serde(deserialize_with = "duration")]
    pub gossip_interval: Option<Duration>,
    /// See [`Config::gossip_fanout`].
    pub gossip_fanout: Option<usize>,
    /// See [`Config::dead_peer_phi`].
    pub dead_peer_phi: Option<f64>,
    /// See [`Config::max_deltas_per_gossip`].
    pub max_deltas_per_gossip: Option<usize>,
    /// See [`Config::max_delta_bytes`].
    pub max_delta_bytes: Option<usize>,
    /// See [`Config::signing`]: `off`, `prefer` or `require`.
    pub signing: Option<Signing>,
    /// See [`Config::minimum_live_peers`].
    pub minimum_live_peers: Option<usize>,
    /// See [`Config::peers_max`].
    pub peers_max: Option<usize>,
    /// See [`Config::tombstone_grace`].
    #[serde(deserialize_with = "duration")]
    pub tombstone_grace: Option<Duration>,
    /// See [`Config::forget_after`].
    #[serde(deserialize_with = "duration")]
    pub forget_after: Option<Duration>,
    /// See [`Config::event_queue`].
    pub event_queue: Option<usize>,
    /// See [`Config::write_queue_bytes`].
    pub write_queue_bytes: Option<usize>,
    /// See [`Config::push_bytes_per_second`].
    pub push_bytes_per_second: Option<usize>,
    /// See [`Config::wan_bytes_per_second`].
    pub wan_bytes_per_second: Option<usize>,
    /// See [`Config::rejoin`].
    pub rejoin: Option<bool>,
    /// See [`Config::limits`].
    pub limits: LimitsTable,
    /// See [`Config::restarts`].
    pub restarts: RestartsTable,
    /// See [`Config::quic`].
    pub quic: QuicTable,
    /// See [`Config::services`].
    pub services: ServicesTable,
}

/// See [`Config::local`] and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
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
pub enum LogFormat {
    /// Text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The table `limits`; see [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsTable {
    pub key_bytes: Option<usize>,
    pub value_bytes: Option<usize>,
    pub keys: Option<usize>,
    pub state_bytes: Option<usize>,
}

/// The table `restarts`; see [`Restarts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestartsTable {
    pub most: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub window: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub back_off: Option<Duration>,
}

/// The table `quic`; see [`QuicLimits`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuicTable {
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub exchange_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Option<Duration>,
    pub handshakes: Option<usize>,
    pub retry_above: Option<usize>,
    pub handshakes_per_source: Option<u32>,
    pub connections: Option<usize>,
    pub exchanges: Option<usize>,
    pub exchanges_per_peer: Option<u32>,
    #[serde(deserialize_with = "duration")]
    pub bar: Option<Duration>,
    pub socket_buffer: Option<usize>,
    pub gso: Option<bool>,
}

/// The table `services`; see [`ServiceLimits`], and
/// [`offer_directory`](crate::Gossipmonger::offer_directory) for `directory`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServicesTable {
    #[serde(deserialize_with = "duration")]
    pub deadline: Option<Duration>,
    pub calls_in_flight: Option<usize>,
    pub calls_per_link: Option<usize>,
    pub lane_queue_bytes: Option<usize>,
    pub request_bytes: Option<usize>,
    pub reply_bytes: Option<usize>,
    pub room_bytes: Option<usize>,
    pub window_bytes: Option<usize>,
    pub connections_out: Option<usize>,
    pub connections_in: Option<usize>,
    pub client_connections_in: Option<usize>,
    pub connections_per_peer: Option<usize>,
    pub bytes_per_second: Option<usize>,
    pub calls_per_second: Option<usize>,
    pub wan_bytes_per_second: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub idle: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub drain: Option<Duration>,
    /// Whether this node tells clients what they may call at all nodes. Default: not if it offers them nothing itself.
    pub directory: Option<bool>,
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from).map_err(|_| {
        serde::de::Error::custom("a duration is text with a unit, such as \"500ms\" or \"1s\"")
    })?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is no duration such as \"500ms\": {error}"))
    })
}
