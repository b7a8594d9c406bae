//! Verdicts on others, and on this node: accusations, and their refutation.

use std::{collections::BTreeSet, sync::Arc};

use super::{Replica, outgoing::tell, quotas::Quota};
use crate::protocol::{
    claim::Heads,
    delta::Delta,
    gossip::{Accusation, Answer, Ask, Gossip, OBSERVERS_MAX},
    id::{Datacenter, Generation, Incarnation, NodeId},
    map::NodeMap,
    overlay::{self, FELLOWS_MIN},
    record::{NodeRecord, Status},
    route::{Counter, DetectorInput, Output},
    time::Time,
    verdict::{INCARNATION_MAX, Level, Verdict},
};

impl Replica {
    pub(super) fn tell_detector(&self, peer: &NodeId, out: &mut Vec<Output>) {
        let Some(map) = self.copies.get(peer) else { return };
        let Some(record) = map.record() else { return };
        let (generation, status, verdict) = (map.generation(), record.status, map.verdict());
        let observers = self.accusations.observers(peer, verdict);
        let peer = peer.clone();
        let member = DetectorInput::Member { peer, generation, status, verdict, observers };
        out.push(Output::Detector(member));
    }

    /// Our detector and these observers are convinced: from now on all nodes have to know.
    pub(super) fn accuse(
        &mut self,
        subject: &NodeId,
        generation: Generation,
        verdict: Verdict,
        observers: &Arc<[NodeId]>,
        out: &mut Vec<Output>,
    ) {
        let observers = observers.iter().take(OBSERVERS_MAX).cloned().collect();
        let subject = subject.clone();
        self.take_accusation(None, Accusation { subject, generation, verdict, observers }, out);
    }

    /// Others are convinced.
    pub(super) fn accused_by_others(
        &mut self,
        now: Time,
        from: &NodeId,
        accusation: Accusation,
        out: &mut Vec<Output>,
    ) {
        let Accusation { subject, generation, verdict, .. } = &accusation;
        if *subject == self.config.node {
            return self.judged_by_others(now, *generation, *verdict, out);
        }
        let news = self.copies.get(subject).is_some_and(|copy| {
            copy.generation() == *generation
                && *verdict > copy.verdict()
                && verdict.incarnation <= INCARNATION_MAX
        });
        if !news {
            return;
        }
        if self.may_accuse(&accusation) && self.quotas.may(now, Quota::Accusations, from) {
            self.take_accusation(Some(from), accusation, out);
        } else {
            out.push(Output::Count(Counter::AccusationsRefused, 1));
        }
    }

    fn take_accusation(
        &mut self,
        from: Option<&NodeId>,
        accusation: Accusation,
        out: &mut Vec<Output>,
    ) {
        let Accusation { subject, generation, verdict, observers } = &accusation;
        let before = self.before(subject);
        let Some(copy) = self.copies.get_mut(subject) else { return };
        if copy.generation() != *generation || !Arc::make_mut(copy).judge(*verdict) {
            return;
        }
        self.touched(&before);
        self.accusations.agree(subject.clone(), *verdict, observers);
        self.tell_detector(subject, out);
        let to = self.push.links().filter(|peer| Some(*peer) != from).cloned().collect();
        tell(to, Gossip::Accusation(accusation), out);
    }

    /// Whether most of the named observers observe the accused, by our view: views differ a little.
    fn may_accuse(&self, accusation: &Accusation) -> bool {
        let Accusation { subject, observers, .. } = accusation;
        let fellows: Vec<_> = self.fellows(subject).collect();
        let fellow_count = fellows.len();
        let known = |node: &NodeId| *node == self.config.node || self.copies.contains_key(node);
        let sound = if fellows.len() < FELLOWS_MIN {
            observers.iter().filter(|observer| known(observer)).count()
        } else {
            let near = overlay::ring_neighbours(subject, fellows.into_iter(), 2);
            observers.iter().filter(|observer| near.contains(observer)).count()
        };
        // If an observer is alone, others cannot know whether it is deaf itself: its packets come through,
        // and all peers seem dead to it.
        let lone = observers.len() < 2 && fellow_count >= FELLOWS_MIN;
        sound * 2 > observers.len() && !lone
    }

    /// The other members of a node's datacenter.
    fn fellows<'a>(&'a self, subject: &NodeId) -> impl Iterator<Item = &'a NodeId> {
        let place = |map: &NodeMap| map.record().map(|record| record.datacenter.clone());
        let there = self.map_of(subject).and_then(place);
        let others = self.copies.iter().filter(|(node, _)| !self.is_gone(node));
        let all =
            others.map(|(node, copy)| (node, &**copy)).chain([(&self.config.node, &self.own.map)]);
        let subject = subject.clone();
        all.filter(move |(node, map)| **node != subject && place(map) == there)
            .map(|(node, _)| node)
    }

    // --- suspicion polls

    /// This node does not hear a peer: asks its observers.
    pub(super) fn ask(
        &mut self,
        now: Time,
        subject: NodeId,
        generation: Generation,
        out: &mut Vec<Output>,
    ) {
        let fellows: Vec<_> = self.fellows(&subject).collect();
        // The dead, which are kept for long, are not asked.
        let alone = self.copies.keys().filter(|node| !self.is_gone(node)).nth(1).is_none();
        let observers = if fellows.len() < FELLOWS_MIN && !alone {
            // Nodes with bridges hear it, and this node does not know all of them.
            None
        } else {
            let near = overlay::ring_neighbours(&subject, fellows.into_iter(), 1);
            Some(near.into_iter().cloned().collect())
        };
        let round = self.questions.ask(subject.clone(), self.own.map.generation());
        let asker = self.config.node.clone();
        let to = self.push.links().filter(|peer| **peer != subject).cloned().collect();
        let ask = Ask { subject: subject.clone(), generation, asker, round };
        // Ours is asked whatever others have asked: the detector has seen those questions.
        self.is_held_back(now, None, &ask);
        tell(to, Gossip::Ask(ask), out);
        out.push(Output::Detector(DetectorInput::Asking(subject, observers)));
    }

    /// A peer asks, or passes on a question.
    pub(super) fn asked_about(
        &mut self,
        now: Time,
        from: &NodeId,
        ask: Ask,
        out: &mut Vec<Output>,
    ) {
        let ours = ask.subject == self.config.node;
        let sound = |copy: &Arc<NodeMap>| copy.generation() == ask.generation;
        let sound = if ours {
            ask.generation == self.own.map.generation()
        } else {
            self.copies.get(&ask.subject).is_some_and(sound) && !self.is_gone(&ask.subject)
        };
        // First of all, so that questions that no node can answer take no room from others.
        if ask.asker == self.config.node || !sound || !self.questions.is_new(&ask) {
            return;
        }
        if !self.may_relay(now, from) {
            return out.push(Output::Count(Counter::QuestionsShed, 1));
        }
        if !ours && self.is_held_back(now, Some(from), &ask) {
            return out.push(Output::Count(Counter::QuestionsJoined, 1));
        }
        self.questions.remember(now, from, &ask);
        if ours {
            let observer = self.config.node.clone();
            let answer = Answer { ask, observer, hears: true };
            return tell(vec![from.clone()], Gossip::Answer(answer), out);
        }
        let others = self.push.links().filter(|peer| **peer != ask.subject && *peer != from);
        let to = others.cloned().collect();
        tell(to, Gossip::Ask(ask.clone()), out);
        let near = self.is_near(&ask);
        out.push(Output::Detector(DetectorInput::Asked(ask, near)));
    }

    /// Whether a question comes from the subject's own datacenter.
    fn is_near(&self, ask: &Ask) -> bool {
        let place = |node| self.map_of(node).and_then(NodeMap::record).map(|r| &r.datacenter);
        place(&ask.asker) == place(&ask.subject)
    }

    /// Whether a question is not passed on, since another one about the same is under way. Only those of the
    /// subject's own datacenter count: there the answers are counted. `from`: the sender; `None` if this node
    /// asks.
    fn is_held_back(&mut self, now: Time, from: Option<&NodeId>, ask: &Ask) -> bool {
        if !self.config.rules.one_question || !self.is_near(ask) {
            return false;
        }
        let by_itself = from.is_none_or(|from| *from == ask.asker);
        let holds = by_itself || !self.push.is_linked(&ask.asker);
        self.questions.is_held_back(now, ask, self.config.interval, holds)
    }

    /// Our detector answers a question.
    pub(super) fn answer_question(&self, ask: Ask, hears: bool, out: &mut Vec<Output>) {
        let answer = Answer { ask, observer: self.config.node.clone(), hears };
        if let Some(to) = self.questions.way_back(&answer) {
            tell(vec![to.clone()], Gossip::Answer(answer), out);
        }
    }

    /// A node answers a question of ours, or of another node.
    pub(super) fn answered(
        &mut self,
        now: Time,
        from: &NodeId,
        answer: Answer,
        out: &mut Vec<Output>,
    ) {
        if answer.ask.asker == self.config.node {
            if !self.questions.is_asked(&answer.ask) {
                return;
            }
            let fellows: Vec<_> = self.fellows(&answer.ask.subject).collect();
            let near = fellows.len() < FELLOWS_MIN
                || answer.observer == answer.ask.subject
                || overlay::ring_neighbours(&answer.ask.subject, fellows.into_iter(), 2)
                    .contains(&answer.observer);
            if near {
                out.push(Output::Detector(DetectorInput::Answered(answer)));
            }
            return;
        }
        let Some(to) = self.questions.way_back(&answer).cloned() else { return };
        if !self.may_relay(now, from) {
            return out.push(Output::Count(Counter::QuestionsShed, 1));
        }
        tell(vec![to], Gossip::Answer(answer), out);
    }

    /// Whether a question or an answer of this peer may be passed on: it may use half of the limit.
    fn may_relay(&mut self, now: Time, from: &NodeId) -> bool {
        self.quotas.may(now, Quota::Relays, from) && self.questions.may_relay(now)
    }

    /// Sends a peer the verdict on it, so that it can refute that.
    pub(super) fn confront(&mut self, peer: &NodeId, out: &mut Vec<Output>) {
        let before = self.before(peer);
        if self.forgotten.take_back(peer) {
            self.sum_up(&before);
        }
        let Some(copy) = self.copies.get(peer).filter(|copy| copy.verdict().level > Level::Alive)
        else {
            return;
        };
        if self.push.is_linked(peer) {
            let delta = Delta { nodes: vec![copy.judgement(peer.clone())], more: false };
            tell(vec![peer.clone()], Gossip::Push(delta), out);
        }
    }

    /// Publishes the datacenters with which this node has lost contact.
    pub(super) fn sever(
        &mut self,
        now: Time,
        severed: BTreeSet<Datacenter>,
        out: &mut Vec<Output>,
    ) {
        let record = self.own_record();
        if record.severed == severed {
            return;
        }
        let before = self.before(&self.config.node);
        let persist = self.write_record(NodeRecord { severed, ..record });
        out.push(Output::Persist(persist));
        self.touched_own(now, before, out);
    }

    /// Publishes the dates of this node's certificate, in seconds since 1970.
    pub fn set_validity(&mut self, now: Time, validity: Option<(u64, u64)>, out: &mut Vec<Output>) {
        let record = self.own_record();
        let (not_before, not_after) = validity.unzip();
        if (record.not_before, record.not_after) == (not_before, not_after) {
            return;
        }
        let before = self.before(&self.config.node);
        let persist = self.write_record(NodeRecord { not_before, not_after, ..record });
        out.push(Output::Persist(persist));
        self.touched_own(now, before, out);
    }

    /// Refutes the verdict of others on this generation.
    pub(super) fn judged_by_others(
        &mut self,
        now: Time,
        generation: Generation,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let record = self.own_record();
        let ours = Verdict::alive(record.incarnation);
        let absurd = verdict.incarnation > INCARNATION_MAX;
        let left = record.status == Status::Left;
        if generation != self.own.map.generation() || verdict <= ours || left || absurd {
            return;
        }
        // Where heads are signed, other nodes do not accept a verdict on an incarnation that this node has
        // not signed: a refutation is not needed.
        if self.heads() == Heads::Signed && verdict.incarnation > record.incarnation {
            return out.push(Output::Count(Counter::ClaimsUnproved, 1));
        }
        if !self.accusations.may_refute(now) {
            self.accusations.put_off(generation, verdict);
            return self.arm(now, out);
        }
        let incarnation = match verdict.level {
            Level::Alive => verdict.incarnation,
            Level::Suspect | Level::Dead => verdict.incarnation.next(),
        };
        // After the last incarnation only another generation is left, of which others take up a few a minute.
        let renews = incarnation > INCARNATION_MAX;
        if renews && !self.accusations.may_begin_life(now) {
            return out.push(Output::Count(Counter::ClaimsUnproved, 1));
        }
        self.accusations.refute(now, renews);
        let before = self.before(&self.config.node);
        let incarnation = if renews {
            self.own.map.renew(generation.next());
            Incarnation::ZERO
        } else {
            incarnation
        };
        out.push(Output::Count(Counter::Refutations, 1));
        let persist = self.write_record(NodeRecord { incarnation, ..record });
        out.push(Output::Persist(persist));
        self.touched_own(now, before, out);
    }
}
