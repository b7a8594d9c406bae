//! Who calls, as its certificate proves it.

use std::fmt;

use crate::{
    protocol::id::{Datacenter, Generation, NodeId},
    tls::Client,
};

/// Who calls, as its certificate proves it. Nothing else about a caller decides what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// A member of the cluster.
    Node {
        /// Its name.
        node: NodeId,
        /// Its datacenter, if the certificates of this cluster name one.
        datacenter: Option<Datacenter>,
        /// The generation that it says it is of.
        generation: Generation,
    },
    /// A program that is not a member.
    Client(Client),
}

/// The name of a caller, for limits on what one caller uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CallerName {
    Node(NodeId),
    Client(String),
}

impl Caller {
    pub(crate) fn name(&self) -> CallerName {
        match self {
            Self::Node { node, .. } => CallerName::Node(node.clone()),
            Self::Client(client) => CallerName::Client(client.name.clone()),
        }
    }

    /// The generation of the node that calls; zero for a client.
    pub(crate) const fn generation(&self) -> Generation {
        match self {
            Self::Node { generation, .. } => *generation,
            Self::Client(_) => Generation::ZERO,
        }
    }

    /// The node that calls, unless a client does.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node { node, .. } => Some(node),
            Self::Client(_) => None,
        }
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node, .. } => write!(f, "node {node}"),
            Self::Client(client) => write!(f, "client {}", client.name),
        }
    }
}
