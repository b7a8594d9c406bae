//! How often this node signs its own updates.
//!
//! All owners together are to cost each node a quarter of a core to verify, however many they are. A signature, a
//! frame and a packet cost as much as the updates of many keys, so an owner that writes often signs several at once;
//! and one that is late, as its peers are likely to be, signs less often the later it is.

use std::{collections::BTreeSet, time::Duration};

use crate::protocol::{id::NodeId, time::Time};

/// The longest time between two signatures of an owner that has something to send.
pub const CADENCE_MAX: Duration = Duration::from_millis(500);
/// What a signature costs a node that verifies it, divided by the part of a core that it may spend on that.
pub const CADENCE_OF_ONE: Duration = Duration::from_micros(160);
/// The least time between two signatures of an owner that writes so often that several updates fit in.
pub const CADENCE_BUSY: Duration = Duration::from_millis(50);
/// The least time between two signatures of an owner that is late, for each unit of its lag.
pub const CADENCE_OF_LAG: u32 = 10;

/// Counts the owners that write, and the own writes, in windows of a second.
#[derive(Debug)]
pub(super) struct Cadence {
    since: Time,
    owners: BTreeSet<NodeId>,
    owners_before: usize,
    writes: u32,
    writes_before: u32,
    signed: Option<Time>,
    lag: Duration,
}

impl Cadence {
    /// Nobody has written yet.
    pub(super) const fn new(now: Time) -> Self {
        Self {
            since: now,
            owners: BTreeSet::new(),
            owners_before: 0,
            writes: 0,
            writes_before: 0,
            signed: None,
            lag: Duration::ZERO,
        }
    }

    /// Another owner has written.
    pub(super) fn heard(&mut self, now: Time, owner: &NodeId) {
        self.pass(now);
        if !self.owners.contains(owner) {
            self.owners.insert(owner.clone());
        }
    }

    /// This node has written.
    pub(super) fn wrote(&mut self, now: Time) {
        self.pass(now);
        self.writes = self.writes.saturating_add(1);
    }

    /// This node is so late.
    pub(super) const fn set_lag(&mut self, lag: Duration) {
        self.lag = lag;
    }

    /// An own update was signed and sent.
    pub(super) const fn signed(&mut self, now: Time) {
        self.signed = Some(now);
    }

    /// When this node may sign its next update.
    pub(super) fn next(&self) -> Option<Time> {
        Some(self.signed? + self.least())
    }

    /// The least time between two signatures: none if there would seldom be a second update in it.
    fn least(&self) -> Duration {
        let writers = self.owners.len().max(self.owners_before).saturating_add(1);
        let of_all = CADENCE_OF_ONE * u32::try_from(writers).unwrap_or(u32::MAX);
        let late = if self.lag < EARLY { Duration::ZERO } else { self.lag * CADENCE_OF_LAG };
        // The few batches of a large state are not held.
        let often =
            |span: Duration| if self.held(span) >= HELD_BUSY { span } else { Duration::ZERO };
        let least = of_all.min(CADENCE_MAX);
        let least = least.max(often(late.min(CADENCE_MAX))).max(often(CADENCE_BUSY));
        if self.held(least) < HELD_LEAST { Duration::ZERO } else { least }
    }

    /// How many updates this node makes in a span, by the last second or two.
    fn held(&self, span: Duration) -> f64 {
        f64::from(self.writes.max(self.writes_before)) * span.as_secs_f64()
    }

    fn pass(&mut self, now: Time) {
        let passed = now.since(self.since);
        if passed < WINDOW {
            return;
        }
        let next = passed < 2 * WINDOW;
        (self.owners_before, self.writes_before) =
            if next { (self.owners.len(), self.writes) } else { (0, 0) };
        self.owners.clear();
        (self.writes, self.since) = (0, now);
    }
}

/// How long owners and writes count.
const WINDOW: Duration = Duration::from_secs(1);
/// With fewer updates than this between two signatures, on average, nothing is held.
const HELD_LEAST: f64 = 0.5;
/// An owner that makes so many updates in a span writes often.
const HELD_BUSY: f64 = 2.0;
/// A node with less lag than this is on time.
const EARLY: Duration = Duration::from_millis(20);
