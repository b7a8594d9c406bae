//! The end of a node, as a handle asks for it: with or without a farewell.

use std::time::Duration;

use super::{Gossipmonger, ending::Ending, error::Error, messages::Writes};
use crate::protocol::{event::Problem, route::SchedulerInput};

impl Gossipmonger {
    /// Leaves temporarily: for a planned restart and for the `post_stop` of the actor that owns the
    /// node. The node informs some peers, so that the cluster need not detect a failure, and then
    /// ends. Returns how many peers have acknowledged it. The next start joins again.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the node had ended before. After any other error it has left and ended
    /// as well.
    #[doc(alias = "leave")]
    pub async fn leave_for_now(&self) -> Result<usize, Error> {
        self.depart(false).await
    }

    /// Takes the node out for good, like the program's `leave`: as
    /// [`leave_for_now`](Self::leave_for_now), and the store records it. The next start with that
    /// store is refused ([`SpawnError::HasLeft`](crate::SpawnError::HasLeft)) unless
    /// [`Config::rejoin`](crate::Config::rejoin) is set, so do not call this when a service merely
    /// stops. Only this store records it: started from an older copy of
    /// the store, the node joins as if it had not left, and the others report that
    /// ([`PeerReturned`](crate::Event::PeerReturned)). To keep a node out, revoke its certificate.
    ///
    /// # Errors
    /// [`Error::NotDurable`] or [`Error::Timeout`] if the store did not record it: the node has left
    /// and ended, but would join again. [`Error::Stopped`] if it had ended before.
    #[doc(alias = "leave")]
    pub async fn decommission(&self) -> Result<usize, Error> {
        self.depart(true).await
    }

    async fn depart(&self, remembered: bool) -> Result<usize, Error> {
        self.drain(self.shared.config.services.drain).await;
        let told = self.say_farewell(remembered).await;
        if !matches!(told, Err(Error::Stopped { .. })) {
            self.shutdown().await;
        }
        told
    }

    /// As [`decommission`](Self::decommission), but keeps the node's connections, so that the result can be sent
    /// over one of them. The node does no other work afterwards: call [`shutdown`](Self::shutdown) next.
    ///
    /// # Errors
    /// As [`decommission`](Self::decommission).
    #[doc(hidden)]
    pub async fn announce_decommission(&self) -> Result<usize, Error> {
        self.say_farewell(true).await
    }

    async fn say_farewell(&self, remembered: bool) -> Result<usize, Error> {
        let written = self.write(0, || Writes::Leave { remembered }).await;
        if let Err(stopped @ Error::Stopped { .. }) = written {
            return Err(stopped);
        }
        self.shared.routes.scheduler.cast(SchedulerInput::Leave);
        let told = tokio::time::timeout(LEAVE_TIMEOUT, self.shared.end.acknowledged()).await;
        let acknowledged = told.unwrap_or(0);
        written.map(|_| acknowledged)
    }

    /// Ends the node without leaving: closes its connections and makes writes durable. The other
    /// nodes detect a failure after a while. Repeated calls are harmless.
    pub async fn shutdown(&self) {
        self.shared.end.begin(Ending::Asked);
        self.ended().await;
    }

    /// Waits until the node has ended, and returns the cause unless the end was requested.
    pub async fn ended(&self) -> Option<Problem> {
        self.shared.end.completed().await;
        self.problem()
    }

    /// Whether the node has ended.
    #[doc(hidden)]
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.end.is_complete()
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        self.shared.end.problem()
    }

    /// The result of `call`, unless the node ends first: then the actor that would answer may be gone.
    pub(crate) async fn unless_ended<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.shared.end.begun() => Err(self.stopped()),
            done = call => done,
        }
    }

    pub(super) fn stopped(&self) -> Error {
        Error::Stopped { reason: self.problem() }
    }
}

/// How long leaving waits for peers to acknowledge it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
