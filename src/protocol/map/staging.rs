//! The copy that grows beside another one and will replace it, and the generations that a copy goes through.

use std::mem;

use crate::protocol::{
    delta::NodeDelta, digest::DigestEntry, id::Version, record::Status, time::Time,
};

use super::{
    Applied, MapLimits, NodeMap, Refusal,
    life::{Life, continued, is_ancestor},
};

impl NodeMap {
    /// Whether the staged copy does not reach its floor, the owner is gone, and the sender, which has not
    /// reached that floor, sends all it has.
    pub(super) fn is_stuck(&self, delta: &NodeDelta) -> bool {
        let growing = self.staged.as_deref().unwrap_or(self);
        delta.from == Version::ZERO
            && growing.reach.max_version < growing.reach.gc_floor
            && delta.gc_floor < growing.reach.gc_floor
            && (self.is_owner_gone(delta.verdict)
                || delta.record.as_ref().is_some_and(|(_, r)| r.status == Status::Left))
    }

    /// Gives up a copy that cannot be completed, in favour of the sender's.
    pub(super) fn begin_again(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        if self.reach.max_version < self.reach.gc_floor && delta.gc_floor < self.reach.gc_floor {
            return self.apply_reset(now, delta, limits);
        }
        let staged = self.staged.take();
        let taken = self.take_news(now, delta, limits);
        if taken.is_err() {
            self.staged = staged;
        }
        taken.map(|applied| Applied { advanced: true, ..applied })
    }

    /// The owner has restarted: keep the copy if the new generation continues it, otherwise forget it. A
    /// generation that continues a large map costs no more than its changes to it: an owner may begin many.
    pub(super) fn apply_new_life(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        // It continues from a part of this generation that is not here.
        if delta.record.is_none() {
            return Err(Refusal::Gap);
        }
        let (entries, examined) = (self.entries.all().clone(), self.examined);
        let before = self.begin_life(delta);
        self.examined = examined;
        let forgotten = self.reach.max_version == Version::ZERO;
        let mut applied = match self.take_in(now, delta, limits) {
            Ok(applied) => applied,
            Err(refusal) => {
                // A copy that the new generation continues may still be behind its floor.
                let behind = matches!(refusal, Refusal::Gap | Refusal::Collected)
                    && !self.entries.is_empty();
                let examined = self.examined;
                self.end_life(before);
                self.examined = examined;
                return Err(if behind { Refusal::Gap } else { refusal });
            }
        };
        applied.changes = self.differences(&entries, &self.entries.all().clone(), now);
        applied.generation = true;
        applied.advanced = true;
        applied.forgotten = forgotten;
        Ok(applied)
    }

    /// Goes on in the generation of the update, with the part of this copy that it continues. The sender uses
    /// our digest, so of a copy that is being replaced the staged part must not be lost. Returns the data
    /// that [`NodeMap::end_life`] needs.
    fn begin_life(&mut self, delta: &NodeDelta) -> Before {
        let generation = self.life.generation;
        let continues = |map: &Self| {
            let line = DigestEntry { generation, ..map.digest_line(&delta.node) };
            continued(&line, &delta.ancestry, delta.gc_floor)
        };
        let (goes_on, mut staged) = (continues(self), self.staged.take());
        let staged_goes_on = staged.as_deref().is_some_and(continues);
        let staged_life = staged
            .as_deref_mut()
            .filter(|_| staged_goes_on)
            .map(|staged| mem::replace(&mut staged.life, Life::of(delta)));
        if goes_on {
            // A doubt stays: the new generation continues from the doubted copy.
            let life = mem::replace(&mut self.life, Life::of(delta));
            if staged_goes_on {
                self.staged = staged;
                return Before { life, replaced: None, staged_life, dropped: None };
            }
            return Before { life, replaced: None, staged_life, dropped: staged };
        }
        // The owner has lost only the floor: readers keep this copy until the map, which is sent again from
        // the start, reaches as far.
        if is_ancestor(&self.digest_line(&delta.node), &delta.ancestry) {
            let life = mem::replace(&mut self.life, Life::of(delta));
            let (grows, dropped) = match staged {
                Some(staged) if staged_goes_on => (staged, None),
                staged => {
                    let fresh = Self { life: Life::of(delta), ..Self::default() };
                    (Box::new(fresh), staged)
                }
            };
            self.staged = Some(grows);
            return Before { life, replaced: None, staged_life, dropped };
        }
        let (next, dropped) = match (staged, staged_goes_on) {
            (Some(staged), true) => (*staged, None),
            (staged, _) => (Self { life: Life::of(delta), ..Self::default() }, staged),
        };
        let replaced = Some(Box::new(mem::replace(self, next)));
        Before { life: Life::default(), replaced, staged_life, dropped }
    }

    /// Takes back [`NodeMap::begin_life`].
    fn end_life(&mut self, before: Before) {
        let Before { life, replaced, staged_life, dropped } = before;
        let grew = match replaced {
            Some(replaced) => Some(Box::new(mem::replace(self, *replaced))),
            None => {
                self.life = life;
                self.staged.take()
            }
        };
        self.staged = match staged_life {
            Some(life) => grew.map(|mut grew| {
                grew.life = life;
                grew
            }),
            None => dropped,
        };
    }

    /// Whether the sender starts from nothing because it has dropped tombstones that we lack.
    pub(super) fn needs_reset(&self, delta: &NodeDelta) -> bool {
        let growing = self.staged.as_deref().unwrap_or(self);
        if delta.from == Version::ZERO && self.doubt.stands() && self.staged.is_none() {
            return true;
        }
        delta.from == Version::ZERO
            && self.reach.max_version > Version::ZERO
            && delta.gc_floor > growing.reach.max_version
            && delta.gc_floor > growing.reach.gc_floor
    }

    pub(super) fn apply_reset(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let mut fresh = Self::new(self.life.generation, self.life.ancestry.clone());
        let grown = fresh.grow(now, delta, limits);
        self.examined += mem::take(&mut fresh.examined);
        grown?;
        self.staged = Some(Box::new(fresh));
        let mut applied = Applied { advanced: true, ..Applied::default() };
        applied.record = self.take_record(delta);
        self.commit_staged(now, &mut applied);
        Ok(applied)
    }

    pub(super) fn commit_staged(&mut self, now: Time, applied: &mut Applied) {
        let reached = |staged: &Self| {
            staged.reach.max_version >= staged.reach.gc_floor
                && staged.reach.max_version >= self.reach.max_version
        };
        if let Some(staged) = self.staged.take_if(|staged| reached(staged)) {
            applied.changes =
                self.differences(&self.entries.all().clone(), staged.entries.all(), now);
            let (record, credential) = (self.life.record.take(), self.life.credential.take());
            let (verdict, doubt) = (self.life.verdict, self.doubt.settled());
            let staged = *staged;
            let life = Life { record, verdict, credential, ..staged.life };
            *self = Self { life, doubt, examined: self.examined, ..staged };
        }
    }
}

/// The data to undo the beginning of a generation.
struct Before {
    /// The copy's state in the earlier generation, if it goes on.
    life: Life,
    /// The copy, if it does not.
    replaced: Option<Box<NodeMap>>,
    /// The staged copy's state in the earlier generation, if that one goes on.
    staged_life: Option<Life>,
    /// The copy that grew, if it does not.
    dropped: Option<Box<NodeMap>>,
}
