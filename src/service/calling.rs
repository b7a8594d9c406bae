//! The path of one call: a provider, an attempt there, and whether there is another one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::AbortHandle};
use tracing::{
    Instrument,
    field::{Empty, display},
};

use super::{
    Method,
    conversation::Conversation,
    counted::{Counted, Rows, TARGET},
    error::{CallError, CallFailure, NotRun},
    place::Where,
    side::{Here, Side},
};
use crate::protocol::{
    id::{Generation, NodeId},
    route::Counter,
    service::{
        ServiceId,
        attempt::Attempts,
        balance::{
            Balance, NodeSet,
            retry::{Retry, RetryBudget},
        },
        directory::Listing,
        figures::CallOutcome,
        frame::LANE_BODY_MAX,
        identity::Tag,
    },
    time::Time,
};

/// What one caller knows of one service.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) side: Arc<dyn Side>,
    pub(super) id: ServiceId,
    balance: Mutex<Balance>,
    budget: Mutex<RetryBudget>,
    /// The methods whose answers were too long for a lane: a bit for each number, modulo 64.
    pub(super) long: AtomicU64,
    /// When the distances of datacenters are due again, in nanoseconds from the origin of time.
    pub(super) measures_at: AtomicU64,
    pub(super) rows: Rows,
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
    pub(super) generation: Generation,
    pub(super) wait: Duration,
    /// When it was picked.
    pub(super) at: Time,
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

    pub(super) fn balance<T>(&self, work: impl FnOnce(&mut Balance) -> T) -> T {
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

    pub(super) fn check_length(&self, body: &Bytes) -> Result<(), NotRun> {
        let allowed = self.side.outbound().limits().request_bytes;
        match body.len() > allowed {
            true => Err(NotRun::TooLarge { bytes: body.len(), allowed }),
            false => Ok(()),
        }
    }
}

pub(super) fn not_run(why: NotRun, attempts: Vec<(NodeId, String)>) -> CallError {
    CallError::new(CallFailure::NotRun(why), attempts)
}

/// The bit of a method in [`Callee::long`].
pub(super) const fn bit(method: &Method) -> u64 {
    1 << (method.number % 64)
}
