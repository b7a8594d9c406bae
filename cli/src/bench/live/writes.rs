//! Writes at a rate, and the answers of the cluster to the question how far they have got.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use gossipmonger::protocol::id::NodeId;

use super::{Args, keys::Keys, nodes::Nodes};
use crate::{
    admin::{Request, Written},
    client,
    error::CliError,
    remote::Target,
    spread::BehindRow,
    stopwatch::Stopwatch,
};

/// What was written, and what the nodes have said.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) writes: Vec<Write>,
    pub(super) answers: Vec<Answer>,
}

/// A write: its version, and when it was asked for, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) version: u64,
    pub(super) at_ms: f64,
}

/// When an answer had arrived, in milliseconds, and up to which version each node has the map.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) at_ms: f64,
    pub(super) has: Vec<(NodeId, u64)>,
}

/// Writes at the rate, and asks all nodes until each counted one has the last write or the time is over.
pub(super) fn write(
    agent: &Target,
    args: &Args,
    nodes: &Nodes,
    keys: &Keys,
) -> Result<Log, CliError> {
    let watch = Stopwatch::start();
    let (done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = write_all(args, keys, &watch, &done);
            failed.store(written.is_err(), Ordering::Release);
            written
        });
        let answers = ask(agent, args, nodes, &watch, &done, &failed);
        // The writer's failure comes first: it says which role is missing.
        let writes =
            writer.join().unwrap_or_else(|_| Err(CliError::failed("the writer broke off")));
        Ok(Log { writes: writes?, answers: answers? })
    })
}

fn write_all(
    args: &Args,
    keys: &Keys,
    watch: &Stopwatch,
    done: &AtomicUsize,
) -> Result<Vec<Write>, CliError> {
    let mut writes = Vec::with_capacity(args.writes());
    for index in 0..args.writes() {
        let due = Duration::from_secs_f64(index as f64 / args.rate as f64);
        thread::sleep(due.saturating_sub(watch.elapsed()));
        let at_ms = milliseconds(watch);
        let Written { version } = keys.write(index)?;
        writes.push(Write { version: version.0, at_ms });
        done.store(version.0 as usize, Ordering::Release);
        if index + 1 == args.writes() {
            done.store(version.0 as usize | LAST, Ordering::Release);
        }
    }
    Ok(writes)
}

fn ask(
    agent: &Target,
    args: &Args,
    nodes: &Nodes,
    watch: &Stopwatch,
    done: &AtomicUsize,
    failed: &AtomicBool,
) -> Result<Vec<Answer>, CliError> {
    let mut answers = Vec::new();
    let mut last_since: Option<Duration> = None;
    while !failed.load(Ordering::Acquire) {
        // Before the question: what is written meanwhile needs another one.
        let done = done.load(Ordering::Acquire);
        if done == 0 {
            thread::sleep(PAUSE);
            continue;
        }
        let rows: Vec<BehindRow> = client::list(agent, Request::Behind)?;
        let answer = Answer::of(milliseconds(watch), rows);
        let last = done & LAST != 0;
        let everywhere = answer.is_everywhere(nodes, (done & !LAST) as u64);
        answers.push(answer);
        if last {
            let since = *last_since.get_or_insert_with(|| watch.elapsed());
            let over = watch.elapsed().saturating_sub(since) > Duration::from_secs(args.timeout);
            if everywhere || over {
                break;
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(answers)
}

impl Answer {
    fn of(at_ms: f64, rows: Vec<BehindRow>) -> Self {
        let has = rows.into_iter().filter_map(|row| {
            // A program that is no agent says only that it has the last version.
            let version = row.version.or_else(|| (row.has == Some(true)).then_some(row.last))?;
            Some((row.node, version.0))
        });
        Self { at_ms, has: has.collect() }
    }

    /// Whether each counted node has this version.
    fn is_everywhere(&self, nodes: &Nodes, version: u64) -> bool {
        let has = |node| self.has.iter().any(|(other, has)| other == node && *has >= version);
        nodes.live.keys().all(has)
    }
}

fn milliseconds(watch: &Stopwatch) -> f64 {
    watch.seconds() * 1_000.0
}

/// Between two questions to all nodes.
const PAUSE: Duration = Duration::from_millis(10);
/// Set beside the version of the last write.
const LAST: usize = 1 << 63;
