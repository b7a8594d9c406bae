//! The nodes that may answer a caller.

use std::collections::BTreeSet;

use crate::protocol::id::{Datacenter, NodeId};

/// A set of nodes: by name, by datacenter, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSet {
    all: bool,
    nodes: BTreeSet<NodeId>,
    datacenters: BTreeSet<Datacenter>,
}

/// The nodes that a pick may find: those of `only`, without those of `except`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds<'a> {
    /// `None`: all nodes.
    pub only: Option<&'a NodeSet>,
    /// A second bound of the same kind.
    pub also: Option<&'a NodeSet>,
    /// `None`: no node.
    pub except: Option<&'a NodeSet>,
}

impl NodeSet {
    /// These nodes, and those of these datacenters; with `all` every node.
    #[must_use]
    pub const fn new(
        all: bool,
        nodes: BTreeSet<NodeId>,
        datacenters: BTreeSet<Datacenter>,
    ) -> Self {
        Self { all, nodes, datacenters }
    }

    /// Whether a node of this datacenter is one of them. `None`: no datacenter is known, or proved.
    #[must_use]
    pub fn has(&self, node: &NodeId, datacenter: Option<&Datacenter>) -> bool {
        self.all
            || self.nodes.contains(node)
            || datacenter.is_some_and(|datacenter| self.datacenters.contains(datacenter))
    }
}

impl Bounds<'_> {
    pub(super) fn admit(&self, node: &NodeId, datacenter: &Datacenter) -> bool {
        let has = |set: &NodeSet| set.has(node, Some(datacenter));
        self.only.is_none_or(has) && self.also.is_none_or(has) && !self.except.is_some_and(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service::balance::fixture::{node, place};

    #[test]
    fn a_node_of_an_unknown_datacenter_is_in_no_set_of_datacenters() {
        let set = NodeSet::new(false, BTreeSet::new(), BTreeSet::from([place("eu")]));
        assert!(!set.has(&node("a"), None));
        assert!(!set.has(&node("a"), Some(&place("us"))));
        assert!(set.has(&node("a"), Some(&place("eu"))));
        let named = NodeSet::new(false, BTreeSet::from([node("a")]), BTreeSet::new());
        assert!(named.has(&node("a"), None) && !named.has(&node("b"), None));
        assert!(!NodeSet::default().has(&node("a"), Some(&place("eu"))));
    }
}
