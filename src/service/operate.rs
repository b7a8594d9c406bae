//! What operators need of services, without their types: who provides them, who calls them, and calls with encoded
//! questions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Kind, Method, ServiceId,
    calling::{Callee, How, not_run},
    error::{CallError, NotRun},
    listed::Listed,
    place::Where,
    side::{Here, Side},
};
pub use crate::node::services::callers::CALLERS_MAX;
pub use crate::protocol::service::explain::Verdict;
use crate::{
    node::Gossipmonger,
    protocol::{
        id::NodeId,
        service::{directory::Provider, explain::explain},
        time::Time,
    },
};

/// A provider of a service, and why this node calls it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// The offer.
    pub offer: Listed,
    /// Whether it gets calls.
    pub verdict: Verdict,
    /// Whether there is a connection for calls to the node. The first call dials one.
    pub connected: bool,
    /// Why the last dial for calls failed, if the pause after it is not over: until then a call to this node fails, and
    /// is tried at another one.
    pub not_dialed: Option<String>,
}

/// A node or client that calls a service of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerFigures {
    /// The service.
    pub service: ServiceId,
    /// Who calls: `node NAME` or `client NAME`.
    pub caller: String,
    /// The calls and casts over lanes, and the streams, also refused ones.
    pub calls: u64,
    /// When the first of them came.
    pub first: Time,
    /// When the last of them came.
    pub last: Time,
}

impl Gossipmonger {
    /// The providers of a service, the nearest datacenter first, and why a stub of this node that has made no call yet
    /// picks each of them or not.
    #[must_use]
    pub fn explain(&self, service: &ServiceId) -> Vec<Explained> {
        let side = Here::new(self.clone());
        let outbound = side.outbound();
        let listings = outbound.watched.listings();
        let Some(listing) = listings.get(service) else { return Vec::new() };
        let mut balance = side.balance();
        outbound.paths.feed(outbound.clock().now(), &mut balance);
        let explained = explain(listing, &balance).into_iter().map(|(provider, verdict)| {
            let (connected, not_dialed) = outbound.state(&provider.node);
            let offer = Listed::new(service, provider);
            Explained { offer, verdict, connected, not_dialed }
        });
        explained.collect()
    }

    /// Calls a method by its number at one node: with an encoded question, for an encoded answer. Programs that have the
    /// types of the service use a [`Stub`](super::Stub).
    ///
    /// # Errors
    /// [`CallError`]; [`NotRun::NoProvider`] if the node does not offer the service.
    pub async fn call_encoded(
        &self,
        node: &NodeId,
        (service, method): (&ServiceId, u16),
        question: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let callee = Callee::new(Arc::new(Here::new(self.clone())), service.clone());
        let place = callee.listing(|listing| {
            let Provider { node, generation, epoch, .. } = listing.find(node)?;
            Some(Where::At(node.clone(), *generation, *epoch))
        });
        let place = place.ok_or_else(|| not_run(NotRun::NoProvider, Vec::new()))?;
        let method = Method::new(method, "", Kind::Call);
        let how = How::plain(callee.number());
        callee.call(&place, &method, question, within, how).await
    }

    /// Who calls the services of this node, by service and caller, since the process began. Calls of this node to itself
    /// are not counted. It remembers at most [`CALLERS_MAX`] pairs, and forgets first those that have not called for
    /// longest.
    #[must_use]
    pub fn callers(&self) -> Vec<CallerFigures> {
        let all = self.shared.services.callers.all().into_iter();
        let figures = all.map(|(service, caller, count)| CallerFigures {
            service,
            caller: caller.to_string(),
            calls: count.calls,
            first: count.first,
            last: count.last,
        });
        figures.collect()
    }
}
