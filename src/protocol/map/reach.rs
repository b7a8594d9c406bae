//! How far a map reaches.

use crate::protocol::id::Version;

/// How far a map reaches, and from which version on it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Every live entry up to this version is in the map.
    pub(super) max_version: Version,
    /// How far the senders of this copy had got, if further than it reaches itself.
    pub(super) told_at: Version,
    /// Up to which version tombstones have been dropped.
    pub(super) gc_floor: Version,
    /// The last write that replaced one part of a batch while another part still stands. The owner finds it
    /// by its [`Batches`](super::batches::Batches); copies receive it.
    pub(super) torn: Version,
}
