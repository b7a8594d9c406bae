//! The server of `ractor_cluster`, without a way in from outside.
//!
//! It always listens on TCP. Here it listens on loopback, with TLS for which it has no certificate: every handshake
//! there fails. Its cookie is no secret, since sessions come from streams alone, and certificates prove who
//! opened those.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use ractor_cluster::{
    BoxRead, BoxWrite, ClusterBidiStream, IncomingEncryptionMode, NodeServer, NodeServerMessage,
    node::NodeConnectionMode,
};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use super::guard::FRAME_BYTES_MAX;
use crate::{
    protocol::id::{Generation, NodeId},
    tls::provider::provider,
};

/// Starts it as a child of `supervisor`. Its name is [`ractor_name`](super::name::ractor_name).
pub(super) async fn serve(
    node: &NodeId,
    generation: Generation,
    supervisor: ActorCell,
) -> Result<ActorRef<NodeServerMessage>, SpawnErr> {
    let server = NodeServer::new(
        0,
        COOKIE.to_owned(),
        node.to_string(),
        generation.0.to_string(),
        Some(IncomingEncryptionMode::Tls(closed())),
        // Transitive mode would dial others by plain TCP.
        Some(NodeConnectionMode::Isolated),
    );
    let server = server
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .with_max_inbound_frame_size(FRAME_BYTES_MAX);
    Actor::spawn_linked(None, server, (), supervisor).await.map(|(server, _)| server)
}

/// Accepts nobody.
fn closed() -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap_or_else(|error| unreachable!("the provider has TLS 1.3: {error}"))
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    TlsAcceptor::from(Arc::new(config))
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// A stream between two nodes, as the server takes it.
pub(super) struct MeshStream {
    pub(super) reader: BoxRead,
    pub(super) writer: BoxWrite,
    /// Of this session alone: reports of the server name it.
    pub(super) label: String,
}

impl ClusterBidiStream for MeshStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (self.reader, self.writer)
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

const COOKIE: &str = "gossipmonger";
