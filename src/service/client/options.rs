//! The options of a client.

use std::{net::SocketAddr, time::Duration};

use crate::{
    net::limits::QuicLimits,
    protocol::{
        id::{ClusterId, Datacenter},
        service::limits::ServiceLimits,
    },
    tls::Naming,
};

/// The options of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Its limits. `connections_in`, `client_connections_in`, `connections_per_peer` and `drain` have no effect at a
    /// client.
    pub limits: ServiceLimits,
    /// Of these `handshake_timeout`, `idle_timeout`, `socket_buffer` and `gso` apply. The default `idle_timeout` of a
    /// client is 10 s: a node that does not answer for so long is lost.
    pub quic: QuicLimits,
    /// The datacenter that its calls prefer. `None`: that of the first node that answers.
    pub datacenter: Option<Datacenter>,
    /// The cluster; nodes of others are refused. `None`: the one in the client's certificate.
    pub cluster: Option<ClusterId>,
    /// The form of the names in the certificates of nodes. `None`: `spiffe://<cluster>/<datacenter>/<node>`.
    pub naming: Option<Naming>,
    /// The addresses from which it dials. None: any address and port, of each family that this host has.
    pub bind: Vec<SocketAddr>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        let quic = QuicLimits {
            idle_timeout: Duration::from_secs(10),
            socket_buffer: 0,
            ..QuicLimits::default()
        };
        Self {
            limits: ServiceLimits::default(),
            quic,
            datacenter: None,
            cluster: None,
            naming: None,
            bind: Vec::new(),
        }
    }
}
