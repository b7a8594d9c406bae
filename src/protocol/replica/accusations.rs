//! What nodes are accused of: others, and this one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::protocol::{
    id::{Generation, NodeId},
    time::Time,
    verdict::Verdict,
};

/// What nodes are accused of, as far as the maps do not say it.
#[derive(Debug, Default)]
pub(super) struct Accusations {
    /// Who agreed on what is thought of a peer, as far as that was told.
    observers: BTreeMap<NodeId, (Verdict, Arc<[NodeId]>)>,
    /// What others say of this life and is not refuted yet.
    against_us: Option<(Generation, Verdict)>,
    /// When something last was.
    refuted: Option<Time>,
    /// When a life was last begun because of what others said.
    forced: Option<Time>,
}

impl Accusations {
    /// Who agreed on this verdict about a peer.
    pub(super) fn observers(&self, peer: &NodeId, verdict: Verdict) -> Arc<[NodeId]> {
        let named = self.observers.get(peer).filter(|(about, _)| *about == verdict);
        named.map_or_else(Arc::default, |(_, observers)| Arc::clone(observers))
    }

    /// These agree on what is thought of a peer.
    pub(super) fn agree(&mut self, peer: NodeId, verdict: Verdict, observers: &[NodeId]) {
        self.observers.insert(peer, (verdict, observers.into()));
    }

    /// Nobody speaks of a peer any more.
    pub(super) fn forget(&mut self, peer: &NodeId) {
        self.observers.remove(peer);
    }

    /// When what others say of this life is to be refuted.
    pub(super) fn due(&self) -> Option<Time> {
        self.against_us.and(self.refuted).map(|at| at + REFUTE_INTERVAL)
    }

    /// What others say of this life and is not refuted yet.
    pub(super) const fn take_against_us(&mut self) -> Option<(Generation, Verdict)> {
        self.against_us.take()
    }

    /// Whether something may be refuted now.
    pub(super) fn may_refute(&self, now: Time) -> bool {
        self.refuted.is_none_or(|at| now.since(at) >= REFUTE_INTERVAL)
    }

    /// What others say of this life is to be refuted later.
    pub(super) fn put_off(&mut self, generation: Generation, verdict: Verdict) {
        self.against_us = self.against_us.max(Some((generation, verdict)));
    }

    /// Whether a life may be begun because of what others say.
    pub(super) fn may_begin_life(&self, now: Time) -> bool {
        self.forced.is_none_or(|at| now.since(at) >= FORCED_INTERVAL)
    }

    /// What others say of this life is refuted now; `by_life`: by beginning another one.
    pub(super) const fn refute(&mut self, now: Time, by_life: bool) {
        self.refuted = Some(now);
        if by_life {
            self.forced = Some(now);
        }
    }
}

/// Least time between two refutations, each of which floods: a member that accuses without end is not
/// to set the pace. Between a suspicion and a conviction there are some rounds.
const REFUTE_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between two lives that this node begins because others say that it is dead in the last
/// incarnation there is: half as often as others take up new lives ([`LIVES_PER_MINUTE`]).
///
/// [`LIVES_PER_MINUTE`]: super::LIVES_PER_MINUTE
const FORCED_INTERVAL: Duration = Duration::from_secs(10);
