//! Errors of a call: whose fault it is, and whether anything has changed.

use crate::{
    node::propagation::Propagation,
    protocol::{
        event::Problem,
        id::{NodeId, Version},
        write::WriteError,
    },
    store::StoreError,
};

mod spawn;

pub use self::spawn::SpawnError;

/// A call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The write was refused. Nothing has changed.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// The write is in memory and gossiped, but the store failed to keep it; it is retried with the
    /// next write. It is lost if the process ends before that.
    #[error("written and gossiped, but not yet durable: {0}")]
    NotDurable(StoreError),
    /// The node has ended. A write in progress may have been kept or not; a later one has changed
    /// nothing.
    #[error("the node has ended{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Stopped {
        /// The cause, unless the end was requested.
        reason: Option<Problem>,
    },
    /// No answer within the allowed time. A write may or may not have happened; repeating the same
    /// write is harmless.
    #[error("no answer from the node within {0:?}: it is overloaded; the call may be made again")]
    Timeout(std::time::Duration),
    /// The write has not reached enough nodes within the allowed time. It is written, and goes on
    /// spreading.
    #[error(
        "version {version} was not at as many nodes as asked within {within:?}: {} have it, {} have \
         not{}, {} did not answer; it goes on spreading",
        reached.have, reached.behind, named(&reached.names), reached.unreached
    )]
    NotPropagated {
        /// The version that was waited for.
        version: Version,
        /// The allowed time.
        within: std::time::Duration,
        /// How far it had spread at the end.
        reached: Propagation,
    },
    /// No peer with this name is known. Nothing has changed.
    #[error("no peer {0} is known")]
    UnknownPeer(NodeId),
    /// The peer is live. Nothing has changed.
    #[error("peer {0} is live; only a dead, departed or unreachable one can be removed")]
    PeerIsLive(NodeId),
}

/// Some of the nodes that are behind, for a message.
fn named(names: &[NodeId]) -> String {
    let shown: Vec<_> = names.iter().take(NAMED_MAX).map(NodeId::as_str).collect();
    if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
}

const NAMED_MAX: usize = 5;
