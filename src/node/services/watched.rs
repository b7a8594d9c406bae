//! Who offers what, as readers see it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::protocol::{
    id::{Generation, NodeId},
    service::{
        client_directory::{ClientDirectory, Observed},
        directory::{Directory, DirectoryOutput, Gone, Listings, Seen, Standing},
    },
    state::PeerState,
};

/// The directory and its readers' view.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    state: Mutex<State>,
    listings: ArcSwap<Listings>,
    /// Changes with the listings.
    version: watch::Sender<u64>,
    /// Changes when a node has ended.
    ends: watch::Sender<u64>,
    /// Changes with the directory for clients.
    client_version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    directory: Directory,
    /// The directory for clients, as long as this node offers it.
    for_clients: Option<ClientDirectory>,
    /// The last version of the directory for clients.
    last_version: u64,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Code under the lock does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What live nodes offer now. It takes no lock.
    pub(crate) fn listings(&self) -> arc_swap::Guard<std::sync::Arc<Listings>> {
        self.listings.load()
    }

    /// Signals each change of the listings from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What is known of a generation of a node.
    pub(crate) fn standing(&self, node: &NodeId, generation: Generation) -> Standing {
        self.lock().directory.standing(node, generation)
    }

    /// Why a node serves no call of this generation any more, if it does not.
    pub(crate) fn ended(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        self.lock().directory.ended(node, generation)
    }

    /// The latest generation of a node that is known, and its state.
    pub(crate) fn state(&self, node: &NodeId) -> Option<(Generation, PeerState)> {
        self.lock().directory.get(node).map(|(generation, _, state, _)| (generation, state))
    }

    /// Signals each end of a node, or of its generation, from now on.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }

    /// Takes what is known of some nodes now; returns what has changed. Callers that publish hold the lock of
    /// publications, so that the listings are never older than a snapshot. `addresses`: those of a node.
    pub(crate) fn update<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a NodeId, Option<Seen<'a>>)>,
        addresses: impl Fn(&NodeId) -> Vec<String>,
    ) -> Vec<DirectoryOutput> {
        let mut out = Vec::new();
        let mut state = self.lock();
        let State { directory, for_clients, .. } = &mut *state;
        let before = self.listings.load().version();
        for (node, seen) in nodes {
            directory.update(node, seen, &mut out);
            if let Some(for_clients) = for_clients {
                list(for_clients, directory, node, &addresses);
            }
        }
        let listings = directory.listings();
        if listings.version() != before {
            self.listings.store(listings.into());
            self.version.send_modify(|version| *version += 1);
        }
        self.announce(&mut state);
        drop(state);
        self.announce_ends(&out);
        out
    }

    /// Replaces all that is known by this; returns what it says of nodes that have ended.
    pub(crate) fn replace<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a NodeId, Option<Seen<'a>>)>,
    ) -> Vec<DirectoryOutput> {
        let mut out = Vec::new();
        let mut state = self.lock();
        let mut directory = Directory::default();
        for (node, seen) in nodes {
            directory.update(node, seen, &mut out);
        }
        self.listings.store(directory.listings().into());
        self.version.send_modify(|version| *version += 1);
        state.directory = directory;
        drop(state);
        self.announce_ends(&out);
        out
    }

    /// Fills the directory for clients from these nodes, and keeps it up to date from now on.
    pub(crate) fn begin_client_directory<'a>(
        &self,
        nodes: impl Iterator<Item = &'a NodeId>,
        addresses: impl Fn(&NodeId) -> Vec<String>,
    ) {
        let mut state = self.lock();
        let State { directory, for_clients, last_version } = &mut *state;
        // A client that has read an earlier directory has to read the whole one again.
        let for_clients = for_clients.insert(ClientDirectory::after(*last_version));
        nodes.for_each(|node| list(for_clients, directory, node, &addresses));
        self.announce(&mut state);
    }

    /// Drops the directory for clients.
    pub(crate) fn end_client_directory(&self) {
        self.lock().for_clients = None;
    }

    /// The directory for clients now; `None` if this node offers none.
    pub(crate) fn client_directory(&self) -> Option<ClientDirectory> {
        self.lock().for_clients.clone()
    }

    /// Signals each change of the directory for clients from now on.
    pub(crate) fn client_changes(&self) -> watch::Receiver<u64> {
        self.client_version.subscribe()
    }

    fn announce(&self, state: &mut State) {
        let Some(for_clients) = &state.for_clients else { return };
        if std::mem::replace(&mut state.last_version, for_clients.version())
            != for_clients.version()
        {
            self.client_version.send_modify(|version| *version += 1);
        }
    }

    fn announce_ends(&self, out: &[DirectoryOutput]) {
        if out.iter().any(|output| matches!(output, DirectoryOutput::Ended { .. })) {
            self.ends.send_modify(|ends| *ends += 1);
        }
    }
}

/// Lists to clients what is known of a node now.
fn list(
    for_clients: &mut ClientDirectory,
    directory: &Directory,
    node: &NodeId,
    addresses: impl Fn(&NodeId) -> Vec<String>,
) {
    let known = directory.get(node);
    let offers_to_clients = known
        .as_ref()
        .is_some_and(|(.., manifest)| manifest.offers.iter().any(|offer| !offer.clients.is_none()));
    let addresses = if offers_to_clients { addresses(node) } else { Vec::new() };
    let observed = known.map(|(generation, datacenter, state, manifest)| Observed {
        generation,
        datacenter,
        state,
        draining: manifest.draining,
        offers: &manifest.offers,
        addresses: &addresses,
    });
    for_clients.update(node, observed);
}
