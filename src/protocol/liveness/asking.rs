//! Questions about missed peers: those of this node, and those of others.

use std::{collections::BTreeMap, time::Duration};

use crate::protocol::{bucket::Bucket, gossip::Ask, id::NodeId, inquiry::Inquiry, time::Time};

/// Most questions that a node asks in a row; after them it may ask [`ASKS_PER_INTERVAL`].
pub const ASKS_MAX: f64 = 10.0;
/// See [`ASKS_MAX`].
pub const ASKS_PER_INTERVAL: f64 = 2.0;
/// Most questions of others about one peer that wait to be answered.
pub const QUESTIONS_MAX: usize = 8;

/// The questions of this node, and the unanswered ones of others.
#[derive(Debug)]
pub(super) struct Asking {
    /// This node's questions about the peers that it misses.
    inquiries: BTreeMap<NodeId, Inquiry>,
    /// Unanswered questions of others.
    questions: BTreeMap<NodeId, Vec<Question>>,
    /// How many questions may be asked.
    asks: Bucket,
}

/// A question of another node.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) ask: Ask,
    pub(super) at: Time,
    /// It comes from the peer's own datacenter, where the answers are counted soon.
    pub(super) near: bool,
    pub(super) answered: bool,
}

impl Asking {
    /// Nothing was asked.
    pub(super) const fn new() -> Self {
        let asks = Bucket::holding(Time::ZERO, ASKS_MAX);
        Self { inquiries: BTreeMap::new(), questions: BTreeMap::new(), asks }
    }

    /// This node asks about a peer, unless it has done so just now, or asks too often. Returns whether it
    /// does. `interval`: how often a heartbeat is expected.
    pub(super) fn begin(&mut self, now: Time, node: &NodeId, interval: Duration) -> bool {
        if self.inquiries.contains_key(node) {
            return false;
        }
        let rate = ASKS_PER_INTERVAL / interval.as_secs_f64();
        let begins = self.asks.pays_of(now, rate, ASKS_MAX);
        if begins {
            self.inquiries.insert(node.clone(), Inquiry::new(now));
        }
        begins
    }

    /// This node's question about a peer.
    pub(super) fn inquiry(&self, node: &NodeId) -> Option<&Inquiry> {
        self.inquiries.get(node)
    }

    pub(super) fn inquiry_mut(&mut self, node: &NodeId) -> Option<&mut Inquiry> {
        self.inquiries.get_mut(node)
    }

    /// This node's question about a peer is answered.
    pub(super) fn conclude(&mut self, node: &NodeId) {
        self.inquiries.remove(node);
    }

    /// This node leaves a question that it has just asked to another node, which asks the same.
    pub(super) fn concede(&mut self, now: Time, node: &NodeId, interval: Duration) {
        let young = |inquiry: &Inquiry| now.since(inquiry.begun()) < interval / 2;
        if self.inquiries.get(node).is_some_and(young) {
            self.inquiries.remove(node);
        }
    }

    /// Another node asks.
    pub(super) fn asked(&mut self, now: Time, ask: Ask, near: bool) {
        let questions = self.questions.entry(ask.subject.clone()).or_default();
        if questions.len() < QUESTIONS_MAX {
            questions.push(Question { ask, at: now, near, answered: false });
        }
    }

    /// Whether another node has asked about a peer.
    pub(super) fn has_questions(&self, node: &NodeId) -> bool {
        self.questions.contains_key(node)
    }

    /// The questions of others about a peer.
    pub(super) fn questions_mut(&mut self, node: &NodeId) -> Option<&mut Vec<Question>> {
        self.questions.get_mut(node)
    }

    /// The same, to be answered.
    pub(super) fn take_questions(&mut self, node: &NodeId) -> Vec<Question> {
        self.questions.remove(node).unwrap_or_default()
    }

    /// The questions about a peer have no meaning any more.
    pub(super) fn drop(&mut self, node: &NodeId) {
        self.inquiries.remove(node);
        self.questions.remove(node);
    }

    /// Takes time out of the waiting.
    pub(super) fn excuse(&mut self, stalled: Duration, now: Time) {
        self.inquiries.values_mut().for_each(|inquiry| inquiry.excuse(stalled, now));
    }
}
