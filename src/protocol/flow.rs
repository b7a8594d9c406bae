//! How fast an owner tells its own writes: so that all owners together tell no more than gossip can
//! carry, and each its fair share.
//!
//! The flow control of van Renesse, Dumitriu, Gough and Thomas (LADIS 2008, the section of that name):
//! what does not fit a message is a sign of overload, upon which an owner tells by a quarter less,
//! and a little more again with every message that has room (additive increase, multiplicative
//! decrease, as TCP does it); and two nodes that meet share what both are allowed (rho, what each
//! would like to tell, and tau, what it is allowed). The writes themselves are never slowed and
//! never refused: they wait to be told, and what is overwritten meanwhile never travels.
//!
//! It differs from the paper in three points. An owner has no limit until it has met an overload, and
//! none any more once it has had room for a while: whoever writes a key now and then is never held.
//! What an owner may tell is never more than a little above what it wants to: an allowance that is
//! not used proves nothing (RFC 7661, section 3, says the same of TCP's window). And a node changes
//! its allowance at most once an interval, however many messages it exchanges in that time.
//!
//! This machine knows neither maps nor queues. Who drives it says what was written, told, cut and
//! met, and asks when it may tell next.

use std::time::Duration;

use bincode::{Decode, Encode};

use super::time::Time;

/// What the flow control of a node goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// How often the allowance may change, once up and once down: the gossip interval. Shorter reacts
    /// sooner, and to overloads that would have passed.
    pub interval: Duration,
}

/// Entries a second, in thousandths: fractions matter when a hundred owners share two hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Rate(u64);

/// What an owner says of itself to whom it meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rates {
    /// What it writes (the paper's rho).
    pub desired: Rate,
    /// What it is allowed to tell (the paper's tau); `None`: it has met no overload.
    pub allowed: Option<Rate>,
}

/// The flow control of one owner.
#[derive(Clone, Debug)]
pub struct Flow {
    config: FlowConfig,
    written: Meter,
    /// Entries that wait to be told.
    held: usize,
    limit: Option<Limit>,
}

/// What an owner is allowed once it has met an overload.
#[derive(Clone, Copy, Debug)]
struct Limit {
    rate: Rate,
    /// What an interval without overload adds.
    step: Rate,
    /// When the rate was last decreased.
    decreased: Time,
    /// When it was last changed by what this node has seen itself.
    changed: Time,
    /// Billionths of an entry that may be told, or, below zero, that were told in advance.
    credit: i64,
    /// When the credit was that.
    at: Time,
    /// When something may be told whatever the credit.
    free_at: Time,
}

impl Rate {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many entries in so much time; saturates.
    #[must_use]
    pub fn per(entries: u64, time: Duration) -> Self {
        let millis = u128::from(entries) * 1_000_000_000 / time.as_micros().max(1);
        Self(u64::try_from(millis).unwrap_or(u64::MAX)).min(RATE_MAX)
    }

    /// Thousandths of an entry a second.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Entries a second.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    const fn part(self, numerator: u64, denominator: u64) -> Self {
        Self(self.0.saturating_mul(numerator) / denominator)
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0)).min(RATE_MAX)
    }

    /// Billionths of an entry in this time.
    fn over(self, time: Duration) -> i64 {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(micros)
    }
}

impl Flow {
    /// An owner that has met no overload.
    #[must_use]
    pub fn new(config: FlowConfig, now: Time) -> Self {
        let window = config.interval * METER_INTERVALS;
        Self { config, written: Meter::new(window, now), held: 0, limit: None }
    }

    /// So many entries have been written. `held`: how many wait to be told now, each key once.
    pub fn wrote(&mut self, now: Time, entries: usize, held: usize) {
        self.written.add(now, entries as u64);
        self.held = held;
    }

    /// Whether what has waited longest may be told now.
    ///
    /// It may whatever its size: a batch cannot be split. What it costs is waited for afterwards.
    #[must_use]
    pub fn may_send(&self, now: Time) -> bool {
        self.next_at(now) <= now
    }

    /// When what has waited longest may be told, if nothing happens until then. Ask again after each
    /// meeting.
    #[must_use]
    pub fn next_at(&self, now: Time) -> Time {
        let Some(limit) = &self.limit else { return now };
        let missing = limit.credit(now, self.config.interval).min(0).unsigned_abs();
        // Billionths of an entry over thousandths a second are microseconds.
        let wait = Duration::from_micros(missing.div_ceil(limit.rate.0.max(1)));
        limit.free_at.min(now + wait)
    }

    /// So many entries have been told; `held`: how many still wait.
    pub fn sent(&mut self, now: Time, entries: usize, held: usize) {
        self.held = held;
        let Some(limit) = &mut self.limit else { return };
        limit.pay(now, self.config.interval);
        let cost = i64::try_from(entries).unwrap_or(i64::MAX).saturating_mul(BILLION);
        limit.credit = limit.credit.saturating_sub(cost);
        limit.free_at = now + HOLD_MAX;
    }

    /// A message that this node has sent, or wanted to, had no room for all that was to be told:
    /// an exchange whose delta was cut and that went no further, or a link whose queue is full.
    pub fn overflowed(&mut self, now: Time) {
        let desired = self.written.rate(now);
        let interval = self.config.interval;
        let old = match &mut self.limit {
            Some(limit) if now.since(limit.decreased) < interval => return,
            // An allowance that was not used up did not cause this.
            Some(limit) => limit.rate.min(desired),
            // Who tells next to nothing does not cause overloads.
            None if desired < RATE_MIN => return,
            None => desired,
        };
        let rate = old.part(DECREASE.0, DECREASE.1).max(RATE_MIN);
        let step = Rate(old.0.saturating_sub(rate.0) / RECOVERY_INTERVALS).max(STEP_MIN);
        let limit = self.limit.get_or_insert_with(|| Limit::new(rate, now));
        limit.pay(now, interval);
        (limit.rate, limit.step) = (rate, step);
        (limit.decreased, limit.changed) = (now, now);
    }

    /// A message of this node told all that was to be told.
    pub fn fitted(&mut self, now: Time) {
        let enough = self.enough(now);
        let interval = self.config.interval;
        let Some(limit) = &mut self.limit else { return };
        if now.since(limit.changed) < interval {
            return;
        }
        limit.pay(now, interval);
        limit.rate = limit.rate.plus(limit.step);
        limit.changed = now;
        let quiet = now.since(limit.decreased) >= interval * QUIET_INTERVALS;
        if limit.rate >= enough {
            limit.rate = enough;
            if quiet && self.held == 0 {
                self.limit = None;
            }
        }
    }

    /// What to say to whom this node meets.
    #[must_use]
    pub fn rates(&self, now: Time) -> Rates {
        Rates { desired: self.written.rate(now), allowed: self.limit.map(|limit| limit.rate) }
    }

    /// Shares with a node that this one has met: `ours` is what it was told, `theirs` what it said. Both
    /// sides compute the same, so what one gives the other gets.
    pub fn met(&mut self, now: Time, ours: Rates, theirs: Rates) {
        if ours.allowed.is_none() && theirs.allowed.is_none() {
            return;
        }
        let share = share(ours, theirs).max(RATE_MIN);
        let interval = self.config.interval;
        let enough = self.enough(now);
        match &mut self.limit {
            Some(limit) => {
                limit.pay(now, interval);
                limit.rate = share.min(enough.max(limit.rate));
            }
            // Only what takes from us is an overload that we are part of.
            None if share < ours.desired => self.limit = Some(Limit::new(share, now)),
            None => {}
        }
    }

    /// More than this no owner needs to be allowed.
    fn enough(&self, now: Time) -> Rate {
        self.written.rate(now).part(HEADROOM.0, HEADROOM.1).max(RATE_MIN)
    }
}

/// What the first of two is allowed after they have met: what both are allowed stays the same. If
/// that is enough for both, they share what is left over; if not, who wants less than half gets all
/// it wants, and if both want more, each gets half.
fn share(ours: Rates, theirs: Rates) -> Rate {
    // Who has met no overload has to spare what it uses, and no more.
    let allowed = |rates: Rates| rates.allowed.unwrap_or(rates.desired).min(RATE_MAX).0;
    let both = allowed(ours) + allowed(theirs);
    let (mine, other) = (ours.desired.min(RATE_MAX).0, theirs.desired.min(RATE_MAX).0);
    let half = both / 2;
    Rate(if mine + other <= both {
        mine + (both - mine - other) / 2
    } else if mine < half {
        mine
    } else if other < half {
        both - other
    } else {
        half
    })
}

impl Limit {
    fn new(rate: Rate, now: Time) -> Self {
        let step = Rate(rate.0 / RECOVERY_INTERVALS / 4).max(STEP_MIN);
        Self {
            rate,
            step,
            decreased: now,
            changed: now,
            credit: 0,
            at: now,
            free_at: now + HOLD_MAX,
        }
    }

    /// The credit now: of what was not used an interval's worth is kept, and one entry at least.
    fn credit(&self, now: Time, interval: Duration) -> i64 {
        let earned = self.rate.over(now.since(self.at));
        self.credit.saturating_add(earned).min(self.rate.over(interval).max(BILLION))
    }

    fn pay(&mut self, now: Time, interval: Duration) {
        self.credit = self.credit(now, interval);
        self.at = self.at.max(now);
    }
}

/// Counts in a window that slides: what was counted in the last whole one, as far as it still covers
/// it, and in the one under way.
#[derive(Clone, Copy, Debug)]
struct Meter {
    window: Duration,
    since: Time,
    before: u64,
    count: u64,
}

impl Meter {
    fn new(window: Duration, now: Time) -> Self {
        Self { window, since: now, before: 0, count: 0 }
    }

    fn add(&mut self, now: Time, count: u64) {
        *self = self.at(now);
        self.count = self.count.saturating_add(count);
    }

    fn rate(&self, now: Time) -> Rate {
        let this = self.at(now);
        let left = this.window.saturating_sub(now.since(this.since)).as_micros();
        let kept = u128::from(this.before) * left / this.window.as_micros().max(1);
        let kept = u64::try_from(kept).unwrap_or(u64::MAX);
        Rate::per(kept.saturating_add(this.count), this.window)
    }

    /// The same, in the window of `now`.
    fn at(&self, now: Time) -> Self {
        let passed = now.since(self.since);
        if passed < self.window {
            *self
        } else if passed < self.window * 2 {
            Self { since: self.since + self.window, before: self.count, count: 0, ..*self }
        } else {
            Self { since: now, before: 0, count: 0, ..*self }
        }
    }
}

/// Upon an overload an owner tells by a quarter less.
const DECREASE: (u64, u64) = (3, 4);
/// After so many intervals without overload it is allowed again what it was before. At the balance
/// one interval in eleven sees an overload: often enough to notice, seldom enough to hurt.
const RECOVERY_INTERVALS: u64 = 10;
/// After so many intervals without overload, and with nothing held, there is no limit any more.
const QUIET_INTERVALS: u32 = 10;
/// An owner is never allowed more than a quarter above what it wants.
const HEADROOM: (u64, u64) = (5, 4);
/// Least rate: one entry in ten seconds.
const RATE_MIN: Rate = Rate(100);
/// Most that is believed: a million entries a second.
const RATE_MAX: Rate = Rate(1_000_000_000);
/// Least step: a thousandth of an entry a second.
const STEP_MIN: Rate = Rate(1);
/// What an owner writes is measured over so many intervals.
const METER_INTERVALS: u32 = 4;
/// After this time something may be told again, whatever was told before: a large batch costs no more.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// One entry, in the unit of the credit.
const BILLION: i64 = 1_000_000_000;
