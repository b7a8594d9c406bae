//! Calling a service at whatever nodes offer it: [`Stub`].

use std::{marker::PhantomData, sync::Arc, time::Duration};

use super::{
    Access, Call, Cast, Service,
    ask::{Calling, cast, question, try_cast},
    calling::{Callee, Share, not_run},
    error::{CallError, NotRun},
    place::Where,
    remote::Remote,
};
pub use crate::protocol::service::balance::Prefer;
use crate::protocol::{
    hash::hash,
    id::NodeId,
    service::{balance::by_key, directory::Listing},
};

/// Calls a service at whatever live nodes offer it. Cheap to clone; clones share what they have learned of the
/// providers.
pub struct Stub<S> {
    pub(super) callee: Arc<Callee>,
    pub(super) prefer: Prefer,
    service: PhantomData<fn() -> S>,
}

impl<S> Clone for Stub<S> {
    fn clone(&self) -> Self {
        let (callee, prefer) = (Arc::clone(&self.callee), self.prefer.clone());
        Self { callee, prefer, service: PhantomData }
    }
}

impl<S: Service> std::fmt::Debug for Stub<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stub").field("service", &self.callee.id).finish_non_exhaustive()
    }
}

impl<S: Service> Stub<S> {
    pub(super) fn new(mut callee: Callee) -> Self {
        callee.counts(S::METHODS);
        Self { callee: Arc::new(callee), prefer: Prefer::default(), service: PhantomData }
    }

    /// The same, which prefers these providers.
    #[must_use]
    pub fn prefer(mut self, prefer: Prefer) -> Self {
        self.prefer = prefer;
        self
    }

    /// The same, which calls none but these nodes, whatever it prefers: `Access::datacenter(..)` for example. The
    /// directory believes what a node says of where it is; this is judged again by the certificate of the node, before
    /// anything is sent to it. Clients in the access mean nothing here.
    ///
    /// It begins without figures of the providers, and with a retry budget of its own.
    #[must_use]
    pub fn only_from(&self, nodes: Access) -> Self {
        let mut callee = self.callee.anew();
        callee.only = Some(Arc::new(nodes.nodes_among()));
        self.with(callee)
    }

    /// The same, which sends this part of its calls (0 to 1) to these nodes, and the rest to the others: a hundredth to
    /// a new version, for example. A weight cannot do that: it divides the score of a provider. If the nodes that were
    /// drawn cannot take a call, the others get it.
    ///
    /// It begins without figures of the providers, and with a retry budget of its own.
    ///
    /// # Panics
    /// If `part` is not between 0 and 1.
    #[must_use]
    pub fn share(&self, nodes: Access, part: f64) -> Self {
        assert!((0.0..=1.0).contains(&part), "a share is between 0 and 1, not {part}");
        let mut callee = self.callee.anew();
        callee.share = Some(Share { of: Arc::new(nodes.nodes_among()), part });
        self.with(callee)
    }

    fn with(&self, mut callee: Callee) -> Self {
        callee.counts(S::METHODS);
        Self { callee: Arc::new(callee), prefer: self.prefer.clone(), service: PhantomData }
    }

    /// Asks a question. Await the result, or set options first.
    ///
    /// A call that has not run is tried again at other nodes, [`ATTEMPTS`](crate::protocol::service::balance::retry::ATTEMPTS)
    /// times in all. One that may have run is tried again only if the method is idempotent. Dropping the future cancels
    /// the call.
    pub fn call<M: Call<Service = S>>(&self, ask: M) -> Calling<M> {
        Calling::new(Arc::clone(&self.callee), Where::Any(self.prefer.clone()), &ask)
    }

    /// Sends a message without an answer. Returns once it is in the queue of a connection, or on a stream if it is above
    /// 16 KiB: it is not yet delivered, and may be lost with the connection, or refused by the node without an error.
    ///
    /// # Errors
    /// [`CallError`]; then it was not sent.
    pub async fn cast<M: Cast<Service = S>>(&self, message: M) -> Result<(), CallError> {
        cast(&self.callee, &Where::Any(self.prefer.clone()), &message).await
    }

    /// As [`Stub::cast`], but never waits.
    ///
    /// # Errors
    /// [`NotRun::Overloaded`] if there is no room now, [`NotRun::TooLarge`] above 16 KiB; then it was not sent.
    pub fn try_cast<M: Cast<Service = S>>(&self, message: &M) -> Result<(), CallError> {
        try_cast(&self.callee, &Where::Any(self.prefer.clone()), message)
    }

    /// The service at one node, in the node's present generation; `None` if it is not offered there.
    #[must_use]
    pub fn at(&self, node: &NodeId) -> Option<Remote<S>> {
        let found = self.listing(|listing| listing.find(node).cloned())?;
        let found = Some(found).filter(|found| self.callee.trusts(found))?;
        Some(Remote::new(Arc::clone(&self.callee), &found))
    }

    /// The node to which a key belongs: the same one for the same key as long as it lives and offers the service,
    /// whoever asks. A node that dies loses its keys; no other key moves. (Rendezvous hashing.) Two callers whose views
    /// differ may pick different nodes for a moment. `None` if no node offers it.
    #[must_use]
    pub fn by_key(&self, key: impl AsRef<[u8]>) -> Option<Remote<S>> {
        let datacenter = match &self.prefer {
            Prefer::Datacenter(datacenter) => Some(datacenter),
            _ => None,
        };
        let key = hash(key);
        let found = self
            .listing(|listing| by_key(listing, datacenter, self.callee.trusted(), key).cloned())?;
        Some(Remote::new(Arc::clone(&self.callee), &found))
    }

    /// The live nodes that offer it, by datacenter and name.
    #[must_use]
    pub fn providers(&self) -> Vec<Remote<S>> {
        let trusted = |listing: &Listing| {
            listing.iter().filter(|found| self.callee.trusts(found)).cloned().collect::<Vec<_>>()
        };
        let providers = self.listing(|listing| Some(trusted(listing)));
        let providers = providers.unwrap_or_default();
        providers.iter().map(|found| Remote::new(Arc::clone(&self.callee), found)).collect()
    }

    /// Waits until at least so many nodes offer it.
    ///
    /// # Errors
    /// [`NotRun::NoProvider`] if they do not within this time.
    pub async fn ready(&self, nodes: usize, within: Duration) -> Result<(), CallError> {
        let mut changes = self.callee.changes();
        let enough = async {
            while self.count() < nodes {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(within, enough).await;
        waited.map_err(|_| not_run(NotRun::NoProvider, Vec::new()))
    }

    /// Asks every node that offers it, at most [`GATHER_MAX`] of them and [`GATHER_AT_ONCE`] at once. Returns the
    /// answer, or the error, of each.
    pub async fn gather<M>(
        &self,
        ask: &M,
        within: Duration,
    ) -> Vec<(NodeId, Result<M::Reply, CallError>)>
    where
        M: Call<Service = S>,
    {
        let body = question(ask);
        let mut left = self.providers().into_iter().take(GATHER_MAX);
        let mut running = tokio::task::JoinSet::new();
        let mut answers = Vec::new();
        let begin = |running: &mut tokio::task::JoinSet<_>, remote: Remote<S>| {
            let (callee, body) = (Arc::clone(&self.callee), body.clone());
            let place = remote.place();
            running.spawn(async move {
                let calling = Calling::<M>::encoded(callee, place, body).within(within);
                (remote.node().clone(), calling.run().await)
            });
        };
        for remote in left.by_ref().take(GATHER_AT_ONCE) {
            begin(&mut running, remote);
        }
        while let Some(ended) = running.join_next().await {
            answers.extend(ended.ok());
            if let Some(remote) = left.next() {
                begin(&mut running, remote);
            }
        }
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        answers
    }

    fn count(&self) -> usize {
        self.callee.listing(|listing| match &self.callee.only {
            None => listing.len(),
            Some(_) => listing.iter().filter(|found| self.callee.trusts(found)).count(),
        })
    }

    fn listing<T>(&self, read: impl FnOnce(&Listing) -> Option<T>) -> Option<T> {
        self.callee.listing(read)
    }
}

/// Most nodes that [`Stub::gather`] asks.
pub const GATHER_MAX: usize = 1_000;
/// Most nodes that [`Stub::gather`] asks at once.
pub const GATHER_AT_ONCE: usize = 64;
