//! The UDP socket under an endpoint: it can be given back at a given moment, and it can fall silent.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, Socket as Socket2, Type};

use super::noise::Noise;
use crate::transport::TransportError;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    address: SocketAddr,
    inner: ArcSwapOption<Arc<dyn AsyncUdpSocket>>,
    silent: Arc<AtomicBool>,
    gso: bool,
    noise: Noise,
    /// How much more than single packets was sent lately: see [`BUSY`].
    load: AtomicU32,
}

impl Socket {
    /// Binds `address`. `buffer`: bytes of the system's buffers each way, 0 for what it gives.
    pub(super) fn bind(
        address: SocketAddr,
        buffer: usize,
        gso: bool,
        silent: Arc<AtomicBool>,
        noise: Noise,
    ) -> Result<Self, TransportError> {
        let bound = bind(address, buffer).and_then(|socket| TokioRuntime.wrap_udp_socket(socket));
        let refused = |error: io::Error| TransportError::Bind {
            address: address.to_string(),
            reason: error.to_string(),
        };
        let inner = bound.map_err(refused)?;
        let address = inner.local_addr().map_err(refused)?;
        let (inner, load) = (ArcSwapOption::from_pointee(inner), AtomicU32::new(0));
        Ok(Self { address, inner, silent, gso, noise, load })
    }

    /// Where it is bound.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the address back to the system, unless the socket is silent: then it stays bound.
    pub(super) fn release(&self) {
        if !self.silent.load(Ordering::Relaxed) {
            self.inner.store(None);
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        match self.inner.load_full() {
            Some(inner) => (*inner).clone().create_io_poller(),
            None => Box::pin(Released),
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Not exact if two send at once, which does no harm.
        let load = self.load.load(Ordering::Relaxed);
        let full = u32::try_from(transmit.contents.len() / FULL_BYTES).unwrap_or(LOAD_MAX);
        let next = if full > 0 { (load + full).min(LOAD_MAX) } else { load.saturating_sub(1) };
        self.load.store(next, Ordering::Relaxed);
        match &*self.inner.load() {
            Some(inner) if !self.silent.load(Ordering::Relaxed) => inner.try_send(transmit),
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner.load();
        let Some(inner) = &*inner else { return Poll::Pending };
        loop {
            let received = inner.poll_recv(cx, bufs, meta);
            let Poll::Ready(Ok(count)) = received else { return received };
            if !self.silent.load(Ordering::Relaxed) {
                self.noise.count(&bufs[..count], &meta[..count]);
                return received;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        match &*self.inner.load() {
            Some(inner) if self.gso && self.load.load(Ordering::Relaxed) >= BUSY => {
                inner.max_transmit_segments()
            }
            _ => 1,
        }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.load().as_ref().map_or(1, |inner| inner.max_receive_segments())
    }

    fn may_fragment(&self) -> bool {
        self.inner.load().as_ref().is_none_or(|inner| inner.may_fragment())
    }
}

/// Whoever still wants to write to a released socket may; it goes nowhere.
#[derive(Debug)]
struct Released;

impl UdpPoller for Released {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection that may send several packets at once keeps a buffer for them, 12 of the 40 KiB that it
/// holds. So that those with little to say do without, packets are gathered only while more of them
/// are full than not, by this many.
const BUSY: u32 = 192;
const LOAD_MAX: u32 = 2 * BUSY;
/// What is at least so long is a full packet.
const FULL_BYTES: usize = 1_200;

fn bind(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket2::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // So that an IPv4 socket of the same port can be bound beside it.
        socket.set_only_v6(true)?;
    }
    if buffer > 0 {
        // The system may give less than was asked for; that costs speed, not correctness.
        let _ = socket.set_recv_buffer_size(buffer);
        let _ = socket.set_send_buffer_size(buffer);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
