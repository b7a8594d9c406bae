//! The peers that a node dials now: one task for each peer, and a limited number of dials in all.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{AcquireError, Notify, Semaphore, SemaphorePermit, watch};

use crate::protocol::id::NodeId;

/// The peers being dialed.
#[derive(Debug)]
pub(super) struct Claims {
    /// Each with the signal that makes its task start over.
    dialing: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
    /// Changes with every claim that ends.
    ended: watch::Sender<u64>,
    /// Concurrent dials.
    dials: Semaphore,
}

/// The right to dial a peer; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    peer: NodeId,
    /// Signals that the peer is known to be alive: a handshake that has waited for an answer should start over.
    pub(super) hurry: Arc<Notify>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            dialing: Mutex::default(),
            ended: watch::Sender::default(),
            dials: Semaphore::new(DIALS_MAX),
        }
    }
}

impl Claims {
    /// Claims the right to dial a peer; `None` if another task does so already.
    pub(super) fn claim(&self, peer: &NodeId) -> Option<Claim<'_>> {
        match self.lock().entry(peer.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                let hurry = Arc::clone(entry.insert(Arc::default()));
                Some(Claim { claims: self, peer: peer.clone(), hurry })
            }
        }
    }

    /// Waits until few enough targets are being dialed.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.dials.acquire().await
    }

    /// Makes the task that dials a peer start over; returns whether one exists.
    pub(super) fn hurry(&self, peer: &NodeId) -> bool {
        self.lock().get(peer).inspect(|hurry| hurry.notify_waiters()).is_some()
    }

    /// Waits until the peer is not being dialed any more.
    pub(super) async fn released(&self, peer: &NodeId) {
        let mut ended = self.ended.subscribe();
        while self.lock().contains_key(peer) {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Notify>>> {
        // Code under the lock does not panic half way.
        self.dialing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.peer);
        self.claims.ended.send_modify(|count| *count += 1);
    }
}

/// Concurrent dials of one node.
const DIALS_MAX: usize = 32;
