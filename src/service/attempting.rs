//! One attempt of a call, at one node.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{SemaphorePermit, oneshot};

use super::{
    Method,
    calling::{Callee, Path, Target, Terms, bit},
    conversation::Conversation,
    error::{By, NotRun},
    side::Here,
};
use crate::{
    node::services::{
        link::{InFlight, Link},
        offered::Inbound,
        outbound::{Found, NoLink},
        responder::Responder,
        running::Running,
    },
    protocol::{
        id::NodeId,
        service::{
            attempt::Ending,
            balance::Outcome as Judged,
            calls::{NoRoom, Outcome},
            frame::LANE_BODY_MAX,
            identity::Question,
            introduction::Purpose,
            link_end::LinkEnd,
        },
        time::Time,
    },
};

impl Callee {
    /// Waits for one of the places of calls in flight.
    async fn place(&self, deadline: Time) -> Result<Option<SemaphorePermit<'_>>, NotRun> {
        let place = self.side.outbound().in_flight.acquire();
        let full = NotRun::Overloaded { by: By::Caller, retry_after: Duration::ZERO };
        let left = deadline.since(self.now());
        let place = tokio::time::timeout(left, place).await.map_err(|_| full)?;
        // It is never closed.
        Ok(place.ok())
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
    pub(super) fn check_proof(&self, link: &Link) -> Result<(), NotRun> {
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

/// Informs the balance of an attempt whose caller has cancelled it.
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
