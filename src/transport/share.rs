//! What one peer may use up at this node: by its name, over all of its connections and streams, also after
//! one of them has ended. Another connection gives nobody another share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::protocol::{bucket::Bucket, id::NodeId, push::FLOODS_PER_SECOND, time::Time};

/// Most heartbeats of a peer that are taken, twice what it sends while it probes us: the queue of the
/// detector has no bound of its own.
pub const HEARTBEATS_PER_SECOND: u32 = 500;
/// Most roots of a peer that are passed on, far more than there are rounds: the queue of the
/// scheduler has no bound of its own.
pub const ROOTS_PER_SECOND: u32 = 200;
/// Most requests for news that was told to be had which are answered. An honest peer asks for what did not
/// come by itself; what is dropped comes with the next exchange.
pub const GRAFTS_PER_SECOND: u32 = 100;
/// What comes twice more often than news floods has come along a tree, one of whose edges storage
/// has to prune: it is handed on.
const DUPLICATES_PER_SECOND: u32 = FLOODS_PER_SECOND;
/// Peers without a connection are looked through for shares that are whole again whenever there are twice
/// as many shares as were left the last time, and more than this.
const SHARES_MIN: usize = 64;

/// The shares of all peers that have used some of theirs lately.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shares: BTreeMap<NodeId, Arc<Share>>,
    /// How many there may be until those that are whole again are dropped.
    most: usize,
}

/// The share of one peer.
#[derive(Debug)]
pub(crate) struct Share {
    /// One question of this peer's at a time lies before storage or is being answered.
    asking: Arc<Semaphore>,
    /// One frame of this peer's at a time is decoded, until it has been dealt with.
    decoding: Arc<Semaphore>,
    /// One long frame at a time is on its way from it, and one to it.
    pub(crate) inbound: Arc<Semaphore>,
    pub(crate) outbound: Arc<Semaphore>,
    /// Counts, by its clones, the exchanges of this peer that are being answered.
    answering: Arc<()>,
    rates: Mutex<Rates>,
}

/// A kind of traffic that has a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    Heartbeat,
    Root,
    Graft,
    Duplicate,
    /// So many exchanges in a second.
    Exchange(u32),
}

/// By [`Traffic::place`], with the rate of each; what has never been used is not there.
#[derive(Debug, Default)]
struct Rates([Option<(Bucket, f64)>; 5]);

impl Traffic {
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

impl Shares {
    /// The share of a peer.
    pub(crate) fn of(&self, peer: &NodeId, now: Time) -> Arc<Share> {
        // Nothing under the lock can panic half way.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = inner.shares.get(peer) {
            return Arc::clone(share);
        }
        if inner.shares.len() >= inner.most.max(SHARES_MIN) {
            inner.shares.retain(|_, share| !share.is_whole(now));
            inner.most = inner.shares.len() * 2;
        }
        Arc::clone(inner.shares.entry(peer.clone()).or_insert_with(|| Arc::new(Share::whole())))
    }
}

impl Share {
    fn whole() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            asking: one(),
            decoding: one(),
            inbound: one(),
            outbound: one(),
            answering: Arc::default(),
            rates: Mutex::default(),
        }
    }

    /// Whether nothing of it is in use, and a new one would be the same.
    fn is_whole(self: &Arc<Self>, now: Time) -> bool {
        let held = [&self.asking, &self.decoding, &self.inbound, &self.outbound];
        Arc::strong_count(self) == 1
            && held.iter().all(|one| one.available_permits() == 1)
            && Arc::strong_count(&self.answering) == 1
            && self.rates().0.iter().flatten().all(|(bucket, rate)| bucket.is_full(now, *rate))
    }

    /// Whether one more of these is within the share; counts it.
    pub(crate) fn pays(&self, now: Time, traffic: Traffic) -> bool {
        let rate = f64::from(traffic.rate());
        let mut rates = self.rates();
        let place = &mut rates.0[traffic.place()];
        let known = place.get_or_insert_with(|| (Bucket::full(now, rate), rate));
        known.1 = rate;
        known.0.pays(now, rate)
    }

    /// Waits until no other question of this peer's is before storage.
    pub(crate) async fn ask(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.asking).acquire_owned().await.expect(NEVER_CLOSED)
    }

    /// Waits until no other frame of this peer's is held decoded.
    pub(crate) async fn decode(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.decoding).acquire_owned().await.expect(NEVER_CLOSED)
    }

    /// An exchange of this peer's begins to be answered; it ends when this is dropped. The second part
    /// says whether it is the only one.
    pub(crate) fn answer(&self) -> (Arc<()>, bool) {
        let held = Arc::clone(&self.answering);
        let only = Arc::strong_count(&held) == 2;
        (held, only)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        // Nothing under the lock can panic half way.
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NEVER_CLOSED: &str = "the semaphore is never closed";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn gives_a_peer_no_second_share_for_another_connection() {
        let (shares, now) = (Shares::default(), Time::ZERO);
        for traffic in [Traffic::Heartbeat, Traffic::Root, Traffic::Graft, Traffic::Exchange(50)] {
            // Each time by a connection of its own.
            let paid =
                (0..10_000).filter(|_| shares.of(&node("x"), now).pays(now, traffic)).count();
            assert_eq!(paid, 2 * traffic.rate() as usize, "{traffic:?}");
            assert!(shares.of(&node("y"), now).pays(now, traffic), "each for itself");
        }
        let (_held, first) = shares.of(&node("x"), now).answer();
        let (_another, second) = shares.of(&node("x"), now).answer();
        assert_eq!((first, second), (true, false));
    }

    #[tokio::test]
    async fn one_question_and_one_decoded_frame_at_a_time_whatever_the_connection() {
        let (shares, now) = (Shares::default(), Time::ZERO);
        let (asked, decoded) =
            tokio::join!(async { shares.of(&node("x"), now).ask().await }, async {
                shares.of(&node("x"), now).decode().await
            },);
        let free = |name: &str| {
            let share = shares.of(&node(name), now);
            (share.asking.available_permits(), share.decoding.available_permits())
        };
        assert_eq!((free("x"), free("y")), ((0, 0), (1, 1)));
        drop((asked, decoded));
        assert_eq!(free("x"), (1, 1));
    }

    #[test]
    fn keeps_no_share_that_is_whole_again() {
        let (shares, mut now) = (Shares::default(), Time::ZERO);
        let held = shares.of(&node("held"), now);
        for n in 0..100 * SHARES_MIN {
            now = now + Duration::from_secs(10);
            assert!(shares.of(&node(&format!("n{n}")), now).pays(now, Traffic::Root));
        }
        let kept = shares.0.lock().unwrap().shares.len();
        assert!(kept <= 2 * SHARES_MIN, "{kept}");
        assert!(Arc::ptr_eq(&held, &shares.of(&node("held"), now)));
    }
}
