//! `bench drive`: a member that calls the providers, at a fixed rate or as fast as they answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    protocol::{event::Event, id::Datacenter, route::Counter},
    service::{Call, CallError, Calling, Prefer, Stub},
    subscription::{Events, SubscriptionError},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    bulk::Brought,
    histogram::Histogram,
    ledger::{Ending, Ledger, Method},
    service::{BYTES_MAX, Echo, Measured, Once, Told},
};
use crate::{
    agent::Flags,
    bench::{Report, faults::Faults, in_range, lag::Lag, rounded},
    certificates::new_name,
    error::CliError,
};

/// A member that calls members with `bench provide` for a while, and prints what came of the calls. It takes the
/// directory and the flags of `agent`, and leaves when it has printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Drive {
    #[command(flatten)]
    flags: Flags,
    /// Calls that are begun in a second, whether or not earlier ones have been answered.
    #[arg(long, default_value_t = 1_000.0, value_name = "R")]
    rate: f64,
    /// Instead of a rate: so many calls under way at once, each followed by the next.
    #[arg(long, value_name = "C", conflicts_with = "rate")]
    concurrency: Option<usize>,
    /// For how long calls are begun.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
    /// What is called, in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Method::Echo, Method::Once], value_name = "METHOD")]
    mix: Vec<Method>,
    /// Length of the body, both ways for an echo.
    #[arg(long, default_value_t = 64, value_name = "B")]
    bytes: usize,
    /// Streams that are read beside the calls, as fast as they come.
    #[arg(long, default_value_t = 0, value_name = "N")]
    bulk: usize,
    /// Begins once so many providers are known.
    #[arg(long, default_value_t = 1, value_name = "N")]
    providers: usize,
    /// Calls only providers of this datacenter. Default: the nearest.
    #[arg(long, value_name = "NAME", value_parser = new_name::<Datacenter>)]
    only_datacenter: Option<Datacenter>,
    /// Calls providers of all datacenters alike.
    #[arg(long, conflicts_with = "only_datacenter")]
    anywhere: bool,
    /// Deadline of each call (`5s`). Default: that of the configuration.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
}

/// The checked arguments.
#[derive(Debug)]
pub(super) struct Plan {
    pace: Pace,
    length: Duration,
    mix: Vec<Method>,
    bytes: usize,
    bulk: usize,
    providers: usize,
    prefer: Prefer,
    deadline: Option<Duration>,
}

/// When calls are begun.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// So many in a second.
    Rate(f64),
    /// So many under way.
    Concurrency(usize),
}

/// What the tasks share.
#[derive(Debug)]
struct Caller {
    stub: Stub<Measured>,
    ledger: Ledger,
    mix: Vec<Method>,
    body: String,
    deadline: Option<Duration>,
    /// Distinguishes the numbers of this process from those of others.
    session: u64,
    /// Events of the node that were missed.
    missed_events: AtomicU64,
}

/// Whether the pace was kept.
#[derive(Debug, Default)]
struct Kept {
    /// How much later than due each call began.
    late: Histogram,
    /// Calls that were due and did not begin.
    skipped: u64,
    /// The node ended before the time was over.
    cut_short: bool,
}

impl Drive {
    /// Checks the arguments.
    pub(super) fn prepare(self) -> Result<(Flags, Plan), CliError> {
        in_range("rate", self.rate, RATE_MIN, RATE_MAX)?;
        in_range("seconds", self.seconds, SECONDS_MIN, SECONDS_MAX)?;
        in_range("bytes", self.bytes, 1, BYTES_MAX)?;
        in_range("bulk", self.bulk, 0, BULK_MAX)?;
        in_range("providers", self.providers, 1, PROVIDERS_MAX)?;
        let pace = match self.concurrency {
            Some(concurrency) => {
                in_range("concurrency", concurrency, 1, UNDER_WAY_MAX)?;
                Pace::Concurrency(concurrency)
            }
            None => Pace::Rate(self.rate),
        };
        let prefer = match self.only_datacenter {
            Some(datacenter) => Prefer::Datacenter(datacenter),
            None if self.anywhere => Prefer::Anywhere,
            None => Prefer::Nearest,
        };
        let plan = Plan {
            pace,
            length: Duration::from_secs_f64(self.seconds),
            mix: self.mix,
            bytes: self.bytes,
            bulk: self.bulk,
            providers: self.providers,
            prefer,
            deadline: self.deadline,
        };
        Ok((self.flags, plan))
    }
}

impl Plan {
    /// Waits for the providers, and calls them for as long as the plan says.
    pub(super) async fn run(self, node: &Gossipmonger) -> Result<Report, CliError> {
        let stub = node.service::<Measured>().prefer(self.prefer.clone());
        stub.ready(self.providers, READY).await.map_err(|error| {
            CliError::failed(format!(
                "{error}: {} providers were not found within {READY:?}; run `gossipmonger bench provide` on as \
                 many nodes that are members of this cluster",
                self.providers
            ))
        })?;
        for _ in 0..WARM_UP {
            // What fails here fails later, too, and is counted there.
            let _: Result<String, _> = stub.call(Echo(String::new())).await;
        }
        // For scripts that disturb the cluster meanwhile.
        println!("{}", json!({ "event": "begun" }));
        let events = node.subscribe();
        let retried = node.counters().get(Counter::CallsRetried);
        let lag = Lag::watch();
        let caller = Arc::new(Caller {
            stub,
            ledger: Ledger::start(),
            mix: self.mix.clone(),
            body: ".".repeat(self.bytes),
            deadline: self.deadline,
            session: u64::from(rand::random::<u32>()) << 32,
            missed_events: AtomicU64::new(0),
        });
        let brought = Arc::new(Brought::default());
        let kept = self.drive(node, &caller, &brought, events).await;
        let mut out = self.describe(node);
        caller.ledger.report(self.rate(), self.length, &mut out);
        out.insert("retried".into(), (node.counters().get(Counter::CallsRetried) - retried).into());
        out.insert("began_late_ms".into(), kept.late.report());
        out.insert("lag_ms".into(), lag.end());
        let bulk = if self.bulk == 0 { Value::Null } else { brought.report(self.length) };
        out.insert("bulk".into(), bulk);
        self.faults(&caller, &brought, &kept).judge(&mut out, FIGURES);
        Ok(out)
    }

    async fn drive(
        &self,
        node: &Gossipmonger,
        caller: &Arc<Caller>,
        brought: &Arc<Brought>,
        events: Events,
    ) -> Kept {
        let following = tokio::spawn(follow(Arc::clone(caller), events));
        let mut streams = JoinSet::new();
        for _ in 0..self.bulk {
            let (caller, brought, length) = (Arc::clone(caller), Arc::clone(brought), self.length);
            streams.spawn(async move { brought.read(&caller.stub, &caller.ledger, length).await });
        }
        let (mut kept, mut calls) = (Kept::default(), JoinSet::new());
        let cut_short = tokio::select! {
            () = self.begin_calls(caller, &mut calls, &mut kept) => false,
            _ = node.ended() => true,
        };
        kept.cut_short = cut_short;
        let rest = async {
            while calls.join_next().await.is_some() {}
            while streams.join_next().await.is_some() {}
        };
        // Whatever has not ended by then is counted as under way.
        let _: Result<(), _> =
            tokio::time::timeout(self.deadline.unwrap_or_default() + REST, rest).await;
        following.abort();
        kept
    }

    async fn begin_calls(&self, caller: &Arc<Caller>, calls: &mut JoinSet<()>, kept: &mut Kept) {
        match self.pace {
            Pace::Rate(rate) => self.begin_by_rate(rate, caller, calls, kept).await,
            Pace::Concurrency(concurrency) => {
                for first in 0..concurrency as u64 {
                    let (caller, length) = (Arc::clone(caller), self.length);
                    calls.spawn(async move {
                        let mut number = first;
                        while caller.ledger.now() < length {
                            caller.one(number).await;
                            number += concurrency as u64;
                        }
                    });
                }
                while calls.join_next().await.is_some() {}
            }
        }
    }

    /// Begins a call whenever one is due.
    async fn begin_by_rate(
        &self,
        rate: f64,
        caller: &Arc<Caller>,
        calls: &mut JoinSet<()>,
        kept: &mut Kept,
    ) {
        let all = (rate * self.length.as_secs_f64()).ceil() as u64;
        let mut number = 0;
        while number < all {
            let now = caller.ledger.now();
            let due = ((now.as_secs_f64() * rate) as u64 + 1).min(all);
            while number < due {
                kept.late.record(now.saturating_sub(Duration::from_secs_f64(number as f64 / rate)));
                if calls.len() < UNDER_WAY_MAX {
                    let caller = Arc::clone(caller);
                    calls.spawn(async move { caller.one(number).await });
                } else {
                    kept.skipped += 1;
                }
                number += 1;
            }
            while calls.try_join_next().is_some() {}
            tokio::time::sleep(TICK).await;
        }
    }

    const fn rate(&self) -> Option<f64> {
        match self.pace {
            Pace::Rate(rate) => Some(rate),
            Pace::Concurrency(_) => None,
        }
    }

    fn describe(&self, node: &Gossipmonger) -> Report {
        let mut out = Report::new();
        out.insert("scenario".into(), "drive".into());
        out.insert("node".into(), node.node().to_string().into());
        out.insert("rate".into(), self.rate().into());
        let concurrency = match self.pace {
            Pace::Rate(_) => None,
            Pace::Concurrency(concurrency) => Some(concurrency),
        };
        out.insert("concurrency".into(), concurrency.into());
        out.insert("seconds".into(), rounded(self.length.as_secs_f64(), 3));
        out.insert("bytes".into(), self.bytes.into());
        out.insert(
            "prefer".into(),
            match &self.prefer {
                Prefer::Datacenter(datacenter) => json!({ "datacenter": datacenter.to_string() }),
                Prefer::Anywhere => "anywhere".into(),
                _ => "nearest".into(),
            },
        );
        out
    }

    fn faults(&self, caller: &Caller, brought: &Brought, kept: &Kept) -> Faults {
        let [sent, answered, wrong] = caller.ledger.counts();
        let mut faults = Faults::default();
        faults.require(!kept.cut_short, || "the node ended before the time was over".to_owned());
        faults.require(answered > 0, || format!("none of {sent} calls was answered"));
        faults.require(wrong == 0, || format!("{wrong} answers are not what they have to be"));
        faults.require(kept.skipped == 0, || {
            format!(
                "{} calls did not begin: {UNDER_WAY_MAX} were under way; ask for a lower rate",
                kept.skipped
            )
        });
        let missed = caller.missed_events.load(Ordering::Relaxed);
        faults.require(missed == 0, || format!("{missed} events of the node were missed"));
        let under_way = caller.ledger.under_way();
        faults.require(under_way == 0, || format!("{under_way} calls did not end"));
        faults
            .require(self.bulk == 0 || brought.bytes() > 0, || "no stream brought anything".into());
        faults
    }
}

/// Notes the verdicts of this node about others.
async fn follow(caller: Arc<Caller>, mut events: Events) {
    loop {
        match events.next().await {
            Ok(Event::PeerDead { peer, .. }) => caller.ledger.dead(peer.as_str()),
            Ok(Event::PeerSuspect { peer, .. }) => caller.ledger.suspect(peer.as_str()),
            Ok(_) => {}
            Err(SubscriptionError::Lagged(more)) => {
                caller.missed_events.fetch_add(more, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
}

impl Caller {
    async fn one(&self, number: u64) {
        let method = self.mix[(number % self.mix.len() as u64) as usize];
        let begun = self.ledger.begin(method);
        let ending = match method {
            Method::Echo => {
                let call = self.within(self.stub.call(Echo(self.body.clone())));
                judge(call.await, |answer| *answer == self.body)
            }
            Method::Once => {
                let once = Once { number: self.session | number, body: self.body.clone() };
                judge(self.within(self.stub.call(once)).await, |times| *times == 1)
            }
            Method::Cast => judge(self.stub.cast(Told(self.body.clone())).await, |()| true),
        };
        self.ledger.end(method, begun, ending);
    }

    fn within<M: Call>(&self, call: Calling<M>) -> Calling<M> {
        match self.deadline {
            Some(deadline) => call.within(deadline),
            None => call,
        }
    }
}

fn judge<A>(result: Result<A, CallError>, is_right: impl FnOnce(&A) -> bool) -> Ending {
    match result {
        Ok(answer) if is_right(&answer) => Ending::Answered,
        Ok(_) => Ending::Wrong,
        Err(error) => Ending::Failed(error),
    }
}

const FIGURES: &[&str] = &["latency_ms", "answered_per_100_ms", "verdicts"];
/// How long the providers are waited for.
const READY: Duration = Duration::from_secs(60);
/// Calls before the measurement: connections are dialed, windows and caches settle.
const WARM_UP: usize = 50;
/// How often it is looked whether a call is due.
const TICK: Duration = Duration::from_millis(1);
/// How long calls without a deadline of their own may take after the time is over.
const REST: Duration = Duration::from_secs(30);
const UNDER_WAY_MAX: usize = 65_536;
const BULK_MAX: usize = 100;
const PROVIDERS_MAX: usize = 1_000;
const RATE_MIN: f64 = 0.1;
const RATE_MAX: f64 = 1_000_000.0;
const SECONDS_MIN: f64 = 0.001;
const SECONDS_MAX: f64 = 86_400.0;
