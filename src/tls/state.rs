//! The state of a node's TLS at one moment: its identity, the roots, and the revocations.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;

use super::{
    files::LoadError,
    identity::Identity,
    roots::{Chains, Roots},
};
use crate::{
    clock::Clock,
    protocol::{id::NodeId, revocation::Revocations, sketch::SketchKey},
};

/// The node that a dialer expects; always of our own cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This node: the address is a known peer's.
    Node(NodeId),
    /// Any node: the address is a seed's.
    AnyNode,
}

pub(crate) type Shared = Arc<ArcSwap<State>>;

#[derive(Debug)]
pub(crate) struct State {
    pub(super) identity: Identity,
    pub(super) chains: Chains,
    pub(super) sketch_key: SketchKey,
    /// When the chain of the identity ends, by the roots.
    pub(super) expires: SystemTime,
    /// The number of the certificate; each one has its own.
    pub(super) revision: u64,
    /// Shared by all states: a reload keeps the revocations.
    pub(super) revoked: Arc<ArcSwap<Revocations>>,
}

impl State {
    pub(super) fn new(identity: Identity, roots: Roots) -> Result<Self, LoadError> {
        let sketch_key = roots.sketch_key(&identity.name().cluster);
        let chains = Chains::new(roots).map_err(LoadError::Unsupported)?;
        let revision = identity.revision();
        let end = chains.end(identity.chain(), Clock::wall());
        let expires = end.map_or_else(|| identity.certificate().not_after, |end| end.at);
        Ok(Self { identity, chains, sketch_key, expires, revision, revoked: Arc::default() })
    }
}
