//! How a cluster fares while somebody floods one of its nodes with handshakes that never go on.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{Common, Report, SETTLE, forge::Forge, in_range, join_all, machine, rounded, scenario};
use crate::{
    cli::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway},
    protocol::route::Counter,
    tls::{Expect, SERVER_NAME},
};

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

/// Measures the spread of changes before, and then while node 0 is flooded.
pub(super) async fn flood(args: Args) -> Result<Report, CliError> {
    in_range("rate", args.rate, 1, 1_000_000)?;
    in_range("addresses", args.addresses, 1, ADDRESSES_MAX)?;
    let common = args.common.check()?;
    let mut out = common.report("flood");
    let forge = Arc::new(forge().await?);
    let cluster = join_all(&common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let mut version = 0;
    let quiet = Duration::from_secs(common.seconds);
    let before = scenario::spread_for(&cluster, &common, quiet, &mut version).await?;
    let target = cluster.node(0).ok_or_else(|| CliError::failed("node 0 is gone"))?;
    let address = target.addresses().first().and_then(|address| address.parse().ok());
    let address: SocketAddr = address.ok_or_else(|| CliError::failed("node 0 has no address"))?;
    let suspected = total(&cluster, Counter::PeersSuspected);
    let (cpu, errors) = (machine::cpu_seconds(), machine::udp_receive_errors());
    let watch = Stopwatch::start();
    let attack = Attack::begin(forge, address, args.rate, args.addresses)?;
    let during = scenario::spread_for(&cluster, &common, quiet, &mut version).await?;
    let sent = attack.end();
    let seconds = watch.seconds();
    let count = |counter| target.counters().get(counter);
    out.insert("before_ms".into(), before.report());
    out.insert("during_ms".into(), during.report());
    let ratio = during.p99() / before.p99().max(f64::EPSILON);
    out.insert("p99_ratio".into(), rounded(ratio, 2));
    out.insert("flood_s".into(), rounded(seconds, 1));
    out.insert("initials_per_s".into(), rounded(sent.flights as f64 / seconds, 0));
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
    out.insert("flood_udp_rcvbuf_errors".into(), (machine::udp_receive_errors() - errors).into());
    out.insert("cpu_cores".into(), rounded((machine::cpu_seconds() - cpu) / seconds, 2));
    out.insert("cpu_cores_of_the_flood".into(), rounded(sent.cpu / seconds, 2));
    let suspected = total(&cluster, Counter::PeersSuspected) - suspected;
    out.insert("suspected".into(), suspected.into());
    out.insert("still_full".into(), cluster.is_full().into());
    Ok(out)
}

fn total(cluster: &super::Cluster, counter: Counter) -> u64 {
    cluster.running().map(|(_, node)| node.counters().get(counter)).sum()
}

/// What somebody sends before he knows anything of the cluster but an address: a stranger's flight.
async fn forge() -> Result<Forge, CliError> {
    let wire = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (identity, roots) = Throwaway::new("stranger")?.issue("x", "here")?.parts()?;
    let tls = crate::tls::Tls::new(identity, roots).map_err(CliError::failed)?;
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let config = quinn::ClientConfig::new(tls.dial(Expect::AnyNode).0);
    let connecting = client.connect_with(config, wire.local_addr()?, SERVER_NAME);
    let _connecting = connecting.map_err(CliError::failed)?;
    let mut flight = Vec::new();
    // The keys of the post-quantum exchange take it beyond one datagram.
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

/// What a flood has sent, and got.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    flights: u64,
    bytes: u64,
    answered: u64,
    /// Seconds of the thread's own.
    cpu: f64,
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
            // Systems other than Linux have one address of loopback only.
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
        while sent.flights < due {
            let number = FLIGHTS.fetch_add(1, Ordering::Relaxed);
            let socket = &sockets[sent.flights as usize % sockets.len()];
            for datagram in forge.flight(number).into_iter().flatten() {
                // What finds no room is lost, as on any network.
                sent.bytes += socket.send_to(&datagram, to).unwrap_or(0) as u64;
            }
            sent.flights += 1;
            // Whatever was answered to this address before.
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

/// The last byte of their addresses is not to run out.
const ADDRESSES_MAX: usize = 4_000;
const RECORDING: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(1);
const LAST_ANSWERS: Duration = Duration::from_millis(200);
