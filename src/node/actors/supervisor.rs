//! The root: the one child in the user's tree. It starts the other actors, restarts those that
//! fail, and stops all in order.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::{
    detector::Detector,
    scheduler::{self, Scheduler},
    services::Services,
    storage::{self, Storage},
    transport::Transport,
};
use crate::{
    net::Endpoint,
    node::{
        ending::{Ending, shut},
        links::table::Links,
        shared::Shared,
    },
    protocol::{
        event::{Event, Problem},
        route::{Counter, SchedulerInput, TransportInput},
        time::Time,
    },
};

/// The messages of the root.
#[derive(Debug)]
pub(crate) enum RootMessage {
    /// The node must end, for the reason in [`Shared::end`].
    End,
    /// The back-off of a failed actor is over.
    Restart(Part),
}

#[cfg(feature = "cluster")]
impl ractor::Message for RootMessage {}

/// The node's actors, in the order of their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Storage,
    Detector,
    Transport,
    Services,
    Scheduler,
}

#[derive(Debug)]
pub(crate) struct Root;

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    /// The connections: they outlive the actor that serves them.
    pub(crate) links: Arc<Links>,
    /// Addresses of peers known from an earlier run.
    pub(crate) candidates: Vec<String>,
}

pub(crate) struct State {
    arguments: Arguments,
    children: [Option<ActorCell>; Part::ALL.len()],
    /// When actors were restarted lately.
    restarts: VecDeque<Time>,
}

#[ractor::actor(message = RootMessage, state = State, arguments = Arguments)]
impl Root {
    async fn pre_start(
        &self,
        myself: ActorRef<RootMessage>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let mut state =
            State { arguments, children: Default::default(), restarts: VecDeque::new() };
        for part in Part::ALL {
            state.start(part, &myself).await?;
        }
        let shared = Arc::clone(&state.arguments.shared);
        // Ends with the root: a cast to an actor that is gone fails.
        tokio::spawn(async move {
            shared.end.begun().await;
            let _ = myself.cast(RootMessage::End);
        });
        Ok(state)
    }

    async fn post_stop(
        &self,
        myself: ActorRef<RootMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // The user's supervisor may stop the root without the handle.
        state.arguments.shared.end.begin(Ending::Asked);
        state.stop(&myself).await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMessage>,
        message: RootMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::End => state.end(&myself).await,
            RootMessage::Restart(part) => state.restart(part, &myself).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (child, reason) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, error.to_string()),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                (child, reason.unwrap_or_else(|| "it stopped".to_owned()))
            }
            _ => return Ok(()),
        };
        state.child_ended(child.get_id(), reason, &myself)
    }
}

impl State {
    async fn start(
        &mut self,
        part: Part,
        myself: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let (shared, root) = (Arc::clone(&self.arguments.shared), myself.get_cell());
        let links = Arc::clone(&self.arguments.links);
        let child = match part {
            Part::Storage => {
                let arguments = storage::Arguments { shared, links };
                Actor::spawn_linked(None, Storage, arguments, root).await?.0.get_cell()
            }
            Part::Detector => Actor::spawn_linked(None, Detector, shared, root).await?.0.get_cell(),
            Part::Transport => {
                let arguments = (links, Arc::clone(&self.arguments.endpoint));
                let (actor, _) = Actor::spawn_linked(None, Transport, arguments, root).await?;
                shared.routes.transport.set(actor.clone());
                actor.get_cell()
            }
            Part::Services => {
                let arguments = (shared, Arc::clone(&self.arguments.endpoint));
                Actor::spawn_linked(None, Services, arguments, root).await?.0.get_cell()
            }
            Part::Scheduler => {
                let candidates = self.arguments.candidates.clone();
                let arguments = scheduler::Arguments { shared, candidates };
                Actor::spawn_linked(None, Scheduler, arguments, root).await?.0.get_cell()
            }
        };
        self.children[part as usize] = Some(child);
        Ok(())
    }

    /// A child has ended without a request: restart it after a while, or give up.
    fn child_ended(
        &mut self,
        child: ActorId,
        reason: String,
        myself: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let is_it = |part: &Part| {
            self.children[*part as usize].as_ref().is_some_and(|cell| cell.get_id() == child)
        };
        let Some(part) = Part::ALL.into_iter().find(is_it) else { return Ok(()) };
        self.children[part as usize] = None;
        self.retry(part, reason, myself)
    }

    fn retry(
        &mut self,
        part: Part,
        reason: String,
        myself: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let shared = &self.arguments.shared;
        if shared.end.has_begun() {
            return Ok(());
        }
        let (limits, now) = (shared.config.restarts, shared.clock.now());
        self.restarts.retain(|at| now.since(*at) < limits.window);
        if self.restarts.len() >= limits.most {
            shared.stop(Problem::Failed { actor: part.as_str(), reason });
            return Ok(());
        }
        let doublings = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        let wait = limits.back_off.saturating_mul(1 << doublings.min(BACK_OFF_DOUBLINGS_MAX));
        self.restarts.push_back(now);
        shared.count(Counter::ActorRestarts);
        shared.tell(Event::Error(Problem::ActorRestarted { actor: part.as_str(), reason }));
        let _timer = myself.send_after(wait, move || RootMessage::Restart(part));
        Ok(())
    }

    async fn restart(
        &mut self,
        part: Part,
        myself: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        if self.arguments.shared.end.has_begun() {
            return Ok(());
        }
        match self.start(part, myself).await {
            Ok(()) => {
                // Rounds on their way to the previous actor are lost with it, and so are the inputs
                // that the transport had sent to it.
                let routes = &self.arguments.shared.routes;
                routes.scheduler.cast(SchedulerInput::Interrupted);
                routes.transport.cast(TransportInput::TellLinks);
                Ok(())
            }
            Err(error) => self.retry(part, error.to_string(), myself),
        }
    }

    /// Ends on request; a failure goes to the user's supervisor.
    async fn end(&mut self, myself: &ActorRef<RootMessage>) -> Result<(), ActorProcessingErr> {
        match self.arguments.shared.end.problem() {
            None => {
                myself.stop(None);
                Ok(())
            }
            Some(problem) => {
                self.stop(myself).await;
                Err(problem.into())
            }
        }
    }

    /// Starts nothing new, informs peers, and makes writes durable.
    async fn stop(&mut self, myself: &ActorRef<RootMessage>) {
        let timeout = Some(STOP_TIMEOUT);
        self.arguments.shared.services.end_all();
        for part in [Part::Scheduler, Part::Services, Part::Transport] {
            if let Some(child) = self.children[part as usize].take() {
                let _ = child.stop_and_wait(None, timeout).await;
            }
        }
        if tokio::time::timeout(STOP_TIMEOUT, shut(&*self.arguments.endpoint)).await.is_err() {
            tracing::warn!("the transport did not close in time");
        }
        myself.stop_children_and_wait(None, timeout).await;
        self.children = Default::default();
        let flushed = self.arguments.shared.writer.flush();
        if let Ok(Err(error)) = tokio::time::timeout(STOP_TIMEOUT, flushed).await {
            tracing::error!("the last writes are not durable: {error}");
        }
    }
}

impl Part {
    const ALL: [Self; 5] =
        [Self::Storage, Self::Detector, Self::Transport, Self::Services, Self::Scheduler];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Detector => "detector",
            Self::Transport => "transport",
            Self::Services => "services",
            Self::Scheduler => "scheduler",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long each step of stopping may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The back-off is doubled at most this often.
const BACK_OFF_DOUBLINGS_MAX: u32 = 10;
