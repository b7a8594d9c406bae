//! Why there is no reply: what failed, where, and whether the call may have run.

use std::fmt;

use crate::protocol::id::NodeId;
pub use crate::protocol::service::failure::{By, CallFailure, Failure, Lost, NotRun};

/// Why there is no reply. The service's own errors are part of its reply type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    failure: CallFailure,
    /// The attempts, in order: the node, and why the attempt failed.
    attempts: Vec<(NodeId, String)>,
}

impl CallError {
    pub(super) fn new(failure: CallFailure, attempts: Vec<(NodeId, String)>) -> Self {
        Self(Box::new(Inner { failure, attempts }))
    }

    /// What failed, by what it means for the caller.
    #[must_use]
    pub fn failure(&self) -> &CallFailure {
        &self.0.failure
    }

    /// Whether the call may have run.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        !matches!(self.0.failure, CallFailure::NotRun(_))
    }

    /// The node at which the last attempt failed.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.0.attempts.last().map(|(node, _)| node)
    }

    /// The attempts, in order: the node, and why the attempt failed.
    #[must_use]
    pub fn attempts(&self) -> &[(NodeId, String)] {
        &self.0.attempts
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.failure)?;
        if !self.0.attempts.is_empty() {
            let attempts = self.0.attempts.iter().map(|(node, why)| format!("{node}: {why}"));
            write!(f, " ({})", attempts.collect::<Vec<_>>().join("; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}
