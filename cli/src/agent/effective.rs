//! The configuration in force: every key with its value, in the order of the documentation. Keys and certificates
//! appear by the paths of their files, never by their content.

use std::{collections::BTreeMap, fmt::Display, net::SocketAddr, path::Path, time::Duration};

use gossipmonger::{Config, Gossipmonger, Signing, tls::PeerName};

use super::{
    reload::{differing, own_tags},
    settings::Settings,
};
use crate::{
    config::{ConfigFile, LogFormat, Preset},
    effective::{ConfigRow, Origin},
};

/// All keys. `started`: the file, the environment and the flags as they were at the start of the node.
pub(super) fn rows(
    started: &ConfigFile,
    settings: &Settings,
    node: &Gossipmonger,
    dir: &Path,
) -> Vec<ConfigRow> {
    let name = PeerName {
        cluster: node.cluster().clone(),
        datacenter: node.datacenter().clone(),
        node: node.node().clone(),
    };
    let tags = own_tags(node);
    let values = values(started, settings, node.config(), &tags, dir);
    let defaults = Config::new(&name);
    let preset = ConfigFile { preset: started.preset, ..ConfigFile::default() };
    let by_preset = of_node(&preset.apply(defaults.clone()));
    let by_default: BTreeMap<_, _> = of_node(&defaults).into_iter().collect();
    let by_preset: BTreeMap<_, _> =
        by_preset.into_iter().filter(|(key, value)| by_default.get(key) != Some(value)).collect();
    let pending = differing(started, &settings.file);
    let row = |(key, value): (&'static str, String)| {
        let outer = key.split('.').next().unwrap_or(key);
        let pending = pending.iter().any(|changed| changed == outer);
        let (origin, place) = match settings.origin(key) {
            (Origin::Default, _) if matches!(key, "cluster" | "datacenter") => {
                (Origin::Certificate, None)
            }
            (_, _) if key == "tags" && tags != settings.tags() => (Origin::Store, None),
            (Origin::Default, _) if by_preset.contains_key(key) => {
                (Origin::Preset, started.preset.map(|preset| preset.shown()))
            }
            origin => origin,
        };
        ConfigRow {
            key: key.into(),
            value: value.into(),
            origin,
            place: place.map(Into::into),
            pending,
        }
    };
    values.into_iter().map(row).collect()
}

/// The keys of the agent itself, and then those of its node.
fn values(
    started: &ConfigFile,
    settings: &Settings,
    config: &Config,
    tags: &BTreeMap<String, String>,
    dir: &Path,
) -> Vec<(&'static str, String)> {
    let [certificate, key, roots] = settings.credential_files(dir);
    let doors = settings.issuer(dir).map(|_| settings.issuer_listen(&config.listen));
    let (clients, http) = (settings.clients_by_uri(), settings.http(dir));
    let mut values = vec![
        ("preset", started.preset.shown()),
        ("certificate", certificate.as_path().shown()),
        ("key", key.as_path().shown()),
        ("roots", roots.as_path().shown()),
        ("wait_for_certificate", settings.waits_for_certificate().shown()),
        ("identity", settings.identity()),
        ("cluster", config.cluster.to_string()),
        ("datacenter", config.datacenter.to_string()),
        (
            "store",
            started
                .store_file(dir)
                .map_or_else(|| "memory".to_owned(), |path| path.as_path().shown()),
        ),
        ("metrics", started.metrics.shown()),
        ("http", started.http.shown()),
        ("http_tls", http.as_ref().map(|terms| terms.tls).shown()),
        ("http_tokens", http.as_ref().map(|terms| terms.tokens.as_path()).shown()),
        ("http_metrics_public", http.as_ref().map(|terms| terms.public_metrics).shown()),
        ("log", settings.log().to_owned()),
        ("log_format", started.log_format.unwrap_or_default().shown()),
        ("clients", clients.shown()),
        ("issuer", settings.issuer(dir).as_deref().shown()),
        ("issuer_listen", doors.shown()),
        ("issuer_validity", settings.issuer(dir).map(|_| settings.issuer_validity()).shown()),
        ("issuers", settings.issuers().to_vec().shown()),
        ("tags", tags.shown()),
        ("services.directory", settings.offers_directory().shown()),
    ];
    values.extend(of_node(config));
    values
}

/// The keys that are fields of the node's configuration.
fn of_node(config: &Config) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    macro_rules! keys {
        ($($key:ident)*) => { $(values.push((stringify!($key), config.$key.shown()));)* };
        ($table:ident: $($key:ident)*) => {
            $(values.push((
                concat!(stringify!($table), ".", stringify!($key)),
                config.$table.$key.shown(),
            ));)*
        };
    }
    keys!(listen advertise seeds gossip_interval gossip_fanout dead_peer_phi max_deltas_per_gossip);
    keys!(max_delta_bytes signing minimum_live_peers peers_max tombstone_grace forget_after);
    keys!(event_queue write_queue_bytes push_bytes_per_second wan_bytes_per_second rejoin);
    keys!(limits: key_bytes value_bytes keys state_bytes);
    keys!(restarts: most window back_off);
    keys!(quic: handshake_timeout exchange_timeout idle_timeout handshakes retry_above);
    keys!(quic: handshakes_per_source connections exchanges exchanges_per_peer bar);
    keys!(quic: socket_buffer gso);
    keys!(services: deadline calls_in_flight calls_per_link lane_queue_bytes request_bytes);
    keys!(services: reply_bytes room_bytes window_bytes connections_out connections_in);
    keys!(services: client_connections_in connections_per_peer idle drain);
    let rates = config.services.rates;
    values.extend([
        ("services.bytes_per_second", rates.bytes_per_second.shown()),
        ("services.calls_per_second", rates.calls_per_second.shown()),
        ("services.wan_bytes_per_second", rates.wan_bytes_per_second.shown()),
    ]);
    values
}

/// A value as `gossipmonger.toml` has it, without quotes.
trait Shown {
    fn shown(&self) -> String;
}

macro_rules! as_displayed {
    ($($kind:ty)*) => {
        $(impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}

as_displayed!(bool u32 usize f64 String SocketAddr);

impl Shown for Duration {
    fn shown(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Shown for Path {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for Preset {
    fn shown(&self) -> String {
        match self {
            Self::Local => "local",
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
        .to_owned()
    }
}

impl Shown for LogFormat {
    fn shown(&self) -> String {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
        .to_owned()
    }
}

impl Shown for Signing {
    fn shown(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(String::new, Shown::shown)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> String {
        self.iter().map(Shown::shown).collect::<Vec<_>>().join(", ")
    }
}

impl<V: Display> Shown for BTreeMap<String, V> {
    fn shown(&self) -> String {
        let pairs = self.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The parser says which keys it knows, in its error about one that it does not.
    fn known(table: Option<&str>) -> BTreeSet<String> {
        let text = match table {
            None => "\"?\" = 1\n".to_owned(),
            Some(table) => format!("[{table}]\n\"?\" = 1\n"),
        };
        let error = toml::from_str::<ConfigFile>(&text).unwrap_err().message().to_owned();
        let names = error.split('`').skip(3).step_by(2);
        let name = |name: &str| match table {
            Some(table) => format!("{table}.{name}"),
            None => name.to_owned(),
        };
        names.map(name).collect()
    }

    #[test]
    fn shows_every_key_that_a_file_may_have() {
        let tables = ["limits", "restarts", "quic", "services"];
        let mut keys = known(None);
        assert!(keys.len() > 20, "{keys:?}");
        for table in tables {
            assert!(keys.remove(table), "{table}");
            keys.extend(known(Some(table)));
        }
        let (file, settings) = (ConfigFile::default(), Settings::default());
        let name = PeerName {
            cluster: "c".parse().unwrap(),
            datacenter: "d".parse().unwrap(),
            node: "n".parse().unwrap(),
        };
        let shown = values(&file, &settings, &Config::new(&name), &BTreeMap::new(), Path::new("."));
        let names: BTreeSet<_> = shown.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(names.len(), shown.len(), "a key is shown twice");
        assert_eq!(names, keys, "`config` shows other keys than a file may have");
    }
}
