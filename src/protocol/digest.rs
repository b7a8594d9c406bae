//! The state that a node holds, one line per node: the first message of an exchange.

use super::{
    id::{Generation, Incarnation, NodeId, Version},
    list::few,
    verdict::Verdict,
    wire::{Decode, DecodeError, Decoder, encode_fields, fields},
};

/// Most nodes that a node may know: a digest of this many lines with the longest names fits into a frame
/// beside the largest delta.
pub const PEERS_MAX: usize = 32_000;
/// Most lines of a digest: all that a node may know, and itself.
pub const LINES_MAX: usize = PEERS_MAX + 1;

/// How far a node's copies reach, sorted by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// One per known node, including itself.
    pub entries: Vec<DigestEntry>,
}

/// How far one copy reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestEntry {
    /// The owner of the copied keys.
    pub node: NodeId,
    /// The owner's generation that the copy is of; [`Generation::ZERO`] without a copy.
    pub generation: Generation,
    /// Every live entry up to this version is in the copy.
    pub max_version: Version,
    /// How far the senders of this copy had got: below here it may lack entries that were overwritten since.
    pub horizon: Version,
    /// Up to which version the copy has dropped tombstones.
    pub gc_floor: Version,
    /// The version of the owner's record in the copy.
    pub record: Version,
    /// The cluster's verdict on the owner in this generation.
    pub verdict: Verdict,
}

encode_fields!(Digest { entries });
fields!(DigestEntry { node, generation, max_version, horizon, gc_floor, record, verdict });

impl Decode<'_> for Digest {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { entries: few(from, LINES_MAX)? })
    }
}

impl Digest {
    /// The entry of `node`.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&DigestEntry> {
        let at = self.entries.binary_search_by(|e| e.node.cmp(node)).ok()?;
        self.entries.get(at)
    }

    /// Whether it is sorted by node without repetition; one from the network may not be.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.entries.windows(2).all(|pair| pair[0].node < pair[1].node)
    }
}

impl DigestEntry {
    /// Whether the copy is a part: its sender had more versions than the copy reaches and left out entries
    /// that were overwritten in them, so that two parts with this line may hold different keys. A copy that
    /// is not a part is a state of its owner at this version, and the line identifies that state.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.horizon > self.max_version
    }

    /// The line of a node of which nothing is known.
    #[must_use]
    pub const fn unknown(node: NodeId) -> Self {
        Self {
            node,
            generation: Generation::ZERO,
            max_version: Version::ZERO,
            horizon: Version::ZERO,
            gc_floor: Version::ZERO,
            record: Version::ZERO,
            verdict: Verdict::alive(Incarnation::ZERO),
        }
    }
}
