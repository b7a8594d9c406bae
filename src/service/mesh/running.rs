//! The actor of a mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ractor::{ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::{NodeServerMessage, NodeSessionMessage};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    dialing,
    error::MeshError,
    events::Events,
    figures::MeshFigures,
    guard::{Frames, Guard},
    messages::{Bytes, MeshMessage},
    name::ractor_name,
    peers::{Dialed, Next, Peers},
    sessions::{MeshService, OPENING},
    stall::Measured,
    upstream::{self, MeshStream},
};
use crate::{
    node::Gossipmonger,
    protocol::id::{Generation, NodeId},
    service::{Offer, ProviderChange, ProviderChanges, Remote},
};

pub(super) struct Running;

pub(super) struct Arguments {
    pub(super) node: Gossipmonger,
    pub(super) group: String,
    pub(super) ready: watch::Sender<BTreeSet<NodeId>>,
    pub(super) figures: Arc<MeshFigures>,
    pub(super) alone: Alone,
}

/// The claim to be the one mesh of this process.
pub(super) struct Alone(());

impl Alone {
    pub(super) fn take() -> Result<Self, MeshError> {
        if TAKEN.swap(true, Ordering::AcqRel) { Err(MeshError::Taken) } else { Ok(Self(())) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

static TAKEN: AtomicBool = AtomicBool::new(false);

pub(super) struct State {
    node: Gossipmonger,
    group: String,
    ready: watch::Sender<BTreeSet<NodeId>>,
    figures: Arc<MeshFigures>,
    peers: Peers,
    remotes: BTreeMap<NodeId, Remote<MeshService>>,
    generation: Generation,
    server: ActorRef<NodeServerMessage>,
    /// By label.
    sessions: BTreeMap<String, Session>,
    /// A new session with a node waits until the earlier one of the same name has ended.
    waiting: BTreeMap<NodeId, (Generation, Bytes)>,
    opened: u64,
    /// What waits for changes and dials; aborted with this.
    tasks: JoinSet<()>,
    /// Withdrawn with this.
    _offer: Offer,
    _alone: Alone,
}

struct Session {
    node: NodeId,
    generation: Generation,
    actor: Option<ActorRef<NodeSessionMessage>>,
    ready: bool,
    /// It ends as soon as it can be reached.
    ends: bool,
}

#[ractor::actor(message = MeshMessage, state = State, arguments = Arguments)]
impl Running {
    async fn pre_start(
        &self,
        myself: ActorRef<MeshMessage>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments { node, group, ready, figures, alone } = arguments;
        let mut changes = node.service::<MeshService>().watch();
        let offer = dialing::offer(&node, group.clone(), myself.clone());
        let offer = offer.await.map_err(MeshError::Offer)?;
        let listed = timeout(OPENING, own_listing(&node, &mut changes)).await;
        let (generation, others) = listed.map_err(|_| MeshError::NodeEnded)??;
        let server = start_server(&node, generation, &myself).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(pump(changes, myself.clone()));
        let mut state = State {
            peers: Peers::new(node.node().clone()),
            remotes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            opened: 0,
            _offer: offer,
            _alone: alone,
            node,
            group,
            ready,
            figures,
            generation,
            server,
            tasks,
        };
        for change in others {
            state.provider(&myself, change).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<MeshMessage>,
        message: MeshMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MeshMessage::Provider(change) => state.provider(&myself, change).await?,
            MeshMessage::NodeEnded => {
                state.ready.send_replace(BTreeSet::new());
                return Err(MeshError::NodeEnded.into());
            }
            MeshMessage::Redial(node) => {
                let next = state.peers.redial(&node);
                state.go_on(&myself, &node, next);
            }
            MeshMessage::Dialed(node, generation, end, bytes) => {
                if end == Dialed::Refused {
                    state.figures.refuse();
                }
                let next = state.peers.dialed(&node, generation, end);
                state.go_on(&myself, &node, next);
                if let Some(bytes) = bytes.filter(|_| state.peers.has_session(&node, generation)) {
                    state.take_on(&myself, node, generation, bytes);
                }
            }
            MeshMessage::Arrived(node, generation, verdict) => {
                let arrived = state.peers.arrived(&node, generation);
                // It fails if the caller has given up: then `Lost` follows.
                let _ = verdict.send(arrived);
            }
            MeshMessage::Opened(node, generation, bytes) => {
                if state.peers.has_session(&node, generation) {
                    state.take_on(&myself, node, generation, bytes);
                }
            }
            MeshMessage::Lost(node, generation) => {
                // Another one of the same life may have begun meanwhile.
                if !state.has(&node, generation) {
                    let next = state.peers.ended(&node, generation);
                    state.go_on(&myself, &node, next);
                }
            }
            MeshMessage::SessionOpened(label, actor) => {
                if let Some(session) = state.sessions.get_mut(&label) {
                    session.actor = Some(actor);
                    session.end_if_due();
                }
            }
            MeshMessage::SessionReady(label) => state.is_ready(&label),
            MeshMessage::SessionEnded(label) => state.ended(&myself, &label),
            MeshMessage::Dropped(label) => {
                // Of a session that never began, the server reports no end.
                if state.sessions.get(&label).is_some_and(|session| session.actor.is_none()) {
                    state.ended(&myself, &label);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<MeshMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match &event {
            SupervisionEvent::ActorFailed(actor, _)
            | SupervisionEvent::ActorTerminated(actor, ..) => actor.get_id(),
            _ => return Ok(()),
        };
        if ended == state.server.get_id() {
            tracing::error!(
                "the server of ractor_cluster has ended, and is started again: {event}"
            );
            state.restart(&myself).await?;
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<MeshMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.tasks.abort_all();
        state.ready.send_replace(BTreeSet::new());
        // Without this, ractor would kill it, and its sessions would not close their streams.
        drop(state.server.stop_and_wait(None, Some(OPENING)).await);
        Ok(())
    }
}

impl State {
    async fn provider(
        &mut self,
        myself: &ActorRef<MeshMessage>,
        change: ProviderChange<MeshService>,
    ) -> Result<(), MeshError> {
        match change {
            ProviderChange::Joined { remote, offer } if offer.node == *self.node.node() => {
                drop(remote);
                // The peers compare the name of the server with the generation.
                if offer.generation > self.generation {
                    self.generation = offer.generation;
                    drop(self.server.stop_and_wait(None, Some(OPENING)).await);
                    self.restart(myself).await?;
                }
            }
            ProviderChange::Joined { remote, offer } => {
                self.remotes.insert(offer.node.clone(), remote);
                let next = self.peers.joined(&offer.node, offer.generation);
                self.go_on(myself, &offer.node, next);
            }
            ProviderChange::Left { remote, .. } => {
                let node = remote.node().clone();
                let generation = remote.generation();
                self.peers.left(&node, generation);
                self.end_sessions(|session| {
                    session.node == node && session.generation <= generation
                });
                if self.remotes.get(&node).is_some_and(|known| known.generation() <= generation) {
                    self.remotes.remove(&node);
                }
            }
            ProviderChange::Changed { .. } => {}
        }
        Ok(())
    }

    fn go_on(&mut self, myself: &ActorRef<MeshMessage>, node: &NodeId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Later(pause) => {
                let node = node.clone();
                myself.send_after(pause, move || MeshMessage::Redial(node));
            }
            Next::Dial => {
                let remote = self.remotes.get(node).cloned();
                let (group, mesh, node) = (self.group.clone(), myself.clone(), node.clone());
                // Those that have ended are of no interest.
                while self.tasks.try_join_next().is_some() {}
                self.tasks.spawn(async move {
                    match remote {
                        Some(remote) => {
                            let generation = remote.generation();
                            dialing::dial(remote, generation, group, mesh).await;
                        }
                        None => {
                            let end =
                                MeshMessage::Dialed(node, Generation::ZERO, Dialed::Failed, None);
                            drop(mesh.cast(end));
                        }
                    }
                });
            }
        }
    }

    /// A stream with a node is there. One session of the same name has to end first.
    fn take_on(
        &mut self,
        myself: &ActorRef<MeshMessage>,
        node: NodeId,
        generation: Generation,
        bytes: Bytes,
    ) {
        self.end_sessions(|session| session.node == node);
        if self.has(&node, generation) {
            self.waiting.insert(node, (generation, bytes));
        } else {
            self.inject(myself, node, generation, bytes);
        }
    }

    fn inject(
        &mut self,
        myself: &ActorRef<MeshMessage>,
        node: NodeId,
        generation: Generation,
        Bytes { tx, rx, held }: Bytes,
    ) {
        self.opened += 1;
        let name = ractor_name(&node, generation);
        let label = format!("{name}#{}", self.opened);
        let figures = || Arc::clone(&self.figures);
        let (unused, dropped) = oneshot::channel();
        let held = held.into_iter().chain([unused]).collect();
        let reader = Guard::new(rx, Frames::new(name), node.clone(), figures(), held);
        let writer = Measured::new(tx, node.clone(), figures());
        let stream =
            MeshStream { reader: Box::new(reader), writer: Box::new(writer), label: label.clone() };
        // The end that was called has the session that ractor calls incoming.
        let is_server = node > *self.node.node();
        let opened =
            NodeServerMessage::ConnectionOpenedExternal { stream: Box::new(stream), is_server };
        let session = Session { node, generation, actor: None, ready: false, ends: false };
        self.sessions.insert(label.clone(), session);
        self.figures.open();
        // It fails while the server ends, which ends all sessions.
        drop(self.server.cast(opened));
        let mesh = myself.clone();
        tokio::spawn(async move {
            drop(dropped.await);
            drop(mesh.cast(MeshMessage::Dropped(label)));
        });
    }

    /// Whether there is a session with this life of a node, or one that ends.
    fn has(&self, node: &NodeId, generation: Generation) -> bool {
        let same = |session: &Session| session.node == *node && session.generation == generation;
        self.sessions.values().any(same)
    }

    fn is_ready(&mut self, label: &str) {
        let Some(session) = self.sessions.get_mut(label).filter(|session| !session.ends) else {
            return;
        };
        session.ready = true;
        self.peers.ready(&session.node, session.generation);
        self.show();
    }

    fn ended(&mut self, myself: &ActorRef<MeshMessage>, label: &str) {
        let Some(Session { node, generation, .. }) = self.sessions.remove(label) else { return };
        self.show();
        let waits = self.waiting.get(&node).is_some_and(|(life, _)| *life == generation);
        if waits && let Some((generation, bytes)) = self.waiting.remove(&node) {
            return self.inject(myself, node, generation, bytes);
        }
        let next = self.peers.ended(&node, generation);
        self.go_on(myself, &node, next);
    }

    fn end_sessions(&mut self, which: impl Fn(&Session) -> bool) {
        for session in self.sessions.values_mut().filter(|session| which(session)) {
            session.ends = true;
            session.end_if_due();
        }
        self.show();
    }

    /// Publishes who can be reached.
    fn show(&self) {
        let ready = self.sessions.values().filter(|session| session.ready && !session.ends);
        let ready: BTreeSet<_> = ready.map(|session| session.node.clone()).collect();
        self.ready.send_if_modified(|shown| {
            let differs = *shown != ready;
            *shown = ready;
            differs
        });
    }

    /// All sessions have ended with their server: starts another one.
    async fn restart(&mut self, myself: &ActorRef<MeshMessage>) -> Result<(), MeshError> {
        self.server = start_server(&self.node, self.generation, myself).await?;
        self.waiting.clear();
        let labels: Vec<_> = self.sessions.keys().cloned().collect();
        labels.iter().for_each(|label| self.ended(myself, label));
        Ok(())
    }
}

impl Session {
    fn end_if_due(&self) {
        if let Some(actor) = self.actor.as_ref().filter(|_| self.ends) {
            actor.stop(Some("the mesh has ended it".to_owned()));
        }
    }
}

async fn start_server(
    node: &Gossipmonger,
    generation: Generation,
    myself: &ActorRef<MeshMessage>,
) -> Result<ActorRef<NodeServerMessage>, MeshError> {
    let server = upstream::serve(node.node(), generation, myself.get_cell()).await;
    let server = server.map_err(MeshError::Server)?;
    let subscription = Box::new(Events(myself.clone()));
    let subscribe =
        NodeServerMessage::SubscribeToEvents { id: "gossipmonger".to_owned(), subscription };
    server.cast(subscribe).map_err(|_| MeshError::NodeEnded)?;
    Ok(server)
}

/// The generation in which this node offers the mesh, and the changes before that.
async fn own_listing(
    node: &Gossipmonger,
    changes: &mut ProviderChanges<MeshService>,
) -> Result<(Generation, Vec<ProviderChange<MeshService>>), MeshError> {
    let mut others = Vec::new();
    loop {
        match changes.next().await.map_err(|_| MeshError::NodeEnded)? {
            ProviderChange::Joined { offer, .. } if offer.node == *node.node() => {
                return Ok((offer.generation, others));
            }
            change => others.push(change),
        }
    }
}

async fn pump(mut changes: ProviderChanges<MeshService>, mesh: ActorRef<MeshMessage>) {
    while let Ok(change) = changes.next().await {
        if mesh.cast(MeshMessage::Provider(change)).is_err() {
            return;
        }
    }
    drop(mesh.cast(MeshMessage::NodeEnded));
}
