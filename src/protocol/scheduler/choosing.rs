//! Whom to try besides the neighbours: peers far away or dead, seeds, other nodes of a silent datacenter.

use std::collections::BTreeSet;

use rand::{
    RngExt,
    seq::{IndexedRandom, IteratorRandom},
};

use super::{Scheduler, targets::Pace};
use crate::protocol::{
    id::NodeId,
    overlay::Overlay,
    route::{Reach, Target},
    time::Time,
};

impl Scheduler {
    pub(super) fn some_live_if_lonely(&mut self, now: Time) -> BTreeSet<Target> {
        if !self.links.is_empty() || self.members.live_count() == 0 {
            return BTreeSet::new();
        }
        let live = self.members.live();
        let live = live.map(|(node, _)| Target::Peer(node.clone()));
        let free: Vec<_> = live.filter(|target| self.is_free(now, target)).collect();
        free.into_iter().sample(&mut self.rng, self.config.gossip_fanout).into_iter().collect()
    }

    pub(super) fn maybe_dead(&mut self, now: Time) -> Option<Target> {
        let dead = self.members.dead();
        if dead.is_empty() {
            return None;
        }
        let chance = (dead.len() as f64 / (self.members.live_count() as f64 + 1.0)).min(1.0);
        if !self.rng.random_bool(chance) {
            return None;
        }
        let some = dead.iter().sample(&mut self.rng, DEAD_TRIES);
        let mut some = some.into_iter().map(|node| Target::Peer(node.clone()));
        some.find(|target| self.is_free(now, target))
    }

    /// A live peer that neither we nor our neighbours are likely to exchange with, now and then in another
    /// datacenter: the bridges compare state there every round, and as long as the connection lasts updates
    /// take that way as well.
    pub(super) fn maybe_distant(&mut self, now: Time) -> Option<Target> {
        if !self.islands.is_distant_due(now, self.config.gossip_interval, &mut self.rng) {
            return None;
        }
        let live = self.members.live();
        let anywhere = self.rng.random_ratio(1, DISTANT_ABROAD);
        let here = Overlay::HOME;
        let distant = live
            .filter(|(node, peer)| (anywhere || peer.datacenter == here) && !self.links.has(node));
        let (node, _) = distant.choose(&mut self.rng)?;
        let target = Target::Peer(node.clone());
        self.islands.ask(node.clone());
        self.is_free(now, &target).then_some(target)
    }

    pub(super) fn maybe_seed(&mut self, now: Time) -> Option<Target> {
        let short = self.is_short();
        if !self.islands.is_seed_due(now, self.config.seed_interval, &mut self.rng) && !short {
            return None;
        }
        let candidates = self.config.candidates.iter().filter(|_| short);
        let remembered = self.targets.remembered();
        let addresses = self.config.seeds.iter().chain(candidates).chain(remembered);
        let free: Vec<_> = addresses
            .filter(|address| !self.is_taken(now, address))
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.choose(&mut self.rng).cloned()
    }

    /// Where no neighbour is heard: another node there that may be live. Where one of two is missed: the
    /// other one, and if that one has answered, the missed one.
    pub(super) fn somebody_else_abroad(&mut self, now: Time) -> Vec<Target> {
        let (doubted, again) = self.abroad.doubted(now, &self.members);
        let again = again.into_iter().map(|node| Target::Peer(node.clone()));
        let mut targets: Vec<_> = again.filter(|target| self.is_free(now, target)).collect();
        for place in doubted {
            let there = self.members.iter().filter(|(_, peer)| {
                peer.datacenter == place && matches!(peer.reach, Some(Reach::Unheard | Reach::Live))
            });
            let free = there
                .map(|(node, _)| (node, Target::Peer(node.clone())))
                .filter(|(_, target)| self.is_free(now, target));
            let (missed, others): (Vec<_>, Vec<_>) =
                free.partition(|(node, _)| self.abroad.misses(node));
            let some = if others.is_empty() { missed } else { others };
            targets.extend(some.choose(&mut self.rng).map(|(_, target)| target.clone()));
        }
        targets
    }

    /// Seeds that have never answered, few at a time. Nodes that start together, each with another first
    /// seed, would otherwise stay with the first nodes that they met, and form islands for a while.
    pub(super) fn unmet_seeds(&mut self, now: Time) -> Vec<Target> {
        let unmet = self.config.seeds.iter().filter(|seed| !self.targets.has_answered(seed));
        let free: Vec<_> = unmet
            .map(|address| Target::Address(address.clone()))
            .filter(|target| self.is_free(now, target))
            .collect();
        free.into_iter().sample(&mut self.rng, UNMET_SEEDS_MAX)
    }

    /// Whether this node itself or a live member answers at an address, as of some time ago: a name may
    /// resolve to another address by now. All nodes together look about once in an interval.
    fn is_taken(&self, now: Time, address: &str) -> bool {
        let live = u32::try_from(self.members.live_count()).unwrap_or(u32::MAX);
        let believed = self.config.seed_interval.saturating_mul(live.max(ANSWER_INTERVALS_MIN));
        let taken = |(node, at): &(NodeId, Time)| {
            let live = self.members.is_live(node);
            let there = *node == self.config.node || (live && !self.links.is_empty());
            there && now.since(*at) < believed
        };
        self.targets.answerer(address).is_some_and(taken)
    }

    /// Whether an exchange with it may be begun now.
    pub(super) fn is_free(&self, now: Time, target: &Target) -> bool {
        let pace = Pace { interval: self.config.gossip_interval, short: self.is_short() };
        self.targets.is_free(now, target, pace)
    }

    pub(super) fn is_short(&self) -> bool {
        self.members.live_count() < self.config.minimum_live_peers || self.links.is_empty()
    }
}

/// Of this many peers one may be in another datacenter.
const DISTANT_ABROAD: u32 = 8;
/// The least number of intervals for which a node that answered at a seed's address is assumed to be there.
const ANSWER_INTERVALS_MIN: u32 = 10;
/// How many of the dead are examined to find one that may be tried again.
const DEAD_TRIES: usize = 4;
/// Seeds that have never answered, tried in one round.
const UNMET_SEEDS_MAX: usize = 3;
