//! What neighbours tell each other unasked, on one stream per direction of a connection: news, and
//! what keeps its spreading cheap.
//!
//! News goes to all neighbours at once and is passed on once by whoever it is new to (flooding).
//! Large or frequent news goes only along the edges of a tree, the others carry a note that it is to
//! be had (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", SRDS 2007): [`Gossip::Have`],
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
    /// The sum of what the sender knows: if it differs from ours, we know different things.
    Root(u64),
    /// News. What does not connect to what the receiver has is asked for, never skipped.
    Push(Delta),
    /// News that is to be had from the sender.
    Have(Vec<Have>),
    /// Send me what I lack of these, and from now on all news of them.
    Graft(Vec<DigestEntry>),
    /// I have the news of these from somebody else: tell me only that there is some.
    Prune(Vec<NodeId>),
    /// Who has this version? Pass it on, and answer for all behind you.
    Wave(Wave),
    /// The answer to a wave.
    Echo(Echo),
    /// Who hears this node?
    Ask(Ask),
    /// The answer of one who should hear it.
    Answer(Answer),
    /// What some agreed to think of a node.
    Accusation(Accusation),
    /// Somebody is to be forgotten by all, by hand.
    Removal(Removal),
    /// A node has signed two states as one.
    Equivocation(Box<Equivocation>),
    /// The sum of the sender's revocations: if it differs from ours, we know different ones.
    RevocationSum(u64),
    /// Statements of certificate authorities.
    Revocations(RevocationList),
}

/// Two heads of one node that it cannot have signed both and be honest: of the same life, the same version
/// and the same floor, with different roots. Everybody to whom it is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Equivocation {
    /// Who has signed both.
    pub node: NodeId,
    /// In which life.
    pub generation: Generation,
    /// The two.
    pub heads: [SignedHead; 2],
}

/// All that an owner has signed at once, and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct SignedHead {
    /// The lives that this one continues.
    pub ancestry: Vec<(Generation, Version)>,
    /// Up to which version tombstones are gone.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
    /// The record and its version.
    pub record: Option<(Version, NodeRecord)>,
    /// The rest, and the signature.
    pub seal: Seal,
}

/// A question to those who should hear a node: do you? Everybody passes it on once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// Who is not heard.
    pub subject: NodeId,
    /// In which life.
    pub generation: Generation,
    /// Who asks.
    pub asker: NodeId,
    /// Counts the questions of the asker, over all its lives.
    pub round: u64,
}

/// An answer, which goes back the way that the question came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// What was asked.
    pub ask: Ask,
    /// Who answers; it may be the subject itself.
    pub observer: NodeId,
    /// Whether it hears the subject.
    pub hears: bool,
}

/// What some agreed to think of a node. Everybody to whom it is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Accusation {
    /// Of whom.
    pub subject: NodeId,
    /// In which life.
    pub generation: Generation,
    /// What is thought of it.
    pub verdict: Verdict,
    /// Who does not hear it; at most [`OBSERVERS_MAX`].
    pub observers: Vec<NodeId>,
}

/// A node is to be forgotten by all, since a person says so. Whoever hears it does not; and it undoes
/// that by a later incarnation, if it lives after all.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    /// Who.
    pub subject: NodeId,
    /// In which life.
    pub generation: Generation,
    /// And up to which incarnation.
    pub incarnation: Incarnation,
}

/// Whose certificates are revoked. Everybody to whom a statement is new passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct RevocationList {
    /// At most [`REVOCATIONS_MAX`].
    pub statements: Vec<Revocation>,
    /// These are all that the sender knows: it wants to be told the others.
    pub all: bool,
}

/// How far the sender's copy of one node reaches.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Have {
    /// Whose keys.
    pub node: NodeId,
    /// The owner's life.
    pub generation: Generation,
    /// Up to which version.
    pub version: Version,
}

/// A question to everybody: who has my version? (The echo algorithm, Chang, 1982.)
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Wave {
    /// Who asks; the version is one of its own.
    pub origin: NodeId,
    /// Counts the waves of the origin in its present life.
    pub id: u64,
    /// The origin's life.
    pub generation: Generation,
    /// The version asked for.
    pub version: Version,
    /// How long the receiver may take to answer, in milliseconds.
    pub patience_ms: u32,
}

/// What a node and all behind it answer to a wave.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Echo {
    /// Who asked.
    pub origin: NodeId,
    /// Which wave.
    pub id: u64,
    /// How many nodes have the version.
    pub have: u32,
    /// How many have not.
    pub lack: u32,
    /// Some of those, at most [`BEHIND_MAX`].
    pub behind: Vec<NodeId>,
    /// Everybody behind it has answered it in time.
    pub complete: bool,
}

/// Which traffic goes first when there is not enough room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Who is there and who is not; roots, waves and what steers the spreading.
    Liveness,
    /// News.
    State,
    /// What a node lacks that is far behind.
    Bulk,
}

// Derived, these would decode a list of any length before anybody looks at its limit.

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
