//! The measurements of the path to a peer: the round trip, and the loss.

use std::time::Duration;

use crate::protocol::{
    phi::{LOSS_MAX, LOSS_MIN},
    time::Time,
};

/// The path to a peer, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    rtt: Option<Duration>,
    /// The probe that measures it, and when it was sent.
    measuring: Option<(u64, Time)>,
    /// The path has become longer than it was known to be, as an answer came late: it is measured until the
    /// round trip is known.
    longer: bool,
    /// The share of lost packets, as the connection has measured it.
    loss: f64,
    /// The share of missed heartbeats.
    misses: f64,
}

impl Path {
    /// Nothing is known of it.
    pub(super) const fn new() -> Self {
        Self { rtt: None, measuring: None, longer: false, loss: LOSS_MIN, misses: 0.0 }
    }

    pub(super) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    pub(super) const fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// The missed heartbeat had arrived, after all.
    pub(super) fn missed(&mut self) {
        self.misses += (1.0 - self.misses) * LOSS_GAIN;
    }

    /// Nothing was missed in an interval.
    pub(super) fn kept(&mut self) {
        self.misses -= self.misses * LOSS_GAIN;
    }

    /// The part that is lost one way.
    pub(super) fn loss(&self) -> f64 {
        // A miss, though QUIC sends again, is a loss on either of the two ways: this is the share of one way.
        self.loss.max(1.0 - (1.0 - self.misses).sqrt()).clamp(LOSS_MIN, LOSS_MAX)
    }

    /// The probe that measures it, and when it was sent.
    pub(super) const fn measuring(&self) -> Option<&(u64, Time)> {
        self.measuring.as_ref()
    }

    /// This probe measures it.
    pub(super) const fn begin(&mut self, number: u64, now: Time) {
        self.measuring = Some((number, now));
    }

    /// The probe says nothing any more.
    pub(super) const fn break_off(&mut self) {
        self.measuring = None;
    }

    /// A probe came back. `late`: it had been given up already.
    pub(super) fn measure(&mut self, rtt: Duration, late: bool) {
        self.longer |= late;
        self.measuring = None;
        let known = self.rtt.unwrap_or(rtt);
        self.longer &= rtt > known + known / 2;
        // Delays add up, but a packet is never early: a shorter one is accepted at once.
        self.rtt = Some(if rtt > known { known + (rtt - known) / 4 } else { rtt });
    }

    /// Whether a probe is to measure it now. `with_beat`: no other packet is sent at another time than now;
    /// `often`: it is time to.
    pub(super) fn is_to_be_measured(
        &self,
        now: Time,
        interval: Duration,
        with_beat: bool,
        often: bool,
    ) -> bool {
        let waits = |(_, at): (u64, Time)| now.since(at) < interval;
        if self.measuring.is_some_and(waits) {
            return false;
        }
        self.longer || (with_beat && (self.rtt.is_none() || often))
    }
}

/// The weight of one heartbeat in the share of missed ones.
const LOSS_GAIN: f64 = 1.0 / 32.0;
