//! How often each peer may do what costs this node: by its proven name, over all of its connections, and also
//! after one of them has ended. Another connection gives nobody another share.

use std::collections::BTreeMap;

use super::{bucket::Bucket, id::NodeId, time::Time};

/// Heartbeats of a peer that are taken, twice what it sends while it probes this node: the queue of the detector
/// has no bound of its own.
pub const HEARTBEATS_PER_SECOND: u32 = 500;
/// Roots of a peer that are passed on, far more than there are rounds: the queue of the scheduler has no bound of
/// its own.
pub const ROOTS_PER_SECOND: u32 = 200;
/// Grafts of a peer that are answered. An honest peer sends them for news that did not arrive by itself; what is
/// dropped comes with the next exchange.
pub const GRAFTS_PER_SECOND: u32 = 100;
/// Duplicates beyond this rate are decoded and handed on to storage, like any other news.
const DUPLICATES_PER_SECOND: u32 = 64;
/// The records are searched for those that are whole again whenever there are twice as many as were left the last
/// time, and more than this.
const RECORDS_MIN: usize = 64;

/// A kind of traffic that has a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A heartbeat, a probe or an echo.
    Heartbeat,
    /// The root of what a peer knows.
    Root,
    /// A request for news.
    Graft,
    /// News that this node has already: the transport drops it undecoded, and tells storage how far the peer reaches.
    Duplicate,
    /// An exchange that a peer begins; so many are allowed in a second.
    Exchange(u32),
}

impl Traffic {
    const KINDS: usize = 5;

    const fn place(self) -> usize {
        match self {
            Self::Heartbeat => 0,
            Self::Root => 1,
            Self::Graft => 2,
            Self::Duplicate => 3,
            Self::Exchange(_) => 4,
        }
    }

    const fn rate(self) -> u32 {
        match self {
            Self::Heartbeat => HEARTBEATS_PER_SECOND,
            Self::Root => ROOTS_PER_SECOND,
            Self::Graft => GRAFTS_PER_SECOND,
            Self::Duplicate => DUPLICATES_PER_SECOND,
            Self::Exchange(rate) => rate,
        }
    }
}

/// What each peer has used lately.
#[derive(Debug, Default)]
pub(super) struct Rates {
    peers: BTreeMap<NodeId, Used>,
    /// How many records there may be until those that are whole again are dropped.
    most: usize,
}

/// By [`Traffic::place`], with the rate of each; a kind that the peer has never used is not there.
#[derive(Debug, Default)]
struct Used([Option<(Bucket, f64)>; Traffic::KINDS]);

impl Rates {
    /// Counts one more of these; says whether it is within the rate.
    pub(super) fn pays(&mut self, peer: &NodeId, now: Time, traffic: Traffic) -> bool {
        if let Some(used) = self.peers.get_mut(peer) {
            return used.pays(now, traffic);
        }
        if self.peers.len() >= self.most.max(RECORDS_MIN) {
            self.peers.retain(|_, used| !used.is_whole(now));
            self.most = self.peers.len() * 2;
        }
        self.peers.entry(peer.clone()).or_default().pays(now, traffic)
    }
}

impl Used {
    fn pays(&mut self, now: Time, traffic: Traffic) -> bool {
        let rate = f64::from(traffic.rate());
        let known = self.0[traffic.place()].get_or_insert_with(|| (Bucket::full(now, rate), rate));
        known.1 = rate;
        known.0.pays(now, rate)
    }

    /// Whether a new record would say the same.
    fn is_whole(&self, now: Time) -> bool {
        self.0.iter().flatten().all(|(bucket, rate)| bucket.is_full(now, *rate))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn takes_no_more_of_a_peer_than_its_rate_and_a_burst() {
        let (mut rates, now) = (Rates::default(), Time::ZERO);
        for traffic in [Traffic::Heartbeat, Traffic::Root, Traffic::Graft, Traffic::Exchange(50)] {
            let paid = (0..10_000).filter(|_| rates.pays(&node("x"), now, traffic)).count();
            assert_eq!(paid, 2 * traffic.rate() as usize, "{traffic:?}");
            assert!(rates.pays(&node("y"), now, traffic), "each for itself");
        }
    }

    #[test]
    fn keeps_no_record_that_is_whole_again() {
        let (mut rates, mut now) = (Rates::default(), Time::ZERO);
        for n in 0..100 * RECORDS_MIN {
            now = now + Duration::from_secs(10);
            assert!(rates.pays(&node(&format!("n{n}")), now, Traffic::Root));
        }
        assert!(rates.peers.len() <= 2 * RECORDS_MIN, "{}", rates.peers.len());
    }
}
