//! The path of one call: a provider, an attempt there, and whether there is another one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;
use tokio::{
    sync::{SemaphorePermit, oneshot, watch},
    task::AbortHandle,
};
use tracing::{
    Instrument,
    field::{Empty, display},
};

use super::{
    Method,
    conversation::Conversation,
    counted::{Counted, Rows, TARGET, count_cast},
    error::{By, CallError, CallFailure, NotRun},
    place::Where,
    side::{Here, Side},
};
use crate::{
    node::services::{
        link::{InFlight, Link},
        offered::{Inbound, InboundCast},
        outbound::{Found, NoLink},
        paths::MEASURED_EVERY,
        responder::Responder,
        running::Running,
    },
    protocol::{
        id::{Generation, NodeId},
        route::Counter,
        service::{
            ServiceId,
            attempt::{Attempts, Ending},
            balance::{
                Ask, Balance, Bounds, NodeSet, Outcome as Judged, Prefer,
                retry::{Retry, RetryBudget},
            },
            calls::{NoRoom, Outcome},
            directory::{Listing, Provider},
            figures::CallOutcome,
            frame::LANE_BODY_MAX,
            identity::{Question, Tag},
            introduction::Purpose,
            link_end::LinkEnd,
        },
        time::Time,
    },
};

/// What one caller knows of one service.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) side: Arc<dyn Side>,
    pub(super) id: ServiceId,
    balance: Mutex<Balance>,
    budget: Mutex<RetryBudget>,
    /// The methods whose answers were too long for a lane: a bit for each number, modulo 64.
    long: AtomicU64,
    /// When the distances of datacenters are due again, in nanoseconds from the origin of time.
    measures_at: AtomicU64,
    rows: Rows,
    /// The nodes that may answer; `None`: all.
    pub(super) only: Option<Arc<NodeSet>>,
    /// Nodes that get a share of the calls, and others that get the rest.
    pub(super) share: Option<Share>,
}

/// A share of the calls, between 0 and 1, for some of the nodes.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) of: Arc<NodeSet>,
    pub(super) part: f64,
}

/// The options of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) idempotent: bool,
    /// It has a stream of its own.
    pub(super) alone: bool,
    /// A second provider is asked if the first one has not answered after this time.
    pub(super) hedge: Option<Duration>,
    /// What travels beside the question.
    pub(super) tag: Tag,
}

impl How {
    /// Of a call with this number, without options.
    pub(super) const fn plain(number: u64) -> Self {
        let tag = Tag { number, trace: None };
        Self { idempotent: false, alone: false, hedge: None, tag }
    }
}

/// What holds for all attempts of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) deadline: Time,
    pub(super) tag: Tag,
}

/// How a request goes to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// On the lane: the question and the answer are short.
    Lane,
    /// Over a stream of its own.
    Stream,
    /// Over a stream of its own, which goes on after the handler has begun.
    Open,
}

/// A node to call.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) node: NodeId,
    generation: Generation,
    wait: Duration,
    /// When it was picked.
    at: Time,
}

/// What came of a request: an encoded answer, or a stream that goes on.
pub(super) type Answered = (Bytes, Option<Box<Conversation>>);

impl Callee {
    pub(super) fn new(side: Arc<dyn Side>, id: ServiceId) -> Self {
        let balance = Mutex::new(side.balance());
        let rows = Rows::none(&side.outbound().figures);
        let (budget, long, measures_at) = Default::default();
        Self { side, id, balance, budget, long, measures_at, rows, only: None, share: None }
    }

    /// The same bounds, without figures.
    pub(super) fn anew(&self) -> Self {
        let mut anew = Self::new(Arc::clone(&self.side), self.id.clone());
        (anew.only, anew.share) = (self.only.clone(), self.share.clone());
        anew
    }

    /// Whether a provider is one of the nodes that may answer, as it says itself.
    pub(super) fn trusts(&self, provider: &Provider) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.has(&provider.node, Some(&provider.datacenter)))
    }

    /// Counts the calls of these methods, each by itself.
    pub(super) fn counts(&mut self, methods: &[Method]) {
        self.rows = Rows::of(&self.side.outbound().figures, &self.id, methods);
    }

    /// Reads what live nodes offer of the service.
    pub(super) fn listing<T: Default>(&self, read: impl FnOnce(&Listing) -> T) -> T {
        let listings = self.side.outbound().watched.listings();
        listings.get(&self.id).map(read).unwrap_or_default()
    }

    /// Signals each change of what nodes offer from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.side.outbound().watched.changes()
    }

    /// Signals each end of a node, or of its generation, from now on.
    pub(super) fn ends(&self) -> watch::Receiver<u64> {
        self.side.outbound().watched.ends()
    }

    /// Waits until this node ends.
    pub(super) async fn ended(&self) {
        self.side.ended().await;
    }

    /// Runs a task in the runtime of this node.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.side.runtime().spawn(task).abort_handle()
    }

    /// The number of another call.
    pub(super) fn number(&self) -> u64 {
        self.side.outbound().tags.number()
    }

    /// Increments a counter of this node.
    pub(super) fn count(&self, counter: Counter) {
        self.side.count(counter);
    }

    pub(super) fn now(&self) -> Time {
        self.side.outbound().clock().now()
    }

    /// The node of this process, if it is this one.
    pub(super) fn here(&self, node: &NodeId) -> Option<&Here> {
        self.side.here().filter(|here| here.node() == node)
    }

    fn balance<T>(&self, work: impl FnOnce(&mut Balance) -> T) -> T {
        work(&mut self.balance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn budget<T>(&self, work: impl FnOnce(&mut RetryBudget) -> T) -> T {
        work(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls a method; returns the encoded answer.
    pub(super) async fn call(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        how: How,
    ) -> Result<Bytes, CallError> {
        let long = body.len() > LANE_BODY_MAX || self.long.load(Relaxed) & bit(method) != 0;
        let path = if how.alone || long { Path::Stream } else { Path::Lane };
        let hedge = how.hedge.filter(|_| how.idempotent);
        let how = (how.idempotent, path, hedge, how.tag);
        let answered = self.run(place, method, body, within, how).await;
        answered.map(|(reply, _)| reply)
    }

    /// Opens the stream of a method; returns once its handler has begun.
    pub(super) async fn open(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        tag: Tag,
    ) -> Result<Box<Conversation>, CallError> {
        let how = (method.idempotent, Path::Open, None, tag);
        let (_, conversation) = self.run(place, method, body, within, how).await?;
        Ok(conversation.expect("an open stream is what succeeds"))
    }

    /// Runs a call to its end, or a stream to its begin, in a span if a subscriber takes it.
    async fn run(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        how: (bool, Path, Option<Duration>, Tag),
    ) -> Result<Answered, CallError> {
        if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let called = self.counted(place, method, body, within, how).await;
            return called.map(|(answered, _)| answered);
        }
        let span = tracing::debug_span!(
            target: TARGET, "call", service = %self.id, method = method.name,
            node = Empty, outcome = Empty, error = Empty
        );
        // Boxed, so that the usual path has no room for it.
        let called = Box::pin(self.counted(place, method, body, within, how));
        let called = called.instrument(span.clone()).await;
        let (node, outcome) = match &called {
            Ok((_, node)) => (Some(node), CallOutcome::Ok),
            Err(error) => {
                span.record("error", display(error));
                (error.node(), CallOutcome::failed(error.failure()))
            }
        };
        span.record("node", node.map(display)).record("outcome", outcome.as_str());
        called.map(|(answered, _)| answered)
    }

    /// Counts a call; returns also the node that has answered.
    async fn counted(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        (idempotent, path, hedge, mut tag): (bool, Path, Option<Duration>, Tag),
    ) -> Result<(Answered, NodeId), CallError> {
        let counted = Counted::new(self.rows.row(method.number));
        tag.trace = tag.trace.or_else(|| self.side.outbound().tags.current());
        let called = match hedge {
            None => self.tried(place, method, body, within, (idempotent, path, tag)).await,
            Some(after) => {
                let hedged = self.hedged(place, method, body, within, (path, after, tag));
                let begun = self.now();
                let hedged = Box::pin(hedged).await;
                hedged.map(|(reply, node)| ((reply, None), node, self.now().since(begun)))
            }
        };
        match called {
            Ok((answered, node, took)) => {
                counted.answered(took);
                Ok((answered, node))
            }
            Err(error) => {
                counted.failed(error.failure());
                Err(error)
            }
        }
    }

    /// Waits for one of the places of calls in flight.
    async fn place(&self, deadline: Time) -> Result<Option<SemaphorePermit<'_>>, NotRun> {
        let place = self.side.outbound().in_flight.acquire();
        let full = NotRun::Overloaded { by: By::Caller, retry_after: Duration::ZERO };
        let left = deadline.since(self.now());
        let place = tokio::time::timeout(left, place).await.map_err(|_| full)?;
        // Nobody closes it.
        Ok(place.ok())
    }

    /// Calls a method until it is answered, or not tried again; returns also who has answered, and how long it took.
    async fn tried(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        (idempotent, path, tag): (bool, Path, Tag),
    ) -> Result<(Answered, NodeId, Duration), CallError> {
        let (body, mut attempts, mut target) =
            self.first(place, method, body, (within, idempotent))?;
        let deadline = attempts.deadline();
        let terms = Terms { deadline, tag };
        loop {
            let (ending, open, now) =
                self.attempt(&target, method, body.clone(), terms, path).await;
            match ending.result {
                Ok(reply) => {
                    let took = within.saturating_sub(deadline.since(now));
                    return Ok(((reply, open), target.node, took));
                }
                Err(failure) => {
                    let ended = (target.node, failure, ending.verdict);
                    target = Box::pin(self.again(place, method, &mut attempts, ended)).await?;
                }
            }
        }
    }

    /// What a call begins with: what travels of its question, its attempts, and where the first one goes.
    pub(super) fn first(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        (within, idempotent): (Duration, bool),
    ) -> Result<(Bytes, Attempts, Target), CallError> {
        let now = self.now();
        let (deadline, body) = (now + within, place.body(body));
        self.check_length(&body).map_err(|why| not_run(why, Vec::new()))?;
        self.budget(RetryBudget::called);
        let attempts = Attempts::new(idempotent, deadline);
        let target = self.target(place, method, attempts.tried(), now);
        Ok((body, attempts, target.map_err(|why| not_run(why, Vec::new()))?))
    }

    /// Where the next attempt goes, after one at this node has failed. It waits as long as that provider wants.
    pub(super) async fn again(
        &self,
        place: &Where,
        method: &Method,
        attempts: &mut Attempts,
        (node, failure, verdict): (NodeId, CallFailure, bool),
    ) -> Result<Target, CallError> {
        place.failed(&failure);
        attempts.failed(node, &failure);
        let next = match (attempts.follow(&failure), &failure) {
            (Some(better), _) => self.owner(place, method, &better),
            (None, CallFailure::NotRun(NotRun::NotOwner { .. })) => None,
            (None, _) => self.another(place, method, attempts.tried()),
        };
        let (now, wait) = (self.now(), next.as_ref().map(|next| next.wait));
        let ended = (&failure, verdict);
        let retry = self.budget(|budget| attempts.decide(budget, now, ended, wait));
        let (Some(mut next), false) = (next, matches!(retry, Retry::GiveUp(_))) else {
            let (failure, reasons) = attempts.clone().end(failure);
            return Err(CallError::new(failure, reasons));
        };
        if let Retry::After(wait) = retry {
            tokio::time::sleep(wait).await;
            next.at = self.now();
        }
        self.side.count(Counter::CallsRetried);
        self.rows.row(method.number).retry();
        Ok(next)
    }

    /// The node to which a key belongs, if a call of this kind may go there.
    fn owner(&self, place: &Where, method: &Method, node: &NodeId) -> Option<Target> {
        let found = self.listing(|listing| listing.find(node).cloned())?;
        let is_preferred = match place {
            Where::Any(Prefer::Datacenter(wanted)) => found.datacenter == *wanted,
            Where::Any(Prefer::Here) => self.here(node).is_some(),
            _ => true,
        };
        let usable = found.minor >= method.since && !found.draining && is_preferred;
        let Provider { node, generation, .. } =
            Some(found).filter(|found| usable && self.trusts(found))?;
        Some(Target { node, generation, wait: Duration::ZERO, at: self.now() })
    }

    /// Another provider than these, if the call may go to any.
    pub(super) fn another(
        &self,
        place: &Where,
        method: &Method,
        tried: &[NodeId],
    ) -> Option<Target> {
        match place {
            Where::Any(_) => self.target(place, method, tried, self.now()).ok(),
            Where::At(..) | Where::Exposed(_) => None,
        }
    }

    fn check_length(&self, body: &Bytes) -> Result<(), NotRun> {
        let allowed = self.side.outbound().limits().request_bytes;
        match body.len() > allowed {
            true => Err(NotRun::TooLarge { bytes: body.len(), allowed }),
            false => Ok(()),
        }
    }

    /// Takes a message for this node itself; returns the target of any other one.
    fn cast_here(
        &self,
        place: &Where,
        method: &Method,
        body: &mut Bytes,
    ) -> Result<Option<Target>, CallError> {
        *body = place.body(std::mem::take(body));
        self.check_length(body).map_err(|why| not_run(why, Vec::new()))?;
        let target =
            self.target(place, method, &[], self.now()).map_err(|why| not_run(why, Vec::new()))?;
        let Some(here) = self.here(&target.node) else { return Ok(Some(target)) };
        let offer = here.called(&self.id, body);
        let offer = offer.ok_or_else(|| failed_at(&target.node, NotRun::NoSuchService))?;
        let message = self.message(method, body);
        offer.cast(here.caller(), InboundCast { message, held: None, read_at: None });
        Ok(None)
    }

    /// A message, and what travels beside it.
    fn message(&self, method: &Method, body: &Bytes) -> Question {
        let tag = self.side.outbound().tags.of_message();
        Question { method: method.number, body: body.clone(), tag }
    }

    /// Sends a message without an answer; returns once a connection has taken it. It waits so long for room.
    pub(super) async fn cast(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
    ) -> Result<(), CallError> {
        let sent = self.send(place, method, body, within).await;
        count_cast(self.rows.row(method.number), &sent);
        sent
    }

    async fn send(
        &self,
        place: &Where,
        method: &Method,
        mut body: Bytes,
        within: Duration,
    ) -> Result<(), CallError> {
        let Some(target) = self.cast_here(place, method, &mut body)? else { return Ok(()) };
        let failed = |why: NotRun| failed_at(&target.node, why);
        if body.len() > LANE_BODY_MAX {
            let sent = Box::pin(self.cast_by_stream(&target, method, body, within)).await;
            return sent.map_err(failed);
        }
        if self.only.is_none() {
            let link = self.link(&target, Purpose::Lane).map_err(failed)?;
            if link.cast(&self.id, self.message(method, &body), target.at).is_ok() {
                return Ok(());
            }
        }
        let sent = Box::pin(self.send_with_room(&target, method, &body));
        match tokio::time::timeout(within, sent).await {
            Ok(sent) => sent.map_err(failed),
            Err(_) => Err(failed(NotRun::link_is_full())),
        }
    }

    /// Sends a message once there is room for it.
    async fn send_with_room(
        &self,
        target: &Target,
        method: &Method,
        body: &Bytes,
    ) -> Result<(), NotRun> {
        loop {
            let link = self.proved_link(target, Purpose::Lane).await?;
            let room = link.room.notified();
            match link.cast(&self.id, self.message(method, body), self.now()) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Ended) => again(&link)?,
                Err(NoRoom::Calls | NoRoom::Bytes) => room.await,
                Err(full) => return Err(NotRun::no_room(full, || link.why())),
            }
        }
    }

    /// Sends a message without an answer if there is room for it now.
    pub(super) fn try_cast(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
    ) -> Result<(), CallError> {
        let sent = self.try_send(place, method, body);
        count_cast(self.rows.row(method.number), &sent);
        sent
    }

    fn try_send(&self, place: &Where, method: &Method, mut body: Bytes) -> Result<(), CallError> {
        let Some(target) = self.cast_here(place, method, &mut body)? else { return Ok(()) };
        let failed = |why: NotRun| failed_at(&target.node, why);
        if body.len() > LANE_BODY_MAX {
            // A stream has to be waited for.
            return Err(failed(NotRun::TooLarge { bytes: body.len(), allowed: LANE_BODY_MAX }));
        }
        loop {
            let link = self.link(&target, Purpose::Lane).map_err(failed)?;
            if self.only.is_some() && !link.is_welcome() {
                return Err(failed(NotRun::NotConnected("not yet".to_owned())));
            }
            self.check_proof(&link).map_err(failed)?;
            match link.cast(&self.id, self.message(method, &body), target.at) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Ended) => again(&link).map_err(failed)?,
                Err(full) => return Err(failed(NotRun::no_room(full, || link.why()))),
            }
        }
    }

    /// Whether a registration of the service is known to be over. The node itself does not know of whom a caller
    /// thinks, since the name and the major version are all that a connection names.
    fn check_epoch(&self, node: &NodeId, generation: Generation, epoch: u32) -> Result<(), NotRun> {
        let listings = self.side.outbound().watched.listings();
        let listed = listings.get(&self.id).and_then(|listing| listing.find(node));
        let is_other =
            listed.is_some_and(|found| found.generation == generation && found.epoch != epoch);
        let restarted = self.here(node).is_some_and(|here| generation != here.generation());
        match is_other || restarted {
            true => Err(NotRun::NoSuchService),
            false => Ok(()),
        }
    }

    /// Where the next attempt goes.
    fn target(
        &self,
        place: &Where,
        method: &Method,
        tried: &[NodeId],
        at: Time,
    ) -> Result<Target, NotRun> {
        if self.side.has_ended() {
            return Err(NotRun::Stopped);
        }
        let prefer = match place {
            Where::At(node, generation, epoch) => {
                self.check_epoch(node, *generation, *epoch)?;
                return Ok(Target {
                    node: node.clone(),
                    generation: *generation,
                    wait: Duration::ZERO,
                    at,
                });
            }
            Where::Exposed(exposed) => {
                let (node, generation) = (exposed.node.clone(), exposed.generation);
                let restarted =
                    self.here(&node).is_some_and(|here| generation != here.generation());
                if exposed.has_ended() || restarted {
                    return Err(NotRun::NoSuchService);
                }
                return Ok(Target { node, generation, wait: Duration::ZERO, at });
            }
            Where::Any(prefer) => prefer,
        };
        self.pick((prefer, method.since), tried, at, |provider, wait| {
            let Provider { node, generation, .. } = provider;
            Target { node: node.clone(), generation: *generation, wait, at }
        })
    }

    /// Picks a provider of this minor version at least; `take` gets it, and how long it wants to be left alone.
    pub(super) fn pick<T>(
        &self,
        (prefer, since): (&Prefer, u16),
        tried: &[NodeId],
        now: Time,
        take: impl FnOnce(&Provider, Duration) -> T,
    ) -> Result<T, NotRun> {
        let listings = self.side.outbound().watched.listings();
        let listing = listings.get(&self.id).ok_or(NotRun::NoProvider)?;
        self.measure(now);
        let suspicion = |node: &NodeId| self.side.suspicion(node, now);
        let picked = self.balance(|balance| {
            let pick = |bounds| {
                let ask = Ask { since, prefer, tried, bounds };
                balance.pick(listing, &ask, now, &mut rand::rng(), suspicion)
            };
            let (bounds, otherwise) = self.bounds();
            let pick = match otherwise {
                None => pick(bounds),
                Some(otherwise) => pick(bounds).or_else(|_| pick(otherwise)),
            }?;
            Ok(take(pick.provider, pick.wait))
        });
        picked.map_err(|why| NotRun::no_pick(why, self.id.major))
    }

    /// Tells the balance from time to time how far the datacenters are.
    fn measure(&self, now: Time) {
        let nanos = |time: Time| u64::try_from(time.since_origin().as_nanos()).unwrap_or(u64::MAX);
        if nanos(now) >= self.measures_at.load(Relaxed) {
            self.measures_at.store(nanos(now + MEASURED_EVERY), Relaxed);
            self.balance(|balance| self.side.outbound().paths.feed(now, balance));
        }
    }

    /// The nodes that may answer.
    pub(super) fn trusted(&self) -> Bounds<'_> {
        Bounds { only: self.only.as_deref(), ..Bounds::default() }
    }

    /// The nodes that one call may go to, drawn by their share. If none of them can take it, the others may.
    fn bounds(&self) -> (Bounds<'_>, Option<Bounds<'_>>) {
        let trusted = self.trusted();
        let Some(share) = &self.share else { return (trusted, None) };
        let inside = Bounds { also: Some(&share.of), ..trusted };
        let outside = Bounds { except: Some(&share.of), ..trusted };
        match rand::rng().random_bool(share.part) {
            true => (inside, Some(outside)),
            false => (outside, Some(inside)),
        }
    }

    pub(super) async fn attempt(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        terms: Terms,
        path: Path,
    ) -> (Ending, Option<Box<Conversation>>, Time) {
        let node = &target.node;
        let begun = target.at;
        self.balance(|balance| balance.began(begun, node));
        let mut guard = Began { callee: self, node, begun, ended: false };
        let (ending, open) = match (path, self.here(node)) {
            // Boxed, so that the future of a small call is small: it is moved several times.
            (Path::Open, _) => Box::pin(self.open_at(target, method, body, terms)).await,
            (_, Some(here)) => (self.call_here(here, method, body, terms).await, None),
            (_, None) => (self.call_elsewhere(target, method, body, terms, path).await, None),
        };
        guard.ended = true;
        let now = self.now();
        let (load, judged) = (ending.load, ending.judged());
        self.balance(|balance| balance.ended(now, node, now.since(begun), load, judged));
        drop(guard);
        (ending, open, now)
    }

    /// Calls another node. A call of this node to itself takes no place: handlers that call each other would wait for
    /// the places that their callers hold.
    async fn call_elsewhere(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        terms: Terms,
        path: Path,
    ) -> Ending {
        let _place = match self.side.outbound().in_flight.try_acquire() {
            Ok(place) => Some(place),
            Err(_) => match Box::pin(self.place(terms.deadline)).await {
                Ok(place) => place,
                Err(why) => return Ending::not_run(why),
            },
        };
        match path {
            Path::Lane => self.call_there(target, method, body, terms).await,
            _ => Box::pin(self.call_by_stream(target, method, body, terms)).await,
        }
    }

    /// Calls a service of this node, without a connection.
    async fn call_here(
        &self,
        here: &Here,
        method: &Method,
        mut body: Bytes,
        Terms { deadline, tag }: Terms,
    ) -> Ending {
        let Some(offer) = here.called(&self.id, &mut body) else {
            return Ending::not_run(NotRun::NoSuchService);
        };
        let (waiter, answer) = oneshot::channel();
        let running = Arc::new(Running::default());
        let guard = Cancels(Arc::clone(&running));
        offer.request(
            here.caller(),
            Inbound {
                method: method.number,
                body,
                tag,
                deadline,
                running,
                responder: Responder::here(waiter),
                held: None,
                attached: None,
                read_at: None,
            },
        );
        let left = deadline.since(self.now());
        let outcome = match tokio::time::timeout(left, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Ended { sent: true },
            Err(_) => Outcome::Deadline { sent: true },
        };
        drop(guard);
        Ending::settle(outcome, || LinkEnd::Stopped)
    }

    async fn call_there(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        Terms { deadline, tag }: Terms,
    ) -> Ending {
        let question = Question { method: method.number, body, tag };
        let queued = match self.link(target, Purpose::Lane) {
            Ok(_) if self.only.is_some() => None,
            Ok(link) => link.call(&self.id, question.clone(), target.at, deadline).ok(),
            Err(why) => return Ending::not_run(why),
        };
        let call = match queued {
            Some(call) => call,
            None => match Box::pin(self.queue(target, question, deadline)).await {
                Ok(call) => call,
                Err(ending) => return ending,
            },
        };
        let (outcome, link) = call.ended().await;
        if matches!(&outcome, Outcome::Reply { body, .. } if body.len() > LANE_BODY_MAX) {
            // The next ones do not share a connection with small calls.
            self.long.fetch_or(bit(method), Relaxed);
        }
        Ending::settle(outcome, || link.why())
    }

    /// Queues a question on the lane to a node; waits for room.
    async fn queue(
        &self,
        target: &Target,
        question: Question,
        deadline: Time,
    ) -> Result<InFlight, Ending> {
        loop {
            let proved = self.proved_link(target, Purpose::Lane);
            let proved = tokio::time::timeout(deadline.since(self.now()), proved).await;
            let link = proved.unwrap_or(Err(NotRun::Deadline)).map_err(Ending::not_run)?;
            let room = link.room.notified();
            match link.call(&self.id, question.clone(), self.now(), deadline) {
                Ok(call) => return Ok(call),
                Err(NoRoom::Ended) => {
                    if again(&link).is_err() {
                        let outcome = Outcome::Ended { sent: false };
                        return Err(Ending::settle(outcome, || link.why()));
                    }
                }
                Err(NoRoom::Draining) => return Err(Ending::not_run(NotRun::Draining)),
                // No service is unbound before the link ends.
                Err(NoRoom::Binds) => return Err(Ending::not_run(NotRun::link_is_full())),
                Err(NoRoom::Calls | NoRoom::Bytes) => {
                    let left = deadline.since(self.now());
                    if tokio::time::timeout(left, room).await.is_err() {
                        return Err(Ending::not_run(NotRun::link_is_full()));
                    }
                }
            }
        }
    }

    /// The connection to a node; if this caller lets only some nodes answer, one whose certificate proves that it is to
    /// one of them.
    pub(super) async fn proved_link(
        &self,
        target: &Target,
        purpose: Purpose,
    ) -> Result<Arc<Link>, NotRun> {
        let link = self.link(target, purpose)?;
        if self.only.is_some() {
            link.welcomed().await;
            self.check_proof(&link)?;
        }
        Ok(link)
    }

    /// Whether the node at the other end is one of those that may answer. It says where it is; its certificate proves it.
    fn check_proof(&self, link: &Link) -> Result<(), NotRun> {
        let Some(only) = &self.only else { return Ok(()) };
        let Some(connection) = link.connection() else { return Ok(()) };
        match only.has(&link.peer, connection.peer().datacenter.as_ref()) {
            true => Ok(()),
            false => Err(NotRun::NotTrusted),
        }
    }

    /// The connection to a node; it is dialed if there is none.
    pub(super) fn link(&self, target: &Target, purpose: Purpose) -> Result<Arc<Link>, NotRun> {
        match self.side.outbound().link(&target.node, purpose, target.generation) {
            Ok(Found::Open(link)) => Ok(link),
            Ok(Found::ToDial(link)) => {
                self.side.dial(Arc::clone(&link));
                Ok(link)
            }
            Err(NoLink::NoProcess(why)) => Err(NotRun::NotConnected(why.to_string())),
            Err(NoLink::BackOff(why)) => Err(NotRun::NotConnected(why)),
            Err(NoLink::TooMany) => Err(NotRun::link_is_full()),
        }
    }
}

/// Whether another link to the same node may be looked for: this one has ended because it was idle. It happens once,
/// since a link that is in use is not idle.
pub(super) fn again(link: &Link) -> Result<(), NotRun> {
    match link.why() {
        LinkEnd::Idle => Ok(()),
        why => Err(NotRun::NotConnected(why.to_string())),
    }
}

/// Tells the balance of a call that its caller has given up.
struct Began<'a> {
    callee: &'a Callee,
    node: &'a NodeId,
    begun: Time,
    ended: bool,
}

impl Drop for Began<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let now = self.callee.now();
            let took = now.since(self.begun);
            self.callee.balance(|b| b.ended(now, self.node, took, None, Judged::Cancelled));
        }
    }
}

/// Cancels a call of this node to itself when it is dropped.
struct Cancels(Arc<Running>);

impl Drop for Cancels {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The bit of a method in [`Callee::long`].
const fn bit(method: &Method) -> u64 {
    1 << (method.number % 64)
}

/// The one attempt, at this node, has not run.
fn failed_at(node: &NodeId, why: NotRun) -> CallError {
    let attempts = vec![(node.clone(), why.to_string())];
    not_run(why, attempts)
}

pub(super) fn not_run(why: NotRun, attempts: Vec<(NodeId, String)>) -> CallError {
    CallError::new(CallFailure::NotRun(why), attempts)
}
