//! The receivers of the machines' outputs: the one routing table, shared by actors and simulator.
//!
//! A machine never calls another. It returns the actions and their receivers; the shell that drives it
//! delivers them. A new rule belongs in a machine, so that the simulator runs it too.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub use super::counter::Counter;
use super::{
    claim::Heard,
    edges::Edges,
    event::{Event, Problem, ProtocolEvent},
    exchange::Summary,
    gossip::{Answer, Ask, Gossip},
    id::{Datacenter, Generation, NodeId},
    record::Status,
    returning::Return,
    revocation::Revocations,
    time::Time,
    verdict::Verdict,
    wave::Census,
};
use crate::protocol::durable::Change;

/// One action, and its receiver.
#[derive(Clone, Debug)]
pub enum Output {
    /// To the storage machine ([`Replica`](super::replica::Replica)).
    Storage(StorageInput),
    /// To the [`Scheduler`](super::scheduler::Scheduler).
    Scheduler(SchedulerInput),
    /// To the failure detector ([`Liveness`](super::liveness::Liveness)).
    Detector(DetectorInput),
    /// To the transport, the only part that touches the network.
    Transport(TransportInput),
    /// To the subscribers.
    Event(Event),
    /// To those who watch the protocol.
    Protocol(ProtocolEvent),
    /// To the store, in this order; no caller waits for it.
    Persist(Vec<Change>),
    /// Call the machine that returned this again, with `Tick`, after this long. A later one replaces it.
    Wake(Duration),
    /// Count it.
    Count(Counter, u64),
    /// A wave that counts the nodes with a version ([`Replica::count`](super::replica::Replica::count)) is
    /// over.
    Counted(u64, Census),
    /// This many peers have acknowledged that this node leaves; no peer is left to be sent it.
    Farewell(usize),
    /// These datacenters are unreachable: readers have to see it before the outputs that follow from it.
    Unreachable(Arc<BTreeSet<Datacenter>>),
    /// These are revoked from now on: the parts that hold connections and verify certificates have to enforce
    /// it before any other output that was returned with it.
    Revoked(Arc<Revocations>),
    /// The node must end: [`Problem::Displaced`], [`Problem::Revoked`].
    Stop(Problem),
}

/// The messages to storage; requests that it answers are methods of [`Replica`](super::replica::Replica).
#[derive(Clone, Debug)]
pub enum StorageInput {
    /// Time has passed: expire, collect.
    Tick,
    /// Send the new updates: storage asks itself for this, behind everything that waits for it already.
    Tell,
    /// Hand the transport a digest for these.
    BeginRound(Vec<Target>),
    /// A later generation of our own name was reported.
    HeardOfSelf(Generation, Heard),
    /// This node heard a peer that is reported suspect or dead: send the peer that report, so that it can
    /// refute it.
    Back(NodeId),
    /// Leave a peer that is dead in this generation out of digests. A later generation stays: it may have
    /// begun while this message was on its way.
    Retire(NodeId, Generation),
    /// Forget a peer that is dead in this generation; a later generation stays.
    Forget(NodeId, Generation),
    /// All nodes are to forget a peer that is gone.
    Remove {
        /// The peer.
        peer: NodeId,
        /// The node that reported it; `None` if a person requested it here.
        by: Option<NodeId>,
    },
    /// A stream with a peer broke off while it carried bulk.
    BulkBroken(NodeId),
    /// The detector is convinced of this verdict on this generation of the peer, and so are these observers.
    Accuse(NodeId, Generation, Verdict, Arc<[NodeId]>),
    /// This node does not hear this generation of a peer: ask its observers.
    Ask(NodeId, Generation),
    /// Answer a question about a peer: whether this node hears the peer.
    Answer(Ask, bool),
    /// A connection to a peer can carry updates now, or no longer.
    Linked(NodeId, bool),
    /// Updates for a peer wait for its connection (`true`: storage joins what is new for the peer and keeps
    /// it), or no longer wait.
    Congested(NodeId, bool),
    /// A peer sent this unasked.
    Gossip(NodeId, Box<Gossip>),
    /// Report the root to the scheduler.
    TellRoot,
    /// The edges for news along trees are these from now on.
    Edges(Arc<Edges>),
    /// The transport has dropped a frame for a peer, with updates or notes of these owners.
    Shed(NodeId, Vec<NodeId>),
    /// Publish in our record that we have lost contact with these datacenters, and with no others.
    Severed(BTreeSet<Datacenter>),
    /// How late this node is served ([`lag`](super::lag)).
    Lag(Duration),
}

/// The messages to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerInput {
    /// Time has passed.
    Tick,
    /// A peer is known, with this chance of reaching it.
    Peer(NodeId, Reach),
    /// A peer is in this datacenter; sent before its addresses.
    Located(NodeId, Datacenter),
    /// A peer is suspected, or no longer.
    Suspected(NodeId, bool),
    /// A peer of another datacenter that this node only listens to is not heard any more, or is heard again.
    Witness {
        /// The peer.
        peer: NodeId,
        /// Whether it is heard.
        heard: bool,
    },
    /// A peer's record says that it has lost contact with these datacenters.
    Severed(NodeId, BTreeSet<Datacenter>),
    /// A peer that is not known to be dead was reported as removed.
    Removal {
        /// The peer.
        peer: NodeId,
        /// The node that reports it.
        by: NodeId,
    },
    /// A peer was forgotten that may still live on the other side of a partition: its last known place.
    Remember(NodeId, Vec<String>),
    /// A peer was forgotten.
    Forgotten(NodeId),
    /// A connection to a peer was opened or closed. `dialed`: this node was the one to dial.
    Linked {
        /// The peer.
        peer: NodeId,
        /// Whether there is one.
        up: bool,
        /// Whether this end dialed it.
        dialed: bool,
    },
    /// Dialing a peer failed.
    DialFailed(NodeId),
    /// A peer that was dialed is too busy for a handshake.
    Busy(NodeId),
    /// Storage has news that travels along trees, and needs the edges. `has`: it has edges already.
    EdgesWanted {
        /// Whether it has edges already.
        has: bool,
    },
    /// The root that a peer reports for the state that it holds.
    Root(NodeId, u64),
    /// The root of the state that this node holds.
    OwnRoot(u64),
    /// An exchange ended.
    Ended {
        /// The peer of the exchange.
        target: Target,
        /// The node that answered, if any; it may be this node itself.
        node: Option<NodeId>,
        /// Whether it went through.
        ok: bool,
    },
    /// An exchange did not begin, because its target is too busy for a handshake.
    Deferred(Target),
    /// Another actor has restarted: exchanges that were under way may never be reported as ended.
    Interrupted,
    /// The node is leaving: send it to some peers, then send nothing more.
    Leave,
    /// How late this node is served ([`lag`](super::lag)).
    Lag(Duration),
    /// How late this node was served since its start, in all ([`served`](super::served)).
    Late(Duration),
    /// Storage has worked for so long for exchanges since it was last reported.
    Repaired(Duration),
}

/// How likely a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Never heard yet.
    Unheard,
    /// Heard and not missed for long.
    Live,
    /// Dead, or left.
    Dead,
}

/// The messages to the failure detector.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorInput {
    /// Time has passed.
    Tick,
    /// The transport has disconnected a peer for a protocol violation: the offence.
    CutOff(NodeId, Arc<str>),
    /// A peer's record says this.
    Member {
        /// The peer.
        peer: NodeId,
        /// Its present generation.
        generation: Generation,
        /// Whether it means to stay.
        status: Status,
        /// The cluster's verdict on it.
        verdict: Verdict,
        /// The observers that agreed on the verdict, as far as they were named.
        observers: Arc<[NodeId]>,
    },
    /// The peers that this node observes itself; it receives reports about the others.
    Observe {
        /// The peers about whose silence this node has a vote.
        judged: Arc<[NodeId]>,
        /// The peers that only nodes of their own datacenter judge; when one of these peers is silent, those
        /// nodes are asked, and the scheduler is informed.
        witnessed: Arc<[NodeId]>,
    },
    /// A connection to a peer was opened or closed. `dialed`: this end dialed it.
    Linked {
        /// The peer.
        peer: NodeId,
        /// Whether there is one.
        up: bool,
        /// Whether this end dialed it, and so sends the heartbeats.
        dialed: bool,
    },
    /// The share of packets to a peer that is lost, as its connection has measured.
    Loss(NodeId, f64),
    /// How slow a peer finds itself.
    Health(NodeId, u8),
    /// Another node does not hear a peer: probe the peer now, and answer. The flag: whether that node is in
    /// the peer's datacenter.
    Asked(Ask, bool),
    /// The observers to ask about a peer that this node asks about, including this node if it has a vote;
    /// `None` if they are unknown.
    Asking(NodeId, Option<Arc<[NodeId]>>),
    /// A node answers a question of this node.
    Answered(Answer),
    /// The transport heard from the peer itself, in this generation, at this time.
    Heard {
        /// The peer.
        peer: NodeId,
        /// The generation its connection was opened with.
        generation: Generation,
        /// The kind of sign of life.
        sign: Sign,
        /// When the packet was read, which may have been a while ago.
        at: Time,
    },
    /// The transport has looked at all connections, as it does [`TICKS_PER_INTERVAL`] times in a heartbeat
    /// interval, and has heard these peers since the last time, each in this generation and at about this
    /// time. It is a tick as well.
    ///
    /// [`TICKS_PER_INTERVAL`]: super::liveness::TICKS_PER_INTERVAL
    HeardAll(Vec<(NodeId, Generation, Sign, Time)>),
    /// A peer was reported as removed, or as forgotten elsewhere.
    Removal {
        /// The peer.
        peer: NodeId,
        /// Its generation, as it is known here.
        generation: Generation,
        /// The node that reports it.
        by: NodeId,
    },
    /// A peer is in another generation than the known one, or at another address; sent before the contents of
    /// its new record.
    Returned(NodeId, Arc<Return>),
    /// The peer is gone from storage.
    Forgotten(NodeId),
    /// How late this node is served ([`lag`](super::lag)).
    Lag(Duration),
}

/// The kind of a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A heartbeat: its intervals show what is usual.
    Heartbeat,
    /// Any other packet that only the peer itself can have sent.
    Traffic,
    /// The echo of the probe with this number.
    Echo(u64),
}

/// The messages to the transport.
#[derive(Clone, Debug)]
pub enum TransportInput {
    /// Run an exchange with each of these.
    Round {
        /// The peers of the exchanges.
        targets: Vec<Target>,
        /// The first message of the exchange.
        summary: Summary,
    },
    /// Send each of these a heartbeat, if it is connected.
    Heartbeat {
        /// The receivers.
        peers: Vec<NodeId>,
        /// How slow this node considers itself.
        health: u8,
    },
    /// Send each of these a probe with this number, if it is connected; it is echoed at once.
    Probe {
        /// The receivers, each with the number of its probe.
        probes: Vec<(NodeId, u64)>,
        /// How slow this node considers itself.
        health: u8,
    },
    /// Connect to each of these, if there is no connection yet.
    Dial(Vec<NodeId>),
    /// Each of these peers lives, according to others, but is not heard here. If nothing has come over its
    /// connection for long although something should have, the transport dials another one in its place; a
    /// dial that is under way starts again.
    Renew(Vec<NodeId>),
    /// Close the connection to each of these: neither end needs it any more, or the node has too many.
    Close(Vec<NodeId>),
    /// Send a frame to these peers, as far as they are connected.
    Gossip {
        /// The receivers.
        to: Vec<NodeId>,
        /// The frame.
        gossip: Arc<Gossip>,
    },
    /// A peer has caused this node useless work: count it as an offence of the peer, over all of its
    /// connections.
    HoldAgainst {
        /// The peer.
        peer: NodeId,
        /// How much, as a share of the traffic of a peer that may be dropped before the peer is disconnected.
        price: u32,
        /// The offence.
        why: Misconduct,
    },
    /// Report every open connection to storage and the scheduler: one of them has restarted.
    TellLinks,
    /// Close all connections with this peer: it was forgotten.
    Forget(NodeId),
}

/// An offence of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misconduct {
    /// Updates that no honest member sends, and that were refused.
    RefusedNews,
}

impl Misconduct {
    /// What the peer sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefusedNews => "news that was refused",
        }
    }
}

/// The peer of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A known peer.
    Peer(NodeId),
    /// Any node that answers at this address: a seed, or a peer known from the store.
    Address(String),
}
