//! Penalties of members that do not keep to the protocol, over all of their connections.
//!
//! A flood is throttled first: the node drops what exceeds a named limit, and counts it against its sender. A
//! sender that goes on is disconnected. A sender of bytes that are no message is disconnected at once, since no
//! version of this program sends such bytes by accident. Either may connect again after
//! [`PeeringConfig::bar`](super::peering::PeeringConfig::bar). The name that the network has proved counts: another
//! address or another connection changes nothing. A penalty says nothing about whether the member is alive.

use std::{collections::BTreeMap, time::Duration};

use super::{bucket::Bucket, id::NodeId, time::Time};

/// Frames beyond a limit (heartbeats, roots, exchanges) that are dropped until the sender is disconnected. News
/// that no honest member sends counts by what it has cost ([`Refusal::price`](super::map::Refusal::price)).
pub const THROTTLED_MAX: f64 = 2_000.0;
/// Of these, so many are forgiven in a second.
pub const FORGIVEN_PER_SECOND: f64 = 50.0;
/// Most members with a record; beyond that the oldest record is dropped.
pub const OFFENDERS_MAX: usize = 1_024;

/// What is held against members.
#[derive(Debug, Default)]
pub(super) struct Penalties(BTreeMap<NodeId, Offender>);

#[derive(Debug)]
struct Offender {
    patience: Bucket,
    last: Time,
    /// Until when it is refused, and why.
    barred: Option<(Time, String)>,
}

impl Penalties {
    /// The node has dropped something of this member, or has worked for nothing, at this price. Says whether
    /// the member is to be disconnected for it.
    pub(super) fn throttled(&mut self, peer: &NodeId, now: Time, price: u32) -> bool {
        let offender = self.offender(peer, now);
        !offender.patience.pays_for(now, FORGIVEN_PER_SECOND, THROTTLED_MAX, f64::from(price))
    }

    /// It was disconnected for this, and may connect again after so long.
    pub(super) fn bar(&mut self, peer: &NodeId, now: Time, length: Duration, why: &str) {
        let offender = self.offender(peer, now);
        offender.barred = Some((now + length, why.to_owned()));
        // What it did before is paid for by then.
        offender.patience = Bucket::holding(now, THROTTLED_MAX);
    }

    /// How long it is still refused, and why; `None` if it may connect.
    pub(super) fn barred(&self, peer: &NodeId, now: Time) -> Option<(Duration, String)> {
        let (until, why) = self.0.get(peer)?.barred.as_ref()?;
        (now < *until).then(|| (until.since(now), why.clone()))
    }

    fn offender(&mut self, peer: &NodeId, now: Time) -> &mut Offender {
        if self.0.len() >= OFFENDERS_MAX
            && !self.0.contains_key(peer)
            && let Some(oldest) = self.0.iter().min_by_key(|(_, offender)| offender.last)
        {
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        let new =
            || Offender { patience: Bucket::holding(now, THROTTLED_MAX), last: now, barred: None };
        let offender = self.0.entry(peer.clone()).or_insert_with(new);
        offender.last = now;
        offender
    }
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
        let (mut penalties, now) = (Penalties::default(), Time::ZERO);
        let patient = (0..10_000).take_while(|_| !penalties.throttled(&node("x"), now, 1)).count();
        assert_eq!(patient, 2_000);
        assert!(!penalties.throttled(&node("y"), now, 1), "each for itself");
        let mut now = now;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(20);
            assert!(!penalties.throttled(&node("z"), now, 1));
        }
    }

    #[test]
    fn cuts_off_sooner_whose_news_costs_more() {
        let (mut penalties, now) = (Penalties::default(), Time::ZERO);
        let price = Refusal::Forged.price();
        let patient =
            (0..10_000).take_while(|_| !penalties.throttled(&node("x"), now, price)).count();
        assert_eq!(patient, 2_000 / price as usize);
    }

    #[test]
    fn turns_away_for_so_long_and_says_why() {
        let (mut penalties, now) = (Penalties::default(), Time::ZERO);
        penalties.bar(&node("x"), now, Duration::from_secs(30), "it drips");
        let later = now + Duration::from_secs(10);
        let left = Duration::from_secs(20);
        assert_eq!(penalties.barred(&node("x"), later), Some((left, "it drips".to_owned())));
        assert_eq!(penalties.barred(&node("y"), later), None);
        assert_eq!(penalties.barred(&node("x"), now + Duration::from_secs(30)), None);
        assert!(!penalties.throttled(&node("x"), now + Duration::from_secs(30), 1));
    }

    #[test]
    fn remembers_no_more_members_than_it_may() {
        let (mut penalties, mut now) = (Penalties::default(), Time::ZERO);
        for n in 0..2 * OFFENDERS_MAX {
            now = now + Duration::from_millis(1);
            penalties.bar(&node(&format!("n{n}")), now, Duration::from_secs(60), "");
        }
        assert_eq!(penalties.0.len(), OFFENDERS_MAX);
        assert!(penalties.barred(&node("n0"), now).is_none());
        let last = format!("n{}", 2 * OFFENDERS_MAX - 1);
        assert!(penalties.barred(&node(&last), now).is_some());
    }
}
