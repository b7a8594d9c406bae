//! Why a mesh does not start.

use ractor::SpawnErr;

use super::name::GROUP_BYTES_MAX;
use crate::service::OfferError;

/// Why a mesh does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The name of the group is empty or too long.
    #[error("the name of the group has {bytes} bytes: use 1 to {GROUP_BYTES_MAX}")]
    Group {
        /// Its length.
        bytes: usize,
    },
    /// This process is in a mesh already. Its process groups are those of the whole process.
    #[error("this process is in a mesh already: stop that one first, or use it")]
    Taken,
    /// The service could not be announced.
    #[error("the mesh cannot be announced: {0}")]
    Offer(#[from] OfferError),
    /// The node has ended, or does not offer what it has announced.
    #[error("the node has ended")]
    NodeEnded,
    /// The server of `ractor_cluster` did not start.
    #[error("the server of ractor_cluster did not start: {0}")]
    Server(SpawnErr),
    /// The actor of the mesh did not start.
    #[error("the mesh did not start: {0}")]
    Actor(String),
}

impl MeshError {
    /// The error with which the actor ended its start.
    pub(super) fn of(error: SpawnErr) -> Self {
        match error {
            SpawnErr::StartupFailed(error) => match error.downcast::<Self>() {
                Ok(error) => *error,
                Err(error) => Self::Actor(error.to_string()),
            },
            error => Self::Actor(error.to_string()),
        }
    }
}
