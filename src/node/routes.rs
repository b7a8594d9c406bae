//! How messages reach the actors of a node.

use ractor::{ActorRef, Message};

use super::messages::{ServicesMessage, StorageMessage};
use crate::{
    protocol::route::{DetectorInput, SchedulerInput, TransportInput},
    slot::Slot,
};

/// The present reference of each actor.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) storage: Route<StorageMessage>,
    pub(crate) scheduler: Route<SchedulerInput>,
    pub(crate) detector: Route<DetectorInput>,
    pub(crate) transport: Route<TransportInput>,
    pub(crate) services: Route<ServicesMessage>,
}

/// The address of an actor that may be restarted at any time.
#[derive(Debug)]
pub(crate) struct Route<M>(Slot<ActorRef<M>>);

impl<M> Default for Route<M> {
    fn default() -> Self {
        Self(Slot::default())
    }
}

impl<M: Message> Route<M> {
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        self.0.set(actor);
    }

    /// Casts. A message that arrives while the actor restarts is lost: each actor starts from the
    /// state that the others have published, and the next round repairs the loss of one.
    pub(crate) fn cast(&self, message: M) {
        if let Some(actor) = self.0.get() {
            let _ = actor.cast(message);
        }
    }

    pub(crate) fn current(&self) -> Option<ActorRef<M>> {
        self.0.get()
    }

    /// The successor of a failed actor.
    pub(crate) async fn after(&self, failed: &ActorRef<M>) -> ActorRef<M> {
        self.0.wait_for(|actor| actor.get_id() != failed.get_id()).await
    }
}
