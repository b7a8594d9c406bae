//! One peer's share of this node's memory and of its storage's time: by its name, over all of its connections and
//! streams, also after one of them has ended. How often a peer may send something is decided in
//! [`rates`](crate::protocol::rates).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::id::NodeId;

/// Unused shares are removed whenever there are twice as many shares as remained the last time, and more than
/// this.
const SHARES_MIN: usize = 64;

/// The shares of all peers that use theirs.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shares: BTreeMap<NodeId, Arc<Share>>,
    /// How many shares may exist until the unused ones are dropped.
    most: usize,
}

/// The share of one peer.
#[derive(Debug)]
pub(crate) struct Share {
    /// One question of this peer waits for storage or is being answered.
    asking: Arc<Semaphore>,
    /// One frame of this peer is held decoded until it has been handled.
    decoding: Arc<Semaphore>,
    /// One long frame is in flight from it, and one to it.
    pub(super) inbound: Arc<Semaphore>,
    pub(super) outbound: Arc<Semaphore>,
    /// Counts, by its clones, the exchanges of this peer that are being answered.
    answering: Arc<()>,
}

impl Shares {
    /// The share of a peer.
    pub(crate) fn of(&self, peer: &NodeId) -> Arc<Share> {
        // Code under the lock does not panic half way.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = inner.shares.get(peer) {
            return Arc::clone(share);
        }
        if inner.shares.len() >= inner.most.max(SHARES_MIN) {
            inner.shares.retain(|_, share| share.is_used());
            inner.most = inner.shares.len() * 2;
        }
        Arc::clone(inner.shares.entry(peer.clone()).or_insert_with(|| Arc::new(Share::whole())))
    }
}

impl Share {
    fn whole() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            asking: one(),
            decoding: one(),
            inbound: one(),
            outbound: one(),
            answering: Arc::default(),
        }
    }

    fn is_used(self: &Arc<Self>) -> bool {
        let held = [&self.asking, &self.decoding, &self.inbound, &self.outbound];
        Arc::strong_count(self) > 1
            || held.iter().any(|one| one.available_permits() == 0)
            || Arc::strong_count(&self.answering) > 1
    }

    /// Waits until no other question of this peer waits for storage.
    pub(crate) async fn ask(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.asking).acquire_owned().await.expect(NEVER_CLOSED)
    }

    /// Waits until no other frame of this peer is held decoded.
    pub(super) async fn decode(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.decoding).acquire_owned().await.expect(NEVER_CLOSED)
    }

    /// This node begins to answer an exchange of this peer; the exchange ends when the first part is dropped. The
    /// second part says whether it is the only one.
    pub(super) fn answer(&self) -> (Arc<()>, bool) {
        let held = Arc::clone(&self.answering);
        let only = Arc::strong_count(&held) == 2;
        (held, only)
    }
}

const NEVER_CLOSED: &str = "the semaphore is never closed";

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn another_connection_gives_a_peer_no_second_share() {
        let shares = Shares::default();
        let (_held, first) = shares.of(&node("x")).answer();
        let (_another, second) = shares.of(&node("x")).answer();
        assert_eq!((first, second), (true, false));
    }

    #[tokio::test]
    async fn one_question_and_one_decoded_frame_at_a_time_whatever_the_connection() {
        let shares = Shares::default();
        let (asked, decoded) = tokio::join!(async { shares.of(&node("x")).ask().await }, async {
            shares.of(&node("x")).decode().await
        });
        let free = |name: &str| {
            let share = shares.of(&node(name));
            (share.asking.available_permits(), share.decoding.available_permits())
        };
        assert_eq!((free("x"), free("y")), ((0, 0), (1, 1)));
        drop((asked, decoded));
        assert_eq!(free("x"), (1, 1));
    }

    #[test]
    fn keeps_no_share_that_is_not_in_use() {
        let shares = Shares::default();
        let held = shares.of(&node("held"));
        for n in 0..100 * SHARES_MIN {
            let _ = shares.of(&node(&format!("n{n}")));
        }
        let kept = shares.0.lock().unwrap().shares.len();
        assert!(kept <= 2 * SHARES_MIN, "{kept}");
        assert!(Arc::ptr_eq(&held, &shares.of(&node("held"))));
    }
}
