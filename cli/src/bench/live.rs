//! `bench live`: measures the running cluster of one agent, by requests to that agent alone.
//!
//! Nothing is started here. What it writes is below a prefix of its own, expires by itself, and is deleted at the end, by
//! Ctrl-C as well. All it does is bounded by the constants below.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use self::{keys::Keys, nodes::Nodes, spread::Spread};
use super::{Faults, Report, in_range, seconds_in_range, values::NUMBER_DIGITS};
use crate::{
    error::{CliError, Exit},
    output,
    probe::PROBE_BYTES_MAX,
    remote::Target,
};

mod calls;
mod keys;
mod nodes;
mod paths;
mod spread;
mod table;
mod writes;

/// Measure the running cluster of an agent: spread of writes, round trips, calls and throughput by datacenter.
///
/// It starts no node: it asks the agent in --dir, or with --agent one on another machine, which then needs a client's
/// certificate with role admin. It writes keys of the agent's node below bench.live/ and deletes them at the end.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a bench live
  gossipmonger --dir a bench live --rate 5 --seconds 30 --svg spread.svg
  gossipmonger --agent 10.0.0.1:7101 --cert alice bench live --json

Exit code 1 means that something that is counted did not happen: the figures that depend on it are then null, and
`void` gives the reason.")]
pub(super) struct Args {
    /// Writes a second, at most 20.
    #[arg(long, default_value_t = 2, value_name = "N")]
    rate: usize,
    /// How long to write, at most 300.
    #[arg(long, default_value_t = 5, value_name = "S")]
    seconds: u64,
    /// Bytes of each value, at most 4096.
    #[arg(long, default_value_t = 100, value_name = "B")]
    value_bytes: usize,
    /// Seconds that the last write may take to be everywhere, at most 120.
    #[arg(long, default_value_t = 15, value_name = "S")]
    timeout: u64,
    /// How many nodes of each datacenter are called, at most 16.
    #[arg(long, default_value_t = 3, value_name = "N")]
    per_datacenter: usize,
    /// Calls to each of them, at most 200.
    #[arg(long, default_value_t = 20, value_name = "N")]
    calls: usize,
    /// Bytes that are sent to all of them together, at most 268435456.
    #[arg(long, default_value_t = 4 << 20, value_name = "B")]
    bytes: usize,
    /// Bytes that are sent in a second on average, at most 67108864.
    #[arg(long, default_value_t = 4 << 20, value_name = "B")]
    bytes_per_second: usize,
    /// Draws which part of the writes had spread after which time.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn check(&self) -> Result<(), CliError> {
        in_range("rate", self.rate, 1, RATE_MAX)?;
        seconds_in_range("seconds", self.seconds, 1)?;
        in_range("seconds", self.seconds, 1, SECONDS_MAX)?;
        in_range("value-bytes", self.value_bytes, NUMBER_DIGITS, VALUE_BYTES_MAX)?;
        in_range("timeout", self.timeout, 1, TIMEOUT_MAX)?;
        in_range("per-datacenter", self.per_datacenter, 1, PER_DATACENTER_MAX)?;
        in_range("calls", self.calls, 1, CALLS_MAX)?;
        in_range("bytes", self.bytes, 1, BYTES_MAX)?;
        in_range("bytes-per-second", self.bytes_per_second, PROBE_BYTES_MAX, BYTES_PER_SECOND_MAX)
    }

    const fn writes(&self) -> usize {
        self.rate * self.seconds as usize
    }
}

/// Measures, deletes its keys, and prints the result.
///
/// # Errors
/// Exit 2 for arguments out of range and for a client without role admin; 1 if the measurement is void; 4 if the agent
/// has ended; 130 after Ctrl-C.
pub(super) fn run(agent: &Target, args: &Args) -> Result<(), CliError> {
    args.check()?;
    let nodes = Nodes::of(agent, args.per_datacenter)?;
    let keys = Arc::new(Keys::new(agent, args));
    let measured = until_a_signal(agent, args, nodes, &keys);
    let left = keys.clean();
    let Measured { mut out, spread } = match (measured, left) {
        (Ok(measured), Ok(())) => measured,
        (Ok(_), Err(error)) => return Err(error),
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(left)) => {
            return Err(CliError::new(error.exit(), format!("{error}; {left}")));
        }
    };
    out.insert("keys_left".into(), 0.into());
    out.entry("void").or_insert(Value::Null);
    if args.json {
        output::json(&Value::Object(out.clone()))?;
    } else {
        table::print(&out)?;
    }
    if let Some(file) = &args.svg {
        spread.chart().write_svg(file)?;
    }
    Faults::check(&out)
}

/// A measurement that has ended.
struct Measured {
    out: Report,
    spread: Spread,
}

/// Measures in a thread of its own, since each request blocks; a signal does not wait for it.
fn until_a_signal(
    agent: &Target,
    args: &Args,
    nodes: Nodes,
    keys: &Arc<Keys>,
) -> Result<Measured, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    let (agent, args, keys) = (agent.clone(), args.clone(), Arc::clone(keys));
    let work = move || {
        let _ = done.send(measure(&agent, &args, nodes, &keys));
    };
    runtime.block_on(async {
        // Before anything is written: from here on no signal ends the program without the keys being deleted.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        thread::Builder::new().name("bench live".to_owned()).spawn(work)?;
        let interrupted = || Err(CliError::new(Exit::Interrupted, "ended before it had measured all"));
        tokio::select! {
            ended = ended => ended.unwrap_or_else(|_| Err(CliError::failed("the measurement broke off"))),
            _ = interrupt.recv() => interrupted(),
            _ = terminate.recv() => interrupted(),
            _ = hangup.recv() => interrupted(),
        }
    })
}

fn measure(agent: &Target, args: &Args, nodes: Nodes, keys: &Keys) -> Result<Measured, CliError> {
    let mut out = Report::new();
    out.insert("scenario".into(), "live".into());
    out.insert("node".into(), nodes.own.to_string().into());
    out.insert("rate".into(), args.rate.into());
    out.insert("seconds".into(), args.seconds.into());
    out.insert("value_bytes".into(), args.value_bytes.into());
    let written = writes::write(agent, args, &nodes, keys)?;
    // Nodes that were lost meanwhile are named and not called; the spread is void.
    let nodes = nodes.again(agent, args.per_datacenter)?;
    out.insert("nodes".into(), nodes.by_datacenter());
    out.insert("left_out".into(), json!(nodes.left_out));
    let spread = Spread::of(&nodes, &written);
    spread.report(agent, &nodes, keys, args, &mut out)?;
    out.insert("rtt_ms".into(), paths::round_trips(agent, &nodes)?);
    calls::latency(agent, args, &nodes, &mut out)?;
    calls::throughput(agent, args, &nodes, &mut out)?;
    Ok(Measured { out, spread })
}

/// The content of a lock, whose holder may have panicked: every state of it is sound.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a second: each is a request with a connection of its own.
const RATE_MAX: usize = 20;
const SECONDS_MAX: u64 = 300;
const VALUE_BYTES_MAX: usize = 4 << 10;
const TIMEOUT_MAX: u64 = 120;
/// Nodes of one datacenter, and of all, that are called.
const PER_DATACENTER_MAX: usize = 16;
const CALLED_MAX: usize = 64;
const CALLS_MAX: usize = 200;
/// Bytes to all nodes together, and in a second.
const BYTES_MAX: usize = 256 << 20;
const BYTES_PER_SECOND_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn refuses_what_is_out_of_its_limits() {
        let check = |line: &str| Line::try_parse_from(line.split(' ')).unwrap().args.check();
        for line in [
            "live --rate 0",
            "live --rate 21",
            "live --seconds 0",
            "live --seconds 301",
            "live --value-bytes 15",
            "live --value-bytes 4097",
            "live --timeout 0",
            "live --per-datacenter 0",
            "live --per-datacenter 17",
            "live --calls 0",
            "live --calls 201",
            "live --bytes 0",
            "live --bytes 268435457",
            "live --bytes-per-second 1",
            "live --bytes-per-second 67108865",
        ] {
            let error = check(line).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{line}");
            assert!(error.to_string().contains("is refused"), "{line}: {error}");
        }
        check("live --rate 20 --seconds 300").unwrap();
    }
}
