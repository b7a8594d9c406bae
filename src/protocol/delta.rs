//! The state that a digest lacks: per node a gap-free run of writes in version order, cut to a byte budget.

use super::{
    digest::{Digest, DigestEntry, LINES_MAX},
    entry::{Key, Value},
    id::{Generation, NodeId, Version},
    list::few,
    record::NodeRecord,
    seal::Sealed,
    verdict::Verdict,
    wire::{Decode, DecodeError, Decoder, encode_fields, fields, variants},
};

/// Most past generations that travel with a copy; an older copy is sent again from the start.
pub const ANCESTRY_MAX: usize = 8;

/// Most nodes whose updates one turn of a machine judges: each may cost the verification of a certificate and
/// of a signature. Updates of more nodes are judged in further turns, between which other inputs get theirs.
pub const TURN_NODES_MAX: usize = 32;
/// Most writes in one turn, unless a single node's update has more.
pub const TURN_ENTRIES_MAX: usize = 10_000;
/// Most bytes of one batch, frame overhead included: a batch is one version and is never split.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most writes in the update of one node: those of the largest batch, which cannot be split, with the
/// shortest keys. No delta has more.
pub const NODE_ENTRIES_MAX: usize = BATCH_BYTES_MAX / (ENTRY_FIXED_BYTES_MAX + 1);

/// Updates of one or several nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// One per node with an update, each node at most once.
    pub nodes: Vec<NodeDelta>,
    /// The budget cut it: the rest is available at once.
    pub more: bool,
}

encode_fields!(Delta { nodes, more });

/// The update of one node: all live entries of its writes in `(from, to]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDelta {
    /// The owner of the writes.
    pub node: NodeId,
    /// The owner's generation in which they were made.
    pub generation: Generation,
    /// Earlier generations that this one continues, newest first, each with the last version kept of it.
    pub ancestry: Vec<(Generation, Version)>,
    /// The receiver must have everything up to this version.
    pub from: Version,
    /// And has everything up to this version afterwards.
    pub to: Version,
    /// How far the sender reaches, at least to `to`: values overwritten up to this version are left out.
    pub horizon: Version,
    /// The last write that replaced one part of a batch while another part still stands. A copy that does not
    /// reach it may have half of that batch, and must not be shown to readers.
    pub torn: Version,
    /// Up to which version the sender has dropped tombstones.
    pub gc_floor: Version,
    /// The cluster's verdict on the owner in this generation.
    pub verdict: Verdict,
    /// The owner's record and its version, if the receiver's is older.
    pub record: Option<(Version, NodeRecord)>,
    /// In version order; entries of one version are never split.
    pub entries: Vec<DeltaEntry>,
    /// The owner's signature, if it signs.
    pub sealed: Option<Box<Sealed>>,
}

encode_fields!(NodeDelta {
    node,
    generation,
    ancestry,
    from,
    to,
    horizon,
    torn,
    gc_floor,
    verdict,
    record,
    entries,
    sealed,
});

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaEntry {
    /// The key.
    pub key: Key,
    /// The version it was written at.
    pub version: Version,
    /// The key.
    pub content: DeltaContent,
}

fields!(DeltaEntry { key, version, content });

/// A value or a tombstone, with times that mean the same on both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaContent {
    /// A value.
    Value {
        /// Its bytes.
        value: Value,
        /// How long it stays visible from now on, in milliseconds; `None`: without end.
        ttl_ms: Option<u64>,
    },
    /// The key was deleted.
    Tombstone,
}

variants!(DeltaContent { 0 => Value { value: value, ttl_ms: ttl_ms }, 1 => Tombstone {} });

impl Decode<'_> for Delta {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let delta = Self { nodes: few(from, LINES_MAX)?, more: Decode::decode(from)? };
        if delta.tells_each_once() {
            Ok(delta)
        } else {
            Err(DecodeError::OtherString("news of one node twice".to_owned()))
        }
    }
}

impl Decode<'_> for NodeDelta {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: Decode::decode(from)?,
            generation: Decode::decode(from)?,
            ancestry: few(from, ANCESTRY_MAX)?,
            from: Decode::decode(from)?,
            to: Decode::decode(from)?,
            horizon: Decode::decode(from)?,
            torn: Decode::decode(from)?,
            gc_floor: Decode::decode(from)?,
            verdict: Decode::decode(from)?,
            record: Decode::decode(from)?,
            entries: few(from, NODE_ENTRIES_MAX)?,
            sealed: Decode::decode(from)?,
        })
    }
}

impl Digest {
    /// How far they reach with this delta, if all of it is applied.
    pub fn advance(&mut self, delta: &Delta) {
        for news in &delta.nodes {
            let mut line = DigestEntry {
                generation: news.generation,
                max_version: news.to,
                horizon: news.horizon,
                gc_floor: news.gc_floor,
                record: news.record.as_ref().map_or(Version::ZERO, |(version, _)| *version),
                verdict: news.verdict,
                ..DigestEntry::unknown(news.node.clone())
            };
            match self.entries.binary_search_by(|entry| entry.node.cmp(&news.node)) {
                Ok(at) => {
                    let before = &self.entries[at];
                    if before.generation == line.generation {
                        line.horizon = line.horizon.max(before.horizon);
                        line.record = line.record.max(before.record);
                        line.verdict = line.verdict.max(before.verdict);
                    }
                    self.entries[at] = line;
                }
                Err(at) => self.entries.insert(at, line),
            }
        }
    }
}

impl Delta {
    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        self.nodes.iter().map(NodeDelta::encoded_len_max).sum()
    }

    /// The same update in parts, each of it for one turn of a machine; the last part is cut if this is.
    #[must_use]
    pub fn turns(self) -> Vec<Self> {
        let (more, mut turns, mut entries) = (self.more, vec![Self::default()], 0);
        for news in self.nodes {
            let Some(last) = turns.last_mut() else { continue };
            let full = last.nodes.len() >= TURN_NODES_MAX
                || entries + news.entries.len() > TURN_ENTRIES_MAX;
            entries = if full { 0 } else { entries } + news.entries.len();
            if full && !last.nodes.is_empty() {
                last.more = true;
                turns.push(Self { nodes: vec![news], more: false });
            } else {
                last.nodes.push(news);
            }
        }
        if let Some(last) = turns.last_mut() {
            last.more = more;
        }
        turns
    }

    /// Whether it has each node once.
    #[must_use]
    pub fn tells_each_once(&self) -> bool {
        let mut nodes: Vec<_> = self.nodes.iter().map(|news| &news.node).collect();
        nodes.sort_unstable();
        nodes.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// How many writes it carries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|node| node.entries.len()).sum()
    }
}

impl NodeDelta {
    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let entries: usize = self.entries.iter().map(DeltaEntry::encoded_len_max).sum();
        self.header_len_max() + entries
    }

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

    /// An upper bound of the bytes of the owner's signature and certificate. They do not count where the size
    /// of an update decides how it spreads.
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
