//! How long a node is left alone whose last dials have failed.

use std::{collections::BTreeMap, time::Duration};

use crate::protocol::{id::NodeId, time::Time};

/// The shortest and the longest pause after a failed dial.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
        let failure = Failure { times, until: now + pause, why: why.to_owned() };
        self.failures.insert(peer.clone(), failure);
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
