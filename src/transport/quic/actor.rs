//! The transport actor: starts tasks and forgets them; they report by themselves.

use std::{collections::BTreeMap, sync::Arc};

use quinn::{RecvStream, SendStream};
use ractor::{ActorProcessingErr, ActorRef};

use super::{
    Shared, accept::accept, close::Close, dial, frames::StreamFrames, life, serve::serve,
    table::Link, tasks::Tasks,
};
use crate::{
    protocol::{
        exchange::Summary,
        id::NodeId,
        overlay,
        route::{Target, TransportInput},
        time::Time,
    },
    transport::{NodeLink, exchange::initiate},
};

#[derive(Debug)]
pub(super) struct Quic;

#[derive(Debug)]
pub(super) struct State {
    shared: Arc<Shared>,
    node: NodeLink,
    tasks: Tasks,
    /// Whom to keep a connection to, by name.
    neighbours: Arc<[NodeId]>,
    /// Neighbours without a connection: since when, and when to dial them.
    missing: BTreeMap<NodeId, Missing>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Time,
    attempts: u32,
    retry: Time,
}

#[ractor::actor(message = TransportInput, state = State, arguments = (Arc<Shared>, NodeLink))]
impl Quic {
    async fn pre_start(
        &self,
        _: ActorRef<TransportInput>,
        (shared, node): (Arc<Shared>, NodeLink),
    ) -> Result<State, ActorProcessingErr> {
        let tasks = Tasks::default();
        let spawner = tasks.spawner();
        for (endpoint, _) in &shared.endpoints {
            let (shared, endpoint) = (Arc::clone(&shared), endpoint.clone());
            spawner.spawn(accept(shared, node.clone(), spawner.clone(), endpoint));
        }
        spawner.spawn(life::watch(Arc::clone(&shared), node.clone()));
        // The connections of the actor before this one.
        for link in shared.table.tell(&node) {
            spawner.spawn(serve(Arc::clone(&shared), node.clone(), spawner.clone(), link));
        }
        let (neighbours, missing) = (Arc::default(), BTreeMap::new());
        Ok(State { shared, node, tasks, neighbours, missing })
    }

    async fn handle(
        &self,
        _: ActorRef<TransportInput>,
        input: TransportInput,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match input {
            TransportInput::Round { targets, summary } => {
                targets.into_iter().for_each(|target| state.begin(target, summary.clone()));
            }
            // The connections see to it themselves.
            TransportInput::Heartbeat(_) => state.connect(),
            TransportInput::Neighbours(peers) => {
                state.neighbours = peers;
                state.connect();
            }
            TransportInput::Dial(peers) => peers.into_iter().for_each(|peer| state.dial(peer)),
            TransportInput::Close(peers) => {
                for link in peers.iter().filter_map(|peer| state.shared.table.link(peer)) {
                    Close::Unneeded.connection(&link.connection, "not needed any more");
                }
            }
            TransportInput::Gossip { to, gossip } => {
                state.shared.table.gossip(&state.node, &to, &gossip);
            }
            TransportInput::TellLinks => drop(state.shared.table.tell(&state.node)),
            TransportInput::Forget(peer) => {
                state.missing.remove(&peer);
                if let Some(link) = state.shared.table.link(&peer) {
                    Close::Forgotten.connection(&link.connection, "you were forgotten");
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// Starts an exchange; its end is reported whatever happens.
    fn begin(&self, target: Target, summary: Summary) {
        let (shared, node) = (Arc::clone(&self.shared), self.node.clone());
        let spawner = self.tasks.spawner();
        self.tasks.spawner().spawn(async move {
            let dialed = dial::reach(&shared, &node, &spawner, &target).await;
            let mut done = false;
            if let Some(link) = &dialed.link {
                done = exchange(&node, link, summary.clone()).await;
                // Two that dial each other at once agree on one connection, and close the other one
                // in the middle of what it is used for.
                if !done
                    && let Some(other) = shared.table.link(&link.met().node)
                    && !other.is(link)
                {
                    done = exchange(&node, &other, summary).await;
                }
            }
            node.ended(target, dialed.node, done);
        });
    }

    /// Connects to a peer; what comes of it is told whatever happens.
    fn dial(&self, peer: NodeId) {
        let (shared, node) = (Arc::clone(&self.shared), self.node.clone());
        let spawner = self.tasks.spawner();
        self.tasks.spawner().spawn(async move {
            if shared.table.tell_one(&node, &peer) {
                return;
            }
            let dialed = dial::reach(&shared, &node, &spawner, &Target::Peer(peer.clone())).await;
            if dialed.link.is_none() {
                node.dial_failed(&peer);
            }
        });
    }

    /// Dials the neighbours that are not connected: those that are ours to dial at once, the others
    /// if they have not come by themselves for a while.
    fn connect(&mut self) {
        let peers = Arc::clone(&self.neighbours);
        let now = self.node.now();
        let interval = self.node.config().gossip_interval;
        self.missing.retain(|peer, _| peers.binary_search(peer).is_ok());
        for peer in &*peers {
            if self.shared.table.link(peer).is_some() {
                self.missing.remove(peer);
                continue;
            }
            let missing = self.missing.entry(peer.clone()).or_insert(Missing {
                since: now,
                attempts: 0,
                retry: now,
            });
            let patience =
                interval * if overlay::dials(self.node.node(), peer) { 0 } else { PATIENCE };
            if now.since(missing.since) < patience || now < missing.retry {
                continue;
            }
            missing.attempts += 1;
            let doublings = missing.attempts.min(BACK_OFF_DOUBLINGS_MAX);
            missing.retry = now + interval * (1 << doublings) / 2;
            let (shared, node, peer) = (Arc::clone(&self.shared), self.node.clone(), peer.clone());
            let spawner = self.tasks.spawner();
            self.tasks.spawner().spawn(async move {
                dial::reach(&shared, &node, &spawner, &Target::Peer(peer)).await;
            });
        }
    }
}

/// Begins an exchange; says whether it went through.
async fn exchange(node: &NodeLink, link: &Link, summary: Summary) -> bool {
    let Some(stream) = open(node, link).await else { return false };
    let mut frames = StreamFrames::new(stream, &link.room, node);
    let met = link.met();
    let Err(error) = initiate(node, &met, summary, &mut frames).await else {
        frames.finish();
        return true;
    };
    frames.abort();
    if error.is_misbehaviour() {
        link.cut_off(node, &error);
    } else {
        tracing::debug!(node = %node.node(), peer = %met.node, %error, "exchange failed");
    }
    false
}

/// A peer need not let us open any stream; then it is as one that does not answer.
async fn open(node: &NodeLink, link: &Link) -> Option<(SendStream, RecvStream)> {
    let deadline = node.config().quic.exchange_timeout;
    tokio::time::timeout(deadline, link.connection.open_bi()).await.ok()?.ok()
}

/// Rounds that the other end of an edge is given to dial.
const PATIENCE: u32 = 3;
/// A neighbour that cannot be reached is dialed again after at most 16 rounds.
const BACK_OFF_DOUBLINGS_MAX: u32 = 5;
