//! Sending messages without an answer.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Method,
    attempting::again,
    calling::{Callee, Target, not_run},
    counted::count_cast,
    error::{CallError, NotRun},
    place::Where,
};
use crate::{
    node::services::offered::InboundCast,
    protocol::{
        id::NodeId,
        service::{calls::NoRoom, frame::LANE_BODY_MAX, identity::Question, introduction::Purpose},
    },
};

impl Callee {
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
}

/// The one attempt, at this node, has not run.
fn failed_at(node: &NodeId, why: NotRun) -> CallError {
    let attempts = vec![(node.clone(), why.to_string())];
    not_run(why, attempts)
}
