//! Watching who offers a service: [`ProviderChanges`].

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::watch;

use super::{Service, calling::Callee, listed::Listed, remote::Remote, stub::Stub};
use crate::{
    node::subscription::SubscriptionError,
    protocol::service::directory::{Difference, Gone, Listing, Provider, difference},
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

/// The live nodes that offer a service: first every present one, then every change. Also a [`Stream`].
///
/// Nothing waits in it beside the changes between two states of the directory, at most two for each provider. A reader
/// that falls behind is brought up to date: a node that joined and left meanwhile is not reported, and of the
/// properties of an offer only the last ones are.
#[must_use = "changes are found when they are read"]
pub struct ProviderChanges<S> {
    callee: Arc<Callee>,
    shown: Listing,
    waiting: VecDeque<ProviderChange<S>>,
    /// `None` while `next` has it.
    changes: Option<watch::Receiver<u64>>,
    /// The wait for the next state. It outlives a call that was cancelled.
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = Option<watch::Receiver<u64>>> + Send + Sync>>;

impl<S> fmt::Debug for ProviderChanges<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderChanges").field("service", &self.callee.id).finish_non_exhaustive()
    }
}

impl<S: Service> Stub<S> {
    /// Watches which live nodes offer it, whatever this stub prefers.
    pub fn watch(&self) -> ProviderChanges<S> {
        let mut changes = self.callee.changes();
        // The present state counts as one.
        changes.mark_changed();
        ProviderChanges {
            callee: Arc::clone(&self.callee),
            shown: Listing::default(),
            waiting: VecDeque::new(),
            changes: Some(changes),
            next: None,
        }
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
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Poll::Ready(Ok(change));
            }
            if let Some(changes) = self.changes.take() {
                self.next = Some(Box::pin(changed(Arc::clone(&self.callee), changes)));
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
        let now = self.callee.listing(Listing::clone);
        let before = std::mem::replace(&mut self.shown, now);
        for difference in difference(&before, &self.shown) {
            let change = self.change(difference);
            self.waiting.push_back(change);
        }
    }

    fn change(&self, difference: Difference) -> ProviderChange<S> {
        let remote = |provider: &Provider| Remote::new(Arc::clone(&self.callee), provider);
        let offer = |provider: &Provider| Listed::new(&self.callee.id, provider);
        match difference {
            Difference::Joined(provider) => {
                ProviderChange::Joined { remote: remote(&provider), offer: offer(&provider) }
            }
            Difference::Changed(provider) => {
                ProviderChange::Changed { remote: remote(&provider), offer: offer(&provider) }
            }
            Difference::Left { provider, replaced } => {
                let remote = remote(&provider);
                // Of a node that is not heard nothing is known.
                let why = replaced.or_else(|| remote.is_gone()).unwrap_or(Gone::Unreachable);
                ProviderChange::Left { remote, why }
            }
        }
    }
}

/// Waits for a change of the directory; `None` if the node ends before.
async fn changed(
    callee: Arc<Callee>,
    mut changes: watch::Receiver<u64>,
) -> Option<watch::Receiver<u64>> {
    tokio::select! {
        biased;
        changed = changes.changed() => changed.is_ok().then_some(changes),
        () = callee.ended() => None,
    }
}

impl<S: Service> Stream for ProviderChanges<S> {
    type Item = ProviderChange<S>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context).map(Result::ok)
    }
}

// Nothing in it is pinned in place.
impl<S> Unpin for ProviderChanges<S> {}
