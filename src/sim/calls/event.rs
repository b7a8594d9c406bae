//! What happens in a run of calls.

use std::time::Duration;

use crate::protocol::{entry::Value, id::Generation, state::PeerState};

/// An event. Numbers are those of processes, connections, calls, attempts and runs.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A node begins a call or a cast.
    Begin(usize),
    /// A dial has an end.
    Dialed { connection: usize, reached: bool },
    /// A caller writes what waits.
    Write(usize),
    /// Requests arrive.
    Up(usize),
    /// A callee writes answers.
    Answer(usize),
    /// Answers arrive.
    Down(usize),
    /// The caller's end learns that the connection has ended.
    NearClosed(usize),
    /// The callee's end learns it.
    FarClosed(usize),
    /// A deadline on a link.
    Tick(usize),
    /// The deadline of an attempt that waits for room, or of one at the own node.
    Late(usize),
    /// An attempt is slow.
    Hedge(usize),
    /// The pause before another attempt is over.
    Again { call: usize, node: usize, generation: Generation },
    /// The caller gives a call up.
    Drop(usize),
    /// A handler is done.
    Done(usize),
    /// A callee looks for requests whose deadline has passed.
    Look(usize),
    /// A process learns of the map of a node.
    Learn { process: usize, node: usize, map: Map },
    /// The detector of a process judges a node.
    Judge { process: usize, node: usize, generation: Generation, state: PeerState },
    /// A process forgets a node that it believes dead.
    Forget { process: usize, node: usize },
    /// A client asks a node for its directory.
    Ask(usize),
    /// The question of a client arrives at its host.
    Asked { client: usize, host: usize, since: Option<u64> },
    /// A host tells its client what has changed; `all`: everything that it shows.
    Told { client: usize, host: usize, all: bool, version: u64, rows: Vec<Row> },
    /// A client has lost its host.
    HostLost { client: usize, host: usize },
    /// Something happens to a stream.
    Stream(usize, Stage),
    /// Something befalls a node.
    Befall { node: usize, what: Fate },
    /// The maps say that the process drains.
    Announced(usize),
    /// The limit of a drain.
    DrainLimit(usize),
    /// The process has said that it leaves, and ends.
    Leave(usize),
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Dialed {
        reached: bool,
    },
    /// Bytes of the caller arrive.
    Up,
    /// Bytes of the callee arrive.
    Down,
    /// The caller sends its next item.
    Send,
    /// The handler sends its next item.
    Next,
    /// The deadline, at the caller and at the callee.
    Late,
    FarLate,
    /// The callee takes nothing more of it.
    Fault,
    /// The caller gives it up.
    Drop,
    NearClosed,
    FarClosed,
}

impl Stage {
    /// Whether it happens at the callee.
    pub(super) const fn is_far(self) -> bool {
        matches!(self, Self::Up | Self::Next | Self::FarLate | Self::Fault | Self::FarClosed)
    }
}

/// What a host tells a client of a node.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) node: usize,
    pub(super) generation: Generation,
    /// `None` if the host has forgotten it.
    pub(super) state: Option<PeerState>,
    pub(super) manifest: Value,
}

/// What befalls a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Die,
    Start,
    Drain,
    Pause(Duration),
    Cut(usize, Duration),
    Break,
    WrongVerdict(usize),
}

/// What the map of a node says.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// Counts the changes of all generations of the node.
    pub(super) stamp: u64,
    pub(super) generation: Generation,
    pub(super) manifest: Value,
    pub(super) left: bool,
}
