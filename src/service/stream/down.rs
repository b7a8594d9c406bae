//! The items of an answer, at the caller.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    net::BoxFuture,
    node::services::framed::Framed,
    protocol::service::stream::StreamFrame,
    service::{
        CallError, CallFailure, Failure, ServerStream, conversation::Conversation, messages::decode,
    },
};

/// The items of an answer. Dropping it tells the handler that nobody waits any more.
#[derive(Debug)]
#[must_use = "dropping it ends the stream"]
pub struct ItemStream<M> {
    state: State,
    method: PhantomData<fn() -> M>,
}

enum State {
    Idle(Box<Conversation>),
    Reads(BoxFuture<'static, Read>),
    Over,
}

type Read = (Box<Conversation>, Result<Framed, CallFailure>);

impl<M: ServerStream> ItemStream<M> {
    pub(in crate::service) fn new(conversation: Box<Conversation>) -> Self {
        Self { state: State::Idle(conversation), method: PhantomData }
    }

    /// The next item; `None` once the handler has sent its last one and has succeeded. No item is lost if the future is
    /// dropped.
    ///
    /// # Errors
    /// [`CallError`]: the stream has broken off, or an item cannot be decoded. Nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<M::Item>, CallError> {
        std::future::poll_fn(|context| self.poll_item(context)).await.transpose()
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<M::Item, CallError>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(mut conversation) => {
                    self.state = State::Reads(Box::pin(async move {
                        let read = conversation.next().await;
                        (conversation, read)
                    }));
                }
                State::Reads(mut reading) => {
                    let Poll::Ready((conversation, read)) = reading.as_mut().poll(context) else {
                        self.state = State::Reads(reading);
                        return Poll::Pending;
                    };
                    let failure = match read {
                        Ok(Framed { frame: StreamFrame::Item(body), .. }) => {
                            match decode::<M::Service, M::Item>(body) {
                                Ok(item) => {
                                    self.state = State::Idle(conversation);
                                    return Poll::Ready(Some(Ok(item)));
                                }
                                Err(error) => {
                                    CallFailure::Failed(Failure::NotDecoded(error.to_string()))
                                }
                            }
                        }
                        Ok(Framed { frame: StreamFrame::End { .. }, .. }) => {
                            return Poll::Ready(None);
                        }
                        Ok(_) => conversation.unexpected(),
                        Err(failure) => failure,
                    };
                    return Poll::Ready(Some(Err(conversation.error(failure))));
                }
            }
        }
    }
}

impl<M: ServerStream> Stream for ItemStream<M> {
    type Item = Result<M::Item, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.poll_item(context)))
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "Idle",
            Self::Reads(_) => "Reads",
            Self::Over => "Over",
        })
    }
}
