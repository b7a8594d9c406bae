//! The rows of the directory, checked.

use super::super::directory::{Item, Row, State};
use crate::{
    node::config::check,
    protocol::{
        entry::Value,
        id::{Datacenter, Generation, NodeId},
        service::{
            ServiceVersion,
            client_directory::{ADDRESSES_LISTED_MAX, OFFERS_LISTED_MAX, outlived},
            clients::Clients,
            directory::{Gone, Seen},
            manifest::{BadManifest, Manifest, Offered},
        },
        state::PeerState,
    },
};

/// A row of the directory, checked.
#[derive(Debug)]
pub(super) struct CheckedRow {
    pub(super) node: NodeId,
    pub(super) addresses: Vec<String>,
    generation: Generation,
    datacenter: Datacenter,
    /// `None` if it was forgotten.
    state: Option<PeerState>,
    manifest: Value,
}

/// A node breaks the rules of the directory: another one is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRow {
    #[error("it lists more addresses of one node, or more offers, than are allowed")]
    TooMuch,
    #[error("it lists an address that cannot be dialed: {0}")]
    Address(String),
    #[error("it lists offers that no node can publish: {0}")]
    Offers(#[from] BadManifest),
}

impl CheckedRow {
    pub(super) fn read(row: Row) -> Result<Self, BadRow> {
        let Row { node, generation, datacenter, state, draining, addresses, offers } = row;
        if addresses.len() > ADDRESSES_LISTED_MAX || offers.len() > OFFERS_LISTED_MAX {
            return Err(BadRow::TooMuch);
        }
        for address in &addresses {
            check::address("address", address).map_err(|bad| BadRow::Address(bad.to_string()))?;
        }
        let manifest = Manifest { draining, offers: offers.into_iter().map(offered).collect() };
        manifest.check()?;
        let state = match state {
            State::Live => Some(PeerState::Live),
            State::Suspect => Some(PeerState::Suspect),
            State::Unreachable => Some(PeerState::Unreachable),
            State::Dead => Some(PeerState::Dead),
            State::Left => Some(PeerState::Left),
            State::Forgotten => None,
        };
        let (generation, manifest) = (Generation(generation), Value::from(manifest.encode()));
        Ok(Self { node, addresses, generation, datacenter, state, manifest })
    }

    /// As the directory takes it.
    pub(super) fn seen(&self) -> (&NodeId, Option<Seen<'_>>) {
        let seen = self.state.map(|state| Seen {
            generation: self.generation,
            datacenter: &self.datacenter,
            state,
            manifest: Some(&self.manifest),
        });
        (&self.node, seen)
    }

    /// The last generation of the node that serves no call any more, and why, whatever the directory has known of it.
    pub(super) const fn outlived(&self) -> (Generation, Gone) {
        outlived(self.generation, self.state)
    }
}

fn offered(item: Item) -> Offered {
    let Item { name, major, minor, weight, epoch } = item;
    let version = ServiceVersion::new(major, minor);
    Offered { name, version, weight, clients: Clients::all(), epoch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service::ServiceName;

    fn row(addresses: usize, offers: usize) -> Row {
        let item = |n| Item {
            name: ServiceName::new(&format!("s{n:03}")).unwrap(),
            major: 1,
            minor: 0,
            weight: 1,
            epoch: 1,
        };
        Row {
            node: NodeId::new("a").unwrap(),
            generation: 1,
            datacenter: Datacenter::new("eu").unwrap(),
            state: State::Live,
            draining: false,
            addresses: vec!["10.0.0.1:7101".to_owned(); addresses],
            offers: (0..offers).map(item).collect(),
        }
    }

    #[test]
    fn refuses_what_no_honest_node_tells() {
        assert!(CheckedRow::read(row(ADDRESSES_LISTED_MAX, OFFERS_LISTED_MAX)).is_ok());
        for much in [row(ADDRESSES_LISTED_MAX + 1, 0), row(1, OFFERS_LISTED_MAX + 1)] {
            assert_eq!(CheckedRow::read(much).unwrap_err(), BadRow::TooMuch);
        }
        for address in ["", "10.0.0.1", "10.0.0.1:0", "0.0.0.0:7101", &"x".repeat(1_000)] {
            let bad = Row { addresses: vec![address.to_owned()], ..row(0, 1) };
            assert!(matches!(CheckedRow::read(bad), Err(BadRow::Address(_))), "{address}");
        }
        let mut twice = row(1, 2);
        twice.offers.swap(0, 1);
        assert!(matches!(CheckedRow::read(twice), Err(BadRow::Offers(_))));
        let mut weightless = row(1, 1);
        weightless.offers[0].weight = 0;
        assert!(matches!(CheckedRow::read(weightless), Err(BadRow::Offers(_))));
    }
}
