//! `config`: the configuration that is in force, and where each value comes from.

use gossipmonger::Foreign;
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// Show the configuration of this agent as it is in force, and where each value comes from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a config
  gossipmonger --dir a config quic --json
  gossipmonger --dir a config --set")]
pub(crate) struct ConfigArgs {
    /// Only this key (`gossip_interval`), or this table (`quic`).
    key: Option<String>,
    /// Only what is set somewhere: not the defaults.
    #[arg(long)]
    set: bool,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigRow {
    /// As in `gossipmonger.toml`; `TABLE.KEY` in a table.
    pub(crate) key: Foreign,
    /// The value in force; empty if there is none.
    pub(crate) value: Foreign,
    pub(crate) origin: Origin,
    /// The file, the variable, the flag or the preset.
    pub(crate) place: Option<Foreign>,
    /// Files or environment have another value by now, which is in force after a restart.
    pub(crate) pending: bool,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    Default,
    Preset,
    File,
    Environment,
    Flag,
    /// The node's certificate proves it.
    Certificate,
    /// Set while the agent ran, and kept by the store.
    Store,
}

pub(crate) fn config(agent: &Target, args: &ConfigArgs) -> Result<(), CliError> {
    let rows: Vec<ConfigRow> = client::list(agent, Request::Config)?;
    let rows: Vec<_> = rows.into_iter().filter(|row| args.wants(row)).collect();
    if let (Some(key), true) = (&args.key, rows.is_empty() && !args.set) {
        let key = Foreign::from(key.as_str());
        return Err(CliError::not_found(format!("there is no key {key} in the configuration")));
    }
    if args.json {
        return output::json(&rows);
    }
    let rows: Vec<_> = rows.iter().map(ConfigRow::row).collect();
    output::table(["KEY", "VALUE", "FROM", "NOTE"], &rows)
}

impl ConfigArgs {
    fn wants(&self, row: &ConfigRow) -> bool {
        let name = row.key.to_string();
        let is_it = |key: &String| {
            name == *key
                || name.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        self.key.as_ref().is_none_or(is_it) && (!self.set || row.origin != Origin::Default)
    }
}

impl ConfigRow {
    fn row(&self) -> [String; 4] {
        let from = match self.origin {
            Origin::Default => "default",
            Origin::Preset => "preset",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::Certificate => "certificate",
            Origin::Store => "store",
        };
        let place = self.place.as_ref().map_or_else(String::new, |place| format!(" {place}"));
        let note = if self.pending { "changed, needs a restart" } else { "" };
        let value = output::cell(&self.value.to_string());
        [self.key.to_string(), value, format!("{from}{place}"), note.to_owned()]
    }
}
