//! The reports of storage about a member: what they change in the record of that peer, and the state that follows.

use std::sync::Arc;

use super::lives::{Ahead, Lives, Peer};
use crate::protocol::{
    id::{Generation, NodeId},
    record::Status,
    state::PeerState,
    time::Time,
    verdict::{Level, Verdict},
    watch::Watch,
};

/// The report of storage about a member.
pub(super) struct Told {
    pub(super) generation: Generation,
    pub(super) status: Status,
    pub(super) verdict: Verdict,
    pub(super) observers: Arc<[NodeId]>,
}

/// What a report has changed in the record of a peer.
pub(super) struct Taken {
    /// The peer was known before.
    pub(super) known: bool,
    /// It is in a later generation than before.
    pub(super) renewed: bool,
    /// The earlier reports about it do not count any more.
    pub(super) refuted: bool,
    /// The report is worse than the earlier ones, or replaces them.
    pub(super) graver: bool,
    /// The state of the peer before the report, and since when.
    pub(super) state: PeerState,
    pub(super) since: Time,
    /// The worst that is reported of it now.
    pub(super) level: Level,
}

impl Lives {
    /// Records a report. `None` if the peer was heard in a later generation: then the report is kept beside.
    pub(super) fn take_report(&mut self, now: Time, node: &NodeId, told: &Told) -> Option<Taken> {
        let Told { generation, status, verdict, .. } = *told;
        let known = self.peers.contains_key(node);
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer::unheard(now, generation));
        if generation < peer.generation {
            let ahead = Ahead::of(generation, status, verdict, now);
            let known = self.ahead.entry(node.clone()).or_insert(ahead);
            if generation >= known.generation {
                *known = Ahead { heard: known.heard, ..ahead };
            }
            return None;
        }
        self.ahead.remove(node);
        let incarnation = u32::try_from(verdict.incarnation.0).unwrap_or(u32::MAX);
        let renewed = generation > peer.generation;
        let refuted = renewed || !known || incarnation > peer.incarnation;
        peer.generation = generation;
        let graver = refuted || verdict.level > peer.level;
        if refuted || incarnation == peer.incarnation {
            (peer.incarnation, peer.level) =
                (incarnation, if refuted { verdict.level } else { peer.level.max(verdict.level) });
        }
        let (state, level, since) = (peer.state, peer.level, peer.since);
        if renewed {
            self.changed.insert(node.clone());
        }
        Some(Taken { known, renewed, refuted, graver, state, since, level })
    }
}

/// The next state of a peer that is new, has a new generation, or has refuted a suspicion.
pub(super) fn absolved(
    now: Time,
    state: PeerState,
    renewed: bool,
    known: bool,
    watch: Option<&mut Watch>,
) -> PeerState {
    let over = matches!(state, PeerState::Dead | PeerState::Left);
    match watch {
        // Others have heard it.
        None => PeerState::Live,
        Some(_) if !known || (renewed && over) => PeerState::Unheard,
        // The suspicion was of another generation: this one is not convicted for it.
        Some(_) if renewed && state == PeerState::Suspect => PeerState::Live,
        Some(_) if renewed => state,
        Some(watch) => {
            if matches!(state, PeerState::Suspect | PeerState::Dead) {
                watch.vouched(now);
                PeerState::Live
            } else {
                state
            }
        }
    }
}

/// The next state of a peer that others accuse. A peer that this node hears at this moment stays live. A peer
/// that is suddenly reported dead, after a partition or by a node that could not be heard for a while,
/// becomes a suspect first, unless the report was `told` in time: a peer is not dead before it had time to
/// refute that.
pub(super) const fn accused(state: PeerState, level: Level, told: bool, hears: bool) -> PeerState {
    match (state, level) {
        (PeerState::Live | PeerState::Suspect, Level::Dead) if hears => state,
        (PeerState::Unheard | PeerState::Live | PeerState::Suspect, Level::Dead) if !told => {
            PeerState::Suspect
        }
        (PeerState::Unheard | PeerState::Live, Level::Suspect) => PeerState::Suspect,
        (PeerState::Unheard | PeerState::Live | PeerState::Suspect, Level::Dead) => PeerState::Dead,
        (_, Level::Alive | Level::Suspect)
        | (PeerState::Unreachable | PeerState::Dead | PeerState::Left, _) => state,
    }
}
