//! The measure of how late this node is served, shared by its actors.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    lateness::Lateness,
    protocol::{lag::Lag, time::Time},
};

/// How late one node is served.
#[derive(Debug)]
pub(crate) struct LagMeter {
    lag: Mutex<Lag>,
    /// The value that the machines know, in microseconds.
    told: AtomicU64,
    /// For the tasks of the node.
    lateness: Arc<Lateness>,
}

impl LagMeter {
    /// It publishes what it measures in `lateness`.
    pub(crate) fn new(lateness: Arc<Lateness>) -> Self {
        Self { lag: Mutex::default(), told: AtomicU64::new(0), lateness }
    }

    /// How late the node is served, for its tasks.
    pub(crate) const fn lateness(&self) -> &Arc<Lateness> {
        &self.lateness
    }

    /// The value that the machines are to know.
    pub(crate) fn told(&self) -> Duration {
        Duration::from_micros(self.told.load(Ordering::Relaxed))
    }

    /// How late the node was since its start, in all.
    pub(crate) fn late(&self) -> Duration {
        self.lock().late()
    }

    /// The probe has come out of the mailbox of storage.
    pub(crate) fn received(&self, now: Time) {
        self.lock().received(now);
    }

    /// The task that measures it has started.
    pub(crate) fn resumed(&self) {
        self.lock().resumed();
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
