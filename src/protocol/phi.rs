//! The accrual scale: how improbable it is that a live peer has been silent for so long.
//!
//! phi = -log10 P(a live peer stays silent that long), as in Hayashibara, Défago, Yared and
//! Katayama, "The phi accrual failure detector" (SRDS 2004), and in the original package: at phi 8
//! one in 10^8 such silences comes from a live peer.
//!
//! The original derives P from one exponential fitted to the intervals, which at phi 8 waits for 18.4
//! intervals. Here every overdue heartbeat is evidence of its own: it was lost (with the probability measured
//! on the path) or it is merely late (the tail of a normal distribution fitted to the intervals), so phi 8 is
//! reached after four missed heartbeats. Unanswered probes are evidence as well: either they or their echoes
//! were lost.

use std::{collections::VecDeque, time::Duration};

use super::time::Time;

/// Intervals kept, as in the original.
pub const INTERVALS_MAX: usize = 100;
/// The least and the largest share of packets that is assumed to be lost on the way: below the least it was
/// not measured long enough, beyond the largest the path does not work.
pub const LOSS_MIN: f64 = 0.01;
/// See [`LOSS_MIN`].
pub const LOSS_MAX: f64 = 0.3;

/// The heartbeats of one peer, and the improbability of its silence.
#[derive(Clone, Debug)]
pub struct PhiWindow {
    expected: f64,
    intervals: VecDeque<f64>,
    sum: f64,
    sum_of_squares: f64,
    last_heartbeat: Option<Time>,
    last_heard: Time,
}

/// The inputs to compute phi at any later time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhiEstimate {
    /// When the peer was last heard.
    pub last_heard: Time,
    /// Mean of the intervals, in seconds.
    pub mean: f64,
    /// Their standard deviation, in seconds.
    pub deviation: f64,
    /// The share of packets that is lost on the way.
    pub loss: f64,
    /// Probes sent since then that were not answered in time.
    pub lapsed: u32,
}

impl PhiWindow {
    /// A peer of which nothing has been heard since `now` and that is expected to send a heartbeat every
    /// `interval`.
    #[must_use]
    pub fn new(now: Time, interval: Duration) -> Self {
        let expected = interval.as_secs_f64().max(INTERVAL_MIN);
        Self {
            expected,
            intervals: VecDeque::from([expected]),
            sum: expected,
            sum_of_squares: expected * expected,
            last_heartbeat: None,
            last_heard: now,
        }
    }

    /// A heartbeat arrived.
    pub fn heartbeat(&mut self, at: Time) {
        if let Some(last) = self.last_heartbeat {
            // A gap is a few lost heartbeats or an outage, and no interval to learn from.
            let interval = at.since(last).as_secs_f64();
            self.push(interval.clamp(INTERVAL_MIN, self.expected * INTERVAL_FACTOR_MAX));
        }
        self.last_heartbeat = Some(at);
        self.heard(at);
    }

    /// A packet arrived that only the peer can have sent.
    pub fn heard(&mut self, at: Time) {
        self.last_heard = self.last_heard.max(at);
    }

    /// Excludes time from the silence: this process itself stood still and could not hear. The next heartbeat
    /// ends no interval.
    pub fn excuse(&mut self, stalled: Duration, now: Time) {
        self.last_heard = (self.last_heard + stalled).min(now);
        self.pause();
    }

    /// Forgets when the last heartbeat came: the next one ends no interval.
    pub const fn pause(&mut self) {
        self.last_heartbeat = None;
    }

    /// The inputs to compute phi.
    #[must_use]
    pub fn estimate(&self) -> PhiEstimate {
        let count = self.intervals.len() as f64;
        let mean = self.sum / count;
        let variance = (self.sum_of_squares / count - mean * mean).max(0.0);
        let deviation = variance.sqrt().max(mean * DEVIATION_MIN);
        let (loss, lapsed) = (LOSS_MIN, 0);
        PhiEstimate { last_heard: self.last_heard, mean, deviation, loss, lapsed }
    }

    /// When the last heartbeat came, if the next one ends an interval.
    #[must_use]
    pub const fn last_heartbeat(&self) -> Option<Time> {
        self.last_heartbeat
    }

    /// How long nothing has been heard.
    #[must_use]
    pub fn silence(&self, now: Time) -> Duration {
        now.since(self.last_heard)
    }

    /// The level of suspicion at `now`.
    #[must_use]
    pub fn phi(&self, now: Time) -> f64 {
        self.estimate().phi(now)
    }

    fn push(&mut self, interval: f64) {
        if self.intervals.len() == INTERVALS_MAX
            && let Some(old) = self.intervals.pop_front()
        {
            self.sum -= old;
            self.sum_of_squares -= old * old;
        }
        self.intervals.push_back(interval);
        self.sum += interval;
        self.sum_of_squares += interval * interval;
    }
}

impl PhiEstimate {
    /// The level of suspicion at `now`; 0 just after a sign of life, never above [`PHI_MAX`].
    #[must_use]
    pub fn phi(&self, now: Time) -> f64 {
        let silence = now.since(self.last_heard).as_secs_f64();
        let due = (silence / self.mean).ceil();
        if due * -self.loss.log10() > 2.0 * PHI_MAX {
            return PHI_MAX;
        }
        let late = |nth: u32| (silence - f64::from(nth) * self.mean) / self.deviation;
        let missed = (1..=due as u32 + 1).map(|nth| {
            let not_yet = self.loss + (1.0 - self.loss) * tail(late(nth));
            -not_yet.log10()
        });
        // A probe or its echo was lost.
        let unanswered = -(1.0 - (1.0 - self.loss).powi(2)).log10() * f64::from(self.lapsed);
        // Adding zero turns the negative zero of an empty or even sum into zero.
        (missed.sum::<f64>() + unanswered).clamp(0.0, PHI_MAX) + 0.0
    }
}

/// Phi stops at this value: it means "certainly" long before, and has to stay a number.
pub const PHI_MAX: f64 = 100.0;

/// The probability that a standard normal variable exceeds `y`, to 1.4 * 10^-4: Bowling, Khasawneh,
/// Kaewkuekool and Cho, "A logistic approximation to the cumulative normal distribution" (2009).
fn tail(y: f64) -> f64 {
    let y = y.clamp(-TAIL_RANGE, TAIL_RANGE);
    1.0 / (1.0 + (y * (1.5976 + 0.070_566 * y * y)).exp())
}

/// Beyond eight deviations the tail is below 10^-15, far under the assumed loss.
const TAIL_RANGE: f64 = 8.0;
/// The least deviation, as a part of the mean: timers are not more exact than this on a busy machine.
const DEVIATION_MIN: f64 = 0.1;
/// The longest interval taken as a sample, as a multiple of the expected one.
const INTERVAL_FACTOR_MAX: f64 = 4.0;
/// The shortest interval, in seconds.
const INTERVAL_MIN: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(1);

    fn at(seconds: f64) -> Time {
        Time::from_origin(Duration::from_secs_f64(seconds))
    }

    fn steady(beats: u32) -> PhiWindow {
        let mut window = PhiWindow::new(at(0.0), T);
        (0..=beats).for_each(|n| window.heartbeat(at(f64::from(n))));
        window
    }

    #[test]
    fn is_near_zero_while_heartbeats_come() {
        let window = steady(20);
        assert!(window.phi(at(20.0)) < 0.1);
        assert!(window.phi(at(20.9)) < 0.2);
    }

    #[test]
    fn never_falls_while_the_silence_lasts() {
        let window = steady(20);
        let phis: Vec<f64> = (0..400).map(|n| window.phi(at(20.0 + f64::from(n) * 0.1))).collect();
        assert!(phis.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9), "{phis:?}");
    }

    #[test]
    fn reaches_eight_after_four_missed_heartbeats() {
        let window = steady(20);
        assert!(window.phi(at(23.5)) < 8.0, "three missed");
        assert!(window.phi(at(24.5)) > 7.9, "four missed");
    }

    // C70
    #[test]
    fn the_prior_holds_until_samples_take_over() {
        let fresh = PhiWindow::new(at(0.0), T);
        assert!(fresh.phi(at(1.0)) < 1.0);
        let mut slow = PhiWindow::new(at(0.0), T);
        (0..50).for_each(|n| slow.heartbeat(at(f64::from(n) * 2.0)));
        assert!(slow.estimate().mean > 1.9, "{:?}", slow.estimate());
    }

    #[test]
    fn an_outage_is_not_an_interval_to_get_used_to() {
        let mut window = steady(20);
        window.heartbeat(at(1_000.0));
        assert!(window.estimate().mean < 1.5, "{:?}", window.estimate());
    }

    #[test]
    fn a_silence_of_a_year_is_still_a_number() {
        assert_eq!(steady(5).phi(at(3e7)), PHI_MAX);
    }
}
