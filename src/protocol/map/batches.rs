//! Batches, which readers see whole or not at all.

use std::collections::BTreeSet;

use imbl::OrdMap;

use crate::protocol::{
    entry::{Entry, Key},
    id::Version,
};

/// A state of a copy in which every batch is whole.
#[derive(Clone, Debug, Default)]
pub(in crate::protocol) struct Shown {
    pub(in crate::protocol) max_version: Version,
    pub(in crate::protocol) gc_floor: Version,
    pub(in crate::protocol) entries: OrdMap<Key, Entry>,
    pub(in crate::protocol) live_keys: usize,
}

/// What the owner of a map knows of its batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    /// The keys whose last write replaced a part of a batch whose other part stood then.
    torn: BTreeSet<Key>,
    /// Up to here it is not known any more which writes made up a batch.
    unknown: Version,
}

impl Batches {
    /// Whether any write of this version may have been part of a batch.
    pub(super) fn are_unknown(&self, version: Version) -> bool {
        version <= self.unknown
    }

    /// Whether the last write of this key replaced a part of a batch.
    pub(super) fn is_torn(&self, key: &Key) -> bool {
        self.torn.contains(key)
    }

    /// A write of this key replaces a part of a batch.
    pub(super) fn tear(&mut self, key: Key) {
        self.torn.insert(key);
    }

    /// The key is gone.
    pub(super) fn mend(&mut self, key: &Key) {
        self.torn.remove(key);
    }

    /// Which writes up to this version made up a batch is not known any more.
    pub(super) const fn forget(&mut self, version: Version) {
        self.unknown = version;
    }
}
