//! What a node offers, as its connections see it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;

use super::{caller::Caller, responder::Responder, running::Running};
use crate::{
    net::BoxFuture,
    protocol::{
        service::{ServiceId, manifest},
        time::Time,
    },
};

/// An offered service. It decides about access and room, and answers.
pub(crate) trait Offered: fmt::Debug + Send + Sync {
    /// Takes a request, whose answer goes to its responder. It returns at once.
    fn request(self: Arc<Self>, caller: &Arc<Caller>, request: Inbound);

    /// Takes a message without an answer. It returns at once.
    fn cast(self: Arc<Self>, caller: &Arc<Caller>, method: u16, body: Bytes);

    /// Takes no new requests from now on.
    fn drain(&self);

    /// Waits until no request runs or waits.
    fn emptied(&self) -> BoxFuture<'_, ()>;
}

/// The words with which a request for something is refused that is not offered.
pub(crate) const NOT_OFFERED: &str = "this node does not offer it";

/// A request of a caller.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) method: u16,
    pub(crate) body: Bytes,
    pub(crate) deadline: Time,
    pub(crate) running: Arc<Running>,
    pub(crate) responder: Responder,
}

/// All offered services of a node.
pub(crate) type Offers = BTreeMap<ServiceId, Entry>;

/// An offered service, and what is announced of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offered: Arc<dyn Offered>,
    pub(crate) announced: manifest::Offered,
}
