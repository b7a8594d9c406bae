//! Which nodes of the cluster count, and which are called.

use std::collections::{BTreeMap, BTreeSet};

use gossipmonger::protocol::id::{Datacenter, NodeId};
use serde::Serialize;
use serde_json::{Value, json};

use super::CALLED_MAX;
use crate::{
    admin::{MemberView, Request, State},
    client,
    error::CliError,
    remote::Target,
    services::OfferView,
};

/// The nodes of the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    pub(super) own: String,
    /// All nodes that are live or suspect, but the agent's own.
    pub(super) live: BTreeMap<NodeId, Datacenter>,
    /// Those of them that are called.
    pub(super) called: BTreeMap<NodeId, Datacenter>,
    /// All datacenters with a node that has not left.
    pub(super) datacenters: BTreeSet<Datacenter>,
    pub(super) own_datacenter: Option<Datacenter>,
    /// All nodes that have not left: more than half of them are a quorum.
    pub(super) known: usize,
    pub(super) left_out: Vec<LeftOut>,
    /// Those that were counted at the beginning, and are not any more.
    pub(super) lost: Vec<NodeId>,
}

/// A node that is not counted, or not called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) node: NodeId,
    pub(super) datacenter: Datacenter,
    pub(super) why: String,
}

impl Nodes {
    /// The nodes as the agent sees them now.
    ///
    /// # Errors
    /// No other node is live: there is nothing to measure.
    pub(super) fn of(agent: &Target, per_datacenter: usize) -> Result<Self, CliError> {
        let members: Vec<MemberView> = client::list(agent, Request::Members)?;
        let offers: Vec<OfferView> = client::list(agent, Request::Services)?;
        let agents: BTreeSet<_> = offers.into_iter().filter_map(OfferView::probed).collect();
        let nodes = Self::among(members, &agents, per_datacenter);
        if nodes.live.is_empty() {
            let named: Vec<_> = nodes.left_out.iter().map(LeftOut::sentence).collect();
            return Err(CliError::failed(format!(
                "no other node is live, so there is nothing to measure{}",
                if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
            )));
        }
        Ok(nodes)
    }

    /// The nodes at the end: those that are live now and were so before.
    pub(super) fn again(&self, agent: &Target, per_datacenter: usize) -> Result<Self, CliError> {
        let mut nodes = Self::of(agent, per_datacenter)?;
        let news: Vec<_> =
            nodes.live.iter().filter(|(node, _)| !self.live.contains_key(*node)).collect();
        let why = "not counted, it was not live at the beginning".to_owned();
        let news: Vec<_> = news
            .into_iter()
            .map(|(node, datacenter)| LeftOut {
                node: node.clone(),
                datacenter: datacenter.clone(),
                why: why.clone(),
            })
            .collect();
        for new in &news {
            nodes.live.remove(&new.node);
            nodes.called.remove(&new.node);
        }
        nodes.left_out.extend(news);
        nodes.known = self.known;
        nodes.lost =
            self.live.keys().filter(|node| !nodes.live.contains_key(*node)).cloned().collect();
        Ok(nodes)
    }

    fn among(members: Vec<MemberView>, agents: &BTreeSet<NodeId>, per_datacenter: usize) -> Self {
        let mut nodes = Self::default();
        let mut called: BTreeMap<Datacenter, usize> = BTreeMap::new();
        for member in members.into_iter().filter(|member| member.state != State::Left) {
            let MemberView { node, datacenter, state, local, .. } = member;
            nodes.known += 1;
            nodes.datacenters.insert(datacenter.clone());
            if local {
                nodes.own = node.to_string();
                nodes.own_datacenter = Some(datacenter);
                continue;
            }
            // A suspect is one that the others still send to and ask.
            if !matches!(state, State::Live | State::Suspect) {
                let why = format!("not counted, this agent sees it {}", state.as_str());
                nodes.left_out.push(LeftOut { node, datacenter, why });
                continue;
            }
            let of_datacenter = called.entry(datacenter.clone()).or_default();
            nodes.live.insert(node.clone(), datacenter.clone());
            if !agents.contains(&node) {
                let why =
                    "not called, it offers no gossipmonger.agent/1.1 (no agent, or an older one)";
                nodes.left_out.push(LeftOut { node, datacenter, why: why.to_owned() });
            } else if *of_datacenter < per_datacenter && nodes.called.len() < CALLED_MAX {
                *of_datacenter += 1;
                nodes.called.insert(node, datacenter);
            }
        }
        nodes
    }

    /// How many nodes have a write once a quorum has it, without the agent's own.
    pub(super) const fn quorum(&self) -> usize {
        self.known / 2
    }

    /// The counted nodes of each datacenter.
    pub(super) fn by_datacenter(&self) -> Value {
        let count = |datacenter: &Datacenter| {
            self.live.values().filter(|other| *other == datacenter).count()
        };
        self.datacenters.iter().map(|name| (name.to_string(), json!(count(name)))).collect()
    }
}

impl LeftOut {
    pub(super) fn sentence(&self) -> String {
        format!("{} ({}): {}", self.node, self.datacenter, self.why)
    }
}
