//! The UDP socket under an endpoint. Unlike quinn's own it can be released at a given moment, it can fall
//! silent, and it keeps the system's reason for refusing to send to an address.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, Socket as Socket2, Type};
use tokio::{
    io::Interest,
    sync::{Notify, watch},
    time::Sleep,
};

use super::noise::Noise;
use crate::{counters::Counters, net::NetworkError, protocol::counter::Counter};

/// Maximum number of addresses with the reason of a refused packet; beyond that the oldest is dropped.
const UNSENT_MAX: usize = 64;
/// The pause after a failure of the system to receive, for example for lack of memory.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    address: SocketAddr,
    inner: ArcSwapOption<Bound>,
    silent: Arc<AtomicBool>,
    gso: bool,
    /// Counts stray datagrams; `None` for no count.
    noise: Option<Noise>,
    unsent: Unsent,
    /// The recent excess of full packets over single ones: see [`BUSY`].
    load: AtomicU32,
    /// Runs after a failure to receive.
    pause: Mutex<Option<Pin<Box<Sleep>>>>,
}

/// Packets that the system has refused to send.
#[derive(Debug)]
pub(super) struct Unsent {
    /// The reasons by address, oldest first.
    reasons: Mutex<VecDeque<(SocketAddr, String)>>,
    counters: Arc<Counters>,
    noted: Arc<Notify>,
}

impl Unsent {
    /// `noted` is signalled for each new reason.
    pub(super) fn new(counters: Arc<Counters>, noted: Arc<Notify>) -> Self {
        Self { reasons: Mutex::default(), counters, noted }
    }

    /// A lost packet is the connection's concern, which sends it again: this call never fails.
    fn note(&self, to: SocketAddr, error: &io::Error) {
        self.counters.add(Counter::PacketsUnsent, 1);
        let mut reasons = self.lock();
        if reasons.iter().any(|(address, _)| *address == to) {
            return;
        }
        if reasons.len() >= UNSENT_MAX {
            reasons.pop_front();
        }
        reasons.push_back((to, error.to_string()));
        drop(reasons);
        self.noted.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(SocketAddr, String)>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The system's socket.
#[derive(Debug)]
struct Bound {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Closed after `io`, since fields are dropped in this order.
    gone: watch::Sender<()>,
}

impl Socket {
    /// Binds `address`. `buffer`: bytes of the system's buffers in each direction, 0 for the system's default.
    pub(super) fn bind(
        address: SocketAddr,
        buffer: usize,
        gso: bool,
        silent: Arc<AtomicBool>,
        noise: Option<Noise>,
        unsent: Unsent,
    ) -> Result<Self, NetworkError> {
        let refused = |error: io::Error| NetworkError::Bind {
            address: address.to_string(),
            reason: error.to_string(),
        };
        let bound = bind(address, buffer).and_then(Bound::new).map_err(refused)?;
        Self::on(bound, gso, silent, noise, unsent).map_err(refused)
    }

    fn on(
        bound: Bound,
        gso: bool,
        silent: Arc<AtomicBool>,
        noise: Option<Noise>,
        unsent: Unsent,
    ) -> io::Result<Self> {
        let address = bound.io.local_addr()?;
        let (inner, load) = (ArcSwapOption::from_pointee(bound), AtomicU32::new(0));
        Ok(Self { address, inner, silent, gso, noise, unsent, load, pause: Mutex::default() })
    }

    /// The bound address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address to the system, unless the socket is silent: then it stays bound.
    pub(super) fn release(&self) {
        drop(self.take());
    }

    /// As [`release`](Self::release), and waits until the system has the address.
    pub(super) async fn released(&self) {
        let Some(bound) = self.take() else { return };
        let mut gone = bound.gone.subscribe();
        drop(bound);
        // A task may be in the middle of a call.
        while gone.changed().await.is_ok() {}
    }

    fn take(&self) -> Option<Arc<Bound>> {
        if self.silent.load(Ordering::Relaxed) { None } else { self.inner.swap(None) }
    }

    /// Clears the reason why packets to an address were refused.
    pub(super) fn forget_unsent(&self, to: SocketAddr) {
        self.unsent.lock().retain(|(address, _)| *address != to);
    }

    /// Why the system refused a packet to an address since the last
    /// [`forget_unsent`](Self::forget_unsent).
    pub(super) fn why_unsent(&self, to: SocketAddr) -> Option<String> {
        let reasons = self.unsent.lock();
        reasons.iter().find(|(address, _)| *address == to).map(|(_, reason)| reason.clone())
    }

    /// Ready when the pause after a failure to receive is over, or none is active.
    fn poll_pause(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sleep) = &mut *pause {
            ready!(sleep.as_mut().poll(cx));
            *pause = None;
        }
        Poll::Ready(())
    }

    fn begin_pause(&self) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = Some(Box::pin(tokio::time::sleep(RECEIVE_PAUSE)));
    }
}

impl Bound {
    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Self { io, state, gone: watch::Sender::new(()) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send((&self.io).into(), transmit);
        self.io.try_io(Interest::WRITABLE, send)
    }

    fn is_writable(&self) -> bool {
        self.io.try_io(Interest::WRITABLE, || Ok(())).is_ok()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Inexact if two send at once, which is harmless.
        let load = self.load.load(Ordering::Relaxed);
        let full = u32::try_from(transmit.contents.len() / FULL_BYTES).unwrap_or(LOAD_MAX);
        let next = if full > 0 { (load + full).min(LOAD_MAX) } else { load.saturating_sub(1) };
        self.load.store(next, Ordering::Relaxed);
        let bound = self.inner.load();
        let Some(bound) = bound.as_deref().filter(|_| !self.silent.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        match bound.try_send(transmit) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.unsent.note(transmit.destination, &error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let bound = self.inner.load();
        let Some(bound) = bound.as_deref() else { return Poll::Pending };
        loop {
            ready!(self.poll_pause(cx));
            ready!(bound.io.poll_recv_ready(cx))?;
            let receive = || bound.state.recv((&bound.io).into(), bufs, meta);
            match bound.io.try_io(Interest::READABLE, receive) {
                Ok(count) if !self.silent.load(Ordering::Relaxed) => {
                    if let Some(noise) = &self.noise {
                        noise.count(&bufs[..count], &meta[..count]);
                    }
                    return Poll::Ready(Ok(count));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // If quinn received the error, it would end the endpoint; an immediate retry would spin.
                Err(_) => {
                    self.unsent.counters.add(Counter::ReceiveFailures, 1);
                    self.begin_pause();
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        match self.inner.load().as_deref() {
            Some(bound) if self.gso && self.load.load(Ordering::Relaxed) >= BUSY => {
                bound.state.max_gso_segments()
            }
            _ => 1,
        }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.load().as_deref().map_or(1, |bound| bound.state.gro_segments())
    }

    fn may_fragment(&self) -> bool {
        self.inner.load().as_deref().is_none_or(|bound| bound.state.may_fragment())
    }
}

/// Waits until the socket takes a packet. It holds the system's socket only while it waits: an ended
/// connection keeps its poller while it drains, which must not keep the address bound.
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            match self.socket.inner.load_full() {
                Some(bound) if !bound.is_writable() => {
                    self.waiting = Some(Box::pin(async move { bound.io.writable().await }));
                }
                // Writes to a released socket are dropped.
                _ => return Poll::Ready(Ok(())),
            }
        }
        let waited = self.waiting.as_mut().map(|waiting| waiting.as_mut().poll(cx));
        let Some(Poll::Ready(result)) = waited else { return Poll::Pending };
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("waits", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

/// A connection that may send several packets at once keeps a buffer for them, 12 of the 40 KiB that it
/// holds. To spare connections with little traffic that buffer, packets are gathered only while the
/// excess of full ones reaches this number.
const BUSY: u32 = 192;
const LOAD_MAX: u32 = 2 * BUSY;
/// A packet of at least this length counts as full.
const FULL_BYTES: usize = 1_200;

/// An endpoint on a socket of this kind, for another protocol than the gossip. Dropping it gives the address
/// back to the system.
#[cfg(feature = "issuer")]
#[derive(Debug)]
pub(crate) struct Lone {
    pub(crate) endpoint: quinn::Endpoint,
    socket: Arc<Socket>,
}

#[cfg(feature = "issuer")]
impl Lone {
    /// Binds `address`, in a tokio runtime.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let unsent = Unsent::new(Arc::default(), Arc::default());
        let bound = bind(address, 0).and_then(Bound::new)?;
        let socket = Arc::new(Socket::on(bound, false, Arc::default(), None, unsent)?);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
            Arc::new(quinn::TokioRuntime),
        )?;
        Ok(Self { endpoint, socket })
    }

    /// The bound address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.address()
    }
}

#[cfg(feature = "issuer")]
impl Drop for Lone {
    fn drop(&mut self) {
        self.socket.release();
    }
}

fn bind(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket2::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // So that an IPv4 socket can be bound to the same port beside it.
        socket.set_only_v6(true)?;
    }
    if buffer > 0 {
        // The system may grant less than requested; that costs speed, not correctness.
        let _ = socket.set_recv_buffer_size(buffer);
        let _ = socket.set_send_buffer_size(buffer);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
