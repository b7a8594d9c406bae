//! Exposing an actor that is not a named service: callers need its address.

use ractor::{ActorRef, Message, RpcReplyPort};

use super::{
    Call, Cast, Method, Service,
    access::Access,
    actor::{ActorOffer, Room, until_ended},
    context::Context,
    offer::{OfferBuilder, OfferError},
    remote::Address,
};
use crate::node::{Gossipmonger, services::exposed::NotExposed};
pub use crate::protocol::service::exposed::EXPOSED_MAX;

/// An actor that is about to be exposed: it needs a handler for each method of the service.
#[must_use = "an actor is exposed only when it is started"]
#[derive(Debug)]
pub struct ExposeBuilder<S: Service, M: Message> {
    offer: ActorOffer<S, M>,
    node: Gossipmonger,
}

impl Gossipmonger {
    /// Begins to expose an actor: to callers it is a service `S`, but it is not announced, and only those who have its
    /// [`Address`] find it. `access`: who may call it. The address is no permission.
    ///
    /// ```
    /// # use gossipmonger::{Gossipmonger, service::{Access, Address, OfferError}};
    /// # use ractor::ActorRef;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Done(u64);
    /// gossipmonger::service! {
    ///     /// What a worker reports to the node that gave it the job.
    ///     struct Report = "report", 1.0;
    ///     1: cast Done;
    /// }
    ///
    /// enum JobMessage {
    ///     Done(u64),
    /// }
    /// # #[cfg(feature = "cluster")] impl ractor::Message for JobMessage {}
    ///
    /// fn address(node: &Gossipmonger, job: &ActorRef<JobMessage>) -> Result<Address<Report>, OfferError> {
    ///     node.expose(job, Access::members()).tells(|done: Done| JobMessage::Done(done.0)).start()
    /// }
    /// ```
    pub fn expose<S: Service, M: Message>(
        &self,
        actor: &ActorRef<M>,
        access: Access,
    ) -> ExposeBuilder<S, M> {
        let offer = OfferBuilder::new(self.clone(), access).actor(actor);
        ExposeBuilder { offer, node: self.clone() }
    }
}

impl<S: Service, M: Message> ExposeBuilder<S, M> {
    fn with(self, change: impl FnOnce(ActorOffer<S, M>) -> ActorOffer<S, M>) -> Self {
        Self { offer: change(self.offer), node: self.node }
    }

    /// As [`ActorOffer::asks`].
    pub fn asks<A: Call<Service = S>>(
        self,
        message: impl Fn(A, RpcReplyPort<A::Reply>) -> M + Send + Sync + 'static,
    ) -> Self {
        self.with(|offer| offer.asks(message))
    }

    /// As [`ActorOffer::tells`].
    pub fn tells<A: Cast<Service = S>>(
        self,
        message: impl Fn(A) -> M + Send + Sync + 'static,
    ) -> Self {
        self.with(|offer| offer.tells(message))
    }

    /// As [`ActorOffer::tells_with`].
    pub fn tells_with<A: Cast<Service = S>>(
        self,
        message: impl Fn(A, Room) -> M + Send + Sync + 'static,
    ) -> Self {
        self.with(|offer| offer.tells_with(message))
    }

    /// As [`OfferBuilder::call`]: a function beside the actor.
    pub fn call<A, F, R>(self, handler: F) -> Self
    where
        A: Call<Service = S>,
        F: Fn(A, Context) -> R + Send + Sync + 'static,
        R: Future<Output = A::Reply> + Send + 'static,
    {
        self.with(|offer| offer.call(handler))
    }

    /// As [`OfferBuilder::restrict`].
    pub fn restrict(self, method: Method, access: Access) -> Self {
        self.with(|offer| offer.restrict(method, access))
    }

    /// As [`OfferBuilder::room`].
    pub fn room(self, concurrency: usize, queue: usize) -> Self {
        self.with(|offer| offer.room(concurrency, queue))
    }

    /// Exposes the actor until it ends. Its address can be sent in messages and is bound with
    /// [`Gossipmonger::bind`]. Nothing is announced to other nodes.
    ///
    /// # Errors
    /// [`OfferError`]; then it is not exposed. [`OfferError::TooManyExposed`] if [`EXPOSED_MAX`] actors are.
    pub fn start(self) -> Result<Address<S>, OfferError> {
        let (actor, node) = (self.offer.actor().get_cell(), self.node);
        let clients = self.offer.admits_clients();
        let offered = self.offer.into_offered()?;
        let services = &node.shared.services;
        let added = services.exposed.add(offered.clone(), &mut node.shared.ambient.rng());
        let number = added.map_err(|error| match error {
            NotExposed::TooMany => OfferError::TooManyExposed,
            NotExposed::Draining => OfferError::Draining,
        })?;
        node.admit_calls(clients);
        let address = Address::exposed(node.node().clone(), node.generation(), number);
        let runtime = node.runtime.clone();
        runtime.spawn(async move {
            tokio::select! {
                biased;
                () = until_ended(&actor) => {}
                () = node.shared.end.begun() => {}
            }
            offered.close();
            node.shared.services.exposed.remove(number);
        });
        Ok(address)
    }
}
