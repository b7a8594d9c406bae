//! A broadcast channel that takes no memory until it has a subscriber: its buffer is allocated at
//! once, and with 4,096 events of 100 bytes it would be most of an idle node's memory.

use std::sync::OnceLock;

use tokio::sync::broadcast;

#[derive(Debug)]
pub(crate) struct Channel<T> {
    capacity: usize,
    sender: OnceLock<broadcast::Sender<T>>,
}

impl<T: Clone> Channel<T> {
    /// Holds this many values for a subscriber that does not read them.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, sender: OnceLock::new() }
    }

    /// Sends to all subscribers, if any.
    pub(crate) fn send(&self, event: T) {
        if let Some(sender) = self.sender.get() {
            // It fails if the last subscriber is gone.
            let _ = sender.send(event);
        }
    }

    /// Everything sent from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<T> {
        self.sender.get_or_init(|| broadcast::Sender::new(self.capacity)).subscribe()
    }

    /// Whether there are subscribers.
    pub(crate) fn is_heard(&self) -> bool {
        self.sender.get().is_some_and(|sender| sender.receiver_count() > 0)
    }
}
