//! Several updates of one owner that connect, of which only the last head is verified: it covers the others.

use crate::protocol::{delta::NodeDelta, seal::Seal, time::Time};

use super::{Applied, MapLimits, NodeMap, applying::Undo, checking::check, reach::Reach};

impl NodeMap {
    /// How many of these updates of the owner extend this copy one after the other, as far as that shows
    /// without applying them: each is signed as a whole with the key that is known here, begins where the one
    /// before it ends, and brings nothing but entries.
    #[must_use]
    pub fn chain(&self, updates: &[&NodeDelta]) -> usize {
        let Some(known) = self.credential() else { return 0 };
        if !self.is_settled() || self.doubt.stands() || self.life.unvouched {
            return 0;
        }
        let mut reach = self.reach;
        let connects = |delta: &&&NodeDelta| {
            let Some(sealed) = &delta.sealed else { return false };
            let signed = sealed.credential.as_ref().is_none_or(|told| told == known)
                && sealed.seal.upto == delta.to
                && sealed.seal.record == self.record_version();
            let plain = delta.generation == self.life.generation
                && delta.record.is_none()
                && delta.verdict <= self.verdict();
            let follows = delta.from <= reach.max_version
                && delta.to > reach.max_version
                && delta.gc_floor >= reach.gc_floor
                && (reach.max_version >= delta.gc_floor || reach.gc_floor == delta.gc_floor)
                && (reach.torn..=delta.to).contains(&delta.torn);
            let (max_version, gc_floor, torn) = (delta.to, delta.gc_floor, delta.torn);
            reach = Reach { max_version, gc_floor, torn, ..reach };
            signed && plain && follows
        };
        updates.iter().take_while(connects).count()
    }

    /// Applies updates that are a [`NodeMap::chain`], if the result is the state whose root the last one names,
    /// and if that head `verifies`. `None`: it is not; then nothing has changed.
    pub fn apply_chain(
        &mut self,
        now: Time,
        updates: &[&NodeDelta],
        limits: &MapLimits,
        verifies: impl FnOnce(&Self, &Seal) -> bool,
    ) -> Option<Applied> {
        let sealed = updates.last()?.sealed.as_ref()?;
        let mut undone: Vec<Undo> = Vec::with_capacity(updates.len());
        let before = self.entries.all().clone();
        let mut fits = true;
        for delta in updates {
            fits = check(delta, limits).is_ok() && self.check_room(delta, limits).is_ok();
            if !fits {
                break;
            }
            let undo = self.undo(delta);
            self.examined += undo.len() as u64;
            undone.push(undo);
            drop(self.take_entries(now, delta));
        }
        if fits && self.root() == sealed.seal.root && verifies(self, &sealed.seal) {
            self.set_seal(Some(sealed.seal));
            // What the last head does not cover any more was not verified, and is not shown.
            let changes = self.differences(&before, &self.entries.all().clone(), now);
            return Some(Applied { changes, advanced: true, ..Applied::default() });
        }
        undone.into_iter().rev().for_each(|undo| self.take_back(undo));
        None
    }
}
