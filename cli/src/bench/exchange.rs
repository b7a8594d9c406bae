//! How many exchanges two nodes complete a second, and how many bytes that takes.
//!
//! With `--delta-bytes` every exchange carries one update of that size; without, each node knows all that the other
//! knows, and the benchmark measures the exchange of digests. The nodes push nothing meanwhile, and begin an exchange
//! only on command.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    protocol::{
        delta::{Delta, NodeDelta},
        digest::Digest,
        entry::Value,
        exchange::{Ask, Reply, Summary},
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        message::{Message, WIRE_MAJOR},
        record::{NodeRecord, Status},
        route::{Counter, Target},
        seal::Signing,
    },
    reins::Reins,
};
use serde_json::json;

use super::{
    BASE_PORT, MIB, Report,
    counts::Counts,
    faults::Faults,
    in_range, machine, rounded, seconds_in_range, until,
    values::{NUMBER_DIGITS, fresh, number_of},
};
use crate::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway};

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
        in_range("delta-bytes", args.delta_bytes, NUMBER_DIGITS, 1 << 20)?;
    }
    seconds_in_range("seconds", args.seconds, 1)?;
    let pair = Pair::start(args).await?;
    // The first exchanges open the connection and grow its windows.
    pair.run(args, WARM_UP).await?;
    let (cpu, wire) = (machine::cpu_seconds(), machine::loopback());
    let (near, far) = (Counts::of([&pair.from]), Counts::of([&pair.to]));
    let watch = Stopwatch::start();
    let done = pair.run(args, Duration::from_secs(args.seconds)).await?;
    let seconds = watch.seconds();
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let near = Counts::of([&pair.from]).since(&near);
    // The other end may still have to count the last ones.
    let answered = || Counts::of([&pair.to]).since(&far).get(Counter::ExchangesAnswered) >= done;
    until(&Stopwatch::start(), DRAIN, POLL, answered).await;
    let far = Counts::of([&pair.to]).since(&far);
    let syn = Message::Syn { digest: (*pair.digest().await?).clone() };
    let syn = syn.encode().map_err(CliError::failed)?.len();
    let ran = Ran {
        done,
        failed: near.get(Counter::ExchangesFailed),
        answered: far.get(Counter::ExchangesAnswered),
        entries: far.get(Counter::EntriesApplied),
        pushed: far.get(Counter::GossipReceived),
        updates: args.delta_bytes > 0,
        wire_bytes: wire.bytes,
        least_bytes: (syn + args.delta_bytes) as u64,
    };
    let mut out = Report::new();
    let each = |total: f64| total / done.max(1) as f64;
    out.insert("scenario".into(), "exchange".into());
    out.insert("digest_entries".into(), args.digest_entries.into());
    out.insert("delta_bytes".into(), args.delta_bytes.into());
    out.insert("exchanges".into(), done.into());
    out.insert("failed".into(), ran.failed.into());
    out.insert("answered".into(), ran.answered.into());
    out.insert("entries_applied".into(), ran.entries.into());
    out.insert("digest_bytes".into(), syn.into());
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
    out.insert("pushes_held_back".into(), pair.reins.held_back().into());
    ran.faults().judge(&mut out, &FIGURES);
    Ok(out)
}

/// The counters of both ends.
#[derive(Clone, Copy, Debug)]
struct Ran {
    /// Exchanges that the initiator completed.
    done: u64,
    failed: u64,
    answered: u64,
    /// Entries that the responder applied.
    entries: u64,
    /// Gossip frames that the responder received outside of exchanges.
    pushed: u64,
    /// Whether each exchange carries an update.
    updates: bool,
    wire_bytes: u64,
    /// The least bytes of an exchange: a digest, and the update.
    least_bytes: u64,
}

impl Ran {
    /// Both ends must have run each exchange, and it must have carried what it should.
    fn faults(&self) -> Faults {
        let Self { done, failed, answered, entries, pushed, .. } = *self;
        let mut faults = Faults::default();
        faults.require(done > 0, || "no exchange went through".to_owned());
        faults.require(failed == 0, || format!("{failed} exchanges failed"));
        faults
            .require(answered >= done, || format!("{answered} of {done} exchanges were answered"));
        faults.require(!self.updates || entries >= done, || {
            format!("{done} exchanges brought {entries} updates")
        });
        faults.require(!self.updates || pushed == 0, || {
            format!("{pushed} frames came outside of exchanges, and may have brought updates")
        });
        let least = done * self.least_bytes;
        faults.require(self.wire_bytes >= least, || {
            format!("{done} exchanges need {least} bytes, {} passed", self.wire_bytes)
        });
        faults
    }
}

/// Two nodes that gossip only on command.
struct Pair {
    from: Gossipmonger,
    to: Gossipmonger,
    reins: Reins,
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
            let known = reins.ask(peer, Ask::Apply { delta: Arc::clone(&delta) }).await;
            known.ok_or_else(|| CliError::failed("storage does not answer"))?;
            reins.push_nothing();
        }
        let count = args.digest_entries;
        let known = || [&from, &to].iter().all(|node| node.snapshot().peers().count() + 1 >= count);
        let known = until(&Stopwatch::start(), JOIN_TIMEOUT, POLL, known).await;
        known.ok_or_else(|| CliError::failed("the two nodes did not take up the strangers"))?;
        Ok(Self { from, to, reins: near })
    }

    /// Runs exchanges for this time. Returns how many succeeded.
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
                self.begin(&digest);
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
        let first = self.initiated();
        let mut events = self.to.subscribe();
        while watch.elapsed() < time {
            let (value, ended) = (fresh(bytes), self.ended());
            self.from.set("k", value.text).await.map_err(CliError::failed)?;
            self.begin(&self.digest().await?);
            let shows = || {
                let snapshot = self.to.snapshot();
                let shown = snapshot.get(self.from.node(), "k").and_then(Value::as_str);
                shown.and_then(number_of) == Some(value.number)
            };
            let came = async {
                while !shows() {
                    events.next().await.map_err(CliError::failed)?;
                }
                while self.ended() == ended {
                    tokio::task::yield_now().await;
                }
                Ok::<(), CliError>(())
            };
            tokio::time::timeout(DRAIN, came)
                .await
                .map_err(|_| CliError::failed("an update that does not arrive"))??;
        }
        Ok(self.initiated() - first)
    }

    async fn digest(&self) -> Result<Arc<Digest>, CliError> {
        match self.reins.ask(self.to.node(), Ask::Digest).await {
            Some(Reply::Digest(digest)) => Ok(digest),
            _ => Err(CliError::failed("storage gives no digest")),
        }
    }

    fn begin(&self, digest: &Arc<Digest>) {
        let target = Target::Peer(self.to.node().clone());
        self.reins.begin(target, Summary::Digest(Arc::clone(digest)));
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

/// State of nodes that have left: they are in every digest, and no node dials them.
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
            verdict: gossipmonger::protocol::verdict::Verdict::default(),
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
    let (mut config, network) = authority.issue(name, "here")?.config()?;
    // The strangers in the digest have no signatures.
    config.signing = Signing::Off;
    config.listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
    config.seeds = seed.into_iter().collect();
    // No exchanges but those of the benchmark.
    config.gossip_interval = INTERVAL;
    // The benchmark measures the highest rate.
    config.quic.exchanges_per_peer = 1 << 20;
    let (node, _) = Gossipmonger::spawn(config, network).await.map_err(CliError::failed)?;
    let reins = Reins::of(&node);
    Ok((node, reins))
}

const FIGURES: [&str; 6] = [
    "exchanges_per_s",
    "payload_mib_per_s",
    "wire_mib_per_s",
    "wire_bytes_per_exchange",
    "wire_packets_per_exchange",
    "cpu_us_per_exchange",
];
/// The longest interval that the configuration allows.
const INTERVAL: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_that_moved_nothing_are_void() {
        let good = Ran {
            done: 10,
            failed: 0,
            answered: 10,
            entries: 10,
            pushed: 0,
            updates: true,
            wire_bytes: 1_000,
            least_bytes: 100,
        };
        assert!(good.faults().is_empty());
        assert!(Ran { updates: false, entries: 0, ..good }.faults().is_empty(), "digests alone");
        for void in [
            Ran { done: 0, ..good },
            Ran { failed: 1, ..good },
            Ran { answered: 9, ..good },
            Ran { entries: 9, ..good },
            Ran { pushed: 1, ..good },
            Ran { wire_bytes: 999, ..good },
        ] {
            assert!(!void.faults().is_empty(), "{void:?}");
        }
    }
}
