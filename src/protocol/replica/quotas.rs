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
/// So many may be saved up: a datacenter that is gone is told of at once.
pub const VERDICTS_SAVED_MAX: u32 = 256;
/// Signed heads of this node's own name that are verified in a second for one peer. An honest peer shows one
/// with each exchange at most; what comes sooner counts as hearsay.
pub const OWN_HEADS_PER_SECOND: u32 = 4;
/// So many may be saved up.
pub const OWN_HEADS_SAVED_MAX: u32 = 8;

/// Most nodes of each that have spent something lately: as many as may be known.
pub(super) const SPENDERS_MAX: usize = PEERS_MAX;

/// By whom; who has spent nothing lately is not in it.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    lives: BTreeMap<NodeId, Bucket>,
    verdicts: BTreeMap<NodeId, Bucket>,
    own_heads: BTreeMap<NodeId, Bucket>,
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
        let _ = spends(&mut self.lives, now, node, LIFE_RATE, f64::from(LIVES_SAVED_MAX));
    }

    /// Whether a verdict that this peer tells may be taken over; counts it.
    pub(super) fn may_judge(&mut self, now: Time, from: &NodeId) -> bool {
        let rate = f64::from(VERDICTS_PER_SECOND);
        spends(&mut self.verdicts, now, from, rate, f64::from(VERDICTS_SAVED_MAX))
    }

    /// Whether a head of this node's own name that this peer tells may be verified; counts it. One peer
    /// that shows many does not keep what another one proves from being seen.
    pub(super) fn may_show(&mut self, now: Time, from: &NodeId) -> bool {
        let rate = f64::from(OWN_HEADS_PER_SECOND);
        spends(&mut self.own_heads, now, from, rate, f64::from(OWN_HEADS_SAVED_MAX))
    }

    /// Drops what says nothing any more: nodes that are not known, and peers that have saved all.
    pub(super) fn tidy(&mut self, now: Time) {
        self.lives.retain(|_, saved| !saved.holds(now, LIFE_RATE, f64::from(LIVES_SAVED_MAX)));
        let rate = f64::from(VERDICTS_PER_SECOND);
        self.verdicts.retain(|_, saved| !saved.holds(now, rate, f64::from(VERDICTS_SAVED_MAX)));
        let rate = f64::from(OWN_HEADS_PER_SECOND);
        self.own_heads.retain(|_, saved| !saved.holds(now, rate, f64::from(OWN_HEADS_SAVED_MAX)));
    }
}

fn spends(
    saved: &mut BTreeMap<NodeId, Bucket>,
    now: Time,
    who: &NodeId,
    rate: f64,
    most: f64,
) -> bool {
    if saved.len() >= SPENDERS_MAX && !saved.contains_key(who) {
        return false;
    }
    let saved = saved.entry(who.clone()).or_insert_with(|| Bucket::holding(now, most));
    saved.pays_of(now, rate, most)
}

const LIFE_RATE: f64 = LIVES_PER_MINUTE as f64 / 60.0;
