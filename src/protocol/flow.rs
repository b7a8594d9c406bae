//! Limits the rate at which an owner sends its own writes: so that all owners together send no more than
//! gossip can carry, and each sends its fair share.
//!
//! The flow control of van Renesse, Dumitriu, Gough and Thomas (LADIS 2008, the section of that name). Writes
//! that do not fit a message are a sign of overload; then an owner halves its rate, and raises it a little
//! while messages have room (additive increase, multiplicative decrease, as in TCP). Two nodes that meet
//! share their allowances (rho, the rate that each wants, and tau, the rate that it is allowed). The writes
//! themselves are never slowed and never refused: they wait to be sent, and values that are overwritten
//! meanwhile never travel.
//!
//! It differs from the paper in three points. An owner has no limit until it has met an overload, and loses
//! the limit once it has had room for a while: an owner that writes a key now and then is never delayed. The
//! allowance of an owner is never more than a little above the rate that it wants: an allowance that is not
//! used proves nothing (RFC 7661, section 3, says the same of TCP's window). And a node changes its allowance
//! at most once an interval, however many messages it exchanges in that time.
//!
//! This machine knows neither maps nor queues. Its caller reports writes, sends, cut messages and meetings,
//! and asks when it may send next.

use std::time::Duration;

use super::time::Time;

/// The settings of a node's flow control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// How often the allowance may change, once up and once down: the gossip interval. A shorter interval
    /// reacts sooner, also to overloads that would have passed by themselves.
    pub interval: Duration,
}

/// Entries a second, in thousandths: fractions matter when a hundred owners share two hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// The rates that an owner reports to a node that it meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The rate of its writes, and of those that wait (the paper's rho).
    pub desired: Rate,
    /// The rate that it is allowed to send (the paper's tau); `None`: it has met no overload.
    pub allowed: Option<Rate>,
}

/// The flow control of one owner.
#[derive(Clone, Debug)]
pub struct Flow {
    config: FlowConfig,
    written: Meter,
    /// Entries that wait to be sent.
    held: usize,
    limit: Option<Limit>,
}

/// The allowance of an owner after it has met an overload.
#[derive(Clone, Copy, Debug)]
struct Limit {
    rate: Rate,
    /// The increase for an interval without overload.
    step: Rate,
    /// When the limit began.
    begun: Time,
    /// When this node last decreased the rate.
    decreased: Option<Time>,
    /// When it was last changed because of this node's own observations.
    changed: Time,
    /// Billionths of an entry that may be sent, or, below zero, that were sent in advance.
    credit: i64,
    /// When the credit was that.
    at: Time,
    /// When an entry may be sent whatever the credit.
    free_at: Time,
}

impl Rate {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The rate of this many entries in this much time; saturates.
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

    /// This many entries have been written. `held`: how many wait to be sent now, each key once.
    pub fn wrote(&mut self, now: Time, entries: usize, held: usize) {
        self.written.add(now, entries as u64);
        self.held = held;
    }

    /// Whether there is a limit at all. While there is one, ask [`Self::may_send`] once an interval, just
    /// before an exchange: entries sent between two exchanges would not reach any node sooner.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether the entries that have waited longest may be sent now.
    ///
    /// They may whatever their size: a batch cannot be split. Its cost is waited for afterwards.
    #[must_use]
    pub fn may_send(&self, now: Time) -> bool {
        self.next_at(now) <= now
    }

    /// When the entries that have waited longest may be sent, if nothing happens until then. Ask again after
    /// each meeting.
    #[must_use]
    pub fn next_at(&self, now: Time) -> Time {
        let Some(limit) = &self.limit else { return now };
        let missing = limit.credit(now, self.config.interval).min(0).unsigned_abs();
        // Billionths of an entry over thousandths a second are microseconds.
        let wait = Duration::from_micros(missing.div_ceil(limit.rate.0.max(1)));
        limit.free_at.min(now + wait)
    }

    /// This many entries have been sent; `held`: how many still wait.
    pub fn sent(&mut self, now: Time, entries: usize, held: usize) {
        self.held = held;
        let Some(limit) = &mut self.limit else { return };
        limit.pay(now, self.config.interval);
        let cost = i64::try_from(entries).unwrap_or(i64::MAX).saturating_mul(BILLION);
        limit.credit = limit.credit.saturating_sub(cost);
        limit.free_at = now + HOLD_MAX;
    }

    /// A message that this node has sent, or wanted to send, had no room for all waiting entries: an exchange
    /// whose delta was cut and that went no further, or a link whose queue is full.
    pub fn overflowed(&mut self, now: Time) {
        let desired = self.desired(now);
        let interval = self.config.interval;
        // An owner that sends almost nothing does not cause overloads.
        if self.limit.is_none() && desired < RATE_MIN {
            return;
        }
        let limit = self.limit.get_or_insert_with(|| Limit::new(desired, now));
        if limit.decreased.is_some_and(|at| now.since(at) < interval) {
            return;
        }
        limit.pay(now, interval);
        // An allowance that was not used up did not cause this.
        let old = limit.rate.min(desired);
        // One overload may take several decreases: the recovery from them must not be slower for it.
        if limit.decreased != Some(limit.changed) {
            limit.step = Limit::step(old);
        }
        limit.rate = old.part(DECREASE.0, DECREASE.1).max(RATE_MIN);
        (limit.decreased, limit.changed) = (Some(now), now);
    }

    /// A message of this node had room for all waiting entries.
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
        let begin = limit.decreased.unwrap_or(limit.begun);
        let quiet = now.since(begin) >= interval * QUIET_INTERVALS;
        if limit.rate >= enough {
            limit.rate = enough;
            if quiet && self.held == 0 {
                self.limit = None;
            }
        }
    }

    /// The rates to report to a node that this node meets.
    #[must_use]
    pub fn rates(&self, now: Time) -> Rates {
        Rates { desired: self.desired(now), allowed: self.limit.map(|limit| limit.rate) }
    }

    /// Shares with a node that this one has met: `ours` are the rates that it was sent, `theirs` those that
    /// it reported. Both sides compute the same, so one side gets what the other one gives.
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
            // Only a decrease of ours is an overload that we are part of.
            None if share < ours.desired => self.limit = Some(Limit::new(share, now)),
            None => {}
        }
    }

    /// The rate that it wants: its writes, and soon the waiting entries.
    fn desired(&self, now: Time) -> Rate {
        let waits = Rate::per(self.held as u64, self.config.interval * DRAIN_INTERVALS);
        self.written.rate(now).plus(waits)
    }

    /// No owner needs a larger allowance than this.
    fn enough(&self, now: Time) -> Rate {
        self.desired(now).part(HEADROOM.0, HEADROOM.1).max(RATE_MIN)
    }
}

/// The allowance of the first of two after they have met: the sum of both stays the same. If it is enough for
/// both, they share the rest; if not, an owner that wants less than half gets all it wants, and if both want
/// more, each gets half.
fn share(ours: Rates, theirs: Rates) -> Rate {
    // An owner that has met no overload can spare the rate that it uses, and no more.
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
        Self {
            rate,
            step: Self::step(rate),
            begun: now,
            decreased: None,
            changed: now,
            credit: 0,
            at: now,
            free_at: now + HOLD_MAX,
        }
    }

    /// The increase that makes up for a decrease of this rate in [`RECOVERY_INTERVALS`].
    fn step(rate: Rate) -> Rate {
        let lost = rate.part(DECREASE.1 - DECREASE.0, DECREASE.1);
        Rate(lost.0 / RECOVERY_INTERVALS).max(STEP_MIN)
    }

    /// The present credit: unused credit is kept for one interval, and for one entry at least.
    fn credit(&self, now: Time, interval: Duration) -> i64 {
        let earned = self.rate.over(now.since(self.at));
        self.credit.saturating_add(earned).min(self.rate.over(interval).max(BILLION))
    }

    fn pay(&mut self, now: Time, interval: Duration) {
        self.credit = self.credit(now, interval);
        self.at = self.at.max(now);
    }
}

/// Counts in a sliding window: the count of the last whole one, as far as it still covers it, and that of the
/// current one.
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

/// After an overload an owner halves its rate.
const DECREASE: (u64, u64) = (1, 2);
/// After this many intervals without overload it has its former allowance again. At the balance a node meets
/// an overload in one interval of 21: with 10 instead, the paper's network under twice its load sends 85 % of
/// its budget instead of 74, and the stalest entry is half a second staler.
const RECOVERY_INTERVALS: u64 = 20;
/// After this many intervals without overload, and without waiting entries, the limit is lifted.
const QUIET_INTERVALS: u32 = 10;
/// The allowance of an owner is never more than a quarter above the rate that it wants.
const HEADROOM: (u64, u64) = (5, 4);
/// Least rate: one entry in ten seconds.
const RATE_MIN: Rate = Rate(100);
/// The highest rate that is accepted: a million entries a second.
const RATE_MAX: Rate = Rate(1_000_000_000);
/// Least step: a thousandth of an entry a second.
const STEP_MIN: Rate = Rate(1);
/// An owner wants to send its waiting entries within this many intervals.
const DRAIN_INTERVALS: u32 = 10;
/// The rate of an owner's writes is measured over this many intervals.
const METER_INTERVALS: u32 = 4;
/// After this time an entry may be sent again, whatever was sent before: a large batch costs no more.
pub const HOLD_MAX: Duration = Duration::from_secs(30);
/// One entry, in the unit of the credit.
const BILLION: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: f64) -> Time {
        Time::from_origin(Duration::from_secs_f64(seconds))
    }

    fn rate(entries: f64) -> Rate {
        Rate((entries * 1_000.0) as u64)
    }

    fn rates(desired: f64, allowed: impl Into<Option<f64>>) -> Rates {
        Rates { desired: rate(desired), allowed: allowed.into().map(rate) }
    }

    /// An owner that has written this much a second, for ten seconds.
    fn writer(per_second: usize) -> Flow {
        let mut flow = Flow::new(FlowConfig { interval: SECOND }, Time::ZERO);
        (0..40).for_each(|n| flow.wrote(at(f64::from(n) / 4.0), per_second / 4, 0));
        flow
    }

    fn allowed(flow: &Flow, now: f64) -> f64 {
        flow.rates(at(now)).allowed.expect("a limit").as_f64()
    }

    #[test]
    fn never_holds_who_writes_now_and_then() {
        let mut flow = Flow::new(FlowConfig { interval: SECOND }, Time::ZERO);
        for second in 0..100 {
            let now = at(f64::from(second));
            assert!(flow.may_send(now));
            flow.overflowed(now);
        }
        assert!(!flow.is_limited());
        flow.wrote(at(100.0), 1, 1);
        assert!(flow.may_send(at(100.0)));
    }

    #[test]
    fn a_hostile_peer_neither_stops_an_owner_nor_breaks_it() {
        let most = Rate(u64::MAX);
        for theirs in [
            Rates { desired: most, allowed: Some(Rate::ZERO) },
            Rates { desired: most, allowed: Some(most) },
            Rates { desired: Rate::ZERO, allowed: Some(most) },
            Rates { desired: most, allowed: None },
        ] {
            let mut flow = writer(100);
            for _ in 0..100 {
                let ours = flow.rates(at(10.0));
                flow.met(at(10.0), ours, theirs);
            }
            if let Some(allowed) = flow.rates(at(10.0)).allowed {
                assert!(RATE_MIN <= allowed && allowed <= rate(125.0), "{theirs:?}: {allowed:?}");
            }
            flow.sent(at(10.0), usize::MAX, 0);
            assert!(flow.next_at(at(10.0)) <= at(10.0) + HOLD_MAX);
            assert!(flow.may_send(at(10.0) + HOLD_MAX));
        }
    }

    #[test]
    fn an_overload_halves_what_is_told_once_an_interval() {
        let mut flow = writer(100);
        (0..10).for_each(|_| flow.overflowed(at(10.0)));
        assert_eq!(allowed(&flow, 10.0), 50.0);
        flow.overflowed(at(10.9));
        assert_eq!(allowed(&flow, 10.9), 50.0);
        flow.overflowed(at(11.0));
        assert_eq!(allowed(&flow, 11.0), 25.0);
    }

    #[test]
    fn tells_as_much_as_is_allowed() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        let mut told = 0;
        for step in 0..10_000 {
            let now = at(10.0 + f64::from(step) / 1_000.0);
            while flow.may_send(now) {
                flow.sent(now, 1, 1);
                told += 1;
            }
        }
        // Fifty a second for ten seconds, and the one that goes at once.
        assert!((500..=501).contains(&told), "{told}");
    }

    #[test]
    fn says_when_more_may_be_told() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        flow.sent(at(10.0), 25, 75);
        assert_eq!(flow.next_at(at(10.0)), at(10.5));
        assert!(!flow.may_send(at(10.49)) && flow.may_send(at(10.5)));
    }

    #[test]
    fn a_batch_is_told_whole_and_waited_for() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        assert!(flow.may_send(at(10.0)));
        flow.sent(at(10.0), 100_000, 0);
        assert!(!flow.may_send(at(39.9)), "before HOLD_MAX has passed");
        assert!(flow.may_send(at(40.0)));
    }

    #[test]
    fn what_was_not_told_is_saved_for_one_interval_only() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        let now = at(100.0);
        let told = (0..).take_while(|_| {
            let may = flow.may_send(now);
            flow.sent(now, 1, 1);
            may
        });
        assert_eq!(told.count(), 51);
    }

    #[test]
    fn wins_back_after_recovery_what_the_first_of_several_decreases_took() {
        for overloads in [1, 4] {
            let mut flow = writer(100);
            let mut now = 10.0;
            for _ in 0..overloads {
                flow.overflowed(at(now));
                flow.wrote(at(now), 100, 10);
                now += 1.0;
            }
            let least = allowed(&flow, now);
            for _ in 0..RECOVERY_INTERVALS {
                flow.wrote(at(now), 100, 10);
                flow.fitted(at(now));
                now += 1.0;
            }
            assert_eq!(allowed(&flow, now) - least, 50.0, "{overloads}");
        }
    }

    #[test]
    fn is_free_again_after_quiet_once_nothing_waits() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        for second in 11..60 {
            let now = at(f64::from(second));
            flow.wrote(now, 40, 1);
            flow.fitted(now);
            assert!(flow.is_limited(), "something waits");
        }
        flow.sent(at(60.0), 1, 0);
        flow.fitted(at(60.0));
        assert!(!flow.is_limited());
    }

    #[test]
    fn an_allowance_that_is_not_used_is_lost() {
        let mut flow = writer(100);
        flow.overflowed(at(10.0));
        // It writes no more.
        flow.fitted(at(30.0));
        flow.wrote(at(30.0), 1, 1);
        flow.overflowed(at(30.0));
        assert!(!flow.is_limited() || allowed(&flow, 30.0) <= 1.0);
    }

    #[test]
    fn two_that_meet_share_what_both_are_allowed() {
        for (ours, theirs, mine) in [
            // Enough for both: the rest is shared.
            (rates(10.0, 30.0), rates(20.0, 20.0), 20.0),
            // Not enough, and both want more than half: each gets half.
            (rates(90.0, 10.0), rates(60.0, 50.0), 30.0),
            // An owner that wants less than half gets it, and the other the rest.
            (rates(5.0, 20.0), rates(90.0, 20.0), 5.0),
            (rates(90.0, 20.0), rates(5.0, 20.0), 35.0),
            // An owner without a limit can spare the rate that it uses.
            (rates(90.0, 10.0), rates(60.0, None), 35.0),
        ] {
            assert_eq!(share(ours, theirs), rate(mine), "{ours:?} {theirs:?}");
            let both =
                ours.allowed.unwrap_or(ours.desired).0 + theirs.allowed.unwrap_or(theirs.desired).0;
            assert_eq!(share(ours, theirs).0 + share(theirs, ours).0, both);
        }
    }

    #[test]
    fn who_has_met_no_overload_hears_of_it_from_those_who_have() {
        let (mut busy, mut idle) = (writer(100), writer(4));
        let limited = rates(100.0, 10.0);
        let ours = busy.rates(at(10.0));
        busy.met(at(10.0), ours, limited);
        assert_eq!(allowed(&busy, 10.0), 55.0);
        let ours = idle.rates(at(10.0));
        idle.met(at(10.0), ours, limited);
        assert!(!idle.is_limited(), "it wants less than its half");
    }

    #[test]
    fn a_hundred_owners_come_to_tell_the_same() {
        let mut owners: Vec<_> = (0..100).map(|_| writer(100)).collect();
        for (at_start, owner) in owners.iter_mut().enumerate() {
            (0..at_start % 5).for_each(|n| owner.overflowed(at(10.0 + n as f64)));
        }
        for round in 0..30 {
            for a in 0..100 {
                let b = (a * 7 + round * 13 + 1) % 100;
                if a != b {
                    let now = at(15.0);
                    let (ours, theirs) = (owners[a].rates(now), owners[b].rates(now));
                    owners[a].met(now, ours, theirs);
                    owners[b].met(now, theirs, ours);
                }
            }
        }
        let rates = owners.iter().filter_map(|owner| owner.rates(at(15.0)).allowed);
        let (least, most) = rates.fold((u64::MAX, 0), |(a, b), r| (a.min(r.0), b.max(r.0)));
        assert!(most - least < most / 10, "{least} to {most}");
    }
}
