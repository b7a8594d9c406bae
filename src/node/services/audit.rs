//! The audit trail of calls: log lines with a target of their own.
//!
//! A refusal is told because of who calls, not because of room. Callers can cause any number of refusals, so only some are
//! told; the counters count all of them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    node::services::caller::Caller,
    protocol::{
        service::{ServiceId, figures::CallOutcome, frame::Code, rate::Rate},
        time::Time,
    },
};

/// The target of the lines.
const AUDIT: &str = "gossipmonger::audit";
/// Refusals that are told in a second.
const REFUSALS_PER_SECOND: u64 = 10;

/// What is told of refusals.
#[derive(Debug)]
pub(crate) struct Audit(Mutex<Told>);

#[derive(Debug)]
struct Told {
    rate: Rate,
    /// Refusals since the last line that have none.
    untold: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self(Mutex::new(Told { rate: Rate::new(REFUSALS_PER_SECOND), untold: 0 }))
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
        if let Some(untold) = self.tells(now) {
            tracing::warn!(
                target: AUDIT,
                %caller, %service, method, code = code.as_str(), untold,
                "a call was refused: its caller may not make it"
            );
        }
    }

    /// Whether a refusal is told; then how many before it were not.
    fn tells(&self, now: Time) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.rate.take(now, 1).is_ok() {
            return Some(std::mem::take(&mut told.untold));
        }
        told.untold += 1;
        None
    }
}

/// A call of an offer whose calls are all told has ended.
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
    fn of_many_refusals_some_are_told_and_the_rest_is_counted() {
        let audit = Audit::default();
        let tells = |ms| audit.tells(Time::ZERO + Duration::from_millis(ms));
        let told = (0..1_000).filter(|_| tells(0).is_some()).count();
        assert_eq!(told, 11, "a burst");
        assert_eq!(tells(100), Some(989));
        assert_eq!((tells(100), tells(10_000)), (None, Some(1)));
    }
}
