//! `rtt` and `reachability`: round trips, loss, and which nodes hear each other.

use std::{collections::BTreeMap, time::Duration};

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, NodeId},
};
use serde::{Deserialize, Serialize};

use super::{admin::Request, client, error::CliError, output, remote::Target};

/// Show the round trips to the neighbours of this agent, to one node, or between the datacenters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a rtt
  gossipmonger --dir a rtt b
  gossipmonger --dir a rtt --matrix --json

The figures are those of the open QUIC connections; nothing is sent for them. A node that is no neighbour is
called instead (four times, the shortest counts). --matrix asks all agents, 64 at once, and lists those that
did not answer.")]
pub(crate) struct Rtt {
    /// The node; without it all neighbours.
    #[arg(conflicts_with = "matrix")]
    node: Option<NodeId>,
    /// Between the datacenters of the cluster, as the connections of all members measure it.
    #[arg(long)]
    matrix: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Show which node hears which, with the loss of each path, as all members report.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a reachability
  gossipmonger --dir a reachability --node b --paths

It asks all agents, 64 at once, each for at most three seconds. A node hears about ten neighbours, not all
members.")]
pub(crate) struct Reachability {
    /// Only what this node hears.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Prints a line for each path.
    #[arg(long)]
    paths: bool,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

/// The open gossip connection of a node with a neighbour.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PathView {
    /// The neighbour.
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    pub(crate) rtt_ms: Option<f64>,
    /// The part of the sent packets that is lost, since the connection began.
    pub(crate) loss: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// How many bytes may be in flight.
    pub(crate) window: Option<u64>,
    /// `None`: the node does not observe the neighbour.
    pub(crate) phi: Option<f64>,
    /// What the node thinks of the neighbour: the connection with a dead one stays open for a while.
    pub(crate) state: Foreign,
    /// Of paths of the agent itself.
    pub(crate) address: Option<Foreign>,
    /// Whether the agent dialed it; of paths of the agent itself.
    pub(crate) dialed: Option<bool>,
}

/// How far one node is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RttView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// `None`: there is no gossip connection to it.
    pub(crate) path: Option<PathView>,
    /// Then the shortest of so many calls, with the work at both ends.
    pub(crate) call_ms: Option<f64>,
    pub(crate) calls: u32,
}

/// What one member hears.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReachView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    pub(crate) paths: Vec<PathView>,
    /// The members that it does not consider live.
    pub(crate) not_live: Vec<NotLive>,
    /// How many paths and members its answer leaves out.
    pub(crate) omitted: u32,
    /// Why there is no answer.
    pub(crate) problem: Option<Foreign>,
}

/// A member that another one does not consider live.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NotLive {
    pub(crate) node: NodeId,
    pub(crate) state: Foreign,
}

/// The round trips between the datacenters.
#[derive(Debug, Serialize)]
struct Matrix {
    pairs: Vec<Pair>,
    missing: Vec<Missing>,
}

/// The paths from the nodes of one datacenter to those of another.
#[derive(Debug, PartialEq, Serialize)]
struct Pair {
    from: Datacenter,
    to: Datacenter,
    paths: usize,
    least_ms: f64,
    median_ms: f64,
    most_ms: f64,
    loss: f64,
}

/// A member that did not answer.
#[derive(Debug, Serialize)]
struct Missing {
    node: NodeId,
    problem: Foreign,
}

pub(crate) fn rtt(agent: &Target, args: Rtt) -> Result<(), CliError> {
    match args.node {
        _ if args.matrix => matrix(agent, args.json),
        Some(node) => one(agent, node, args.json),
        None => neighbours(agent, args.json),
    }
}

fn neighbours(agent: &Target, json: bool) -> Result<(), CliError> {
    let paths: Vec<PathView> = client::list(agent, Request::Paths)?;
    if json {
        return output::json(&paths);
    }
    let rows: Vec<_> = paths.iter().map(PathView::row).collect();
    output::table(
        ["NODE", "DATACENTER", "STATE", "RTT", "LOSS", "SENT", "LOST", "WINDOW", "ADDRESS"],
        &rows,
    )
}

fn one(agent: &Target, node: NodeId, json: bool) -> Result<(), CliError> {
    let view: RttView = client::call(agent, Request::Rtt { node })?;
    if json {
        return output::json(&view);
    }
    let RttView { node, datacenter, path, call_ms, calls } = view;
    output::line(&match path {
        Some(path) => format!(
            "{node} ({datacenter}): {} by the connection to it, {} of {} packets lost",
            shown_ms(path.rtt_ms),
            path.lost,
            path.sent
        ),
        None => format!(
            "{node} ({datacenter}): no gossip connection to it; {} by the shortest of {calls} calls, with the work \
             at both ends",
            shown_ms(call_ms)
        ),
    })
}

fn matrix(agent: &Target, json: bool) -> Result<(), CliError> {
    let members: Vec<ReachView> = client::list(agent, Request::Reachability)?;
    let matrix = Matrix::of(members);
    if json {
        return output::json(&matrix);
    }
    let rows: Vec<_> = matrix.pairs.iter().map(Pair::row).collect();
    output::table(["FROM", "TO", "PATHS", "LEAST", "MEDIAN", "MOST", "LOSS"], &rows)?;
    for Missing { node, problem } in &matrix.missing {
        output::line(&missing(node, problem))?;
    }
    Ok(())
}

pub(crate) fn reachability(agent: &Target, args: &Reachability) -> Result<(), CliError> {
    let members: Vec<ReachView> = client::list(agent, Request::Reachability)?;
    let wanted = |member: &ReachView| args.node.as_ref().is_none_or(|node| *node == member.node);
    let members: Vec<_> = members.into_iter().filter(wanted).collect();
    if let (Some(node), []) = (&args.node, &members[..]) {
        return Err(CliError::not_found(format!("no node {node} is known that has not left")));
    }
    if args.json {
        return output::json(&members);
    }
    let answered = members.iter().filter(|member| member.problem.is_none());
    if args.paths {
        let rows = answered.flat_map(|member| {
            member.paths.iter().map(|path| {
                let phi = path.phi.map_or_else(|| "-".to_owned(), |phi| phi.to_string());
                let of = (member.node.to_string(), path.node.to_string());
                let state = path.state.to_string();
                [of.0, of.1, state, shown_ms(path.rtt_ms), shown_loss(path.loss), phi]
            })
        });
        output::table(
            ["NODE", "PATH TO", "STATE", "RTT", "LOSS", "PHI"],
            &rows.collect::<Vec<_>>(),
        )?;
    } else {
        let rows: Vec<_> = answered.map(ReachView::row).collect();
        output::table(["NODE", "DATACENTER", "HEARS", "LOSS", "WORST", "NOT LIVE"], &rows)?;
    }
    for member in &members {
        if let Some(problem) = &member.problem {
            output::line(&missing(&member.node, problem))?;
        }
        if member.omitted > 0 {
            output::line(&format!("{}: {} more are left out", member.node, member.omitted))?;
        }
    }
    Ok(())
}

fn missing(node: &NodeId, problem: &Foreign) -> String {
    format!("no answer from {node}: {problem}")
}

impl PathView {
    /// Whether the node hears the neighbour.
    pub(crate) fn is_heard(&self) -> bool {
        matches!(self.state.to_string().as_str(), "live" | "suspect")
    }

    fn row(&self) -> [String; 9] {
        [
            self.node.to_string(),
            self.datacenter.to_string(),
            self.state.to_string(),
            shown_ms(self.rtt_ms),
            shown_loss(self.loss),
            self.sent.to_string(),
            self.lost.to_string(),
            self.window.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            output::or_dash(self.address.as_ref()),
        ]
    }
}

impl ReachView {
    fn row(&self) -> [String; 6] {
        let heard = || self.paths.iter().filter(|path| path.is_heard());
        let (sent, lost) = heard().fold((0, 0), |(s, l), path| (s + path.sent, l + path.lost));
        let lossy = heard().filter(|path| path.lost > 0);
        let worst = lossy.max_by(|one, other| one.loss.total_cmp(&other.loss));
        let worst = worst.map(|path| format!("{} {}", path.node, shown_loss(path.loss)));
        let not_live = self.not_live.iter().map(|peer| format!("{} {}", peer.node, peer.state));
        let not_live = not_live.collect::<Vec<_>>().join(", ");
        [
            self.node.to_string(),
            self.datacenter.to_string(),
            heard().count().to_string(),
            shown_loss(loss(sent, lost)),
            worst.unwrap_or_else(|| "-".to_owned()),
            if not_live.is_empty() { "-".to_owned() } else { output::cell(&not_live) },
        ]
    }
}

impl Matrix {
    fn of(members: Vec<ReachView>) -> Self {
        let mut pairs: BTreeMap<_, (Vec<f64>, u64, u64)> = BTreeMap::new();
        let mut missing = Vec::new();
        for member in members {
            if let Some(problem) = member.problem {
                missing.push(Missing { node: member.node, problem });
            }
            for path in member.paths.into_iter().filter(PathView::is_heard) {
                let Some(rtt) = path.rtt_ms else { continue };
                let pair = (member.datacenter.clone(), path.datacenter);
                let (rtts, sent, lost) = pairs.entry(pair).or_default();
                rtts.push(rtt);
                *sent += path.sent;
                *lost += path.lost;
            }
        }
        let pairs = pairs.into_iter().map(|((from, to), (mut rtts, sent, lost))| {
            rtts.sort_by(f64::total_cmp);
            let (paths, loss) = (rtts.len(), loss(sent, lost));
            let (least_ms, median_ms) = (rtts[0], rtts[paths / 2]);
            Pair { from, to, paths, least_ms, median_ms, most_ms: rtts[paths - 1], loss }
        });
        Self { pairs: pairs.collect(), missing }
    }
}

impl Pair {
    fn row(&self) -> [String; 7] {
        [
            self.from.to_string(),
            self.to.to_string(),
            self.paths.to_string(),
            shown_ms(Some(self.least_ms)),
            shown_ms(Some(self.median_ms)),
            shown_ms(Some(self.most_ms)),
            shown_loss(self.loss),
        ]
    }
}

/// The part of the packets that is lost.
pub(crate) fn loss(sent: u64, lost: u64) -> f64 {
    if sent == 0 { 0.0 } else { (lost as f64 / sent as f64 * 1e4).round() / 1e4 }
}

/// In milliseconds, with three digits.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn shown_ms(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"))
}

fn shown_loss(loss: f64) -> String {
    format!("{:.2} %", loss * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, of: &str, paths: &[(&str, f64)]) -> ReachView {
        let view = |(to, rtt): &(&str, f64)| PathView {
            node: NodeId::new("peer").unwrap(),
            datacenter: Datacenter::new(to).unwrap(),
            rtt_ms: Some(*rtt),
            loss: 0.1,
            sent: 10,
            lost: 1,
            window: None,
            phi: None,
            state: "live".into(),
            address: None,
            dialed: None,
        };
        ReachView {
            node: NodeId::new(node).unwrap(),
            datacenter: Datacenter::new(of).unwrap(),
            paths: paths.iter().map(view).collect(),
            not_live: Vec::new(),
            omitted: 0,
            problem: None,
        }
    }

    #[test]
    fn the_matrix_has_each_direction_and_names_who_is_missing() {
        let silent = ReachView { problem: Some("is dead".into()), ..member("c", "us", &[]) };
        let paths = [("us", 80.0), ("us", 90.0), ("us", 70.0), ("eu", 1.0)];
        let members = vec![member("a", "eu", &paths), member("b", "us", &[("eu", 81.0)]), silent];
        let Matrix { pairs, missing } = Matrix::of(members);
        let shown: Vec<_> = pairs
            .iter()
            .map(|pair| (pair.from.as_str(), pair.to.as_str(), pair.paths, pair.median_ms))
            .collect();
        assert_eq!(shown, [("eu", "eu", 1, 1.0), ("eu", "us", 3, 80.0), ("us", "eu", 1, 81.0)]);
        assert_eq!((pairs[1].least_ms, pairs[1].most_ms, pairs[1].loss), (70.0, 90.0, 0.1));
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].node.as_str(), "c");
    }

    #[test]
    fn no_packets_are_no_loss() {
        assert_eq!((loss(0, 0), loss(3, 1)), (0.0, 0.3333));
    }
}
