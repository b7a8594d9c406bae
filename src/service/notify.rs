//! Notifying a ractor actor when the service of a remote node is gone.

use ractor::{ActorRef, Message};
use tokio::task::AbortHandle;

use super::{
    Service,
    actor::until_ended,
    remote::{Gone, Remote},
};

/// The notification that a remote service is gone. Dropping it ends the notification.
#[derive(Debug)]
#[must_use = "dropping it ends the notification; see `detach`"]
pub struct Notification {
    task: AbortHandle,
    detached: bool,
}

impl<S: Service> Remote<S> {
    /// Sends one message to an actor once this service is gone, for the reasons of [`Remote::gone`]. The notification
    /// ends with its message, with the actor, or when the returned value is dropped.
    ///
    /// If the service is gone already, it sends the message at once.
    pub fn notify<M: Message>(
        &self,
        actor: &ActorRef<M>,
        message: impl FnOnce(Gone) -> M + Send + 'static,
    ) -> Notification {
        let (remote, actor) = (self.clone(), actor.clone());
        let task = self.callee.spawn(async move {
            let cell = actor.get_cell();
            tokio::select! {
                biased;
                // An actor that has ended takes no message.
                () = until_ended(&cell) => {}
                gone = remote.gone() => drop(actor.cast(message(gone))),
            }
        });
        Notification { task, detached: false }
    }
}

impl Notification {
    /// Keeps the notification until its message, or the end of the actor.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.detached {
            self.task.abort();
        }
    }
}
