//! How far a write has spread: a question to the cluster itself, over the links that spread it.

use crate::protocol::id::NodeId;

/// How many nodes must have a version; the node that wrote it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Audience {
    /// All live nodes.
    All,
    /// More than half of all known nodes that have not left.
    Quorum,
    /// At least this many.
    AtLeast(usize),
}

/// The nodes that have a version, and those that lack it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Propagation {
    /// How many nodes have it, including the one that wrote it.
    pub have: usize,
    /// How many nodes lack it, of those that were reached.
    pub behind: usize,
    /// Names of those, at most [`BEHIND_MAX`](crate::protocol::gossip::BEHIND_MAX).
    pub names: Vec<NodeId>,
    /// How many live nodes were not reached in time.
    pub unreached: usize,
}
