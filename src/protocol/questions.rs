//! Questions under way about which nodes hear a peer: each is passed on once, and answers go back the way it
//! came.
//!
//! A question is about a subject: all observers of a peer that falls silent may ask the same at once, and each
//! question goes to all nodes. So of the questions about one generation of a peer that a relay sees within half
//! an interval, it passes on only those whose asker [comes first](precedes) among them so far. All relays agree
//! on the order, so the first one reaches all nodes and gets all answers; the other askers hear of it and leave
//! the asking to it. They would decide by a part of the answers otherwise.
//!
//! A question is not signed, so any member can ask in the name of another. It can hold back the questions of
//! others for half an interval by that, and not again before [`REST_INTERVALS`]; an asker waits no longer than
//! two intervals. If a relay is connected with the asker, only the asker itself can hold others back there.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bucket::Bucket,
    gossip::{Answer, Ask},
    hash::{hash, mix},
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
/// Most peers about whom questions are held back; questions about further ones are all passed on.
pub const PEERS_IN_QUESTION_MAX: usize = 256;
/// Questions about a peer are held back for half an interval, and then not again for this many intervals.
pub const REST_INTERVALS: u32 = 10;

/// Whether the asker of a question comes before another node that asks the same.
#[must_use]
pub fn precedes(ask: &Ask, other: &NodeId) -> bool {
    rank(&ask.subject, &ask.asker) < rank(&ask.subject, other)
}

/// Another order for each subject, so that no node is always the first.
fn rank<'a>(subject: &NodeId, asker: &'a NodeId) -> (u64, &'a NodeId) {
    (mix(hash(subject.as_str()).rotate_left(32) ^ hash(asker.as_str())), asker)
}

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
    /// The first asker about each generation of a peer.
    first: BTreeMap<(NodeId, Generation), First>,
}

/// The question about a peer that holds others back.
#[derive(Debug)]
struct First {
    asker: NodeId,
    /// When the first question of all was passed on.
    since: Time,
}

impl Questions {
    /// No question has been received.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let relays = Bucket::holding(now, RELAYS_PER_SECOND);
        let (seen, own) = (BTreeMap::new(), BTreeMap::new());
        Self { seen, own, asked: 0, key: [0; 32], relays, first: BTreeMap::new() }
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

    /// Whether a question is held back, since one whose asker comes first was passed on just now. `interval`:
    /// how often a heartbeat is expected. `holds`: whether this one may hold others back.
    pub fn is_held_back(&mut self, now: Time, ask: &Ask, interval: Duration, holds: bool) -> bool {
        let key = (ask.subject.clone(), ask.generation);
        match self.first.get_mut(&key).filter(|first| now.since(first.since) < interval / 2) {
            Some(first) if ask.asker == first.asker => false,
            Some(first) if precedes(ask, &first.asker) => {
                if holds {
                    first.asker = ask.asker.clone();
                }
                false
            }
            Some(_) => true,
            None => {
                if holds {
                    self.begin(now, key, ask, interval);
                }
                false
            }
        }
    }

    /// From now on a question holds others back, unless one about this peer has done so lately.
    fn begin(&mut self, now: Time, key: (NodeId, Generation), ask: &Ask, interval: Duration) {
        if self.first.len() >= PEERS_IN_QUESTION_MAX {
            self.first.retain(|_, first| now.since(first.since) < interval * REST_INTERVALS);
        }
        let room = self.first.len() < PEERS_IN_QUESTION_MAX;
        let rests = |first: &First| now.since(first.since) < interval * REST_INTERVALS;
        if room && !self.first.get(&key).is_some_and(rests) {
            self.first.insert(key, First { asker: ask.asker.clone(), since: now });
        }
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
