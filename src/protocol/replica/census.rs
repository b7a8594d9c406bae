//! Counts the nodes that have a version: for callers, and to drop tombstones early.

use std::{collections::BTreeSet, time::Duration};

use super::{Replica, outgoing::tell, quotas::Quota, tombstones::COLLECT_INTERVAL};
use crate::protocol::{
    gossip::{Gossip, Wave},
    id::{NodeId, Version},
    route::{Counter, Output},
    time::Time,
    wave::{Census, Swell, Waves},
};

impl Replica {
    /// Asks all nodes which of them have a version of ours, for this long. [`Output::Counted`] answers, with
    /// the number returned here.
    pub fn count(
        &mut self,
        now: Time,
        version: Version,
        patience: Duration,
        out: &mut Vec<Output>,
    ) -> u64 {
        // Whoever asks waits for it.
        if let Some(since) = self.own.pace.release_for_caller(now) {
            self.push.note(since, None, false);
        }
        self.clock.batching.begin(true);
        self.tell_news(now, out);
        self.clock.batching.end();
        let about = (self.own.map.generation(), version);
        let links = self.asked();
        let (id, swells) = self.waves.begin(now, &self.config.node, about, links, patience);
        self.begin_wave(now, swells, out);
        self.arm(now, out);
        id
    }

    pub(super) fn waved(&mut self, now: Time, from: &NodeId, wave: Wave, out: &mut Vec<Output>) {
        let has = wave.origin == self.config.node
            || self.copies.get(&wave.origin).is_some_and(|copy| {
                (copy.generation(), copy.max_version()) >= (wave.generation, wave.version)
            });
        let own = Census {
            have: usize::from(has),
            lack: usize::from(!has),
            behind: if has { Vec::new() } else { vec![self.config.node.clone()] },
            complete: true,
        };
        let links = self.asked();
        // A peer that has used up its share gets the answer that not all nodes were reached.
        let may = self.waves.is_known(&wave) || self.quotas.may(now, Quota::Waves, from);
        let swells = if may {
            self.waves.wave(now, from, wave, own, links)
        } else {
            out.push(Output::Count(Counter::WavesShed, 1));
            Waves::decline(from, wave)
        };
        self.swell(now, swells, out);
    }

    /// The links for a wave: a dead peer does not answer, and must not be waited for.
    pub(super) fn asked(&self) -> BTreeSet<NodeId> {
        self.push.links().filter(|peer| !self.is_gone(peer)).cloned().collect()
    }

    pub(super) fn swell(&mut self, now: Time, swells: Vec<Swell>, out: &mut Vec<Output>) {
        for swell in swells {
            match swell {
                Swell::Pass(to, wave) => tell(to, Gossip::Wave(wave), out),
                Swell::Answer(to, echo) => tell(vec![to], Gossip::Echo(echo), out),
                Swell::Over(id, census) => match self.own.tombstones.answered(id) {
                    Some(version) => self.collect_passed(now, version, &census, out),
                    None => out.push(Output::Counted(id, census)),
                },
            }
        }
    }

    /// Asks whether all nodes have passed the tombstones, so that they can be dropped early.
    pub(super) fn ask_to_collect(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.push.links().next().is_none() {
            return;
        }
        let Some(version) = self.own.tombstones.begin_question(now) else { return };
        let about = (self.own.map.generation(), version);
        let links = self.asked();
        let patience = COLLECT_INTERVAL / 2;
        let (id, swells) = self.waves.begin(now, &self.config.node, about, links, patience);
        self.own.tombstones.ask(id, version);
        self.begin_wave(now, swells, out);
    }

    /// Drops the tombstones that every live peer has passed. A peer that was not asked, since it seems to be
    /// dead, is sent the whole map if it comes back.
    pub(super) fn collect_passed(
        &mut self,
        now: Time,
        version: Version,
        census: &Census,
        out: &mut Vec<Output>,
    ) {
        let live = 1 + self.copies.keys().filter(|peer| !self.is_gone(peer)).count();
        if !census.complete || census.lack > 0 || census.have < live {
            return;
        }
        self.own.tombstones.passed();
        self.drop_tombstones(now, version, out);
    }

    /// Drops all tombstones up to a version.
    pub(super) fn drop_tombstones(&mut self, now: Time, upto: Version, out: &mut Vec<Output>) {
        self.own.tombstones.drop_upto(upto);
        self.raise_floor(now, upto, out);
    }
}
