//! What goes into the directory, and what comes out.

use super::provider::Provider;
use crate::protocol::{
    entry::Value,
    id::{Datacenter, Generation, NodeId},
    service::{ServiceId, manifest::BadManifest},
    state::PeerState,
};

/// What this node knows of a node now.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The latest generation of the node that is known. The other fields are about this generation.
    pub generation: Generation,
    /// The datacenter of the node.
    pub datacenter: &'a Datacenter,
    /// The state of the node.
    pub state: PeerState,
    /// The value of [`MANIFEST_KEY`](crate::protocol::service::manifest::MANIFEST_KEY) in the node's map; `None` if
    /// there is none, or if the map of this generation has not arrived yet.
    pub manifest: Option<&'a Value>,
}

/// Why an offer, or a node, is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gone {
    /// The node has withdrawn the offer; it may have offered the same service again since, with another epoch.
    Withdrawn,
    /// The node has begun a later generation.
    Restarted,
    /// The node left on purpose.
    NodeLeft,
    /// The node is dead.
    NodeDead,
    /// The node was forgotten.
    NodeForgotten,
    /// The node is not heard, for example because its datacenter is cut off. It may be well, and come back.
    Unreachable,
    /// This node itself has ended, so it knows of no other one any more.
    Stopped,
}

/// What is known of one generation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the latest one, and may serve calls.
    Present,
    /// It serves no call any more.
    Ended(Gone),
    /// The node is not known, or only earlier generations of it are.
    Unknown,
}

/// A change. A shell delivers the outputs in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryOutput {
    /// An offer is listed that was not listed before.
    Joined(ServiceId, Provider),
    /// A listed offer has other properties now, in the same generation and epoch.
    Changed(ServiceId, Provider),
    /// An offer is not listed any more. If it was replaced by one of a later generation or another epoch,
    /// [`Self::Joined`] follows.
    Left {
        /// The service.
        service: ServiceId,
        /// The node that offered it.
        node: NodeId,
        /// The generation in which it did.
        generation: Generation,
        /// The epoch of the offer.
        epoch: u32,
        /// Why it is gone.
        why: Gone,
    },
    /// The node serves no call in this generation any more: calls to it in this or an earlier generation fail. It
    /// comes before the changes of the node's offers, and once, unless the node becomes live again in the same
    /// generation and ends again.
    Ended {
        /// The node.
        node: NodeId,
        /// The generation that has ended.
        generation: Generation,
        /// Why: never [`Gone::Withdrawn`] or [`Gone::Unreachable`].
        why: Gone,
    },
    /// A node is live again that had been unreachable, in the same generation. It comes after the changes of the
    /// node's offers. An offer that left as [`Gone::Unreachable`] and is not listed now with the same epoch has been
    /// withdrawn meanwhile.
    Returned {
        /// The node.
        node: NodeId,
        /// Its generation.
        generation: Generation,
    },
    /// A node has published a manifest that cannot be read; it counts as empty. It comes once for each value, and
    /// again if another value was there in between.
    BadManifest {
        /// The node.
        node: NodeId,
        /// The rule that the manifest breaks.
        error: BadManifest,
    },
}

impl Gone {
    /// Why a node in this state does not offer what it offered before in the same generation.
    pub(super) const fn because(state: PeerState) -> Self {
        match state {
            PeerState::Live | PeerState::Suspect => Self::Withdrawn,
            PeerState::Unheard | PeerState::Unreachable => Self::Unreachable,
            PeerState::Dead => Self::NodeDead,
            PeerState::Left => Self::NodeLeft,
        }
    }
}

impl Gone {
    /// A stable name for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Restarted => "restarted",
            Self::NodeLeft => "node_left",
            Self::NodeDead => "node_dead",
            Self::NodeForgotten => "node_forgotten",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Withdrawn => "the service was withdrawn",
            Self::Restarted => "the node has restarted",
            Self::NodeLeft => "the node has left",
            Self::NodeDead => "the node is dead",
            Self::NodeForgotten => "the node was forgotten",
            Self::Unreachable => "the node is unreachable",
            Self::Stopped => "this node has ended",
        })
    }
}
