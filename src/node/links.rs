//! The connections of a node: the shell around [`Peering`], and the tasks that serve each connection.
//!
//! The machine is behind one lock, which no task holds across an `await`. Its outputs are delivered under that
//! lock, so that the other machines hear of connections in the order in which these come and go. Outputs that take
//! longer, or call code outside this crate, are returned to the caller.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};

use self::{frames::Room, link::Link, tasks::Spawner};
use super::host::Host;
use crate::{
    clock::Clock,
    net::{Connection, Endpoint},
    protocol::{
        close::{Close, Closing},
        event::ProtocolEvent,
        gossip::Gossip,
        id::{Generation, NodeId},
        peering::{
            ConnectionId, Introduced, Next, Packets, Peering, PeeringConfig, PeeringInput,
            PeeringOutput, Settled, Surroundings,
        },
        rates::Traffic,
        route::{Counter, Output},
        session::Met,
    },
};

pub(crate) mod accept;

pub(crate) mod exchange;
mod expiry;
mod frames;
mod gossip;
mod introduce;
mod link;
mod reach;
mod revoked;
mod serve;
pub(crate) mod share;
mod streams;
pub(crate) mod tasks;

pub(crate) use self::{
    exchange::begin,
    frames::STREAM_SHED,
    reach::{dial, hurry},
    revoked::close_revoked,
    serve::{finish, resume},
};

/// The connections of one node, by peer. They outlive the transport's actor.
#[derive(Debug)]
pub(crate) struct Links {
    inner: Mutex<Inner>,
    /// Changes with every connection that opens or ends, and with every dial that ends.
    changed: watch::Sender<u64>,
    room: Room,
    /// Exchanges that are answered concurrently.
    exchanges: Arc<Semaphore>,
    /// Concurrent dials.
    dials: Semaphore,
}

#[derive(Debug)]
struct Inner {
    machine: Peering,
    links: BTreeMap<ConnectionId, Arc<Link>>,
    /// The peers being dialed, each with the signal that makes its task start over.
    dialing: BTreeMap<NodeId, Arc<Notify>>,
    /// The last number of a connection.
    last: u64,
    /// Kept to reuse its memory.
    out: Vec<PeeringOutput>,
}

/// The context of a connection's task.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) host: Host,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) spawner: Spawner,
}

impl Context {
    fn links(&self) -> &Links {
        self.host.links()
    }
}

/// The outputs that the caller has to handle.
#[derive(Debug, Default)]
pub(crate) struct Said {
    settled: Option<Settled>,
    next: Option<Next>,
    admitted: bool,
    /// Outputs that must not be handled under the lock.
    pub(crate) rest: Vec<PeeringOutput>,
}

/// The result of registering a connection.
enum Registered {
    Kept(Arc<Link>),
    /// It replaces the second.
    Renewed(Arc<Link>, Option<Arc<Link>>),
    /// The peer was connected already.
    Duplicate(Option<Arc<Link>>),
    Gone,
}

impl Links {
    /// `exchanges`: how many are answered concurrently.
    pub(crate) fn new(config: PeeringConfig, exchanges: usize) -> Self {
        let inner = Inner {
            machine: Peering::new(config),
            links: BTreeMap::new(),
            dialing: BTreeMap::new(),
            last: 0,
            out: Vec::new(),
        };
        Self {
            inner: Mutex::new(inner),
            changed: watch::Sender::default(),
            room: Room::default(),
            exchanges: Arc::new(Semaphore::new(exchanges)),
            dials: Semaphore::new(DIALS_MAX),
        }
    }

    /// Feeds the machine an input, and delivers its outputs.
    pub(crate) fn handle(&self, host: &Host, input: PeeringInput) -> Said {
        let mut said = Said::default();
        self.lock().handle(host, input, &mut said);
        for output in &said.rest {
            if let PeeringOutput::Disconnected { peer, label, reason } = output {
                host.cut(peer, false, label, reason);
            }
        }
        said.rest.retain(|output| !matches!(output, PeeringOutput::Disconnected { .. }));
        said
    }

    /// Whether the peer may send this once more; a peer that keeps exceeding its rates is disconnected.
    fn admits(&self, host: &Host, link: &Link, traffic: Traffic) -> bool {
        self.handle(host, PeeringInput::Admit(link.id, traffic)).admitted
    }

    /// The next frame of gossip for a connection.
    fn next(&self, host: &Host, link: &Link) -> Next {
        self.handle(host, PeeringInput::Ready(link.id)).next.unwrap_or(Next::Nothing)
    }

    fn misbehaved(&self, host: &Host, link: &Link, why: &impl ToString) {
        self.handle(host, PeeringInput::Misbehaved(link.id, why.to_string()));
    }

    /// The open connection to a peer.
    pub(crate) fn link(&self, host: &Host, peer: &NodeId) -> Option<Arc<Link>> {
        let inner = self.lock();
        inner.link(inner.machine.connection(&inner.view(host), peer)?)
    }

    /// The connection to a peer, unless it has been silent for too long: then a new one is better.
    fn fresh(&self, host: &Host, peer: &NodeId) -> Option<Arc<Link>> {
        let inner = self.lock();
        inner.link(inner.machine.fresh(host.now(), &inner.view(host), peer)?)
    }

    /// A connection that this node dialed to an address, unless it has been silent for too long.
    fn dialed_at(&self, host: &Host, remote: &str) -> Option<Arc<Link>> {
        let inner = self.lock();
        let there = |(_, id): (&NodeId, ConnectionId)| {
            let link = inner.link(id)?;
            let stale = || inner.machine.is_stale(host.now(), &inner.view(host), id);
            let is_it = link.dialed
                && link.connection.is_open()
                && link.connection.remote() == remote
                && !stale();
            is_it.then_some(link)
        };
        inner.machine.connections().find_map(there)
    }

    /// Whether this is the peer's current connection, not one that was replaced.
    fn is_current(&self, link: &Link) -> bool {
        self.lock().machine.is_current(link.id)
    }

    fn barred(&self, host: &Host, peer: &NodeId) -> Option<(Duration, String)> {
        self.lock().machine.barred(peer, host.now())
    }

    /// How long the next bytes of an exchange have to wait.
    fn bulk_waits(&self, host: &Host, link: &Link) -> Option<Duration> {
        self.lock().machine.bulk_waits(link.id, host.now())
    }

    /// All connections with members, including replaced ones that have not ended.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().links.values().cloned().collect()
    }

    /// All open connections: a new actor has started, and serves them.
    fn open(&self, host: &Host) -> Vec<Arc<Link>> {
        let mut said = Said::default();
        let mut inner = self.lock();
        let input = PeeringInput::Transport(crate::protocol::route::TransportInput::TellLinks);
        inner.handle(host, input, &mut said);
        // Remove those that ended while no actor served them.
        inner.links.retain(|_, link| link.connection.is_open());
        inner.links.values().cloned().collect()
    }

    /// Takes a new connection whose peer was admitted. `own`: the generation in this node's introduction.
    fn register(
        &self,
        host: &Host,
        connection: Arc<dyn Connection>,
        met: Met,
        own: Generation,
        dialed: bool,
    ) -> Registered {
        let peer = met.node.clone();
        let (proof, datacenter) =
            (proof(connection.as_ref()), datacenter(host, connection.as_ref(), &peer));
        let share = host.share(&peer);
        let mut said = Said::default();
        let mut inner = self.lock();
        inner.last += 1;
        let id = ConnectionId(inner.last);
        let of_peer = (self.room.for_peer(&share), share);
        let link = Arc::new(Link::new(id, connection, peer, dialed, of_peer));
        inner.links.insert(id, Arc::clone(&link));
        let new = Introduced { connection: id, met, own, dialed, proof, datacenter };
        inner.handle(host, PeeringInput::Introduced(new), &mut said);
        let registered = match said.settled {
            Some(Settled::Kept) => Registered::Kept(link),
            Some(Settled::Renews(old)) => Registered::Renewed(link, inner.link(old)),
            Some(Settled::Duplicate(stays)) => {
                inner.links.remove(&id);
                Registered::Duplicate(inner.link(stays))
            }
            Some(Settled::Outlived | Settled::Ended) | None => {
                inner.links.remove(&id);
                Registered::Gone
            }
        };
        drop(inner);
        self.change();
        registered
    }

    /// The connection has ended.
    fn ended(&self, host: &Host, link: &Link) {
        let mut inner = self.lock();
        inner.handle(host, PeeringInput::Ended(link.id), &mut Said::default());
        inner.links.remove(&link.id);
        drop(inner);
        self.change();
    }

    /// Claims the right to dial a peer; `None` if another task does so already.
    fn dialing<'a>(&'a self, peer: &NodeId) -> Option<Dialing<'a>> {
        match self.lock().dialing.entry(peer.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                let hurry = Arc::clone(entry.insert(Arc::default()));
                Some(Dialing { links: self, peer: peer.clone(), hurry })
            }
        }
    }

    /// Makes the task that dials a peer start over; returns whether one exists.
    fn hurry(&self, peer: &NodeId) -> bool {
        let inner = self.lock();
        inner.dialing.get(peer).inspect(|hurry| hurry.notify_waiters()).is_some()
    }

    /// Waits until the peer is not being dialed any more.
    async fn dialed(&self, peer: &NodeId) {
        let mut changed = self.changed.subscribe();
        while self.lock().dialing.contains_key(peer) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Code under the lock does not panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn link(&self, id: ConnectionId) -> Option<Arc<Link>> {
        self.links.get(&id).cloned()
    }

    const fn view<'a>(&'a self, host: &'a Host) -> View<'a> {
        View { host, links: &self.links }
    }

    fn handle(&mut self, host: &Host, input: PeeringInput, said: &mut Said) {
        let mut out = std::mem::take(&mut self.out);
        let view = View { host, links: &self.links };
        self.machine.handle(host.now(), &view, input, &mut out);
        for output in out.drain(..) {
            self.deliver(host, output, said);
        }
        self.out = out;
    }

    fn deliver(&self, host: &Host, output: PeeringOutput, said: &mut Said) {
        match output {
            PeeringOutput::Route(Output::Count(counter, times)) => {
                host.counters().add(counter, times);
            }
            PeeringOutput::Route(output) => host.route(output),
            PeeringOutput::Settled(settled) => said.settled = Some(settled),
            PeeringOutput::Frame(next) => said.next = Some(next),
            PeeringOutput::Admitted(admitted) => said.admitted = admitted,
            PeeringOutput::Close(id, closing) => {
                if let Some(link) = self.links.get(&id) {
                    close(link.connection.as_ref(), &closing);
                }
            }
            PeeringOutput::Datagram(id, datagram) => self.datagram(host, id, datagram),
            PeeringOutput::Filled(id) => {
                if let Some(link) = self.links.get(&id) {
                    link.filled.notify_one();
                }
            }
            PeeringOutput::Queued(peer, gossip) => {
                if let Gossip::Push(delta) = &*gossip
                    && host.is_watched()
                {
                    let delta = Arc::new(delta.clone());
                    host.tell_protocol(ProtocolEvent::DeltasSent { peer, delta });
                }
            }
            rest => said.rest.push(rest),
        }
    }

    fn datagram(&self, host: &Host, id: ConnectionId, datagram: Bytes) {
        let sent = self.links.get(&id).is_some_and(|link| link.connection.send_datagram(datagram));
        host.count(if sent { Counter::HeartbeatsSent } else { Counter::HeartbeatsUnsent });
    }
}

/// The queries that the machine may make.
struct View<'a> {
    host: &'a Host,
    links: &'a BTreeMap<ConnectionId, Arc<Link>>,
}

impl Surroundings for View<'_> {
    fn own(&self) -> Generation {
        self.host.generation()
    }

    fn wall(&self) -> SystemTime {
        Clock::wall()
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        self.links.get(&id).is_some_and(|link| link.connection.is_open())
    }

    fn received(&self, id: ConnectionId) -> u64 {
        self.links.get(&id).map_or(0, |link| link.connection.received())
    }

    fn packets(&self, id: ConnectionId) -> Packets {
        let (sent, lost) = self.links.get(&id).map_or((0, 0), |link| link.connection.packets());
        Packets { sent, lost }
    }
}

/// The right to dial a peer; given back when dropped.
#[derive(Debug)]
struct Dialing<'a> {
    links: &'a Links,
    peer: NodeId,
    /// Signals that the peer is known to be alive: a handshake that has waited for an answer should start over.
    hurry: Arc<Notify>,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.links.lock().dialing.remove(&self.peer);
        self.links.change();
    }
}

/// Closes a connection.
fn close(connection: &dyn Connection, closing: &Closing) {
    connection.close(closing.code as u32, &closing.words);
}

pub(crate) fn close_with(connection: &dyn Connection, code: Close, words: &str) {
    connection.close(code as u32, words.as_bytes());
}

/// The proofs of identity of both ends of a connection, for comparison.
fn proof(connection: &dyn Connection) -> Arc<str> {
    let proof = &connection.peer().proof;
    format!("{} {}", proof.ours.fingerprint, proof.theirs.fingerprint).into()
}

/// A peer's datacenter: by its certificate, or else what the peer reports.
fn datacenter(
    host: &Host,
    connection: &dyn Connection,
    peer: &NodeId,
) -> crate::protocol::id::Datacenter {
    let proved = connection.peer().datacenter.clone();
    let told = || host.datacenter(peer).unwrap_or_else(|| host.config().datacenter.clone());
    proved.unwrap_or_else(told)
}

/// Concurrent dials of one node.
const DIALS_MAX: usize = 32;
