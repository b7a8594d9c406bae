//! Signs of life on one connection, and when it has been silent for too long.
//!
//! The end that dialed a connection sends a heartbeat in each round, when the detector says so, and the transport
//! acknowledges it. So each end hears the other once in a round, at the price of two packets and of no task that
//! wakes for an acknowledgement. What counts is that frames of any kind were received, since those are authentic.

use std::time::Duration;

use super::super::{route::Sign, time::Time};

/// A connection on which nothing has come for so many intervals although an answer was due. QUIC repeats less and
/// less often then, and after an outage of ten seconds may be silent for ten more.
const STALE_INTERVALS: u32 = 2;

/// What one connection has received, and when.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Frames received when the transport was last asked.
    received: u64,
    /// A heartbeat of this node may not have been acknowledged yet.
    expecting: bool,
    /// When the first of those was sent.
    unanswered: Option<Time>,
    /// When the last heartbeat came, and which of them the detector knows.
    beaten: Option<Time>,
    beaten_told: Option<Time>,
    /// How slow the peer finds itself.
    health: u8,
    /// When the detector was last told of frames of gossip.
    gossiped: Option<Time>,
}

impl Life {
    /// A heartbeat of the peer came.
    pub(super) const fn beaten(&mut self, at: Time) {
        self.beaten = Some(at);
    }

    /// Takes how slow the peer finds itself; says whether that has changed.
    pub(super) const fn takes_health(&mut self, health: u8) -> bool {
        std::mem::replace(&mut self.health, health) != health
    }

    /// A heartbeat of this node goes out: its acknowledgement is to be looked for.
    pub(super) fn expect(&mut self, now: Time, received: u64) {
        if std::mem::replace(&mut self.received, received) != received {
            self.unanswered = None;
        }
        self.expecting = true;
        self.unanswered.get_or_insert(now);
    }

    /// Whether heartbeats of this node have waited for an answer for so long that a new connection is likely to
    /// give one sooner. `received`: what has come since the last look counts as well.
    pub(super) fn is_stale(
        &self,
        now: Time,
        interval: Duration,
        received: impl FnOnce() -> u64,
    ) -> bool {
        let late = |since: Time| now.since(since) >= interval * STALE_INTERVALS;
        self.unanswered.is_some_and(late) && received() == self.received
    }

    /// What was received since the last call, and when. The transport is asked only if an acknowledgement is due
    /// or no heartbeat has come for an interval, or if `all` are asked: that costs more than all else here.
    pub(super) fn progress(
        &mut self,
        now: Time,
        interval: Duration,
        (all, dialed): (bool, bool),
        received: impl FnOnce() -> u64,
    ) -> Option<(Sign, Time)> {
        let mut progressed = false;
        let silent = now.since(self.beaten.unwrap_or(Time::ZERO)) >= interval;
        if all || self.expecting || (!dialed && silent) {
            let received = received();
            progressed = std::mem::replace(&mut self.received, received) != received;
            if progressed {
                self.expecting = false;
                self.unanswered = None;
            }
        }
        if self.beaten != self.beaten_told {
            self.beaten_told = self.beaten;
            return self.beaten.map(|at| (Sign::Heartbeat, at));
        }
        progressed.then_some((Sign::Traffic, now))
    }

    /// A frame of gossip came. Each is a sign of life; of a flood of them the detector is told now and then.
    pub(super) fn gossiped(&mut self, now: Time, interval: Duration) -> bool {
        let told =
            self.gossiped.is_none_or(|told| now.since(told) >= interval / LIVES_PER_INTERVAL);
        if told {
            self.gossiped = Some(now);
        }
        told
    }
}

/// How often in an interval the detector is told of a peer that sends all the time.
const LIVES_PER_INTERVAL: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        Time::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_connection_is_not_stale_while_anything_comes() {
        let mut life = Life::default();
        assert!(!life.is_stale(at(100_000), INTERVAL, || 0), "nothing was due");
        life.expect(at(0), 5);
        assert!(!life.is_stale(at(1_999), INTERVAL, || 5));
        assert!(life.is_stale(at(2_000), INTERVAL, || 5));
        assert!(!life.is_stale(at(2_000), INTERVAL, || 6), "something has come since");
        life.expect(at(2_000), 6);
        assert!(!life.is_stale(at(3_999), INTERVAL, || 6));
        assert!(life.is_stale(at(4_000), INTERVAL, || 6));
    }

    #[test]
    fn the_transport_is_asked_only_when_something_is_due() {
        let mut life = Life::default();
        let asked = |life: &mut Life, now, all| {
            let mut asked = false;
            life.progress(now, INTERVAL, (all, true), || {
                asked = true;
                0
            });
            asked
        };
        assert!(!asked(&mut life, at(5_000), false));
        assert!(asked(&mut life, at(5_000), true));
        life.expect(at(5_000), 0);
        assert!(asked(&mut life, at(5_100), false));
    }

    #[test]
    fn a_heartbeat_counts_once_and_other_frames_as_traffic() {
        let mut life = Life::default();
        life.beaten(at(100));
        let look = |life: &mut Life, now, received| {
            life.progress(now, INTERVAL, (true, false), || received)
        };
        assert_eq!(look(&mut life, at(150), 1), Some((Sign::Heartbeat, at(100))));
        assert_eq!(look(&mut life, at(250), 1), None);
        assert_eq!(look(&mut life, at(350), 2), Some((Sign::Traffic, at(350))));
    }

    #[test]
    fn the_detector_is_told_of_a_flood_now_and_then() {
        let mut life = Life::default();
        let told = (0..1_000).filter(|n| life.gossiped(at(*n), INTERVAL)).count();
        assert_eq!(told, 8);
    }
}
