//! The start of exchanges: what the gate, the limits and the budget of repair allow.

use std::collections::BTreeSet;

use rand::seq::IteratorRandom;

use super::{Scheduler, SchedulerConfig};
use crate::protocol::{
    gate::{self, Kind, OPEN_BELOW},
    route::{Output, StorageInput, Target},
    time::Time,
};

impl Scheduler {
    /// Those of the targets with which an exchange of this kind may begin now: they count as under way.
    pub(super) fn admit(
        &mut self,
        now: Time,
        kind: Kind,
        targets: impl IntoIterator<Item = Target>,
        out: &mut Vec<Output>,
    ) -> Vec<Target> {
        // A seed that does not answer must not keep a node from the next one.
        let seed = kind == Kind::Seed;
        let SchedulerConfig { gossip_interval, exchange_timeout, .. } = &self.config;
        let within = *if seed { gossip_interval } else { exchange_timeout };
        let mut held = 0;
        let mut admitted = Vec::new();
        for target in targets {
            if self.leaving.is_some() || self.targets.room() == 0 {
                break;
            }
            let under_way = self.targets.under_way(now, kind, within);
            if self.targets.is_in_flight(&target) {
                continue;
            } else if self.load.gate.may(now, self.load.lag, kind, under_way) {
                admitted.extend(self.started(now, kind, vec![target]));
            } else {
                held += 1;
            }
        }
        if held > 0 {
            out.push(Output::Count(kind.held(), held));
        }
        admitted
    }

    /// Exchanges with these begin, as far as there is room.
    pub(super) fn started(&mut self, now: Time, kind: Kind, targets: Vec<Target>) -> Vec<Target> {
        let room = if self.leaving.is_some() { 0 } else { self.targets.room() };
        let served = self.load.served.at(now);
        let started: Vec<_> = targets.into_iter().take(room).collect();
        for target in &started {
            self.load.gate.begin(now, kind, &mut self.rng);
            self.targets.begin(now, served, kind, target.clone());
        }
        started
    }

    pub(super) fn begin(&self, targets: Vec<Target>, out: &mut Vec<Output>) {
        if !targets.is_empty() {
            out.push(Output::Storage(StorageInput::BeginRound(targets)));
        }
    }

    /// With how many neighbours whose root differs an exchange may begin. While the own list of members moves roots
    /// differ by definition.
    pub(super) fn repair_room(&mut self, now: Time, out: &mut Vec<Output>) -> usize {
        if self.links.is_moving(now) {
            return 0;
        }
        let within = self.config.exchange_timeout;
        let under_way = self.targets.under_way(now, Kind::Repair, within);
        let late = !self.load.gate.may(now, self.load.lag, Kind::Repair, under_way);
        if late || (self.config.rules.gate && !self.load.spare.is_left(now)) {
            out.push(Output::Count(Kind::Repair.held(), 1));
            return 0;
        }
        if self.config.rules.gate && self.load.lag >= OPEN_BELOW {
            1
        } else {
            self.config.gossip_fanout
        }
    }

    /// The target of an exchange was too busy for a handshake. That is no failure: it is tried again after a while.
    pub(super) fn deferred(&mut self, now: Time, target: Target, out: &mut Vec<Output>) {
        self.targets.ended(&target);
        if let Target::Peer(peer) = &target {
            self.islands.ended(peer);
        }
        let seed = matches!(target, Target::Address(_));
        self.targets.put_off(target, now + gate::pause(self.load.lag));
        if seed {
            self.try_another_seed(now, out);
        }
    }

    /// The seeds to try in this round. A node that is not established yet has one under way at a time: one brings
    /// the whole list.
    pub(super) fn seeds(&mut self, now: Time) -> Vec<Target> {
        let mut seeds: BTreeSet<_> = self.maybe_seed(now).into_iter().collect();
        seeds.extend(self.unmet_seeds(now));
        if !self.is_joining() {
            return seeds.into_iter().collect();
        }
        let recent = self.targets.under_way(now, Kind::Seed, self.config.gossip_interval / 2);
        // By chance, since all nodes may have the same list.
        let one = seeds.into_iter().choose(&mut self.rng);
        one.into_iter().filter(|_| recent == 0).collect()
    }

    /// A seed has failed. A node that is not established yet tries the next one at once.
    pub(super) fn try_another_seed(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.is_joining() || self.leaving.is_some() || !self.rounds.have_begun() {
            return;
        }
        let seeds = self.seeds(now);
        let targets = self.admit(now, Kind::Seed, seeds, out);
        self.begin(targets, out);
    }

    fn is_joining(&self) -> bool {
        self.config.rules.one_seed && (self.links.is_empty() || !self.links.is_established())
    }
}
