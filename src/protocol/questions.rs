//! Questions who hears a peer, on their way: each is passed on once, and answers go back the way it came.

use std::collections::BTreeMap;

use super::{
    gossip::{Answer, Ask},
    id::{Generation, NodeId},
    time::Time,
};

/// Most questions whose way is remembered.
pub const QUESTIONS_MAX: usize = 4_096;
/// Most questions and answers passed on in a second; what comes then is dropped.
pub const RELAYS_PER_SECOND: f64 = 500.0;

/// The questions that have passed here.
#[derive(Debug)]
pub struct Questions {
    /// By subject and asker: the last round, who told us, and when.
    seen: BTreeMap<(NodeId, NodeId), (u64, NodeId, Time)>,
    asked: u64,
    relays: (f64, Time),
}

impl Questions {
    /// None has been heard of.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self { seen: BTreeMap::new(), asked: 0, relays: (RELAYS_PER_SECOND, now) }
    }

    /// The number of a question of ours, asked in this life of us: larger than all before.
    pub const fn next_round(&mut self, own: Generation) -> u64 {
        self.asked += 1;
        (own.0 << ROUND_BITS).wrapping_add(self.asked)
    }

    /// Whether a question is new; its way is remembered then.
    pub fn is_new(&mut self, now: Time, from: &NodeId, ask: &Ask) -> bool {
        let key = (ask.subject.clone(), ask.asker.clone());
        if self.seen.get(&key).is_some_and(|(round, ..)| *round >= ask.round) {
            return false;
        }
        if self.seen.len() >= QUESTIONS_MAX && !self.seen.contains_key(&key) {
            let oldest = self.seen.iter().min_by_key(|(_, (_, _, at))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(key, (ask.round, from.clone(), now));
        true
    }

    /// To whom an answer goes next.
    #[must_use]
    pub fn way_back(&self, answer: &Answer) -> Option<&NodeId> {
        let Answer { ask, .. } = answer;
        let (round, from, _) = self.seen.get(&(ask.subject.clone(), ask.asker.clone()))?;
        (*round == ask.round).then_some(from)
    }

    /// Whether one more may be passed on.
    pub fn may_relay(&mut self, now: Time) -> bool {
        let (left, since) = self.relays;
        let left = left + now.since(since).as_secs_f64() * RELAYS_PER_SECOND;
        let left = left.min(RELAYS_PER_SECOND);
        self.relays = (if left >= 1.0 { left - 1.0 } else { left }, now);
        left >= 1.0
    }
}

/// A life in milliseconds takes the upper bits, so that a later one asks with larger numbers.
const ROUND_BITS: u32 = 20;
