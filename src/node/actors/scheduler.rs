//! The scheduler actor: wraps the [`Scheduler`](protocol::scheduler::Scheduler) and its timer.

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef};

use crate::{
    node::{shared::Shared, timer::Timer},
    protocol::{
        self,
        route::{Output, Reach, SchedulerInput, Target},
        state::PeerState,
    },
};

#[cfg(feature = "cluster")]
impl ractor::Message for SchedulerInput {}

#[derive(Debug)]
pub(crate) struct Scheduler;

/// The start parameters of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    /// Addresses of peers known from an earlier run.
    pub(crate) candidates: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    scheduler: protocol::scheduler::Scheduler,
    timer: Timer,
}

#[ractor::actor(message = SchedulerInput, state = State, arguments = Arguments)]
impl Scheduler {
    async fn pre_start(
        &self,
        myself: ActorRef<SchedulerInput>,
        Arguments { shared, candidates }: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let scheduler = shared.config.scheduler(candidates);
        let (now, seed) = (shared.clock.now(), shared.ambient.seed());
        let scheduler = protocol::scheduler::Scheduler::new(scheduler, now, seed);
        shared.routes.scheduler.set(myself.clone());
        let mut state = State { shared, scheduler, timer: Timer::default() };
        state.meet_everybody(&myself);
        let (lag, late) = (state.shared.lag.told(), state.shared.lag.late());
        state.handle(&myself, SchedulerInput::Late(late));
        state.handle(&myself, SchedulerInput::Lag(lag));
        state.handle(&myself, SchedulerInput::Tick);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SchedulerInput>,
        input: SchedulerInput,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(&myself, input);
        Ok(())
    }
}

impl State {
    fn handle(&mut self, myself: &ActorRef<SchedulerInput>, input: SchedulerInput) {
        let mut out = Vec::new();
        self.scheduler.handle(self.shared.clock.now(), input, &mut out);
        let published = out.iter().any(|output| matches!(output, Output::Unreachable(_)));
        let wait =
            if published { self.shared.publish(out, Vec::new) } else { self.shared.route(out) };
        if let Some(wait) = wait {
            self.timer.set(myself, wait, || SchedulerInput::Tick);
        }
    }

    /// After a restart: repeats the inputs that the others had sent to the previous actor.
    fn meet_everybody(&mut self, myself: &ActorRef<SchedulerInput>) {
        let (maps, lives) =
            (self.shared.published.maps.load_full(), self.shared.published.lives.load_full());
        let local = self.shared.config.node.clone();
        let own = maps.get(&local).and_then(|map| map.record.as_ref());
        let severed = own.map(|(_, record)| record.severed.clone()).unwrap_or_default();
        self.scheduler.restore(self.shared.published.unreachable.load_full(), severed);
        for (peer, map) in maps.iter().filter(|(peer, _)| **peer != local) {
            if let Some((_, record)) = &map.record {
                let datacenter = record.datacenter.clone();
                self.handle(myself, SchedulerInput::Located(peer.clone(), datacenter));
                if !record.severed.is_empty() {
                    let severed = record.severed.clone();
                    self.handle(myself, SchedulerInput::Severed(peer.clone(), severed));
                }
            }
            let life = lives.get(peer).map(|life| life.state);
            let reach = match life {
                Some(PeerState::Live | PeerState::Suspect) => Reach::Live,
                Some(PeerState::Dead | PeerState::Left) => Reach::Dead,
                Some(PeerState::Unheard | PeerState::Unreachable) | None => Reach::Unheard,
            };
            self.handle(myself, SchedulerInput::Peer(peer.clone(), reach));
            // A peer that reports a seed's address has been met there, so the address need not be dialed again.
            let seeds = self.shared.config.seeds.clone();
            let record = map.record.as_ref().map(|(_, record)| record);
            let there = |seed: &String| record.is_some_and(|r| r.addresses.contains(seed));
            for address in seeds.into_iter().filter(there) {
                let (target, node) = (Target::Address(address), Some(peer.clone()));
                self.handle(myself, SchedulerInput::Ended { target, node, ok: true });
            }
            if life == Some(PeerState::Suspect) {
                self.handle(myself, SchedulerInput::Suspected(peer.clone(), true));
            }
        }
    }
}
