//! The configuration as a TOML file, with the environment over it. Unknown keys are refused.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer};

use super::{Config, ConfigError};
use crate::{
    protocol::{
        id::{ClusterId, Datacenter},
        seal::Signing,
    },
    tls::Role,
};

/// Environment variables of this prefix override the file: `GOSSIPMONGER_GOSSIP_INTERVAL=2s`,
/// `GOSSIPMONGER_SEEDS=a:7101,b:7101`, `GOSSIPMONGER_LIMITS__KEYS=1000` for a key in a table.
pub const ENV_PREFIX: &str = "GOSSIPMONGER_";

/// What a configuration file may say; each key is described at the field of [`Config`] of its name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConfigFile {
    /// `local`, `lan` or `wan`: applied before the other keys.
    pub preset: Option<Preset>,
    /// File of this node's certificate chain, PEM. Default `node.pem` beside the file.
    pub certificate: Option<PathBuf>,
    /// File of its private key, PEM, mode 0600. Default `node.key` beside the file.
    pub key: Option<PathBuf>,
    /// File of the cluster's CA certificates, PEM. Default `roots.pem` beside the file.
    pub roots: Option<PathBuf>,
    /// How the URI of a certificate names cluster, datacenter and node: see
    /// [`Naming`](crate::tls::Naming). Default `spiffe://{cluster}/{datacenter}/{node}`.
    pub identity: Option<String>,
    /// The cluster, if `identity` does not say it.
    pub cluster: Option<ClusterId>,
    /// The datacenter of this node, if `identity` does not say it.
    pub datacenter: Option<Datacenter>,
    /// File of the store. Default `store.redb` beside the file; `memory`: none.
    pub store: Option<PathBuf>,
    /// Where Prometheus metrics are served. Default: nowhere.
    pub metrics: Option<SocketAddr>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives of the tracing crate.
    pub log: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<LogFormat>,
    /// Roles of clients' certificates that do not say theirs: their URI, and `read`, `watch` or `admin`.
    pub clients: Option<BTreeMap<String, Role>>,
    /// The directory of the cluster's authority (`ca.pem`, `ca.key`): this node issues certificates.
    pub issuer: Option<PathBuf>,
    /// Where those who join knock. Default: each address of `listen`, one port further.
    pub issuer_listen: Option<Vec<SocketAddr>>,
    /// How long the certificates that are issued here are valid. Default 72 h.
    #[serde(deserialize_with = "duration")]
    pub issuer_validity: Option<Duration>,
    /// The doors (`host:port`) of issuers, where this node renews its certificate.
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
}

/// See [`Config::local`] and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// [`Config::local`].
    Local,
    /// [`Config::lan`].
    Lan,
    /// [`Config::wan`].
    Wan,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The table `limits`; see [`Limits`](super::Limits).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is that of Limits")]
pub struct LimitsTable {
    pub key_bytes: Option<usize>,
    pub value_bytes: Option<usize>,
    pub keys: Option<usize>,
    pub state_bytes: Option<usize>,
}

/// The table `restarts`; see [`Restarts`](super::Restarts).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is that of Restarts")]
pub struct RestartsTable {
    pub most: Option<usize>,
    #[serde(deserialize_with = "duration")]
    pub window: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub back_off: Option<Duration>,
}

/// The table `quic`; see [`QuicLimits`](super::QuicLimits).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is that of QuicLimits")]
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

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is unknown, or its value is of the wrong kind.
    #[error("{origin}: {reason}")]
    Parse {
        /// The file, or the environment variable.
        origin: String,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{origin}: {source}")]
    Range {
        /// The file.
        origin: String,
        /// The key, its value and what is allowed.
        source: ConfigError,
    },
}

impl ConfigFile {
    /// Reads a file, and puts the environment variables of [`ENV_PREFIX`] over it.
    ///
    /// # Errors
    /// [`FileError`] names the file or variable, the key and the reason.
    pub fn read(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| FileError::Read { file: file.to_owned(), source })?;
        Self::parse(&text, &file.display().to_string(), environment)
    }

    /// The same for text that came from `origin`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(
        text: &str,
        origin: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FileError> {
        let parsed: Result<Self, _> = toml::from_str(text);
        let refused = |error: toml::de::Error| FileError::Parse {
            origin: origin.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        };
        parsed.map_err(refused)?;
        let mut table: toml::Table = toml::from_str(text).map_err(refused)?;
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                overlay(&mut table, &name, &key.to_lowercase(), &value)?;
            }
        }
        Self::deserialize(table).map_err(refused)
    }

    /// Puts what the file says over `config`, the preset first.
    #[must_use]
    pub fn apply(&self, config: Config) -> Config {
        let mut config = match self.preset {
            Some(Preset::Local) => config.local(),
            Some(Preset::Lan) => config.lan(),
            Some(Preset::Wan) => config.wan(),
            None => config,
        };
        macro_rules! put {
            ($($key:ident),*) => {
                $(if let Some(value) = &self.$key { config.$key.clone_from(value); })*
            };
        }
        macro_rules! put_table {
            ($table:ident: $($key:ident),*) => {
                $(if let Some(value) = self.$table.$key { config.$table.$key = value; })*
            };
        }
        put!(tags, listen, advertise, seeds, gossip_interval, gossip_fanout, dead_peer_phi);
        put!(max_deltas_per_gossip, max_delta_bytes, minimum_live_peers, peers_max, signing);
        put!(tombstone_grace, forget_after, event_queue, write_queue_bytes, rejoin);
        put!(push_bytes_per_second, wan_bytes_per_second);
        put_table!(limits: key_bytes, value_bytes, keys, state_bytes);
        put_table!(restarts: most, window, back_off);
        put_table!(quic: handshake_timeout, exchange_timeout, idle_timeout, handshakes);
        put_table!(quic: retry_above, handshakes_per_source, connections, exchanges);
        put_table!(quic: exchanges_per_peer, bar, socket_buffer, gso);
        config
    }
}

/// Sets a key, or `table__key`, from the environment: a TOML value, or else a string; a list is
/// separated by commas.
fn overlay(table: &mut toml::Table, name: &str, key: &str, value: &str) -> Result<(), FileError> {
    let listed = matches!(key, "listen" | "advertise" | "seeds" | "issuer_listen" | "issuers");
    let strings = |text: &str| {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        toml::Value::Array(parts.map(|part| toml::Value::String(part.to_owned())).collect())
    };
    let literal = || {
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
        parsed.ok().and_then(|mut table| table.remove("value"))
    };
    let value = if listed && !value.trim_start().starts_with('[') {
        strings(value)
    } else {
        literal().unwrap_or_else(|| toml::Value::String(value.to_owned()))
    };
    let mut alone = toml::Table::new();
    insert(&mut alone, key, value.clone());
    ConfigFile::deserialize(alone).map_err(|error| FileError::Parse {
        origin: format!("environment variable {name}"),
        reason: error.to_string().trim_end().to_owned(),
    })?;
    insert(table, key, value);
    Ok(())
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    let Some((outer, inner)) = key.split_once("__") else {
        table.insert(key.to_owned(), value);
        return;
    };
    let nested =
        table.entry(outer.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let Some(nested) = nested.as_table_mut() {
        nested.insert(inner.to_owned(), value);
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from).map_err(|_| {
        serde::de::Error::custom("a duration is text with a unit, such as \"500ms\" or \"1s\"")
    })?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is no duration such as \"500ms\": {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<ConfigFile, FileError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        ConfigFile::parse(text, "gossipmonger.toml", environment)
    }

    fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
        parse(text, environment).unwrap_err().to_string()
    }

    // C96
    #[test]
    fn refuses_an_unknown_key_and_names_it() {
        let error = refusal("gossip_intervall = \"1s\"\n", &[]);
        assert!(
            error.contains("gossipmonger.toml") && error.contains("gossip_intervall"),
            "{error}"
        );
        let error = refusal("[quic]\nhandshake = 1\n", &[]);
        assert!(error.contains("handshake"), "{error}");
        let error = refusal("", &[("GOSSIPMONGER_SEED", "a:1")]);
        assert!(error.contains("GOSSIPMONGER_SEED"), "{error}");
    }

    #[test]
    fn refuses_a_value_of_the_wrong_kind() {
        assert!(refusal("gossip_interval = 5\n", &[]).contains("duration"));
        assert!(refusal("gossip_fanout = \"many\"\n", &[]).contains("gossip_fanout"));
        assert!(refusal("", &[("GOSSIPMONGER_GOSSIP_FANOUT", "many")]).contains("FANOUT"));
        assert!(refusal("preset = \"moon\"\n", &[]).contains("moon"));
    }

    // C96
    #[test]
    fn the_environment_comes_before_the_file() {
        let file = parse(
            "gossip_interval = \"2s\"\nseeds = [\"a:1\"]\n[limits]\nkeys = 5\n",
            &[
                ("GOSSIPMONGER_GOSSIP_INTERVAL", "3s"),
                ("GOSSIPMONGER_SEEDS", "b:2, c:3"),
                ("GOSSIPMONGER_LIMITS__KEYS", "7"),
                ("OTHER", "x"),
            ],
        )
        .unwrap();
        assert_eq!(file.gossip_interval, Some(Duration::from_secs(3)));
        assert_eq!(file.seeds, Some(vec!["b:2".to_owned(), "c:3".to_owned()]));
        assert_eq!(file.limits.keys, Some(7));
    }
}
