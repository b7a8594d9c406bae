//! The network between the nodes: distances, losses, cuts, and the packets of QUIC.
//!
//! It models the packets of a connection, not the contents of their bytes: how many there are for a message,
//! how long each is with all headers, which of them are lost, and when QUIC notices and sends them again. It
//! has no queues and no bandwidth: to find out when links fill up, measure on real ones. The constants are
//! those of quinn 0.11 and RFC 9000 to 9002; docs/benchmarks.md says how far the sums are from what quinn
//! really sends.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::faults::Faults;

/// The network of all nodes of a run.
#[derive(Clone, Debug)]
pub struct Network {
    /// The seed of the lost heartbeats.
    salt: u64,
    /// One way between datacenters, in microseconds.
    wan: u64,
    /// Part of the packets that is lost.
    loss: f64,
    /// The datacenter of each node.
    sites: Vec<u16>,
    /// Which nodes are deaf, and when.
    faults: Faults,
    /// Which side of the cut each node is on, while there is one.
    sides: Option<Vec<bool>>,
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
    pub fn new(seed: u64, wan_rtt: u64, loss: f64, sites: Vec<u16>) -> Self {
        let (sent, faults) = (Sent::default(), Faults::default());
        Self { salt: seed, wan: wan_rtt / 2, loss, sites, faults, sides: None, sent }
    }

    /// Makes these nodes deaf, at these times.
    pub fn afflict(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The faults of the nodes.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How many nodes there may be.
    pub const fn nodes(&self) -> u32 {
        self.sites.len() as u32
    }

    /// The datacenter of a node.
    pub fn site(&self, node: u32) -> u16 {
        self.sites[node as usize]
    }

    /// Whether two nodes are in different datacenters.
    pub fn is_wan(&self, from: u32, to: u32) -> bool {
        self.site(from) != self.site(to)
    }

    /// Separates the nodes for which `side` holds from the others.
    pub fn cut(&mut self, side: impl Fn(u32) -> bool) {
        self.sides = Some((0..self.sites.len() as u32).map(side).collect());
    }

    /// All nodes reach each other again.
    pub fn heal(&mut self) {
        self.sides = None;
    }

    /// Whether packets get from one node to another, in both directions.
    pub fn reaches(&self, from: u32, to: u32) -> bool {
        self.sides.as_ref().is_none_or(|sides| sides[from as usize] == sides[to as usize])
    }

    /// One way without jitter, in microseconds.
    pub fn one_way(&self, from: u32, to: u32) -> u64 {
        if self.is_wan(from, to) { self.wan.max(LAN) } else { LAN }
    }

    /// The time of a packet, with jitter: a tenth of the way inside a datacenter, a hundredth between.
    pub fn travel(&self, rng: &mut SmallRng, from: u32, to: u32) -> u64 {
        let way = self.one_way(from, to);
        let varies = if self.is_wan(from, to) { way / 100 } else { way / 10 };
        way + rng.random_range(0..=varies)
    }

    /// Whether a packet to a node that is sent now gets lost.
    pub fn is_lost(&self, rng: &mut SmallRng, now: u64, to: u32) -> bool {
        let loss = self.loss_to(now, to);
        loss > 0.0 && rng.random_bool(loss)
    }

    /// The share of packets to a node that is lost now.
    fn loss_to(&self, now: u64, to: u32) -> f64 {
        1.0 - (1.0 - self.loss) * (1.0 - self.faults.deafness(to, now))
    }

    /// After how long without an acknowledgement a packet is sent again (RFC 9002 section 6.2.1, with
    /// a round trip that varies by an eighth).
    pub fn probe_timeout(&self, from: u32, to: u32) -> u64 {
        let rtt = 2 * self.one_way(from, to);
        rtt + (rtt / 2).max(GRANULARITY) + ACK_DELAY
    }

    /// Sends `len` bytes on a stream of a connection; returns the time until all of them have arrived, unless
    /// they never do. The caller has checked that the other end is there.
    pub fn stream(
        &mut self,
        rng: &mut SmallRng,
        now: u64,
        from: u32,
        to: u32,
        len: usize,
    ) -> Option<u64> {
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
        [from, to]: [u32; 2],
        body: usize,
        followed: bool,
    ) -> Option<u64> {
        let mut late = 0;
        let mut timeout = self.probe_timeout(from, to);
        let rtt = 2 * self.one_way(from, to);
        if followed {
            timeout = rtt + rtt / 2;
        }
        self.count(from, to, body, 1);
        while self.is_lost(rng, now + late, to) {
            late += timeout.max(rtt + rtt / 2);
            timeout *= 2;
            if late > GIVE_UP {
                return None;
            }
            self.count(from, to, body, 1);
        }
        Some(late + self.travel(rng, from, to))
    }

    /// Bytes beyond the first congestion window wait for acknowledgements; each round trip the window doubles
    /// (RFC 9002 section 7.3.1).
    fn slow_start(&self, from: u32, to: u32, len: usize) -> u64 {
        let windows = (len / FIRST_WINDOW + 1).ilog2();
        u64::from(windows) * 2 * self.one_way(from, to)
    }

    /// Counts the `nth` heartbeat on a connection, the packets that QUIC sends if it is lost, and the
    /// acknowledgement.
    pub fn count_heartbeat(&mut self, connection: u32, nth: u64, ends: [u32; 2]) {
        let [from, to] = ends;
        self.count(from, to, HEARTBEAT_FRAME, 1 + self.losses(connection, nth));
        self.count(to, from, ACK_FRAME, 1);
    }

    /// How often in a row that is lost.
    fn losses(&self, connection: u32, nth: u64) -> usize {
        if self.loss <= 0.0 {
            return 0;
        }
        let seed = self.salt ^ (u64::from(connection) << 32) ^ nth;
        let mut rng = SmallRng::seed_from_u64(seed);
        (0..LOSSES_MAX).take_while(|_| rng.random_bool(self.loss)).count()
    }

    /// A handshake with certificates on both sides. Returns after how long the accepter, and after how long
    /// the dialer has been introduced to the other; nothing if that takes too long.
    pub fn handshake(
        &mut self,
        rng: &mut SmallRng,
        start: u64,
        from: u32,
        to: u32,
    ) -> Option<(u64, u64)> {
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
        // Hello comes with the dialer's last flight, Welcome answers it.
        let accepter = now;
        let welcome = self.packet(rng, start + now, [to, from], HELLO_FRAME, false)?;
        self.count(from, to, ACK_FRAME, 1);
        Some((accepter, accepter + welcome))
    }

    /// Packets that get no answer: to a node that is gone.
    pub fn unanswered(&mut self, from: u32, to: u32, bytes: u64, packets: usize) {
        self.add(from, to, bytes, packets);
    }

    /// Sends the close of a connection.
    pub fn close(&mut self, rng: &mut SmallRng, from: u32, to: u32) -> u64 {
        self.count(from, to, CLOSE_FRAME, 1);
        self.travel(rng, from, to)
    }

    /// Counts packets with `body` bytes in them.
    pub fn count(&mut self, from: u32, to: u32, body: usize, packets: usize) {
        self.add(from, to, ((body + PACKET_HEADERS) * packets) as u64, packets);
    }

    fn add(&mut self, from: u32, to: u32, bytes: u64, packets: usize) {
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
const STREAM_BYTES: usize = 1_165;
/// Type, stream id 2, offset 3, length 2.
const STREAM_HEADER: usize = 8;
/// Type, largest 2, delay 2, count, first range, and three counts for ECN, of 2 mostly.
pub const ACK_FRAME: usize = 12;
/// Type, length, and a heartbeat of usual length: kind, version, generation 9, number 3, call, health.
pub const HEARTBEAT_FRAME: usize = 18;
/// Type, and the padding of a packet to the least length.
pub const PING_FRAME: usize = 3;
/// A packet that is lost this often has been given up.
const LOSSES_MAX: usize = 8;
/// Type, code, reason.
const CLOSE_FRAME: usize = 12;
/// `Hello` of a node with short names, in its stream frame.
const HELLO_FRAME: usize = 60;
/// Every second packet is acknowledged at once (RFC 9000 section 13.2.2).
const PACKETS_PER_ACK: usize = 2;
/// Packets after a lost one that make it lost (RFC 9002 section 6.1.1).
const PACKET_THRESHOLD: usize = 3;
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
