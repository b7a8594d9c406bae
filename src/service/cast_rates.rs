//! How many messages without an answer an actor gets in a second, where no room limits how many wait.

use std::collections::BTreeMap;

use crate::{
    node::services::caller::CallerName,
    protocol::{service::rate::Rate, time::Time},
};

/// Callers whose messages are counted apart. With more of them at once, those that owe nothing are forgotten.
const CALLERS_MAX: usize = 1_024;

/// A rate for all callers, of which one caller gets half.
#[derive(Debug)]
pub(super) struct CastRates {
    per_second: u64,
    all: Rate,
    callers: BTreeMap<CallerName, Rate>,
}

impl CastRates {
    pub(super) const fn new(per_second: u64) -> Self {
        Self { per_second, all: Rate::new(per_second), callers: BTreeMap::new() }
    }

    /// Whether there is room for one more message of a caller.
    pub(super) fn take(&mut self, now: Time, caller: CallerName) -> bool {
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&caller) {
            self.callers.retain(|_, rate| !rate.is_paid(now));
            if self.callers.len() >= CALLERS_MAX {
                return false;
            }
        }
        let part = self.per_second.div_ceil(2);
        let own = self.callers.entry(caller).or_insert_with(|| Rate::new(part));
        own.take(now, 1).is_ok() && self.all.take(now, 1).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_caller_gets_half_and_more_callers_than_are_counted_wait() {
        let mut rates = CastRates::new(100);
        let mut passed = |name: String, at: Time| {
            (0..1_000).take_while(|_| rates.take(at, CallerName::Client(name.clone()))).count()
        };
        assert_eq!(passed("a".to_owned(), Time::ZERO), 51);
        assert_eq!(passed("b".to_owned(), Time::ZERO), 50);
        for n in 0..2_000 {
            passed(format!("c{n}"), Time::ZERO);
        }
        assert_eq!(rates.callers.len(), CALLERS_MAX);
        assert!(
            rates.take(Time::ZERO + Duration::from_secs(9), CallerName::Client("d".to_owned()))
        );
    }
}
