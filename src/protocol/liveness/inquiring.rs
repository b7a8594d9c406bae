//! Missed peers: this node asks the other observers, answers theirs, and decides.

use std::time::Duration;

use super::{Liveness, announcing::renew, asking::Question, lives::Peer};
use crate::protocol::{
    gossip::{Answer, Ask},
    id::NodeId,
    inquiry::{Asker, Finding},
    questions::precedes,
    reason::Cause,
    route::{Counter, Output, StorageInput},
    state::PeerState,
    time::Time,
    verdict::Level,
    watch::Watch,
};

impl Liveness {
    /// A peer is missed: asks other observers, answers them, decides.
    pub(super) fn judge(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let scale = self.scale();
        let (Some(watch), Some(peer)) = (self.ears.get(node), self.lives.peers.get(node)) else {
            return;
        };
        if peer.state == PeerState::Left {
            return;
        }
        let accused = peer.state == PeerState::Suspect || peer.is_gone();
        let (judged, convinced) = (watch.is_judged(), watch.convinces(now, &scale));
        // Not for every packet that is lost: each question goes to all nodes.
        let doubtful = watch.phi(now, &scale) >= scale.dead_peer_phi * ASK_PART;
        let mut waits = false;
        if let Some(questions) = self.asking.questions_mut(node) {
            questions
                .retain(|question| now.since(question.at) < scale.interval * QUESTION_INTERVALS);
            // A question from the peer's own datacenter shows that the datacenter is not cut off: then a
            // witness has a vote as well, which counts where there are few other observers.
            for question in questions.iter_mut().filter(|q| convinced && (judged || q.near)) {
                if !std::mem::replace(&mut question.answered, true) {
                    out.push(Output::Storage(StorageInput::Answer(question.ask.clone(), false)));
                }
            }
            // Answer as long as an answer is possible, but not without end: a node may ask for ever, or
            // pretend to.
            let patience = scale.interval * WAIT_INTERVALS;
            let patient = watch.missing_since().is_some_and(|since| now.since(since) < patience);
            let lately = |q: &Question| q.near && now.since(q.at) < scale.interval / 2;
            waits = patient && questions.iter().any(lately);
        }
        if doubtful && !waits && !accused {
            self.ask(now, node, out);
        }
        self.decide(now, node, out);
    }

    /// Asks the observers of a peer, unless that was done just now, or too often.
    fn ask(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.lives.get(node) else { return };
        if self.config.rules.quiet_when_late && !self.lateness.may_ask(now) {
            return;
        }
        if !self.asking.begin(now, node, self.config.heartbeat_interval) {
            return;
        }
        self.lateness.asked(now);
        out.push(Output::Count(Counter::Inquiries, 1));
        out.push(Output::Storage(StorageInput::Ask(node.clone(), peer.generation)));
    }

    /// Another node asks whether we hear a peer.
    pub(super) fn asked(&mut self, now: Time, ask: Ask, near: bool, out: &mut Vec<Output>) {
        let Some(peer) = self.lives.peers.get(&ask.subject) else { return };
        let Some(watch) = self.ears.get_mut(&ask.subject) else { return };
        if ask.generation != peer.generation || peer.state == PeerState::Left {
            return;
        }
        let interval = self.config.heartbeat_interval;
        let since = watch.missing_since();
        let patient = since.is_none_or(|since| now.since(since) < interval * WAIT_INTERVALS);
        watch.begin_probing(now);
        if near && patient && self.config.rules.one_question && precedes(&ask, &self.config.node) {
            // Relays pass on that question and not ours: only its asker gets all answers.
            self.asking.concede(now, &ask.subject, interval);
        }
        self.asking.asked(now, ask, near);
        self.ticks.hurry(now);
        out.push(Output::Wake(Duration::ZERO));
    }

    pub(super) fn answered(&mut self, now: Time, answer: Answer, out: &mut Vec<Output>) {
        let subject = answer.ask.subject.clone();
        let Some(peer) = self.lives.peers.get(&subject) else { return };
        if answer.ask.generation != peer.generation {
            return;
        }
        let Some(inquiry) = self.asking.inquiry_mut(&subject) else { return };
        if answer.observer == subject && answer.hears {
            return self.acquit(now, &subject, out);
        }
        inquiry.answer(answer.observer, answer.hears);
        self.decide(now, &subject, out);
    }

    /// The peer lives, and this node does not hear it: the path between them is broken.
    fn acquit(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        self.asking.conclude(node);
        out.push(renew(node));
        if let Some(watch) = self.ears.get_mut(node) {
            watch.vouched(now);
        }
    }

    /// Concludes a question of ours, if the answers are sufficient.
    pub(super) fn decide(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let (scale, isolated) = (self.scale(), self.ears.is_isolated());
        let (Some(inquiry), Some(peer)) = (self.asking.inquiry(node), self.lives.peers.get(node))
        else {
            return;
        };
        if peer.is_gone() || peer.state == PeerState::Suspect {
            return;
        }
        let convinced = |watch: &Watch| watch.is_judged() && watch.convinces(now, &scale);
        let convinced = self.ears.get(node).is_some_and(convinced);
        let interval = scale.interval;
        let asker = Asker { node: &self.config.node, convinced, isolated, interval };
        let (cause, observers) = match inquiry.finding(now, asker, |node| self.misses(node)) {
            Finding::Open => return,
            Finding::Heard => return self.acquit(now, node, out),
            Finding::Silent(observers) => (Cause::Quorum, observers),
            Finding::Alone => (Cause::Alone, [self.config.node.clone()].into()),
        };
        self.accuse(now, node, Level::Suspect, cause, observers, out);
    }

    /// Whether a peer is missed here, or considered gone.
    fn misses(&self, node: &NodeId) -> bool {
        let gone = |peer: &Peer| peer.is_gone() || peer.state == PeerState::Suspect;
        self.ears.misses(node) || self.lives.get(node).is_some_and(gone)
    }
}

/// The share of the level of conviction at which this node asks others.
const ASK_PART: f64 = 0.25;
/// Intervals for which a question may be answered.
const QUESTION_INTERVALS: u32 = 2;
/// Intervals for which a node leaves the asking to others.
const WAIT_INTERVALS: u32 = 2;
