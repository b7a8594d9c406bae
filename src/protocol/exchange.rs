//! Both halves of an exchange, step by step, without the network between them.
//!
//! ```text
//! initiator                                   responder
//!     Syn{digest}             ------->        storage answers
//!     storage merges          <-------        SynAck{wants, delta}
//!     Ack{delta}              ------->        storage applies
//! ```
//!
//! While a budget cuts a delta, on either side, the initiator opens the next round on the same stream
//! at once, so that bulk runs at stream speed.

use std::sync::Arc;

use super::{delta::Delta, digest::Digest, gossip::Gossip, message::Message};

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
}

/// What storage answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Ask::Digest`].
    Digest(Arc<Digest>),
    /// To [`Ask::Answer`].
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
}

/// The half that opens the stream.
#[derive(Debug)]
pub struct Initiator {
    rounds: u32,
    digest: Arc<Digest>,
    wants: Digest,
    phase: Phase,
    /// The peer's answer to this round had news.
    told: bool,
    /// The peer got further since the last round.
    moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opened,
    Closing { more: bool },
}

/// The half that answers.
#[derive(Debug, Default)]
pub struct Responder {
    rounds: u32,
    more: bool,
    answered: bool,
}

impl Initiator {
    /// Opens an exchange with this digest.
    #[must_use]
    pub fn open(digest: Arc<Digest>) -> (Self, Step) {
        let syn = Message::Syn { digest: (*digest).clone() };
        let wants = Digest::default();
        let this =
            Self { rounds: 1, digest, wants, phase: Phase::Opened, told: false, moved: false };
        (this, Step::Send(syn))
    }
}

impl Half for Initiator {
    fn frame(&mut self, message: Message) -> Step {
        match message {
            Message::SynAck { wants, delta } if self.phase == Phase::Opened => {
                self.phase = Phase::Closing { more: delta.more };
                self.told = !delta.is_empty();
                self.moved = self.rounds == 1 || self.wants != wants;
                self.wants = wants.clone();
                Step::Ask(Ask::Merge { wants, delta: Arc::new(delta) })
            }
            _ => Step::Broken(Breach::Order),
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match (reply, self.phase) {
            (Reply::Merged(delta), Phase::Closing { more }) => {
                self.phase = Phase::Closing { more: more || delta.more };
                Step::Send(Message::Ack { delta })
            }
            (Reply::Digest(digest), Phase::Closing { more: true }) => self.again(digest),
            _ => Step::Broken(Breach::Order),
        }
    }

    fn sent(&mut self) -> Step {
        match self.phase {
            Phase::Opened => Step::Read,
            Phase::Closing { more: false } => Step::Done,
            Phase::Closing { more: true } if self.rounds >= ROUNDS_MAX => {
                Step::Broken(Breach::Rounds)
            }
            Phase::Closing { more: true } => Step::Ask(Ask::Digest),
        }
    }
}

impl Initiator {
    /// The next round, unless the last one has moved neither side: a peer that refuses what it is
    /// sent wants the same again, and that must end.
    fn again(&mut self, digest: Arc<Digest>) -> Step {
        let moved = self.moved || (self.told && *digest != *self.digest);
        if !moved {
            return Step::Done;
        }
        self.rounds += 1;
        self.phase = Phase::Opened;
        self.digest = Arc::clone(&digest);
        Step::Send(Message::Syn { digest: (*digest).clone() })
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
    pub const fn may_end(&self) -> bool {
        !self.answered && self.rounds > 0
    }
}

impl Half for Responder {
    fn frame(&mut self, message: Message) -> Step {
        match message {
            Message::Syn { .. } if self.rounds >= ROUNDS_MAX => Step::Broken(Breach::Rounds),
            Message::Syn { digest } if !self.answered => {
                self.rounds += 1;
                Step::Ask(Ask::Answer { digest: Arc::new(digest) })
            }
            Message::Ack { delta } if self.answered => {
                self.answered = false;
                self.more |= delta.more;
                Step::Ask(Ask::Apply { delta: Arc::new(delta) })
            }
            _ => Step::Broken(Breach::Order),
        }
    }

    fn reply(&mut self, reply: Reply) -> Step {
        match reply {
            Reply::Answer { wants, delta } => {
                self.answered = true;
                self.more = delta.more;
                Step::Send(Message::SynAck { wants, delta })
            }
            Reply::Applied if self.more => Step::Read,
            Reply::Applied => Step::Done,
            _ => Step::Broken(Breach::Order),
        }
    }

    fn sent(&mut self) -> Step {
        Step::Read
    }
}
