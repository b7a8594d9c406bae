//! A broadcast channel that takes no memory until somebody listens: its buffer is allocated whole, and
//! with 4,096 events of 100 bytes it would be most of what an idle node holds.

use std::sync::OnceLock;

use tokio::sync::broadcast;

#[derive(Debug)]
pub(crate) struct Channel<T> {
    capacity: usize,
    sender: OnceLock<broadcast::Sender<T>>,
}

impl<T: Clone> Channel<T> {
    /// Holds so many for a subscriber that does not take them.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, sender: OnceLock::new() }
    }

    /// To everybody who listens, if anybody does.
    pub(crate) fn send(&self, event: T) {
        if let Some(sender) = self.sender.get() {
            // It fails if nobody listens any more.
            let _ = sender.send(event);
        }
    }

    /// What is sent from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<T> {
        self.sender.get_or_init(|| broadcast::Sender::new(self.capacity)).subscribe()
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.sender.get().is_some_and(|sender| sender.receiver_count() > 0)
    }
}
