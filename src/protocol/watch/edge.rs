//! The connection to a peer, and the heartbeats that this end sends on it.

use std::{ops::Range, time::Duration};

use crate::protocol::time::Time;

/// How often silence is judged within one heartbeat interval, as long as no peer is missed. Heartbeats are
/// spread over these ticks.
pub const TICKS_PER_INTERVAL: u32 = 10;

/// One end of an edge, and the heartbeats that it has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edge {
    /// Whether there is a connection, and whether this end dialed it.
    link: Option<bool>,
    /// The tick in an interval in which the heartbeat is sent.
    slot: u64,
    /// When the last heartbeat was sent, and the first unanswered one.
    sent: Option<Time>,
    unanswered: Option<Time>,
    beats: u32,
}

impl Edge {
    /// The same connection, on which nothing was sent yet.
    pub(super) fn unused(self) -> Self {
        Self { link: self.link, slot: self.slot, ..Self::default() }
    }

    /// A connection was opened or closed.
    pub(super) fn linked(&mut self, up: bool, dialed: bool) {
        self.link = up.then_some(dialed);
        (self.sent, self.unanswered) = (None, None);
    }

    /// Whether this end dialed the connection, if there is one.
    pub(super) const fn dialed(&self) -> Option<bool> {
        self.link
    }

    pub(super) const fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether this end sends the heartbeats.
    pub(super) const fn is_ours_to_beat(&self) -> bool {
        matches!(self.link, Some(true))
    }

    /// The tick of an interval in which this end sends them, if it does.
    pub(super) const fn slot(&self) -> Option<u64> {
        if self.is_ours_to_beat() { Some(self.slot) } else { None }
    }

    pub(super) const fn set_slot(&mut self, slot: u64) {
        self.slot = slot;
    }

    /// Whether our heartbeat is due in one of these ticks.
    pub(super) fn is_due(&self, ticks: Range<u64>) -> bool {
        let slot = |tick| tick % PER_INTERVAL as u64 == self.slot;
        self.is_ours_to_beat() && ticks.take(PER_INTERVAL).any(slot)
    }

    /// A heartbeat is sent.
    pub(super) fn beat(&mut self, now: Time) {
        self.sent = Some(now);
        self.unanswered = self.unanswered.or(Some(now));
        self.beats = self.beats.wrapping_add(1);
    }

    /// When the last heartbeat was sent.
    pub(super) const fn sent(&self) -> Option<Time> {
        self.sent
    }

    /// How many were sent.
    pub(super) const fn beats(&self) -> u32 {
        self.beats
    }

    /// When the first unanswered one was sent.
    pub(super) const fn unanswered(&self) -> Option<Time> {
        self.unanswered
    }

    /// A packet was heard that was sent at this time: it answers the earlier heartbeats.
    pub(super) fn answered(&mut self, at: Time) {
        if self.unanswered.is_some_and(|sent| at >= sent) {
            self.unanswered = None;
        }
    }

    /// Nothing is waited for.
    pub(super) const fn acquit(&mut self) {
        self.unanswered = None;
    }

    /// Takes time out of the waiting.
    pub(super) fn excuse(&mut self, stalled: Duration, now: Time) {
        self.unanswered = self.unanswered.map(|at| (at + stalled).min(now));
    }
}

const PER_INTERVAL: usize = TICKS_PER_INTERVAL as usize;
