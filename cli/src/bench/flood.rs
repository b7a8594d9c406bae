//! How a cluster performs while an attacker floods one of its nodes with handshakes that never go on.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    protocol::route::Counter,
    unstable::{Expect, SERVER_NAME},
};
use serde_json::json;

use super::{
    Common, Report, SETTLE, counts::Counts, faults::Faults, forge::Forge, in_range, join_all,
    machine, rounded, scenario,
};
use crate::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway};

/// The arguments of `flood`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Handshakes begun in a second. None goes on, and each comes from another of the addresses.
    #[arg(long, default_value_t = 10_000, value_name = "R")]
    rate: usize,
    /// Source addresses that they come from.
    #[arg(long, default_value_t = 1_000, value_name = "A")]
    addresses: usize,
}

/// Measures the spread of changes before the flood, and then while node 0 is flooded.
pub(super) async fn flood(args: Args) -> Result<Report, CliError> {
    in_range("rate", args.rate, 1, 1_000_000)?;
    in_range("addresses", args.addresses, 1, ADDRESSES_MAX)?;
    let common = args.common.check(2)?;
    let mut out = common.report("flood");
    let forge = Arc::new(forge().await?);
    let cluster = join_all(&common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let quiet = Duration::from_secs(common.seconds);
    let applied = || cluster.counts().get(Counter::EntriesApplied);
    let first = applied();
    let before = scenario::spread_for(&cluster, &common, quiet).await?;
    let mut faults = before.faults(common.nodes, applied() - first);
    let target = cluster.node(0).ok_or_else(|| CliError::failed("node 0 is gone"))?;
    let address = target.addresses().first().and_then(|address| address.parse().ok());
    let address: SocketAddr = address.ok_or_else(|| CliError::failed("node 0 has no address"))?;
    let suspected = total(&cluster, Counter::PeersSuspected);
    let (cpu, errors) = (machine::cpu_seconds(), machine::udp_receive_errors());
    let (counts, first, watch) = (Counts::of([target]), applied(), Stopwatch::start());
    let attack = Attack::begin(forge, address, args.rate, args.addresses)?;
    let during = scenario::spread_for(&cluster, &common, quiet).await?;
    let sent = attack.end();
    let seconds = watch.seconds();
    faults.append(during.faults(common.nodes, applied() - first));
    let counts = Counts::of([target]).since(&counts);
    let count = |counter| counts.get(counter);
    out.insert("before_ms".into(), before.report());
    out.insert("during_ms".into(), during.report());
    let ratio = during.p99() / before.p99().max(f64::EPSILON);
    out.insert("p99_ratio".into(), rounded(ratio, 2));
    out.insert("flood_s".into(), rounded(seconds, 1));
    out.insert("initials_per_s".into(), rounded(sent.flights as f64 / seconds, 0));
    out.insert("initials_unsent".into(), sent.unsent.into());
    out.insert("bytes_sent".into(), sent.bytes.into());
    out.insert("bytes_answered".into(), sent.answered.into());
    let answered = sent.answered as f64 / sent.bytes.max(1) as f64;
    out.insert("amplification".into(), rounded(answered, 3));
    out.insert(
        "node_0".into(),
        json!({
            "retried": count(Counter::HandshakesRetried),
            "shed": count(Counter::HandshakesShed),
            "failed": count(Counter::HandshakesFailed),
        }),
    );
    let errors = machine::udp_receive_errors().saturating_sub(errors);
    out.insert("flood_udp_rcvbuf_errors".into(), errors.into());
    out.insert("cpu_cores".into(), rounded((machine::cpu_seconds() - cpu) / seconds, 2));
    out.insert("cpu_cores_of_the_flood".into(), rounded(sent.cpu / seconds, 2));
    let suspected = total(&cluster, Counter::PeersSuspected) - suspected;
    out.insert("suspected".into(), suspected.into());
    out.insert("still_full".into(), cluster.is_full().into());
    let met = [Counter::HandshakesRetried, Counter::HandshakesShed, Counter::HandshakesFailed];
    faults.append(sent.faults(met.into_iter().map(count).sum()));
    faults.require_joined(&out);
    faults.judge(&mut out, &FIGURES);
    Ok(out)
}

fn total(cluster: &super::Cluster, counter: Counter) -> u64 {
    cluster.running().map(|(_, node)| node.counters().get(counter)).sum()
}

/// The first flight of a stranger, who knows only an address of the cluster.
async fn forge() -> Result<Forge, CliError> {
    let wire = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (identity, roots) = Throwaway::new("stranger")?.issue("x", "here")?.parts()?;
    let tls = gossipmonger::tls::Tls::new(identity, roots).map_err(CliError::failed)?;
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let config = quinn::ClientConfig::new(tls.dial(Expect::AnyNode).0);
    let connecting = client.connect_with(config, wire.local_addr()?, SERVER_NAME);
    let _connecting = connecting.map_err(CliError::failed)?;
    let mut flight = Vec::new();
    // The keys of the post-quantum exchange make it longer than one datagram.
    while flight.len() < 2 {
        let mut datagram = vec![0; 2_048];
        let received = tokio::time::timeout(RECORDING, wire.recv(&mut datagram)).await;
        datagram.truncate(received.map_err(CliError::failed)??);
        flight.push(datagram);
    }
    Forge::new(&flight).ok_or_else(|| CliError::failed("the recorded handshake cannot be opened"))
}

/// A thread that floods one address.
struct Attack {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Sent>,
}

/// What a flood has sent and received.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// Flights of which the network accepted every datagram.
    flights: u64,
    /// Flights of which the network refused a datagram.
    unsent: u64,
    bytes: u64,
    answered: u64,
    /// CPU seconds of the flooding thread.
    cpu: f64,
}

impl Sent {
    /// A flood must have reached its target, which must have seen some of the handshakes.
    fn faults(&self, met: u64) -> Faults {
        let mut faults = Faults::default();
        faults.require(self.flights > 0, || "no handshake was begun".to_owned());
        faults.require(met > 0, || {
            format!("node 0 met none of {} handshakes that were begun", self.flights)
        });
        // A datagram of a first flight has at least 1,200 bytes (RFC 9000 section 14.1).
        faults.require(self.bytes >= self.flights * INITIAL_BYTES_MIN, || {
            format!("{} first flights do not fit {} bytes", self.flights, self.bytes)
        });
        faults
    }
}

impl Attack {
    fn begin(
        forge: Arc<Forge>,
        to: SocketAddr,
        rate: usize,
        addresses: usize,
    ) -> Result<Self, CliError> {
        let mut sockets = Vec::with_capacity(addresses);
        for n in 0..addresses {
            let [.., high, low] = (n + 1).to_be_bytes();
            // Systems other than Linux have only one loopback address.
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 7, high, low), 0))
                .or_else(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || rain(&forge, &sockets, to, rate, &told));
        Ok(Self { over, thread })
    }

    fn end(self) -> Sent {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn rain(
    forge: &Forge,
    sockets: &[UdpSocket],
    to: SocketAddr,
    rate: usize,
    over: &AtomicBool,
) -> Sent {
    static FLIGHTS: AtomicU64 = AtomicU64::new(1);
    let (mut sent, watch) = (Sent::default(), Stopwatch::start());
    let cpu = machine::thread_cpu_seconds();
    let mut answer = [0; 2_048];
    while !over.load(Ordering::Relaxed) {
        let due = (watch.seconds() * rate as f64) as u64;
        while sent.flights + sent.unsent < due && !over.load(Ordering::Relaxed) {
            let number = FLIGHTS.fetch_add(1, Ordering::Relaxed);
            let socket = &sockets[number as usize % sockets.len()];
            let mut whole = true;
            let flight = forge.flight(number).unwrap_or_default();
            for datagram in &flight {
                // Datagrams that find no room are lost, as on any network.
                let bytes = socket.send_to(datagram, to).unwrap_or(0);
                sent.bytes += bytes as u64;
                whole &= bytes == datagram.len();
            }
            *(if whole && !flight.is_empty() { &mut sent.flights } else { &mut sent.unsent }) += 1;
            // All answers to this address so far.
            while let Ok(received) = socket.recv(&mut answer) {
                sent.answered += received as u64;
            }
        }
        std::thread::sleep(PACE);
    }
    std::thread::sleep(LAST_ANSWERS);
    for socket in sockets {
        loop {
            match socket.recv(&mut answer) {
                Ok(received) => sent.answered += received as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
    sent.cpu = machine::thread_cpu_seconds() - cpu;
    sent
}

const FIGURES: [&str; 6] = [
    "during_ms",
    "p99_ratio",
    "initials_per_s",
    "amplification",
    "cpu_cores",
    "cpu_cores_of_the_flood",
];
const INITIAL_BYTES_MIN: u64 = 1_200;
/// The last byte of the addresses must not overflow.
const ADDRESSES_MAX: usize = 4_000;
const RECORDING: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(1);
const LAST_ANSWERS: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_that_did_not_reach_its_target_is_void() {
        let sent = Sent { flights: 2, bytes: 4_800, ..Sent::default() };
        assert!(sent.faults(2).is_empty());
        assert!(!sent.faults(0).is_empty(), "the target met none");
        assert!(!Sent::default().faults(2).is_empty(), "none were sent");
        assert!(!Sent { bytes: 0, ..sent }.faults(2).is_empty(), "they had no bytes");
    }
}
