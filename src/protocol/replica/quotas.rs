//! Limits of the work that peers may cause in a while: each item is work for many nodes and costs its sender
//! little.

use std::collections::BTreeMap;

use super::gating::Gating;
use crate::protocol::{bucket::Bucket, digest::PEERS_MAX, id::NodeId, time::Time};

/// Generations of one node that are taken up in a minute. Each is verified, stored and sent to all nodes. One
/// that comes sooner is ignored, and comes with the next exchange.
pub const LIVES_PER_MINUTE: u32 = 12;
/// This many may be saved up: a process that ends at once is restarted some times in a row.
pub const LIVES_SAVED_MAX: u32 = 24;
/// Verdicts on others, beyond those with which a node is introduced, that are taken over from the updates of
/// one peer in a second. A node that is suspected or called dead refutes it, and that floods: without a limit
/// one frame about all nodes makes each of them flood. Verdicts that come sooner come with later exchanges;
/// an accusation with its observers is not counted here.
pub const VERDICTS_PER_SECOND: u32 = 64;
/// This many may be saved up: a lost datacenter causes many at once.
pub const VERDICTS_SAVED_MAX: u32 = 256;
/// Signed heads of this node's own name that are verified in a second for one peer. An honest peer shows at
/// most one with each exchange; those that come sooner count as hearsay.
pub const OWN_HEADS_PER_SECOND: u32 = 4;
/// This many may be saved up.
pub const OWN_HEADS_SAVED_MAX: u32 = 8;

/// Accusations of others that are passed on for one peer in a second. Every node that receives one passes it
/// on, and the accused answers to all nodes. Accusations that come sooner come with later exchanges.
pub const ACCUSATIONS_PER_SECOND: u32 = 64;
/// This many may be saved up: a lost datacenter causes many at once.
pub const ACCUSATIONS_SAVED_MAX: u32 = 4_096;
/// Answers in a second to one peer whose sum of the revocations differs: each has all of them.
pub const REVOCATIONS_PER_SECOND: u32 = 1;
/// This many may be saved up.
pub const REVOCATIONS_SAVED_MAX: u32 = 4;
/// Waves that are passed on for one peer in a second: half of all.
pub const WAVES_PER_PEER: u32 = crate::protocol::wave::WAVES_PER_SECOND / 2;
/// Questions and answers that are passed on for one peer in a second: half of all.
pub const RELAYS_PER_PEER: u32 = 250;

/// The kinds of work that one peer may cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quota {
    /// Verdicts on others that are taken over from its updates.
    Verdicts,
    /// Signed heads of this node's own name that are verified. A peer that shows many does not prevent the
    /// proof of another peer from being seen.
    OwnHeads,
    /// Accusations of others that are passed on.
    Accusations,
    /// Answers with all revocations.
    Revocations,
    /// Waves that are joined.
    Waves,
    /// Questions and answers that are passed on.
    Relays,
}

impl Quota {
    /// How many kinds there are.
    const KINDS: usize = 6;

    /// How many in a second, and how many are saved up at most.
    const fn limits(self) -> (u32, u32) {
        match self {
            Self::Verdicts => (VERDICTS_PER_SECOND, VERDICTS_SAVED_MAX),
            Self::OwnHeads => (OWN_HEADS_PER_SECOND, OWN_HEADS_SAVED_MAX),
            Self::Accusations => (ACCUSATIONS_PER_SECOND, ACCUSATIONS_SAVED_MAX),
            Self::Revocations => (REVOCATIONS_PER_SECOND, REVOCATIONS_SAVED_MAX),
            Self::Waves => (WAVES_PER_PEER, WAVES_PER_PEER),
            Self::Relays => (RELAYS_PER_PEER, RELAYS_PER_PEER),
        }
    }
}

/// Most nodes of each that have used some recently: as many as may be known.
const SPENDERS_MAX: usize = PEERS_MAX;

/// By peer; a peer that has used none recently is not in it.
#[derive(Debug)]
pub(super) struct Quotas {
    lives: BTreeMap<NodeId, Bucket>,
    peers: BTreeMap<(Quota, NodeId), Bucket>,
    /// What this node itself may begin.
    pub(super) gating: Gating,
}

impl Quotas {
    /// All is left.
    pub(super) const fn new(gating: Gating) -> Self {
        Self { lives: BTreeMap::new(), peers: BTreeMap::new(), gating }
    }

    /// Whether another generation of this node may be taken up.
    pub(super) fn may_begin(&self, now: Time, node: &NodeId) -> bool {
        match self.lives.get(node) {
            Some(saved) => saved.holds(now, LIFE_RATE, 1.0),
            None => self.lives.len() < SPENDERS_MAX,
        }
    }

    /// Another generation of this node was taken up. A refused generation does not count: an attacker that
    /// invents one must not keep the node from beginning its own.
    pub(super) fn began(&mut self, now: Time, node: &NodeId) {
        if self.lives.len() >= SPENDERS_MAX && !self.lives.contains_key(node) {
            return;
        }
        let most = f64::from(LIVES_SAVED_MAX);
        let saved = self.lives.entry(node.clone()).or_insert_with(|| Bucket::holding(now, most));
        saved.pays_of(now, LIFE_RATE, most);
    }

    /// Whether this peer may cause it once more; counts it.
    pub(super) fn may(&mut self, now: Time, quota: Quota, from: &NodeId) -> bool {
        let (rate, most) = quota.limits();
        let (rate, most) = (f64::from(rate), f64::from(most));
        let key = (quota, from.clone());
        let spenders = SPENDERS_MAX * Quota::KINDS;
        if self.peers.len() >= spenders && !self.peers.contains_key(&key) {
            return false;
        }
        let saved = self.peers.entry(key).or_insert_with(|| Bucket::holding(now, most));
        saved.pays_of(now, rate, most)
    }

    /// Drops entries without effect: nodes that are not known, and peers that have saved up all.
    pub(super) fn tidy(&mut self, now: Time) {
        self.lives.retain(|_, saved| !saved.holds(now, LIFE_RATE, f64::from(LIVES_SAVED_MAX)));
        self.peers.retain(|(quota, _), saved| {
            let (rate, most) = quota.limits();
            !saved.holds(now, f64::from(rate), f64::from(most))
        });
    }
}

const LIFE_RATE: f64 = LIVES_PER_MINUTE as f64 / 60.0;
