//! What the directory knows of one node, and what a generation of it can still do for callers.

use std::{cmp::Ordering, sync::Arc};

use super::{provider::Provider, step::Seen};
use crate::protocol::{
    entry::Value,
    id::{Datacenter, Generation, NodeId},
    service::manifest::{Manifest, Offered},
    state::PeerState,
};

/// What the directory has last seen of a node.
#[derive(Debug)]
pub(super) struct Known {
    /// The hash of the node's name.
    pub(super) hash: u64,
    pub(super) generation: Generation,
    pub(super) datacenter: Datacenter,
    pub(super) state: PeerState,
    pub(super) phase: Phase,
    /// The manifest as it was published.
    pub(super) value: Option<Value>,
    /// What it says; empty if there is none, or it is garbled.
    pub(super) manifest: Arc<Manifest>,
}

/// What one generation of a node can still do for callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not been live yet.
    Fresh,
    /// It is live, so its offers are listed.
    Live,
    /// It was live, and may still be, but it is not heard: calls to it may still be answered.
    Away,
    /// It serves no call, unless it becomes live again.
    Ended,
}

impl Phase {
    /// The phase that follows when the node is in this state.
    pub(super) const fn next(self, state: PeerState) -> Self {
        match (state, self) {
            (PeerState::Live | PeerState::Suspect, _) => Self::Live,
            (PeerState::Dead | PeerState::Left, _) => Self::Ended,
            (PeerState::Unheard | PeerState::Unreachable, Self::Live) => Self::Away,
            (PeerState::Unheard | PeerState::Unreachable, _) => self,
        }
    }
}

impl Known {
    /// Whether something that is seen is known already, or is about an earlier generation.
    pub(super) fn covers(&self, seen: &Seen<'_>) -> bool {
        let same = self.state == seen.state
            && self.value.as_ref() == seen.manifest
            && self.datacenter == *seen.datacenter;
        match seen.generation.cmp(&self.generation) {
            Ordering::Less => true,
            Ordering::Equal => same,
            Ordering::Greater => false,
        }
    }

    /// What readers see of the node.
    pub(super) fn shown<'a>(&'a self, node: &'a NodeId) -> Shown<'a> {
        let listed = self.phase == Phase::Live;
        Shown { node, known: self, offers: if listed { &self.manifest.offers } else { &[] } }
    }
}

/// The offers of a node that are listed, and what their listing says of the node.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) node: &'a NodeId,
    pub(super) known: &'a Known,
    pub(super) offers: &'a [Offered],
}

impl Shown<'_> {
    /// The same node when it offers nothing.
    pub(super) const fn without_offers(self) -> Self {
        Self { offers: &[], ..self }
    }

    pub(super) fn suspect(&self) -> bool {
        self.known.state == PeerState::Suspect
    }

    pub(super) fn provider(&self, offer: &Offered) -> Provider {
        Provider {
            node: self.node.clone(),
            generation: self.known.generation,
            datacenter: self.known.datacenter.clone(),
            minor: offer.version.minor,
            weight: offer.weight,
            clients: !offer.clients.is_none(),
            draining: self.known.manifest.draining,
            suspect: self.suspect(),
            epoch: offer.epoch,
            hash: self.known.hash,
        }
    }

    /// Whether both are one registration of a service, in one generation.
    pub(super) fn is_same_offer(&self, mine: &Offered, other: &Self, its: &Offered) -> bool {
        self.known.generation == other.known.generation && mine.epoch == its.epoch
    }

    /// Whether the listing says the same of the node, whatever it says of its offers.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        self.known.generation == other.known.generation
            && self.known.datacenter == other.known.datacenter
            && self.known.manifest.draining == other.known.manifest.draining
            && self.suspect() == other.suspect()
    }
}
