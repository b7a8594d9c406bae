//! The resources of an open endpoint.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use quinn::ServerConfig;
use tokio::sync::Semaphore;

use super::{
    super::{Incoming, Place, Protocol},
    admission::Admission,
    connection::{self, QuicConnection},
    credentials::Credentials,
    outgoing::Outgoing,
    settings,
};
use crate::{
    clock::Clock,
    counters::Counters,
    tls::{Admitted, Tls},
};

/// An open endpoint.
pub(super) struct Opened {
    pub(super) outgoing: Arc<Outgoing>,
    /// One for each endpoint.
    pub(super) admissions: Mutex<Vec<Admission>>,
    pub(super) server: ServerConfig,
    pub(super) tls: Tls,
    /// Clients are accepted.
    pub(super) with_clients: AtomicBool,
    /// Calls between services are accepted.
    pub(super) with_services: AtomicBool,
    /// And those of clients.
    pub(super) with_calling_clients: AtomicBool,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) handshakes_max: usize,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
}

impl Opened {
    /// Connections of all endpoints, from the first packet to the last.
    pub(super) fn connections(&self) -> usize {
        self.outgoing.connections()
    }

    /// The next packet of an unknown peer, and the endpoint at which it arrived.
    pub(super) async fn incoming(&self) -> Option<(usize, quinn::Incoming)> {
        let mut waiting: Vec<Pin<Box<_>>> = self
            .outgoing
            .endpoints
            .iter()
            .map(|(endpoint, _)| Box::pin(endpoint.accept()))
            .collect();
        std::future::poll_fn(|context| {
            for (index, accept) in waiting.iter_mut().enumerate() {
                if let Poll::Ready(incoming) = accept.as_mut().poll(context) {
                    return Poll::Ready(incoming.map(|incoming| (index, incoming)));
                }
            }
            Poll::Pending
        })
        .await
    }

    pub(super) fn begin(&self, incoming: quinn::Incoming, place: Place) -> Incoming {
        let remote = incoming.remote_address();
        let admitted = |protocol: &AtomicBool| protocol.load(Ordering::Acquire);
        let (crypto, verdict) = self.tls.accept_for(Admitted {
            clients: admitted(&self.with_clients),
            services: admitted(&self.with_services),
            calling_clients: admitted(&self.with_calling_clients),
        });
        let mut server = self.server.clone();
        server.crypto = crypto;
        let ours = Credentials::Node(self.tls.clone(), Box::new(self.tls.identity()));
        let handshake = Box::pin(async move {
            let end = |error| connection::end(&error, &verdict);
            let connecting = incoming.accept_with(Arc::new(server)).map_err(end)?;
            let connected = connecting.await.map_err(end)?;
            let connection = QuicConnection::made(connected, &ours, verdict)?;
            if connection.protocol() == Protocol::Gossip {
                settings::widen_for_gossip(connection.as_ref());
            }
            Ok(connection)
        });
        Incoming { remote: remote.to_string(), host: remote.ip().to_string(), handshake, place }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
