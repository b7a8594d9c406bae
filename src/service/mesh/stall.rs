//! The writing half of a session: it fails if the peer takes nothing for long.
//!
//! The queue in front of it is upstream's, and has no limit. So what bounds it is time: a session that makes no
//! progress ends, and its queue with it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

use super::figures::MeshFigures;
use crate::protocol::id::NodeId;

/// A session ends if its peer takes no byte for so long while some wait.
pub const STALL: Duration = Duration::from_secs(10);

/// The writing half of a session.
pub(super) struct Measured<W> {
    writer: W,
    waits: Option<Pin<Box<Sleep>>>,
    node: NodeId,
    figures: Arc<MeshFigures>,
}

impl<W> Measured<W> {
    pub(super) const fn new(writer: W, node: NodeId, figures: Arc<MeshFigures>) -> Self {
        Self { writer, waits: None, node, figures }
    }

    /// The result of a write, or the end of the patience with it.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(STALL)));
        if waits.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.figures.stall();
        tracing::warn!(peer = %self.node, "the session of a mesh ends: its peer took nothing for {STALL:?}");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Measured<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.writer).poll_write(context, bytes);
        this.judge(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.writer).poll_flush(context);
        this.judge(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.writer).poll_shutdown(context);
        this.judge(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn measured(bytes: usize) -> (Measured<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(bytes);
        let node = NodeId::new("far").expect("a label");
        (Measured::new(near, node, Arc::default()), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_session() {
        let (mut near, _far) = measured(4);
        near.write_all(b"1234").await.expect("there is room");
        let failed = near.write_all(b"5").await.map_err(|error| error.kind());
        assert_eq!(failed, Err(io::ErrorKind::TimedOut));
        assert_eq!(near.figures.stalls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_does_not() {
        use tokio::io::AsyncReadExt;
        let (mut near, mut far) = measured(1);
        let reads = tokio::spawn(async move {
            for _ in 0..4 {
                sleep(STALL * 9 / 10).await;
                far.read_u8().await.expect("a byte");
            }
        });
        near.write_all(b"1234").await.expect("it takes a byte in time");
        reads.await.expect("all are read");
        assert_eq!(near.figures.stalls(), 0);
    }
}
