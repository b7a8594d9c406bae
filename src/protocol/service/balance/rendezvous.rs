//! The same provider for the same key: rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to
//! increase hit rates", IEEE/ACM Transactions on Networking 1998).
//!
//! Every candidate gets a number from its name and the key, and the largest number wins. So if a node dies, only its
//! keys move, each to the node that was second, and a node that joins takes an equal share from each of the others.
//!
//! Weights are left out. The weighted form compares -w / ln(h), and two machines may compute logarithms differently
//! in the last bit, so two callers might disagree for as long as both live; whole numbers are the same everywhere. A
//! change of a weight would also move keys of nodes that are well. What is declared by weight, that one node bears
//! more calls than another, belongs to [`Balance::pick`](super::Balance::pick).

use std::cmp::Ordering;

use super::{
    candidates::{Candidate, Candidates, Sequence},
    trusted::Bounds,
};
use crate::protocol::{hash, id::Datacenter};

/// The provider to which this key belongs, of one datacenter or of all; `None` if there is none that is not draining.
///
/// `key` is a hash of the key with 64 evenly distributed bits, by a function that all callers share.
///
/// A suspected node keeps its keys: a suspicion is this node's own opinion and often withdrawn, and each one would
/// move the keys there and back. A node whose minor version is too old for a method keeps them too, since the owner of
/// a key must not depend on the method; the call fails, and says why. Load and latency do not count.
///
/// `bounds`: the nodes that may own a key. It looks at all candidates, in O(n).
#[must_use]
pub fn by_key<'a, L: Candidates>(
    candidates: &'a L,
    datacenter: Option<&Datacenter>,
    bounds: Bounds<'_>,
    key: u64,
) -> Option<&'a L::Item> {
    let of = |(at, sequence): (&'a Datacenter, &'a L::Sequence)| {
        let usable = sequence
            .iter()
            .filter(|candidate| !candidate.draining() && bounds.admit(candidate.node(), at));
        usable.map(|candidate| (rank(key, candidate), candidate)).max_by(order)
    };
    let best = match datacenter {
        Some(datacenter) => candidates.within(datacenter).and_then(of),
        None => candidates.datacenters().filter_map(of).max_by(order),
    };
    best.map(|(_, candidate)| candidate)
}

/// The finish of SplitMix64 makes each bit of the key and of the name count for each bit of the number.
fn rank<C: Candidate>(key: u64, candidate: &C) -> u64 {
    hash::mix(key ^ candidate.name_hash())
}

/// Equal numbers mean equal hashes of names. The names decide then, here as at every other caller.
fn order<C: Candidate>(one: &(u64, &C), other: &(u64, &C)) -> Ordering {
    one.0.cmp(&other.0).then_with(|| one.1.node().cmp(other.1.node()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::service::balance::fixture::{Offers, many, offers, place};

    const KEYS: u64 = 10_000;
    const FREE: Bounds<'_> = Bounds { only: None, also: None, except: None };

    fn owners(offers: &Offers) -> Vec<&str> {
        // Keys that differ in few bits: the hash of the key need not be good.
        (0..KEYS).map(|key| by_key(offers, None, FREE, key).unwrap().node().as_str()).collect()
    }

    #[test]
    fn there_is_no_owner_without_a_provider_that_stays() {
        assert_eq!(by_key(&Offers::new(), None, FREE, 7), None);
        let mut all = offers([("a", &["a1", "a2"])]);
        assert_eq!(by_key(&all, Some(&place("b")), FREE, 7), None);
        all.values_mut().flatten().for_each(|offered| offered.draining = true);
        assert_eq!(by_key(&all, None, FREE, 7), None);
    }

    #[test]
    fn a_death_moves_only_the_keys_of_the_dead() {
        let all = Offers::from([(place("a"), many(20)), (place("b"), Vec::new())]);
        let before = owners(&all);
        for dead in 0..20 {
            let mut less = all.clone();
            let gone = less.get_mut(&place("a")).unwrap().remove(dead).node;
            for (was, is) in before.iter().zip(owners(&less)) {
                assert!(*was == is || *was == gone.as_str());
                assert_ne!(is, gone.as_str());
            }
        }
    }

    #[test]
    fn a_node_that_joins_takes_its_share_from_all() {
        let all = Offers::from([(place("a"), many(20))]);
        let less = Offers::from([(place("a"), many(19))]);
        let (before, after) = (owners(&less), owners(&all));
        let mut taken = BTreeMap::<&str, u32>::new();
        for (was, is) in before.iter().zip(&after).filter(|(was, is)| was != is) {
            assert_eq!(*is, "n00019");
            *taken.entry(was).or_default() += 1;
        }
        let sum: u32 = taken.values().sum();
        // A twentieth is 500, with a standard deviation of 22.
        assert!((400..600).contains(&sum), "{taken:?}");
        assert_eq!(taken.len(), 19, "{taken:?}");
    }

    #[test]
    fn all_nodes_get_about_as_many_keys() {
        let all = Offers::from([(place("a"), many(20))]);
        let mut counts = BTreeMap::<&str, u32>::new();
        owners(&all).into_iter().for_each(|owner| *counts.entry(owner).or_default() += 1);
        assert!(counts.values().all(|count| (380..620).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_owner_depends_on_nothing_but_the_names() {
        let all = Offers::from([(place("a"), many(20))]);
        let mut other =
            Offers::from([(place("x"), many(10)), (place("y"), many(20).split_off(10))]);
        for offered in other.values_mut().flatten() {
            (offered.minor, offered.weight, offered.suspect) = (7, 200, true);
        }
        assert_eq!(owners(&all), owners(&other));
        let owner = |key| by_key(&other, Some(&place("y")), FREE, key).unwrap().node().as_str();
        assert!((0..KEYS).all(|key| owner(key) >= "n00010"));
    }

    /// Computed by another program from the definition.
    #[test]
    fn all_callers_and_versions_compute_the_same() {
        let all = Offers::from([(place("a"), many(20))]);
        let of = |key| by_key(&all, None, FREE, key).unwrap().node().as_str();
        assert_eq!([0, 1, 2, u64::MAX].map(of), ["n00007", "n00017", "n00009", "n00009"]);
    }
}
