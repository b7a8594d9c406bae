//! What the actors of a node publish for its readers: the state, which snapshots show, and the events.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use super::{
    channel::Channel,
    snapshot::Snapshot,
    views::{Estimates, Histories, Lives, Maps},
};
use crate::{
    clock::Clock,
    protocol::{
        event::{Event, ProtocolEvent},
        id::{Datacenter, NodeId},
        revocation::Revocations,
        time::Time,
    },
};

/// The published state and the channels of events.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) maps: ArcSwap<Maps>,
    pub(crate) lives: ArcSwap<Lives>,
    pub(crate) histories: ArcSwap<Histories>,
    pub(crate) estimates: ArcSwap<Estimates>,
    /// The datacenters that cannot be reached.
    pub(crate) unreachable: ArcSwap<BTreeSet<Datacenter>>,
    /// How slow this node finds itself.
    pub(crate) health: AtomicU32,
    /// The revoked certificates.
    pub(crate) revocations: ArcSwap<Revocations>,
    pub(crate) events: Arc<Channel<Event>>,
    pub(crate) protocol_events: Channel<ProtocolEvent>,
    /// Held while the published state and its events are made visible: see [`Published::cut`].
    publishing: Mutex<()>,
}

impl Published {
    /// Nothing is published yet.
    pub(crate) fn new(events: Arc<Channel<Event>>) -> Self {
        Self {
            maps: ArcSwap::default(),
            lives: ArcSwap::default(),
            histories: ArcSwap::default(),
            estimates: ArcSwap::default(),
            unreachable: ArcSwap::default(),
            health: AtomicU32::new(0),
            revocations: ArcSwap::default(),
            events,
            protocol_events: Channel::new(PROTOCOL_EVENTS),
            publishing: Mutex::default(),
        }
    }

    /// All that node `local` knows now.
    pub(crate) fn snapshot(&self, local: &NodeId, now: Time) -> Snapshot {
        Snapshot {
            local: local.clone(),
            now,
            maps: self.maps.load_full(),
            lives: self.lives.load_full(),
            histories: self.histories.load_full(),
            estimates: self.estimates.load_full(),
            unreachable: self.unreachable.load_full(),
        }
    }

    /// Prevents [`Published::cut`] from seeing half of a publication.
    pub(crate) fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot, and exactly the events that follow it.
    pub(crate) fn cut(
        &self,
        local: &NodeId,
        clock: Clock,
    ) -> (Snapshot, broadcast::Receiver<Event>) {
        let _publishing = self.publishing();
        (self.snapshot(local, clock.now()), self.events.subscribe())
    }
}

/// Protocol events queued for a subscriber that does not read them.
const PROTOCOL_EVENTS: usize = 1_024;
