//! What others ask of the storage actor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::Error;
use crate::protocol::{
    exchange::{Ask, Reply},
    id::{NodeId, Version},
    revocation::Revocation,
    route::StorageInput,
    wave::Census,
    write::Write,
};

/// The messages of the storage actor.
#[derive(Debug)]
pub(crate) enum StorageMessage {
    /// An input from a machine or the timer.
    Input(StorageInput),
    /// A caller writes; the answer follows when the store has it.
    Write(Writes, OwnedSemaphorePermit, oneshot::Sender<Result<Version, Error>>),
    /// A caller asks which nodes have a version; at most this long.
    Count(Version, Duration, oneshot::Sender<Census>),
    /// An exchange with this peer asks; the peer's turn ends with the answer.
    Ask(NodeId, Ask, oneshot::Sender<Reply>, Arc<OwnedSemaphorePermit>),
}

/// The writes of a caller.
#[derive(Debug)]
pub(crate) enum Writes {
    Batch(Vec<Write>),
    Tags(BTreeMap<String, String>),
    /// Certificates are revoked.
    Revoke(Box<Revocation>),
    /// The node leaves; a store that records it refuses the next start.
    Leave {
        remembered: bool,
    },
}

#[cfg(feature = "cluster")]
impl ractor::Message for StorageMessage {}
