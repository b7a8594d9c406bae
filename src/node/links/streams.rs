//! The streams for gossip: one from each end of a connection, opened with the first frame.

use bytes::Bytes;

use super::{
    exchange::ExchangeError,
    frames::{self, Incoming},
    gossip,
    link::Link,
    table::Links,
};
use crate::{
    net::{Ended, ReceiveStream, SendStream, StreamError},
    protocol::{peering::Next, route::Counter},
};

/// Sends the peer the queued frames until the connection ends.
pub(super) async fn send(links: &Links, link: &Link) -> Ended {
    let mut batch = Vec::new();
    let mut stream: Option<Box<dyn SendStream>> = None;
    loop {
        if batch.is_empty() {
            batch.push(next(links, link).await);
        }
        if stream.is_none() {
            // The peer may refuse to let us open it: then all frames wait here, within the limits of the queue.
            match link.connection.open_one_way().await {
                Ok(mut opened) => {
                    opened.set_priority(PRIORITY);
                    stream = Some(opened);
                }
                Err(ended) => return ended,
            }
        }
        // Frames that wait are sent together.
        let mut bytes: usize = batch.iter().map(Bytes::len).sum();
        while bytes < BATCH_BYTES
            && let Next::Frame(_, frame) = links.next(link)
        {
            bytes += frame.len();
            batch.push(frame);
        }
        let Some(opened) = &mut stream else { continue };
        links.host().counters().add(Counter::GossipSent, batch.len() as u64);
        match opened.write(&mut batch).await {
            Ok(()) => batch = Vec::new(),
            Err(StreamError::Connection(ended)) => return ended,
            // The task that read it has ended there, and another one comes: reconciliation repairs the loss of data
            // in flight.
            Err(StreamError::Stream(_)) => (stream, batch) = (None, Vec::new()),
        }
    }
}

/// The next frame, once one waits and the budget allows it. Only one task of a connection waits for it.
async fn next(links: &Links, link: &Link) -> Bytes {
    loop {
        match links.next(link) {
            Next::Frame(_, frame) => return frame,
            Next::Nothing => link.filled.notified().await,
            // Liveness frames may arrive meanwhile, and do not have to wait.
            Next::Wait(pause) => drop(tokio::time::timeout(pause, link.filled.notified()).await),
        }
    }
}

/// Receives the peer's frames until the connection ends.
pub(super) async fn hear(links: &Links, link: &Link) -> Ended {
    loop {
        let stream = match link.connection.accept_one_way().await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        // Boxed, since most connections wait here most of the time.
        if let Err(error) = Box::pin(listen(links, link, stream)).await {
            if error.is_misbehaviour() {
                links.misbehaved(link, &error);
            } else {
                tracing::debug!(node = %links.host().node(), peer = %link.peer, %error, "gossip lost");
            }
        }
    }
}

async fn listen(
    links: &Links,
    link: &Link,
    stream: Box<dyn ReceiveStream>,
) -> Result<(), ExchangeError> {
    let mut incoming = Incoming::new(stream);
    loop {
        let frames = incoming.together(links.host(), link).await;
        let frames = frames.inspect_err(|error| frames::count(links.host(), error))?;
        if frames.is_empty() {
            return Ok(());
        }
        gossip::hear(links, link, &frames).await?;
    }
}

/// Higher than that of exchanges, which is zero: news and liveness must not wait for bulk.
const PRIORITY: i32 = 1;
/// Bytes passed to the connection at once.
const BATCH_BYTES: usize = 32 << 10;
