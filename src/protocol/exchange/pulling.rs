//! The pull after an exchange if a delta was cut: one side pulls, the other feeds it.

use std::sync::Arc;

use super::step::{Ask, BROKEN, Breach, CHUNKS_MAX, Reply, Step};
use crate::protocol::{digest::Digest, id::NodeId, message::Message};

/// One pull, from the side that lacks state or the side that has it.
#[derive(Debug, Default)]
pub(super) struct Pulling {
    chunks: u32,
    /// It is about all nodes.
    all: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// The lacking side asks its storage whether it may pull.
    Asking,
    /// Deltas come; the last one is being taken, and was cut or not.
    Pulling { more: bool },
    /// The feeding side waits for the request.
    Expecting,
    /// A delta is being made up.
    Making,
    /// It is being sent; with it the peer will be this far, and there is more or not.
    Feeding { digest: Digest, more: bool },
}

/// The result of a move.
pub(super) enum Moved {
    /// Do this.
    Step(Step),
    /// The pull is over, or does not take place.
    Over,
}

impl Pulling {
    pub(super) fn pull(&mut self, about: Option<Vec<NodeId>>) -> Step {
        self.all = about.is_none();
        self.state = State::Asking;
        Step::Ask(Ask::Pull { about: about.map(Arc::from) })
    }

    pub(super) fn expect(&mut self) -> Step {
        self.state = State::Expecting;
        Step::Read
    }

    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.state, State::Pulling { .. } | State::Making | State::Feeding { .. })
    }

    pub(super) fn frame(&mut self, message: Message) -> Moved {
        match (message, &self.state) {
            (Message::More { .. }, State::Pulling { .. }) if self.chunks >= CHUNKS_MAX => {
                Moved::Step(Step::Broken(Breach::Endless))
            }
            (Message::More { delta }, State::Pulling { .. }) => {
                self.chunks += 1;
                self.state = State::Pulling { more: delta.more };
                Moved::Step(Step::Ask(Ask::Take { delta: Arc::new(delta) }))
            }
            (Message::Pull { digest: Some(digest), all }, State::Expecting) => {
                self.all = all;
                self.make(digest)
            }
            (Message::Pull { digest: None, .. }, State::Expecting) => self.over(),
            _ => Moved::Step(BROKEN),
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) -> Moved {
        match (reply, &self.state) {
            (Reply::Pull(digest), State::Asking) => {
                self.state = match digest {
                    Some(_) => State::Pulling { more: true },
                    None => State::Idle,
                };
                Moved::Step(Step::Send(Message::Pull { digest, all: self.all }))
            }
            (Reply::Took(true), State::Pulling { more: true }) => Moved::Step(Step::Read),
            // The further deltas of the peer would be useless: end the stream under it.
            (Reply::Took(false), State::Pulling { more: true }) => {
                self.state = State::Idle;
                Moved::Step(Step::Done)
            }
            (Reply::Took(_), State::Pulling { more: false }) => self.over(),
            (Reply::Fed { digest, delta }, State::Making) => {
                self.state = State::Feeding { digest, more: delta.more };
                Moved::Step(Step::Send(Message::More { delta }))
            }
            _ => Moved::Step(BROKEN),
        }
    }

    pub(super) fn sent(&mut self) -> Moved {
        match std::mem::take(&mut self.state) {
            State::Feeding { digest, more: true } => self.make(digest),
            state @ State::Pulling { .. } => {
                self.state = state;
                Moved::Step(Step::Read)
            }
            _ => Moved::Over,
        }
    }

    fn make(&mut self, digest: Digest) -> Moved {
        self.state = State::Making;
        Moved::Step(Step::Ask(Ask::Feed { digest, all: self.all }))
    }

    fn over(&mut self) -> Moved {
        self.state = State::Idle;
        Moved::Over
    }
}
