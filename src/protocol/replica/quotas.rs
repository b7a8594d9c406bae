//! What others may have this node do in a while: each of it is work for many that costs who asks little.

use std::collections::BTreeMap;

use crate::protocol::{bucket::Bucket, digest::PEERS_MAX, id::NodeId, time::Time};

/// Lives of one node that are taken up in a minute. Each is verified, stored and told to everybody. What
/// comes sooner is ignored, and comes with the next exchange.
pub const LIVES_PER_MINUTE: u32 = 12;
/// So many may be saved up: a process that ends at once is restarted some times in a row.
pub const LIVES_SAVED_MAX: u32 = 24;
/// Verdicts about others, beyond those that a node is introduced with, that are taken over from the news
/// of one peer in a second. Whoever is suspected or called dead refutes it, and that floods: without a
/// limit one frame about all nodes makes each of them flood. What comes sooner comes with later
/// exchanges; an accusation with its observers is not counted here.
pub const VERDICTS_PER_SECOND: u32 = 64;
/// So many may be saved up: a lost datacenter causes many at once.
pub const VERDICTS_SAVED_MAX: u32 = 256;
/// Signed heads of this node's own name that are verified in a second for one peer. An honest peer shows one
/// with each exchange at most; what comes sooner counts as hearsay.
pub const OWN_HEADS_PER_SECOND: u32 = 4;
/// So many may be saved up.
pub const OWN_HEADS_SAVED_MAX: u32 = 8;

/// Accusations of others that are passed on for one peer in a second. Every node that receives one passes it on, and
/// the accused answers to everybody. What comes sooner comes with later exchanges.
pub const ACCUSATIONS_PER_SECOND: u32 = 64;
/// So many may be saved up: a lost datacenter causes many at once.
pub const ACCUSATIONS_SAVED_MAX: u32 = 4_096;
/// Answers to one peer in a second that says another sum of the revocations: each tells all of them.
pub const REVOCATIONS_PER_SECOND: u32 = 1;
/// So many may be saved up.
pub const REVOCATIONS_SAVED_MAX: u32 = 4;
/// Waves that one peer may have passed on in a second: half of all.
pub const WAVES_PER_PEER: u32 = crate::protocol::wave::WAVES_PER_SECOND / 2;
/// Questions and answers that are passed on for one peer in a second: half of all.
pub const RELAYS_PER_PEER: u32 = 250;

/// What one peer may have this node do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quota {
    /// Verdicts about others that are taken over from its news.
    Verdicts,
    /// Signed heads of this node's own name that are verified. One peer that shows many does not keep
    /// what another one proves from being seen.
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

/// Most nodes of each that have spent something lately: as many as may be known.
const SPENDERS_MAX: usize = PEERS_MAX;

/// By whom; who has spent nothing lately is not in it.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    lives: BTreeMap<NodeId, Bucket>,
    peers: BTreeMap<(Quota, NodeId), Bucket>,
}

impl Quotas {
    /// Whether another life of this node may be taken up.
    pub(super) fn may_begin(&self, now: Time, node: &NodeId) -> bool {
        match self.lives.get(node) {
            Some(saved) => saved.holds(now, LIFE_RATE, 1.0),
            None => self.lives.len() < SPENDERS_MAX,
        }
    }

    /// Another life of this node was taken up. A life that was refused does not count: who makes one up
    /// must not keep the node from beginning its own.
    pub(super) fn began(&mut self, now: Time, node: &NodeId) {
        if self.lives.len() >= SPENDERS_MAX && !self.lives.contains_key(node) {
            return;
        }
        let most = f64::from(LIVES_SAVED_MAX);
        let saved = self.lives.entry(node.clone()).or_insert_with(|| Bucket::holding(now, most));
        saved.pays_of(now, LIFE_RATE, most);
    }

    /// Whether this peer may have it done once more; counts it.
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

    /// Drops what says nothing any more: nodes that are not known, and peers that have saved all.
    pub(super) fn tidy(&mut self, now: Time) {
        self.lives.retain(|_, saved| !saved.holds(now, LIFE_RATE, f64::from(LIVES_SAVED_MAX)));
        self.peers.retain(|(quota, _), saved| {
            let (rate, most) = quota.limits();
            !saved.holds(now, f64::from(rate), f64::from(most))
        });
    }
}

const LIFE_RATE: f64 = LIVES_PER_MINUTE as f64 / 60.0;
