//! The phases of an authority's rotation.

use std::{fmt, path::Path};

use super::file;

/// The phase of an authority's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationPhase {
    /// One authority, no rotation in progress.
    Settled,
    /// The new one is created: nodes should get both as roots.
    Prepared,
    /// The new one issues: nodes should get its certificates.
    Switched,
}

impl RotationPhase {
    /// Reads the phase of a directory.
    #[must_use]
    #[doc(hidden)]
    pub fn of(directory: &Path) -> Self {
        // In the order in which the last step of each phase creates its file.
        if directory.join(file::NEXT_AUTHORITY).exists() {
            Self::Prepared
        } else if directory.join(file::OLD_AUTHORITY).exists() {
            Self::Switched
        } else {
            Self::Settled
        }
    }

    /// The phase as one word.
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
