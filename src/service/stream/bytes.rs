//! Plain bytes in both directions, the same at both ends.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::{BoxFuture, ReceiveStream, StreamError},
    node::services::unfinished::Unfinished,
    service::conversation::Guard,
};

/// Bytes that one write hands over at once.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes that one read takes at once.
const READ_BYTES: usize = 64 << 10;

/// The writing half. End it with [`ByteSender::finish`] or `shutdown`: if it is dropped, the other end gets an error
/// instead of the end of the stream.
pub struct ByteSender {
    state: Sending,
    /// Keeps the stream counted, until this half has ended.
    guard: Option<Arc<Guard>>,
}

enum Sending {
    Idle(Unfinished),
    Writes(BoxFuture<'static, (Unfinished, Result<(), StreamError>)>),
    Over,
}

/// The reading half. Dropping it tells the other end to stop.
pub struct ByteReceiver {
    /// Bytes that were read already.
    rest: Bytes,
    state: Receiving,
    /// Keeps the stream counted, until this half has ended.
    guard: Option<Arc<Guard>>,
}

enum Receiving {
    Idle(Box<dyn ReceiveStream>),
    Reads(BoxFuture<'static, Read>),
    Over,
}

/// A stream, and what was read from it.
type Read = (Box<dyn ReceiveStream>, Result<Option<Bytes>, StreamError>);

impl ByteSender {
    pub(in crate::service) fn new(stream: Option<Unfinished>, guard: Option<Arc<Guard>>) -> Self {
        Self { state: stream.map_or(Sending::Over, Sending::Idle), guard }
    }

    /// Sends bytes without a copy; waits while the other end does not read.
    ///
    /// # Errors
    /// [`io::Error`]: the other end has stopped, or the connection has ended.
    pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_idle(context)).await?;
        self.begin(bytes);
        std::future::poll_fn(|context| self.poll_idle(context)).await
    }

    /// Ends the stream: the other end reads all that was sent, and then the end.
    ///
    /// # Errors
    /// [`io::Error`]: the other end has stopped, or the connection has ended.
    pub async fn finish(mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_finish(context)).await
    }

    fn begin(&mut self, bytes: Bytes) {
        if let Sending::Idle(mut stream) = std::mem::replace(&mut self.state, Sending::Over) {
            self.state = Sending::Writes(Box::pin(async move {
                let written = stream.write(&mut [bytes]).await;
                (stream, written)
            }));
        }
    }

    /// Waits for the write under way.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            Sending::Idle(_) => Poll::Ready(Ok(())),
            Sending::Over => Poll::Ready(Err(over())),
            Sending::Writes(writing) => {
                let (stream, written) = ready!(writing.as_mut().poll(context));
                match &written {
                    Ok(()) => self.state = Sending::Idle(stream),
                    Err(_) => (self.state, self.guard) = (Sending::Over, None),
                }
                Poll::Ready(written.map_err(broken))
            }
        }
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_idle(context))?;
        if let Sending::Idle(stream) = std::mem::replace(&mut self.state, Sending::Over) {
            stream.finish();
        }
        self.guard = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteSender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(context))?;
        let taken = bytes.len().min(WRITE_BYTES);
        self.begin(Bytes::copy_from_slice(&bytes[..taken]));
        // Begun at once; its end is awaited by the next write, or by a flush.
        if let Poll::Ready(Err(error)) = self.poll_idle(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_idle(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(context)
    }
}

impl ByteReceiver {
    pub(in crate::service) fn new(
        (rest, stream): (Bytes, Box<dyn ReceiveStream>),
        guard: Option<Arc<Guard>>,
    ) -> Self {
        Self { rest, state: Receiving::Idle(stream), guard }
    }

    /// The next bytes, without a copy; `None` at the end. None are lost if the future is dropped.
    ///
    /// # Errors
    /// [`io::Error`]: the stream has broken off.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|context| self.poll_bytes(context)).await
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        if let Receiving::Idle(_) = self.state
            && let Receiving::Idle(mut stream) = std::mem::replace(&mut self.state, Receiving::Over)
        {
            self.state = Receiving::Reads(Box::pin(async move {
                let read = stream.read(READ_BYTES).await;
                (stream, read)
            }));
        }
        let Receiving::Reads(reading) = &mut self.state else { return Poll::Ready(Ok(None)) };
        let (stream, read) = ready!(reading.as_mut().poll(context));
        match &read {
            Ok(Some(_)) => self.state = Receiving::Idle(stream),
            _ => (self.state, self.guard) = (Receiving::Over, None),
        }
        Poll::Ready(read.map_err(broken))
    }
}

impl AsyncRead for ByteReceiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut bytes) = ready!(self.poll_bytes(context))? {
            let taken = bytes.len().min(to.remaining());
            to.put_slice(&bytes.split_to(taken));
            self.rest = bytes;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string())
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the stream has ended")
}

impl fmt::Debug for ByteSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteSender")
    }
}

impl fmt::Debug for ByteReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteReceiver")
    }
}
