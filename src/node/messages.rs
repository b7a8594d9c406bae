//! What others ask of the storage actor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{error::Error, services::link::Link};
use crate::protocol::{
    exchange::{Ask, Reply},
    id::{NodeId, Version},
    revocation::Revocation,
    route::StorageInput,
    service::manifest::Manifest,
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
    /// A probe of how long messages wait ([`lag`](crate::protocol::lag)).
    Probe,
    /// An exchange with this peer asks; the peer's turn ends with the answer.
    Ask(NodeId, Ask, oneshot::Sender<Reply>, Arc<OwnedSemaphorePermit>),
}

/// The writes of a caller.
#[derive(Debug)]
pub(crate) enum Writes {
    Batch(Vec<Write>),
    Tags(BTreeMap<String, String>),
    /// The services that this node offers.
    Offers(Manifest),
    /// Certificates are revoked.
    Revoke(Box<Revocation>),
    /// The node leaves; a store that records it refuses the next start.
    Leave {
        remembered: bool,
    },
}

/// The messages of the services actor.
#[derive(Debug)]
pub(crate) enum ServicesMessage {
    /// Dials a node that is to be called.
    Dial(Arc<Link>),
    /// The offers of this node have changed.
    Changed,
    /// The offers of this node are to be announced.
    Announce,
}

#[cfg(feature = "cluster")]
impl ractor::Message for StorageMessage {}
#[cfg(feature = "cluster")]
impl ractor::Message for ServicesMessage {}
