//! Watching what all nodes offer: [`ServiceChanges`].

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::watch;

use super::{Gone, ServiceId, listed::Listed};
use crate::{
    node::{Gossipmonger, subscription::SubscriptionError},
    protocol::service::directory::{Difference, Listing, Listings, difference},
};

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

/// The changes of what live nodes offer, whatever the service. As
/// [`ProviderChanges`](super::ProviderChanges), it holds nothing but the changes between two states. Also a [`Stream`].
#[must_use = "changes are found when they are read"]
pub struct ServiceChanges {
    node: Gossipmonger,
    shown: Listings,
    waiting: VecDeque<ServiceChange>,
    /// `None` while `next` has it.
    changes: Option<watch::Receiver<u64>>,
    /// The wait for the next state. It outlives a call that was cancelled.
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = Option<watch::Receiver<u64>>> + Send + Sync>>;

impl fmt::Debug for ServiceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceChanges").field("node", self.node.node()).finish_non_exhaustive()
    }
}

impl Gossipmonger {
    /// Watches what live nodes offer, from now on. [`Gossipmonger::offered`] has what they offer now.
    pub fn watch_services(&self) -> ServiceChanges {
        let watched = &self.shared.services.outbound.watched;
        let changes = watched.changes();
        let shown = Listings::clone(&watched.listings());
        let waiting = VecDeque::new();
        ServiceChanges { node: self.clone(), shown, waiting, changes: Some(changes), next: None }
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
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Poll::Ready(Ok(change));
            }
            if let Some(changes) = self.changes.take() {
                self.next = Some(Box::pin(changed(self.node.clone(), changes)));
            }
            let ended = Poll::Ready(Err(SubscriptionError::Ended));
            let Some(next) = &mut self.next else { return ended };
            let changes = ready!(next.as_mut().poll(context));
            self.next = None;
            let Some(changes) = changes else { return ended };
            self.changes = Some(changes);
            self.compare();
        }
    }

    fn compare(&mut self) {
        let now = Listings::clone(&self.node.shared.services.outbound.watched.listings());
        let before = std::mem::replace(&mut self.shown, now);
        let names = |listings: &Listings| listings.iter().map(|(id, _)| id.clone()).collect();
        let (was, is): (BTreeSet<ServiceId>, BTreeSet<_>) = (names(&before), names(&self.shown));
        let none = Listing::default();
        for id in was.union(&is) {
            let was = before.get(id).unwrap_or(&none);
            let is = self.shown.get(id).unwrap_or(&none);
            for difference in difference(was, is) {
                let change = self.change(id, difference);
                self.waiting.push_back(change);
            }
        }
    }

    fn change(&self, id: &ServiceId, difference: Difference) -> ServiceChange {
        match difference {
            Difference::Joined(provider) => ServiceChange::Joined(Listed::new(id, &provider)),
            Difference::Changed(provider) => ServiceChange::Changed(Listed::new(id, &provider)),
            Difference::Left { provider, replaced } => {
                let unlisted = || self.node.unlisted(&provider.node, provider.generation);
                let why = replaced.or_else(unlisted).unwrap_or(Gone::Unreachable);
                ServiceChange::Left { offer: Listed::new(id, &provider), why }
            }
        }
    }
}

/// Waits for a change of the directory; `None` if the node ends before.
async fn changed(
    node: Gossipmonger,
    mut changes: watch::Receiver<u64>,
) -> Option<watch::Receiver<u64>> {
    tokio::select! {
        biased;
        changed = changes.changed() => changed.is_ok().then_some(changes),
        () = node.shared.end.begun() => None,
    }
}

impl Stream for ServiceChanges {
    type Item = ServiceChange;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(Result::ok)
    }
}
