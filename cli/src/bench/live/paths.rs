//! Round trips to each datacenter, as open connections measure them.

use gossipmonger::protocol::id::Datacenter;
use serde_json::Value;

use super::nodes::Nodes;
use crate::{
    admin::Request,
    bench::statistics::quantiles_to,
    client,
    error::CliError,
    paths::{PathView, ReachView},
    remote::Target,
};

/// By datacenter: the round trips of this agent's connections; where it has none, those of all nodes of its datacenter.
pub(super) fn round_trips(agent: &Target, nodes: &Nodes) -> Result<Value, CliError> {
    let own: Vec<PathView> = client::list(agent, Request::Paths)?;
    let all: Vec<ReachView> = client::list(agent, Request::Reachability)?;
    let near =
        all.iter().filter(|member| Some(&member.datacenter) == nodes.own_datacenter.as_ref());
    let near: Vec<_> = near.flat_map(|member| &member.paths).collect();
    let to = |datacenter: &Datacenter| {
        let (by, times) = match times(own.iter(), nodes, datacenter) {
            times if !times.is_empty() => ("this node", times),
            _ => ("its datacenter", times(near.iter().copied(), nodes, datacenter)),
        };
        let mut figures = quantiles_to(times, 3);
        if let Value::Object(figures) = &mut figures {
            figures.insert("by".into(), by.into());
        }
        (datacenter.to_string(), figures)
    };
    Ok(nodes.datacenters.iter().map(to).collect())
}

/// Only of paths to counted nodes: the connection with a dead one stays open for a while.
fn times<'a>(
    paths: impl Iterator<Item = &'a PathView>,
    nodes: &Nodes,
    to: &Datacenter,
) -> Vec<f64> {
    let counted = paths.filter(|path| nodes.live.get(&path.node) == Some(to));
    counted.filter_map(|path| path.rtt_ms).collect()
}
