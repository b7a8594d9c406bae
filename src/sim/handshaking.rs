//! Handshakes as work: their passages through the run queues of both ends, and what QUIC repeats meanwhile.
//!
//! Without processors a handshake is one delay ([`introductions`](super::introductions)). With them each end has to get
//! its turn for every step, and its deadline does not wait for that: the end that waits may give up what the other one
//! goes on with.

use super::{
    cpu::Work,
    event::What,
    network::{ACK_FRAME, FLIGHT_PACKETS},
    queue::micros,
    world::World,
};
use crate::protocol::{close::Close, message::Message};

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    /// How many of the [`PASSAGES`] have been made.
    step: usize,
    /// When each flight was sent first.
    sent: [u64; FLIGHTS],
    /// The answer of the end that was dialed, once its turn to introduce itself has come.
    welcome: Option<(Vec<u8>, Option<Vec<u8>>)>,
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
struct Passage {
    /// 0: the end that dials; 1: the other one.
    end: usize,
    /// Which piece of work is done in it.
    piece: Option<usize>,
    /// What comes of it.
    then: Then,
}

enum Then {
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
const PASSAGES: [Passage; 14] = [
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
const FLIGHTS: usize = FLIGHT_PACKETS.len();
const READ_IN: [usize; FLIGHTS] = [2, 5, 8];
const ANSWERED_AFTER: [usize; FLIGHTS] = [6, 9, 11];
/// The passage of the end that was dialed in which it knows that there is a handshake.
const ACCEPTED_IN: usize = 2;
/// The first passage for the introduction of the end that was dialed.
const WELCOMED_IN: usize = 11;

/// At which end a passage is made.
pub(super) const fn end_of(step: usize) -> usize {
    PASSAGES[step].end
}

impl World {
    /// A process shakes hands over a new connection.
    pub(super) fn begin_handshake(&mut self, wire: u64) {
        self.counts.handshakes.begun += 1;
        let new = Handshake { step: 0, sent: [0; FLIGHTS], welcome: None };
        self.handshakes.insert(wire, new);
        self.after(0, What::Passage { wire, step: 0 });
    }

    /// A passage is made.
    pub(super) fn passage(&mut self, wire: u64, step: usize) {
        let Passage { end, piece, then } = &PASSAGES[step];
        if self.open_wire(wire, *end).is_none() {
            return;
        }
        let Some(handshake) = self.handshakes.get_mut(&wire).filter(|it| it.step == step) else {
            return;
        };
        handshake.step = step + 1;
        self.bill(Work::Handshakes, |costs| {
            costs.tick + piece.map_or(0, |piece| costs.handshake[piece])
        });
        match then {
            Then::Goes => self.after(0, What::Passage { wire, step: step + 1 }),
            Then::Sends(flight) => self.send_flight(wire, *flight, 0),
            Then::Hello => {
                let slots = self.wires[&wire].slots;
                let hello = self.hello(slots[0], &self.slots[slots[1]].name.clone());
                if let Ok(bytes) = Message::Hello(hello).encode() {
                    self.heard_hello(wire, &bytes);
                }
            }
            Then::Welcome => {
                let welcome = self.handshakes.remove(&wire).and_then(|it| it.welcome);
                if let Some((bytes, later)) = welcome {
                    self.heard_welcome(wire, &bytes, later);
                }
            }
        }
    }

    /// The end that was dialed introduces itself.
    pub(super) fn welcome(
        &mut self,
        wire: u64,
        after: u64,
        bytes: Vec<u8>,
        later: Option<Vec<u8>>,
    ) {
        if let Some(handshake) = self.handshakes.get_mut(&wire) {
            handshake.welcome = Some((bytes, later));
            return self.after(after, What::Passage { wire, step: WELCOMED_IN });
        }
        self.after(after, What::Welcome { wire, bytes, later });
    }

    /// Sends a flight, for the first time or again. One of which a packet is lost has to be sent again.
    fn send_flight(&mut self, wire: u64, flight: usize, number: u32) {
        let (now, slots) = (self.queue.now(), self.wires[&wire].slots);
        let (from, to) = (slots[flight % 2], slots[1 - flight % 2]);
        let arrives = self.network.flight(&mut self.rng, now, [from, to], flight);
        if let Some(travel) = arrives {
            self.after(travel, What::Flight { wire, flight });
        }
        let Some(handshake) = self.handshakes.get_mut(&wire) else { return };
        if number == 0 {
            handshake.sent[flight] = now;
        }
        // Without a round trip that was measured, its length is a guess (RFC 9002 sections 6.2.1 and 6.2.2).
        let timeout = match flight {
            2 => (now - handshake.sent[0]).max(handshake.sent[2] - handshake.sent[0]) * 3,
            _ => FIRST_TIMEOUT,
        };
        self.after(timeout << number, What::Repeat { wire, flight, number });
    }

    /// A flight has come: the handshake goes on, unless it was read before.
    pub(super) fn flight(&mut self, wire: u64, flight: usize) {
        let end = 1 - flight % 2;
        let Some(open) = self.open_wire(wire, end) else { return };
        let (from, to) = (open.slots[1 - end], open.slots[end]);
        self.bill(Work::Packets, |costs| costs.receive * FLIGHT_PACKETS[flight] as u64);
        let step = READ_IN[flight];
        if self.handshakes.get(&wire).is_none_or(|it| it.step != step) {
            // It is acknowledged once more.
            self.network.count(to, from, ACK_FRAME, 1);
            return self.bill(Work::Packets, |costs| costs.receive);
        }
        if step == ACCEPTED_IN {
            self.after(micros(self.settings.handshake_timeout), What::Unproved { wire });
        }
        self.passage(wire, step);
    }

    /// A flight was not answered in time: as far as its end knows, since it may not have read the answer yet.
    pub(super) fn repeat(&mut self, wire: u64, flight: usize, number: u32) {
        if self.open_wire(wire, flight % 2).is_none() {
            return;
        }
        let waits = |it: &&Handshake| it.step <= ANSWERED_AFTER[flight];
        if self.handshakes.get(&wire).filter(waits).is_none() {
            return;
        }
        self.bill(Work::Timers, |costs| costs.tick);
        self.counts.handshakes.repeats += 1;
        self.send_flight(wire, flight, number + 1);
    }

    /// The end that was dialed has waited for long enough.
    pub(super) fn unproved(&mut self, wire: u64) {
        if self.handshakes.get(&wire).is_none_or(|it| it.step >= WELCOMED_IN) {
            return;
        }
        if self.open_wire(wire, 1).is_some() {
            self.bill(Work::Timers, |costs| costs.tick);
            self.counts.handshakes.acceptor_timeouts += 1;
            self.close(wire, 1, Close::Timeout.with("no introduction in time"));
        }
    }
}

/// Three times the first guess of a round trip, 333 ms, in microseconds.
const FIRST_TIMEOUT: u64 = 1_000_000;
