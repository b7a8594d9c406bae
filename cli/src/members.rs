//! `members`, `info` and `remove`: they list the members, describe this node, and make the cluster forget a node.

use std::collections::BTreeMap;

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, NodeId},
};

use super::{
    admin::{BehindView, Info, MemberView, Nothing, Request, State},
    client,
    error::CliError,
    output,
    remote::Target,
};

/// List the nodes of the cluster, as this agent sees them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a members --state live --tag role=db
  gossipmonger --agent 10.0.0.1:7101 --cert alice members --json")]
pub(crate) struct Members {
    /// Only those in this state; may be given several times.
    #[arg(long)]
    state: Vec<State>,
    /// Only those with this tag; may be given several times, all have to fit.
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// Only those of this datacenter.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<Datacenter>,
    /// Only this one.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// Show what this agent is and has counted.
#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Forget a dead, departed or unreachable node and its keys, everywhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The node.
    node: NodeId,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn members(agent: &Target, args: &Members) -> Result<(), CliError> {
    let members: Vec<MemberView> = client::list(agent, Request::Members)?;
    let members: Vec<_> = members.into_iter().filter(|member| args.wants(member)).collect();
    if args.json {
        return output::json(&members);
    }
    let rows: Vec<_> = members.iter().map(row).collect();
    output::table(
        ["NODE", "DATACENTER", "STATE", "PHI", "ADDRESS", "VERSION", "KEYS", "EXPIRES", "TAGS"],
        &rows,
    )?;
    let expiring = members.iter().filter(|member| member.expires_soon).count();
    if expiring == 0 {
        return Ok(());
    }
    output::line(&format!("certificates to be renewed (!): {expiring}"))
}

pub(crate) fn info(agent: &Target, args: &InfoArgs) -> Result<(), CliError> {
    let info: Info = client::call(agent, Request::Info)?;
    if args.json {
        return output::json(&info);
    }
    let members = info.members.iter().map(|(state, number)| format!("{number} {}", state.as_str()));
    let mut pairs = vec![
        ("node", info.node.to_string()),
        ("cluster", info.cluster.to_string()),
        ("datacenter", info.datacenter.to_string()),
        ("addresses", output::joined(&info.addresses)),
        ("generation", info.generation.to_string()),
        ("version", info.version.to_string()),
        ("keys", info.keys.to_string()),
        ("tags", output::tags(&info.tags)),
        ("members", members.collect::<Vec<_>>().join(", ")),
        ("certificate", format!("valid until {}", info.certificate.expires)),
    ];
    pairs
        .extend(info.certificate_problem.map(|problem| ("certificate files", problem.to_string())));
    pairs.extend(
        info.certificate_warning.map(|warning| ("certificate expiry", warning.to_string())),
    );
    let health = match info.health {
        0 => "0 (not delayed)".to_owned(),
        late => format!("{late} (this agent is delayed, and waits longer for others)"),
    };
    pairs.extend([
        ("seeds", if info.seeds.is_empty() { "-".to_owned() } else { info.seeds.join(", ") }),
        ("gossip interval", format!("{} ms", info.gossip_interval_ms)),
        ("dead peer phi", info.dead_peer_phi.to_string()),
        ("health", health),
        ("store", info.store.to_string()),
        ("lost", info.behind.map_or_else(|| "-".to_owned(), BehindView::sentence)),
        ("metrics", output::or_dash(info.metrics.as_ref())),
        ("program", format!("{}, pid {}", info.program, info.pid)),
    ]);
    pairs.extend(info.seed_failures.iter().map(|failure| ("seed failure", failure.sentence())));
    pairs.extend(counts("counters", &info.counters));
    pairs.extend(counts("refusals", &info.refusals));
    output::pairs(&pairs)
}

/// The counters, one a line.
fn counts(title: &'static str, counts: &BTreeMap<String, u64>) -> Vec<(&'static str, String)> {
    let counted = || counts.iter().filter(|(_, times)| **times > 0);
    let width = counted().map(|(_, times)| times.to_string().len()).max().unwrap_or(1);
    let mut lines: Vec<_> =
        counted().map(|(name, times)| ("", format!("{times:width$} {name}"))).collect();
    match lines.first_mut() {
        Some(first) => first.0 = title,
        None => lines.push((title, "-".to_owned())),
    }
    lines
}

pub(crate) fn remove(agent: &Target, args: Remove) -> Result<(), CliError> {
    let done: Nothing = client::call(agent, Request::Remove { node: args.node })?;
    if args.json { output::json(&done) } else { Ok(()) }
}

/// Reads `name=value`.
pub(crate) fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag is NAME=VALUE".to_owned()),
    }
}

impl Members {
    fn wants(&self, member: &MemberView) -> bool {
        (self.state.is_empty() || self.state.contains(&member.state))
            && self.tag.iter().all(|(name, value)| member.tags.get(name) == Some(value))
            && self.datacenter.as_ref().is_none_or(|datacenter| *datacenter == member.datacenter)
            && self.node.as_ref().is_none_or(|node| *node == member.node)
    }
}

/// The level of suspicion; a dash where this agent measures none.
pub(crate) fn suspicion(phi: Option<f64>) -> String {
    phi.map_or_else(|| "-".to_owned(), |phi| format!("{phi:.2}"))
}

/// When its certificate expires, to the day or to the second; marked if it must be renewed soon.
fn expiry(member: &MemberView) -> String {
    let Some(until) = &member.not_after else { return "-".to_owned() };
    match until.unescaped().split_once('T') {
        Some((day, _)) if !member.expires_soon => Foreign::from(day).to_string(),
        _ => format!("{until} !"),
    }
}

fn row(member: &MemberView) -> [String; 9] {
    let mine = if member.local { "*" } else { "" };
    [
        format!("{}{mine}", member.node),
        member.datacenter.to_string(),
        format!("{}{}", member.state.as_str(), if member.draining { ", draining" } else { "" }),
        suspicion(member.phi),
        output::cell(member.address.as_ref().map_or("-", Foreign::unescaped)),
        member.version.to_string(),
        member.keys.to_string(),
        expiry(member),
        output::tags(&member.tags),
    ]
}
