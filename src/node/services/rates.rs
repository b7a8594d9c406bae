//! What one caller may send in a second, over all its connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{caller::CallerName, pace::Pace};
use crate::{
    clock::Clock,
    protocol::{
        service::{calls::WAITING_BYTES, limits::ServiceRates, rate::Rate},
        time::Time,
    },
};

/// The rates of all callers that have a connection.
#[derive(Debug)]
pub(crate) struct Rates {
    limits: ServiceRates,
    clock: Clock,
    /// A caller is kept as long as it has a connection or has used some of its rates: a new connection brings no more.
    callers: Mutex<BTreeMap<CallerName, Arc<CallerRates>>>,
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
        if let Some(rates) = callers.get(&name) {
            return Arc::clone(rates);
        }
        let now = self.clock.now();
        callers.retain(|_, rates| Arc::strong_count(rates) > 1 || !rates.are_full(now));
        let rates = Arc::new(CallerRates {
            bytes: Pace::new(self.clock, self.limits.bytes_per_second as u64),
            calls: self.limits.calls_per_second.map(|most| Mutex::new(Rate::new(most as u64))),
        });
        callers.insert(name, Arc::clone(&rates));
        rates
    }
}

impl CallerRates {
    /// A call or message has arrived whose body has so many bytes; a frame counts besides.
    ///
    /// # Errors
    /// After how long there is room for it.
    pub(super) fn take(&self, now: Time, bytes: usize) -> Result<(), Duration> {
        self.call(now)?;
        self.bytes.take(now, WAITING_BYTES + bytes)
    }

    fn are_full(&self, now: Time) -> bool {
        let full =
            |calls: &Mutex<Rate>| calls.lock().unwrap_or_else(PoisonError::into_inner).is_full(now);
        self.calls.as_ref().is_none_or(full) && self.bytes.is_full(now)
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
            bytes_per_second: 10 * WAITING_BYTES,
            calls_per_second: Some(20),
            ..ServiceRates::default()
        };
        let rates = Rates::new(limits, Clock::start());
        let (one, same, other) = (rates.of(name("a")), rates.of(name("a")), rates.of(name("b")));
        let calls = |of: &CallerRates| (0..100).take_while(|_| of.call(Time::ZERO).is_ok()).count();
        assert_eq!(calls(&one) + calls(&same), 21, "calls");
        let takes =
            |of: &CallerRates| (0..100).take_while(|_| of.take(Time::ZERO, 0).is_ok()).count();
        assert_eq!(takes(&other), 11, "bytes");
        let fresh = rates.of(name("c"));
        assert!(fresh.take(Time::ZERO, 10 * WAITING_BYTES).is_ok());
        assert!(fresh.take(Time::ZERO, 0).is_err(), "a long body");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_brings_no_more_of_the_rates() {
        let limits = ServiceRates { calls_per_second: Some(10), ..ServiceRates::default() };
        let clock = Clock::start();
        let rates = Rates::new(limits, clock);
        for _ in 0..10 {
            let connection = rates.of(name("a"));
            while connection.call(clock.now()).is_ok() {}
        }
        assert!(rates.of(name("a")).call(clock.now()).is_err());
        tokio::time::sleep(Duration::from_secs(3)).await;
        rates.of(name("b"));
        assert_eq!(
            rates.callers.lock().unwrap().len(),
            1,
            "a caller whose rates are unused is forgotten"
        );
    }
}
