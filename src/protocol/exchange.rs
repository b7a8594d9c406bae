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
//! While a budget cuts a delta, on either side, the initiator opens the next round on the same stream
//! at once, so that bulk runs at stream speed: with `Syn`, or with `Lines` of those that differed.

use std::sync::Arc;

use self::difference::{Finder, Found, Named, Teller};
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

/// Most rounds on one stream: far beyond the largest state in the smallest deltas; a peer that
/// always says "more" is cut off here.
pub const ROUNDS_MAX: u32 = 1 << 20;

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
    #[error("more than {ROUNDS_MAX} rounds on one stream")]
    Rounds,
}

/// One half of an exchange. The shell does what each [`Step`] says and comes back with the outcome.
pub trait Half {
    /// A frame arrived, after [`Step::Read`].
    fn frame(&mut self, message: Message) -> Step;
    /// Storage replied, after [`Step::Ask`].
    fn reply(&mut self, reply: Reply) -> Step;
    /// The message is on its way, after [`Step::Send`].
    fn sent(&mut self) -> Step;
    /// What is to be counted since the last call; asked after each of the above.
    fn counted(&mut self) -> Option<Counter>;
}

/// The half that opens the stream.
#[derive(Debug)]
pub struct Initiator {
    rounds: u32,
    phase: Phase,
    /// The digest or the lines that this round was opened with.
    opened: Arc<Digest>,
    /// What the peer wanted in the last round.
    wants: Option<Digest>,
    /// The peer's answer to this round had news.
    told: bool,
    /// The peer got further since the last round.
    moved: bool,
    /// A budget has cut a delta of this round.
    more: bool,
    teller: Option<Teller>,
    /// What all rounds are about, if only some lines differ.
    named: Option<Named>,
    counted: Option<Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Cells are told until the peer knows what differs.
    Telling,
    /// The lines that differ are being answered.
    Answering,
    /// They are answered; the peer closes the round.
    Answered,
    /// The round is open.
    Opened,
    /// The round is being closed.
    Closing,
}

/// The half that answers.
#[derive(Debug, Default)]
pub struct Responder {
    rounds: u32,
    more: bool,
    owed: Owed,
    finder: Finder,
    /// The ids that the peer alone has.
    theirs: Vec<u32>,
    counted: Option<Counter>,
}

/// What the peer has to send before the stream may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    /// The start of a round.
    #[default]
    Round,
    /// More cells, or the start of a round.
    Cells,
    /// The answer to the lines that differ.
    SynAck,
    /// What we want.
    Ack,
    /// Nothing: nothing differs, or it was the last round.
    Nothing,
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
        (Self::new(Phase::Opened, digest, None), Step::Send(syn))
    }

    /// Opens an exchange about what differs from this sketch.
    #[must_use]
    pub fn compare(sketch: Sketch) -> (Self, Step) {
        let (teller, step) = Teller::open(sketch);
        (Self::new(Phase::Telling, Arc::default(), Some(teller)), step)
    }

    const fn new(phase: Phase, opened: Arc<Digest>, teller: Option<Teller>) -> Self {
        Self {
            rounds: 1,
            phase,
            opened,
            wants: None,
            told: false,
            moved: false,
            more: false,
            teller,
            named: None,
            counted: None,
        }
    }
}

impl Half for Initiator {
    fn frame(&mut self, message: Message) -> Step {
        match (message, self.phase) {
            (Message::SynAck { wants, delta }, Phase::Opened) => {
                self.phase = Phase::Closing;
                self.more = delta.more;
                self.told = !delta.is_empty();
                self.moved = self.wants.as_ref() != Some(&wants);
                self.wants = Some(wants.clone());
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
                self.more |= delta.more;
                Step::Ask(Ask::Apply { delta: Arc::new(delta) })
            }
            _ => BROKEN,
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match (reply, self.phase) {
            (Reply::Digest(digest), Phase::Telling) => match &mut self.teller {
                Some(teller) => teller.deepen(&digest),
                None => self.begin(digest),
            },
            (Reply::Answer { wants, delta }, Phase::Answering) => {
                self.phase = Phase::Answered;
                self.more = delta.more;
                Step::Send(Message::SynAck { wants, delta })
            }
            (Reply::Applied, Phase::Closing) => self.next(),
            (Reply::Merged(delta), Phase::Closing) => {
                self.more |= delta.more;
                Step::Send(Message::Ack { delta })
            }
            (Reply::Digest(digest), Phase::Closing) => self.again(digest),
            (Reply::Lines { lines, .. }, Phase::Closing) => self.again(Arc::new(lines)),
            _ => BROKEN,
        }
    }

    fn sent(&mut self) -> Step {
        match self.phase {
            Phase::Closing => self.next(),
            _ => Step::Read,
        }
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
        let (lines, unknown) = (Arc::new(lines), Arc::from(unknown));
        let nodes = lines.entries.iter().map(|line| line.node.clone()).collect();
        self.named = Some(Named { nodes, ids: Arc::clone(&unknown) });
        Step::Ask(Ask::AnswerLines { lines, unknown })
    }

    fn next(&self) -> Step {
        if !self.more {
            return Step::Done;
        }
        if self.rounds >= ROUNDS_MAX {
            return Step::Broken(Breach::Rounds);
        }
        Step::Ask(match &self.named {
            None => Ask::Digest,
            Some(Named { nodes, ids }) => {
                Ask::Lines { nodes: Arc::clone(nodes), ids: Arc::clone(ids) }
            }
        })
    }

    /// The next round, unless the last one has moved neither side: a peer that refuses what it is
    /// sent wants the same again, and that must end.
    fn again(&mut self, digest: Arc<Digest>) -> Step {
        let first = self.wants.is_none();
        let moved = first || self.moved || (self.told && *digest != *self.opened);
        if !moved {
            return Step::Done;
        }
        self.rounds += 1;
        self.begin(digest)
    }

    fn begin(&mut self, opened: Arc<Digest>) -> Step {
        self.phase = Phase::Opened;
        self.opened = Arc::clone(&opened);
        let digest = (*opened).clone();
        Step::Send(match self.named {
            None => Message::Syn { digest },
            Some(_) => Message::Lines { lines: digest },
        })
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
        self.rounds > 0 && matches!(self.owed, Owed::Round | Owed::Nothing)
    }
}

impl Half for Responder {
    fn frame(&mut self, message: Message) -> Step {
        match (message, self.owed) {
            (Message::Syn { .. } | Message::Lines { .. }, Owed::Round | Owed::Cells)
                if self.rounds >= ROUNDS_MAX =>
            {
                Step::Broken(Breach::Rounds)
            }
            (Message::Syn { digest }, Owed::Round | Owed::Cells) => {
                self.rounds += 1;
                Step::Ask(Ask::Answer { digest: Arc::new(digest) })
            }
            (Message::Lines { lines }, Owed::Round) => {
                self.rounds += 1;
                let (lines, unknown) = (Arc::new(lines), Arc::default());
                Step::Ask(Ask::AnswerLines { lines, unknown })
            }
            (Message::Cells(cells), Owed::Round | Owed::Cells) if self.rounds == 0 => {
                let found = self.finder.take(cells);
                self.found(found)
            }
            (Message::SynAck { wants, delta }, Owed::SynAck) => {
                self.rounds += 1;
                self.more = delta.more;
                Step::Ask(Ask::Merge { wants, delta: Arc::new(delta) })
            }
            (Message::Ack { delta }, Owed::Ack) => {
                self.owed = Owed::Round;
                self.more |= delta.more;
                Step::Ask(Ask::Apply { delta: Arc::new(delta) })
            }
            _ => BROKEN,
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match reply {
            Reply::Answer { wants, delta } => {
                self.owed = Owed::Ack;
                self.more = delta.more;
                Step::Send(Message::SynAck { wants, delta })
            }
            Reply::Applied if self.more => Step::Read,
            Reply::Applied => Step::Done,
            Reply::Merged(delta) => {
                self.more |= delta.more;
                self.owed = if self.more { Owed::Round } else { Owed::Nothing };
                Step::Send(Message::Ack { delta })
            }
            Reply::Sketch(sketch) => {
                let found = self.finder.compare(sketch);
                self.found(found)
            }
            Reply::Digest(digest) => {
                let found = self.finder.deepen(&digest);
                self.found(found)
            }
            Reply::Lines { lines, mut unknown } => {
                unknown.append(&mut self.theirs);
                unknown.sort_unstable();
                unknown.dedup();
                self.differ(lines, unknown)
            }
            Reply::Taken => BROKEN,
        }
    }

    fn sent(&mut self) -> Step {
        if self.owed == Owed::Nothing { Step::Done } else { Step::Read }
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
                self.owed = Owed::Round;
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
        self.counted = Some(Counter::ReconciledBySketch);
        Step::Send(Message::Differ { lines, unknown })
    }
}

const BROKEN: Step = Step::Broken(Breach::Order);
