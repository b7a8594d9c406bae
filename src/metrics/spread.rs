//! How long a write takes to reach the whole cluster: measured at one write in a while, because the answer costs a
//! message each way on every link.
//!
//! Clocks of nodes are not compared. The owner asks the cluster until all live nodes have the write, so its own clock is
//! enough; the time that it sees includes the commit of its store and the way of the answers back.

use std::time::Duration;

use crate::{
    node::{Gossipmonger, error::Error, propagation::Audience},
    protocol::timing::Timing,
};

/// A write that needs longer counts as unconfirmed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Least time between two measurements of one node.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// The pause for each live member, so that all nodes of a cluster together begin at most one measurement a second.
const PAUSE_PER_MEMBER: Duration = Duration::from_secs(1);

/// Measures until the node has ended; calls `unconfirmed` for each write that was not confirmed in time.
pub(super) async fn measure(node: &Gossipmonger, unconfirmed: impl Fn()) {
    let (clock, written) = (node.shared.clock, &node.shared.diagnostics.written);
    let mut since = clock.now();
    loop {
        let (version, begun) = written.wait_for(|(_, begun)| *begun >= since).await;
        let live = u32::try_from(node.snapshot().live().count()).unwrap_or(u32::MAX);
        if live > 1 {
            match node.await_propagated(version, Audience::All, PATIENCE).await {
                Ok(_) => node.counters().took(Timing::Spread, clock.now().since(begun)),
                Err(Error::NotPropagated { .. }) => unconfirmed(),
                // The node has ended.
                Err(_) => return,
            }
        }
        tokio::time::sleep(PAUSE_MIN.max(PAUSE_PER_MEMBER.saturating_mul(live))).await;
        since = clock.now();
    }
}
