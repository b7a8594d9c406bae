//! Measures how late this node is served, and tells its machines.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{host::Host, messages::StorageMessage, shared::Shared};
use crate::protocol::{
    lag::{Lag, Ticked},
    route::{DetectorInput, SchedulerInput},
    time::Time,
};

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

    fn lock(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ticks as long as the actor of the transport lives.
pub(crate) async fn watch(host: Host) {
    loop {
        let (now, next) = host.tick_lag();
        tokio::time::sleep(next.since(now)).await;
    }
}

/// A tick; returns the present time, and that of the next tick.
pub(crate) fn tick(shared: &Shared) -> (Time, Time) {
    let now = shared.clock.now();
    let (Ticked { next, probe }, value, change) = {
        let mut lag = shared.lag.lock();
        let ticked = lag.tick(now);
        (ticked, lag.value(now), lag.change(now))
    };
    if probe && shared.routes.storage.current().is_some() {
        shared.lag.lock().sent(now);
        shared.routes.storage.cast(StorageMessage::Probe);
    }
    shared.diagnostics.counters.note_lag(value);
    if let Some(lag) = change {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        shared.lag.told.store(micros, Ordering::Relaxed);
        shared.routes.scheduler.cast(SchedulerInput::Lag(lag));
        shared.routes.detector.cast(DetectorInput::Lag(lag));
    }
    (now, next)
}
