//! The events that wait for one subscriber.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use super::error::SubscriptionError;
use crate::{node::shared::Shared, protocol::route::Counter};

/// A receiver of events that can be polled. It ends with the node.
pub(super) struct Queue<E> {
    shared: Arc<Shared>,
    /// `None` while `next` has it.
    events: Option<Receiver<E>>,
    /// The wait for the next event. It outlives a call that was cancelled.
    next: Option<Next<E>>,
}

type Next<E> =
    Pin<Box<dyn Future<Output = (Receiver<E>, Result<E, SubscriptionError>)> + Send + Sync>>;

impl<E: Clone + Send + Sync + 'static> Queue<E> {
    pub(super) fn new(shared: &Arc<Shared>, events: Receiver<E>) -> Self {
        Self { shared: Arc::clone(shared), events: Some(events), next: None }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<E, SubscriptionError>> {
        if let Some(events) = self.events.take() {
            self.next = Some(Box::pin(next(Arc::clone(&self.shared), events)));
        }
        let Some(next) = &mut self.next else { return Poll::Ready(Err(SubscriptionError::Ended)) };
        let (events, received) = ready!(next.as_mut().poll(context));
        self.next = None;
        self.events = Some(events);
        Poll::Ready(received)
    }
}

/// The next event; events before the end of the node are still delivered.
async fn next<E: Clone>(
    shared: Arc<Shared>,
    mut events: Receiver<E>,
) -> (Receiver<E>, Result<E, SubscriptionError>) {
    let received = tokio::select! {
        biased;
        received = events.recv() => received,
        () = shared.end.completed() => events.try_recv().map_err(|error| match error {
            TryRecvError::Lagged(missed) => RecvError::Lagged(missed),
            _ => RecvError::Closed,
        }),
    };
    let received = received.map_err(|error| match error {
        RecvError::Lagged(missed) => {
            shared.diagnostics.counters.add(Counter::EventsLagged, missed);
            SubscriptionError::Lagged(missed)
        }
        RecvError::Closed => SubscriptionError::Ended,
    });
    (events, received)
}

impl<E> fmt::Debug for Queue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waits", &self.next.is_some()).finish_non_exhaustive()
    }
}
