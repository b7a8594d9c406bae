//! How many calls were answered in each tenth of a second.

use std::time::Duration;

use serde_json::{Value, json};

/// Answers, by the tenth of a second in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(Vec<u32>);

impl Rates {
    pub(super) fn record(&mut self, at: Duration) {
        let slot = (at.as_millis() / SLOT.as_millis()) as usize;
        if self.0.len() <= slot {
            self.0.resize(slot + 1, 0);
        }
        self.0[slot] += 1;
    }

    /// The time from this moment until the answers come at the full rate: the beginning of the first half second that
    /// has [`FULL`] of the calls that are begun in half a second. `None`: never before `end`.
    pub(super) fn full_after(&self, from: Duration, end: Duration, rate: f64) -> Option<Duration> {
        let slot_of = |moment: Duration| (moment.as_millis() / SLOT.as_millis()) as usize;
        let needed = (rate * SLOT.as_secs_f64() * WINDOW as f64 * FULL).floor() as u64;
        let first = from.as_millis().div_ceil(SLOT.as_millis()) as usize;
        let last = slot_of(end).checked_sub(WINDOW)?;
        let full = (first..=last).find(|slot| {
            let window = self.0.iter().skip(*slot).take(WINDOW);
            window.map(|count| u64::from(*count)).sum::<u64>() >= needed
        })?;
        Some((SLOT * u32::try_from(full).ok()?).saturating_sub(from))
    }

    pub(super) fn report(&self) -> Value {
        json!(self.0)
    }
}

const SLOT: Duration = Duration::from_millis(100);
/// So many slots must have the full rate together: single ones vary on a busy machine.
const WINDOW: usize = 5;
const FULL: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// One answer each 10 ms, but not in this time.
    fn with_gap(gap: std::ops::Range<u64>) -> Rates {
        let mut rates = Rates::default();
        (0..300)
            .map(|call| call * 10)
            .filter(|at| !gap.contains(at))
            .for_each(|at| rates.record(ms(at)));
        rates
    }

    #[test]
    fn the_rate_is_full_when_the_gap_is_over() {
        let rates = with_gap(1_000..1_400);
        assert_eq!(rates.full_after(ms(950), ms(3_000), 100.0), Some(ms(450)));
        assert_eq!(rates.full_after(ms(1_500), ms(3_000), 100.0), Some(ms(0)));
    }

    #[test]
    fn a_rate_that_is_not_reached_again_is_not_full() {
        let rates = with_gap(1_000..3_000);
        assert_eq!(rates.full_after(ms(950), ms(3_000), 100.0), None);
        assert_eq!(rates.full_after(ms(950), ms(100), 100.0), None);
    }
}
