//! Offering methods that are streams.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    ClientStream, Duplex, ServerStream, Service,
    codec::CodecError,
    context::Context,
    job::{Answer, Job, Place},
    messages::{decode, encode},
    offer::OfferBuilder,
    stream::{ByteReceiver, ByteSender, ItemError, ItemReceiver, ItemSender},
};
use crate::{
    node::services::{
        framed::FrameWriter,
        offered::{Attached, Input},
    },
    protocol::service::{frame::Code, stream::StreamFrame},
};

impl<S: Service> OfferBuilder<S> {
    /// Answers the questions of a method with any number of items. Each call runs as a task of its own, which is
    /// dropped when the caller gives up. The caller gets the end of the stream if the handler returns `Ok`, and an
    /// error if not. What may fail in the service itself belongs into the items.
    pub fn stream<M, F, A>(self, handler: F) -> Self
    where
        M: ServerStream<Service = S>,
        F: Fn(M, ItemSender<M>, Context) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), ItemError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run = move |job: Job| {
            let handler = Arc::clone(&handler);
            spawn(job, |job| async move {
                let (ask, begun) = begin(job, down::<M>).await?;
                let items = ItemSender::new(begun.writer, begun.answer.owner.reply_bytes());
                match handler(ask, items, begun.context).await {
                    Ok(()) => begun.answer.reply(Ok(Bytes::new())),
                    Err(error) => begun.answer.refuse(Code::NoAnswer, error.to_string()),
                }
                Some(())
            });
        };
        self.handle(M::METHOD, Box::new(run))
    }

    /// Answers the questions of a method, each with any number of items behind it. Each call runs as a task of its own,
    /// which is dropped when the caller gives up.
    pub fn collect<M, F, A>(self, handler: F) -> Self
    where
        M: ClientStream<Service = S>,
        F: Fn(M, ItemReceiver<M>, Context) -> A + Send + Sync + 'static,
        A: Future<Output = Result<M::Reply, ItemError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run = move |job: Job| {
            let handler = Arc::clone(&handler);
            spawn(job, |job| async move {
                let (ask, begun) = begin(job, up::<M>).await?;
                let Input::Items(items) = begun.input else { return None };
                match handler(ask, ItemReceiver::new(items), begun.context).await {
                    Ok(answer) => begun.answer.reply(reply::<M>(&answer)),
                    Err(error) => begun.answer.refuse(Code::NoAnswer, error.to_string()),
                }
                Some(())
            });
        };
        self.handle(M::METHOD, Box::new(run))
    }

    /// Answers the questions of a method with bytes in both directions. Each call runs as a task of its own, which is
    /// dropped when the connection of the caller ends. A handler that fails drops its [`ByteSender`], which the caller
    /// sees as an error.
    pub fn duplex<M, F, A>(self, handler: F) -> Self
    where
        M: Duplex<Service = S>,
        F: Fn(M, (ByteSender, ByteReceiver), Context) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<()>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run = move |job: Job| {
            let handler = Arc::clone(&handler);
            spawn(job, |job| async move {
                let (ask, begun) = begin(job, bytes::<M>).await?;
                let Input::Bytes(reader) = begun.input else { return None };
                let sender = ByteSender::new(begun.writer.take().await, None);
                let bytes = (sender, ByteReceiver::new(reader.into_bytes(), None));
                match handler(ask, bytes, begun.context).await {
                    Ok(()) => begun.answer.reply(Ok(Bytes::new())),
                    Err(error) => begun.answer.refuse(Code::NoAnswer, error.to_string()),
                }
                Some(())
            });
        };
        self.handle(M::METHOD, Box::new(run))
    }
}

/// A stream whose caller knows that its handler has begun.
struct Begun {
    writer: Arc<FrameWriter>,
    input: Input,
    context: Context,
    answer: Answer,
    _place: Place,
}

type Decode<M> = fn(Bytes) -> Result<M, CodecError>;

fn down<M: ServerStream>(from: Bytes) -> Result<M, CodecError> {
    decode::<M::Service, M>(from)
}

fn up<M: ClientStream>(from: Bytes) -> Result<M, CodecError> {
    decode::<M::Service, M>(from)
}

fn bytes<M: Duplex>(from: Bytes) -> Result<M, CodecError> {
    decode::<M::Service, M>(from)
}

fn reply<M: ClientStream>(reply: &M::Reply) -> Result<Bytes, CodecError> {
    encode::<M::Service, M::Reply>(reply)
}

/// Runs a handler as a task, which ends when the caller gives up.
fn spawn<R>(job: Job, task: impl FnOnce(Job) -> R)
where
    R: Future<Output = Option<()>> + Send + 'static,
{
    let (owner, running) = (Arc::clone(&job.answer.owner), job.answer.running.clone());
    let task = task(job);
    Job::spawn(owner.as_ref(), running.as_ref(), async move { _ = task.await });
}

/// Decodes the question and tells the caller that its handler begins; `None` if there is nobody to begin for.
async fn begin<M>(job: Job, decode: Decode<M>) -> Option<(M, Begun)> {
    let Job { body, held, attached, context, answer, place, .. } = job;
    let ask = match decode(body) {
        Ok(ask) => ask,
        Err(error) => {
            answer.refuse(Code::Malformed, error.to_string());
            return None;
        }
    };
    drop(held);
    let Attached { writer, input, .. } = *attached?;
    if !answer.begins() {
        answer.refuse(Code::Deadline, "");
        return None;
    }
    writer.write(StreamFrame::Begun).await.ok()?;
    Some((ask, Begun { writer, input, context, answer, _place: place }))
}
