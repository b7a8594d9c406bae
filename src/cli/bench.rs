//! `gossipmonger bench`: how fast this is, by the command line of its peers.

use super::error::CliError;

/// The arguments of `bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<(), CliError> {
    Err(CliError::failed("the benchmarks are not there yet"))
}
