//! `top`: the cluster as one agent sees it, as a live view of the whole terminal.

mod feed;
mod screen;

use std::time::Duration;

use super::{
    admin::{Info, MemberView, Request},
    client,
    error::{CliError, Exit},
    output,
    paths::PathView,
    remote::Target,
    terminal::{Way, is_interactive},
};
use feed::Feed;
use screen::Screen;

/// Watch the cluster live, as this agent sees it: nodes, round trips, events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a top
  gossipmonger --agent 10.0.0.1:7101 --cert alice top

q quits. If the agent ends, the view waits until it is back. Without a terminal it prints one table. Events need the
role watch.")]
pub(crate) struct Top {
    /// Prints one table, also to a terminal.
    #[arg(long)]
    plain: bool,
}

/// What is shown of the cluster.
#[derive(Debug)]
struct Cluster {
    members: Vec<MemberView>,
    paths: Vec<PathView>,
    /// The level of suspicion at which this agent calls a node dead.
    dead_peer_phi: f64,
}

pub(crate) fn top(agent: &Target, args: &Top) -> Result<(), CliError> {
    // A first answer: without one there is nothing to show, and the reason is for standard error.
    let cluster = Cluster::read(agent)?;
    if args.plain || !is_interactive() {
        return plain(&cluster);
    }
    let mut feed = Feed::start(agent, cluster);
    let mut screen = Screen::open()?;
    loop {
        feed.take();
        screen.draw(&feed)?;
        match screen.key(TICK)? {
            Some(Way::Quit) => return Ok(()),
            Some(Way::Interrupt) => return Err(CliError::new(Exit::Interrupted, "interrupted")),
            None => {}
        }
    }
}

impl Cluster {
    fn read(agent: &Target) -> Result<Self, CliError> {
        let info: Info = client::call(agent, Request::Info)?;
        let (members, paths) =
            (client::list(agent, Request::Members)?, client::list(agent, Request::Paths)?);
        Ok(Self { members, paths, dead_peer_phi: info.dead_peer_phi })
    }

    /// The round trip to a node, if the agent has a connection with it.
    fn rtt(&self, member: &MemberView) -> String {
        let path = self.paths.iter().find(|path| path.node == member.node && path.is_heard());
        let rtt = path.and_then(|path| path.rtt_ms);
        rtt.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
    }
}

fn plain(cluster: &Cluster) -> Result<(), CliError> {
    let rows = cluster.members.iter().map(|member| {
        [
            format!("{}{}", member.node, if member.local { "*" } else { "" }),
            member.datacenter.to_string(),
            member.state.as_str().to_owned(),
            member.phi.map_or_else(|| "-".to_owned(), |phi| format!("{phi:.1}")),
            cluster.rtt(member),
            member.version.to_string(),
            member.keys.to_string(),
            output::or_dash(member.address.as_ref()),
        ]
    });
    output::table(
        ["NODE", "DATACENTER", "STATE", "PHI", "RTT", "VERSION", "KEYS", "ADDRESS"],
        &rows.collect::<Vec<_>>(),
    )
}

/// How long the view waits for a key before it draws again.
const TICK: Duration = Duration::from_millis(250);
