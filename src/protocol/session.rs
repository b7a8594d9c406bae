//! Who is admitted: how a node introduces itself, and how it judges a peer that does.
//!
//! The network proves a name (over QUIC by the certificate); the first message of a connection claims one,
//! and a generation. [`Session::judge`] compares the two.

use std::{cmp::Ordering, time::SystemTime};

use super::{
    claim::Heard,
    gossip::FEATURE_TREES,
    id::{ClusterId, Generation, NodeId},
    message::Hello,
    route::{Output, StorageInput},
};

/// What this version can do beyond the wire's major version.
pub const FEATURES: u64 = FEATURE_TREES;

/// This node, as it introduces itself.
#[derive(Clone, Debug)]
pub struct Session {
    cluster: ClusterId,
    node: NodeId,
    features: u64,
}

/// A peer that has introduced itself and was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its proven name.
    pub node: NodeId,
    /// The generation that it claims.
    pub generation: Generation,
    /// What it can do beyond the wire's major version: see [`Hello::features`].
    pub features: u64,
}

/// Why a peer that introduced itself is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// It belongs to another cluster.
    #[error("it is a member of cluster {0}, not of ours: check its certificate and our seeds")]
    WrongCluster(String),
    /// It claims a name that it has not proved.
    #[error(
        "it calls itself {claimed}, its certificate says {proved}: correct its configured name, or \
             treat it as compromised"
    )]
    WrongName {
        /// The name that it claims.
        claimed: NodeId,
        /// The name that it has proved.
        proved: NodeId,
    },
    /// Another node than the expected one answers.
    #[error("{found} answers where {wanted} was expected")]
    Unexpected {
        /// The expected node.
        wanted: NodeId,
        /// The node that answered.
        found: NodeId,
    },
    /// No clock can have given it this generation.
    #[error("it claims to have started at {0} ms after 1970, years ahead: set its clock, or ours")]
    Absurd(Generation),
    /// The node has dialed itself.
    #[error("this is our own address")]
    Ourselves,
    /// Another process uses this node's name: see [`Problem::NameConflict`](super::event::Problem::NameConflict).
    #[error("another process uses our name")]
    Twin,
}

impl Unwelcome {
    /// A stable name for counting.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WrongCluster(_) => "wrong_cluster",
            Self::WrongName { .. } => "impostor",
            Self::Unexpected { .. } => "unexpected_node",
            Self::Absurd(_) => "absurd_generation",
            Self::Ourselves => "ourselves",
            Self::Twin => "twin",
        }
    }
}

impl Session {
    /// This node's name and cluster.
    #[must_use]
    pub const fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self { cluster, node, features: FEATURES }
    }

    /// The same for a node of a version that can do only this.
    #[must_use]
    pub const fn with_features(mut self, features: u64) -> Self {
        self.features = features;
        self
    }

    /// The introduction of this node. `own`: its present generation. `known`: the latest generation that it
    /// knows of the peer; zero if it knows none.
    #[must_use]
    pub fn hello(&self, own: Generation, known: Generation) -> Hello {
        Hello {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            generation: own,
            known,
            features: self.features,
        }
    }

    /// Judges an introduction. `proved`: the name that the network has proved. `wanted`: the node that was
    /// dialed, if a node was dialed by name. `own`: this node's generation. `wall`: the wall clock.
    ///
    /// What the peer says about this node's own generation goes to storage, which decides whether it is true.
    ///
    /// # Errors
    /// [`Unwelcome`]: the connection must be closed.
    pub fn judge(
        &self,
        hello: &Hello,
        proved: &NodeId,
        wanted: Option<&NodeId>,
        (own, wall): (Generation, SystemTime),
        out: &mut Vec<Output>,
    ) -> Result<Met, Unwelcome> {
        if hello.cluster != self.cluster {
            return Err(Unwelcome::WrongCluster(hello.cluster.to_string()));
        }
        if hello.node != *proved {
            let (claimed, proved) = (hello.node.clone(), proved.clone());
            return Err(Unwelcome::WrongName { claimed, proved });
        }
        if hello.node == self.node {
            return Err(match hello.generation.cmp(&own) {
                Ordering::Equal => Unwelcome::Ourselves,
                Ordering::Greater => {
                    out.extend(later_generation(hello.generation, own, Heard::Present));
                    Unwelcome::Twin
                }
                Ordering::Less => Unwelcome::Twin,
            });
        }
        if let Some(wanted) = wanted.filter(|wanted| hello.node != **wanted) {
            let (wanted, found) = (wanted.clone(), hello.node.clone());
            return Err(Unwelcome::Unexpected { wanted, found });
        }
        if hello.generation.is_absurd(wall) {
            return Err(Unwelcome::Absurd(hello.generation));
        }
        out.extend(later_generation(hello.known, own, Heard::Said(hello.node.clone())));
        let (node, generation) = (hello.node.clone(), hello.generation);
        Ok(Met { node, generation, features: hello.features })
    }
}

/// Tells storage of a later generation of this node, if the heard one is later. It is hearsay: see
/// [`Claim`](super::claim::Claim).
#[must_use]
pub fn later_generation(heard: Generation, own: Generation, by: Heard) -> Option<Output> {
    (heard > own).then_some(Output::Storage(StorageInput::HeardOfSelf(heard, by)))
}
