//! The tasks of one transport actor: they end with it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::protocol::id::NodeId;

/// Owns the tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Starts tasks, also from within one, all in one span.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    tasks: Weak<Mutex<JoinSet<()>>>,
    span: Span,
}

impl Tasks {
    /// What starts tasks of this node.
    pub(crate) fn spawner(&self, node: &NodeId) -> Spawner {
        let span = tracing::debug_span!("node", %node);
        Spawner { tasks: Arc::downgrade(&self.0), span }
    }
}

impl Spawner {
    /// Starts a task; it does nothing if the actor is gone.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task.instrument(self.span.clone()));
        }
    }
}
