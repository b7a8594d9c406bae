//! Room for long bodies: what this node holds of them at once, and what one caller may use of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::caller::CallerName;
use crate::protocol::service::{
    shares::{Shares, share},
    stream::body_time,
};

/// What a frame has beside its body, at most, in bytes.
pub(super) const BODY_OVERHEAD: usize = 512;

/// Room for the bodies that arrive at this node.
#[derive(Debug)]
pub(crate) struct Arriving {
    node: Arc<Semaphore>,
    bytes: usize,
    longest: usize,
    /// The part of each peer, as long as one of its connections or bodies has it.
    peers: Mutex<BTreeMap<CallerName, Weak<Semaphore>>>,
}

/// Room for the bodies of one peer that arrive, over all its connections. A body that finds none waits, and QUIC's windows
/// stop its sender.
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

impl Arriving {
    /// `bytes`: the room of the node. `longest`: the longest body.
    pub(super) fn new(bytes: usize, longest: usize) -> Self {
        let node = Arc::new(Semaphore::new(bytes + BODY_OVERHEAD));
        Self { node, bytes, longest, peers: Mutex::default() }
    }

    /// The room of a peer.
    pub(crate) fn of(&self, name: CallerName) -> Rooms {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&name).and_then(Weak::upgrade) {
            return Rooms { node: Arc::clone(&self.node), peer };
        }
        peers.retain(|_, peer| peer.strong_count() > 0);
        let rooms = Rooms::of_peer(&self.node, self.bytes, self.longest);
        peers.insert(name, Arc::downgrade(&rooms.peer));
        rooms
    }
}

impl Rooms {
    /// For one peer. `bytes`: the room of the node. `longest`: the longest body.
    pub(crate) fn of_peer(node: &Arc<Semaphore>, bytes: usize, longest: usize) -> Self {
        let peer = Arc::new(Semaphore::new(share(bytes, longest) + BODY_OVERHEAD));
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
pub(crate) struct Unsent(Mutex<Shares<CallerName>>);

/// Bytes that wait to be sent; they count until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    of: Arc<Unsent>,
    caller: CallerName,
    bytes: usize,
    /// The same, and the bytes that waited for the same caller before.
    waiting: usize,
}

impl Unsent {
    /// `bytes`: of all callers. `longest`: the longest answer.
    pub(super) fn new(bytes: usize, longest: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Shares::new(bytes, longest))))
    }

    fn shares<T>(&self, work: impl FnOnce(&mut Shares<CallerName>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts an answer to a caller; `None` if too many wait.
    pub(super) fn count(self: &Arc<Self>, caller: CallerName, bytes: usize) -> Option<Counted> {
        let waiting = self.shares(|shares| shares.take(&caller, bytes))?;
        Some(Counted { of: Arc::clone(self), caller, bytes, waiting })
    }
}

impl Counted {
    /// How long it may wait: the caller has to read all that waits for it at the least rate of a body.
    pub(super) const fn limit(&self) -> Duration {
        body_time(self.waiting)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.shares(|shares| shares.give_back(&self.caller, self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn name(name: &str) -> CallerName {
        CallerName::Client(name.to_owned())
    }

    #[test]
    fn answers_beyond_the_limit_are_not_counted() {
        let unsent = Unsent::new(100, 60);
        let first = unsent.count(name("a"), 60);
        assert!(first.is_some() && unsent.count(name("b"), 60).is_none());
        assert!(unsent.count(name("b"), 40).is_some());
        drop(first);
        assert!(unsent.count(name("b"), 60).is_some());
    }

    #[tokio::test]
    async fn one_peer_cannot_use_the_room_of_all() {
        let room = Arriving::new(16_000, 10);
        let (one, other) = (room.of(name("a")), room.of(name("b")));
        let held = one.take(1_000 + BODY_OVERHEAD).await;
        assert!(one.take(1).now_or_never().is_none());
        assert!(other.take(1_000).now_or_never().is_some());
        drop(held);
        assert!(one.take(1_000).now_or_never().is_some());
    }

    #[tokio::test]
    async fn all_connections_of_one_peer_share_its_part() {
        let room = Arriving::new(16_000, 10);
        let (one, other) = (room.of(name("a")), room.of(name("a")));
        let held = one.take(1_000 + BODY_OVERHEAD).await;
        assert!(other.take(1).now_or_never().is_none());
        // Its bodies count also when the connection that has brought them has ended.
        drop((one, other));
        assert!(room.of(name("a")).take(1).now_or_never().is_none());
        drop(held);
        assert!(room.of(name("b")).take(1).now_or_never().is_some());
        assert_eq!(room.peers.lock().unwrap().len(), 1, "who has nothing is forgotten");
    }
}
