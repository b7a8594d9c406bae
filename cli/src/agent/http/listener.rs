//! The TCP listener: handshakes and connections, each with a limit for all and for one source.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gossipmonger::{tls::Tls, unstable::Verdict};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Http,
    connection::{self, Link},
    places::Places,
};
use crate::agent::pause::Pause;

/// A bound address.
#[derive(Debug)]
pub(super) struct Listener(TcpListener);

impl Listener {
    /// Binds the address, within a runtime.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(TcpListener::from_std(listener)?))
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until the task is aborted, and its connections with it.
    pub(super) async fn serve(self, http: Arc<Http>, tls: Option<Tls>) {
        let (mut places, mut pause) = (Places::default(), Pause::default());
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    pause = Pause::default();
                    let (http, tls) = (Arc::clone(&http), tls.clone());
                    places.take(tls.is_some(), address, |link| async move {
                        serve(http, tls, link, address, stream).await;
                    });
                }
                Err(error) => pause.after("the address of HTTP", &error).await,
            }
        }
    }
}

async fn serve(
    http: Arc<Http>,
    tls: Option<Tls>,
    link: Link,
    address: SocketAddr,
    stream: TcpStream,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return connection::serve(&http, link, stream).await };
    let config = Arc::new(tls.rustls_http(Verdict::default()));
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let shown = shown.iter().map(|part| part.clone().into_owned()).collect();
            connection::serve(&http, link.with_chain(address, shown), stream).await;
        }
        Ok(Err(error)) => {
            http.agent.count_refused();
            tracing::debug!(%address, "a handshake over TCP failed: {error}");
        }
        Err(_) => tracing::debug!(%address, "a handshake over TCP took too long"),
    }
}

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
