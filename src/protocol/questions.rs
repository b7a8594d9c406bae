//! Questions who hears a peer, on their way: each is passed on once, and answers go back the way it came.

use std::collections::BTreeMap;

use super::{
    bucket::Bucket,
    gossip::{Answer, Ask},
    id::{Generation, NodeId},
    overlay::NEIGHBOURS_MAX,
    time::Time,
};

/// Most questions whose way is remembered.
pub const QUESTIONS_MAX: usize = 4_096;
/// Most questions of this node that answers are taken to: nobody has more peers to miss.
pub const OWN_MAX: usize = NEIGHBOURS_MAX;
/// Most questions and answers passed on in a second; what comes then is dropped.
pub const RELAYS_PER_SECOND: f64 = 500.0;

/// The questions that have passed here.
#[derive(Debug)]
pub struct Questions {
    /// By subject and asker: the last round, who told us, and when.
    seen: BTreeMap<(NodeId, NodeId), (u64, NodeId, Time)>,
    /// The last questions of this node, by subject.
    own: BTreeMap<NodeId, u64>,
    asked: u64,
    relays: Bucket,
}

impl Questions {
    /// None has been heard of.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        let relays = Bucket::holding(now, RELAYS_PER_SECOND);
        Self { seen: BTreeMap::new(), own: BTreeMap::new(), asked: 0, relays }
    }

    /// This node asks: the number of the question, larger than all before in this life of us and the
    /// earlier ones.
    pub fn ask(&mut self, subject: NodeId, own: Generation) -> u64 {
        self.asked += 1;
        let round = (own.0 << ROUND_BITS).wrapping_add(self.asked);
        self.own.insert(subject, round);
        if self.own.len() > OWN_MAX
            && let Some((oldest, _)) = self.own.iter().min_by_key(|(_, round)| **round)
        {
            let oldest = oldest.clone();
            self.own.remove(&oldest);
        }
        round
    }

    /// Whether this is what this node asked last about that peer: what comes later than the next
    /// question says nothing to it.
    #[must_use]
    pub fn is_asked(&self, ask: &Ask) -> bool {
        self.own.get(&ask.subject) == Some(&ask.round)
    }

    /// Whether a question has not passed here.
    #[must_use]
    pub fn is_new(&self, ask: &Ask) -> bool {
        let key = (ask.subject.clone(), ask.asker.clone());
        self.seen.get(&key).is_none_or(|(round, ..)| *round < ask.round)
    }

    /// The way of a question is remembered.
    pub fn remember(&mut self, now: Time, from: &NodeId, ask: &Ask) {
        let key = (ask.subject.clone(), ask.asker.clone());
        if self.seen.len() >= QUESTIONS_MAX && !self.seen.contains_key(&key) {
            let oldest = self.seen.iter().min_by_key(|(_, (_, _, at))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(key, (ask.round, from.clone(), now));
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
        self.relays.pays_of(now, RELAYS_PER_SECOND, RELAYS_PER_SECOND)
    }
}

/// A life in milliseconds takes the upper bits, so that a later one asks with larger numbers.
const ROUND_BITS: u32 = 20;
