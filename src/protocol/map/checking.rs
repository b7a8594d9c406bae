//! Whether news may be taken, whatever the copy holds, and why it was refused if not.

use crate::protocol::{
    delta::{ANCESTRY_MAX, DeltaContent, DeltaEntry, NodeDelta},
    id::{Generation, Incarnation},
    seal::Sealed,
    time::Time,
    tree::Leaf,
    verdict::INCARNATION_MAX,
};

use super::wire::local_entry;

/// What one node may hold.
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

/// Why news was refused. The copy is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is of an earlier life of the owner.
    #[error("news of an earlier generation")]
    OldGeneration,
    /// It starts after what we have.
    #[error("news that leaves a gap")]
    Gap,
    /// The sender has dropped tombstones that we need, or not yet those that we have dropped.
    #[error("news across a collected range")]
    Collected,
    /// Versions out of order or out of range, or a key or record outside its limits.
    #[error("malformed news")]
    Malformed,
    /// The owner would hold more than a node may.
    #[error("news of more than a node may hold")]
    TooLarge,
    /// The owner has not signed it, though it signs, or has to.
    #[error("news that its owner has not signed")]
    Unsigned,
    /// It is not what the owner has signed: whoever relays it has forged or left out something.
    #[error("news that is not what its owner has signed")]
    Forged,
    /// What the owner has signed does not follow from what is here. Whose fault that is shows when the
    /// whole map has been told again.
    #[error("news that does not fit what is here")]
    Mismatch,
    /// Whose key signed it is not known.
    #[error("news signed with a key that nobody has vouched for yet")]
    NoCredential,
    /// Its certificate is not one of its owner's, or does not vouch for the key.
    #[error("news signed with a key that its owner's certificate does not vouch for")]
    BadCredential,
    /// Its certificate is older than one that its owner has shown since, or is not valid yet.
    #[error("news signed with a certificate that its owner has replaced, or that is not valid yet")]
    Untimely,
    /// Its record says another datacenter than its certificate, or than before in the same life.
    #[error(
        "a record of another datacenter than its owner's certificate, or its record of before, says"
    )]
    Misplaced,
}

impl Refusal {
    /// What news refused for this costs who sent it, of what may be dropped of it
    /// ([`THROTTLED_MAX`](crate::protocol::penalties::THROTTLED_MAX)): by the work that it was, and only
    /// where no honest member sends it, but for one whose limits or certificate authorities differ.
    #[must_use]
    pub const fn price(self) -> u32 {
        match self {
            // A signature, or a tree, was verified in vain.
            Self::Forged => 4,
            Self::BadCredential | Self::Malformed | Self::TooLarge => 1,
            // It was not looked at, or lost a race against other news, or is the fault of its owner alone:
            // what a relay holds depends on what came to it first.
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

/// Whether the news is well formed, whatever we hold.
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

/// Whether news that was cut is all that its owner has of these versions.
pub(super) fn prove(now: Time, delta: &NodeDelta, sealed: &Sealed) -> Result<(), Refusal> {
    let leaf = |entry: &DeltaEntry| Leaf::new(entry.key.as_str(), &local_entry(now, entry));
    let kept = |entry: &&DeltaEntry| {
        !matches!(entry.content, DeltaContent::Tombstone) || entry.version > delta.gc_floor
    };
    let leaves: Vec<_> = delta.entries.iter().filter(kept).map(leaf).collect();
    let root = sealed.proof.root(delta.from, delta.to, &leaves);
    if root == Some(sealed.seal.root) { Ok(()) } else { Err(Refusal::Forged) }
}
