//! What a builder has built.

use std::sync::Arc;

use ractor::ActorCell;
use tokio::task::JoinHandle;

use crate::{
    net::quic::QuicNetwork,
    node::{Backends, Gossipmonger, config::Config, error::SpawnError},
    store::Store,
};

/// The parts of a node that a [`Builder`](crate::Builder) has made and checked. All of them can still be changed.
///
/// Keep a copy of `network` to give the node a renewed certificate later: [`QuicNetwork::reload`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The network, with the node's identity.
    pub network: Arc<QuicNetwork>,
    /// What survives a restart.
    pub store: Arc<dyn Store>,
}

impl Parts {
    /// Starts the node: see [`Gossipmonger::spawn`].
    ///
    /// # Errors
    /// [`SpawnError`]; then everything is released.
    pub async fn spawn(self) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
        let (config, backends) = self.into();
        Gossipmonger::spawn(config, backends).await
    }

    /// Starts the node as a child of `supervisor`: see [`Gossipmonger::spawn_linked`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_linked(
        self,
        supervisor: ActorCell,
    ) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
        let (config, backends) = self.into();
        Gossipmonger::spawn_linked(config, backends, supervisor).await
    }
}

impl From<Parts> for (Config, Backends) {
    fn from(parts: Parts) -> Self {
        (parts.config, Backends::from(parts.network).with_store(parts.store))
    }
}
