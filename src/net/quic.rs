//! The network that nodes use: QUIC with mutual TLS 1.3 on one UDP socket per address.
//!
//! The certificate identifies a node, not its address. A completed handshake proves little to the dialer, since the
//! peer may refuse the dialer's certificate after it: so a caller regards a peer as connected only after the peer
//! has answered on a stream. The endpoint, its connections and its keys outlive the actor that uses them.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quinn::{TokioRuntime, VarInt};
use tokio::sync::{Notify, Semaphore};

use self::{
    admission::Admission,
    credentials::CredentialSource,
    dial::Race,
    noise::Noise,
    opened::Opened,
    outgoing::Outgoing,
    socket::{Socket, Unsent},
};
use super::{BoxFuture, Dial, Endpoint, Incoming, Network, NetworkError, Opening, Protocol};
use crate::{
    clock::Clock,
    protocol::id::NodeId,
    tls::{ClientRoles, Identity, LoadError, PeerName, ReloadError, Roots, Tls},
};

mod admission;
pub(crate) mod caller;
mod candidates;
mod connection;
pub(crate) mod crypto;
mod dial;
mod noise;
mod opened;
mod outgoing;
mod credentials;
pub(crate) mod peer;
mod refusal;
pub(crate) mod settings;
pub(crate) mod socket;

/// QUIC with mutual TLS 1.3, for one node.
pub struct QuicNetwork {
    tls: Tls,
    silent: Arc<AtomicBool>,
    /// The endpoint opened last.
    open: Mutex<Weak<Opened>>,
    /// Kept so that a silent socket stays bound.
    sockets: Mutex<Vec<Arc<Socket>>>,
}

/// The resources that an endpoint holds for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Handshakes in progress that others have begun, of about 42 KiB each: at most
    /// [`QuicLimits::handshakes`](super::limits::QuicLimits::handshakes).
    pub handshakes: usize,
    /// Connections, from the first packet to the last: those of members, those with a handshake in progress, and
    /// ended ones that are draining.
    pub connections: usize,
}

impl QuicNetwork {
    /// A network with this identity and these trusted roots.
    ///
    /// # Errors
    /// [`LoadError`] if they cannot be used.
    pub fn new(identity: Identity, roots: Roots) -> Result<Self, LoadError> {
        let tls = Tls::new(identity, roots)?;
        let (silent, open, sockets) = (Arc::default(), Mutex::default(), Mutex::default());
        Ok(Self { tls, silent, open, sockets })
    }

    /// Uses these from the next handshake on. Connections of nodes stay, and are renewed; clients that the new
    /// roots do not vouch for are disconnected.
    ///
    /// # Errors
    /// [`ReloadError`] if they cannot be used, or name another node; then nothing has changed.
    pub fn reload(&self, identity: Identity, roots: Roots) -> Result<(), ReloadError> {
        self.tls.reload(identity, roots)
    }

    /// The roles of clients whose certificates contain none. A client that loses its role is disconnected.
    pub fn set_roles(&self, roles: ClientRoles) {
        self.tls.set_roles(roles);
    }

    /// The present identity.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.tls.identity()
    }

    /// The resources held for others now; zero if it is not open.
    #[must_use]
    pub fn load(&self) -> Load {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        open.map_or_else(Load::default, |open| Load {
            handshakes: open.handshakes_max.saturating_sub(open.handshakes.available_permits()),
            connections: open.connections(),
        })
    }

    /// The present TLS state, which follows every reload.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Drops everything from now on, in both directions, while the sockets stay bound as long as this value
    /// lives: its peers see a crashed host. For tests and benchmarks.
    #[doc(hidden)]
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    fn bind(&self, opening: &Opening<'_>) -> Result<QuicEndpoint, NetworkError> {
        let limits = &opening.limits;
        self.check_name(&opening.name)?;
        let server = settings::server(&self.tls, limits, settings::accepted(limits));
        let (buffer, gso) = (limits.socket_buffer, limits.gso);
        let unsent = Arc::new(Notify::new());
        let bind = |address: &SocketAddr| {
            let (silent, counters) = (Arc::clone(&self.silent), Arc::clone(opening.counters));
            let noise = Noise::new(opening.endpoint_keys.connection_id, Arc::clone(&counters));
            let unsent = Unsent::new(counters, Arc::clone(&unsent));
            Socket::bind(*address, buffer, gso, silent, Some(noise), unsent).map(Arc::new)
        };
        // Bind all before the first endpoint: a socket alone is released at once if the next one fails.
        let sockets = opening.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let mut endpoints = Vec::new();
        for socket in sockets {
            let endpoint = quinn::Endpoint::new_with_abstract_socket(
                settings::endpoint(opening.endpoint_keys),
                Some(server.clone()),
                Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
                Arc::new(TokioRuntime),
            )
            .map_err(|error| NetworkError::Other(error.to_string()))?;
            endpoints.push((endpoint, socket));
        }
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) =
            endpoints.iter().map(|(_, socket)| Arc::clone(socket)).collect();
        let handshakes = Arc::new(Semaphore::new(limits.handshakes));
        let admissions = endpoints.iter().map(|_| Admission::new(*limits, Arc::clone(&handshakes)));
        let admissions = Mutex::new(admissions.collect());
        let outgoing = Outgoing::new(
            endpoints,
            CredentialSource::Node(self.tls.clone()),
            *limits,
            (opening.counters, opening.lateness),
            unsent,
        );
        let opened = Arc::new(Opened {
            outgoing: Arc::new(outgoing),
            admissions,
            server,
            tls: self.tls.clone(),
            with_clients: AtomicBool::new(false),
            with_services: AtomicBool::new(false),
            with_calling_clients: AtomicBool::new(false),
            handshakes,
            handshakes_max: limits.handshakes,
            counters: Arc::clone(opening.counters),
            clock: Clock::start(),
        });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&opened);
        Ok(QuicEndpoint(opened))
    }

    fn check_name(&self, configured: &PeerName) -> Result<(), NetworkError> {
        let identity = self.tls.identity();
        if identity.name() == configured {
            return Ok(());
        }
        Err(NetworkError::Identity(format!(
            "the certificate is of {}, the configuration says {}/{}/{}",
            identity.name(),
            configured.cluster,
            configured.datacenter,
            configured.node
        )))
    }
}

impl fmt::Debug for QuicNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicNetwork")
            .field("name", self.tls.identity().name())
            .finish_non_exhaustive()
    }
}

impl Network for QuicNetwork {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>> {
        Box::pin(async move {
            let open: Arc<dyn Endpoint> = Arc::new(self.bind(&opening)?);
            Ok(open)
        })
    }
}

impl Drop for QuicNetwork {
    fn drop(&mut self) {
        // A silent socket has stayed bound for as long as this value. Any other one belongs to its endpoint.
        if self.silent.swap(false, Ordering::Relaxed) {
            let sockets = self.sockets.get_mut().unwrap_or_else(PoisonError::into_inner);
            sockets.iter().for_each(|socket| socket.release());
        }
    }
}

/// The endpoint of one node.
#[derive(Debug)]
struct QuicEndpoint(Arc<Opened>);

impl Endpoint for QuicEndpoint {
    fn addresses(&self) -> Vec<String> {
        self.0.outgoing.endpoints.iter().map(|(_, socket)| socket.address().to_string()).collect()
    }

    fn tls(&self) -> Option<&Tls> {
        Some(&self.0.tls)
    }

    fn admit(&self, protocol: Protocol) {
        match protocol {
            Protocol::Gossip => {}
            Protocol::Clients => self.0.with_clients.store(true, Ordering::Release),
            Protocol::Services => self.0.with_services.store(true, Ordering::Release),
        }
    }

    fn admit_clients_to_services(&self) {
        self.0.with_calling_clients.store(true, Ordering::Release);
    }

    fn accept(&self) -> BoxFuture<'_, Option<Incoming>> {
        Box::pin(async {
            let opened = &self.0;
            loop {
                let (index, incoming) = opened.incoming().await?;
                let (connections, now) = (opened.connections(), opened.clock.now());
                let mut admissions =
                    opened.admissions.lock().unwrap_or_else(PoisonError::into_inner);
                let admitted =
                    admissions[index].admit(incoming, connections, now, &opened.counters);
                drop(admissions);
                if let Some((incoming, permit)) = admitted {
                    return Some(opened.begin(incoming, Box::new(permit)));
                }
            }
        })
    }

    fn dial(&self, to: &[String], expected: Option<&NodeId>, protocol: Protocol) -> Box<dyn Dial> {
        Box::new(Race::new(&self.0.outgoing, to, expected, protocol))
    }

    fn release(&self) {
        self.0.outgoing.endpoints.iter().for_each(|(_, socket)| socket.release());
    }

    fn close<'a>(&'a self, code: u32, words: &'a [u8]) -> BoxFuture<'a, ()> {
        Box::pin(close_endpoints(&self.0.outgoing.endpoints, code, words))
    }
}

/// Closes all connections with this code and text, and releases the addresses.
async fn close_endpoints(endpoints: &[(quinn::Endpoint, Arc<Socket>)], code: u32, words: &[u8]) {
    for (endpoint, _) in endpoints {
        endpoint.close(VarInt::from_u32(code), words);
    }
    for (endpoint, socket) in endpoints {
        // Peers that are gone do not acknowledge the close.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, pin!(endpoint.wait_idle())).await;
        if tokio::time::timeout(RELEASE_TIMEOUT, socket.released()).await.is_err() {
            tracing::error!(address = %socket.address(), "the address is still in use");
        }
    }
}

/// How long closing waits for peers to acknowledge it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// How long closing waits for tasks that are using a socket.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
