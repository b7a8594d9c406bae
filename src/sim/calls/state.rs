//! The state of a run: processes, connections, calls, and what runs where.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use crate::protocol::{
    entry::Value,
    id::{Datacenter, Generation, NodeId},
    service::{
        ServiceId,
        attempt::Attempts,
        back_off::BackOff,
        balance::{Balance, Prefer, retry::RetryBudget},
        calls::Calls,
        client_directory::ClientDirectory,
        directory::Directory,
        frame::Frames,
        intake::Intake,
        link_end::LinkEnd,
        room::Room,
    },
    state::PeerState,
    time::Time,
};

/// A name that processes have, one after another.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) datacenter: Datacenter,
    pub(super) generation: u64,
    /// The process that runs.
    pub(super) process: Option<usize>,
    /// Changes of its map.
    pub(super) stamp: u64,
}

/// One process of a node.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) node: usize,
    pub(super) generation: Generation,
    pub(super) alive: bool,
    /// Its map says that it has left.
    pub(super) leaves: bool,
    /// It ends: it makes no attempt any more.
    pub(super) stopping: bool,
    pub(super) paused_until: u64,
    pub(super) directory: Directory,
    pub(super) views: BTreeMap<usize, View>,
    pub(super) handles: Vec<Handle>,
    /// By node.
    pub(super) links: BTreeMap<usize, usize>,
    pub(super) back_off: BackOff,
    /// By service.
    pub(super) offers: BTreeMap<usize, Room<usize, usize>>,
    /// The connections that others have dialed.
    pub(super) lanes: BTreeSet<usize>,
    pub(super) drain: Drain,
    /// What clients are shown.
    pub(super) shown: ClientDirectory,
    /// Clients that wait for changes, and since which version.
    pub(super) asked: BTreeMap<usize, u64>,
    /// The process that tells a client of the others.
    pub(super) host: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// The map will say so.
    Begun,
    /// The offers refuse.
    Refuses,
    /// No request runs; callers close their connections.
    Closes,
    /// All requests have ended in time, and all connections with them.
    InTime,
    TooLate,
}

/// What a process knows of a node.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) stamp: u64,
    pub(super) generation: Generation,
    pub(super) manifest: Option<Value>,
    pub(super) verdict: (Generation, PeerState),
}

/// What a process calls a service with.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) balance: Balance,
    pub(super) budget: RetryBudget,
}

/// A connection for calls, both ends.
#[derive(Debug)]
pub(super) struct Connection {
    /// The process that dials.
    pub(super) from: usize,
    pub(super) node: usize,
    pub(super) generation: Generation,
    /// The process that was reached.
    pub(super) to: Option<usize>,
    pub(super) calls: Calls<usize>,
    pub(super) why: Option<LinkEnd>,
    /// Attempts that wait for room.
    pub(super) waiters: Vec<usize>,
    /// A write is due.
    pub(super) writes: bool,
    pub(super) ticks: Option<u64>,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    /// What has arrived at the caller.
    pub(super) frames: Frames,
    pub(super) lane: Option<Lane>,
    /// Nothing arrives any more.
    pub(super) broken: bool,
    /// The callee has not admitted the caller.
    pub(super) refused: bool,
}

/// The callee's end of a connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) caller: usize,
    pub(super) generation: Generation,
    pub(super) frames: Frames,
    pub(super) intake: Intake<ServiceId, usize>,
    pub(super) out: BytesMut,
    /// A write is due.
    pub(super) answers: bool,
    pub(super) ended: bool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) chunks: VecDeque<(u64, Bytes)>,
    pub(super) last: u64,
    pub(super) bytes: usize,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) process: usize,
    pub(super) service: usize,
    pub(super) method: u16,
    pub(super) body: Bytes,
    pub(super) idempotent: bool,
    pub(super) place: Place,
    pub(super) attempts: Attempts,
    /// A second node is asked after so long, or when the first one is suspected.
    pub(super) hedge: Option<Duration>,
    /// The attempts under way.
    pub(super) tries: Vec<usize>,
    pub(super) over: bool,
    /// When the call began, in microseconds.
    pub(super) made: u64,
}

/// One attempt of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) call: usize,
    pub(super) target: (usize, Generation),
    pub(super) begun: Time,
    pub(super) state: TryState,
    /// Whether it was asked for a second attempt beside this one.
    pub(super) hedged: bool,
}

/// Where a call goes.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Any(Prefer),
    At(usize, Generation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TryState {
    New,
    /// Waits for room on a link.
    Room(usize),
    /// On a link, with this id.
    Sent(usize, u64),
    /// At the own node, as this run.
    Here(usize),
    Over,
}

/// One request or cast at the node that it has reached.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: usize,
    pub(super) service: usize,
    pub(super) caller: usize,
    pub(super) method: u16,
    /// The number of the call or cast.
    pub(super) number: u64,
    pub(super) deadline: Time,
    pub(super) way: Way,
    pub(super) cancelled: bool,
    /// It has a place in the room since then.
    pub(super) begun: Option<Time>,
    pub(super) over: bool,
}

/// The way back to the attempt of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Lane(usize, u64),
    Here(usize),
    Stream(usize),
    /// A cast has none.
    None,
}

impl Connection {
    pub(super) const fn has_ended(&self) -> bool {
        self.why.is_some()
    }
}
