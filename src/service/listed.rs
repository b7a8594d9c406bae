//! Who offers what, for people and monitoring.

use super::ServiceVersion;
use crate::{
    node::Gossipmonger,
    protocol::{
        id::{Datacenter, Generation, NodeId},
        service::{
            ServiceId, ServiceName,
            directory::{Listings, Provider},
        },
    },
};

/// One offer of one live node, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The name of the service.
    pub service: ServiceName,
    /// Its version at this node.
    pub version: ServiceVersion,
    /// The node.
    pub node: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// The generation of the node.
    pub generation: Generation,
    /// Counts the registrations of the service by the node in this generation.
    pub epoch: u32,
    /// How many calls it wants, relative to other providers.
    pub weight: u8,
    /// Whether clients may call it.
    pub clients: bool,
    /// Whether the node takes no new calls.
    pub draining: bool,
    /// Whether this node suspects that it is dead.
    pub suspect: bool,
}

impl Listed {
    /// All offers in these listings.
    pub(super) fn all(listings: &Listings) -> Vec<Self> {
        let all = listings
            .iter()
            .flat_map(|(id, listing)| listing.iter().map(|provider| Self::new(id, provider)));
        all.collect()
    }

    pub(super) fn new(id: &ServiceId, provider: &Provider) -> Self {
        Self {
            service: id.name.clone(),
            version: ServiceVersion::new(id.major, provider.minor),
            node: provider.node.clone(),
            datacenter: provider.datacenter.clone(),
            generation: provider.generation,
            epoch: provider.epoch,
            weight: provider.weight,
            clients: provider.clients,
            draining: provider.draining,
            suspect: provider.suspect,
        }
    }
}

impl Gossipmonger {
    /// What live nodes offer, this node included, by service, datacenter and node.
    #[must_use]
    pub fn offered(&self) -> Vec<Listed> {
        Listed::all(&self.shared.services.outbound.watched.listings())
    }
}
