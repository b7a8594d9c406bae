//! The default transport: QUIC with mutual TLS 1.3 on one UDP socket per address.
//!
//! One connection per peer, kept by name and never by address. A peer is connected only after it has
//! introduced itself (`Hello`, `Welcome`) and its certificate has borne it out: an accepted handshake
//! proves little to the dialer, whose own certificate may be rejected after it. Every exchange is a
//! bidirectional stream; gossip goes on one long-lived stream each way; who dialed keeps the connection
//! alive, which is the heartbeat. Endpoint, connections and keys outlive the
//! actor; its tasks do not, and the next actor's tasks serve the same connections.
//!
//! By a protocol of their own, on the same port, [`clients`] may ask the node for something.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quinn::{Endpoint, ServerConfig, TokioRuntime, TransportConfig};
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use tokio::sync::{Notify, Semaphore};

use self::{
    actor::Quic,
    clients::{ClientHandler, Clients},
    close::Close,
    conduct::Conduct,
    frames::Room,
    noise::Noise,
    socket::{Socket, Unsent},
    table::Table,
};
use super::{BoxFuture, NodeLink, OpenTransport, Opening, Transport, TransportError};
use crate::{
    protocol::{
        revocation::{Authorities, Revocations},
        route::TransportInput,
        seal::Notary,
        sketch::SketchKey,
    },
    tls::{ClientRoles, Identity, LoadError, PeerName, ReloadError, Roots, Tls},
};

mod accept;
mod actor;
mod admission;
mod candidates;
pub mod clients;
mod close;
mod conduct;
pub mod crypto;
mod dial;
mod expiry;
mod frames;
mod gossip;
mod introduce;
mod life;
mod noise;
pub mod peer;
mod refusal;
mod serve;
mod settings;
pub(crate) mod socket;
mod table;
mod tasks;

pub use conduct::{FORGIVEN_PER_SECOND, OFFENDERS_MAX, THROTTLED_MAX};
pub use settings::BULK_WINDOW;

/// QUIC with mutual TLS 1.3, for one node.
pub struct QuicTransport {
    tls: Tls,
    clients: Arc<Clients>,
    silent: Arc<AtomicBool>,
    /// What was opened last.
    open: Mutex<Weak<Shared>>,
    /// Kept so that a silent socket stays bound.
    sockets: Mutex<Vec<Arc<Socket>>>,
}

/// What a transport holds for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Handshakes under way that others have begun: at most [`QuicLimits::handshakes`], of about
    /// 42 KiB each.
    ///
    /// [`QuicLimits::handshakes`]: crate::transport::limits::QuicLimits::handshakes
    pub handshakes: usize,
    /// Connections, from the first packet to the last: of members, of those whose handshake is under
    /// way, and of those that have ended and are draining.
    pub connections: usize,
}

impl QuicTransport {
    /// A transport that shows this identity and trusts these roots.
    ///
    /// # Errors
    /// [`LoadError`] if they cannot be used.
    pub fn new(identity: Identity, roots: Roots) -> Result<Self, LoadError> {
        let tls = Tls::new(identity, roots)?;
        let (silent, open, sockets) = (Arc::default(), Mutex::default(), Mutex::default());
        Ok(Self { tls, clients: Arc::default(), silent, open, sockets })
    }

    /// Shows and trusts these from the next handshake on. Connections of nodes stay; clients that the
    /// new roots do not vouch for are sent away.
    ///
    /// # Errors
    /// [`ReloadError`] if they cannot be used, or name another node: nothing has changed.
    pub fn reload(&self, identity: Identity, roots: Roots) -> Result<(), ReloadError> {
        self.tls.reload(identity, roots)?;
        self.recheck();
        Ok(())
    }

    /// Lets clients in, and hands their requests over. Only the first handler counts; says whether it is
    /// this one. Before, and without one, a client is refused as who speaks no common version.
    pub fn serve_clients(&self, handler: Arc<dyn ClientHandler>) -> bool {
        self.clients.handle(handler)
    }

    /// The roles of clients whose certificates do not say theirs. Who loses its role is sent away.
    pub fn set_roles(&self, roles: ClientRoles) {
        self.tls.set_roles(roles);
        self.recheck();
    }

    /// Looks again at the certificates of those who are connected: whatever makes one be accepted has
    /// changed.
    fn recheck(&self) {
        self.clients.recheck();
    }

    /// The identity shown at present.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.tls.identity()
    }

    /// What is held for others at this moment; nothing if it is not open.
    #[must_use]
    pub fn load(&self) -> Load {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        open.map_or_else(Load::default, |shared| Load {
            handshakes: shared.handshakes_max.saturating_sub(shared.handshakes.available_permits()),
            connections: shared.connections(),
        })
    }

    /// What is shown and trusted at present, and after every reload.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Drops everything from now on, both ways, while the sockets stay bound for as long as this
    /// value lives: a crashed host, as peers see it. For tests and benchmarks.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    fn bind(&self, opening: &Opening<'_>) -> Result<Open, TransportError> {
        let limits = &opening.limits;
        self.check_name(&opening.name)?;
        let server = settings::server(&self.tls, limits, settings::transport(limits, false));
        let (buffer, gso) = (limits.socket_buffer, limits.gso);
        let unsent = Arc::new(Notify::new());
        let bind = |address: &std::net::SocketAddr| {
            let (silent, counters) = (Arc::clone(&self.silent), Arc::clone(opening.counters));
            let noise = Noise::new(opening.endpoint_keys.connection_id, Arc::clone(&counters));
            let unsent = Unsent::new(counters, Arc::clone(&unsent));
            Socket::bind(*address, buffer, gso, silent, Some(noise), unsent).map(Arc::new)
        };
        // All before the first endpoint: a socket alone is given back at once if the next one fails.
        let sockets = opening.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let mut endpoints = Vec::new();
        for socket in sockets {
            let endpoint = Endpoint::new_with_abstract_socket(
                settings::endpoint(opening.endpoint_keys),
                Some(server.clone()),
                Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
                Arc::new(TokioRuntime),
            )
            .map_err(|error| TransportError::Other(error.to_string()))?;
            endpoints.push((endpoint, socket));
        }
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) =
            endpoints.iter().map(|(_, socket)| Arc::clone(socket)).collect();
        let shared = Arc::new(Shared {
            endpoints,
            server,
            dialing: settings::transport(limits, true),
            tls: self.tls.clone(),
            clients: Arc::clone(&self.clients),
            table: Table::default(),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            handshakes_max: limits.handshakes,
            exchanges: Arc::new(Semaphore::new(limits.exchanges)),
            dials: Arc::new(Semaphore::new(DIALS_MAX)),
            names: Arc::new(Semaphore::new(RESOLVES_MAX)),
            unsent,
            room: Room::default(),
            conduct: Arc::default(),
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&shared);
        Ok(Open(shared))
    }

    fn check_name(&self, configured: &PeerName) -> Result<(), TransportError> {
        let identity = self.tls.identity();
        if identity.name() == configured {
            return Ok(());
        }
        Err(TransportError::Identity(format!(
            "the certificate is of {}, the configuration says {}/{}/{}",
            identity.name(),
            configured.cluster,
            configured.datacenter,
            configured.node
        )))
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("name", self.tls.identity().name())
            .finish_non_exhaustive()
    }
}

impl Transport for QuicTransport {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn OpenTransport>, TransportError>> {
        Box::pin(async move {
            let open: Arc<dyn OpenTransport> = Arc::new(self.bind(&opening)?);
            Ok(open)
        })
    }
}

/// What outlives the actor.
#[derive(Debug)]
struct Shared {
    endpoints: Vec<(Endpoint, Arc<Socket>)>,
    server: ServerConfig,
    dialing: Arc<TransportConfig>,
    tls: Tls,
    clients: Arc<Clients>,
    table: Table,
    handshakes: Arc<Semaphore>,
    handshakes_max: usize,
    exchanges: Arc<Semaphore>,
    dials: Arc<Semaphore>,
    /// For questions to the system which addresses a name has.
    names: Arc<Semaphore>,
    /// Tells that the system has refused a packet.
    unsent: Arc<Notify>,
    room: Room,
    conduct: Arc<Conduct>,
}

impl Shared {
    /// Connections of all endpoints, from the first packet to the last.
    fn connections(&self) -> usize {
        self.endpoints.iter().map(|(endpoint, _)| endpoint.open_connections()).sum()
    }
}

#[derive(Debug)]
struct Open(Arc<Shared>);

impl OpenTransport for Open {
    fn addresses(&self) -> Vec<String> {
        self.0.endpoints.iter().map(|(_, socket)| socket.address().to_string()).collect()
    }

    fn sketch_key(&self) -> SketchKey {
        self.0.tls.sketch_key()
    }

    fn notary(&self) -> Option<Arc<dyn Notary>> {
        Some(Arc::new(self.0.tls.clone()))
    }

    fn validity(&self) -> Option<(u64, u64)> {
        Some(self.0.tls.validity())
    }

    fn authorities(&self) -> Option<Arc<dyn Authorities>> {
        Some(Arc::new(self.0.tls.clone()))
    }

    fn revoke(&self, node: &NodeLink, revocations: &Arc<Revocations>) {
        for link in self.0.table.all() {
            link.close_if_revoked(node, &self.0.tls, revocations);
        }
        self.0.clients.recheck();
    }

    fn start(
        &self,
        node: NodeLink,
        supervisor: ActorCell,
    ) -> BoxFuture<'_, Result<ActorRef<TransportInput>, SpawnErr>> {
        let arguments = (Arc::clone(&self.0), node);
        Box::pin(async move {
            let (actor, _) = Actor::spawn_linked(None, Quic, arguments, supervisor).await?;
            Ok(actor)
        })
    }

    fn release(&self) {
        self.0.endpoints.iter().for_each(|(_, socket)| socket.release());
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for (endpoint, _) in &self.0.endpoints {
                endpoint.close(quinn::VarInt::from_u32(Close::Shutdown as u32), b"shutting down");
            }
            for (endpoint, socket) in &self.0.endpoints {
                // Peers that are gone do not acknowledge the close.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
                if tokio::time::timeout(RELEASE_TIMEOUT, socket.released()).await.is_err() {
                    tracing::error!(address = %socket.address(), "the address is still in use");
                }
            }
        })
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        // A silent socket has stayed bound for as long as this value.
        self.silent.store(false, Ordering::Relaxed);
        let sockets = self.sockets.get_mut().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().for_each(|socket| socket.release());
    }
}

/// Dials of one node under way at once.
const DIALS_MAX: usize = 32;
/// Questions for the addresses of names under way at once. Each takes a thread until the system answers.
const RESOLVES_MAX: usize = 32;
/// How long closing waits for peers to acknowledge it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// How long closing waits for those who are in the middle of using a socket.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
