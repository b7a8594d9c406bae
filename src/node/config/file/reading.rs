//! The configuration as a TOML file, overridden by the environment. Unknown keys are refused.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    super::{Config, error::ConfigError},
    known::{self, Unknown},
    links,
    tables::{ConfigFile, Preset},
};
use crate::{pki::file, tls::Naming};

/// Environment variables with this prefix override the file: `GOSSIPMONGER_GOSSIP_INTERVAL=2s`,
/// `GOSSIPMONGER_SEEDS=a:7101,b:7101`, `GOSSIPMONGER_LIMITS__KEYS=1000` for a key in a table.
pub const ENV_PREFIX: &str = "GOSSIPMONGER_";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is a symbolic link to a missing file.
    #[error(
        "{} is a link to {}, which is not there: mount or make that file, or remove the link",
        file.display(), target.display()
    )]
    Dangling {
        /// The link.
        file: PathBuf,
        /// Its target.
        target: PathBuf,
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

/// The expected form of a socket's address, for an error message.
const SOCKET_ADDRESS: &str =
    "write IP:PORT, such as 10.0.0.1:7101 or [::1]:7101; a name is not taken here";

/// Reads an address for a socket from the command line.
///
/// # Errors
/// The form to write instead.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| SOCKET_ADDRESS.to_owned())
}

impl ConfigFile {
    /// Reads a file, and applies the environment variables of [`ENV_PREFIX`] to it.
    ///
    /// # Errors
    /// [`FileError`] names the file or variable, the key and the reason.
    pub fn read(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FileError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| match std::fs::read_link(file) {
                Ok(target) if source.kind() == std::io::ErrorKind::NotFound => {
                    FileError::Dangling { file: file.to_owned(), target }
                }
                _ if source.kind() == std::io::ErrorKind::InvalidData => FileError::Parse {
                    origin: file.display().to_string(),
                    reason: "is no UTF-8 text: write it again as plain text".to_owned(),
                },
                _ => FileError::Read { file: file.to_owned(), source },
            })?;
        Self::parse(&text, &file.display().to_string(), environment)
    }

    /// The same for text that came from `origin`. It ignores empty variables and those that Kubernetes
    /// and Docker set for a service called `gossipmonger`; spaces around a value do not count.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(
        text: &str,
        origin: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FileError> {
        let refused = |reason: String| FileError::Parse { origin: origin.to_owned(), reason };
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| refused(words(&error)))?;
        if let Some(unknown) = known::unknown(&table) {
            return Err(refused(format!("{}{unknown}", line_of(text, &unknown))));
        }
        toml::from_str::<Self>(text).map_err(|error| refused(words(&error)))?;
        for (name, value) in environment {
            let value = value.trim();
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            if !value.is_empty() && !links::is_service_link(key, value) {
                overlay(&mut table, &name, &key.to_lowercase(), value)?;
            }
        }
        Self::deserialize(table).map_err(|error| refused(words(&error)))
    }

    /// The files of certificate, key and roots of a node with this directory.
    #[must_use]
    pub fn credential_files(&self, directory: &Path) -> [PathBuf; 3] {
        let place = |given: &Option<PathBuf>, name: &str| {
            directory.join(given.as_deref().unwrap_or_else(|| Path::new(name)))
        };
        [
            place(&self.certificate, file::CERTIFICATE),
            place(&self.key, file::KEY),
            place(&self.roots, file::ROOTS),
        ]
    }

    /// The file of the store of a node with this directory; `None`: in memory.
    #[must_use]
    pub fn store_file(&self, directory: &Path) -> Option<PathBuf> {
        match &self.store {
            Some(path) if path.as_os_str() == "memory" => None,
            Some(path) => Some(directory.join(path)),
            None => Some(directory.join(file::STORE)),
        }
    }

    /// How certificates name nodes.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn naming(&self) -> Result<Naming, (&'static str, String)> {
        match &self.identity {
            Some(template) => Naming::new(template, self.cluster.clone(), self.datacenter.clone())
                .map_err(|error| ("identity", error.to_string())),
            None if self.cluster.is_some() || self.datacenter.is_some() => Err((
                if self.cluster.is_some() { "cluster" } else { "datacenter" },
                "cluster and datacenter are what the certificate says; where it says neither, identity \
                 has to say how it names nodes"
                    .to_owned(),
            )),
            None => Ok(Naming::default()),
        }
    }

    /// Applies the file to `config`, the preset first.
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
        put_table!(services: deadline, calls_per_link, lane_queue_bytes, idle, drain);
        put_table!(services: request_bytes, reply_bytes, room_bytes, window_bytes);
        put_table!(services: connections_out, connections_in, connections_per_peer);
        put_table!(services: client_connections_in, calls_in_flight);
        let (rates, given) = (&mut config.services.rates, &self.services);
        rates.calls_per_second = given.calls_per_second.or(rates.calls_per_second);
        rates.bytes_per_second = given.bytes_per_second.unwrap_or(rates.bytes_per_second);
        let abroad = given.wan_bytes_per_second;
        rates.wan_bytes_per_second = abroad.unwrap_or(rates.wan_bytes_per_second);
        config
    }
}

/// Sets a key, or `table__key`, from the environment. A value is text where the key takes text, and
/// otherwise a TOML value; a list is separated by commas.
fn overlay(table: &mut toml::Table, name: &str, key: &str, value: &str) -> Result<(), FileError> {
    let refused = |reason: String| FileError::Parse {
        origin: format!("environment variable {name}"),
        reason,
    };
    let listed = matches!(key, "listen" | "advertise" | "seeds" | "issuer_listen" | "issuers");
    let strings = |text: &str| {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        toml::Value::Array(parts.map(|part| toml::Value::String(part.to_owned())).collect())
    };
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let literal = parsed.ok().and_then(|mut table| table.remove("value"));
    let text = toml::Value::String(value.to_owned());
    // The best candidate first: a quoted value is text without its quotes; `12` is text for a tag
    // and a number for a limit.
    let candidates = match literal {
        _ if listed && !value.starts_with('[') => vec![strings(value)],
        Some(quoted @ toml::Value::String(_)) => vec![quoted],
        Some(other) => vec![text, other],
        None => vec![text],
    };
    let mut reason = String::new();
    for value in candidates {
        let mut alone = toml::Table::new();
        insert(&mut alone, key, value.clone());
        if let Some(unknown) = known::unknown(&alone) {
            return Err(refused(format!("{unknown}")));
        }
        match ConfigFile::deserialize(alone) {
            Ok(_) => {
                insert(table, key, value);
                return Ok(());
            }
            Err(error) => reason = words(&error),
        }
    }
    Err(refused(reason))
}

/// The error message for a text, without the line break at its end.
fn words(error: &toml::de::Error) -> String {
    // The standard library's words say neither the fault nor the form to write.
    error.to_string().trim_end().replace("invalid socket address syntax", SOCKET_ADDRESS)
}

/// The place of an unknown key in a file, for an error message: `line 3: `.
fn line_of(text: &str, unknown: &Unknown) -> String {
    let named = |line: &str| {
        let name = line.trim_start().trim_start_matches(['[', '"', ' ']);
        let rest = name.strip_prefix(unknown.name.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let line = text.lines().position(named);
    line.map_or_else(String::new, |line| format!("line {}: ", line + 1))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        protocol::id::{ClusterId, Datacenter, NodeId},
        tls::PeerName,
    };

    fn config() -> Config {
        Config::new(&PeerName {
            cluster: ClusterId::new("demo").unwrap(),
            datacenter: Datacenter::new("eu").unwrap(),
            node: NodeId::new("a").unwrap(),
        })
    }

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
    fn suggests_the_key_that_was_meant() {
        for (text, says) in [
            (
                "preset = \"lan\"\ngosip_interval = \"1s\"\n",
                "line 2: unknown key gosip_interval; did you mean gossip_interval?",
            ),
            ("[limits]\nkey = 1\n", "line 2: unknown key limits.key; did you mean limits.keys?"),
            (
                "[services]\ndead_line = \"1s\"\n",
                "line 2: unknown key services.dead_line; did you mean services.deadline?",
            ),
            ("[limit]\nkeys = 1\n", "line 1: unknown key limit; did you mean limits?"),
            (
                "colour = \"red\"\n",
                "line 1: unknown key colour; the keys are listed in docs/configuration.md",
            ),
        ] {
            let error = refusal(text, &[]);
            assert!(error.starts_with(&format!("gossipmonger.toml: {says}")), "{error}");
        }
        let error = refusal("", &[("GOSSIPMONGER_SEED", "a:1")]);
        assert!(error.contains("unknown key seed; did you mean seeds?"), "{error}");
        let error = refusal("", &[("GOSSIPMONGER_LIMITS__KEY", "1")]);
        assert!(error.contains("did you mean limits.keys?"), "{error}");
    }

    #[test]
    fn refuses_a_variable_that_only_resembles_a_service_link() {
        for (name, value) in [
            ("GOSSIPMONGER_PORT", "7101"),
            ("GOSSIPMONGER_PORTS", "tcp://10.96.0.7:7101"),
            ("GOSSIPMONGER_SERVICE", "10.96.0.7"),
            ("GOSSIPMONGER_PORT_7101_UDPX", "udp://10.96.0.7:7101"),
            ("GOSSIPMONGER_PORT_X_UDP", "udp://10.96.0.7:7101"),
        ] {
            assert!(refusal("", &[(name, value)]).contains(name), "{name}");
        }
    }

    #[test]
    fn ignores_what_kubernetes_and_docker_set_for_a_service_of_this_name() {
        let file = parse(
            "",
            &[
                ("GOSSIPMONGER_SERVICE_HOST", "10.96.0.7"),
                ("GOSSIPMONGER_SERVICE_PORT", "7101"),
                ("GOSSIPMONGER_SERVICE_PORT_GOSSIP", "7101"),
                ("GOSSIPMONGER_PORT", "udp://10.96.0.7:7101"),
                ("GOSSIPMONGER_PORT_7101_UDP", "udp://10.96.0.7:7101"),
                ("GOSSIPMONGER_PORT_7101_UDP_PROTO", "udp"),
                ("GOSSIPMONGER_PORT_7101_UDP_PORT", "7101"),
                ("GOSSIPMONGER_PORT_7101_UDP_ADDR", "10.96.0.7"),
                ("GOSSIPMONGER_METRICS_SERVICE_HOST", "10.96.0.8"),
                ("GOSSIPMONGER_METRICS_SERVICE_PORT", "9100"),
                ("GOSSIPMONGER_METRICS_PORT", "tcp://10.96.0.8:9100"),
                ("GOSSIPMONGER_METRICS_PORT_9100_TCP_ADDR", "10.96.0.8"),
            ],
        );
        assert_eq!(file.unwrap(), ConfigFile::default());
    }

    #[test]
    fn text_from_the_environment_is_text_whatever_it_looks_like() {
        for (given, tag) in [
            ("12", "12"),
            ("1.10", "1.10"),
            ("true", "true"),
            ("007", "007"),
            ("2026-01-02", "2026-01-02"),
            ("[1]", "[1]"),
            ("\"12\"", "12"),
            (" db ", "db"),
        ] {
            let file = parse("", &[("GOSSIPMONGER_TAGS__RACK", given)]).unwrap();
            assert_eq!(file.tags.unwrap()["rack"], tag, "{given}");
        }
        let file = parse("", &[("GOSSIPMONGER_CLUSTER", "12"), ("GOSSIPMONGER_STORE", "7")]);
        let file = file.unwrap();
        assert_eq!(file.cluster.unwrap().as_str(), "12");
        assert_eq!(file.store, Some(PathBuf::from("7")));
        let file =
            parse("", &[("GOSSIPMONGER_REJOIN", "true"), ("GOSSIPMONGER_DEAD_PEER_PHI", "9")]);
        let file = file.unwrap();
        assert_eq!((file.rejoin, file.dead_peer_phi), (Some(true), Some(9.0)));
    }

    #[test]
    fn an_empty_variable_is_not_set_and_spaces_around_a_value_do_not_count() {
        for key in known::keys(None) {
            for empty in ["", " "] {
                let name = format!("GOSSIPMONGER_{}", key.to_uppercase());
                assert_eq!(parse("", &[(&name, empty)]).unwrap(), ConfigFile::default(), "{key}");
            }
        }
        let file = parse("", &[("GOSSIPMONGER_STORE", "memory "), ("GOSSIPMONGER_LOG", " info")]);
        let file = file.unwrap();
        assert_eq!((file.store, file.log), (Some("memory".into()), Some("info".to_owned())));
    }

    #[cfg(unix)]
    #[test]
    fn refuses_a_link_to_a_file_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gossipmonger.toml");
        std::os::unix::fs::symlink("/nonexistent/gossipmonger.toml", &file).unwrap();
        let error = ConfigFile::read(&file, []).unwrap_err().to_string();
        assert!(
            error.contains("is a link to /nonexistent/gossipmonger.toml, which is not there"),
            "{error}"
        );
    }

    #[test]
    fn refuses_a_value_of_the_wrong_kind() {
        assert!(refusal("gossip_interval = 5\n", &[]).contains("duration"));
        assert!(refusal("gossip_fanout = \"many\"\n", &[]).contains("gossip_fanout"));
        assert!(refusal("", &[("GOSSIPMONGER_GOSSIP_FANOUT", "many")]).contains("FANOUT"));
        assert!(refusal("preset = \"moon\"\n", &[]).contains("moon"));
    }

    #[test]
    fn the_limits_of_calls_are_taken_key_by_key() {
        let text = "[services]\ndeadline = \"2s\"\ncalls_per_link = 7\nlane_queue_bytes = 20000\n\
                    connections_out = 3\nconnections_in = 4\nconnections_per_peer = 2\n\
                    bytes_per_second = 7000000\ncalls_per_second = 8\nwan_bytes_per_second = 8000000\n\
                    idle = \"9s\"\n";
        let file = parse(text, &[("GOSSIPMONGER_SERVICES__DRAIN", "3s")]).unwrap();
        let services = file.apply(config()).services;
        let seconds = [services.deadline, services.idle, services.drain];
        assert_eq!(seconds, [2, 9, 3].map(Duration::from_secs));
        assert_eq!((services.calls_per_link, services.lane_queue_bytes), (7, 20_000));
        let connections = (services.connections_out, services.connections_in);
        assert_eq!((connections, services.connections_per_peer), ((3, 4), 2));
        let rates = (services.rates.bytes_per_second, services.rates.wan_bytes_per_second);
        assert_eq!((rates, services.rates.calls_per_second), ((7_000_000, 8_000_000), Some(8)));
        let none = ConfigFile::default().apply(config()).services;
        assert_eq!(none, config().services, "what is not given has its default");
    }

    #[test]
    fn the_directory_for_clients_is_on_or_off() {
        let directory = |text: &str, environment: &[(&str, &str)]| {
            parse(text, environment).unwrap().services.directory
        };
        assert_eq!(directory("", &[]), None);
        let on = "[services]\ndirectory = true\n";
        assert_eq!(directory(on, &[]), Some(true));
        let off = ("GOSSIPMONGER_SERVICES__DIRECTORY", "false");
        assert_eq!(directory(on, &[off]), Some(false));
        let refused = refusal("[services]\ndirectory = \"yes\"\n", &[]);
        for part in ["gossipmonger.toml", "directory = \"yes\"", "expected a boolean"] {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = refusal("", &[("GOSSIPMONGER_SERVICES__DIRECTORY", "yes")]);
        assert!(refused.contains("GOSSIPMONGER_SERVICES__DIRECTORY"), "{refused}");
        assert!(refused.contains("expected a boolean"), "{refused}");
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
