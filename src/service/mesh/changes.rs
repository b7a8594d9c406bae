//! Watching whose actors can be reached.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::protocol::id::NodeId;

/// The nodes of a mesh whose actors can be reached. See [`Mesh::watch`](super::Mesh::watch).
#[derive(Clone, Debug)]
pub struct MeshChanges(pub(super) watch::Receiver<BTreeSet<NodeId>>);

impl MeshChanges {
    /// Waits for the next set that differs from the one returned last; the first one is that of now. A reader that
    /// falls behind gets the latest. `None`: this node has left the mesh.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<BTreeSet<NodeId>> {
        self.0.changed().await.ok()?;
        Some(self.take())
    }

    #[expect(clippy::disallowed_methods, reason = "the guard ends in this line")]
    fn take(&mut self) -> BTreeSet<NodeId> {
        self.0.borrow_and_update().clone()
    }

    #[expect(clippy::disallowed_methods, reason = "the guard ends in this line")]
    pub(super) fn now(&self) -> BTreeSet<NodeId> {
        self.0.borrow().clone()
    }
}
