//! One generation of an owner: the fields of its map that belong to it, and whether another generation
//! continues it.

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

/// The fields of a map that belong to one generation of its owner alone: the next generation starts without
/// them.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) generation: Generation,
    /// Earlier generations that this one continues, newest first.
    pub(super) ancestry: Vec<(Generation, Version)>,
    pub(super) record: Option<(Version, Arc<NodeRecord>)>,
    /// The worst that was received about this generation.
    pub(super) verdict: Verdict,
    /// The credential of the key that signs this generation, and the version of the record that came with it;
    /// `None` if the owner signs nothing.
    pub(super) credential: Option<(Version, Arc<Credential>)>,
    /// The owner's last signed head of this copy.
    pub(super) signed: Option<Arc<Signed>>,
    /// The owner signs, and its credential has not been received: that travels with the record.
    pub(super) unvouched: bool,
}

impl Life {
    /// The generation of an update, of which nothing else is known yet: reports about the earlier generation
    /// do not apply to this one.
    pub(super) fn of(delta: &NodeDelta) -> Self {
        let (generation, ancestry) = (delta.generation, delta.ancestry.clone());
        Self { generation, ancestry, ..Self::default() }
    }
}

/// Whether a generation with this ancestry and floor continues a copy of an earlier one.
///
/// It does not if the senders of the copy had seen writes that the owner then lost in a crash: they left out
/// values that those had overwritten, and these values are current again. Nor if the owner lost the floor of
/// the copy as well: the owner's tombstones that the copy has dropped are part of the owner's signed state.
pub(super) fn continued(
    copy: &DigestEntry,
    ancestry: &[(Generation, Version)],
    floor: Version,
) -> bool {
    copy.gc_floor <= floor && is_ancestor(copy, ancestry)
}

/// Whether the owner still had all that the senders of this copy had seen.
pub(super) fn is_ancestor(copy: &DigestEntry, ancestry: &[(Generation, Version)]) -> bool {
    ancestry.iter().any(|(life, upto)| *life == copy.generation && copy.horizon <= *upto)
}
