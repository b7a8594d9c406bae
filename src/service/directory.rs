//! The built-in service `gossipmonger.directory`: a client, which is not a member, reads from it what it may call.
//!
//! The client reads all rows page by page, and then asks for changes again and again. A question for changes is answered
//! when there is one, or after [`WAIT`]. The node keeps nothing for a client: each question names all that its answer
//! depends on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::{
    id::{Datacenter, NodeId},
    service::ServiceName,
    state::PeerState,
};

mod answers;
pub(super) mod offered;

/// How long a question for changes waits if there is none. A client that gets no answer for longer than this and
/// [`PATIENCE`] asks another node.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// How much longer than [`WAIT`] a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

crate::service! {
    /// What clients may call.
    pub(super) struct Directory = "gossipmonger.directory", 1.0;

    1: call List -> Page, idempotent;
    2: call Changes -> News, idempotent;
}

/// Asks for all rows, page by page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct List {
    /// The last node of the page before; `None` asks for the first page.
    pub(super) after: Option<NodeId>,
}

/// Some rows, by node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    /// The generation of the node that answers. Versions of another one say nothing.
    pub(super) process: u64,
    /// All changes up to this version are in the rows.
    pub(super) version: u64,
    pub(super) rows: Vec<Row>,
    /// Whether another page follows.
    pub(super) more: bool,
}

/// Asks for the rows that have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    /// The process that has given this version.
    pub(super) process: u64,
    /// All changes up to this version are known to the client.
    pub(super) since: u64,
}

/// The rows that have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct News {
    /// Whether the changes since this version are known. If not, the client has to read all rows again.
    pub(super) known: bool,
    /// All changes up to this version are in the rows, or were known.
    pub(super) version: u64,
    /// In the order in which they have changed.
    pub(super) rows: Vec<Row>,
}

/// One node, as the directory lists it to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) node: NodeId,
    pub(super) generation: u64,
    pub(super) datacenter: Datacenter,
    pub(super) state: State,
    pub(super) draining: bool,
    /// Best first; none if the node is not live.
    pub(super) addresses: Vec<String>,
    /// What this client may call, by name and major version.
    pub(super) offers: Vec<Item>,
}

/// The state of a node. Further ones may be added at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Live,
    Suspect,
    /// It is not heard. It may come back.
    Unreachable,
    Dead,
    Left,
    Forgotten,
}

/// One offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) name: ServiceName,
    pub(super) major: u16,
    pub(super) minor: u16,
    pub(super) weight: u8,
    pub(super) epoch: u32,
}

impl From<Option<PeerState>> for State {
    fn from(state: Option<PeerState>) -> Self {
        match state {
            None => Self::Forgotten,
            Some(PeerState::Live) => Self::Live,
            Some(PeerState::Suspect) => Self::Suspect,
            Some(PeerState::Unheard | PeerState::Unreachable) => Self::Unreachable,
            Some(PeerState::Dead) => Self::Dead,
            Some(PeerState::Left) => Self::Left,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::service::codec::{Bincode, Codec};

    #[test]
    fn its_bytes_stay_the_same() {
        let row = Row {
            node: NodeId::new("a").unwrap(),
            generation: 300,
            datacenter: Datacenter::new("eu").unwrap(),
            state: State::Suspect,
            draining: true,
            addresses: vec!["h:1".to_owned()],
            offers: vec![Item {
                name: ServiceName::new("stock").unwrap(),
                major: 2,
                minor: 1,
                weight: 10,
                epoch: 3,
            }],
        };
        let page = Page { process: 7, version: 9, rows: vec![row.clone()], more: true };
        let news = News { known: true, version: 9, rows: vec![row] };
        #[rustfmt::skip]
        let golden: &[u8] = &[
            1, 1, b'a', 251, 0x2c, 0x01, 2, b'e', b'u', 1, 1, 1, 3, b'h', b':', b'1',
            1, 5, b's', b't', b'o', b'c', b'k', 2, 1, 10, 3,
        ];
        let mut bytes = BytesMut::new();
        <Bincode as Codec<Page>>::encode(&page, &mut bytes).unwrap();
        assert_eq!(bytes, [&[7, 9], golden, &[1]].concat());
        assert_eq!(<Bincode as Codec<Page>>::decode(bytes.split().freeze()).unwrap(), page);
        <Bincode as Codec<News>>::encode(&news, &mut bytes).unwrap();
        assert_eq!(bytes, [&[1, 9], golden].concat());
        assert_eq!(<Bincode as Codec<News>>::decode(bytes.split().freeze()).unwrap(), news);
        <Bincode as Codec<List>>::encode(&List { after: None }, &mut bytes).unwrap();
        <Bincode as Codec<Changes>>::encode(&Changes { process: 7, since: 9 }, &mut bytes).unwrap();
        assert_eq!(bytes[..], [0, 7, 9]);
    }
}
