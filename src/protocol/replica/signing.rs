//! The keys and the state of signing and verifying.

use std::collections::BTreeSet;

use crate::protocol::{
    event::Problem,
    id::{Generation, NodeId},
    seal::{LifeSigner, Seals},
};

/// This node's own signatures.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) signer: LifeSigner,
    /// The generation, and the certificate that vouches for it.
    pub(super) of: (Generation, u64),
}

/// The signatures of this node, and of others.
#[derive(Debug, Default)]
pub(super) struct Signing {
    /// The view of the certificates, if this cluster has any.
    pub(super) seals: Option<Seals>,
    signer: Option<Signer>,
    /// The generation, and the certificate that cannot vouch for it.
    unable: Option<(Generation, u64)>,
    /// A problem to report with the next input.
    untold: Option<Problem>,
    /// Nodes that have signed two states as one.
    liars: BTreeSet<NodeId>,
}

impl Signing {
    /// The key of this node's own signatures.
    pub(super) const fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    pub(super) fn set_signer(&mut self, signer: Signer) {
        self.signer = Some(signer);
    }

    /// Whether there is a key for this generation.
    pub(super) fn has_key(&self, generation: Generation) -> bool {
        self.signer.as_ref().is_some_and(|signer| signer.of.0 == generation)
    }

    /// Whether the credential of a key has another certificate than this one.
    pub(super) fn is_outdated(&self, revision: u64) -> bool {
        self.signer.as_ref().is_some_and(|signer| signer.of.1 != revision)
    }

    /// Whether it is known that this certificate cannot vouch for this generation.
    pub(super) fn is_unable(&self, of: (Generation, u64)) -> bool {
        self.unable == Some(of)
    }

    /// This generation cannot be signed. Reported once for each generation and certificate, with the next
    /// input.
    pub(super) fn fail(&mut self, of: (Generation, u64), reason: String) {
        if self.unable != Some(of) {
            self.unable = Some(of);
            self.untold = Some(Problem::Unsigned { reason });
        }
    }

    /// A problem to report.
    pub(super) fn take_untold(&mut self) -> Option<Problem> {
        self.untold.take()
    }

    /// Whether a node has signed two states as one.
    pub(super) fn is_liar(&self, node: &NodeId) -> bool {
        self.liars.contains(node)
    }

    /// Whether that may be recorded of another node.
    pub(super) fn may_find_liar(&self) -> bool {
        self.liars.len() < LIARS_MAX
    }

    /// A node has signed two states as one.
    pub(super) fn found_liar(&mut self, node: NodeId) {
        self.liars.insert(node);
    }
}

/// Nodes recorded to have signed two states as one.
const LIARS_MAX: usize = 1_024;
