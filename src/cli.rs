//! The `gossipmonger` program: one file a subcommand.
//!
//! It is not part of the library's interface.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod error;
mod stopwatch;
mod throwaway;

use error::{CliError, EXIT_CODES};

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// Cluster membership and shared state over mutually authenticated QUIC.
#[derive(Debug, Parser)]
#[command(name = "gossipmonger", version, after_help = EXIT_CODES)]
struct Cli {
    /// The agent's directory.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster on loopback, to look at.
    Demo(demo::Args),
    /// Measures how fast this is.
    Bench(bench::Args),
}

fn run(cli: Cli) -> Result<(), CliError> {
    let _ = cli.dir;
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
    }
}
