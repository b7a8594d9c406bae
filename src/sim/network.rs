//! The network between the nodes: distances, losses, cuts, and the packets of QUIC.
//!
//! It models the packets of a connection, not the contents of their bytes: how many there are for a message,
//! how long each is with all headers, which of them are lost, and when QUIC notices and sends them again. It
//! has no queues and no bandwidth: to find out when links fill up, measure on real ones. The constants are
//! those of quinn 0.11 and RFC 9000 to 9002; docs/benchmarks.md says how far the sums are from what quinn
//! really sends.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::faults::Faults;

/// The network of all nodes of a run; nodes are numbered.
#[derive(Clone, Debug)]
pub struct Network {
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that a datagram arrives twice.
    pub duplication: f64,
    /// Probability that a connection breaks at any one frame of a stream.
    pub breakage: f64,
    /// One way inside a datacenter, in microseconds.
    pub delay: u64,
    /// Added to it at random, up to so much: packets overtake each other.
    pub jitter: u64,
    /// Nodes that lose more of what is sent to them.
    pub ingress: BTreeMap<usize, f64>,
    /// Bytes a second from one node to another, where that is little.
    pub rates: BTreeMap<(usize, usize), u64>,
    /// One way between datacenters, in microseconds.
    wan: u64,
    /// The seed of the lost heartbeats.
    salt: u64,
    /// The datacenter of each node; without any all are in one place.
    sites: Vec<u16>,
    /// Which nodes are deaf, and when.
    faults: Faults,
    /// Which side of the cut each node is on, while there is one.
    sides: Option<Vec<bool>>,
    /// Pairs of nodes of which the first does not reach the second.
    cuts: BTreeSet<(usize, usize)>,
    /// The traffic so far.
    pub sent: Sent,
}

/// Packets, each counted once, with their IP and UDP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub bytes: u64,
    pub packets: u64,
    /// The bytes of these that went between datacenters.
    pub wan_bytes: u64,
}

impl Network {
    /// Datacenters that are `wan_rtt` microseconds apart, there and back. `sites`: the datacenter of each node.
    #[must_use]
    pub fn new(seed: u64, wan_rtt: u64, loss: f64, sites: Vec<u16>) -> Self {
        Self {
            loss,
            delay: LAN,
            jitter: LAN / 10,
            wan: wan_rtt / 2,
            salt: seed,
            sites,
            ..Self::perfect()
        }
    }

    /// Every node reaches every other one within a millisecond, and nothing is lost.
    #[must_use]
    pub fn perfect() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            breakage: 0.0,
            delay: 500,
            jitter: 200,
            ingress: BTreeMap::new(),
            rates: BTreeMap::new(),
            wan: 0,
            salt: 0,
            sites: Vec::new(),
            faults: Faults::default(),
            sides: None,
            cuts: BTreeSet::new(),
            sent: Sent::default(),
        }
    }

    /// The same, but for this share of lost packets.
    #[must_use]
    pub fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::perfect() }
    }

    /// Some network between a good one in a rack and a bad one between continents.
    #[must_use]
    pub fn random(rng: &mut SmallRng) -> Self {
        let bad = rng.random_range(0.0..1.0_f64).powi(3);
        Self {
            loss: bad * 0.2,
            duplication: bad * 0.1,
            breakage: bad * 0.1,
            delay: rng.random_range(200..40_000),
            jitter: rng.random_range(0..30_000),
            ..Self::perfect()
        }
    }

    /// Makes these nodes deaf, at these times.
    pub fn afflict(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The faults of the nodes.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How many nodes have a place.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.sites.len()
    }

    /// The datacenter of a node.
    #[must_use]
    pub fn site(&self, node: usize) -> u16 {
        self.sites.get(node).copied().unwrap_or(0)
    }

    /// Whether two nodes are in different datacenters.
    #[must_use]
    pub fn is_wan(&self, from: usize, to: usize) -> bool {
        self.site(from) != self.site(to)
    }

    /// Separates the nodes for which `side` holds from the others.
    pub fn divide(&mut self, side: impl Fn(usize) -> bool) {
        self.sides = Some((0..self.sites.len()).map(side).collect());
    }

    /// Nothing gets from `from` to `to` any more.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Nothing gets between the two groups any more.
    pub fn cut(&mut self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut_one_way(a, b);
                self.cut_one_way(b, a);
            }
        }
    }

    /// All nodes reach each other again.
    pub fn heal(&mut self) {
        self.sides = None;
        self.cuts.clear();
    }

    /// Whether packets get from one node to another.
    #[must_use]
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        let together = |sides: &Vec<bool>| sides[from] == sides[to];
        self.sides.as_ref().is_none_or(together)
            && (self.cuts.is_empty() || !self.cuts.contains(&(from, to)))
    }

    /// Whether packets get through in both directions.
    #[must_use]
    pub fn connects(&self, one: usize, other: usize) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    /// One way without jitter, in microseconds, and how much it varies.
    fn way(&self, from: usize, to: usize) -> (u64, u64) {
        if self.is_wan(from, to) {
            let way = self.wan.max(self.delay);
            return (way, way / 100);
        }
        (self.delay, self.jitter)
    }

    /// The time of a packet, with jitter.
    pub fn travel(&self, rng: &mut SmallRng, from: usize, to: usize) -> u64 {
        let (way, varies) = self.way(from, to);
        way + rng.random_range(0..=varies)
    }

    /// Whether a packet to a node that is sent now gets lost.
    pub fn is_lost(&self, rng: &mut SmallRng, now: u64, to: usize) -> bool {
        let loss = self.loss_to(now, to);
        loss > 0.0 && rng.random_bool(loss)
    }

    /// The share of packets to a node that is lost now.
    fn loss_to(&self, now: u64, to: usize) -> f64 {
        let loss = self.ingress.get(&to).map_or(self.loss, |deaf| deaf.max(self.loss));
        1.0 - (1.0 - loss) * (1.0 - self.faults.deafness(to, now))
    }

    /// After how long without an acknowledgement a packet is sent again (RFC 9002 section 6.2.1).
    #[must_use]
    pub fn probe_timeout(&self, from: usize, to: usize) -> u64 {
        let rtt = self.round_trip(from, to);
        rtt + (rtt / 2).max(GRANULARITY) + ACK_DELAY
    }

    fn round_trip(&self, from: usize, to: usize) -> u64 {
        let (way, varies) = self.way(from, to);
        2 * (way + varies)
    }

    /// When a datagram that is sent now arrives: never, once or twice.
    pub fn datagram(
        &mut self,
        rng: &mut SmallRng,
        now: u64,
        [from, to]: [usize; 2],
        body: usize,
    ) -> Vec<u64> {
        self.count(from, to, body, 1);
        if !self.reaches(from, to) || self.is_lost(rng, now, to) {
            return Vec::new();
        }
        let twice = self.duplication > 0.0 && rng.random_bool(self.duplication);
        (0..1 + usize::from(twice)).map(|_| self.travel(rng, from, to)).collect()
    }

    /// Sends `len` bytes on a stream of a connection; returns the time until all of them have arrived. Without
    /// one the connection is gone, or breaks.
    pub fn stream(
        &mut self,
        rng: &mut SmallRng,
        now: u64,
        [from, to]: [usize; 2],
        len: usize,
    ) -> Option<u64> {
        let breaks = self.breakage > 0.0 && rng.random_bool(self.breakage);
        if breaks || !self.connects(from, to) {
            return None;
        }
        let packets = len.div_ceil(STREAM_BYTES).max(1);
        let mut latest = 0;
        for n in 0..packets {
            let body = len.saturating_sub(n * STREAM_BYTES).min(STREAM_BYTES) + STREAM_HEADER;
            // A packet with others after it is missed as soon as those are acknowledged.
            let followed = packets - n > PACKET_THRESHOLD;
            latest = latest.max(self.packet(rng, now, [from, to], body, followed)?);
        }
        self.count(to, from, ACK_FRAME, packets.div_ceil(PACKETS_PER_ACK));
        Some(latest + self.slow_start(from, to, len))
    }

    /// One packet, sent again until it arrives or is given up.
    fn packet(
        &mut self,
        rng: &mut SmallRng,
        now: u64,
        [from, to]: [usize; 2],
        body: usize,
        followed: bool,
    ) -> Option<u64> {
        let mut late = 0;
        let mut timeout = self.probe_timeout(from, to);
        let rtt = self.round_trip(from, to);
        let longest = timeout << BACKOFF_MAX;
        if followed {
            timeout = rtt + rtt / 2;
        }
        self.count(from, to, body, 1);
        while self.is_lost(rng, now + late, to) {
            late += timeout.max(rtt + rtt / 2);
            // Heartbeats and probes on the same connection are acknowledged meanwhile, which ends the back-off.
            timeout = (timeout * 2).min(longest);
            if late > GIVE_UP {
                return None;
            }
            self.count(from, to, body, 1);
        }
        Some(late + self.travel(rng, from, to))
    }

    /// Bytes beyond the first congestion window wait for acknowledgements; each round trip the window doubles
    /// (RFC 9002 section 7.3.1).
    fn slow_start(&self, from: usize, to: usize, len: usize) -> u64 {
        let windows = (len / FIRST_WINDOW + 1).ilog2();
        u64::from(windows) * self.round_trip(from, to)
    }

    /// Counts the `nth` heartbeat on a connection, the packets that QUIC sends if it is lost, and the
    /// acknowledgement.
    pub fn count_heartbeat(&mut self, connection: u64, nth: u64, ends: [usize; 2]) {
        let [from, to] = ends;
        self.count(from, to, HEARTBEAT_FRAME, 1 + self.losses(connection, nth));
        self.count(to, from, ACK_FRAME, 1);
    }

    /// How often in a row that is lost.
    fn losses(&self, connection: u64, nth: u64) -> usize {
        if self.loss <= 0.0 {
            return 0;
        }
        let seed = self.salt ^ (connection << 32) ^ nth;
        let mut rng = SmallRng::seed_from_u64(seed);
        (0..LOSSES_MAX).take_while(|_| rng.random_bool(self.loss)).count()
    }

    /// A handshake with certificates on both sides. Returns after how long the accepter has the dialer's last
    /// flight, in which the introduction comes; nothing if that takes too long.
    pub fn handshake(
        &mut self,
        rng: &mut SmallRng,
        start: u64,
        [from, to]: [usize; 2],
    ) -> Option<u64> {
        let mut now = 0;
        for (flight, bytes, packets) in HANDSHAKE {
            let (a, b) = if flight % 2 == 0 { (from, to) } else { (to, from) };
            // Before the first round trip its length is unknown (RFC 9002 section 6.2.2).
            let mut timeout = if flight < 2 { HANDSHAKE_TIMEOUT } else { self.probe_timeout(a, b) };
            self.add(a, b, bytes, packets);
            for _ in 0..packets {
                while self.is_lost(rng, start + now, b) {
                    now += timeout;
                    timeout *= 2;
                    if now > HANDSHAKE_GIVE_UP {
                        return None;
                    }
                    self.add(a, b, bytes / packets as u64, 1);
                }
            }
            now += self.travel(rng, a, b);
        }
        Some(now)
    }

    /// One flight of a handshake; returns when all of it has arrived, unless a packet of it is lost.
    pub(super) fn flight(
        &mut self,
        rng: &mut SmallRng,
        now: u64,
        [from, to]: [usize; 2],
        flight: usize,
    ) -> Option<u64> {
        let (_, bytes, packets) = HANDSHAKE[flight];
        self.add(from, to, bytes, packets);
        let lost = (0..packets).filter(|_| self.is_lost(rng, now, to)).count();
        (lost == 0 && self.connects(from, to)).then(|| self.travel(rng, from, to))
    }

    /// The first flight of a dial that gets no answer.
    pub fn unanswered(&mut self, from: usize, to: usize) {
        let (_, bytes, packets) = HANDSHAKE[0];
        self.add(from, to, bytes, packets);
    }

    /// Sends the close of a connection; returns when it arrives, if it does.
    pub fn close(&mut self, rng: &mut SmallRng, from: usize, to: usize) -> Option<u64> {
        self.count(from, to, CLOSE_FRAME, 1);
        self.connects(from, to).then(|| self.travel(rng, from, to))
    }

    /// Counts packets with `body` bytes in them.
    pub fn count(&mut self, from: usize, to: usize, body: usize, packets: usize) {
        self.add(from, to, ((body + PACKET_HEADERS) * packets) as u64, packets);
    }

    fn add(&mut self, from: usize, to: usize, bytes: u64, packets: usize) {
        self.sent.bytes += bytes;
        self.sent.packets += packets as u64;
        if self.is_wan(from, to) {
            self.sent.wan_bytes += bytes;
        }
    }
}

impl Sent {
    /// The traffic since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes - earlier.bytes,
            packets: self.packets - earlier.packets,
            wan_bytes: self.wan_bytes - earlier.wan_bytes,
        }
    }
}

/// One way inside a datacenter, in microseconds: two switches and two kernels.
const LAN: u64 = 250;
/// IP 20, UDP 8, short header 1, connection id 8, packet number 2 (mostly), AEAD tag 16.
const PACKET_HEADERS: usize = 55;
/// UDP payload of 1,200 (no MTU discovery) without the headers inside it and a frame's header.
pub(super) const STREAM_BYTES: usize = 1_165;
/// Type, stream id 2, offset 3, length 2.
const STREAM_HEADER: usize = 8;
/// Type, largest 2, delay 2, count, first range, and three counts for ECN, of 2 mostly.
pub const ACK_FRAME: usize = 12;
/// Type, length, and a heartbeat of usual length: kind, version, generation 9, number 3, call, health.
pub const HEARTBEAT_FRAME: usize = 18;
/// Type, and the padding of a packet to the least length.
pub const PING_FRAME: usize = 3;
/// `Hello` of a node with short names, in its stream frame.
pub const HELLO_FRAME: usize = 60;
/// A packet that is lost this often has been given up.
const LOSSES_MAX: usize = 8;
/// Type, code, reason.
const CLOSE_FRAME: usize = 12;
/// Every second packet is acknowledged at once (RFC 9000 section 13.2.2).
const PACKETS_PER_ACK: usize = 2;
/// Packets after a lost one that make it lost (RFC 9002 section 6.1.1).
const PACKET_THRESHOLD: usize = 3;
/// The time until a lost packet is sent again doubles so often at most.
const BACKOFF_MAX: u32 = 3;
/// max_ack_delay and the granularity of timers, in microseconds.
const ACK_DELAY: u64 = 25_000;
const GRANULARITY: u64 = 1_000;
/// Ten packets or 14,720 bytes (RFC 9002 section 7.2).
const FIRST_WINDOW: usize = 12_000;
/// An idle connection ends after 30 s: packets that could not be sent in that time are lost with it.
const GIVE_UP: u64 = 30_000_000;
/// `quic.handshake_timeout`.
const HANDSHAKE_GIVE_UP: u64 = 5_000_000;
/// Three times the first guess of 333 ms.
const HANDSHAKE_TIMEOUT: u64 = 1_000_000;
/// Flights of a handshake with ML-KEM and two Ed25519 certificates: number, bytes, packets.
const HANDSHAKE: [(usize, u64, usize); 3] = [(0, 2_456, 2), (1, 2_900, 3), (2, 1_500, 3)];
/// The packets of each flight.
pub(super) const FLIGHT_PACKETS: [usize; 3] = [HANDSHAKE[0].2, HANDSHAKE[1].2, HANDSHAKE[2].2];
