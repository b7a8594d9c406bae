//! Offering a service, with a function for each method.

use std::{any::Any, collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    Call, Cast, Method, Service,
    access::Access,
    context::Context,
    inline::Runs,
    job::Job,
    messages::{decode_cast, decode_question, encode_answer},
    offered::{Handler, Offered, Offering},
};
use crate::{
    node::{
        Gossipmonger,
        messages::ServicesMessage,
        services::{offered::Offered as ByConnections, table::NotOffered},
    },
    protocol::{
        id::{InvalidLabel, NodeId},
        service::{
            ServiceId, ServiceName, clients::CLIENT_NAMES_MAX, exposed::EXPOSED_MAX, frame::Code,
            manifest, room::RoomLimits,
        },
    },
};

/// Why a service is not offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The name of the service is not a label.
    #[error(transparent)]
    Name(#[from] InvalidLabel),
    /// A method has no handler.
    #[error("the method {number} ({name}) of {service} has no handler")]
    NoHandler {
        /// The service.
        service: &'static str,
        /// The number of the method.
        number: u16,
        /// Its name.
        name: &'static str,
    },
    /// Two methods of the service have one number, or a handler is for no method of it.
    #[error("{service} has no method {number}, or two of that number")]
    Methods {
        /// The service.
        service: &'static str,
        /// The number.
        number: u16,
    },
    /// A limit of its room is zero or too large.
    #[error(
        "{0}: 1 to 1,000,000 may run, at most 1,000,000 may wait, a caller may use 1 to 100 %, a call is remembered for at most a day"
    )]
    Limits(&'static str),
    /// The node offers this service in this major version already.
    #[error("this node offers {0} already")]
    Taken(ServiceId),
    /// The node exposes as many actors as it may.
    #[error("this node exposes {EXPOSED_MAX} actors already, the most that are allowed")]
    TooManyExposed,
    /// The node offers as many services as it may.
    #[error(
        "this node offers {} services already, the most that are allowed",
        manifest::OFFERS_MAX
    )]
    TooMany,
    /// The offer names more clients than allowed, or all offers of the node together do.
    #[error(
        "an offer may name {CLIENT_NAMES_MAX} clients, all offers of this node together {}: admit them by their role",
        manifest::NAMES_MAX
    )]
    TooManyClients,
    /// Names that begin with `gossipmonger.` are those of built-in services.
    #[error(
        "the name {0} is reserved: names that begin with {RESERVED} are those of built-in services"
    )]
    Reserved(&'static str),
    /// The node drains: it takes no new requests any more.
    #[error("this node drains")]
    Draining,
    /// The list of services cannot be written to the node's map.
    #[error("the list of services cannot be published: {0}")]
    NotAnnounced(String),
    /// The node has ended.
    #[error("this node has ended")]
    Stopped,
}

/// The longest time for which an offer remembers a call.
const ONCE_WINDOW_MAX: Duration = Duration::from_secs(86_400);

/// The beginning of the names of built-in services.
const RESERVED: &str = "gossipmonger.";

/// A service that is about to be offered: it needs a handler for each method.
#[must_use = "a service is offered only when it is started"]
pub struct OfferBuilder<S: Service> {
    pub(super) node: Gossipmonger,
    access: Access,
    pub(super) methods: BTreeMap<u16, Offering>,
    limits: RoomLimits,
    weight: u8,
    once: Option<Duration>,
    audited: bool,
    clash: Option<u16>,
    service: PhantomData<S>,
}

impl<S: Service> std::fmt::Debug for OfferBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfferBuilder").field("service", &S::NAME).finish_non_exhaustive()
    }
}

impl<S: Service> OfferBuilder<S> {
    pub(super) fn new(node: Gossipmonger, access: Access) -> Self {
        Self {
            node,
            access,
            methods: BTreeMap::new(),
            limits: RoomLimits::default(),
            weight: 1,
            once: None,
            audited: false,
            clash: None,
            service: PhantomData,
        }
    }

    /// Answers the questions of a method with a function. Each run is a task of its own, which is dropped when the
    /// caller gives up. If the last runs have ended at once, a run for another node or a client begins in the task that
    /// reads its requests, and gets one of its own when it waits. A function that blocks its thread holds up others, as anywhere in tokio.
    pub fn call<M, F, A>(self, handler: F) -> Self
    where
        M: Call<Service = S>,
        F: Fn(M, Context) -> A + Send + Sync + 'static,
        A: Future<Output = M::Reply> + Send + 'static,
    {
        self.answer(|_: &M, _: &Context| Ok(()), handler)
    }

    /// As [`OfferBuilder::call`], for questions that belong to one provider by their key, whom callers find by
    /// [`Stub::by_key`](super::Stub::by_key). A question whose key belongs to another provider of all, as this node knows
    /// them, is refused with its name ([`NotRun::NotOwner`](super::NotRun::NotOwner)), and the call goes there.
    pub fn call_by_key<M, K, F, A>(
        self,
        key: impl Fn(&M) -> K + Send + Sync + 'static,
        handler: F,
    ) -> Self
    where
        M: Call<Service = S>,
        K: AsRef<[u8]>,
        F: Fn(M, Context) -> A + Send + Sync + 'static,
        A: Future<Output = M::Reply> + Send + 'static,
    {
        let owned = move |ask: &M, context: &Context| match context.owner(key(ask), None) {
            Some(owner) if owner != *context.serving.node() => Err(owner),
            _ => Ok(()),
        };
        self.answer(owned, handler)
    }

    /// `owned`: the owner of a question, if another node is.
    fn answer<M, F, A>(
        self,
        owned: impl Fn(&M, &Context) -> Result<(), NodeId> + Send + Sync + 'static,
        handler: F,
    ) -> Self
    where
        M: Call<Service = S>,
        F: Fn(M, Context) -> A + Send + Sync + 'static,
        A: Future<Output = M::Reply> + Send + 'static,
    {
        let (handler, runs) = (Arc::new((owned, handler)), Arc::new(Runs::default()));
        let run = move |job: Job| {
            let Job { body, held, context, answer, place, by_reader, .. } = job;
            let (handler, owner) = (Arc::clone(&handler), Arc::clone(&answer.owner));
            let running = answer.running.clone();
            let task = async move {
                let _place = place;
                let ask: M = match decode_question::<M>(body) {
                    Ok(ask) => ask,
                    Err(error) => return answer.refuse(Code::Malformed, error.to_string()),
                };
                drop(held);
                let (owned, handler) = handler.as_ref();
                if let Err(owner) = owned(&ask, &context) {
                    return answer.refuse(Code::NotOwner, owner.as_str());
                }
                if !answer.begins() {
                    return answer.refuse(Code::Deadline, "");
                }
                let reply = handler(ask, context).await;
                answer.reply(encode_answer::<M>(&reply));
            };
            Job::begin((owner.as_ref(), by_reader), running.as_ref(), &runs, task);
        };
        self.handle(M::METHOD, Box::new(run))
    }

    /// Takes the messages of a method with a function, as [`OfferBuilder::call`] does.
    pub fn cast<M, F, A>(self, handler: F) -> Self
    where
        M: Cast<Service = S>,
        F: Fn(M, Context) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let (handler, runs) = (Arc::new(handler), Arc::new(Runs::default()));
        let run = move |job: Job| {
            let Job { body, held, context, answer, place, by_reader, .. } = job;
            let (handler, owner) = (Arc::clone(&handler), Arc::clone(&answer.owner));
            let task = async move {
                let _place = place;
                match decode_cast::<M>(body) {
                    Ok(message) => {
                        drop(held);
                        answer.took();
                        handler(message, context).await;
                    }
                    Err(error) => answer.refuse(Code::Malformed, error.to_string()),
                }
            };
            Job::begin((owner.as_ref(), by_reader), None, &runs, task);
        };
        self.handle(M::METHOD, Box::new(run))
    }

    pub(super) fn handle(mut self, method: Method, handler: Handler) -> Self {
        let offering = Offering::new(handler, &method);
        if self.methods.insert(method.number, offering).is_some() {
            self.clash = Some(method.number);
        }
        self
    }

    /// Narrows who may use one method, besides the access to the service. It applies to a method that has a handler.
    pub fn restrict(mut self, method: Method, access: Access) -> Self {
        match self.methods.get_mut(&method.number) {
            Some(offering) => offering.access = Some(access),
            None => self.clash = Some(method.number),
        }
        self
    }

    /// How many requests run at once (default 256), and how many wait (default 1,024). A further one is refused.
    pub fn room(mut self, concurrency: usize, queue: usize) -> Self {
        (self.limits.concurrency, self.limits.queue) = (concurrency, queue);
        self
    }

    /// One request runs at a time; the others wait, as many as [`OfferBuilder::room`] says. Those of one caller run in
    /// the order in which it has sent them, and the callers take turns.
    pub fn one_at_a_time(mut self) -> Self {
        self.limits.concurrency = 1;
        self
    }

    /// The part of the room that one caller may use, in per cent. Default 50.
    pub fn per_caller(mut self, percent: usize) -> Self {
        self.limits.per_caller = percent;
        self
    }

    /// The load that this node takes beside other providers: with weight 2 about twice that of weight 1. Default 1.
    pub fn weight(mut self, weight: u8) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// Remembers each question with one answer for this time after its end, at most a day, with its answer if that has at
    /// most [`ONCE_REPLY_MAX`](super::ONCE_REPLY_MAX) bytes. One that comes again with the same identity
    /// ([`Calling::repeats`](super::Calling::repeats)) is answered from memory: it runs once at this node, in this
    /// generation of the node and this registration of the offer.
    ///
    /// Its run does not end with the caller or the deadline, since the caller may ask again. An offer remembers
    /// [`ONCE_MAX`](super::ONCE_MAX) calls, [`ONCE_PER_CALLER`](super::ONCE_PER_CALLER) of one caller, and refuses further
    /// ones.
    pub fn once(mut self, window: Duration) -> Self {
        self.once = Some(window);
        self
    }

    /// Logs the end of each call and message with its caller, method, outcome and time: target `gossipmonger::audit`,
    /// level `INFO`. Refusals because of who calls are logged of every offer, at `WARN`, about ten in a second.
    pub fn audited(mut self) -> Self {
        self.audited = true;
        self
    }

    /// Offers the service. Returns once the offer is in this node's map, and on its way to all others.
    ///
    /// # Errors
    /// [`OfferError`]; then it is not offered.
    pub async fn start(self) -> Result<Offer, OfferError> {
        if S::NAME.starts_with(RESERVED) {
            return Err(OfferError::Reserved(S::NAME));
        }
        self.start_built_in().await
    }

    /// As [`start`](Self::start), also for a reserved name: the agent's own service has one.
    ///
    /// # Errors
    /// [`OfferError`]; then it is not offered.
    #[doc(hidden)]
    pub async fn start_built_in(self) -> Result<Offer, OfferError> {
        // A client finds the offer in the directory.
        let directory = match self.access.admitted().is_none() {
            true => None,
            false => Some(self.node.offer_directory()?),
        };
        let (mut offer, number) = self.register()?;
        offer.kept = directory.map(|directory| Box::new(directory) as Box<dyn Any + Send + Sync>);
        let node = offer.node.clone();
        tokio::select! {
            biased;
            announced = node.shared.services.is_announced(number) => {
                announced.map(|()| offer).map_err(OfferError::NotAnnounced)
            }
            () = node.shared.end.begun() => Err(OfferError::Stopped),
        }
    }

    pub(super) fn admits_clients(&self) -> bool {
        !self.access.admitted().is_none()
    }

    /// The service, if all is there that it needs. Nobody can call it yet.
    pub(super) fn into_offered(self) -> Result<Arc<Offered>, OfferError> {
        self.check()?;
        let id = ServiceId { name: ServiceName::new(S::NAME)?, major: S::VERSION.major };
        let of_node = (Arc::clone(&self.node.shared), self.node.runtime);
        let offered = Offered::new(id, of_node, self.access, self.methods, self.limits);
        Ok(Arc::new(offered.remembering(self.once).audited(self.audited)))
    }

    /// Registers the offer; returns the number of the change that announces it.
    pub(super) fn register(self) -> Result<(Offer, u64), OfferError> {
        let (node, weight, clients) = (self.node.clone(), self.weight, self.access.admitted());
        let admits_clients = self.admits_clients();
        let offered = self.into_offered()?;
        let (id, shared) = (offered.id.clone(), Arc::clone(&node.shared));
        let name = id.name.clone();
        let announced = manifest::Offered { name, version: S::VERSION, weight, clients, epoch: 0 };
        let by_connections: Arc<dyn ByConnections> = Arc::<Offered>::clone(&offered);
        let added = shared.services.add(&id, by_connections, announced);
        let number = added.map_err(|error| match error {
            NotOffered::Taken => OfferError::Taken(id),
            NotOffered::TooMany => OfferError::TooMany,
            NotOffered::TooManyClients => OfferError::TooManyClients,
            NotOffered::Draining => OfferError::Draining,
        })?;
        node.admit_calls(admits_clients);
        shared.routes.services.cast(ServicesMessage::Changed);
        Ok((Offer { node, offered, withdrawn: false, kept: None }, number))
    }

    fn check(&self) -> Result<(), OfferError> {
        let service = S::NAME;
        let numbers: Vec<_> = S::METHODS.iter().map(|method| method.number).collect();
        let twice = numbers.iter().enumerate().find(|(at, number)| numbers[..*at].contains(number));
        let foreign = self.methods.keys().find(|number| !numbers.contains(number));
        let clash = self.clash.as_ref().or_else(|| twice.map(|(_, number)| number)).or(foreign);
        if let Some(&number) = clash {
            return Err(OfferError::Methods { service, number });
        }
        let missing = S::METHODS.iter().find(|method| !self.methods.contains_key(&method.number));
        if let Some(Method { number, name, .. }) = missing {
            return Err(OfferError::NoHandler { service, number: *number, name });
        }
        if self.access.admitted().names().len() > CLIENT_NAMES_MAX {
            return Err(OfferError::TooManyClients);
        }
        let RoomLimits { concurrency, queue, per_caller } = self.limits;
        if !(1..=1_000_000).contains(&concurrency) || queue > 1_000_000 {
            return Err(OfferError::Limits("room"));
        }
        if !(1..=100).contains(&per_caller) {
            return Err(OfferError::Limits("per_caller"));
        }
        if self.once.is_some_and(|window| window.is_zero() || window > ONCE_WINDOW_MAX) {
            return Err(OfferError::Limits("once"));
        }
        Ok(())
    }
}

impl Gossipmonger {
    /// From now on calls are accepted in the handshake.
    pub(super) fn admit_calls(&self, of_clients: bool) {
        if let Some(endpoint) = self.shared.endpoint.upgrade() {
            endpoint.admit(crate::net::Protocol::Services);
            if of_clients {
                endpoint.admit_clients_to_services();
            }
        }
    }
}

/// A service that this node offers. Dropping it withdraws the service at once.
#[derive(Debug)]
#[must_use = "dropping it withdraws the service"]
pub struct Offer {
    node: Gossipmonger,
    offered: Arc<Offered>,
    withdrawn: bool,
    /// What is dropped with it.
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Offer {
    /// Withdraws the service: no further call is taken, and those that run have this long to end. Returns whether all
    /// have ended.
    pub async fn withdraw(mut self, limit: Duration) -> bool {
        let number = self.remove();
        let emptied = tokio::time::timeout(limit, async {
            let _ = self.node.shared.services.is_announced(number).await;
            self.offered.emptied().await;
        });
        tokio::select! {
            biased;
            emptied = emptied => emptied.is_ok(),
            () = self.node.shared.end.begun() => false,
        }
    }

    fn remove(&mut self) -> u64 {
        self.withdrawn = true;
        let number = remove(&self.node, &self.offered);
        self.kept = None;
        number
    }

    /// For the task that withdraws it when the actor behind it has ended.
    pub(super) fn on_end(&self) -> OnEnd {
        OnEnd { node: self.node.clone(), offered: Arc::clone(&self.offered) }
    }
}

/// Withdraws an offer whose actor has ended.
pub(super) struct OnEnd {
    node: Gossipmonger,
    offered: Arc<Offered>,
}

impl OnEnd {
    /// Waits until the offer is withdrawn by other means, or the node ends.
    pub(super) async fn over(&self) {
        tokio::select! {
            biased;
            () = self.offered.closed() => {}
            () = self.node.shared.end.begun() => {}
        }
    }

    pub(super) fn withdraw(&self) {
        remove(&self.node, &self.offered);
    }
}

fn remove(node: &Gossipmonger, offered: &Arc<Offered>) -> u64 {
    offered.close();
    let by_connections: Arc<dyn ByConnections> = Arc::<Offered>::clone(offered);
    let number = node.shared.services.withdraw(&offered.id, &by_connections);
    node.shared.routes.services.cast(ServicesMessage::Changed);
    number
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.withdrawn {
            self.remove();
        }
    }
}
