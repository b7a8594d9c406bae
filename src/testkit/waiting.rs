//! Waiting for a state, in virtual time.

use std::time::Duration;

use super::kit::Kit;
use crate::{node::Gossipmonger, protocol::id::NodeId};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

impl Kit {
    /// Waits until `holds`, and at most for `limit` of virtual time. It is looked at every 10 ms.
    ///
    /// # Panics
    /// If it does not hold until then; `what` says what was awaited.
    pub async fn until(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let begun = self.now();
        while !holds() {
            assert!(self.now() - begun < limit, "not within {limit:?}: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until each node that runs sees exactly the others that run as live, and has the same keys of each as that
    /// node itself.
    ///
    /// # Panics
    /// If that takes longer than `limit` of virtual time.
    pub async fn converged(&self, limit: Duration) {
        let nodes: Vec<_> = self
            .machines()
            .values()
            .filter_map(|machine| machine.running.as_ref())
            .map(|running| running.node().clone())
            .collect();
        let what = "all nodes see each other live and have the same keys";
        self.until(what, limit, || have_converged(&nodes)).await;
    }
}

fn have_converged(nodes: &[Gossipmonger]) -> bool {
    let names: Vec<&NodeId> = nodes.iter().map(Gossipmonger::node).collect();
    nodes.iter().all(|node| {
        let mut live: Vec<_> = node.live_peers().into_iter().map(|peer| peer.node).collect();
        live.push(node.node().clone());
        live.sort();
        live.iter().eq(names.iter().copied()) && nodes.iter().all(|owner| has_copy(node, owner))
    })
}

/// Whether a node has all that another one publishes, its offers included.
fn has_copy(node: &Gossipmonger, owner: &Gossipmonger) -> bool {
    let reach = |at: &Gossipmonger| at.snapshot().version(owner.node());
    reach(node).is_some() && reach(node) == reach(owner)
}
