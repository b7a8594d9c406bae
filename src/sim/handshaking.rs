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
    shake::{
        ACCEPTED_IN, ANSWERED_AFTER, FLIGHTS, Handshake, PASSAGES, PROVED_IN, Passage, READ_IN,
        Then, WELCOMED_IN,
    },
    world::World,
};
use crate::protocol::{
    close::Close,
    message::Message,
    served::{ACCEPTOR_MAX, DIALER_MAX},
};

impl World {
    /// A process shakes hands over a new connection.
    pub(super) fn begin_handshake(&mut self, wire: u64) {
        self.counts.handshakes.begun += 1;
        let new = Handshake { step: 0, accepted: None, sent: [0; FLIGHTS], welcome: None };
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
        let Some(handshake) = self.handshakes.get(&wire) else { return };
        let timeout = match flight {
            2 => (now - handshake.sent[0]).max(handshake.sent[2] - handshake.sent[0]) * 3,
            0 => 3 * self.first_round_trip(from),
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
            let timeout = self.settings.handshake_timeout;
            let patience = [ACCEPTOR_MAX, DIALER_MAX].map(|most| self.patience(to, timeout, most));
            if let Some(handshake) = self.handshakes.get_mut(&wire) {
                handshake.accepted = Some(patience);
            }
            self.after(micros(timeout), What::Unproved { wire });
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
        let Some(handshake) = self.handshakes.get(&wire).filter(|it| it.step < WELCOMED_IN) else {
            return;
        };
        let Some(slot) = self.open_wire(wire, 1).map(|wire| wire.slots[1]) else { return };
        let proved = usize::from(handshake.step >= PROVED_IN);
        let left = handshake.accepted.and_then(|patience| self.left(slot, &patience[proved]));
        if let Some(left) = left {
            return self.after(left, What::Unproved { wire });
        }
        self.bill(Work::Timers, |costs| costs.tick);
        self.counts.handshakes.acceptor_timeouts += 1;
        self.close(wire, 1, Close::Timeout.with("no introduction in time"));
    }
}

/// Three times the first guess of a round trip, 333 ms, in microseconds.
const FIRST_TIMEOUT: u64 = 1_000_000;
