//! What has changed between two listings of one service.

use std::collections::{BTreeMap, BTreeSet};

use super::{listing::Listing, provider::Provider, providers::Providers, step::Gone};
use crate::protocol::id::{Datacenter, NodeId};

/// One provider that differs between two listings of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is in the later listing only.
    Joined(Provider),
    /// It has other properties in the later listing, in the same generation and epoch.
    Changed(Provider),
    /// It is in the earlier listing only. `replaced`: why, if the later listing has another offer of the same node;
    /// then [`Self::Joined`] follows. `None` if the listings do not say.
    Left {
        /// As it is in the earlier listing.
        provider: Provider,
        /// Why another offer of the node is in its place.
        replaced: Option<Gone>,
    },
}

/// What a reader of the earlier listing has to change to have the later one, by node. It compares what was copied
/// between the two, and some providers beside it.
#[must_use]
pub fn difference(before: &Listing, after: &Listing) -> Vec<Difference> {
    let (old, mut new) = unshared(before, after);
    let mut out = Vec::new();
    for (node, was) in old {
        match new.remove(node) {
            Some(is) if is == was => {}
            Some(is) if is.generation == was.generation && is.epoch == was.epoch => {
                out.push(Difference::Changed(is.clone()));
            }
            Some(is) => {
                let later = is.generation > was.generation;
                let why = if later { Gone::Restarted } else { Gone::Withdrawn };
                out.push(Difference::Left { provider: was.clone(), replaced: Some(why) });
                out.push(Difference::Joined(is.clone()));
            }
            None => out.push(Difference::Left { provider: was.clone(), replaced: None }),
        }
    }
    out.extend(new.into_values().cloned().map(Difference::Joined));
    out
}

type ByNode<'a> = BTreeMap<&'a NodeId, &'a Provider>;

/// The providers that may differ.
fn unshared<'a>(before: &'a Listing, after: &'a Listing) -> (ByNode<'a>, ByNode<'a>) {
    let names = |listing: &'a Listing| listing.datacenters().map(|(name, _)| name);
    let names: BTreeSet<&Datacenter> = names(before).chain(names(after)).collect();
    let (mut old, mut new) = (ByNode::new(), ByNode::new());
    for name in names {
        let (was, is) = Providers::unshared(before.datacenter(name), after.datacenter(name));
        old.extend(was.map(|provider| (&provider.node, provider)));
        new.extend(is.map(|provider| (&provider.node, provider)));
    }
    (old, new)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::protocol::{
        id::Generation,
        service::{ServiceId, ServiceName, directory::Listings},
    };

    fn stock() -> ServiceId {
        ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 }
    }

    fn provider(number: u32, datacenter: u32) -> Provider {
        Provider {
            node: NodeId::new(&format!("n{number}")).unwrap(),
            generation: Generation(1),
            datacenter: Datacenter::new(&format!("dc{datacenter}")).unwrap(),
            minor: 0,
            weight: 1,
            clients: false,
            draining: false,
            suspect: false,
            epoch: 1,
            hash: 0,
        }
    }

    fn listing(providers: &[Provider]) -> Listing {
        let mut listings = Listings::default();
        providers.iter().for_each(|provider| listings.put(&stock(), provider.clone()));
        listings.get(&stock()).cloned().unwrap_or_default()
    }

    #[test]
    fn equal_listings_do_not_differ() {
        let one = [provider(1, 0), provider(2, 1)];
        assert_eq!(difference(&listing(&one), &listing(&one)), []);
        assert_eq!(difference(&Listing::default(), &Listing::default()), []);
    }

    #[test]
    fn an_offer_in_the_place_of_another_one_leaves_and_joins() {
        let was = provider(1, 0);
        for (generation, epoch, why) in [(1, 2, Gone::Withdrawn), (2, 1, Gone::Restarted)] {
            let is = Provider { generation: Generation(generation), epoch, ..was.clone() };
            let left = Difference::Left { provider: was.clone(), replaced: Some(why) };
            let found = difference(&listing(slice::from_ref(&was)), &listing(slice::from_ref(&is)));
            assert_eq!(found, [left, Difference::Joined(is)]);
        }
    }

    #[test]
    fn an_offer_that_moves_to_another_datacenter_changes() {
        let (was, is) = (provider(1, 0), provider(1, 1));
        let found = difference(&listing(&[was]), &listing(slice::from_ref(&is)));
        assert_eq!(found, [Difference::Changed(is)]);
    }

    #[test]
    fn applying_the_difference_gives_the_later_listing() {
        for seed in 0..5 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut listings = Listings::default();
            let mut model = BTreeMap::new();
            let mut before = Listing::default();
            for step in 0..1_000 {
                let number = rng.random_range(0..300);
                let provider =
                    Provider { weight: rng.random_range(1..4), ..provider(number, number % 3) };
                if rng.random_bool(if step < 500 { 0.8 } else { 0.3 }) {
                    listings.put(&stock(), provider);
                } else {
                    listings.remove(&stock(), &provider.datacenter, &provider.node);
                }
                if step % 7 > 0 {
                    continue;
                }
                let after = listings.get(&stock()).cloned().unwrap_or_default();
                for difference in difference(&before, &after) {
                    match difference {
                        Difference::Joined(provider) => {
                            assert!(model.insert(provider.node.clone(), provider).is_none());
                        }
                        Difference::Changed(provider) => {
                            assert!(model.insert(provider.node.clone(), provider).is_some());
                        }
                        Difference::Left { provider, replaced } => {
                            assert_eq!(
                                (model.remove(&provider.node), replaced),
                                (Some(provider), None)
                            );
                        }
                    }
                }
                let sorted: BTreeMap<_, _> =
                    after.iter().map(|p| (p.node.clone(), p.clone())).collect();
                assert_eq!(model, sorted, "SEED={seed} step {step}");
                before = after;
            }
        }
    }
}
