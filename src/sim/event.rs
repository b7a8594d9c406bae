//! What happens in a run: the events of its queue.

use std::hash::{Hash, Hasher};

use crate::protocol::{id::NodeId, message::Message, route::Target};

/// Which machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    Storage,
    Detector,
    Scheduler,
    /// The connections: its calls are looks at them.
    Transport,
}

/// Which half of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Initiator,
    Responder,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// A message of an exchange on its way.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Encoded, with its length.
    Bytes(Vec<u8>),
    /// As it is, where encoding is left out; its length on the wire.
    Message(Box<Message>, usize),
}

impl Payload {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Message(_, len) => *len,
        }
    }
}

/// Of a message that is not encoded only the length enters the trace of a run.
impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Bytes(bytes) => bytes.hash(state),
            Self::Message(_, len) => len.hash(state),
        }
    }
}

/// An event.
#[derive(Debug, Hash)]
pub(super) enum What {
    Wake {
        slot: usize,
        epoch: u64,
        machine: Machine,
        token: u64,
    },
    // Dials and introductions.
    Knock {
        slot: usize,
        epoch: u64,
        dial: u64,
        round: u32,
        number: u32,
    },
    Refused {
        slot: usize,
        epoch: u64,
        dial: u64,
        by: Option<NodeId>,
    },
    Undone {
        slot: usize,
        epoch: u64,
        dial: u64,
        round: u32,
    },
    Undialed {
        slot: usize,
        epoch: u64,
        peer: NodeId,
    },
    Unreached {
        slot: usize,
        epoch: u64,
        target: Target,
        node: Option<NodeId>,
    },
    Hello {
        wire: u64,
        bytes: Vec<u8>,
    },
    Welcome {
        wire: u64,
        bytes: Vec<u8>,
        later: Option<Vec<u8>>,
    },
    Adopt {
        wire: u64,
    },
    Renew {
        wire: u64,
    },
    // Connections.
    Datagram {
        wire: u64,
        to: usize,
        bytes: Vec<u8>,
    },
    Gossip {
        wire: u64,
        to: usize,
        bytes: bytes::Bytes,
    },
    Acknowledged {
        wire: u64,
        to: usize,
        delivered: u64,
    },
    Unacknowledged {
        wire: u64,
        end: usize,
        timer: u64,
    },
    Pump {
        wire: u64,
        end: usize,
    },
    Finish {
        wire: u64,
        end: usize,
    },
    Retire {
        wire: u64,
        end: usize,
    },
    Closed {
        wire: u64,
        to: usize,
        code: u8,
        words: Vec<u8>,
    },
    Ended {
        wire: u64,
        end: usize,
    },
    Probe {
        wire: u64,
    },
    /// Nothing was heard on a connection for long.
    Idle {
        wire: u64,
        end: usize,
    },
    // Exchanges.
    Frame {
        exchange: u64,
        to: Side,
        payload: Payload,
    },
    Flush {
        exchange: u64,
        side: Side,
    },
    Fin {
        exchange: u64,
        to: Side,
    },
    Reset {
        exchange: u64,
        to: Side,
    },
    Delivered {
        exchange: u64,
    },
    TimedOut {
        exchange: u64,
        side: Side,
    },
    /// A processor has time for what waits.
    Run {
        place: usize,
    },
    // The disk.
    Synced {
        slot: usize,
        epoch: u64,
        commit: u64,
    },
    // Handshakes, if there are processors.
    /// A step of a handshake, at the end where it is made.
    Passage {
        wire: u64,
        step: usize,
    },
    /// A flight of a handshake has arrived.
    Flight {
        wire: u64,
        flight: usize,
    },
    /// A flight has had no answer.
    Repeat {
        wire: u64,
        flight: usize,
        number: u32,
    },
    /// Nobody has introduced itself to the end that was dialed.
    Unproved {
        wire: u64,
    },
    /// A node measures how late it is served.
    Tick {
        slot: usize,
        epoch: u64,
    },
    /// What it measures that with has waited behind all other work.
    Tock {
        slot: usize,
        epoch: u64,
    },
    /// A caller wants to write what was ordered by this number.
    Write {
        slot: usize,
        epoch: u64,
        number: u64,
    },
}
