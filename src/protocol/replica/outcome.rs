//! A change of one node's map: what was there before, and what came of it.

use crate::protocol::{digest::DigestEntry, id::NodeId, map::Refusal};

/// A node's line before a change, and whether it was in our digest.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) line: DigestEntry,
    pub(super) told: bool,
}

/// The result of an update of one node.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is new.
    News,
    /// It was here already.
    Known,
    /// It would have broken the copy.
    Refused(Refusal),
    /// The node has not been introduced.
    Unintroduced,
    /// This node does not take it.
    Ignored,
}

/// The reason for sending a peer the state that it lacks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Occasion<'a> {
    /// It pulls.
    Pulled,
    /// It reported how far it is. A batch larger than the budget it may pull: several peers might send it at
    /// once.
    Told {
        /// The nodes whose state it is being fed.
        fed: Option<&'a NodeId>,
    },
}
