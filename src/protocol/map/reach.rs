//! How far a map reaches.

use crate::protocol::id::Version;

/// How far a map reaches, and from where on it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Every live entry up to here is in the map.
    pub(super) max_version: Version,
    /// How far those had got who told this copy, if further than it reaches itself.
    pub(super) told_at: Version,
    /// Up to which version tombstones are gone.
    pub(super) gc_floor: Version,
    /// The last write that replaced a part of a batch whose other part still stands. The owner finds it
    /// by its [`Batches`](super::batches::Batches); copies are told.
    pub(super) torn: Version,
}
