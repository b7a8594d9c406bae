//! Streams at the node that answers: what a handler sends and receives.

use std::{marker::PhantomData, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    node::services::framed::{FrameWriter, Framed},
    protocol::service::stream::StreamFrame,
    service::{
        ClientStream, ServerStream,
        messages::{decode, encode},
    },
};

/// Why a handler cannot send or receive an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The caller has given up, or its connection has ended.
    #[error("the caller has given up, or its connection has ended")]
    Closed,
    /// The item is longer than this node sends.
    #[error("the item has {bytes} bytes, {allowed} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest.
        allowed: usize,
    },
    /// The item cannot be encoded.
    #[error("the item cannot be encoded: {0}")]
    NotEncoded(String),
    /// The caller has sent an item that cannot be decoded.
    #[error("the item cannot be decoded: {0}")]
    Malformed(String),
}

/// Sends the items of an answer.
#[derive(Debug)]
pub struct ItemSender<M> {
    writer: Arc<FrameWriter>,
    allowed: usize,
    method: PhantomData<fn() -> M>,
}

impl<M: ServerStream> ItemSender<M> {
    pub(in crate::service) fn new(writer: Arc<FrameWriter>, allowed: usize) -> Self {
        Self { writer, allowed, method: PhantomData }
    }

    /// Sends an item; waits while the caller does not read. If the future is dropped while it waits, the stream ends
    /// with an error at the caller.
    ///
    /// # Errors
    /// [`ItemError`]. After `Closed` nothing more can be sent.
    pub async fn send(&mut self, item: &M::Item) -> Result<(), ItemError> {
        let body = encode::<M::Service, _>(item);
        let body = body.map_err(|error| ItemError::NotEncoded(error.to_string()))?;
        if body.len() > self.allowed {
            return Err(ItemError::TooLarge { bytes: body.len(), allowed: self.allowed });
        }
        self.writer.write(StreamFrame::Item(body)).await.map_err(|_| ItemError::Closed)
    }
}

/// Receives the items behind a question.
#[derive(Debug)]
pub struct ItemReceiver<M> {
    items: mpsc::Receiver<Framed>,
    method: PhantomData<fn() -> M>,
}

impl<M: ClientStream> ItemReceiver<M> {
    pub(in crate::service) fn new(items: mpsc::Receiver<Framed>) -> Self {
        Self { items, method: PhantomData }
    }

    /// The next item; `None` once the caller has sent its last one. If the caller gives up before that, the handler is
    /// dropped while it waits here. No item is lost if the future is dropped.
    ///
    /// # Errors
    /// [`ItemError::Malformed`]. The next item may be another one.
    pub async fn next(&mut self) -> Result<Option<M::Item>, ItemError> {
        let Some(Framed { frame, held }) = self.items.recv().await else { return Ok(None) };
        let StreamFrame::Item(body) = frame else { return Ok(None) };
        let item = decode::<M::Service, M::Item>(body);
        drop(held);
        item.map(Some).map_err(|error| ItemError::Malformed(error.to_string()))
    }
}
