//! What the tasks of a node's connections need of the node: [`Host`].

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::{
    clients::Clients,
    links::{Links, share::Share},
};
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
        revocation::{Revocation, Revocations},
        route::{Counter, Output, SchedulerInput, StorageInput, Target},
        session::{Met, Unwelcome, later_generation},
        skim::Heading,
        time::Time,
    },
};

/// The node, as the tasks of its connections see it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    shared: Arc<Shared>,
}

/// Storage did not answer: it restarts, or the node ends. The exchange is to be broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage does not answer")]
pub(crate) struct Unavailable;

/// Whether an owner has signed another root than the one here for the same versions: that has to be looked at, though
/// it is no news.
fn equivocal(here: Option<&Signed>, news: &Heading<'_>) -> bool {
    here.zip(news.seal.as_ref()).is_some_and(|(here, seal)| {
        let same = here.seal.upto == seal.upto && here.gc_floor == news.gc_floor;
        same && here.seal.root != seal.root
    })
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Where to count.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// This node's name.
    pub(crate) fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// This node's present life.
    pub(crate) fn generation(&self) -> Generation {
        self.known(self.node())
    }

    /// The latest life of a node that is known here; zero if none.
    pub(crate) fn known(&self, node: &NodeId) -> Generation {
        self.shared.maps.load().get(node).map_or(Generation::ZERO, |map| map.generation)
    }

    /// Whether readers of this node see all that such news leads to.
    pub(crate) fn has(&self, news: &Heading<'_>) -> bool {
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
    pub(crate) fn revocations(&self) -> Arc<Revocations> {
        self.shared.revocations.load_full()
    }

    /// Where a peer says it can be dialed, best first.
    pub(crate) fn addresses(&self, peer: &NodeId) -> Vec<String> {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map_or_else(Vec::new, |(_, record)| record.addresses.clone())
    }

    /// The time, on the clock of this node.
    pub(crate) fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// The connections.
    pub(crate) fn links(&self) -> &Links {
        &self.shared.links
    }

    /// What there is for clients.
    pub(crate) fn clients(&self) -> &Arc<Clients> {
        &self.shared.clients
    }

    #[cfg(feature = "testkit")]
    pub(crate) fn switch(&self) -> &super::reins::Switch {
        &self.shared.switch
    }

    /// Delivers what a machine said.
    pub(crate) fn route(&self, output: Output) {
        self.shared.deliver(output);
    }

    /// How this node introduces itself to a peer.
    pub(crate) fn hello(&self, to: Option<&NodeId>) -> Hello {
        let known = to.map_or(Generation::ZERO, |node| self.known(node));
        self.shared.session.hello(self.generation(), known)
    }

    /// Judges how a peer introduces itself. `proved`: the name that its certificate, or what takes its place, proves.
    /// `wanted`: the node that was dialed.
    ///
    /// # Errors
    /// [`Unwelcome`]: then the connection is to be closed.
    pub(crate) fn meet(
        &self,
        hello: &Hello,
        proved: &NodeId,
        wanted: Option<&NodeId>,
    ) -> Result<Met, Unwelcome> {
        let mut out = Vec::new();
        let here = (self.generation(), Clock::wall());
        let met = self.shared.session.judge(hello, proved, wanted, here, &mut out);
        out.into_iter().for_each(|output| self.route(output));
        met
    }

    /// A peer that has proved its name says that it knows a later generation of this node. That is no proof: see
    /// [`Claim`](crate::protocol::claim::Claim).
    pub(crate) fn told_of_self(&self, by: &NodeId, generation: Generation) {
        let heard = later_generation(generation, self.generation(), Heard::Said(by.clone()));
        heard.into_iter().for_each(|output| self.route(output));
    }

    /// What the key of a peer has signed in a later life than this, if that is known here: by it a
    /// process of an earlier life knows that it has lost its store, or that another one has its name.
    pub(crate) fn later_generation_of(&self, peer: &NodeId, than: Generation) -> Option<NodeDelta> {
        let maps = self.shared.maps.load();
        let map = maps.get(peer).filter(|map| map.generation > than)?;
        map.signed_head(peer)
    }

    /// A peer has shown that on the first stream of a connection; whether it is true, storage finds out.
    pub(crate) fn shown_later_generation(&self, by: &NodeId, head: NodeDelta) {
        let news = Gossip::Push(Delta { nodes: vec![head], more: false });
        let input = StorageInput::Gossip(by.clone(), Box::new(news));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer that was to be dialed is not connected.
    pub(crate) fn dial_failed(&self, peer: &NodeId) {
        self.shared.routes.scheduler.cast(SchedulerInput::DialFailed(peer.clone()));
    }

    /// A peer told the sum of what it knows.
    pub(crate) fn root(&self, peer: &NodeId, root: u64) {
        self.shared.routes.scheduler.cast(SchedulerInput::Root(peer.clone(), root));
    }

    /// A stream with a peer broke off while it carried bulk.
    pub(crate) fn bulk_broken(&self, peer: &NodeId) {
        let input = StorageInput::BulkBroken(peer.clone());
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// A peer has closed a connection and says that we are revoked; whether that is true, storage
    /// finds out.
    pub(crate) fn told_revocation(&self, peer: &NodeId, statement: Revocation) {
        let list = RevocationList { statements: vec![statement], all: false };
        let input = StorageInput::Gossip(peer.clone(), Box::new(Gossip::Revocations(list)));
        self.shared.routes.storage.cast(StorageMessage::Input(input));
    }

    /// An exchange of ours ended. `node`: who answered, if anybody did, be it this node itself.
    pub(crate) fn ended(&self, target: Target, node: Option<NodeId>, ok: bool) {
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

    /// What a peer may use up, over all of its connections.
    pub(crate) fn share(&self, peer: &NodeId) -> Arc<Share> {
        self.shared.shares.of(peer)
    }

    /// Counts.
    pub(crate) fn count(&self, counter: Counter) {
        self.shared.count(counter);
    }

    /// Counts an end of a connection whose peer has proved no name: what it says is no reason to do or
    /// to tell anything.
    pub(crate) fn unproved(&self) {
        self.shared.counters.refuse(UNPROVED);
    }

    /// Counts somebody who could not be connected or was turned away, and tells the operator: of
    /// the first [`REFUSALS_TOLD_MAX`] in a second that are new, and of as many that come again, so that a
    /// flood fills no log. The log has the same
    /// `label` of the same peer once in ten minutes, whatever the reason says beside it.
    pub(crate) fn refused(
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
    pub(crate) fn cut(
        &self,
        peer: &NodeId,
        by_peer: bool,
        label: &'static str,
        why: impl fmt::Display,
    ) {
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
    pub(crate) fn datacenter(&self, peer: &NodeId) -> Option<Datacenter> {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.map(|(_, record)| record.datacenter.clone())
    }

    /// Until when a peer says that its certificate is valid, in seconds since 1970; zero if it does not.
    pub(crate) fn not_after(&self, peer: &NodeId) -> u64 {
        let maps = self.shared.maps.load();
        let record = maps.get(peer).and_then(|map| map.record.as_ref());
        record.and_then(|(_, record)| record.not_after).unwrap_or(0)
    }

    /// Whether anybody watches the protocol.
    pub(crate) fn is_watched(&self) -> bool {
        self.shared.is_watched()
    }

    /// Tells those who watch the protocol.
    pub(crate) fn tell_protocol(&self, event: ProtocolEvent) {
        self.shared.tell_protocol(event);
    }
}

/// The label of a connection that was ended with words of somebody who has proved no name.
pub(crate) const UNPROVED: &str = "unproved";
/// Refusals, of connections and of news, told to the operator in one second; all are counted.
pub(crate) const REFUSALS_TOLD_MAX: u32 = 10;
