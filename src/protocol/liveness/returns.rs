//! Peers in another generation or at another address, and two processes that use one name.

use super::Liveness;
use crate::protocol::{
    event::Event,
    id::{Generation, NodeId},
    reason::Cause,
    returning::{Return, Returned},
    route::{Counter, Output},
    state::PeerState,
    time::Time,
};

impl Liveness {
    /// A peer is in another generation, or at another address: reports anything unusual about that.
    pub(super) fn returned(
        &mut self,
        now: Time,
        node: &NodeId,
        how: &Return,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.lives.peers.get(node) else { return };
        let Return { earlier, generation, .. } = *how;
        let (known, state, interval) =
            (peer.generation, peer.state, self.config.heartbeat_interval);
        let watch = self.ears.get(node);
        let overlaps = watch.is_some_and(|watch| {
            if known == earlier { watch.is_heard_lately(now, interval) } else { watch.overlaps() }
        });
        let there = matches!(state, PeerState::Live | PeerState::Suspect) && overlaps;
        let lives = format!("generation {generation} after {earlier}");
        let place = how
            .moved
            .as_ref()
            .map(|(from, to)| format!("at {} instead of {}", to.join(", "), from.join(", ")));
        let (cause, deed) = match place {
            None => (Cause::Renewed, lives),
            Some(place) if generation > earlier => (Cause::Renewed, format!("{lives}, {place}")),
            Some(place) => (Cause::Moved, place),
        };
        self.lives.note(now, node, cause, deed.into());
        if how.had_left && how.lost > 0 {
            self.tell_return(now, node, generation, Returned::AfterLeaving, out);
        }
        if how.lost_keys {
            out.push(Output::Count(Counter::PeersBehind, 1));
            let behind = Returned::Behind { earlier, versions: how.lost };
            self.tell_return(now, node, generation, behind, out);
        }
        let elsewhere = generation > earlier && how.moved.is_some() && there;
        if how.is_conflict || elsewhere {
            out.push(Output::Count(Counter::PeersTwice, 1));
            self.tell_return(now, node, generation, Returned::Twice { earlier }, out);
        }
    }

    fn tell_return(
        &mut self,
        now: Time,
        node: &NodeId,
        generation: Generation,
        how: Returned,
        out: &mut Vec<Output>,
    ) {
        self.lives.note(now, node, how.cause(), how.detail().into());
        let peer = node.clone();
        out.push(Output::Event(Event::PeerReturned { peer, generation, how }));
    }

    /// A connection of an earlier generation than the known one is closed; if that generation is heard all
    /// the same, two processes use one name.
    pub(super) fn heard_earlier(
        &mut self,
        now: Time,
        node: &NodeId,
        earlier: Generation,
        at: Time,
        out: &mut Vec<Output>,
    ) {
        let (Some(peer), Some(watch)) = (self.lives.peers.get(node), self.ears.get_mut(node))
        else {
            return;
        };
        let generation = peer.generation;
        if watch.hears_earlier(at, self.config.heartbeat_interval) {
            out.push(Output::Count(Counter::PeersTwice, 1));
            self.tell_return(now, node, generation, Returned::Twice { earlier }, out);
        }
    }
}
