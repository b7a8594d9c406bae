//! The service that is measured: its bodies are bytes, and it answers with what it got.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use gossipmonger::service::{
    Call, Cast, Kind, Method, Service, ServiceVersion,
    codec::{Codec, CodecError},
};
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

/// An echo, and a counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echoes;

/// Asks for the same bytes.
#[derive(Debug)]
pub(super) struct Echo(pub(super) Bytes);

/// Is counted.
#[derive(Debug)]
pub(super) struct Told(pub(super) Bytes);

impl Service for Echoes {
    const NAME: &'static str = "echoes";
    const VERSION: ServiceVersion = ServiceVersion::new(1, 0);
    const METHODS: &'static [Method] = &[Echo::METHOD, Told::METHOD];
    type Codec = Bodies;
}

impl Call for Echo {
    type Service = Echoes;
    type Reply = Bytes;
    const METHOD: Method = Method::new(1, "Echo", Kind::Call);
}

impl Cast for Told {
    type Service = Echoes;
    const METHOD: Method = Method::new(2, "Told", Kind::Cast);
}

/// Bytes, as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bodies;

impl Codec<Bytes> for Bodies {
    fn encode(message: &Bytes, to: &mut BytesMut) -> Result<(), CodecError> {
        to.extend_from_slice(message);
        Ok(())
    }

    fn decode(from: Bytes) -> Result<Bytes, CodecError> {
        Ok(from)
    }
}

impl Codec<Echo> for Bodies {
    fn encode(message: &Echo, to: &mut BytesMut) -> Result<(), CodecError> {
        <Self as Codec<Bytes>>::encode(&message.0, to)
    }

    fn decode(from: Bytes) -> Result<Echo, CodecError> {
        Ok(Echo(from))
    }
}

impl Codec<Told> for Bodies {
    fn encode(message: &Told, to: &mut BytesMut) -> Result<(), CodecError> {
        <Self as Codec<Bytes>>::encode(&message.0, to)
    }

    fn decode(from: Bytes) -> Result<Told, CodecError> {
        Ok(Told(from))
    }
}

/// What is done at the other node.
#[derive(Debug, Default)]
pub(super) struct Far {
    received: AtomicU64,
    /// Calls and messages, if some are to go wrong.
    spoilable: AtomicU64,
    /// Each call and each message of this number goes wrong.
    spoil: Option<u64>,
}

impl Far {
    pub(super) fn new(spoil: Option<u64>) -> Self {
        Self { spoil, ..Self::default() }
    }

    pub(super) fn answer(&self, body: Bytes) -> Bytes {
        match self.spoil {
            Some(every) if self.is_due(every) => body.iter().map(|byte| !byte).collect(),
            _ => body,
        }
    }

    pub(super) fn take(&self, _: &Told) {
        match self.spoil {
            Some(every) if self.is_due(every) => {}
            _ => drop(self.received.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn is_due(&self, every: u64) -> bool {
        (self.spoilable.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every)
    }
}

/// The same, as an actor.
#[derive(Debug)]
pub(super) struct FarActor;

/// Its messages.
#[derive(Debug)]
pub(super) enum FarMessage {
    Echo(Bytes, RpcReplyPort<Bytes>),
    Told(Told),
}

#[cfg(feature = "cluster")]
impl ractor::Message for FarMessage {}

#[ractor::actor(message = FarMessage, state = Arc<Far>, arguments = Arc<Far>)]
impl FarActor {
    async fn pre_start(
        &self,
        _: ActorRef<FarMessage>,
        far: Arc<Far>,
    ) -> Result<Arc<Far>, ActorProcessingErr> {
        Ok(far)
    }

    async fn handle(
        &self,
        _: ActorRef<FarMessage>,
        message: FarMessage,
        far: &mut Arc<Far>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FarMessage::Echo(body, reply) => drop(reply.send(far.answer(body))),
            FarMessage::Told(told) => far.take(&told),
        }
        Ok(())
    }
}
