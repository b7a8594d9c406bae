//! The node as the tasks of its connections see it: [`Host`].

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::sync::oneshot;

use crate::{
    ambient::Ambient,
    counters::Counters,
    dials::DialFailure,
    lateness::Lateness,
    net::{Connection, Peer, ledger::Entered},
    node::{
        clients::places::Clients, config::Config, cuts::Cut, messages::StorageMessage,
        services::table::Services, share::Share, shared::Shared, ticking,
    },
    protocol::{
        claim::Heard,
        delta::{Delta, NodeDelta},
        event::{Event, Problem, ProtocolEvent},
        exchange::{Ask, Reply},
        gossip::{Gossip, RevocationList},
        id::{Datacenter, Generation, NodeId},
        message::Hello,
        revocation::{Revocation, Revocations},
        route::{Counter, Output, SchedulerInput, StorageInput, Target},
        session::{Met, Unwelcome, later_generation},
        skim::Heading,
        time::Time,
    },
    tls::{CertificateSummary, Tls},
};

/// Access to the node for the tasks of its connections.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    shared: Arc<Shared>,
}

/// Storage did not answer: it restarts, or the node ends. The caller must break off the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage does not answer")]
pub(crate) struct Unavailable;

impl Host {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The active configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// There is a connection with a peer, for questions about its path.
    pub(crate) fn neighbour(
        &self,
        peer: &NodeId,
        datacenter: Datacenter,
        dialed: bool,
        connection: &Arc<dyn Connection>,
    ) {
        self.shared.diagnostics.neighbours.add(peer, datacenter, dialed, connection);
    }

    /// The counters of the node.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.shared.diagnostics.counters
    }

    /// Enters a connection into the ledger; `peer`: the member at its other end, if it is one.
    pub(crate) fn enter(&self, peer: Option<&NodeId>, connection: &Arc<dyn Connection>) -> Entered {
        let proved = connection.peer().datacenter.clone();
        let datacenter = peer.and_then(|peer| proved.or_else(|| self.datacenter(peer)));
        self.shared.diagnostics.ledger.enter(datacenter.as_ref(), connection)
    }

    /// This node's name.
    pub(crate) fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// This node's present generation.
    pub(crate) fn generation(&self) -> Generation {
        self.known(self.node())
    }

    /// The latest known generation of a node; zero if it is unknown.
    pub(crate) fn known(&self, node: &NodeId) -> Generation {
        self.shared.published.maps.load().get(node).map_or(Generation::ZERO, |map| map.generation)
    }

    /// Whether readers of this node see everything that this news contains.
    pub(crate) fn has(&self, news: &Heading<'_>) -> bool {
        let maps = self.shared.published.maps.load();
        maps.get(news.node).is_some_and(|map| news.is_within(&map.reach()))
    }

    /// The revoked certificates.
    pub(crate) fn revocations(&self) -> Arc<Revocations> {
        self.shared.published.revocations.load_full()
    }

    /// The addresses that a peer advertises, best first.
    pub(crate) fn addresses(&self, peer: &NodeId) -> Vec<String> {
        let maps = self.shared.published.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map_or_else(Vec::new, |(_, record)| record.addresses.clone())
    }

    /// The time, on the clock of this node.
    pub(crate) fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// The wall clock of this node.
    pub(crate) fn wall(&self) -> SystemTime {
        self.shared.ambient.wall()
    }

    /// The wall clock, and random numbers.
    pub(crate) fn ambient(&self) -> &Ambient {
        &self.shared.ambient
    }

    /// The task that measures how late this node is served begins.
    pub(crate) fn resume_lag(&self) {
        self.shared.lag.resumed();
    }

    /// Measures how late this node is served; returns the present time, and when to measure again.
    pub(crate) fn tick_lag(&self) -> (Time, Time) {
        ticking::tick(&self.shared)
    }

    /// How late this node is served, for its tasks.
    pub(crate) fn lateness(&self) -> &Arc<Lateness> {
        self.shared.lag.lateness()
    }

    /// What this node offers and calls.
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.shared.services
    }

    /// Whether the certificate that a connected peer has shown is revoked.
    pub(crate) fn is_revoked(&self, peer: &Peer) -> bool {
        let Some(name) = &peer.name else { return false };
        let Some(endpoint) = self.shared.endpoint.upgrade() else { return false };
        let Some(tls) = endpoint.tls() else { return false };
        if self.revocations().cutoff(&name.node).is_none() {
            return false;
        }
        let certificate = peer.chain.first();
        let certificate =
            certificate.and_then(|leaf| CertificateSummary::from_certificate(leaf).ok());
        certificate.is_some_and(|certificate| tls.is_revoked(&name.node, &certificate))
    }

    /// The TLS of the node, as long as it is connected to a network with certificates.
    pub(crate) fn tls(&self) -> Option<Tls> {
        self.shared.endpoint.upgrade()?.tls().cloned()
    }

    /// The client connections.
    pub(crate) fn clients(&self) -> &Arc<Clients> {
        &self.shared.clients
    }

    #[cfg(feature = "sim")]
    pub(crate) fn switch(&self) -> &super::switch::Switch {
        &self.shared.switch
    }

    #[cfg(feature = "sim")]
    pub(crate) fn tape(&self) -> Option<&super::tape::Tape> {
        self.shared.tape.as_ref()
    }

    /// Delivers an output of a machine.
    pub(crate) fn route(&self, output: Output) {
        self.shared.deliver(output);
    }

    /// The introduction that this node sends to a peer.
    pub(crate) fn hello(&self, to: Option<&NodeId>) -> Hello {
        let known = to.map_or(Generation::ZERO, |node| self.known(node));
        self.shared.session.hello(self.generation(), known)
    }

    /// Judges the introduction of a peer. `proved`: the name that its certificate, or its substitute, proves.
    /// `wanted`: the node that was dialed.
    ///
    /// # Errors
    /// [`Unwelcome`]; then the caller must close the connection.
    pub(crate) fn meet(
        &self,
        hello: &Hello,
        proved: &NodeId,
        wanted: Option<&NodeId>,
    ) -> Result<Met, Unwelcome> {
        let mut out = Vec::new();
        let here = (self.generation(), self.wall());
        let met = self.shared.session.judge(hello, proved, wanted, here, &mut out);
        out.into_iter().for_each(|output| self.route(output));
        met
    }

    /// A peer with a proved name reports a later generation of this node. That alone proves nothing: see
    /// [`Claim`](crate::protocol::claim::Claim).
    pub(crate) fn told_of_self(&self, by: &NodeId, generation: Generation) {
        let heard = later_generation(generation, self.generation(), Heard::Said(by.clone()));
        heard.into_iter().for_each(|output| self.route(output));
    }

    /// What the key of a peer has signed in a later generation than this, if it is known here: it
    /// shows a process of an earlier generation that it has lost its store, or that another process
    /// uses its name.
    pub(crate) fn later_generation_of(&self, peer: &NodeId, than: Generation) -> Option<NodeDelta> {
        let maps = self.shared.published.maps.load();
        let map = maps.get(peer).filter(|map| map.generation > than)?;
        map.signed_head(peer)
    }

    /// A peer has sent that on the first stream of a connection; storage verifies it.
    pub(crate) fn shown_later_generation(&self, by: &NodeId, head: NodeDelta) {
        let news = Gossip::Push(Delta { nodes: vec![head], more: false });
        let input = StorageInput::Gossip(by.clone(), Box::new(news));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer that this node was to dial is not connected.
    pub(crate) fn dial_failed(&self, peer: &NodeId) {
        self.shared.routes.scheduler.cast(SchedulerInput::DialFailed(peer.clone()));
    }

    /// A peer that this node was to dial has no room for a handshake.
    pub(crate) fn dial_busy(&self, peer: &NodeId) {
        self.shared.routes.scheduler.cast(SchedulerInput::Busy(peer.clone()));
    }

    /// A peer sent its root.
    pub(crate) fn root(&self, peer: &NodeId, root: u64) {
        self.shared.routes.scheduler.cast(SchedulerInput::Root(peer.clone(), root));
    }

    /// A stream with a peer broke off during a bulk transfer.
    pub(crate) fn bulk_broken(&self, peer: &NodeId) {
        let input = StorageInput::BulkBroken(peer.clone());
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer has closed a connection and reports that this node is revoked; storage verifies that.
    pub(crate) fn told_revocation(&self, peer: &NodeId, statement: Revocation) {
        let list = RevocationList { statements: vec![statement], all: false };
        let input = StorageInput::Gossip(peer.clone(), Box::new(Gossip::Revocations(list)));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// An exchange of this node ended. `node`: the node that answered, if any, possibly this node itself.
    pub(crate) fn ended(&self, target: Target, node: Option<NodeId>, ok: bool) {
        self.shared.count(if ok { Counter::ExchangesInitiated } else { Counter::ExchangesFailed });
        self.shared.routes.scheduler.cast(SchedulerInput::Ended { target, node, ok });
    }

    /// The target of an exchange of this node has no room for a handshake.
    pub(crate) fn deferred(&self, target: Target) {
        self.shared.routes.scheduler.cast(SchedulerInput::Deferred(target));
    }

    /// Asks storage, for an exchange with `peer`, in as many turns as the question is worth
    /// ([`Ask::turns`]). Storage holds one question per peer at a time, whichever streams the peer uses,
    /// however long that takes, and even if the task that asked has gone: so the number of waiting
    /// questions is bounded by the number of peers.
    ///
    /// # Errors
    /// [`Unavailable`] if storage restarts or has ended.
    pub(crate) async fn ask(&self, peer: &NodeId, ask: Ask) -> Result<Reply, Unavailable> {
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

    /// What a peer may consume, over all of its connections.
    pub(crate) fn share(&self, peer: &NodeId) -> Arc<Share> {
        self.shared.shares.of(peer)
    }

    /// Increments a counter.
    pub(crate) fn count(&self, counter: Counter) {
        self.shared.count(counter);
    }

    /// Counts an end of a connection whose peer has proved no name: the node does not act on its
    /// words, and does not report them.
    pub(crate) fn unproved(&self) {
        self.shared.diagnostics.counters.refuse(UNPROVED);
    }

    /// Counts a peer that could not be connected or was refused, and reports it to the operator: in one
    /// second the first [`REFUSALS_TOLD_MAX`](super::diagnostics::REFUSALS_TOLD_MAX) that are new, and as many that repeat, so that a flood does
    /// not fill the log. The log has the same `label` of the same peer once in ten minutes, whatever the
    /// reason says beside it.
    pub(crate) fn refused(
        &self,
        remote: impl fmt::Display,
        label: &'static str,
        reason: impl fmt::Display,
    ) {
        let remote = remote.to_string();
        self.refused_of(&remote.clone(), remote, label, reason);
    }

    /// As [`refused`](Self::refused), for a `peer` that comes from another `remote` address each time.
    pub(crate) fn refused_of(
        &self,
        peer: &str,
        remote: String,
        label: &'static str,
        reason: impl fmt::Display,
    ) {
        self.shared.diagnostics.counters.refuse(label);
        // A refused peer retries every few seconds.
        let is_new = self.shared.diagnostics.is_new(label, peer, self.now());
        if !self.shared.diagnostics.may_tell_refusal(is_new, self.now()) {
            return;
        }
        let problem = Problem::Connection { remote, reason: reason.to_string() };
        if is_new {
            tracing::warn!(node = %self.node(), "{problem}");
        }
        self.shared.tell(Event::Error(problem));
    }

    /// As [`refused`](Self::refused), for a peer whose connection ended because of it. The cause is
    /// kept too, to answer why the peer is missing. `by_peer`: the peer ended it.
    pub(crate) fn cut(
        &self,
        peer: &NodeId,
        by_peer: bool,
        label: &'static str,
        why: impl fmt::Display,
    ) {
        let (at, reason) = (self.now(), why.to_string());
        self.shared.diagnostics.cuts.note(peer, Cut { at, by_peer, label, reason: reason.clone() });
        self.refused(peer, label, reason);
    }

    /// Keeps the failures of dialing these addresses, to answer why no peer is connected there.
    pub(crate) fn note_dials(&self, addresses: &[String], failures: Vec<DialFailure>) {
        self.shared.diagnostics.dials.note(addresses, failures);
    }

    /// Whether failures of an earlier dial of one of these addresses are kept.
    pub(crate) fn has_dial_failures(&self, addresses: &[String]) -> bool {
        addresses.iter().any(|address| !self.shared.diagnostics.dials.get(address).is_empty())
    }

    /// The datacenter that a peer reports.
    pub(crate) fn datacenter(&self, peer: &NodeId) -> Option<Datacenter> {
        let maps = self.shared.published.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map(|(_, record)| record.datacenter.clone())
    }

    /// The expiry of the certificate that a peer reports, in seconds since 1970; zero if it reports none.
    pub(crate) fn not_after(&self, peer: &NodeId) -> u64 {
        let maps = self.shared.published.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.and_then(|(_, record)| record.not_after).unwrap_or(0)
    }

    /// Whether the protocol has subscribers.
    pub(crate) fn is_watched(&self) -> bool {
        self.shared.is_watched()
    }

    /// Sends an event to the subscribers of the protocol.
    pub(crate) fn tell_protocol(&self, event: ProtocolEvent) {
        self.shared.tell_protocol(event);
    }
}

/// The label of a connection that a peer without a proved name has ended.
pub(crate) const UNPROVED: &str = "unproved";
