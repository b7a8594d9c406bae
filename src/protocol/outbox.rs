//! The send queue of one connection: which frames of gossip wait for a peer, and in which order they go.
//!
//! News that finds too much before it is not queued: storage is told that the connection is congested, merges
//! what is new meanwhile, and sends it when the queue has drained. So a slow peer costs a bounded queue, and gets
//! the last value of a key instead of all of them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    gossip::{Class, Gossip},
    message::WireError,
};

/// Most frames and bytes of news that wait for one peer; what comes then is dropped, and reconciliation makes up
/// for it. Storage is asked to stop at half of it, so that this is hardly ever reached.
pub const STATE_FRAMES_MAX: usize = 1_024;
/// See [`STATE_FRAMES_MAX`]. A single frame may be longer.
pub const STATE_BYTES_MAX: usize = 256 << 10;
/// Most liveness frames and bytes that wait for one peer: further ones are dropped.
pub const LIVENESS_FRAMES_MAX: usize = 8_192;
/// See [`LIVENESS_FRAMES_MAX`].
pub const LIVENESS_BYTES_MAX: usize = 1 << 20;

/// One encoded frame of gossip, as it goes to any number of peers.
#[derive(Clone, Debug)]
pub struct Encoded {
    frame: Bytes,
    class: Class,
    is_root: bool,
}

impl Encoded {
    /// Encodes gossip.
    ///
    /// # Errors
    /// [`WireError`] if it does not fit a frame.
    pub fn new(gossip: &Gossip) -> Result<Self, WireError> {
        let is_root = matches!(gossip, Gossip::Root(_));
        Ok(Self { frame: gossip.encode()?.into(), class: gossip.class(), is_root })
    }
}

/// What waits to be sent on one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// A later root replaces an earlier one.
    root: Option<Bytes>,
    liveness: Lane,
    state: Lane,
    congested: bool,
}

/// The frames of one priority class.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Takes a frame. Says whether it did, and whether the connection is congested from now on.
    pub(super) fn offer(&mut self, encoded: &Encoded) -> (bool, bool) {
        let frame = encoded.frame.clone();
        if encoded.is_root {
            self.root = Some(frame);
            return (true, false);
        }
        if encoded.class == Class::Liveness {
            let queued = self.liveness.push(frame, LIVENESS_FRAMES_MAX, LIVENESS_BYTES_MAX);
            return (queued, false);
        }
        let queued = self.state.push(frame, STATE_FRAMES_MAX, STATE_BYTES_MAX);
        let congested = !self.congested && (!queued || self.state.is_beyond(1, 2));
        self.congested |= congested;
        (queued, congested)
    }

    /// The next frame; no news if there is no budget for it.
    pub(super) fn pop(&mut self, broke: impl FnOnce() -> bool) -> Option<(Class, Bytes)> {
        if let Some(frame) = self.root.take().or_else(|| self.liveness.pop()) {
            return Some((Class::Liveness, frame));
        }
        if self.state.frames.is_empty() || broke() {
            return None;
        }
        Some((Class::State, self.state.pop()?))
    }

    /// How many frames wait, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let root = self.root.as_ref().map_or(0, Bytes::len);
        let frames = self.liveness.frames.len() + self.state.frames.len();
        let bytes = self.liveness.bytes + self.state.bytes + root;
        (frames + usize::from(self.root.is_some()), bytes)
    }

    pub(super) const fn is_congested(&self) -> bool {
        self.congested
    }

    /// Whether news waits.
    pub(super) fn has_news(&self) -> bool {
        !self.state.frames.is_empty()
    }

    /// Whether the connection is no longer congested from now on.
    pub(super) fn drained(&mut self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        id::{Generation, NodeId, Version},
        verdict::Verdict,
    };

    #[test]
    fn refuses_news_beyond_its_limit_and_says_so_long_before() {
        let mut outbox = Outbox::default();
        let news = news(1_000);
        let mut congested = Vec::new();
        for n in 0..STATE_FRAMES_MAX {
            let (queued, now) = outbox.offer(&news);
            assert_eq!(queued, (n + 1) * news.frame.len() <= STATE_BYTES_MAX);
            congested.extend(now.then_some(n));
        }
        assert_eq!(congested, [STATE_BYTES_MAX / 2 / news.frame.len()]);
        assert!(outbox.state.bytes <= STATE_BYTES_MAX);
        let mut drained = Vec::new();
        while outbox.pop(|| false).is_some() {
            drained.extend(outbox.drained().then_some(outbox.state.bytes));
        }
        assert_eq!(drained.len(), 1);
        assert!(drained[0] <= STATE_BYTES_MAX / 4);
        assert_eq!(outbox.state.bytes, 0);
    }

    #[test]
    fn is_congested_when_it_refuses_a_frame_however_little_waits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.offer(&news(1)), (true, false));
        assert_eq!(outbox.offer(&news(STATE_BYTES_MAX)), (false, true));
        assert!(outbox.pop(|| false).is_some() && outbox.drained());
    }

    #[test]
    fn refuses_more_about_who_is_there_than_its_limit() {
        let mut outbox = Outbox::default();
        let prune = Encoded::new(&Gossip::Prune(Vec::new())).unwrap();
        let queued = (0..2 * LIVENESS_FRAMES_MAX).filter(|_| outbox.offer(&prune).0).count();
        assert_eq!(queued, LIVENESS_FRAMES_MAX);
    }

    #[test]
    fn takes_a_single_frame_of_any_length() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.offer(&news(4 * STATE_BYTES_MAX)), (true, true));
        assert_eq!(outbox.offer(&news(1)), (false, false));
        assert_eq!(outbox.pop(|| true), None);
        assert!(outbox.pop(|| false).is_some() && outbox.drained());
    }

    #[test]
    fn tells_who_is_there_before_what_is_new_and_only_the_last_root() {
        let mut outbox = Outbox::default();
        for gossip in [Gossip::Root(1), push(1), Gossip::Prune(Vec::new()), Gossip::Root(2)] {
            assert!(outbox.offer(&Encoded::new(&gossip).unwrap()).0);
        }
        let order: Vec<_> = std::iter::from_fn(|| outbox.pop(|| false)).collect();
        let frame = |gossip: &Gossip| Bytes::from(gossip.encode().unwrap());
        let expected = [
            (Class::Liveness, frame(&Gossip::Root(2))),
            (Class::Liveness, frame(&Gossip::Prune(Vec::new()))),
            (Class::State, frame(&push(1))),
        ];
        assert_eq!(order, expected);
    }

    fn news(bytes: usize) -> Encoded {
        Encoded::new(&push(bytes)).unwrap()
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
