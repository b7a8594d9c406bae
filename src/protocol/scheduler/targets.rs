//! The peers with which exchanges are under way, and those with which exchanges have failed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{RngExt, rngs::SmallRng};

use crate::protocol::{gate::Kind, id::NodeId, route::Target, time::Time};

/// Most exchanges under way at once that the node itself began.
pub const IN_FLIGHT_MAX: usize = 64;

/// The results of exchanges, by the peers with which they were begun.
#[derive(Debug, Default)]
pub(super) struct Targets {
    in_flight: BTreeMap<Target, InFlight>,
    failures: BTreeMap<Target, Failures>,
    /// Those that were too busy, and when they may be tried again.
    put_off: BTreeMap<Target, Time>,
    /// The node that answered at an address, possibly this one, and when.
    answered: BTreeMap<String, (NodeId, Time)>,
    /// The last known addresses of the peers that were forgotten last: they may have forgotten us as well.
    remembered: VecDeque<(NodeId, String)>,
}

/// An exchange under way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    kind: Kind,
    /// In plain time and in served time.
    begun: Time,
    served: Time,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Time,
    /// The random share of the wait, so that nodes that failed together try at different times.
    jitter: f64,
}

/// The unit of the wait after a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between two rounds.
    pub(super) interval: Duration,
    /// Too few peers are live, or there is no connection: a seed may be the only way.
    pub(super) short: bool,
}

impl Targets {
    /// An exchange begins. `served`: the present served time.
    pub(super) fn begin(&mut self, now: Time, served: Time, kind: Kind, target: Target) {
        self.in_flight.insert(target, InFlight { kind, begun: now, served });
    }

    /// How many exchanges of this kind are under way that have begun within this time.
    pub(super) fn under_way(&self, now: Time, kind: Kind, within: Duration) -> usize {
        let counts = |one: &&InFlight| one.kind == kind && now.since(one.begun) < within;
        self.in_flight.values().filter(counts).count()
    }

    /// How many exchanges may still be begun.
    pub(super) fn room(&self) -> usize {
        IN_FLIGHT_MAX.saturating_sub(self.in_flight.len())
    }

    /// The peers with which exchanges are under way.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Target> {
        self.in_flight.keys()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn is_in_flight(&self, target: &Target) -> bool {
        self.in_flight.contains_key(target)
    }

    /// Exchanges whose end was not reported do not count any more.
    pub(super) fn expire(&mut self, now: Time, served: Time, timeout: Duration) {
        self.put_off.retain(|_, until| now < *until);
        self.in_flight.retain(|_, one| served.since(one.served) < timeout);
    }

    /// It is tried again at this time.
    pub(super) fn put_off(&mut self, target: Target, until: Time) {
        self.put_off.insert(target, until);
    }

    /// The ends of the exchanges under way will not be reported.
    pub(super) fn interrupt(&mut self) {
        self.in_flight.clear();
    }

    /// An exchange has ended.
    pub(super) fn ended(&mut self, target: &Target) {
        self.in_flight.remove(target);
    }

    /// This node answers at an address.
    pub(super) fn answered(&mut self, now: Time, address: String, node: NodeId) {
        self.answered.insert(address, (node, now));
    }

    /// The node that answered at an address last, and when.
    pub(super) fn answerer(&self, address: &str) -> Option<&(NodeId, Time)> {
        self.answered.get(address)
    }

    /// Whether any node has ever answered at an address.
    pub(super) fn has_answered(&self, address: &str) -> bool {
        self.answered.contains_key(address)
    }

    /// It may be tried at any time.
    pub(super) fn succeeded(&mut self, target: &Target) {
        self.failures.remove(target);
    }

    /// It is tried again later.
    pub(super) fn failed(&mut self, now: Time, target: Target, rng: &mut SmallRng) {
        let count = self.failures.get(&target).map_or(0, |failures| failures.count) + 1;
        let jitter = rng.random_range(0.5..1.0);
        self.failures.insert(target, Failures { count, last: now, jitter });
    }

    /// The known state of a peer has changed.
    pub(super) fn reached(&mut self, node: NodeId) {
        self.remembered.retain(|(known, _)| *known != node);
        self.failures.remove(&Target::Peer(node));
    }

    /// A peer is forgotten.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.failures.remove(&Target::Peer(node.clone()));
    }

    /// Two nodes that have forgotten each other would not meet again if all seeds are gone.
    pub(super) fn remember(&mut self, node: &NodeId, addresses: Vec<String>, seeds: &[String]) {
        self.remembered.retain(|(known, _)| known != node);
        self.remembered.extend(addresses.into_iter().map(|address| (node.clone(), address)));
        while self.remembered.len() > REMEMBERED_MAX {
            let Some((_, address)) = self.remembered.pop_front() else { break };
            if !seeds.contains(&address) {
                self.answered.remove(&address);
                self.failures.remove(&Target::Address(address));
            }
        }
    }

    /// The last known addresses of the forgotten peers.
    pub(super) fn remembered(&self) -> impl Iterator<Item = &String> {
        self.remembered.iter().map(|(_, address)| address)
    }

    /// Whether no exchange with it is under way, and none has failed recently.
    pub(super) fn is_free(&self, now: Time, target: &Target, pace: Pace) -> bool {
        !self.in_flight.contains_key(target)
            && self.put_off.get(target).is_none_or(|until| *until <= now)
            && self
                .failures
                .get(target)
                .is_none_or(|failures| now.since(failures.last) >= failures.back_off(target, pace))
    }
}

impl Failures {
    /// How long to wait after the last one.
    fn back_off(self, target: &Target, pace: Pace) -> Duration {
        let doublings = match target {
            Target::Peer(_) => PEER_DOUBLINGS_MAX,
            Target::Address(_) if pace.short => NEEDED_SEED_DOUBLINGS_MAX,
            Target::Address(_) => SEED_DOUBLINGS_MAX,
        };
        let rounds = 1_u32 << (self.count - 1).min(doublings);
        (pace.interval * rounds).mul_f64(self.jitter)
    }
}

/// Addresses of forgotten peers that are tried like seeds.
const REMEMBERED_MAX: usize = 64;
/// A peer that fails is tried again after at most 4 rounds.
const PEER_DOUBLINGS_MAX: u32 = 2;
/// A seed that fails is tried again after at most 4 rounds while too few peers are live, since it may be the
/// only way, and after at most 32 rounds otherwise.
const NEEDED_SEED_DOUBLINGS_MAX: u32 = 2;
const SEED_DOUBLINGS_MAX: u32 = 5;
