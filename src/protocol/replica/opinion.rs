//! What is thought of others, and of us: accusations, and their refutation.

use std::{sync::Arc, time::Duration};

use super::{Replica, tell};
use crate::protocol::{
    delta::Delta,
    gossip::Gossip,
    id::{Generation, Incarnation, NodeId},
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
        let peer = peer.clone();
        out.push(Output::Detector(DetectorInput::Member { peer, generation, status, verdict }));
    }

    /// Our detector is convinced: from now on everybody is to know.
    pub(super) fn accuse(
        &mut self,
        peer: &NodeId,
        generation: Generation,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let before = self.before(peer);
        let Some(copy) = self.copies.get_mut(peer) else { return };
        if copy.generation() == generation && Arc::make_mut(copy).judge(verdict) {
            self.touched(&before);
            self.push.note(before.line, None, false);
            self.tell_detector(peer, out);
        }
    }

    /// Tells a peer what is said of it, so that it can refute that.
    pub(super) fn confront(&mut self, peer: &NodeId, out: &mut Vec<Output>) {
        let before = self.before(peer);
        if self.retired.remove(peer) {
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

    /// Refutes what others say of us in this life.
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
        if generation != self.own.generation() || verdict <= ours || left || absurd {
            return;
        }
        if self.refuted.is_some_and(|at| now.since(at) < REFUTE_INTERVAL) {
            self.accused = self.accused.max(Some((generation, verdict)));
            return self.arm(now, out);
        }
        self.refuted = Some(now);
        let before = self.before(&self.config.node);
        let incarnation = match verdict.level {
            Level::Alive => verdict.incarnation,
            Level::Suspect | Level::Dead => verdict.incarnation.next(),
        };
        // Nothing is beyond the last incarnation but another life.
        let incarnation = if incarnation > INCARNATION_MAX {
            self.own.renew(generation.next());
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

/// Least time between two refutations, each of which floods: a member that accuses without end is not
/// to set the pace. Between a suspicion and a conviction there are some rounds.
pub(super) const REFUTE_INTERVAL: Duration = Duration::from_millis(200);
