//! The headings of pushed updates, read without copying their contents: a flood brings the same update from
//! every neighbour, and a node that has it already need not decode it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    gossip::Have,
    id::{Generation, Incarnation, NodeId, Version},
    map::Signed,
    message::GOSSIP_HEADER,
    record::Status,
    seal::Seal,
    verdict::Verdict,
    wire::{self, Decode, DecodeError, Decoder, decode_fields},
};

/// Longer frames are not skimmed: flooded updates are short, and updates that travel along a tree hardly ever
/// come twice.
pub const SKIM_BYTES_MAX: usize = 16 << 10;

/// The heading of one node's update, without the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading<'a> {
    /// The owner of the writes. The name may be invalid.
    pub node: &'a str,
    /// The owner's generation in which they were made.
    pub generation: Generation,
    /// The receiver has everything up to this version afterwards.
    pub to: Version,
    /// How far the sender has got.
    pub horizon: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
    /// Up to which version the sender has dropped tombstones.
    pub gc_floor: Version,
    /// The verdict on the owner.
    pub verdict: Verdict,
    /// The version of the owner's record, if the update has it.
    pub record: Version,
    /// The owner's signature, if it signs.
    pub seal: Option<Seal>,
}

/// How far a copy of a node's map reaches, as far as a heading can tell.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The owner's generation.
    pub generation: Generation,
    /// Every live entry up to this version is there.
    pub max_version: Version,
    /// How far the senders of the copy had got.
    pub horizon: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
    /// Up to which version tombstones have been dropped.
    pub gc_floor: Version,
    /// The verdict on the owner.
    pub verdict: Verdict,
    /// The version of the owner's record, or zero.
    pub record: Version,
    /// The owner's latest signed head.
    pub signed: Option<&'a Signed>,
}

impl Heading<'_> {
    /// How far the sender reaches, if the owner has a name.
    #[must_use]
    pub fn have(&self) -> Option<Have> {
        let node = NodeId::new(self.node).ok()?;
        Some(Have { node, generation: self.generation, version: self.to })
    }

    /// Whether a copy has everything that the update contains, so that the update need not be decoded.
    #[must_use]
    pub fn is_within(&self, copy: &Reach<'_>) -> bool {
        copy.generation == self.generation
            && copy.max_version >= self.to
            && copy.horizon >= self.horizon
            && copy.torn >= self.torn
            && copy.gc_floor >= self.gc_floor
            && copy.verdict >= self.verdict
            && copy.record >= self.record
            && !self.is_equivocal(copy)
    }

    /// Whether the owner has signed another root than the copy's for the same versions: storage has to check that,
    /// though it is not news.
    fn is_equivocal(&self, copy: &Reach<'_>) -> bool {
        copy.signed.zip(self.seal.as_ref()).is_some_and(|(signed, seal)| {
            let same = signed.seal.upto == seal.upto && copy.gc_floor == self.gc_floor;
            same && signed.seal.root != seal.root
        })
    }
}

/// The headings in a frame of [`Gossip::Push`](super::gossip::Gossip::Push) or
/// [`Gossip::Tree`](super::gossip::Gossip::Tree); `None` if it is another message,
/// too long to be skimmed, or malformed, which decoding it will report.
#[must_use]
pub fn skim(frame: &[u8]) -> Option<Vec<Heading<'_>>> {
    let body = frame.strip_prefix(&GOSSIP_HEADER)?;
    let body = body.strip_prefix(&[PUSH]).or_else(|| body.strip_prefix(&[TREE]))?;
    if frame.len() > SKIM_BYTES_MAX {
        return None;
    }
    let news: News<'_> = wire::from_slice(body, SKIM_MEMORY_MAX).ok()?;
    let whole = |node: &NodeNews<'_>| node.sealed.as_ref().is_none_or(|sealed| sealed.steps == 0);
    news.nodes.iter().all(whole).then(|| news.nodes.iter().map(NodeNews::heading).collect())
}

/// Reads as [`Delta`](super::delta::Delta).
struct News<'a> {
    nodes: Vec<NodeNews<'a>>,
    _more: bool,
}

decode_fields!(News<'a> { nodes, _more });

/// Reads as [`NodeDelta`](super::delta::NodeDelta).
struct NodeNews<'a> {
    node: &'a str,
    generation: Generation,
    _ancestry: Vec<(Generation, Version)>,
    _from: Version,
    to: Version,
    horizon: Version,
    torn: Version,
    gc_floor: Version,
    verdict: Verdict,
    record: Option<(Version, Record<'a>)>,
    _entries: Vec<Entry<'a>>,
    sealed: Option<Sealed<'a>>,
}

decode_fields!(NodeNews<'a> {
    node,
    generation,
    _ancestry,
    _from,
    to,
    horizon,
    torn,
    gc_floor,
    verdict,
    record,
    _entries,
    sealed,
});

/// Reads as [`Sealed`](super::seal::Sealed) of an update that was not cut: that has no proof.
struct Sealed<'a> {
    seal: Seal,
    _credential: Option<Credential<'a>>,
    steps: u64,
}

decode_fields!(Sealed<'a> { seal, _credential, steps });

/// Reads as [`Credential`](super::seal::Credential).
struct Credential<'a> {
    _key: [u8; 32],
    _chain: Vec<&'a [u8]>,
    _scheme: u16,
    _signature: &'a [u8],
}

decode_fields!(Credential<'a> { _key, _chain, _scheme, _signature });

/// Reads as [`NodeRecord`](super::record::NodeRecord).
struct Record<'a> {
    _datacenter: &'a str,
    _addresses: Vec<&'a str>,
    _tags: BTreeMap<&'a str, &'a str>,
    _wire: (u16, u16),
    _status: Status,
    _incarnation: Incarnation,
    _severed: BTreeSet<&'a str>,
    _not_before: Option<u64>,
    _not_after: Option<u64>,
}

decode_fields!(Record<'a> {
    _datacenter,
    _addresses,
    _tags,
    _wire,
    _status,
    _incarnation,
    _severed,
    _not_before,
    _not_after,
});

/// Reads as [`DeltaEntry`](super::delta::DeltaEntry).
struct Entry<'a> {
    _key: &'a str,
    _version: Version,
    _content: Content<'a>,
}

decode_fields!(Entry<'a> { _key, _version, _content });

enum Content<'a> {
    Value { _value: &'a [u8], _ttl_ms: Option<u64> },
    Tombstone,
}

impl<'a> Decode<'a> for Content<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match u32::decode(from)? {
            0 => Ok(Self::Value { _value: Decode::decode(from)?, _ttl_ms: Decode::decode(from)? }),
            1 => Ok(Self::Tombstone),
            number => Err(DecodeError::OtherString(format!("no content {number}"))),
        }
    }
}

impl<'a> NodeNews<'a> {
    fn heading(&self) -> Heading<'a> {
        Heading {
            node: self.node,
            generation: self.generation,
            to: self.to,
            horizon: self.horizon,
            torn: self.torn,
            gc_floor: self.gc_floor,
            verdict: self.verdict,
            record: self.record.as_ref().map_or(Version::ZERO, |(version, _)| *version),
            seal: self.sealed.as_ref().map(|sealed| sealed.seal),
        }
    }
}

/// The first bytes of [`Gossip::Push`](super::gossip::Gossip::Push).
const PUSH: u8 = 1;
/// The first bytes of [`Gossip::Tree`](super::gossip::Gossip::Tree).
const TREE: u8 = 14;
/// An entry of three bytes takes about a hundred of memory.
const SKIM_MEMORY_MAX: usize = 64 * SKIM_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        gossip::Gossip,
        id::{Datacenter, NodeId},
        message::LENGTH_BYTES,
        record::NodeRecord,
    };

    #[test]
    fn skims_nothing_but_short_whole_news() {
        assert_eq!(skim(&encoded(&Gossip::Root(1))), None);
        assert_eq!(skim(&encoded(&Gossip::Prune(Vec::new()))), None);
        let frame = encoded(&push(3, 10));
        assert!((0..frame.len()).all(|len| skim(&frame[..len]).is_none()));
        assert_eq!(skim(&[&frame[..], &[0]].concat()), None);
        assert_eq!(skim(&encoded(&push(1, SKIM_BYTES_MAX))), None);
    }

    #[test]
    fn reads_the_headings_that_decoding_reads() {
        let gossip = push(3, 10);
        let frame = encoded(&gossip);
        let (_, delta) = gossip.news().unwrap();
        let along_a_tree = encoded(&Gossip::Tree(delta.clone()));
        let expected: Vec<_> = delta
            .nodes
            .iter()
            .map(|node| Heading {
                node: node.node.as_str(),
                generation: node.generation,
                to: node.to,
                horizon: node.horizon,
                torn: node.torn,
                gc_floor: node.gc_floor,
                verdict: node.verdict,
                record: node.record.as_ref().map_or(Version::ZERO, |(version, _)| *version),
                seal: node.sealed.as_ref().map(|sealed| sealed.seal),
            })
            .collect();
        assert_eq!(skim(&along_a_tree), Some(expected.clone()));
        assert_eq!(skim(&frame), Some(expected));
    }

    fn encoded(gossip: &Gossip) -> Vec<u8> {
        gossip.encode().unwrap().split_off(LENGTH_BYTES)
    }

    fn push(nodes: u64, value: usize) -> Gossip {
        let node = |n: u64| NodeDelta {
            sealed: (n == 0).then(sealed),
            node: NodeId::new(&format!("n{n}")).unwrap(),
            generation: Generation(1_000 + n),
            ancestry: vec![(Generation(7), Version(n))],
            from: Version(n),
            to: Version(n + 2),
            horizon: Version(n + 300),
            torn: Version(n),
            gc_floor: Version(n / 2),
            verdict: Verdict::alive(Incarnation(n)),
            record: (n == 1).then(|| (Version(4), record())),
            entries: vec![
                DeltaEntry {
                    key: "key".into(),
                    version: Version(n + 1),
                    content: DeltaContent::Value {
                        value: vec![7; value].as_slice().into(),
                        ttl_ms: (n == 2).then_some(1_000_000),
                    },
                },
                DeltaEntry {
                    key: "gone".into(),
                    version: Version(n + 2),
                    content: DeltaContent::Tombstone,
                },
            ],
        };
        Gossip::Push(Delta { nodes: (0..nodes).map(node).collect(), more: true })
    }

    fn sealed() -> Box<super::super::seal::Sealed> {
        use super::super::{seal, tree};
        let (root, signature) = (tree::Hash([3; 32]), seal::Signature([4; 64]));
        let seal = Seal { upto: Version(300), record: Version(2), root, signature };
        let (key, chain) = (seal::LifeKey([5; 32]), vec![vec![6; 400]]);
        let credential = seal::Credential { key, chain, scheme: 7, signature: vec![8; 64] };
        let credential = Some(std::sync::Arc::new(credential));
        Box::new(seal::Sealed { seal, credential, proof: tree::Proof::default() })
    }

    fn record() -> NodeRecord {
        NodeRecord {
            datacenter: Datacenter::new("dc").unwrap(),
            addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            tags: [("role".to_owned(), "db".to_owned())].into(),
            wire: (1, 1),
            status: Status::Leaving,
            incarnation: Incarnation(3),
            severed: [Datacenter::new("far").unwrap()].into(),
            not_before: Some(1_766_000_000),
            not_after: Some(1_767_000_000),
        }
    }
}
