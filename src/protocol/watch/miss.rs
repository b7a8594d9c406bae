//! The probes to a peer after a miss.

use std::{collections::VecDeque, time::Duration};

use crate::protocol::time::Time;

/// Probes sent quickly; later ones come once in a tenth of an interval.
pub const QUICK_PROBES: u32 = 24;
/// Most probes that wait for their answers at a time.
pub const PROBES_MAX: usize = 64;

/// There was a miss, and nothing has been heard since.
#[derive(Debug)]
pub(super) struct Miss {
    since: Time,
    /// The miss was here; otherwise another node has asked, which says nothing about our path.
    ours: bool,
    probes: VecDeque<(u64, Time)>,
    /// Probes that have timed out; if they are answered after all, the path is longer than it was known to
    /// be.
    late: VecDeque<(u64, Time)>,
    sent: u32,
    next: Time,
    lapsed: u32,
}

impl Miss {
    /// It is to be probed from now on.
    pub(super) const fn new(since: Time) -> Self {
        Self {
            since,
            ours: false,
            probes: VecDeque::new(),
            late: VecDeque::new(),
            sent: 0,
            next: since,
            lapsed: 0,
        }
    }

    pub(super) const fn since(&self) -> Time {
        self.since
    }

    /// Whether something was missed here.
    pub(super) const fn is_ours(&self) -> bool {
        self.ours
    }

    /// Something was missed here, if so.
    pub(super) const fn note(&mut self, ours: bool) {
        self.ours |= ours;
    }

    /// How many probes were not answered in time.
    pub(super) const fn lapsed(&self) -> u32 {
        self.lapsed
    }

    /// The probes that wait for their answers.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &(u64, Time)> {
        self.probes.iter()
    }

    /// The probes that have timed out.
    pub(super) fn late(&self) -> impl Iterator<Item = &(u64, Time)> {
        self.late.iter()
    }

    /// Gives up the probes that have waited for this long.
    pub(super) fn lapse(&mut self, now: Time, wait: Duration) {
        while self.probes.front().is_some_and(|(_, at)| now.since(*at) >= wait) {
            self.late.extend(self.probes.pop_front());
            self.lapsed = self.lapsed.saturating_add(1);
            if self.late.len() > PROBES_MAX {
                self.late.pop_front();
            }
        }
    }

    /// Whether it is time for another probe. `late`: this node is served late, so that it sends one at a time.
    pub(super) fn is_due(&self, now: Time, late: bool) -> bool {
        now >= self.next && self.has_room(late)
    }

    /// Whether another probe may be sent before one of the earlier ones is answered or has timed out.
    pub(super) fn has_room(&self, late: bool) -> bool {
        self.probes.len() < if late { 1 } else { PROBES_MAX }
    }

    /// A probe is sent. The next one comes after `spacing`; or, once many were unanswered, or if this node is
    /// `late`, after `slow`.
    pub(super) fn probe(
        &mut self,
        now: Time,
        number: u64,
        spacing: Duration,
        slow: Duration,
        late: bool,
    ) {
        self.probes.push_back((number, now));
        self.sent = self.sent.saturating_add(1);
        let quick = self.sent < QUICK_PROBES && !late;
        self.next = now + if quick { spacing } else { spacing.max(slow) };
    }

    /// When the next probe is due.
    pub(super) const fn next(&self) -> Time {
        self.next
    }

    /// When the first probe that waits times out.
    pub(super) fn next_lapse(&self, wait: Duration) -> Option<Time> {
        self.probes.front().map(|(_, at)| *at + wait)
    }

    /// Takes time out of the waiting.
    pub(super) fn excuse(&mut self, stalled: Duration, now: Time) {
        let sent = self.probes.iter_mut().chain(&mut self.late);
        sent.for_each(|(_, at)| *at = (*at + stalled).min(now));
    }
}
