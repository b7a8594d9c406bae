//! How nodes reach each other: the [`Transport`] trait, and what a transport may tell and ask its node.
//!
//! A transport is an actor that takes [`TransportInput`]: start exchanges, send heartbeats, keep
//! connections. It alone touches the network. What arrives it hands to its [`NodeLink`]. Two ship:
//! [`quic`] (the default) and [`memory`] (for tests).
//!
//! What a transport has to see to: who a peer is must be proved, not claimed; frames of one exchange
//! arrive in order or not at all; for every target of a round the end is reported
//! ([`NodeLink::ended`]); what peers can make it hold has a limit.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use ractor::{ActorCell, ActorRef, SpawnErr};
use tokio::sync::oneshot;

use self::{budget::Allowance, limits::QuicLimits, share::Share};
use crate::{
    actors::{shared::Shared, storage::StorageMessage},
    clock::Clock,
    config::Config,
    counters::Counters,
    cuts::Cut,
    dials::DialFailure,
    protocol::{
        claim::Heard,
        delta::{Delta, NodeDelta},
        event::{Event, Problem, ProtocolEvent},
        exchange::{Ask, Reply},
        gossip::{Gossip, RevocationList},
        id::{Datacenter, Generation, NodeId, Version},
        map::Signed,
        message::Hello,
        revocation::{Authorities, Revocation, Revocations},
        route::{
            Counter, DetectorInput, SchedulerInput, Sign, StorageInput, Target, TransportInput,
        },
        seal::Notary,
        sketch::SketchKey,
        skim::Heading,
        time::Time,
    },
    store::EndpointKeys,
    tls::PeerName,
};

pub(crate) mod budget;
pub mod exchange;
pub mod gossip;
pub mod limits;
pub mod memory;
pub mod quic;
pub(crate) mod share;

pub use share::{GRAFTS_PER_SECOND, HEARTBEATS_PER_SECOND, ROOTS_PER_SECOND};

#[cfg(feature = "cluster")]
impl ractor::Message for TransportInput {}

/// A future of a trait's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to reach other nodes, not yet in use.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Takes what is to outlive the transport's actor: binds the socket, for example.
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn OpenTransport>, TransportError>>;
}

/// What a transport is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening<'a> {
    /// The node's name.
    pub name: PeerName,
    /// Where to listen: at least one address.
    pub listen: &'a [SocketAddr],
    /// What is allowed.
    pub limits: QuicLimits,
    /// Secrets that stay the same over restarts.
    pub endpoint_keys: &'a EndpointKeys,
    /// Where to count.
    pub counters: &'a Arc<Counters>,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(
        name: PeerName,
        (listen, limits): (&'a [SocketAddr], QuicLimits),
        endpoint_keys: &'a EndpointKeys,
        counters: &'a Arc<Counters>,
    ) -> Self {
        Self { name, listen, limits, endpoint_keys, counters }
    }
}

/// A transport in use by one node.
pub trait OpenTransport: fmt::Debug + Send + Sync + 'static {
    /// Where it can be dialed, if nothing else is to be advertised: `host:port` each.
    fn addresses(&self) -> Vec<String>;

    /// What the sketches of the cluster are hashed with at present: equal on all its nodes, and best
    /// unknown to others. Nodes with different keys exchange full digests.
    fn sketch_key(&self) -> SketchKey {
        SketchKey([0; 16])
    }

    /// Who knows the nodes' certificates, where nodes have some: then what a node says of itself is
    /// signed, as the configuration's `signing` says. Without one nothing is.
    fn notary(&self) -> Option<Arc<dyn Notary>> {
        None
    }

    /// From when and until when the certificate that it shows is valid, in seconds since 1970; `None`
    /// if it shows none. Others are told.
    fn validity(&self) -> Option<(u64, u64)> {
        None
    }

    /// Who knows whose revocations count; `None`: nobody does, and none is taken.
    fn authorities(&self) -> Option<Arc<dyn Authorities>> {
        None
    }

    /// Closes the connections with those who have shown a certificate that these are about. It may be
    /// called before [`start`](Self::start), and must not block.
    fn revoke(&self, _node: &NodeLink, _revocations: &Arc<Revocations>) {}

    /// Starts its actor, linked to `supervisor`. Called again after the actor failed: connections
    /// should be kept.
    fn start(
        &self,
        node: NodeLink,
        supervisor: ActorCell,
    ) -> BoxFuture<'_, Result<ActorRef<TransportInput>, SpawnErr>>;

    /// Ends all connections, telling the peers, and gives back what `open` took.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Gives back what `open` took, at once and without a word to the peers: the runtime in which it was
    /// opened has gone. Without a method of its own that is left to the last reference.
    fn release(&self) {}
}

/// A transport could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The identity or the roots cannot be used.
    #[error("{0}")]
    Identity(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The node, as its transport sees it.
#[derive(Clone, Debug)]
pub struct NodeLink {
    shared: Arc<Shared>,
}

/// A peer that has introduced itself, and passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Who it is.
    pub node: NodeId,
    /// In which life.
    pub generation: Generation,
}

/// A peer that introduced itself and is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// It is of another cluster.
    #[error("it is a member of cluster {0}, not of ours: check its certificate and our seeds")]
    WrongCluster(String),
    /// It claims a name that it has not proved.
    #[error(
        "it calls itself {claimed}, its certificate says {proved}: correct its configured name, or \
             treat it as compromised"
    )]
    WrongName {
        /// What it says.
        claimed: NodeId,
        /// What it proves.
        proved: NodeId,
    },
    /// It is somebody else than the one we wanted.
    #[error("{found} answers where {wanted} was expected")]
    Unexpected {
        /// Whom we wanted.
        wanted: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// No clock can have given its generation.
    #[error("it claims to have started at {0} ms after 1970, years ahead: set its clock, or ours")]
    Absurd(Generation),
    /// It is this node itself.
    #[error("this is our own address")]
    Ourselves,
    /// It has our name, and another life than ours: see [`Problem::NameConflict`].
    #[error("another process uses our name")]
    Twin,
}

impl Unwelcome {
    /// A stable name for counting.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WrongCluster(_) => "wrong_cluster",
            Self::WrongName { .. } => "impostor",
            Self::Unexpected { .. } => "unexpected_node",
            Self::Absurd(_) => "absurd_generation",
            Self::Ourselves => "ourselves",
            Self::Twin => "twin",
        }
    }
}

/// Storage did not answer: it restarts, or the node ends. The exchange is to be broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage does not answer")]
pub struct Unavailable;

/// Whether an owner has signed another root than the one here for the same versions: that has to be
/// looked at, though it is no news.
fn equivocal(here: Option<&Signed>, news: &Heading<'_>) -> bool {
    here.zip(news.seal.as_ref()).is_some_and(|(here, seal)| {
        let same = here.seal.upto == seal.upto && here.gc_floor == news.gc_floor;
        same && here.seal.root != seal.root
    })
}

impl NodeLink {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Where to count.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// This node's present life.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.known(self.node())
    }

    /// The latest life of a node that is known here; zero if none.
    #[must_use]
    pub fn known(&self, node: &NodeId) -> Generation {
        self.shared.maps.load().get(node).map_or(Generation::ZERO, |map| map.generation)
    }

    /// Whether readers of this node see all that such news leads to.
    #[must_use]
    pub fn has(&self, news: &Heading<'_>) -> bool {
        let maps = self.shared.maps.load();
        maps.get(news.node).is_some_and(|map| {
            let record = map.record.as_ref().map_or(Version::ZERO, |(version, _)| *version);
            map.generation == news.generation
                && map.max_version >= news.to
                && map.horizon >= news.horizon
                && map.torn >= news.torn
                && map.gc_floor >= news.gc_floor
                && map.verdict >= news.verdict
                && record >= news.record
                && !equivocal(map.signed.as_deref(), news)
        })
    }

    /// Whose certificates are revoked.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        self.shared.revocations.load_full()
    }

    /// Where a peer says it can be dialed, best first.
    #[must_use]
    pub fn addresses(&self, peer: &NodeId) -> Vec<String> {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map_or_else(Vec::new, |(_, record)| record.addresses.clone())
    }

    /// What may be sent to a new peer of this datacenter.
    pub(crate) fn allowance(&self, datacenter: &Datacenter) -> Allowance {
        self.shared.budgets.allowance(datacenter, self.now())
    }

    /// The time, on the clock of this node.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// How this node introduces itself to a peer.
    #[must_use]
    pub fn hello(&self, to: Option<&NodeId>) -> Hello {
        Hello {
            cluster: self.shared.config.cluster.clone(),
            node: self.node().clone(),
            generation: self.generation(),
            known: to.map_or(Generation::ZERO, |node| self.known(node)),
            features: FEATURES,
        }
    }

    /// Judges how a peer introduces itself. `proved`: the name that its certificate, or what takes
    /// its place, proves. `wanted`: whom we wanted to reach.
    ///
    /// # Errors
    /// [`Unwelcome`]: then nothing more is to be said to it.
    pub fn meet(
        &self,
        hello: &Hello,
        proved: &NodeId,
        wanted: Option<&NodeId>,
    ) -> Result<Met, Unwelcome> {
        if hello.cluster != self.shared.config.cluster {
            return Err(Unwelcome::WrongCluster(hello.cluster.to_string()));
        }
        if hello.node != *proved {
            let (claimed, proved) = (hello.node.clone(), proved.clone());
            return Err(Unwelcome::WrongName { claimed, proved });
        }
        if hello.node == *self.node() {
            return Err(self.meet_own_name(hello.generation));
        }
        if let Some(wanted) = wanted
            && hello.node != *wanted
        {
            let (wanted, found) = (wanted.clone(), hello.node.clone());
            return Err(Unwelcome::Unexpected { wanted, found });
        }
        if hello.generation.is_absurd(Clock::wall()) {
            return Err(Unwelcome::Absurd(hello.generation));
        }
        self.told_of_self(&hello.node, hello.known);
        Ok(Met { node: hello.node.clone(), generation: hello.generation })
    }

    fn meet_own_name(&self, generation: Generation) -> Unwelcome {
        match generation.cmp(&self.generation()) {
            std::cmp::Ordering::Equal => return Unwelcome::Ourselves,
            std::cmp::Ordering::Greater => self.heard_of_self(generation, Heard::Present),
            std::cmp::Ordering::Less => {}
        }
        Unwelcome::Twin
    }

    /// A peer that has proved its name says that it knows this node in a later life than its own. That
    /// is no proof: see [`Claim`](crate::protocol::claim::Claim).
    pub fn told_of_self(&self, by: &NodeId, generation: Generation) {
        self.heard_of_self(generation, Heard::Said(by.clone()));
    }

    fn heard_of_self(&self, generation: Generation, by: Heard) {
        if generation > self.generation() {
            let input = StorageInput::HeardOfSelf(generation, by);
            self.shared.routes.storage.cast(StorageMessage::Input(input));
        }
    }

    /// What the key of a peer has signed in a later life than this, if that is known here: by it a
    /// process of an earlier life knows that it has lost its store, or that another one has its name.
    #[must_use]
    pub fn later_life_of(&self, peer: &NodeId, than: Generation) -> Option<NodeDelta> {
        let maps = self.shared.maps.load();
        let map = maps.get(peer).filter(|map| map.generation > than)?;
        map.signed_head(peer)
    }

    /// A peer has shown that on the first stream of a connection; whether it is true, storage finds out.
    pub fn shown_later_life(&self, by: &NodeId, head: NodeDelta) {
        let news = Gossip::Push(Delta { nodes: vec![head], more: false });
        let input = StorageInput::Gossip(by.clone(), Box::new(news));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// The peer itself was heard, at `at`, over a connection that it opened in this life.
    pub fn heard(&self, peer: &NodeId, generation: Generation, sign: Sign, at: Time) {
        let peer = peer.clone();
        self.shared.routes.detector.cast(DetectorInput::Heard { peer, generation, sign, at });
    }

    /// The transport has looked at all of its connections, and these peers were heard since the last
    /// time. Once it has done so it has to do so [`TICKS_PER_INTERVAL`] times in a `gossip_interval`.
    ///
    /// [`TICKS_PER_INTERVAL`]: crate::protocol::liveness::TICKS_PER_INTERVAL
    pub fn heard_all(&self, peers: Vec<(NodeId, Generation, Sign, Time)>) {
        self.shared.routes.detector.cast(DetectorInput::HeardAll(peers));
    }

    /// The part of the packets to a peer that is lost, as its connection has measured.
    pub fn measured_loss(&self, peer: &NodeId, loss: f64) {
        self.shared.routes.detector.cast(DetectorInput::Loss(peer.clone(), loss));
    }

    /// A heartbeat says how slow its sender finds itself.
    pub fn told_health(&self, peer: &NodeId, health: u8) {
        self.shared.routes.detector.cast(DetectorInput::Health(peer.clone(), health));
    }

    /// There is a connection to a peer on which gossip can be told, or there is none any more.
    /// `dialed`: it is the one that this end dialed. Of one peer this has to be told in the order in
    /// which it comes about, so it is to be called under the lock that the connection is found under.
    pub fn linked(&self, peer: &NodeId, up: bool, dialed: bool) {
        let input = StorageInput::Linked(peer.clone(), up);
        self.shared.routes.storage.cast(StorageMessage::Input(input));
        let peer = peer.clone();
        self.shared.routes.detector.cast(DetectorInput::Linked { peer: peer.clone(), up, dialed });
        self.shared.routes.scheduler.cast(SchedulerInput::Linked { peer, up, dialed });
    }

    /// News for a peer waits for its connection, or does so no longer.
    pub fn congested(&self, peer: &NodeId, congested: bool) {
        let input = StorageInput::Congested(peer.clone(), congested);
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer was cut off since it does not keep to the protocol.
    pub fn cut_off(&self, peer: &NodeId, why: &str) {
        self.shared.count(Counter::PeersCutOff);
        self.shared.routes.detector.cast(DetectorInput::CutOff(peer.clone(), why.into()));
    }

    /// A peer that was to be dialed is not connected.
    pub fn dial_failed(&self, peer: &NodeId) {
        self.shared.routes.scheduler.cast(SchedulerInput::DialFailed(peer.clone()));
    }

    /// A peer told the sum of what it knows.
    pub fn root(&self, peer: &NodeId, root: u64) {
        self.shared.routes.scheduler.cast(SchedulerInput::Root(peer.clone(), root));
    }

    /// Whether this is the same process of the same node, and not another one of that name.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A stream with a peer broke off while it carried bulk.
    pub(crate) fn bulk_broken(&self, peer: &NodeId) {
        let input = StorageInput::BulkBroken(peer.clone());
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer has closed a connection and says that we are revoked; whether that is true, storage
    /// finds out.
    pub fn told_revocation(&self, peer: &NodeId, statement: Revocation) {
        let list = RevocationList { statements: vec![statement], all: false };
        let input = StorageInput::Gossip(peer.clone(), Box::new(Gossip::Revocations(list)));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// An exchange of ours ended. `node`: who answered, if anybody did, be it this node itself.
    pub fn ended(&self, target: Target, node: Option<NodeId>, ok: bool) {
        self.shared.count(if ok { Counter::ExchangesInitiated } else { Counter::ExchangesFailed });
        self.shared.routes.scheduler.cast(SchedulerInput::Ended { target, node, ok });
    }

    /// Asks storage, for an exchange with `peer`, in as many turns as the question is worth
    /// ([`Ask::turns`]). Of one peer one question at a time lies before storage, on whatever streams it
    /// asks, however long that takes, and also if nobody waits for the answer any more: so what waits there
    /// is bounded by the number of peers.
    ///
    /// # Errors
    /// [`Unavailable`] if storage restarts or has ended.
    pub async fn ask(&self, peer: &NodeId, ask: Ask) -> Result<Reply, Unavailable> {
        let turn = Arc::new(self.share(peer).ask().await);
        let mut last = Err(Unavailable);
        for part in ask.turns() {
            let storage = self.shared.routes.storage.current().ok_or(Unavailable)?;
            let (reply, answer) = oneshot::channel();
            let message = StorageMessage::Ask(peer.clone(), part, reply, Arc::clone(&turn));
            storage.cast(message).map_err(|_| Unavailable)?;
            last = answer.await.map_err(|_| Unavailable);
            if matches!(last, Err(_) | Ok(Reply::Took(false))) {
                break;
            }
        }
        last
    }

    /// What a peer may use up, over all of its connections.
    pub(crate) fn share(&self, peer: &NodeId) -> Arc<Share> {
        self.shared.shares.of(peer, self.now())
    }

    /// Counts.
    pub fn count(&self, counter: Counter) {
        self.shared.count(counter);
    }

    /// Counts an end of a connection whose peer has proved no name: what it says is no reason to do or
    /// to tell anything.
    pub fn unproved(&self) {
        self.shared.counters.refuse(UNPROVED);
    }

    /// Counts somebody who could not be connected or was turned away, and tells the operator: of
    /// the first [`REFUSALS_TOLD_MAX`] in a second that are new, and of as many that come again, so that a
    /// flood fills no log. The log has the same
    /// `label` of the same peer once in ten minutes, whatever the reason says beside it.
    pub fn refused(
        &self,
        remote: impl fmt::Display,
        label: &'static str,
        reason: impl fmt::Display,
    ) {
        let remote = remote.to_string();
        self.refused_of(&remote.clone(), remote, label, reason);
    }

    /// As [`refused`](Self::refused), of a `peer` that comes from another `remote` address each time.
    pub(crate) fn refused_of(
        &self,
        peer: &str,
        remote: String,
        label: &'static str,
        reason: impl fmt::Display,
    ) {
        self.shared.counters.refuse(label);
        // A peer that is refused comes again every few seconds.
        let is_new = self.shared.repeats.is_new(label, peer, self.now());
        if !self.shared.may_tell_refusal(is_new) {
            return;
        }
        let problem = Problem::Connection { remote, reason: reason.to_string() };
        if is_new {
            tracing::warn!(node = %self.node(), "{problem}");
        }
        self.shared.tell(Event::Error(problem));
    }

    /// As [`refused`](Self::refused), of a peer whose connection ended for it: that is also kept for
    /// those who ask why the peer is not there. `by_peer`: it was the peer that ended it.
    pub fn cut(&self, peer: &NodeId, by_peer: bool, label: &'static str, why: impl fmt::Display) {
        let (at, reason) = (self.now(), why.to_string());
        self.shared.cuts.note(peer, Cut { at, by_peer, label, reason: reason.clone() });
        self.refused(peer, label, reason);
    }

    /// Keeps what came of dialing these addresses, for those who ask why nobody is connected there.
    pub(crate) fn note_dials(&self, addresses: &[String], failures: Vec<DialFailure>) {
        self.shared.dials.note(addresses, failures);
    }

    /// Whether failures of an earlier attempt at one of these addresses are kept.
    pub(crate) fn has_dial_failures(&self, addresses: &[String]) -> bool {
        addresses.iter().any(|address| !self.shared.dials.get(address).is_empty())
    }

    /// Where a peer says that it is.
    #[must_use]
    pub(crate) fn datacenter(&self, peer: &NodeId) -> Option<Datacenter> {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map(|(_, record)| record.datacenter.clone())
    }

    /// Until when a peer says that its certificate is valid, in seconds since 1970; zero if it does not.
    #[must_use]
    pub(crate) fn not_after(&self, peer: &NodeId) -> u64 {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.and_then(|(_, record)| record.not_after).unwrap_or(0)
    }

    /// Whether anybody watches the protocol.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.shared.is_watched()
    }

    /// Tells those who watch the protocol.
    pub fn tell_protocol(&self, event: ProtocolEvent) {
        self.shared.tell_protocol(event);
    }
}

/// The label of a connection that was ended with words of somebody who has proved no name.
pub const UNPROVED: &str = "unproved";
/// Refusals, of connections and of news, told to the operator in one second; all are counted.
pub const REFUSALS_TOLD_MAX: u32 = 10;
/// What this version can do beyond the wire's major version.
const FEATURES: u64 = 0;
