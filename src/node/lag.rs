//! The measure of how late this node is served, shared by its actors.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::protocol::{lag::Lag, time::Time};

/// How late one node is served.
#[derive(Debug, Default)]
pub(crate) struct LagMeter {
    lag: Mutex<Lag>,
    /// The value that the machines know, in microseconds.
    told: AtomicU64,
}

impl LagMeter {
    /// The value that the machines are to know.
    pub(crate) fn told(&self) -> Duration {
        Duration::from_micros(self.told.load(Ordering::Relaxed))
    }

    /// The probe has come out of the mailbox of storage.
    pub(crate) fn received(&self, now: Time) {
        self.lock().received(now);
    }

    /// Storage has started, with an empty mailbox.
    pub(crate) fn restarted(&self) {
        self.lock().restarted();
    }

    /// The machines are told this value.
    pub(super) fn tell(&self, lag: Duration) {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.told.store(micros, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
