//! A report about a member changes the state of that peer.

use super::{
    Liveness,
    announcing::renew,
    report::{Taken, Told, absolved, accused},
};
use crate::protocol::{
    id::NodeId, reason::Cause, record::Status, route::Output, state::PeerState, time::Time,
    verdict::Level,
};

impl Liveness {
    /// Storage reports about a member.
    pub(super) fn member(&mut self, now: Time, node: &NodeId, told: Told, out: &mut Vec<Output>) {
        let role = self.ears.role(node);
        if let Some(judged) = role
            && !self.ears.contains(node)
        {
            self.ears.listen(now, node, judged);
        }
        let Some(taken) = self.lives.take_report(now, node, &told) else { return };
        let Told { status, verdict, observers, .. } = told;
        let Taken { known, renewed, refuted, graver, state, level, since } = taken;
        if renewed && let Some(watch) = self.ears.get_mut(node) {
            watch.renew(now, self.config.heartbeat_interval);
        }
        if refuted {
            self.asking.drop(node);
        }
        let came_back = status != Status::Left && state == PeerState::Left;
        let (next, cause) = if status == Status::Left {
            (PeerState::Left, Cause::Left)
        } else if refuted && verdict.level == Level::Alive {
            let next = absolved(now, state, renewed, known, self.ears.get_mut(node));
            if matches!(state, PeerState::Suspect | PeerState::Dead) && next == PeerState::Live {
                out.push(renew(node));
            }
            let cause = match (known, renewed) {
                (false, _) => Cause::Vouched,
                (_, true) => Cause::Renewed,
                (_, false) => Cause::Refuted,
            };
            (next, cause)
        } else if came_back {
            (if role.is_some() { PeerState::Unheard } else { PeerState::Live }, Cause::Renewed)
        } else if graver {
            let hears = self.ears.get(node).is_some_and(|w| w.hears(now, &self.scale()));
            let suspected = now.since(since) >= self.config.suspicion / 2;
            let told = !known || (state == PeerState::Suspect && suspected);
            // No observer stands for it: it comes from a node that was alone, or cut off.
            let hearsay = level == Level::Suspect && observers.is_empty();
            let next = if hears && hearsay { state } else { accused(state, level, told, hears) };
            (next, Cause::Told)
        } else {
            (state, Cause::Told)
        };
        if refuted && (state, next) == (PeerState::Suspect, PeerState::Suspect) {
            // The peer has refuted the previous report, though this node did not receive that: its time
            // starts again.
            if let Some(peer) = self.lives.peers.get_mut(node) {
                peer.since = now;
                self.lives.changed.insert(node.clone());
            }
        }
        self.enter(now, node, next, cause, observers, out);
        self.lives.note_defiance(node);
    }
}
