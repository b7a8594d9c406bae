//! Answers about the spread of this node's writes.

use std::{collections::BTreeSet, io, time::Duration};

use gossipmonger::{
    Member,
    protocol::id::{NodeId, Version},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    peers::{self, AskHeld, Held, Silent},
    server::{Agent, Caller},
};
use crate::{
    error::CliError,
    spread::{BehindRow, SpreadView, WAIT_MAX, Wait},
};

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    pub(super) async fn behind(&mut self, agent: &Agent) -> io::Result<()> {
        match behind(agent, self.client()).await {
            Ok(rows) => {
                for row in &rows {
                    self.item(row).await?;
                }
                self.done().await
            }
            Err(error) => self.fail(&error).await,
        }
    }
}

/// Waits until so many nodes have a version of this node.
pub(super) async fn wait(
    agent: &Agent,
    version: Version,
    wait: Wait,
    within_ms: u64,
) -> Result<SpreadView, CliError> {
    let within = Duration::from_millis(within_ms).min(WAIT_MAX);
    let reached = agent.node.await_propagated(version, wait.into(), within).await?;
    Ok(SpreadView::new(version, reached))
}

async fn behind(agent: &Agent, client: Option<&str>) -> Result<Vec<BehindRow>, CliError> {
    let node = &agent.node;
    let (generation, last) = node.snapshot().version(node.node()).unwrap_or_default();
    let own = Held { generation, version: last };
    let _turn = agent.gathering(client).await?;
    let ask = AskHeld { owner: node.node().clone() };
    let gathered = peers::gather(node, &ask).await;
    // Every node takes part in this, and says no more than whether it has the version.
    let wave = match gathered.iter().all(|(_, answer)| answer.is_ok()) {
        true => None,
        false => {
            let wave = node.peers_behind(last).await?;
            let complete = wave.unreached == 0 && wave.names.len() == wave.behind;
            Some(Wave { complete, lack: wave.names.into_iter().collect() })
        }
    };
    Ok(gathered.into_iter().map(|(member, held)| row(member, held, own, wave.as_ref())).collect())
}

/// What all live nodes together have said.
struct Wave {
    /// All have answered, and all that lack the version are named.
    complete: bool,
    lack: BTreeSet<NodeId>,
}

impl Wave {
    /// Whether a node has the version; `None` if that is not known.
    fn has(&self, member: &Member) -> Option<bool> {
        match self.lack.contains(&member.node) {
            true => Some(false),
            false => (self.complete && member.is_live()).then_some(true),
        }
    }
}

fn row(
    member: Member,
    held: Result<Option<Held>, Silent>,
    own: Held,
    wave: Option<&Wave>,
) -> BehindRow {
    let (has, version, behind, problem) = match held {
        Ok(held) => {
            let behind = versions_behind(own, held);
            let version = held.filter(|held| held.generation == own.generation);
            (Some(behind == 0), version.map(|held| held.version), Some(behind), None)
        }
        Err(Silent { why, .. }) => {
            (wave.and_then(|wave| wave.has(&member)), None, None, Some(why.into()))
        }
    };
    let Member { node, datacenter, .. } = member;
    BehindRow { node, datacenter, last: own.version, version, behind, has, problem }
}

/// How many versions of the present generation a node lacks.
fn versions_behind(own: Held, held: Option<Held>) -> u64 {
    match held {
        // It may have a later version, or a later generation: this node has written since it was asked.
        Some(held) if held.generation > own.generation => 0,
        Some(held) if held.generation == own.generation => {
            own.version.0.saturating_sub(held.version.0)
        }
        _ => own.version.0,
    }
}

#[cfg(test)]
mod tests {
    use gossipmonger::Generation;

    use super::*;

    #[test]
    fn counts_the_versions_that_a_node_lacks() {
        let held = |generation, version| Held {
            generation: Generation(generation),
            version: Version(version),
        };
        let own = held(7, 10);
        for (other, behind) in [
            (None, 10),
            (Some(held(6, 99)), 10),
            (Some(held(7, 8)), 2),
            (Some(held(7, 10)), 0),
            (Some(held(7, 11)), 0),
            (Some(held(8, 1)), 0),
        ] {
            assert_eq!(versions_behind(own, other), behind, "{other:?}");
        }
    }
}
