//! Both halves of an exchange, step by step, without the network between them.
//!
//! ```text
//! initiator                                   responder
//!     Syn{digest}             ------->        storage answers
//!     storage merges          <-------        SynAck{wants, delta}
//!     Ack{delta}              ------->        storage applies
//! ```
//!
//! In a large cluster most of a full digest is already known to the other side. There the initiator opens
//! with a [`sketch`](super::sketch), and only the lines that differ are sent. If they are too many, the
//! responder says `Full`, and the exchange is the one above.
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
//! lacking side                                feeding side
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
    digest::Digest,
    id::NodeId,
    message::Message,
    route::Counter,
    sketch::{GiveUp, Sketch},
};

mod difference;
mod pulling;
mod step;

pub use step::{Ask, Breach, CHUNKS_MAX, Half, Reply, Step};

use step::{BROKEN, named};

/// The opening of an exchange.
#[derive(Clone, Debug)]
pub enum Summary {
    /// All lines.
    Digest(Arc<Digest>),
    /// Their sums.
    Sketch(Sketch),
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
    /// Cells are sent until the peer knows the difference.
    Telling,
    /// The lines that differ are being answered.
    Answering,
    /// They are answered; the peer closes.
    Answered,
    /// Opened with all lines.
    Opened,
    /// Both sides receive what fits into one delta.
    Closing,
    /// We pull the rest, which did not fit into it.
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

/// The messages that the peer has to send before the stream may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    /// The start.
    #[default]
    Start,
    /// More cells, or all lines.
    Cells,
    /// All lines: it was asked for the full digest instead of cells.
    Syn,
    /// The answer to the lines that differ.
    SynAck,
    /// The delta that we want.
    Ack,
    /// None: both have received their deltas.
    Closing,
    /// Whether it pulls the rest, which did not fit into one delta.
    First,
    /// The delta that we pull.
    Second,
    /// Nothing: nothing differs.
    Nothing,
}

/// The rest that did not fit into one delta.
#[derive(Clone, Debug, Default)]
struct Rest {
    /// The nodes whose lines differ, if the exchange is about these alone.
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

    /// Opens an exchange about the differences from this sketch.
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
    /// The peer knows the difference, and sends its lines.
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

    /// Whether the stream may end here: every request was answered.
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

    /// Sends our lines of those that differ; the peer answers them as we would answer its digest.
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
