//! What an open endpoint dials with.

use std::{fmt, sync::Arc, time::Duration};

use quinn::TransportConfig;
use tokio::sync::{Notify, Semaphore};

use super::{credentials::CredentialSource, settings, socket::Socket};
use crate::{
    counters::Counters,
    lateness::Lateness,
    net::{Protocol, limits::QuicLimits},
};

/// What an open endpoint dials with.
pub(super) struct Outgoing {
    pub(super) endpoints: Vec<(quinn::Endpoint, Arc<Socket>)>,
    pub(super) credentials: CredentialSource,
    pub(super) gossip: Arc<TransportConfig>,
    pub(super) calls: Arc<TransportConfig>,
    pub(super) limits: QuicLimits,
    pub(super) counters: Arc<Counters>,
    /// How late the node is served.
    pub(super) lateness: Arc<Lateness>,
    /// Limits the resolution of names by the system.
    pub(super) names: Arc<Semaphore>,
    /// Signals that the system has refused a packet.
    pub(super) unsent: Arc<Notify>,
}

impl Outgoing {
    /// What a node dials with.
    pub(super) fn new(
        endpoints: Vec<(quinn::Endpoint, Arc<Socket>)>,
        credentials: CredentialSource,
        limits: QuicLimits,
        (counters, lateness): (&Arc<Counters>, &Arc<Lateness>),
        unsent: Arc<Notify>,
    ) -> Self {
        Self {
            endpoints,
            credentials,
            gossip: settings::dialed(&limits, Duration::ZERO),
            calls: settings::calling(&limits, Duration::ZERO),
            limits,
            counters: Arc::clone(counters),
            lateness: Arc::clone(lateness),
            names: Arc::new(Semaphore::new(RESOLVES_MAX)),
            unsent,
        }
    }

    /// The limits of a connection for this protocol.
    pub(super) fn transport(&self, protocol: Protocol) -> Arc<TransportConfig> {
        let lag = self.lateness.lag();
        let late = lag * 2 > settings::INITIAL_RTT;
        match protocol {
            Protocol::Services if late => settings::calling(&self.limits, lag),
            Protocol::Services => Arc::clone(&self.calls),
            Protocol::Gossip | Protocol::Clients if late => settings::dialed(&self.limits, lag),
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
const RESOLVES_MAX: usize = 32;
