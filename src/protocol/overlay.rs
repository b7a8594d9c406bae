//! Who our neighbours are: with whom a connection is kept and heartbeats are exchanged.
//!
//! For now everybody is everybody's neighbour. What must hold of any other rule that comes in its
//! place: it is a function of the member list alone, and both ends of an edge compute the same.

use super::id::NodeId;

/// The neighbours of `local` among `members`.
pub fn neighbours<'a>(local: &NodeId, members: impl Iterator<Item = &'a NodeId>) -> Vec<NodeId> {
    members.filter(|member| *member != local).cloned().collect()
}

/// Which end of an edge dials, so that both do not do so at once; the other one does if nothing has
/// come after a while.
#[must_use]
pub fn dials(local: &NodeId, remote: &NodeId) -> bool {
    local < remote
}

/// Of two connections between the same nodes, whether the one dialed by us (or by them) stays. Both
/// ends agree.
#[must_use]
pub fn keeps(local: &NodeId, remote: &NodeId, dialed_by_us: bool) -> bool {
    dials(local, remote) == dialed_by_us
}
