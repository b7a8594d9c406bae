//! Control over the exchanges of one node, for tests and benchmarks: it has no promise of compatibility.

use std::{fmt, sync::Arc};

use super::{Gossipmonger, host::Host};
use crate::{
    node::shared::Shared,
    protocol::{
        exchange::{Ask, Reply, Summary},
        id::NodeId,
        route::{Target, TransportInput},
    },
};

/// Control over one node.
#[derive(Clone)]
pub struct Reins(Arc<Shared>);

impl Reins {
    /// Control over this node.
    #[must_use]
    pub fn of(node: &Gossipmonger) -> Self {
        Self(Arc::clone(&node.shared))
    }

    /// Asks storage, as an exchange with `peer` does; `None` if storage restarts or has ended.
    pub async fn ask(&self, peer: &NodeId, ask: Ask) -> Option<Reply> {
        Host::new(Arc::clone(&self.0)).ask(peer, ask).await.ok()
    }

    /// Starts an exchange.
    pub fn begin(&self, target: Target, summary: Summary) {
        let round = TransportInput::Round { targets: vec![target], summary };
        self.0.routes.transport.cast(round);
    }

    /// From now on the node pushes nothing: only exchanges carry news.
    pub fn push_nothing(&self) {
        self.0.switch.be_quiet();
    }

    /// How many inputs were held back since then.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.0.switch.held_back()
    }
}

impl fmt::Debug for Reins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reins").field(&self.0.config.node).finish()
    }
}
