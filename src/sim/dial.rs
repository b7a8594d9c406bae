//! A dial under way, and what waits for its connection.

use crate::protocol::{
    exchange::Summary,
    id::{Generation, NodeId},
    route::Target,
    served::Patience,
};

/// A dial under way in a process.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) target: Target,
    pub(super) address: Option<String>,
    /// The generation of the node when it began.
    pub(super) own: Generation,
    /// When its handshake was begun, and which one that is.
    pub(super) begun: u64,
    pub(super) patience: Patience,
    pub(super) round: u32,
    pub(super) wire: Option<u64>,
    /// What a connection is wanted for.
    pub(super) purposes: Vec<Purpose>,
}

/// What a connection is wanted for.
#[derive(Debug)]
pub(super) enum Purpose {
    Exchange(Target, Summary),
    Dial(NodeId),
    /// A silent connection, or one with an old certificate, is to be replaced.
    Replace,
}

impl Dial {
    pub(super) const fn wanted(&self) -> Option<&NodeId> {
        match &self.target {
            Target::Peer(peer) => Some(peer),
            Target::Address(_) => None,
        }
    }
}
