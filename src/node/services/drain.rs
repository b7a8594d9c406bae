//! Ending what this node offers, before it leaves.

use std::time::Duration;

use crate::node::{Gossipmonger, messages::ServicesMessage};

impl Gossipmonger {
    /// Takes no new requests for any service of this node from now on, announces that to all nodes, and lets those that run
    /// end. Returns whether all have ended within this time. Callers go to other nodes. There is no way back:
    /// [`leave_for_now`](Self::leave_for_now) and [`decommission`](Self::decommission) do this first.
    pub async fn drain(&self, limit: Duration) -> bool {
        let services = &self.shared.services;
        if services.offers_nothing() {
            return true;
        }
        let (number, offers) = services.drain();
        self.shared.routes.services.cast(ServicesMessage::Changed);
        let ended = async {
            let _ = services.is_announced(number).await;
            for offer in &offers {
                // Not before: a caller that does not know of it yet would have to try again.
                offer.drain();
            }
            for offer in &offers {
                offer.emptied().await;
            }
            // A request or its answer may be in transit: both ends of each connection agree on the last one.
            services.close_lanes();
            services.lanes_closed().await;
        };
        tokio::select! {
            biased;
            ended = tokio::time::timeout(limit, ended) => ended.is_ok(),
            () = self.shared.end.begun() => false,
        }
    }
}
