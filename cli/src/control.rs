//! `leave`, `drain`, `tags` and `reload`: commands that change the node itself.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use super::{
    admin::{Left, Nothing, Reloaded, Request, Tags},
    agent::directory::Lock,
    client,
    error::CliError,
    members::tag,
    output,
    remote::Target,
};

/// Take this node out of the cluster for good and end the agent. It starts again only with --rejoin.
#[derive(Debug, clap::Args)]
pub(crate) struct Leave {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Begin maintenance: callers go to other nodes, until `undrain` or the next start. The node stays a member.
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// End maintenance: callers come back.
#[derive(Debug, clap::Args)]
pub(crate) struct Undrain {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Make the agent read its certificate, roots, tags and log level again, as SIGHUP does.
#[derive(Debug, clap::Args)]
pub(crate) struct Reload {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Show this node's tags, or change them.
#[derive(Debug, clap::Args)]
pub(crate) struct TagsArgs {
    #[command(subcommand)]
    change: Option<Change>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Set tags; the others stay.
    Set {
        /// What to set.
        #[arg(value_name = "NAME=VALUE", value_parser = tag, required = true)]
        tags: Vec<(String, String)>,
    },
    /// Delete tags.
    Delete {
        /// Their names.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

pub(crate) fn leave(agent: &Target, args: &Leave) -> Result<(), CliError> {
    let left: Left = client::call(agent, Request::Leave)?;
    if let Target::Here(dir) = agent {
        await_end(dir);
    }
    if args.json {
        return output::json(&left);
    }
    output::line(&format!("left the cluster; acknowledged by {} of the others", left.acknowledged))
}

pub(crate) fn drain(agent: &Target, args: &Drain) -> Result<(), CliError> {
    maintain(agent, true, args.json)
}

pub(crate) fn undrain(agent: &Target, args: &Undrain) -> Result<(), CliError> {
    maintain(agent, false, args.json)
}

/// For people it prints nothing: success is silent.
fn maintain(agent: &Target, on: bool, json: bool) -> Result<(), CliError> {
    let done: Nothing = client::call(agent, Request::Maintain { on })?;
    if json { output::json(&done) } else { Ok(()) }
}

pub(crate) fn reload(agent: &Target, args: &Reload) -> Result<(), CliError> {
    let reloaded: Reloaded = client::call(agent, Request::Reload)?;
    if args.json {
        return output::json(&reloaded);
    }
    let shown = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    output::pairs(&[
        ("reloaded", shown(&reloaded.applied)),
        ("needs a restart", shown(&reloaded.restart_needed)),
    ])
}

pub(crate) fn tags(agent: &Target, args: TagsArgs) -> Result<(), CliError> {
    let request = match args.change {
        None => Request::Tags,
        Some(Change::Set { tags }) => {
            Request::ChangeTags { set: tags.into_iter().collect(), delete: Vec::new() }
        }
        Some(Change::Delete { names }) => {
            Request::ChangeTags { set: BTreeMap::new(), delete: names }
        }
    };
    let Tags { tags } = client::call(agent, request)?;
    if args.json {
        return output::json(&tags);
    }
    let rows = tags.iter().map(|(name, value)| [output::cell(name), output::cell(value)]);
    output::table(["TAG", "VALUE"], &rows.collect::<Vec<_>>())
}

/// Waits until the agent has released the directory, so that the next one can start at once.
fn await_end(dir: &Path) {
    for _ in 0..END_POLLS {
        if !Lock::is_taken(dir) {
            return;
        }
        thread::sleep(END_POLL);
    }
}

const END_POLL: Duration = Duration::from_millis(20);
/// Ten seconds: more than the node takes to stop.
const END_POLLS: usize = 500;
