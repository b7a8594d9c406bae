//! One pending wake-up of an actor: a new one replaces the previous one.

use std::time::Duration;

use ractor::{ActorRef, Message};
use tokio::task::AbortHandle;

#[derive(Debug, Default)]
pub(crate) struct Timer(Option<AbortHandle>);

impl Timer {
    /// Sends `message()` after `wait`, in place of the message pending before.
    pub(crate) fn set<M: Message>(
        &mut self,
        actor: &ActorRef<M>,
        wait: Duration,
        message: impl Fn() -> M + Send + 'static,
    ) {
        self.clear();
        self.0 = Some(actor.send_after(wait, message).abort_handle());
    }

    fn clear(&mut self) {
        if let Some(pending) = self.0.take() {
            pending.abort();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clear();
    }
}
