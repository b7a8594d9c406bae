//! What a digest lacks: per node a gap-free run of writes in version order, cut to a byte budget.

use bincode::{Decode, Encode};

use super::{
    entry::{Key, Value},
    id::{Generation, NodeId, Version},
    record::NodeRecord,
    seal::Sealed,
    verdict::Verdict,
};

/// Most past generations that travel with a copy; an older copy is sent again from the start.
pub const ANCESTRY_MAX: usize = 8;

/// News of one or several nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Delta {
    /// One per node with news, each at most once.
    pub nodes: Vec<NodeDelta>,
    /// The budget cut it: there is more to be had at once.
    pub more: bool,
}

/// News of one node: all that is live of its writes in `(from, to]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeDelta {
    /// The owner of the writes.
    pub node: NodeId,
    /// The owner's life they were made in.
    pub generation: Generation,
    /// Earlier lives that this one continues, newest first, each with the last version kept of it.
    pub ancestry: Vec<(Generation, Version)>,
    /// The receiver must have everything up to here.
    pub from: Version,
    /// And has everything up to here afterwards.
    pub to: Version,
    /// How far the sender has got, at least to `to`: what it overwrote up to here is left out.
    pub horizon: Version,
    /// The last write that replaced a part of a batch whose other part still stands. A copy that does
    /// not reach it may have half of that batch, and is not to be shown.
    pub torn: Version,
    /// Up to which version the sender has dropped tombstones.
    pub gc_floor: Version,
    /// What is thought of the owner in this life.
    pub verdict: Verdict,
    /// The owner's record and its version, if the receiver's is older.
    pub record: Option<(Version, NodeRecord)>,
    /// In version order; entries of one version are never split.
    pub entries: Vec<DeltaEntry>,
    /// What the owner has signed, if it does.
    pub sealed: Option<Box<Sealed>>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeltaEntry {
    /// The key.
    pub key: Key,
    /// The version it was written at.
    pub version: Version,
    /// What was written.
    pub content: DeltaContent,
}

/// A value or a tombstone, with times that mean the same on both ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DeltaContent {
    /// A value.
    Value {
        /// Its bytes.
        value: Value,
        /// How long it stays visible from now on, in milliseconds; `None`: for ever.
        ttl_ms: Option<u64>,
    },
    /// The key was deleted.
    Tombstone,
}

impl Delta {
    /// Whether it tells nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let entries =
            |node: &NodeDelta| node.entries.iter().map(DeltaEntry::encoded_len_max).sum::<usize>();
        self.nodes.iter().map(|node| node.header_len_max() + entries(node)).sum()
    }

    /// How many writes it carries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|node| node.entries.len()).sum()
    }
}

impl NodeDelta {
    /// An upper bound of the bytes of all but the entries.
    #[must_use]
    pub fn header_len_max(&self) -> usize {
        let record = self.record.as_ref();
        self.node.as_str().len()
            + self.ancestry.len() * 18
            + record.map_or(0, |(_, record)| record.encoded_len_max() + VARINT_BYTES_MAX)
            + NODE_FIXED_BYTES_MAX
            + self.sealed_len_max()
    }

    /// An upper bound of the bytes of what its owner has signed, and by which certificate. They do not
    /// count where the size of news decides how it spreads.
    #[must_use]
    pub fn sealed_len_max(&self) -> usize {
        self.sealed.as_ref().map_or(0, |s| Sealed::header_len_max(s.credential.as_deref()))
    }
}

impl DeltaEntry {
    /// Bytes of the value; a tombstone has none.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match &self.content {
            DeltaContent::Value { value, .. } => value.len(),
            DeltaContent::Tombstone => 0,
        }
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        entry_len_max(self.key.as_str().len(), self.value_len())
    }
}

/// An upper bound of the bytes of an entry with a key and a value of these lengths.
#[must_use]
pub const fn entry_len_max(key: usize, value: usize) -> usize {
    key + value + ENTRY_FIXED_BYTES_MAX
}

/// bincode's longest integer: a marker and eight bytes.
const VARINT_BYTES_MAX: usize = 9;
/// Key length (3), version (9), variant (1), value length (5), option and ttl (1 + 9).
const ENTRY_FIXED_BYTES_MAX: usize = 28;
/// Name length (1), seven integers (63), three counts (3 x 5), two options (2), level (1).
const NODE_FIXED_BYTES_MAX: usize = 82;
