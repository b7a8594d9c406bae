//! A request in progress at the node that answers it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Work that can be stopped.
pub(crate) trait Stops: Send + Sync {
    /// Stops it, unless it has ended.
    fn stop(&self);
}

/// Lets the caller's end of a connection stop a request.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<State>);

#[derive(Default)]
enum State {
    /// It waits, or runs without a task of its own.
    #[default]
    Waits,
    Runs(Run),
    Cancelled,
}

/// Where a request runs.
enum Run {
    Task(AbortHandle),
    Elsewhere(Arc<dyn Stops>),
}

impl Run {
    fn stop(&self) {
        match self {
            Self::Task(task) => task.abort(),
            Self::Elsewhere(run) => run.stop(),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waits => "Waits",
            Self::Runs(_) => "Runs",
            Self::Cancelled => "Cancelled",
        })
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Code under the lock does not panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request runs in this task.
    pub(crate) fn runs(&self, task: AbortHandle) {
        self.run(Run::Task(task));
    }

    /// The request runs where this stops it.
    pub(crate) fn runs_elsewhere(&self, run: Arc<dyn Stops>) {
        self.run(Run::Elsewhere(run));
    }

    fn run(&self, run: Run) {
        let mut state = self.lock();
        match *state {
            State::Cancelled => {
                drop(state);
                run.stop();
            }
            State::Waits | State::Runs(_) => *state = State::Runs(run),
        }
    }

    /// No caller waits for the answer any more.
    pub(crate) fn cancel(&self) {
        let before = std::mem::replace(&mut *self.lock(), State::Cancelled);
        if let State::Runs(run) = before {
            run.stop();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), State::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_ends_the_task_whether_it_comes_before_the_task_or_after_it() {
        for first in [true, false] {
            let running = Running::default();
            let task = tokio::spawn(std::future::pending::<()>());
            if first {
                running.cancel();
            }
            running.runs(task.abort_handle());
            assert_eq!(running.is_cancelled(), first);
            running.cancel();
            assert!(running.is_cancelled());
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }
}
