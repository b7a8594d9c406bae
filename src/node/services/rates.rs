//! What one caller may send in a second, over all its connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use super::{caller::CallerName, pace::Pace};
use crate::{
    clock::Clock,
    protocol::{
        service::{limits::ServiceRates, rate::Rate},
        time::Time,
    },
};

/// The rates of all callers that have a connection.
#[derive(Debug)]
pub(crate) struct Rates {
    limits: ServiceRates,
    clock: Clock,
    callers: Mutex<BTreeMap<CallerName, Weak<CallerRates>>>,
}

/// The rates of one caller.
#[derive(Debug)]
pub(crate) struct CallerRates {
    pub(crate) bytes: Arc<Pace>,
    calls: Option<Mutex<Rate>>,
}

impl Rates {
    pub(super) const fn new(limits: ServiceRates, clock: Clock) -> Self {
        Self { limits, clock, callers: Mutex::new(BTreeMap::new()) }
    }

    /// Those of a caller. Connections of one caller share them.
    pub(super) fn of(&self, name: CallerName) -> Arc<CallerRates> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rates) = callers.get(&name).and_then(Weak::upgrade) {
            return rates;
        }
        callers.retain(|_, rates| rates.strong_count() > 0);
        let rates = Arc::new(CallerRates {
            bytes: Pace::new(self.clock, self.limits.bytes_per_second as u64),
            calls: self.limits.calls_per_second.map(|most| Mutex::new(Rate::new(most as u64))),
        });
        callers.insert(name, Arc::downgrade(&rates));
        rates
    }
}

impl CallerRates {
    /// A call or message of so many bytes has arrived.
    ///
    /// # Errors
    /// After how long there is room for it.
    pub(super) fn take(&self, now: Time, bytes: usize) -> Result<(), Duration> {
        self.call(now)?;
        self.bytes.take(now, bytes)
    }

    /// A call has arrived whose bytes are counted as they are read.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn call(&self, now: Time) -> Result<(), Duration> {
        self.calls.as_ref().map_or(Ok(()), |calls| {
            calls.lock().unwrap_or_else(PoisonError::into_inner).take(now, 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> CallerName {
        CallerName::Client(name.to_owned())
    }

    #[test]
    fn the_connections_of_one_caller_share_its_rates() {
        let limits = ServiceRates {
            bytes_per_second: 100,
            calls_per_second: Some(10),
            ..ServiceRates::default()
        };
        let rates = Rates::new(limits, Clock::start());
        let (one, same, other) = (rates.of(name("a")), rates.of(name("a")), rates.of(name("b")));
        let takes =
            |of: &CallerRates| (0..100).take_while(|_| of.take(Time::ZERO, 1).is_ok()).count();
        assert_eq!(takes(&one) + takes(&same), 11, "calls");
        assert_eq!(takes(&other), 11);
        let fresh = rates.of(name("c"));
        assert!(fresh.take(Time::ZERO, 101).is_ok());
        assert!(fresh.take(Time::ZERO, 1).is_err(), "bytes");
        drop((one, same));
        assert!(
            rates.of(name("a")).take(Time::ZERO, 1).is_ok(),
            "it was forgotten with its connections"
        );
        assert_eq!(rates.callers.lock().unwrap().len(), 3);
    }
}
