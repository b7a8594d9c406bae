//! The settings of an agent: its file, overridden by the environment, overridden by the flags.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use gossipmonger::{
    Config,
    net::quic::QuicNetwork,
    protocol::record,
    store::{Store, memory::MemoryStore, redb::RedbStore},
    tls::{ClientRoles, Identity, Naming, Role, Roots},
    unstable::{LEAF_VALIDITY_AUTOMATED, Standing, check_address, check_listen, file},
};
use tracing_subscriber::EnvFilter;

use super::{
    directory::{self, CONFIG, how_to_make},
    http::{Terms, tokens},
    logs,
};
use crate::{
    DIR_VARIABLE,
    clock::Clock,
    config::{self, ConfigFile, ENV_PREFIX, FileError, LogFormat, Preset},
    effective::Origin,
    error::CliError,
    members::tag,
    remote::REMOTE_VARIABLES,
};

/// The flags of an agent. Whatever is given here counts, whatever the file and the environment say.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Address to listen on; may be given several times. Default 127.0.0.1 and any free port.
    #[arg(long, value_name = "ADDR:PORT", value_parser = config::socket_address, value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Address or name (HOST:PORT) of some node of the cluster; may be given several times.
    #[arg(long = "seed", value_name = "HOST:PORT", value_delimiter = ',')]
    seeds: Vec<String>,
    /// Address or name (HOST:PORT) where others reach this node, best first; may be given several
    /// times. Needed when listening on an unspecified address.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    advertise: Vec<String>,
    /// A tag of this node, over those of the file; may be given several times.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Times that suit one machine, one datacenter, or several.
    #[arg(long, value_parser = preset())]
    preset: Option<Preset>,
    /// Time between two rounds of gossip (`500ms`, `2s`).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    gossip_interval: Option<Duration>,
    /// How many live nodes a round goes to.
    #[arg(long, value_name = "N")]
    gossip_fanout: Option<usize>,
    /// How improbable a silence has to be for a node to be called dead.
    #[arg(long, value_name = "PHI")]
    dead_peer_phi: Option<f64>,
    /// With fewer live nodes, every round goes to a seed too.
    #[arg(long, value_name = "N")]
    minimum_live_peers: Option<usize>,
    /// How long a dead node and its keys are kept.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    forget_after: Option<Duration>,
    /// File of the store, or `memory` for none.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// File of the certificate chain.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// File of the private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File of the roots.
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Wait at the start until certificate, key and roots are there and can be used.
    #[arg(long)]
    wait_for_certificate: bool,
    /// Loopback address where Prometheus metrics are served.
    #[arg(long, value_name = "ADDR:PORT", value_parser = config::socket_address)]
    metrics: Option<SocketAddr>,
    /// Address of the HTTP interface: API, web view, probes and metrics; with TLS unless it is a loopback one.
    #[arg(long, value_name = "ADDR:PORT", value_parser = config::socket_address)]
    http: Option<SocketAddr>,
    /// Directory of the cluster's authority: this agent gives out certificates by token.
    #[arg(long, value_name = "PKI-DIR")]
    issuer: Option<PathBuf>,
    /// Address of the issuer, for machines that join; may be given several times. Default: one port further than
    /// --listen.
    #[arg(long, value_name = "ADDR:PORT", value_parser = config::socket_address, value_delimiter = ',')]
    issuer_listen: Vec<SocketAddr>,
    /// How long the certificates that this agent gives out are valid (`72h`).
    #[arg(long = "validity", value_name = "TIME", value_parser = humantime::parse_duration)]
    issuer_validity: Option<Duration>,
    /// What is logged: error, warn, info, debug, trace, or directives of the tracing crate.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How log lines look.
    #[arg(long, value_parser = log_format())]
    log_format: Option<LogFormat>,
    /// Join again after this node has left on purpose.
    #[arg(long)]
    rejoin: bool,
}

/// The resulting settings: the file, the environment and the flags, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) file: ConfigFile,
    origins: Origins,
    /// Variables with our prefix that were set for another purpose.
    ignored: Vec<String>,
}

/// Where each key was set, so that an error can name the place.
#[derive(Clone, Debug, Default)]
struct Origins {
    path: PathBuf,
    in_file: toml::Table,
    variables: BTreeSet<String>,
    flags: BTreeMap<&'static str, &'static str>,
}

/// What a node shows and trusts, judged: the start of the agent, the watcher of the files and `reload` activate
/// whatever is not refused here.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(super) identity: Identity,
    pub(super) roots: Roots,
    pub(super) standing: Standing,
}

impl Settings {
    /// Reads the file and the environment, and overrides them by the flags.
    pub(super) fn read(dir: &Path, flags: &Flags) -> Result<Self, CliError> {
        let path = dir.join(CONFIG);
        let (environment, ignored) = environment(std::env::vars_os())?;
        let variables = environment.iter().map(|(name, _)| name.clone()).collect();
        // A dangling link counts as present.
        let missing = path.symlink_metadata().is_err_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        });
        let file = if missing {
            ConfigFile::parse("", CONFIG, environment)
        } else {
            ConfigFile::read(&path, environment)
        };
        let file = file.map_err(|error: FileError| CliError::usage(error))?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let in_file = toml::from_str(&text).unwrap_or_default();
        let origins = Origins { path, in_file, variables, flags: BTreeMap::new() };
        let mut settings = Self { file, origins, ignored };
        settings.overlay(flags);
        settings.check_paths()?;
        settings.check_metrics()?;
        settings.check_http()?;
        settings.check_clients()?;
        settings.check_issuers()?;
        settings.check_issuing()?;
        settings.check_store(dir)?;
        Ok(settings)
    }

    /// Logs which variables were ignored.
    pub(super) fn tell_ignored(&self) {
        if !self.ignored.is_empty() {
            let variables = self.ignored.join(", ");
            tracing::info!(
                variables,
                "ignored: Kubernetes or Docker sets these for a service of this name \
                 (enableServiceLinks: false keeps them out)"
            );
        }
    }

    /// Whether the agent waits at its start for files that can be used.
    pub(super) fn waits_for_certificate(&self) -> bool {
        self.file.wait_for_certificate.unwrap_or(false)
    }

    /// Loads the certificate, the key and the roots, and judges the whole chain by them.
    pub(super) fn credentials(&self, dir: &Path) -> Result<Credentials, CliError> {
        let (identity, roots) = self.files(dir)?;
        let [certificate, ..] = self.credential_files(dir);
        let standing = roots.judge(&identity, Clock::wall());
        let standing = standing.map_err(|error| {
            CliError::credentials(format!("{}: {error}", certificate.display()))
        })?;
        Ok(Credentials { identity, roots, standing })
    }

    /// Loads the certificate, the key and the roots; does not check whether the roots accept the certificate.
    pub(super) fn files(&self, dir: &Path) -> Result<(Identity, Roots), CliError> {
        directory::check(dir)?;
        let naming = self.naming()?;
        let [certificate, key, roots] = self.credential_files(dir);
        [&certificate, &key, &roots]
            .into_iter()
            .try_for_each(|file| directory::check_file(file))?;
        let identity = Identity::from_pem_files_named(&certificate, &key, &naming);
        let identity = identity.map_err(CliError::credentials)?;
        let roots = Roots::from_pem_file(&roots).map_err(CliError::credentials)?;
        Ok((identity, roots))
    }

    /// The command that must run before an agent can start here; `None` if a file exists, or may exist: the command
    /// could destroy it.
    pub(super) fn advice(&self, dir: &Path) -> Option<String> {
        let nothing = directory::is_absent(dir)
            || self.credential_files(dir).iter().all(|file| directory::is_absent(file));
        nothing.then(|| how_to_make(dir))
    }

    /// A refusal that names where the key was set.
    pub(super) fn refused(&self, key: &str, error: impl fmt::Display) -> CliError {
        CliError::usage(format!("{}: {error}", self.origins.of(key)))
    }

    /// Where a key was set, and the place by its name.
    pub(super) fn origin(&self, key: &str) -> (Origin, Option<String>) {
        self.origins.origin(key)
    }

    /// The filter of the log.
    pub(super) fn log_filter(&self) -> Result<EnvFilter, CliError> {
        logs::filter(self.log()).map_err(|error| self.refused("log", error))
    }

    /// The tags, if they are valid for a node.
    pub(super) fn checked_tags(&self) -> Result<BTreeMap<String, String>, CliError> {
        let tags = self.tags();
        record::check_tags(&tags).map_err(|error| self.refused("tags", error))?;
        Ok(tags)
    }

    /// The template of certificates' URIs.
    pub(super) fn identity(&self) -> String {
        self.file.identity.clone().unwrap_or_else(|| Naming::default().to_string())
    }

    /// How certificates name nodes.
    fn naming(&self) -> Result<Naming, CliError> {
        self.file.naming().map_err(|(key, error)| self.refused(key, error))
    }

    /// The paths of certificate, key and roots.
    pub(super) fn credential_files(&self, dir: &Path) -> [PathBuf; 3] {
        self.file.credential_files(dir)
    }

    /// The path of the roots.
    pub(super) fn roots(&self, dir: &Path) -> PathBuf {
        dir.join(self.file.roots.as_deref().unwrap_or_else(|| Path::new(file::ROOTS)))
    }

    /// The CA's directory, if this agent is an issuer.
    pub(super) fn issuer(&self, dir: &Path) -> Option<PathBuf> {
        self.file.issuer.as_ref().map(|issuer| dir.join(issuer))
    }

    /// The lifetime of certificates that this agent issues.
    pub(super) fn issuer_validity(&self) -> Duration {
        self.file.issuer_validity.unwrap_or(LEAF_VALIDITY_AUTOMATED)
    }

    /// Where the issuer listens, if the gossip listens at these addresses.
    pub(super) fn issuer_listen(&self, listen: &[SocketAddr]) -> Vec<SocketAddr> {
        self.file.issuer_listen.clone().unwrap_or_else(|| {
            let next = |address: &SocketAddr| match address.port() {
                0 | u16::MAX => SocketAddr::new(address.ip(), 0),
                port => SocketAddr::new(address.ip(), port + 1),
            };
            listen.iter().map(next).collect()
        })
    }

    /// The issuers where this node renews its certificate.
    pub(super) fn issuers(&self) -> &[String] {
        self.file.issuers.as_deref().unwrap_or_default()
    }

    /// Whether another program writes certificate and key.
    pub(super) const fn has_other_files(&self) -> bool {
        self.file.certificate.is_some() || self.file.key.is_some()
    }

    /// The node's configuration, checked.
    pub(super) fn config(&self, network: &QuicNetwork) -> Result<Config, CliError> {
        let config = self.file.apply(Config::new(network.identity().name()));
        config.check().map_err(|source| {
            CliError::usage(FileError::Range { origin: self.origins.of(source.key), source })
        })?;
        Ok(config)
    }

    /// Where the metrics are served for everybody on this machine.
    pub(super) fn metrics(&self) -> Option<Terms> {
        let address = self.file.metrics?;
        Some(Terms { address, tls: false, tokens: PathBuf::new(), public_metrics: true })
    }

    /// The HTTP interface.
    pub(super) fn http(&self, dir: &Path) -> Option<Terms> {
        let address = self.file.http?;
        Some(Terms {
            address,
            tls: self.file.http_tls.unwrap_or_else(|| !address.ip().is_loopback()),
            tokens: dir
                .join(self.file.http_tokens.as_deref().unwrap_or_else(|| Path::new(tokens::FILE))),
            public_metrics: self.file.http_metrics_public.unwrap_or(false),
        })
    }

    /// Whether the agent offers the directory to clients.
    pub(super) fn offers_directory(&self) -> bool {
        self.file.services.directory.unwrap_or(false)
    }

    pub(super) fn tags(&self) -> BTreeMap<String, String> {
        self.file.tags.clone().unwrap_or_default()
    }

    /// The roles of clients whose certificates do not name one.
    pub(super) fn clients(&self) -> ClientRoles {
        self.file.clients.clone().unwrap_or_default().into_iter().collect()
    }

    /// The same by URI, as the configuration has them.
    pub(super) fn clients_by_uri(&self) -> BTreeMap<String, Role> {
        self.file.clients.clone().unwrap_or_default()
    }

    pub(super) fn log(&self) -> &str {
        self.file.log.as_deref().unwrap_or("info")
    }

    /// The path of the store; `None`: in memory.
    pub(super) fn store(&self, dir: &Path) -> Option<PathBuf> {
        self.file.store_file(dir)
    }

    /// Opens the store.
    pub(super) fn storage(&self, dir: &Path) -> Result<Arc<dyn Store>, CliError> {
        Ok(match self.store(dir) {
            Some(path) => Arc::new(RedbStore::open(path).map_err(CliError::failed)?),
            None => Arc::new(MemoryStore::new()),
        })
    }

    fn overlay(&mut self, flags: &Flags) {
        let flags = flags.clone();
        let (file, origins) = (&mut self.file, &mut self.origins);
        macro_rules! over {
            ($($key:ident $flag:literal $value:expr;)*) => {
                $(if let Some(value) = $value {
                    file.$key = Some(value);
                    origins.flags.insert(stringify!($key), $flag);
                })*
            };
        }
        over! {
            listen "--listen" some(flags.listen);
            seeds "--seed" some(flags.seeds);
            advertise "--advertise" some(flags.advertise);
            preset "--preset" flags.preset;
            gossip_interval "--gossip-interval" flags.gossip_interval;
            gossip_fanout "--gossip-fanout" flags.gossip_fanout;
            dead_peer_phi "--dead-peer-phi" flags.dead_peer_phi;
            minimum_live_peers "--minimum-live-peers" flags.minimum_live_peers;
            forget_after "--forget-after" flags.forget_after;
            store "--store" flags.store.map(from_here);
            certificate "--certificate" flags.certificate.map(from_here);
            key "--key" flags.key.map(from_here);
            roots "--roots" flags.roots.map(from_here);
            wait_for_certificate "--wait-for-certificate" flags.wait_for_certificate.then_some(true);
            metrics "--metrics" flags.metrics;
            http "--http" flags.http;
            issuer "--issuer" flags.issuer.map(from_here);
            issuer_listen "--issuer-listen" some(flags.issuer_listen);
            issuer_validity "--validity" flags.issuer_validity;
            log "--log" flags.log;
            log_format "--log-format" flags.log_format;
            rejoin "--rejoin" flags.rejoin.then_some(true);
        }
        if !flags.tags.is_empty() {
            file.tags.get_or_insert_default().extend(flags.tags);
            origins.flags.insert("tags", "--tag");
        }
    }

    /// A path that begins or ends with a space is probably a mistake, and `memory ` would be a file.
    fn check_paths(&self) -> Result<(), CliError> {
        let ConfigFile { store, certificate, key, roots, issuer, .. } = &self.file;
        for (name, path) in [
            ("store", store),
            ("certificate", certificate),
            ("key", key),
            ("roots", roots),
            ("issuer", issuer),
        ] {
            let Some(text) = path.as_ref().and_then(|path| path.to_str()) else { continue };
            if text.trim() != text || text.is_empty() {
                return Err(self.refused(
                    name,
                    format!("{name} = {text:?} is refused: a path is not empty, and has no space at its ends"),
                ));
            }
        }
        Ok(())
    }

    /// A URI that no certificate can have gives no client a role, so it is a mistake.
    fn check_clients(&self) -> Result<(), CliError> {
        let clients = self.file.clients.iter().flatten();
        for (uri, role) in clients {
            let Some((scheme, rest)) = uri.split_once("://") else {
                return Err(self.refused("clients", format!(
                    "clients: {uri:?} = \"{role}\" is refused: the key is the URI of a certificate, such \
                     as spiffe://demo/ns/ops/sa/alice"
                )));
            };
            let printable = uri.chars().all(|c| c.is_ascii_graphic());
            if scheme.is_empty() || rest.is_empty() || !printable || uri.len() > CLIENT_URI_MAX {
                return Err(self.refused("clients", format!(
                    "clients: {uri:?} = \"{role}\" is refused: no certificate has this URI; at most \
                     {CLIENT_URI_MAX} printable characters of ASCII are allowed"
                )));
            }
        }
        Ok(())
    }

    fn check_issuers(&self) -> Result<(), CliError> {
        let checked = self.issuers().iter().try_for_each(|door| check_address("issuers", door));
        checked.map_err(|error| self.refused("issuers", error))
    }

    /// On the command line such a flag would have no effect, so it is a mistake. A file or an environment may be shared
    /// by several agents, one of which issues.
    fn check_issuing(&self) -> Result<(), CliError> {
        for key in ["issuer_listen", "issuer_validity"] {
            if let Some(flag) = self.origins.flags.get(key).filter(|_| self.file.issuer.is_none()) {
                return Err(CliError::usage(format!(
                    "{flag} is refused without --issuer PKI-DIR: this agent issues nothing"
                )));
            }
        }
        let doors = self.file.issuer_listen.as_deref().unwrap_or_default();
        check_listen("issuer_listen", doors).map_err(|error| self.refused("issuer_listen", error))
    }

    /// If the store's path exists, it must be a regular file.
    fn check_store(&self, dir: &Path) -> Result<(), CliError> {
        match self.store(dir).map(|path| (std::fs::metadata(&path), path)) {
            Some((Ok(found), path)) if !found.is_file() => Err(self.refused("store", format!(
                "store = {path:?} is refused: it is no regular file; name a file of this agent's own, or \
                 memory for none"
            ))),
            _ => Ok(()),
        }
    }

    /// Metrics are served without authentication, so only to this machine.
    fn check_http(&self) -> Result<(), CliError> {
        match self.file.http {
            Some(address) if !address.ip().is_loopback() && self.file.http_tls == Some(false) => {
                Err(self.refused("http_tls", format!(
                    "http_tls = false is refused for http = {address}: tokens would cross the network in the \
                     clear; leave it out, or listen on a loopback address"
                )))
            }
            _ => Ok(()),
        }
    }

    fn check_metrics(&self) -> Result<(), CliError> {
        match self.file.metrics {
            Some(address) if !address.ip().is_loopback() => Err(self.refused("metrics", format!(
                "metrics = {address} is refused: only a loopback address is allowed, since anybody \
                 who reaches it may read; put an authenticating proxy before it"
            ))),
            _ => Ok(()),
        }
    }
}

impl Origins {
    /// The flag, the variable or the file that set a key (`limits.keys`), for a message.
    fn of(&self, key: &str) -> String {
        match self.origin(key) {
            (Origin::Environment, Some(variable)) => format!("environment variable {variable}"),
            (_, Some(place)) => place,
            (_, None) => "by default, or by the preset".to_owned(),
        }
    }

    /// Whether a flag, a variable or the file has set a key, and which.
    fn origin(&self, key: &str) -> (Origin, Option<String>) {
        if let Some(flag) = self.flags.get(key) {
            return (Origin::Flag, Some((*flag).to_owned()));
        }
        let name = format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase());
        let below = format!("{name}__");
        let variable = self.variables.iter().find(|set| **set == name || set.starts_with(&below));
        if let Some(variable) = variable {
            return (Origin::Environment, Some(variable.clone()));
        }
        let mut parts = key.split('.');
        let outer = parts.next().and_then(|part| self.in_file.get(part));
        let found = match parts.next() {
            Some(inner) => outer.and_then(|table| table.get(inner)),
            None => outer,
        };
        match found {
            Some(_) => (Origin::File, Some(self.path.display().to_string())),
            None => (Origin::Default, None),
        }
    }
}

/// A list, if it was given.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// A path on the command line is relative to the current directory, one in the file to the directory of the file.
fn from_here(path: PathBuf) -> PathBuf {
    if path.as_os_str() == "memory" { path } else { std::path::absolute(&path).unwrap_or(path) }
}

/// The environment variables of the agent, with their values, and the names of those that only look like them.
type Environment = (Vec<(String, String)>, Vec<String>);

/// Sorts the environment variables. Empty ones count as unset.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Environment, CliError> {
    let (mut ours, mut ignored) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
            continue;
        };
        if name == DIR_VARIABLE || REMOTE_VARIABLES.contains(&name) {
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(CliError::usage(format!("environment variable {name} is not UTF-8")));
        };
        if config::is_service_link(&name[ENV_PREFIX.len()..], &value) {
            ignored.push(name.to_owned());
        } else if !value.trim().is_empty() {
            ours.push((name.to_owned(), value));
        }
    }
    ignored.sort_unstable();
    Ok((ours, ignored))
}

/// A SPIFFE id may have 2,048 bytes.
const CLIENT_URI_MAX: usize = 2_048;

fn preset() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(["local", "lan", "wan"]).map(|name| match name.as_str() {
        "local" => Preset::Local,
        "wan" => Preset::Wan,
        _ => Preset::Lan,
    })
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"])
        .map(|name| if name == "json" { LogFormat::Json } else { LogFormat::Text })
}

#[cfg(test)]
impl Default for Settings {
    fn default() -> Self {
        let (file, origins) = (ConfigFile::default(), Origins::default());
        Self { file, origins, ignored: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, flags: Flags) -> Settings {
        let file = ConfigFile::parse(text, CONFIG, []).unwrap();
        let (path, in_file) = (CONFIG.into(), toml::from_str(text).unwrap());
        let origins = Origins { path, in_file, ..Origins::default() };
        let mut settings = Settings { file, origins, ignored: Vec::new() };
        settings.overlay(&flags);
        settings
    }

    #[test]
    fn names_where_a_key_was_set() {
        let flags = Flags { gossip_fanout: Some(99), ..Flags::default() };
        let mut settings = settings("gossip_interval = \"1ms\"\n[limits]\nkeys = 0\n", flags);
        settings.origins.variables =
            ["GOSSIPMONGER_QUIC__BAR", "GOSSIPMONGER_TAGS__RACK"].map(str::to_owned).into();
        for (key, origin) in [
            ("gossip_fanout", "--gossip-fanout"),
            ("gossip_interval", "gossipmonger.toml"),
            ("limits.keys", "gossipmonger.toml"),
            ("limits.key_bytes", "by default, or by the preset"),
            ("quic.bar", "environment variable GOSSIPMONGER_QUIC__BAR"),
            ("tags", "environment variable GOSSIPMONGER_TAGS__RACK"),
        ] {
            assert_eq!(settings.origins.of(key), origin, "{key}");
        }
    }

    #[test]
    fn refuses_a_path_that_is_empty_or_has_spaces_at_its_ends() {
        for text in ["store = \"memory \"\n", "store = \"\"\n", "key = \" node.key\"\n"] {
            let error = settings(text, Flags::default()).check_paths().unwrap_err().to_string();
            assert!(error.starts_with("gossipmonger.toml: ") && error.contains("space"), "{error}");
        }
        let flags = Flags { store: Some("memory ".into()), ..Flags::default() };
        assert!(settings("", flags).check_paths().is_err());
        assert!(settings("store = \"memory\"\n", Flags::default()).check_paths().is_ok());
    }

    #[test]
    fn refuses_metrics_for_everybody() {
        let flags = Flags { metrics: Some(([0, 0, 0, 0], 9100).into()), ..Flags::default() };
        let error = settings("", flags).check_metrics().unwrap_err().to_string();
        assert!(error.starts_with("--metrics: metrics = 0.0.0.0:9100 is refused"), "{error}");
        let flags = Flags { metrics: Some(([127, 0, 0, 1], 9100).into()), ..Flags::default() };
        assert!(settings("", flags).check_metrics().is_ok());
    }

    #[test]
    fn refuses_an_issuer_that_nobody_can_dial() {
        let check = |door: &str| {
            settings(&format!("issuers = [\"a:7102\", \"{door}\"]\n"), Flags::default())
                .check_issuers()
                .map_err(|error| error.to_string())
        };
        let error = check("https://b:7102").unwrap_err();
        let refused = "gossipmonger.toml: issuers = \"https://b:7102\" is refused: a URL";
        assert!(error.starts_with(refused), "{error}");
        assert!(check("b").is_err() && check("b:0").is_err());
        assert_eq!(check("[::1]:7102"), Ok(()));
    }

    #[test]
    fn refuses_a_variable_that_is_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(vec![0xff]);
        let variables = [("GOSSIPMONGER_LOG".into(), bad.clone()), ("OTHER".into(), bad)];
        let error = environment(variables.into_iter()).unwrap_err().to_string();
        assert!(error.contains("GOSSIPMONGER_LOG"), "{error}");
    }

    // C96
    #[test]
    fn a_flag_comes_before_the_file() {
        let text = "seeds = [\"a:1\"]\ngossip_fanout = 5\n[tags]\nrole = \"db\"\nzone = \"1\"\n";
        let flags = Flags {
            seeds: vec!["b:2".to_owned()],
            tags: vec![("zone".to_owned(), "2".to_owned())],
            ..Flags::default()
        };
        let file = settings(text, flags).file;
        assert_eq!(file.seeds, Some(vec!["b:2".to_owned()]));
        assert_eq!(file.gossip_fanout, Some(5));
        let tags: Vec<_> = file.tags.into_iter().flatten().collect();
        assert_eq!(
            tags,
            [("role".to_owned(), "db".to_owned()), ("zone".to_owned(), "2".to_owned())]
        );
    }

    #[test]
    fn finds_the_store_beside_the_file_or_nowhere() {
        let store = |text| settings(text, Flags::default()).store(Path::new("dir"));
        assert_eq!(store(""), Some(PathBuf::from("dir/store.redb")));
        assert_eq!(store("store = \"x\"\n"), Some(PathBuf::from("dir/x")));
        assert_eq!(store("store = \"/x\"\n"), Some(PathBuf::from("/x")));
        assert_eq!(store("store = \"memory\"\n"), None);
    }
}
