//! A stream that the other end must not take for a whole one before its end.

use bytes::Bytes;

use crate::net::{SendStream, StreamError};

/// A stream that is reset when it is dropped before its end, also while a write is under way.
#[derive(Debug)]
pub(crate) struct Unfinished(Option<Box<dyn SendStream>>);

impl Unfinished {
    pub(crate) fn new(stream: Box<dyn SendStream>) -> Self {
        Self(Some(stream))
    }

    /// Writes chunks; it waits for the other end's window.
    pub(crate) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        match &mut self.0 {
            Some(stream) => stream.write(chunks).await,
            None => Ok(()),
        }
    }

    /// Ends the stream: the other end reads all that was written, and then the end.
    pub(crate) fn finish(mut self) {
        if let Some(mut stream) = self.0.take() {
            stream.finish();
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.reset(0);
        }
    }
}
