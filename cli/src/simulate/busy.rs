//! Clusters whose work takes time: storms, in which all nodes are busy at once, and loads, in which all write.

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum;
use gossipmonger::sim::{
    busy::{Cluster, Efforts, Moment},
    cpu::{Hog, Processors, Work, Worked},
    load::{self, Load},
    storm::{self, Storm, Trigger},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        bench::machine::cpu_seconds,
        error::CliError,
        plot::{Axis, Chart},
    },
    Plan, percentage,
    report::{rounded, spread},
    within,
};

/// The arguments of both.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Pressure {
    /// What makes all nodes busy (storm).
    #[arg(long, value_enum, default_value_t = Kind::Join)]
    storm: Kind,
    /// How many cores each node has, or all of them with --shared (storm, load).
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    cores: f64,
    /// All nodes share one run queue, as those of one machine do (storm, load).
    #[arg(long)]
    shared: bool,
    /// Part of all cores that somebody else takes for a while (storm, load).
    #[arg(long, default_value = "0%", value_name = "PERCENT", value_parser = percentage)]
    hog: f64,
    /// When somebody else comes (storm, load).
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    hog_from: Duration,
    /// How long somebody else stays (storm, load).
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = humantime::parse_duration)]
    hog_for: Duration,
    /// All nodes write at the same moment; otherwise writes are spread evenly (load).
    #[arg(long)]
    bursts: bool,
}

/// What makes all nodes busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// All nodes start at once.
    Join,
    /// A cut between two halves of the nodes heals.
    Rejoin,
    /// A datacenter that was cut off comes back.
    Datacenter,
    /// All nodes start at once, and the first seed has a twentieth of a core.
    Slow,
    /// Nothing but the hog.
    Nothing,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Busy {
    what: What,
    /// The work of the same nodes on processors that are never busy.
    useful: Worked,
    realtime: f64,
}

#[derive(Debug)]
enum What {
    Storm(storm::Outcome),
    Load { outcome: load::Outcome, nodes: u32 },
}

impl Pressure {
    /// Runs a storm.
    ///
    /// # Errors
    /// Exit 2 for arguments out of range.
    pub(super) fn storm(&self, plan: &Plan) -> Result<Busy, CliError> {
        let mut cluster = self.cluster(plan)?;
        let trigger = match self.storm {
            Kind::Join => Trigger::Join,
            Kind::Slow => {
                cluster.processors.apart = BTreeMap::from([(0, SLOW)]);
                Trigger::Join
            }
            Kind::Rejoin => Trigger::Rejoin(plan.cut),
            Kind::Datacenter if plan.datacenters == 1 => {
                let why = "--storm datacenter needs two: give --datacenters 2 or more";
                return Err(CliError::usage(why));
            }
            Kind::Datacenter => Trigger::Datacenter(plan.cut),
            Kind::Nothing => Trigger::Nothing,
        };
        let storm = Storm { cluster, trigger, limit: LIMIT, after: AFTER };
        let begun = cpu_seconds();
        let outcome = storm.run();
        let realtime = outcome.span.as_secs_f64() / (cpu_seconds() - begun);
        let useful = storm.useful(outcome.span);
        Ok(Busy { what: What::Storm(outcome), useful, realtime })
    }

    /// Runs a load of so many writes a second.
    ///
    /// # Errors
    /// Exit 2 for arguments out of range.
    pub(super) fn load(&self, plan: &Plan, rate: f64) -> Result<Busy, CliError> {
        let time = Duration::from_secs(plan.seconds);
        if !(RATE[0]..=RATE[1]).contains(&rate) || rate * time.as_secs_f64() > WRITES_MAX {
            let [least, most] = RATE;
            return Err(CliError::usage(format!(
                "--rate {rate} is refused: {least} to {most} is allowed, and {WRITES_MAX} writes in all"
            )));
        }
        let load = Load {
            cluster: self.cluster(plan)?,
            rate,
            bursts: self.bursts,
            time,
            limit: LAST,
            value_bytes: plan.value_bytes,
        };
        let begun = cpu_seconds();
        let outcome = load.run();
        let realtime = outcome.span.as_secs_f64() / (cpu_seconds() - begun);
        let useful = load.useful(outcome.span);
        Ok(Busy { what: What::Load { outcome, nodes: plan.nodes }, useful, realtime })
    }

    fn cluster(&self, plan: &Plan) -> Result<Cluster, CliError> {
        within("nodes", u64::from(plan.nodes), 2, NODES_MAX)?;
        if !(CORES[0]..=CORES[1]).contains(&self.cores) {
            let (cores, [least, most]) = (self.cores, CORES);
            let why = format!("--cores {cores} is refused: {least} to {most} is allowed");
            return Err(CliError::usage(why));
        }
        if self.hog > HOG_MAX {
            let (hog, most) = (self.hog * 100.0, HOG_MAX * 100.0);
            return Err(CliError::usage(format!("--hog {hog}% is refused: {most}% is allowed")));
        }
        let hog = Hog { share: self.hog, from: self.hog_from, until: self.hog_from + self.hog_for };
        let processors = Processors {
            shared: self.shared,
            hog: (self.hog > 0.0).then_some(hog),
            ..Processors::each(self.cores)
        };
        Ok(Cluster {
            seed: plan.seed,
            nodes: plan.nodes as usize,
            datacenters: plan.datacenters,
            wan_rtt: plan.wan_rtt,
            loss: plan.loss,
            settings: plan.settings(plan.nodes),
            processors,
        })
    }
}

impl Busy {
    fn efforts(&self) -> &Efforts {
        match &self.what {
            What::Storm(outcome) => &outcome.efforts,
            What::Load { outcome, .. } => &outcome.efforts,
        }
    }

    fn moments(&self) -> &[Moment] {
        match &self.what {
            What::Storm(outcome) => &outcome.moments,
            What::Load { outcome, .. } => &outcome.moments,
        }
    }

    /// The part of the work that is done also by processors that are never busy.
    fn share(&self) -> f64 {
        self.useful.sum() as f64 / self.efforts().worked.sum().max(1) as f64
    }

    fn lag_ms(&self) -> [f64; 3] {
        let mut lags: Vec<_> = self.moments().iter().map(|moment| millis(moment.lag)).collect();
        lags.sort_by(f64::total_cmp);
        spread(&lags)
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let efforts = self.efforts();
        let kind = |kind: Work| {
            let [all, useful] = [efforts.worked, self.useful].map(|work| seconds(work.of(kind)));
            (kind.as_str().to_owned(), json!({ "all": all, "useful": useful }))
        };
        let curve = self.moments().iter().map(|moment| {
            let (at, ready) = (moment.at.as_secs_f64(), 100.0 * moment.ready);
            json!([rounded(at), rounded(millis(moment.lag)), rounded(ready)])
        });
        let mut out = json!({
            "cpu_s": seconds(efforts.worked.sum()),
            "cpu_s_by_kind": Work::ALL.map(kind).into_iter().collect::<Map<_, _>>(),
            "useful": rounded(self.share()),
            "dials": efforts.dials,
            "handshakes": {
                "begun": efforts.handshakes.begun,
                "accepted": efforts.handshakes.accepted,
                "finished": efforts.handshakes.finished,
                "timeouts": efforts.handshakes.timeouts(),
                "repeats": efforts.handshakes.repeats,
            },
            "settlements": efforts.settlements,
            "exchanges": efforts.exchanges,
            "lag_ms": three(self.lag_ms()),
            "curve": curve.collect::<Vec<_>>(),
            "realtime_factor": rounded(self.realtime),
        });
        match &self.what {
            What::Storm(outcome) => {
                out["listed_s"] = optional(outcome.listed);
                out["calm_s"] = optional(outcome.calm);
                out["edges"] = outcome.edges.into();
                out["handshakes_per_edge"] = rounded(outcome.handshakes_per_edge());
                out["rest_cores"] = rounded(outcome.rest);
                out["rest_lag_ms"] = rounded(millis(outcome.lag_after));
            }
            What::Load { outcome, nodes } => {
                let each = Each::of(outcome, *nodes);
                out["writes"] = outcome.writes.into();
                out["missing"] = outcome.missing.into();
                out["everywhere_ms"] = three(everywhere_ms(outcome));
                out["copies_per_delivery"] = rounded(each.copies);
                out["bytes_per_delivery"] = rounded(each.bytes);
                out["packets_per_delivery"] = rounded(each.packets);
                out["cpu_us_per_delivery"] = rounded(each.cpu_us);
            }
        }
        match out {
            Value::Object(out) => out,
            _ => Map::new(),
        }
    }

    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut put = |name: &str, value: String| rows.push((name.to_owned(), value));
        let times = |of: [f64; 3]| format!("{:.1} / {:.1} / {:.1} ms", of[0], of[1], of[2]);
        let efforts = self.efforts();
        match &self.what {
            What::Storm(outcome) => {
                let at = |at: Option<Duration>| match at {
                    Some(at) => format!("{:.1} s", at.as_secs_f64()),
                    None => "not before the time-out".to_owned(),
                };
                put("until all list all", at(outcome.listed));
                put("until all are connected with their neighbours", at(outcome.calm));
                let per = outcome.handshakes_per_edge();
                put("edges, handshakes an edge", format!("{}, {per:.2}", outcome.edges));
                let (rest, lag) = (outcome.rest, millis(outcome.lag_after));
                put("busy after it, lag", format!("{rest:.3} cores, {lag:.1} ms"));
            }
            What::Load { outcome, nodes } => {
                put("writes, not everywhere", format!("{}, {}", outcome.writes, outcome.missing));
                put("everywhere after, p50 / p99 / worst", times(everywhere_ms(outcome)));
                let Each { copies, bytes, packets, cpu_us } = Each::of(outcome, *nodes);
                put("for each write at each node", format!("{copies:.2} copies, {bytes:.0} B"));
                put("", format!("{packets:.2} packets, {cpu_us:.0} us of CPU"));
            }
        }
        let (all, part) = (efforts.worked.sum() as f64 / 1e6, 100.0 * self.share());
        put("work of all nodes, useful part", format!("{all:.2} s, {part:.0} %"));
        for kind in Work::ALL {
            let [all, useful] = [efforts.worked, self.useful].map(|w| w.of(kind) as f64 / 1e6);
            put(&format!("  {}", kind.as_str()), format!("{all:.2} s, useful {useful:.2} s"));
        }
        let shakes = efforts.handshakes;
        put("dials, handshakes begun", format!("{}, {}", efforts.dials, shakes.begun));
        let done = format!("{}, {}", shakes.accepted, shakes.finished);
        put("finished at the accepting end, at both", done);
        let late = format!("{}, {}", shakes.timeouts(), shakes.repeats);
        put("given up for time, flights repeated", late);
        let moved = format!("{}, {}", efforts.settlements, efforts.exchanges);
        put("settlements of neighbours, exchanges", moved);
        put("lag, p50 / p99 / worst", times(self.lag_ms()));
        put("faster than real time", format!("{:.1} times", self.realtime));
        rows
    }

    /// The lag, and how many nodes are where they are to be.
    pub(super) fn chart(&self, title: &str) -> Chart {
        let ready = match &self.what {
            What::Storm(_) => "% of nodes that list all and have their neighbours",
            What::Load { .. } => "% of nodes without a write on its way",
        };
        let of = |value: fn(&Moment) -> f64| {
            self.moments().iter().map(move |moment| (moment.at.as_secs_f64(), value(moment)))
        };
        Chart::new(title, Axis::linear("seconds"), Axis::log("ms, %"))
            .line("lag, ms", of(|moment| millis(moment.lag)))
            .line(ready, of(|moment| 100.0 * moment.ready))
    }
}

/// What each write costs at each node that it reaches.
struct Each {
    copies: f64,
    bytes: f64,
    packets: f64,
    cpu_us: f64,
}

impl Each {
    fn of(outcome: &load::Outcome, nodes: u32) -> Self {
        let deliveries = outcome.writes as f64 * f64::from(nodes - 1);
        let each = |all: u64| all as f64 / deliveries;
        let efforts = &outcome.efforts;
        Self {
            copies: each(efforts.received),
            bytes: each(efforts.sent.bytes),
            packets: each(efforts.sent.packets),
            cpu_us: each(efforts.worked.sum()),
        }
    }
}

fn everywhere_ms(outcome: &load::Outcome) -> [f64; 3] {
    let millis: Vec<_> = outcome.everywhere.iter().map(|micros| *micros as f64 / 1e3).collect();
    spread(&millis)
}

fn three([p50, p99, max]: [f64; 3]) -> Value {
    json!({ "p50": rounded(p50), "p99": rounded(p99), "max": rounded(max) })
}

fn optional(at: Option<Duration>) -> Value {
    at.map_or(Value::Null, |at| rounded(at.as_secs_f64()))
}

fn seconds(micros: u64) -> Value {
    rounded(micros as f64 / 1e6)
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Each packet of each heartbeat is simulated.
const NODES_MAX: u64 = 2_000;
const CORES: [f64; 2] = [0.01, 1_000.0];
/// Who has no time at all cannot be simulated.
const HOG_MAX: f64 = 0.99;
/// The cores of the slow node.
const SLOW: f64 = 0.05;
/// Writes of all nodes in a second.
const RATE: [f64; 2] = [0.1, 100_000.0];
/// A write is followed until it is everywhere.
const WRITES_MAX: f64 = 1e6;
/// A storm that has not ended by then never does.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a cluster is looked at once its storm is over.
const AFTER: Duration = Duration::from_secs(10);
/// A write that is not everywhere by then never is.
const LAST: Duration = Duration::from_secs(10);
