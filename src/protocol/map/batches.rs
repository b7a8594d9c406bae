//! Batches, which readers see whole or not at all.

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
