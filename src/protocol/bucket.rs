//! A token bucket: how much a peer or a node may spend.

use std::time::Duration;

use super::time::Time;

/// How much may be saved up, in seconds of the rate.
pub(crate) const BURST_SECONDS: f64 = 2.0;

/// Timers are no finer than this.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// It fills at a rate, up to [`BURST_SECONDS`] of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Time,
}

impl Bucket {
    pub(crate) fn full(now: Time, rate: f64) -> Self {
        Self { tokens: rate * BURST_SECONDS, at: now }
    }

    /// It holds so many.
    pub(crate) const fn holding(now: Time, tokens: f64) -> Self {
        Self { tokens, at: now }
    }

    /// Spends one, if there is one.
    pub(crate) fn pays(&mut self, now: Time, rate: f64) -> bool {
        self.pays_of(now, rate, rate * BURST_SECONDS)
    }

    /// The same with this largest amount saved up.
    pub(crate) fn pays_of(&mut self, now: Time, rate: f64, most: f64) -> bool {
        let earned = now.since(self.at).as_secs_f64() * rate;
        *self = Self { tokens: (self.tokens + earned).min(most), at: now };
        let pays = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(pays));
        pays
    }

    pub(crate) fn is_full(&self, now: Time, rate: f64) -> bool {
        self.tokens_at(now, rate) >= rate * BURST_SECONDS
    }

    /// Whether it is full.
    pub(crate) fn holds(&self, now: Time, rate: f64, most: f64) -> bool {
        self.tokens + now.since(self.at).as_secs_f64() * rate >= most
    }

    /// Takes this many tokens at once, if there are as many.
    pub(crate) fn pays_for(&mut self, now: Time, rate: f64, most: f64, price: f64) -> bool {
        let earned = now.since(self.at).as_secs_f64() * rate;
        let tokens = (self.tokens + earned).min(most);
        let pays = tokens >= price;
        *self = Self { tokens: if pays { tokens - price } else { tokens }, at: now };
        pays
    }

    /// Takes `amount` tokens; the balance may go negative.
    pub(crate) fn charge(&mut self, now: Time, rate: f64, amount: f64) {
        self.charge_of(now, rate, rate * BURST_SECONDS, amount);
    }

    /// The same with this largest amount saved up.
    pub(crate) fn charge_of(&mut self, now: Time, rate: f64, most: f64, amount: f64) {
        *self = Self { tokens: self.tokens_of(now, rate, most) - amount, at: now };
    }

    /// How long until the balance is at least `kept`; `None` if it is.
    pub(crate) fn wait(&self, now: Time, rate: f64, most: f64, kept: f64) -> Option<Duration> {
        let missing = kept - self.tokens_of(now, rate, most);
        let wait = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        (missing > 0.0).then(|| wait(missing / rate).max(WAIT_MIN))
    }

    /// The balance; negative if there is debt.
    pub(crate) fn tokens_at(&self, now: Time, rate: f64) -> f64 {
        self.tokens_of(now, rate, rate * BURST_SECONDS)
    }

    fn tokens_of(&self, now: Time, rate: f64, most: f64) -> f64 {
        (self.tokens + now.since(self.at).as_secs_f64() * rate).min(most)
    }
}
