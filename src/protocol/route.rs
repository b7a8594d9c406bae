//! Where the machines' outputs go: the one routing table, shared by actors and simulator.
//!
//! A machine never calls another. It says what is to happen and to whom; the shell that drives it
//! delivers. Whoever adds a rule adds it to a machine, so that the simulator runs it too.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub use super::counter::Counter;
use super::{
    claim::Heard,
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

/// One thing to be done, and by whom.
#[derive(Clone, Debug)]
pub enum Output {
    /// To the storage machine ([`Replica`](super::replica::Replica)).
    Storage(StorageInput),
    /// To the [`Scheduler`](super::scheduler::Scheduler).
    Scheduler(SchedulerInput),
    /// To the failure detector ([`Liveness`](super::liveness::Liveness)).
    Detector(DetectorInput),
    /// To the transport, which is all that touches the network.
    Transport(TransportInput),
    /// To the subscribers.
    Event(Event),
    /// To those who watch the protocol.
    Protocol(ProtocolEvent),
    /// To the store, in this order; nobody waits for it.
    Persist(Vec<Change>),
    /// Call the machine that said this again, with `Tick`, after so long. A later one replaces it.
    Wake(Duration),
    /// Count it.
    Count(Counter, u64),
    /// A question who has a version ([`Replica::count`](super::replica::Replica::count)) is over.
    Counted(u64, Census),
    /// So many peers have acknowledged that this node leaves; there is nobody left to be told.
    Farewell(usize),
    /// These datacenters cannot be reached: readers are to see it, before what is told of it.
    Unreachable(Arc<BTreeSet<Datacenter>>),
    /// These are revoked from now on: whoever holds connections and verifies certificates is to see to
    /// that before anything else that was said with it.
    Revoked(Arc<Revocations>),
    /// The node must end: [`Problem::Displaced`], [`Problem::Revoked`].
    Stop(Problem),
}

/// What storage is told; what it is asked are methods of [`Replica`](super::replica::Replica).
#[derive(Clone, Debug)]
pub enum StorageInput {
    /// Time has passed: expire, collect.
    Tick,
    /// Hand the transport a digest for these.
    BeginRound(Vec<Target>),
    /// There is said to be a later life of our own name.
    HeardOfSelf(Generation, Heard),
    /// A peer was heard that is said to be suspect or dead: tell it, so that it can refute that.
    Back(NodeId),
    /// Leave a peer that is dead in this generation out of digests. A later generation is not meant: it may
    /// have begun while this message was on its way.
    Retire(NodeId, Generation),
    /// Forget a peer that is dead in this generation; a later one is not meant.
    Forget(NodeId, Generation),
    /// A peer that is not there is to be forgotten by everybody.
    Remove {
        /// The peer.
        peer: NodeId,
        /// Who told this node so; `None` if a person says so here.
        by: Option<NodeId>,
    },
    /// A stream with a peer broke off while it carried bulk.
    BulkBroken(NodeId),
    /// The detector is convinced of this, in this life of the peer, and so are these.
    Accuse(NodeId, Generation, Verdict, Arc<[NodeId]>),
    /// This node does not hear a peer in this life: ask who should hear it.
    Ask(NodeId, Generation),
    /// Answer a question about a peer: whether this node hears it.
    Answer(Ask, bool),
    /// There is a connection to a peer on which news can be told, or there is none any more.
    Linked(NodeId, bool),
    /// News for a peer waits for its connection (`true`: what is new for it is to be joined and kept
    /// here), or does so no longer.
    Congested(NodeId, bool),
    /// A peer told this unasked.
    Gossip(NodeId, Box<Gossip>),
    /// Tell the scheduler the root.
    TellRoot,
    /// Say in our record that we are cut off from these datacenters, and from no others.
    Severed(BTreeSet<Datacenter>),
}

/// What the scheduler is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerInput {
    /// Time has passed.
    Tick,
    /// A peer is known, with this much hope of reaching it.
    Peer(NodeId, Reach),
    /// A peer is in this datacenter; said before it is told how to be reached.
    Located(NodeId, Datacenter),
    /// A peer is suspected, or no longer.
    Suspected(NodeId, bool),
    /// A peer of another datacenter whom this node only listens to is not heard any more, or is again.
    Witness {
        /// The peer.
        peer: NodeId,
        /// Whether it is heard.
        heard: bool,
    },
    /// A peer's record says that it is cut off from these datacenters.
    Severed(NodeId, BTreeSet<Datacenter>),
    /// A peer is said to have been removed that is not known to be dead.
    Removal {
        /// The peer.
        peer: NodeId,
        /// Who says so.
        by: NodeId,
    },
    /// A peer was forgotten that may be there all the same, cut off from here: where it was.
    Remember(NodeId, Vec<String>),
    /// A peer was forgotten.
    Forgotten(NodeId),
    /// There is a connection to a peer, or there is none any more. `dialed`: it was ours to begin.
    Linked {
        /// The peer.
        peer: NodeId,
        /// Whether there is one.
        up: bool,
        /// Whether this end dialed it.
        dialed: bool,
    },
    /// A peer could not be dialed.
    DialFailed(NodeId),
    /// What a peer says is the sum of what it knows.
    Root(NodeId, u64),
    /// The sum of what this node knows.
    OwnRoot(u64),
    /// An exchange ended.
    Ended {
        /// With whom.
        target: Target,
        /// Who answered, if anybody did; it may be this node itself.
        node: Option<NodeId>,
        /// Whether it went through.
        ok: bool,
    },
    /// Another actor has started anew: whatever was under way may never be reported.
    Interrupted,
    /// The node is leaving: tell some peers, then say nothing more.
    Leave,
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

/// What the failure detector is told.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorInput {
    /// Time has passed.
    Tick,
    /// The transport has cut a peer off since it does not keep to the protocol: what it has done.
    CutOff(NodeId, Arc<str>),
    /// A peer's record says this.
    Member {
        /// The peer.
        peer: NodeId,
        /// Its present life.
        generation: Generation,
        /// Whether it means to stay.
        status: Status,
        /// What the cluster thinks of it.
        verdict: Verdict,
        /// Those who agreed on that, as far as they were named.
        observers: Arc<[NodeId]>,
    },
    /// Whom this node has to hear itself; of the others it is told.
    Observe {
        /// Those whose silence it has a voice in.
        judged: Arc<[NodeId]>,
        /// Those whom others judge, of their own datacenter; when one is silent, they are asked, and
        /// the scheduler is told.
        witnessed: Arc<[NodeId]>,
    },
    /// There is a connection to a peer, or there is none any more. `dialed`: this end did.
    Linked {
        /// The peer.
        peer: NodeId,
        /// Whether there is one.
        up: bool,
        /// Whether this end dialed it, and so sends the heartbeats.
        dialed: bool,
    },
    /// The part of the packets to a peer that is lost, as its connection has measured.
    Loss(NodeId, f64),
    /// How slow a peer finds itself.
    Health(NodeId, u8),
    /// Another node does not hear a peer: hear it now, and answer. Whether it is in the peer's
    /// datacenter.
    Asked(Ask, bool),
    /// Who is to be asked about a peer that this node asks about, this node included if it has a
    /// voice; `None` if that cannot be said.
    Asking(NodeId, Option<Arc<[NodeId]>>),
    /// Somebody answers what this node has asked.
    Answered(Answer),
    /// The transport heard from the peer itself, in this life of it, at this time.
    Heard {
        /// The peer.
        peer: NodeId,
        /// The generation its connection was opened with.
        generation: Generation,
        /// What was heard.
        sign: Sign,
        /// When the packet was read, which may be a while ago.
        at: Time,
    },
    /// The transport has looked at all connections, as it does [`TICKS_PER_INTERVAL`] times in a
    /// heartbeat interval, and has heard these since the last time, each in this life of it and at
    /// about this time. It is a tick as well.
    ///
    /// [`TICKS_PER_INTERVAL`]: super::liveness::TICKS_PER_INTERVAL
    HeardAll(Vec<(NodeId, Generation, Sign, Time)>),
    /// A peer is said to have been removed, or forgotten elsewhere.
    Removal {
        /// The peer.
        peer: NodeId,
        /// Its life, as it is known here.
        generation: Generation,
        /// Who says so.
        by: NodeId,
    },
    /// A peer is in another life than the one that was known, or at another address; said before what
    /// its new record says.
    Returned(NodeId, Arc<Return>),
    /// The peer is gone from storage.
    Forgotten(NodeId),
}

/// What kind of sign of life it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A heartbeat: its intervals say what is usual.
    Heartbeat,
    /// Anything else that only the peer itself can have sent.
    Traffic,
    /// The echo of the probe with this number.
    Echo(u64),
}

/// What the transport is told.
#[derive(Clone, Debug)]
pub enum TransportInput {
    /// Run an exchange with each of these.
    Round {
        /// With whom.
        targets: Vec<Target>,
        /// What to open it with.
        summary: Summary,
    },
    /// Send each of these a heartbeat, if it is connected.
    Heartbeat {
        /// Whom.
        peers: Vec<NodeId>,
        /// How slow this node finds itself.
        health: u8,
    },
    /// Send each of these a probe with this number, if it is connected; it is echoed at once.
    Probe {
        /// Whom, and the number of its probe.
        probes: Vec<(NodeId, u64)>,
        /// How slow this node finds itself.
        health: u8,
    },
    /// Connect to each of these, if there is no connection yet.
    Dial(Vec<NodeId>),
    /// Each of these lives, by what it has others say, and is not heard here. If nothing has come over
    /// its connection for long although something was to, another one is dialed in its place; a dial
    /// that is under way begins anew.
    Renew(Vec<NodeId>),
    /// Close the connection to each of these: neither end needs it any more, or there are too many.
    Close(Vec<NodeId>),
    /// Tell these peers, as far as they are connected.
    Gossip {
        /// Whom.
        to: Vec<NodeId>,
        /// What.
        gossip: Arc<Gossip>,
    },
    /// A peer has made this node do work in vain: hold it against the peer, over all of its connections.
    HoldAgainst {
        /// Against whom.
        peer: NodeId,
        /// How much, of what may be dropped of a peer until it is cut off.
        price: u32,
        /// For what.
        why: Misconduct,
    },
    /// Tell storage and the scheduler of every connection there is: one of them has started anew.
    TellLinks,
    /// Close what there is with this peer: it was forgotten.
    Forget(NodeId),
}

/// What is held against a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misconduct {
    /// News that no honest member sends, and that was refused.
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

/// Whom to run an exchange with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A known peer.
    Peer(NodeId),
    /// Whoever answers at this address: a seed, or a peer known from the store.
    Address(String),
}
