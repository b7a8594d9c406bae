//! Control over the exchanges of one node, for tests and benchmarks: it has no promise of compatibility.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Gossipmonger, host::Host};
use crate::{
    node::shared::Shared,
    protocol::{
        exchange::{Ask, Reply, Summary},
        id::NodeId,
        route::{Target, TransportInput},
    },
};

/// The state of one node's control.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    quiet: AtomicBool,
    held: AtomicU64,
}

impl Switch {
    /// Whether this input is gossip that is held back now.
    pub(crate) fn holds(&self, input: &TransportInput) -> bool {
        let holds =
            matches!(input, TransportInput::Gossip { .. }) && self.quiet.load(Ordering::Relaxed);
        self.held.fetch_add(u64::from(holds), Ordering::Relaxed);
        holds
    }
}

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
        self.0.switch.quiet.store(true, Ordering::Relaxed);
    }

    /// How many inputs were held back since then.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.0.switch.held.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Reins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reins").field(&self.0.config.node).finish()
    }
}
