//! Records what the machine of the connections was told and what it said, for tests: it has no promise of
//! compatibility. A test replays the record into a machine of its own.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::protocol::{
    id::Generation,
    peering::{
        ConnectionId, Packets, Peering, PeeringConfig, PeeringInput, PeeringOutput, Surroundings,
    },
    time::Time,
};

/// Most inputs that a tape records; it ignores those that come later.
pub const ENTRIES_MAX: usize = 1 << 16;

/// The tape of one node. [`Backends::with_tape`](super::Backends::with_tape) sets it before the node starts, so the
/// first input is on it. If the tape is used for another node, the record begins anew.
#[derive(Clone, Debug, Default)]
pub struct Tape(Arc<Mutex<Record>>);

/// What a tape has recorded.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The configuration of the machine, if the node has started.
    pub config: Option<PeeringConfig>,
    /// The inputs, in the order in which the machine took them.
    pub entries: Vec<Entry>,
    /// Inputs that were not recorded, because the tape was full.
    pub ignored: u64,
}

/// One input, and what followed from it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The time that the machine was given.
    pub now: Time,
    /// The input.
    pub input: PeeringInput,
    /// What the machine asked the shell, and was answered, in this order.
    pub answers: Vec<Answer>,
    /// The outputs, printed with `Debug`: they cannot be compared.
    pub outputs: Vec<String>,
}

/// One question of the machine with the answer of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The generation of the node.
    Own(Generation),
    /// The wall clock.
    Wall(SystemTime),
    /// Whether a connection is open.
    Open(ConnectionId, bool),
    /// Frames received on a connection.
    Received(ConnectionId, u64),
    /// Packets sent on a connection, and lost.
    Packets(ConnectionId, Packets),
}

impl Tape {
    /// A copy of what has been recorded so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// A machine with this configuration is about to take its first input.
    pub(super) fn begin(&self, config: &PeeringConfig) {
        *self.lock() = Record { config: Some(config.clone()), ..Record::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Code under the lock does not panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Feeds the machine an input. A tape records it, with the answers of the shell and the outputs.
pub(super) fn handle(
    tape: Option<&Tape>,
    machine: &mut Peering,
    (now, shell): (Time, &dyn Surroundings),
    input: PeeringInput,
    out: &mut Vec<PeeringOutput>,
) {
    let Some(tape) = tape else { return machine.handle(now, shell, input, out) };
    let (listener, before) = (Listener { shell, answers: RefCell::default() }, out.len());
    machine.handle(now, &listener, input.clone(), out);
    let mut record = tape.lock();
    if record.entries.len() == ENTRIES_MAX {
        record.ignored += 1;
        return;
    }
    let answers = listener.answers.into_inner();
    let outputs = out[before..].iter().map(|output| format!("{output:?}")).collect();
    record.entries.push(Entry { now, input, answers, outputs });
}

/// Asks the shell on behalf of the machine, and keeps the answers.
struct Listener<'a> {
    shell: &'a dyn Surroundings,
    answers: RefCell<Vec<Answer>>,
}

impl Listener<'_> {
    fn keep(&self, answer: Answer) {
        self.answers.borrow_mut().push(answer);
    }
}

impl Surroundings for Listener<'_> {
    fn own(&self) -> Generation {
        let own = self.shell.own();
        self.keep(Answer::Own(own));
        own
    }

    fn wall(&self) -> SystemTime {
        let wall = self.shell.wall();
        self.keep(Answer::Wall(wall));
        wall
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        let open = self.shell.is_open(connection);
        self.keep(Answer::Open(connection, open));
        open
    }

    fn received(&self, connection: ConnectionId) -> u64 {
        let received = self.shell.received(connection);
        self.keep(Answer::Received(connection, received));
        received
    }

    fn packets(&self, connection: ConnectionId) -> Packets {
        let packets = self.shell.packets(connection);
        self.keep(Answer::Packets(connection, packets));
        packets
    }
}
