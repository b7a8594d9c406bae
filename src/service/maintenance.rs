//! Maintenance: this node gets no new calls for a while, and goes on otherwise.

use super::offer::OfferError;
use crate::node::{Gossipmonger, messages::ServicesMessage};

impl Gossipmonger {
    /// Begins or ends maintenance of this node: all of its offers are announced as draining, so that stubs pick other
    /// providers, and fail if there are none. What is called all the same is answered: calls that run or are on their
    /// way, and those to this node by its name. Returns once the announcement is in this node's map, and on its way to
    /// all others. The next start of the node ends it. Before a node ends it [drains](Self::drain) by itself.
    ///
    /// # Errors
    /// [`OfferError::NotAnnounced`] if the list of services was refused; [`OfferError::Stopped`] if the node has ended.
    pub async fn set_maintenance(&self, on: bool) -> Result<(), OfferError> {
        let services = &self.shared.services;
        let number = services.maintain(on);
        if services.offers_nothing() {
            return Ok(());
        }
        self.shared.routes.services.cast(ServicesMessage::Changed);
        tokio::select! {
            biased;
            () = self.shared.end.begun() => Err(OfferError::Stopped),
            announced = services.is_announced(number) => announced.map_err(OfferError::NotAnnounced),
        }
    }
}
