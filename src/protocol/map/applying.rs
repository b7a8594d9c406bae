//! How updates of its owner extend a copy.

use std::sync::Arc;

use imbl::OrdMap;

use crate::protocol::{
    delta::{DeltaEntry, NodeDelta},
    entry::{Entry, Key},
    id::Version,
    time::Time,
};

use super::{
    Applied, KeyChange, MapLimits, NodeMap, Refusal,
    applied::visible_change,
    checking::{check, prove},
    reach::Reach,
    wire::local_entry,
};

impl NodeMap {
    /// Applies an update of the owner.
    ///
    /// When the sender has dropped tombstones that this copy still needs, the owner's whole map is sent
    /// again: it is staged beside this copy, which stays in use, and replaces it in one step once it reaches
    /// both the floor and the version of this copy.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub fn apply(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let (hidden, before) = (self.shown.is_some(), self.shown());
        let mut applied = self.take_in(now, delta, limits)?;
        if self.reach.max_version >= self.reach.torn {
            self.shown = None;
            if hidden {
                applied.changes =
                    self.differences(&before.entries, &self.entries.all().clone(), now);
            }
        } else if applied.forgotten {
            applied.changes = self.differences(&before.entries, &OrdMap::new(), now);
            self.shown = Some(Box::default());
        } else {
            applied.changes.clear();
            self.shown = Some(Box::new(before));
        }
        Ok(applied)
    }

    pub(super) fn take_in(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        check(delta, limits)?;
        if delta.generation < self.life.generation {
            return Err(Refusal::OldGeneration);
        }
        if delta.generation > self.life.generation {
            return self.apply_new_life(now, delta, limits);
        }
        if self.is_stuck(delta) {
            return self.begin_again(now, delta, limits);
        }
        self.take_news(now, delta, limits)
    }

    pub(super) fn take_news(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        if self.needs_reset(delta) {
            return self.apply_reset(now, delta, limits);
        }
        self.apply_news(now, delta, limits)
    }

    fn apply_news(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        if let Some(mut staged) = self.staged.take() {
            let grown = staged.grow(now, delta, limits);
            self.examined += std::mem::take(&mut staged.examined);
            self.staged = Some(staged);
            applied.advanced = grown?.1;
            applied.record = self.take_record(delta);
            self.commit_staged(now, &mut applied);
        } else {
            (applied.changes, applied.advanced) = self.grow(now, delta, limits)?;
            applied.record = self.take_record(delta);
        }
        Ok(applied)
    }

    /// Extends this map by an update that connects to it.
    pub(super) fn grow(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<(Vec<KeyChange>, bool), Refusal> {
        if delta.from > self.reach.max_version {
            return Err(Refusal::Gap);
        }
        let empty = self.reach.max_version == Version::ZERO && self.entries.is_empty();
        let floors_agree = self.reach.max_version >= delta.gc_floor.max(self.reach.gc_floor)
            || self.reach.gc_floor == delta.gc_floor
            || (empty && delta.gc_floor >= self.reach.gc_floor);
        if !floors_agree {
            return Err(Refusal::Collected);
        }
        self.check_room(delta, limits)?;
        let Some(sealed) = &delta.sealed else { return Ok(self.take_entries(now, delta)) };
        // This copy has gone further in the meantime.
        if delta.gc_floor < self.reach.gc_floor {
            return Err(Refusal::Collected);
        }
        if delta.to < sealed.seal.upto {
            self.examined += delta.entries.len() as u64;
            prove(now, delta, sealed)?;
            return Ok(self.take_entries(now, delta));
        }
        if delta.to < self.reach.max_version {
            return Ok((Vec::new(), false));
        }
        let undo = self.undo(delta);
        self.examined += undo.len() as u64;
        let taken = self.take_entries(now, delta);
        if self.root() == sealed.seal.root {
            self.set_seal(Some(sealed.seal));
            self.doubt = self.doubt.settled();
            return Ok(taken);
        }
        let from_nothing = undo.reach.max_version == Version::ZERO;
        self.take_back(undo);
        Err(if from_nothing { Refusal::Forged } else { Refusal::Mismatch })
    }

    /// Takes over an update that was checked.
    pub(super) fn take_entries(&mut self, now: Time, delta: &NodeDelta) -> (Vec<KeyChange>, bool) {
        let before = (self.reach.max_version, self.reach.gc_floor);
        let mut changes = Vec::new();
        self.examined += delta.entries.len() as u64;
        for entry in delta.entries.iter().filter(|e| e.version > before.0) {
            changes.extend(self.grow_by(now, entry));
        }
        if delta.to > before.0 {
            self.reach.max_version = delta.to;
            // How far the sender had got, or the owner when it signed.
            let horizon = delta.sealed.as_ref().map_or(delta.horizon, |sealed| sealed.seal.upto);
            self.reach.told_at = self.reach.told_at.max(horizon);
            self.reach.torn = self.reach.torn.max(delta.torn);
        }
        if delta.gc_floor > self.reach.gc_floor {
            self.collect(delta.gc_floor);
        }
        (changes, (self.reach.max_version, self.reach.gc_floor) != before)
    }

    /// The changes that [`NodeMap::take_entries`] is going to make.
    pub(super) fn undo(&self, delta: &NodeDelta) -> Undo {
        let news = delta.entries.iter().filter(|entry| entry.version > self.reach.max_version);
        let mut replaced: Vec<_> =
            news.map(|e| (e.key.clone(), self.entries.get(&e.key).cloned())).collect();
        if delta.gc_floor > self.reach.gc_floor {
            replaced.extend(
                self.entries
                    .dead_upto(delta.gc_floor)
                    .filter_map(|key| Some((key.clone(), Some(self.entries.get(key)?.clone())))),
            );
        }
        Undo { replaced, reach: self.reach }
    }

    pub(super) fn take_back(&mut self, undo: Undo) {
        for (key, entry) in undo.replaced {
            match entry {
                Some(entry) => drop(self.entries.put(key, entry)),
                None => drop(self.entries.take(&key)),
            }
        }
        self.reach = undo.reach;
    }

    fn grow_by(&mut self, now: Time, news: &DeltaEntry) -> Option<KeyChange> {
        // A value that has expired here is deleted, and reported as deleted, only now.
        let had_value = || self.entries.get(&news.key).is_some_and(|e| !e.is_tombstone());
        let entry = local_entry(now, news);
        let change = match entry.visible(now) {
            Some(value) => Some(KeyChange::Updated(news.key.clone(), value.clone(), news.version)),
            None if entry.is_tombstone() && had_value() => {
                Some(KeyChange::Deleted(news.key.clone(), news.version))
            }
            None => None,
        };
        if entry.is_tombstone() && entry.version <= self.reach.gc_floor {
            let _ = self.entries.take(&news.key);
        } else {
            let _ = self.entries.put(news.key.clone(), entry);
        }
        change
    }

    pub(super) fn check_room(&self, delta: &NodeDelta, limits: &MapLimits) -> Result<(), Refusal> {
        let keys_max = limits.keys.saturating_mul(COPY_KEYS_FACTOR);
        let bytes_max = limits.bytes.saturating_mul(COPY_BYTES_FACTOR);
        let sizes = delta.entries.iter().map(|entry| entry.key.as_str().len() + entry.value_len());
        // Far from the limits there is no need to look at the replaced entries.
        if self.entries.len() + delta.entries.len() <= keys_max
            && self.entries.bytes() + sizes.sum::<usize>() <= bytes_max
        {
            return Ok(());
        }
        let (mut keys, mut bytes) = (self.entries.len(), self.entries.bytes());
        for entry in &delta.entries {
            let old = self.entries.get(&entry.key);
            keys += usize::from(old.is_none());
            bytes += entry.key.as_str().len() + entry.value_len();
            let freed = old.map_or(0, |old| entry.key.as_str().len() + old.value_len());
            bytes = bytes.saturating_sub(freed);
        }
        if keys > keys_max || bytes > bytes_max {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    pub(super) fn take_record(&mut self, delta: &NodeDelta) -> bool {
        match &delta.record {
            Some((version, record)) if *version > self.record_version() => {
                self.life.record = Some((*version, Arc::new(record.clone())));
                true
            }
            _ => false,
        }
    }

    /// The changes that a reader notices when one state of this map replaces another, in version order.
    /// Entries that the two have in common are not examined.
    pub(super) fn differences(
        &mut self,
        old: &OrdMap<Key, Entry>,
        new: &OrdMap<Key, Entry>,
        now: Time,
    ) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        for item in old.diff(new) {
            self.examined += 1;
            changes.extend(visible_change(item, now));
        }
        changes.sort_by_key(|change| match change {
            KeyChange::Updated(_, _, version) | KeyChange::Deleted(_, version) => *version,
        });
        changes
    }
}

/// The data to undo an update.
pub(super) struct Undo {
    /// The former entry of each key.
    replaced: Vec<(Key, Option<Entry>)>,
    reach: Reach,
}

impl Undo {
    /// How many entries it replaces.
    pub(super) const fn len(&self) -> usize {
        self.replaced.len()
    }
}

/// While a copy catches up it holds the owner's former and present entries: of each this many live keys and
/// as many tombstones.
const COPY_KEYS_FACTOR: usize = 4;

/// The same for the bytes of the former and the present entries; a tombstone has only those of its key.
const COPY_BYTES_FACTOR: usize = 4;
