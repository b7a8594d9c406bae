//! The messages to the actor of a mesh.

use ractor::ActorRef;
use ractor_cluster::NodeSessionMessage;
use tokio::sync::oneshot;

use super::{
    peers::{Dialed, Refused},
    sessions::MeshService,
};
use crate::{
    protocol::id::{Generation, NodeId},
    service::{
        ProviderChange,
        stream::{ByteReceiver, ByteSender},
    },
};

/// A stream between two nodes.
pub(super) struct Bytes {
    pub(super) tx: ByteSender,
    pub(super) rx: ByteReceiver,
    /// Dropped with the reading half.
    pub(super) held: Option<oneshot::Sender<()>>,
}

pub(super) enum MeshMessage {
    /// Who offers the mesh has changed.
    Provider(ProviderChange<MeshService>),
    /// The node has ended.
    NodeEnded,
    /// The pause before a dial is over.
    Redial(NodeId),
    /// A dial has ended.
    Dialed(NodeId, Generation, Dialed, Option<Bytes>),
    /// A peer wants a session.
    Arrived(NodeId, Generation, oneshot::Sender<Result<(), Refused>>),
    /// It has one.
    Opened(NodeId, Generation, Bytes),
    /// It has not, after all.
    Lost(NodeId, Generation),
    SessionOpened(String, ActorRef<NodeSessionMessage>),
    SessionReady(String),
    SessionEnded(String),
    /// The stream of a session was dropped.
    Dropped(String),
}

impl ractor::Message for MeshMessage {}
