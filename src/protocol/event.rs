//! The events that a node sends to its subscribers.

use std::{sync::Arc, time::Duration};

use super::{
    delta::Delta,
    digest::Digest,
    entry::{Key, Value},
    id::{Datacenter, Generation, NodeId, Version},
    map::Refusal,
    reason::Reason,
    returning::Returned,
    revocation::{RevocationError, date},
};

/// An event of interest to a user of the cluster.
///
/// Events of one peer come in the order in which they happened. When an event arrives, the snapshot already
/// shows the change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A peer became known (the original's `new peer`). It is not live until it has been heard.
    NewPeer {
        /// The peer.
        peer: NodeId,
    },
    /// A peer's tags, addresses or generation changed.
    PeerChanged {
        /// The peer.
        peer: NodeId,
        /// Its present generation; a new one means that the peer has restarted.
        generation: Generation,
    },
    /// A peer was heard, for the first time or again (the original's `peer live`).
    PeerLive {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: Arc<Reason>,
    },
    /// A quorum of observers does not hear a peer. The peer may refute the suspicion.
    PeerSuspect {
        /// The peer.
        peer: NodeId,
        /// Why, and the level of suspicion at that moment.
        reason: Arc<Reason>,
    },
    /// A peer is considered dead (the original's `peer dead`): it has not refuted the suspicion.
    PeerDead {
        /// The peer.
        peer: NodeId,
        /// Why, and the level of suspicion at that moment.
        reason: Arc<Reason>,
    },
    /// A peer left on purpose.
    PeerLeft {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: Arc<Reason>,
    },
    /// A dead or departed peer was forgotten, with all its keys.
    PeerForgotten {
        /// The peer.
        peer: NodeId,
    },
    /// A peer came back in a way that an operator should look at.
    PeerReturned {
        /// The peer.
        peer: NodeId,
        /// Its present generation.
        generation: Generation,
        /// In which way.
        how: Returned,
    },
    /// A dead or departed peer was removed: it is forgotten early, with the next event.
    PeerRemoved {
        /// The peer.
        peer: NodeId,
        /// The node that reported the removal to this node. That node may itself have received the report, or
        /// have forgotten the peer. `None` if the peer was removed at this node.
        by: Option<NodeId>,
    },
    /// A peer's certificates were revoked; its state is forgotten with the next events. The name may have
    /// been unknown before.
    PeerRevoked {
        /// The peer.
        peer: NodeId,
        /// All certificates that are valid from this moment or an earlier one are revoked, in seconds since
        /// 1970.
        cutoff: u64,
    },
    /// No node of a datacenter answers those of our nodes that have bridges to it: its peers are
    /// [`Unreachable`](super::state::PeerState::Unreachable), unless they are dead or gone. There is no event
    /// for each of these peers.
    DatacenterUnreachable {
        /// Which one.
        datacenter: Datacenter,
    },
    /// A datacenter can be reached again, and its peers have their former states again; or none of its peers
    /// is left.
    DatacenterReachable {
        /// Which one.
        datacenter: Datacenter,
    },
    /// A key has a new value (the original's `update`). Own writes are reported too: compare `peer` with the
    /// local name to leave them out.
    Updated {
        /// The owner of the key.
        peer: NodeId,
        /// The key.
        key: Key,
        /// Its value.
        value: Value,
        /// The owner's generation.
        generation: Generation,
        /// The version it was written at.
        version: Version,
    },
    /// A key was deleted, or its value went away with its generation.
    Deleted {
        /// The owner of the key.
        peer: NodeId,
        /// The key.
        key: Key,
        /// The owner's generation.
        generation: Generation,
        /// The version of the tombstone, or of the value that went away with its generation.
        version: Version,
    },
    /// Something went wrong that an operator should see (the original's `error`). The node goes on.
    Error(Problem),
}

impl Event {
    /// The node that the event is about: the owner of the key, or the member. `None` for events of a whole datacenter,
    /// and for problems.
    #[must_use]
    pub const fn peer(&self) -> Option<&NodeId> {
        match self {
            Self::NewPeer { peer }
            | Self::PeerChanged { peer, .. }
            | Self::PeerLive { peer, .. }
            | Self::PeerSuspect { peer, .. }
            | Self::PeerDead { peer, .. }
            | Self::PeerLeft { peer, .. }
            | Self::PeerForgotten { peer }
            | Self::PeerReturned { peer, .. }
            | Self::PeerRemoved { peer, .. }
            | Self::PeerRevoked { peer, .. }
            | Self::Updated { peer, .. }
            | Self::Deleted { peer, .. } => Some(peer),
            Self::DatacenterUnreachable { .. }
            | Self::DatacenterReachable { .. }
            | Self::Error(_) => None,
        }
    }
}

/// A problem that an operator should see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A peer sent state that would have broken a copy; it was not applied.
    #[error("{from} sent news of {about} that was refused: {refusal}")]
    NewsRefused {
        /// The peer that sent it.
        from: NodeId,
        /// The owner of that state.
        about: NodeId,
        /// Why it was refused.
        refusal: Refusal,
    },
    /// A node has signed two states of its map as one: the node, or a holder of its key, sends different
    /// state to different nodes.
    #[error(
        "{peer} has signed two different states as the same version: it lies, or its key is in other \
         hands; revoke its certificate"
    )]
    Equivocation {
        /// The node that has signed both.
        peer: NodeId,
    },
    /// A connection to a peer failed, or was refused.
    #[error("{remote}: {reason}")]
    Connection {
        /// The peer's name or address.
        remote: String,
        /// What happened, and whose fault it is.
        reason: String,
    },
    /// The store failed: writes since then are in memory and gossiped, but not yet durable.
    #[error("{reason}")]
    Store {
        /// What the store reported.
        reason: String,
    },
    /// Another process uses this node's name, or a later run of this node was known. This node has taken a
    /// newer generation; if the other process does the same, one of the two ends.
    #[error(
        "generation {heard} of this node's own name was heard, ours was {ours}: either its state \
         was lost, or two processes use one name; check for a second agent with this certificate"
    )]
    NameConflict {
        /// The generation that was reported.
        heard: Generation,
        /// The generation in use until then.
        ours: Generation,
    },
    /// A member says that a later generation of this node's name is known, but does not prove it. The node
    /// does nothing about it.
    #[error(
        "{from} says that it knows a later life of this node, generation {heard} (ours is {ours}), and \
         shows nothing that this node's key has signed: ignored; if that goes on, look at {from}"
    )]
    ClaimUnproved {
        /// The member that says so.
        from: NodeId,
        /// The generation that it says it knows.
        heard: Generation,
        /// The generation in use.
        ours: Generation,
    },
    /// This node cannot sign what it publishes. Peers that require signatures refuse it.
    #[error("what this node publishes cannot be signed with its certificate: {reason}")]
    Unsigned {
        /// The fault of the certificate or its key.
        reason: String,
    },
    /// This node came back with less state than it had.
    #[error("{0}")]
    Behind(Behind),
    /// This process stood still for longer than the others keep a dead node. It drops its state of other
    /// nodes and asks for it again.
    #[error(
        "this process stood still, its machine was suspended or its clock was set ahead, by {} s, which is \
         longer than forget_after: what it knew of {peers} nodes is dropped, and they are asked anew",
        slept.as_secs()
    )]
    Overslept {
        /// For how long.
        slept: Duration,
        /// How many peers it knew.
        peers: usize,
    },
    /// This node ends because another process uses its name.
    #[error(
        "displaced by another process that uses this node's name (its generation {heard}); \
         one name is for one node: give the other its own certificate"
    )]
    Displaced {
        /// The generation of the other one.
        heard: Generation,
    },
    /// This node ends because its certificate was revoked.
    #[error(
        "this node's certificate was revoked by the cluster's authority (every one of its name that is \
         valid from {} or earlier): ask the operator, who can issue a new one", date(*cutoff)
    )]
    Revoked {
        /// All certificates that are valid from this moment or an earlier one are revoked, in seconds since
        /// 1970.
        cutoff: u64,
    },
    /// A node publishes a list of its services that cannot be read. It counts as empty.
    #[error(
        "the list of services that {peer} publishes cannot be read, so it counts as empty: {reason}"
    )]
    BadManifest {
        /// The node.
        peer: NodeId,
        /// What is wrong.
        reason: String,
    },
    /// A peer sent a revocation that is not valid.
    #[error("{from} told a revocation of {about} that was refused: {refusal}")]
    RevocationRefused {
        /// The peer that sent it.
        from: NodeId,
        /// The node in the revoked certificates.
        about: NodeId,
        /// Why it was refused.
        refusal: RevocationError,
    },
    /// This node ends because one of its actors fails again and again.
    #[error("the {actor} actor failed too often, at last: {reason}")]
    Failed {
        /// Which one.
        actor: &'static str,
        /// What it reported.
        reason: String,
    },
    /// An actor inside the node failed and was restarted.
    #[error("the {actor} actor failed and was restarted: {reason}")]
    ActorRestarted {
        /// Which one.
        actor: &'static str,
        /// What it reported.
        reason: String,
    },
}

/// Versions that, according to a peer, this node wrote in an earlier generation, and that its store does not
/// have. The report changes nothing: a peer can claim anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{told_by} knew {versions} versions of this node's generation {generation} that its store does not \
     have: the store was restored from an older copy, or lost writes, or another process had this name; \
     what was written in them is gone"
)]
#[non_exhaustive]
pub struct Behind {
    /// The generation that the peer knew.
    pub generation: Generation,
    /// How many versions of it the store does not have.
    pub versions: u64,
    /// The peer that says so.
    pub told_by: NodeId,
}

/// Messages between nodes, for those who watch the protocol.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProtocolEvent {
    /// The original's `digest send`.
    DigestSent {
        /// The receiver.
        peer: NodeId,
        /// The digest.
        digest: Arc<Digest>,
    },
    /// The original's `digest receive`.
    DigestReceived {
        /// The sender.
        peer: NodeId,
        /// The digest.
        digest: Arc<Digest>,
    },
    /// The original's `deltas send`.
    DeltasSent {
        /// The receiver.
        peer: NodeId,
        /// The delta.
        delta: Arc<Delta>,
    },
    /// The original's `deltas receive`.
    DeltasReceived {
        /// The sender.
        peer: NodeId,
        /// The delta.
        delta: Arc<Delta>,
    },
    /// State of a node that has not been introduced (the original's `unknown peer`); it was ignored.
    UnknownPeer {
        /// The node.
        peer: NodeId,
    },
}
