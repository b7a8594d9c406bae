//! A request in progress at the node that answers it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::AbortHandle;

/// Lets the caller's end of a connection stop a request.
#[derive(Debug, Default)]
pub(crate) struct Running {
    cancelled: AtomicBool,
    task: OnceLock<AbortHandle>,
}

impl Running {
    /// The request runs in this task.
    pub(crate) fn runs(&self, task: AbortHandle) {
        let _ = self.task.set(task);
        if self.is_cancelled() {
            self.abort();
        }
    }

    /// No caller waits for the answer any more.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.abort();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
