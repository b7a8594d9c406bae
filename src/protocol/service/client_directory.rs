//! The directory for clients: the nodes that offer something to clients, and the order of their changes.
//!
//! Each node has one row, which carries the version of its last change. A client that knows all up to a version asks for
//! the rows of later versions; nothing is kept for a client. A row is listed to each client that one of its offers
//! admits, or has admitted. So a client that has seen an offer also sees its end, and a client that may call none of the
//! offers learns nothing of the node.

use std::{
    ops::Bound::{self, Excluded, Unbounded},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};

use super::{
    clients::{Clients, Viewer},
    directory::Gone,
    manifest::Offered,
};
use crate::protocol::{
    id::{Datacenter, Generation, NodeId},
    state::PeerState,
};

/// Most offers of one node in the directory for clients.
pub const OFFERS_LISTED_MAX: usize = 128;
/// Most addresses of one node in the directory for clients: as many as one dial tries.
pub const ADDRESSES_LISTED_MAX: usize = 8;
/// Most nodes without an offer whose last change is remembered.
pub const GONE_MAX: usize = 256;

/// The rows, and the order of their changes. Cheap to clone: a reader keeps what it is now.
#[derive(Clone, Debug, Default)]
pub struct ClientDirectory {
    rows: OrdMap<NodeId, Arc<Row>>,
    /// The nodes by the version of their last change.
    changes: OrdMap<u64, NodeId>,
    version: u64,
    /// Of changes up to this version some are forgotten.
    forgotten: u64,
    /// The versions of the rows without an offer.
    gone: OrdSet<u64>,
}

/// What is known of a node now.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its latest generation.
    pub generation: Generation,
    /// Its datacenter.
    pub datacenter: &'a Datacenter,
    /// Its state.
    pub state: PeerState,
    /// Whether it takes no new calls.
    pub draining: bool,
    /// What it offers, by name and major version.
    pub offers: &'a [Offered],
    /// Its addresses, best first.
    pub addresses: &'a [String],
}

/// One node in the directory for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its latest generation.
    pub generation: Generation,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its state; `None` if it was forgotten.
    pub state: Option<PeerState>,
    /// Whether it takes no new calls.
    pub draining: bool,
    /// Its addresses, best first; none if it is not live.
    pub addresses: Vec<String>,
    /// What it offers to any client; nothing if it is not live.
    offers: Vec<Offered>,
    /// The clients that one of its offers admits, or has admitted.
    listed_to: Clients,
    version: u64,
}

impl Row {
    /// Its offers to this client.
    pub fn offers_to<'a>(&'a self, viewer: &'a Viewer) -> impl Iterator<Item = &'a Offered> {
        self.offers.iter().filter(|offer| offer.clients.admits(viewer))
    }

    /// The version of its last change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }
}

impl ClientDirectory {
    /// Without a row. Changes up to this version, which an earlier directory may have had, are not known.
    #[must_use]
    pub fn after(version: u64) -> Self {
        Self { version: version + 1, forgotten: version + 1, ..Self::default() }
    }

    /// The version of the last change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Takes what is known of a node now; `None` if it was forgotten. What is known already has no effect.
    pub fn update(&mut self, node: &NodeId, now: Option<Observed<'_>>) {
        let old = self.rows.get(node).map(Arc::as_ref);
        let Some(mut new) = row(old, now) else { return };
        if old.is_some_and(|old| Row { version: old.version, ..new.clone() } == *old) {
            return;
        }
        self.version += 1;
        new.version = self.version;
        if new.offers.is_empty() {
            self.gone.insert(new.version);
        }
        self.changes.insert(new.version, node.clone());
        if let Some(old) = self.rows.insert(node.clone(), Arc::new(new)) {
            self.changes.remove(&old.version);
            self.gone.remove(&old.version);
        }
        while self.gone.len() > GONE_MAX {
            let Some(version) = self.gone.remove_min() else { return };
            if let Some(node) = self.changes.remove(&version) {
                self.rows.remove(&node);
            }
            self.forgotten = version;
        }
    }

    /// The rows for this client, by node, behind this node or from the first one on.
    pub fn rows<'a>(
        &'a self,
        viewer: &'a Viewer,
        after: Option<&NodeId>,
    ) -> impl Iterator<Item = (&'a NodeId, &'a Row)> {
        let range: (Bound<&NodeId>, Bound<&NodeId>) =
            (after.map_or(Unbounded, Excluded), Unbounded);
        let rows = self.rows.range::<_, NodeId>(range).map(|(node, row)| (node, row.as_ref()));
        rows.filter(|(_, row)| row.listed_to.admits(viewer))
    }

    /// The rows for this client that have changed since a version, in the order of these changes; `None` if they are not
    /// known any more, or not yet.
    pub fn since<'a>(
        &'a self,
        viewer: &'a Viewer,
        version: u64,
    ) -> Option<impl Iterator<Item = (&'a NodeId, &'a Row)>> {
        if version < self.forgotten || version > self.version {
            return None;
        }
        let changes = self.changes.range((Excluded(version), Unbounded));
        let rows = changes.filter_map(|(_, node)| Some((node, self.rows.get(node)?.as_ref())));
        Some(rows.filter(|(_, row)| row.listed_to.admits(viewer)))
    }
}

/// What a client that is told of a node knows of its processes: the last generation that serves no call any more, and
/// why. The client's directory does not say it, if it has not known that generation: it was made anew when the client
/// went on to another host. `state`: `None` if the node was forgotten.
#[must_use]
pub const fn outlived(generation: Generation, state: Option<PeerState>) -> (Generation, Gone) {
    match state {
        Some(_) => (Generation(generation.0.saturating_sub(1)), Gone::Restarted),
        None => (generation, Gone::NodeForgotten),
    }
}

/// The row of a node from now on; `None` if it was never listed and is not listed now.
fn row(old: Option<&Row>, now: Option<Observed<'_>>) -> Option<Row> {
    let Some(observed) = now else {
        let old = old?.clone();
        return Some(Row { state: None, addresses: Vec::new(), offers: Vec::new(), ..old });
    };
    let is_live = observed.state.is_live();
    let offers = observed.offers.iter().filter(|offer| is_live && !offer.clients.is_none());
    let offers: Vec<_> = offers.take(OFFERS_LISTED_MAX).cloned().collect();
    if old.is_none() && offers.is_empty() {
        return None;
    }
    let listed_to = old.map(|old| old.listed_to.clone()).unwrap_or_default();
    let listed_to = offers.iter().fold(listed_to, |seen, offer| seen.or(&offer.clients));
    let addresses = observed.addresses.iter().filter(|_| is_live).take(ADDRESSES_LISTED_MAX);
    Some(Row {
        generation: observed.generation,
        datacenter: observed.datacenter.clone(),
        state: Some(observed.state),
        draining: observed.draining,
        addresses: addresses.cloned().collect(),
        offers,
        listed_to,
        version: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service::{ServiceName, ServiceVersion, clients::Rank};

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn offer(name: &str, clients: Clients) -> Offered {
        Offered {
            name: ServiceName::new(name).unwrap(),
            version: ServiceVersion::new(1, 0),
            weight: 1,
            clients,
            epoch: 1,
        }
    }

    fn viewer(rank: Rank) -> Viewer {
        Viewer::new(rank, [7])
    }

    #[derive(Default)]
    struct Bench(ClientDirectory);

    impl Bench {
        fn see(&mut self, name: &str, state: PeerState, offers: &[Offered]) -> u64 {
            let datacenter = Datacenter::new("eu").unwrap();
            let addresses = vec!["10.0.0.1:7101".to_owned(); 9];
            let observed = Observed {
                generation: Generation(1),
                datacenter: &datacenter,
                state,
                draining: false,
                offers,
                addresses: &addresses,
            };
            self.0.update(&node(name), Some(observed));
            self.0.version()
        }

        fn all(&self, rank: Rank) -> Vec<(String, usize)> {
            let viewer = viewer(rank);
            let rows = self.0.rows(&viewer, None);
            rows.map(|(node, row)| (node.to_string(), row.offers_to(&viewer).count())).collect()
        }

        fn since(&self, rank: Rank, version: u64) -> Option<Vec<(String, usize)>> {
            let viewer = viewer(rank);
            let rows = self.0.since(&viewer, version)?;
            let rows = rows.map(|(node, row)| (node.to_string(), row.offers_to(&viewer).count()));
            Some(rows.collect())
        }
    }

    fn rows(rows: &[(&str, usize)]) -> Vec<(String, usize)> {
        rows.iter().map(|(node, offers)| ((*node).to_owned(), *offers)).collect()
    }

    #[test]
    fn a_client_learns_nothing_of_what_it_may_not_call() {
        let mut bench = Bench::default();
        bench.see("inner", PeerState::Live, &[offer("stock", Clients::default())]);
        assert_eq!(bench.0.version(), 0, "no client may call it");
        let admin = offer("drill", Clients::new(Some(Rank::Admin), []));
        bench.see("both", PeerState::Live, &[admin.clone(), offer("stock", Clients::all())]);
        bench.see("high", PeerState::Live, std::slice::from_ref(&admin));
        bench.see("named", PeerState::Live, &[offer("till", Clients::new(None, [8]))]);
        assert_eq!(bench.all(Rank::Watch), rows(&[("both", 1)]));
        assert_eq!(bench.all(Rank::Admin), rows(&[("both", 2), ("high", 1)]));
        bench.see("high", PeerState::Dead, std::slice::from_ref(&admin));
        assert_eq!(bench.since(Rank::Watch, 0), Some(rows(&[("both", 1)])));
        assert_eq!(bench.since(Rank::Admin, 2), Some(rows(&[("high", 0)])));
    }

    #[test]
    fn who_was_shown_an_offer_learns_that_it_is_gone() {
        let mut bench = Bench::default();
        let stock = [offer("stock", Clients::all())];
        let first = bench.see("a", PeerState::Live, &stock);
        assert_eq!(bench.see("a", PeerState::Live, &stock), first, "it is known already");
        let second = bench.see("a", PeerState::Live, &[]);
        assert_eq!(bench.since(Rank::Read, first), Some(rows(&[("a", 0)])));
        assert_eq!(bench.since(Rank::Read, second), Some(vec![]));
        bench.see("a", PeerState::Live, &stock);
        bench.see("b", PeerState::Live, &stock);
        bench.0.update(&node("a"), None);
        assert_eq!(bench.since(Rank::Read, second), Some(rows(&[("b", 1), ("a", 0)])));
        let reader = viewer(Rank::Read);
        let (_, row) = bench.0.rows(&reader, None).next().unwrap();
        assert_eq!((row.state, row.addresses.len()), (None, 0));
        let (_, row) = bench.0.rows(&reader, Some(&node("a"))).next().unwrap();
        assert_eq!((row.state, row.addresses.len()), (Some(PeerState::Live), ADDRESSES_LISTED_MAX));
    }

    #[test]
    fn forgets_the_oldest_nodes_without_offers_and_says_so() {
        let mut bench = Bench::default();
        let stock = [offer("stock", Clients::all())];
        bench.see("stays", PeerState::Live, &stock);
        for n in 0..=GONE_MAX {
            bench.see(&format!("n{n}"), PeerState::Live, &stock);
            bench.see(&format!("n{n}"), PeerState::Left, &stock);
        }
        let forgotten = 1 + 2;
        assert_eq!(bench.all(Rank::Read).len(), GONE_MAX + 1);
        assert_eq!(bench.since(Rank::Read, forgotten - 1), None, "the change of n0 is forgotten");
        assert_eq!(bench.since(Rank::Read, forgotten).unwrap().len(), GONE_MAX);
        assert_eq!(bench.since(Rank::Read, bench.0.version() + 1), None, "of another process");
        assert_eq!((bench.0.changes.len(), bench.0.gone.len()), (GONE_MAX + 1, GONE_MAX));
    }

    #[test]
    fn shows_no_more_offers_of_one_node_than_fit_into_an_answer() {
        let mut bench = Bench::default();
        let offers: Vec<_> = (0..200).map(|n| offer(&format!("s{n:03}"), Clients::all())).collect();
        bench.see("a", PeerState::Live, &offers);
        assert_eq!(bench.all(Rank::Read), rows(&[("a", OFFERS_LISTED_MAX)]));
    }
}
