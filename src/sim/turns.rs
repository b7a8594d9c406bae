//! Whose turn it is: events as work that waits for a processor and takes its time.

use std::{hash::Hash, time::Duration};

use super::{
    cpu::{Costs, Cpu, LAG_SPAN, Processors, Waiting, Work, Worked},
    event::What,
    world::World,
};
use crate::protocol::delta::NodeDelta;

impl World {
    /// From now on work takes time: see [`cpu`](super::cpu).
    pub fn charge(&mut self, processors: Processors) {
        self.cpu = Some(Cpu::new(processors));
        self.running().into_iter().for_each(|slot| self.measure_lag(slot));
    }

    /// The work of all nodes. Without processors there is none.
    #[must_use]
    pub fn worked(&self) -> Worked {
        self.cpu.as_ref().map_or_else(Worked::default, |cpu| cpu.worked)
    }

    /// How late any piece of work was at most.
    #[must_use]
    pub fn latest(&self) -> Duration {
        Duration::from_micros(self.cpu.as_ref().map_or(0, |cpu| cpu.latest))
    }

    /// How late any piece of work was at most, in each [`LAG_SPAN`] from the beginning of the run on.
    #[must_use]
    pub fn lags(&self) -> Vec<Duration> {
        let Some(cpu) = &self.cpu else { return Vec::new() };
        let spans = usize::try_from(self.micros() / LAG_SPAN).unwrap_or(0) + 1;
        let lag = |span| Duration::from_micros(cpu.lags.get(span).copied().unwrap_or(0));
        (0..spans).map(lag).collect()
    }

    pub(super) const fn has_processors(&self) -> bool {
        self.cpu.is_some()
    }

    pub(super) fn happen_now(&mut self, what: What) {
        if self.switches.checks {
            (self.queue.now(), &what).hash(&mut self.log.trace);
        }
        self.happen(what);
    }

    /// An event happens once there is time for it, and takes its time.
    pub(super) fn happen_in_turn(&mut self, what: What) {
        let now = self.queue.now();
        let slot = self.who(&what);
        let Some(cpu) = &mut self.cpu else { return self.happen_now(what) };
        let (place, next) = match (what, slot) {
            (What::Run { place }, _) => (place, cpu.next(place, now)),
            (what, Some(slot)) => (cpu.place_of(slot), cpu.take(slot, now, what)),
            (what, None) => return self.happen_now(what),
        };
        if let Some(next) = next {
            self.take_turn(place, next);
        }
        if let Some(goes_on) = self.cpu.as_mut().and_then(|cpu| cpu.settle(place)) {
            self.at(goes_on, What::Run { place });
        }
    }

    fn take_turn(&mut self, place: usize, Waiting { since, what, .. }: Waiting) {
        if let Some(until) = self.stalled(&what) {
            return self.queue.at(until, what);
        }
        let (now, sent) = (self.queue.now(), self.network.sent.packets);
        if let Some(cpu) = &mut self.cpu {
            cpu.waited(now, now - since);
            cpu.settings.costs.of(&what, &mut cpu.bill);
        }
        self.happen_now(what);
        let sent = self.network.sent.packets - sent;
        self.bill(Work::Packets, |costs| costs.send * sent);
        if let Some(cpu) = &mut self.cpu {
            cpu.work(place, now);
        }
    }

    /// The present event costs this as well.
    pub(super) fn bill(&mut self, work: Work, cost: impl FnOnce(&Costs) -> u64) {
        if let Some(cpu) = &mut self.cpu {
            cpu.bill.add(work, cost(&cpu.settings.costs));
        }
    }

    /// A node does this for a caller.
    pub(super) fn works(&mut self, slot: usize, work: Work, cost: impl FnOnce(&Costs) -> u64) {
        let now = self.queue.now();
        self.bill(work, cost);
        if let Some(cpu) = &mut self.cpu {
            cpu.work(cpu.place_of(slot), now);
        }
    }

    /// News of some owners have come to a node, which applies and checks those that it does not know.
    pub(super) fn bill_news(&mut self, slot: usize, news: &[NodeDelta]) {
        if self.cpu.is_none() {
            return;
        }
        self.touch(news);
        for delta in news {
            let Some(node) = self.slots[slot].node.as_ref() else { return };
            let copy = node.replica.copy(&delta.node);
            let known = copy.is_some_and(|copy| {
                (copy.generation(), copy.max_version()) >= (delta.generation, delta.to)
            });
            if known {
                self.bill(Work::News, |costs| costs.duplicate);
                continue;
            }
            let entries = delta.entries.len() as u64;
            self.bill(Work::News, |costs| costs.delta + costs.entry * entries);
            self.bill(Work::Signatures, |costs| costs.verify);
            let vets = |cpu: &mut Cpu| cpu.vets(slot, &delta.node, delta.generation);
            if self.cpu.as_mut().is_some_and(vets) {
                self.bill(Work::Signatures, |costs| costs.credential);
            }
        }
    }

    /// A process is gone, with all that waited for it.
    pub(super) fn drop_work(&mut self, slot: usize) {
        if let Some(cpu) = &mut self.cpu {
            cpu.forget(slot);
        }
    }
}
