//! Batches, which readers see completely or not at all.

use std::collections::BTreeSet;

use imbl::OrdMap;

use crate::protocol::{
    entry::{Entry, Key},
    id::Version,
};

/// A state of a copy in which every batch is complete.
#[derive(Clone, Debug, Default)]
pub(in crate::protocol) struct Shown {
    pub(in crate::protocol) max_version: Version,
    pub(in crate::protocol) gc_floor: Version,
    pub(in crate::protocol) entries: OrdMap<Key, Entry>,
    pub(in crate::protocol) live_keys: usize,
}

/// The owner's knowledge of its map's batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    /// The keys whose last write replaced a part of a batch while another part still stood.
    torn: BTreeSet<Key>,
    /// Up to this version it is not known any more which writes made up a batch.
    unknown: Version,
}

impl Batches {
    /// Whether any write of this version may have been part of a batch.
    pub(super) fn are_unknown(&self, version: Version) -> bool {
        version <= self.unknown
    }

    /// Whether the last write of this key replaced a part of a batch while another part stood.
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

    /// It is not known any more which writes up to this version made up a batch.
    pub(super) const fn forget(&mut self, version: Version) {
        self.unknown = version;
    }
}
