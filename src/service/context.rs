//! What a handler knows of the call that it answers.

use std::{fmt, sync::Arc, time::Duration};

use super::Caller;
use crate::{
    node::services::caller::CallerName,
    protocol::{
        id::{Datacenter, Generation, NodeId},
        service::identity::{Tag, TraceContext},
        time::Time,
    },
};

/// The identity of a call: who calls, in which generation, and a number there. A client has no generation, and numbers
/// its calls from a random one on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    caller: CallerName,
    generation: Generation,
    number: u64,
}

impl CallId {
    /// The number of the call at its caller.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} of {}@{}", self.number, self.caller, self.generation)
    }
}

/// The node that answers, and the service that is called there.
pub(super) trait Serving: fmt::Debug + Send + Sync {
    /// The time there.
    fn now(&self) -> Time;

    /// The node.
    fn node(&self) -> &NodeId;

    /// The node to which a key belongs, as this one knows the providers of the service.
    fn owner(&self, key: &[u8], datacenter: Option<&Datacenter>) -> Option<NodeId>;
}

/// The circumstances of one call, for its handler.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) caller: Arc<Caller>,
    pub(super) deadline: Time,
    pub(super) tag: Tag,
    pub(super) serving: Arc<dyn Serving>,
}

impl Context {
    /// Who calls, as its certificate proves it.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The identity of the call: the same in every attempt, and of no other call of its caller. Of a message without an
    /// answer it names the sender only.
    #[must_use]
    pub fn id(&self) -> CallId {
        let (caller, generation) = (self.caller.name(), self.caller.generation());
        CallId { caller, generation, number: self.tag.number }
    }

    /// The trace that the call belongs to, if its caller has said so. Hand it on to the calls that the handler makes
    /// ([`Calling::trace`](super::Calling::trace)).
    #[must_use]
    pub const fn trace(&self) -> Option<TraceContext> {
        self.tag.trace
    }

    /// What is left until the deadline of the call. After it the caller does not wait, and the handler's task is
    /// dropped. Hand it on to the calls that the handler makes.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.since(self.serving.now())
    }

    /// The node to which a key belongs, as this node knows the providers of the service now: of one datacenter, or of
    /// all. See [`Stub::by_key`](super::Stub::by_key). `None` if no provider is listed.
    #[must_use]
    pub fn owner(&self, key: impl AsRef<[u8]>, datacenter: Option<&Datacenter>) -> Option<NodeId> {
        self.serving.owner(key.as_ref(), datacenter)
    }

    /// Whether a key belongs to this node, of all providers. It spreads work and keeps caches warm; it excludes nobody,
    /// since two nodes whose views differ may both own a key for a moment.
    #[must_use]
    pub fn owns(&self, key: impl AsRef<[u8]>) -> bool {
        self.owner(key, None).as_ref() == Some(self.serving.node())
    }
}
