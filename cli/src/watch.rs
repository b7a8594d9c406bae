//! `watch` and `events`: prints events, one a line, until the agent ends or the reader stops.

use super::{
    admin::{Happening, Request},
    client,
    error::CliError,
    keys::{shown, shown_of},
    output,
    remote::Target,
};

/// Print changes of all nodes' keys as they arrive.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Only keys that begin with this.
    #[arg(default_value = "")]
    prefix: String,
    /// Begins with the keys that are there already. A change meanwhile may be told twice.
    #[arg(long)]
    existing: bool,
    /// Prints a line of JSON per change.
    #[arg(long)]
    json: bool,
}

/// Print what happens: nodes that come and go, keys that change, problems.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Also what passes between nodes: digests and deltas.
    #[arg(long)]
    protocol: bool,
    /// Only what operators tell by `event` and `query`.
    #[arg(long, conflicts_with = "protocol")]
    user: bool,
    /// Prints a line of JSON per event.
    #[arg(long)]
    json: bool,
}

pub(crate) fn watch(agent: &Target, args: Watch) -> Result<(), CliError> {
    let request = Request::Watch { prefix: args.prefix, existing: args.existing };
    output::end_with_the_reader();
    client::watch(agent, request, |happening| print(&happening, args.json))
}

pub(crate) fn events(agent: &Target, args: &Events) -> Result<(), CliError> {
    let request = Request::Events { protocol: args.protocol, user: args.user };
    output::end_with_the_reader();
    client::watch(agent, request, |happening| print(&happening, args.json))
}

fn print(happening: &Happening, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(happening);
    }
    described(happening).map_or(Ok(()), |line| output::line(&line))
}

/// An event for people; `None`: it is not worth a line.
pub(crate) fn described(happening: &Happening) -> Option<String> {
    Some(match happening {
        Happening::Watching => return None,
        Happening::NewPeer { peer } => format!("{peer} is new"),
        Happening::PeerChanged { peer, generation } => {
            format!("{peer} has changed (generation {generation})")
        }
        Happening::PeerLive { peer, .. } => format!("{peer} is live"),
        Happening::PeerSuspect { peer, phi, blame } => {
            format!("{peer} is suspect (phi {phi:.2}): it {}", blame.explained())
        }
        Happening::PeerDead { peer, phi, blame } => {
            format!("{peer} is dead (phi {phi:.2}): it {}", blame.explained())
        }
        Happening::PeerLeft { peer, .. } => format!("{peer} has left"),
        Happening::PeerReturned { peer, sentence, .. } => format!("{peer} {sentence}"),
        Happening::PeerRemoved { peer, by: Some(by) } => {
            format!("{peer} is removed: {by} says that it was removed or forgotten there")
        }
        Happening::PeerRemoved { peer, by: None } => {
            format!("{peer} is removed, as was asked here")
        }
        Happening::PeerRevoked { peer, cutoff } => {
            format!("{peer} is revoked: its certificates of until {cutoff} are refused")
        }
        Happening::PeerForgotten { peer } => format!("{peer} is forgotten"),
        Happening::DatacenterUnreachable { datacenter } => format!("{datacenter} is unreachable"),
        Happening::DatacenterReachable { datacenter } => format!("{datacenter} is reachable again"),
        Happening::ServiceJoined { peer, service, version } => {
            format!("{peer} offers {service} {version}")
        }
        Happening::ServiceChanged { peer, service, version, draining, suspect, weight } => {
            let drains = if *draining { ", takes no new calls" } else { "" };
            let suspected = if *suspect { ", is suspect" } else { "" };
            format!("{peer} {service} {version}: weight {weight}{drains}{suspected}")
        }
        Happening::ServiceLeft { peer, service, version, sentence, .. } => {
            format!("{peer} does not offer {service} {version} any more: {sentence}")
        }
        Happening::Updated { peer, key, value, .. } => {
            format!("{peer} {} = {}", output::cell(key), shown_of(key, value))
        }
        Happening::Deleted { peer, key, .. } => format!("{peer} {} deleted", output::cell(key)),
        Happening::UserEvent { from, name, value } => {
            format!("event {name} of {from}: {}", shown(value))
        }
        Happening::UserQuery { from, name, value } => {
            format!("query {name} of {from}: {}", shown(value))
        }
        Happening::Error { message } => format!("problem: {}", output::cell(message)),
        Happening::Lagged { missed } => format!("({missed} events missed: read faster)"),
        Happening::DigestSent { peer, nodes } => format!("digest to {peer}: {nodes} nodes"),
        Happening::DigestReceived { peer, nodes } => format!("digest from {peer}: {nodes} nodes"),
        Happening::DeltasSent { peer, nodes, entries } => {
            format!("deltas to {peer}: {entries} entries of {nodes} nodes")
        }
        Happening::DeltasReceived { peer, nodes, entries } => {
            format!("deltas from {peer}: {entries} entries of {nodes} nodes")
        }
        Happening::UnknownPeer { peer } => format!("news of {peer}, whom nobody has introduced"),
    })
}
