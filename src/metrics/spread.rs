//! How long a write takes to reach the whole cluster: sampled at few writes, because the answer costs a
//! message each way on every link.
//!
//! Clocks of nodes are not compared. The owner asks the cluster until all live nodes have the write, so its own clock is
//! enough; the time that it sees includes the commit of its store and the way of the answers back.

use std::time::Duration;

use crate::{
    node::{Gossipmonger, error::Error},
    protocol::{id::Version, timing::Timing},
};

/// A write that needs longer counts as unconfirmed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Least time between two measurements of one node.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// The pause for each live member, so that all nodes of a cluster together begin at most one measurement a second.
const PAUSE_PER_MEMBER: Duration = Duration::from_secs(1);

/// The pause after the first question; each further one is twice as long, so that a write that never arrives costs a dozen
/// questions.
const ASKED_AGAIN: Duration = Duration::from_millis(5);
/// After a write that was not confirmed the pause is this many times as long: the questions are not to add to the trouble.
const RELIEF: u32 = 4;

/// Measures until the node has ended; calls `unconfirmed` for each write that was not confirmed in time.
pub(super) async fn measure(node: &Gossipmonger, unconfirmed: impl Fn()) {
    let (clock, written) = (node.shared.clock, &node.shared.diagnostics.written);
    let mut since = clock.now();
    loop {
        let (version, begun) = written.wait_for(|(_, begun)| *begun >= since).await;
        let live = u32::try_from(node.snapshot().live().count()).unwrap_or(u32::MAX);
        let mut pause = PAUSE_MIN.max(PAUSE_PER_MEMBER.saturating_mul(live));
        if live > 1 {
            match is_confirmed(node, version).await {
                Ok(true) => node.counters().took(Timing::Spread, clock.now().since(begun)),
                Ok(false) => {
                    unconfirmed();
                    pause = pause.saturating_mul(RELIEF);
                }
                // The node has ended.
                Err(_) => return,
            }
        }
        tokio::time::sleep(pause).await;
        since = clock.now();
    }
}

/// Asks the cluster until all live nodes have a version, at most as long as the patience lasts.
async fn is_confirmed(node: &Gossipmonger, version: Version) -> Result<bool, Error> {
    let clock = node.shared.clock;
    let (deadline, mut pause) = (clock.now() + PATIENCE, ASKED_AGAIN);
    loop {
        let reached = node.peers_behind(version).await?;
        if reached.have > 0 && reached.behind == 0 && reached.unreached == 0 {
            return Ok(true);
        }
        if clock.now() + pause >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
