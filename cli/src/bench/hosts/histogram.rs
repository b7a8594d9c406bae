//! Times of any number of calls in little memory.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::rounded;

/// Counts of times, in classes whose width is at most a thousandth of the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub(super) fn record(&mut self, time: Duration) {
        let class = class_of(micros(time));
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] += 1;
        self.total += 1;
        self.max = self.max.max(time);
    }

    /// The middle of the class of the smallest time that is not below this part of them, in milliseconds.
    fn quantile(&self, part: f64) -> Option<f64> {
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut below = 0;
        let class = self.counts.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        let (low, width) = class_at(class);
        Some((low as f64 + (width - 1) as f64 / 2.0) / 1e3)
    }

    /// Median, 90th and 99th percentile, and largest, in milliseconds; null without any.
    pub(super) fn report(&self) -> Value {
        let Some(p50) = self.quantile(0.5) else { return Value::Null };
        let at = |part| self.quantile(part).map_or(Value::Null, |value| rounded(value, 3));
        json!({
            "p50": rounded(p50, 3), "p90": at(0.9), "p99": at(0.99),
            "max": rounded(self.max.as_secs_f64() * 1e3, 3),
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX)
}

/// Below [`FINE`] each microsecond is a class; above, each doubling has `FINE` of them.
const fn class_of(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let doublings = micros.ilog2() - FINE.ilog2();
    let within = (micros >> doublings) - FINE;
    (FINE + doublings as u64 * FINE + within) as usize
}

/// The smallest time of a class, and how many microseconds it has.
const fn class_at(class: usize) -> (u64, u64) {
    let class = class as u64;
    if class < FINE {
        return (class, 1);
    }
    let doublings = class / FINE - 1;
    ((class % FINE + FINE) << doublings, 1 << doublings)
}

const FINE: u64 = 1_024;
/// Longer than any deadline.
const MICROS_MAX: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_its_class() {
        for micros in (0..5_000).chain([40_000, 1 << 20, (1 << 20) - 1, MICROS_MAX]) {
            let (low, width) = class_at(class_of(micros));
            assert!((low..low + width).contains(&micros), "{micros}: {low} and {width}");
            assert!(width * FINE <= micros.max(FINE), "{micros}: {width}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let mut times = Histogram::default();
        assert_eq!(times.report(), Value::Null);
        (1..=100).for_each(|time| times.record(Duration::from_micros(time * 10)));
        assert_eq!(times.report(), json!({ "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0 }));
        times.record(Duration::from_secs(5));
        assert_eq!(times.report()["max"], json!(5000.0));
    }
}
