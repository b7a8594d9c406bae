//! Somebody at a node's UDP port who does not play by the rules: raw quinn, raw TLS, raw datagrams.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Config, Generation, Gossipmonger,
    protocol::{
        message::{Hello, Message},
        seal::Signing,
    },
    tls::{Expect, Identity, Roots, SERVER_NAME, Tls, Verdict},
    transport::quic::QuicTransport,
};
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::sync::{Barrier, oneshot};

use crate::harness::{Cluster, PATIENCE, id, until};

/// A node under attack, and an honest one that notices whether it still gossips.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) node: Gossipmonger,
    pub(crate) friend: Gossipmonger,
    rounds: u32,
}

impl Scene {
    /// `node` under attack is called `m`, its friend `n`.
    /// Members made by hand sign nothing, so nobody asks for that here.
    pub(crate) async fn new(tune: impl Fn(&mut Config)) -> Self {
        Self::with(Signing::Prefer, tune).await
    }

    pub(crate) async fn with(signing: Signing, tune: impl Fn(&mut Config)) -> Self {
        let cluster = Cluster { signing, ..Cluster::new("demo") };
        let mut config = cluster.config("m");
        tune(&mut config);
        let node = Gossipmonger::spawn(config).await.unwrap().0;
        let friend = cluster.spawn("n", &[&node]).await;
        let scene = Self { cluster, node, friend, rounds: 0 };
        until("the two see each other", || {
            scene.node.live_peers().len() == 1 && scene.friend.live_peers().len() == 1
        })
        .await;
        scene
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.addresses()[0].parse().unwrap()
    }

    /// A value of either gets to the other.
    pub(crate) async fn still_gossips(&mut self) {
        self.rounds += 1;
        for (from, to) in [(&self.node, &self.friend), (&self.friend, &self.node)] {
            let value = self.rounds.to_string();
            from.set("round", value.as_str()).await.unwrap();
            until("news get through", || {
                to.get_str(from.node(), "round").as_deref() == Some(&value)
            })
            .await;
        }
    }

    pub(crate) fn count(&self, counter: &str) -> u64 {
        self.node.counters().all()[counter]
    }

    pub(crate) fn refused(&self, label: &str) -> u64 {
        refused(&self.node, label)
    }

    pub(crate) async fn counts(&self, counter: &str, least: u64) {
        until(&format!("{counter} >= {least}"), || self.count(counter) >= least).await;
    }

    /// A member's TLS that is open to tampering.
    pub(crate) fn member(&self, node: &str) -> rustls::ClientConfig {
        client(self.cluster.identity(node))
    }

    /// A member that has introduced itself.
    pub(crate) async fn introduced(&self, node: &str) -> Member {
        self.introduced_with(node, TransportConfig::default()).await
    }

    pub(crate) async fn introduced_with(&self, node: &str, transport: TransportConfig) -> Member {
        let member = Member::dial(self.member(node), self.address(), transport).await.unwrap();
        let welcome = member.introduce(hello("demo", node)).await;
        assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");
        member
    }

    pub(crate) async fn end(self) {
        tokio::join!(self.node.shutdown(), self.friend.shutdown());
    }
}

/// A connection to a node. The endpoint is kept as long as it.
pub(crate) struct Member {
    pub(crate) connection: Connection,
    _endpoint: Endpoint,
}

impl Member {
    pub(crate) async fn dial(
        tls: rustls::ClientConfig,
        to: SocketAddr,
        transport: TransportConfig,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = client_config(tls, transport);
        let connection = endpoint.connect_with(config, to, SERVER_NAME).unwrap().await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// What the node answers to these first words, if it answers.
    pub(crate) async fn introduce(&self, hello: Hello) -> Option<Message> {
        self.ask(&frame(&Message::Hello(hello))).await
    }

    /// What the node answers to these bytes on a stream of their own, if it answers.
    pub(crate) async fn ask(&self, bytes: &[u8]) -> Option<Message> {
        let (mut send, mut receive) = self.connection.open_bi().await.ok()?;
        send.write_all(bytes).await.ok()?;
        read(&mut receive).await
    }

    pub(crate) async fn open(&self) -> (SendStream, RecvStream) {
        self.connection.open_bi().await.unwrap()
    }

    /// Waits until the node closes the connection; gives its application code and words.
    pub(crate) async fn cut_off(&self) -> (u64, String) {
        let ended = tokio::time::timeout(PATIENCE, self.connection.closed()).await;
        match ended.expect("not cut off") {
            ConnectionError::ApplicationClosed(closed) => {
                let words = String::from_utf8_lossy(&closed.reason).into_owned();
                (closed.error_code.into_inner(), words)
            }
            other => panic!("ended otherwise: {other}"),
        }
    }
}

/// Close codes of the wire.
pub(crate) const UNWELCOME: u64 = 1;
pub(crate) const MISBEHAVIOUR: u64 = 4;
pub(crate) const EXPIRED: u64 = 5;
pub(crate) const TIMEOUT: u64 = 7;

pub(crate) fn refused(node: &Gossipmonger, label: &str) -> u64 {
    node.counters().refusals().get(label).copied().unwrap_or(0)
}

pub(crate) fn hello(cluster: &str, node: &str) -> Hello {
    Hello {
        cluster: cluster.parse().unwrap(),
        node: id(node),
        generation: Generation(1_000),
        known: Generation::ZERO,
        features: 0,
    }
}

pub(crate) fn frame(message: &Message) -> Vec<u8> {
    message.encode().unwrap()
}

/// A frame with any content.
pub(crate) fn raw_frame(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes(), content].concat()
}

pub(crate) async fn read(receive: &mut RecvStream) -> Option<Message> {
    let mut length = [0; 4];
    receive.read_exact(&mut length).await.ok()?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    receive.read_exact(&mut frame).await.ok()?;
    Message::decode(&frame).ok()
}

pub(crate) fn tls((identity, roots): (Identity, Roots)) -> Tls {
    Tls::new(identity, roots).unwrap()
}

pub(crate) fn client(member: (Identity, Roots)) -> rustls::ClientConfig {
    tls(member).rustls_client(Expect::AnyNode, Verdict::default())
}

pub(crate) fn client_config(
    tls: rustls::ClientConfig,
    transport: TransportConfig,
) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

/// An endpoint that shows this to those who dial it.
pub(crate) fn server(tls: rustls::ServerConfig) -> Endpoint {
    server_at(tls, (Ipv4Addr::LOCALHOST, 0).into())
}

pub(crate) fn server_at(tls: rustls::ServerConfig, address: SocketAddr) -> Endpoint {
    let crypto = Arc::new(QuicServerConfig::try_from(tls).unwrap());
    Endpoint::server(quinn::ServerConfig::with_crypto(crypto), address).unwrap()
}

/// First flights of `count` handshakes that a member begins, a list of datagrams each, as they are
/// on the wire.
pub(crate) async fn first_flights(tls: rustls::ClientConfig, count: usize) -> Vec<Vec<Vec<u8>>> {
    let wire = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    wire.set_nonblocking(true).unwrap();
    let wire = tokio::net::UdpSocket::from_std(wire).unwrap();
    let to = wire.local_addr().unwrap();
    let config = client_config(tls, TransportConfig::default());
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let (mut flights, mut known) = (Vec::new(), BTreeSet::new());
    for _ in 0..count {
        let connecting = endpoint.connect_with(config.clone(), to, SERVER_NAME).unwrap();
        let mut flight: Vec<Vec<u8>> = Vec::new();
        // The keys of the post-quantum exchange take the first flight beyond one datagram.
        while flight.len() < 2 {
            let mut datagram = vec![0; 2_000];
            let received = tokio::time::timeout(PATIENCE, wire.recv_from(&mut datagram)).await;
            datagram.truncate(received.unwrap().unwrap().0);
            let ours = flight.first().map(|first| destination(first).to_vec());
            // What those before repeat is passed over.
            let wanted = match ours.as_deref() {
                Some(ours) => ours == destination(&datagram),
                None => !known.contains(destination(&datagram)),
            };
            if wanted {
                flight.push(datagram);
            }
        }
        drop(connecting);
        known.insert(destination(&flight[0]).to_vec());
        flights.push(flight);
    }
    flights
}

/// The connection id that a first packet is for.
fn destination(datagram: &[u8]) -> &[u8] {
    &datagram[6..6 + usize::from(datagram[5])]
}

/// What the process has in memory, in bytes.
pub(crate) fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

/// A node whose transport the test keeps hold of.
pub(crate) fn with_transport(cluster: &Cluster, node: &str) -> (Config, Arc<QuicTransport>) {
    let (identity, roots) = cluster.identity(node);
    let transport = Arc::new(QuicTransport::new(identity, roots).unwrap());
    let mut config = Config::with_quic(Arc::clone(&transport)).local();
    config.gossip_interval = Duration::from_millis(100);
    (config, transport)
}

/// An address that leads to a node that is told later.
pub(crate) struct Relay {
    pub(crate) address: String,
    to: Option<oneshot::Sender<String>>,
}

impl Relay {
    /// Passes datagrams on as soon as it is known where to, and somebody has sent one to each relay
    /// that shares the barrier.
    pub(crate) async fn new(barrier: &Arc<Barrier>) -> Self {
        let outer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = outer.local_addr().unwrap().to_string();
        let (to, target) = oneshot::channel();
        tokio::spawn(pass_on(outer, target, Arc::clone(barrier)));
        Self { address, to: Some(to) }
    }

    pub(crate) fn lead_to(&mut self, node: &Gossipmonger) {
        self.to.take().unwrap().send(node.addresses()[0].clone()).unwrap();
    }
}

async fn pass_on(
    outer: tokio::net::UdpSocket,
    target: oneshot::Receiver<String>,
    barrier: Arc<Barrier>,
) {
    let inner = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    let (mut len, dialer) = outer.recv_from(&mut there).await.unwrap();
    barrier.wait().await;
    inner.connect(target.await.unwrap()).await.unwrap();
    loop {
        // What cannot be delivered is lost, as datagrams are.
        let _ = inner.send(&there[..len]).await;
        loop {
            tokio::select! {
                Ok((arrived, _)) = outer.recv_from(&mut there) => {
                    len = arrived;
                    break;
                }
                Ok(arrived) = inner.recv(&mut back) => {
                    let _ = outer.send_to(&back[..arrived], dialer).await;
                }
            }
        }
    }
}
