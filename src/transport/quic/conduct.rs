//! What is held against members that do not keep to the protocol, over all of their connections.
//!
//! Floods are throttled first: what comes beyond a named limit is dropped, and counted against the
//! one who sent it. Who goes on is cut off. Who sends what is no message at all is cut off at once,
//! since no version of this program does so by accident. Either may try again after
//! [`QuicLimits::bar`](crate::transport::limits::QuicLimits::bar). It goes by the name that the certificate
//! proves: another address or another connection changes nothing. It is no verdict on whether the
//! member lives.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::protocol::{bucket::Bucket, id::NodeId, time::Time};

/// So much beyond its limits is dropped until a member is cut off: heartbeats, roots, exchanges. News that
/// no honest member sends counts by what it has cost ([`Refusal::price`](crate::protocol::map::Refusal::price)).
pub const THROTTLED_MAX: f64 = 2_000.0;
/// So much of it is forgiven in a second.
pub const FORGIVEN_PER_SECOND: f64 = 50.0;
/// Most members that something is held against; of more, those whose offence is oldest go free.
pub const OFFENDERS_MAX: usize = 1_024;

/// What is held against members.
#[derive(Debug, Default)]
pub(super) struct Conduct(Mutex<BTreeMap<NodeId, Offender>>);

#[derive(Debug)]
struct Offender {
    patience: Bucket,
    last: Time,
    /// Until when it is turned away, and why.
    barred: Option<(Time, String)>,
}

impl Conduct {
    /// Something of this member was dropped, since it was beyond a limit, or was work in vain, at this
    /// price. Says whether that was once too often.
    pub(super) fn throttled(&self, peer: &NodeId, now: Time, price: u32) -> bool {
        let mut offenders = self.lock();
        let offender = offender(&mut offenders, peer, now);
        !offender.patience.pays_for(now, FORGIVEN_PER_SECOND, THROTTLED_MAX, f64::from(price))
    }

    /// It was cut off for this, and may try again after so long.
    pub(super) fn bar(&self, peer: &NodeId, now: Time, length: Duration, why: &str) {
        let mut offenders = self.lock();
        let offender = offender(&mut offenders, peer, now);
        offender.barred = Some((now + length, why.to_owned()));
        // What it did before is paid for by then.
        offender.patience = Bucket::holding(now, THROTTLED_MAX);
    }

    /// How long it is still turned away, and why; `None` if it may come.
    pub(super) fn barred(&self, peer: &NodeId, now: Time) -> Option<(Duration, String)> {
        let offenders = self.lock();
        let (until, why) = offenders.get(peer)?.barred.as_ref()?;
        (now < *until).then(|| (until.since(now), why.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Offender>> {
        // Nothing under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offender<'a>(
    offenders: &'a mut BTreeMap<NodeId, Offender>,
    peer: &NodeId,
    now: Time,
) -> &'a mut Offender {
    if offenders.len() >= OFFENDERS_MAX
        && !offenders.contains_key(peer)
        && let Some(oldest) = offenders.iter().min_by_key(|(_, offender)| offender.last)
    {
        let oldest = oldest.0.clone();
        offenders.remove(&oldest);
    }
    let new =
        || Offender { patience: Bucket::holding(now, THROTTLED_MAX), last: now, barred: None };
    let offender = offenders.entry(peer.clone()).or_insert_with(new);
    offender.last = now;
    offender
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::map::Refusal;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn cuts_off_who_goes_on_and_forgives_who_does_not() {
        let (conduct, now) = (Conduct::default(), Time::ZERO);
        let patient = (0..10_000).take_while(|_| !conduct.throttled(&node("x"), now, 1)).count();
        assert_eq!(patient, 2_000);
        assert!(!conduct.throttled(&node("y"), now, 1), "each for itself");
        let mut now = now;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(20);
            assert!(!conduct.throttled(&node("z"), now, 1));
        }
    }

    #[test]
    fn cuts_off_sooner_whose_news_costs_more() {
        let (conduct, now) = (Conduct::default(), Time::ZERO);
        let price = Refusal::Forged.price();
        let patient =
            (0..10_000).take_while(|_| !conduct.throttled(&node("x"), now, price)).count();
        assert_eq!(patient, 2_000 / price as usize);
    }

    #[test]
    fn turns_away_for_so_long_and_says_why() {
        let (conduct, now) = (Conduct::default(), Time::ZERO);
        conduct.bar(&node("x"), now, Duration::from_secs(30), "it drips");
        let later = now + Duration::from_secs(10);
        let left = Duration::from_secs(20);
        assert_eq!(conduct.barred(&node("x"), later), Some((left, "it drips".to_owned())));
        assert_eq!(conduct.barred(&node("y"), later), None);
        assert_eq!(conduct.barred(&node("x"), now + Duration::from_secs(30)), None);
        assert!(!conduct.throttled(&node("x"), now + Duration::from_secs(30), 1));
    }

    #[test]
    fn remembers_no_more_members_than_it_may() {
        let (conduct, mut now) = (Conduct::default(), Time::ZERO);
        for n in 0..2 * OFFENDERS_MAX {
            now = now + Duration::from_millis(1);
            conduct.bar(&node(&format!("n{n}")), now, Duration::from_secs(60), "");
        }
        assert_eq!(conduct.lock().len(), OFFENDERS_MAX);
        assert!(conduct.barred(&node("n0"), now).is_none());
        let last = format!("n{}", 2 * OFFENDERS_MAX - 1);
        assert!(conduct.barred(&node(&last), now).is_some());
    }
}
