//! `behind` and `set --wait`: how far the writes of the agent's node have spread.

use std::{fmt, str::FromStr, time::Duration};

use gossipmonger::{
    Audience, Foreign, Propagation,
    protocol::id::{Datacenter, NodeId, Version},
};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// Show which nodes do not have the last version of this node yet, and how many versions each lacks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a behind
  gossipmonger --dir a behind --all --json

It asks all agents, 64 at once, each for at most three seconds. Of programs that are nodes but no agents it is
only known whether they have the version.")]
pub(crate) struct Behind {
    /// Also the nodes that have it.
    #[arg(long)]
    all: bool,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// How far one node has the map of the agent's own node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BehindRow {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// The last version of the agent's node when the others were asked.
    pub(crate) last: Version,
    /// The version that the node has of the present generation; `None`: it has not said so.
    pub(crate) version: Option<Version>,
    /// How many versions it lacks; `None`: it has not said so.
    pub(crate) behind: Option<u64>,
    /// Whether it has the last version; `None`: it did not answer at all.
    pub(crate) has: Option<bool>,
    /// Why it has not said which version it has.
    pub(crate) problem: Option<Foreign>,
}

/// How many nodes must have a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Wait {
    /// More than half of all known nodes that have not left.
    Quorum,
    /// All live nodes.
    All,
    /// So many; the node that writes counts.
    Nodes(usize),
}

/// How far a write has spread.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpreadView {
    pub(crate) version: Version,
    /// How many nodes have it, including the agent's own.
    pub(crate) have: usize,
    /// How many were asked and lack it, and names of some of them.
    pub(crate) behind: usize,
    pub(crate) names: Vec<NodeId>,
    /// How many live nodes did not answer.
    pub(crate) unreached: usize,
}

impl SpreadView {
    pub(crate) fn new(version: Version, reached: Propagation) -> Self {
        let Propagation { have, behind, names, unreached, .. } = reached;
        Self { version, have, behind, names, unreached }
    }
}

/// Waits until so many nodes have a version.
pub(crate) fn wait(
    agent: &Target,
    version: Version,
    wait: Wait,
    within: Duration,
) -> Result<SpreadView, CliError> {
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let waited = client::call(agent, Request::Await { version, wait, within_ms });
    waited.map_err(|error: CliError| {
        CliError::new(error.exit(), format!("the key is written, as version {version}; {error}"))
    })
}

pub(crate) fn behind(agent: &Target, args: &Behind) -> Result<(), CliError> {
    let rows: Vec<BehindRow> = client::list(agent, Request::Behind)?;
    let wanted = |row: &&BehindRow| args.all || row.has != Some(true);
    let shown: Vec<_> = rows.iter().filter(wanted).collect();
    if args.json {
        return output::json(&shown);
    }
    if shown.is_empty() {
        let last = rows.first().map_or_else(String::new, |row| row.last.to_string());
        return output::line(&format!("all {} nodes have version {last}", rows.len()));
    }
    let shown: Vec<_> = shown.into_iter().map(BehindRow::row).collect();
    output::table(["NODE", "DATACENTER", "HAS", "VERSION", "OF", "BEHIND", "NO ANSWER"], &shown)
}

impl BehindRow {
    fn row(&self) -> [String; 7] {
        let dash = || "-".to_owned();
        let has = match self.has {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        [
            self.node.to_string(),
            self.datacenter.to_string(),
            has.to_owned(),
            self.version.map_or_else(dash, |version| version.to_string()),
            self.last.to_string(),
            self.behind.map_or_else(|| "?".to_owned(), |behind| behind.to_string()),
            output::or_dash(self.problem.as_ref()),
        ]
    }
}

impl From<Wait> for Audience {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Quorum => Self::Quorum,
            Wait::All => Self::All,
            Wait::Nodes(nodes) => Self::AtLeast(nodes),
        }
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("quorum", _) => Ok(Self::Quorum),
            ("all", _) => Ok(Self::All),
            (_, Ok(nodes @ 1..)) => Ok(Self::Nodes(nodes)),
            _ => Err(format!(
                "{text:?} is no number of nodes: say quorum, all, or a number from 1 on (this node counts)"
            )),
        }
    }
}

impl TryFrom<String> for Wait {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Wait> for String {
    fn from(wait: Wait) -> Self {
        wait.to_string()
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum => f.write_str("quorum"),
            Self::All => f.write_str("all"),
            Self::Nodes(nodes) => nodes.fmt(f),
        }
    }
}

/// The longest wait: the program waits a minute for an answer of its agent.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_number_of_nodes() {
        for text in ["0", "-1", "most", "", "99999999999999999999999"] {
            assert!(text.parse::<Wait>().is_err(), "{text}");
        }
        for (text, wait) in [("quorum", Wait::Quorum), ("all", Wait::All), ("3", Wait::Nodes(3))] {
            assert_eq!(text.parse(), Ok(wait));
            assert_eq!(serde_json::to_string(&wait).unwrap(), format!("{text:?}"));
        }
    }
}
