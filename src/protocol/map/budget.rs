//! The room in one delta.

/// What remains of the room in one delta.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes left.
    pub bytes: usize,
    /// Entries left.
    pub entries: usize,
    /// Nothing has been put in yet: the first version goes in whatever its size, or it never would.
    pub untouched: bool,
}
