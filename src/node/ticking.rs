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
    let mut lag = shared.lag.lock();
    let Ticked { next, probe } = lag.tick(now);
    let (value, change) = (lag.value(now), lag.change(now));
    let (late, more_late) = (lag.late(), lag.more_late());
    let probes = probe && shared.routes.storage.current().is_some();
    if probes {
        lag.sent(now);
    }
    drop(lag);
    if probes {
        shared.routes.storage.cast(StorageMessage::Probe);
    }
    shared.lag.lateness().note(value, late);
    shared.diagnostics.counters.note_lag(value);
    if let Some(late) = more_late {
        shared.routes.scheduler.cast(SchedulerInput::Late(late));
    }
    if let Some(lag) = change {
        shared.lag.tell(lag);
        shared.routes.scheduler.cast(SchedulerInput::Lag(lag));
        shared.routes.detector.cast(DetectorInput::Lag(lag));
    }
    (now, next)
}
