//! What an owner has signed of its map.

use std::sync::Arc;

use crate::protocol::{
    delta::NodeDelta,
    id::{Generation, NodeId, Version},
    record::NodeRecord,
    seal::{Credential, Seal, Sealed},
    verdict::Verdict,
};

/// What an owner has signed, with what was told beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it signed.
    pub seal: Seal,
    /// Up to which version tombstones were gone.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
}

impl Signed {
    /// This head of a life, with what is needed to verify it, as news that tells no entry.
    #[must_use]
    pub fn head(
        &self,
        node: &NodeId,
        (generation, ancestry): (Generation, &[(Generation, Version)]),
        record: Option<(Version, &NodeRecord)>,
        credential: &Arc<Credential>,
    ) -> Option<NodeDelta> {
        let (version, record) = record.filter(|(version, _)| *version == self.seal.record)?;
        let (seal, credential) = (self.seal, Some(Arc::clone(credential)));
        Some(NodeDelta {
            node: node.clone(),
            generation,
            ancestry: ancestry.to_vec(),
            from: Version::ZERO,
            to: Version::ZERO,
            horizon: Version::ZERO,
            torn: self.torn,
            gc_floor: self.gc_floor,
            verdict: Verdict::default(),
            record: Some((version, record.clone())),
            entries: Vec::new(),
            sealed: Some(Box::new(Sealed { seal, credential, proof: Default::default() })),
        })
    }
}
