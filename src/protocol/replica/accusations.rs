//! The accusations of nodes: of others, and of this one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::protocol::{
    id::{Generation, NodeId},
    time::Time,
    verdict::Verdict,
};

/// The accusations of nodes, as far as the maps do not have them.
#[derive(Debug, Default)]
pub(super) struct Accusations {
    /// The observers that agreed on the verdict on a peer, as far as they were named.
    observers: BTreeMap<NodeId, (Verdict, Arc<[NodeId]>)>,
    /// The verdict of others on this generation that is not refuted yet.
    against_us: Option<(Generation, Verdict)>,
    /// When something last was.
    refuted: Option<Time>,
    /// When a generation was last begun because of a verdict of others.
    forced: Option<Time>,
}

impl Accusations {
    /// The observers that agreed on this verdict on a peer.
    pub(super) fn observers(&self, peer: &NodeId, verdict: Verdict) -> Arc<[NodeId]> {
        let named = self.observers.get(peer).filter(|(about, _)| *about == verdict);
        named.map_or_else(Arc::default, |(_, observers)| Arc::clone(observers))
    }

    /// These observers agree on the verdict on a peer.
    pub(super) fn agree(&mut self, peer: NodeId, verdict: Verdict, observers: &[NodeId]) {
        self.observers.insert(peer, (verdict, observers.into()));
    }

    /// A peer is forgotten.
    pub(super) fn forget(&mut self, peer: &NodeId) {
        self.observers.remove(peer);
    }

    /// When the verdict of others on this generation is to be refuted.
    pub(super) fn due(&self) -> Option<Time> {
        self.against_us.and(self.refuted).map(|at| at + REFUTE_INTERVAL)
    }

    /// The verdict of others on this generation that is not refuted yet.
    pub(super) const fn take_against_us(&mut self) -> Option<(Generation, Verdict)> {
        self.against_us.take()
    }

    /// Whether a verdict may be refuted now.
    pub(super) fn may_refute(&self, now: Time) -> bool {
        self.refuted.is_none_or(|at| now.since(at) >= REFUTE_INTERVAL)
    }

    /// The verdict of others on this generation is to be refuted later.
    pub(super) fn put_off(&mut self, generation: Generation, verdict: Verdict) {
        self.against_us = self.against_us.max(Some((generation, verdict)));
    }

    /// Whether a generation may be begun because of a verdict of others.
    pub(super) fn may_begin_life(&self, now: Time) -> bool {
        self.forced.is_none_or(|at| now.since(at) >= FORCED_INTERVAL)
    }

    /// The verdict of others on this generation is refuted now; `by_life`: by beginning another generation.
    pub(super) const fn refute(&mut self, now: Time, by_life: bool) {
        self.refuted = Some(now);
        if by_life {
            self.forced = Some(now);
        }
    }
}

/// Least time between two refutations, each of which floods: a member that accuses again and again must not
/// set the pace. Between a suspicion and a conviction there are some rounds.
const REFUTE_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between two generations that this node begins because others report it dead in the last
/// possible incarnation: half as often as others take up new generations ([`LIVES_PER_MINUTE`]).
///
/// [`LIVES_PER_MINUTE`]: super::LIVES_PER_MINUTE
const FORCED_INTERVAL: Duration = Duration::from_secs(10);
