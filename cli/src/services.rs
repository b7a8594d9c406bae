//! `services`: who offers what.

use gossipmonger::{
    Foreign, Snapshot,
    protocol::id::{Datacenter, Generation, NodeId},
    service::{CallerFigures, Listed, ServiceId, ServiceName},
};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target, why::when};

/// List what live nodes offer, as this agent sees it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a services
  gossipmonger --dir a services stock --datacenter eu --json
  gossipmonger --dir a services --callers stock/1")]
pub(crate) struct Services {
    /// Only this service, in all its versions. Without it the one by which agents ask each other is left out.
    service: Option<ServiceName>,
    /// Only those of this datacenter.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<Datacenter>,
    /// Only those of this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Who calls the services of the agent's own node instead: all of them, or this one.
    #[arg(long, value_name = "NAME/MAJOR", num_args = 0..=1, conflicts_with_all = ["service", "datacenter", "node"])]
    callers: Option<Option<String>>,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// A node or client that calls a service of the agent's node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallerView {
    /// As NAME/MAJOR.
    service: Foreign,
    /// `node NAME` or `client NAME`.
    caller: Foreign,
    /// Calls, casts and streams since the agent began, also refused ones.
    calls: u64,
    /// When the first one came, by RFC 3339.
    first: Foreign,
    first_age_ms: u64,
    /// When the last one came.
    last: Foreign,
    last_age_ms: u64,
}

impl CallerView {
    pub(crate) fn new(snapshot: &Snapshot, figures: CallerFigures) -> Self {
        let (first, first_age_ms) = when(snapshot, figures.first);
        let (last, last_age_ms) = when(snapshot, figures.last);
        Self {
            service: figures.service.to_string().into(),
            caller: figures.caller.into(),
            calls: figures.calls,
            first,
            first_age_ms,
            last,
            last_age_ms,
        }
    }

    fn row(&self) -> [String; 5] {
        [
            self.service.to_string(),
            self.caller.to_string(),
            self.calls.to_string(),
            self.first.to_string(),
            self.last.to_string(),
        ]
    }
}

/// A service as `NAME/MAJOR`.
pub(crate) fn parsed(text: &str) -> Result<ServiceId, CliError> {
    let wrong = || CliError::usage(format!("{text:?} is no service: say NAME/MAJOR, like stock/2"));
    let (name, major) = text.split_once('/').ok_or_else(wrong)?;
    let major = major.parse().map_err(|_| wrong())?;
    Ok(ServiceId { name: ServiceName::new(name).map_err(CliError::usage)?, major })
}

fn callers(agent: &Target, service: Option<String>, json: bool) -> Result<(), CliError> {
    let callers: Vec<CallerView> = client::list(agent, Request::Callers { service })?;
    if json {
        return output::json(&callers);
    }
    let rows: Vec<_> = callers.iter().map(CallerView::row).collect();
    output::table(["SERVICE", "CALLER", "CALLS", "FIRST", "LAST"], &rows)
}

/// One offer of one node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OfferView {
    service: ServiceName,
    /// Major and minor version.
    version: Foreign,
    node: NodeId,
    datacenter: Datacenter,
    generation: Generation,
    /// Counts the registrations of the service by the node in this generation.
    epoch: u32,
    weight: u8,
    /// Whether clients may call it.
    clients: bool,
    /// Whether the node takes no new calls.
    draining: bool,
    /// Whether the agent suspects that the node is dead.
    suspect: bool,
    local: bool,
}

impl OfferView {
    /// The node, if it is an agent that can be called by `bench live`: a program may be a node too, and version 1.0 of
    /// the service lacks the calls.
    pub(crate) fn probed(self) -> Option<NodeId> {
        let version = self.version.to_string();
        let minor = version.strip_prefix("1.").and_then(|minor| minor.parse::<u16>().ok());
        (self.service.as_str() == AGENTS && minor >= Some(1)).then_some(self.node)
    }

    /// `local`: the agent's own node.
    pub(crate) fn new(listed: Listed, local: &NodeId) -> Self {
        Self {
            version: Foreign::from(listed.version.to_string()),
            local: listed.node == *local,
            service: listed.service,
            node: listed.node,
            datacenter: listed.datacenter,
            generation: listed.generation,
            epoch: listed.epoch,
            weight: listed.weight,
            clients: listed.clients,
            draining: listed.draining,
            suspect: listed.suspect,
        }
    }

    fn row(&self) -> [String; 8] {
        let mine = if self.local { "*" } else { "" };
        let state = match (self.suspect, self.draining) {
            (true, true) => "suspect, draining",
            (true, false) => "suspect",
            (false, true) => "draining",
            (false, false) => "ready",
        };
        let callers = if self.clients { "members, clients" } else { "members" };
        [
            self.service.to_string(),
            self.version.to_string(),
            format!("{}{mine}", self.node),
            self.datacenter.to_string(),
            state.to_owned(),
            self.weight.to_string(),
            callers.to_owned(),
            self.epoch.to_string(),
        ]
    }
}

pub(crate) fn services(agent: &Target, args: &Services) -> Result<(), CliError> {
    if let Some(service) = &args.callers {
        return callers(agent, service.clone(), args.json);
    }
    let offers: Vec<OfferView> = client::list(agent, Request::Services)?;
    let offers: Vec<_> = offers.into_iter().filter(|offer| args.wants(offer)).collect();
    if args.json {
        return output::json(&offers);
    }
    let rows: Vec<_> = offers.iter().map(OfferView::row).collect();
    output::table(
        ["SERVICE", "VERSION", "NODE", "DATACENTER", "STATE", "WEIGHT", "CALLERS", "EPOCH"],
        &rows,
    )
}

/// Every agent offers it: in the list it would hide what programs offer.
const AGENTS: &str = "gossipmonger.agent";

impl Services {
    fn wants(&self, offer: &OfferView) -> bool {
        self.service
            .as_ref()
            .map_or_else(|| offer.service.as_str() != AGENTS, |service| *service == offer.service)
            && self.datacenter.as_ref().is_none_or(|datacenter| *datacenter == offer.datacenter)
            && self.node.as_ref().is_none_or(|node| *node == offer.node)
    }
}
