//! The only readings of the clocks.
#![allow(clippy::disallowed_methods, reason = "this is where the clocks are read")]

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::protocol::time::Time;

/// The monotonic clock of one node; it follows tokio's paused time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts at [`ORIGIN`], so that times before the start can be expressed.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_origin(ORIGIN + self.0.elapsed())
    }

    /// The wall clock. rustls reads it in every handshake to check dates; reports about the dates of
    /// certificates have to agree with that.
    pub(crate) fn wall() -> SystemTime {
        SystemTime::now()
    }
}

const ORIGIN: Duration = Duration::from_secs(1);
