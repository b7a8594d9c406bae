//! `keys`: which keys there are, without their values.

use gossipmonger::protocol::id::{NodeId, Version};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// List the keys of all nodes, or of one, without their values.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a keys
  gossipmonger --dir a keys --node b service/")]
pub(crate) struct Keys {
    /// Only keys that begin with this. Those that begin with ~ belong to the program, and are listed only then.
    #[arg(default_value = "")]
    prefix: String,
    /// Only those of this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// A key of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyView {
    pub(crate) node: NodeId,
    pub(crate) key: String,
    /// Of the write that set it.
    pub(crate) version: Version,
    /// The length of its value.
    pub(crate) bytes: usize,
}

pub(crate) fn keys(agent: &Target, args: Keys) -> Result<(), CliError> {
    let request = Request::Keys { node: args.node, prefix: args.prefix };
    let keys: Vec<KeyView> = client::list(agent, request)?;
    if args.json {
        return output::json(&keys);
    }
    let row = |key: &KeyView| {
        let (version, bytes) = (key.version.to_string(), key.bytes.to_string());
        [key.node.to_string(), output::cell(&key.key), version, bytes]
    };
    output::table(["NODE", "KEY", "VERSION", "BYTES"], &keys.iter().map(row).collect::<Vec<_>>())
}
