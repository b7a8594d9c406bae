//! Where the machines' outputs go: the one routing table, shared by actors and simulator.
//!
//! A machine never calls another. It says what is to happen and to whom; the shell that drives it
//! delivers. Whoever adds a rule adds it to a machine, so that the simulator runs it too.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

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
use crate::store::Change;

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
    /// A dead peer is no longer to be told of.
    Retire(NodeId),
    /// A dead peer is to be forgotten.
    Forget(NodeId),
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

/// What is counted. Each is monotonic for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Counter {
    /// Exchanges that went through, as the one who began.
    ExchangesInitiated,
    /// Exchanges that went through, as the one who answered.
    ExchangesAnswered,
    /// Exchanges that broke off.
    ExchangesFailed,
    /// Exchanges not begun, since too many were under way.
    ExchangesShed,
    /// Writes of others received, those known already included: what more there are of them than of
    /// those applied is redundant.
    EntriesReceived,
    /// Writes of others applied.
    EntriesApplied,
    /// News refused: it would have broken a copy.
    NewsRefused,
    /// Entries looked at to apply news of others: what the news has cost.
    EntriesExamined,
    /// Lives of others not taken up yet, since they began too many in a while.
    LivesShed,
    /// Verdicts about others not taken over yet, since a peer told too many in a while.
    VerdictsShed,
    /// Pulls given up, since their peer was too slow.
    PullsGivenUp,
    /// Signatures of heads verified.
    SealsVerified,
    /// Certificates of others looked at, with what they vouch for.
    CredentialsVetted,
    /// Nodes that have signed two states as one.
    Equivocations,
    /// News of a node that nobody introduced.
    UnknownPeers,
    /// Nodes not taken up, since as many as allowed are known.
    PeersShed,
    /// Times that a later life of this node's own name was heard of, with enough proof to follow it.
    NameConflicts,
    /// Claims that would have ended, begun or moved a node, and were not proved.
    ClaimsUnproved,
    /// Commits that the store failed.
    StoreFailures,
    /// Events that nobody could take in time.
    EventsLagged,
    /// Heartbeats sent.
    HeartbeatsSent,
    /// Heartbeats received.
    HeartbeatsReceived,
    /// Heartbeats that could not be sent.
    HeartbeatsUnsent,
    /// Peers that were live and became suspect.
    PeersSuspected,
    /// Times that a datacenter became unreachable.
    DatacentersLost,
    /// Bytes of bulk on their way to peers that pull, counted before the first one is sent.
    BulkBytesSent,
    /// Bytes of bulk pulled and applied. What a peer has sent beyond that is in flight, or was when its
    /// stream broke.
    BulkBytesTaken,
    /// Frames of gossip handed to connections.
    GossipSent,
    /// Frames of gossip received.
    GossipReceived,
    /// Those of them that told nothing new, and went no further than the connection.
    GossipDuplicates,
    /// Frames of gossip dropped, since as many as allowed waited for a connection.
    GossipShed,
    /// Frames or datagrams that could not be decoded.
    FramesMalformed,
    /// Frames that broke the order of the protocol or a limit.
    FramesRefused,
    /// Frames, datagrams and exchanges dropped, since a peer sent more than it may.
    FramesThrottled,
    /// Times that a peer was cut off since it does not keep to the protocol.
    PeersCutOff,
    /// Connections opened to others.
    ConnectionsDialed,
    /// Connections replaced since nothing came over them from a peer that lives.
    ConnectionsRenewed,
    /// Connections accepted from others.
    ConnectionsAccepted,
    /// Dials that failed.
    DialsFailed,
    /// Datagrams that belong to no connection and begin none: noise.
    DatagramsUnknown,
    /// Packets that the system refused to send, for example because no route leads from the socket to
    /// their address.
    PacketsUnsent,
    /// Times that the system failed to receive; the socket pauses then.
    ReceiveFailures,
    /// Handshakes refused before any work was spent on them.
    HandshakesShed,
    /// Handshakes answered with Retry.
    HandshakesRetried,
    /// Handshakes that failed or timed out.
    HandshakesFailed,
    /// Actors restarted.
    ActorRestarts,
    /// News told to us unasked that we had.
    PushesRepeated,
    /// News told to us unasked that did not connect to what we had, and was asked for.
    PushGaps,
    /// News asked for, since it did not come by itself.
    Grafts,
    /// Times that this node has refuted what others thought of it.
    Refutations,
    /// Times that this node missed a peer and asked the others who should hear it.
    Inquiries,
    /// Questions and answers of others not passed on, since there were too many.
    QuestionsShed,
    /// Accusations by nodes that do not observe the accused.
    AccusationsRefused,
    /// Exchanges in which a sketch told what differs.
    ReconciledBySketch,
    /// Exchanges that were opened by a sketch and went on with the full digest, as too much differs.
    SketchFallbacks,
    /// Sketches that contradict themselves; the full digest was asked for instead.
    SketchesRefused,
    /// Times that certificate, key or roots were replaced while the node ran.
    CertificatesReplaced,
    /// Times that new ones were found and could not be used.
    CertificatesRefused,
    /// Revocations that were new and are kept.
    RevocationsTaken,
    /// Revocations told by a peer that no trusted authority has signed.
    RevocationsRefused,
    /// News of a life that is revoked.
    RevokedNewsRefused,
    /// Peers that came back with less than they had.
    PeersBehind,
    /// Peers that seem to run twice.
    PeersTwice,
    /// Times that a peer said that this node came back with less than it had.
    BehindTold,
    /// News of a life that was forgotten or removed here.
    ForgottenNewsRefused,
    /// Marks of forgotten lives dropped, since there were more than
    /// [`MARKS_MAX`](super::replica::MARKS_MAX).
    MarksDropped,
    /// Dead or departed peers forgotten because another node said that they were removed.
    RemovalsFollowed,
    /// Clients let in.
    ClientsAccepted,
    /// Requests of clients.
    ClientRequests,
    /// Requests that their client's role does not permit.
    ClientRequestsRefused,
    /// Certificates given to those who joined by a token.
    CertificatesIssued,
    /// Certificates given to members for the one they had.
    CertificatesRenewed,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Self; 72] = [
        Self::ExchangesInitiated,
        Self::ExchangesAnswered,
        Self::ExchangesFailed,
        Self::ExchangesShed,
        Self::EntriesReceived,
        Self::EntriesApplied,
        Self::NewsRefused,
        Self::EntriesExamined,
        Self::LivesShed,
        Self::VerdictsShed,
        Self::PullsGivenUp,
        Self::SealsVerified,
        Self::CredentialsVetted,
        Self::Equivocations,
        Self::UnknownPeers,
        Self::PeersShed,
        Self::NameConflicts,
        Self::ClaimsUnproved,
        Self::StoreFailures,
        Self::EventsLagged,
        Self::HeartbeatsSent,
        Self::HeartbeatsReceived,
        Self::HeartbeatsUnsent,
        Self::PeersSuspected,
        Self::DatacentersLost,
        Self::BulkBytesSent,
        Self::BulkBytesTaken,
        Self::GossipSent,
        Self::GossipReceived,
        Self::GossipDuplicates,
        Self::GossipShed,
        Self::FramesMalformed,
        Self::FramesRefused,
        Self::FramesThrottled,
        Self::PeersCutOff,
        Self::ConnectionsDialed,
        Self::ConnectionsRenewed,
        Self::ConnectionsAccepted,
        Self::DialsFailed,
        Self::DatagramsUnknown,
        Self::PacketsUnsent,
        Self::ReceiveFailures,
        Self::HandshakesShed,
        Self::HandshakesRetried,
        Self::HandshakesFailed,
        Self::ActorRestarts,
        Self::PushesRepeated,
        Self::PushGaps,
        Self::Grafts,
        Self::Refutations,
        Self::Inquiries,
        Self::QuestionsShed,
        Self::AccusationsRefused,
        Self::ReconciledBySketch,
        Self::SketchFallbacks,
        Self::SketchesRefused,
        Self::CertificatesReplaced,
        Self::CertificatesRefused,
        Self::RevocationsTaken,
        Self::RevocationsRefused,
        Self::RevokedNewsRefused,
        Self::PeersBehind,
        Self::PeersTwice,
        Self::BehindTold,
        Self::ForgottenNewsRefused,
        Self::MarksDropped,
        Self::RemovalsFollowed,
        Self::ClientsAccepted,
        Self::ClientRequests,
        Self::ClientRequestsRefused,
        Self::CertificatesIssued,
        Self::CertificatesRenewed,
    ];

    /// Its name in metrics and in `info`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExchangesInitiated => "exchanges_initiated",
            Self::ExchangesAnswered => "exchanges_answered",
            Self::ExchangesFailed => "exchanges_failed",
            Self::ExchangesShed => "exchanges_shed",
            Self::EntriesReceived => "entries_received",
            Self::EntriesApplied => "entries_applied",
            Self::NewsRefused => "news_refused",
            Self::EntriesExamined => "entries_examined",
            Self::LivesShed => "lives_shed",
            Self::VerdictsShed => "verdicts_shed",
            Self::PullsGivenUp => "pulls_given_up",
            Self::SealsVerified => "seals_verified",
            Self::CredentialsVetted => "credentials_vetted",
            Self::Equivocations => "equivocations",
            Self::UnknownPeers => "unknown_peers",
            Self::PeersShed => "peers_shed",
            Self::NameConflicts => "name_conflicts",
            Self::ClaimsUnproved => "claims_unproved",
            Self::StoreFailures => "store_failures",
            Self::EventsLagged => "events_lagged",
            Self::HeartbeatsSent => "heartbeats_sent",
            Self::HeartbeatsReceived => "heartbeats_received",
            Self::HeartbeatsUnsent => "heartbeats_unsent",
            Self::PeersSuspected => "peers_suspected",
            Self::DatacentersLost => "datacenters_lost",
            Self::BulkBytesSent => "bulk_bytes_sent",
            Self::BulkBytesTaken => "bulk_bytes_taken",
            Self::GossipSent => "gossip_sent",
            Self::GossipReceived => "gossip_received",
            Self::GossipDuplicates => "gossip_duplicates",
            Self::GossipShed => "gossip_shed",
            Self::FramesMalformed => "frames_malformed",
            Self::FramesRefused => "frames_refused",
            Self::FramesThrottled => "frames_throttled",
            Self::PeersCutOff => "peers_cut_off",
            Self::ConnectionsDialed => "connections_dialed",
            Self::ConnectionsRenewed => "connections_renewed",
            Self::ConnectionsAccepted => "connections_accepted",
            Self::DialsFailed => "dials_failed",
            Self::DatagramsUnknown => "datagrams_unknown",
            Self::PacketsUnsent => "packets_unsent",
            Self::ReceiveFailures => "receive_failures",
            Self::HandshakesShed => "handshakes_shed",
            Self::HandshakesRetried => "handshakes_retried",
            Self::HandshakesFailed => "handshakes_failed",
            Self::ActorRestarts => "actor_restarts",
            Self::PushesRepeated => "pushes_repeated",
            Self::PushGaps => "push_gaps",
            Self::Grafts => "grafts",
            Self::Refutations => "refutations",
            Self::Inquiries => "inquiries",
            Self::QuestionsShed => "questions_shed",
            Self::AccusationsRefused => "accusations_refused",
            Self::ReconciledBySketch => "reconciled_by_sketch",
            Self::SketchFallbacks => "sketch_fallbacks",
            Self::SketchesRefused => "sketches_refused",
            Self::CertificatesReplaced => "certificates_replaced",
            Self::CertificatesRefused => "certificates_refused",
            Self::RevocationsTaken => "revocations_taken",
            Self::RevocationsRefused => "revocations_refused",
            Self::RevokedNewsRefused => "revoked_news_refused",
            Self::PeersBehind => "peers_behind",
            Self::PeersTwice => "peers_twice",
            Self::BehindTold => "behind_told",
            Self::ForgottenNewsRefused => "forgotten_news_refused",
            Self::MarksDropped => "marks_dropped",
            Self::RemovalsFollowed => "removals_followed",
            Self::ClientsAccepted => "clients_accepted",
            Self::ClientRequests => "client_requests",
            Self::ClientRequestsRefused => "client_requests_refused",
            Self::CertificatesIssued => "certificates_issued",
            Self::CertificatesRenewed => "certificates_renewed",
        }
    }
}
