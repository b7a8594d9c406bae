//! The handle of a running node: [`Gossipmonger`].

pub mod clients;
pub(crate) mod host;
pub(crate) mod links;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod reins;
pub(crate) mod transport;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::{Actor, ActorCell, ActorRef, Message};
use rand::Rng;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};

mod propagated;

use crate::{
    actors::{
        channel::Channel,
        repeats::Repeats,
        shared::{Ending, Lives, Maps, Routes, Shared, WRITE_UNIT},
        slot::Slot,
        storage::{StorageMessage, Writes},
        supervisor::{Arguments, Root},
        writer::Writer,
    },
    clock::Clock,
    config::Config,
    counters::Counters,
    cuts::{Cut, Cuts},
    dials::{DialFailure, DialFailures},
    error::{Error, SpawnError},
    latest::Latest,
    net::{Endpoint, Opening, Protocol},
    node::{
        clients::ClientHandler,
        links::{Links, share::Shares},
    },
    protocol::{
        close::Close,
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
    snapshot::{Member, Snapshot},
    store::{Change, EndpointKeys, Store, StoreError, Stored},
    subscription::{Delivery, Events, LiveKeys, PrefixEvents, ProtocolEvents, feed},
    tls::PeerName,
};

/// A running node. Cheap to clone; the node ends when it is told to, not when handles are dropped.
#[derive(Clone, Debug)]
pub struct Gossipmonger {
    pub(crate) shared: Arc<Shared>,
    root: ActorCell,
    /// The node lives in this one; a caller may be in none.
    runtime: Handle,
}

impl Gossipmonger {
    /// Starts a node. The join handle ends when the node has ended and all is given back: its addresses
    /// are free and its store is closed. Aborting it ends nothing but the waiting.
    ///
    /// A node lives in the runtime that it is started in, and ends with it. Calls on a handle that
    /// outlives the runtime fail with [`Error::Stopped`].
    ///
    /// # Errors
    /// [`SpawnError`]; then nothing is left behind.
    pub async fn spawn(config: Config) -> Result<(Self, JoinHandle<()>), SpawnError> {
        Self::start(config, None).await
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
    /// [`SpawnError`]; then nothing is left behind.
    pub async fn spawn_linked(
        config: Config,
        supervisor: ActorCell,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        Self::start(config, Some(supervisor)).await
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    /// The cluster it is in.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.shared.config.cluster
    }

    /// Where it is.
    #[must_use]
    pub fn datacenter(&self) -> &Datacenter {
        &self.shared.config.datacenter
    }

    /// Where others are told to dial it.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.shared.config.advertise
    }

    /// The node's root actor, to be monitored or stopped as any other.
    #[must_use]
    pub const fn cell(&self) -> &ActorCell {
        &self.root
    }

    /// Sets a key; the original's `update`. Returns when the store has it, with its version: it is
    /// gossiped at once, whatever the store takes. The same value again takes no version.
    ///
    /// # Errors
    /// [`Error::Refused`] names the limit; the others say whether anything has changed.
    pub async fn set(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
    ) -> Result<Version, Error> {
        self.set_many(vec![Write::set(key, value)]).await
    }

    /// Sets a key for a while: after `ttl` nobody sees it any more.
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

    /// Deletes a key. Deleting what is not there takes no version.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn delete(&self, key: impl Into<Key>) -> Result<Version, Error> {
        self.set_many(vec![Write::delete(key)]).await
    }

    /// Writes a batch: everywhere, all of it becomes visible at once or none of it. Of several writes
    /// of one key the last counts. At most
    /// [`BATCH_BYTES_MAX`](crate::protocol::replica::BATCH_BYTES_MAX) bytes.
    ///
    /// What was overwritten since is not sent any more. A node that is far behind, and catches up in
    /// several steps, would for a moment have a batch without those of its keys that a later write,
    /// which it does not have yet, has replaced: until it has that too, its readers see this node's
    /// keys as they were before. So who overwrites parts of batches faster than a peer can follow is
    /// seen by that peer as it last was.
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

    /// All that is known now. It asks nobody and takes no lock.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Everybody else that is known.
    #[must_use]
    pub fn peers(&self) -> Vec<Member> {
        self.snapshot().peers().collect()
    }

    /// The peers that are live, or missed for a moment only.
    #[must_use]
    pub fn live_peers(&self) -> Vec<Member> {
        self.snapshot().peers().filter(Member::is_live).collect()
    }

    /// The peers that are dead.
    #[must_use]
    pub fn dead_peers(&self) -> Vec<Member> {
        self.snapshot().peers().filter(|peer| peer.state == PeerState::Dead).collect()
    }

    /// How improbable a peer's silence is, on the scale of `dead_peer_phi`; `None` if it is unknown,
    /// or if this node does not hear it itself but is told of it by others.
    #[must_use]
    pub fn phi(&self, peer: &NodeId) -> Option<f64> {
        let now = self.shared.clock.now();
        Some(self.shared.estimates.load().get(peer)?.phi(now))
    }

    /// Why a peer is thought to be what it is: the last changes of that, oldest first, each with what
    /// was known then. `None` if nothing has changed since it was met. How long ago each was:
    /// [`Snapshot::now`].
    #[must_use]
    pub fn why(&self, peer: &NodeId) -> Option<Arc<History>> {
        self.shared.histories.load().get(peer).cloned()
    }

    /// Why the connection with a peer was last ended on purpose, by either end: an expired certificate,
    /// a breach of the protocol. `None` if it never was, or that is long ago.
    #[must_use]
    pub fn cut(&self, peer: &NodeId) -> Option<Cut> {
        self.shared.cuts.get(peer)
    }

    /// Why nobody was reached at an address when it was last dialed, by each way that was tried: from each
    /// address of this node and to each address that the name has. `address`: a seed, or one that a peer
    /// advertises. Empty if somebody answered, or nobody has dialed it.
    #[must_use]
    pub fn dial_failures(&self, address: &str) -> Vec<DialFailure> {
        self.shared.dials.get(address)
    }

    /// What this node came back without at its start, by what its peers say; `None` if none of them says
    /// so.
    #[must_use]
    pub fn behind(&self) -> Option<Arc<Behind>> {
        self.shared.behind.load_full()
    }

    /// When a peer was last removed before its time, on the clock of [`Snapshot::now`], and who told this
    /// node so; `None` in its place if it was asked here. `None` if it was not removed, or that is long
    /// ago.
    #[must_use]
    pub fn removal(&self, peer: &NodeId) -> Option<(Time, Option<NodeId>)> {
        self.shared.removals.get(peer)
    }

    /// How slow this node finds itself, by its own timers and by answers that came late, up to
    /// [`HEALTH_MAX`](crate::protocol::liveness::HEALTH_MAX): it is as patient with others as it is
    /// slow. 0 is as it should be.
    #[must_use]
    pub fn health(&self) -> u32 {
        self.shared.health.load(Ordering::Relaxed)
    }

    /// Every event from now on; see [`Config::event_queue`].
    #[must_use]
    pub fn subscribe(&self) -> Events {
        Events::new(&self.shared)
    }

    /// The present state, and exactly the events that follow it. [`subscribe`](Self::subscribe) and
    /// [`snapshot`](Self::snapshot) called one after the other would repeat or miss a change between
    /// the two.
    #[must_use]
    pub fn subscribe_with_snapshot(&self) -> (Snapshot, Events) {
        let (snapshot, events) = self.shared.cut();
        (snapshot, Events::of(&self.shared, events))
    }

    /// The keys of all live nodes that begin with `prefix`, this node's included: first every present
    /// one, then every change. When a node dies or leaves, its keys go.
    #[must_use]
    pub fn watch_live(&self, prefix: &str) -> LiveKeys {
        LiveKeys::new(&self.shared, prefix)
    }

    /// What passes between nodes, from now on. It costs a copy of every digest and delta.
    #[must_use]
    pub fn subscribe_protocol(&self) -> ProtocolEvents {
        ProtocolEvents::new(&self.shared)
    }

    /// Changes, from now on, of all nodes' keys that begin with `prefix`, whatever the state of their
    /// owners. See also [`watch_live`](Self::watch_live).
    #[must_use]
    pub fn watch_prefix(&self, prefix: &str) -> PrefixEvents {
        PrefixEvents::new(&self.shared, prefix)
    }

    /// Sends `actor` the present state, as events, and then every event. At most
    /// [`Config::event_queue`] wait in its mailbox; an actor that falls behind by more than as many
    /// again is brought up to date from the snapshot: it may miss values that were replaced
    /// meanwhile, never the last one.
    ///
    /// It ends with the actor or the node, or when the returned handle is aborted.
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
        &self.shared.counters
    }

    /// The configuration in force. Its `storage` is a stand-in: the node has taken the store, and
    /// lets go of it when it ends.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Forgets a dead, departed or unreachable peer and its keys before its time, at this node and at
    /// all others whose own detector has found it dead or departed, also at those that are cut off now
    /// and come back within [`MARK_MAX`](crate::protocol::replica::MARK_MAX). If it lives after all it
    /// refutes that and is back; nodes that hear it keep it meanwhile.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::PeerIsLive`] or [`Error::Stopped`]: nothing has changed.
    pub fn remove(&self, peer: &NodeId) -> Result<(), Error> {
        let state = self.snapshot().member(peer).map(|member| member.state);
        match state {
            // Never this node itself: it may have left, but it is still here.
            _ if self.shared.ending.is_set() => Err(self.stopped()),
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

    /// Whose certificates are revoked, as far as this node has heard.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        self.shared.revocations.load_full()
    }

    /// Takes a statement of an authority, [`Authority::revoke`](crate::pki::Authority::revoke): the
    /// certificates that it is about are refused from now on, here and as soon as it is told by all
    /// nodes; connections with their holders are closed. Returns when the store has it.
    ///
    /// # Errors
    /// [`Error::Refused`] if no trusted authority has signed it for this cluster.
    pub async fn revoke(&self, statement: Revocation) -> Result<(), Error> {
        self.write(0, || Writes::Revoke(Box::new(statement.clone()))).await.map(drop)
    }

    /// Leaves and may come back: for a planned restart and for the `post_stop` of the actor that owns
    /// the node. Some peers are informed, so that nobody has to detect a failure; then the node ends.
    /// Returns how many peers have acknowledged it. The next start joins again.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the node had ended before. After any other error it has left and ended
    /// all the same.
    #[doc(alias = "leave")]
    pub async fn leave_for_now(&self) -> Result<usize, Error> {
        self.depart(false).await
    }

    /// Takes the node out for good, as the program's `leave` does: as
    /// [`leave_for_now`](Self::leave_for_now), and the store remembers it. The next start with that
    /// store is refused ([`SpawnError::HasLeft`]) unless [`Config::rejoin`] is set, so do not call
    /// this when a service merely stops. Only this store remembers it: from a copy from before the
    /// node starts as if it had not left, and the others report that
    /// ([`PeerReturned`](crate::Event::PeerReturned)). To keep a node out, revoke its certificate.
    ///
    /// # Errors
    /// [`Error::NotDurable`] or [`Error::Timeout`] if the store does not remember it: the node has
    /// left and ended all the same, but would join again. [`Error::Stopped`] if it had ended before.
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
    /// over one of them. The node does nothing else any more: call [`shutdown`](Self::shutdown) afterwards.
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
        let told = tokio::time::timeout(LEAVE_TIMEOUT, self.shared.farewell.wait()).await;
        let acknowledged = told.unwrap_or(0);
        written.map(|_| acknowledged)
    }

    /// Accepts clients from now on, and hands their requests to `handler`. Only the first handler counts; says whether
    /// it is this one. Without a handler a client is refused in the handshake.
    pub fn serve_clients(&self, handler: Arc<dyn ClientHandler>) -> bool {
        let first = self.shared.clients.handle(handler);
        if let Some(endpoint) = self.shared.endpoint.upgrade().filter(|_| first) {
            endpoint.admit(Protocol::Clients);
        }
        first
    }

    /// Ends the node without leaving: connections are closed, writes made durable. Others find it
    /// dead after a while. Calling it again does no harm.
    pub async fn shutdown(&self) {
        self.shared.end(Ending::Asked);
        self.ended().await;
    }

    /// Waits until the node has ended, and says why unless it was asked to.
    pub async fn ended(&self) -> Option<Problem> {
        self.shared.ended.wait().await;
        self.problem()
    }

    pub(crate) fn problem(&self) -> Option<Problem> {
        match self.shared.ending.get() {
            Some(Ending::Problem(problem)) => Some(problem),
            _ => None,
        }
    }

    // --- writing

    async fn write(&self, bytes: usize, writes: impl Fn() -> Writes) -> Result<Version, Error> {
        let written = async {
            let written = tokio::time::timeout(CALL_TIMEOUT, self.try_write(bytes, writes)).await;
            written.unwrap_or(Err(Error::Timeout(CALL_TIMEOUT)))
        };
        self.unless_ended(written).await
    }

    /// What `call` returns, unless the node ends first: then nobody may be left to answer it.
    pub(crate) async fn unless_ended<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            _ = self.shared.ending.wait() => Err(self.stopped()),
            done = call => done,
        }
    }

    fn stopped(&self) -> Error {
        Error::Stopped { reason: self.problem() }
    }

    /// A storage actor that fails before it answers is followed by another; the write is made again,
    /// which takes no second version if it was kept.
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
        mut config: Config,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let events = Arc::new(Channel::new(config.event_queue));
        // The writer alone holds the store, so that it is given back when the node has ended, however
        // long handles of it are kept.
        let lent: Arc<dyn Store> = Arc::new(Lent(format!("{:?}", config.storage)));
        let storage = std::mem::replace(&mut config.storage, lent);
        let writer = Arc::new(start_writer(storage, &config, &counters, &events)?);
        let started = Self::open(config, counters, events, Arc::clone(&writer), supervisor).await;
        if started.is_err() {
            // The store is the caller's again.
            writer.close().await;
        }
        started
    }

    async fn open(
        config: Config,
        counters: Arc<Counters>,
        events: Arc<Channel<Event>>,
        writer: Arc<Writer>,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        let (stored, keys) = prepare_store(&config, &writer).await?;
        let name = PeerName {
            cluster: config.cluster.clone(),
            datacenter: config.datacenter.clone(),
            node: config.node.clone(),
        };
        let opening = Opening::new(name, (&config.listen, config.quic), &keys, &counters);
        let endpoint = config.transport.open(opening).await?;
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
            routes: Routes::default(),
            endpoint: Arc::downgrade(&endpoint),
            revocations: ArcSwap::default(),
            writer,
            maps: ArcSwap::from_pointee(Maps::new()),
            lives: ArcSwap::from_pointee(Lives::new()),
            histories: ArcSwap::default(),
            estimates: ArcSwap::default(),
            unreachable: ArcSwap::default(),
            health: AtomicU32::new(0),
            events,
            protocol_events: Channel::new(PROTOCOL_EVENTS),
            counters,
            write_room: Arc::new(Semaphore::new(config.write_queue_bytes / WRITE_UNIT)),
            session: Session::new(config.cluster.clone(), config.node.clone()),
            links: Links::new(peering(&config), config.quic.exchanges),
            clients: Arc::default(),
            #[cfg(feature = "testkit")]
            switch: reins::Switch::default(),
            shares: Shares::default(),
            publishing: Mutex::default(),
            ending: Slot::default(),
            ended: Slot::default(),
            refusals: Mutex::default(),
            cuts: Cuts::default(),
            dials: DialFailures::default(),
            behind: ArcSwapOption::empty(),
            removals: Latest::default(),
            repeats: Repeats::default(),
            renewed: AtomicBool::new(false),
            farewell: Slot::default(),
            config,
        });
        let arguments =
            Arguments { shared: Arc::clone(&shared), endpoint: Arc::clone(&endpoint), candidates };
        let spawned = match supervisor {
            Some(supervisor) => Actor::spawn_linked(None, Root, arguments, supervisor).await,
            None => Actor::spawn(None, Root, arguments).await,
        };
        let (root, running) = spawned.map_err(|error| SpawnError::Actor(error.to_string()))?;
        let unfinished = Unfinished { shared: Arc::clone(&shared), endpoint };
        tokio::spawn(async move {
            let Unfinished { shared, endpoint } = &unfinished;
            // However the root ends: stopped, failed or killed.
            let _ = running.await;
            shared.end(Ending::Asked);
            shut(&**endpoint).await;
            if tokio::time::timeout(STORE_TIMEOUT, shared.writer.close()).await.is_err() {
                tracing::error!("{STORE_BUSY}");
            }
            shared.ended.set(());
        });
        let waiting = Arc::clone(&shared);
        let ended = tokio::spawn(async move { waiting.ended.wait().await });
        Ok((Self { shared, root: root.get_cell(), runtime: Handle::current() }, ended))
    }
}

/// Gives back what a node holds if its runtime goes before it: then no task is left that could.
struct Unfinished {
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.shared.ended.is_set() {
            return;
        }
        self.shared.end(Ending::Asked);
        self.endpoint.release();
        let shared = Arc::clone(&self.shared);
        // The store may take a while, and a runtime that goes is not to be held up by it.
        let give_back = std::thread::Builder::new().name("gossipmonger-end".to_owned());
        let begun = give_back.spawn(move || {
            if !shared.writer.close_within(STORE_TIMEOUT) {
                tracing::error!("{STORE_BUSY}");
            }
            shared.ended.set(());
        });
        if begun.is_err() {
            self.shared.writer.close_within(Duration::ZERO);
            self.shared.ended.set(());
        }
    }
}

/// What stands in a running node's configuration for its store.
#[derive(Debug)]
#[expect(dead_code, reason = "the description is for Debug")]
struct Lent(String);

impl Store for Lent {
    fn load(&self) -> Result<Stored, StoreError> {
        Err(lent())
    }

    fn commit(&self, _: &[Change]) -> Result<(), StoreError> {
        Err(lent())
    }
}

fn lent() -> StoreError {
    StoreError::Io {
        location: "of a node's configuration".to_owned(),
        reason: "it was lent to that node: open it again, or keep your own reference".to_owned(),
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

/// Checks that the store is ours, and notes in it what has to be there before the node starts.
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

/// Ends all connections, telling the peers, and gives back the addresses.
pub(crate) async fn shut(endpoint: &dyn Endpoint) {
    endpoint.close(Close::Shutdown as u32, b"shutting down").await;
}

/// What the machine of the connections has to know of the configuration.
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

impl Shared {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            local: self.config.node.clone(),
            now: self.clock.now(),
            maps: self.maps.load_full(),
            lives: self.lives.load_full(),
            histories: self.histories.load_full(),
            estimates: self.estimates.load_full(),
            unreachable: self.unreachable.load_full(),
        }
    }
}

/// How long a call may take, back-pressure of the store included.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What the log says of a store that does not end.
const STORE_BUSY: &str = "the store is still busy: it is not given back";
/// How long the end of a node waits for a store that is busy.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long leaving waits for peers to acknowledge it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Protocol events held for a subscriber that does not take them.
const PROTOCOL_EVENTS: usize = 1_024;
