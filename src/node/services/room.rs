//! Room for long bodies: what this node holds of them at once, and what one peer may use of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One peer gets this part of the room, or one body.
const PEER_PART: usize = 16;
/// What a frame has beside its body, at most, in bytes.
pub(super) const BODY_OVERHEAD: usize = 512;

/// Room for bodies that arrive. A body that finds none waits, and QUIC's windows stop its sender.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    node: Arc<Semaphore>,
    peer: Arc<Semaphore>,
}

/// Room that a body uses; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held(
    #[expect(dead_code, reason = "it is dropped")] Box<[OwnedSemaphorePermit; 2]>,
);

impl Rooms {
    /// For one peer. `bytes`: the room of the node. `longest`: the longest body.
    pub(crate) fn of_peer(node: &Arc<Semaphore>, bytes: usize, longest: usize) -> Self {
        let peer = Arc::new(Semaphore::new((bytes / PEER_PART).max(longest) + BODY_OVERHEAD));
        Self { node: Arc::clone(node), peer }
    }

    /// Waits for room for a body, which is no longer than the longest one.
    pub(super) async fn take(&self, bytes: usize) -> Held {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // First its own part: a peer that waits for that holds nothing of the node's.
        let peer = Arc::clone(&self.peer).acquire_many_owned(bytes).await;
        let node = Arc::clone(&self.node).acquire_many_owned(bytes).await;
        Held(Box::new([peer, node].map(|permit| permit.expect("nobody closes it"))))
    }
}

/// Why a long answer is not sent.
pub(super) const NO_ROOM: &str = "too many bytes of long answers wait to be sent";

/// Bytes of long answers that wait to be sent.
#[derive(Debug)]
pub(crate) struct Unsent {
    most: usize,
    bytes: AtomicUsize,
}

/// Bytes that wait to be sent; they count until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    of: Arc<Unsent>,
    bytes: usize,
}

impl Unsent {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, bytes: AtomicUsize::new(0) })
    }

    /// Counts an answer; `None` if too many wait.
    pub(super) fn count(self: &Arc<Self>, bytes: usize) -> Option<Counted> {
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let counted = Counted { of: Arc::clone(self), bytes };
        (before + bytes <= self.most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn answers_beyond_the_limit_are_not_counted() {
        let unsent = Unsent::new(100);
        let first = unsent.count(60);
        assert!(first.is_some() && unsent.count(60).is_none());
        assert!(unsent.count(40).is_some());
        drop(first);
        assert!(unsent.count(100).is_some());
    }

    #[tokio::test]
    async fn one_peer_cannot_use_the_room_of_all() {
        let node = Arc::new(Semaphore::new(16_000));
        let (one, other) = (Rooms::of_peer(&node, 16_000, 10), Rooms::of_peer(&node, 16_000, 10));
        let held = one.take(1_000 + BODY_OVERHEAD).await;
        assert!(one.take(1).now_or_never().is_none());
        assert!(other.take(1_000).now_or_never().is_some());
        drop(held);
        assert!(one.take(1_000).now_or_never().is_some());
    }
}
