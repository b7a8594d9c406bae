//! `event` and `query`: a message to all agents, and a question to all.

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, NodeId},
};
use serde::{Deserialize, Serialize};

use super::{
    admin::{Bytes, Request},
    client,
    error::CliError,
    output,
    remote::Target,
};

/// Send an event to all agents. Clients that run `events --user` at this moment see it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a event deploy v17
  gossipmonger --dir b events --user --json

Nothing is stored and nothing is executed. The payload has at most 4096 bytes; an agent takes 20 events and
queries of one node in a second. Exit code 1: a live agent did not get it.")]
pub(crate) struct EventArgs {
    /// Its name: letters, digits, and . _ / -
    name: String,
    /// What it carries.
    #[arg(default_value = "", allow_negative_numbers = true)]
    payload: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Ask all agents; each acknowledges, and answers with its tag of this name if it has one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a query rack
  gossipmonger --dir a query ping now --json

Nothing is executed: who reads `events --user` at an agent sees the query. Limits as of `event`.")]
pub(crate) struct Query {
    /// Its name, and that of the tag: letters, digits, and . _ / -
    name: String,
    /// What it carries.
    #[arg(default_value = "", allow_negative_numbers = true)]
    payload: String,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// What became of an event or a query at one agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NoticeView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// Whether the agent has tried: not if the node is dead, or a program that is no agent.
    pub(crate) asked: bool,
    /// How many read `events --user` there; `None`: it did not get there.
    pub(crate) readers: Option<u32>,
    /// Of a query: the node's tag of this name.
    pub(crate) tag: Option<Foreign>,
    /// Why it did not get there.
    pub(crate) problem: Option<Foreign>,
}

pub(crate) fn event(agent: &Target, args: EventArgs) -> Result<(), CliError> {
    let value = Bytes::of(args.payload.as_bytes());
    let told: Vec<NoticeView> = client::list(agent, Request::Event { name: args.name, value })?;
    if args.json {
        output::json(&told)?;
    }
    let missing: Vec<_> = told.iter().filter_map(NoticeView::missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "{} of {} live agents did not get it: {}",
        missing.len(),
        told.iter().filter(|view| view.asked).count(),
        missing.join("; ")
    )))
}

pub(crate) fn query(agent: &Target, args: Query) -> Result<(), CliError> {
    let value = Bytes::of(args.payload.as_bytes());
    let answers: Vec<NoticeView> = client::list(agent, Request::Query { name: args.name, value })?;
    if args.json {
        return output::json(&answers);
    }
    let rows: Vec<_> = answers.iter().map(NoticeView::row).collect();
    output::table(["NODE", "DATACENTER", "ANSWERED", "TAG", "NO ANSWER"], &rows)
}

impl NoticeView {
    fn missing(&self) -> Option<String> {
        let problem = self.problem.as_ref().filter(|_| self.asked)?;
        Some(format!("{} ({problem})", self.node))
    }

    fn row(&self) -> [String; 5] {
        [
            self.node.to_string(),
            self.datacenter.to_string(),
            if self.readers.is_some() { "yes" } else { "no" }.to_owned(),
            self.tag.as_ref().map_or_else(|| "-".to_owned(), |tag| output::cell(&tag.to_string())),
            output::or_dash(self.problem.as_ref()),
        ]
    }
}

/// Whether an event or a query may be sent.
///
/// # Errors
/// Why not.
pub(crate) fn check(name: &str, payload: &[u8]) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        let name = Foreign::from(name).cut(NAME_BYTES_MAX);
        return Err(format!(
            "the name {name:?} is refused: 1 to {NAME_BYTES_MAX} letters, digits, and . _ / - are allowed"
        ));
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        let bytes = payload.len();
        return Err(format!("the payload has {bytes} bytes, {PAYLOAD_BYTES_MAX} are allowed"));
    }
    Ok(())
}

/// The longest name.
const NAME_BYTES_MAX: usize = 64;
/// The longest payload: it goes to all members over the lanes of calls.
const PAYLOAD_BYTES_MAX: usize = 4_096;
