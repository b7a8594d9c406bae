//! A signed head of an owner's map.

use std::sync::Arc;

use crate::protocol::{
    delta::NodeDelta,
    id::{Generation, NodeId, Version},
    record::NodeRecord,
    seal::{Credential, Seal, Sealed},
    verdict::Verdict,
};

/// An owner's signed head, with the fields that are sent beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The head.
    pub seal: Seal,
    /// Up to which version tombstones had been dropped.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
}

impl Signed {
    /// This head of a generation, with the data to verify it, as an update without entries.
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
