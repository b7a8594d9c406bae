//! One stream, before it begins.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    ClientStream, Duplex, Method, Remote, ServerStream, Service, Stub,
    calling::{Callee, not_run},
    codec::CodecError,
    conversation::Conversation,
    error::{CallError, NotRun},
    messages::encode,
    place::Where,
    stream::{ByteReceiver, ByteSender, ItemStream, Upload},
};
use crate::{
    net::BoxFuture,
    protocol::service::{
        identity::{Tag, TraceContext},
        limits::DEADLINE_MAX,
    },
};

/// A stream that has not begun: await it. It resolves to the stream once the handler has begun.
#[must_use = "a stream begins when it is awaited"]
pub struct Opening<T> {
    callee: Arc<Callee>,
    place: Where,
    method: Method,
    body: Result<Bytes, CodecError>,
    within: Duration,
    tag: Tag,
    open: fn(&Callee, Box<Conversation>) -> T,
}

impl<T> Opening<T> {
    fn new(
        (callee, place): (Arc<Callee>, Where),
        method: Method,
        body: Result<Bytes, CodecError>,
        open: fn(&Callee, Box<Conversation>) -> T,
    ) -> Self {
        let within = callee.side.outbound().limits().deadline;
        let tag = Tag { number: callee.number(), trace: None };
        Self { callee, place, method, body, within, tag, open }
    }

    /// The deadline until which the handler has to begin, from the moment it is awaited; at most ten minutes. The
    /// stream has none.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline.min(DEADLINE_MAX);
        self
    }

    /// The trace that it belongs to, as [`Calling::trace`](super::Calling::trace).
    pub fn trace(mut self, context: impl Into<Option<TraceContext>>) -> Self {
        self.tag.trace = context.into();
        self
    }
}

impl<T: Send + 'static> IntoFuture for Opening<T> {
    type Output = Result<T, CallError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { callee, place, method, body, within, tag, open } = self;
        Box::pin(async move {
            let not_encoded = |error: CodecError| NotRun::NotEncoded(error.to_string());
            let body = body.map_err(|error| not_run(not_encoded(error), Vec::new()))?;
            let conversation = callee.open(&place, &method, body, within, tag).await?;
            Ok(open(&callee, conversation))
        })
    }
}

impl<T> fmt::Debug for Opening<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("service", &self.callee.id).finish_non_exhaustive()
    }
}

fn down<M: ServerStream>(callee: (Arc<Callee>, Where), ask: &M) -> Opening<ItemStream<M>> {
    let open = |_: &Callee, conversation| ItemStream::new(conversation);
    Opening::new(callee, M::METHOD, encode::<M::Service, M>(ask), open)
}

fn up<M: ClientStream>(callee: (Arc<Callee>, Where), ask: &M) -> Opening<Upload<M>> {
    let open = |callee: &Callee, conversation| {
        Upload::new(conversation, callee.side.outbound().limits().request_bytes)
    };
    Opening::new(callee, M::METHOD, encode::<M::Service, M>(ask), open)
}

fn bytes<M: Duplex>(callee: (Arc<Callee>, Where), ask: &M) -> Opening<(ByteSender, ByteReceiver)> {
    let open = |_: &Callee, conversation: Box<Conversation>| {
        let Conversation { writer, reader, guard, .. } = *conversation;
        let guard = Some(Arc::new(guard.detached()));
        let sender = ByteSender::new(writer.into_stream(), guard.clone());
        (sender, ByteReceiver::new(reader.into_bytes(), guard))
    };
    Opening::new(callee, M::METHOD, encode::<M::Service, M>(ask), open)
}

impl<S: Service> Stub<S> {
    fn somewhere(&self) -> (Arc<Callee>, Where) {
        (Arc::clone(&self.callee), Where::Any(self.prefer.clone()))
    }

    /// Asks a question whose answer is any number of items. Await the stream, or set options first.
    ///
    /// As long as no handler has begun, it is tried at other nodes, as a call is.
    pub fn stream<M: ServerStream<Service = S>>(&self, ask: M) -> Opening<ItemStream<M>> {
        down(self.somewhere(), &ask)
    }

    /// Asks a question behind which this caller sends any number of items. Await the stream, or set options first.
    pub fn collect<M: ClientStream<Service = S>>(&self, ask: M) -> Opening<Upload<M>> {
        up(self.somewhere(), &ask)
    }

    /// Asks a question, and then exchanges bytes. Await both halves, or set options first.
    pub fn duplex<M: Duplex<Service = S>>(&self, ask: M) -> Opening<(ByteSender, ByteReceiver)> {
        bytes(self.somewhere(), &ask)
    }
}

impl<S: Service> Remote<S> {
    fn there(&self) -> (Arc<Callee>, Where) {
        (Arc::clone(&self.callee), self.place())
    }

    /// As [`Stub::stream`], at this node only.
    pub fn stream<M: ServerStream<Service = S>>(&self, ask: M) -> Opening<ItemStream<M>> {
        down(self.there(), &ask)
    }

    /// As [`Stub::collect`], at this node only.
    pub fn collect<M: ClientStream<Service = S>>(&self, ask: M) -> Opening<Upload<M>> {
        up(self.there(), &ask)
    }

    /// As [`Stub::duplex`], at this node only.
    pub fn duplex<M: Duplex<Service = S>>(&self, ask: M) -> Opening<(ByteSender, ByteReceiver)> {
        bytes(self.there(), &ask)
    }
}
