//! The state that the actors of one node, its tasks and its handles share.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use imbl::OrdMap;
use ractor::{ActorRef, Message};
use tokio::sync::{Semaphore, broadcast};

use super::{actors::storage::StorageMessage, channel::Channel, repeats::Repeats, writer::Writer};
use crate::{
    clock::Clock,
    counters::Counters,
    dials::DialFailures,
    latest::Latest,
    net::Endpoint,
    node::{
        clients::Clients,
        config::Config,
        cuts::Cuts,
        host::REFUSALS_TOLD_MAX,
        links::{Links, share::Shares},
        snapshot::Snapshot,
    },
    protocol::{
        event::{Behind, Event, Problem, ProtocolEvent},
        id::{Datacenter, NodeId},
        phi::PhiEstimate,
        reason::History,
        revocation::Revocations,
        route::{Counter, DetectorInput, Output, SchedulerInput, TransportInput},
        session::Session,
        state::PeerLife,
        view::NodeView,
    },
    slot::Slot,
};

/// The maps as readers see them.
pub(crate) type Maps = OrdMap<NodeId, Arc<NodeView>>;
/// The detector's state of all peers.
pub(crate) type Lives = OrdMap<NodeId, PeerLife>;
/// The silence estimates of the peers that this node observes itself; a few, and always changing.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Vec<(NodeId, PhiEstimate)>);

impl Estimates {
    /// `estimates`: by name.
    pub(crate) fn new<'a>(estimates: impl Iterator<Item = (&'a NodeId, PhiEstimate)>) -> Self {
        Self(estimates.map(|(node, estimate)| (node.clone(), estimate)).collect())
    }

    pub(crate) fn get(&self, peer: &NodeId) -> Option<&PhiEstimate> {
        let at = self.0.binary_search_by(|(node, _)| node.cmp(peer)).ok()?;
        Some(&self.0[at].1)
    }
}

/// The reasons for these states.
pub(crate) type Histories = OrdMap<NodeId, Arc<History>>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) routes: Routes,
    /// Owned by the supervisor, however long handles are kept.
    pub(crate) endpoint: Weak<dyn Endpoint>,
    /// The revoked certificates.
    pub(crate) revocations: ArcSwap<Revocations>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) maps: ArcSwap<Maps>,
    pub(crate) lives: ArcSwap<Lives>,
    pub(crate) histories: ArcSwap<Histories>,
    pub(crate) estimates: ArcSwap<Estimates>,
    /// The datacenters that cannot be reached.
    pub(crate) unreachable: ArcSwap<BTreeSet<Datacenter>>,
    /// How slow this node finds itself.
    pub(crate) health: AtomicU32,
    pub(crate) events: Arc<Channel<Event>>,
    pub(crate) protocol_events: Channel<ProtocolEvent>,
    pub(crate) counters: Arc<Counters>,
    /// Room for writes that wait for the store, in units of [`WRITE_UNIT`] bytes.
    pub(crate) write_room: Arc<Semaphore>,
    /// Makes this node's introduction, and judges those of peers.
    pub(crate) session: Session,
    /// Its connections.
    pub(crate) links: Links,
    pub(crate) clients: Arc<Clients>,
    #[cfg(feature = "testkit")]
    pub(crate) switch: crate::node::reins::Switch,
    /// Each peer's share of resources.
    pub(crate) shares: Shares,
    /// Held while the published state and its events are made visible: see [`Shared::cut`].
    pub(crate) publishing: Mutex<()>,
    /// Why the node ends, once it ends.
    pub(crate) ending: Slot<Ending>,
    /// The node has ended, and released everything.
    pub(crate) ended: Slot<()>,
    /// The second in which refusals were last reported, and how many: those that repeat, and those that
    /// are new.
    pub(crate) refusals: Mutex<[(u64, u32); 2]>,
    /// Why connections were last ended on purpose.
    pub(crate) cuts: Cuts,
    /// Why addresses could not be reached.
    pub(crate) dials: DialFailures,
    /// The largest loss at the start of this node that any peer reports.
    pub(crate) behind: ArcSwapOption<Behind>,
    /// The peers last removed, and the node that sent each removal; `None` if it was requested here.
    pub(crate) removals: Latest<Option<NodeId>>,
    /// The recent log lines.
    pub(crate) repeats: Repeats,
    /// This process has begun a later generation, because a proof showed its name in use.
    pub(crate) renewed: AtomicBool,
    /// How many peers have acknowledged that this node leaves, once all have answered.
    pub(crate) farewell: Slot<usize>,
}

/// Why a node ends.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The end was requested.
    Asked,
    /// It cannot continue.
    Problem(Problem),
}

/// The present reference of each actor.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) storage: Route<StorageMessage>,
    pub(crate) scheduler: Route<SchedulerInput>,
    pub(crate) detector: Route<DetectorInput>,
    pub(crate) transport: Route<TransportInput>,
}

/// The address of an actor that may be restarted at any time.
#[derive(Debug)]
pub(crate) struct Route<M>(Slot<ActorRef<M>>);

impl<M> Default for Route<M> {
    fn default() -> Self {
        Self(Slot::default())
    }
}

impl<M: Message> Route<M> {
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        self.0.set(actor);
    }

    /// Casts. A message that arrives while the actor restarts is lost: each actor starts from the
    /// state that the others have published, and the next round repairs the loss of one.
    pub(crate) fn cast(&self, message: M) {
        if let Some(actor) = self.0.get() {
            let _ = actor.cast(message);
        }
    }

    pub(crate) fn current(&self) -> Option<ActorRef<M>> {
        self.0.get()
    }

    /// The successor of a failed actor.
    pub(crate) async fn after(&self, failed: &ActorRef<M>) -> ActorRef<M> {
        self.0.wait_for(|actor| actor.get_id() != failed.get_id()).await
    }
}

impl Shared {
    /// Makes the published state and its events visible in one step, for [`Shared::cut`]. Then handles the
    /// machine's other outputs; returns when it wants to be called again.
    ///
    /// Under the lock no foreign code is called: a store or a log that subscribes would wait for itself,
    /// and a slow one would stop all subscribers.
    pub(crate) fn publish(&self, outputs: Vec<Output>, view: impl FnOnce()) -> Option<Duration> {
        // When a reader sees the state, it is counted already.
        let is_seen = |output: &Output| {
            matches!(output, Output::Event(_) | Output::Unreachable(_) | Output::Count(..))
        };
        let (seen, rest): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_seen);
        let mut problems = Vec::new();
        {
            let _publishing = self.publishing();
            for output in &seen {
                if let Output::Count(counter, times) = output {
                    self.counters.add(*counter, *times);
                }
            }
            view();
            for output in seen {
                match output {
                    Output::Unreachable(datacenters) => self.unreachable.store(datacenters),
                    // Counted by the machine. One frame may cause a hundred thousand of them.
                    Output::Event(Event::Error(problem)) if !self.may_tell(&problem) => {}
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
            Output::Unreachable(datacenters) => self.unreachable.store(datacenters),
            Output::Persist(changes) => self.writer.write(changes, None),
            Output::Wake(wait) => return Some(wait),
            Output::Count(counter, times) => self.counters.add(counter, times),
            Output::Farewell(peers) => self.farewell.set(peers),
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
        let logged = match &event {
            // The component that found it has logged it, or `stop` logs it at a higher level.
            Event::Error(
                Problem::Connection { .. }
                | Problem::Displaced { .. }
                | Problem::Revoked { .. }
                | Problem::Failed { .. },
            ) => None,
            Event::Error(problem) => {
                if let Problem::Behind(behind) = problem {
                    self.behind.store(Some(Arc::new(behind.clone())));
                }
                Some(problem.clone())
            }
            Event::PeerRemoved { peer, by } => {
                self.removals.note(peer, self.clock.now(), by.clone());
                None
            }
            _ => None,
        };
        self.events.send(event);
        logged
    }

    fn log(&self, problem: &Problem) {
        tracing::warn!(node = %self.config.node, "{problem}");
    }

    /// Prevents [`Shared::cut`] from seeing half of a publication.
    pub(crate) fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot, and exactly the events that follow it.
    pub(crate) fn cut(&self) -> (Snapshot, broadcast::Receiver<Event>) {
        let _publishing = self.publishing();
        (self.snapshot(), self.events.subscribe())
    }

    pub(crate) fn tell_protocol(&self, event: ProtocolEvent) {
        self.protocol_events.send(event);
    }

    /// Whether the protocol has subscribers.
    pub(crate) fn is_watched(&self) -> bool {
        self.protocol_events.is_heard()
    }

    /// Ends the node because it cannot continue. Only the first problem is reported: until the
    /// actors have stopped, a machine can come to the same conclusion again.
    pub(crate) fn stop(&self, problem: Problem) {
        if let Some(Ending::Problem(_)) = self.ending.get() {
            return;
        }
        tracing::error!(node = %self.config.node, "{problem}");
        self.tell(Event::Error(problem.clone()));
        self.end(Ending::Problem(problem));
    }

    /// Ends the node; the first reason counts.
    pub(crate) fn end(&self, ending: Ending) {
        self.ending.set_first(ending);
    }

    /// Whether to report that a peer's data was refused: once in a while for each kind and peer. All of
    /// it is counted.
    fn may_tell(&self, problem: &Problem) -> bool {
        let (label, from) = match problem {
            Problem::NewsRefused { from, .. } => ("news", from),
            Problem::RevocationRefused { from, .. } => ("revocation", from),
            _ => return true,
        };
        self.repeats.is_new(label, from.as_str(), self.clock.now()) && self.may_tell_refusal(true)
    }

    /// Whether one more refusal may be reported in this second. A peer that is refused repeatedly
    /// takes no room from new refusals.
    pub(crate) fn may_tell_refusal(&self, is_new: bool) -> bool {
        let second = self.clock.now().since_origin().as_secs();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let told = &mut refusals[usize::from(is_new)];
        if told.0 != second {
            *told = (second, 0);
        }
        told.1 = told.1.saturating_add(1);
        told.1 <= REFUSALS_TOLD_MAX
    }

    pub(crate) fn renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }
}

/// The unit in which room for writes is counted, in bytes.
pub(crate) const WRITE_UNIT: usize = 1 << 10;
