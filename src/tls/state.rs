//! What a node's TLS has at one moment: its identity, the roots, and what is revoked.

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

/// Whom a dialer expects at the other end; a node of our own cluster in any case.
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
    /// When the chain of the identity ends by the roots.
    pub(super) expires: SystemTime,
    /// Of the certificate; another one has another.
    pub(super) revision: u64,
    /// Of all states: a reload forgets nothing.
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
