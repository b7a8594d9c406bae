//! One connection, as the network and its two ends have it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use crate::protocol::{
    close::Closing,
    id::Generation,
    peering::{ConnectionId, Packets, Surroundings},
    session::Met,
};

pub(super) type Wires = BTreeMap<u64, Wire>;

/// A connection, from the first packet of its handshake on.
#[derive(Debug)]
pub(super) struct Wire {
    /// The machine that dialed, and the one that answered.
    pub(super) slots: [usize; 2],
    pub(super) epochs: [u64; 2],
    pub(super) ends: [End; 2],
    /// The certificates that the two have shown.
    pub(super) certificates: [u64; 2],
    /// What was dialed.
    pub(super) address: String,
    /// When something could last get through.
    pub(super) alive: u64,
    /// Exchanges on it.
    pub(super) exchanges: Vec<u64>,
    pub(super) beats: Beats,
}

/// Heartbeats that are noted instead of sent.
#[derive(Debug)]
pub(super) struct Beats {
    /// Since when there are any, and up to which one they are counted.
    pub(super) quiet: u64,
    pub(super) counted: u64,
    /// Since when nothing gets through: an end is dead, or the two are cut off from each other.
    pub(super) sick: Option<u64>,
    /// When each end heard the other last, except for heartbeats that were left out.
    pub(super) heard: [u64; 2],
}

/// One end of a connection.
#[derive(Debug, Default)]
pub(super) struct End {
    /// It has not closed the connection, and has not heard that the other end did.
    pub(super) open: bool,
    /// Its process was told of the end.
    pub(super) ended: bool,
    /// The peer was admitted, and the connection is served.
    pub(super) introduced: bool,
    pub(super) met: Option<Met>,
    /// With which generation it introduced itself.
    pub(super) own: Generation,
    /// How the other end has closed it.
    pub(super) closed: Option<(u8, Vec<u8>)>,
    /// How it is to be closed once no exchange is under way.
    pub(super) finishing: Option<Closing>,
    pub(super) received: u64,
    pub(super) packets: Packets,
    pub(super) stream: Stream,
    pub(super) timer: Timer,
}

/// The gossip that one end sends and receives.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Bytes sent, and of these acknowledged.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// When acknowledgements that are not events of their own come, and for how many bytes.
    pub(super) under_way: VecDeque<(u64, u64)>,
    /// Bytes received.
    pub(super) delivered: u64,
    /// When the last frame to this end arrives: a stream keeps its order.
    pub(super) arrival: u64,
    /// Until when the path away from this end carries what was sent already.
    pub(super) busy: u64,
    /// When this end sends again, if that is settled.
    pub(super) pumping: Option<u64>,
}

/// The timer for packets that were not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// The valid one.
    pub(super) number: u64,
    pub(super) armed: bool,
    /// How often it has run out.
    pub(super) backoff: u32,
}

impl Wire {
    pub(super) fn new(
        slots: [usize; 2],
        epochs: [u64; 2],
        certificates: [u64; 2],
        address: String,
        now: u64,
    ) -> Self {
        let end = || End { open: true, ..End::default() };
        let beats = Beats { quiet: now, counted: 0, sick: None, heard: [now; 2] };
        Self {
            slots,
            epochs,
            ends: [end(), end()],
            certificates,
            address,
            alive: now,
            exchanges: Vec::new(),
            beats,
        }
    }

    pub(super) fn end(&self, slot: usize) -> usize {
        usize::from(self.slots[0] != slot)
    }

    /// Whether both ends serve it.
    pub(super) fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.open && end.introduced)
    }
}

/// What a machine may ask.
pub(super) struct View<'a> {
    pub(super) wires: &'a Wires,
    pub(super) slot: usize,
    pub(super) own: Generation,
    pub(super) wall: SystemTime,
}

impl View<'_> {
    fn end(&self, connection: ConnectionId) -> Option<&End> {
        let wire = self.wires.get(&connection.0)?;
        Some(&wire.ends[wire.end(self.slot)])
    }
}

impl Surroundings for View<'_> {
    fn own(&self) -> Generation {
        self.own
    }

    fn wall(&self) -> SystemTime {
        self.wall
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        self.end(connection).is_some_and(|end| end.open)
    }

    fn received(&self, connection: ConnectionId) -> u64 {
        self.end(connection).map_or(0, |end| end.received)
    }

    fn packets(&self, connection: ConnectionId) -> Packets {
        self.end(connection).map_or_else(Packets::default, |end| end.packets)
    }
}
