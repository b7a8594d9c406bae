//! Elapsed time, shown to people. Nodes have a clock of their own.
#![allow(clippy::disallowed_methods, reason = "measures for people, decides nothing in a node")]

use std::time::{Duration, Instant};

/// Runs from its creation on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}
