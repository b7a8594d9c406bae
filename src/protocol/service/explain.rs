//! Why a caller picks a provider or not, for people: the rules of [`balance`](super::balance) without its figures.

use super::{
    balance::{Balance, NEAR_MIN},
    directory::{Listing, Provider},
};

/// Whether calls of this node go to a provider, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It gets calls.
    Picked,
    /// It is suspect, and gets calls since there is no other one.
    LastResort,
    /// It takes no new calls.
    Draining,
    /// It is suspect, and others are not.
    Suspect,
    /// It is in another datacenter, and enough nodes are nearer.
    Farther {
        /// How many that get calls are nearer.
        nearer: usize,
    },
}

/// The providers, the nearest datacenter first, each with the verdict of a caller that prefers the nearest and has called
/// nothing yet. A caller that has made calls also knows which providers were overloaded.
#[must_use]
pub fn explain<'a>(listing: &'a Listing, balance: &Balance) -> Vec<(&'a Provider, Verdict)> {
    let mut all = Vec::with_capacity(listing.len());
    let mut nearer = 0;
    for providers in balance.order(listing) {
        let before = nearer;
        for provider in providers.iter() {
            let verdict = match provider {
                _ if provider.draining => Verdict::Draining,
                _ if provider.suspect => Verdict::Suspect,
                _ if before >= NEAR_MIN => Verdict::Farther { nearer: before },
                _ => Verdict::Picked,
            };
            nearer += usize::from(verdict == Verdict::Picked);
            all.push((provider, verdict));
        }
    }
    if nearer == 0 {
        let suspects = all.iter_mut().filter(|(_, verdict)| *verdict == Verdict::Suspect);
        suspects.for_each(|(_, verdict)| *verdict = Verdict::LastResort);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        id::{Datacenter, Generation, NodeId},
        service::{ServiceId, ServiceName, directory::Listings},
    };

    fn verdicts(providers: &[(&str, &str, &str)]) -> Vec<(String, Verdict)> {
        let stock = ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 };
        let mut listings = Listings::default();
        for (node, datacenter, state) in providers {
            let provider = Provider {
                node: NodeId::new(node).unwrap(),
                generation: Generation(1),
                datacenter: Datacenter::new(datacenter).unwrap(),
                minor: 0,
                weight: 1,
                clients: false,
                draining: *state == "draining",
                suspect: *state == "suspect",
                epoch: 1,
                hash: 0,
            };
            listings.put(&stock, provider);
        }
        let (node, home) = (NodeId::new("x").unwrap(), Datacenter::new("eu").unwrap());
        let listing = listings.get(&stock).cloned().unwrap_or_default();
        let explained = explain(&listing, &Balance::new(node, home));
        explained.into_iter().map(|(found, why)| (found.node.to_string(), why)).collect()
    }

    #[test]
    fn nobody_offers_it_and_nobody_is_picked() {
        assert_eq!(verdicts(&[]), []);
    }

    #[test]
    fn enough_nodes_nearby_leave_none_for_others() {
        let of = |name: &str, verdict| (name.to_owned(), verdict);
        let some = [("a", "eu", ""), ("b", "eu", "draining"), ("c", "us", "")];
        let expected =
            [of("a", Verdict::Picked), of("b", Verdict::Draining), of("c", Verdict::Picked)];
        assert_eq!(verdicts(&some), expected);
        let more = [("a", "eu", ""), ("b", "eu", ""), ("c", "us", ""), ("d", "us", "suspect")];
        let expected = [
            of("a", Verdict::Picked),
            of("b", Verdict::Picked),
            of("c", Verdict::Farther { nearer: 2 }),
            of("d", Verdict::Suspect),
        ];
        assert_eq!(verdicts(&more), expected);
    }

    #[test]
    fn a_suspect_one_is_called_if_there_is_no_other() {
        let of = |name: &str, verdict| (name.to_owned(), verdict);
        let some = [("a", "eu", "suspect"), ("b", "eu", "draining"), ("c", "us", "suspect")];
        let expected = [
            of("a", Verdict::LastResort),
            of("b", Verdict::Draining),
            of("c", Verdict::LastResort),
        ];
        assert_eq!(verdicts(&some), expected);
    }
}
