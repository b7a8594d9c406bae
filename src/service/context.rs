//! What a handler knows of the call that it answers.

use std::{sync::Arc, time::Duration};

use super::Caller;
use crate::{clock::Clock, protocol::time::Time};

/// The circumstances of one call, for its handler.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) caller: Arc<Caller>,
    pub(super) deadline: Time,
    pub(super) clock: Clock,
}

impl Context {
    /// Who calls, as its certificate proves it.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What is left until the deadline of the call. After it the caller does not wait, and the handler's task is
    /// dropped. Hand it on to the calls that the handler makes.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.since(self.clock.now())
    }
}
