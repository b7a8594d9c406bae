//! Both halves of an exchange, step by step, without the network between them.
//!
//! ```text
//! initiator                                   responder
//!     Syn{digest}             ------->        storage answers
//!     storage merges          <-------        SynAck{wants, delta}
//!     Ack{delta}              ------->        storage applies
//! ```
//!
//! In a large cluster a full digest says mostly what the other knows as well. There the initiator
//! opens with a [`sketch`](super::sketch), and only the lines that differ are told. If they are too
//! many, the responder says `Full`, and the exchange is the one above.
//!
//! ```text
//!     Cells                   ------->        decodes
//!                             <-------        Further, until it knows the difference
//!     Cells                   ------->
//!     storage answers         <-------        Differ{digest, unknown}
//!     SynAck{wants, delta}    ------->        storage merges
//!     storage applies         <-------        Ack{delta}
//! ```
//!
//! If a budget has cut a delta, the side that lacks the rest may pull it on the same stream (see
//! [`bulk`](super::bulk)): first the initiator, then the responder.
//!
//! ```text
//! who lacks                                   who has
//!     Pull{digest}            ------->
//!                             <-------        More{delta}
//!                             <-------        More{delta}, as fast as the stream takes them
//! ```

use std::sync::Arc;

use self::{
    difference::{Finder, Found, Teller},
    pulling::{Moved, Pulling},
};
use super::{
    delta::Delta,
    digest::Digest,
    gossip::Gossip,
    id::NodeId,
    message::Message,
    route::Counter,
    sketch::{GiveUp, Sketch},
};

mod difference;
mod pulling;

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
    /// [`Replica::digest`](super::replica::Replica::digest).
    Digest,
    /// [`Replica::answer`](super::replica::Replica::answer).
    Answer {
        /// The peer's.
        digest: Arc<Digest>,
    },
    /// [`Replica::merge`](super::replica::Replica::merge).
    Merge {
        /// What the peer wants.
        wants: Digest,
        /// Its news.
        delta: Arc<Delta>,
    },
    /// [`Replica::apply`](super::replica::Replica::apply).
    Apply {
        /// The peer's news.
        delta: Arc<Delta>,
    },
    /// No part of an exchange: what the peer tells unasked.
    Gossip(Box<Gossip>),
    /// [`Replica::sketch`](super::replica::Replica::sketch).
    Sketch,
    /// [`Replica::lines`](super::replica::Replica::lines).
    Lines {
        /// Of these nodes, known or not.
        nodes: Arc<[NodeId]>,
        /// And of those known nodes that these stand for.
        ids: Arc<[u32]>,
    },
    /// [`Replica::answer_lines`](super::replica::Replica::answer_lines).
    AnswerLines {
        /// Some lines of the peer's digest.
        lines: Arc<Digest>,
        /// What stands for nodes that the peer does not know.
        unknown: Arc<[u32]>,
    },
    /// [`Replica::pull`](super::replica::Replica::pull).
    Pull {
        /// What these nodes are asked about; `None`: everybody.
        about: Option<Arc<[NodeId]>>,
    },
    /// [`Replica::feed`](super::replica::Replica::feed).
    Feed {
        /// How far the peer will be once it has all that it was sent.
        digest: Digest,
        /// Nodes that are not listed are unknown to it; otherwise they are not asked about.
        all: bool,
    },
    /// [`Replica::take`](super::replica::Replica::take).
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

/// What an exchange is opened with.
#[derive(Clone, Debug)]
pub enum Summary {
    /// All lines.
    Digest(Arc<Digest>),
    /// Their sums.
    Sketch(Sketch),
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
    /// ([`StorageInput::BulkBroken`](super::route::StorageInput::BulkBroken)).
    fn is_bulk(&self) -> bool;
    /// What is to be counted since the last call; asked after each of the above.
    fn counted(&mut self) -> Option<Counter>;
}

/// The half that opens the stream.
#[derive(Debug)]
pub struct Initiator {
    phase: Phase,
    teller: Option<Teller>,
    rest: Rest,
    pulling: Pulling,
    counted: Option<Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Cells are told until the peer knows what differs.
    Telling,
    /// The lines that differ are being answered.
    Answering,
    /// They are answered; the peer closes.
    Answered,
    /// Opened with all lines.
    Opened,
    /// Both are being told what one delta is enough for.
    Closing,
    /// We pull what it was too small for.
    First,
    /// The peer does.
    Second,
}

/// The half that answers.
#[derive(Debug, Default)]
pub struct Responder {
    owed: Owed,
    finder: Finder,
    /// The ids that the peer alone has.
    theirs: Vec<u32>,
    rest: Rest,
    pulling: Pulling,
    counted: Option<Counter>,
}

/// What the peer has to send before the stream may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    /// The start.
    #[default]
    Start,
    /// More cells, or all lines.
    Cells,
    /// All lines: it has been told that cells will not do.
    Syn,
    /// The answer to the lines that differ.
    SynAck,
    /// What we want.
    Ack,
    /// Nothing: both have been told.
    Closing,
    /// Whether it pulls what one delta was too small for.
    First,
    /// What we pull.
    Second,
    /// Nothing: nothing differs.
    Nothing,
}

/// What was too much for one delta.
#[derive(Clone, Debug, Default)]
struct Rest {
    /// Whose lines differ, if it is about these alone.
    about: Option<Vec<NodeId>>,
    /// The peer has more for us.
    ours: bool,
    /// We have more for the peer.
    theirs: bool,
}

impl Summary {
    /// Opens an exchange.
    #[must_use]
    pub fn open(self) -> (Initiator, Step) {
        match self {
            Self::Digest(digest) => Initiator::open(digest),
            Self::Sketch(sketch) => Initiator::compare(sketch),
        }
    }
}

impl Initiator {
    /// Opens an exchange with this digest.
    #[must_use]
    pub fn open(digest: Arc<Digest>) -> (Self, Step) {
        let syn = Message::Syn { digest: (*digest).clone() };
        (Self::new(Phase::Opened, None), Step::Send(syn))
    }

    /// Opens an exchange about what differs from this sketch.
    #[must_use]
    pub fn compare(sketch: Sketch) -> (Self, Step) {
        let (teller, step) = Teller::open(sketch);
        (Self::new(Phase::Telling, Some(teller)), step)
    }

    fn new(phase: Phase, teller: Option<Teller>) -> Self {
        Self { phase, teller, rest: Rest::default(), pulling: Pulling::default(), counted: None }
    }
}

impl Half for Initiator {
    fn frame(&mut self, message: Message) -> Step {
        match (message, self.phase) {
            (Message::SynAck { wants, delta }, Phase::Opened) => {
                self.phase = Phase::Closing;
                self.rest.ours = delta.more;
                Step::Ask(Ask::Merge { wants, delta: Arc::new(delta) })
            }
            (Message::Further { cells }, Phase::Telling) => match &mut self.teller {
                Some(teller) => teller.further(cells),
                None => BROKEN,
            },
            (Message::Full, Phase::Telling) => {
                self.teller = None;
                self.counted = Some(Counter::SketchFallbacks);
                Step::Ask(Ask::Digest)
            }
            (Message::Differ { lines, unknown }, Phase::Telling) => {
                self.teller = None;
                self.counted = Some(Counter::ReconciledBySketch);
                self.differ(lines, unknown)
            }
            (Message::Ack { delta }, Phase::Answered) => {
                self.phase = Phase::Closing;
                self.rest.ours = delta.more;
                Step::Ask(Ask::Apply { delta: Arc::new(delta) })
            }
            (message, Phase::First | Phase::Second) => {
                let moved = self.pulling.frame(message);
                self.after(moved)
            }
            _ => BROKEN,
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match (reply, self.phase) {
            (Reply::Digest(digest), Phase::Telling) => match &mut self.teller {
                Some(teller) => teller.deepen(&digest),
                None => {
                    self.phase = Phase::Opened;
                    Step::Send(Message::Syn { digest: (*digest).clone() })
                }
            },
            (Reply::Answer { wants, delta }, Phase::Answering) => {
                self.phase = Phase::Answered;
                self.rest.theirs = delta.more;
                Step::Send(Message::SynAck { wants, delta })
            }
            (Reply::Applied, Phase::Closing) => self.next(),
            (Reply::Merged(delta), Phase::Closing) => {
                self.rest.theirs = delta.more;
                Step::Send(Message::Ack { delta })
            }
            (reply, Phase::First | Phase::Second) => {
                let moved = self.pulling.reply(reply);
                self.after(moved)
            }
            _ => BROKEN,
        }
    }

    fn sent(&mut self) -> Step {
        match self.phase {
            Phase::Closing => self.next(),
            Phase::First | Phase::Second => {
                let moved = self.pulling.sent();
                self.after(moved)
            }
            _ => Step::Read,
        }
    }

    fn is_bulk(&self) -> bool {
        self.pulling.is_under_way()
    }

    fn counted(&mut self) -> Option<Counter> {
        self.counted.take()
    }
}

impl Initiator {
    /// The peer knows what differs, and tells its lines.
    fn differ(&mut self, lines: Digest, unknown: Vec<u32>) -> Step {
        if lines.entries.is_empty() && unknown.is_empty() {
            return Step::Done;
        }
        self.phase = Phase::Answering;
        self.rest.about = Some(named(&lines));
        Step::Ask(Ask::AnswerLines { lines: Arc::new(lines), unknown: Arc::from(unknown) })
    }

    fn next(&mut self) -> Step {
        match self.phase {
            Phase::Closing if self.rest.ours => {
                self.phase = Phase::First;
                self.pulling.pull(self.rest.about.take())
            }
            Phase::Closing | Phase::First if self.rest.theirs => {
                self.phase = Phase::Second;
                self.pulling.expect()
            }
            _ => Step::Done,
        }
    }

    fn after(&mut self, moved: Moved) -> Step {
        match moved {
            Moved::Step(step) => step,
            Moved::Over => self.next(),
        }
    }
}

impl Responder {
    /// Waits for the first frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream may end here: nothing has been asked that was not answered.
    #[must_use]
    pub fn may_end(&self) -> bool {
        match self.owed {
            Owed::Closing | Owed::Nothing => true,
            Owed::First => !self.is_bulk(),
            _ => false,
        }
    }
}

impl Half for Responder {
    fn frame(&mut self, message: Message) -> Step {
        match (message, self.owed) {
            (Message::Syn { digest }, Owed::Start | Owed::Cells | Owed::Syn) => {
                self.finder = Finder::default();
                Step::Ask(Ask::Answer { digest: Arc::new(digest) })
            }
            (Message::Cells(cells), Owed::Start | Owed::Cells) => {
                let found = self.finder.take(cells);
                self.found(found)
            }
            (Message::SynAck { wants, delta }, Owed::SynAck) => {
                self.rest.ours = delta.more;
                let new = delta.nodes.iter().map(|news| news.node.clone());
                self.rest.about.get_or_insert_default().extend(new);
                Step::Ask(Ask::Merge { wants, delta: Arc::new(delta) })
            }
            (Message::Ack { delta }, Owed::Ack) => {
                self.owed = Owed::Closing;
                self.rest.ours = delta.more;
                Step::Ask(Ask::Apply { delta: Arc::new(delta) })
            }
            (message, Owed::First | Owed::Second) => {
                let moved = self.pulling.frame(message);
                self.after(moved)
            }
            _ => BROKEN,
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match (reply, self.owed) {
            (reply, Owed::First | Owed::Second) => {
                let moved = self.pulling.reply(reply);
                self.after(moved)
            }
            (Reply::Answer { wants, delta }, _) => {
                self.owed = Owed::Ack;
                self.rest.theirs = delta.more;
                Step::Send(Message::SynAck { wants, delta })
            }
            (Reply::Applied, Owed::Closing) => self.next(),
            (Reply::Merged(delta), Owed::SynAck) => {
                self.owed = Owed::Closing;
                self.rest.theirs = delta.more;
                Step::Send(Message::Ack { delta })
            }
            (Reply::Sketch(sketch), _) => {
                let found = self.finder.compare(sketch);
                self.found(found)
            }
            (Reply::Digest(digest), _) => {
                let found = self.finder.deepen(&digest);
                self.found(found)
            }
            (Reply::Lines { lines, mut unknown }, _) => {
                unknown.append(&mut self.theirs);
                unknown.sort_unstable();
                unknown.dedup();
                self.differ(lines, unknown)
            }
            _ => BROKEN,
        }
    }

    fn sent(&mut self) -> Step {
        match self.owed {
            Owed::Closing => self.next(),
            Owed::Nothing => Step::Done,
            Owed::First | Owed::Second => {
                let moved = self.pulling.sent();
                self.after(moved)
            }
            _ => Step::Read,
        }
    }

    fn is_bulk(&self) -> bool {
        self.pulling.is_under_way()
    }

    fn counted(&mut self) -> Option<Counter> {
        self.counted.take()
    }
}

impl Responder {
    fn found(&mut self, found: Found) -> Step {
        match found {
            Found::Step(step) => {
                self.owed = Owed::Cells;
                step
            }
            Found::Ids { ids, .. } if ids.is_empty() => self.differ(Digest::default(), Vec::new()),
            Found::Ids { ids, theirs } => {
                self.theirs = theirs;
                Step::Ask(Ask::Lines { nodes: Arc::default(), ids: Arc::from(ids) })
            }
            Found::Nothing(reason) => {
                self.owed = Owed::Syn;
                self.finder = Finder::default();
                self.counted = Some(match reason {
                    GiveUp::TooDifferent => Counter::SketchFallbacks,
                    GiveUp::Inconsistent | GiveUp::NotAskedFor => Counter::SketchesRefused,
                });
                Step::Send(Message::Full)
            }
        }
    }

    /// Tells our lines of those that differ; the peer answers them as we would answer its digest.
    fn differ(&mut self, lines: Digest, unknown: Vec<u32>) -> Step {
        let nothing = lines.entries.is_empty() && unknown.is_empty();
        self.owed = if nothing { Owed::Nothing } else { Owed::SynAck };
        self.finder = Finder::default();
        self.rest.about = Some(named(&lines));
        self.counted = Some(Counter::ReconciledBySketch);
        Step::Send(Message::Differ { lines, unknown })
    }

    fn next(&mut self) -> Step {
        match self.owed {
            Owed::Closing if self.rest.theirs => {
                self.owed = Owed::First;
                self.pulling.expect()
            }
            Owed::Closing | Owed::First if self.rest.ours => {
                self.owed = Owed::Second;
                self.pulling.pull(self.rest.about.take())
            }
            _ => Step::Done,
        }
    }

    fn after(&mut self, moved: Moved) -> Step {
        match moved {
            Moved::Step(step) => step,
            Moved::Over => self.next(),
        }
    }
}

fn named(lines: &Digest) -> Vec<NodeId> {
    lines.entries.iter().map(|line| line.node.clone()).collect()
}

const BROKEN: Step = Step::Broken(Breach::Order);
