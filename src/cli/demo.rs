//! `gossipmonger demo`: a cluster of five nodes on loopback, to look at.

use super::error::CliError;

/// The arguments of `demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<(), CliError> {
    Err(CliError::failed("the demo is not there yet"))
}
