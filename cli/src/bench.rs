//! `gossipmonger bench`: performance measurements.
//!
//! `join`, `spread`, `load`, `bulk` and `fail` use the command line and output of the benchmarks of other cluster
//! libraries, `calls`, `casts` and `dial` those of libraries for calls; `throughput`, `exchange` and `flow` are our own. `provide` and `drive` are members of a
//! cluster on several hosts; `live` measures a cluster that runs. Each prints one JSON object as its last line.
//! docs/benchmarks.md explains the figures.
//!
//! A measurement whose work was not done is void: its figures are null, and the command fails ([`faults`]).

use std::{fmt::Display, path::Path, time::Duration};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use self::{
    cluster::{Cluster, Settings},
    counts::Counts,
    faults::Faults,
    lag::Lag,
    quota::Quota,
};
use super::{error::CliError, remote::Target, stopwatch::Stopwatch};

mod bulk;
mod calls;
mod cluster;
mod counts;
mod exchange;
mod fail;
mod faults;
mod flood;
mod flow;
mod forge;
mod handshake;
mod heads;
mod hosts;
mod lag;
mod live;
mod load;
pub(super) mod machine;
mod quota;
mod scenario;
mod statistics;
mod throughput;
mod trial;
mod values;

/// The arguments of `bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// How many CPUs the measurement gets: a whole number, or one part of a CPU in a whole number (0.5, 0.2, ...).
    #[arg(long, global = true, value_name = "X")]
    cores: Option<f64>,
}

#[derive(Debug, Subcommand)]
enum What {
    #[command(flatten)]
    Inside(Inside),
    /// Run a member of a cluster that answers the calls of `bench drive`.
    Provide(Box<hosts::Provide>),
    /// Run a member of a cluster that calls the members with `bench provide`, and measure the calls.
    Drive(Box<hosts::Drive>),
    /// Measure the running cluster of an agent: spread of writes, round trips, calls and throughput by datacenter.
    Live(Box<live::Args>),
    /// Use CPU until the input ends, as a competitor of a measurement with `--cores`.
    #[command(hide = true)]
    Spin,
}

/// Measurements within this process.
#[derive(Debug, Subcommand)]
enum Inside {
    /// Time until all nodes have each other for live; then what an idle cluster costs.
    Join(Common),
    /// Time until a change is everywhere.
    Spread(Common),
    /// A steady load of updates: how soon each is at all other nodes, and what it costs.
    Load(load::Args),
    /// Time until many keys of one node are at another.
    Bulk(bulk::Args),
    /// Time until nodes that fall silent are dead for all, and false deaths.
    Fail(Common),
    /// The highest rate of updates at which they are everywhere within a second.
    Throughput(throughput::Args),
    /// Exchanges a second, and bytes, between two nodes.
    Exchange(exchange::Args),
    /// How a cluster fares while one node is flooded with handshakes that never go on.
    Flood(flood::Args),
    /// What a handshake costs both ends.
    Handshake(handshake::Args),
    /// What it costs to take up nodes that sign what they say, beside nodes that do not.
    Heads(heads::Args),
    /// What a call from one node to another costs.
    Calls(calls::Calls),
    /// What a message without an answer costs.
    Casts(calls::Casts),
    /// What the first call to a node costs: a connection is dialed for it.
    Dial(calls::Dial),
    /// How stale copies are while more is written than gossip can carry, in virtual time.
    Flow(flow::Args),
}

/// The command line that all measured libraries share.
#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// How many nodes, all in this process.
    #[arg(long, default_value_t = 10, value_name = "N")]
    nodes: usize,
    /// The gossip interval; the default is the library's.
    #[arg(long, value_name = "I")]
    interval_ms: Option<u64>,
    /// Keys to transfer (bulk).
    #[arg(long, default_value_t = 10_000, value_name = "K")]
    keys: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100, value_name = "B")]
    value_bytes: usize,
    /// How long to look at the idle cluster (join).
    #[arg(long, default_value_t = 10, value_name = "S")]
    seconds: u64,
    /// Seconds to wait at most for all nodes, and for each spread, transfer or detection.
    #[arg(long, default_value_t = 90, value_name = "T")]
    timeout: u64,
    /// Seconds between the join and the first failure (fail).
    #[arg(long, default_value_t = 30, value_name = "W")]
    warmup: u64,
    /// How many changes are watched (spread).
    #[arg(long, default_value_t = 20, value_name = "R")]
    reps: usize,
    /// Pause between two starts.
    #[arg(long, default_value_t = 0, value_name = "P")]
    stagger_ms: u64,
    /// Only `default` is known: others have several ways to do the same, this has one.
    #[arg(long, value_name = "M")]
    mode: Option<String>,
    /// The first node's port, the others' follow; 0 takes any free ones.
    #[arg(long, default_value_t = BASE_PORT, value_name = "PORT")]
    base_port: u16,
}

impl Args {
    /// Whether this runs a member, from a directory as an agent does.
    pub(crate) const fn is_member(&self) -> bool {
        matches!(self.what, What::Provide(_) | What::Drive(_))
    }

    /// Whether this asks a running agent. All others start nodes of their own.
    pub(crate) const fn asks_an_agent(&self) -> bool {
        matches!(self.what, What::Live(_))
    }
}

/// Measures, and prints the result as one line of JSON.
///
/// # Errors
/// Exit 2 for arguments out of range; 1 if nodes cannot start, or the measurement is void; the codes of `agent` for a
/// member that cannot run.
pub(crate) fn run(agent: &Target, dir: &Path, args: Args) -> Result<(), CliError> {
    if args.asks_an_agent() && args.cores.is_some() {
        return Err(CliError::usage(
            "--cores is for measurements in this process; bench live measures agents that run already",
        ));
    }
    let quota = args.cores.map(Quota::take).transpose()?;
    match args.what {
        What::Provide(args) => hosts::provide(dir, *args),
        What::Drive(args) => hosts::drive(dir, *args),
        What::Live(args) => live::run(agent, &args),
        What::Inside(what) => run_inside(what, quota),
        What::Spin => {
            quota::spin();
            Ok(())
        }
    }
}

/// Measures within this process.
fn run_inside(what: Inside, quota: Option<Quota>) -> Result<(), CliError> {
    let workers = quota.as_ref().map_or(WORKERS, |quota| quota.workers().min(WORKERS));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let before = Before::now();
    let watch = Stopwatch::start();
    let result = runtime.block_on(measure(what));
    runtime.shutdown_background();
    let mut out = result?;
    if let Some(quota) = quota {
        out.insert("cores".into(), rounded(quota.cores(), 2));
        out.insert("cores_used".into(), rounded(machine::cpu_seconds() / watch.seconds(), 3));
    }
    before.print(out)
}

/// The machine before a measurement.
struct Before {
    udp_receive_errors: u64,
    load: String,
}

impl Before {
    fn now() -> Self {
        Self { udp_receive_errors: machine::udp_receive_errors(), load: machine::load() }
    }

    /// Completes and prints the report.
    ///
    /// # Errors
    /// If the measurement is void.
    fn print(self, mut out: Report) -> Result<(), CliError> {
        out.insert("subject".into(), "gossipmonger".into());
        out.insert("load_before".into(), self.load.into());
        let errors = machine::udp_receive_errors().saturating_sub(self.udp_receive_errors);
        out.insert("udp_rcvbuf_errors".into(), errors.into());
        out.insert("cpu_s_total".into(), rounded(machine::cpu_seconds(), 2));
        out.insert("rss_end_mib".into(), rounded(machine::resident_bytes() as f64 / MIB, 1));
        let counts = Faults::check(&out);
        println!("{}", Value::Object(out));
        counts
    }
}

type Report = Map<String, Value>;

async fn measure(what: Inside) -> Result<Report, CliError> {
    match what {
        Inside::Join(common) => scenario::join(&common.check(2)?).await,
        Inside::Spread(common) => scenario::spread(&common.check(2)?).await,
        Inside::Load(args) => load::load(args).await,
        Inside::Bulk(args) => bulk::bulk(&args).await,
        Inside::Fail(common) => fail::fail(&common.check(fail::NODES_MIN)?).await,
        Inside::Throughput(args) => throughput::throughput(&args).await,
        Inside::Exchange(args) => exchange::exchange(&args).await,
        Inside::Flood(args) => flood::flood(args).await,
        Inside::Handshake(args) => handshake::handshake(&args).await,
        Inside::Heads(args) => heads::heads(&args),
        Inside::Calls(args) => calls::calls(args).await,
        Inside::Casts(args) => calls::casts(args).await,
        Inside::Dial(args) => calls::dial(args).await,
        Inside::Flow(args) => flow::flow(&args),
    }
}

impl Common {
    /// Refuses fewer nodes than this.
    fn check(self, nodes_min: usize) -> Result<Self, CliError> {
        if let Some(mode) = self.mode.as_deref().filter(|mode| *mode != "default") {
            return Err(CliError::usage(format!(
                "--mode {mode} is unknown: there is only one way"
            )));
        }
        in_range("nodes", self.nodes, nodes_min, NODES_MAX)?;
        in_range("keys", self.keys, 1, 1_000_000)?;
        in_range("value-bytes", self.value_bytes, values::NUMBER_DIGITS, 1 << 20)?;
        in_range("reps", self.reps, 1, 1_000_000)?;
        seconds_in_range("seconds", self.seconds, 1)?;
        seconds_in_range("timeout", self.timeout, 1)?;
        seconds_in_range("warmup", self.warmup, 0)?;
        Ok(self)
    }

    fn settings(&self) -> Settings {
        Settings {
            nodes: self.nodes,
            interval: self.interval_ms.map(Duration::from_millis),
            base_port: self.base_port,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    fn report(&self, scenario: &str) -> Report {
        let mut out = Report::new();
        out.insert("scenario".into(), scenario.into());
        out.insert("nodes".into(), self.nodes.into());
        out.insert("settings".into(), self.settings().describe());
        out
    }
}

fn in_range<T: PartialOrd + Display + Copy>(
    name: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), CliError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(CliError::usage(format!("--{name} {value} is refused: {least} to {most} is allowed")))
}

fn seconds_in_range(name: &str, seconds: u64, least: usize) -> Result<(), CliError> {
    in_range(name, usize::try_from(seconds).unwrap_or(usize::MAX), least, SECONDS_MAX)
}

/// Starts all nodes, with node 0 as seed of the others, and waits until each considers all others live.
async fn join_all(common: &Common, out: &mut Report) -> Result<Cluster, CliError> {
    join_first(common.nodes, common, out).await
}

/// The same for the first nodes only.
async fn join_first(nodes: usize, common: &Common, out: &mut Report) -> Result<Cluster, CliError> {
    let mut cluster = Cluster::new(common.settings())?;
    let resident = machine::resident_bytes();
    let cpu = machine::cpu_seconds();
    let wire = machine::loopback();
    let (watch, lag) = (Stopwatch::start(), Lag::watch());
    for index in 0..nodes {
        cluster.start(index).await?;
        if common.stagger_ms > 0 {
            tokio::time::sleep(Duration::from_millis(common.stagger_ms)).await;
        }
    }
    let started = watch.seconds();
    let joined = until(&watch, common.timeout(), JOIN_POLL, || cluster.is_full()).await;
    out.insert("join_s".into(), joined.map_or(Value::Null, |joined| rounded(joined, 3)));
    out.insert("start_s".into(), rounded(started, 3));
    out.insert("join_cpu_s".into(), rounded(machine::cpu_seconds() - cpu, 3));
    let bytes = machine::loopback().since(&wire).bytes / nodes as u64;
    out.insert("join_wire_bytes_per_node".into(), bytes.into());
    out.insert("rss_baseline_mib".into(), rounded(resident as f64 / MIB, 1));
    out.insert("join_lag_ms".into(), lag.end());
    report_work("join", nodes, &cluster.counts(), out);
    if joined.is_none() {
        let counts = cluster.live_counts();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        out.insert("live_at_timeout_min".into(), counts.iter().min().copied().into());
        out.insert("live_at_timeout_mean".into(), rounded(mean, 1));
    }
    Ok(cluster)
}

/// Writes the work of the nodes in this phase into the report, and prints it for people.
fn report_work(phase: &str, nodes: usize, counts: &Counts, out: &mut Report) {
    counts.report_per_node(phase, nodes, out);
    println!("{phase}: {}", counts.describe_per_node(nodes));
}

/// Polls until the condition holds. Returns the seconds on `watch` then; `None` if that took too long.
async fn until(
    watch: &Stopwatch,
    timeout: Duration,
    poll: Duration,
    mut is_so: impl FnMut() -> bool,
) -> Option<f64> {
    loop {
        if is_so() {
            return Some(watch.seconds());
        }
        if watch.elapsed() >= timeout {
            return None;
        }
        tokio::time::sleep(poll).await;
    }
}

fn rounded(value: f64, digits: i32) -> Value {
    let factor = 10f64.powi(digits);
    json!((value * factor).round() / factor)
}

/// The same number as for the other libraries.
const WORKERS: usize = 2;
const BASE_PORT: u16 = 20_000;
const NODES_MAX: usize = 1_000;
const SECONDS_MAX: usize = 86_400;
const JOIN_POLL: Duration = Duration::from_millis(5);
/// Work that follows the joining ends before anything else is measured.
const SETTLE: Duration = Duration::from_secs(2);
const MIB: f64 = 1_048_576.0;
