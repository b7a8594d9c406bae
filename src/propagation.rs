//! How far a write has got: asked of the cluster itself, over the links that spread it.

use crate::protocol::id::NodeId;

/// How many nodes are to have a version; the one that wrote it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All that are live.
    All,
    /// More than half of all that are known and have not left.
    Quorum,
    /// So many.
    AtLeast(usize),
}

/// Who has a version and who has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Propagation {
    /// How many nodes have it, the one that wrote it included.
    pub have: usize,
    /// How many have not, of those that were reached.
    pub behind: usize,
    /// Names of those, at most [`BEHIND_MAX`](crate::protocol::gossip::BEHIND_MAX).
    pub names: Vec<NodeId>,
    /// How many live nodes were not reached in time.
    pub unreached: usize,
}
