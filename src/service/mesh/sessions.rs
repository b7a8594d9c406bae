//! The service that carries the sessions: one duplex stream for each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The caller wants a session with the node that it calls.
#[derive(Serialize, Deserialize)]
pub(super) struct Join {
    pub(super) group: String,
}

crate::service! {
    /// Sessions of `ractor_cluster`.
    pub(super) struct MeshService = "ractor.mesh", 1.0;
    1: duplex Join;
}

/// How long this node waits for a peer to take part in a session that is being opened.
pub(super) const OPENING: Duration = Duration::from_secs(5);
