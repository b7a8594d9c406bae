//! Attempts of a call that go over streams of their own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Method,
    attempting::again,
    calling::{Callee, Target, Terms},
    conversation::Conversation,
    error::{CallFailure, NotRun},
    side::AbortOnDrop,
};
use crate::{
    node::services::{framed::Framed, link::Link, stream::OpenStream},
    protocol::{
        service::{
            Kind, ServiceId,
            attempt::Ending,
            calls::{NoRoom, Outcome},
            introduction::Purpose,
            stream::{Open, StreamFrame},
        },
        time::Time,
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
        if method.kind == Kind::ServerStream {
            // The caller reads the items one by one, which holds up the handler.
            open.reader.use_no_room();
        }
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
        let (opened, served) = self.opened(target, deadline).await?;
        let conversation = Conversation::new(target.node.clone(), opened, served);
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

    /// Opens a stream to a node; waits until the deadline for a connection, and for room on it.
    async fn opened(
        &self,
        target: &Target,
        deadline: Time,
    ) -> Result<(OpenStream, Option<AbortOnDrop>), Ending> {
        if let Some(here) = self.here(&target.node) {
            let (opened, served) = here.open();
            return Ok((opened, Some(served)));
        }
        let body_max = self.side.outbound().limits().reply_bytes;
        loop {
            let left = deadline.since(self.now());
            let proved = self.proved_link(target, Purpose::Streams);
            let link = tokio::time::timeout(left, proved).await.map_err(|_| not_opened())?;
            let link: Arc<Link> = link.map_err(Ending::not_run)?;
            let room = link.room.notified();
            let left = deadline.since(self.now());
            let opened = tokio::time::timeout(left, link.open(body_max)).await;
            let opened = opened.map_err(|_| match link.is_admitted() {
                // The node lets it open no further stream.
                true => Ending::not_run(NotRun::link_is_full()),
                false => not_opened(),
            })?;
            match opened {
                Ok(opened) => return Ok((opened, None)),
                Err(NoRoom::Ended) => {
                    if again(&link).is_err() {
                        let outcome = Outcome::Ended { sent: false };
                        return Err(Ending::settle(outcome, || link.why()));
                    }
                }
                Err(NoRoom::Draining) => return Err(Ending::not_run(NotRun::Draining)),
                Err(NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds) => {
                    let left = deadline.since(self.now());
                    if tokio::time::timeout(left, room).await.is_err() {
                        return Err(Ending::not_run(NotRun::link_is_full()));
                    }
                }
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

/// The deadline has passed before there was a stream.
fn not_opened() -> Ending {
    Ending::not_run(NotRun::NotConnected("no stream before the deadline".to_owned()))
}

/// The deadline has passed after the question was sent.
fn late() -> Ending {
    Ending::settle(Outcome::Deadline { sent: true }, || unreachable!("the link has not ended"))
}
