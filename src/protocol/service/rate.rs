//! How much may pass in a second: a token bucket that may go into debt, so that nothing is cut for it.

use std::time::Duration;

use crate::protocol::{bucket::Bucket, time::Time};

/// So many seconds of a rate may pass at once, after a pause.
const BURST_SECONDS: f64 = 1.0;

/// A limit on what passes in a second: bytes, calls or messages.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: f64,
    bucket: Bucket,
}

impl Rate {
    /// At most so much in a second; at least 1.
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        let per_second = if per_second == 0 { 1.0 } else { per_second as f64 };
        Self { per_second, bucket: Bucket::holding(Time::ZERO, per_second * BURST_SECONDS) }
    }

    /// Lets so much pass, or says when it may. What is more than the bucket holds passes if there is no debt, and delays
    /// what comes after it.
    ///
    /// # Errors
    /// After how long it may pass. Nothing has changed.
    pub fn take(&mut self, now: Time, much: u64) -> Result<(), Duration> {
        self.take_above(now, much, 0.0)
    }

    /// As [`Self::take`], for traffic that can wait: it leaves half of the bucket to traffic that is refused otherwise.
    ///
    /// # Errors
    /// As there.
    pub fn take_patiently(&mut self, now: Time, much: u64) -> Result<(), Duration> {
        self.take_above(now, much, self.most() / 2.0)
    }

    /// Whether the bucket is full: a new one would be the same.
    #[must_use]
    pub fn is_full(&self, now: Time) -> bool {
        self.bucket.holds(now, self.per_second, self.most())
    }

    fn take_above(&mut self, now: Time, much: u64, kept: f64) -> Result<(), Duration> {
        let (rate, most) = (self.per_second, self.most());
        if let Some(wait) = self.bucket.wait(now, rate, most, kept) {
            return Err(wait);
        }
        self.bucket.charge_of(now, rate, most, much as f64);
        Ok(())
    }

    const fn most(&self) -> f64 {
        self.per_second * BURST_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn no_more_passes_than_the_rate_and_one_burst() {
        let mut rate = Rate::new(100);
        let passed =
            |rate: &mut Rate, ms| (0..).take_while(|_| rate.take(at(ms), 1).is_ok()).count();
        // The burst, and one that begins within it.
        assert_eq!(passed(&mut rate, 0), 101);
        assert_eq!(rate.take(at(0), 1), Err(Duration::from_millis(10)));
        assert_eq!(passed(&mut rate, 10), 1);
        assert_eq!(passed(&mut rate, 500), 49);
        assert_eq!(passed(&mut rate, 60_000), 101, "no more is saved up");
    }

    #[test]
    fn what_waits_leaves_room_to_what_is_refused() {
        let mut rate = Rate::new(100);
        for ms in 0..10_000 {
            while rate.take_patiently(at(ms), 1).is_ok() {}
            if ms % 100 == 0 {
                assert_eq!(rate.take(at(ms), 1), Ok(()), "at {ms} ms");
            }
        }
        assert!(!rate.is_full(at(10_000)) && rate.is_full(at(11_000)));
    }

    #[test]
    fn what_is_larger_than_a_burst_delays_what_comes_after_it() {
        let mut rate = Rate::new(1_000);
        assert_eq!(rate.take(at(0), 10_000), Ok(()));
        assert_eq!(rate.take(at(0), 1), Err(Duration::from_secs(9)));
        assert_eq!(rate.take(at(9_000), 1), Ok(()));
        let mut none = Rate::new(0);
        assert_eq!(none.take(at(0), u64::MAX), Ok(()));
        assert!(none.take(at(0), 1).is_err());
    }
}
