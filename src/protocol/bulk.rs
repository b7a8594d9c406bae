//! Decides which peer sends bulk to which: a node takes the state that it lacks beyond one delta from one
//! peer at a time, so that it arrives once and takes up one window of memory, however many peers have it.
//!
//! A delta that a budget has cut is marked (`more`). Its receiver may then *pull* the rest: it sends its
//! digest, and the peer *feeds* it delta after delta without waiting for answers. A node pulls from one peer
//! only, and a peer leaves the state that it is feeding out of everything else that it sends the node. Both
//! hold only while there is progress, so that a peer that falls silent delays the pull by at most [`LEASE`].

use std::{collections::BTreeMap, time::Duration};

use super::{
    delta::Delta,
    digest::{Digest, DigestEntry},
    id::{Generation, NodeId, Version},
    time::Time,
};

/// Most peers fed at once; other peers get an empty answer, and come again. For each peer the transport holds
/// one frame and one window of sent but unacknowledged bytes.
pub const FEEDS_MAX: usize = 32;
/// A pull or a feed without progress for this long is over.
pub const LEASE: Duration = Duration::from_secs(10);
/// The least useful rate of a pull, in bytes a second: that of a frame on its way. A slower pull is given up
/// once it has lasted for [`LEASE`], since no other peer is pulled from meanwhile.
pub const PULL_BYTES_PER_SECOND_MIN: usize = 32 << 10;
/// A peer whose pull was given up is not pulled from again for this long: the others come first.
pub const PULL_PAUSE: Duration = Duration::from_secs(60);

/// The pull and the feeds of one node.
#[derive(Clone, Debug, Default)]
pub struct Bulk {
    pulling: Option<Pull>,
    /// The peer whose pull was given up as too slow, and until when it is not pulled from again.
    slow: BTreeMap<NodeId, Time>,
    feeds: BTreeMap<NodeId, Feed>,
}

#[derive(Clone, Debug)]
struct Pull {
    from: NodeId,
    /// When it began, and how many useful bytes it has brought.
    begun: Time,
    bytes: usize,
    /// When there was progress last.
    at: Time,
    /// The owner of the map under way, as far as it is known.
    of: Option<NodeId>,
}

impl Pull {
    /// Whether it brings less than a thin path would.
    fn is_slow(&self, now: Time) -> bool {
        let lasted = now.since(self.begun);
        let least = lasted.as_secs_f64() * PULL_BYTES_PER_SECOND_MIN as f64;
        lasted >= LEASE && (self.bytes as f64) < least
    }
}

#[derive(Clone, Debug)]
struct Feed {
    at: Time,
    /// The owner of the map under way, and how far the map was sent.
    of: NodeId,
    upto: (Generation, Version),
    /// The peer has asked for it, and did not only get a delta that was cut.
    asked: bool,
}

impl Bulk {
    /// Takes the right to pull from a peer, unless a pull is under way, or that peer was too slow a short
    /// while ago.
    pub fn begin_pull(&mut self, now: Time, from: &NodeId) -> bool {
        self.slow.retain(|_, until| now < *until);
        let free = !self.is_pulling(now) && !self.slow.contains_key(from);
        if free {
            let from = from.clone();
            self.pulling = Some(Pull { from, begun: now, bytes: 0, at: now, of: None });
        }
        free
    }

    /// Whether a pull is under way.
    #[must_use]
    pub fn is_pulling(&self, now: Time) -> bool {
        self.pulling.as_ref().is_some_and(|pull| now.since(pull.at) < LEASE)
    }

    /// Whether updates of this node are on their way with a pull: no other peer has to be asked for them.
    #[must_use]
    pub fn is_coming(&self, now: Time, of: &NodeId) -> bool {
        let of_it = self.pulling.as_ref().is_some_and(|pull| pull.of.as_ref() == Some(of));
        of_it && self.is_pulling(now)
    }

    /// A part pulled from a peer has arrived, with this many useful bytes. Returns whether the pull may go
    /// on: a peer that is too slow is given up, and the others are pulled from first.
    pub fn pulled(
        &mut self,
        now: Time,
        from: &NodeId,
        delta: &Delta,
        useful: usize,
        last: bool,
    ) -> bool {
        let Some(pull) = self.pulling.as_mut().filter(|pull| pull.from == *from) else {
            return true;
        };
        pull.at = now;
        pull.bytes = pull.bytes.saturating_add(useful);
        pull.of = delta.nodes.last().map(|news| news.node.clone());
        let slow = pull.is_slow(now);
        if slow && self.slow.len() < FEEDS_MAX {
            self.slow.insert(from.clone(), now + PULL_PAUSE);
        }
        if last || slow {
            self.pulling = None;
        }
        !slow
    }

    /// Whether a peer that asks may be fed.
    #[must_use]
    pub fn may_feed(&self, now: Time, peer: &NodeId) -> bool {
        let others = self.feeds.iter().filter(|(fed, feed)| *fed != peer && feed.counts(now));
        others.filter(|(_, feed)| feed.asked).count() < FEEDS_MAX
    }

    /// This goes to a peer. If it is cut, the rest is left to the pull that follows.
    pub fn told(&mut self, now: Time, peer: &NodeId, delta: &Delta, asked: bool) {
        match delta.nodes.last().filter(|_| delta.more) {
            Some(last) => {
                let (of, upto) = (last.node.clone(), (last.generation, last.to));
                let feed = Feed { at: now, of, upto, asked };
                self.feeds.insert(peer.clone(), feed);
            }
            None if asked => drop(self.feeds.remove(peer)),
            None => {}
        }
    }

    /// The owner of the map on its way to a peer that is this far.
    #[must_use]
    pub fn fed(&self, now: Time, peer: &NodeId, theirs: &Digest) -> Option<&NodeId> {
        let feed = self.feeds.get(peer).filter(|feed| feed.counts(now))?;
        let arrived = |line: &DigestEntry| (line.generation, line.max_version) >= feed.upto;
        // A peer that has received it and does not ask for the rest has to be sent the rest.
        let missed = feed.asked || !theirs.get(&feed.of).is_some_and(arrived);
        missed.then_some(&feed.of)
    }

    /// Whether the state of this node is on its way to a peer that pulls: all that there is when the last
    /// part is made.
    #[must_use]
    pub fn is_feeding(&self, now: Time, peer: &NodeId, of: &NodeId) -> bool {
        self.feeds.get(peer).is_some_and(|feed| feed.asked && feed.of == *of && feed.counts(now))
    }

    /// A stream with this peer broke off while it carried bulk.
    pub fn broken(&mut self, peer: &NodeId) {
        self.feeds.remove(peer);
        self.pulling.take_if(|pull| pull.from == *peer);
    }

    /// Drops pulls and feeds that are over.
    pub fn tidy(&mut self, now: Time) {
        self.feeds.retain(|_, feed| feed.counts(now));
        self.slow.retain(|_, until| now < *until);
    }
}

impl Feed {
    fn counts(&self, now: Time) -> bool {
        now.since(self.at) < LEASE
    }
}
