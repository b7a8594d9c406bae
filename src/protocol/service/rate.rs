//! How much may pass in a second: the generic cell rate algorithm of ITU-T I.371, which needs one number.

use std::time::Duration;

use crate::protocol::time::Time;

/// So much of a rate may pass at once, after a pause.
pub const BURST: Duration = Duration::from_secs(1);

/// A limit on what passes in a second: bytes, calls or messages.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: u64,
    /// When all that has passed would have passed at this rate.
    paid: Time,
}

impl Rate {
    /// At most so much in a second; at least 1.
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Self { per_second, paid: Time::ZERO }
    }

    /// Lets so much pass, or says when it may. What is more than a [`BURST`] passes after a pause, and delays what comes
    /// after it.
    ///
    /// # Errors
    /// After how long it may pass. Nothing has changed.
    pub fn take(&mut self, now: Time, much: u64) -> Result<(), Duration> {
        self.take_within(now, much, BURST)
    }

    /// As [`Self::take`], for what can wait: it leaves half of the burst to what is refused instead.
    ///
    /// # Errors
    /// As there.
    pub fn take_patiently(&mut self, now: Time, much: u64) -> Result<(), Duration> {
        self.take_within(now, much, BURST / 2)
    }

    /// Whether all that has passed would have passed by now at this rate.
    #[must_use]
    pub fn is_paid(&self, now: Time) -> bool {
        self.paid <= now
    }

    fn take_within(&mut self, now: Time, much: u64, burst: Duration) -> Result<(), Duration> {
        let from = self.paid.max(now);
        let ahead = from.since(now);
        if ahead > burst {
            return Err(ahead - burst);
        }
        let nanos = u128::from(much) * 1_000_000_000 / u128::from(self.per_second);
        self.paid = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Ok(())
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
        assert!(!rate.is_paid(at(10_000)) && rate.is_paid(at(11_000)));
    }

    #[test]
    fn what_is_larger_than_a_burst_is_paid_for_by_those_after_it() {
        let mut rate = Rate::new(1_000);
        assert_eq!(rate.take(at(0), 10_000), Ok(()));
        assert_eq!(rate.take(at(0), 1), Err(Duration::from_secs(9)));
        assert_eq!(rate.take(at(9_000), 1), Ok(()));
        let mut none = Rate::new(0);
        assert_eq!(none.take(at(0), u64::MAX), Ok(()));
        assert!(none.take(at(0), 1).is_err());
    }
}
