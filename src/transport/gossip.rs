//! What neighbours tell each other unasked, over any ordered stream of frames: what waits to be told
//! to one of them ([`Outbox`]), and what becomes of a frame that was heard ([`Ear`]).
//!
//! News that finds too many before it is not queued behind them: storage is told that the connection
//! is congested, joins what is new meanwhile, and tells it when it is told that there is room again.
//! So a slow peer costs a bounded queue, and gets the last value of a key instead of all of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    Met, NodeLink,
    budget::Allowance,
    exchange::{ExchangeError, FrameError},
    share::{Share, Traffic},
};
use crate::protocol::{
    event::ProtocolEvent,
    exchange::{Ask, Breach},
    gossip::{Class, Gossip},
    id::{Datacenter, NodeId},
    message::{Message, WireError},
    route::{Counter, Sign},
    skim::skim,
    time::Time,
};

/// Most frames and bytes of news that wait for one peer; what comes then is dropped, and made up for
/// by reconciliation. Storage is asked to stop at half of it, so that this is hardly ever reached.
pub const STATE_FRAMES_MAX: usize = 1_024;
/// See [`STATE_FRAMES_MAX`]. A single frame may be longer.
pub const STATE_BYTES_MAX: usize = 256 << 10;
/// Most frames and bytes about who is there that wait for one peer: further ones are dropped.
pub const LIVENESS_FRAMES_MAX: usize = 8_192;
/// See [`LIVENESS_FRAMES_MAX`].
pub const LIVENESS_BYTES_MAX: usize = 1 << 20;

/// Queues gossip for each of these: it is encoded once.
pub fn tell<'a>(node: &NodeLink, gossip: &Gossip, to: impl IntoIterator<Item = &'a Outbox>) {
    let told = match Told::new(gossip) {
        Ok(told) => told,
        Err(error) => {
            tracing::warn!(node = %node.node(), %error, "gossip that cannot be told");
            return node.count(Counter::GossipShed);
        }
    };
    for outbox in to {
        if outbox.offer(node, &told) {
            watch(node, &outbox.peer, gossip, true);
        }
    }
}

/// One frame of gossip as it goes to any number of peers.
#[derive(Clone, Debug)]
struct Told {
    frame: Bytes,
    class: Class,
    is_root: bool,
}

impl Told {
    fn new(gossip: &Gossip) -> Result<Self, WireError> {
        let is_root = matches!(gossip, Gossip::Root(_));
        Ok(Self { frame: gossip.encode()?.into(), class: gossip.class(), is_root })
    }
}

/// What waits to be told to one peer.
#[derive(Debug)]
pub struct Outbox {
    peer: NodeId,
    allowance: Allowance,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Only the last one means anything.
    root: Option<Bytes>,
    liveness: Lane,
    state: Lane,
    congested: bool,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Nothing waits for this peer, which is in this datacenter.
    #[must_use]
    pub fn new(node: &NodeLink, peer: NodeId, datacenter: &Datacenter) -> Self {
        let allowance = node.allowance(datacenter);
        Self { peer, allowance, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// What may be sent to this peer.
    pub(crate) const fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Queues a frame, or says why not: to storage if it is news, else to the counters.
    fn offer(&self, node: &NodeLink, told: &Told) -> bool {
        let mut waiting = self.lock();
        let (queued, congested) = waiting.offer(told);
        if congested {
            // Under the lock, so that it is told in the order in which it comes about.
            node.congested(&self.peer, true);
        }
        drop(waiting);
        if queued {
            self.filled.notify_one();
        } else {
            node.count(Counter::GossipShed);
        }
        queued
    }

    /// The next frame to be sent, and its class. Only one task at a time may wait for it.
    pub async fn next(&self, node: &NodeLink) -> (Class, Bytes) {
        loop {
            if let Some(next) = self.try_next(node) {
                return next;
            }
            match self.pause(node) {
                // What is about who is there may come meanwhile, and need not wait.
                Some(pause) => drop(tokio::time::timeout(pause, self.filled.notified()).await),
                None => self.filled.notified().await,
            }
        }
    }

    /// The next frame to be sent, if one waits and there is budget for it.
    pub fn try_next(&self, node: &NodeLink) -> Option<(Class, Bytes)> {
        let now = node.now();
        let mut waiting = self.lock();
        let broke = || self.allowance.wait(now, Class::State).is_some();
        let (class, frame) = waiting.pop(broke)?;
        if waiting.drained() {
            node.congested(&self.peer, false);
        }
        drop(waiting);
        self.allowance.charge(now, class, frame.len());
        Some((class, frame))
    }

    /// How long news has to wait for the budget, if some waits.
    fn pause(&self, node: &NodeLink) -> Option<Duration> {
        let waits = !self.lock().state.frames.is_empty();
        waits.then(|| self.allowance.wait(node.now(), Class::State).unwrap_or_default())
    }

    /// Tells storage once more, if this connection is congested: it has started anew.
    pub fn tell(&self, node: &NodeLink) {
        let waiting = self.lock();
        if waiting.congested {
            node.congested(&self.peer, true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock can panic half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Takes a frame. Says whether it did, and whether the connection is congested from now on.
    fn offer(&mut self, told: &Told) -> (bool, bool) {
        let frame = told.frame.clone();
        if told.is_root {
            self.root = Some(frame);
            return (true, false);
        }
        if told.class == Class::Liveness {
            let queued = self.liveness.push(frame, LIVENESS_FRAMES_MAX, LIVENESS_BYTES_MAX);
            return (queued, false);
        }
        let queued = self.state.push(frame, STATE_FRAMES_MAX, STATE_BYTES_MAX);
        let congested = !self.congested && self.state.is_beyond(1, 2);
        self.congested |= congested;
        (queued, congested)
    }

    /// The next frame; no news if there is no budget for it.
    fn pop(&mut self, broke: impl FnOnce() -> bool) -> Option<(Class, Bytes)> {
        if let Some(frame) = self.root.take().or_else(|| self.liveness.pop()) {
            return Some((Class::Liveness, frame));
        }
        if self.state.frames.is_empty() || broke() {
            return None;
        }
        Some((Class::State, self.state.pop()?))
    }

    /// Whether the connection is no longer congested from now on.
    fn drained(&mut self) -> bool {
        let drained = self.congested && !self.state.is_beyond(1, 4);
        self.congested &= !drained;
        drained
    }
}

impl Lane {
    /// Takes a frame unless there are too many before it.
    fn push(&mut self, frame: Bytes, frames_max: usize, bytes_max: usize) -> bool {
        let len = frame.len();
        let room = self.frames.len() < frames_max && self.bytes + len <= bytes_max;
        if room || self.frames.is_empty() {
            self.frames.push_back(frame);
            self.bytes += len;
            return true;
        }
        false
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        if self.frames.is_empty() {
            // Most queues are empty most of the time, and there is one for each connection.
            self.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// Whether more waits than this part of what may.
    fn is_beyond(&self, numerator: usize, denominator: usize) -> bool {
        self.frames.len() > STATE_FRAMES_MAX * numerator / denominator
            || self.bytes > STATE_BYTES_MAX * numerator / denominator
    }
}

/// Hears one peer.
#[derive(Debug)]
pub struct Ear {
    share: Arc<Share>,
    /// When the detector was last told.
    told: Option<Time>,
}

impl Ear {
    /// For what this peer tells, on whatever connection.
    #[must_use]
    pub fn new(node: &NodeLink, peer: &NodeId) -> Self {
        Self { share: node.share(peer), told: None }
    }

    /// Takes a frame, without its length; says whether it was within what a peer may tell. It returns
    /// when storage has dealt with it, however long that takes: until then nothing more is to be read from
    /// this peer.
    ///
    /// # Errors
    /// [`ExchangeError`] if the peer is to be cut off. What storage has no time for is no error: it is
    /// made up for by reconciliation.
    pub async fn hear(
        &mut self,
        node: &NodeLink,
        peer: &Met,
        frame: &[u8],
    ) -> Result<bool, ExchangeError> {
        node.count(Counter::GossipReceived);
        if is_known(node, frame) && self.share.pays(node.now(), Traffic::Duplicate) {
            node.count(Counter::GossipDuplicates);
            self.life(node, peer);
            return Ok(true);
        }
        let _decoded = self.share.decode().await;
        let gossip = match Message::decode(frame) {
            Ok(Message::Gossip(gossip)) => gossip,
            Ok(_) => {
                node.count(Counter::FramesRefused);
                return Err(Breach::Order.into());
            }
            Err(error) => {
                node.count(Counter::FramesMalformed);
                return Err(FrameError::from(error).into());
            }
        };
        watch(node, &peer.node, &gossip, false);
        let mut within = true;
        match gossip {
            Gossip::Root(root) if self.share.pays(node.now(), Traffic::Root) => {
                node.root(&peer.node, root);
            }
            Gossip::Graft(lines) if self.share.pays(node.now(), Traffic::Graft) => {
                drop(node.ask(&peer.node, Ask::Gossip(Box::new(Gossip::Graft(lines)))).await);
            }
            Gossip::Root(_) | Gossip::Graft(_) => {
                node.count(Counter::FramesRefused);
                within = false;
            }
            // It fails while storage starts anew.
            gossip => drop(node.ask(&peer.node, Ask::Gossip(Box::new(gossip))).await),
        }
        // Only now: the frame may have introduced the very peer that sent it.
        self.life(node, peer);
        Ok(within)
    }

    /// Every frame is a sign of life; of a flood of them the detector is told now and then.
    fn life(&mut self, node: &NodeLink, peer: &Met) {
        let now = node.now();
        let interval: Duration = node.config().gossip_interval / LIVES_PER_INTERVAL;
        if self.told.is_none_or(|told| now.since(told) >= interval) {
            self.told = Some(now);
            node.heard(&peer.node, peer.generation, Sign::Traffic, now);
        }
    }
}

/// Whether a frame is news that readers of this node have already.
fn is_known(node: &NodeLink, frame: &[u8]) -> bool {
    skim(frame).is_some_and(|headings| headings.iter().all(|heading| node.has(heading)))
}

/// Tells those who watch the protocol, if there are any.
fn watch(node: &NodeLink, peer: &NodeId, gossip: &Gossip, sent: bool) {
    if let Gossip::Push(delta) = gossip
        && node.is_watched()
    {
        let (peer, delta) = (peer.clone(), delta.clone().into());
        node.tell_protocol(if sent {
            ProtocolEvent::DeltasSent { peer, delta }
        } else {
            ProtocolEvent::DeltasReceived { peer, delta }
        });
    }
}

/// How often in an interval the detector is told of a peer that talks all the time.
const LIVES_PER_INTERVAL: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        id::{Generation, Version},
        verdict::Verdict,
    };

    #[test]
    fn refuses_news_beyond_its_limit_and_says_so_long_before() {
        let mut waiting = Waiting::default();
        let news = news(1_000);
        let mut congested = Vec::new();
        for n in 0..STATE_FRAMES_MAX {
            let (queued, now) = waiting.offer(&news);
            assert_eq!(queued, (n + 1) * news.frame.len() <= STATE_BYTES_MAX);
            congested.extend(now.then_some(n));
        }
        assert_eq!(congested, [STATE_BYTES_MAX / 2 / news.frame.len()]);
        assert!(waiting.state.bytes <= STATE_BYTES_MAX);
        let mut drained = Vec::new();
        while waiting.pop(|| false).is_some() {
            drained.extend(waiting.drained().then_some(waiting.state.bytes));
        }
        assert_eq!(drained.len(), 1);
        assert!(drained[0] <= STATE_BYTES_MAX / 4);
        assert_eq!(waiting.state.bytes, 0);
    }

    #[test]
    fn refuses_more_about_who_is_there_than_its_limit() {
        let mut waiting = Waiting::default();
        let prune = Told::new(&Gossip::Prune(Vec::new())).unwrap();
        let queued = (0..2 * LIVENESS_FRAMES_MAX).filter(|_| waiting.offer(&prune).0).count();
        assert_eq!(queued, LIVENESS_FRAMES_MAX);
    }

    #[test]
    fn takes_a_single_frame_of_any_length() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.offer(&news(4 * STATE_BYTES_MAX)), (true, true));
        assert_eq!(waiting.offer(&news(1)), (false, false));
        assert_eq!(waiting.pop(|| true), None);
        assert!(waiting.pop(|| false).is_some() && waiting.drained());
    }

    #[test]
    fn tells_who_is_there_before_what_is_new_and_only_the_last_root() {
        let mut waiting = Waiting::default();
        for gossip in [Gossip::Root(1), push(1), Gossip::Prune(Vec::new()), Gossip::Root(2)] {
            assert!(waiting.offer(&Told::new(&gossip).unwrap()).0);
        }
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop(|| false)).collect();
        let frame = |gossip: &Gossip| Bytes::from(gossip.encode().unwrap());
        let expected = [
            (Class::Liveness, frame(&Gossip::Root(2))),
            (Class::Liveness, frame(&Gossip::Prune(Vec::new()))),
            (Class::State, frame(&push(1))),
        ];
        assert_eq!(order, expected);
    }

    fn news(bytes: usize) -> Told {
        Told::new(&push(bytes)).unwrap()
    }

    fn push(bytes: usize) -> Gossip {
        let value = vec![7; bytes].as_slice().into();
        let content = DeltaContent::Value { value, ttl_ms: None };
        let node = NodeDelta {
            sealed: None,
            node: NodeId::new("n").unwrap(),
            generation: Generation(1),
            ancestry: Vec::new(),
            from: Version(0),
            to: Version(1),
            horizon: Version(1),
            torn: Version(0),
            gc_floor: Version(0),
            verdict: Verdict::default(),
            record: None,
            entries: vec![DeltaEntry { key: "key".into(), version: Version(1), content }],
        };
        Gossip::Push(Delta { nodes: vec![node], more: false })
    }
}
