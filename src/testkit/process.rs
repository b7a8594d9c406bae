//! What a test runs beside a node, and what ends with it.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ractor::ActorCell;
use tokio::task::AbortHandle;

use crate::node::Gossipmonger;

/// One process: a node, and whatever your program runs beside it. All of it ends when the kit kills or stops the node.
#[derive(Clone)]
pub struct Process {
    node: Gossipmonger,
    owned: Arc<Mutex<Owned>>,
}

#[derive(Default)]
struct Owned {
    ended: bool,
    tasks: Vec<AbortHandle>,
    actors: Vec<ActorCell>,
    kept: Vec<Box<dyn Any + Send>>,
}

impl Process {
    pub(super) fn new(node: Gossipmonger) -> Self {
        Self { node, owned: Arc::default() }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Gossipmonger {
        &self.node
    }

    /// Keeps a value until the process ends: an [`Offer`](crate::service::Offer), for example.
    pub fn keep(&self, value: impl Any + Send) {
        self.own(|owned| owned.kept.push(Box::new(value)));
    }

    /// Runs a task until the process ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.node.runtime.spawn(task).abort_handle();
        self.own(|owned| owned.tasks.push(task));
    }

    /// Kills this actor when the process ends, and with it the actors that are linked to it.
    pub fn adopt(&self, actor: ActorCell) {
        self.own(|owned| owned.actors.push(actor));
    }

    fn own(&self, add: impl FnOnce(&mut Owned)) {
        let mut owned = self.lock();
        add(&mut owned);
        let over = if owned.ended { std::mem::take(&mut *owned) } else { Owned::default() };
        // Foreign code runs when something is dropped.
        drop(owned);
        over.end();
    }

    pub(super) fn end(&self) {
        let owned = std::mem::replace(&mut *self.lock(), Owned { ended: true, ..Owned::default() });
        owned.end();
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owned {
    fn end(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.actors.iter().for_each(ActorCell::kill);
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(self.node.node()).finish()
    }
}
