//! Many writes at once: when each of them has reached the last node.

use std::collections::VecDeque;

use super::{event::What, orders::Open, slot::number, world::World};
use crate::protocol::{delta::NodeDelta, write::Write};

impl World {
    /// A caller wants to write a batch on a node, which does so once it has time for that. It is followed until all
    /// nodes that run now have it.
    pub fn order(&mut self, slot: usize, batch: Vec<Write>) {
        let (number, epoch) = (self.number(), self.slots[slot].epoch);
        self.tracked.ordered.insert(number, (self.micros(), batch));
        self.after(0, What::Write { slot, epoch, number });
    }

    pub(super) fn write_in_turn(&mut self, slot: usize, epoch: u64, number: u64) {
        let Some((begun, batch)) = self.tracked.ordered.remove(&number) else { return };
        let Some(node) = self.slots[slot].node.as_ref().filter(|_| self.slots[slot].epoch == epoch)
        else {
            return;
        };
        let version = node.replica.own().next_version();
        let lacking = self.running().into_iter().filter(|other| *other != slot).collect();
        self.tracked.open.entry(slot).or_default().push_back(Open { version, begun, lacking });
        self.write(slot, batch);
    }

    /// How many ordered writes some node does not have.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.tracked.ordered.len() + self.tracked.open.values().map(VecDeque::len).sum::<usize>()
    }

    /// For each ordered write that is everywhere, after how many microseconds.
    #[must_use]
    pub fn everywhere(&self) -> &[u64] {
        &self.tracked.everywhere
    }

    /// A node is being told this.
    pub(super) fn touch(&mut self, news: &[NodeDelta]) {
        if !self.tracked.open.is_empty() {
            self.tracked.touched.extend(news.iter().filter_map(|delta| number(&delta.node)));
        }
    }

    /// A node has been told something.
    pub(super) fn note_tracked(&mut self, slot: usize) {
        let now = self.micros();
        for owner in std::mem::take(&mut self.tracked.touched) {
            let Some(node) = &self.slots[slot].node else { return };
            let Some(copy) = node.replica.copy(&self.slots[owner].name) else { continue };
            let reached = copy.max_version();
            let Some(open) = self.tracked.open.get_mut(&owner) else { continue };
            for write in open.iter_mut().take_while(|write| write.version <= reached) {
                write.lacking.remove(&slot);
            }
            while open.front().is_some_and(|write| write.lacking.is_empty()) {
                let Some(write) = open.pop_front() else { break };
                self.tracked.everywhere.push(now - write.begun);
            }
        }
    }
}
