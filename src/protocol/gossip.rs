//! The frames that neighbours send each other unasked, on one stream per direction of a connection: updates,
//! and the messages that keep spreading them cheap.
//!
//! An update goes to all neighbours at once, and each node to which it is new passes it on once (flooding).
//! Large or frequent updates go only along the edges of a tree ([`Gossip::Tree`]); the other edges carry a note
//! that an update is available ([`Gossip::Have`]), and who lacks it asks for it ([`Gossip::Graft`]), as in
//! Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS 2007; but the trees are not negotiated.

use super::{
    delta::{ANCESTRY_MAX, Delta},
    digest::DigestEntry,
    id::{Generation, Incarnation, NodeId, Version},
    list::few,
    mode::Mode,
    overlay::NEIGHBOURS,
    record::NodeRecord,
    revocation::{REVOCATIONS_MAX, Revocation},
    seal::Seal,
    verdict::Verdict,
    wire::{Decode, DecodeError, Decoder, Encode, Sink, encode_fields, fields},
};

/// Most owners named in one [`Gossip::Have`], [`Gossip::Graft`] or [`Gossip::Prune`].
pub const OWNERS_MAX: usize = 1_024;
/// The bit of [`Hello::features`](super::message::Hello::features) of a node that knows [`Gossip::Tree`]. Others are
/// sent a [`Gossip::Push`] instead, and never prune or are pruned.
pub const FEATURE_TREES: u64 = 1;
/// Most nodes that an [`Echo`] names.
pub const BEHIND_MAX: usize = 100;
/// Most nodes that an [`Accusation`] names: two rings of neighbours, since views differ a little.
pub const OBSERVERS_MAX: usize = 2 * NEIGHBOURS;

/// One frame between neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gossip {
    /// The root of the sender's state: if it differs from ours, our copies differ.
    Root(u64),
    /// An update. If it does not connect to the receiver's copy, the receiver asks for the missing versions
    /// and never skips them.
    Push(Delta),
    /// An update that travels along its owner's tree ([`mode`](super::mode)); else as [`Gossip::Push`], which
    /// floods.
    Tree(Delta),
    /// Updates that the sender can supply.
    Have(Vec<Have>),
    /// Asks for the missing versions of these owners.
    Graft(Vec<DigestEntry>),
    /// From a peer without [`FEATURE_TREES`]: it receives updates of these owners from another node. Nothing follows.
    Prune(Vec<NodeId>),
    /// Asks which nodes have this version. The receiver passes it on, and answers for all nodes behind it.
    Wave(Wave),
    /// The answer to a wave.
    Echo(Echo),
    /// Asks which nodes hear this node.
    Ask(Ask),
    /// The answer of an observer.
    Answer(Answer),
    /// The verdict of a quorum on a node.
    Accusation(Accusation),
    /// An operator asks all nodes to forget a node.
    Removal(Removal),
    /// A node has signed two states as one.
    Equivocation(Box<Equivocation>),
    /// The sum of the sender's revocations: if it differs from ours, our sets differ.
    RevocationSum(u64),
    /// Statements of certificate authorities.
    Revocations(RevocationList),
}

/// Two heads of one node that an honest node cannot both have signed: of the same generation, version and
/// floor, with different roots. Each node to which they are new passes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// The node that has signed both.
    pub node: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The two.
    pub heads: [SignedHead; 2],
}

fields!(Equivocation { node, generation, heads });

/// All that an owner has signed together, and its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The earlier generations that this one continues.
    pub ancestry: Vec<(Generation, Version)>,
    /// Up to which version tombstones have been dropped.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
    /// The record and its version.
    pub record: Option<(Version, NodeRecord)>,
    /// The rest, and the signature.
    pub seal: Seal,
}

encode_fields!(SignedHead { ancestry, gc_floor, torn, record, seal });

/// Asks the observers of a node whether they hear it. Each node passes the question on once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The node that is not heard.
    pub subject: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The node that asks.
    pub asker: NodeId,
    /// Counts the questions of the asker, over all its generations.
    pub round: u64,
}

fields!(Ask { subject, generation, asker, round });

/// An answer, which goes back the way that the question came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// The node that answers; it may be the subject itself.
    pub observer: NodeId,
    /// Whether it hears the subject.
    pub hears: bool,
}

fields!(Answer { ask, observer, hears });

/// The verdict of a quorum on a node. Each node to which it is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// The node that the verdict is about.
    pub subject: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The verdict.
    pub verdict: Verdict,
    /// The observers that do not hear it; at most [`OBSERVERS_MAX`].
    pub observers: Vec<NodeId>,
}

encode_fields!(Accusation { subject, generation, verdict, observers });

/// All nodes are to forget a node, at the request of a person. The node itself ignores this; if it lives
/// after all, it refutes it with a later incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The node.
    pub subject: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// And up to which incarnation.
    pub incarnation: Incarnation,
}

fields!(Removal { subject, generation, incarnation });

/// Revocations of certificates. Each node to which a statement is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// At most [`REVOCATIONS_MAX`].
    pub statements: Vec<Revocation>,
    /// The statements are all that the sender knows: it asks for the others.
    pub all: bool,
}

encode_fields!(RevocationList { statements, all });

/// How far the sender's copy of one node reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// The owner of the keys.
    pub node: NodeId,
    /// The owner's generation.
    pub generation: Generation,
    /// Up to which version.
    pub version: Version,
}

fields!(Have { node, generation, version });

/// Asks all nodes which of them have the origin's version. (The echo algorithm, Chang, 1982.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// The node that asks; the version is one of its own.
    pub origin: NodeId,
    /// Counts the waves of the origin in its present generation.
    pub id: u64,
    /// The origin's generation.
    pub generation: Generation,
    /// The version asked for.
    pub version: Version,
    /// How long the receiver may take to answer, in milliseconds.
    pub patience_ms: u32,
}

fields!(Wave { origin, id, generation, version, patience_ms });

/// The answer of a node, and of all nodes behind it, to a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The node that asked.
    pub origin: NodeId,
    /// Which wave.
    pub id: u64,
    /// How many nodes have the version.
    pub have: u32,
    /// How many have not.
    pub lack: u32,
    /// Some of those, at most [`BEHIND_MAX`].
    pub behind: Vec<NodeId>,
    /// All nodes behind it have answered it in time.
    pub complete: bool,
}

encode_fields!(Echo { origin, id, have, lack, behind, complete });

/// The priority classes: which traffic goes first when there is not enough room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Membership and liveness; roots, waves and the messages that steer the spreading.
    Liveness,
    /// Updates.
    State,
    /// The missing state of a node that is far behind.
    Bulk,
}

// The lists below have limits, which are checked before they are decoded.

impl Encode for Gossip {
    fn encode(&self, to: &mut impl Sink) {
        match self {
            Self::Root(root) => (0_u32, root).encode(to),
            Self::Push(delta) => (1_u32, delta).encode(to),
            Self::Have(have) => (2_u32, have).encode(to),
            Self::Graft(lines) => (3_u32, lines).encode(to),
            Self::Prune(owners) => (4_u32, owners).encode(to),
            Self::Wave(wave) => (5_u32, wave).encode(to),
            Self::Echo(echo) => (6_u32, echo).encode(to),
            Self::Ask(ask) => (7_u32, ask).encode(to),
            Self::Answer(answer) => (8_u32, answer).encode(to),
            Self::Accusation(accusation) => (9_u32, accusation).encode(to),
            Self::Removal(removal) => (10_u32, removal).encode(to),
            Self::Equivocation(proof) => (11_u32, proof).encode(to),
            Self::RevocationSum(sum) => (12_u32, sum).encode(to),
            Self::Revocations(list) => (13_u32, list).encode(to),
            Self::Tree(delta) => (14_u32, delta).encode(to),
        }
    }
}

impl Decode<'_> for Gossip {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match u32::decode(from)? {
            0 => Self::Root(Decode::decode(from)?),
            1 => Self::Push(Decode::decode(from)?),
            2 => Self::Have(few(from, OWNERS_MAX)?),
            3 => Self::Graft(few(from, OWNERS_MAX)?),
            4 => Self::Prune(few(from, OWNERS_MAX)?),
            5 => Self::Wave(Decode::decode(from)?),
            6 => Self::Echo(Decode::decode(from)?),
            7 => Self::Ask(Decode::decode(from)?),
            8 => Self::Answer(Decode::decode(from)?),
            9 => Self::Accusation(Decode::decode(from)?),
            10 => Self::Removal(Decode::decode(from)?),
            11 => Self::Equivocation(Decode::decode(from)?),
            12 => Self::RevocationSum(Decode::decode(from)?),
            13 => Self::Revocations(Decode::decode(from)?),
            14 => Self::Tree(Decode::decode(from)?),
            kind => return Err(DecodeError::OtherString(format!("unknown gossip {kind}"))),
        })
    }
}

impl Decode<'_> for SignedHead {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            ancestry: few(from, ANCESTRY_MAX)?,
            gc_floor: Decode::decode(from)?,
            torn: Decode::decode(from)?,
            record: Decode::decode(from)?,
            seal: Decode::decode(from)?,
        })
    }
}

impl Decode<'_> for Accusation {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            subject: Decode::decode(from)?,
            generation: Decode::decode(from)?,
            verdict: Decode::decode(from)?,
            observers: few(from, OBSERVERS_MAX)?,
        })
    }
}

impl Decode<'_> for RevocationList {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { statements: few(from, REVOCATIONS_MAX)?, all: Decode::decode(from)? })
    }
}

impl Decode<'_> for Echo {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            origin: Decode::decode(from)?,
            id: Decode::decode(from)?,
            have: Decode::decode(from)?,
            lack: Decode::decode(from)?,
            behind: few(from, BEHIND_MAX)?,
            complete: Decode::decode(from)?,
        })
    }
}

impl Gossip {
    /// The update in it, and how that travels.
    #[must_use]
    pub const fn news(&self) -> Option<(Mode, &Delta)> {
        match self {
            Self::Push(delta) => Some((Mode::Flood, delta)),
            Self::Tree(delta) => Some((Mode::Tree, delta)),
            _ => None,
        }
    }

    /// An update that travels so.
    #[must_use]
    pub const fn of_news(mode: Mode, delta: Delta) -> Self {
        match mode {
            Mode::Flood => Self::Push(delta),
            Mode::Tree => Self::Tree(delta),
        }
    }

    /// What a peer without [`FEATURE_TREES`] is sent instead, if anything.
    #[must_use]
    pub fn without_trees(&self) -> Option<Self> {
        match self {
            Self::Tree(delta) => Some(Self::Push(delta.clone())),
            _ => None,
        }
    }

    /// The owners of the updates in it, and of those that it announces.
    #[must_use]
    pub fn owners(&self) -> Vec<NodeId> {
        match self {
            Self::Push(delta) | Self::Tree(delta) => {
                delta.nodes.iter().map(|delta| delta.node.clone()).collect()
            }
            Self::Have(haves) => haves.iter().map(|have| have.node.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Which traffic it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Push(delta) | Self::Tree(delta)
                if delta.nodes.iter().any(|node| !node.entries.is_empty()) =>
            {
                Class::State
            }
            _ => Class::Liveness,
        }
    }
}
