//! Why a node could not be started.

use crate::{
    net::NetworkError,
    node::{builder::BuildError, config::ConfigError},
    protocol::id::{ClusterId, NodeId},
    store::StoreError,
};

/// A node could not be started. Everything is released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The settings of a [`Builder`](crate::Builder) are refused.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store belongs to another node.
    #[error(
        "the store is of node {stored_node} in cluster {stored_cluster}, this is {node} in \
         {cluster}: use another store, or the right certificate"
    )]
    ForeignStore {
        /// The node in the store.
        stored_node: NodeId,
        /// The cluster in the store.
        stored_cluster: ClusterId,
        /// The node that is to use it.
        node: NodeId,
        /// The cluster that is to use it.
        cluster: ClusterId,
    },
    /// The node was taken out for good ([`decommission`](crate::Gossipmonger::decommission)), and
    /// [`Config::rejoin`](crate::Config::rejoin) is not set.
    #[error(
        "this node was taken out of the cluster for good: to join again start it with \
         `Config::rejoin` set (the agent: --rejoin)"
    )]
    HasLeft,
    /// The transport cannot be opened.
    #[error(transparent)]
    Transport(#[from] NetworkError),
    /// An actor failed to start.
    #[error("the node failed to start: {0}")]
    Actor(String),
}
