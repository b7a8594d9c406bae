//! The state that the actors of one node, its tasks and its handles share.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::broadcast;

use super::{
    clients::places::Clients,
    config::Config,
    diagnostics::Diagnostics,
    ending::{End, Ending},
    lag::LagMeter,
    messages::StorageMessage,
    published::Published,
    routes::Routes,
    services::table::Services,
    share::Shares,
    snapshot::Snapshot,
    write_room::WriteRoom,
    writer::Writer,
};
use crate::{
    ambient::Ambient,
    clock::Clock,
    net::Endpoint,
    protocol::{
        event::{Event, Problem, ProtocolEvent},
        route::{Counter, Output},
        session::Session,
    },
};

/// The shared state of one node.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// The wall clock, and random numbers.
    pub(crate) ambient: Ambient,
    /// What readers see.
    pub(crate) published: Published,
    /// The mailboxes of the actors.
    pub(crate) routes: Routes,
    /// Why and when the node ends.
    pub(crate) end: End,
    /// What an operator may ask about.
    pub(crate) diagnostics: Diagnostics,
    /// How late this node is served.
    pub(crate) lag: LagMeter,
    /// Owned by the supervisor, however long handles are kept.
    pub(crate) endpoint: Weak<dyn Endpoint>,
    pub(crate) writer: Arc<Writer>,
    /// Room for writes that wait for the store.
    pub(crate) write_room: WriteRoom,
    /// Makes this node's introduction, and judges those of peers.
    pub(crate) session: Session,
    pub(crate) clients: Arc<Clients>,
    /// What this node offers and calls.
    pub(crate) services: Arc<Services>,
    #[cfg(feature = "sim")]
    pub(crate) switch: super::switch::Switch,
    #[cfg(feature = "sim")]
    pub(crate) tape: Option<super::tape::Tape>,
    /// Each peer's share of resources.
    pub(crate) shares: Shares,
    /// This process has begun a later generation, because a proof showed its name in use.
    pub(crate) renewed: AtomicBool,
}

impl Shared {
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.published.snapshot(&self.config.node, self.clock.now())
    }

    /// A snapshot, and exactly the events that follow it.
    pub(crate) fn cut(&self) -> (Snapshot, broadcast::Receiver<Event>) {
        self.published.cut(&self.config.node, self.clock)
    }

    /// Makes the published state and its events visible in one step, for [`Shared::cut`]. Then handles the
    /// machine's other outputs; returns when it wants to be called again.
    ///
    /// Under the lock no foreign code is called: a store or a log that subscribes would wait for itself,
    /// and a slow one would stop all subscribers.
    pub(crate) fn publish(
        &self,
        outputs: Vec<Output>,
        view: impl FnOnce() -> Vec<Event>,
    ) -> Option<Duration> {
        // When a reader sees the state, it is counted already.
        let is_seen = |output: &Output| {
            matches!(output, Output::Event(_) | Output::Unreachable(_) | Output::Count(..))
        };
        let (seen, rest): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_seen);
        let mut problems = Vec::new();
        {
            let _publishing = self.published.publishing();
            for output in &seen {
                if let Output::Count(counter, times) = output {
                    self.diagnostics.counters.add(*counter, *times);
                }
            }
            for event in view() {
                problems.extend(self.announce(event));
            }
            for output in seen {
                match output {
                    Output::Unreachable(datacenters) => {
                        self.published.unreachable.store(datacenters);
                        problems.extend(
                            self.reach_changed()
                                .into_iter()
                                .filter_map(|event| self.announce(event)),
                        );
                    }
                    // Counted by the machine. One frame may cause a hundred thousand of them.
                    Output::Event(Event::Error(problem))
                        if !self.diagnostics.may_tell(&problem, self.clock.now()) => {}
                    Output::Event(event) => problems.extend(self.announce(event)),
                    _ => {}
                }
            }
        }
        problems.iter().for_each(|problem| self.log(problem));
        self.route(rest)
    }

    /// Handles a machine's outputs; returns when it wants to be called again.
    pub(crate) fn route(&self, outputs: Vec<Output>) -> Option<Duration> {
        outputs.into_iter().filter_map(|output| self.deliver(output)).last()
    }

    /// Handles one output of a machine; returns when it wants to be called again, if the output was that.
    pub(crate) fn deliver(&self, output: Output) -> Option<Duration> {
        match output {
            Output::Storage(input) => self.routes.storage.cast(StorageMessage::Input(input)),
            Output::Scheduler(input) => self.routes.scheduler.cast(input),
            Output::Detector(input) => self.routes.detector.cast(input),
            Output::Transport(input) => self.routes.transport.cast(input),
            Output::Event(event) => self.tell(event),
            Output::Protocol(event) => self.tell_protocol(event),
            Output::Unreachable(datacenters) => {
                self.published.unreachable.store(datacenters);
                self.reach_changed().into_iter().for_each(|event| self.tell(event));
            }
            Output::Persist(changes) => self.writer.write(changes, None),
            Output::Wake(wait) => return Some(wait),
            Output::Count(counter, times) => self.diagnostics.counters.add(counter, times),
            Output::Farewell(peers) => self.end.acknowledge(peers),
            // Answered by the storage actor, which was asked.
            Output::Counted(..) => {}
            // Handled by the storage actor, before everything else.
            Output::Revoked(_) => {}
            Output::Stop(problem) => self.stop(problem),
        }
        None
    }

    /// Sends an event to the subscribers, and to the log if an operator should see it.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(problem) = self.announce(event) {
            self.log(&problem);
        }
    }

    /// Sends an event to the subscribers; returns the problem to log as well.
    fn announce(&self, event: Event) -> Option<Problem> {
        let logged = self.diagnostics.note(&event, self.clock);
        self.published.events.send(event);
        logged
    }

    fn log(&self, problem: &Problem) {
        tracing::warn!(node = %self.config.node, "{problem}");
    }

    pub(crate) fn tell_protocol(&self, event: ProtocolEvent) {
        self.published.protocol_events.send(event);
    }

    /// Whether the protocol has subscribers.
    pub(crate) fn is_watched(&self) -> bool {
        self.published.protocol_events.is_heard()
    }

    /// Ends the node because it cannot continue. Only the first problem is reported: until the
    /// actors have stopped, a machine can come to the same conclusion again.
    pub(crate) fn stop(&self, problem: Problem) {
        if self.end.problem().is_some() {
            return;
        }
        tracing::error!(node = %self.config.node, "{problem}");
        self.tell(Event::Error(problem.clone()));
        self.end.begin(Ending::Problem(problem));
    }

    pub(crate) fn renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.diagnostics.counters.add(counter, 1);
    }
}
