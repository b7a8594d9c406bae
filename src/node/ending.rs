//! The end of a node: why it ends, and that it has ended.

use crate::{
    net::Endpoint,
    protocol::{close::Close, event::Problem},
    slot::Slot,
};

/// Why a node ends.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The end was requested.
    Asked,
    /// It cannot continue.
    Problem(Problem),
}

/// The end of one node.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Why the node ends, once it ends.
    reason: Slot<Ending>,
    /// The node has ended, and released everything.
    over: Slot<()>,
    /// How many peers have acknowledged that this node leaves, once all have answered.
    farewell: Slot<usize>,
}

impl End {
    /// Ends the node; the first reason counts.
    pub(crate) fn begin(&self, reason: Ending) {
        self.reason.set_first(reason);
    }

    /// Whether the node ends, or has ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.reason.is_set()
    }

    /// Waits until the node ends.
    pub(crate) async fn begun(&self) {
        self.reason.wait().await;
    }

    /// Why the node ends; `None` if it does not, or if the end was requested.
    pub(crate) fn problem(&self) -> Option<Problem> {
        match self.reason.get() {
            Some(Ending::Problem(problem)) => Some(problem),
            Some(Ending::Asked) | None => None,
        }
    }

    /// The node has released everything.
    pub(crate) fn complete(&self) {
        self.over.set(());
    }

    /// Whether the node has released everything.
    pub(crate) fn is_complete(&self) -> bool {
        self.over.is_set()
    }

    /// Waits until the node has released everything.
    pub(crate) async fn completed(&self) {
        self.over.wait().await;
    }

    /// All peers that were told that this node leaves have answered, or do not answer any more.
    pub(crate) fn acknowledge(&self, peers: usize) {
        self.farewell.set(peers);
    }

    /// Waits until then; returns how many peers have answered.
    pub(crate) async fn acknowledged(&self) -> usize {
        self.farewell.wait().await
    }
}

/// Ends all connections, informs the peers, and releases the addresses.
pub(crate) async fn shut(endpoint: &dyn Endpoint) {
    endpoint.close(Close::Shutdown as u32, b"shutting down").await;
}
