//! The room in one delta.

/// The room that remains in one delta.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes left.
    pub bytes: usize,
    /// Entries left.
    pub entries: usize,
    /// The delta is still empty: the first version goes in whatever its size, or it would never be sent.
    pub untouched: bool,
}
