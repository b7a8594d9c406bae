//! Authenticated connections between nodes, and nothing else.
//!
//! A [`Network`] opens an [`Endpoint`] for one node. An endpoint dials and accepts [`Connection`]s; a connection
//! has a proven [`Peer`], streams, datagrams and statistics. It speaks one [`Protocol`]: the gossip of members, or
//! what clients ask. Nothing here knows gossip, configuration files or actors: what a connection is used for, and
//! which of two connections stays, is decided above.
//!
//! Two networks ship: [`quic`], which is what nodes use, and [`memory`], for tests. To write another one, implement
//! the traits of this module; [`memory`] is the example. The traits ask for:
//!
//! 1. The name of a peer is proved before the first byte of a stream, not claimed in it.
//! 2. The bytes of a stream arrive in order and complete, or the stream fails.
//! 3. What a peer can make an endpoint hold has a limit.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use crate::{
    counters::Counters,
    protocol::id::{Datacenter, NodeId},
    store::EndpointKeys,
    tls::{ClientName, PeerName, Refusal, RefusedBy, Tls},
};

pub mod limits;
pub mod memory;
pub mod quic;

use self::limits::QuicLimits;

/// A future of a trait's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to reach other nodes, not yet in use.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens an endpoint for one node: binds the socket, for example.
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>>;
}

/// What an endpoint is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening<'a> {
    /// The node's name.
    pub name: PeerName,
    /// Where to listen: at least one address.
    pub listen: &'a [SocketAddr],
    /// What is allowed.
    pub limits: QuicLimits,
    /// Secrets that stay the same over restarts.
    pub endpoint_keys: &'a EndpointKeys,
    /// Where to count.
    pub counters: &'a Arc<Counters>,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(
        name: PeerName,
        (listen, limits): (&'a [SocketAddr], QuicLimits),
        endpoint_keys: &'a EndpointKeys,
        counters: &'a Arc<Counters>,
    ) -> Self {
        Self { name, listen, limits, endpoint_keys, counters }
    }
}

/// An endpoint could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The identity or the roots cannot be used.
    #[error("{0}")]
    Identity(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What a connection is used for. Over QUIC it is the ALPN of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// The gossip of members: both ends show a node's certificate.
    Gossip,
    /// Requests of clients: the dialer shows a client's certificate, or a node's.
    Clients,
}

/// An endpoint in use by one node.
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Where it can be dialed, if nothing else is advertised: `host:port` each.
    fn addresses(&self) -> Vec<String>;

    /// What the node shows and whom it accepts, where peers prove their names with certificates. Without it no map
    /// is signed, and no certificate is revoked.
    fn tls(&self) -> Option<&Tls> {
        None
    }

    /// Accepts handshakes of this protocol from now on. [`Protocol::Gossip`] is accepted from the start; any other
    /// one is refused in the handshake until then.
    fn admit(&self, _protocol: Protocol) {}

    /// Waits for the next peer that dials; `None` once the endpoint is closed. One task at a time waits.
    fn accept(&self) -> BoxFuture<'_, Option<Incoming>>;

    /// Begins to dial `to`, addresses of one target, best first. `expected`: the node that has to answer; any other
    /// one is refused in the handshake.
    fn dial(&self, to: &[String], expected: Option<&NodeId>) -> Box<dyn Dial>;

    /// Closes all connections with this code and these words, and gives back what `open` took.
    fn close<'a>(&'a self, code: u32, words: &'a [u8]) -> BoxFuture<'a, ()>;

    /// Gives back what `open` took, at once and without a word to the peers: the runtime in which it was opened is
    /// gone. By default the last reference does that.
    fn release(&self) {}
}

/// A peer that dials this node.
pub struct Incoming {
    /// Its address, for an operator. It proves nothing.
    pub remote: String,
    /// The part of it that is the same when the peer dials again.
    pub host: String,
    /// The handshake; dropping it gives the handshake up.
    pub handshake: BoxFuture<'static, Result<Arc<dyn Connection>, Ended>>,
    /// Its place among the handshakes under way: given back when dropped, which is once the peer has introduced
    /// itself.
    pub place: Place,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Something that is held while an [`Incoming`] is dealt with.
pub type Place = Box<dyn Send + Sync>;

/// Dialing one target: several handshakes, since it may have several addresses, and a node several sockets.
pub trait Dial: Send {
    /// What happens next; `None` once every way has been tried.
    fn next(&mut self) -> BoxFuture<'_, Option<Dialed>>;

    /// The caller has what it wants at the address of this way, or knows why not: no other way to it is tried.
    fn answered(&mut self, way: &Way);

    /// Begins anew: the handshake of this way, which went through and led to nothing, or else all that wait for
    /// an answer.
    fn again(&mut self, way: Option<&Way>);

    /// How long ago the last handshake was begun.
    fn since_last(&self) -> Duration;
}

/// One way to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The address as it was given.
    pub address: String,
    /// What it was resolved to; `None` if it was not.
    pub to: Option<SocketAddr>,
    /// The address of this node that it leaves from; `None` if there is none of that family.
    pub from: Option<SocketAddr>,
}

impl Way {
    /// The address that is dialed, as [`Connection::remote`] says it.
    #[must_use]
    pub fn remote(&self) -> String {
        self.to.map_or_else(|| self.address.clone(), |to| to.to_string())
    }
}

/// The address as it was given, and what it was resolved to.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.map(|to| to.to_string()) {
            Some(to) if to != self.address => write!(f, "{} ({to})", self.address),
            _ => f.write_str(&self.address),
        }
    }
}

/// What happens while a target is dialed.
#[derive(Debug)]
pub enum Dialed {
    /// A handshake is about to begin, unless the caller says [`Dial::answered`].
    About(Way),
    /// A handshake went through.
    Reached(Way, Arc<dyn Connection>),
    /// A handshake was refused, by either end.
    Refused(Way, Ended),
    /// A way leads nowhere, and why.
    Failed(Way, String),
    /// A way is not tried, and why.
    Untried(Way, String),
}

/// The other end of a connection, as the handshake has proved it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name of a node.
    pub name: Option<PeerName>,
    /// The name of a client.
    pub client: Option<ClientName>,
    /// Its datacenter, if the certificates of this cluster name one.
    pub datacenter: Option<Datacenter>,
    /// Its certificates, the leaf first; none where the network has none.
    pub chain: Vec<CertificateDer<'static>>,
    /// With what the two ends have proved who they are.
    pub proof: Proof,
}

/// With what the two ends of a connection have proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What this node has shown.
    pub ours: Shown,
    /// What the peer has shown.
    pub theirs: Shown,
}

/// One certificate with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Of the chain; empty where there is none.
    pub fingerprint: String,
    /// When the first of the chain ends; `None` if never.
    pub expires: Option<SystemTime>,
}

/// A connection whose handshake went through.
pub trait Connection: fmt::Debug + Send + Sync + 'static {
    /// What it is used for.
    fn protocol(&self) -> Protocol;

    /// The other end.
    fn peer(&self) -> &Peer;

    /// Its address. It proves nothing.
    fn remote(&self) -> String;

    /// Opens a stream both ways. It waits while the peer allows no further one.
    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// The next stream both ways that the peer opens.
    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// Opens a stream to the peer. It waits while the peer allows no further one.
    fn open_one_way(&self) -> BoxFuture<'_, Result<Box<dyn SendStream>, Ended>>;

    /// The next stream to this end that the peer opens.
    fn accept_one_way(&self) -> BoxFuture<'_, Result<Box<dyn ReceiveStream>, Ended>>;

    /// Sends a datagram; says whether it could be handed over. It may be lost.
    fn send_datagram(&self, datagram: Bytes) -> bool;

    /// The next datagram.
    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, Ended>>;

    /// Frames of any kind that were received in authentic packets, acknowledgements included: by it the node knows
    /// that the peer lives.
    fn received(&self) -> u64;

    /// Packets sent, and how many of these were lost.
    fn packets(&self) -> (u64, u64);

    /// Holds at most so many bytes of streams that are on their way here.
    fn set_receive_window(&self, _bytes: u32) {}

    /// Closes it with a code and words. What is on its way may be lost.
    fn close(&self, code: u32, words: &[u8]);

    /// Why it has ended, if it has.
    fn ended(&self) -> Option<Ended>;

    /// Whether it has not ended.
    fn is_open(&self) -> bool {
        self.ended().is_none()
    }

    /// Waits until it has ended.
    fn closed(&self) -> BoxFuture<'_, Ended>;
}

/// Both ends of a stream.
pub type Stream = (Box<dyn SendStream>, Box<dyn ReceiveStream>);

/// The end of a stream that this node writes. Dropping it finishes it.
pub trait SendStream: fmt::Debug + Send + Sync {
    /// Writes all of these; returns once they are handed over. They are empty then.
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>>;

    /// Ends the stream: the peer reads what was written, and then the end.
    fn finish(&mut self);

    /// Waits until the peer has received everything, or has given the stream up.
    fn delivered(&mut self) -> BoxFuture<'_, ()>;

    /// Gives the stream up, with a code for traces: the peer need not read what was written.
    fn reset(&mut self, code: u32);

    /// Higher ones go first; 0 at the beginning.
    fn set_priority(&mut self, _priority: i32) {}
}

/// The end of a stream that this node reads. Dropping it stops it.
pub trait ReceiveStream: fmt::Debug + Send + Sync {
    /// The next bytes, at most so many; `None` at the end of the stream. Nothing is lost if the future is dropped.
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>>;

    /// Reads no more, and tells the peer, with a code for traces.
    fn stop(&mut self, code: u32);
}

/// Reads a stream to its end.
///
/// # Errors
/// [`StreamError`] if it fails, or brings more than `most` bytes.
pub async fn read_to_end(
    stream: &mut dyn ReceiveStream,
    most: usize,
) -> Result<Vec<u8>, StreamError> {
    let mut read = Vec::new();
    while let Some(chunk) = stream.read(CHUNK_BYTES).await? {
        if read.len() + chunk.len() > most {
            return Err(StreamError::Stream(format!("it brings more than {most} bytes")));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A stream failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection has ended.
    #[error("{0}")]
    Connection(Ended),
    /// The peer has given the stream up.
    #[error("{0}")]
    Stream(String),
}

/// Why a connection has ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The peer has closed it. Before the handshake is over anybody can say that.
    Closed {
        /// The code.
        code: u64,
        /// What it says.
        words: Bytes,
    },
    /// One end has refused the certificate of the other one.
    Refused(Box<Refusal>),
    /// This end has closed it.
    Here,
    /// The peer has lost it: its process has started anew.
    Reset,
    /// The peer's implementation reports an error.
    Failed(String),
    /// This end has found that it cannot go on: too long a silence, for example.
    Lost(String),
}

impl Ended {
    /// Whether this end has found it, and the other one did not tell.
    #[must_use]
    pub fn is_our_end(&self) -> bool {
        match self {
            Self::Closed { .. } | Self::Failed(_) => false,
            Self::Refused(refusal) => refusal.by == RefusedBy::Us,
            Self::Here | Self::Reset | Self::Lost(_) => true,
        }
    }

    /// The refusal, if one end has refused the certificate of the other one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, words } => {
                let words = String::from_utf8_lossy(words);
                write!(f, "closed by peer: {} (code {code})", crate::foreign::escaped(&words))
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Here => f.write_str("closed"),
            Self::Reset => f.write_str("reset by peer"),
            Self::Failed(reason) | Self::Lost(reason) => f.write_str(reason),
        }
    }
}
