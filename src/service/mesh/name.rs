//! The names of a mesh, and of its nodes.

use crate::protocol::id::{Generation, NodeId};

/// The name of the service that nodes of a mesh offer.
pub const MESH_SERVICE: &str = "ractor.mesh";
/// Longest name of a group.
pub const GROUP_BYTES_MAX: usize = 64;

/// The name of a node in `ractor_cluster`: its certificate's name, and its life. A process that comes back under the
/// same name has another one, so its sessions never compete with those of the one before.
pub(super) fn ractor_name(node: &NodeId, generation: Generation) -> String {
    format!("{node}@{}", generation.0)
}

/// Whether a group may have this name.
pub(super) fn is_group(group: &str) -> bool {
    !group.is_empty() && group.len() <= GROUP_BYTES_MAX
}
