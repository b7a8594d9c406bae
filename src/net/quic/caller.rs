//! The endpoint of a client that calls services: it dials nodes, and is dialed by nobody.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use quinn::{EndpointConfig, TokioRuntime};
use tokio::sync::Notify;

use super::{
    close_endpoints,
    credentials::CredentialSource,
    dial::Race,
    outgoing::Outgoing,
    socket::{Socket, Unsent},
};
use crate::{
    counters::Counters,
    net::{BoxFuture, Dial, Endpoint, Incoming, NetworkError, Protocol, limits::QuicLimits},
    protocol::id::NodeId,
    tls::CallerTls,
};

/// The endpoint of one client.
#[derive(Debug)]
pub(crate) struct CallerEndpoint(Arc<Outgoing>);

impl CallerEndpoint {
    /// Binds a socket of each family that this host has, or these addresses.
    ///
    /// # Errors
    /// [`NetworkError`] if none of them can be bound, or one that was given cannot.
    pub(crate) fn open(
        tls: CallerTls,
        limits: &QuicLimits,
        bind: &[SocketAddr],
        counters: &Arc<Counters>,
    ) -> Result<Self, NetworkError> {
        let unsent = Arc::new(Notify::new());
        let open = |address: &SocketAddr| {
            let refused = Unsent::new(Arc::clone(counters), Arc::clone(&unsent));
            let silent = Arc::default();
            let socket =
                Socket::bind(*address, limits.socket_buffer, limits.gso, silent, None, refused)?;
            let socket = Arc::new(socket);
            let endpoint = quinn::Endpoint::new_with_abstract_socket(
                EndpointConfig::default(),
                None,
                Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
                Arc::new(TokioRuntime),
            );
            let endpoint = endpoint.map_err(|error| NetworkError::Other(error.to_string()))?;
            Ok((endpoint, socket))
        };
        let any: [SocketAddr; 2] =
            [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let endpoints = if bind.is_empty() {
            // A host may have one family only.
            let opened: Vec<Result<_, NetworkError>> = any.iter().map(open).collect();
            match opened.iter().any(Result::is_ok) {
                true => opened.into_iter().flatten().collect(),
                false => opened.into_iter().collect::<Result<Vec<_>, _>>()?,
            }
        } else {
            bind.iter().map(open).collect::<Result<Vec<_>, _>>()?
        };
        let credentials = CredentialSource::Client(tls);
        let shared = (counters, &Arc::default());
        Ok(Self(Arc::new(Outgoing::new(endpoints, credentials, *limits, shared, unsent))))
    }
}

impl Endpoint for CallerEndpoint {
    fn addresses(&self) -> Vec<String> {
        Vec::new()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Incoming>> {
        Box::pin(std::future::ready(None))
    }

    fn dial(&self, to: &[String], expected: Option<&NodeId>, protocol: Protocol) -> Box<dyn Dial> {
        Box::new(Race::new(&self.0, to, expected, protocol))
    }

    fn close<'a>(&'a self, code: u32, words: &'a [u8]) -> BoxFuture<'a, ()> {
        Box::pin(close_endpoints(&self.0.endpoints, code, words))
    }

    fn release(&self) {
        self.0.endpoints.iter().for_each(|(_, socket)| socket.release());
    }
}
