//! One call, before it begins: its question and its options.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Call, Cast, Method,
    calling::{Callee, How, not_run},
    error::{CallError, CallFailure, Failure, NotRun},
    messages::{decode_answer, encode_cast, encode_question},
    place::Where,
};
use crate::{
    net::BoxFuture,
    protocol::service::{identity::TraceContext, limits::DEADLINE_MAX},
};

/// A call that has not begun: await it.
#[must_use = "a call begins when it is awaited"]
pub struct Calling<M> {
    callee: Arc<Callee>,
    place: Where,
    body: Result<Bytes, NotRun>,
    within: Duration,
    how: How,
    ask: PhantomData<fn() -> M>,
}

impl<M> std::fmt::Debug for Calling<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calling").field("service", &self.callee.id).finish_non_exhaustive()
    }
}

impl<M: Call> Calling<M> {
    pub(super) fn new(callee: Arc<Callee>, place: Where, ask: &M) -> Self {
        Self::encoded(callee, place, question(ask))
    }

    pub(super) fn encoded(callee: Arc<Callee>, place: Where, body: Result<Bytes, NotRun>) -> Self {
        let within = callee.side.outbound().limits().deadline;
        let how = How { idempotent: M::METHOD.idempotent, ..How::plain(callee.number()) };
        Self { callee, place, body, within, how, ask: PhantomData }
    }

    /// Its deadline, from the moment it is awaited; at most ten minutes. The default is
    /// [`ServiceLimits::deadline`](crate::ServiceLimits::deadline).
    pub fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline.min(DEADLINE_MAX);
        self
    }

    /// This call may run twice, so it is tried again also if it may have run.
    pub const fn idempotent(mut self) -> Self {
        self.how.idempotent = true;
        self
    }

    /// If the first provider has not answered after this time, or is suspected before that, a second one is asked as
    /// well. The first answer counts, and the other attempt is cancelled. It does nothing if the call is not idempotent,
    /// or if it goes to one node. A second attempt takes from the same budget as a retry.
    pub const fn hedge(mut self, after: Duration) -> Self {
        self.how.hedge = Some(after);
        self
    }

    /// This call has a stream of its own, so a lost packet of another call does not hold it up. It costs several times
    /// as much as one that shares the lane. A question above 16 KiB has one in any case.
    pub const fn alone(mut self) -> Self {
        self.how.alone = true;
        self
    }

    /// The number of this call at this process, which is a part of its [identity](super::Context::id) at the provider.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.how.tag.number
    }

    /// This call repeats an earlier one of this process, which had this number and of which it is unknown whether it ran:
    /// it has the same identity. An offer that remembers calls ([`OfferBuilder::once`](super::OfferBuilder::once)) then
    /// runs it at most once, if it goes to the same node in the same generation, from this process in its generation.
    pub const fn repeats(mut self, number: u64) -> Self {
        self.how.tag.number = number;
        self
    }

    /// The trace that it belongs to. The default is what the [`Propagator`](super::Propagator) says, if there is one.
    pub fn trace(mut self, context: impl Into<Option<TraceContext>>) -> Self {
        self.how.tag.trace = context.into();
        self
    }

    pub(super) async fn run(self) -> Result<M::Reply, CallError> {
        let body = self.body.map_err(|why| not_run(why, Vec::new()))?;
        let method: Method = M::METHOD;
        let called = self.callee.call(&self.place, &method, body, self.within, self.how);
        let reply = called.await?;
        decode_answer::<M>(reply).map_err(|error| {
            let failure = CallFailure::Failed(Failure::NotDecoded(error.to_string()));
            CallError::new(failure, Vec::new())
        })
    }
}

impl<M: Call> IntoFuture for Calling<M> {
    type Output = Result<M::Reply, CallError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The encoded question.
pub(super) fn question<M: Call>(ask: &M) -> Result<Bytes, NotRun> {
    encode_question(ask).map_err(|error| NotRun::NotEncoded(error.to_string()))
}

pub(super) async fn cast<M: Cast>(
    callee: &Callee,
    place: &Where,
    message: &M,
) -> Result<(), CallError> {
    let body = encode_cast(message).map_err(|e| NotRun::NotEncoded(e.to_string()));
    let body = body.map_err(|why| not_run(why, Vec::new()))?;
    let within = callee.side.outbound().limits().deadline;
    callee.cast(place, &M::METHOD, body, within).await
}

pub(super) fn try_cast<M: Cast>(
    callee: &Callee,
    place: &Where,
    message: &M,
) -> Result<(), CallError> {
    let body = encode_cast(message).map_err(|e| NotRun::NotEncoded(e.to_string()));
    let body = body.map_err(|why| not_run(why, Vec::new()))?;
    callee.try_cast(place, &M::METHOD, body)
}
