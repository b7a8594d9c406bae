//! Streams that keep to a rate.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
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
        self.rate().take(now, bytes as u64)
    }

    /// Whether as much may pass at once as after a long pause.
    pub(super) fn is_full(&self, now: Time) -> bool {
        self.rate().is_full(now)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many bytes may pass.
    async fn bytes(&self, bytes: usize) {
        loop {
            let taken = self.rate().take_patiently(self.clock.now(), bytes as u64);
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// Bytes that pass at a turn.
const PIECE: usize = 64 << 10;

/// What this process sends to other datacenters, over streams for calls. The peers take turns, and so do the streams to
/// one peer: many streams to one peer get no more than one stream to another.
#[derive(Debug)]
pub(crate) struct Abroad {
    /// `None` for a client, which has no limit.
    home: Option<Datacenter>,
    pace: Arc<Pace>,
    turn: Arc<Turn>,
    /// The turns of the streams to each peer, as long as there is one.
    peers: Mutex<BTreeMap<String, Weak<Turn>>>,
}

/// Those who wait for it get it in the order in which they came.
type Turn = tokio::sync::Mutex<()>;

/// How long a stream has waited for its turns since somebody asked: that is no fault of its reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waited(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    since: Option<Time>,
    total: Duration,
}

impl Abroad {
    pub(crate) fn new(home: Option<Datacenter>, clock: Clock, per_second: u64) -> Self {
        let pace = Pace::new(clock, per_second);
        Self { home, pace, turn: Arc::default(), peers: Mutex::default() }
    }

    pub(super) fn clock(&self) -> Clock {
        self.pace.clock
    }

    /// A stream to this peer, no faster than the pace if that is in another datacenter.
    pub(super) fn sends(
        &self,
        stream: Box<dyn SendStream>,
        to: &Peer,
    ) -> (Box<dyn SendStream>, Waited) {
        let waited = Waited::default();
        let is_abroad = self
            .home
            .as_ref()
            .zip(to.datacenter.as_ref())
            .is_some_and(|(home, there)| home != there);
        if !is_abroad {
            return (stream, waited);
        }
        let name = to.name.as_ref().map(|name| name.node.to_string()).unwrap_or_default();
        let own = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            match peers.get(&name).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    peers.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::default();
                    peers.insert(name, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        let turns = [own, Arc::clone(&self.turn)];
        let sends = Sends { stream, pace: Arc::clone(&self.pace), turns, waited: waited.clone() };
        (Box::new(sends), waited)
    }
}

impl Waited {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, now: Time) -> Duration {
        let mut waits = self.lock();
        if let Some(since) = waits.since.replace(now) {
            waits.total += now.since(since);
        } else {
            waits.since = None;
        }
        std::mem::take(&mut waits.total)
    }

    /// The result of a future that has this long, apart from what its stream waits for its turns; `None` if it takes longer.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        clock: Clock,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let (mut future, mut left) = (std::pin::pin!(future), limit);
        loop {
            if let Ok(done) = tokio::time::timeout(left, future.as_mut()).await {
                return Some(done);
            }
            left = self.takes(clock.now());
            if left.is_zero() {
                return None;
            }
        }
    }
}

/// A stream that is written no faster than a pace.
#[derive(Debug)]
struct Sends {
    stream: Box<dyn SendStream>,
    pace: Arc<Pace>,
    /// First that among the streams to the same peer.
    turns: [Arc<Turn>; 2],
    waited: Waited,
}

impl Sends {
    async fn passes(&self, bytes: usize) {
        self.waited.lock().since = Some(self.pace.clock.now());
        let [own, all] = &self.turns;
        let _own = own.lock().await;
        let _all = all.lock().await;
        self.pace.bytes(bytes).await;
        let now = self.pace.clock.now();
        let mut waits = self.waited.lock();
        if let Some(since) = waits.since.take() {
            waits.total += now.since(since);
        }
    }
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
            let all = chunks.iter().map(Bytes::len).sum();
            if all <= PIECE {
                self.passes(all).await;
                return self.stream.write(chunks).await;
            }
            for chunk in chunks {
                while !chunk.is_empty() {
                    let piece = chunk.split_to(chunk.len().min(PIECE));
                    self.passes(piece.len()).await;
                    self.stream.write(&mut [piece]).await?;
                }
            }
            Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::quiet::Quiet;
    use crate::{
        net::{Connection, pipe},
        protocol::id::{ClusterId, NodeId},
        tls::PeerName,
    };

    /// Writes so many bytes to a peer of another datacenter, and reads them there.
    async fn sent(abroad: &Abroad, name: &str, bytes: usize) {
        let mut to = Quiet::until(None, None).peer().clone();
        to.datacenter = Some(Datacenter::new("us").unwrap());
        to.name = Some(PeerName {
            cluster: ClusterId::new("demo").unwrap(),
            datacenter: Datacenter::new("us").unwrap(),
            node: NodeId::new(name).unwrap(),
        });
        let ((send, _), (_far, mut receive)) = pipe::two_way();
        let (mut send, _) = abroad.sends(send, &to);
        let mut body = [Bytes::from(vec![7; bytes])];
        let reads = async {
            let mut read = 0;
            while read < bytes {
                read += receive.read(PIECE).await.unwrap().unwrap().len();
            }
        };
        let (wrote, ()) = tokio::join!(send.write(&mut body), reads);
        wrote.unwrap();
    }

    fn abroad(clock: Clock) -> Abroad {
        Abroad::new(Some(Datacenter::new("eu").unwrap()), clock, 1 << 20)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_many_streams_takes_turns_with_one_that_has_one() {
        let clock = Clock::start();
        let abroad = Arc::new(abroad(clock));
        let many: Vec<_> = (0..100)
            .map(|_| {
                let abroad = Arc::clone(&abroad);
                tokio::spawn(async move { sent(&abroad, "a", 1 << 20).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let begun = clock.now();
        sent(&abroad, "b", 1 << 20).await;
        // Of two peers each gets half of 1 MiB a second.
        let took = clock.now().since(begun).as_secs_f64();
        assert!((1.5..3.0).contains(&took), "{took}");
        many.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_is_not_waiting_for_the_reader() {
        let clock = Clock::start();
        let abroad = abroad(clock);
        let mut to = Quiet::until(None, None).peer().clone();
        to.datacenter = Some(Datacenter::new("us").unwrap());
        let second = Duration::from_secs(1);
        for reads in [true, false] {
            let ((send, _), (_far, mut receive)) = pipe::two_way();
            let (mut send, waited) = abroad.sends(send, &to);
            let reader = tokio::spawn(async move {
                while reads && !matches!(receive.read(PIECE).await, Ok(None) | Err(_)) {}
                std::future::pending::<()>().await;
            });
            let mut body = [Bytes::from(vec![7; 16 << 20])];
            let begun = clock.now();
            let sent = waited.within(second, clock, send.write(&mut body)).await;
            assert_eq!(sent.is_some(), reads);
            let took = clock.now().since(begun).as_secs();
            assert!(if reads { took >= 15 } else { took <= 3 }, "{took}");
            reader.abort();
        }
    }
}
