//! A client: a program that calls services and is not a member of the cluster.
//!
//! It has a client certificate ([`ClientIdentity`]), and knows the addresses of some nodes. From one of them, its host, it
//! reads what it may call, and each change of that, through the built-in service `gossipmonger.directory`. It dials the
//! providers itself. A node offers the directory as long as it offers a service to clients, or keeps a
//! [`DirectoryOffer`](super::DirectoryOffer).
//!
//! ```no_run
//! # use gossipmonger::{service::client::{Client, ClientOptions}, tls::{ClientIdentity, Roots}};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct Level(String);
//! # gossipmonger::service! {
//! #     struct Stock = "stock", 1.0;
//! #     1: call Level -> Option<u32>, idempotent;
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = ClientIdentity::from_pem_files("till.pem", "till.key")?;
//! let roots = Roots::from_pem_file("roots.pem")?;
//! let hosts = ["a.example:7101", "b.example:7101"];
//! let client = Client::connect(hosts, identity, roots, ClientOptions::default()).await?;
//! let level = client.service::<Stock>().call(Level("tea".into())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the client believes
//!
//! A node's certificate proves its name, whatever address it was dialed at. What is offered, at which addresses, and
//! which nodes are dead, the client knows only from its host, and believes it: see `SECURITY.md` in the repository.

use std::sync::Arc;

use super::{
    Listed, Service,
    calling::Callee,
    id,
    remote::{Address, OtherService, Remote},
    stub::Stub,
};
use crate::{
    clock::Clock,
    counters::Counters,
    net::{NetworkError, quic::caller::CallerEndpoint},
    node::config::{ConfigError, check},
    protocol::id::NodeId,
    tls::{CallerTls, ClientIdentity, LoadError, Roots},
};

mod handle;
mod inner;
mod options;
mod row;
mod watching;

pub use self::options::ClientOptions;
use self::{handle::Handle, inner::Inner};

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was given.
    #[error("no address of a node was given")]
    NoHosts,
    /// An address or a limit is refused.
    #[error(transparent)]
    Options(#[from] ConfigError),
    /// The certificate has no URI of the form `spiffe://<cluster>/client/<role>/<name>`, which would name the cluster.
    #[error(
        "the client's certificate does not name the cluster: set `cluster` in the options, so that nodes of others are refused"
    )]
    NoCluster,
    /// The roots cannot be used.
    #[error(transparent)]
    Tls(#[from] LoadError),
    /// No socket could be bound.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// None of the nodes has answered with its directory. Each address, and why.
    #[error("no node has answered: {}", shown(.0))]
    Unanswered(Vec<(String, String)>),
}

fn shown(failures: &[(String, String)]) -> String {
    let failures = failures.iter().map(|(host, why)| format!("{host}: {why}"));
    failures.collect::<Vec<_>>().join("; ")
}

/// A program that calls services and is not a member of the cluster. Cheap to clone. Dropping the last clone, and the last
/// stub that was made from it, closes its connections.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

impl Client {
    /// Connects to the first of these nodes that answers, `host:port` each, and reads its directory. If that node is lost
    /// later, the client tries the next one, and then nodes that it has found in the directory.
    ///
    /// It runs in the present tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect<A: Into<String>>(
        hosts: impl IntoIterator<Item = A>,
        identity: ClientIdentity,
        roots: Roots,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let hosts: Vec<String> = hosts.into_iter().map(Into::into).collect();
        if hosts.is_empty() {
            return Err(ConnectError::NoHosts);
        }
        hosts.iter().try_for_each(|host| check::address("hosts", host))?;
        check::services(&options.limits)?;
        check::quic(&options.quic)?;
        let named = identity.name().map(|name| name.cluster);
        let cluster = options.cluster.clone().or(named).ok_or(ConnectError::NoCluster)?;
        let name = identity.name().map_or_else(|| "client".to_owned(), |name| name.to_uri());
        let naming = options.naming.clone().unwrap_or_default();
        let tls = CallerTls::new(identity, roots, cluster, naming)?;
        let counters = Arc::new(Counters::default());
        let endpoint = CallerEndpoint::open(tls.clone(), &options.quic, &options.bind, &counters)?;
        let inner = Inner::new(name, (tls, Arc::new(endpoint)), counters, options, Clock::start());
        let inner = Arc::new(inner);
        let handle = Handle::new(Arc::clone(&inner));
        handle.spawn(watching::run(inner, hosts));
        handle.read_first().await.map_err(ConnectError::Unanswered)?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Calls a service at whatever live nodes offer it to this client.
    ///
    /// # Panics
    /// If the name of the service is not a label.
    #[must_use]
    pub fn service<S: Service>(&self) -> Stub<S> {
        Stub::new(self.callee::<S>())
    }

    /// The service that an address names.
    ///
    /// # Errors
    /// [`OtherService`] if the address names another service than `S`, or another major version of it.
    pub fn bind<S: Service>(&self, address: Address<S>) -> Result<Remote<S>, OtherService> {
        Remote::bind(self.callee::<S>(), address)
    }

    fn callee<S: Service>(&self) -> Callee {
        Callee::new(Arc::<Handle>::clone(&self.handle), id::<S>())
    }

    /// What this client may call, by service, datacenter and node, as its [`Client::host`] lists it.
    #[must_use]
    pub fn offered(&self) -> Vec<Listed> {
        self.handle.offered()
    }

    /// The node from which this client reads what is offered; `None` while it looks for one. Meanwhile the client calls by
    /// what it read last.
    #[must_use]
    pub fn host(&self) -> Option<NodeId> {
        self.handle.host()
    }

    /// Uses this certificate and these roots from the next handshake on, for example after a renewal. Open connections
    /// stay until the certificate ends that they were opened with.
    ///
    /// # Errors
    /// [`LoadError`] if the roots cannot be used; then nothing has changed.
    pub fn reload(&self, identity: ClientIdentity, roots: Roots) -> Result<(), LoadError> {
        self.handle.reload(identity, roots)
    }

    /// As [`Gossipmonger::set_propagator`](crate::Gossipmonger::set_propagator), for the calls of this client.
    pub fn set_propagator(&self, propagator: Arc<dyn super::Propagator>) {
        self.handle.set_propagator(propagator);
    }

    /// The counters of this client.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.handle.counters()
    }

    /// Closes all connections. Calls in progress, and all later ones, fail with
    /// [`Stopped`](super::NotRun::Stopped).
    pub async fn close(&self) {
        self.handle.close().await;
    }
}
