//! Suspicions, reports and generations whose time is over.

use std::sync::Arc;

use super::{DEFIANCE, Liveness, lives::Ahead};
use crate::protocol::{
    id::NodeId,
    reason::Cause,
    route::Output,
    state::PeerState,
    time::Time,
    verdict::Level,
    watch::{TICKS_PER_INTERVAL, Watch},
};

impl Liveness {
    /// Suspects that did not refute the suspicion in time are dead. One of their observers announces it
    /// first, so that not all do at once. Every suspicion ends, even if the accusers are gone or have no vote
    /// any more: then the other nodes declare the suspect dead, later.
    pub(super) fn convict(&mut self, now: Time, out: &mut Vec<Output>) {
        self.follow(now, out);
        let mut convicted = Vec::new();
        for node in self.lives.suspects() {
            let (watch, Some(peer)) = (self.ears.get(node), self.lives.peers.get(node)) else {
                continue;
            };
            let heard = watch.filter(|watch| !watch.is_missing()).and_then(Watch::last_heard);
            if heard.is_some_and(|at| at >= peer.since) {
                continue;
            }
            let observers = self.lives.suspected_by(node);
            let place = observers.iter().position(|observer| *observer == self.config.node);
            let place = u32::try_from(place.unwrap_or(observers.len())).unwrap_or(u32::MAX);
            let turn = self.config.heartbeat_interval / TICKS_PER_INTERVAL * place.min(TURNS_MAX);
            let patience = match watch {
                Some(watch) if watch.is_judged() => self.config.suspicion + turn,
                Some(_) | None => self.config.suspicion * DEFIANCE,
            };
            if now.since(peer.since) >= patience {
                convicted.push((node.clone(), observers));
            }
        }
        for (node, observers) in convicted {
            self.accuse(now, &node, Level::Dead, Cause::Unrefuted, observers, out);
        }
    }

    /// Peers that others declare dead had the time to refute that as well.
    fn follow(&mut self, now: Time, out: &mut Vec<Output>) {
        let silent = |node: &NodeId| self.ears.get(node).is_none_or(|w| w.is_missing());
        let due = |node: &NodeId| {
            self.lives.peers.get(node).is_some_and(|peer| {
                peer.level == Level::Dead && now.since(peer.since) >= self.config.suspicion
            })
        };
        let dead = self.lives.suspects().iter().filter(|node| due(node) && silent(node));
        for node in dead.cloned().collect::<Vec<_>>() {
            let observers = self.lives.suspected_by(&node);
            self.enter(now, &node, PeerState::Dead, Cause::Unrefuted, observers, out);
        }
    }

    /// A peer that this node hears but has no vote on: if it is alive, it refutes what the others report. If
    /// it does not, and is not heard any more, the others are right.
    pub(super) fn yield_to_the_others(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut over = Vec::new();
        let patience = self.config.suspicion * DEFIANCE;
        for node in &self.lives.defied {
            let peer = self.lives.peers.get(node);
            match peer.filter(|peer| peer.is_defied()) {
                None => over.push((node.clone(), None)),
                Some(_) if self.ears.role(node) == Some(true) => {}
                Some(peer) => {
                    let heard = self.ears.get(node).map_or(peer.since, Watch::last_answer);
                    if now.since(heard.max(peer.since)) >= patience {
                        over.push((node.clone(), peer.accused_as()));
                    }
                }
            }
        }
        for (node, state) in over {
            self.lives.defied.remove(&node);
            if let Some(state) = state {
                self.enter(now, &node, state, Cause::Told, Arc::default(), out);
            }
            self.lives.note_defiance(&node);
        }
    }

    /// A generation of which no state has arrived, and which is not heard any more, counts as never heard:
    /// what storage knows of the peer applies again. Otherwise no node could judge it, since nodes do not
    /// answer questions about a generation that they do not know.
    pub(super) fn give_up_unknown_lives(&mut self, now: Time, out: &mut Vec<Output>) {
        let patience = self.config.suspicion * DEFIANCE;
        let silent = |ahead: &Ahead| now.since(ahead.heard) >= patience;
        let silent = self.lives.ahead.iter().filter(|(_, ahead)| silent(ahead));
        let silent: Vec<_> = silent.map(|(node, ahead)| (node.clone(), *ahead)).collect();
        for (node, told) in silent {
            self.lives.ahead.remove(&node);
            let Some(peer) = self.lives.peers.get_mut(&node) else { continue };
            (peer.generation, peer.incarnation, peer.level) =
                (told.generation, told.incarnation, told.level);
            let (state, next) =
                (peer.state, if told.left { Some(PeerState::Left) } else { peer.accused_as() });
            self.lives.changed.insert(node.clone());
            self.asking.drop(&node);
            if let Some(watch) = self.ears.get_mut(&node) {
                watch.renew(now, self.config.heartbeat_interval);
            }
            match next {
                Some(next) => self.enter(now, &node, next, Cause::Told, Arc::default(), out),
                // The generation before it has ended as well.
                None if state == PeerState::Dead => {
                    let observers = self.lives.suspected_by(&node);
                    self.accuse(now, &node, Level::Dead, Cause::Unrefuted, observers, out);
                }
                None => {}
            }
        }
    }
}

/// The largest number of other observers that an observer lets declare a suspect dead first.
const TURNS_MAX: u32 = 9;
