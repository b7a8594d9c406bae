//! Breaks in the work of the scheduler: this node leaves, or the transport has restarted.

use rand::seq::IteratorRandom;

use super::{Scheduler, farewell::Farewell};
use crate::protocol::{
    route::{Output, StorageInput, Target},
    time::Time,
};

impl Scheduler {
    /// Sends it to some live peers, whatever exchanges are under way with them.
    pub(super) fn leave(&mut self, out: &mut Vec<Output>) {
        let live = self.members.live();
        let (linked, others): (Vec<_>, Vec<_>) =
            live.map(|(node, _)| node.clone()).partition(|node| self.links.has(node));
        let mut told = linked.into_iter().map(Target::Peer).sample(&mut self.rng, FAREWELLS);
        let more = FAREWELLS - told.len();
        told.extend(others.into_iter().map(Target::Peer).sample(&mut self.rng, more));
        let endings = |target: &Target| 1 + u32::from(self.targets.is_in_flight(target));
        let pending = told.iter().map(|target| (target.clone(), endings(target)));
        self.leaving = Some(Farewell::to(pending));
        if told.is_empty() {
            out.push(Output::Farewell(0));
        } else {
            out.push(Output::Storage(StorageInput::BeginRound(told)));
        }
    }

    /// Exchanges whose end will not be reported do not count any more; the transport reports its connections
    /// again.
    pub(super) fn interrupted(&mut self, now: Time, out: &mut Vec<Output>) {
        self.targets.interrupt();
        self.asked = None;
        self.links.reset(now);
        self.repair.reset();
        self.abroad.interrupt();
        if self.observed.take().is_some() {
            self.observe(now, out);
        }
        out.push(Output::Storage(StorageInput::Severed(self.abroad.told().clone())));
        out.extend(self.leaving.as_mut().and_then(Farewell::interrupt).map(Output::Farewell));
    }
}

/// How many peers are sent that this node leaves; they pass it on.
const FAREWELLS: usize = 3;
