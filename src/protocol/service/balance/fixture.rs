//! Candidates for tests.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use rand::rngs::SmallRng;

use super::{
    Ask, Balance, Bounds, NoPick, Prefer,
    candidates::{Candidate, Candidates, Sequence},
};
use crate::protocol::{
    hash,
    id::{Datacenter, NodeId},
    time::Time,
};

/// A provider with settings that a test changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) node: NodeId,
    pub(super) minor: u16,
    pub(super) weight: u8,
    pub(super) draining: bool,
    pub(super) suspect: bool,
}

/// The candidates of a test, by datacenter.
pub(super) type Offers = BTreeMap<Datacenter, Vec<Offered>>;

/// A sequence that counts how many of its candidates are looked at.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) offers: Vec<Offered>,
    pub(super) looks: Rc<Cell<usize>>,
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(super) fn place(name: &str) -> Datacenter {
    Datacenter::new(name).unwrap()
}

/// A provider without peculiarities.
pub(super) fn offered(name: &str) -> Offered {
    Offered { node: node(name), minor: 0, weight: 1, draining: false, suspect: false }
}

/// Providers by the names of their datacenters.
pub(super) fn offers<const N: usize>(groups: [(&str, &[&str]); N]) -> Offers {
    let group = |(at, names): (&str, &[&str])| {
        (place(at), names.iter().map(|name| offered(name)).collect())
    };
    groups.into_iter().map(group).collect()
}

/// So many providers, sorted by name.
pub(super) fn many(count: usize) -> Vec<Offered> {
    (0..count).map(|number| offered(&format!("n{number:05}"))).collect()
}

/// The candidate of this name.
pub(super) fn named<'a>(offers: &'a mut Offers, name: &str) -> &'a mut Offered {
    let all = offers.values_mut().flatten();
    all.into_iter().find(|offered| offered.node.as_str() == name).unwrap()
}

/// The seed of a test, from the environment or this one. Printed, so that a failure can be repeated.
pub(super) fn seed(otherwise: u64) -> u64 {
    let seed = std::env::var("SEED").map_or(otherwise, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    seed
}

/// A caller at node `a1` in datacenter `a`.
pub(super) fn balance() -> Balance {
    Balance::new(node("a1"), place("a"))
}

/// A call without wishes.
pub(super) fn nearest(tried: &[NodeId]) -> Ask<'_> {
    Ask { since: 0, prefer: &Prefer::Nearest, tried, bounds: Bounds::default() }
}

pub(super) fn at(since: Duration) -> Time {
    Time::ZERO + since
}

/// The name of the provider that a pick finds.
pub(super) fn picked<'a>(
    balance: &Balance,
    offers: &'a Offers,
    ask: &Ask<'_>,
    now: Time,
    rng: &mut SmallRng,
) -> Result<&'a str, NoPick> {
    balance.pick(offers, ask, now, rng, |_| 0.0).map(|pick| pick.provider.node.as_str())
}

impl Candidate for Offered {
    fn node(&self) -> &NodeId {
        &self.node
    }

    fn minor(&self) -> u16 {
        self.minor
    }

    fn weight(&self) -> u8 {
        self.weight
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn suspect(&self) -> bool {
        self.suspect
    }

    fn name_hash(&self) -> u64 {
        hash::hash(self.node.as_str())
    }
}

impl Sequence for Counted {
    type Item = Offered;

    fn len(&self) -> usize {
        self.offers.len()
    }

    fn get(&self, position: usize) -> Option<&Offered> {
        self.looks.set(self.looks.get() + 1);
        self.offers.get(position)
    }

    fn iter(&self) -> impl Iterator<Item = &Offered> {
        self.offers.iter().inspect(|_| self.looks.set(self.looks.get() + 1))
    }
}

#[test]
fn a_sequence_finds_a_node_by_its_name() {
    for sequence in [many(0), many(1), many(100)] {
        for offered in &sequence {
            assert_eq!(sequence.find(&offered.node), Some(offered));
        }
        assert_eq!(sequence.find(&node("a")), None);
        assert_eq!(sequence.find(&node("n00000a")), None);
        assert_eq!(sequence.find(&node("z")), None);
    }
}

impl<C: Candidate> Sequence for Vec<C> {
    type Item = C;

    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, position: usize) -> Option<&C> {
        self.as_slice().get(position)
    }

    fn iter(&self) -> impl Iterator<Item = &C> {
        self.as_slice().iter()
    }
}

impl<S: Sequence> Candidates for BTreeMap<Datacenter, S> {
    type Item = S::Item;
    type Sequence = S;

    fn within(&self, datacenter: &Datacenter) -> Option<(&Datacenter, &S)> {
        self.get_key_value(datacenter)
    }

    fn datacenters(&self) -> impl Iterator<Item = (&Datacenter, &S)> {
        self.iter()
    }
}
