//! Whether an update may be applied, independent of the copy, and the reason if it is refused.

use crate::protocol::{
    delta::{ANCESTRY_MAX, DeltaContent, DeltaEntry, NodeDelta},
    id::{Generation, Incarnation},
    seal::Sealed,
    time::Time,
    tree::Leaf,
    verdict::INCARNATION_MAX,
};

use super::wire::local_entry;

/// The limits of one node's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimits {
    /// Live keys.
    pub keys: usize,
    /// Bytes of keys and values together.
    pub bytes: usize,
    /// Bytes of one key.
    pub key_bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
}

/// Why an update was refused. The copy is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is of an earlier generation of the owner.
    #[error("news of an earlier generation")]
    OldGeneration,
    /// It starts after the end of our copy.
    #[error("news that leaves a gap")]
    Gap,
    /// The sender has dropped tombstones that we need, or still has some that we have dropped.
    #[error("news across a collected range")]
    Collected,
    /// Versions out of order or out of range, or a key or record outside its limits.
    #[error("malformed news")]
    Malformed,
    /// The owner would exceed the limits of a node.
    #[error("news of more than a node may hold")]
    TooLarge,
    /// The owner has not signed it, though it signs, or must sign.
    #[error("news that its owner has not signed")]
    Unsigned,
    /// It is not the state that the owner has signed: a relay has forged or omitted a part.
    #[error("news that is not what its owner has signed")]
    Forged,
    /// The signed head does not follow from our copy. Whose fault that is shows when the whole map has been
    /// sent again.
    #[error("news that does not fit what is here")]
    Mismatch,
    /// The holder of the signing key is not known.
    #[error("news signed with a key that nobody has vouched for yet")]
    NoCredential,
    /// Its certificate is not one of its owner, or does not vouch for the key.
    #[error("news signed with a key that its owner's certificate does not vouch for")]
    BadCredential,
    /// Its certificate is older than one that its owner has shown since, or is not valid yet.
    #[error("news signed with a certificate that its owner has replaced, or that is not valid yet")]
    Untimely,
    /// Its record names another datacenter than its certificate, or than before in the same generation.
    #[error(
        "a record of another datacenter than its owner's certificate, or its record of before, says"
    )]
    Misplaced,
}

impl Refusal {
    /// The cost that its sender is charged for this refusal, as a share of the traffic that may be dropped
    /// ([`THROTTLED_MAX`](crate::protocol::penalties::THROTTLED_MAX)): by the work that it caused, and only
    /// for updates that an honest member does not send, unless its limits or certificate authorities differ.
    #[must_use]
    #[doc(hidden)]
    pub const fn price(self) -> u32 {
        match self {
            // A signature, or a tree, was verified in vain.
            Self::Forged => 4,
            Self::BadCredential | Self::Malformed | Self::TooLarge => 1,
            // It was not examined, or lost a race against another update, or is the fault of its owner alone:
            // the state of a relay depends on which update came to it first.
            Self::Unsigned
            | Self::Untimely
            | Self::Misplaced
            | Self::OldGeneration
            | Self::Gap
            | Self::Collected
            | Self::Mismatch
            | Self::NoCredential => 0,
        }
    }
}

/// Whether the update is well formed, independent of our copy.
pub(super) fn check(delta: &NodeDelta, limits: &MapLimits) -> Result<(), Refusal> {
    let mut last = delta.from;
    let in_order = delta.entries.iter().all(|entry| {
        let fits = entry.version >= last && entry.version > delta.from && entry.version <= delta.to;
        last = entry.version;
        fits
    });
    let small = |entry: &DeltaEntry| {
        let key = entry.key.as_str().len();
        (1..=limits.key_bytes).contains(&key) && entry.value_len() <= limits.value_bytes
    };
    let record_fits = delta.record.as_ref().is_none_or(|(_, record)| record.check().is_ok());
    let ancestry_fits = delta.ancestry.len() <= ANCESTRY_MAX
        && delta.ancestry.iter().all(|(generation, _)| *generation < delta.generation);
    let record = delta.record.as_ref().map_or(Incarnation::ZERO, |(_, record)| record.incarnation);
    let reaches = delta.sealed.as_ref().is_none_or(|sealed| delta.to <= sealed.seal.upto);
    let ordered = reaches
        && delta.verdict.incarnation.max(record) <= INCARNATION_MAX
        && delta.from <= delta.to
        && delta.to.max(delta.torn) <= delta.horizon
        && delta.generation > Generation::ZERO;
    if in_order && delta.entries.iter().all(small) && record_fits && ancestry_fits && ordered {
        Ok(())
    } else {
        Err(Refusal::Malformed)
    }
}

/// Whether an update that was cut has all that its owner has of these versions.
pub(super) fn prove(now: Time, delta: &NodeDelta, sealed: &Sealed) -> Result<(), Refusal> {
    let leaf = |entry: &DeltaEntry| Leaf::new(entry.key.as_str(), &local_entry(now, entry));
    let kept = |entry: &&DeltaEntry| {
        !matches!(entry.content, DeltaContent::Tombstone) || entry.version > delta.gc_floor
    };
    let leaves: Vec<_> = delta.entries.iter().filter(kept).map(leaf).collect();
    let root = sealed.proof.root(delta.from, delta.to, &leaves);
    if root == Some(sealed.seal.root) { Ok(()) } else { Err(Refusal::Forged) }
}
