//! This node's own map, and the state that belongs to it alone.

use std::{collections::BTreeSet, time::Duration};

use super::{cadence::Cadence, tombstones::Tombstones};
use crate::protocol::{
    claim::OwnName,
    digest::DigestEntry,
    entry::{Content, Entry, Key},
    flow::{Flow, FlowConfig},
    id::NodeId,
    map::NodeMap,
    rules::Rules,
    time::Time,
};

/// The state that only the owner of a map has.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) map: NodeMap,
    /// Claims about this node's own name, and the reactions to them.
    pub(super) name: OwnName,
    pub(super) expiries: Expiries,
    pub(super) tombstones: Tombstones,
    pub(super) pace: Pace,
}

/// Own keys that expire, earliest first.
#[derive(Debug, Default)]
pub(super) struct Expiries(BTreeSet<(Time, Key)>);

impl Expiries {
    /// When the next one expires.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    /// A key expires at this time.
    pub(super) fn insert(&mut self, at: Time, key: Key) {
        self.0.insert((at, key));
    }

    /// A key is written, and expires at another time from now on, or not at all. `map`: its state before
    /// that.
    pub(super) fn replace(&mut self, map: &NodeMap, key: &Key, expires: Option<Time>) {
        if !self.0.is_empty()
            && let Some(Entry { content: Content::Value { expires: Some(at), .. }, .. }) =
                map.entries().get(key)
        {
            self.0.remove(&(*at, key.clone()));
        }
        if let Some(at) = expires {
            self.0.insert((at, key.clone()));
        }
    }

    /// Takes the next key that has expired.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Key> {
        let due = self.0.first().is_some_and(|(at, _)| *at <= now);
        if due { self.0.pop_first().map(|(_, key)| key) } else { None }
    }
}

/// How fast own writes are pushed.
#[derive(Debug)]
pub(super) struct Pace {
    flow: Flow,
    /// `None`: each update is signed at once.
    cadence: Option<Cadence>,
    /// The own line before the first waiting write, and the latest time to push it.
    held: Option<(DigestEntry, Time)>,
}

impl Pace {
    /// Nothing was written yet.
    pub(super) fn new(now: Time, rules: &Rules) -> Self {
        let flow = Flow::new(FlowConfig { interval: FLOW_INTERVAL }, now);
        Self { flow, cadence: rules.cadence.then(|| Cadence::new(now)), held: None }
    }

    /// Another owner has written.
    pub(super) fn heard(&mut self, now: Time, owner: &NodeId) {
        if let Some(cadence) = &mut self.cadence {
            cadence.heard(now, owner);
        }
    }

    /// This node is so late.
    pub(super) const fn set_lag(&mut self, lag: Duration) {
        if let Some(cadence) = &mut self.cadence {
            cadence.set_lag(lag);
        }
    }

    /// This many entries were written. Returns whether they may be pushed now.
    pub(super) fn wrote(&mut self, now: Time, entries: usize) -> bool {
        self.flow.wrote(now, entries, usize::from(self.held.is_some()));
        if let Some(cadence) = &mut self.cadence {
            cadence.wrote(now);
        }
        self.next_at(now) <= now
    }

    /// When the next entries may be pushed.
    fn next_at(&self, now: Time) -> Time {
        let signs = self.cadence.as_ref().and_then(Cadence::next);
        self.flow.next_at(now).max(signs.unwrap_or(now))
    }

    /// The entries written wait. `line`: the own line before them.
    pub(super) fn hold(&mut self, now: Time, line: DigestEntry) {
        self.held.get_or_insert((line, now + HOLD_MAX));
    }

    /// When the waiting entries may be pushed.
    pub(super) fn held_until(&self, now: Time) -> Option<Time> {
        self.held.as_ref().map(|(_, at_most)| self.next_at(now).min(*at_most))
    }

    /// The waiting entries are pushed, if there are any. Returns the own line before them.
    pub(super) fn release(&mut self) -> Option<DigestEntry> {
        self.held.take().map(|(line, _)| line)
    }

    /// The same for a caller that waits for them, unless there is an overload.
    pub(super) fn release_for_caller(&mut self, now: Time) -> Option<DigestEntry> {
        if self.flow.may_send(now) { self.release() } else { None }
    }

    /// The same, if it is time to.
    pub(super) fn release_due(&mut self, now: Time) -> Option<DigestEntry> {
        if self.held_until(now).is_some_and(|at| at <= now) { self.release() } else { None }
    }

    /// This many own entries were pushed. `crowded`: the links could not take all of them.
    pub(super) fn sent(&mut self, now: Time, entries: usize, crowded: bool) {
        if entries > 0 {
            if let Some(cadence) = &mut self.cadence {
                cadence.signed(now);
            }
            self.flow.sent(now, entries, usize::from(self.held.is_some()));
        }
        if crowded {
            self.flow.overflowed(now);
        } else {
            self.flow.fitted(now);
        }
    }
}

/// How often the flow control changes the allowance: as often as the paper's nodes gossip.
const FLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Own writes wait no longer than this to be pushed: by then the comparison of roots spreads them.
const HOLD_MAX: Duration = Duration::from_secs(2);
