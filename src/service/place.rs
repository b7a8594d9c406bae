//! Where a call goes.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    error::{CallFailure, Failure, NotRun},
    exposed::Exposed,
};
use crate::protocol::{
    id::{Generation, NodeId},
    service::{balance::Prefer, exposed::addressed},
};

/// Where a call goes.
#[derive(Clone, Debug)]
pub(super) enum Where {
    /// To a provider that the balance picks.
    Any(Prefer),
    /// To this node in this generation, and this registration of the service there.
    At(NodeId, Generation, u32),
    /// To an actor of a node that is not announced.
    Exposed(Arc<Exposed>),
}

impl Where {
    /// What travels of an encoded question or message.
    pub(super) fn body(&self, body: Bytes) -> Bytes {
        match self {
            Self::Exposed(exposed) => addressed(exposed.number, &body),
            Self::Any(_) | Self::At(..) => body,
        }
    }

    /// An attempt there has failed like this.
    pub(super) fn failed(&self, failure: &CallFailure) {
        let ended = matches!(
            failure,
            CallFailure::NotRun(NotRun::NoSuchService) | CallFailure::Failed(Failure::ActorEnded)
        );
        if let Self::Exposed(exposed) = self
            && ended
        {
            exposed.end();
        }
    }
}
