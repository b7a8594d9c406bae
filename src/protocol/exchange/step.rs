//! What a half of an exchange says, asks and is told.

use std::sync::Arc;

use crate::protocol::{
    delta::Delta, digest::Digest, gossip::Gossip, id::NodeId, message::Message, route::Counter,
    sketch::Sketch,
};

/// Most deltas pulled on one stream: far beyond the largest state in the smallest deltas; a peer that
/// always says "more" is cut off here.
pub const CHUNKS_MAX: u32 = 1 << 20;

/// What the shell has to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask storage, and come back with the reply.
    Ask(Ask),
    /// Send this, and say when it is sent.
    Send(Message),
    /// Read the next frame.
    Read,
    /// It is over, and went through.
    Done,
    /// The peer broke the order of the protocol, or a limit: break off.
    Broken(Breach),
}

/// A call into storage.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// [`Replica::digest`](crate::protocol::replica::Replica::digest).
    Digest,
    /// [`Replica::answer`](crate::protocol::replica::Replica::answer).
    Answer {
        /// The peer's.
        digest: Arc<Digest>,
    },
    /// [`Replica::merge`](crate::protocol::replica::Replica::merge).
    Merge {
        /// What the peer wants.
        wants: Digest,
        /// Its news.
        delta: Arc<Delta>,
    },
    /// [`Replica::apply`](crate::protocol::replica::Replica::apply).
    Apply {
        /// The peer's news.
        delta: Arc<Delta>,
    },
    /// No part of an exchange: what the peer tells unasked.
    Gossip(Box<Gossip>),
    /// [`Replica::sketch`](crate::protocol::replica::Replica::sketch).
    Sketch,
    /// [`Replica::lines`](crate::protocol::replica::Replica::lines).
    Lines {
        /// Of these nodes, known or not.
        nodes: Arc<[NodeId]>,
        /// And of those known nodes that these stand for.
        ids: Arc<[u32]>,
    },
    /// [`Replica::answer_lines`](crate::protocol::replica::Replica::answer_lines).
    AnswerLines {
        /// Some lines of the peer's digest.
        lines: Arc<Digest>,
        /// What stands for nodes that the peer does not know.
        unknown: Arc<[u32]>,
    },
    /// [`Replica::pull`](crate::protocol::replica::Replica::pull).
    Pull {
        /// What these nodes are asked about; `None`: everybody.
        about: Option<Arc<[NodeId]>>,
    },
    /// [`Replica::feed`](crate::protocol::replica::Replica::feed).
    Feed {
        /// How far the peer will be once it has all that it was sent.
        digest: Digest,
        /// Nodes that are not listed are unknown to it; otherwise they are not asked about.
        all: bool,
    },
    /// [`Replica::take`](crate::protocol::replica::Replica::take).
    Take {
        /// What was pulled.
        delta: Arc<Delta>,
    },
}

impl Ask {
    /// The same in parts, each of it for one turn of storage: what one frame holds is not to keep it
    /// from others for long. The answer is that to the last part, unless one before it is
    /// [`Reply::Took`]`(false)`.
    #[must_use]
    pub fn turns(self) -> Vec<Self> {
        let parts = |delta: Arc<Delta>| {
            Arc::unwrap_or_clone(delta).turns().into_iter().map(Arc::new).collect::<Vec<_>>()
        };
        match self {
            Self::Apply { delta } => {
                parts(delta).into_iter().map(|delta| Self::Apply { delta }).collect()
            }
            Self::Take { delta } => {
                parts(delta).into_iter().map(|delta| Self::Take { delta }).collect()
            }
            Self::Merge { wants, delta } => {
                let mut parts = parts(delta);
                let last = parts.pop().unwrap_or_default();
                let before = parts.into_iter().map(|delta| Self::Apply { delta });
                before.chain([Self::Merge { wants, delta: last }]).collect()
            }
            Self::Gossip(gossip) => match *gossip {
                Gossip::Push(delta) => {
                    let parts = delta.turns().into_iter();
                    parts.map(|delta| Self::Gossip(Box::new(Gossip::Push(delta)))).collect()
                }
                gossip => vec![Self::Gossip(Box::new(gossip))],
            },
            ask => vec![ask],
        }
    }
}

/// What storage answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Ask::Digest`].
    Digest(Arc<Digest>),
    /// To [`Ask::Answer`] and [`Ask::AnswerLines`].
    Answer {
        /// Where we are behind.
        wants: Digest,
        /// What the peer lacks.
        delta: Delta,
    },
    /// To [`Ask::Merge`]: what the peer wants.
    Merged(Delta),
    /// To [`Ask::Apply`].
    Applied,
    /// To [`Ask::Gossip`].
    Taken,
    /// To [`Ask::Sketch`].
    Sketch(Sketch),
    /// To [`Ask::Lines`].
    Lines {
        /// The lines.
        lines: Digest,
        /// The ids of nobody who is known.
        unknown: Vec<u32>,
    },
    /// To [`Ask::Pull`]: how far we are; `None` if we pull from somebody else.
    Pull(Option<Digest>),
    /// To [`Ask::Feed`].
    Fed {
        /// How far the peer will be with it.
        digest: Digest,
        /// What it lacks.
        delta: Delta,
    },
    /// To [`Ask::Take`]: whether there was any use in it.
    Took(bool),
}

/// How a peer broke the order of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// A frame that does not come at this place.
    #[error("a frame out of order")]
    Order,
    /// The stream goes on for ever.
    #[error("more on one stream than any state is worth")]
    Endless,
}

/// One half of an exchange. The shell does what each [`Step`] says and comes back with the outcome.
pub trait Half {
    /// A frame arrived, after [`Step::Read`].
    fn frame(&mut self, message: Message) -> Step;
    /// Storage replied, after [`Step::Ask`].
    fn reply(&mut self, reply: Reply) -> Step;
    /// The message is on its way, after [`Step::Send`].
    fn sent(&mut self) -> Step;
    /// Whether it carries bulk just now: if it breaks off, storage is to be told
    /// ([`StorageInput::BulkBroken`](crate::protocol::route::StorageInput::BulkBroken)).
    fn is_bulk(&self) -> bool;
    /// What is to be counted since the last call; asked after each of the above.
    fn counted(&mut self) -> Option<Counter>;
}

/// The nodes that these lines are of.
pub(super) fn named(lines: &Digest) -> Vec<NodeId> {
    lines.entries.iter().map(|line| line.node.clone()).collect()
}

/// The answer to whatever comes out of order.
pub(super) const BROKEN: Step = Step::Broken(Breach::Order);
