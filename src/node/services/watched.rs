//! Who offers what, as readers see it.

use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::protocol::{
    id::{Generation, NodeId},
    service::directory::{Directory, DirectoryOutput, Gone, Listings, Seen},
};

/// The directory and its readers' view.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    directory: Mutex<Directory>,
    listings: ArcSwap<Listings>,
    /// Changes with the listings.
    version: watch::Sender<u64>,
    /// Changes when a node has ended.
    ends: watch::Sender<u64>,
}

impl Watched {
    /// What live nodes offer now. It takes no lock.
    pub(crate) fn listings(&self) -> arc_swap::Guard<std::sync::Arc<Listings>> {
        self.listings.load()
    }

    /// Signals each change of the listings from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Why a node serves no call of this generation any more, if it does not.
    pub(super) fn ended(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        directory.ended(node, generation)
    }

    /// Signals each end of a node, or of its generation, from now on.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }

    /// Takes what is known of some nodes now; returns what has changed. Callers that publish hold the lock of
    /// publications, so that the listings are never older than a snapshot.
    pub(super) fn update<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a NodeId, Option<Seen<'a>>)>,
    ) -> Vec<DirectoryOutput> {
        let mut out = Vec::new();
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.listings.load().version();
        for (node, seen) in nodes {
            directory.update(node, seen, &mut out);
        }
        let listings = directory.listings();
        if listings.version() != before {
            self.listings.store(listings.into());
            self.version.send_modify(|version| *version += 1);
        }
        drop(directory);
        if out.iter().any(|output| matches!(output, DirectoryOutput::Ended { .. })) {
            self.ends.send_modify(|ends| *ends += 1);
        }
        out
    }
}
