//! How many exchanges two nodes complete a second, and how many bytes that moves.
//!
//! With `--delta-bytes` every exchange carries one update of that size; without, both know all that
//! the other knows, and what is measured is the digests' way. Our own gossip waits: a transport
//! around the real one is told when to begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ractor::{ActorCell, ActorRef, SpawnErr};
use serde_json::json;

use super::{BASE_PORT, MIB, Report, cluster::value, in_range, machine, rounded, until};
use crate::{
    cli::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway},
    node::Gossipmonger,
    protocol::{
        delta::{Delta, NodeDelta},
        digest::Digest,
        exchange::{Ask, Reply, Summary},
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        message::WIRE_MAJOR,
        record::{NodeRecord, Status},
        route::{Counter, Target, TransportInput},
    },
    transport::{BoxFuture, NodeLink, OpenTransport, Opening, Transport, TransportError},
};

/// The arguments of `bench exchange`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// How many nodes both know, so many lines a digest has.
    #[arg(long, default_value_t = 50, value_name = "N")]
    digest_entries: usize,
    /// Bytes of the update that each exchange carries; 0: none.
    #[arg(long, default_value_t = 0, value_name = "B")]
    delta_bytes: usize,
    /// How long it is measured.
    #[arg(long, default_value_t = 5, value_name = "S")]
    seconds: u64,
    /// Exchanges under way at once, without updates.
    #[arg(long, default_value_t = 16, value_name = "C")]
    concurrency: usize,
    /// The first node's port, the other's follows; 0 takes any free ones.
    #[arg(long, default_value_t = BASE_PORT, value_name = "PORT")]
    base_port: u16,
}

/// Measures.
pub(super) async fn exchange(args: &Args) -> Result<Report, CliError> {
    in_range("digest-entries", args.digest_entries, 2, 10_000)?;
    in_range("concurrency", args.concurrency, 1, 1_000)?;
    if args.delta_bytes > 0 {
        in_range("delta-bytes", args.delta_bytes, 16, 1 << 20)?;
    }
    let pair = Pair::start(args).await?;
    // The first ones open the connection and grow its windows.
    pair.run(args, WARM_UP).await?;
    let (cpu, wire, failed) = (machine::cpu_seconds(), machine::loopback(), pair.failed());
    let watch = Stopwatch::start();
    let done = pair.run(args, Duration::from_secs(args.seconds)).await?;
    let seconds = watch.seconds();
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let mut out = Report::new();
    let each = |total: f64| total / done.max(1) as f64;
    out.insert("scenario".into(), "exchange".into());
    out.insert("digest_entries".into(), args.digest_entries.into());
    out.insert("delta_bytes".into(), args.delta_bytes.into());
    out.insert("exchanges".into(), done.into());
    out.insert("failed".into(), (pair.failed() - failed).into());
    out.insert("exchanges_per_s".into(), rounded(done as f64 / seconds, 1));
    out.insert(
        "payload_mib_per_s".into(),
        rounded((done * args.delta_bytes as u64) as f64 / MIB / seconds, 2),
    );
    out.insert("wire_mib_per_s".into(), rounded(wire.bytes as f64 / MIB / seconds, 2));
    out.insert("wire_bytes_per_exchange".into(), rounded(each(wire.bytes as f64), 1));
    out.insert("wire_packets_per_exchange".into(), rounded(each(wire.packets as f64), 2));
    out.insert("cpu_us_per_exchange".into(), rounded(each(cpu) * 1e6, 1));
    out.insert(
        "settings".into(),
        json!({ "transport": "quic, mutual tls 1.3", "concurrency": args.concurrency }),
    );
    Ok(out)
}

/// Two nodes that gossip only when they are told to.
struct Pair {
    from: Gossipmonger,
    to: Gossipmonger,
    reins: Reins,
}

/// What the transport of a node was started with.
#[derive(Clone, Debug)]
struct Reins {
    node: NodeLink,
    actor: ActorRef<TransportInput>,
}

impl Pair {
    async fn start(args: &Args) -> Result<Self, CliError> {
        let authority = Throwaway::new("bench")?;
        let (to, far) = start(&authority, "node-1", args.base_port, None).await?;
        let seed = to.addresses().first().cloned();
        let port = if args.base_port == 0 { 0 } else { args.base_port.saturating_add(1) };
        let (from, near) = start(&authority, "node-0", port, seed).await?;
        let met = || from.live_peers().len() == 1 && to.live_peers().len() == 1;
        let met = until(&Stopwatch::start(), JOIN_TIMEOUT, POLL, met).await;
        met.ok_or_else(|| CliError::failed("the two nodes did not find each other"))?;
        let delta = Arc::new(strangers(args.digest_entries - 2)?);
        for (reins, peer) in [(&near, to.node()), (&far, from.node())] {
            let known = reins.node.ask(peer, Ask::Apply { delta: Arc::clone(&delta) }).await;
            known.map_err(CliError::failed)?;
        }
        Ok(Self { from, to, reins: near })
    }

    /// Runs exchanges for so long. Returns how many went through.
    async fn run(&self, args: &Args, time: Duration) -> Result<u64, CliError> {
        match args.delta_bytes {
            0 => self.run_digests(args.concurrency as u64, time).await,
            bytes => self.run_updates(bytes, time).await,
        }
    }

    async fn run_digests(&self, concurrency: u64, time: Duration) -> Result<u64, CliError> {
        let digest = self.digest().await?;
        let watch = Stopwatch::start();
        let (initiated, first, mut begun) = (self.initiated(), self.ended(), 0);
        while watch.elapsed() < time {
            let ended = self.ended() - first;
            while begun < ended + concurrency {
                self.begin(&digest)?;
                begun += 1;
            }
            tokio::task::yield_now().await;
        }
        let all = || self.ended() - first >= begun;
        until(&Stopwatch::start(), DRAIN, POLL, all)
            .await
            .ok_or_else(|| CliError::failed("exchanges that do not end"))?;
        Ok(self.initiated() - initiated)
    }

    async fn run_updates(&self, bytes: usize, time: Duration) -> Result<u64, CliError> {
        let watch = Stopwatch::start();
        let mut done = 0;
        let mut events = self.to.subscribe();
        while watch.elapsed() < time {
            let version = self.from.set("k", value(done, bytes)).await.map_err(CliError::failed)?;
            self.begin(&self.digest().await?)?;
            let came = async {
                while self.to.snapshot().version(self.from.node()).is_none_or(|(_, v)| v < version)
                {
                    events.next().await.map_err(CliError::failed)?;
                }
                Ok::<(), CliError>(())
            };
            tokio::time::timeout(DRAIN, came)
                .await
                .map_err(|_| CliError::failed("an update that does not arrive"))??;
            done += 1;
        }
        Ok(done)
    }

    async fn digest(&self) -> Result<Arc<Digest>, CliError> {
        match self.reins.node.ask(self.to.node(), Ask::Digest).await {
            Ok(Reply::Digest(digest)) => Ok(digest),
            _ => Err(CliError::failed("storage gives no digest")),
        }
    }

    fn begin(&self, digest: &Arc<Digest>) -> Result<(), CliError> {
        let targets = vec![Target::Peer(self.to.node().clone())];
        let round = TransportInput::Round { targets, summary: Summary::Digest(Arc::clone(digest)) };
        self.reins.actor.cast(round).map_err(CliError::failed)
    }

    fn initiated(&self) -> u64 {
        self.from.counters().get(Counter::ExchangesInitiated)
    }

    fn failed(&self) -> u64 {
        self.from.counters().get(Counter::ExchangesFailed)
    }

    fn ended(&self) -> u64 {
        self.initiated() + self.failed()
    }
}

/// News of nodes that have left: they are in every digest, and nobody dials them.
fn strangers(count: usize) -> Result<Delta, CliError> {
    let stranger = |index: usize| -> Result<NodeDelta, CliError> {
        let node = NodeId::new(&format!("stranger-{index}")).map_err(CliError::failed)?;
        let datacenter = Datacenter::new("elsewhere").map_err(CliError::failed)?;
        let (tags, status) = (BTreeMap::new(), Status::Left);
        let record = NodeRecord {
            datacenter,
            addresses: Vec::new(),
            tags,
            wire: (WIRE_MAJOR, WIRE_MAJOR),
            status,
            incarnation: Incarnation::ZERO,
            severed: BTreeSet::new(),
            not_before: None,
            not_after: None,
        };
        Ok(NodeDelta {
            sealed: None,
            node,
            generation: Generation(1),
            ancestry: Vec::new(),
            from: Version::ZERO,
            to: Version(1),
            horizon: Version(1),
            torn: Version::ZERO,
            gc_floor: Version::ZERO,
            verdict: crate::protocol::verdict::Verdict::default(),
            record: Some((Version(1), record)),
            entries: Vec::new(),
        })
    };
    let nodes = (0..count).map(stranger).collect::<Result<_, _>>()?;
    Ok(Delta { nodes, more: false })
}

async fn start(
    authority: &Throwaway,
    name: &str,
    port: u16,
    seed: Option<String>,
) -> Result<(Gossipmonger, Reins), CliError> {
    let (mut config, transport) = authority.issue(name, "here")?.config()?;
    let reins = Arc::default();
    config.transport = Arc::new(Bridled { inner: transport, reins: Arc::clone(&reins) });
    config.listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
    config.seeds = seed.into_iter().collect();
    // Nothing but what we begin.
    config.gossip_interval = INTERVAL;
    // As many as there can be is what is measured.
    config.quic.exchanges_per_peer = 1 << 20;
    let (node, _) = Gossipmonger::spawn(config).await.map_err(CliError::failed)?;
    let reins = reins.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((node, reins.ok_or_else(|| CliError::failed("the transport was not started"))?))
}

type Handed = Arc<Mutex<Option<Reins>>>;

/// A transport that hands out what it was started with.
#[derive(Debug)]
struct Bridled<T> {
    inner: Arc<T>,
    reins: Handed,
}

#[derive(Debug)]
struct OpenBridled {
    inner: Arc<dyn OpenTransport>,
    reins: Handed,
}

impl<T: Transport> Transport for Bridled<T> {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn OpenTransport>, TransportError>> {
        Box::pin(async move {
            let inner = self.inner.open(opening).await?;
            let open: Arc<dyn OpenTransport> =
                Arc::new(OpenBridled { inner, reins: Arc::clone(&self.reins) });
            Ok(open)
        })
    }
}

impl OpenTransport for OpenBridled {
    fn addresses(&self) -> Vec<String> {
        self.inner.addresses()
    }

    fn start(
        &self,
        node: NodeLink,
        supervisor: ActorCell,
    ) -> BoxFuture<'_, Result<ActorRef<TransportInput>, SpawnErr>> {
        Box::pin(async move {
            let actor = self.inner.start(node.clone(), supervisor).await?;
            let reins = Reins { node, actor: actor.clone() };
            *self.reins.lock().unwrap_or_else(PoisonError::into_inner) = Some(reins);
            Ok(actor)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// The longest there is.
const INTERVAL: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
