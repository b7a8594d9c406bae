//! The handle of a running node: [`Gossipmonger`].

mod actors;
mod backends;
pub(crate) mod builder;
mod channel;
pub mod clients;
pub(crate) mod config;
pub(crate) mod cuts;
mod diagnostics;
mod ending;
pub(crate) mod error;
pub(crate) mod features;
pub(crate) mod host;
mod lag;
mod leaving;
mod links;
pub(crate) mod messages;
pub(crate) mod neighbours;
pub(crate) mod own_store;
mod propagated;
pub(crate) mod propagation;
mod published;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod reins;
mod releasing;
pub(crate) mod repeats;
mod routes;
pub(crate) mod services;
mod share;
pub(crate) mod shared;
pub(crate) mod snapshot;
mod starting;
pub mod subscription;
#[cfg(feature = "sim")]
mod switch;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod tape;
mod ticking;
mod timer;
mod views;
mod write_room;
mod writer;
mod writing;

use std::sync::{Arc, atomic::Ordering};

use ractor::{ActorCell, ActorRef, Message};
use tokio::{runtime::Handle, task::JoinHandle};

pub use self::backends::Backends;
use self::{
    clients::ClientHandler,
    config::Config,
    cuts::Cut,
    error::{Error, SpawnError},
    messages::{StorageMessage, Writes},
    neighbours::PeerPath,
    shared::Shared,
    snapshot::{Member, Snapshot},
    subscription::{Delivery, Events, LiveKeys, PrefixEvents, ProtocolEvents, feed},
};
use crate::{
    counters::Counters,
    dials::DialFailure,
    net::Protocol,
    protocol::{
        entry::{Key, Value},
        event::Behind,
        id::{ClusterId, Datacenter, Generation, NodeId},
        revocation::{Revocation, Revocations},
        route::StorageInput,
        state::PeerState,
        time::Time,
    },
};

/// A running node. Cheap to clone. Dropping handles does not end the node; a call does.
#[derive(Clone, Debug)]
pub struct Gossipmonger {
    pub(crate) shared: Arc<Shared>,
    root: ActorCell,
    /// The runtime of the node; a caller may be outside any runtime.
    pub(crate) runtime: Handle,
}

impl Gossipmonger {
    /// Starts a node; [`builder`](Self::builder) is the shorter way. The join handle completes when the node has ended and released everything: its
    /// addresses are free and its store is closed. Aborting the join handle ends only the wait, not the
    /// node.
    ///
    /// A node runs in the runtime that it is started in, and ends with it. Calls on a handle that
    /// outlives the runtime fail with [`Error::Stopped`].
    ///
    /// # Errors
    /// [`SpawnError`]; then everything is released.
    pub async fn spawn(
        config: Config,
        backends: impl Into<Backends>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        Self::start(config, backends.into(), None).await
    }

    /// Starts a node as a child of `supervisor`. The node restarts its own actors; if that does not
    /// help, or another process displaces the node, the supervisor receives one `ActorFailed`.
    ///
    /// ractor kills the children of an actor that stops, and a killed node closes no connection: its
    /// peers detect a failure. So the supervisor's `post_stop` has to do two things, as in the example
    /// `supervised`:
    ///
    /// ```no_run
    /// # use ractor::{Actor, ActorProcessingErr, ActorRef};
    /// # struct Service;
    /// # struct State { node: gossipmonger::Gossipmonger }
    /// #[ractor::actor(message = u64, state = State, arguments = State)]
    /// impl Service {
    /// #   async fn pre_start(&self, _: ActorRef<u64>, state: State) -> Result<State, ActorProcessingErr> { Ok(state) }
    ///     async fn post_stop(
    ///         &self,
    ///         myself: ActorRef<u64>,
    ///         state: &mut State,
    ///     ) -> Result<(), ActorProcessingErr> {
    ///         // Tells the peers; the next start joins again. If the node has ended already, fine.
    ///         let _ = state.node.leave_for_now().await;
    ///         myself.stop_children_and_wait(None, None).await;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SpawnError`]; then everything is released.
    pub async fn spawn_linked(
        config: Config,
        backends: impl Into<Backends>,
        supervisor: ActorCell,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        Self::start(config, backends.into(), Some(supervisor)).await
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// This node's present generation.
    pub(crate) fn generation(&self) -> Generation {
        let maps = self.shared.published.maps.load();
        maps.get(self.node()).map_or(Generation::ZERO, |map| map.generation)
    }

    /// The cluster of this node.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.shared.config.cluster
    }

    /// The datacenter of this node.
    #[must_use]
    pub fn datacenter(&self) -> &Datacenter {
        &self.shared.config.datacenter
    }

    /// The addresses at which other nodes dial this one.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.shared.config.advertise
    }

    /// The node's root actor, which you can monitor or stop like any other.
    #[must_use]
    pub const fn cell(&self) -> &ActorCell {
        &self.root
    }

    /// The value of a node's key.
    #[must_use]
    pub fn get(&self, node: &NodeId, key: &str) -> Option<Value> {
        self.snapshot().get(node, key).cloned()
    }

    /// The value of a node's key as text; `None` also if it is not UTF-8.
    #[must_use]
    pub fn get_str(&self, node: &NodeId, key: &str) -> Option<String> {
        self.get(node, key)?.as_str().map(str::to_owned)
    }

    /// A node's keys that begin with `prefix`, in order, with their values.
    #[must_use]
    pub fn prefix(&self, node: &NodeId, prefix: &str) -> Vec<(Key, Value)> {
        let snapshot = self.snapshot();
        snapshot.prefix(node, prefix).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// All that is known now. The call takes no lock and asks no actor.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// All other nodes that are known.
    #[must_use]
    pub fn peers(&self) -> Vec<Member> {
        self.snapshot().peers().collect()
    }

    /// The peers that are live or suspect.
    #[must_use]
    pub fn live_peers(&self) -> Vec<Member> {
        self.snapshot().peers().filter(Member::is_live).collect()
    }

    /// The peers that are dead.
    #[must_use]
    pub fn dead_peers(&self) -> Vec<Member> {
        self.snapshot().peers().filter(|peer| peer.state == PeerState::Dead).collect()
    }

    /// How improbable a peer's silence is, on the scale of `dead_peer_phi`. `None` if the peer is
    /// unknown, or if this node does not observe it itself but receives its state from others.
    #[must_use]
    pub fn phi(&self, peer: &NodeId) -> Option<f64> {
        let now = self.shared.clock.now();
        Some(self.shared.published.estimates.load().get(peer)?.phi(now))
    }

    /// What the open gossip connections of this node have measured of their paths, by the name of the peer. A node has
    /// such a connection with about ten neighbours, not with every member.
    #[must_use]
    pub fn paths(&self) -> Vec<PeerPath> {
        self.shared.diagnostics.neighbours.paths()
    }

    /// Why either end last closed the connection with a peer on purpose: an expired certificate, a
    /// protocol violation. `None` if that has not happened, or happened long ago.
    #[must_use]
    pub fn cut(&self, peer: &NodeId) -> Option<Cut> {
        self.shared.diagnostics.cuts.get(peer)
    }

    /// Why the last dial of an address failed, for each path that was tried: from each address of this
    /// node to each address that the name resolves to. `address`: a seed, or one that a peer advertises.
    /// Empty if a node answered, or the address was not dialed.
    #[must_use]
    pub fn dial_failures(&self, address: &str) -> Vec<DialFailure> {
        self.shared.diagnostics.dials.get(address)
    }

    /// What this node had lost at its start, as its peers report; `None` if no peer reports a loss.
    #[must_use]
    pub fn behind(&self) -> Option<Arc<Behind>> {
        self.shared.diagnostics.behind.load_full()
    }

    /// When a peer was last removed by an operator, on the clock of [`Snapshot::now`], and which node
    /// sent the removal; `None` in its place if the call was made at this node. `None` if the peer was
    /// not removed, or was removed long ago.
    #[must_use]
    #[doc(hidden)]
    pub fn removal(&self, peer: &NodeId) -> Option<(Time, Option<NodeId>)> {
        self.shared.diagnostics.removals.get(peer)
    }

    /// How slow this node finds itself, by its own timers and by late answers, up to
    /// [`HEALTH_MAX`](crate::protocol::liveness::HEALTH_MAX). The slower it is, the more patient it
    /// is with others. 0 is normal.
    #[must_use]
    pub fn health(&self) -> u32 {
        self.shared.published.health.load(Ordering::Relaxed)
    }

    /// Every event from now on; see [`Config::event_queue`].
    pub fn subscribe(&self) -> Events {
        Events::new(&self.shared)
    }

    /// The present state, and exactly the events that follow it. Calling
    /// [`subscribe`](Self::subscribe) and [`snapshot`](Self::snapshot) one after the other would
    /// repeat or miss a change between the two.
    pub fn subscribe_with_snapshot(&self) -> (Snapshot, Events) {
        let (snapshot, events) = self.shared.cut();
        (snapshot, Events::of(&self.shared, events))
    }

    /// The keys of all live nodes, including this one, that begin with `prefix`: first the present
    /// ones, then every change. When a node dies or leaves, its keys are removed.
    pub fn watch_live(&self, prefix: &str) -> LiveKeys {
        LiveKeys::new(&self.shared, prefix)
    }

    /// The protocol messages between nodes, from now on. It costs a copy of every digest and delta.
    #[doc(hidden)]
    pub fn subscribe_protocol(&self) -> ProtocolEvents {
        ProtocolEvents::new(&self.shared)
    }

    /// Changes, from now on, of all nodes' keys that begin with `prefix`, in any state of their
    /// owners. See also [`watch_live`](Self::watch_live).
    pub fn watch_prefix(&self, prefix: &str) -> PrefixEvents {
        PrefixEvents::new(&self.shared, prefix)
    }

    /// Sends `actor` the present state, as events, and then every event. At most
    /// [`Config::event_queue`] events wait in its mailbox. An actor that falls behind by more than
    /// as many again is brought up to date from the snapshot: it may miss values that were replaced
    /// meanwhile, but not the last one.
    ///
    /// The subscription ends with the actor or the node, or when the returned handle is aborted.
    pub fn subscribe_actor<M>(&self, actor: ActorRef<M>) -> JoinHandle<()>
    where
        M: Message + From<Delivery>,
    {
        let from = self.shared.cut();
        self.runtime.spawn(feed(Arc::clone(&self.shared), from, actor))
    }

    /// What this node has counted since its start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.diagnostics.counters
    }

    /// The active configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Removes a dead, departed or unreachable peer and its keys before `forget_after`, at this node
    /// and at all others whose own detector considers it dead or departed. Nodes that are disconnected
    /// now and return within [`MARK_MAX`](crate::protocol::replica::MARK_MAX) remove it as well. A
    /// peer that is alive refutes the removal and is back; nodes that hear it keep it meanwhile.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::PeerIsLive`] or [`Error::Stopped`]; then nothing has changed.
    pub fn remove(&self, peer: &NodeId) -> Result<(), Error> {
        let state = self.snapshot().member(peer).map(|member| member.state);
        match state {
            // Not for this node itself: it may have left, but it still runs.
            _ if self.shared.end.has_begun() => Err(self.stopped()),
            Some(_) if peer == self.node() => Err(Error::PeerIsLive(peer.clone())),
            Some(PeerState::Dead | PeerState::Left | PeerState::Unreachable) => {
                let input = StorageInput::Remove { peer: peer.clone(), by: None };
                self.shared.routes.storage.cast(StorageMessage::Input(input));
                Ok(())
            }
            Some(_) => Err(Error::PeerIsLive(peer.clone())),
            None => Err(Error::UnknownPeer(peer.clone())),
        }
    }

    /// The revoked certificates, as far as this node knows.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        self.shared.published.revocations.load_full()
    }

    /// Takes a statement of an authority, [`Authority::revoke`](crate::pki::Authority::revoke).
    /// From now on this node refuses the certificates that the statement covers, and every other
    /// node does once it receives the statement; connections with their holders are closed. Returns
    /// when the store has the statement.
    ///
    /// # Errors
    /// [`Error::Refused`] if the statement is not signed by a trusted authority for this cluster.
    pub async fn revoke(&self, statement: Revocation) -> Result<(), Error> {
        self.write(0, || Writes::Revoke(Box::new(statement.clone()))).await.map(drop)
    }

    /// Accepts clients from now on, and passes their requests to `handler`. Only the first handler counts; returns
    /// whether it is this one. Without a handler a client is refused in the handshake.
    pub fn serve_clients(&self, handler: Arc<dyn ClientHandler>) -> bool {
        let first = self.shared.clients.handle(handler);
        if let Some(endpoint) = self.shared.endpoint.upgrade().filter(|_| first) {
            endpoint.admit(Protocol::Clients);
        }
        first
    }
}
