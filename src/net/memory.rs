//! Nodes of one process, without a network: for tests, and as an example of a [`Network`].
//!
//! Every frame still passes the codec, so a frame that works here works on the wire. It has no socket, so it runs
//! under tokio's paused time.

mod paths;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
#[cfg(feature = "testkit")]
use std::{ops::RangeInclusive, time::SystemTime};

use bytes::Bytes;
use tokio::{
    sync::{Mutex as Turn, Notify, mpsc},
    time::timeout,
};

use self::paths::Paths;
use super::{
    BoxFuture, Connection, Dial, Dialed, Ended, Endpoint, Incoming, Network, NetworkError, Opening,
    Peer, Proof, Protocol, ReceiveStream, SendStream, Shown, Stream, StreamError, Way,
    pipe::{self, PipeReceiver, PipeSender},
};
use crate::{
    clock::Clock,
    protocol::{id::NodeId, time::Time},
    slot::Slot,
    tls::{PeerName, Refusal, RefusedBy, Rejection, date},
};

/// A network within this process. Each node gets a [`MemoryPlace`] in it.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    hub: Arc<Mutex<Hub>>,
    clock: Clock,
    /// A path was healed, or an address opened.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Hub {
    /// The open ports by address.
    open: BTreeMap<String, Arc<Port>>,
    paths: Paths,
}

/// The address of one node.
#[derive(Debug)]
struct Port {
    name: PeerName,
    /// Which protocols besides gossip it accepts.
    admitted: Mutex<BTreeSet<Protocol>>,
    dialers: mpsc::Sender<Arc<dyn Connection>>,
    /// Its connections, which end with it, and its side of each.
    wires: Mutex<Vec<(Arc<Wire>, usize)>>,
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
        self.hub().paths.cut(from, to);
    }

    /// Removes all cuts.
    pub fn heal(&self) {
        self.hub().paths.heal();
        self.changed.notify_waiters();
    }

    /// The delay of all messages from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.hub().paths.set_delay(delay..=delay);
    }

    /// The delay of all messages between two nodes from now on, in place of that of all others.
    pub fn set_delay_between(&self, one: &NodeId, other: &NodeId, delay: Duration) {
        let mut hub = self.hub();
        hub.paths.set_delay_from(one, other, delay..=delay);
        hub.paths.set_delay_from(other, one, delay..=delay);
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.hub)
    }

    /// The delay of the next message from one node to another; `None` if that direction is cut.
    fn path(&self, from: &NodeId, to: &NodeId) -> Option<Duration> {
        self.hub().paths.draw(&(from.clone(), to.clone()))
    }

    fn is_open(&self, node: &NodeId) -> bool {
        self.hub().open.contains_key(&Self::address(node))
    }
}

/// What tests do to it.
#[cfg(feature = "testkit")]
impl MemoryNetwork {
    /// From now on a connection over a cut path waits, and breaks only when it was cut for this long, as over QUIC. All
    /// delays are drawn from this seed.
    pub(crate) fn set_patience(&self, patience: Duration, seed: u64) {
        let mut hub = self.hub();
        hub.paths.patience = Some(patience);
        hub.paths.seed(seed);
    }

    /// Removes the cut of one direction.
    pub(crate) fn heal_path(&self, from: &NodeId, to: &NodeId) {
        self.hub().paths.heal_path(from, to);
        self.changed.notify_waiters();
    }

    /// The delays of all messages from now on.
    pub(crate) fn set_delays(&self, delays: RangeInclusive<Duration>) {
        self.hub().paths.set_delay(delays);
    }

    /// The delays of messages in one direction from now on, in place of those of all others.
    pub(crate) fn set_delays_from(
        &self,
        from: &NodeId,
        to: &NodeId,
        delays: RangeInclusive<Duration>,
    ) {
        self.hub().paths.set_delay_from(from, to, delays);
    }

    /// Gives a node a new certificate, which its peers accept until then.
    pub(crate) fn certify(
        &self,
        node: &NodeId,
        expires: SystemTime,
        wall: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) {
        self.hub().paths.certify(node, expires, Arc::new(wall));
    }

    /// The process of a node is gone at once: its peers hear nothing of that.
    pub(crate) fn crash(&self, node: &NodeId) {
        let port = self.hub().open.remove(&Self::address(node));
        for (wire, side) in port.iter().flat_map(|port| lock(&port.wires).clone()) {
            wire.gone[side].store(true, Ordering::Relaxed);
            wire.ends[side].set_first(Close::Lost("its process has ended"));
        }
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self { hub: Arc::default(), clock: Clock::start(), changed: Arc::default() }
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
        self.network.changed.notify_waiters();
        before.iter().for_each(|before| before.close(0, b"another process has its address"));
        let network = self.network.clone();
        let endpoint = MemoryEndpoint { network, address, port, accepted: Turn::new(accepted) };
        Box::pin(async move { Ok(Arc::new(endpoint) as Arc<dyn Endpoint>) })
    }
}

impl Port {
    fn close(&self, code: u32, words: &[u8]) {
        for (wire, side) in lock(&self.wires).drain(..) {
            wire.close(side, code, words);
        }
    }

    fn add(&self, wire: &Arc<Wire>, side: usize) {
        let mut wires = lock(&self.wires);
        wires.retain(|(wire, side)| !wire.ends[*side].is_set());
        wires.push((Arc::clone(wire), side));
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

    fn shown(&self) -> Option<Shown> {
        self.network.hub().paths.shown(&self.port.name.node)
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
        if let Some(refusal) = self.expired(&here.node, &there.node) {
            return Dialed::Refused(way, Ended::Refused(Box::new(refusal)));
        }
        let (dialer, accepter) = connected(&self.network, [here, there], self.protocol);
        self.from.add(&dialer.wire, 0);
        port.add(&dialer.wire, 1);
        match port.dialers.try_send(accepter) {
            Ok(()) => Dialed::Reached(way, dialer),
            Err(_) => Dialed::Failed(way, "it accepts no more".to_owned()),
        }
    }
}

impl MemoryDial {
    /// Why one end refuses the certificate of the other one.
    fn expired(&self, here: &NodeId, there: &NodeId) -> Option<Refusal> {
        let hub = self.network.hub();
        let sides = [(there, here, RefusedBy::Us), (here, there, RefusedBy::Peer)];
        sides.into_iter().find_map(|(node, judge, by)| {
            let end = hub.paths.expired(node, judge)?;
            let detail = format!("the certificate of {node} expired on {}", date(end)).into();
            Some(Refusal { by, reason: Rejection::Expired, detail })
        })
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
    /// How it has ended for each end.
    ends: [Slot<Close>; 2],
    /// The process of that end is gone, and could not say so.
    gone: [AtomicBool; 2],
    /// Since when nothing gets through from that end.
    cut: [Mutex<Option<Time>>; 2],
    /// Things that have arrived at each end, acknowledgements included.
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
}

#[derive(Clone, Debug)]
enum Close {
    By { side: usize, code: u32, words: Bytes },
    Lost(&'static str),
    Reset,
}

impl Wire {
    fn close(&self, side: usize, code: u32, words: &[u8]) {
        self.end(side, Close::By { side, code, words: Bytes::copy_from_slice(words) });
    }

    /// Ends it; the other end of one that is gone does not hear of that.
    fn end(&self, side: usize, close: Close) {
        self.ends[side].set_first(close.clone());
        if !self.gone[side].load(Ordering::Relaxed) {
            self.ends[1 - side].set_first(close);
        }
    }

    fn is_gone(&self, side: usize) -> bool {
        self.gone[side].load(Ordering::Relaxed)
    }

    /// The delay of the next message from this end; `None` if nothing gets through now. It ends the connection if that
    /// has lasted too long, or another process is there.
    fn path(&self, side: usize, [from, to]: [&NodeId; 2]) -> Option<Duration> {
        let network = &self.network;
        let mut cut = lock(&self.cut[side]);
        let delay = network.path(from, to);
        if delay.is_some() && !self.is_gone(1 - side) {
            *cut = None;
            return delay;
        }
        if delay.is_some() && network.is_open(to) {
            self.end(side, Close::Reset);
            return None;
        }
        let now = network.clock.now();
        let patience = network.hub().paths.patience.unwrap_or_default();
        if now.since(*cut.get_or_insert(now)) >= patience {
            self.end(side, Close::Lost(NOTHING_GETS_THROUGH));
        }
        None
    }

    /// The same for what is sent until it arrives; `None` if the connection has ended.
    async fn path_again(&self, side: usize, names: [&NodeId; 2]) -> Option<Duration> {
        loop {
            let changed = self.network.changed.notified();
            if let Some(delay) = self.path(side, names) {
                return Some(delay);
            }
            if self.ends[side].is_set() {
                return None;
            }
            // Whatever changes, or when it is sent again.
            let _ = timeout(SENT_AGAIN, changed).await;
        }
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
        ends: Default::default(),
        gone: Default::default(),
        cut: Default::default(),
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
            peer: proved(network, own, peer),
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

fn proved(network: &MemoryNetwork, own: &PeerName, name: &PeerName) -> Peer {
    let nothing = || Shown { fingerprint: String::new(), expires: None };
    let shown = |name: &PeerName| network.hub().paths.shown(&name.node).unwrap_or_else(nothing);
    Peer {
        name: Some(name.clone()),
        client: None,
        datacenter: Some(name.datacenter.clone()),
        chain: Vec::new(),
        proof: Proof { ours: shown(own), theirs: shown(name) },
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

impl Close {
    /// The same end of a connection, as this end sees it.
    fn seen_by(self, own: usize) -> Ended {
        match self {
            Self::By { side, .. } if side == own => Ended::Here,
            Self::By { code, words, .. } => Ended::Closed { code: u64::from(code), words },
            Self::Lost(why) => Ended::Lost(why.to_owned()),
            Self::Reset => Ended::Reset,
        }
    }
}

impl End {
    fn reason(&self) -> Option<Ended> {
        self.wire.ends[self.side].get().map(|end| end.seen_by(self.side))
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
    let Some(delay) = wire.path_again(side, [from, to]).await else { return false };
    wire.sent[side].fetch_add(1, Ordering::Relaxed);
    pause(delay).await;
    if wire.ends[side].is_set() {
        return false;
    }
    wire.received[1 - side].fetch_add(1, Ordering::Relaxed);
    if wire.is_gone(1 - side) {
        return true;
    }
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
        let (own, name) = (self.own.clone(), self.name.clone());
        let hub = self.wire.network.hub();
        Some(hub.paths.mean(&(own.clone(), name.clone()))? + hub.paths.mean(&(name, own))?)
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>> {
        Box::pin(async {
            let (forth, back) = (pipe::one_way(), pipe::one_way());
            let near: Stream = (self.sender(forth.0), self.receiver(self.side, back.1));
            let far: Stream = (self.far_sender(back.0), self.receiver(1 - self.side, forth.1));
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
            let far = self.receiver(1 - self.side, far);
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
        if wire.path(side, [&own, &name]).is_none() {
            // It is lost, which the sender finds out when the connection breaks.
            return !wire.ends[side].is_set();
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
        self.wire.close(self.side, code, words);
    }

    fn ended(&self) -> Option<Ended> {
        self.reason()
    }

    fn is_open(&self) -> bool {
        !self.wire.ends[self.side].is_set()
    }

    fn closed(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            self.wire.ends[self.side].wait().await;
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

    /// `side`: the end that reads.
    fn receiver(&self, side: usize, chunks: PipeReceiver) -> Box<dyn ReceiveStream> {
        Box::new(Receiver { wire: Arc::clone(&self.wire), side, chunks })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.wire.close(self.side, 0, b"");
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
                close = wire.ends[self.side].wait() => Err(StreamError::Connection(close.seen_by(self.side))),
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
        if self.wire.ends[self.side].is_set() {
            self.out.reset(0);
        }
    }
}

#[derive(Debug)]
struct Receiver {
    wire: Arc<Wire>,
    side: usize,
    chunks: PipeReceiver,
}

impl ReceiveStream for Receiver {
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>> {
        Box::pin(async move {
            let (wire, side) = (Arc::clone(&self.wire), self.side);
            let ended = || async {
                let close = wire.ends[side].wait().await;
                Err(StreamError::Connection(close.seen_by(side)))
            };
            tokio::select! {
                biased;
                read = self.chunks.read(most) => match read {
                    Err(_) if wire.ends[side].is_set() => ended().await,
                    // A process that is gone ends no stream.
                    Err(_) | Ok(None) if wire.is_gone(1 - side) => ended().await,
                    read => read,
                },
                ended = ended() => ended,
            }
        })
    }

    fn stop(&mut self, code: u32) {
        self.chunks.stop(code);
    }
}

/// Why a connection is lost.
const NOTHING_GETS_THROUGH: &str = "nothing gets through";
/// How often data is sent again over a path that is cut.
const SENT_AGAIN: Duration = Duration::from_secs(1);
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
