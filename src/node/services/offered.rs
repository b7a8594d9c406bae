//! What a node offers, as its connections see it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    caller::Caller,
    framed::{FrameReader, FrameWriter, Framed},
    responder::Responder,
    room::Held,
    running::Running,
};
use crate::{
    net::BoxFuture,
    protocol::{
        service::{
            Kind, ServiceId,
            frame::Code,
            identity::{Question, Tag},
            manifest,
            stream::Beginning,
        },
        time::Time,
    },
};

/// An offered service. It decides about access and room, and answers.
pub(crate) trait Offered: fmt::Debug + Send + Sync {
    /// Takes a request, whose answer goes to its responder. It returns at once.
    fn request(self: Arc<Self>, caller: &Arc<Caller>, request: Inbound);

    /// Takes a message without an answer. It returns at once.
    fn cast(self: Arc<Self>, caller: &Arc<Caller>, message: InboundCast);

    /// The kind of a method, if this caller may use it: before more is read from the caller.
    ///
    /// # Errors
    /// Why not.
    fn kind(&self, caller: &Caller, method: u16) -> Result<Kind, Code>;

    /// Takes no new requests from now on.
    fn drain(&self);

    /// Waits until no request runs or waits.
    fn emptied(&self) -> BoxFuture<'_, ()>;
}

/// The words with which a request for something is refused that is not offered.
pub(crate) const NOT_OFFERED: &str = "this node does not offer it";

/// The words of a refusal that has only its code to tell. They are the same wherever the code comes from, since to a
/// client what it may not call does not exist.
pub(crate) fn words(code: Code) -> &'static str {
    if code == Code::NoSuchService { NOT_OFFERED } else { "" }
}

/// A request of a caller.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) method: u16,
    pub(crate) body: Bytes,
    pub(crate) tag: Tag,
    pub(crate) deadline: Time,
    pub(crate) running: Arc<Running>,
    pub(crate) responder: Responder,
    /// The room that a long question uses, until it is decoded.
    pub(crate) held: Option<Held>,
    /// What comes with it over a stream of its own.
    pub(crate) attached: Option<Box<Attached>>,
    /// When the task that reads a lane has read it; `None` if it came otherwise.
    pub(crate) read_at: Option<Time>,
}

/// A message of a caller, without an answer.
#[derive(Debug)]
pub(crate) struct InboundCast {
    pub(crate) message: Question,
    /// The room that a long message uses, until it is decoded.
    pub(crate) held: Option<Held>,
    /// When the task that reads a lane has read it; `None` if it came otherwise.
    pub(crate) read_at: Option<Time>,
}

/// What comes with a request over a stream of its own.
#[derive(Debug)]
pub(crate) struct Attached {
    /// To the caller.
    pub(crate) writer: Arc<FrameWriter>,
    /// From the caller.
    pub(crate) input: Input,
    /// Whether the handler begins.
    pub(crate) beginning: Arc<Beginning>,
}

/// What a caller sends after its question.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nothing.
    None,
    /// Items, and then the end frame of the caller. A channel that ends without it is a stream that has broken off.
    Items(mpsc::Receiver<Framed>),
    /// Plain bytes.
    Bytes(FrameReader),
}

/// All offered services of a node.
pub(crate) type Offers = BTreeMap<ServiceId, Entry>;

/// An offered service, and what is announced of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offered: Arc<dyn Offered>,
    pub(crate) announced: manifest::Offered,
}
