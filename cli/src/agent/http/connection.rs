//! One connection that speaks HTTP/1.1.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Http, patient::Patient};
use crate::agent::server::{Agent, Who};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Link {
    end: End,
    state: Arc<State>,
}

/// What is at the other end.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The owner of the directory, on the Unix socket.
    Owner,
    /// Somebody at this address.
    Remote {
        address: SocketAddr,
        /// The chain that it has shown in its handshake; `None`: there was none, since TLS is off.
        shown: Option<Arc<Vec<CertificateDer<'static>>>>,
    },
}

#[derive(Debug, Default)]
struct State {
    /// The client that it has first proved to be.
    client: OnceLock<String>,
    /// The node ends when this connection has.
    ends: AtomicBool,
}

/// Ends the node after a connection.
pub(super) struct Ends(Arc<State>);

impl Ends {
    pub(super) fn end_node(&self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }
}

impl Link {
    pub(in crate::agent) fn owner() -> Self {
        Self { end: End::Owner, state: Arc::default() }
    }

    pub(super) fn remote(address: SocketAddr, shown: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self { end: End::Remote { address, shown: shown.map(Arc::new) }, state: Arc::default() }
    }

    /// The same connection after its handshake.
    pub(super) fn with_chain(
        self,
        address: SocketAddr,
        shown: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { end: End::Remote { address, shown: Some(Arc::new(shown)) }, ..self }
    }

    pub(super) const fn end(&self) -> &End {
        &self.end
    }

    /// It has proved who it is.
    pub(super) fn known(&self, who: &Who) {
        if let Who::Guest(guest) = who {
            self.state.client.get_or_init(|| guest.name.clone());
        }
    }

    /// The client that it has first proved to be.
    pub(super) fn client(&self) -> Option<&str> {
        self.state.client.get().map(String::as_str)
    }

    pub(super) fn ends(&self) -> Ends {
        Ends(Arc::clone(&self.state))
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state.ends.load(Ordering::Relaxed)
    }
}

/// Serves a connection until it ends.
pub(in crate::agent) async fn serve<S>(http: &Arc<Http>, link: Link, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|request| {
        let (http, link) = (Arc::clone(http), link.clone());
        async move { http.answer(&link, request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), answer);
    let ended = tokio::select! {
        biased;
        ended = connection => ended,
        // The last answer has been passed on; a client that does not read it does not delay the end.
        () = leaving(&http.agent) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!("a connection over HTTP broke: {error}");
    }
    if link.is_ending() {
        http.agent.node.shutdown().await;
    }
}

/// Resolves some time after the node has ended, so that streams can end in an orderly way.
async fn leaving(agent: &Agent) {
    agent.node.ended().await;
    tokio::time::sleep(LAST_ANSWER_TIME).await;
}

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most lines of a head.
const HEADERS_MAX: usize = 64;
/// How long the last answer of a node that ends may take.
const LAST_ANSWER_TIME: Duration = Duration::from_secs(1);
