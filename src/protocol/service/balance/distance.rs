//! In which order datacenters are tried.

use std::{collections::BTreeMap, time::Duration};

use super::{candidates::Candidates, figures::FADES_IN};
use crate::protocol::{hash, id::Datacenter, time::Time};

/// Datacenters with a measured round trip. Beyond that the one measured longest ago is dropped.
pub const DATACENTERS_MAX: usize = 256;

/// How far other datacenters are from this node.
#[derive(Debug)]
pub(super) struct Distances {
    /// `None` if the caller is in no datacenter that it knows.
    home: Option<Datacenter>,
    measured: BTreeMap<Datacenter, Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    round_trip: Duration,
    at: Time,
}

/// Sorts datacenters, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    Home,
    Measured(Duration),
    /// An order that stays the same and that callers of another datacenter do not share, so that they do not all
    /// turn to the same one.
    Unknown(u64),
}

impl Distances {
    pub(super) const fn new(home: Option<Datacenter>) -> Self {
        Self { home, measured: BTreeMap::new() }
    }

    pub(super) const fn home(&self) -> Option<&Datacenter> {
        self.home.as_ref()
    }

    /// Keeps the least round trip of the last [`FADES_IN`]; a link that is longer, or whose queue is full, says nothing
    /// about the distance. An older one stays until there is another: a datacenter does not move.
    pub(super) fn measure(&mut self, now: Time, datacenter: &Datacenter, round_trip: Duration) {
        if let Some(measured) = self.measured.get_mut(datacenter) {
            if round_trip <= measured.round_trip || now.since(measured.at) >= FADES_IN {
                *measured = Measured { round_trip, at: now };
            }
            return;
        }
        if self.measured.len() >= DATACENTERS_MAX
            && let Some(oldest) = self.measured.iter().min_by_key(|(_, measured)| measured.at)
        {
            let oldest = oldest.0.clone();
            self.measured.remove(&oldest);
        }
        self.measured.insert(datacenter.clone(), Measured { round_trip, at: now });
    }

    /// The round trip to another datacenter, if it was measured.
    pub(super) fn round_trip(&self, datacenter: &Datacenter) -> Option<Duration> {
        if self.home.as_ref() == Some(datacenter) {
            return None;
        }
        self.measured.get(datacenter).map(|measured| measured.round_trip)
    }

    /// The nearest datacenter with candidates, or the next one after this. Compares all datacenters, since they are
    /// few and most calls stay in the first.
    pub(super) fn next<'a, L: Candidates>(
        &self,
        candidates: &'a L,
        after: Option<&Datacenter>,
    ) -> Option<(&'a Datacenter, &'a L::Sequence)> {
        if after.is_none()
            && let Some(home) = &self.home
            && let Some(there) = candidates.within(home)
        {
            return Some(there);
        }
        let ranked = |datacenter| (self.distance(datacenter), datacenter);
        let after = after.map(ranked);
        let others = candidates
            .datacenters()
            .filter(|(datacenter, _)| after.is_none_or(|after| ranked(datacenter) > after));
        others.min_by_key(|(datacenter, _)| ranked(datacenter))
    }

    fn distance(&self, datacenter: &Datacenter) -> Distance {
        if self.home.as_ref() == Some(datacenter) {
            return Distance::Home;
        }
        let unknown = || {
            let home = self.home.as_ref().map_or("", |home| home.as_str());
            let (home, there) = (hash::hash(home), hash::hash(datacenter.as_str()));
            Distance::Unknown(hash::mix(home ^ there))
        };
        self.round_trip(datacenter).map_or_else(unknown, Distance::Measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service::balance::fixture::{Offers, place};

    const MS: Duration = Duration::from_millis(1);

    fn order(distances: &Distances, names: &[&str]) -> Vec<String> {
        let candidates: Offers = names.iter().map(|name| (place(name), Vec::new())).collect();
        let mut order: Vec<Datacenter> = Vec::new();
        while let Some((next, _)) = distances.next(&candidates, order.last()) {
            order.push(next.clone());
        }
        order.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_order_is_home_then_by_round_trip_then_by_hash() {
        let mut distances = Distances::new(Some(place("m")));
        assert!(order(&distances, &[]).is_empty());
        let names = ["a", "b", "m", "x", "y"];
        let unmeasured = order(&distances, &names);
        assert_eq!(unmeasured.len(), names.len(), "each once");
        assert_eq!(unmeasured[0], "m");
        assert_eq!(unmeasured, order(&distances, &names), "stable");
        distances.measure(Time::ZERO, &place("y"), 90 * MS);
        distances.measure(Time::ZERO, &place("b"), 100 * MS);
        assert_eq!(order(&distances, &names)[..3], ["m", "y", "b"]);
        assert_eq!(order(&distances, &["a", "b", "y"])[..2], ["y", "b"], "without its own");
    }

    #[test]
    fn callers_of_different_datacenters_turn_to_different_ones() {
        let names: Vec<_> = (0..20).map(|n| format!("dc{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let firsts =
            names.iter().map(|home| order(&Distances::new(Some(place(home))), &names)[1].clone());
        let firsts: std::collections::BTreeSet<_> = firsts.collect();
        assert!(firsts.len() > 5, "{firsts:?}");
    }

    #[test]
    fn the_least_round_trip_counts_until_it_is_old() {
        let mut distances = Distances::new(Some(place("m")));
        let there = place("a");
        assert_eq!(distances.round_trip(&there), None);
        distances.measure(Time::ZERO, &there, 80 * MS);
        distances.measure(Time::ZERO, &there, 200 * MS);
        assert_eq!(distances.round_trip(&there), Some(80 * MS));
        distances.measure(Time::ZERO + FADES_IN, &there, 200 * MS);
        assert_eq!(distances.round_trip(&there), Some(200 * MS));
    }

    #[test]
    fn remembers_no_more_datacenters_than_the_limit() {
        let mut distances = Distances::new(Some(place("m")));
        for number in 0..DATACENTERS_MAX as u64 * 2 {
            let now = Time::ZERO + Duration::from_micros(number);
            distances.measure(now, &place(&format!("dc{number}")), MS);
            assert!(distances.measured.len() <= DATACENTERS_MAX);
        }
        assert_eq!(distances.round_trip(&place("dc0")), None, "the oldest is dropped");
    }
}
