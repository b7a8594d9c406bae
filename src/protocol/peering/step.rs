//! What the machine is told, what it says, and what it may ask while it is told something.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{
    super::{
        close::Closing,
        exchange::Summary,
        gossip::{Class, Gossip},
        id::{Datacenter, Generation, NodeId},
        outbox::Encoded,
        rates::Traffic,
        route::{Output, Target, TransportInput},
        session::Met,
    },
    loss::Packets,
};

/// A connection, by a number that the shell never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum PeeringInput {
    /// Another machine wants this.
    Transport(TransportInput),
    /// Another machine wants this gossip sent; it was encoded outside the lock.
    Send {
        /// To these, as far as they are connected.
        to: Vec<NodeId>,
        /// What.
        gossip: Arc<Gossip>,
        /// The same, encoded.
        encoded: Encoded,
    },
    /// A connection whose peer was admitted.
    Introduced(Introduced),
    /// A connection has ended. Each is reported once, and nothing about it after that.
    Ended(ConnectionId),
    /// A datagram came.
    Datagram(ConnectionId, Bytes),
    /// The connection may take another frame of gossip.
    Ready(ConnectionId),
    /// This is about to be done for the peer, if it is within its rates.
    Admit(ConnectionId, Traffic),
    /// A frame of gossip or of an exchange came, and was dealt with.
    Frame(ConnectionId),
    /// So many bytes of an exchange go out.
    Bulk(ConnectionId, usize),
    /// The peer has broken the rules of the protocol, as the words say.
    Misbehaved(ConnectionId, String),
    /// A peer has proved its name, and then sent bytes that are no introduction.
    Offended(NodeId, String),
    /// Look at all connections. It is due [`TICKS_PER_INTERVAL`](crate::protocol::liveness::TICKS_PER_INTERVAL)
    /// times in a gossip interval.
    Look,
}

/// A new connection.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// Its number.
    pub connection: ConnectionId,
    /// The peer, as it was admitted.
    pub met: Met,
    /// The generation with which this node has introduced itself.
    pub own: Generation,
    /// Whether this end dialed it.
    pub dialed: bool,
    /// With what the two ends have proved who they are; a connection with other proofs renews one with these.
    pub proof: Arc<str>,
    /// Where the peer is.
    pub datacenter: Datacenter,
}

/// What the machine says.
#[derive(Clone, Debug)]
pub enum PeeringOutput {
    /// To another machine, or to be counted.
    Route(Output),
    /// What became of a connection that was introduced.
    Settled(Settled),
    /// Close a connection.
    Close(ConnectionId, Closing),
    /// Close a connection, as soon as no exchange is under way on it.
    Finish(ConnectionId, Closing),
    /// Send a datagram.
    Datagram(ConnectionId, Bytes),
    /// Frames wait for this connection: ask for them with [`PeeringInput::Ready`].
    Filled(ConnectionId),
    /// The answer to [`PeeringInput::Ready`].
    Frame(Next),
    /// The answer to [`PeeringInput::Admit`].
    Admitted(bool),
    /// Gossip was queued for a peer.
    Queued(NodeId, Arc<Gossip>),
    /// This node has disconnected a peer: keep the reason for those who ask, and tell the operator.
    Disconnected {
        /// The peer.
        peer: NodeId,
        /// For counting.
        label: &'static str,
        /// For people.
        reason: String,
    },
    /// Run an exchange.
    Exchange(Target, Summary),
    /// Connect to a peer.
    Dial(NodeId),
    /// The peer lives, as others say: begin a dial anew that is under way. `stale`: if none is, dial, since its
    /// connection is silent.
    Hurry {
        /// The peer.
        peer: NodeId,
        /// Whether its connection is silent.
        stale: bool,
    },
}

/// What became of a connection that was introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is the connection to its peer from now on.
    Kept,
    /// It replaces this one, which has carried the same two with older certificates. That one is to be closed once
    /// what is on its way there has arrived.
    Renews(ConnectionId),
    /// There was one already, which stays.
    Duplicate(ConnectionId),
    /// The peer is of a generation that has ended.
    Outlived,
    /// It has ended already; what there is stays.
    Ended,
}

/// The next frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this, with its length.
    Frame(Class, Bytes),
    /// News waits for the budget: ask again after so long, or when the connection is filled.
    Wait(std::time::Duration),
    /// Nothing waits.
    Nothing,
}

/// What the machine may ask the shell while it handles an input.
pub trait Surroundings {
    /// The present generation of this node.
    fn own(&self) -> Generation;
    /// The wall clock.
    fn wall(&self) -> SystemTime;
    /// Whether a connection is open: neither end has closed it, and it was not lost.
    fn is_open(&self, connection: ConnectionId) -> bool;
    /// Frames received on a connection in authentic packets, of whatever kind.
    fn received(&self, connection: ConnectionId) -> u64;
    /// Packets sent on a connection, and lost.
    fn packets(&self, connection: ConnectionId) -> Packets;
}
