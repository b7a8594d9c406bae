//! The metrics over HTTP: one page for each connection, with a limit on connections and on the time of each.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::pause::Pause;

/// Connections at once; further ones wait for a free place.
const CONNECTIONS_MAX: usize = 16;
/// The time limit from its first byte to the last one of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// The bound address.
#[derive(Debug)]
pub(super) struct Scrapes(TcpListener);

impl Scrapes {
    /// Binds the address, within a runtime.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(TcpListener::from_std(listener)?))
    }

    /// The bound address.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until the task is aborted. `page`: renders the metrics.
    pub(super) async fn serve(self, page: impl Fn() -> String + Clone + Send + Sync + 'static) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (mut connections, mut pause) = (JoinSet::new(), Pause::default());
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.0.accept().await {
                Ok((stream, _)) => {
                    pause = Pause::default();
                    let page = page.clone();
                    connections.spawn(async move {
                        // An error affects only this connection.
                        let _ = tokio::time::timeout(TIMEOUT, answer(stream, &page)).await;
                        drop(permit);
                    });
                }
                Err(error) => pause.after("the address of the metrics", &error).await,
            }
        }
    }
}

async fn answer(mut stream: TcpStream, page: &(impl Fn() -> String + Sync)) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return stream.write_all(&response("400 Bad Request", "no request\n")).await;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let answer = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics" | b"/")) => response("200 OK", &page()),
        (Some(b"GET"), _) => response("404 Not Found", "the metrics are at /metrics\n"),
        _ => response("405 Method Not Allowed", "GET is allowed\n"),
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

fn response(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
