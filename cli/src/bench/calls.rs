//! What a call from one node to another costs: both nodes in this process, over QUIC on loopback.
//!
//! The command line, the rounds and the line of JSON are those of the programs that measure raw quinn, tonic and
//! ractor_cluster in the same way, so that one script compares them all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clap::ValueEnum;
use gossipmonger::protocol::route::Counter;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::pair::Pair;
use super::{Report, faults::Faults, in_range, machine, rounded, statistics::quantile};
use crate::{error::CliError, stopwatch::Stopwatch};

mod pair;
mod service;

/// The arguments of `bench calls`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Calls {
    #[command(flatten)]
    common: Common,
    /// Calls under way at once.
    #[arg(long, default_value_t = 16, value_name = "C")]
    concurrency: usize,
    /// How long each round takes.
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    seconds: f64,
}

/// The arguments of `bench casts`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Casts {
    #[command(flatten)]
    common: Common,
    /// Messages of each round.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    count: usize,
}

/// The arguments of `bench dial`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Dial {
    #[command(flatten)]
    common: Common,
    /// Connections of each round.
    #[arg(long, default_value_t = 400, value_name = "N")]
    count: usize,
}

#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// Length of the body, the same both ways.
    #[arg(long, default_value_t = 64, value_name = "B")]
    bytes: usize,
    /// How often it is measured.
    #[arg(long, default_value_t = 3, value_name = "R")]
    rounds: usize,
    /// What answers at the other node.
    #[arg(long, value_enum, default_value_t = Mode::Function, value_name = "M")]
    mode: Mode,
    /// The other node spoils each answer of this number, and loses each such message: the result has to be void.
    #[arg(long, hide = true, value_name = "N")]
    spoil: Option<u64>,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// A function, as a task for each call.
    Function,
    /// A ractor actor, which handles one message after another.
    Actor,
}

/// What is done in a round.
#[derive(Clone, Copy, Debug)]
enum Load {
    Calls { concurrency: usize, length: Duration },
    Casts { count: u64 },
    Dials { count: u64 },
}

/// What one round came to.
#[derive(Debug, Default)]
struct Round {
    /// Answered calls, messages that arrived, or dials.
    calls: u64,
    seconds: f64,
    /// Of both ends.
    cpu: f64,
    /// What each call took, in microseconds; empty for casts.
    times: Vec<f64>,
    faults: Faults,
}

/// The calls of one task.
#[derive(Debug, Default)]
struct Called {
    times: Vec<f64>,
    /// Answers that are not what was sent.
    wrong: u64,
}

/// Measures calls: so many tasks, each with one call under way at a time.
pub(super) async fn calls(args: Calls) -> Result<Report, CliError> {
    in_range("concurrency", args.concurrency, 1, CONCURRENCY_MAX)?;
    in_range("seconds", args.seconds, SECONDS_MIN, SECONDS_MAX)?;
    let length = Duration::from_secs_f64(args.seconds);
    run(args.common, Load::Calls { concurrency: args.concurrency, length }).await
}

/// Measures messages without an answer: sent one after another, counted where they are handled.
pub(super) async fn casts(args: Casts) -> Result<Report, CliError> {
    in_range("count", args.count, 1, COUNT_MAX)?;
    run(args.common, Load::Casts { count: args.count as u64 }).await
}

/// Measures the first call on a connection of its own, one after another.
pub(super) async fn dial(args: Dial) -> Result<Report, CliError> {
    in_range("count", args.count, 1, COUNT_MAX)?;
    run(args.common, Load::Dials { count: args.count as u64 }).await
}

async fn run(common: Common, load: Load) -> Result<Report, CliError> {
    in_range("bytes", common.bytes, 1, BYTES_MAX)?;
    in_range("rounds", common.rounds, 1, ROUNDS_MAX)?;
    if common.spoil == Some(0) {
        return Err(CliError::usage("--spoil 0 is refused"));
    }
    // On a worker, as in a program: a thread that blocks is woken at a higher price.
    let measured = common.clone();
    let rounds = tokio::spawn(async move { rounds(&measured, load).await });
    let rounds = rounds.await.map_err(CliError::failed)??;
    Ok(report(&common, load, rounds))
}

async fn rounds(common: &Common, load: Load) -> Result<Vec<Round>, CliError> {
    let pair = Arc::new(Pair::start(common.mode, common.spoil).await?);
    let body = Bytes::from(vec![BYTE; common.bytes]);
    for _ in 0..WARM_UP {
        pair.call(body.clone()).await?;
    }
    let mut rounds = Vec::with_capacity(common.rounds);
    for _ in 0..common.rounds {
        let (cpu, watch) = (machine::cpu_seconds(), Stopwatch::start());
        let round = match load {
            Load::Calls { concurrency, length } => {
                call_round(&pair, &body, concurrency, length).await?
            }
            Load::Casts { count } => cast_round(&pair, &body, count).await?,
            Load::Dials { count } => dial_round(&pair, &body, count).await?,
        };
        let (seconds, cpu) = (watch.seconds(), machine::cpu_seconds() - cpu);
        rounds.push(Round { seconds, cpu, ..round });
    }
    Ok(rounds)
}

async fn call_round(
    pair: &Arc<Pair>,
    body: &Bytes,
    concurrency: usize,
    length: Duration,
) -> Result<Round, CliError> {
    let round = Stopwatch::start();
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let (pair, body) = (Arc::clone(pair), body.clone());
        callers.spawn(async move {
            let mut called = Called { times: Vec::with_capacity(1 << 14), wrong: 0 };
            while round.elapsed() < length {
                called.one(&pair, &body).await?;
            }
            Ok::<_, CliError>(called)
        });
    }
    let mut all = Called::default();
    while let Some(ended) = callers.join_next().await {
        let Called { times, wrong } = ended.map_err(CliError::failed)??;
        all.times.extend(times);
        all.wrong += wrong;
    }
    let mut faults = Faults::default();
    faults.require(!all.times.is_empty(), || "no call was made".to_owned());
    Ok(all.round(faults))
}

async fn cast_round(pair: &Pair, body: &Bytes, count: u64) -> Result<Round, CliError> {
    let before = pair.received();
    for _ in 0..count {
        pair.cast(body.clone()).await?;
    }
    let (mut arrived, mut last) = (0, Stopwatch::start());
    loop {
        let now = pair.received() - before;
        if now > arrived {
            (arrived, last) = (now, Stopwatch::start());
        }
        if arrived >= count || last.elapsed() > LOST {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Round { calls: arrived, faults: cast_faults(count, arrived), ..Round::default() })
}

/// Each message must have reached its handler once.
fn cast_faults(sent: u64, arrived: u64) -> Faults {
    let mut faults = Faults::default();
    faults.require(arrived == sent, || format!("{arrived} of {sent} messages arrived"));
    faults
}

async fn dial_round(pair: &Pair, body: &Bytes, count: u64) -> Result<Round, CliError> {
    let before = pair.counted(Counter::ServiceConnectionsDialed);
    let (mut called, mut closed) = (Called::default(), 0);
    for _ in 0..count {
        closed += u64::from(pair.disconnect());
        called.one(pair, body).await?;
    }
    let dialed = pair.counted(Counter::ServiceConnectionsDialed) - before;
    Ok(called.round(dial_faults(count, closed, dialed)))
}

/// Each call must have had a connection of its own.
fn dial_faults(calls: u64, closed: u64, dialed: u64) -> Faults {
    let mut faults = Faults::default();
    faults.require(closed == calls, || format!("{closed} connections closed for {calls} calls"));
    faults.require(dialed == calls, || format!("{dialed} connections dialed for {calls} calls"));
    faults
}

impl Called {
    async fn one(&mut self, pair: &Pair, body: &Bytes) -> Result<(), CliError> {
        let watch = Stopwatch::start();
        let answer = pair.call(body.clone()).await?;
        self.times.push(watch.seconds() * 1e6);
        self.wrong += u64::from(answer != *body);
        Ok(())
    }

    fn round(self, mut faults: Faults) -> Round {
        let calls = self.times.len() as u64;
        faults.require(self.wrong == 0, || {
            format!("{} of {calls} answers are not what was sent", self.wrong)
        });
        Round { calls, times: self.times, faults, ..Round::default() }
    }
}

fn report(common: &Common, load: Load, rounds: Vec<Round>) -> Report {
    let calls: u64 = rounds.iter().map(|round| round.calls).sum();
    let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
    let cpu = rounds.iter().map(|round| round.cpu * 1e6 / round.calls.max(1) as f64);
    let cpu: Vec<f64> = cpu.collect();
    let (mut times, mut faults) = (Vec::new(), Faults::default());
    for round in rounds {
        times.extend(round.times);
        faults.append(round.faults);
    }
    times.sort_by(f64::total_cmp);
    let at = |part| quantile(&times, part).map_or(Value::Null, |value| rounded(value, 1));
    let mut out = Report::new();
    out.insert("scenario".into(), load.name().into());
    let mode = common.mode.to_possible_value().map(|mode| mode.get_name().to_owned());
    out.insert("mode".into(), mode.into());
    out.insert("bytes".into(), common.bytes.into());
    out.insert("concurrency".into(), load.concurrency().into());
    out.insert("calls".into(), calls.into());
    out.insert("calls_per_s".into(), rounded(calls as f64 / seconds, 1));
    let least = cpu.iter().copied().reduce(f64::min);
    out.insert("cpu_us_per_call".into(), least.map_or(Value::Null, |least| rounded(least, 2)));
    let each: Vec<_> = cpu.iter().map(|cpu| rounded(*cpu, 2)).collect();
    out.insert("cpu_us_per_call_rounds".into(), each.into());
    out.insert("p50_us".into(), at(0.5));
    out.insert("p99_us".into(), at(0.99));
    out.insert("max_us".into(), at(1.0));
    let settings = json!({
        "transport": "quic, mutual tls 1.3",
        "codec": "bytes",
        "room": pair::ROOM,
        "workers": super::WORKERS,
    });
    out.insert("settings".into(), settings);
    faults.judge(&mut out, FIGURES);
    out
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Calls { .. } => "calls",
            Self::Casts { .. } => "casts",
            Self::Dials { .. } => "dial",
        }
    }

    const fn concurrency(self) -> usize {
        match self {
            Self::Calls { concurrency, .. } => concurrency,
            Self::Casts { .. } | Self::Dials { .. } => 1,
        }
    }
}

const FIGURES: &[&str] =
    &["calls_per_s", "cpu_us_per_call", "cpu_us_per_call_rounds", "p50_us", "p99_us", "max_us"];
/// Calls before the first round: windows, caches and allocators settle.
const WARM_UP: usize = 50;
/// Each byte of a body.
const BYTE: u8 = 7;
/// How often it is looked whether the messages have arrived.
const POLL: Duration = Duration::from_millis(1);
/// Messages that have not arrived when nothing has for so long are lost.
const LOST: Duration = Duration::from_secs(10);
const CONCURRENCY_MAX: usize = 1_000;
const COUNT_MAX: usize = 10_000_000;
const ROUNDS_MAX: usize = 1_000;
/// The longest body that travels beside others.
const BYTES_MAX: usize = gossipmonger::protocol::service::frame::LANE_BODY_MAX;
const SECONDS_MIN: f64 = 0.001;
const SECONDS_MAX: f64 = 3_600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_did_not_arrive_voids_the_result() {
        assert!(cast_faults(3, 3).is_empty());
        assert!(!cast_faults(3, 2).is_empty());
        assert!(!cast_faults(3, 4).is_empty());
    }

    #[test]
    fn a_call_on_a_connection_that_was_there_voids_the_result() {
        assert!(dial_faults(3, 3, 3).is_empty());
        assert!(!dial_faults(3, 2, 3).is_empty());
        assert!(!dial_faults(3, 3, 2).is_empty());
    }
}
