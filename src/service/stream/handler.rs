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
    /// The caller has sent its last item.
    is_over: bool,
    method: PhantomData<fn() -> M>,
}

impl<M: ClientStream> ItemReceiver<M> {
    pub(in crate::service) fn new(items: mpsc::Receiver<Framed>) -> Self {
        Self { items, is_over: false, method: PhantomData }
    }

    /// The next item; `None` once the caller has sent its last one. No item is lost if the future is dropped.
    ///
    /// # Errors
    /// [`ItemError::Malformed`]: the next item may be another one. [`ItemError::Closed`]: the caller has given up before
    /// its last item, or its connection has ended. The handler is about to be dropped.
    pub async fn next(&mut self) -> Result<Option<M::Item>, ItemError> {
        if self.is_over {
            return Ok(None);
        }
        let Framed { frame, held } = self.items.recv().await.ok_or(ItemError::Closed)?;
        let StreamFrame::Item(body) = frame else {
            self.is_over = true;
            return Ok(None);
        };
        let item = decode::<M::Service, M::Item>(body);
        drop(held);
        item.map(Some).map_err(|error| ItemError::Malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Sum;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Number(u8);

    crate::service! {
        struct Numbers = "numbers", 1.0;
        1: collect Sum of Number -> u64;
    }

    async fn received(frames: Vec<StreamFrame>) -> (Vec<u8>, Result<Option<Number>, ItemError>) {
        let (out, items) = mpsc::channel(9);
        for frame in frames {
            out.send(Framed { frame, held: None }).await.unwrap();
        }
        drop(out);
        let (mut items, mut found) = (ItemReceiver::<Sum>::new(items), Vec::new());
        loop {
            match items.next().await {
                Ok(Some(Number(number))) => found.push(number),
                end => {
                    assert_eq!(items.next().await, end, "the end stays");
                    return (found, end);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_upload_without_its_end_frame_is_not_taken_for_a_whole_one() {
        let item = |number| StreamFrame::Item(Bytes::copy_from_slice(&[number]));
        let end = StreamFrame::End { load: 0 };
        assert_eq!(received(vec![]).await, (vec![], Err(ItemError::Closed)));
        let cut = received(vec![item(1), item(2)]).await;
        assert_eq!(cut, (vec![1, 2], Err(ItemError::Closed)));
        assert_eq!(received(vec![item(1), end]).await, (vec![1], Ok(None)));
    }
}
