//! One offer as callers see it.

use crate::protocol::id::{Datacenter, Generation, NodeId};

/// One offer of one live node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The node.
    pub node: NodeId,
    /// The generation of the node in which it offers this.
    pub generation: Generation,
    /// The datacenter of the node.
    pub datacenter: Datacenter,
    /// The minor version: it has all methods of this minor version and of those before it.
    pub minor: u16,
    /// How many calls it wants, relative to the weights of other providers; at least 1.
    pub weight: u8,
    /// Whether clients may call it.
    pub clients: bool,
    /// Whether the node takes no new calls.
    pub draining: bool,
    /// Whether the node is suspected, so that another provider is better.
    pub suspect: bool,
    /// Counts the registrations of the service by the node in this generation.
    pub epoch: u32,
    /// The [hash](crate::protocol::hash::hash) of the node's name, for rendezvous hashing.
    pub hash: u64,
}
