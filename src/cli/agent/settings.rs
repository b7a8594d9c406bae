//! What an agent is to be: its file, over it the environment, over that the flags.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::directory::{CONFIG, STORE, how_to_make};
use crate::{
    cli::{DIR_VARIABLE, error::CliError, members::tag, remote::REMOTE_VARIABLES},
    config::{Config, ConfigFile, ENV_PREFIX, FileError, LogFormat, Preset},
    store::{Store, memory::MemoryStore, redb::RedbStore},
    tls::{ClientRoles, Identity, LEAF_VALIDITY_AUTOMATED, Naming, Roots, file},
    transport::quic::QuicTransport,
};

/// The flags of an agent. Whatever is given here counts, whatever the file and the environment say.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Address to listen on; may be given several times. Default 127.0.0.1 and any free port.
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',')]
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
    /// Loopback address where Prometheus metrics are served.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Directory of the cluster's authority: this agent gives out certificates by token.
    #[arg(long, value_name = "PKI-DIR")]
    issuer: Option<PathBuf>,
    /// Address where those who join knock; may be given several times. Default: one port further than
    /// --listen.
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',')]
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

/// What holds: the file, the environment and the flags, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) file: ConfigFile,
}

impl Settings {
    /// Reads file and environment, and puts the flags over them.
    pub(super) fn read(dir: &Path, flags: &Flags) -> Result<Self, CliError> {
        let path = dir.join(CONFIG);
        let environment = environment(std::env::vars_os())?;
        let file = match path.try_exists() {
            Ok(false) => ConfigFile::parse("", CONFIG, environment),
            _ => ConfigFile::read(&path, environment),
        };
        let mut settings = Self { file: file.map_err(|error: FileError| CliError::usage(error))? };
        settings.overlay(flags);
        settings.check_metrics()?;
        settings.check_clients()?;
        Ok(settings)
    }

    /// Loads the certificate, the key and the roots.
    pub(super) fn credentials(&self, dir: &Path) -> Result<(Identity, Roots), CliError> {
        let [certificate, key, roots] = self.credential_files(dir);
        if let Some(missing) = [&certificate, &key, &roots].into_iter().find(|file| !file.exists())
        {
            let missing = missing.display();
            return Err(CliError::usage(format!("there is no {missing}; {}", how_to_make(dir))));
        }
        let naming = self.naming()?;
        let identity = Identity::from_pem_files_named(&certificate, &key, &naming);
        let identity = identity.map_err(CliError::usage)?;
        let roots = Roots::from_pem_file(&roots).map_err(CliError::usage)?;
        Ok((identity, roots))
    }

    /// How certificates name nodes.
    fn naming(&self) -> Result<Naming, CliError> {
        let ConfigFile { identity, cluster, datacenter, .. } = &self.file;
        match identity {
            Some(template) => {
                Naming::new(template, cluster.clone(), datacenter.clone()).map_err(CliError::usage)
            }
            None if cluster.is_some() || datacenter.is_some() => Err(CliError::usage(
                "cluster and datacenter are what the certificate says; where it says neither, identity \
                 has to say how it names nodes",
            )),
            None => Ok(Naming::default()),
        }
    }

    /// Where certificate, key and roots are.
    pub(super) fn credential_files(&self, dir: &Path) -> [PathBuf; 3] {
        let place = |given: &Option<PathBuf>, name: &str| {
            dir.join(given.as_deref().unwrap_or_else(|| Path::new(name)))
        };
        [
            place(&self.file.certificate, file::CERTIFICATE),
            place(&self.file.key, file::KEY),
            place(&self.file.roots, file::ROOTS),
        ]
    }

    /// Where the roots are.
    pub(super) fn roots(&self, dir: &Path) -> PathBuf {
        dir.join(self.file.roots.as_deref().unwrap_or_else(|| Path::new(file::ROOTS)))
    }

    /// The authority's directory, if this agent is to issue.
    pub(super) fn issuer(&self, dir: &Path) -> Option<PathBuf> {
        self.file.issuer.as_ref().map(|issuer| dir.join(issuer))
    }

    /// How long what this agent issues is valid.
    pub(super) fn issuer_validity(&self) -> Duration {
        self.file.issuer_validity.unwrap_or(LEAF_VALIDITY_AUTOMATED)
    }

    /// Where those who join knock, if the gossip is at these addresses.
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

    /// Whether certificate and key are files that something else writes.
    pub(super) const fn has_other_files(&self) -> bool {
        self.file.certificate.is_some() || self.file.key.is_some()
    }

    /// The node's configuration, checked; opens the store.
    pub(super) fn config(
        &self,
        dir: &Path,
        transport: Arc<QuicTransport>,
    ) -> Result<Config, CliError> {
        let mut config = self.file.apply(Config::with_quic(transport));
        config.check().map_err(CliError::usage)?;
        config.storage = self.storage(dir)?;
        Ok(config)
    }

    pub(super) fn metrics(&self) -> Option<SocketAddr> {
        self.file.metrics
    }

    pub(super) fn tags(&self) -> BTreeMap<String, String> {
        self.file.tags.clone().unwrap_or_default()
    }

    /// The roles of clients whose certificates do not say theirs.
    pub(super) fn clients(&self) -> ClientRoles {
        self.file.clients.clone().unwrap_or_default().into_iter().collect()
    }

    pub(super) fn log(&self) -> &str {
        self.file.log.as_deref().unwrap_or("info")
    }

    /// Where the store is; `None`: in memory.
    pub(super) fn store(&self, dir: &Path) -> Option<PathBuf> {
        match &self.file.store {
            Some(path) if path.as_os_str() == "memory" => None,
            Some(path) => Some(dir.join(path)),
            None => Some(dir.join(STORE)),
        }
    }

    fn storage(&self, dir: &Path) -> Result<Arc<dyn Store>, CliError> {
        Ok(match self.store(dir) {
            Some(path) => Arc::new(RedbStore::open(path).map_err(CliError::failed)?),
            None => Arc::new(MemoryStore::new()),
        })
    }

    fn overlay(&mut self, flags: &Flags) {
        let flags = flags.clone();
        let list = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        let file = &mut self.file;
        over(&mut file.listen, Some(flags.listen).filter(|list| !list.is_empty()));
        over(&mut file.seeds, list(flags.seeds));
        over(&mut file.advertise, list(flags.advertise));
        over(&mut file.preset, flags.preset);
        over(&mut file.gossip_interval, flags.gossip_interval);
        over(&mut file.gossip_fanout, flags.gossip_fanout);
        over(&mut file.dead_peer_phi, flags.dead_peer_phi);
        over(&mut file.minimum_live_peers, flags.minimum_live_peers);
        over(&mut file.forget_after, flags.forget_after);
        over(&mut file.store, flags.store.map(from_here));
        over(&mut file.certificate, flags.certificate.map(from_here));
        over(&mut file.key, flags.key.map(from_here));
        over(&mut file.roots, flags.roots.map(from_here));
        over(&mut file.metrics, flags.metrics);
        over(&mut file.issuer, flags.issuer.map(from_here));
        over(&mut file.issuer_listen, Some(flags.issuer_listen).filter(|list| !list.is_empty()));
        over(&mut file.issuer_validity, flags.issuer_validity);
        over(&mut file.log, flags.log);
        over(&mut file.log_format, flags.log_format);
        over(&mut file.rejoin, flags.rejoin.then_some(true));
        if !flags.tags.is_empty() {
            file.tags.get_or_insert_default().extend(flags.tags);
        }
    }

    /// A URI that no certificate can have gives nobody a role, and was meant for somebody.
    fn check_clients(&self) -> Result<(), CliError> {
        let clients = self.file.clients.iter().flatten();
        for (uri, role) in clients {
            let Some((scheme, rest)) = uri.split_once("://") else {
                return Err(CliError::usage(format!(
                    "clients: {uri:?} = \"{role}\" is refused: the key is the URI of a certificate, such \
                     as spiffe://demo/ns/ops/sa/alice"
                )));
            };
            let printable = uri.chars().all(|c| c.is_ascii_graphic());
            if scheme.is_empty() || rest.is_empty() || !printable || uri.len() > CLIENT_URI_MAX {
                return Err(CliError::usage(format!(
                    "clients: {uri:?} = \"{role}\" is refused: no certificate has this URI; at most \
                     {CLIENT_URI_MAX} printable characters of ASCII are allowed"
                )));
            }
        }
        Ok(())
    }

    /// Metrics are served to whoever asks, so only to this machine.
    fn check_metrics(&self) -> Result<(), CliError> {
        match self.file.metrics {
            Some(address) if !address.ip().is_loopback() => Err(CliError::usage(format!(
                "metrics = {address} is refused: only a loopback address is allowed, since anybody \
                 who reaches it may read; put an authenticating proxy before it"
            ))),
            _ => Ok(()),
        }
    }
}

fn over<T>(setting: &mut Option<T>, flag: Option<T>) {
    if flag.is_some() {
        *setting = flag;
    }
}

/// A path on the command line is meant from where the command was typed, in the file from there.
fn from_here(path: PathBuf) -> PathBuf {
    if path.as_os_str() == "memory" { path } else { std::path::absolute(&path).unwrap_or(path) }
}

/// The environment variables that are ours.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, CliError> {
    let mut ours = Vec::new();
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
        ours.push((name.to_owned(), value));
    }
    Ok(ours)
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
mod tests {
    use super::*;

    fn settings(text: &str, flags: Flags) -> Settings {
        let mut settings = Settings { file: ConfigFile::parse(text, CONFIG, []).unwrap() };
        settings.overlay(&flags);
        settings
    }

    #[test]
    fn refuses_metrics_for_everybody() {
        let flags = Flags { metrics: Some(([0, 0, 0, 0], 9100).into()), ..Flags::default() };
        let error = settings("", flags).check_metrics().unwrap_err().to_string();
        assert!(error.starts_with("metrics = 0.0.0.0:9100 is refused"), "{error}");
        let flags = Flags { metrics: Some(([127, 0, 0, 1], 9100).into()), ..Flags::default() };
        assert!(settings("", flags).check_metrics().is_ok());
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
