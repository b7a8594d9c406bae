//! The connections of a node, by peer: the shell around [`Peering`].
//!
//! The machine is behind one lock, which no task holds across an `await`. Its outputs are delivered under that
//! lock, so that the other machines hear of connections in the order in which these come and go. Outputs that take
//! longer, or call code outside this crate, are returned to the caller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::Semaphore;

#[cfg(feature = "sim")]
use super::super::tape;
use super::{
    super::{diagnostics::Outboxes, host::Host},
    claims::Claims,
    closing::close,
    link::Link,
    room::Room,
};
use crate::{
    net::Connection,
    protocol::{
        event::ProtocolEvent,
        id::{Datacenter, Generation, NodeId},
        peering::{
            ConnectionId, Introduced, Next, Packets, Peering, PeeringConfig, PeeringInput,
            PeeringOutput, Settled, Surroundings,
        },
        rates::Traffic,
        route::{Counter, Output, TransportInput},
        session::Met,
    },
};

/// The connections of one node, by peer. They outlive the transport's actor.
#[derive(Debug)]
pub(crate) struct Links {
    host: Host,
    inner: Mutex<Inner>,
    /// The peers being dialed.
    claims: Claims,
    room: Room,
    /// Exchanges that are answered concurrently.
    exchanges: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner {
    machine: Peering,
    links: BTreeMap<ConnectionId, Arc<Link>>,
    /// The last number of a connection.
    last: u64,
    /// Kept to reuse its memory.
    out: Vec<PeeringOutput>,
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
pub(super) enum Registered {
    Kept(Arc<Link>),
    /// It replaces the second.
    Renewed(Arc<Link>, Option<Arc<Link>>),
    /// The peer was connected already.
    Duplicate(Option<Arc<Link>>),
    Gone,
}

impl Links {
    /// `exchanges`: how many are answered concurrently.
    pub(crate) fn new(host: Host, config: PeeringConfig, exchanges: usize) -> Self {
        #[cfg(feature = "sim")]
        if let Some(tape) = host.tape() {
            tape.begin(&config);
        }
        let inner = Inner {
            machine: Peering::new(config),
            links: BTreeMap::new(),
            last: 0,
            out: Vec::new(),
        };
        Self {
            host,
            inner: Mutex::new(inner),
            claims: Claims::default(),
            room: Room::default(),
            exchanges: Arc::new(Semaphore::new(exchanges)),
        }
    }

    /// The node that they belong to.
    pub(crate) const fn host(&self) -> &Host {
        &self.host
    }

    /// The peers being dialed.
    pub(super) const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Room for long frames of peers without a name.
    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    /// Exchanges that may be answered at present.
    pub(super) const fn exchanges(&self) -> &Arc<Semaphore> {
        &self.exchanges
    }

    /// Feeds the machine an input, and delivers its outputs.
    pub(crate) fn handle(&self, input: PeeringInput) -> Said {
        let mut said = Said::default();
        self.lock().handle(&self.host, input, &mut said);
        for output in &said.rest {
            if let PeeringOutput::Disconnected { peer, label, reason } = output {
                self.host.cut(peer, false, label, reason);
            }
        }
        said.rest.retain(|output| !matches!(output, PeeringOutput::Disconnected { .. }));
        said
    }

    /// Whether the peer may send this once more; a peer that keeps exceeding its rates is disconnected.
    pub(super) fn admits(&self, link: &Link, traffic: Traffic) -> bool {
        self.handle(PeeringInput::Admit(link.id, traffic)).admitted
    }

    /// The next frame of gossip for a connection.
    pub(super) fn next(&self, link: &Link) -> Next {
        self.handle(PeeringInput::Ready(link.id)).next.unwrap_or(Next::Nothing)
    }

    pub(super) fn misbehaved(&self, link: &Link, why: &impl ToString) {
        self.handle(PeeringInput::Misbehaved(link.id, why.to_string()));
    }

    /// The open connection to a peer.
    pub(crate) fn link(&self, peer: &NodeId) -> Option<Arc<Link>> {
        let inner = self.lock();
        inner.link(inner.machine.connection(&inner.view(&self.host), peer)?)
    }

    /// The connection to a peer, unless it has been silent for too long: then a new one is better.
    pub(super) fn fresh(&self, peer: &NodeId) -> Option<Arc<Link>> {
        let inner = self.lock();
        inner.link(inner.machine.fresh(self.host.now(), &inner.view(&self.host), peer)?)
    }

    /// A connection that this node dialed to an address, unless it has been silent for too long.
    pub(super) fn dialed_at(&self, remote: &str) -> Option<Arc<Link>> {
        let inner = self.lock();
        let there = |(_, id): (&NodeId, ConnectionId)| {
            let link = inner.link(id)?;
            let stale = || inner.machine.is_stale(self.host.now(), &inner.view(&self.host), id);
            let is_it = link.dialed
                && link.connection.is_open()
                && link.connection.remote() == remote
                && !stale();
            is_it.then_some(link)
        };
        inner.machine.connections().find_map(there)
    }

    /// A connection that has not ended, by its number.
    pub(super) fn by_id(&self, id: ConnectionId) -> Option<Arc<Link>> {
        self.lock().link(id)
    }

    /// Whether this is the peer's current connection, not one that was replaced.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        self.lock().machine.is_current(link.id)
    }

    pub(super) fn barred(&self, peer: &NodeId) -> Option<(Duration, String)> {
        self.lock().machine.barred(peer, self.host.now())
    }

    /// How long the next bytes of an exchange have to wait.
    pub(super) fn bulk_waits(&self, link: &Link) -> Option<Duration> {
        self.lock().machine.bulk_waits(link.id, self.host.now())
    }

    /// All connections with members, including replaced ones that have not ended.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().links.values().cloned().collect()
    }

    /// All open connections: a new actor has started, and serves them.
    pub(super) fn open(&self) -> Vec<Arc<Link>> {
        let mut said = Said::default();
        let mut inner = self.lock();
        let input = PeeringInput::Transport(TransportInput::TellLinks);
        inner.handle(&self.host, input, &mut said);
        // Remove those that ended while no actor served them.
        inner.links.retain(|_, link| link.connection.is_open());
        inner.links.values().cloned().collect()
    }

    /// Takes a new connection whose peer was admitted. `own`: the generation in this node's introduction.
    pub(super) fn register(
        &self,
        connection: Arc<dyn Connection>,
        met: Met,
        own: Generation,
        dialed: bool,
    ) -> Registered {
        let peer = met.node.clone();
        let (proof, datacenter) =
            (proof(connection.as_ref()), datacenter(&self.host, connection.as_ref(), &peer));
        if datacenter != self.host.config().datacenter {
            self.host.services().outbound.paths.add(&datacenter, &connection);
        }
        let entered = self.host.enter(Some(&peer), &connection);
        let share = self.host.share(&peer);
        let mut said = Said::default();
        let mut inner = self.lock();
        inner.last += 1;
        let id = ConnectionId(inner.last);
        let of_peer = (self.room.for_peer(&share), share);
        let (near, of) = (Arc::clone(&connection), datacenter.clone());
        let link = Arc::new(Link::new(id, connection, peer, dialed, of_peer, entered));
        inner.links.insert(id, Arc::clone(&link));
        let new = Introduced { connection: id, met, own, dialed, proof, datacenter };
        inner.handle(&self.host, PeeringInput::Introduced(new), &mut said);
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
        if let Registered::Kept(link) | Registered::Renewed(link, _) = &registered {
            self.host.neighbour(&link.peer, of, dialed, &near);
        }
        registered
    }

    /// The connection has ended.
    pub(super) fn ended(&self, link: &Link) {
        let mut inner = self.lock();
        inner.handle(&self.host, PeeringInput::Ended(link.id), &mut Said::default());
        inner.links.remove(&link.id);
        drop(inner);
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
        let now = host.now();
        #[cfg(not(feature = "sim"))]
        self.machine.handle(now, &view, input, &mut out);
        #[cfg(feature = "sim")]
        tape::handle(host.tape(), &mut self.machine, (now, &view), input, &mut out);
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
                if let Some((_, delta)) = gossip.news()
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

impl Outboxes for Links {
    fn waiting(&self) -> (usize, usize) {
        self.lock().machine.waiting()
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
        self.host.wall()
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

/// The proofs of identity of both ends of a connection, for comparison.
fn proof(connection: &dyn Connection) -> Arc<str> {
    let proof = &connection.peer().proof;
    format!("{} {}", proof.ours.fingerprint, proof.theirs.fingerprint).into()
}

/// A peer's datacenter: by its certificate, or else what the peer reports.
fn datacenter(host: &Host, connection: &dyn Connection, peer: &NodeId) -> Datacenter {
    let proved = connection.peer().datacenter.clone();
    let told = || host.datacenter(peer).unwrap_or_else(|| host.config().datacenter.clone());
    proved.unwrap_or_else(told)
}
