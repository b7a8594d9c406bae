//! The input of a pick, and its result.

use std::time::Duration;

use super::trusted::Bounds;
use crate::protocol::id::{Datacenter, NodeId};

/// Which providers a caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prefer {
    /// Those of its own datacenter, to which its own node belongs like any other. If these are too few or overloaded,
    /// those of the datacenter with the shortest round trip as well.
    #[default]
    Nearest,
    /// All, wherever they are.
    Anywhere,
    /// The caller's own node only.
    Here,
    /// Those of this datacenter only.
    Datacenter(Datacenter),
}

/// What a call needs.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The least minor version of the service that has the method.
    pub since: u16,
    /// Which providers the caller wants.
    pub prefer: &'a Prefer,
    /// The nodes at which this call was tried already: at most
    /// [`ATTEMPTS`](super::retry::ATTEMPTS), so they are compared one by one.
    pub tried: &'a [NodeId],
    /// The nodes that it may go to, whatever it prefers.
    pub bounds: Bounds<'a>,
}

/// The provider that a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<'a, C> {
    /// The provider.
    pub provider: &'a C,
    /// Which kind of provider it is.
    pub standing: Standing,
    /// How long this provider asked callers to wait; zero unless it is [`Standing::Overloaded`], and never more than
    /// [`OVERLOADED_FOR`](super::figures::OVERLOADED_FOR). The first attempt of a call need not wait: see
    /// [`Attempt::next`](super::retry::Attempt::next).
    pub wait: Duration,
}

/// Which kind of provider a pick is. A worse kind is picked only if there is no provider of a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is live, not draining, and has not answered `Overloaded` lately.
    Sound,
    /// It answered `Overloaded` to this caller within the last second, and so did all others.
    Overloaded,
    /// This node suspects that it is dead, and all others as well.
    Suspect,
}

/// Why there is no provider for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPick {
    /// No node offers the service where the caller wants it.
    #[error("no provider")]
    NoProvider,
    /// Every provider that has the method is about to stop.
    #[error("all providers are draining")]
    Draining,
    /// No provider has the method yet.
    #[error("all providers are too old: the newest has minor version {offered}")]
    TooOld {
        /// The largest minor version that is offered.
        offered: u16,
    },
    /// The call was tried at every provider that could take it.
    #[error("all providers were tried")]
    Tried,
}

/// How a call to a node ended, for the figures of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a reply.
    Answered,
    /// The service, the connection or the callee's limit for this caller had no room. A limit of this node itself says
    /// nothing about the other one: that is [`Outcome::Refused`].
    Overloaded {
        /// How long it asked the caller to wait.
        retry_after: Duration,
    },
    /// It was not run for another reason.
    Refused,
    /// It was lost or passed its deadline, or it ran and gave no answer.
    Failed,
    /// The caller cancelled it.
    Cancelled,
}
