//! What the connections with neighbours have measured of their paths, to answer how far and how lossy each is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use crate::{
    net::Connection,
    protocol::id::{Datacenter, NodeId},
};

/// The path to a neighbour: a peer that this node has an open gossip connection with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerPath {
    /// The peer.
    pub peer: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its address, `host:port`.
    pub remote: String,
    /// Whether this node dialed the connection, rather than the peer.
    pub dialed: bool,
    /// The time that a packet takes to the peer and back, smoothed; `None` if the network measures none.
    pub round_trip: Option<Duration>,
    /// How many bytes may be in flight; `None` if the network has no such limit.
    pub congestion_window: Option<u64>,
    /// Packets that this node has sent on the connection since it began.
    pub packets_sent: u64,
    /// How many of them are considered lost.
    pub packets_lost: u64,
}

/// The gossip connection with each neighbour.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Mutex<BTreeMap<NodeId, Neighbour>>);

#[derive(Debug)]
struct Neighbour {
    datacenter: Datacenter,
    dialed: bool,
    connection: Weak<dyn Connection>,
}

impl Neighbours {
    /// There is a connection with a peer; it replaces an earlier one. Those that have ended are dropped, so there are
    /// never more than this node has connections.
    pub(crate) fn add(
        &self,
        peer: &NodeId,
        datacenter: Datacenter,
        dialed: bool,
        connection: &Arc<dyn Connection>,
    ) {
        let mut neighbours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        neighbours.retain(|_, neighbour| neighbour.connection.strong_count() > 0);
        let connection = Arc::downgrade(connection);
        neighbours.insert(peer.clone(), Neighbour { datacenter, dialed, connection });
    }

    /// The paths of the open connections, by the name of the peer.
    pub(crate) fn paths(&self) -> Vec<PeerPath> {
        let neighbours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        neighbours.iter().filter_map(|(peer, neighbour)| neighbour.path(peer)).collect()
    }
}

impl Neighbour {
    fn path(&self, peer: &NodeId) -> Option<PeerPath> {
        let connection = self.connection.upgrade().filter(|connection| connection.is_open())?;
        let (packets_sent, packets_lost) = connection.packets();
        Some(PeerPath {
            peer: peer.clone(),
            datacenter: self.datacenter.clone(),
            remote: connection.remote(),
            dialed: self.dialed,
            round_trip: connection.round_trip(),
            congestion_window: connection.congestion_window(),
            packets_sent,
            packets_lost,
        })
    }
}
