//! How far the rotation of an authority is.

use std::{fmt, path::Path};

use super::file;

/// How far an authority's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationPhase {
    /// One authority, and no other in sight.
    Settled,
    /// The new one is made: nodes are to get both as roots.
    Prepared,
    /// The new one issues: nodes are to get certificates of it.
    Switched,
}

impl RotationPhase {
    /// Reads how far a directory is.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        // The order is that in which the last step of each phase makes it so.
        if directory.join(file::NEXT_AUTHORITY).exists() {
            Self::Prepared
        } else if directory.join(file::OLD_AUTHORITY).exists() {
            Self::Switched
        } else {
            Self::Settled
        }
    }

    /// One word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Prepared => "prepared",
            Self::Switched => "switched",
        }
    }
}

impl fmt::Display for RotationPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
