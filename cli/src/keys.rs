//! `set`, `delete` and `get`: they write the node's own keys and read the keys of every node.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use gossipmonger::protocol::{
    id::NodeId,
    replica::BATCH_BYTES_MAX,
    service::manifest::{MANIFEST_KEY, Manifest},
};

use super::{
    admin::{Bytes, Entry, Request, Written},
    client,
    error::CliError,
    output,
    remote::Target,
    spread::{self, WAIT_MAX, Wait},
};

/// Set a key of this node; done when the store has it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a set color green
  gossipmonger --dir a set config --file config.json --ttl 1h
  gossipmonger --dir a set color green --wait quorum --within 2s")]
pub(crate) struct Set {
    /// The key.
    key: String,
    /// Its value; `-` reads it from standard input.
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Reads the value from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// The key is gone after this long (`10s`, `5m`).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Waits until so many nodes have it: all live ones, more than half of those known, or N (this one counts).
    #[arg(long, value_name = "quorum|all|N")]
    wait: Option<Wait>,
    /// How long to wait, at most 30s.
    #[arg(long, value_name = "TIME", value_parser = within, default_value = "5s", requires = "wait")]
    within: Duration,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Delete a key of this node.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The key.
    key: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Print the value of a node's key, or list a node's keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir b get a color
  gossipmonger --dir b get a --prefix service/ --json")]
pub(crate) struct Get {
    /// Whose key.
    node: NodeId,
    /// The key; without it all are listed.
    key: Option<String>,
    /// Lists only keys that begin with this.
    #[arg(long, conflicts_with = "key", default_value = "")]
    prefix: String,
    /// Prints the value's bytes and nothing else, not even a newline.
    #[arg(long, requires = "key", conflicts_with = "json")]
    raw: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn set(agent: &Target, args: Set) -> Result<(), CliError> {
    let value = match (&args.file, args.value) {
        (Some(file), _) => {
            let opened = File::open(file).and_then(read);
            opened.map_err(|error| CliError::usage(format!("{}: {error}", file.display())))?
        }
        (None, Some(value)) if value != "-" => value.into_bytes(),
        (None, Some(_)) => read(io::stdin().lock()).map_err(CliError::usage)?,
        (None, None) => {
            return Err(CliError::usage(
                "the value is missing: give it after the key, `-` to read standard input, or --file FILE",
            ));
        }
    };
    let ttl_ms = args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let request = Request::Set { key: args.key, value: Bytes::of(&value), ttl_ms };
    let done: Written = client::call(agent, request)?;
    let Some(wait) = args.wait else { return written(&done, args.json) };
    let spread = spread::wait(agent, done.version, wait, args.within)?;
    if args.json { output::json(&spread) } else { Ok(()) }
}

/// How long to wait.
fn within(text: &str) -> Result<Duration, String> {
    let within = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match within > WAIT_MAX {
        true => Err(format!("at most {} is allowed", humantime::format_duration(WAIT_MAX))),
        false => Ok(within),
    }
}

pub(crate) fn delete(agent: &Target, args: Delete) -> Result<(), CliError> {
    written(&client::call(agent, Request::Delete { key: args.key })?, args.json)
}

pub(crate) fn get(agent: &Target, args: Get) -> Result<(), CliError> {
    let Some(key) = args.key else { return list(agent, args) };
    let entry: Entry = client::call(agent, Request::Get { node: args.node, key })?;
    if args.json {
        return output::json(&entry);
    }
    output::value(&entry.value.into_bytes()?, args.raw)
}

fn list(agent: &Target, args: Get) -> Result<(), CliError> {
    let request = Request::List { node: args.node, prefix: args.prefix };
    let entries: Vec<Entry> = client::list(agent, request)?;
    if args.json {
        return output::json(&entries);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| [output::cell(&entry.key), shown_of(&entry.key, &entry.value)])
        .collect();
    output::table(["KEY", "VALUE"], &rows)
}

/// The value of a key for one cell or line. The list of services is shown by its names.
pub(crate) fn shown_of(key: &str, value: &Bytes) -> String {
    let manifest = || Manifest::decode(&value.clone().into_bytes().ok()?).ok();
    match (key == MANIFEST_KEY).then(manifest).flatten() {
        None => shown(value),
        Some(manifest) => {
            let offers = manifest.offers.iter().map(|o| format!("{} {}", o.name, o.version));
            let draining = if manifest.draining { ", takes no new calls" } else { "" };
            output::cell(&format!("(offers {}{draining})", offers.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// A value for one cell or line.
pub(crate) fn shown(value: &Bytes) -> String {
    match value {
        Bytes::Text(text) => output::cell(text),
        Bytes::Base64(text) => format!("({} bytes)", text.trim_end_matches('=').len() * 3 / 4),
    }
}

/// For people it prints nothing: success is silent.
fn written(written: &Written, json: bool) -> Result<(), CliError> {
    if json { output::json(written) } else { Ok(()) }
}

/// Reads a value, up to the size limit of values.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(io::Error::other(format!("is larger than {BATCH_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
