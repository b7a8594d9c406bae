//! The handle of a running node: [`Gossipmonger`].

mod actors;
mod backends;
mod channel;
pub mod clients;
pub mod config;
pub(crate) mod cuts;
mod diagnostics;
mod ending;
pub mod error;
mod features;
mod host;
mod links;
mod messages;
mod propagated;
pub(crate) mod propagation;
mod published;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod reins;
mod repeats;
mod routes;
mod share;
mod shared;
pub(crate) mod snapshot;
pub mod subscription;
#[cfg(feature = "testkit")]
mod switch;
mod timer;
mod views;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ractor::{Actor, ActorCell, ActorRef, Message};
use rand::Rng;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};

pub use self::backends::Backends;
use crate::{
    clock::Clock,
    counters::Counters,
    dials::DialFailure,
    net::{Endpoint, Network, Opening, Protocol},
    node::{
        actors::supervisor::{Arguments, Root},
        channel::Channel,
        clients::ClientHandler,
        config::Config,
        cuts::Cut,
        diagnostics::Diagnostics,
        ending::{End, Ending, shut},
        error::{Error, SpawnError},
        host::Host,
        links::table::Links,
        messages::{StorageMessage, Writes},
        published::Published,
        routes::Routes,
        share::Shares,
        shared::{Shared, WRITE_UNIT},
        snapshot::{Member, Snapshot},
        subscription::{Delivery, Events, LiveKeys, PrefixEvents, ProtocolEvents, feed},
        writer::Writer,
    },
    protocol::{
        delta::entry_len_max,
        entry::{Key, Value},
        event::{Behind, Event, Problem},
        id::{ClusterId, Datacenter, NodeId, Version},
        peering::PeeringConfig,
        reason::History,
        revocation::{Revocation, Revocations},
        route::{SchedulerInput, StorageInput},
        session::Session,
        state::PeerState,
        time::Time,
        write::Write,
    },
    store::{Change, EndpointKeys, Store, StoreError, Stored},
    tls::PeerName,
};

/// A running node. Cheap to clone. Dropping handles does not end the node; a call does.
#[derive(Clone, Debug)]
pub struct Gossipmonger {
    pub(crate) shared: Arc<Shared>,
    root: ActorCell,
    /// The runtime of the node; a caller may be outside any runtime.
    runtime: Handle,
}

impl Gossipmonger {
    /// Starts a node. The join handle completes when the node has ended and released everything: its
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

    /// Sets a key; the original's `update`. Returns its version once the store has it. The write is
    /// gossiped at once, without waiting for the store. Setting the same value again takes no
    /// version.
    ///
    /// # Errors
    /// [`Error::Refused`] names the limit; the other errors say whether anything has changed.
    pub async fn set(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
    ) -> Result<Version, Error> {
        self.set_many(vec![Write::set(key, value)]).await
    }

    /// Sets a key that expires: after `ttl` no reader sees it any more.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_with_ttl(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Result<Version, Error> {
        self.set_many(vec![Write::set(key, value).with_ttl(ttl)]).await
    }

    /// Deletes a key. Deleting a missing key takes no version.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn delete(&self, key: impl Into<Key>) -> Result<Version, Error> {
        self.set_many(vec![Write::delete(key)]).await
    }

    /// Writes a batch atomically: on every node, all of it becomes visible at once or none of it. If a
    /// key is written several times, the last write counts. At most
    /// [`BATCH_BYTES_MAX`](crate::protocol::replica::BATCH_BYTES_MAX) bytes.
    ///
    /// Overwritten values are not resent. A peer that catches up in several steps therefore keeps
    /// showing this node's previous keys until it has every write that replaced part of the batch.
    /// If you overwrite parts of batches faster than a peer can follow, that peer's view of this
    /// node stays at its last complete state.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_many(&self, batch: Vec<Write>) -> Result<Version, Error> {
        let bytes = |write: &Write| {
            entry_len_max(write.key.as_str().len(), write.value.as_ref().map_or(0, |v| v.len()))
        };
        let bytes = batch.iter().map(bytes).sum();
        self.write(bytes, || Writes::Batch(batch.clone())).await
    }

    /// Replaces this node's tags.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_tags(&self, tags: BTreeMap<String, String>) -> Result<Version, Error> {
        self.write(0, || Writes::Tags(tags.clone())).await
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

    /// Why a peer is in its present state: the latest state transitions, oldest first, each with the
    /// evidence for it. `None` if the state has not changed since the peer became known. For the age
    /// of each see [`Snapshot::now`].
    #[must_use]
    pub fn why(&self, peer: &NodeId) -> Option<Arc<History>> {
        self.shared.published.histories.load().get(peer).cloned()
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
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(&self.shared)
    }

    /// The present state, and exactly the events that follow it. Calling
    /// [`subscribe`](Self::subscribe) and [`snapshot`](Self::snapshot) one after the other would
    /// repeat or miss a change between the two.
    #[must_use]
    pub fn subscribe_with_snapshot(&self) -> (Snapshot, Events) {
        let (snapshot, events) = self.shared.cut();
        (snapshot, Events::of(&self.shared, events))
    }

    /// The keys of all live nodes, including this one, that begin with `prefix`: first the present
    /// ones, then every change. When a node dies or leaves, its keys are removed.
    #[must_use]
    pub fn watch_live(&self, prefix: &str) -> LiveKeys {
        LiveKeys::new(&self.shared, prefix)
    }

    /// The protocol messages between nodes, from now on. It costs a copy of every digest and delta.
    #[must_use]
    pub fn subscribe_protocol(&self) -> ProtocolEvents {
        ProtocolEvents::new(&self.shared)
    }

    /// Changes, from now on, of all nodes' keys that begin with `prefix`, in any state of their
    /// owners. See also [`watch_live`](Self::watch_live).
    #[must_use]
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

    /// Leaves temporarily: for a planned restart and for the `post_stop` of the actor that owns the
    /// node. The node informs some peers, so that the cluster need not detect a failure, and then
    /// ends. Returns how many peers have acknowledged it. The next start joins again.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the node had ended before. After any other error it has left and ended
    /// as well.
    #[doc(alias = "leave")]
    pub async fn leave_for_now(&self) -> Result<usize, Error> {
        self.depart(false).await
    }

    /// Takes the node out for good, like the program's `leave`: as
    /// [`leave_for_now`](Self::leave_for_now), and the store records it. The next start with that
    /// store is refused ([`SpawnError::HasLeft`]) unless [`Config::rejoin`] is set, so do not call
    /// this when a service merely stops. Only this store records it: started from an older copy of
    /// the store, the node joins as if it had not left, and the others report that
    /// ([`PeerReturned`](crate::Event::PeerReturned)). To keep a node out, revoke its certificate.
    ///
    /// # Errors
    /// [`Error::NotDurable`] or [`Error::Timeout`] if the store did not record it: the node has left
    /// and ended, but would join again. [`Error::Stopped`] if it had ended before.
    #[doc(alias = "leave")]
    pub async fn decommission(&self) -> Result<usize, Error> {
        self.depart(true).await
    }

    async fn depart(&self, remembered: bool) -> Result<usize, Error> {
        let told = self.say_farewell(remembered).await;
        if !matches!(told, Err(Error::Stopped { .. })) {
            self.shutdown().await;
        }
        told
    }

    /// As [`decommission`](Self::decommission), but keeps the node's connections, so that the result can be sent
    /// over one of them. The node does no other work afterwards: call [`shutdown`](Self::shutdown) next.
    ///
    /// # Errors
    /// As [`decommission`](Self::decommission).
    pub async fn announce_decommission(&self) -> Result<usize, Error> {
        self.say_farewell(true).await
    }

    async fn say_farewell(&self, remembered: bool) -> Result<usize, Error> {
        let written = self.write(0, || Writes::Leave { remembered }).await;
        if let Err(stopped @ Error::Stopped { .. }) = written {
            return Err(stopped);
        }
        self.shared.routes.scheduler.cast(SchedulerInput::Leave);
        let told = tokio::time::timeout(LEAVE_TIMEOUT, self.shared.end.acknowledged()).await;
        let acknowledged = told.unwrap_or(0);
        written.map(|_| acknowledged)
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

    /// Ends the node without leaving: closes its connections and makes writes durable. The other
    /// nodes detect a failure after a while. Repeated calls are harmless.
    pub async fn shutdown(&self) {
        self.shared.end.begin(Ending::Asked);
        self.ended().await;
    }

    /// Waits until the node has ended, and returns the cause unless the end was requested.
    pub async fn ended(&self) -> Option<Problem> {
        self.shared.end.completed().await;
        self.problem()
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        self.shared.end.problem()
    }

    // --- writing

    async fn write(&self, bytes: usize, writes: impl Fn() -> Writes) -> Result<Version, Error> {
        let written = async {
            let written = tokio::time::timeout(CALL_TIMEOUT, self.try_write(bytes, writes)).await;
            written.unwrap_or(Err(Error::Timeout(CALL_TIMEOUT)))
        };
        self.unless_ended(written).await
    }

    /// The result of `call`, unless the node ends first: then the actor that would answer may be gone.
    pub(crate) async fn unless_ended<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.shared.end.begun() => Err(self.stopped()),
            done = call => done,
        }
    }

    fn stopped(&self) -> Error {
        Error::Stopped { reason: self.problem() }
    }

    /// If a storage actor fails before it answers, another one takes its place; the write is made
    /// again, which takes no second version if the first was kept.
    async fn try_write(&self, bytes: usize, writes: impl Fn() -> Writes) -> Result<Version, Error> {
        let route = &self.shared.routes.storage;
        let mut storage = route.current().ok_or_else(|| self.stopped())?;
        loop {
            let permit = self.room(bytes).await;
            let (reply, answer) = oneshot::channel();
            let sent = storage.cast(StorageMessage::Write(writes(), permit, reply));
            if sent.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            storage = route.after(&storage).await;
        }
    }

    async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let all = self.shared.config.write_queue_bytes / WRITE_UNIT;
        let units = (bytes / WRITE_UNIT + 1).min(all);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.write_room);
        room.acquire_many_owned(units).await.expect("the semaphore is never closed")
    }

    // --- starting

    async fn start(
        config: Config,
        Backends { network, store }: Backends,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let events = Arc::new(Channel::new(config.event_queue));
        // Only the writer holds the store. So the store is released when the node has ended, however
        // long handles of the node are kept.
        let writer = Arc::new(start_writer(store, &config, &counters, &events)?);
        let opened = (counters, events, Arc::clone(&writer));
        let started = Self::open(config, network.as_ref(), opened, supervisor).await;
        if started.is_err() {
            // The store belongs to the caller again.
            writer.close().await;
        }
        started
    }

    async fn open(
        config: Config,
        network: &dyn Network,
        (counters, events, writer): (Arc<Counters>, Arc<Channel<Event>>, Arc<Writer>),
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        let (stored, keys) = prepare_store(&config, &writer).await?;
        let name = PeerName {
            cluster: config.cluster.clone(),
            datacenter: config.datacenter.clone(),
            node: config.node.clone(),
        };
        let opening = Opening::new(name, (&config.listen, config.quic), &keys, &counters);
        let endpoint = network.open(opening).await?;
        let open = Arc::clone(&endpoint);
        let started =
            Self::start_actors(config, counters, events, writer, stored, open, supervisor).await;
        if started.is_err() {
            shut(&*endpoint).await;
        }
        started
    }

    async fn start_actors(
        mut config: Config,
        counters: Arc<Counters>,
        events: Arc<Channel<Event>>,
        writer: Arc<Writer>,
        stored: Stored,
        endpoint: Arc<dyn Endpoint>,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        if config.advertise.is_empty() {
            config.advertise = endpoint.addresses();
        }
        let candidates = stored.peers.values().flat_map(|peer| peer.addresses.clone()).collect();
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            published: Published::new(events),
            routes: Routes::default(),
            end: End::default(),
            diagnostics: Diagnostics::new(counters),
            endpoint: Arc::downgrade(&endpoint),
            writer,
            write_room: Arc::new(Semaphore::new(config.write_queue_bytes / WRITE_UNIT)),
            session: Session::new(config.cluster.clone(), config.node.clone()),
            clients: Arc::default(),
            #[cfg(feature = "testkit")]
            switch: switch::Switch::default(),
            shares: Shares::default(),
            renewed: AtomicBool::new(false),
            config,
        });
        let host = Host::new(Arc::clone(&shared));
        let links = Links::new(host, peering(&shared.config), shared.config.quic.exchanges);
        let arguments = Arguments {
            shared: Arc::clone(&shared),
            endpoint: Arc::clone(&endpoint),
            links: Arc::new(links),
            candidates,
        };
        let spawned = match supervisor {
            Some(supervisor) => Actor::spawn_linked(None, Root, arguments, supervisor).await,
            None => Actor::spawn(None, Root, arguments).await,
        };
        let (root, running) = spawned.map_err(|error| SpawnError::Actor(error.to_string()))?;
        let unfinished = Unfinished { shared: Arc::clone(&shared), endpoint };
        tokio::spawn(async move {
            let Unfinished { shared, endpoint } = &unfinished;
            // In every case of the root's end: stopped, failed or killed.
            let _ = running.await;
            shared.end.begin(Ending::Asked);
            shut(&**endpoint).await;
            if tokio::time::timeout(STORE_TIMEOUT, shared.writer.close()).await.is_err() {
                tracing::error!("{STORE_BUSY}");
            }
            shared.end.complete();
        });
        let waiting = Arc::clone(&shared);
        let ended = tokio::spawn(async move { waiting.end.completed().await });
        Ok((Self { shared, root: root.get_cell(), runtime: Handle::current() }, ended))
    }
}

/// Releases what a node holds if its runtime ends first: then no task is left to do it.
struct Unfinished {
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.shared.end.is_complete() {
            return;
        }
        self.shared.end.begin(Ending::Asked);
        self.endpoint.release();
        let shared = Arc::clone(&self.shared);
        // The store may take a while, and must not delay the end of the runtime.
        let give_back = std::thread::Builder::new().name("gossipmonger-end".to_owned());
        let begun = give_back.spawn(move || {
            if !shared.writer.close_within(STORE_TIMEOUT) {
                tracing::error!("{STORE_BUSY}");
            }
            shared.end.complete();
        });
        if begun.is_err() {
            self.shared.writer.close_within(Duration::ZERO);
            self.shared.end.complete();
        }
    }
}

fn start_writer(
    storage: Arc<dyn Store>,
    config: &Config,
    counters: &Arc<Counters>,
    events: &Arc<Channel<Event>>,
) -> Result<Writer, SpawnError> {
    let (events, node) = (Arc::clone(events), config.node.clone());
    let on_failure = Box::new(move |error: &StoreError| {
        let problem = Problem::Store { reason: error.to_string() };
        tracing::error!(%node, "{problem}");
        events.send(Event::Error(problem));
    });
    Writer::start(storage, Arc::clone(counters), on_failure)
        .map_err(|error| SpawnError::Actor(format!("no thread for the store: {error}")))
}

/// Checks that the store belongs to this node, and writes what it must contain before the node starts.
async fn prepare_store(
    config: &Config,
    writer: &Writer,
) -> Result<(Stored, EndpointKeys), SpawnError> {
    let stored = writer.load().await?;
    if let Some((cluster, node)) = &stored.identity
        && (*cluster != config.cluster || *node != config.node)
    {
        return Err(SpawnError::ForeignStore {
            stored_node: node.clone(),
            stored_cluster: cluster.clone(),
            node: config.node.clone(),
            cluster: config.cluster.clone(),
        });
    }
    if stored.left && !config.rejoin {
        return Err(SpawnError::HasLeft);
    }
    let keys = stored.endpoint_keys.clone().unwrap_or_else(random_keys);
    let identity = Change::Identity { cluster: config.cluster.clone(), node: config.node.clone() };
    let changes = vec![identity, Change::EndpointKeys(keys.clone()), Change::Left(false)];
    writer.write(changes, None);
    writer.flush().await?;
    Ok((stored, keys))
}

/// The settings that the peering machine takes from the configuration.
fn peering(config: &Config) -> PeeringConfig {
    PeeringConfig {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        gossip_interval: config.gossip_interval,
        bar: config.quic.bar,
        push_bytes_per_second: config.push_bytes_per_second,
        wan_bytes_per_second: config.wan_bytes_per_second,
    }
}

fn random_keys() -> EndpointKeys {
    let mut reset = [0; 64];
    rand::rng().fill_bytes(&mut reset);
    EndpointKeys { reset, connection_id: rand::rng().next_u64() }
}

/// How long a call may take, including back-pressure of the store.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The log line about a store that does not close.
const STORE_BUSY: &str = "the store is still busy: it is not given back";
/// How long the end of a node waits for a busy store.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long leaving waits for peers to acknowledge it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
