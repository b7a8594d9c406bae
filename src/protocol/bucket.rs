//! A token bucket: how much a peer or a node may spend.

use std::time::Duration;

use super::time::Time;

/// How much may be saved up, in seconds of the rate.
pub(crate) const BURST_SECONDS: f64 = 2.0;

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
        *self = Self { tokens: self.tokens_at(now, rate) - amount, at: now };
    }

    /// The balance; negative if there is debt.
    pub(crate) fn tokens_at(&self, now: Time, rate: f64) -> f64 {
        let since: Duration = now.since(self.at);
        (self.tokens + since.as_secs_f64() * rate).min(rate * BURST_SECONDS)
    }
}
