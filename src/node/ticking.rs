//! Measures how late this node is served, and tells its machines.

use super::{messages::StorageMessage, shared::Shared};
use crate::protocol::{
    lag::Ticked,
    route::{DetectorInput, SchedulerInput},
    time::Time,
};

/// A tick; returns the present time, and that of the next tick.
pub(super) fn tick(shared: &Shared) -> (Time, Time) {
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
        shared.lag.tell(lag);
        shared.routes.scheduler.cast(SchedulerInput::Lag(lag));
        shared.routes.detector.cast(DetectorInput::Lag(lag));
    }
    (now, next)
}
