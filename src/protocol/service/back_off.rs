//! Pauses between dials: how long a node is not dialed after its last dials have failed.

use std::{collections::BTreeMap, time::Duration};

use crate::protocol::{id::NodeId, time::Time};

/// The shortest and the longest pause after a failed dial.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Most nodes whose failures are remembered. Beyond that the failure whose pause ends first is forgotten.
pub const REMEMBERED_MAX: usize = 1_024;

/// The nodes whose last dials have failed.
#[derive(Debug, Default)]
pub struct BackOff {
    failures: BTreeMap<NodeId, Failure>,
}

/// The last dials of a node have failed.
#[derive(Debug)]
struct Failure {
    times: u32,
    until: Time,
    why: String,
}

impl BackOff {
    /// Why the node must not be dialed yet; `None` if it may be dialed.
    #[must_use]
    pub fn refuses(&self, now: Time, peer: &NodeId) -> Option<&str> {
        let failure = self.failures.get(peer).filter(|failure| now < failure.until)?;
        Some(&failure.why)
    }

    /// A dial has failed. Each further one doubles the pause.
    pub fn failed(&mut self, now: Time, peer: &NodeId, why: &str) {
        let times = self.failures.get(peer).map_or(0, |failure| failure.times) + 1;
        let pause = PAUSE.0.saturating_mul(1 << times.min(10).saturating_sub(1)).min(PAUSE.1);
        if self.failures.len() >= REMEMBERED_MAX && !self.failures.contains_key(peer) {
            self.make_room(now);
        }
        let failure = Failure { times, until: now + pause, why: why.to_owned() };
        self.failures.insert(peer.clone(), failure);
    }

    /// Forgets the nodes that may be dialed again, or if there are none, the one whose pause ends first.
    fn make_room(&mut self, now: Time) {
        self.failures.retain(|_, failure| now < failure.until);
        if self.failures.len() >= REMEMBERED_MAX {
            let next = self.failures.iter().min_by_key(|(_, failure)| failure.until);
            let next = next.map(|(peer, _)| peer.clone());
            next.inspect(|peer| self.forget(peer));
        }
    }

    /// The node was reached, or membership has heard it: it may be dialed at once.
    pub fn forget(&mut self, peer: &NodeId) {
        self.failures.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_failures_are_remembered_than_allowed() {
        let mut back_off = BackOff::default();
        let node = |n: usize| NodeId::new(&format!("n{n}")).unwrap();
        let at = |n: usize| Time::ZERO + Duration::from_micros(n as u64);
        for n in 0..2 * REMEMBERED_MAX {
            back_off.failed(at(n), &node(n), "no answer");
            assert!(back_off.failures.len() <= REMEMBERED_MAX);
        }
        let last = 2 * REMEMBERED_MAX - 1;
        assert!(back_off.refuses(at(last), &node(last)).is_some());
        assert!(back_off.refuses(at(last), &node(0)).is_none());
        back_off.failed(at(last) + PAUSE.1, &node(0), "no answer");
        assert_eq!(back_off.failures.len(), 1, "the pauses of the others are over");
    }

    #[test]
    fn the_pause_doubles_to_its_limit_and_ends_with_a_sign_of_life() {
        let (mut back_off, peer) = (BackOff::default(), NodeId::new("a").unwrap());
        let mut now = Time::ZERO;
        for millis in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            assert_eq!(back_off.refuses(now, &peer), None);
            back_off.failed(now, &peer, "no answer");
            let end = now + Duration::from_millis(millis);
            now = end;
            assert_eq!(back_off.refuses(now, &peer), None);
        }
        back_off.failed(now, &peer, "no answer");
        assert_eq!(back_off.refuses(now + Duration::from_millis(4_999), &peer), Some("no answer"));
        back_off.forget(&peer);
        assert_eq!(back_off.refuses(now, &peer), None);
    }
}
