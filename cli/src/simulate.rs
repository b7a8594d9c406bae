//! `gossipmonger simulate`: the shipped state machines, at any size, in virtual time.
//!
//! Storage, failure detector, scheduler and connections of every node are those of an agent; only the network is a
//! model ([`sim`](gossipmonger::sim)). Use it to plan a cluster: its cost, the delay
//! of changes, the effect of a partition. It gives no figures for bandwidth, and those for processors follow from a table
//! of costs: use `gossipmonger bench` for the real ones.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use gossipmonger::{
    ClusterId, Config, Datacenter, NodeId,
    sim::{cpu::Processors, settings::Settings, world::World},
    tls::PeerName,
};
use serde_json::Value;

use super::error::CliError;

mod busy;
mod calls;
mod failures;
mod report;
mod scenario;
mod services;

use calls::{Calls, Traffics};
use failures::{Fault, Setup};
use report::Report;
use services::Services;

/// The arguments of `simulate`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// What happens.
    #[arg(long, value_enum, default_value_t = Scenario::Spread)]
    scenario: Scenario,
    /// How many nodes.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    nodes: u32,
    /// How many datacenters they are spread over.
    #[arg(long, default_value_t = 3, value_name = "N")]
    datacenters: u16,
    /// Round trip between datacenters; inside one it is half a millisecond.
    #[arg(long, default_value = "80ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    wan_rtt: Duration,
    /// Part of the packets that is lost.
    #[arg(long, default_value = "1%", value_name = "PERCENT", value_parser = percentage)]
    loss: f64,
    /// Part of the nodes that has just died (spread).
    #[arg(long, default_value = "10%", value_name = "PERCENT", value_parser = percentage)]
    dead: f64,
    /// How many of the nodes join the others at once; 0: a fifth of them (join).
    #[arg(long, default_value_t = 0, value_name = "J")]
    joiners: u32,
    /// Bytes of the value that is written (spread, load). Above 512 it goes along the tree of its writer.
    #[arg(long, default_value_t = 100, value_name = "B")]
    value_bytes: usize,
    /// How many nodes write, each often enough before the deaths that its tree has formed; 0: any
    /// node, without a word before (spread).
    #[arg(long, default_value_t = 0, value_name = "W")]
    writers: u32,
    /// How many updates are watched (spread), differences reconciled (reconcile), or times that nodes
    /// crash, as long as no more than a quarter of them has (failures).
    #[arg(long, default_value_t = 20, value_name = "R")]
    runs: u32,
    /// How long a cluster is looked at, in virtual time: 10 s by default (idle, services, load), 30 s (calls), or
    /// as long as each experiment takes, which is 2 min for a fault that lasts (failures).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The gossip interval of all nodes.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// What goes wrong (failures).
    #[arg(long, value_enum, default_value_t = Fault::Crash)]
    fault: Fault,
    /// How many nodes it befalls; 0: one that crashes, or one in a hundred (failures). How many providers
    /// die, and how many others drain; 0: one in twenty of them each (calls).
    #[arg(long, default_value_t = 0, value_name = "N")]
    stopped: u32,
    /// How often an hour the process of every node stands still, for half a second in the mean
    /// (failures).
    #[arg(long, default_value_t = 0, value_name = "P")]
    pauses: u32,
    /// How many nodes offer the service that all call; 0: one in twenty, but no more than 100 (calls).
    #[arg(long, default_value_t = 0, value_name = "P")]
    providers: u32,
    /// How many calls each node begins in a second: 1 by default (calls). How many writes all nodes begin in a
    /// second: 100 by default (load).
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// The longest time of a handler; one in twenty takes up to ten times as long (calls).
    #[arg(long, default_value = "10ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    work: Duration,
    /// Ask a second node if an idempotent call has no answer after so long (calls).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    hedge: Option<Duration>,
    /// Leave out the rules of others (failures).
    #[arg(long)]
    ours: bool,
    /// How long the network is cut (heal, and storm after a cut).
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = humantime::parse_duration)]
    cut: Duration,
    /// Each node has one N-th of a core, and what it does takes time; 0: it takes none.
    #[arg(long, default_value_t = 0, value_name = "N")]
    cpu: u64,
    #[command(flatten)]
    busy: busy::Pressure,
    /// Everything that is left to chance follows from this number.
    #[arg(long = "random-seed", alias = "seed", default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw the curve of the run into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Nothing: what it costs to stay together.
    Idle,
    /// Updates, just after some nodes died.
    Spread,
    /// A fifth of the nodes joins the others at once.
    Join,
    /// One datacenter is cut off, and comes back.
    Heal,
    /// Twice as much is written as gossip can carry: the experiment of the Scuttlebutt paper, with its
    /// 128 nodes.
    Overload,
    /// Two nodes know all others; of ten of those one knows more.
    Reconcile,
    /// Nodes crash, or cannot hear, or are slow: who notices, and who is wronged, by our rule and by
    /// those of others.
    Failures,
    /// Nodes call each other while providers die, and others drain: which calls fail, and for how long
    /// callers wait.
    Calls,
    /// Each node announces 20 services: what that costs.
    Services,
    /// All nodes start at once, or meet again after a cut, on processors that may have no time for it:
    /// whether it ends, and how much more is done than there is to do.
    Storm,
    /// All nodes write, on processors that may have no time for it: when writes are everywhere, and what
    /// each of them costs.
    Load,
}

/// The run, with checked arguments.
#[derive(Clone, Debug)]
struct Plan {
    nodes: u32,
    datacenters: u16,
    wan_rtt: Duration,
    loss: f64,
    dead: f64,
    joiners: u32,
    value_bytes: usize,
    writers: u32,
    runs: u32,
    seconds: u64,
    interval: Duration,
    cut: Duration,
    cpu: u64,
    seed: u64,
}

/// Runs a scenario and prints the result.
///
/// # Errors
/// Exit 2 for arguments out of range, 1 if a promise is broken or the plot cannot be written.
pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let plan = args.plan()?;
    let report = match args.scenario {
        Scenario::Idle => scenario::idle(&plan),
        Scenario::Spread => scenario::spread(&plan),
        Scenario::Join => scenario::join(&plan),
        Scenario::Heal => scenario::heal(&plan),
        Scenario::Overload => scenario::overload(&plan)?,
        Scenario::Reconcile => scenario::reconcile(&plan),
        Scenario::Failures => {
            Report { failures: failures::run(&plan, &args.setup()?), ..Report::default() }
        }
        Scenario::Calls => {
            Report { calls: Some(calls::run(&plan, &args.traffic()?)), ..Report::default() }
        }
        Scenario::Services => Report { services: Some(services::run(&plan)), ..Report::default() },
        Scenario::Storm => Report { busy: Some(args.busy.storm(&plan)?), ..Report::default() },
        Scenario::Load => {
            let rate = args.rate.unwrap_or(LOAD_RATE);
            Report { busy: Some(args.busy.load(&plan, rate)?), ..Report::default() }
        }
    };
    args.print(&report);
    report.calls.as_ref().map_or(Ok(()), Calls::verdict)?;
    report.services.as_ref().map_or(Ok(()), Services::verdict)?;
    match (&args.plot, report.chart(&args.title())) {
        (Some(file), Some(chart)) => chart.write_svg(file),
        (Some(_), None) => Err(CliError::usage("this scenario has no curve: leave out --plot")),
        (None, _) => Ok(()),
    }
}

impl Args {
    fn plan(&self) -> Result<Plan, CliError> {
        let least = if self.scenario == Scenario::Reconcile { RECONCILED_MIN } else { 2 };
        within("nodes", u64::from(self.nodes), least, NODES_MAX)?;
        within("datacenters", u64::from(self.datacenters), 1, u64::from(self.nodes))?;
        within("runs", u64::from(self.runs), 1, 10_000)?;
        within("joiners", u64::from(self.joiners), 0, u64::from(self.nodes) - 1)?;
        within("writers", u64::from(self.writers), 0, 100)?;
        within("value-bytes", self.value_bytes as u64, 0, 1 << 20)?;
        let time = self.time.unwrap_or(TIME);
        within("time", time.as_secs(), 1, 86_400)?;
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        within("interval", interval, 50, 60_000)?;
        within("cpu", self.cpu, 0, 1_000)?;
        within("cut", self.cut.as_secs(), 1, 86_400)?;
        within("wan-rtt", u64::try_from(self.wan_rtt.as_millis()).unwrap_or(u64::MAX), 0, 2_000)?;
        if self.loss > LOSS_MAX {
            let loss = self.loss * 100.0;
            return Err(CliError::usage(format!(
                "--loss {loss}% is refused: 0% to 50% is allowed"
            )));
        }
        Ok(Plan {
            nodes: self.nodes,
            datacenters: self.datacenters,
            wan_rtt: self.wan_rtt,
            loss: self.loss,
            dead: self.dead,
            joiners: self.joiners,
            value_bytes: self.value_bytes,
            writers: self.writers,
            runs: self.runs,
            seconds: time.as_secs(),
            interval: self.interval,
            cut: self.cut,
            cpu: self.cpu,
            seed: self.seed,
        })
    }

    fn setup(&self) -> Result<Setup, CliError> {
        if !self.ours {
            within("nodes", u64::from(self.nodes), 2, COMPARED_MAX)?;
        }
        within("stopped", u64::from(self.stopped), 0, u64::from(self.nodes) - 2)?;
        within("pauses", u64::from(self.pauses), 0, 3_600)?;
        if self.fault == Fault::All && self.plot.is_some() {
            return Err(CliError::usage("--plot draws one experiment: say which with --fault"));
        }
        if matches!(self.fault, Fault::Join | Fault::None) && self.stopped > 0 {
            return Err(CliError::usage("--stopped says nothing here: this fault befalls nobody"));
        }
        Ok(Setup {
            fault: self.fault,
            stopped: self.stopped,
            time: self.time,
            pauses: f64::from(self.pauses),
            only_ours: self.ours,
            thresholds: self.plot.is_some(),
        })
    }

    fn traffic(&self) -> Result<Traffics, CliError> {
        let providers = match self.providers {
            0 => (self.nodes / 20).clamp(2, PROVIDERS),
            providers => providers,
        };
        within("providers", u64::from(providers), 2, u64::from(self.nodes))?;
        within("stopped", u64::from(self.stopped), 0, u64::from(providers) / 2)?;
        let stopped = if self.stopped == 0 { providers / 20 } else { self.stopped };
        let stopped = stopped.max(1);
        let rate = self.rate.unwrap_or(CALLS_RATE);
        if !(RATE[0]..=RATE[1]).contains(&rate) {
            let [least, most] = RATE;
            let why = format!("--rate {rate} is refused: {least} to {most} is allowed");
            return Err(CliError::usage(why));
        }
        let work = u64::try_from(self.work.as_millis()).unwrap_or(u64::MAX);
        within("work", work, 0, 60_000)?;
        let time = self.time.unwrap_or(CALLS_TIME);
        let calls = rate * f64::from(self.nodes) * time.as_secs_f64();
        if calls > CALLS_MAX {
            return Err(CliError::usage(format!(
                "{calls:.0} calls are refused: {CALLS_MAX:.0} are allowed; give a lower --rate or --time"
            )));
        }
        Ok(Traffics { providers, rate, hedge: self.hedge, work: self.work, stopped, time })
    }

    fn title(&self) -> String {
        let name = self.scenario.to_possible_value();
        let name = name.map_or_else(String::new, |name| name.get_name().to_owned());
        if self.scenario == Scenario::Overload {
            return format!("{name}, 128 nodes, seed {}", self.seed);
        }
        let (nodes, sites, loss) = (self.nodes, self.datacenters, self.loss * 100.0);
        let rtt = humantime::format_duration(self.wan_rtt);
        format!(
            "{name}, {nodes} nodes in {sites} datacenters {rtt} apart, {loss}% of packets lost, seed {}",
            self.seed
        )
    }

    fn print(&self, report: &Report) {
        if self.json {
            let mut out = report.to_json();
            let name = self.scenario.to_possible_value();
            out.insert("scenario".into(), name.map_or(Value::Null, |n| n.get_name().into()));
            out.insert("nodes".into(), self.nodes.into());
            out.insert("seed".into(), self.seed.into());
            println!("{}", Value::Object(out));
            return;
        }
        println!("{}", self.title());
        let rows = report.rows(self.nodes);
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().for_each(|(name, value)| println!("{name:width$}  {value}"));
    }
}

impl Plan {
    /// The datacenter of each node: nodes are assigned in turn.
    fn sites(&self) -> Vec<u16> {
        (0..self.nodes).map(|node| (node % u32::from(self.datacenters)) as u16).collect()
    }

    /// The settings of all nodes: those of a configuration that ships, for so many nodes that run.
    fn settings(&self, running: u32) -> Settings {
        let mut config = Config::new(&PeerName {
            cluster: ClusterId::new("simulated").expect("a label"),
            datacenter: Datacenter::new("dc").expect("a label"),
            node: NodeId::new("n0").expect("a label"),
        });
        config.peers_max = config.peers_max.max(self.nodes as usize);
        config.gossip_interval = self.interval;
        let seeds = self.seeds(running).into_iter().map(|seed| seed as usize).collect();
        Settings { seeds, ..Settings::of(&config) }
    }

    /// From now on work takes time, if it is to.
    fn charge(&self, world: &mut World) {
        if self.cpu > 0 {
            world.charge(Processors::each(1.0 / self.cpu as f64));
        }
    }

    /// The first few nodes of each datacenter are the seeds of all nodes.
    fn seeds(&self, running: u32) -> Vec<u32> {
        (0..(u32::from(self.datacenters) * SEEDS_PER_DATACENTER).min(running)).collect()
    }
}

/// A percentage: `1%`, `0.5%`.
fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("give a percentage from 0% to 100%, such as 1% or 0.5%".to_owned()),
    }
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), CliError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(CliError::usage(format!("--{name} {value} is refused: {least} to {most} is allowed")))
}

/// A node has a line for each other node: 32,000 nodes need the memory of a large machine.
const NODES_MAX: u64 = 32_000;
/// In the models of others each node has a window for each other: 40 bytes for each pair.
const COMPARED_MAX: u64 = 5_000;
/// How long an idle cluster is measured.
const TIME: Duration = Duration::from_secs(10);
/// Every node knows all providers of the simulated service: so many by default.
const PROVIDERS: u32 = 100;
/// Calls of a node in a second by default, and writes of all nodes.
const CALLS_RATE: f64 = 1.0;
const LOAD_RATE: f64 = 100.0;
/// Calls of a node in a second.
const RATE: [f64; 2] = [0.01, 1_000.0];
/// How long nodes call each other.
const CALLS_TIME: Duration = Duration::from_secs(30);
/// A call takes about half a kilobyte until the end of the run.
const CALLS_MAX: f64 = 5e6;
/// Two, and ten that differ.
const RECONCILED_MIN: u64 = 12;
/// A higher loss shows only that no cluster works.
const LOSS_MAX: f64 = 0.5;
const SEEDS_PER_DATACENTER: u32 = 3;
