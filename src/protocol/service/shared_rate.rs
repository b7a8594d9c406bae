//! A rate that callers share: one of them gets a part of it, however much it sends.

use std::collections::BTreeMap;

use super::rate::Rate;
use crate::protocol::time::Time;

/// Callers that are counted apart. Beyond that, those whose part is unused are forgotten, and a new one has to wait.
const CALLERS_MAX: usize = 1_024;

/// A rate for all callers, and a lower one for each. `K` is a caller.
#[derive(Debug)]
pub struct SharedRate<K> {
    all: Rate,
    part: u64,
    callers: BTreeMap<K, Rate>,
}

impl<K: Ord> SharedRate<K> {
    /// `all` of all callers in a second, `part` of one of them.
    #[must_use]
    pub const fn new(all: u64, part: u64) -> Self {
        Self { all: Rate::new(all), part, callers: BTreeMap::new() }
    }

    /// Whether one more of a caller may pass.
    pub fn take(&mut self, now: Time, caller: K) -> bool {
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&caller) {
            self.callers.retain(|_, rate| !rate.is_full(now));
            if self.callers.len() >= CALLERS_MAX {
                return false;
            }
        }
        let own = self.callers.entry(caller).or_insert_with(|| Rate::new(self.part));
        own.take(now, 1).is_ok() && self.all.take(now, 1).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_caller_gets_its_part_and_more_callers_than_are_counted_wait() {
        let mut rate = SharedRate::new(100, 50);
        let mut passed =
            |caller: u32, at: Time| (0..1_000).take_while(|_| rate.take(at, caller)).count();
        assert_eq!(passed(0, Time::ZERO), 51);
        assert_eq!(passed(1, Time::ZERO), 50);
        for caller in 2..2_000 {
            passed(caller, Time::ZERO);
        }
        assert_eq!(rate.callers.len(), CALLERS_MAX);
        assert!(rate.take(Time::ZERO + Duration::from_secs(9), 3_000));
    }
}
