//! Offering a ractor actor as a service. Its own message type needs neither serde nor ractor's `cluster`.

use std::sync::{Arc, Mutex, PoisonError};

use ractor::{ActorCell, ActorRef, Message, RpcReplyPort};

use super::{
    Call, Caller, Cast, ClientStream, Duplex, Method, ServerStream, Service,
    access::Access,
    context::Context,
    counted::TARGET,
    job::Job,
    messages::{decode_cast, decode_question, encode_answer},
    offer::{Offer, OfferBuilder, OfferError},
    offered::Offered,
    reply::once_replied,
    stream::{ByteReceiver, ByteSender, ItemError, ItemReceiver, ItemSender},
};
use crate::{
    node::services::caller::CallerName,
    protocol::service::{frame::Code, shared_rate::SharedRate},
};

/// Messages in a second, unless the offer says otherwise.
const CASTS_PER_SECOND: u64 = 10_000;

/// A service that is about to be offered, whose methods an actor answers.
#[must_use = "a service is offered only when it is started"]
#[derive(Debug)]
pub struct ActorOffer<S: Service, M: Message> {
    builder: OfferBuilder<S>,
    actor: ActorRef<M>,
    /// The messages without an answer that no place in its room limits.
    cast_rate: Arc<Mutex<SharedRate<CallerName>>>,
}

impl<S: Service> OfferBuilder<S> {
    /// Answers methods with the messages of an actor. The offer is withdrawn when the actor ends.
    pub fn actor<M: Message>(self, actor: &ActorRef<M>) -> ActorOffer<S, M> {
        let cast_rate = Arc::new(Mutex::new(cast_rate(CASTS_PER_SECOND)));
        ActorOffer { builder: self, actor: actor.clone(), cast_rate }
    }
}

impl<S: Service, M: Message> ActorOffer<S, M> {
    /// Turns the questions of a method into messages of the actor. They arrive in its mailbox in the order in which
    /// they arrive at this node. The port's timeout is what is left of the deadline; the port is closed when the caller
    /// has given up.
    pub fn asks<A: Call<Service = S>>(
        self,
        message: impl Fn(A, RpcReplyPort<A::Reply>) -> M + Send + Sync + 'static,
    ) -> Self {
        let actor = self.actor.clone();
        let run = move |job: Job| {
            let Job { body, context, answer, place, .. } = job;
            let ask: A = match decode_question::<A>(body) {
                Ok(ask) => ask,
                Err(error) => return answer.refuse(Code::Malformed, error.to_string()),
            };
            if !answer.begins() {
                return answer.refuse(Code::Deadline, "");
            }
            let (port, reply) = ractor::concurrency::oneshot();
            let port = RpcReplyPort::from((port, context.left()));
            if actor.cast(message(ask, port)).is_err() {
                return answer.refuse(Code::ActorEnded, "");
            }
            let (running, actor) = (answer.running.clone(), actor.clone());
            let span = tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
                .then(tracing::Span::current);
            let waits = once_replied(reply, move |reply| {
                let _entered = span.as_ref().map(tracing::Span::enter);
                let _place = place;
                match reply {
                    Ok(reply) => answer.reply(encode_answer::<A>(&reply)),
                    Err(_) if has_ended(&actor.get_cell()) => answer.refuse(Code::ActorEnded, ""),
                    Err(_) => answer.refuse(Code::NoAnswer, "the actor dropped the reply port"),
                }
            });
            if let Some(running) = running {
                running.runs_elsewhere(waits);
            }
        };
        self.map(|builder| builder.handle(A::METHOD, Box::new(run)))
    }

    /// Turns the messages of a method into messages of the actor, in the order in which they arrive at this node. The
    /// mailbox of an actor has no limit of its own, so their rate is limited ([`ActorOffer::casts_per_second`]).
    /// [`ActorOffer::tells_with`] limits how many of them wait.
    pub fn tells<A: Cast<Service = S>>(
        self,
        message: impl Fn(A) -> M + Send + Sync + 'static,
    ) -> Self {
        let (casts, clock) = (Arc::clone(&self.cast_rate), self.builder.node.shared.clock);
        let has_room = move |caller: &Caller| {
            let mut rates = casts.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(clock.now(), caller.name())
        };
        self.casts(has_room, move |cast, room: Room| {
            drop(room);
            message(cast)
        })
    }

    /// The messages in a second that [`ActorOffer::tells`] hands to the actor. Default 10,000, half of them of one caller; the rest
    /// is dropped.
    pub fn casts_per_second(self, most: u32) -> Self {
        *self.cast_rate.lock().unwrap_or_else(PoisonError::into_inner) = cast_rate(most.into());
        self
    }

    /// As [`ActorOffer::tells`]. The message carries its place in the room of the offer, so messages that the actor has
    /// not handled count against the limits of the offer. Dropping the [`Room`] gives the place back.
    pub fn tells_with<A: Cast<Service = S>>(
        self,
        message: impl Fn(A, Room) -> M + Send + Sync + 'static,
    ) -> Self {
        self.casts(|_| true, message)
    }

    /// `has_room`: whether there is room for one more message.
    fn casts<A: Cast<Service = S>>(
        self,
        has_room: impl Fn(&Caller) -> bool + Send + Sync + 'static,
        message: impl Fn(A, Room) -> M + Send + Sync + 'static,
    ) -> Self {
        let actor = self.actor.clone();
        let run = move |job: Job| {
            let Job { body, answer, place, context, .. } = job;
            if !has_room(context.caller()) {
                return answer.refuse(Code::Overloaded, "");
            }
            match decode_cast::<A>(body) {
                Ok(told) => {
                    let sent = actor.cast(message(told, Room(Box::new(place))));
                    match sent {
                        Ok(()) => answer.took(),
                        Err(_) => answer.refuse(Code::ActorEnded, ""),
                    }
                }
                Err(error) => answer.refuse(Code::Malformed, error.to_string()),
            }
        };
        self.map(|builder| builder.handle(A::METHOD, Box::new(run)))
    }

    /// As [`OfferBuilder::call`]: a function beside the actor.
    pub fn call<A, F, R>(self, handler: F) -> Self
    where
        A: Call<Service = S>,
        F: Fn(A, Context) -> R + Send + Sync + 'static,
        R: Future<Output = A::Reply> + Send + 'static,
    {
        self.map(|builder| builder.call(handler))
    }

    fn map(self, next: impl FnOnce(OfferBuilder<S>) -> OfferBuilder<S>) -> Self {
        Self { builder: next(self.builder), actor: self.actor, cast_rate: self.cast_rate }
    }

    pub(super) const fn actor(&self) -> &ActorRef<M> {
        &self.actor
    }

    pub(super) fn admits_clients(&self) -> bool {
        self.builder.admits_clients()
    }

    pub(super) fn into_offered(self) -> Result<Arc<Offered>, OfferError> {
        self.builder.into_offered()
    }

    /// As [`OfferBuilder::restrict`].
    pub fn restrict(self, method: Method, access: Access) -> Self {
        self.map(|builder| builder.restrict(method, access))
    }

    /// As [`OfferBuilder::stream`]: a function beside the actor.
    pub fn stream<A, F, R>(self, handler: F) -> Self
    where
        A: ServerStream<Service = S>,
        F: Fn(A, ItemSender<A>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), ItemError>> + Send + 'static,
    {
        self.map(|builder| builder.stream(handler))
    }

    /// As [`OfferBuilder::collect`]: a function beside the actor.
    pub fn collect<A, F, R>(self, handler: F) -> Self
    where
        A: ClientStream<Service = S>,
        F: Fn(A, ItemReceiver<A>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A::Reply, ItemError>> + Send + 'static,
    {
        self.map(|builder| builder.collect(handler))
    }

    /// As [`OfferBuilder::duplex`]: a function beside the actor.
    pub fn duplex<A, F, R>(self, handler: F) -> Self
    where
        A: Duplex<Service = S>,
        F: Fn(A, (ByteSender, ByteReceiver), Context) -> R + Send + Sync + 'static,
        R: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        self.map(|builder| builder.duplex(handler))
    }

    /// As [`OfferBuilder::room`].
    pub fn room(self, concurrency: usize, queue: usize) -> Self {
        self.map(|builder| builder.room(concurrency, queue))
    }

    /// As [`OfferBuilder::start`].
    ///
    /// # Errors
    /// As there.
    pub async fn start(self) -> Result<Offer, OfferError> {
        let (actor, runtime) = (self.actor.clone(), self.builder.node.runtime.clone());
        let offer = self.builder.start().await?;
        let withdraws = offer.on_end();
        runtime.spawn(async move {
            let cell = actor.get_cell();
            tokio::select! {
                biased;
                () = withdraws.over() => {}
                () = until_ended(&cell) => withdraws.withdraw(),
            }
        });
        Ok(offer)
    }
}

/// So many messages in a second, of which one caller gets half.
const fn cast_rate(per_second: u64) -> SharedRate<CallerName> {
    SharedRate::new(per_second, per_second.div_ceil(2))
}

fn has_ended(cell: &ActorCell) -> bool {
    cell.get_status() >= ractor::ActorStatus::Stopping
}

/// Waits until an actor has ended.
pub(super) async fn until_ended(cell: &ActorCell) {
    // Without a limit there is no timeout to report.
    let _ = cell.wait(None).await;
}

/// A place in the room of an offer; given back when dropped.
pub struct Room(#[expect(dead_code, reason = "it is dropped")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}
