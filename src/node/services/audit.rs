//! The audit trail of calls: log lines with a target of their own.
//!
//! A refusal because of who calls is logged; one for want of room is not. Callers can cause any number of refusals, so only
//! some are logged; the counters count all of them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    node::services::caller::{Caller, CallerName},
    protocol::{
        service::{ServiceId, figures::CallOutcome, frame::Code, shared_rate::SharedRate},
        time::Time,
    },
};

/// The target of the lines.
const AUDIT: &str = "gossipmonger::audit";
/// Refusals that are logged in a second, of all callers.
const REFUSALS_PER_SECOND: u64 = 10;
/// Of these, refusals of one caller: others are seen beside it.
const PER_CALLER: u64 = 2;

/// Which refusals are logged.
#[derive(Debug)]
pub(crate) struct Audit(Mutex<Logged>);

#[derive(Debug)]
struct Logged {
    rate: SharedRate<CallerName>,
    /// Refusals since the last line that were not logged.
    suppressed: u64,
}

impl Default for Audit {
    fn default() -> Self {
        let rate = SharedRate::new(REFUSALS_PER_SECOND, PER_CALLER);
        Self(Mutex::new(Logged { rate, suppressed: 0 }))
    }
}

impl Audit {
    /// A caller may not call a method.
    pub(crate) fn refused(
        &self,
        now: Time,
        caller: &Caller,
        (service, method): (&ServiceId, u16),
        code: Code,
    ) {
        if let Some(suppressed) = self.logs(now, caller.name()) {
            tracing::warn!(
                target: AUDIT,
                %caller, %service, method, code = code.as_str(), suppressed,
                "a call was refused: its caller may not make it"
            );
        }
    }

    /// Whether a refusal is logged; then how many before it were not.
    fn logs(&self, now: Time, caller: CallerName) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.rate.take(now, caller) {
            return Some(std::mem::take(&mut logged.suppressed));
        }
        logged.suppressed += 1;
        None
    }
}

/// An audited offer has answered a repeated call from memory.
pub(crate) fn recalled(caller: &Caller, (service, method): (&ServiceId, &str)) {
    tracing::info!(target: AUDIT, %caller, %service, method, "a repeated call was answered from memory");
}

/// A call of an audited offer has ended.
pub(crate) fn ended(
    caller: &Caller,
    (service, method): (&ServiceId, &str),
    outcome: CallOutcome,
    took: Duration,
) {
    tracing::info!(
        target: AUDIT,
        %caller, %service, method, outcome = outcome.as_str(), took = ?took,
        "a call has ended"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_some_are_logged_and_the_rest_is_counted() {
        let audit = Audit::default();
        let logs = |ms, name: &str| {
            audit.logs(Time::ZERO + Duration::from_millis(ms), CallerName::Client(name.to_owned()))
        };
        let of_one = (0..1_000).filter(|_| logs(0, "a").is_some()).count();
        assert_eq!(of_one, 3, "a burst");
        assert_eq!(logs(0, "b"), Some(997), "another caller is seen beside it");
        let of_all = (0..1_000).filter(|n| logs(0, &format!("c{n}")).is_some()).count();
        assert_eq!(of_all, 7, "all together");
        assert_eq!(logs(10_000, "a"), Some(993));
    }
}
