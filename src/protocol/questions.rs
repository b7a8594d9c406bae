//! Questions under way about which nodes hear a peer: each is passed on once, and answers go back the way it
//! came.

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
/// Most questions of this node for which answers are accepted: a node does not have more peers to miss.
pub const OWN_MAX: usize = NEIGHBOURS_MAX;
/// Most questions and answers passed on in a second; more than that are dropped.
pub const RELAYS_PER_SECOND: f64 = 500.0;

/// The questions that have passed here.
#[derive(Debug)]
pub struct Questions {
    /// By subject, asker and number: the sender, and the time.
    seen: BTreeMap<(NodeId, NodeId, u64), (NodeId, Time)>,
    /// The last questions of this node, by subject: the index, and its number.
    own: BTreeMap<NodeId, (u64, u64)>,
    asked: u64,
    key: [u8; 32],
    relays: Bucket,
}

impl Questions {
    /// No question has been received.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        let relays = Bucket::holding(now, RELAYS_PER_SECOND);
        Self { seen: BTreeMap::new(), own: BTreeMap::new(), asked: 0, key: [0; 32], relays }
    }

    /// The seed of the numbers of questions, which must stay secret.
    pub const fn set_key(&mut self, key: [u8; 32]) {
        self.key = key;
    }

    /// This node asks: the number of the question. Others cannot guess it: an attacker that could would ask
    /// in this node's name first, and then the question would not be passed on and its answers would not
    /// arrive.
    pub fn ask(&mut self, subject: NodeId, own: Generation) -> u64 {
        self.asked += 1;
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&own.0.to_le_bytes()).update(&self.asked.to_le_bytes());
        let mut number = [0; 8];
        hash.finalize_xof().fill(&mut number);
        let round = u64::from_le_bytes(number);
        self.own.insert(subject, (self.asked, round));
        if self.own.len() > OWN_MAX
            && let Some((oldest, _)) = self.own.iter().min_by_key(|(_, (asked, _))| *asked)
        {
            let oldest = oldest.clone();
            self.own.remove(&oldest);
        }
        round
    }

    /// Whether this is the last question of this node about that peer: answers that come later than the next
    /// question do not count for it.
    #[must_use]
    pub fn is_asked(&self, ask: &Ask) -> bool {
        self.own.get(&ask.subject).is_some_and(|(_, round)| *round == ask.round)
    }

    /// Whether a question has not passed here.
    #[must_use]
    pub fn is_new(&self, ask: &Ask) -> bool {
        !self.seen.contains_key(&key(ask))
    }

    /// The way of a question is remembered.
    pub fn remember(&mut self, now: Time, from: &NodeId, ask: &Ask) {
        if self.seen.len() >= QUESTIONS_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(key(ask), (from.clone(), now));
    }

    /// The next receiver of an answer.
    #[must_use]
    pub fn way_back(&self, answer: &Answer) -> Option<&NodeId> {
        self.seen.get(&key(&answer.ask)).map(|(from, _)| from)
    }

    /// Whether one more may be passed on.
    pub fn may_relay(&mut self, now: Time) -> bool {
        self.relays.pays_of(now, RELAYS_PER_SECOND, RELAYS_PER_SECOND)
    }
}

fn key(ask: &Ask) -> (NodeId, NodeId, u64) {
    (ask.subject.clone(), ask.asker.clone(), ask.round)
}
