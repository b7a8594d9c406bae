//! The directory: the index of everything that live nodes offer.
//!
//! Its input is what this node knows of each node: generation, datacenter, state and manifest. Readers get
//! [`Listings`], which they keep without a lock. The outputs tell watchers what has changed, and callers which of
//! their pending calls cannot be answered any more.
//!
//! A node is listed as long as it is live
//! ([`PeerState::is_live`](crate::protocol::state::PeerState::is_live)). The directory does not judge nodes, and it
//! believes what a node says of its own offers.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::manifest::{Manifest, Offered};
use crate::protocol::{
    entry::Value,
    hash::hash,
    id::{Datacenter, Generation, NodeId},
    state::PeerState,
};

mod candidates;
mod difference;
mod known;
mod listing;
mod provider;
mod providers;
mod step;
#[cfg(test)]
mod tests;

use self::known::{Known, Phase, Shown};
pub use self::{
    difference::{Difference, difference},
    listing::{Listing, Listings},
    provider::Provider,
    providers::Providers,
    step::{DirectoryOutput, Gone, Seen, Standing},
};

/// The index of everything that live nodes offer.
#[derive(Debug, Default)]
pub struct Directory {
    nodes: BTreeMap<NodeId, Known>,
    listings: Listings,
}

impl Directory {
    /// Takes what is known of a node now; `None` if it was forgotten. What is known already has no effect, and
    /// neither has an earlier generation than one that was seen before, until the node is forgotten.
    ///
    /// It changes the listing of each of the node's offers that changed, and compares each of the others. A manifest is
    /// decoded when its bytes change.
    pub fn update(
        &mut self,
        node: &NodeId,
        seen: Option<Seen<'_>>,
        out: &mut Vec<DirectoryOutput>,
    ) {
        match (self.nodes.get(node), seen) {
            (None, None) => {}
            (Some(known), Some(seen)) if known.covers(&seen) => {}
            (_, Some(seen)) => self.see(node, &seen, out),
            (Some(_), None) => self.forget(node, out),
        }
    }

    /// All offers of live nodes as they are now.
    #[must_use]
    pub fn listings(&self) -> Listings {
        self.listings.clone()
    }

    /// What is known of a generation of a node. Of a node that was forgotten, or that was never seen, nothing is known.
    #[must_use]
    pub fn standing(&self, node: &NodeId, generation: Generation) -> Standing {
        let Some(known) = self.nodes.get(node) else { return Standing::Unknown };
        match known.generation.cmp(&generation) {
            Ordering::Greater => Standing::Ended(Gone::Restarted),
            Ordering::Equal if known.phase == Phase::Ended => {
                Standing::Ended(Gone::because(known.state))
            }
            Ordering::Equal => Standing::Present,
            Ordering::Less => Standing::Unknown,
        }
    }

    /// Why a node serves no call of this generation any more, if it does not.
    #[must_use]
    pub fn ended(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        match self.standing(node, generation) {
            Standing::Ended(why) => Some(why),
            Standing::Present | Standing::Unknown => None,
        }
    }

    /// What is known of a node: its generation, its datacenter, its state, and what it offers.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<(Generation, &Datacenter, PeerState, &Manifest)> {
        let known = self.nodes.get(node)?;
        Some((known.generation, &known.datacenter, known.state, &known.manifest))
    }

    fn see(&mut self, node: &NodeId, seen: &Seen<'_>, out: &mut Vec<DirectoryOutput>) {
        let old = self.nodes.remove(node);
        let new = self.known(node, old.as_ref(), seen, out);
        let restarted = old.as_ref().is_some_and(|old| old.generation < new.generation);
        let why = if restarted { Gone::Restarted } else { Gone::because(new.state) };
        if let Some(old) = old.as_ref().filter(|_| restarted) {
            end(node, old, Gone::Restarted, out);
        }
        let before = old.as_ref().filter(|_| !restarted).map_or(Phase::Fresh, |old| old.phase);
        if before != Phase::Ended && new.phase == Phase::Ended {
            out.push(ended(node, new.generation, Gone::because(new.state)));
        }
        let after = new.shown(node);
        let shown = old.as_ref().map_or_else(|| after.without_offers(), |old| old.shown(node));
        self.relist(shown, after, why, out);
        if before == Phase::Away && new.phase == Phase::Live {
            let generation = new.generation;
            out.push(DirectoryOutput::Returned { node: node.clone(), generation });
        }
        self.nodes.insert(node.clone(), new);
    }

    fn forget(&mut self, node: &NodeId, out: &mut Vec<DirectoryOutput>) {
        let Some(old) = self.nodes.remove(node) else { return };
        end(node, &old, Gone::NodeForgotten, out);
        let shown = old.shown(node);
        self.relist(shown, shown.without_offers(), Gone::NodeForgotten, out);
    }

    /// What is known of a node from now on.
    fn known(
        &self,
        node: &NodeId,
        old: Option<&Known>,
        seen: &Seen<'_>,
        out: &mut Vec<DirectoryOutput>,
    ) -> Known {
        let same = old.filter(|old| old.generation == seen.generation);
        let phase = same.map_or(Phase::Fresh, |old| old.phase);
        let mut new = Known {
            hash: old.map_or_else(|| hash(node.as_str()), |old| old.hash),
            generation: seen.generation,
            datacenter: seen.datacenter.clone(),
            state: seen.state,
            phase: phase.next(seen.state),
            value: seen.manifest.cloned(),
            manifest: Arc::default(),
        };
        let unread = match old.filter(|old| old.value == new.value) {
            Some(old) => {
                new.manifest = Arc::clone(&old.manifest);
                false
            }
            None => {
                new.manifest = Arc::new(read(node, seen.manifest, out));
                true
            }
        };
        if new.phase == Phase::Live && (unread || phase != Phase::Live) {
            // Nodes that offer the same service share its name in memory.
            for offer in &mut Arc::make_mut(&mut new.manifest).offers {
                offer.name = self.listings.shared(offer.service()).name;
            }
        }
        new
    }

    /// Replaces what is listed of a node.
    fn relist(
        &mut self,
        old: Shown<'_>,
        new: Shown<'_>,
        why: Gone,
        out: &mut Vec<DirectoryOutput>,
    ) {
        let changes = out.len();
        let similar = old.looks_like(&new);
        for pair in pairs(old.offers, new.offers) {
            match pair {
                (Some(before), Some(after)) if old.is_same_offer(before, &new, after) => {
                    if !similar || before != after {
                        self.change(&old, &new, after, out);
                    }
                }
                (before, after) => {
                    if let Some(offer) = before {
                        self.leave(&old, offer, why, out);
                    }
                    if let Some(offer) = after {
                        self.join(&new, offer, out);
                    }
                }
            }
        }
        if out.len() > changes {
            self.listings.count();
        }
    }

    fn join(&mut self, new: &Shown<'_>, offer: &Offered, out: &mut Vec<DirectoryOutput>) {
        let (service, provider) = (offer.service(), new.provider(offer));
        self.listings.put(&service, provider.clone());
        out.push(DirectoryOutput::Joined(service, provider));
    }

    fn change(
        &mut self,
        old: &Shown<'_>,
        new: &Shown<'_>,
        offer: &Offered,
        out: &mut Vec<DirectoryOutput>,
    ) {
        let (service, provider) = (offer.service(), new.provider(offer));
        if old.known.datacenter != new.known.datacenter {
            self.listings.remove(&service, &old.known.datacenter, old.node);
        }
        self.listings.put(&service, provider.clone());
        out.push(DirectoryOutput::Changed(service, provider));
    }

    fn leave(
        &mut self,
        old: &Shown<'_>,
        offer: &Offered,
        why: Gone,
        out: &mut Vec<DirectoryOutput>,
    ) {
        let service = offer.service();
        self.listings.remove(&service, &old.known.datacenter, old.node);
        let (node, generation) = (old.node.clone(), old.known.generation);
        out.push(DirectoryOutput::Left { service, node, generation, epoch: offer.epoch, why });
    }
}

/// The manifest in a value; empty if there is none, or it is garbled.
fn read(node: &NodeId, value: Option<&Value>, out: &mut Vec<DirectoryOutput>) -> Manifest {
    let read = value.map_or_else(|| Ok(Manifest::default()), |value| Manifest::decode(value));
    read.unwrap_or_else(|error| {
        out.push(DirectoryOutput::BadManifest { node: node.clone(), error });
        Manifest::default()
    })
}

/// The generation that was known has ended, unless it had ended before.
fn end(node: &NodeId, known: &Known, why: Gone, out: &mut Vec<DirectoryOutput>) {
    if known.phase != Phase::Ended {
        out.push(ended(node, known.generation, why));
    }
}

fn ended(node: &NodeId, generation: Generation, why: Gone) -> DirectoryOutput {
    DirectoryOutput::Ended { node: node.clone(), generation, why }
}

/// The offers of both, in their order; those of the same service as a pair.
fn pairs<'a>(
    old: &'a [Offered],
    new: &'a [Offered],
) -> impl Iterator<Item = (Option<&'a Offered>, Option<&'a Offered>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.key().cmp(&new.key()),
        };
        Some((
            if order.is_le() { old.next() } else { None },
            if order.is_ge() { new.next() } else { None },
        ))
    })
}
