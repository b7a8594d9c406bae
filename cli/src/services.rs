//! `services`: who offers what.

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, Generation, NodeId},
    service::{Listed, ServiceName},
};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// List what live nodes offer, as this agent sees it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a services
  gossipmonger --dir a services stock --datacenter eu --json")]
pub(crate) struct Services {
    /// Only this service, in all its versions.
    service: Option<ServiceName>,
    /// Only those of this datacenter.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<Datacenter>,
    /// Only those of this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
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

impl Services {
    fn wants(&self, offer: &OfferView) -> bool {
        self.service.as_ref().is_none_or(|service| *service == offer.service)
            && self.datacenter.as_ref().is_none_or(|datacenter| *datacenter == offer.datacenter)
            && self.node.as_ref().is_none_or(|node| *node == offer.node)
    }
}
