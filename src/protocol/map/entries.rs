//! The entries of a map, by key and by version, and the sums over them.

use std::collections::BTreeSet;

use imbl::OrdMap;

use crate::protocol::{
    entry::{Entry, Key},
    id::Version,
    tree::{Hash, Leaf, Tree},
};

/// The entries of a map. The other fields follow from them alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    by_key: OrdMap<Key, Entry>,
    by_version: BTreeSet<(Version, Key)>,
    /// The tombstones, by version: the floor rises past some of them at a time.
    dead: BTreeSet<(Version, Key)>,
    bytes: usize,
    /// Of all entries, once its root has been requested.
    tree: Option<Tree>,
}

impl Entries {
    /// All of them, tombstones included.
    pub(super) const fn all(&self) -> &OrdMap<Key, Entry> {
        &self.by_key
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.by_key.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many are tombstones.
    pub(super) fn tombstones(&self) -> usize {
        self.dead.len()
    }

    /// Bytes of keys and values together.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys written after a version, by version.
    pub(super) fn after(&self, version: Version) -> impl Iterator<Item = &(Version, Key)> {
        // The empty key sorts before all others.
        self.by_version.range((version.next(), Key::from(""))..)
    }

    /// Whether an entry of this version is still present.
    pub(super) fn has_writes_of(&self, version: Version) -> bool {
        let first = self.by_version.range((version, Key::from(""))..).next();
        first.is_some_and(|(found, _)| *found == version)
    }

    /// The keys of the tombstones up to a version.
    pub(super) fn dead_upto(&self, floor: Version) -> impl Iterator<Item = &Key> {
        self.dead.range(..(floor.next(), Key::from(""))).map(|(_, key)| key)
    }

    /// The root of the tree of all entries.
    pub(super) fn root(&mut self) -> Hash {
        let Self { tree, by_key, .. } = self;
        tree.get_or_insert_with(|| Tree::of(by_key.iter().map(|(key, e)| (key.as_str(), e)))).root()
    }

    /// The tree, once its root has been requested.
    pub(super) const fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }

    /// Puts an entry in. Returns the version of the write that it replaces.
    pub(super) fn put(&mut self, key: Key, entry: Entry) -> Option<Version> {
        self.bytes += key.as_str().len() + entry.value_len();
        if entry.is_tombstone() {
            self.dead.insert((entry.version, key.clone()));
        }
        if let Some(tree) = &mut self.tree {
            tree.insert(Leaf::new(key.as_str(), &entry));
        }
        self.by_version.insert((entry.version, key.clone()));
        // One descent instead of two with a look before: a million keys come at once.
        let version = entry.version;
        let is_dead = entry.is_tombstone();
        let old = self.by_key.insert(key.clone(), entry)?;
        if old.is_tombstone() && !(is_dead && old.version == version) {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(&key, &old, (old.version != version).then_some(old.version))
    }

    /// Removes a key; returns the version that it was written at.
    pub(super) fn take(&mut self, key: &Key) -> Option<Version> {
        let old = self.by_key.remove(key)?;
        if old.is_tombstone() {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(key, &old, Some(old.version))
    }

    /// Accounts for an entry that is gone; `listed`: the version under which it is still listed.
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
}
