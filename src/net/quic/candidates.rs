//! Which path to try first: a target has several addresses, and a node several sockets.
//!
//! A packet from the wrong socket does not arrive, or its answer does not return: so each address
//! is dialed from each socket of its family, the likely paths first.

use std::net::{IpAddr, SocketAddr};

/// Maximum number of paths tried for one target. It is enough for 8 addresses and two networks.
pub(super) const CANDIDATES_MAX: usize = 16;
/// Maximum number of resolved addresses of one target. Each has as many paths as there are sockets.
pub(super) const ADDRESSES_MAX: usize = 64;

/// One path to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The address as it was configured or advertised.
    pub(super) address: String,
    /// The address that it resolved to.
    pub(super) to: SocketAddr,
    /// The socket to send from.
    pub(super) socket: usize,
    /// How many sockets are better for this address.
    pub(super) rank: usize,
}

impl Candidate {
    /// All paths to `to`, the likely ones first. `source`: the address from which the system would send.
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

/// The remaining paths to one target, in the order of trying: the likeliest path to each address, then
/// the second one to each, and so on.
#[derive(Debug, Default)]
pub(super) struct Ways {
    left: Vec<Candidate>,
    addresses: usize,
    begun: usize,
}

impl Ways {
    /// Adds all paths to one more address; `false` if there are too many already.
    pub(super) fn add(&mut self, ways: Vec<Candidate>) -> bool {
        if self.addresses >= ADDRESSES_MAX {
            return false;
        }
        self.addresses += 1;
        self.left.extend(ways);
        self.left.sort_by_key(|way| way.rank);
        true
    }

    /// Puts paths that have to start over before all others.
    pub(super) fn again(&mut self, ways: Vec<Candidate>) {
        self.begun -= ways.len();
        self.left.splice(0..0, ways);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The next path to begin.
    pub(super) fn next(&mut self) -> Option<Candidate> {
        if self.left.is_empty() || self.begun >= CANDIDATES_MAX {
            return None;
        }
        self.begun += 1;
        Some(self.left.remove(0))
    }

    /// Removes the paths that exceed the limit; returns the first one of each address.
    pub(super) fn left_out(&mut self) -> Vec<Candidate> {
        if self.begun < CANDIDATES_MAX {
            return Vec::new();
        }
        let mut firsts: Vec<Candidate> = Vec::new();
        for way in std::mem::take(&mut self.left) {
            if firsts.iter().all(|first| first.to != way.to) {
                firsts.push(way);
            }
        }
        firsts
    }

    /// Removes the other paths to this address.
    pub(super) fn answers(&mut self, to: SocketAddr) {
        self.left.retain(|way| way.to != to);
    }
}

/// A rank: the lower, the likelier.
fn likelihood(socket: IpAddr, to: IpAddr, source: Option<IpAddr>) -> u8 {
    if socket.is_unspecified() || source == Some(socket) {
        0
    } else if socket.is_loopback() == to.is_loopback() {
        1
    } else {
        2
    }
}

/// The address from which the system would send. Nothing is sent.
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
    fn every_address_is_tried_by_its_likeliest_way_before_any_is_tried_by_another() {
        let sockets: Vec<SocketAddr> = (1..=8).map(|n| ([10, 0, n, 1], 1).into()).collect();
        let mut ways = Ways::default();
        let addresses: Vec<SocketAddr> = (1..=4).map(|n| ([10, 9, 9, n], 1).into()).collect();
        for to in &addresses {
            assert!(ways.add(Candidate::all("name:1", *to, &sockets, None)));
        }
        let begun: Vec<_> = std::iter::from_fn(|| ways.next()).collect();
        assert_eq!(begun.len(), CANDIDATES_MAX);
        for (round, ways) in begun.chunks(addresses.len()).enumerate() {
            assert!(ways.iter().all(|way| way.rank == round), "{ways:?}");
            assert!(ways.iter().map(|way| way.to).eq(addresses.iter().copied()), "{ways:?}");
        }
        let left_out = ways.left_out();
        assert!(left_out.iter().map(|way| way.to).eq(addresses.iter().copied()));
        // A path that starts over is not counted twice.
        ways.again(vec![begun[0].clone()]);
        assert!(ways.left_out().is_empty());
        assert_eq!(ways.next().as_ref(), Some(&begun[0]));
        assert_eq!((ways.next(), ways.is_empty()), (None, true));
    }

    #[test]
    fn a_target_has_no_more_than_so_many_addresses() {
        let (mut ways, sockets) = (Ways::default(), [([127, 0, 0, 1], 1).into()]);
        let mut add = |n: usize| {
            let to = ([127, 0, 0, 1], u16::try_from(n + 1).unwrap()).into();
            ways.add(Candidate::all("a:1", to, &sockets, None))
        };
        assert_eq!((0..2 * ADDRESSES_MAX).filter(|n| add(*n)).count(), ADDRESSES_MAX);
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
