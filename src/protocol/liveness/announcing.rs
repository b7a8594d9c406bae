//! What others learn of a peer's state: the scheduler, the transport, the subscribers.

use std::sync::Arc;

use crate::protocol::{
    event::Event,
    id::NodeId,
    reason::Reason,
    route::{Counter, Output, Reach, SchedulerInput, TransportInput},
    state::PeerState,
};

pub(super) fn witness(node: &NodeId, heard: bool) -> Output {
    Output::Scheduler(SchedulerInput::Witness { peer: node.clone(), heard })
}

/// It lives, and is not heard here: the reason may be its connection, which has backed off during an outage
/// and is still waiting.
pub(super) fn renew(node: &NodeId) -> Output {
    Output::Transport(TransportInput::Renew(vec![node.clone()]))
}

/// Informs the scheduler and the subscribers.
pub(super) fn tell_state(
    node: &NodeId,
    before: PeerState,
    next: PeerState,
    reason: Arc<Reason>,
    out: &mut Vec<Output>,
) {
    let reach = match next {
        PeerState::Unheard => Reach::Unheard,
        PeerState::Live | PeerState::Suspect | PeerState::Unreachable => Reach::Live,
        PeerState::Dead | PeerState::Left => Reach::Dead,
    };
    if !matches!(
        (before, next),
        (PeerState::Live, PeerState::Suspect)
            | (PeerState::Suspect, PeerState::Live)
            | (PeerState::Dead, PeerState::Left)
    ) {
        out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), reach)));
    }
    if (before == PeerState::Suspect) != (next == PeerState::Suspect) {
        let suspected = next == PeerState::Suspect;
        out.push(Output::Scheduler(SchedulerInput::Suspected(node.clone(), suspected)));
    }
    let peer = node.clone();
    match next {
        PeerState::Unheard | PeerState::Unreachable => {}
        PeerState::Live => out.push(Output::Event(Event::PeerLive { peer, reason })),
        PeerState::Suspect => {
            out.push(Output::Count(Counter::PeersSuspected, 1));
            out.push(Output::Event(Event::PeerSuspect { peer, reason }));
        }
        PeerState::Dead => out.push(Output::Event(Event::PeerDead { peer, reason })),
        PeerState::Left => out.push(Output::Event(Event::PeerLeft { peer, reason })),
    }
}
