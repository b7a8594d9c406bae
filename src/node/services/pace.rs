//! Streams that keep to a rate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    clock::Clock,
    net::{BoxFuture, Peer, ReceiveStream, SendStream, StreamError},
    protocol::{id::Datacenter, service::rate::Rate, time::Time},
};

/// A rate that several streams share.
#[derive(Debug)]
pub(crate) struct Pace {
    clock: Clock,
    rate: Mutex<Rate>,
}

impl Pace {
    pub(crate) fn new(clock: Clock, per_second: u64) -> Arc<Self> {
        Arc::new(Self { clock, rate: Mutex::new(Rate::new(per_second)) })
    }

    /// Lets so many bytes pass, or says when they may.
    pub(super) fn take(&self, now: Time, bytes: usize) -> Result<(), Duration> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(now, bytes as u64)
    }

    /// Waits until so many bytes may pass.
    async fn bytes(&self, bytes: usize) {
        while let Err(wait) = self.take(self.clock.now(), bytes) {
            tokio::time::sleep(wait).await;
        }
    }
}

/// What this process sends to other datacenters, over streams for calls.
#[derive(Debug)]
pub(crate) struct Abroad {
    /// `None`: this process is in none that counts.
    home: Option<Datacenter>,
    pace: Arc<Pace>,
}

impl Abroad {
    pub(crate) fn new(home: Option<Datacenter>, clock: Clock, per_second: u64) -> Self {
        Self { home, pace: Pace::new(clock, per_second) }
    }

    /// A stream to this peer, no faster than the pace if that is in another datacenter.
    pub(super) fn sends(&self, stream: Box<dyn SendStream>, to: &Peer) -> Box<dyn SendStream> {
        match (&self.home, &to.datacenter) {
            (Some(home), Some(there)) if home != there => {
                Box::new(Sends { stream, pace: Arc::clone(&self.pace) })
            }
            _ => stream,
        }
    }
}

/// A stream that is written no faster than a pace.
#[derive(Debug)]
struct Sends {
    stream: Box<dyn SendStream>,
    pace: Arc<Pace>,
}

/// A stream that is read no faster than a pace. The window of the stream then holds up its sender.
#[derive(Debug)]
struct Receives {
    stream: Box<dyn ReceiveStream>,
    pace: Arc<Pace>,
    /// Bytes that were read and are not counted yet.
    owed: usize,
}

/// The stream, no faster than this pace.
pub(super) fn receives(stream: Box<dyn ReceiveStream>, pace: &Arc<Pace>) -> Box<dyn ReceiveStream> {
    Box::new(Receives { stream, pace: Arc::clone(pace), owed: 0 })
}

impl SendStream for Sends {
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>> {
        Box::pin(async move {
            self.pace.bytes(chunks.iter().map(Bytes::len).sum()).await;
            self.stream.write(chunks).await
        })
    }

    fn finish(&mut self) {
        self.stream.finish();
    }

    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        self.stream.delivered()
    }

    fn reset(&mut self, code: u32) {
        self.stream.reset(code);
    }

    fn set_priority(&mut self, priority: i32) {
        self.stream.set_priority(priority);
    }
}

impl ReceiveStream for Receives {
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>> {
        Box::pin(async move {
            // First what was read before: nothing is lost if this is dropped.
            if self.owed > 0 {
                self.pace.bytes(self.owed).await;
                self.owed = 0;
            }
            let read = self.stream.read(most).await?;
            self.owed = read.as_ref().map_or(0, Bytes::len);
            Ok(read)
        })
    }

    fn stop(&mut self, code: u32) {
        self.stream.stop(code);
    }
}
