//! A stream inside one process: what is written at one end is read at the other, a bounded number of chunks later.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{BoxFuture, ReceiveStream, SendStream, Stream, StreamError};

/// Maximum number of unread chunks of one stream.
const CHUNKS_MAX: usize = 32;

/// A stream in one direction.
pub(crate) fn one_way() -> (PipeSender, PipeReceiver) {
    let (out, chunks) = mpsc::channel(CHUNKS_MAX);
    let reset = Arc::new(AtomicBool::new(false));
    (
        PipeSender { out: Some(out), reset: Arc::clone(&reset) },
        PipeReceiver { chunks: Some(chunks), reset },
    )
}

/// Both ends of a stream in both directions.
pub(crate) fn two_way() -> (Stream, Stream) {
    let ((near_out, far_in), (far_out, near_in)) = (one_way(), one_way());
    ((Box::new(near_out), Box::new(near_in)), (Box::new(far_out), Box::new(far_in)))
}

#[derive(Debug)]
pub(crate) struct PipeSender {
    out: Option<mpsc::Sender<Bytes>>,
    reset: Arc<AtomicBool>,
}

impl SendStream for PipeSender {
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>> {
        Box::pin(async {
            let over = |why: &str| StreamError::Stream(why.to_owned());
            let out = self.out.as_ref().ok_or_else(|| over("the stream has ended"))?;
            for chunk in chunks.iter_mut().filter(|chunk| !chunk.is_empty()) {
                let chunk = std::mem::take(chunk);
                out.send(chunk).await.map_err(|_| over("stopped"))?;
            }
            Ok(())
        })
    }

    fn finish(&mut self) {
        self.out = None;
    }

    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        // Written data has arrived already.
        Box::pin(async {})
    }

    fn reset(&mut self, _code: u32) {
        if self.out.is_some() {
            self.reset.store(true, Ordering::Release);
            self.out = None;
        }
    }
}

#[derive(Debug)]
pub(crate) struct PipeReceiver {
    chunks: Option<mpsc::Receiver<Bytes>>,
    reset: Arc<AtomicBool>,
}

impl ReceiveStream for PipeReceiver {
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>> {
        let _ = most;
        Box::pin(async {
            let over = |why: &str| StreamError::Stream(why.to_owned());
            let chunks = self.chunks.as_mut().ok_or_else(|| over("stopped"))?;
            match chunks.recv().await {
                None if self.reset.load(Ordering::Acquire) => Err(over("reset by peer")),
                chunk => Ok(chunk),
            }
        })
    }

    fn stop(&mut self, _code: u32) {
        self.chunks = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reset_is_told_from_an_end() {
        for reset in [false, true] {
            let (mut out, mut chunks) = one_way();
            out.write(&mut [Bytes::from_static(b"a")]).await.unwrap();
            if reset {
                out.reset(0);
            } else {
                out.finish();
            }
            assert_eq!(chunks.read(9).await.unwrap(), Some(Bytes::from_static(b"a")));
            assert_eq!(chunks.read(9).await.is_err(), reset);
            assert!(out.write(&mut [Bytes::from_static(b"b")]).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_stopped_stream_takes_nothing_more() {
        let (mut out, mut chunks) = one_way();
        chunks.stop(0);
        assert!(out.write(&mut [Bytes::from_static(b"a")]).await.is_err());
        assert!(chunks.read(9).await.is_err());
    }
}
