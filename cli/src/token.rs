//! `token create`, `token list` and `token revoke`: requests to an agent that is an issuer.

use std::{path::Path, time::Duration};

use gossipmonger::protocol::id::{Datacenter, NodeId};

use super::{
    admin::{Request, TokenMade, TokenRow, Tokens},
    certificates::new_name,
    client,
    error::CliError,
    output,
};

/// Make, list and revoke the tokens by which machines join. For an agent that runs with --issuer.
#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a token; it is the last line that is printed.
    Create(Create),
    /// List the tokens, without their secrets.
    List,
    /// Revoke a token: nobody can join with it any more.
    Revoke {
        /// As `token list` shows it.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The only node that it lets in; it is good once then.
    #[arg(long, value_name = "NAME", value_parser = new_name::<NodeId>)]
    node: Option<NodeId>,
    /// The only datacenter that it lets a node into.
    #[arg(long, value_name = "NAME", value_parser = new_name::<Datacenter>)]
    datacenter: Option<Datacenter>,
    /// How long it is good.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    ttl: Duration,
    /// How many nodes it lets in.
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
}

pub(crate) fn token(dir: &Path, args: Token) -> Result<(), CliError> {
    match args.command {
        TokenCommand::Create(create) => made(dir, create, args.json),
        TokenCommand::List => list(dir, args.json),
        TokenCommand::Revoke { id } => {
            let row: TokenRow = client::call(dir, Request::RevokeToken { id })?;
            if args.json {
                return output::json(&row);
            }
            output::line(&format!("revoked {}; who has joined with it stays", row.id))
        }
    }
}

fn made(dir: &Path, args: Create, json: bool) -> Result<(), CliError> {
    let Create { node, datacenter, ttl, uses } = args;
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let request = Request::CreateToken { node, datacenter, ttl_ms, uses };
    let made: TokenMade = client::call(dir, request)?;
    if json {
        return output::json(&made);
    }
    let row = &made.row;
    let times = if row.uses == 1 { "once".to_owned() } else { format!("{} times", row.uses) };
    output::lines(&format!(
        "token {} for {}, good {times}, until {}\nuse it with: gossipmonger join TOKEN SEED-HOST --dir DIR",
        row.id,
        whom(row),
        row.expires
    ))?;
    output::line(&made.token)
}

fn list(dir: &Path, json: bool) -> Result<(), CliError> {
    let Tokens { tokens } = client::call(dir, Request::Tokens)?;
    if json {
        return output::json(&tokens);
    }
    let rows = tokens.iter().map(|row| {
        let by: Vec<_> = row.by.iter().map(NodeId::as_str).collect();
        let by = if by.is_empty() { "-".to_owned() } else { output::cell(&by.join(",")) };
        let used = format!("{}/{}", row.used, row.uses);
        [row.id.to_string(), row.state.to_string(), whom(row), used, row.expires.to_string(), by]
    });
    let header = ["ID", "STATE", "FOR", "USED", "EXPIRES", "BY"];
    output::table(header, &rows.collect::<Vec<_>>())
}

fn whom(row: &TokenRow) -> String {
    match (&row.node, &row.datacenter) {
        (None, None) => "any node".to_owned(),
        (Some(node), None) => format!("node {node}"),
        (None, Some(datacenter)) => format!("nodes of {datacenter}"),
        (Some(node), Some(datacenter)) => format!("node {node} of {datacenter}"),
    }
}
