//! Which way to try first: a target has several addresses, and a node several sockets.
//!
//! A packet that leaves by the wrong socket gets nowhere, or its answer does not come back: so each
//! address is dialed from each socket of its family, the likely ways first.

use std::net::{IpAddr, SocketAddr};

/// Ways tried for one target. It is enough for 8 addresses and two networks.
pub(super) const CANDIDATES_MAX: usize = 16;

/// One way to dial a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The address as it was configured or advertised.
    pub(super) address: String,
    /// What it was resolved to.
    pub(super) to: SocketAddr,
    /// Which socket it leaves by.
    pub(super) socket: usize,
    /// How many sockets are better for this address.
    pub(super) rank: usize,
}

impl Candidate {
    /// All ways to `to`, the likely ones first. `source`: the address that the system would send from.
    pub(super) fn all(
        address: &str,
        to: SocketAddr,
        sockets: &[SocketAddr],
        source: Option<IpAddr>,
    ) -> Vec<Self> {
        let same_family = |(_, socket): &(usize, &SocketAddr)| socket.is_ipv4() == to.is_ipv4();
        let mut sockets: Vec<_> = sockets.iter().enumerate().filter(same_family).collect();
        sockets.sort_by_key(|(_, socket)| likelihood(socket.ip(), to.ip(), source));
        let ways = sockets.into_iter().enumerate();
        ways.map(|(rank, (socket, _))| Self { address: address.to_owned(), to, socket, rank })
            .collect()
    }
}

/// The lower the likelier.
fn likelihood(socket: IpAddr, to: IpAddr, source: Option<IpAddr>) -> u8 {
    if socket.is_unspecified() || source == Some(socket) {
        0
    } else if socket.is_loopback() == to.is_loopback() {
        1
    } else {
        2
    }
}

/// The address that the system would send from. Nothing is sent.
pub(super) fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(to: &str, sockets: &[&str], source: Option<&str>) -> Vec<usize> {
        let sockets: Vec<SocketAddr> = sockets.iter().map(|s| s.parse().unwrap()).collect();
        let source = source.map(|source| source.parse().unwrap());
        let ways = Candidate::all("a:1", to.parse().unwrap(), &sockets, source);
        assert!(ways.iter().enumerate().all(|(n, way)| way.rank == n));
        ways.into_iter().map(|way| way.socket).collect()
    }

    #[test]
    fn no_socket_of_another_family_is_tried() {
        assert!(sockets("[::1]:1", &["127.0.0.1:1", "10.0.0.1:1"], None).is_empty());
        assert_eq!(sockets("[::1]:1", &["127.0.0.1:1", "[::]:1"], None), [1]);
    }

    #[test]
    fn every_socket_of_the_family_is_tried_the_one_that_the_system_would_choose_first() {
        let listen = ["127.0.0.1:1", "10.0.1.1:1", "10.0.2.1:1"];
        assert_eq!(sockets("10.0.2.9:1", &listen, Some("10.0.2.1")), [2, 1, 0]);
        assert_eq!(sockets("10.0.2.9:1", &listen, None), [1, 2, 0]);
        assert_eq!(sockets("127.0.0.9:1", &listen, Some("127.0.0.9")), [0, 1, 2]);
        assert_eq!(sockets("10.0.2.9:1", &["0.0.0.0:1"], Some("10.0.2.1")), [0]);
    }
}
