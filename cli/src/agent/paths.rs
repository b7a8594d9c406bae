//! Answers about paths: what this node hears, and what all members hear.

use std::{io, time::Duration};

use gossipmonger::{Gossipmonger, Member, PeerPath, protocol::id::NodeId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    peers::{self, Agents, AskPaths, PathRow, Paths, Ping, Silent, WITHIN},
    server::{Agent, Caller, unknown_node},
};
use crate::{
    admin::{State, rounded},
    clock::Clock,
    error::CliError,
    paths::{NotLive, PathView, ReachView, RttView, loss, milliseconds},
};

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    pub(super) async fn paths(&mut self, agent: &Agent) -> io::Result<()> {
        for path in agent.node.paths() {
            self.item(&view(&agent.node, path)).await?;
        }
        self.done().await
    }

    pub(super) async fn reachability(&mut self, agent: &Agent) -> io::Result<()> {
        let gathered = match agent.gathering(self.client()).await {
            Ok(_turn) => peers::gather(&agent.node, &AskPaths).await,
            Err(error) => return self.fail(&error).await,
        };
        for (member, answer) in gathered {
            self.item(&reach(member, answer)).await?;
        }
        self.done().await
    }
}

/// How far a node is: by the connection with it, or else by calls.
pub(super) async fn rtt(
    agent: &Agent,
    client: Option<&str>,
    peer: NodeId,
) -> Result<RttView, CliError> {
    let node = &agent.node;
    let member = node.snapshot().member(&peer).ok_or_else(|| unknown_node(&peer))?;
    if peer == *node.node() {
        return Err(CliError::usage(format!("{peer} is this agent's own node: name another one")));
    }
    let datacenter = member.datacenter;
    if let Some(path) = node.paths().into_iter().find(|path| path.peer == peer) {
        let path = Some(view(node, path));
        return Ok(RttView { node: peer, datacenter, path, call_ms: None, calls: 0 });
    }
    let providers = node.service::<Agents>().providers();
    let Some(remote) = providers.into_iter().find(|remote| *remote.node() == peer) else {
        return Err(CliError::failed(format!(
            "this agent has no connection to {peer}, and cannot call it: it offers no \
             gossipmonger.agent/1 (it is no agent, an older one, or not live)"
        )));
    };
    let _turn = agent.question(client).await?;
    let clock = Clock::start();
    let mut least = Duration::MAX;
    for _ in 0..CALLS {
        let begun = clock.now();
        remote.call(Ping).within(WITHIN).await.map_err(|error| {
            CliError::failed(format!(
                "this agent has no connection to {peer}, and its call failed: {error}"
            ))
        })?;
        least = least.min(clock.now().since(begun));
    }
    let call_ms = Some(milliseconds(least));
    Ok(RttView { node: peer, datacenter, path: None, call_ms, calls: CALLS })
}

fn view(node: &Gossipmonger, path: PeerPath) -> PathView {
    PathView {
        phi: node.phi(&path.peer).map(rounded),
        state: node
            .snapshot()
            .member(&path.peer)
            .map_or_else(|| "unknown".into(), |member| State::from(member.state).as_str().into()),
        node: path.peer,
        datacenter: path.datacenter,
        rtt_ms: path.round_trip.map(milliseconds),
        window: path.congestion_window,
        sent: path.packets_sent,
        lost: path.packets_lost,
        loss: loss(path.packets_sent, path.packets_lost),
        address: Some(path.remote.into()),
        dialed: Some(path.dialed),
    }
}

fn reach(member: Member, answer: Result<Paths, Silent>) -> ReachView {
    let (answer, problem) = match answer {
        Ok(answer) => (answer, None),
        Err(silent) => (Paths::default(), Some(silent.why.into())),
    };
    let not_live = answer.not_live;
    ReachView {
        node: member.node,
        datacenter: member.datacenter,
        paths: answer.paths.into_iter().map(|row| path(row, &not_live)).collect(),
        not_live: not_live
            .into_iter()
            .map(|(node, state)| NotLive { node, state: state.into() })
            .collect(),
        omitted: answer.omitted,
        problem,
    }
}

fn path(row: PathRow, not_live: &[(NodeId, String)]) -> PathView {
    let state = not_live.iter().find(|(node, _)| *node == row.peer);
    PathView {
        state: state.map_or("live", |(_, state)| state.as_str()).into(),
        node: row.peer,
        datacenter: row.datacenter,
        rtt_ms: row.round_trip_us.map(|micros| milliseconds(Duration::from_micros(micros))),
        window: row.window,
        sent: row.sent,
        lost: row.lost,
        loss: loss(row.sent, row.lost),
        phi: row.phi_milli.map(|phi| phi as f64 / 1000.0),
        address: None,
        dialed: None,
    }
}

/// Calls to a node without a connection: the first one also dials it.
const CALLS: u32 = 4;
