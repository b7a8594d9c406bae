//! The `gossipmonger` program; what it does is in `src/cli.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gossipmonger::cli::main()
}
