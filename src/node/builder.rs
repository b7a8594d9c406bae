//! The short way to a node over QUIC: [`Builder`].

mod directory;
mod error;
mod parts;
#[cfg(all(test, unix))]
mod tests;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ractor::ActorCell;
use tokio::task::JoinHandle;

use self::{
    directory::{Directory, judged, store},
    error::lack,
};
pub use self::{error::BuildError, parts::Parts};
use super::{
    Gossipmonger,
    config::{Config, ConfigError},
    error::SpawnError,
};
use crate::{
    clock::Clock,
    net::quic::QuicNetwork,
    store::Store,
    tls::{ClientRoles, Identity, Roots},
};

/// The settings of a node over QUIC that most programs need. [`configure`](Self::configure) reaches all others.
///
/// ```no_run
/// # async fn example() -> Result<(), gossipmonger::SpawnError> {
/// let builder = gossipmonger::Gossipmonger::builder().directory("a").seeds(["10.0.0.1:7101"]);
/// let (node, running) = builder.listen("10.0.0.2:7101").spawn().await?;
/// # Ok(())
/// # }
/// ```
///
/// What is set in code counts, whatever the file in the [directory](Self::directory) says. A setting that is given twice
/// has the last value.
#[must_use = "a builder does nothing until it builds or spawns"]
#[derive(Default)]
pub struct Builder {
    directory: Option<PathBuf>,
    credentials: Option<(Identity, Roots)>,
    listen: Vec<String>,
    advertise: Vec<String>,
    seeds: Option<Vec<String>>,
    store: Option<Arc<dyn Store>>,
    keeps_store: bool,
    configure: Vec<Configure>,
}

type Configure = Box<dyn FnOnce(Config) -> Config + Send>;

impl Gossipmonger {
    /// Begins to build a node over QUIC.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// The node of this directory: its certificate `node.pem`, its private key `node.key` and the authorities that it trusts,
    /// `roots.pem`. `gossipmonger join` and `gossipmonger cert issue` make such directories;
    /// [`pki::throwaway`](crate::pki::throwaway) makes them for development.
    ///
    /// If the directory has a `gossipmonger.toml`, as one made by `join` has, its settings apply as they do to an agent:
    /// addresses, seeds, limits, tags, the files of the certificate, `clients`. The feature `config-file` is needed to
    /// read it. Keys that only an agent acts upon are checked and then ignored: `log`, `log_format`, `metrics`,
    /// `wait_for_certificate`, `services.directory`, and those of issuing and renewal (`issuer`, `issuers`, ...).
    /// Environment variables are not read. Do not run an agent in the directory at the same time: each of the two
    /// would displace the other.
    pub fn directory(self, directory: impl AsRef<Path>) -> Self {
        Self { directory: Some(directory.as_ref().to_owned()), ..self }
    }

    /// The node of this certificate, which trusts these authorities: instead of a [directory](Self::directory).
    pub fn identity(self, identity: Identity, roots: Roots) -> Self {
        Self { credentials: Some((identity, roots)), ..self }
    }

    /// An address to bind, `IP:PORT`; may be given several times. Port 0 is any free port. Default `127.0.0.1:0`. See
    /// [`Config::listen`].
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// An address or name at which others dial this node, `HOST:PORT`; may be given several times, best first. Needed
    /// to listen on an unspecified address (`0.0.0.0`). See [`Config::advertise`].
    pub fn advertise(mut self, address: impl ToString) -> Self {
        self.advertise.push(address.to_string());
        self
    }

    /// Addresses or names of some members, `HOST:PORT`. None: others dial this node. See [`Config::seeds`].
    pub fn seeds<S: ToString>(self, addresses: impl IntoIterator<Item = S>) -> Self {
        let addresses = addresses.into_iter().map(|address| address.to_string()).collect();
        Self { seeds: Some(addresses), ..self }
    }

    /// Keeps what survives a restart here. Default: in memory, so that a node that starts again gets its peers' maps from
    /// them, and has lost its own keys.
    pub fn store(self, store: Arc<dyn Store>) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Keeps what survives a restart in the directory, in the file that an agent uses: the one that `store` in
    /// `gossipmonger.toml` names, or `store.redb`.
    #[cfg(feature = "redb")]
    pub fn keep_store(self) -> Self {
        Self { keeps_store: true, ..self }
    }

    /// Without the feature `redb` a call of it does not compile, and the compiler names the feature.
    #[cfg(not(feature = "redb"))]
    #[doc(hidden)]
    pub fn keep_store<F>(self) -> Self
    where
        (F,): super::features::StoreInFile,
    {
        self
    }

    /// Changes any other field of the configuration, after the file and before the settings above:
    /// `.configure(Config::local)`, or a closure. Several apply in their order.
    pub fn configure(mut self, change: impl FnOnce(Config) -> Config + Send + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Reads the files and checks everything; opens no socket. It waits for the disk.
    ///
    /// # Errors
    /// [`BuildError`] names the setting or the file, and says what to do. Nothing has changed.
    pub fn build(mut self) -> Result<Parts, BuildError> {
        let directory = self.directory.take().map(Directory::read).transpose()?;
        let (identity, roots) = self.credentials(directory.as_ref())?;
        judged(&identity, &roots, directory.as_ref(), Clock::wall())?;
        let config = self.config(&identity, directory.as_ref())?;
        let given = (self.store, self.keeps_store);
        let store = store(given, directory.as_ref())?;
        let network = QuicNetwork::new(identity, roots)?;
        network.set_roles(directory.as_ref().map_or_else(ClientRoles::default, Directory::clients));
        Ok(Parts { config, network: Arc::new(network), store })
    }

    /// Builds the node and starts it: see [`Gossipmonger::spawn`].
    ///
    /// # Errors
    /// [`SpawnError::Build`], or another [`SpawnError`]; then everything is released.
    pub async fn spawn(self) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
        self.build_off_the_runtime().await?.spawn().await
    }

    /// Builds the node and starts it as a child of `supervisor`: see [`Gossipmonger::spawn_linked`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_linked(
        self,
        supervisor: ActorCell,
    ) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
        self.build_off_the_runtime().await?.spawn_linked(supervisor).await
    }

    /// Files, and a large store, take a while.
    async fn build_off_the_runtime(self) -> Result<Parts, SpawnError> {
        let built = tokio::task::spawn_blocking(move || self.build()).await;
        Ok(built.map_err(|error| SpawnError::Actor(error.to_string()))??)
    }

    fn credentials(
        &mut self,
        directory: Option<&Directory>,
    ) -> Result<(Identity, Roots), BuildError> {
        match (directory, self.credentials.take()) {
            (Some(_), Some(_)) => Err(BuildError::Contradiction {
                settings: ["directory", "identity"],
                remedy: "both name the node: keep one of them",
            }),
            (Some(directory), None) => directory.credentials(),
            (None, Some(given)) => Ok(given),
            (None, None) => Err(lack("directory", NO_CREDENTIALS)),
        }
    }

    fn config(
        &mut self,
        identity: &Identity,
        directory: Option<&Directory>,
    ) -> Result<Config, BuildError> {
        let mut config = Config::new(identity.name());
        if let Some(directory) = directory {
            config = directory.apply(config);
        }
        let in_file = config.check().err();
        for change in std::mem::take(&mut self.configure) {
            config = change(config);
        }
        check_name(&config, identity)?;
        if !self.listen.is_empty() {
            config.listen = self.listen.iter().map(|a| address(a)).collect::<Result<_, _>>()?;
        }
        if !self.advertise.is_empty() {
            config.advertise = std::mem::take(&mut self.advertise);
        }
        if let Some(seeds) = self.seeds.take() {
            config.seeds = seeds;
        }
        config.check().map_err(|error| match directory {
            Some(directory) if in_file.as_ref() == Some(&error) => directory.refused(&error),
            _ => error.into(),
        })?;
        Ok(config)
    }
}

/// The name in the configuration is the one that the certificate proves.
fn check_name(config: &Config, identity: &Identity) -> Result<(), ConfigError> {
    let name = identity.name();
    for (key, set, proved) in [
        ("cluster", config.cluster.as_str(), name.cluster.as_str()),
        ("datacenter", config.datacenter.as_str(), name.datacenter.as_str()),
        ("node", config.node.as_str(), name.node.as_str()),
    ] {
        if set != proved {
            let allowed = format!("the certificate says {proved}; leave it, or use another one");
            return Err(ConfigError { key, value: set.to_owned(), allowed });
        }
    }
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError {
        key: "listen",
        value: format!("{text:?}"),
        allowed: "an address of this machine is IP:PORT, such as 127.0.0.1:7101 or [::1]:7101; a name is not \
                  taken here"
            .to_owned(),
    })
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("directory", &self.directory)
            .field("identity", &self.credentials.as_ref().map(|(identity, _)| identity.name()))
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

const NO_CREDENTIALS: &str = "a node over QUIC needs a certificate: set `directory` to one that `gossipmonger join` or \
     `gossipmonger cert issue` has made (in development gossipmonger::pki::throwaway), or set `identity`";
