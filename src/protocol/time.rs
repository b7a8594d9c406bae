//! A reading of some monotonic clock, passed in by the caller of the machines.

use std::{fmt, ops::Add, time::Duration};

/// Time since an arbitrary origin, in microseconds. Only differences between readings of one node have a
/// meaning.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    #[doc(hidden)]
    pub const ZERO: Self = Self(0);

    /// The time this long after the origin; saturates after 584,000 years.
    #[must_use]
    #[doc(hidden)]
    pub fn from_origin(since: Duration) -> Self {
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long after the origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// How long after `earlier`; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self::from_origin(self.since_origin().saturating_add(later))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.since_origin())
    }
}
