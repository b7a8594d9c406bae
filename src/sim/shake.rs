//! The steps of a handshake, and what became of handshakes.

use super::network::FLIGHT_PACKETS;
use crate::protocol::served::Patience;

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    /// How many of the [`PASSAGES`] have been made.
    pub(super) step: usize,
    /// The patience of the end that was dialed, once it knows of it: until the other end has proved its name, and after
    /// that.
    pub(super) accepted: Option<[Patience; 2]>,
    /// When each flight was sent first.
    pub(super) sent: [u64; FLIGHTS],
    /// The answer of the end that was dialed, once its turn to introduce itself has come.
    pub(super) welcome: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What became of handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Begun by an end that dials.
    pub begun: u64,
    /// Those in which the end that was dialed has admitted the other one.
    pub accepted: u64,
    /// Those in which both have admitted each other.
    pub finished: u64,
    /// Given up by the end that had dialed, since its time was up.
    pub dialer_timeouts: u64,
    /// The same at the end that was dialed.
    pub acceptor_timeouts: u64,
    /// Flights that were sent again, since no answer to them had been read.
    pub repeats: u64,
}

impl Handshakes {
    /// Those given up at either end since its time was up.
    #[must_use]
    pub const fn timeouts(&self) -> u64 {
        self.dialer_timeouts + self.acceptor_timeouts
    }

    /// What happened since an earlier reading.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            begun: self.begun - earlier.begun,
            accepted: self.accepted - earlier.accepted,
            finished: self.finished - earlier.finished,
            dialer_timeouts: self.dialer_timeouts - earlier.dialer_timeouts,
            acceptor_timeouts: self.acceptor_timeouts - earlier.acceptor_timeouts,
            repeats: self.repeats - earlier.repeats,
        }
    }
}

/// A passage through the run queue.
pub(super) struct Passage {
    /// 0: the end that dials; 1: the other one.
    pub(super) end: usize,
    /// Which piece of work is done in it.
    pub(super) piece: Option<usize>,
    /// What comes of it.
    pub(super) then: Then,
}

pub(super) enum Then {
    /// The next passage, at the same end.
    Goes,
    /// A flight to the other end, which makes the next passage.
    Sends(usize),
    /// The introduction of the end that has dialed is heard.
    Hello,
    /// That of the other end.
    Welcome,
}

const fn passage(end: usize, piece: Option<usize>, then: Then) -> Passage {
    Passage { end, piece, then }
}

/// The passages in order: tasks, and the drivers of connections and sockets, each of which has to be scheduled.
pub(super) const PASSAGES: [Passage; 14] = [
    passage(0, Some(0), Then::Goes),
    passage(0, None, Then::Sends(0)),
    passage(1, None, Then::Goes),
    passage(1, Some(1), Then::Goes),
    passage(1, None, Then::Sends(1)),
    passage(0, None, Then::Goes),
    passage(0, Some(2), Then::Goes),
    passage(0, None, Then::Sends(2)),
    passage(1, None, Then::Goes),
    passage(1, Some(3), Then::Goes),
    // It answers with its own introduction, which arrives for the next passage.
    passage(1, None, Then::Hello),
    passage(0, None, Then::Goes),
    passage(0, None, Then::Goes),
    passage(0, None, Then::Welcome),
];

/// The flights, each with the first passage of the end that receives it, and the passage after which the sender knows
/// that it was received.
pub(super) const FLIGHTS: usize = FLIGHT_PACKETS.len();
pub(super) const READ_IN: [usize; FLIGHTS] = [2, 5, 8];
pub(super) const ANSWERED_AFTER: [usize; FLIGHTS] = [6, 9, 11];
/// Before this passage the end that has dialed has proved nothing.
pub(super) const PROVED_IN: usize = 10;
/// The passage of the end that was dialed in which it knows that there is a handshake.
pub(super) const ACCEPTED_IN: usize = 2;
/// The first passage for the introduction of the end that was dialed.
pub(super) const WELCOMED_IN: usize = 11;

/// At which end a passage is made.
pub(super) const fn end_of(step: usize) -> usize {
    PASSAGES[step].end
}
