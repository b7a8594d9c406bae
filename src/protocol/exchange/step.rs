//! The steps of a half of an exchange: its messages, its requests, and the replies.

use std::sync::Arc;

use crate::protocol::{
    delta::{Delta, TURN_ENTRIES_MAX, TURN_NODES_MAX},
    digest::Digest,
    gossip::{Gossip, Have},
    id::NodeId,
    message::Message,
    route::Counter,
    sketch::Sketch,
};

/// Most deltas pulled on one stream: far beyond the largest state in the smallest deltas; a peer that always
/// says "more" is disconnected at this number.
pub const CHUNKS_MAX: u32 = 1 << 20;

/// The next action for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask storage, and come back with the reply.
    Ask(Ask),
    /// Send this, and say when it is sent.
    Send(Message),
    /// Read the next frame.
    Read,
    /// It has completed.
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
        /// The lines of what the peer wants.
        wants: Digest,
        /// Its delta.
        delta: Arc<Delta>,
    },
    /// [`Replica::apply`](crate::protocol::replica::Replica::apply).
    Apply {
        /// The peer's delta.
        delta: Arc<Delta>,
    },
    /// Not a part of an exchange: frames that the peer sends unasked, in their order.
    Gossip(Vec<Gossip>),
    /// Not a part of an exchange: the peer has sent updates that were here already. It reaches this far.
    Repeated(Vec<Have>),
    /// [`Replica::sketch`](crate::protocol::replica::Replica::sketch).
    Sketch,
    /// [`Replica::lines`](crate::protocol::replica::Replica::lines).
    Lines {
        /// Of these nodes, known or not.
        nodes: Arc<[NodeId]>,
        /// And of the known nodes with these ids.
        ids: Arc<[u32]>,
    },
    /// [`Replica::answer_lines`](crate::protocol::replica::Replica::answer_lines).
    AnswerLines {
        /// Some lines of the peer's digest.
        lines: Arc<Digest>,
        /// The ids of nodes that the peer does not know.
        unknown: Arc<[u32]>,
    },
    /// [`Replica::pull`](crate::protocol::replica::Replica::pull).
    Pull {
        /// The nodes in question; `None`: all.
        about: Option<Arc<[NodeId]>>,
    },
    /// [`Replica::feed`](crate::protocol::replica::Replica::feed).
    Feed {
        /// How far the peer will be once it has received everything that was sent.
        digest: Digest,
        /// Nodes that are not listed are unknown to it; otherwise they are not in question.
        all: bool,
    },
    /// [`Replica::take`](crate::protocol::replica::Replica::take).
    Take {
        /// The delta that was pulled.
        delta: Arc<Delta>,
    },
}

impl Ask {
    /// The same in parts, each of it for one turn of storage: one frame must not keep storage from other
    /// inputs for long. The answer is that to the last part, unless one before it is
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
            Self::Gossip(frames) => frames_in_turns(frames).into_iter().map(Self::Gossip).collect(),
            ask => vec![ask],
        }
    }
}

/// As many frames for each turn as one turn may take.
fn frames_in_turns(frames: Vec<Gossip>) -> Vec<Vec<Gossip>> {
    let parts = |frame| match frame {
        Gossip::Push(delta) => delta.turns().into_iter().map(Gossip::Push).collect(),
        Gossip::Tree(delta) => delta.turns().into_iter().map(Gossip::Tree).collect(),
        frame => vec![frame],
    };
    let size =
        |frame: &Gossip| frame.news().map_or((1, 0), |(_, delta)| (delta.nodes.len(), delta.len()));
    let mut turns: Vec<Vec<Gossip>> = Vec::new();
    let (mut nodes, mut entries) = (0, 0);
    for frame in frames.into_iter().flat_map(parts) {
        let (more_nodes, more_entries) = size(&frame);
        (nodes, entries) = (nodes + more_nodes, entries + more_entries);
        match turns.last_mut().filter(|_| nodes <= TURN_NODES_MAX && entries <= TURN_ENTRIES_MAX) {
            Some(turn) => turn.push(frame),
            None => {
                (nodes, entries) = (more_nodes, more_entries);
                turns.push(vec![frame]);
            }
        }
    }
    turns
}

/// The reply of storage.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Ask::Digest`].
    Digest(Arc<Digest>),
    /// To [`Ask::Answer`] and [`Ask::AnswerLines`].
    Answer {
        /// The lines in which we are behind.
        wants: Digest,
        /// The delta that the peer lacks.
        delta: Delta,
    },
    /// To [`Ask::Merge`]: the delta that the peer wants.
    Merged(Delta),
    /// To [`Ask::Apply`].
    Applied,
    /// To [`Ask::Gossip`] and [`Ask::Repeated`].
    Taken,
    /// To [`Ask::Sketch`].
    Sketch(Sketch),
    /// To [`Ask::Lines`].
    Lines {
        /// The lines.
        lines: Digest,
        /// The ids of no known node.
        unknown: Vec<u32>,
    },
    /// To [`Ask::Pull`]: how far our copies reach; `None` if we pull from another peer.
    Pull(Option<Digest>),
    /// To [`Ask::Feed`].
    Fed {
        /// How far the peer will be with it.
        digest: Digest,
        /// The delta that it lacks.
        delta: Delta,
    },
    /// To [`Ask::Take`]: whether it was useful.
    Took(bool),
}

/// A violation of the order of the protocol.
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

/// One half of an exchange. The shell executes each [`Step`] and comes back with the outcome.
pub trait Half {
    /// A frame arrived, after [`Step::Read`].
    fn frame(&mut self, message: Message) -> Step;
    /// Storage replied, after [`Step::Ask`].
    fn reply(&mut self, reply: Reply) -> Step;
    /// The message is on its way, after [`Step::Send`].
    fn sent(&mut self) -> Step;
    /// Whether it carries bulk just now: if it breaks off, storage has to be informed
    /// ([`StorageInput::BulkBroken`](crate::protocol::route::StorageInput::BulkBroken)).
    fn is_bulk(&self) -> bool;
    /// The counter to raise since the last call; asked after each of the above.
    fn counted(&mut self) -> Option<Counter>;
}

/// The nodes that these lines are of.
pub(super) fn named(lines: &Digest) -> Vec<NodeId> {
    lines.entries.iter().map(|line| line.node.clone()).collect()
}

/// The reaction to a frame that comes out of order.
pub(super) const BROKEN: Step = Step::Broken(Breach::Order);
