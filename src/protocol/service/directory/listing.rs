//! What readers see of the directory: all providers of each service, immutable and cheap to clone.

use imbl::OrdMap;

use super::{provider::Provider, providers::Providers};
use crate::protocol::{
    id::{Datacenter, NodeId},
    service::ServiceId,
};

/// The providers of one service in one major version, by datacenter. Immutable for readers and cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// None of these is empty.
    datacenters: OrdMap<Datacenter, Providers>,
    len: usize,
}

impl Listing {
    /// How many providers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The datacenters with a provider, by name, and the providers there: at least one.
    pub fn datacenters(&self) -> impl Iterator<Item = (&Datacenter, &Providers)> {
        self.datacenters.iter()
    }

    /// The providers in a datacenter; `None` if there are none.
    #[must_use]
    pub fn datacenter(&self, datacenter: &Datacenter) -> Option<&Providers> {
        self.datacenters.get(datacenter)
    }

    pub(super) fn get_key_value(
        &self,
        datacenter: &Datacenter,
    ) -> Option<(&Datacenter, &Providers)> {
        self.datacenters.get_key_value(datacenter)
    }

    /// All providers, by datacenter and node.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.datacenters.values().flat_map(Providers::iter)
    }

    /// The offer of a node: O(log n) in each datacenter that has a provider. Readers that know the datacenter of
    /// the node ask [`Self::datacenter`] first.
    #[must_use]
    pub fn find(&self, node: &NodeId) -> Option<&Provider> {
        self.datacenters.values().find_map(|providers| providers.find(node))
    }

    fn put(&mut self, provider: Provider) {
        match self.datacenters.get_mut(&provider.datacenter) {
            Some(providers) => {
                let before = providers.len();
                providers.put(provider);
                self.len += providers.len() - before;
            }
            None => {
                let datacenter = provider.datacenter.clone();
                let mut providers = Providers::default();
                providers.put(provider);
                self.datacenters.insert(datacenter, providers);
                self.len += 1;
            }
        }
    }

    fn remove(&mut self, datacenter: &Datacenter, node: &NodeId) {
        let Some(providers) = self.datacenters.get_mut(datacenter) else { return };
        let before = providers.len();
        providers.remove(node);
        self.len -= before - providers.len();
        if providers.is_empty() {
            self.datacenters.remove(datacenter);
        }
    }
}

/// All offers of live nodes. Immutable for readers and cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listings {
    /// None of these is empty.
    services: OrdMap<ServiceId, Listing>,
    version: u64,
}

impl Listings {
    /// Counts the updates that changed a listing, so readers can tell whether what they derived from an earlier
    /// one still holds.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The providers of a service; `None` if there are none.
    #[must_use]
    pub fn get(&self, service: &ServiceId) -> Option<&Listing> {
        self.services.get(service)
    }

    /// All services that a live node offers, by name and major version.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceId, &Listing)> {
        self.services.iter()
    }

    /// How many services a live node offers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether no live node offers a service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The service in the words of the listing, so that all nodes that offer it share one text in memory.
    pub(super) fn shared(&self, service: ServiceId) -> ServiceId {
        match self.services.get_key_value(&service) {
            Some((listed, _)) => listed.clone(),
            None => service,
        }
    }

    /// Adds a provider, or replaces the one of the same node in the same datacenter.
    pub(in crate::protocol::service) fn put(&mut self, service: &ServiceId, provider: Provider) {
        match self.services.get_mut(service) {
            Some(listing) => listing.put(provider),
            None => {
                let mut listing = Listing::default();
                listing.put(provider);
                self.services.insert(service.clone(), listing);
            }
        }
    }

    /// Removes the provider of a node.
    pub(super) fn remove(&mut self, service: &ServiceId, datacenter: &Datacenter, node: &NodeId) {
        let Some(listing) = self.services.get_mut(service) else { return };
        listing.remove(datacenter, node);
        if listing.is_empty() {
            self.services.remove(service);
        }
    }

    /// An update has changed a listing.
    pub(super) const fn count(&mut self) {
        self.version += 1;
    }

    /// The services whose listing was copied since `before`.
    #[cfg(test)]
    pub(super) fn touched_since(&self, before: &Self) -> Vec<&ServiceId> {
        let same = |one: &Listing, other: &Listing| {
            one.datacenters.len() == other.datacenters.len()
                && one
                    .datacenters
                    .iter()
                    .zip(&other.datacenters)
                    .all(|(one, other)| one.0 == other.0 && one.1.is_shared_with(other.1))
        };
        let touched = |(service, listing): &(&ServiceId, &Listing)| {
            !before.get(service).is_some_and(|before| same(listing, before))
        };
        self.iter().filter(touched).map(|(service, _)| service).collect()
    }
}
