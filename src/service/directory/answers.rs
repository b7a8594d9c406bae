//! The answers of the directory for clients: as many rows as fit into one body.

use std::iter::Peekable;

use super::{Item, News, Page, Row};
use crate::protocol::{
    id::NodeId,
    service::{
        client_directory::{self, ClientDirectory},
        clients::Viewer,
        frame::LANE_BODY_MAX,
    },
};

/// Bytes of rows in one answer; the rest of the longest body is for the other fields.
const ROWS_BYTES_MAX: usize = LANE_BODY_MAX - 64;

/// The rows behind this node, or the first ones. `process`: the generation of the node that answers.
pub(super) fn page(
    directory: &ClientDirectory,
    viewer: &Viewer,
    process: u64,
    after: Option<&NodeId>,
) -> Page {
    let mut rows = directory.rows(viewer, after).peekable();
    let (taken, _) = fill(&mut rows, viewer);
    let more = rows.peek().is_some();
    Page { process, version: directory.version(), rows: taken, more }
}

/// The rows that have changed since a version, as many as fit into one answer.
pub(super) fn changed(directory: &ClientDirectory, viewer: &Viewer, since: u64) -> News {
    let Some(rows) = directory.since(viewer, since) else {
        return News { known: false, version: 0, rows: Vec::new() };
    };
    let mut rows = rows.peekable();
    let (taken, last) = fill(&mut rows, viewer);
    let version = match rows.peek() {
        Some(_) => last,
        None => directory.version(),
    };
    News { known: true, version, rows: taken }
}

/// Takes as many rows as fit into one answer; returns the version of the last one as well.
fn fill<'a>(
    rows: &mut Peekable<impl Iterator<Item = (&'a NodeId, &'a client_directory::Row)>>,
    viewer: &Viewer,
) -> (Vec<Row>, u64) {
    let (mut taken, mut bytes, mut last) = (Vec::new(), 0, 0);
    while let Some((node, row)) = rows.peek() {
        let next = message(node, row, viewer);
        bytes += length(&next);
        if bytes > ROWS_BYTES_MAX && !taken.is_empty() {
            break;
        }
        last = row.version();
        taken.push(next);
        rows.next();
    }
    (taken, last)
}

fn message(node: &NodeId, row: &client_directory::Row, viewer: &Viewer) -> Row {
    let offers = row.offers_to(viewer).map(|offer| Item {
        name: offer.name.clone(),
        major: offer.version.major,
        minor: offer.version.minor,
        weight: offer.weight,
        epoch: offer.epoch,
    });
    Row {
        node: node.clone(),
        generation: row.generation.0,
        datacenter: row.datacenter.clone(),
        state: row.state.into(),
        draining: row.draining,
        addresses: row.addresses.clone(),
        offers: offers.collect(),
    }
}

/// The most bytes that a row takes in an answer.
fn length(row: &Row) -> usize {
    let texts = row.addresses.iter().map(|address| NUMBER + address.len());
    let offers = row.offers.iter().map(|offer| NUMBER + offer.name.as_str().len() + OFFER);
    let names = 2 * NUMBER + row.node.as_str().len() + row.datacenter.as_str().len();
    names + 4 * NUMBER + texts.sum::<usize>() + offers.sum::<usize>()
}

/// The most bytes of an encoded number.
const NUMBER: usize = 9;
/// The most bytes of an offer beside its name: two numbers of up to 3, a byte, and a number of up to 5.
const OFFER: usize = 2 * 3 + 1 + 5;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{
        protocol::{
            id::{Datacenter, Generation},
            record::{ADDRESS_BYTES_MAX, ADDRESSES_MAX},
            service::{
                ServiceName, ServiceVersion,
                client_directory::{OFFERS_LISTED_MAX, Observed},
                clients::{Clients, Rank},
                manifest::{OFFERS_MAX, Offered},
            },
            state::PeerState,
        },
        service::codec::{Bincode, Codec},
    };

    /// Nodes with this many offers each, of which every number is as large as it can be.
    fn nodes(nodes: usize, offers: usize) -> ClientDirectory {
        let datacenter = Datacenter::new(&"d".repeat(63)).unwrap();
        let offered = |n| Offered {
            name: ServiceName::new(&format!("{n:s>63}")).unwrap(),
            version: ServiceVersion::new(u16::MAX, u16::MAX),
            weight: u8::MAX,
            clients: Clients::all(),
            epoch: u32::MAX,
        };
        let offers: Vec<_> = (0..offers).map(offered).collect();
        let addresses = vec!["a".repeat(ADDRESS_BYTES_MAX); ADDRESSES_MAX];
        let mut directory = ClientDirectory::default();
        for n in 0..nodes {
            let observed = Observed {
                generation: Generation(u64::MAX),
                datacenter: &datacenter,
                state: PeerState::Live,
                draining: true,
                offers: &offers,
                addresses: &addresses,
            };
            directory.update(&NodeId::new(&format!("{n:n>63}")).unwrap(), Some(observed));
        }
        directory
    }

    fn viewer() -> Viewer {
        Viewer::new(Rank::Read, [])
    }

    #[test]
    fn the_largest_row_fits_into_one_answer() {
        let page = page(&nodes(2, OFFERS_MAX), &viewer(), u64::MAX, None);
        assert_eq!((page.rows.len(), page.more), (1, true));
        assert_eq!(page.rows[0].offers.len(), OFFERS_LISTED_MAX);
        let mut body = BytesMut::new();
        <Bincode as Codec<Page>>::encode(&page, &mut body).unwrap();
        assert!(body.len() <= LANE_BODY_MAX, "{} bytes", body.len());
    }

    #[test]
    fn pages_and_changes_show_each_node_once_and_fit() {
        let (directory, viewer) = (nodes(300, 1), viewer());
        let (mut after, mut since, mut by_page, mut by_change) = (None, 0, 0, 0);
        loop {
            let page = page(&directory, &viewer, 1, after.as_ref());
            let mut body = BytesMut::new();
            <Bincode as Codec<Page>>::encode(&page, &mut body).unwrap();
            assert!(body.len() <= LANE_BODY_MAX && !page.rows.is_empty());
            assert!(page.rows.iter().all(|row| after.as_ref().is_none_or(|last| row.node > *last)));
            by_page += page.rows.len();
            after = page.rows.last().map(|row| row.node.clone());
            if !page.more {
                break;
            }
        }
        while since < directory.version() {
            let news = changed(&directory, &viewer, since);
            assert!(news.known && news.version > since);
            by_change += news.rows.len();
            since = news.version;
        }
        assert_eq!((by_page, by_change), (300, 300));
        assert!(changed(&directory, &viewer, since).rows.is_empty());
        assert!(!changed(&directory, &viewer, since + 1).known);
    }
}
