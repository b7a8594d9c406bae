//! Closes the connection for calls to one node.

use crate::{
    node::Gossipmonger,
    protocol::{id::NodeId, service::link_end::LinkEnd},
};

/// Closes the connection for calls that `node` has dialed to `peer`, and ends the calls under way on it: the next call
/// dials anew. Returns whether there was one.
pub fn disconnect(node: &Gossipmonger, peer: &NodeId) -> bool {
    node.shared.services.outbound.disconnect(peer, &LinkEnd::Idle)
}
