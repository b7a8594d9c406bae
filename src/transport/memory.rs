//! Nodes of one process, without a network: for the tests of those who use this crate.
//!
//! Every frame still goes through the codec, so what passes here passes on the wire. There is no
//! socket, so it runs under tokio's paused time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    BoxFuture, Met, NodeLink, OpenTransport, Opening, Transport, TransportError,
    exchange::{FrameError, Frames, answer, initiate},
    gossip::{self, Ear, Outbox},
};
use crate::protocol::{
    exchange::Summary,
    gossip::Gossip,
    id::NodeId,
    message::{Call, Heartbeat, LENGTH_BYTES, Message},
    route::{Counter, Sign, Target, TransportInput},
};

/// A network within this process. Clone it into every node's [`MemoryTransport`].
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork(Arc<Mutex<Hub>>);

#[derive(Debug, Default)]
struct Hub {
    nodes: BTreeMap<String, NodeLink>,
    /// Both ends of every connection, each by its own name and then the peer's.
    links: BTreeMap<NodeId, BTreeMap<NodeId, End>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    delay: Duration,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    node: NodeLink,
    dialed: bool,
    outbox: Arc<Outbox>,
    writer: AbortHandle,
}

impl Drop for End {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// One node's place in a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport for one node: it is reached at [`MemoryNetwork::address`] of its name.
    #[must_use]
    pub fn transport(&self) -> Arc<MemoryTransport> {
        Arc::new(MemoryTransport { network: self.clone() })
    }

    /// The address of a node, to be used as a seed.
    #[must_use]
    pub fn address(node: &NodeId) -> String {
        format!("{node}:1")
    }

    /// Drops everything from `from` to `to` from now on. A connection between the two breaks at the
    /// first thing sent that way.
    pub fn cut(&self, from: &NodeId, to: &NodeId) {
        self.hub().cuts.insert((from.clone(), to.clone()));
    }

    /// Mends all cuts.
    pub fn heal(&self) {
        self.hub().cuts.clear();
    }

    /// How long every frame takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.hub().delay = delay;
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        // Nothing under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, address: &str) -> Option<NodeLink> {
        self.hub().nodes.get(address).cloned()
    }

    /// The delay from one node to another; `None` if nothing gets through.
    fn path(&self, from: &NodeId, to: &NodeId) -> Option<Duration> {
        let hub = self.hub();
        (!hub.cuts.contains(&(from.clone(), to.clone()))).then_some(hub.delay)
    }

    /// Connects two that are introduced to each other, unless they are connected.
    fn connect(&self, dialer: &NodeLink, accepter: &NodeLink) {
        let mut hub = self.hub();
        if hub.end(dialer.node(), accepter.node()).is_some() {
            return;
        }
        dialer.count(Counter::ConnectionsDialed);
        accepter.count(Counter::ConnectionsAccepted);
        for (here, there, dialed) in [(dialer, accepter, true), (accepter, dialer, false)] {
            let datacenter = &there.config().datacenter;
            let outbox = Arc::new(Outbox::new(here, there.node().clone(), datacenter));
            let tell = tell(self.clone(), here.clone(), there.clone(), Arc::clone(&outbox));
            let writer = tokio::spawn(tell).abort_handle();
            let end = End { node: here.clone(), dialed, outbox, writer };
            hub.links.entry(here.node().clone()).or_default().insert(there.node().clone(), end);
            here.linked(there.node(), true, dialed);
        }
    }

    /// Ends the connection between two, if there is one.
    fn disconnect(&self, one: &NodeId, other: &NodeId) {
        self.hub().disconnect(one, other);
    }
}

impl Hub {
    fn end(&self, of: &NodeId, to: &NodeId) -> Option<&End> {
        self.links.get(of)?.get(to)
    }

    fn disconnect(&mut self, one: &NodeId, other: &NodeId) {
        for (here, there) in [(one, other), (other, one)] {
            if let Some(end) = self.links.get_mut(here).and_then(|ends| ends.remove(there)) {
                end.node.linked(there, false, end.dialed);
            }
        }
    }

    /// Ends all connections of a node that ends.
    fn isolate(&mut self, node: &NodeId) {
        let peers = self.links.get(node).map(|ends| ends.keys().cloned().collect::<Vec<_>>());
        for peer in peers.unwrap_or_default() {
            self.disconnect(node, &peer);
        }
        self.links.remove(node);
    }
}

impl Transport for MemoryTransport {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn OpenTransport>, TransportError>> {
        let node = opening.name.node;
        let network = self.network.clone();
        Box::pin(async move {
            let open: Arc<dyn OpenTransport> = Arc::new(Open { network, node });
            Ok(open)
        })
    }
}

#[derive(Clone, Debug)]
struct Open {
    network: MemoryNetwork,
    node: NodeId,
}

impl OpenTransport for Open {
    fn addresses(&self) -> Vec<String> {
        vec![MemoryNetwork::address(&self.node)]
    }

    fn start(
        &self,
        node: NodeLink,
        supervisor: ActorCell,
    ) -> BoxFuture<'_, Result<ActorRef<TransportInput>, SpawnErr>> {
        {
            let mut hub = self.network.hub();
            let before = hub.nodes.insert(MemoryNetwork::address(&self.node), node.clone());
            if before.is_some_and(|before| !before.is(&node)) {
                hub.isolate(&self.node);
            }
        }
        let network = self.network.clone();
        let arguments = State { network, node, tasks: JoinSet::new(), sequence: 0 };
        Box::pin(async move {
            let (actor, _) = Actor::spawn_linked(None, Postman, arguments, supervisor).await?;
            Ok(actor)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.release();
        Box::pin(async {})
    }

    fn release(&self) {
        let mut hub = self.network.hub();
        hub.nodes.remove(&MemoryNetwork::address(&self.node));
        hub.isolate(&self.node);
    }
}

/// The actor.
#[derive(Debug)]
struct Postman;

#[derive(Debug)]
struct State {
    network: MemoryNetwork,
    node: NodeLink,
    tasks: JoinSet<()>,
    sequence: u64,
}

#[ractor::actor(message = TransportInput, state = State, arguments = State)]
impl Postman {
    async fn pre_start(
        &self,
        _: ActorRef<TransportInput>,
        state: State,
    ) -> Result<State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<TransportInput>,
        input: TransportInput,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        match input {
            TransportInput::Round { targets, summary } => {
                targets.into_iter().for_each(|target| state.begin(target, summary.clone()));
            }
            TransportInput::Heartbeat { peers, health } => state.heartbeat(&peers, health),
            TransportInput::Probe { probes, health } => state.probe(&probes, health),
            TransportInput::Dial(peers) => state.dial(&peers),
            TransportInput::Close(peers) => {
                let near = state.node.node();
                peers.iter().for_each(|peer| state.network.disconnect(near, peer));
            }
            // Nothing waits on a connection here: one that is cut ends.
            TransportInput::Renew(_) => {}
            TransportInput::Gossip { to, gossip } => state.tell(&to, &gossip),
            // Nobody is cut off here.
            TransportInput::HoldAgainst { .. } => {}
            TransportInput::TellLinks => state.tell_links(),
            TransportInput::Forget(peer) => state.network.disconnect(state.node.node(), &peer),
        }
        Ok(())
    }
}

impl State {
    fn begin(&mut self, target: Target, summary: Summary) {
        let (network, node) = (self.network.clone(), self.node.clone());
        self.tasks.spawn(async move {
            let mut who = None;
            let result = run(&network, &node, &target, summary, &mut who).await;
            node.ended(target, who, result.is_some());
        });
    }

    fn dial(&self, peers: &[NodeId]) {
        for peer in peers {
            let hub = self.network.hub();
            if let Some(end) = hub.end(self.node.node(), peer) {
                self.node.linked(peer, true, end.dialed);
                continue;
            }
            drop(hub);
            meet(&self.network, &self.node, &Target::Peer(peer.clone()), &mut None);
            if self.network.hub().end(self.node.node(), peer).is_none() {
                self.node.count(Counter::DialsFailed);
                self.node.dial_failed(peer);
            }
        }
    }

    fn tell(&self, to: &[NodeId], gossip: &Gossip) {
        let hub = self.network.hub();
        let ends = to.iter().filter_map(|peer| hub.end(self.node.node(), peer));
        gossip::tell(&self.node, gossip, ends.map(|end| &*end.outbox));
    }

    fn tell_links(&self) {
        let hub = self.network.hub();
        for (peer, end) in hub.links.get(self.node.node()).into_iter().flatten() {
            self.node.linked(peer, true, end.dialed);
            end.outbox.tell(&self.node);
        }
    }

    fn heartbeat(&mut self, peers: &[NodeId], health: u8) {
        self.sequence += 1;
        let (generation, sequence) = (self.node.generation(), self.sequence);
        let beat = Heartbeat { generation, sequence, call: Call::Beat, health };
        peers.iter().for_each(|peer| self.send(peer, beat));
    }

    fn probe(&mut self, probes: &[(NodeId, u64)], health: u8) {
        let generation = self.node.generation();
        for (peer, sequence) in probes {
            let call = Call::Probe;
            self.send(peer, Heartbeat { generation, sequence: *sequence, call, health });
        }
    }

    fn send(&mut self, peer: &NodeId, heartbeat: Heartbeat) {
        let (network, node, peer) = (self.network.clone(), self.node.clone(), peer.clone());
        self.tasks.spawn(async move { beat(&network, &node, &peer, heartbeat).await });
    }
}

/// A datagram, and the answer to it: over QUIC that is the acknowledgement, or the echo.
async fn beat(network: &MemoryNetwork, node: &NodeLink, peer: &NodeId, heartbeat: Heartbeat) {
    let there = network.node(&MemoryNetwork::address(peer));
    let (Some(there), Some(delay)) = (there, network.path(node.node(), peer)) else {
        network.disconnect(node.node(), peer);
        return node.count(Counter::HeartbeatsUnsent);
    };
    node.count(Counter::HeartbeatsSent);
    tokio::time::sleep(delay).await;
    let generation = there.generation();
    there.count(Counter::HeartbeatsReceived);
    there.heard(node.node(), heartbeat.generation, Sign::Heartbeat, there.now());
    let Some(delay) = network.path(peer, node.node()) else { return };
    tokio::time::sleep(delay).await;
    let sign = match heartbeat.call {
        Call::Probe => Sign::Echo(heartbeat.sequence),
        Call::Beat | Call::Echo => Sign::Traffic,
    };
    node.heard(peer, generation, sign, node.now());
}

/// Tells one peer what waits for it, for as long as the two are connected.
async fn tell(network: MemoryNetwork, node: NodeLink, there: NodeLink, outbox: Arc<Outbox>) {
    let mut ear = Ear::new(&there, node.node());
    loop {
        let mut batch = vec![outbox.next(&node).await.1];
        // What waits has waited together.
        while batch.len() < BATCH_MAX
            && let Some((_, frame)) = outbox.try_next(&node)
        {
            batch.push(frame);
        }
        let Some(delay) = network.path(node.node(), there.node()) else { break };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let peer = Met { node: node.node().clone(), generation: node.generation() };
        for frame in batch {
            node.count(Counter::GossipSent);
            if let Err(error) = ear.hear(&there, &peer, &frame[LENGTH_BYTES..]).await {
                there.refused(&peer.node, "misbehaviour", format!("cut off: {error}"));
                return network.disconnect(node.node(), there.node());
            }
        }
    }
    network.disconnect(node.node(), there.node());
}

/// Introduces both to each other, then runs both halves. `None`: it did not go through.
async fn run(
    network: &MemoryNetwork,
    node: &NodeLink,
    target: &Target,
    summary: Summary,
    who: &mut Option<NodeId>,
) -> Option<()> {
    let (there, us, them) = meet(network, node, target, who)?;
    let (mut near, mut far) = pair(network, &us, &them);
    let (begun, answered) =
        tokio::join!(initiate(node, &them, summary, &mut near), answer(&there, &us, &mut far));
    there.count(match answered {
        Ok(()) => Counter::ExchangesAnswered,
        Err(_) => Counter::ExchangesFailed,
    });
    begun.ok()
}

/// Connects to a target; gives its node, and how the two have introduced themselves.
fn meet(
    network: &MemoryNetwork,
    node: &NodeLink,
    target: &Target,
    who: &mut Option<NodeId>,
) -> Option<(NodeLink, Met, Met)> {
    let (address, wanted) = match target {
        Target::Peer(peer) => (node.addresses(peer).into_iter().next()?, Some(peer)),
        Target::Address(address) => (address.clone(), None),
    };
    let there = network.node(&address)?;
    *who = Some(there.node().clone());
    network.path(node.node(), there.node())?;
    let theirs = there.hello(Some(node.node()));
    let ours = node.hello(Some(there.node()));
    let introduced =
        (there.meet(&ours, node.node(), None), node.meet(&theirs, there.node(), wanted));
    let (Ok(us), Ok(them)) = introduced else {
        refuse(node, &there, introduced);
        return None;
    };
    if network.path(there.node(), node.node()).is_some() {
        network.connect(node, &there);
    }
    Some((there, us, them))
}

type Introduced = (Result<Met, super::Unwelcome>, Result<Met, super::Unwelcome>);

fn refuse(node: &NodeLink, there: &NodeLink, introduced: Introduced) {
    if let Err(unwelcome) = introduced.0
        && !matches!(unwelcome, super::Unwelcome::Ourselves)
    {
        there.refused(node.node(), unwelcome.as_str(), unwelcome);
    }
    if let Err(unwelcome) = introduced.1
        && !matches!(unwelcome, super::Unwelcome::Ourselves)
    {
        node.refused(there.node(), unwelcome.as_str(), unwelcome);
    }
}

/// One end of a stream between two nodes.
struct Pipe {
    network: MemoryNetwork,
    from: NodeId,
    to: NodeId,
    out: mpsc::Sender<Vec<u8>>,
    inbox: mpsc::Receiver<Vec<u8>>,
}

fn pair(network: &MemoryNetwork, us: &Met, them: &Met) -> (Pipe, Pipe) {
    let (out, far) = mpsc::channel(FRAMES_MAX);
    let (back, near) = mpsc::channel(FRAMES_MAX);
    let pipe = |from: &Met, to: &Met, out, inbox| Pipe {
        network: network.clone(),
        from: from.node.clone(),
        to: to.node.clone(),
        out,
        inbox,
    };
    (pipe(us, them, out, near), pipe(them, us, back, far))
}

impl Frames for Pipe {
    async fn send(&mut self, message: &Message) -> Result<(), FrameError> {
        let frame = message.encode()?;
        let Some(delay) = self.network.path(&self.from, &self.to) else {
            return Err(FrameError::Lost("cut".to_owned()));
        };
        tokio::time::sleep(delay).await;
        let gone = |_| FrameError::Lost("the other end is gone".to_owned());
        self.out.send(frame).await.map_err(gone)
    }

    async fn receive(&mut self) -> Result<Option<Message>, FrameError> {
        match self.inbox.recv().await {
            Some(frame) => Ok(Some(Message::decode(&frame[LENGTH_BYTES..])?)),
            None => Ok(None),
        }
    }
}

/// Frames of gossip on their way at once.
const BATCH_MAX: usize = 32;
/// Frames of an exchange on their way, each way.
const FRAMES_MAX: usize = 2;
