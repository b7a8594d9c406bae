//! The transport actor: starts tasks and forgets them; they report by themselves.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use ractor::{ActorProcessingErr, ActorRef};

use super::{
    Shared,
    accept::accept,
    close::Close,
    dial,
    frames::StreamFrames,
    life,
    serve::serve,
    table::Link,
    tasks::{Spawner, Tasks},
};
use crate::{
    protocol::{
        exchange::Summary,
        id::NodeId,
        message::{Call, Heartbeat},
        route::{Counter, Misconduct, Target, TransportInput},
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
    /// Heartbeats sent.
    beats: u64,
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
        Ok(State { shared, node, tasks, beats: 0 })
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
            TransportInput::Heartbeat { peers, health } => state.beat(&peers, health),
            TransportInput::Probe { probes, health } => state.probe(&probes, health),
            TransportInput::Dial(peers) => peers.into_iter().for_each(|peer| state.dial(peer)),
            TransportInput::Renew(peers) => peers.into_iter().for_each(|peer| state.renew(peer)),
            TransportInput::Close(peers) => {
                let links = peers.iter().filter_map(|peer| state.shared.table.link(peer));
                links.for_each(|link| state.close(link));
            }
            TransportInput::Gossip { to, gossip } => {
                state.shared.table.gossip(&state.node, &to, &gossip);
            }
            TransportInput::HoldAgainst { peer, price, why } => {
                state.hold_against(&peer, price, why);
            }
            TransportInput::TellLinks => drop(state.shared.table.tell(&state.node)),
            TransportInput::Forget(peer) => {
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
                done = exchange(&node, &spawner, link, summary.clone()).await;
                // Two that dial each other at once agree on one connection, and close the other one
                // in the middle of what it is used for.
                if !done
                    && let Some(other) = shared.table.link(&link.met().node)
                    && !other.is(link)
                {
                    done = exchange(&node, &spawner, &other, summary).await;
                }
            }
            node.ended(target, dialed.node, done);
        });
    }

    /// Holds something against a peer, also if it has closed its connection meanwhile.
    fn hold_against(&self, peer: &NodeId, price: u32, why: Misconduct) {
        let (node, what) = (&self.node, why.as_str());
        match self.shared.table.link(peer) {
            Some(link) => link.hold_against(node, price, what),
            None if self.shared.conduct.throttled(peer, node.now(), price) => {
                self.shared.conduct.bar(peer, node.now(), node.config().quic.bar, what);
            }
            None => {}
        }
    }

    /// Sends a heartbeat to each of these. That QUIC acknowledges it is their life.
    fn beat(&mut self, peers: &[NodeId], health: u8) {
        self.beats += 1;
        let beat = Heartbeat {
            generation: self.node.generation(),
            sequence: self.beats,
            call: Call::Beat,
            health,
        };
        let datagram = Bytes::from(beat.encode());
        for peer in peers {
            self.datagram(peer, datagram.clone());
        }
    }

    fn probe(&self, probes: &[(NodeId, u64)], health: u8) {
        let generation = self.node.generation();
        for (peer, sequence) in probes {
            let probe = Heartbeat { generation, sequence: *sequence, call: Call::Probe, health };
            self.datagram(peer, probe.encode().into());
        }
    }

    fn datagram(&self, peer: &NodeId, datagram: Bytes) {
        let link = self.shared.table.link(peer);
        let sent = link.is_some_and(|link| {
            link.expect(self.node.now());
            link.connection.send_datagram(datagram).is_ok()
        });
        self.node.count(if sent { Counter::HeartbeatsSent } else { Counter::HeartbeatsUnsent });
    }

    /// Closes a connection, when what is under way on it has come through: the last frame of an
    /// exchange would be lost with it.
    fn close(&self, link: Arc<Link>) {
        let patience = self.node.config().quic.exchange_timeout;
        self.tasks.spawner().spawn(async move {
            let _ = tokio::time::timeout(patience, link.idle()).await;
            Close::Unneeded.connection(&link.connection, "not needed any more");
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

    /// Others say that a peer lives. What waits for an answer of it since before it was given up may
    /// wait for as long again: QUIC doubles its timeouts, and sends nothing new while its window is
    /// full of what was lost.
    fn renew(&self, peer: NodeId) {
        if self.shared.table.hurry(&peer) {
            return;
        }
        let stale = self.shared.table.link(&peer).filter(|link| link.is_stale(&self.node));
        let Some(stale) = stale else { return };
        self.node.count(Counter::ConnectionsRenewed);
        tracing::debug!(node = %self.node.node(), %peer, "silent connection to a peer that lives");
        let (shared, node) = (Arc::clone(&self.shared), self.node.clone());
        let spawner = self.tasks.spawner();
        self.tasks.spawner().spawn(async move {
            // It stays until there is another one.
            let _ = dial::reach(&shared, &node, &spawner, &Target::Peer(peer)).await;
            drop(stale);
        });
    }
}

/// Begins an exchange; says whether it went through.
async fn exchange(node: &NodeLink, spawner: &Spawner, link: &Arc<Link>, summary: Summary) -> bool {
    let underway = link.begin();
    let Some(stream) = open(node, link).await else { return false };
    let mut frames = StreamFrames::new(stream, link, node);
    let met = link.met();
    let Err(error) = initiate(node, &met, summary, &mut frames).await else {
        spawner.spawn(async move {
            // Until the peer has all of it.
            frames.finished().await;
            drop(underway);
        });
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
