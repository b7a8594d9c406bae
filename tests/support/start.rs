//! What a test starts a node with.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use gossipmonger::{
    Backends, Config, Gossipmonger, SpawnError,
    net::Network,
    store::{Store, memory::MemoryStore},
};
use tokio::task::JoinHandle;

/// A configuration with its network and its store.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    config: Config,
    network: Arc<dyn Network>,
    pub(crate) storage: Arc<dyn Store>,
}

impl Start {
    pub(crate) fn on(config: Config, network: Arc<dyn Network>) -> Self {
        Self { config, network, storage: Arc::new(MemoryStore::new()) }
    }

    pub(crate) fn local(self) -> Self {
        Self { config: self.config.local(), ..self }
    }

    pub(crate) fn parts(self) -> (Config, Backends) {
        (self.config, Backends::new(self.network).with_store(self.storage))
    }
}

impl Deref for Start {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl DerefMut for Start {
    fn deref_mut(&mut self) -> &mut Config {
        &mut self.config
    }
}

pub(crate) async fn spawn(start: Start) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
    let (config, backends) = start.parts();
    Gossipmonger::spawn(config, backends).await
}
