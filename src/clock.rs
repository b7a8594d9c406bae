//! The only readings of the clocks.
#![allow(clippy::disallowed_methods, reason = "this is where the clocks are read")]

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::protocol::time::Time;

/// The monotonic clock of one node; it follows tokio's paused time.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a second after [`Time::ZERO`], so that times before the start can be expressed.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the origin.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_origin(ORIGIN + self.0.elapsed())
    }

    /// The wall clock. rustls reads it in every handshake to check dates; reports about the dates of
    /// certificates have to agree with that.
    #[must_use]
    pub fn wall() -> SystemTime {
        SystemTime::now()
    }
}

const ORIGIN: Duration = Duration::from_secs(1);
