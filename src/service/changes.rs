//! Watching who offers what: [`ProviderChanges`] of one service, [`ServiceChanges`] of all.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::watch;

use super::{Service, ServiceId, calling::Callee, listed::Listed, remote::Remote, stub::Stub};
use crate::{
    node::{Gossipmonger, subscription::SubscriptionError},
    protocol::service::directory::{Difference, Gone, Listing, Listings, Provider, difference},
};

/// A change of who offers a service.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProviderChange<S> {
    /// A node offers it that did not before. At first, one for each node that offers it already.
    Joined {
        /// The service at this node.
        remote: Remote<S>,
        /// The offer.
        offer: Listed,
    },
    /// An offer has changed: it drains, for example, or the node is suspect.
    Changed {
        /// The service at this node.
        remote: Remote<S>,
        /// The offer as it is now.
        offer: Listed,
    },
    /// A node does not offer it any more, or not in the registration that was reported. If the node has registered it
    /// again, or has restarted and offers it again, [`Self::Joined`] follows.
    Left {
        /// The service at this node.
        remote: Remote<S>,
        /// Why.
        why: Gone,
    },
}

/// A change of what nodes offer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceChange {
    /// A node offers a service that it did not offer before.
    Joined(Listed),
    /// An offer has changed: it drains, for example, or the node is suspect.
    Changed(Listed),
    /// A node does not offer a service any more.
    Left {
        /// The offer as it was.
        offer: Listed,
        /// Why.
        why: Gone,
    },
}

/// The live nodes that offer a service: first every present one, then every change. Also a [`Stream`].
///
/// It holds only the changes between two states of the directory, at most two for each provider. A reader that falls
/// behind gets the difference to the latest state: a node that joined and left meanwhile is not reported, and only the
/// last properties of an offer are.
#[must_use = "changes are found when they are read"]
pub struct ProviderChanges<S> {
    callee: Arc<Callee>,
    /// The state of the directory that was last compared.
    compared: Listing,
    waiting: Waiting<ProviderChange<S>>,
}

/// The changes of what live nodes offer, whatever the service. As [`ProviderChanges`], it holds only the changes
/// between two states of the directory. Also a [`Stream`].
#[must_use = "changes are found when they are read"]
pub struct ServiceChanges {
    node: Gossipmonger,
    /// The state of the directory that was last compared.
    compared: Listings,
    waiting: Waiting<ServiceChange>,
}

impl<S> fmt::Debug for ProviderChanges<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderChanges").field("service", &self.callee.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServiceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceChanges").field("node", self.node.node()).finish_non_exhaustive()
    }
}

impl<S: Service> Stub<S> {
    /// Watches which live nodes offer it, whatever this stub prefers; of these only those that may
    /// answer it ([`Stub::only_from`]).
    pub fn watch(&self) -> ProviderChanges<S> {
        let mut changes = self.callee.changes();
        // The present state counts as one.
        changes.mark_changed();
        ProviderChanges {
            callee: Arc::clone(&self.callee),
            compared: Listing::default(),
            waiting: Waiting::new(changes),
        }
    }
}

impl Gossipmonger {
    /// Watches what live nodes offer, from now on. [`Gossipmonger::offered`] has what they offer now.
    pub fn watch_services(&self) -> ServiceChanges {
        let watched = &self.shared.services.outbound.watched;
        let waiting = Waiting::new(watched.changes());
        let compared = Listings::clone(&watched.listings());
        ServiceChanges { node: self.clone(), compared, waiting }
    }
}

impl<S: Service> ProviderChanges<S> {
    /// Waits for the next change.
    ///
    /// Cancel safe: only a call that returns a change removes it.
    ///
    /// # Errors
    /// [`SubscriptionError::Ended`]: this node has ended. Nothing follows.
    pub async fn next(&mut self) -> Result<ProviderChange<S>, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ProviderChange<S>, SubscriptionError>> {
        let Self { callee, compared, waiting } = self;
        let ended = || {
            let callee = Arc::clone(callee);
            async move { callee.ended().await }
        };
        waiting.poll(context, ended, || {
            let now = callee.listing(Listing::clone);
            let before = std::mem::replace(compared, now);
            let found = difference(&before, compared).into_iter();
            let trusted = found.filter(|difference| callee.trusts(of(difference)));
            trusted.map(|difference| provider_change(callee, difference)).collect()
        })
    }
}

impl ServiceChanges {
    /// Waits for the next change.
    ///
    /// Cancel safe: only a call that returns a change removes it.
    ///
    /// # Errors
    /// [`SubscriptionError::Ended`]: this node has ended. Nothing follows.
    pub async fn next(&mut self) -> Result<ServiceChange, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ServiceChange, SubscriptionError>> {
        let Self { node, compared, waiting } = self;
        let ended = || {
            let node = node.clone();
            async move { node.shared.end.begun().await }
        };
        waiting.poll(context, ended, || {
            let now = Listings::clone(&node.shared.services.outbound.watched.listings());
            let before = std::mem::replace(compared, now);
            differences(&before, compared, |id, difference| service_change(node, id, difference))
        })
    }
}

/// Compares what all nodes offered with what they offer now.
fn differences(
    before: &Listings,
    now: &Listings,
    mut change: impl FnMut(&ServiceId, Difference) -> ServiceChange,
) -> Vec<ServiceChange> {
    let names = |listings: &Listings| listings.iter().map(|(id, _)| id.clone()).collect();
    let (were, are): (BTreeSet<ServiceId>, BTreeSet<_>) = (names(before), names(now));
    let none = Listing::default();
    let mut found = Vec::new();
    for id in were.union(&are) {
        let (was, is) = (before.get(id).unwrap_or(&none), now.get(id).unwrap_or(&none));
        found.extend(difference(was, is).into_iter().map(|difference| change(id, difference)));
    }
    found
}

/// The provider that has changed.
fn of(difference: &Difference) -> &Provider {
    match difference {
        Difference::Joined(provider)
        | Difference::Changed(provider)
        | Difference::Left { provider, .. } => provider,
    }
}

fn provider_change<S: Service>(callee: &Arc<Callee>, difference: Difference) -> ProviderChange<S> {
    let remote = |provider: &Provider| Remote::new(Arc::clone(callee), provider);
    let offer = |provider: &Provider| Listed::new(&callee.id, provider);
    match difference {
        Difference::Joined(provider) => {
            ProviderChange::Joined { remote: remote(&provider), offer: offer(&provider) }
        }
        Difference::Changed(provider) => {
            ProviderChange::Changed { remote: remote(&provider), offer: offer(&provider) }
        }
        Difference::Left { provider, replaced } => {
            let remote = remote(&provider);
            // A node that membership says nothing of is unreachable.
            let why = replaced.or_else(|| remote.is_gone()).unwrap_or(Gone::Unreachable);
            ProviderChange::Left { remote, why }
        }
    }
}

fn service_change(node: &Gossipmonger, id: &ServiceId, difference: Difference) -> ServiceChange {
    match difference {
        Difference::Joined(provider) => ServiceChange::Joined(Listed::new(id, &provider)),
        Difference::Changed(provider) => ServiceChange::Changed(Listed::new(id, &provider)),
        Difference::Left { provider, replaced } => {
            let unlisted = || node.unlisted(&provider.node, provider.generation);
            let why = replaced.or_else(unlisted).unwrap_or(Gone::Unreachable);
            ServiceChange::Left { offer: Listed::new(id, &provider), why }
        }
    }
}

/// The changes that the last comparison found, and the wait for the next state of the directory.
struct Waiting<C> {
    found: VecDeque<C>,
    /// `None` while `next` has it.
    changes: Option<watch::Receiver<u64>>,
    /// The wait for the next state. It outlives a call that was cancelled.
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = Option<watch::Receiver<u64>>> + Send + Sync>>;

impl<C> Waiting<C> {
    fn new(changes: watch::Receiver<u64>) -> Self {
        Self { found: VecDeque::new(), changes: Some(changes), next: None }
    }

    /// The next change. `compare` finds the changes up to the present state; the future of `ended` ends with the node.
    fn poll<E: Future<Output = ()> + Send + Sync + 'static>(
        &mut self,
        context: &mut Context<'_>,
        ended: impl Fn() -> E,
        mut compare: impl FnMut() -> Vec<C>,
    ) -> Poll<Result<C, SubscriptionError>> {
        loop {
            if let Some(change) = self.found.pop_front() {
                return Poll::Ready(Ok(change));
            }
            if let Some(changes) = self.changes.take() {
                self.next = Some(Box::pin(changed(ended(), changes)));
            }
            let end = Poll::Ready(Err(SubscriptionError::Ended));
            let Some(next) = &mut self.next else { return end };
            let changes = ready!(next.as_mut().poll(context));
            self.next = None;
            let Some(changes) = changes else { return end };
            self.changes = Some(changes);
            self.found = compare().into();
        }
    }
}

/// Waits for a change of the directory; `None` if the node ends before.
async fn changed(
    ended: impl Future<Output = ()>,
    mut changes: watch::Receiver<u64>,
) -> Option<watch::Receiver<u64>> {
    tokio::select! {
        biased;
        changed = changes.changed() => changed.is_ok().then_some(changes),
        () = ended => None,
    }
}

impl<S: Service> Stream for ProviderChanges<S> {
    type Item = ProviderChange<S>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(Result::ok)
    }
}

impl Stream for ServiceChanges {
    type Item = ServiceChange;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(Result::ok)
    }
}

// Nothing in it is pinned in place.
impl<S> Unpin for ProviderChanges<S> {}
