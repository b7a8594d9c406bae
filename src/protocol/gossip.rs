//! The frames that neighbours send each other unasked, on one stream per direction of a connection: updates,
//! and the messages that keep spreading them cheap.
//!
//! An update goes to all neighbours at once, and each node to which it is new passes it on once (flooding).
//! Large or frequent updates go only along the edges of a tree; the other edges carry a note that an update
//! is available (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS 2007): [`Gossip::Have`],
//! [`Gossip::Graft`], [`Gossip::Prune`].

use bincode::{Decode, Encode, de::Decoder, error::DecodeError, impl_borrow_decode};

use super::{
    delta::{ANCESTRY_MAX, Delta},
    digest::DigestEntry,
    id::{Generation, Incarnation, NodeId, Version},
    list::few,
    overlay::NEIGHBOURS,
    record::NodeRecord,
    revocation::{REVOCATIONS_MAX, Revocation},
    seal::Seal,
    verdict::Verdict,
};

/// Most owners named in one [`Gossip::Have`], [`Gossip::Graft`] or [`Gossip::Prune`].
pub const OWNERS_MAX: usize = 1_024;
/// Most nodes that an [`Echo`] names.
pub const BEHIND_MAX: usize = 100;
/// Most nodes that an [`Accusation`] names: two rings of neighbours, since views differ a little.
pub const OBSERVERS_MAX: usize = 2 * NEIGHBOURS;

/// One frame between neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub enum Gossip {
    /// The root of the sender's state: if it differs from ours, our copies differ.
    Root(u64),
    /// An update. If it does not connect to the receiver's copy, the receiver asks for the missing versions
    /// and never skips them.
    Push(Delta),
    /// Updates that the sender can supply.
    Have(Vec<Have>),
    /// Asks for the missing versions of these owners, and for all their updates from now on.
    Graft(Vec<DigestEntry>),
    /// The sender receives updates of these owners from another node: only notes from now on.
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
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Equivocation {
    /// The node that has signed both.
    pub node: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The two.
    pub heads: [SignedHead; 2],
}

/// All that an owner has signed together, and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
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

/// Asks the observers of a node whether they hear it. Each node passes the question on once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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

/// An answer, which goes back the way that the question came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// The node that answers; it may be the subject itself.
    pub observer: NodeId,
    /// Whether it hears the subject.
    pub hears: bool,
}

/// The verdict of a quorum on a node. Each node to which it is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
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

/// All nodes are to forget a node, at the request of a person. The node itself ignores this; if it lives
/// after all, it refutes it with a later incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    /// The node.
    pub subject: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// And up to which incarnation.
    pub incarnation: Incarnation,
}

/// Revocations of certificates. Each node to which a statement is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct RevocationList {
    /// At most [`REVOCATIONS_MAX`].
    pub statements: Vec<Revocation>,
    /// The statements are all that the sender knows: it asks for the others.
    pub all: bool,
}

/// How far the sender's copy of one node reaches.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Have {
    /// The owner of the keys.
    pub node: NodeId,
    /// The owner's generation.
    pub generation: Generation,
    /// Up to which version.
    pub version: Version,
}

/// Asks all nodes which of them have the origin's version. (The echo algorithm, Chang, 1982.)
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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

/// The answer of a node, and of all nodes behind it, to a wave.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
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

// Derived, these would decode a list of any length before its limit is checked.

impl<C> Decode<C> for Gossip {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
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
            kind => return Err(DecodeError::OtherString(format!("unknown gossip {kind}"))),
        })
    }
}

impl<C> Decode<C> for SignedHead {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
        Ok(Self {
            ancestry: few(from, ANCESTRY_MAX)?,
            gc_floor: Decode::decode(from)?,
            torn: Decode::decode(from)?,
            record: Decode::decode(from)?,
            seal: Decode::decode(from)?,
        })
    }
}

impl<C> Decode<C> for Accusation {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
        Ok(Self {
            subject: Decode::decode(from)?,
            generation: Decode::decode(from)?,
            verdict: Decode::decode(from)?,
            observers: few(from, OBSERVERS_MAX)?,
        })
    }
}

impl<C> Decode<C> for RevocationList {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { statements: few(from, REVOCATIONS_MAX)?, all: Decode::decode(from)? })
    }
}

impl<C> Decode<C> for Echo {
    fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
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

impl_borrow_decode!(Gossip);
impl_borrow_decode!(SignedHead);
impl_borrow_decode!(Accusation);
impl_borrow_decode!(RevocationList);
impl_borrow_decode!(Echo);

impl Gossip {
    /// Which traffic it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Push(delta) if delta.nodes.iter().any(|node| !node.entries.is_empty()) => {
                Class::State
            }
            _ => Class::Liveness,
        }
    }
}
