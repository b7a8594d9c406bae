//! What an open endpoint dials with.

use std::{fmt, sync::Arc, time::Duration};

use quinn::TransportConfig;
use tokio::sync::{Notify, Semaphore};

use super::{credentials::CredentialSource, socket::Socket};
use crate::net::Protocol;

/// What an open endpoint dials with.
pub(super) struct Outgoing {
    pub(super) endpoints: Vec<(quinn::Endpoint, Arc<Socket>)>,
    pub(super) credentials: CredentialSource,
    pub(super) gossip: Arc<TransportConfig>,
    pub(super) calls: Arc<TransportConfig>,
    pub(super) handshake_timeout: Duration,
    /// Limits the resolution of names by the system.
    pub(super) names: Arc<Semaphore>,
    /// Signals that the system has refused a packet.
    pub(super) unsent: Arc<Notify>,
}

impl Outgoing {
    /// The limits of a connection for this protocol.
    pub(super) fn transport(&self, protocol: Protocol) -> Arc<TransportConfig> {
        match protocol {
            Protocol::Services => Arc::clone(&self.calls),
            Protocol::Gossip | Protocol::Clients => Arc::clone(&self.gossip),
        }
    }

    /// Connections of all endpoints, from the first packet to the last.
    pub(super) fn connections(&self) -> usize {
        self.endpoints.iter().map(|(endpoint, _)| endpoint.open_connections()).sum()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// Concurrent resolutions of names. Each takes a thread until the system answers.
pub(super) const RESOLVES_MAX: usize = 32;
