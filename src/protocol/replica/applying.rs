//! Updates of others: whether they may be applied, their effects, and the receivers of the result.

use std::sync::Arc;

use super::{
    Replica,
    outcome::{Before, Outcome},
    outgoing::refused,
    quotas::Quota,
    sealing::Vetted,
};
use crate::protocol::durable::{Change, KnownPeer};
use crate::protocol::{
    delta::{Delta, NodeDelta},
    digest::DigestEntry,
    event::{Event, ProtocolEvent},
    id::NodeId,
    map::{Applied, KeyChange, NodeMap, Refusal},
    record::{NodeRecord, Status},
    returning::Return,
    route::{Counter, Output, Reach, SchedulerInput},
    time::Time,
    verdict::Level,
};

impl Replica {
    /// Applies updates, node by node. Updates that would break a copy are refused, counted and reported.
    pub fn apply(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) {
        for delta in &news.nodes {
            let before = self.before(&delta.node);
            match self.apply_one(now, from, delta, &before, out) {
                Outcome::News => {
                    self.push.note(before.line, Some(from), true);
                }
                Outcome::Refused(refusal) => refused(from, delta, refusal, out),
                Outcome::Known | Outcome::Unintroduced | Outcome::Ignored => {}
            }
        }
        self.tell_news(now, out);
    }

    /// The line of a node in our digest.
    pub(super) fn line(&self, node: &NodeId) -> DigestEntry {
        match self.map_of(node) {
            Some(map) => map.digest_entry(node.clone()),
            None => DigestEntry::unknown(node.clone()),
        }
    }

    pub(super) fn apply_one(
        &mut self,
        now: Time,
        from: &NodeId,
        delta: &NodeDelta,
        before: &Before,
        out: &mut Vec<Output>,
    ) -> Outcome {
        out.push(Output::Count(Counter::EntriesReceived, delta.entries.len() as u64));
        if delta.node == self.config.node {
            return self.told_of_self(now, from, delta, out);
        }
        if self.is_absurd(now, delta.generation) {
            return Outcome::Refused(Refusal::Malformed);
        }
        if self.revoked.union.ends(&delta.node, delta.generation) {
            self.refuse_revoked(from, out);
            return Outcome::Ignored;
        }
        // The owner signs its record; the verdict is that of others.
        let incarnation = match &delta.record {
            Some((_, record)) => record.incarnation,
            None => delta.verdict.incarnation,
        };
        let life = (delta.generation, incarnation);
        if let Some(mark) = self.forgotten.marks.against(from, &delta.node, life) {
            out.push(Output::Count(Counter::ForgottenNewsRefused, 1));
            mark.recall(from, &delta.node, out);
            return Outcome::Ignored;
        }
        let known = self.copies.contains_key(&delta.node);
        if !known && delta.record.is_none() {
            out.push(Output::Count(Counter::UnknownPeers, 1));
            let peer = delta.node.clone();
            out.push(Output::Protocol(ProtocolEvent::UnknownPeer { peer }));
            return Outcome::Unintroduced;
        }
        if !known && self.copies.len() >= self.config.peers_max {
            out.push(Output::Count(Counter::PeersShed, 1));
            return Outcome::Ignored;
        }
        if self.copies.get(&delta.node).is_some_and(|copy| copy.covers(delta)) {
            self.equivocates(from, delta, out);
            return Outcome::Known;
        }
        if self.has_moved(delta) {
            return Outcome::Refused(Refusal::Misplaced);
        }
        // Before anything is verified. An update that comes too soon comes again with a later exchange.
        let begins = |copy: &Arc<NodeMap>| delta.generation > copy.generation();
        if self.copies.get(&delta.node).is_some_and(begins)
            && !self.quotas.may_begin(now, &delta.node)
        {
            out.push(Output::Count(Counter::LivesShed, 1));
            return Outcome::Ignored;
        }
        let vetted = self.vet(now, delta, out);
        if !known && let Err(refusal) = vetted {
            return Outcome::Refused(refusal);
        }
        let copy = Arc::make_mut(self.copies.entry(delta.node.clone()).or_default());
        let (earlier, examined) = (copy.record().cloned(), copy.examined());
        let (returned, reach) = (Return::of(copy, delta), copy.max_version());
        // A credential that was requested has come.
        let mut answered = false;
        let applied = match vetted {
            Err(refusal) => Err(refusal),
            Ok(Vetted::Verdict) => Ok(Applied::default()),
            Ok(Vetted::Bare) => copy.apply(now, delta, &self.config.limits),
            Ok(Vetted::Signed(credential)) => {
                let applied = copy.apply(now, delta, &self.config.limits);
                if applied.is_ok()
                    && let Some(credential) = credential
                {
                    answered = copy.vouch(credential);
                }
                applied
            }
        };
        out.push(Output::Count(Counter::EntriesExamined, copy.examined() - examined));
        // The verdict on a node does not depend on how many of its keys are here.
        let graver = copy.generation() == delta.generation && copy.is_graver(delta.verdict);
        let accuses = graver && known && delta.verdict.level > Level::Alive;
        let may_judge = !accuses || self.quotas.may(now, Quota::Verdicts, from);
        if !may_judge {
            out.push(Output::Count(Counter::VerdictsShed, 1));
        }
        let judged = graver && may_judge && copy.judge(delta.verdict);
        if answered {
            self.touched(before);
        }
        if known && applied.as_ref().is_ok_and(|applied| applied.generation) {
            self.quotas.began(now, &delta.node);
        }
        let outcome = match applied {
            Ok(applied) => {
                // Before the detector receives the contents of the new record.
                if let Some(how) = returned.filter(|_| applied.generation || applied.record) {
                    self.returned(&delta.node, how, reach, out);
                }
                self.applied(delta, earlier.as_deref(), applied, before, out)
            }
            Err(refusal) => {
                if !known {
                    self.copies.remove(&delta.node);
                    return Outcome::Refused(refusal);
                }
                self.ask_for_more(now, refusal, delta, before);
                Outcome::Refused(refusal)
            }
        };
        if judged {
            if !matches!(outcome, Outcome::News) {
                self.touched(before);
            }
            self.tell_detector(&delta.node, out);
            // The others have to receive it whatever we lack.
            if matches!(outcome, Outcome::Refused(_)) {
                self.push.note(before.line.clone(), Some(from), false);
            }
            return if matches!(outcome, Outcome::Known) { Outcome::News } else { outcome };
        }
        outcome
    }

    /// Whether a node reports another datacenter than before, in one generation. The datacenter is fixed when
    /// a process starts, and each change of it is costly for all others: the overlay is computed again.
    fn has_moved(&self, delta: &NodeDelta) -> bool {
        let Some((_, told)) = &delta.record else { return false };
        let copy = self.copies.get(&delta.node);
        let copy = copy.filter(|copy| copy.generation() == delta.generation);
        copy.and_then(|copy| copy.record()).is_some_and(|here| here.datacenter != told.datacenter)
    }

    pub(super) fn applied(
        &mut self,
        delta: &NodeDelta,
        earlier: Option<&NodeRecord>,
        applied: Applied,
        before: &Before,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let peer = &delta.node;
        let news = applied.generation || applied.record || applied.advanced;
        if !news {
            return Outcome::Known;
        }
        if applied.generation {
            self.forgotten.marks.remove(peer);
        }
        // It has a new generation, or has refuted that it is dead: the others report it again.
        if applied.generation || (applied.record && !self.is_gone(peer)) {
            self.forgotten.take_back(peer);
        }
        self.touched(before);
        if applied.generation || applied.record {
            self.forgotten.met(peer);
            self.introduce(peer, earlier, applied.generation, out);
        }
        out.push(Output::Count(Counter::EntriesApplied, delta.entries.len() as u64));
        let generation = delta.generation;
        out.extend(applied.changes.into_iter().map(|change| {
            let peer = peer.clone();
            Output::Event(match change {
                KeyChange::Updated(key, value, version) => {
                    Event::Updated { peer, key, value, generation, version }
                }
                KeyChange::Deleted(key, version) => {
                    Event::Deleted { peer, key, generation, version }
                }
            })
        }));
        Outcome::News
    }

    /// Reports a peer that is new, or has a new record or generation.
    fn introduce(
        &self,
        peer: &NodeId,
        earlier: Option<&NodeRecord>,
        renewed: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(map) = self.copies.get(peer) else { return };
        let Some(record) = map.record() else { return };
        let generation = map.generation();
        let event = match earlier {
            None => Some(Event::NewPeer { peer: peer.clone() }),
            // Only the scheduler needs to know which datacenters it hears.
            Some(earlier) if !renewed && earlier.says_the_same(record) => None,
            Some(_) => Some(Event::PeerChanged { peer: peer.clone(), generation }),
        };
        out.extend(event.map(Output::Event));
        if earlier.map_or(!record.severed.is_empty(), |earlier| earlier.severed != record.severed) {
            let severed = SchedulerInput::Severed(peer.clone(), record.severed.clone());
            out.push(Output::Scheduler(severed));
        }
        // It may have moved.
        let datacenter = record.datacenter.clone();
        out.push(Output::Scheduler(SchedulerInput::Located(peer.clone(), datacenter)));
        if earlier.is_none() {
            let reach = SchedulerInput::Peer(peer.clone(), Reach::Unheard);
            out.push(Output::Scheduler(reach));
        }
        self.tell_detector(peer, out);
        out.push(Output::Persist(vec![Change::Peer(KnownPeer {
            node: peer.clone(),
            datacenter: record.datacenter.clone(),
            addresses: record.addresses.clone(),
            generation,
            dead: record.status != Status::Up,
        })]));
    }
}
