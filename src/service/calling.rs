//! The path of one call: a provider, an attempt there, and whether there is another one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Caller, Method,
    error::{By, CallError, CallFailure, Lost, NotRun, refused},
};
use crate::{
    node::{
        Gossipmonger,
        messages::ServicesMessage,
        services::{
            gone::LinkEnd,
            link::Link,
            offered::Inbound,
            responder::Responder,
            running::Running,
            table::{Found, NoLink},
        },
    },
    protocol::{
        id::{Generation, NodeId},
        route::Counter,
        service::{
            ServiceId, ServiceVersion,
            balance::{
                Ask, Balance, NoPick, Outcome as Ended, Prefer,
                retry::{Attempt, Class, Retry, RetryBudget},
            },
            calls::{NoRoom, Outcome},
            directory::{Gone, Provider},
            frame::LANE_BODY_MAX,
        },
        time::Time,
    },
};

/// What one caller knows of one service.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) node: Gossipmonger,
    pub(super) id: ServiceId,
    balance: Mutex<Balance>,
    budget: Mutex<RetryBudget>,
    caller: Arc<Caller>,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub(super) enum Where {
    /// To a provider that the balance picks.
    Any(Prefer),
    /// To this node in this generation.
    At(NodeId, Generation),
}

/// One attempt at one node.
struct Tried {
    node: NodeId,
    result: Result<Bytes, CallFailure>,
    /// It failed by what membership knows.
    verdict: bool,
}

/// A node to call.
#[derive(Clone, Debug)]
struct Target {
    node: NodeId,
    generation: Generation,
    wait: Duration,
}

impl Callee {
    pub(super) fn new(node: Gossipmonger, id: ServiceId) -> Self {
        let config = &node.shared.config;
        let balance = Balance::new(config.node.clone(), config.datacenter.clone());
        // A call of this node to itself is a call of a member: its own certificate proves the rest.
        let caller = Caller::Node {
            node: config.node.clone(),
            datacenter: Some(config.datacenter.clone()),
            generation: node.generation(),
        };
        Self {
            node,
            id,
            balance: Mutex::new(balance),
            budget: Mutex::default(),
            caller: Arc::new(caller),
        }
    }

    fn now(&self) -> Time {
        self.node.shared.clock.now()
    }

    fn balance<T>(&self, work: impl FnOnce(&mut Balance) -> T) -> T {
        work(&mut self.balance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn budget<T>(&self, work: impl FnOnce(&mut RetryBudget) -> T) -> T {
        work(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls a method; returns the encoded answer.
    pub(super) async fn call(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        idempotent: bool,
    ) -> Result<Bytes, CallError> {
        let deadline = self.now() + within;
        check_length(&body).map_err(|why| not_run(why, Vec::new()))?;
        self.budget(RetryBudget::called);
        let (mut attempts, mut tried) = (Vec::new(), Vec::new());
        let first = self.target(place, method, &tried);
        let mut target = first.map_err(|why| not_run(why, Vec::new()))?;
        loop {
            let Tried { node, result, verdict } =
                self.attempt(&target, method, body.clone(), deadline).await;
            let failure = match result {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            attempts.push((node.clone(), reason(&failure)));
            tried.push(node);
            let next = match place {
                Where::Any(_) => self.target(place, method, &tried).ok(),
                Where::At(..) => None,
            };
            let attempt = Attempt {
                class: class(&failure),
                idempotent,
                verdict,
                attempts: u32::try_from(attempts.len()).unwrap_or(u32::MAX),
                left: deadline.since(self.now()),
                next: next.as_ref().map(|next| next.wait),
            };
            match self.budget(|budget| budget.decide(&attempt)) {
                Retry::AtOnce => {}
                Retry::After(wait) => tokio::time::sleep(wait).await,
                Retry::GiveUp(_) => return Err(CallError::new(failure, attempts)),
            }
            let Some(next) = next else { return Err(CallError::new(failure, attempts)) };
            self.node.shared.count(Counter::CallsRetried);
            target = next;
        }
    }

    /// Sends a message without an answer, once a connection has taken it. `waits`: for room.
    pub(super) async fn cast(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
    ) -> Result<(), CallError> {
        check_length(&body).map_err(|why| not_run(why, Vec::new()))?;
        let target = self.target(place, method, &[]).map_err(|why| not_run(why, Vec::new()))?;
        let failed = |why: NotRun| {
            let attempts = vec![(target.node.clone(), why.to_string())];
            not_run(why, attempts)
        };
        if target.node == *self.node.node() {
            let offer = self.node.shared.services.offer(&self.id);
            let offer = offer.ok_or_else(|| failed(NotRun::NoSuchService))?;
            offer.cast(&self.caller, method.number, body);
            return Ok(());
        }
        let waited = tokio::time::timeout(within, async {
            loop {
                let link = self.link(&target)?;
                let room = link.room.notified();
                match link.cast(&self.id, method.number, body.clone()) {
                    Ok(()) => return Ok(()),
                    Err(NoRoom::Ended) => again(&link)?,
                    Err(_) => room.await,
                }
            }
        });
        match waited.await {
            Ok(sent) => sent.map_err(failed),
            Err(_) => Err(failed(NotRun::Overloaded { by: By::Link, retry_after: Duration::ZERO })),
        }
    }

    /// Sends a message without an answer if there is room for it now.
    pub(super) fn try_cast(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
    ) -> Result<(), CallError> {
        check_length(&body).map_err(|why| not_run(why, Vec::new()))?;
        let target = self.target(place, method, &[]).map_err(|why| not_run(why, Vec::new()))?;
        let failed = |why: NotRun| {
            let attempts = vec![(target.node.clone(), why.to_string())];
            not_run(why, attempts)
        };
        if target.node == *self.node.node() {
            let offer = self.node.shared.services.offer(&self.id);
            let offer = offer.ok_or_else(|| failed(NotRun::NoSuchService))?;
            offer.cast(&self.caller, method.number, body);
            return Ok(());
        }
        loop {
            let link = self.link(&target).map_err(failed)?;
            match link.cast(&self.id, method.number, body.clone()) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Ended) => again(&link).map_err(failed)?,
                Err(_) => {
                    let retry_after = Duration::ZERO;
                    return Err(failed(NotRun::Overloaded { by: By::Link, retry_after }));
                }
            }
        }
    }

    /// Where the next attempt goes.
    fn target(&self, place: &Where, method: &Method, tried: &[NodeId]) -> Result<Target, NotRun> {
        if self.node.shared.end.has_begun() {
            return Err(NotRun::Stopped);
        }
        let prefer = match place {
            Where::At(node, generation) => {
                return Ok(Target {
                    node: node.clone(),
                    generation: *generation,
                    wait: Duration::ZERO,
                });
            }
            Where::Any(prefer) => prefer,
        };
        let listings = self.node.shared.services.watched.listings();
        let listing = listings.get(&self.id).ok_or(NotRun::NoProvider)?;
        let ask = Ask { since: method.since, prefer, tried };
        let now = self.now();
        let estimates = self.node.shared.published.estimates.load();
        let dead = self.node.shared.config.dead_peer_phi;
        let suspicion =
            |node: &NodeId| estimates.get(node).map_or(0.0, |estimate| estimate.phi(now) / dead);
        let picked = self.balance(|balance| {
            let pick = balance.pick(listing, &ask, now, &mut rand::rng(), suspicion)?;
            let Provider { node, generation, .. } = pick.provider;
            Ok(Target { node: node.clone(), generation: *generation, wait: pick.wait })
        });
        picked.map_err(|why| match why {
            NoPick::Draining => NotRun::Draining,
            NoPick::TooOld { offered } => {
                NotRun::TooOld { offered: ServiceVersion::new(self.id.major, offered) }
            }
            _ => NotRun::NoProvider,
        })
    }

    async fn attempt(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        deadline: Time,
    ) -> Tried {
        let node = target.node.clone();
        let begun = self.now();
        self.balance(|balance| balance.began(begun, &node));
        let mut guard = Began { callee: self, node: &node, begun, ended: false };
        let (result, load, verdict) = if node == *self.node.node() {
            let (result, load) = self.call_here(method, body, deadline).await;
            (result, load, false)
        } else {
            self.call_there(target, method, body, deadline).await
        };
        guard.ended = true;
        let now = self.now();
        let outcome = ended(&result);
        self.balance(|balance| balance.ended(now, &node, now.since(begun), load, outcome));
        drop(guard);
        Tried { node, result, verdict }
    }

    /// Calls a service of this node, without a connection.
    async fn call_here(
        &self,
        method: &Method,
        body: Bytes,
        deadline: Time,
    ) -> (Result<Bytes, CallFailure>, Option<u8>) {
        let Some(offer) = self.node.shared.services.offer(&self.id) else {
            return (Err(CallFailure::NotRun(NotRun::NoSuchService)), None);
        };
        let (waiter, answer) = oneshot::channel();
        let running = Arc::new(Running::default());
        let guard = Cancels(Arc::clone(&running));
        offer.request(
            &self.caller,
            Inbound {
                method: method.number,
                body,
                deadline,
                running,
                responder: Responder::here(waiter),
            },
        );
        let left = deadline.since(self.now());
        let outcome = match tokio::time::timeout(left, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Ended { sent: true },
            Err(_) => Outcome::Deadline { sent: true },
        };
        drop(guard);
        let (result, load, _) = settle(outcome, || LinkEnd::Stopped);
        (result, load)
    }

    async fn call_there(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        deadline: Time,
    ) -> (Result<Bytes, CallFailure>, Option<u8>, bool) {
        let not_run = |why| (Err(CallFailure::NotRun(why)), None, false);
        let call = loop {
            let link = match self.link(target) {
                Ok(link) => link,
                Err(why) => return not_run(why),
            };
            let room = link.room.notified();
            match link.call(&self.id, (method.number, body.clone()), deadline) {
                Ok(call) => break call,
                Err(NoRoom::Ended) => {
                    if again(&link).is_err() {
                        return settle(Outcome::Ended { sent: false }, || link.why());
                    }
                }
                Err(NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds) => {
                    let left = deadline.since(self.now());
                    if tokio::time::timeout(left, room).await.is_err() {
                        let retry_after = Duration::ZERO;
                        return not_run(NotRun::Overloaded { by: By::Link, retry_after });
                    }
                }
            }
        };
        let (outcome, link) = call.ended().await;
        settle(outcome, || link.why())
    }

    /// The connection to a node; it is dialed if there is none.
    fn link(&self, target: &Target) -> Result<Arc<Link>, NotRun> {
        let shared = &self.node.shared;
        let found = shared.services.link(&target.node, target.generation, shared.clock);
        match found {
            Ok(Found::Open(link)) => Ok(link),
            Ok(Found::ToDial(link)) => {
                shared.routes.services.cast(ServicesMessage::Dial(Arc::clone(&link)));
                Ok(link)
            }
            Err(NoLink::BackOff(why)) => Err(NotRun::NotConnected(why)),
            Err(NoLink::TooMany) => {
                Err(NotRun::Overloaded { by: By::Link, retry_after: Duration::ZERO })
            }
        }
    }
}

/// Whether another link to the same node may be looked for: this one has ended because it was idle. It happens once,
/// since a link that is in use is not idle.
fn again(link: &Link) -> Result<(), NotRun> {
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
            self.callee.balance(|b| b.ended(now, self.node, took, None, Ended::Cancelled));
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

fn check_length(body: &Bytes) -> Result<(), NotRun> {
    if body.len() > LANE_BODY_MAX {
        return Err(NotRun::TooLarge { bytes: body.len(), allowed: LANE_BODY_MAX });
    }
    Ok(())
}

pub(super) fn not_run(why: NotRun, attempts: Vec<(NodeId, String)>) -> CallError {
    CallError::new(CallFailure::NotRun(why), attempts)
}

/// The end of an attempt: its result, how full the service is, and whether membership has ended it.
fn settle(
    outcome: Outcome,
    why: impl FnOnce() -> LinkEnd,
) -> (Result<Bytes, CallFailure>, Option<u8>, bool) {
    match outcome {
        Outcome::Reply { load, body } => (Ok(body), Some(load), false),
        Outcome::Refused { code, retry_after, words } => {
            (Err(refused(code, retry_after, words)), None, false)
        }
        Outcome::Deadline { sent: true } => {
            (Err(CallFailure::Unknown(Lost::Deadline)), None, false)
        }
        Outcome::Deadline { sent: false } => {
            (Err(CallFailure::NotRun(NotRun::Deadline)), None, false)
        }
        Outcome::Ended { sent } => {
            let why = why();
            let verdict = matches!(why, LinkEnd::Gone(_));
            let failure = if sent {
                CallFailure::Unknown(lost(why))
            } else {
                CallFailure::NotRun(match why {
                    LinkEnd::Stopped => NotRun::Stopped,
                    why => NotRun::NotConnected(why.to_string()),
                })
            };
            (Err(failure), None, verdict)
        }
    }
}

fn lost(why: LinkEnd) -> Lost {
    match why {
        LinkEnd::Gone(Gone::NodeDead) => Lost::NodeDead,
        LinkEnd::Gone(Gone::Restarted) => Lost::NodeRestarted,
        LinkEnd::Gone(_) => Lost::NodeLeft,
        LinkEnd::Revoked => Lost::Revoked,
        LinkEnd::Stopped => Lost::Stopped,
        LinkEnd::NotConnected(why) | LinkEnd::Connection(why) => Lost::Connection(why),
        LinkEnd::Idle => Lost::Connection(LinkEnd::Idle.to_string()),
    }
}

fn reason(failure: &CallFailure) -> String {
    match failure {
        CallFailure::NotRun(why) => why.to_string(),
        CallFailure::Unknown(why) => why.to_string(),
        CallFailure::Failed(why) => why.to_string(),
    }
}

/// What a failure says about whether the call ran.
const fn class(failure: &CallFailure) -> Class {
    match failure {
        CallFailure::Unknown(_) => Class::Unknown,
        CallFailure::Failed(_) => Class::Failed,
        CallFailure::NotRun(why) => match why {
            NotRun::NoProvider
            | NotRun::Draining
            | NotRun::TooOld { .. }
            | NotRun::NotConnected(_)
            | NotRun::NoSuchService
            | NotRun::Overloaded { .. } => Class::NotRun,
            _ => Class::Refused,
        },
    }
}

/// What the end of an attempt says about the node.
fn ended(result: &Result<Bytes, CallFailure>) -> Ended {
    match result {
        Ok(_) => Ended::Answered,
        Err(CallFailure::NotRun(NotRun::Overloaded { by: By::Link, .. })) => Ended::Refused,
        Err(CallFailure::NotRun(NotRun::Overloaded { retry_after, .. })) => {
            Ended::Overloaded { retry_after: *retry_after }
        }
        Err(CallFailure::NotRun(NotRun::NotConnected(_))) => Ended::Failed,
        Err(CallFailure::NotRun(_)) => Ended::Refused,
        Err(CallFailure::Unknown(_) | CallFailure::Failed(_)) => Ended::Failed,
    }
}
