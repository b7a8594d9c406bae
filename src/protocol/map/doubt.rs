//! How often a map is told again since what is signed does not follow from it.

use std::time::Duration;

/// A map whose news did not fit is told once more from the start, but not more often than this.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(30);
