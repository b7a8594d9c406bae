//! The effects of time: keys that expire, tombstones, and peers that are forgotten.

use std::{sync::Arc, time::Duration};

use super::{Replica, marks::Mark, outgoing::tell, quotas::Quota};
use crate::protocol::{
    claim::Heard,
    digest::Digest,
    event::{Event, Problem},
    gossip::{Gossip, Removal},
    id::{Generation, NodeId, Version},
    map::NodeMap,
    push::PUSH_INTERVAL,
    record::Status,
    route::{Counter, DetectorInput, Output, SchedulerInput, TransportInput},
    time::Time,
    verdict::{Level, Verdict},
};
use crate::protocol::{
    durable::Change,
    write::{Write, Written},
};

impl Replica {
    /// Reports to a peer which of the nodes in its digest were forgotten or removed here. A node of these
    /// that lives receives it from that peer, or from this node, and refutes it.
    pub(super) fn remind(&self, from: &NodeId, digest: &Digest, out: &mut Vec<Output>) {
        for (node, mark) in
            self.forgotten.marks.named_in(from, digest).into_iter().take(REMINDERS_MAX)
        {
            mark.recall(from, node, out);
        }
    }

    /// A peer is to be forgotten here and by all that do not hear it: a person requested it at this node, or
    /// at another one, from which `by` has passed it on.
    pub(super) fn remove(
        &mut self,
        now: Time,
        peer: &NodeId,
        by: Option<NodeId>,
        out: &mut Vec<Output>,
    ) {
        if let Some(copy) = self.copies.get(peer) {
            let (generation, incarnation) = (copy.generation(), copy.verdict().incarnation);
            let others = self.push.links().filter(|link| Some(*link) != by.as_ref());
            let (to, subject) = (others.cloned().collect(), peer.clone());
            tell(to, Gossip::Removal(Removal { subject, generation, incarnation }), out);
            if by.is_some() {
                out.push(Output::Count(Counter::RemovalsFollowed, 1));
            }
            out.push(Output::Event(Event::PeerRemoved { peer: peer.clone(), by }));
        }
        self.mark(now, peer, out);
        self.drop_copy(peer, false, out);
    }

    /// Another node reports that a generation was removed, or forgotten there. This node forgets it only if
    /// its own detector has found it gone. Otherwise the generation is declared dead: a node that lives
    /// refutes that, and a dead one does not stay live here because all others have forgotten it.
    pub(super) fn removed_by_others(
        &mut self,
        now: Time,
        from: &NodeId,
        removal: Removal,
        out: &mut Vec<Output>,
    ) {
        let Removal { subject, generation, incarnation } = &removal;
        let (generation, incarnation) = (*generation, *incarnation);
        if *subject == self.config.node {
            let verdict = Verdict { incarnation, level: Level::Dead };
            self.judged_by_others(now, generation, verdict, out);
            if generation > self.own.map.generation() {
                self.heard_of_self(now, generation, Heard::Said(from.clone()), out);
            }
            return;
        }
        let before = self.before(subject);
        let Some(copy) = self.copies.get_mut(subject) else { return };
        let known = (copy.generation(), copy.verdict().incarnation);
        if known > (generation, incarnation) {
            return;
        }
        let subject = subject.clone();
        // It is about a later generation than the one that is connected to this node itself: a node whose
        // store was lost and whose clock is behind. It has to receive that, and has nothing to refute.
        if known.0 < generation && self.push.is_linked(&subject) {
            return tell(vec![subject], Gossip::Removal(removal), out);
        }
        let dead = Verdict { incarnation: known.1, level: Level::Dead };
        let graver = copy.is_graver(dead);
        let may_judge = graver && self.quotas.may(now, Quota::Verdicts, from);
        if graver && !may_judge {
            out.push(Output::Count(Counter::VerdictsShed, 1));
        }
        let judged = may_judge && Arc::make_mut(copy).judge(dead);
        if self.push.is_linked(&subject) {
            tell(vec![subject.clone()], Gossip::Removal(removal), out);
        }
        let (peer, by) = (subject.clone(), from.clone());
        out.push(Output::Detector(DetectorInput::Removal { peer, generation: known.0, by }));
        if judged {
            self.touched(&before);
            self.tell_detector(&subject, out);
        }
    }

    /// Whether a peer is dead or has left.
    pub(super) fn is_gone(&self, node: &NodeId) -> bool {
        let over = |copy: &Arc<NodeMap>| {
            copy.verdict().level == Level::Dead
                || copy.record().is_some_and(|r| r.status == Status::Left)
        };
        self.copies.get(node).is_some_and(over)
    }

    pub(super) fn retire(&mut self, peer: NodeId, generation: Generation) {
        let before = self.before(&peer);
        if self.has_ended(&peer, generation) && self.forgotten.retire(peer) {
            self.sum_up(&before);
        }
    }

    /// Whether there is a copy of this generation of a peer or of an earlier one.
    fn has_ended(&self, peer: &NodeId, generation: Generation) -> bool {
        self.copies.get(peer).is_some_and(|copy| copy.generation() <= generation)
    }

    /// Forgets a peer, and marks its generation as gone.
    pub(super) fn forget(
        &mut self,
        now: Time,
        peer: &NodeId,
        generation: Generation,
        out: &mut Vec<Output>,
    ) {
        if self.copies.contains_key(peer) && !self.has_ended(peer, generation) {
            return;
        }
        self.mark(now, peer, out);
        self.drop_copy(peer, true, out);
    }

    fn mark(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        let Some(copy) = self.copies.get(peer) else { return };
        let life = (copy.generation(), copy.verdict().incarnation);
        let dropped = self.forgotten.marks.insert(now, peer, life);
        if dropped > 0 {
            out.push(Output::Count(Counter::MarksDropped, dropped));
        }
    }

    /// Drops all state of others if this process stood still for as long as it takes the others to forget a
    /// dead node: its state is older than that. It learns of the members like a node that starts.
    pub(super) fn drop_if_overslept(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(slept) = self.clock.slept(now) else { return };
        let peers: Vec<_> = self.copies.keys().cloned().collect();
        if peers.is_empty() {
            return;
        }
        let problem = Problem::Overslept { slept, peers: peers.len() };
        out.push(Output::Event(Event::Error(problem)));
        peers.iter().for_each(|peer| self.drop_copy(peer, true, out));
    }

    /// Drops the state of a peer. `remember`: it may still live on the other side of a partition, and is
    /// dialed now and then at its last address.
    pub(super) fn drop_copy(&mut self, peer: &NodeId, remember: bool, out: &mut Vec<Output>) {
        // Even if there is nothing left to forget here: the peer that asked has to receive that it is gone.
        out.push(Output::Detector(DetectorInput::Forgotten(peer.clone())));
        out.push(Output::Scheduler(SchedulerInput::Forgotten(peer.clone())));
        let before = self.before(peer);
        let Some(copy) = self.copies.remove(peer) else { return };
        self.forgotten.take_back(peer);
        self.accusations.forget(peer);
        self.touched(&before);
        let cut_off = copy.record().filter(|r| remember && r.status != Status::Left);
        if let Some(record) = cut_off {
            let addresses = record.addresses.clone();
            out.push(Output::Scheduler(SchedulerInput::Remember(peer.clone(), addresses)));
        }
        for (key, entry) in copy.entries().iter().filter(|(_, e)| !e.is_tombstone()) {
            out.push(Output::Event(Event::Deleted {
                peer: peer.clone(),
                key: key.clone(),
                generation: copy.generation(),
                version: entry.version,
            }));
        }
        out.push(Output::Event(Event::PeerForgotten { peer: peer.clone() }));
        out.push(Output::Transport(TransportInput::Forget(peer.clone())));
        out.push(Output::Persist(vec![Change::ForgetPeer(peer.clone())]));
    }

    pub(super) fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.clock.called();
        self.expire(now, out);
        self.collect(now, out);
        if let Some((generation, verdict)) = self.accusations.take_against_us() {
            self.judged_by_others(now, generation, verdict, out);
        }
        let swells = self.waves.tick(now);
        self.swell(now, swells, out);
        self.release_waves(now, out);
        self.ask_to_collect(now, out);
        self.forgotten.marks.expire(now);
        self.look_at_revocations(now, out);
        self.bulk.tidy(now);
        self.quotas.tidy(now);
        let unmet = self.forgotten.take_unmet(now);
        if !unmet.is_empty() {
            out.push(Output::Persist(unmet.into_iter().map(Change::ForgetPeer).collect()));
        }
        self.wake(now, out);
    }

    /// Requests a call when something expires, may be collected or is to be sent next.
    pub(super) fn wake(&mut self, now: Time, out: &mut Vec<Output>) {
        let next = [
            self.own.expiries.next(),
            self.own.tombstones.due(),
            self.forgotten.marks.next_expiry(),
        ];
        let wait = next.into_iter().flatten().min().map_or(TICK_MAX, |at| at.since(now));
        let wait = if self.own.tombstones.are_too_many() { TICK_MIN } else { wait };
        self.arm_at(now, now + wait.clamp(TICK_MIN, TICK_MAX), out);
        self.arm(now, out);
    }

    /// Requests a call when there is something to send or to ask.
    pub(super) fn arm(&mut self, now: Time, out: &mut Vec<Output>) {
        let linked = self.push.links().next().is_some();
        let collecting = self.own.tombstones.next_question().filter(|_| linked);
        let (held, refutes) = (self.own.pace.held_until(now), self.accusations.due());
        // What is due soon is looked at in the turn that was asked for.
        let soon = now + PUSH_INTERVAL;
        let news = self.push.due(now).filter(|due| *due > soon || !self.clock.batching.waits());
        let dues = [news, self.waves.due(), self.wave_due(), collecting, held, refutes];
        for due in dues.into_iter().flatten() {
            self.arm_at(now, due, out);
        }
    }

    pub(super) fn arm_at(&mut self, now: Time, due: Time, out: &mut Vec<Output>) {
        out.extend(self.clock.arm(now, due).map(Output::Wake));
    }

    /// Turns own keys that have expired into tombstones: one version for all of them.
    pub(super) fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut batch = Vec::new();
        while batch.len() < EXPIRIES_PER_TICK_MAX
            && let Some(key) = self.own.expiries.pop_due(now)
        {
            batch.push(Write::delete(key));
        }
        if let Ok(Written { changed: true, persist, .. }) = self.write(now, batch, out) {
            out.push(Output::Persist(persist));
        }
    }

    pub(super) fn collect(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(floor) = self.own.tombstones.take_due(now) else { return };
        self.raise_floor(now, floor, out);
    }

    pub(super) fn raise_floor(&mut self, now: Time, floor: Version, out: &mut Vec<Output>) {
        let before = self.before(&self.config.node);
        let removed = self.own.map.collect(floor);
        self.touched_own(now, before, out);
        let mut persist: Vec<_> = removed.into_iter().map(Change::Remove).collect();
        persist.push(Change::Head(self.head()));
        out.push(Output::Persist(persist));
    }
}

impl Mark {
    /// Reports to a peer that knows this generation, or lives in it, that it was forgotten.
    pub(super) fn recall(self, from: &NodeId, subject: &NodeId, out: &mut Vec<Output>) {
        let Self { generation, incarnation, .. } = self;
        let subject = subject.clone();
        let removal = Removal { subject, generation, incarnation };
        tell(vec![from.clone()], Gossip::Removal(removal), out);
    }
}

/// Bounds of the time between two searches for expired keys.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(60);
/// Most forgotten nodes that are reported to a peer at a time; the next exchange has the others.
const REMINDERS_MAX: usize = 256;
/// Most keys that become tombstones in one step; a tombstone of the longest key takes 540 bytes, and
/// a batch at most [`BATCH_BYTES_MAX`](super::BATCH_BYTES_MAX).
const EXPIRIES_PER_TICK_MAX: usize = 4_096;
