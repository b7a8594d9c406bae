//! The directory as the balance reads it.

use super::{Listing, Provider, Providers};
use crate::protocol::{
    id::{Datacenter, NodeId},
    service::balance::candidates::{Candidate, Candidates, Sequence},
};

impl Candidate for Provider {
    fn node(&self) -> &NodeId {
        &self.node
    }

    fn minor(&self) -> u16 {
        self.minor
    }

    fn weight(&self) -> u8 {
        self.weight
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn suspect(&self) -> bool {
        self.suspect
    }

    fn name_hash(&self) -> u64 {
        self.hash
    }
}

impl Sequence for Providers {
    type Item = Provider;

    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, position: usize) -> Option<&Provider> {
        self.get(position)
    }

    fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.iter()
    }

    fn find(&self, node: &NodeId) -> Option<&Provider> {
        self.find(node)
    }
}

impl Candidates for Listing {
    type Item = Provider;
    type Sequence = Providers;

    fn within(&self, datacenter: &Datacenter) -> Option<(&Datacenter, &Providers)> {
        self.get_key_value(datacenter)
    }

    fn datacenters(&self) -> impl Iterator<Item = (&Datacenter, &Providers)> {
        self.datacenters()
    }
}
