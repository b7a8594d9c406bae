//! A connection for tests.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::net::{
    BoxFuture, Connection, Ended, Peer, Proof, Protocol, ReceiveStream, SendStream, Shown, Stream,
    Traffic,
};

/// A connection on which nothing happens. It keeps the code with which it was closed, and reports the bytes that a test
/// says it has sent.
#[derive(Debug)]
pub(crate) struct Quiet {
    peer: Peer,
    pub(crate) closed: Mutex<Option<u32>>,
    pub(crate) sent: AtomicU64,
}

impl Quiet {
    /// The two ends have certificates that end then.
    pub(crate) fn until(ours: Option<SystemTime>, theirs: Option<SystemTime>) -> Arc<Self> {
        let shown = |expires| Shown { fingerprint: String::new(), expires };
        let proof = Proof { ours: shown(ours), theirs: shown(theirs) };
        let (name, client, datacenter, chain) = (None, None, None, Vec::new());
        let peer = Peer { name, client, datacenter, chain, proof };
        Arc::new(Self { peer, closed: Mutex::default(), sent: AtomicU64::default() })
    }
}

impl Connection for Quiet {
    fn protocol(&self) -> Protocol {
        Protocol::Services
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn remote(&self) -> String {
        String::new()
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(pending())
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(pending())
    }

    fn open_one_way(&self) -> BoxFuture<'_, Result<Box<dyn SendStream>, Ended>> {
        Box::pin(pending())
    }

    fn accept_one_way(&self) -> BoxFuture<'_, Result<Box<dyn ReceiveStream>, Ended>> {
        Box::pin(pending())
    }

    fn send_datagram(&self, _: Bytes) -> bool {
        false
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, Ended>> {
        Box::pin(pending())
    }

    fn received(&self) -> u64 {
        0
    }

    fn packets(&self) -> (u64, u64) {
        (0, 0)
    }

    fn traffic(&self) -> Traffic {
        Traffic { bytes_sent: self.sent.load(Ordering::Relaxed), ..Traffic::default() }
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }

    fn close(&self, code: u32, _: &[u8]) {
        self.closed.lock().unwrap().get_or_insert(code);
    }

    fn ended(&self) -> Option<Ended> {
        None
    }

    fn closed(&self) -> BoxFuture<'_, Ended> {
        Box::pin(pending())
    }
}
