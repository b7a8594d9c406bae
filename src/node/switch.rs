//! Holds back the gossip of one node, for tests and benchmarks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::protocol::route::TransportInput;

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

    /// From now on gossip is held back.
    pub(crate) fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// How many inputs were held back.
    pub(crate) fn held_back(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
