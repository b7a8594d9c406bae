//! The detector actor: wraps [`Liveness`] and publishes its state.

use std::sync::{Arc, atomic::Ordering};

use ractor::{ActorProcessingErr, ActorRef};

use crate::{
    node::{
        shared::Shared,
        timer::Timer,
        views::{Estimates, Histories, Lives},
    },
    protocol::{
        event::Event,
        liveness::Liveness,
        route::{DetectorInput, TransportInput},
        time::Time,
    },
};

#[cfg(feature = "cluster")]
impl ractor::Message for DetectorInput {}

#[derive(Debug)]
pub(crate) struct Detector;

#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    liveness: Liveness,
    timer: Timer,
    /// When the times of the last signs of life were last published.
    refreshed: Time,
}

#[ractor::actor(message = DetectorInput, state = State, arguments = Arc<Shared>)]
impl Detector {
    async fn pre_start(
        &self,
        myself: ActorRef<DetectorInput>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let mut liveness = Liveness::new(shared.config.liveness());
        // After a restart: the state of the previous actor, so that no peer seems to vanish meanwhile.
        let now = shared.clock.now();
        let histories = shared.published.histories.load();
        for (peer, life) in &**shared.published.lives.load() {
            liveness.restore(now, peer.clone(), *life, histories.get(peer).cloned());
        }
        drop(histories);
        // First the route, then the present state: in this order no input is missed.
        shared.routes.detector.set(myself.clone());
        let mut state = State { shared, liveness, timer: Timer::default(), refreshed: now };
        state.meet_everybody(&myself);
        let lag = state.shared.lag.told();
        state.handle(&myself, DetectorInput::Lag(lag));
        state.handle(&myself, DetectorInput::Tick);
        state.shared.routes.transport.cast(TransportInput::TellLinks);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<DetectorInput>,
        input: DetectorInput,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(&myself, input);
        Ok(())
    }
}

impl State {
    fn handle(&mut self, myself: &ActorRef<DetectorInput>, input: DetectorInput) {
        let now = self.shared.clock.now();
        let mut out = Vec::new();
        self.liveness.handle(now, input, &mut out);
        let shared = Arc::clone(&self.shared);
        if let Some(wait) = shared.publish(out, || self.publish(now)) {
            self.timer.set(myself, wait, || DetectorInput::Tick);
        }
    }

    /// Publishes a peer's state at once, and the times of signs of life a few times in a round.
    fn publish(&mut self, now: Time) -> Vec<Event> {
        self.shared.published.health.store(self.liveness.health(), Ordering::Relaxed);
        let changed = self.liveness.take_changed();
        let stale = self.shared.config.gossip_interval / REFRESHES_PER_INTERVAL;
        if !changed.is_empty() || now.since(self.refreshed) >= stale {
            self.refreshed = now;
            self.shared
                .published
                .estimates
                .store(Arc::new(Estimates::new(self.liveness.estimates())));
        }
        if changed.is_empty() {
            return Vec::new();
        }
        let nodes = changed.clone();
        let published = self.shared.published.histories.load();
        let mut lives = Lives::clone(&self.shared.published.lives.load());
        let mut histories = Vec::new();
        for node in changed {
            let history = self.liveness.history(&node);
            if history.map(Arc::as_ptr) != published.get(&node).map(Arc::as_ptr) {
                histories.push((node.clone(), history.cloned()));
            }
            match self.liveness.life(&node) {
                Some(life) => lives.insert(node, life),
                None => lives.remove(&node),
            };
        }
        if !histories.is_empty() {
            let mut all = Histories::clone(&self.shared.published.histories.load());
            for (node, history) in histories {
                match history {
                    Some(history) => all.insert(node, history),
                    None => all.remove(&node),
                };
            }
            self.shared.published.histories.store(Arc::new(all));
        }
        self.shared.published.lives.store(Arc::new(lives));
        self.shared.services_seen(nodes.iter())
    }

    /// After a restart: repeats the inputs that storage had sent to the previous actor.
    fn meet_everybody(&mut self, myself: &ActorRef<DetectorInput>) {
        let (maps, local) =
            (self.shared.published.maps.load_full(), self.shared.config.node.clone());
        for (peer, map) in maps.iter().filter(|(peer, _)| **peer != local) {
            if let Some((_, record)) = &map.record {
                let (generation, status, verdict) = (map.generation, record.status, map.verdict);
                let (peer, observers) = (peer.clone(), Arc::default());
                let member = DetectorInput::Member { peer, generation, status, verdict, observers };
                self.handle(myself, member);
            }
        }
    }
}

/// How often in a round the times of signs of life are published: a reader's phi is as exact as that.
const REFRESHES_PER_INTERVAL: u32 = 4;
