//! Attempts of a call that go over streams of their own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Method,
    calling::{Callee, Target, Terms, again},
    conversation::{Conversation, Guard},
    error::{CallFailure, NotRun},
    side::AbortOnDrop,
};
use crate::{
    node::services::{framed::Framed, link::Link, stream::OpenStream},
    protocol::service::{
        ServiceId,
        attempt::Ending,
        calls::{NoRoom, Outcome},
        introduction::Purpose,
        stream::{Open, StreamFrame},
    },
};

impl Callee {
    /// Opens the stream of a method at a node; it is there once the handler has begun.
    pub(super) async fn open_at(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        terms: Terms,
    ) -> (Ending, Option<Box<Conversation>>) {
        let mut open = match self.ask(target, method, body, terms).await {
            Ok(open) => open,
            Err(ending) => return (ending, None),
        };
        let left = terms.deadline.since(self.now());
        let failure = match tokio::time::timeout(left, open.next()).await {
            Ok(Ok(Framed { frame: StreamFrame::Begun, .. })) => {
                let ending = Ending { result: Ok(Bytes::new()), load: None, verdict: false };
                return (ending, Some(Box::new(open)));
            }
            Ok(Ok(_)) => open.unexpected(),
            Ok(Err(failure)) => failure,
            Err(_) => return (late(), None),
        };
        (failed(failure), None)
    }

    /// Calls a method over a stream of its own.
    pub(super) async fn call_by_stream(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        terms: Terms,
    ) -> Ending {
        let mut open = match self.ask(target, method, body, terms).await {
            Ok(open) => open,
            Err(ending) => return ending,
        };
        let left = terms.deadline.since(self.now());
        match tokio::time::timeout(left, open.answer()).await {
            Ok(Ok((load, body))) => Ending { result: Ok(body), load: Some(load), verdict: false },
            Ok(Err(failure)) => failed(failure),
            Err(_) => late(),
        }
    }

    /// Sends a message without an answer over a stream of its own.
    pub(super) async fn cast_by_stream(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        within: Duration,
    ) -> Result<(), NotRun> {
        let tag = self.side.outbound().tags.of_message();
        let terms = Terms { deadline: self.now() + within, tag };
        match self.ask(target, method, body, terms).await {
            Ok(open) => {
                open.writer.finish([]).await;
                Ok(())
            }
            Err(ending) => match ending.result {
                Err(CallFailure::NotRun(why)) => Err(why),
                // It may have arrived, as any cast that was sent.
                _ => Ok(()),
            },
        }
    }

    /// Opens a stream to a node and sends the question.
    async fn ask(
        &self,
        target: &Target,
        method: &Method,
        body: Bytes,
        Terms { deadline, tag }: Terms,
    ) -> Result<Conversation, Ending> {
        let left = deadline.since(self.now());
        let opened = tokio::time::timeout(left, self.opened(target)).await;
        let (opened, served) = opened.unwrap_or_else(|_| {
            Err(Ending::not_run(NotRun::NotConnected("no stream before the deadline".to_owned())))
        })?;
        let OpenStream { writer, reader, under_way } = opened;
        let guard = Guard::new(under_way, served);
        let conversation = Conversation { node: target.node.clone(), writer, reader, guard };
        let left = deadline.since(self.now());
        let left_ms = u32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
        let service: ServiceId = self.id.clone();
        let head = StreamFrame::Open(Open { service, method: method.number, left_ms, tag });
        let sent = tokio::time::timeout(left, async {
            // If the node does not take it all, its answer says why.
            if conversation.writer.write(head).await.is_ok() {
                let _ = conversation.writer.write(StreamFrame::Item(body)).await;
            }
        });
        match sent.await {
            Ok(()) => Ok(conversation),
            Err(_) => Err(late()),
        }
    }

    async fn opened(&self, target: &Target) -> Result<(OpenStream, Option<AbortOnDrop>), Ending> {
        if let Some(here) = self.here(&target.node) {
            let (opened, served) = here.open();
            return Ok((opened, Some(served)));
        }
        let body_max = self.side.outbound().limits().reply_bytes;
        loop {
            let link: Arc<Link> =
                self.proved_link(target, Purpose::Streams).await.map_err(Ending::not_run)?;
            let room = link.room.notified();
            match link.open(body_max).await {
                Ok(opened) => return Ok((opened, None)),
                Err(NoRoom::Ended) => {
                    if again(&link).is_err() {
                        let outcome = Outcome::Ended { sent: false };
                        return Err(Ending::settle(outcome, || link.why()));
                    }
                }
                Err(NoRoom::Draining) => return Err(Ending::not_run(NotRun::Draining)),
                Err(NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds) => room.await,
            }
        }
    }
}

fn failed(failure: CallFailure) -> Ending {
    let verdict = matches!(
        &failure,
        CallFailure::Unknown(
            super::Lost::NodeDead | super::Lost::NodeRestarted | super::Lost::NodeLeft
        )
    );
    Ending { result: Err(failure), load: None, verdict }
}

/// The deadline has passed after the question was sent.
fn late() -> Ending {
    Ending::settle(Outcome::Deadline { sent: true }, || unreachable!("the link has not ended"))
}
