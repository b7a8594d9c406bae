//! What callers want to write, and which nodes do not have it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::protocol::{id::Version, write::Write};

/// The writes of all callers, where each is followed until all nodes have it.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// What callers want to write, and since when.
    pub(super) ordered: BTreeMap<u64, (u64, Vec<Write>)>,
    /// Those of each node that some node does not have, oldest first.
    pub(super) open: BTreeMap<usize, VecDeque<Open>>,
    /// The owners in the news that a node is being told.
    pub(super) touched: Vec<usize>,
    /// For each write that all nodes have, after how long, in microseconds.
    pub(super) everywhere: Vec<u64>,
}

/// A write that some node does not have.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) version: Version,
    pub(super) begun: u64,
    pub(super) lacking: BTreeSet<usize>,
}
