//! One life of an owner: what its map says of it, and whether another life continues it.

use std::sync::Arc;

use crate::protocol::{
    delta::NodeDelta,
    digest::DigestEntry,
    id::{Generation, Version},
    record::NodeRecord,
    seal::Credential,
    verdict::Verdict,
};

use super::signed::Signed;

/// What a map holds of one life of its owner alone: the next life says all of it anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) generation: Generation,
    /// Earlier lives that this one continues, newest first.
    pub(super) ancestry: Vec<(Generation, Version)>,
    pub(super) record: Option<(Version, Arc<NodeRecord>)>,
    /// The gravest that was heard of this life.
    pub(super) verdict: Verdict,
    /// Whose key signs this life, and the version of the record that came with it; nobody, if the owner
    /// signs nothing.
    pub(super) credential: Option<(Version, Arc<Credential>)>,
    /// What the owner last signed of what is here.
    pub(super) signed: Option<Arc<Signed>>,
    /// The owner signs, and nobody has told by what certificate: that goes where the record goes.
    pub(super) unvouched: bool,
}

impl Life {
    /// The life that is told of, of which nothing else is known yet: what was said of the earlier life
    /// says nothing of this one.
    pub(super) fn of(delta: &NodeDelta) -> Self {
        let (generation, ancestry) = (delta.generation, delta.ancestry.clone());
        Self { generation, ancestry, ..Self::default() }
    }
}

/// Whether a life with this ancestry and floor continues a copy of an earlier one.
///
/// It does not if those who told the copy had seen writes that the owner then lost in a crash: they
/// left out what those had overwritten, which is in force again. Nor if the owner lost the floor of the
/// copy as well: the owner's tombstones that the copy has dropped are part of what the owner signs.
pub(super) fn continued(
    copy: &DigestEntry,
    ancestry: &[(Generation, Version)],
    floor: Version,
) -> bool {
    copy.gc_floor <= floor && is_ancestor(copy, ancestry)
}

/// Whether the owner still had all that those who told this copy had seen.
pub(super) fn is_ancestor(copy: &DigestEntry, ancestry: &[(Generation, Version)]) -> bool {
    ancestry.iter().any(|(life, upto)| *life == copy.generation && copy.horizon <= *upto)
}
