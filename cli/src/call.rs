//! `call`: calls a method of a service at one node, bytes in and bytes out.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use gossipmonger::protocol::id::NodeId;
use serde::{Deserialize, Serialize};

use super::{
    admin::{Bytes, Request},
    client,
    error::CliError,
    output,
    remote::Target,
};

/// Call a method of a service at one node: an encoded question in, the encoded answer out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a call b stock/2 1 question.bin > answer.bin
  printf '\\003tea' | gossipmonger --dir a call b stock/2 1 --within 300ms | xxd

The agent calls as the member that it is. Exit code 1 means that the call has failed; the line on standard
error says whether it may have run. 3: the node is not known, or does not offer the service.")]
pub(crate) struct Call {
    /// The node that is called.
    node: NodeId,
    /// The service, as NAME/MAJOR; NAME alone if the node offers one major version of it.
    service: String,
    /// The number of the method.
    number: u16,
    /// The file with the encoded question; standard input if there is none.
    file: Option<PathBuf>,
    /// How long the call may take (`300ms`, `5s`), at most 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    within: Duration,
    /// Prints the answer's bytes also to a terminal.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// The encoded answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replied {
    /// The node that has answered.
    pub(crate) node: NodeId,
    #[serde(flatten)]
    pub(crate) answer: Bytes,
}

/// The client waits a minute for an answer of its agent.
pub(crate) const WITHIN_MAX: Duration = Duration::from_secs(30);
/// Longest question or answer, in bytes, so that a client may send it in one line.
pub(crate) const BYTES_MAX: usize = 1 << 20;

pub(crate) fn call(agent: &Target, args: Call) -> Result<(), CliError> {
    if args.within > WITHIN_MAX || args.within.is_zero() {
        return Err(CliError::usage(format!("--within is 1ms to {WITHIN_MAX:?}")));
    }
    let question = match &args.file {
        Some(file) => File::open(file)
            .and_then(read)
            .map_err(|error| CliError::usage(format!("{}: {error}", file.display())))?,
        None => read(io::stdin().lock()).map_err(CliError::usage)?,
    };
    let request = Request::Call {
        node: args.node,
        service: args.service,
        method: args.number,
        question: Bytes::of(&question),
        within_ms: u64::try_from(args.within.as_millis()).unwrap_or(u64::MAX).max(1),
    };
    let replied: Replied = client::call(agent, request)?;
    if args.json {
        return output::json(&replied);
    }
    output::bytes(&replied.answer.into_bytes()?, args.raw)
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BYTES_MAX {
        return Err(io::Error::other(format!("the question is larger than {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
