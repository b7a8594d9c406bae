//! `monitor`: prints the log of the agent at any level, until the agent ends or the reader stops.

use clap::builder::PossibleValuesParser;
use gossipmonger::Foreign;
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// Print the log of this agent at another level than its own, as it is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a monitor --level debug

The level of the agent's own log stays as it is. Lines that are not read in time are dropped, and their number is
printed.")]
pub(crate) struct Monitor {
    /// error, warn, info, debug or trace.
    #[arg(long, default_value = "debug", value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]))]
    level: String,
    /// Prints a line of JSON for each line of the log.
    #[arg(long)]
    json: bool,
}

/// A part of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum LogItem {
    /// From here on nothing is missed. Always the first.
    Watching,
    Line {
        line: Foreign,
    },
    /// So many lines were dropped, since the reader was too slow.
    Dropped {
        lines: u64,
    },
}

pub(crate) fn monitor(agent: &Target, args: Monitor) -> Result<(), CliError> {
    let request = Request::Monitor { level: args.level };
    output::end_with_the_reader();
    client::watch(agent, request, |item: LogItem| match item {
        item if args.json => output::json(&item),
        LogItem::Watching => Ok(()),
        LogItem::Line { line } => output::line(&line.to_string()),
        LogItem::Dropped { lines } => {
            output::line(&format!("({lines} lines dropped: read faster)"))
        }
    })
}
