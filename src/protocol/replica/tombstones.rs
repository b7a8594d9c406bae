//! This node's own tombstones: when they may be collected, and when others are asked whether they may be
//! collected early.

use std::{collections::VecDeque, time::Duration};

use crate::protocol::{entry::Entry, id::Version, map::NodeMap, time::Time};

/// Own tombstones, oldest first, and when each may be collected.
#[derive(Debug)]
pub(super) struct Tombstones {
    grace: Duration,
    /// Most that are kept.
    max: usize,
    queue: VecDeque<(Version, Time)>,
    /// The wave that asks whether they may be dropped, and the version that it asks about.
    asking: Option<(u64, Version)>,
    /// When the last one was sent, and how long to wait for the next.
    asked: Time,
    pause: Duration,
    /// When a lost floor was last taken over.
    inherited: Option<Time>,
}

impl Tombstones {
    /// There are none. `grace`: how long each is kept; `max`: how many at most.
    pub(super) const fn new(now: Time, grace: Duration, max: usize) -> Self {
        Self {
            grace,
            max,
            queue: VecDeque::new(),
            asking: None,
            asked: now,
            pause: COLLECT_INTERVAL,
            inherited: None,
        }
    }

    /// Those of a map. The grace of keys deleted before a restart begins again.
    pub(super) fn restore(&mut self, now: Time, map: &NodeMap) {
        let due = self.collection(now);
        let dead = map.entries().values().filter(|entry| entry.is_tombstone());
        let version = |entry: &Entry| (entry.version, due);
        let mut dead: Vec<_> = dead.map(version).collect();
        dead.sort_unstable();
        self.queue = VecDeque::from(dead);
    }

    /// A key is deleted.
    pub(super) fn push(&mut self, now: Time, version: Version) {
        self.queue.push_back((version, self.collection(now)));
    }

    /// When a tombstone of now may be collected: after the grace, together with those that come a little
    /// later. Each time the floor rises, the whole map is sent once more, from the start, to each copy that
    /// is still behind it: if it rose with every deletion, the transfer of a large map would never complete.
    fn collection(&self, now: Time) -> Time {
        let step = self.step().as_micros().max(1);
        let due = (now + self.grace).since_origin().as_micros();
        let due = u64::try_from(due.next_multiple_of(step)).unwrap_or(u64::MAX);
        Time::from_origin(Duration::from_micros(due))
    }

    /// Least time between two rises of the floor.
    fn step(&self) -> Duration {
        self.grace / COLLECTIONS_PER_GRACE
    }

    /// How many have to be dropped early, many at once for the same reason.
    fn excess(&self) -> usize {
        let (held, max) = (self.queue.len(), self.max);
        if held > max { held - max / 2 } else { 0 }
    }

    /// Whether some have to be dropped early.
    pub(super) fn are_too_many(&self) -> bool {
        self.excess() > 0
    }

    /// When the next one may be collected.
    pub(super) fn due(&self) -> Option<Time> {
        self.queue.front().map(|(_, due)| *due)
    }

    /// Takes those that may be collected. Returns the version of the last one.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Version> {
        let mut floor = None;
        let mut excess = self.excess();
        while self.queue.front().is_some_and(|(_, due)| *due <= now) || excess > 0 {
            excess = excess.saturating_sub(1);
            floor = self.queue.pop_front().map(|(version, _)| version);
        }
        floor
    }

    /// Drops all up to a version.
    pub(super) fn drop_upto(&mut self, upto: Version) {
        while self.queue.front().is_some_and(|(at, _)| *at <= upto) {
            self.queue.pop_front();
        }
    }

    /// When to ask next whether they may be dropped early.
    pub(super) fn next_question(&self) -> Option<Time> {
        let asks = !self.queue.is_empty() && self.asking.is_none();
        asks.then(|| self.asked + self.pause)
    }

    /// Whether to ask all nodes now. Returns the version to ask about.
    pub(super) fn begin_question(&mut self, now: Time) -> Option<Version> {
        let (version, _) = *self.queue.back()?;
        if now < self.asked + self.pause || self.asking.is_some() {
            return None;
        }
        // Each wave asks all nodes: unsuccessful ones are repeated less and less often.
        (self.asked, self.pause) = (now, (self.pause * 2).min(COLLECT_INTERVAL_MAX));
        Some(version)
    }

    /// This wave asks all nodes about this version.
    pub(super) const fn ask(&mut self, wave: u64, version: Version) {
        self.asking = Some((wave, version));
    }

    /// A wave is over. Returns the version that it asked about, if it was this wave.
    pub(super) fn answered(&mut self, wave: u64) -> Option<Version> {
        let asking = self.asking.take_if(|(asked, _)| *asked == wave);
        asking.map(|(_, version)| version)
    }

    /// All nodes have passed them.
    pub(super) const fn passed(&mut self) {
        self.pause = COLLECT_INTERVAL;
    }

    /// Whether a lost floor may be taken over now.
    pub(super) fn may_inherit(&self, now: Time) -> bool {
        self.inherited.is_none_or(|at| now.since(at) >= self.step())
    }

    /// A floor that was lost is taken over.
    pub(super) const fn inherit(&mut self, now: Time) {
        self.inherited = Some(now);
    }
}

/// How often all nodes are asked whether they have passed the tombstones.
pub(super) const COLLECT_INTERVAL: Duration = Duration::from_secs(2);

const COLLECT_INTERVAL_MAX: Duration = Duration::from_secs(64);
/// How often within one grace the floor may rise.
const COLLECTIONS_PER_GRACE: u32 = 4;
