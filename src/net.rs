//! Authenticated connections between nodes, without any knowledge of gossip.
//!
//! A [`Network`] opens an [`Endpoint`] for one node. An endpoint dials and accepts [`Connection`]s; a connection
//! has a proven [`Peer`], streams, datagrams and statistics. It serves one [`Protocol`]: the gossip of members,
//! requests of clients, or calls between services. This module does not depend on gossip, configuration files or actors: its users decide on
//! the purpose of a connection, and on which of two connections stays.
//!
//! The crate contains two networks: [`quic`], which nodes use, and [`memory`], for tests. To write another one,
//! implement the traits of this module; [`memory`] is the example. The traits require:
//!
//! 1. The name of a peer is proved before the first byte of a stream, not merely claimed in it.
//! 2. The bytes of a stream arrive in order and complete, or the stream fails.
//! 3. A peer's share of an endpoint's memory is limited.

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
    lateness::Lateness,
    protocol::id::{Datacenter, NodeId},
    store::EndpointKeys,
    tls::{ClientName, PeerName, Refusal, RefusedBy, Tls},
};

pub(crate) mod ledger;
pub(crate) mod limits;
pub mod memory;
pub(crate) mod pipe;
pub mod quic;
#[cfg(test)]
pub(crate) mod quiet;

use self::limits::QuicLimits;

/// The future that a trait's method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to reach other nodes, not yet in use.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens an endpoint for one node: binds the socket, for example.
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>>;
}

/// The parameters of an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening<'a> {
    /// The node's name.
    pub name: PeerName,
    /// The addresses to listen on: at least one.
    pub listen: &'a [SocketAddr],
    /// The limits.
    pub limits: QuicLimits,
    /// Secrets that stay the same across restarts.
    pub endpoint_keys: &'a EndpointKeys,
    /// The counters.
    pub counters: &'a Arc<Counters>,
    /// How late the node is served.
    pub(crate) lateness: &'a Arc<Lateness>,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(
        name: PeerName,
        (listen, limits): (&'a [SocketAddr], QuicLimits),
        endpoint_keys: &'a EndpointKeys,
        (counters, lateness): (&'a Arc<Counters>, &'a Arc<Lateness>),
    ) -> Self {
        Self { name, listen, limits, endpoint_keys, counters, lateness }
    }
}

/// An endpoint could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// An address could not be bound.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: String,
        /// The error of the system.
        reason: String,
    },
    /// The identity or the roots cannot be used.
    #[error("{0}")]
    Identity(String),
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

/// The purpose of a connection. Over QUIC it is the ALPN of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// The gossip of members: both ends show a node's certificate.
    Gossip,
    /// Requests of clients: the dialer shows a client's certificate, or a node's.
    Clients,
    /// Calls between services: the dialer shows a node's certificate, or a client's; the accepting end is a node.
    Services,
}

/// An endpoint in use by one node.
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// The addresses at which it can be dialed, if no others are advertised: `host:port` each.
    fn addresses(&self) -> Vec<String>;

    /// The node's certificate and the peers it accepts, if names are proved with certificates. Without it no map
    /// is signed, and no certificate is revoked.
    fn tls(&self) -> Option<&Tls> {
        None
    }

    /// The certificate that this node shows in a handshake now, if it has no [`Endpoint::tls`]; `None` if it shows none.
    fn shown(&self) -> Option<Shown> {
        None
    }

    /// Accepts handshakes of this protocol from now on. [`Protocol::Gossip`] is accepted from the start; any other
    /// one is refused in the handshake until then.
    fn admit(&self, _protocol: Protocol) {}

    /// Accepts clients as well in handshakes of [`Protocol::Services`] from now on. Until then only members are.
    fn admit_clients_to_services(&self) {}

    /// Waits for the next peer that dials; `None` once the endpoint is closed. One task at a time waits.
    fn accept(&self) -> BoxFuture<'_, Option<Incoming>>;

    /// Begins to dial `to`, addresses of one target, best first, for [`Protocol::Gossip`] or [`Protocol::Services`].
    /// `expected`: the node that has to answer; any other one is refused in the handshake.
    fn dial(&self, to: &[String], expected: Option<&NodeId>, protocol: Protocol) -> Box<dyn Dial>;

    /// Closes all connections with this code and text, and releases everything that `open` took.
    fn close<'a>(&'a self, code: u32, words: &'a [u8]) -> BoxFuture<'a, ()>;

    /// Releases everything that `open` took, at once and without informing the peers: the runtime in which it was
    /// opened is gone. By default the last reference does that.
    fn release(&self) {}
}

/// A peer that dials this node.
pub struct Incoming {
    /// Its address, for an operator. It proves nothing.
    pub remote: String,
    /// The part of it that stays the same when the peer dials again.
    pub host: String,
    /// The handshake; dropping it aborts the handshake.
    pub handshake: BoxFuture<'static, Result<Arc<dyn Connection>, Ended>>,
    /// Its slot among the handshakes in progress: released when dropped, which is once the peer has introduced
    /// itself.
    pub place: Place,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Held while an [`Incoming`] is handled.
pub type Place = Box<dyn Send + Sync>;

/// Dials one target: several handshakes, since it may have several addresses, and a node several sockets.
pub trait Dial: Send {
    /// The next event; `None` once every path has been tried.
    fn next(&mut self) -> BoxFuture<'_, Option<Dialed>>;

    /// The caller has a result at the address of this path, or the reason of a failure: no other path to it is tried.
    fn answered(&mut self, way: &Way);

    /// Starts over: the handshake of this path, which completed without a result, or else all that wait for an
    /// answer.
    fn again(&mut self, way: Option<&Way>);

    /// The time since the start of the last handshake.
    fn since_last(&self) -> Duration;
}

/// One path to a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The address as it was given.
    pub address: String,
    /// The address that it resolved to; `None` if it did not resolve.
    pub to: Option<SocketAddr>,
    /// The address of this node that it is dialed from; `None` if this node has none of that family.
    pub from: Option<SocketAddr>,
}

impl Way {
    /// The dialed address, in the form of [`Connection::remote`].
    #[must_use]
    #[doc(hidden)]
    pub fn remote(&self) -> String {
        self.to.map_or_else(|| self.address.clone(), |to| to.to_string())
    }
}

/// The address as it was given, and the one it resolved to.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.map(|to| to.to_string()) {
            Some(to) if to != self.address => write!(f, "{} ({to})", self.address),
            _ => f.write_str(&self.address),
        }
    }
}

/// An event while a target is dialed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Dialed {
    /// A handshake is about to begin, unless the caller calls [`Dial::answered`].
    About(Way),
    /// A handshake completed.
    Reached(Way, Arc<dyn Connection>),
    /// A handshake was refused, by either end.
    Refused(Way, Ended),
    /// A path failed, and why.
    Failed(Way, String),
    /// A path is not tried, and why.
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
    /// Its certificates, the leaf first; empty if the network has none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The proofs of identity of both ends.
    pub proof: Proof,
}

/// The proofs of identity of both ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The certificate that this node has shown.
    pub ours: Shown,
    /// The certificate that the peer has shown.
    pub theirs: Shown,
}

/// One certificate with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The fingerprint of the chain; empty without a chain.
    pub fingerprint: String,
    /// The first expiry in the chain; `None` if it never expires.
    pub expires: Option<SystemTime>,
}

/// What connections have carried, in UDP datagrams and their bytes without the headers of IP and UDP. Handshakes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Datagrams received, each of which has one or a few packets.
    pub packets_received: u64,
    /// Packets sent that were declared lost.
    pub packets_lost: u64,
}

/// A connection with a completed handshake.
pub trait Connection: fmt::Debug + Send + Sync + 'static {
    /// Its purpose.
    fn protocol(&self) -> Protocol;

    /// The other end.
    fn peer(&self) -> &Peer;

    /// Its address. It proves nothing.
    fn remote(&self) -> String;

    /// Opens a bidirectional stream. It waits while the peer allows no further one.
    fn open(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// The next bidirectional stream that the peer opens.
    fn accept(&self) -> BoxFuture<'_, Result<Stream, Ended>>;

    /// Opens a unidirectional stream to the peer. It waits while the peer allows no further one.
    fn open_one_way(&self) -> BoxFuture<'_, Result<Box<dyn SendStream>, Ended>>;

    /// The next unidirectional stream that the peer opens.
    fn accept_one_way(&self) -> BoxFuture<'_, Result<Box<dyn ReceiveStream>, Ended>>;

    /// Sends a datagram; returns whether it was accepted for sending. It may be lost.
    fn send_datagram(&self, datagram: Bytes) -> bool;

    /// The next datagram.
    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, Ended>>;

    /// Frames of any kind that were received in authentic packets, including acknowledgements: they show the node
    /// that the peer is alive.
    fn received(&self) -> u64;

    /// Packets sent, and the number of them that were lost.
    fn packets(&self) -> (u64, u64);

    /// What it has carried so far, both ways; zeros if it does not count that.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// The time that a packet takes to the peer and back, as the connection has measured it; `None` if it does not.
    fn round_trip(&self) -> Option<Duration> {
        None
    }

    /// How many bytes may be in flight to the peer; `None` if the connection has no such limit.
    fn congestion_window(&self) -> Option<u64> {
        None
    }

    /// Limits the bytes of incoming streams in flight.
    fn set_receive_window(&self, _bytes: u32) {}

    /// Lets the peer have this many streams open at once: in both directions, and from the peer only.
    fn set_streams(&self, _two_way: u32, _one_way: u32) {}

    /// Closes it with a code and a text. Data in flight may be lost.
    fn close(&self, code: u32, words: &[u8]);

    /// Why it has ended, if it has.
    fn ended(&self) -> Option<Ended>;

    /// Whether it is still open.
    fn is_open(&self) -> bool {
        self.ended().is_none()
    }

    /// Waits until it has ended.
    fn closed(&self) -> BoxFuture<'_, Ended>;
}

/// Both ends of a stream.
pub type Stream = (Box<dyn SendStream>, Box<dyn ReceiveStream>);

/// The writing end of a stream. Dropping it finishes it.
pub trait SendStream: fmt::Debug + Send + Sync {
    /// Writes all of these; returns once they are accepted for sending. They are empty then.
    fn write<'a>(&'a mut self, chunks: &'a mut [Bytes]) -> BoxFuture<'a, Result<(), StreamError>>;

    /// Ends the stream: the peer reads all written data, and then the end.
    fn finish(&mut self);

    /// Waits until the peer has received everything, or has stopped the stream.
    fn delivered(&mut self) -> BoxFuture<'_, ()>;

    /// Aborts the stream, with a code for traces: the peer need not read the written data.
    fn reset(&mut self, code: u32);

    /// Higher priorities go first; 0 at the start.
    fn set_priority(&mut self, _priority: i32) {}
}

/// The reading end of a stream. Dropping it stops it.
pub trait ReceiveStream: fmt::Debug + Send + Sync {
    /// The next bytes, at most this many; `None` at the end of the stream. No data is lost if the future is dropped.
    fn read(&mut self, most: usize) -> BoxFuture<'_, Result<Option<Bytes>, StreamError>>;

    /// Stops reading, and informs the peer, with a code for traces.
    fn stop(&mut self, code: u32);
}

/// Reads a stream to its end.
///
/// # Errors
/// [`StreamError`] if it fails, or has more than `most` bytes.
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

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A stream failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The connection has ended.
    #[error("{0}")]
    Connection(Ended),
    /// The peer has aborted the stream.
    #[error("{0}")]
    Stream(String),
}

/// Why a connection has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// The peer has closed it. Before the handshake is complete anybody can send that.
    Closed {
        /// The code.
        code: u64,
        /// The text of the close.
        words: Bytes,
    },
    /// One end has refused the other one's certificate.
    Refused(Box<Refusal>),
    /// This end has closed it.
    Here,
    /// The peer has no room for a handshake. Anybody can send that.
    Busy,
    /// The peer has lost it: its process has restarted.
    Reset,
    /// The peer's implementation reports an error.
    Failed(String),
    /// This end cannot continue it: for example after too long a silence.
    Lost(String),
}

impl Ended {
    /// Whether this end detected the failure, without a message from the other one.
    #[must_use]
    #[doc(hidden)]
    pub fn is_our_end(&self) -> bool {
        match self {
            Self::Closed { .. } | Self::Busy | Self::Failed(_) => false,
            Self::Refused(refusal) => refusal.by == RefusedBy::Us,
            Self::Here | Self::Reset | Self::Lost(_) => true,
        }
    }

    /// The refusal, if one end has refused the other one's certificate.
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
            Self::Busy => f.write_str("the peer is too busy for a handshake"),
            Self::Reset => f.write_str("reset by peer"),
            Self::Failed(reason) | Self::Lost(reason) => f.write_str(reason),
        }
    }
}
