//! Which handshakes to begin: limits for peers that have proved nothing yet.
//!
//! Measured cost of one first packet from an address that never answers: 283 us of CPU and 42 KiB
//! held if its handshake is begun, 20 us if it receives a Retry, 15 us if it is refused.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use quinn::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::limits::QuicLimits;
use crate::{
    counters::Counters,
    protocol::{bucket::Bucket, counter::Counter, time::Time},
};

/// Maximum number of source addresses in memory.
const SOURCES_MAX: usize = 4_096;

/// The admission control of one endpoint.
#[derive(Debug)]
pub(super) struct Admission {
    limits: QuicLimits,
    permits: Arc<Semaphore>,
    sources: BTreeMap<IpAddr, Bucket>,
}

impl Admission {
    pub(super) fn new(limits: QuicLimits, permits: Arc<Semaphore>) -> Self {
        Self { limits, permits, sources: BTreeMap::new() }
    }

    /// Lets a handshake begin, while its permit is held, or refuses it. `connections`: all
    /// connections of the endpoints, including those that are ending.
    pub(super) fn admit(
        &mut self,
        incoming: Incoming,
        connections: usize,
        now: Time,
        counters: &Counters,
    ) -> Option<(Incoming, OwnedSemaphorePermit)> {
        let busy = self.limits.handshakes.saturating_sub(self.permits.available_permits());
        if busy >= self.limits.retry_above && incoming.may_retry() {
            counters.add(Counter::HandshakesRetried, 1);
            // It fails only if no retry is allowed.
            let _ = incoming.retry();
            return None;
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        let room = connections < self.limits.connections;
        // A peer with a proved address uses its own bucket. A forged address cannot empty it, since
        // under pressure a peer has to prove its address first.
        match permit {
            Some(permit) if room && self.pays(incoming.remote_address().ip(), now) => {
                Some((incoming, permit))
            }
            _ => {
                counters.add(Counter::HandshakesShed, 1);
                incoming.refuse();
                None
            }
        }
    }

    fn pays(&mut self, source: IpAddr, now: Time) -> bool {
        let rate = f64::from(self.limits.handshakes_per_source);
        let source = network(source);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.forget_idle(now, rate);
        }
        self.sources.entry(source).or_insert_with(|| Bucket::full(now, rate)).pays(now, rate)
    }

    /// Drops full buckets: a new bucket is equivalent.
    fn forget_idle(&mut self, now: Time, rate: f64) {
        self.sources.retain(|_, bucket| !bucket.is_full(now, rate));
        // A peer that fills so many buckets has more addresses than they can limit; the permits and
        // Retry limit it instead. Another search at every packet would only cost more.
        if self.sources.len() > SOURCES_MAX / 2 {
            self.sources.clear();
        }
    }
}

/// The holder of one IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn refuses_an_address_that_has_spent_its_burst() {
        let (mut admission, now) = admission(10);
        let source = "10.0.0.1".parse().unwrap();
        let spent = (0..100).filter(|_| admission.pays(source, now)).count();
        assert_eq!(spent, 20);
        assert!(admission.pays("10.0.0.2".parse().unwrap(), now));
        let later = now + Duration::from_millis(500);
        let spent = (0..100).filter(|_| admission.pays(source, later)).count();
        assert_eq!(spent, 5);
    }

    #[test]
    fn takes_a_network_of_ipv6_as_one_source() {
        let (mut admission, now) = admission(1);
        let mut pays = |source: &str| admission.pays(source.parse().unwrap(), now);
        assert!(pays("2001:db8::1") && pays("2001:db8::2"));
        assert!(!pays("2001:db8::3"));
        assert!(pays("2001:db8:0:1::1"));
    }

    #[test]
    fn remembers_no_more_sources_than_it_may() {
        let (mut admission, mut now) = admission(1);
        for n in 0..3 * u32::try_from(SOURCES_MAX).unwrap() {
            now = now + Duration::from_micros(10);
            admission.pays(IpAddr::from(n.to_be_bytes()), now);
            assert!(admission.sources.len() <= SOURCES_MAX);
        }
    }

    #[test]
    fn remembers_those_who_spend_when_it_forgets_the_idle() {
        let (mut admission, now) = admission(1);
        for n in 0..u32::try_from(SOURCES_MAX).unwrap() {
            admission.pays(IpAddr::from(n.to_be_bytes()), now);
        }
        let greedy = "10.0.0.1".parse().unwrap();
        let later = now + Duration::from_secs(10);
        while admission.pays(greedy, later) {}
        for n in 0..100_u32 {
            admission.pays(IpAddr::from((1 << 31 | n).to_be_bytes()), later);
        }
        assert!(!admission.pays(greedy, later));
    }

    fn admission(handshakes_per_source: u32) -> (Admission, Time) {
        let limits = QuicLimits { handshakes_per_source, ..QuicLimits::default() };
        (Admission::new(limits, Arc::new(Semaphore::new(1))), Time::ZERO)
    }
}
