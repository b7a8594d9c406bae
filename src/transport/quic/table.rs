//! One connection per peer: which there is, which of two stays, who is being dialed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quinn::Connection;
use tokio::sync::watch;

use super::{close::Close, frames::Room};
use crate::{
    protocol::{
        id::{Generation, NodeId},
        overlay,
    },
    transport::Met,
};

/// A connection to a peer that has introduced itself.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    node: NodeId,
    generation: Arc<AtomicU64>,
    pub(super) dialed: bool,
    pub(super) room: Room,
}

impl Link {
    pub(super) fn new(connection: Connection, met: Met, dialed: bool, room: Room) -> Self {
        let generation = Arc::new(AtomicU64::new(met.generation.0));
        Self { connection, node: met.node, generation, dialed, room }
    }

    pub(super) fn met(&self) -> Met {
        let generation = Generation(self.generation.load(Ordering::Relaxed));
        Met { node: self.node.clone(), generation }
    }

    /// The peer has taken a later generation on this connection.
    pub(super) fn raise(&self, generation: Generation) {
        self.generation.fetch_max(generation.0, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.connection.stable_id() == other.connection.stable_id()
    }
}

/// The connections of one node, by peer. It outlives the transport's actor.
#[derive(Debug, Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    /// Changes with every connection that comes or goes.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    links: BTreeMap<NodeId, Link>,
    dialing: BTreeSet<NodeId>,
}

/// What came of a connection that has just been introduced.
#[derive(Debug)]
pub(super) enum Registered {
    /// It is the connection to this peer from now on.
    Kept(Link),
    /// There was one already, which stays.
    Duplicate(Link),
    /// The peer is of a life that has ended.
    Stale,
    /// The connection has ended already; whatever there is stays.
    Ended,
}

impl Table {
    pub(super) fn link(&self, peer: &NodeId) -> Option<Link> {
        self.lock().links.get(peer).filter(|link| link.is_open()).cloned()
    }

    /// All connections. Those that ended while no actor served them are dropped.
    pub(super) fn links(&self) -> Vec<Link> {
        let mut inner = self.lock();
        inner.links.retain(|_, link| link.is_open());
        inner.links.values().cloned().collect()
    }

    /// Both ends come to the same choice: the later life of the peer, else the connection dialed by
    /// the lesser name.
    pub(super) fn register(&self, local: &NodeId, link: Link) -> Registered {
        let mut inner = self.lock();
        if !link.is_open() {
            // The peer may have closed it in favour of the one we have.
            return Registered::Ended;
        }
        if let Some(old) = inner.links.get(&link.node).filter(|old| old.is_open()) {
            let (new_life, old_life) = (link.met().generation, old.met().generation);
            if new_life < old_life {
                Close::outlived(&link.connection, old_life);
                return Registered::Stale;
            }
            if new_life > old_life {
                // If the earlier life still runs, it is a twin, and has to learn of this one.
                Close::outlived(&old.connection, new_life);
            }
            let keeps_old = overlay::keeps(local, &link.node, old.dialed);
            if new_life == old_life && old.dialed != link.dialed && keeps_old {
                Close::Duplicate.connection(&link.connection, "another connection stays");
                return Registered::Duplicate(old.clone());
            }
            Close::Duplicate.connection(&old.connection, "replaced by another connection");
        }
        inner.links.insert(link.node.clone(), link.clone());
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
        Registered::Kept(link)
    }

    /// The connection is gone.
    pub(super) fn remove(&self, link: &Link) {
        let mut inner = self.lock();
        if inner.links.get(&link.node).is_some_and(|known| known.is(link)) {
            inner.links.remove(&link.node);
        }
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Claims the right to dial a peer; `None` if somebody does so already.
    pub(super) fn dialing<'a>(&'a self, peer: &NodeId) -> Option<Dialing<'a>> {
        let claimed = self.lock().dialing.insert(peer.clone());
        claimed.then(|| Dialing { table: self, peer: peer.clone() })
    }

    /// Waits until nobody dials the peer any more.
    pub(super) async fn dialed(&self, peer: &NodeId) {
        let mut changed = self.changed.subscribe();
        while self.lock().dialing.contains(peer) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to dial a peer; given back when dropped.
#[derive(Debug)]
pub(super) struct Dialing<'a> {
    table: &'a Table,
    peer: NodeId,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.table.lock().dialing.remove(&self.peer);
        self.table.changed.send_modify(|count| *count += 1);
    }
}
