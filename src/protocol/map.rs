//! One node's map: its keys in version order, and the rules by which a copy of it grows.
//!
//! The owner and everybody who holds a copy use the same type. What holds of a copy at any time: it
//! has every live entry of the owner up to `max_version` (a gap-free prefix, Scuttlebutt section 2).
//! Whatever would break that is refused and leaves the copy as it was.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use super::{
    delta::ANCESTRY_MAX,
    entry::{Entry, Key},
    id::{Generation, Incarnation, Version},
    record::NodeRecord,
    seal::Credential,
    time::Time,
    tree::{Leaf, Tree},
    verdict::{INCARNATION_MAX, Verdict},
};

mod applied;
mod applying;
mod batches;
mod budget;
mod checking;
mod doubt;
mod life;
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

use batches::Shown;

/// One node's keys, or a copy of them.
#[derive(Clone, Debug, Default)]
pub struct NodeMap {
    generation: Generation,
    ancestry: Vec<(Generation, Version)>,
    max_version: Version,
    /// How far those had got who told this copy, if further than it reaches itself.
    told_at: Version,
    gc_floor: Version,
    record: Option<(Version, Arc<NodeRecord>)>,
    /// The gravest that was heard of this life.
    verdict: Verdict,
    entries: OrdMap<Key, Entry>,
    by_version: BTreeSet<(Version, Key)>,
    bytes: usize,
    /// The entries that are tombstones, by version: the floor rises past some of them at a time.
    dead: BTreeSet<(Version, Key)>,
    /// The last write that replaced a part of a batch whose other part still stands. The owner finds
    /// it, by the next two; copies are told.
    torn: Version,
    /// The owner's keys that were such a part.
    torn_keys: BTreeSet<Key>,
    /// Up to here the owner does not know any more which writes made up a batch.
    unknown_batches: Version,
    /// What readers see while the copy does not reach `torn`.
    shown: Option<Box<Shown>>,
    /// The copy that will replace this one, once it reaches as far (see [`NodeMap::apply`]).
    staged: Option<Box<Self>>,
    /// Whose key signs this life, and the version of the record that came with it; nobody, if the owner
    /// signs nothing.
    credential: Option<(Version, Arc<Credential>)>,
    /// What the owner last signed of what is here.
    signed: Option<Arc<Signed>>,
    /// Of all entries, once somebody has asked for its root.
    tree: Option<Tree>,
    /// What was signed does not follow from what is here: it is to be told from the start.
    doubted: bool,
    /// When that last was so.
    doubted_at: Option<Time>,
    /// The owner signs, and nobody has told by what certificate: that goes where the record goes.
    unvouched: bool,
    /// Entries looked at so far to apply news.
    examined: u64,
}

impl NodeMap {
    /// An empty map in this generation.
    #[must_use]
    pub fn new(generation: Generation, ancestry: Vec<(Generation, Version)>) -> Self {
        Self { generation, ancestry, ..Self::default() }
    }

    /// The owner's life this is (a copy) of.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Every live entry up to here is in the map.
    #[must_use]
    pub const fn max_version(&self) -> Version {
        self.max_version
    }

    /// How far those had got who told this copy. They left out what they had overwritten by then, so
    /// only from here on is it all that the owner held at some version.
    #[must_use]
    pub fn horizon(&self) -> Version {
        self.told_at.max(self.max_version)
    }

    /// Up to which version tombstones are gone.
    #[must_use]
    pub const fn gc_floor(&self) -> Version {
        self.gc_floor
    }

    /// Earlier lives that this one continues, newest first.
    #[must_use]
    pub fn ancestry(&self) -> &[(Generation, Version)] {
        &self.ancestry
    }

    /// The owner's record.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<NodeRecord>> {
        self.record.as_ref().map(|(_, record)| record)
    }

    /// The version of the owner's record; zero if there is none.
    #[must_use]
    pub fn record_version(&self) -> Version {
        self.record.as_ref().map_or(Version::ZERO, |(version, _)| *version)
    }

    /// What is thought of the owner in this life. Its record may have refuted what was said of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let own = self.record().map_or_else(Verdict::default, |r| Verdict::alive(r.incarnation));
        self.verdict.max(own)
    }

    /// Whether this is graver than what is thought of the owner already, and may be true.
    #[must_use]
    pub fn is_graver(&self, verdict: Verdict) -> bool {
        // Whoever signs says by itself which incarnation it is in.
        let signs = self.credential.is_some();
        let own = self.record().map_or(Incarnation::ZERO, |record| record.incarnation);
        let last = if signs { own } else { INCARNATION_MAX };
        verdict > self.verdict() && verdict.incarnation <= last
    }

    /// Takes over what somebody thinks of the owner in this life, if it is graver than what is
    /// thought already; says whether it was.
    pub fn judge(&mut self, verdict: Verdict) -> bool {
        let graver = self.is_graver(verdict);
        if graver {
            self.verdict = verdict;
        }
        graver
    }

    /// Whether this copy is all that its digest entry says and no more: nothing is staged beside it,
    /// and readers see it as it is.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.staged.is_none() && self.shown.is_none()
    }

    /// All entries, tombstones included; cloning it costs nothing.
    #[must_use]
    pub const fn entries(&self) -> &OrdMap<Key, Entry> {
        &self.entries
    }

    /// How many of the entries are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.dead.len()
    }

    /// Keys that are not deleted.
    #[must_use]
    pub fn live_keys(&self) -> usize {
        self.entries.len() - self.dead.len()
    }

    /// How many entries were looked at so far to apply news, refused news included: what the news has
    /// cost. A count for as long as this map lives in memory.
    #[must_use]
    pub const fn examined(&self) -> u64 {
        self.examined
    }

    /// Bytes of keys and values together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes one key: a value, or a tombstone. The caller has taken `version` and logged it.
    pub fn write(&mut self, key: Key, entry: Entry) {
        let version = entry.version;
        self.max_version = self.max_version.max(version);
        if let Some(replaced) = self.put(key.clone(), entry)
            && (replaced <= self.unknown_batches
                || self.has_writes_of(replaced)
                || self.torn_keys.contains(&key))
        {
            self.torn = self.torn.max(version);
            self.torn_keys.insert(key);
        }
    }

    /// Takes the next version, for a write.
    #[must_use]
    pub const fn next_version(&self) -> Version {
        self.max_version.next()
    }

    /// Replaces the record, as a write of `version`.
    pub fn write_record(&mut self, version: Version, record: NodeRecord) {
        self.max_version = self.max_version.max(version);
        self.record = Some((version, Arc::new(record)));
    }

    /// Takes over the owner's record into a copy, which may not reach as far as its version yet.
    pub fn restore_record(&mut self, version: Version, record: Arc<NodeRecord>) {
        self.record = Some((version, record));
    }

    /// Takes over how far those had got who told this copy.
    pub fn restore_horizon(&mut self, horizon: Version) {
        self.told_at = horizon;
    }

    /// Starts a new life that continues this one.
    pub fn renew(&mut self, generation: Generation) {
        self.ancestry.insert(0, (self.generation, self.max_version));
        self.ancestry.truncate(ANCESTRY_MAX);
        self.generation = generation;
    }

    /// Starts a new life that continues none: somebody else may have written in the earlier ones, so
    /// that a copy of them need not be a prefix of this map.
    pub fn renew_alone(&mut self, generation: Generation) {
        self.ancestry.clear();
        self.generation = generation;
    }

    /// Sets how far the map reaches and is collected, when it is read back from a store.
    pub fn restore(&mut self, max_version: Version, gc_floor: Version) {
        self.max_version = self.max_version.max(max_version);
        self.gc_floor = gc_floor;
    }

    /// Raises the floor and drops the tombstones up to it; returns their keys.
    pub fn collect(&mut self, floor: Version) -> Vec<Key> {
        self.gc_floor = self.gc_floor.max(floor);
        let upto = (self.gc_floor.next(), Key::from(""));
        let keys: Vec<_> = self.dead.range(..upto).map(|(_, key)| key.clone()).collect();
        self.examined += keys.len() as u64;
        for key in &keys {
            self.take(key);
            self.torn_keys.remove(key);
        }
        keys
    }

    /// Whether another copy grows beside this one and will replace it. The digest tells of that one.
    #[must_use]
    pub const fn is_told_anew(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether there are writes after this version, deletions included.
    #[must_use]
    pub fn has_writes_after(&self, version: Version) -> bool {
        self.by_version.range((version.next(), Key::from(""))..).next().is_some()
    }

    /// What readers see: the copy as it is or, while it may have half of a batch, as it last was
    /// without.
    pub(super) fn shown(&self) -> Shown {
        match &self.shown {
            Some(shown) => (**shown).clone(),
            None => Shown {
                max_version: self.max_version,
                gc_floor: self.gc_floor,
                entries: self.entries.clone(),
                live_keys: self.live_keys(),
            },
        }
    }

    /// The last write that replaced a part of a batch whose other part still stands.
    #[must_use]
    pub const fn torn(&self) -> Version {
        self.torn
    }

    /// Sets what a reader's view remembers of it.
    pub(super) fn restore_torn(&mut self, torn: Version) {
        self.torn = self.torn.max(torn);
    }

    /// Any write so far may be part of a batch, and any batch may have been replaced in part: what a
    /// store keeps does not tell.
    pub fn forget_batches(&mut self) {
        self.unknown_batches = self.max_version;
        self.torn = self.max_version;
    }

    /// Returns the version of the write that this one replaces.
    fn put(&mut self, key: Key, entry: Entry) -> Option<Version> {
        self.bytes += key.as_str().len() + entry.value_len();
        if entry.is_tombstone() {
            self.dead.insert((entry.version, key.clone()));
        }
        if let Some(tree) = &mut self.tree {
            tree.insert(Leaf::new(key.as_str(), &entry));
        }
        self.by_version.insert((entry.version, key.clone()));
        // One descent where looking before would be two: a million keys come at once.
        let version = entry.version;
        let is_dead = entry.is_tombstone();
        let old = self.entries.insert(key.clone(), entry)?;
        if old.is_tombstone() && !(is_dead && old.version == version) {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(&key, &old, (old.version != version).then_some(old.version))
    }

    /// Removes a key; returns the version that it was written at.
    fn take(&mut self, key: &Key) -> Option<Version> {
        let old = self.entries.remove(key)?;
        if old.is_tombstone() {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(key, &old, Some(old.version))
    }

    /// Accounts for an entry that is gone; `listed`: the version that it is still listed under.
    fn took(&mut self, key: &Key, old: &Entry, listed: Option<Version>) -> Option<Version> {
        self.bytes -= key.as_str().len() + old.value_len();
        if let Some(tree) = &mut self.tree {
            tree.remove(&Leaf::new(key.as_str(), old));
        }
        if let Some(version) = listed {
            self.by_version.remove(&(version, key.clone()));
        }
        Some(old.version)
    }

    fn has_writes_of(&self, version: Version) -> bool {
        let first = self.by_version.range((version, Key::from(""))..).next();
        first.is_some_and(|(found, _)| *found == version)
    }
}
