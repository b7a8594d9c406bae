//! Nodes of one process, without a network: for tests, and as an example of a [`Network`].
//!
//! Every frame still passes the codec, so a frame that works here works on the wire. It has no socket, so it runs
//! under tokio's paused time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Mutex as Turn, mpsc};

use super::{
    BoxFuture, Connection, Dial, Dialed, Ended, Endpoint, Incoming, Network, NetworkError, Opening,
    Peer, Proof, Protocol, ReceiveStream, SendStream, Shown, Stream, StreamError, Way,
    pipe::{self, PipeReceiver, PipeSender},
};
use crate::{protocol::id::NodeId, slot::Slot, tls::PeerName};

/// A network within this process. Each node gets a [`MemoryPlace`] in it.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork(Arc<Mutex<Hub>>);

#[derive(Debug, Default)]
struct Hub {
    /// The open ports by address.
    open: BTreeMap<String, Arc<Port>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    delay: Duration,
    /// Of single directions, in place of `delay`.
    delays: BTreeMap<(NodeId, NodeId), Duration>,
}

/// The address of one node.
#[derive(Debug)]
struct Port {
    name: PeerName,
    /// Which protocols besides gossip it accepts.
    admitted: Mutex<BTreeSet<Protocol>>,
    dialers: mpsc::Sender<Arc<dyn Connection>>,
    /// Its connections, which end with it.
    wires: Mutex<Vec<Arc<Wire>>>,
}

/// One node's place in a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryPlace {
    network: MemoryNetwork,
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A place for one node, reachable at [`MemoryNetwork::address`] of its name.
    #[must_use]
    pub fn place(&self) -> Arc<MemoryPlace> {
        Arc::new(MemoryPlace { network: self.clone() })
    }

    /// The address of a node, to be used as a seed.
    #[must_use]
    pub fn address(node: &NodeId) -> String {
        format!("{node}:1")
    }

    /// Drops everything from `from` to `to` from now on. A connection between the two breaks at the first message
    /// sent in that direction.
    pub fn cut(&self, from: &NodeId, to: &NodeId) {
        self.hub().cuts.insert((from.clone(), to.clone()));
    }

    /// Removes all cuts.
    pub fn heal(&self) {
        self.hub().cuts.clear();
    }

    /// The delay of all messages from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.hub().delay = delay;
    }

    /// The delay of all messages between two nodes from now on, in place of that of all others.
    pub fn set_delay_between(&self, one: &NodeId, other: &NodeId, delay: Duration) {
        let mut hub = self.hub();
        hub.delays.insert((one.clone(), other.clone()), delay);
        hub.delays.insert((other.clone(), one.clone()), delay);
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.0)
    }

    /// The delay from one node to another; `None` if that direction is cut.
    fn path(&self, from: &NodeId, to: &NodeId) -> Option<Duration> {
        let (hub, path) = (self.hub(), (from.clone(), to.clone()));
        let delay = hub.delays.get(&path).copied().unwrap_or(hub.delay);
        (!hub.cuts.contains(&path)).then_some(delay)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Code under the lock does not panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network for MemoryPlace {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>> {
        let (dialers, accepted) = mpsc::channel(DIALERS_MAX);
        let address = MemoryNetwork::address(&opening.name.node);
        let (name, admitted) = (opening.name, Mutex::new(BTreeSet::from([Protocol::Gossip])));
        let port = Arc::new(Port { name, admitted, dialers, wires: Mutex::default() });
        // A later process of that name takes its address.
        let before = self.network.hub().open.insert(address.clone(), Arc::clone(&port));
        before.iter().for_each(|before| before.close(0, b"another process has its address"));
        let network = self.network.clone();
        let endpoint = MemoryEndpoint { network, address, port, accepted: Turn::new(accepted) };
        Box::pin(async move { Ok(Arc::new(endpoint) as Arc<dyn Endpoint>) })
    }
}

impl Port {
    fn close(&self, code: u32, words: &[u8]) {
        for wire in lock(&self.wires).drain(..) {
            wire.close(&self.name.node, code, words);
        }
    }

    fn add(&self, wire: &Arc<Wire>) {
        let mut wires = lock(&self.wires);
        wires.retain(|wire| !wire.end.is_set());
        wires.push(Arc::clone(wire));
    }
}

/// The endpoint of one node.
#[derive(Debug)]
struct MemoryEndpoint {
    network: MemoryNetwork,
    address: String,
    port: Arc<Port>,
    accepted: Turn<mpsc::Receiver<Arc<dyn Connection>>>,
}

impl Endpoint for MemoryEndpoint {
    fn addresses(&self) -> Vec<String> {
        vec![self.address.clone()]
    }

    fn accept(&self) -> BoxFuture<'_, Option<Incoming>> {
        Box::pin(async {
            let connection = self.accepted.lock().await.recv().await?;
            Some(Incoming {
                remote: connection.remote(),
                host: connection.remote(),
                handshake: Box::pin(async move { Ok(connection) }),
                place: Box::new(()),
            })
        })
    }

    fn admit(&self, protocol: Protocol) {
        lock(&self.port.admitted).insert(protocol);
    }

    fn dial(&self, to: &[String], expected: Option<&NodeId>, protocol: Protocol) -> Box<dyn Dial> {
        Box::new(MemoryDial {
            network: self.network.clone(),
            from: Arc::clone(&self.port),
            left: to.iter().cloned().collect(),
            about: None,
            expected: expected.cloned(),
            protocol,
        })
    }

    fn close<'a>(&'a self, code: u32, words: &'a [u8]) -> BoxFuture<'a, ()> {
        self.leave(code, words);
        Box::pin(async {})
    }

    fn release(&self) {
        self.leave(0, b"");
    }
}

impl MemoryEndpoint {
    fn leave(&self, code: u32, words: &[u8]) {
        let mut hub = self.network.hub();
        if hub.open.get(&self.address).is_some_and(|port| Arc::ptr_eq(port, &self.port)) {
            hub.open.remove(&self.address);
        }
        drop(hub);
        self.port.close(code, words);
    }
}

/// Dials the addresses of one target, one after the other.
struct MemoryDial {
    network: MemoryNetwork,
    from: Arc<Port>,
    left: VecDeque<String>,
    about: Option<Way>,
    expected: Option<NodeId>,
    protocol: Protocol,
}

impl MemoryDial {
    async fn connect(&self, way: Way) -> Dialed {
        let port = self.network.hub().open.get(&way.address).cloned();
        let Some(port) = port else {
            return Dialed::Failed(way, "nobody is there".to_owned());
        };
        let (here, there) = (&self.from.name, &port.name);
        if self.expected.as_ref().is_some_and(|expected| *expected != there.node) {
            return Dialed::Failed(way, format!("{} is there", there.node));
        }
        if !lock(&port.admitted).contains(&self.protocol) {
            return Dialed::Failed(way, format!("{} speaks no such protocol", there.node));
        }
        let forth = self.network.path(&here.node, &there.node);
        let back = self.network.path(&there.node, &here.node);
        let (Some(forth), Some(back)) = (forth, back) else {
            return Dialed::Failed(way, "nothing gets through".to_owned());
        };
        pause(forth + back).await;
        let (dialer, accepter) = connected(&self.network, [here, there], self.protocol);
        self.from.add(&dialer.wire);
        port.add(&dialer.wire);
        match port.dialers.try_send(accepter) {
            Ok(()) => Dialed::Reached(way, dialer),
            Err(_) => Dialed::Failed(way, "it accepts no more".to_owned()),
        }
    }
}

impl Dial for MemoryDial {
    fn next(&mut self) -> BoxFuture<'_, Option<Dialed>> {
        Box::pin(async {
            if let Some(way) = self.about.clone() {
                let dialed = self.connect(way).await;
                self.about = None;
                return Some(dialed);
            }
            let address = self.left.pop_front()?;
            let way = Way { address, to: None, from: None };
            self.about = Some(way.clone());
            Some(Dialed::About(way))
        })
    }

    fn answered(&mut self, way: &Way) {
        self.left.retain(|address| *address != way.address);
        self.about = self.about.take().filter(|about| about != way);
    }

    fn again(&mut self, way: Option<&Way>) {
        self.left.extend(way.map(|way| way.address.clone()));
    }

    fn since_last(&self) -> Duration {
        // A handshake takes no longer than its path.
        Duration::ZERO
    }
}

/// The shared state of both ends of a connection.
#[derive(Debug)]
struct Wire {
    network: MemoryNetwork,
    /// Who has closed it, and how; nobody if it was cut.
    end: Slot<Close>,
    /// Things that have arrived at each end, acknowledgements included.
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
}

#[derive(Clone, Debug)]
struct Close {
    by: Option<NodeId>,
    code: u32,
    words: Bytes,
}

impl Wire {
    fn close(&self, by: &NodeId, code: u32, words: &[u8]) {
        self.end.set_first(Close {
            by: Some(by.clone()),
            code,
            words: Bytes::copy_from_slice(words),
        });
    }
}

/// One end of a connection.
struct End {
    wire: Arc<Wire>,
    side: usize,
    protocol: Protocol,
    own: NodeId,
    peer: Peer,
    name: NodeId,
    streams: Crossed<Stream>,
    one_way: Crossed<Box<dyn ReceiveStream>>,
    datagrams: Crossed<Bytes>,
}

/// A connection of these two nodes; the first one has dialed.
fn connected(
    network: &MemoryNetwork,
    names: [&PeerName; 2],
    protocol: Protocol,
) -> (Arc<End>, Arc<End>) {
    let wire = Arc::new(Wire {
        network: network.clone(),
        end: Slot::default(),
        received: Default::default(),
        sent: Default::default(),
    });
    let (streams, streams_back) = crossed(STREAMS_MAX);
    let (one_way, one_way_back) = crossed(STREAMS_MAX);
    let (datagrams, datagrams_back) = crossed(DATAGRAMS_MAX);
    let end = |side: usize, streams, one_way, datagrams| {
        let (own, peer) = (names[side], names[1 - side]);
        Arc::new(End {
            wire: Arc::clone(&wire),
            side,
            protocol,
            own: own.node.clone(),
            peer: proved(peer),
            name: peer.node.clone(),
            streams,
            one_way,
            datagrams,
        })
    };
    (end(0, streams, one_way, datagrams), end(1, streams_back, one_way_back, datagrams_back))
}

type Crossed<T> = (mpsc::Sender<T>, Turn<mpsc::Receiver<T>>);

/// Two channels: each end receives what the other one sends.
fn crossed<T>(most: usize) -> (Crossed<T>, Crossed<T>) {
    let ((out, far), (back, near)) = (mpsc::channel(most), mpsc::channel(most));
    ((out, Turn::new(near)), (back, Turn::new(far)))
}

fn proved(name: &PeerName) -> Peer {
    let nothing = || Shown { fingerprint: String::new(), expires: None };
    Peer {
        name: Some(name.clone()),
        client: None,
        datacenter: Some(name.datacenter.clone()),
        chain: Vec::new(),
        proof: Proof { ours: nothing(), theirs: nothing() },
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

impl Close {
    /// The same end of a connection, as this node sees it.
    fn seen_by(self, own: &NodeId) -> Ended {
        match self.by {
            Some(by) if by == *own => Ended::Here,
            Some(_) => Ended::Closed { code: u64::from(self.code), words: self.words },
            None => Ended::Lost("nothing gets through".to_owned()),
        }
    }
}

impl End {
    fn reason(&self) -> Option<Ended> {
        self.wire.end.get().map(|end| end.seen_by(&self.own))
    }

    /// The result of `wait`, unless the connection ends first.
    async fn unless_ended<T>(&self, wait: impl Future<Output = Option<T>>) -> Result<T, Ended> {
        let waited = tokio::select! {
            biased;
            waited = wait => waited,
            ended = self.closed() => return Err(ended),
        };
        match waited {
            Some(waited) => Ok(waited),
            None => Err(self.closed().await),
        }
    }
}

/// Takes as long as the path, counts at the other end, and acknowledges.
async fn travel(wire: &Arc<Wire>, side: usize, [from, to]: [&NodeId; 2]) -> bool {
    let Some(delay) = wire.network.path(from, to) else {
        wire.end.set_first(Close { by: None, code: 0, words: Bytes::new() });
        return false;
    };
    wire.sent[side].fetch_add(1, Ordering::Relaxed);
    pause(delay).await;
    if wire.end.is_set() {
        return false;
    }
    wire.received[1 - side].fetch_add(1, Ordering::Relaxed);
    let Some(back) = wire.network.path(to, from) else { return true };
    let acknowledge = {
        let wire = Arc::clone(wire);
        move || wire.received[side].fetch_add(1, Ordering::Relaxed)
    };
    if back.is_zero() {
        acknowledge();
    } else {
        tokio::spawn(async move {
            pause(back).await;
            acknowledge();
        });
    }
    true
}

impl Connection for End {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn remote(&self) -> String {
        MemoryNetwork::address(&self.name)
    }

    fn round_trip(&self) -> Option<Duration> {
        let network = &self.wire.network;
        Some(network.path(&self.own, &self.name)? + network.path(&self.name, &self.own)?)
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let (forth, back) = (pipe::one_way(), pipe::one_way());
            let near: Stream = (self.sender(forth.0), self.receiver(&self.own, back.1));
            let far: Stream = (self.far_sender(back.0), self.receiver(&self.name, forth.1));
            self.unless_ended(async { self.streams.0.send(far).await.ok() }).await?;
            Ok(near)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(self.unless_ended(async { self.streams.1.lock().await.recv().await }))
    }

    fn open_one_way(&self) -> BoxFuture<'_, Result<Box<dyn SendStream>, Ended>> {
        Box::pin(async {
            let (out, far) = pipe::one_way();
            let far = self.receiver(&self.name, far);
            self.unless_ended(async { self.one_way.0.send(far).await.ok() }).await?;
            Ok(self.sender(out))
        })
    }

    fn accept_one_way(&self) -> BoxFuture<'_, Result<Box<dyn ReceiveStream>, Ended>> {
        Box::pin(self.unless_ended(async { self.one_way.1.lock().await.recv().await }))
    }

    fn send_datagram(&self, datagram: Bytes) -> bool {
        if self.reason().is_some() {
            return false;
        }
        let (wire, side, out) = (Arc::clone(&self.wire), self.side, self.datagrams.0.clone());
        let (own, name) = (self.own.clone(), self.name.clone());
        if wire.network.path(&own, &name).is_none() {
            wire.end.set_first(Close { by: None, code: 0, words: Bytes::new() });
            return false;
        }
        tokio::spawn(async move {
            if travel(&wire, side, [&own, &name]).await {
                // A datagram that finds the queue full is lost.
                let _ = out.try_send(datagram);
            }
        });
        true
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, Ended>> {
        Box::pin(self.unless_ended(async { self.datagrams.1.lock().await.recv().await }))
    }

    fn received(&self) -> u64 {
        self.wire.received[self.side].load(Ordering::Relaxed)
    }

    fn packets(&self) -> (u64, u64) {
        (self.wire.sent[self.side].load(Ordering::Relaxed), 0)
    }

    fn close(&self, code: u32, words: &[u8]) {
        self.wire.close(&self.own, code, words);
    }

    fn ended(&self) -> Option<Ended> {
        self.reason()
    }

    fn is_open(&self) -> bool {
        !self.wire.end.is_set()
    }

    fn closed(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            self.wire.end.wait().await;
            self.reason().unwrap_or(Ended::Here)
        })
    }
}

impl End {
    fn sender(&self, out: PipeSender) -> Box<dyn SendStream> {
        let names = [self.own.clone(), self.name.clone()];
        Box::new(Sender { wire: Arc::clone(&self.wire), side: self.side, names, out })
    }

    fn far_sender(&self, out: PipeSender) -> Box<dyn SendStream> {
        let (side, names) = (1 - self.side, [self.name.clone(), self.own.clone()]);
        Box::new(Sender { wire: Arc::clone(&self.wire), side, names, out })
    }

    /// `own`: the node that reads.
    fn receiver(&self, own: &NodeId, chunks: PipeReceiver) -> Box<dyn ReceiveStream> {
        Box::new(Receiver { wire: Arc::clone(&self.wire), own: own.clone(), chunks })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.wire.close(&self.own, 0, b"");
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("peer", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Sender {
    wire: Arc<Wire>,
    side: usize,
    names: [NodeId; 2],
    out: PipeSender,
}

impl SendStream for Sender {
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>> {
        Box::pin(async {
            if !travel(&self.wire, self.side, [&self.names[0], &self.names[1]]).await {
                return Err(StreamError::Stream("nothing gets through".to_owned()));
            }
            let wire = Arc::clone(&self.wire);
            tokio::select! {
                biased;
                written = self.out.write(chunks) => written,
                close = wire.end.wait() => Err(StreamError::Connection(close.seen_by(&self.names[0]))),
            }
        })
    }

    fn finish(&mut self) {
        self.out.finish();
    }

    fn delivered(&mut self) -> BoxFuture<'_, ()> {
        self.out.delivered()
    }

    fn reset(&mut self, code: u32) {
        self.out.reset(code);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // While the connection lasts, dropping it ends the stream, as in QUIC. The end of the connection is no such end.
        if self.wire.end.is_set() {
            self.out.reset(0);
        }
    }
}

#[derive(Debug)]
struct Receiver {
    wire: Arc<Wire>,
    own: NodeId,
    chunks: PipeReceiver,
}

impl ReceiveStream for Receiver {
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>> {
        Box::pin(async move {
            let wire = Arc::clone(&self.wire);
            tokio::select! {
                biased;
                read = self.chunks.read(most) => match (read, wire.end.get()) {
                    (Err(_), Some(close)) => Err(StreamError::Connection(close.seen_by(&self.own))),
                    (read, _) => read,
                },
                close = wire.end.wait() => Err(StreamError::Connection(close.seen_by(&self.own))),
            }
        })
    }

    fn stop(&mut self, code: u32) {
        self.chunks.stop(code);
    }
}

/// Maximum number of peers that wait to be accepted.
const DIALERS_MAX: usize = 1_024;
/// Maximum number of streams of one kind that wait to be accepted on one connection.
const STREAMS_MAX: usize = 32;
/// Maximum number of unread datagrams on one connection; further ones are lost.
const DATAGRAMS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClusterId, Datacenter};

    fn pair() -> (Arc<End>, Arc<End>) {
        let name = |node| PeerName {
            cluster: ClusterId::new("test").unwrap(),
            datacenter: Datacenter::new("dc").unwrap(),
            node: NodeId::new(node).unwrap(),
        };
        connected(&MemoryNetwork::new(), [&name("a"), &name("b")], Protocol::Services)
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_no_end_of_its_streams() {
        for ends in [true, false] {
            let (a, b) = pair();
            let (mut out, _back) = a.open().await.unwrap();
            let (_there, mut chunks) = b.accept().await.unwrap();
            out.write(&mut [Bytes::from_static(b"a part")]).await.unwrap();
            if ends {
                a.close(7, b"so");
            }
            drop(out);
            assert_eq!(chunks.read(9).await.unwrap(), Some(Bytes::from_static(b"a part")));
            match chunks.read(9).await {
                Ok(None) => assert!(!ends),
                Err(StreamError::Connection(ended)) => assert!(ends, "{ended}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_finished_before_has_its_end() {
        let (a, b) = pair();
        let (mut out, _back) = a.open().await.unwrap();
        let (_there, mut chunks) = b.accept().await.unwrap();
        out.finish();
        a.close(7, b"so");
        drop(out);
        assert_eq!(chunks.read(9).await.unwrap(), None);
    }
}
