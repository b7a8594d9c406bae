//! The items behind a question, at the caller.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::{
    protocol::service::stream::StreamFrame,
    service::{
        CallError, CallFailure, ClientStream, Failure,
        conversation::Conversation,
        messages::{decode, encode},
    },
};

/// Sends the items behind a question. Dropping it before the answer tells the handler that the caller has given up.
#[derive(Debug)]
#[must_use = "dropping it ends the stream"]
pub struct Upload<M> {
    conversation: Box<Conversation>,
    allowed: usize,
    /// The handler has answered before the last item.
    early: Option<Bytes>,
    method: PhantomData<fn() -> M>,
}

impl<M: ClientStream> Upload<M> {
    pub(in crate::service) fn new(conversation: Box<Conversation>, allowed: usize) -> Self {
        Self { conversation, allowed, early: None, method: PhantomData }
    }

    /// Sends an item; waits while the handler does not read. If the handler has answered already, the item is dropped,
    /// and [`Upload::finish`] returns the answer. If the future is dropped while it waits, the stream has broken off.
    ///
    /// # Errors
    /// [`CallError`]: the stream has broken off. [`Failure::ItemNotSent`]: the item is too long or cannot be encoded;
    /// the handler knows nothing of it, and the next one may be sent.
    pub async fn send(&mut self, item: &M::Item) -> Result<(), CallError> {
        let not_sent = |why: String| CallFailure::Failed(Failure::ItemNotSent(why));
        let body = encode::<M::Service, _>(item);
        let body = body.map_err(|error| self.conversation.error(not_sent(error.to_string())))?;
        if body.len() > self.allowed {
            let why = format!("it has {} bytes, {} are allowed", body.len(), self.allowed);
            return Err(self.conversation.error(not_sent(why)));
        }
        if self.early.is_none()
            && self.conversation.writer.write(StreamFrame::Item(body)).await.is_err()
        {
            // The answer says why the node takes no more.
            self.early = Some(self.answer().await?);
        }
        Ok(())
    }

    /// Tells the handler that this was the last item, and waits for its answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn finish(mut self) -> Result<M::Reply, CallError> {
        let answer = match self.early.take() {
            Some(answer) => answer,
            None => {
                // If the node takes no more, its answer is there already.
                let _ = self.conversation.writer.write(StreamFrame::End { load: 0 }).await;
                self.answer().await?
            }
        };
        decode::<M::Service, M::Reply>(answer).map_err(|error| {
            let failure = CallFailure::Failed(Failure::NotDecoded(error.to_string()));
            self.conversation.error(failure)
        })
    }

    async fn answer(&mut self) -> Result<Bytes, CallError> {
        match self.conversation.answer().await {
            Ok((_, answer)) => Ok(answer),
            Err(failure) => Err(self.conversation.error(failure)),
        }
    }
}
