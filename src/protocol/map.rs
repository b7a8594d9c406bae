//! One node's map: its keys in version order, and the rules for the growth of a copy.
//!
//! The owner and the holders of copies use the same type. The invariant of a copy: it has every live entry of
//! the owner up to `max_version` (a gap-free prefix, Scuttlebutt section 2). An update that would break it is
//! refused and leaves the copy as it was.

use std::sync::Arc;

use imbl::OrdMap;

use super::{
    delta::ANCESTRY_MAX,
    entry::{Entry, Key},
    id::{Generation, Incarnation, Version},
    record::NodeRecord,
    verdict::{INCARNATION_MAX, Verdict},
};

mod applied;
mod applying;
mod batches;
mod budget;
mod chain;
mod checking;
mod doubt;
mod entries;
mod life;
mod reach;
mod sealing;
mod signed;
mod staging;
mod telling;
mod wire;

pub use applied::{Applied, KeyChange};
pub use budget::Budget;
pub use checking::{MapLimits, Refusal};
pub use doubt::DOUBT_INTERVAL;
pub use signed::Signed;

use batches::{Batches, Shown};
use doubt::Doubt;
use entries::Entries;
use life::Life;
use reach::Reach;

/// One node's keys, or a copy of them.
#[derive(Clone, Debug, Default)]
pub struct NodeMap {
    life: Life,
    reach: Reach,
    entries: Entries,
    batches: Batches,
    /// The state that readers see while the copy does not reach the last write that tore a batch.
    shown: Option<Box<Shown>>,
    /// The copy that will replace this one, once it reaches as far (see [`NodeMap::apply`]).
    staged: Option<Box<Self>>,
    doubt: Doubt,
    /// Entries examined so far to apply updates.
    examined: u64,
}

impl NodeMap {
    /// An empty map in this generation.
    #[must_use]
    pub fn new(generation: Generation, ancestry: Vec<(Generation, Version)>) -> Self {
        Self { life: Life { generation, ancestry, ..Life::default() }, ..Self::default() }
    }

    /// The generation of the owner to which this map or copy belongs.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.life.generation
    }

    /// Every live entry up to this version is in the map.
    #[must_use]
    pub const fn max_version(&self) -> Version {
        self.reach.max_version
    }

    /// How far the senders of this copy had got. They left out values that they had overwritten by then, so
    /// only from this version on is it all that the owner held at some version.
    #[must_use]
    pub fn horizon(&self) -> Version {
        self.reach.told_at.max(self.reach.max_version)
    }

    /// Up to which version tombstones have been dropped.
    #[must_use]
    pub const fn gc_floor(&self) -> Version {
        self.reach.gc_floor
    }

    /// Earlier generations that this one continues, newest first.
    #[must_use]
    pub fn ancestry(&self) -> &[(Generation, Version)] {
        &self.life.ancestry
    }

    /// The owner's record.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<NodeRecord>> {
        self.life.record.as_ref().map(|(_, record)| record)
    }

    /// The version of the owner's record; zero if there is none.
    #[must_use]
    pub fn record_version(&self) -> Version {
        self.life.record.as_ref().map_or(Version::ZERO, |(version, _)| *version)
    }

    /// The cluster's verdict on the owner in this generation. Its record may have refuted a suspicion.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let own = self.record().map_or_else(Verdict::default, |r| Verdict::alive(r.incarnation));
        self.life.verdict.max(own)
    }

    /// Whether this is worse than the present verdict on the owner, and may be true.
    #[must_use]
    pub fn is_graver(&self, verdict: Verdict) -> bool {
        // A node that signs states its own incarnation.
        let signs = self.life.credential.is_some();
        let own = self.record().map_or(Incarnation::ZERO, |record| record.incarnation);
        let last = if signs { own } else { INCARNATION_MAX };
        verdict > self.verdict() && verdict.incarnation <= last
    }

    /// Takes over a verdict on the owner in this generation, if it is worse than the present one; returns
    /// whether it was.
    pub fn judge(&mut self, verdict: Verdict) -> bool {
        let graver = self.is_graver(verdict);
        if graver {
            self.life.verdict = verdict;
        }
        graver
    }

    /// Whether this copy is exactly the state of its digest entry: no other copy is staged beside it, and
    /// readers see it as it is.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.staged.is_none() && self.shown.is_none()
    }

    /// All entries, tombstones included; cloning it is cheap.
    #[must_use]
    pub const fn entries(&self) -> &OrdMap<Key, Entry> {
        self.entries.all()
    }

    /// How many of the entries are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.entries.tombstones()
    }

    /// Keys that are not deleted.
    #[must_use]
    pub fn live_keys(&self) -> usize {
        self.entries.len() - self.entries.tombstones()
    }

    /// How many entries were examined so far to apply updates, including refused ones: the cost of the
    /// updates. It counts from the time this map is in memory.
    #[must_use]
    pub const fn examined(&self) -> u64 {
        self.examined
    }

    /// Bytes of keys and values together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Writes one key: a value, or a tombstone. The caller has taken `version` and logged it.
    pub fn write(&mut self, key: Key, entry: Entry) {
        let version = entry.version;
        self.reach.max_version = self.reach.max_version.max(version);
        if let Some(replaced) = self.entries.put(key.clone(), entry)
            && (self.batches.are_unknown(replaced)
                || self.entries.has_writes_of(replaced)
                || self.batches.is_torn(&key))
        {
            self.reach.torn = self.reach.torn.max(version);
            self.batches.tear(key);
        }
    }

    /// Takes the next version, for a write.
    #[must_use]
    pub const fn next_version(&self) -> Version {
        self.reach.max_version.next()
    }

    /// Replaces the record, as a write of `version`.
    pub fn write_record(&mut self, version: Version, record: NodeRecord) {
        self.reach.max_version = self.reach.max_version.max(version);
        self.life.record = Some((version, Arc::new(record)));
    }

    /// Takes over the owner's record into a copy, which may not reach as far as the record's version yet.
    pub fn restore_record(&mut self, version: Version, record: Arc<NodeRecord>) {
        self.life.record = Some((version, record));
    }

    /// Takes over how far the senders of this copy had got.
    pub fn restore_horizon(&mut self, horizon: Version) {
        self.reach.told_at = horizon;
    }

    /// Starts a new generation that continues this one.
    pub fn renew(&mut self, generation: Generation) {
        self.life.ancestry.insert(0, (self.life.generation, self.reach.max_version));
        self.life.ancestry.truncate(ANCESTRY_MAX);
        self.life.generation = generation;
    }

    /// Starts a new generation that continues none: another process may have written in the earlier ones, so
    /// that a copy of them need not be a prefix of this map.
    pub fn renew_alone(&mut self, generation: Generation) {
        self.life.ancestry.clear();
        self.life.generation = generation;
    }

    /// Sets how far the map reaches and up to where its tombstones are dropped, when it is read back from a
    /// store.
    pub fn restore(&mut self, max_version: Version, gc_floor: Version) {
        self.reach.max_version = self.reach.max_version.max(max_version);
        self.reach.gc_floor = gc_floor;
    }

    /// Raises the floor and drops the tombstones up to it; returns their keys.
    pub fn collect(&mut self, floor: Version) -> Vec<Key> {
        self.reach.gc_floor = self.reach.gc_floor.max(floor);
        let keys: Vec<_> = self.entries.dead_upto(self.reach.gc_floor).cloned().collect();
        self.examined += keys.len() as u64;
        for key in &keys {
            self.entries.take(key);
            self.batches.mend(key);
        }
        keys
    }

    /// Whether another copy grows beside this one and will replace it. The digest has the line of that one.
    #[must_use]
    pub const fn is_told_anew(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether there are writes after this version, deletions included.
    #[must_use]
    pub fn has_writes_after(&self, version: Version) -> bool {
        self.entries.after(version).next().is_some()
    }

    /// The state that readers see: the copy as it is or, while it may have half of a batch, its last state
    /// without one.
    pub(super) fn shown(&self) -> Shown {
        match &self.shown {
            Some(shown) => (**shown).clone(),
            None => Shown {
                max_version: self.reach.max_version,
                gc_floor: self.reach.gc_floor,
                entries: self.entries.all().clone(),
                live_keys: self.live_keys(),
            },
        }
    }

    /// The last write that replaced one part of a batch while another part still stands.
    #[must_use]
    pub const fn torn(&self) -> Version {
        self.reach.torn
    }

    /// Sets what a reader's view remembers of it.
    pub(super) fn restore_torn(&mut self, torn: Version) {
        self.reach.torn = self.reach.torn.max(torn);
    }

    /// Any write so far may be part of a batch, and any batch may have been replaced in part: a store does
    /// not keep this.
    pub fn forget_batches(&mut self) {
        self.batches.forget(self.reach.max_version);
        self.reach.torn = self.reach.max_version;
    }
}
