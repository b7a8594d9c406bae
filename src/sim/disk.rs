//! The disk of a machine: commits reach it a while after they were made.

use rand::RngExt;

use super::{event::What, slot::Commit, world::World};
use crate::protocol::{
    durable::Change,
    id::{Generation, Version},
    write::Written,
};

impl World {
    pub(super) fn persist(&mut self, slot: usize, changes: Vec<Change>) {
        self.commit(slot, changes, None);
    }

    pub(super) fn persist_written(&mut self, slot: usize, written: Written) {
        let generation = self.node(slot).replica.own().generation();
        self.commit(slot, written.persist, Some((generation, written.version)));
    }

    pub(super) fn commit(
        &mut self,
        slot: usize,
        changes: Vec<Change>,
        acknowledges: Option<(Generation, Version)>,
    ) {
        if changes.is_empty() || self.settings.disk == 0 {
            return;
        }
        let delay = self.rng.random_range(0..self.settings.disk);
        let (epoch, at) = (self.slots[slot].epoch, self.queue.now() + delay);
        let disk = &mut self.slots[slot];
        disk.commits += 1;
        let number = disk.commits;
        disk.unsynced.push_back(Commit { number, changes, acknowledges });
        self.at(at, What::Synced { slot, epoch, commit: number });
    }

    pub(super) fn sync_one(&mut self, slot: usize) {
        let disk = &mut self.slots[slot];
        let Some(commit) = disk.unsynced.pop_front() else { return };
        commit.changes.iter().for_each(|change| disk.stored.apply(change));
        disk.acknowledged = commit.acknowledges.or(disk.acknowledged);
    }

    /// A commit is on the disk, and all before it.
    pub(super) fn synced(&mut self, slot: usize, epoch: u64, commit: u64) {
        while self.slots[slot].epoch == epoch
            && self.slots[slot].unsynced.front().is_some_and(|next| next.number <= commit)
        {
            self.sync_one(slot);
        }
    }
}
