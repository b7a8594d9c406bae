//! The processor of each node: a queue of work, and what each piece of it costs. It is off by default.
//!
//! A node does one piece of work after the other. What happens to it meanwhile waits, its timers included: a node
//! that has too much to do is late. The costs are those of one core of an x86-64 server, measured on the release
//! build (`gossipmonger bench`); what matters is their ratio. Heartbeats that a run leaves out cost nothing.

use std::collections::{BTreeMap, VecDeque};

use super::event::What;

/// What work costs, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A handshake with two certificates, at the end that dials.
    pub dial: u64,
    /// The same, at the end that accepts.
    pub accept: u64,
    /// To check the signature on the news of one owner.
    pub verify: u64,
    /// To handle a frame, whatever is in it.
    pub frame: u64,
    /// Each KiB of a frame.
    pub kib: u64,
    /// To receive a packet.
    pub receive: u64,
    /// To send a packet.
    pub send: u64,
    /// A call of a machine whose time has come.
    pub tick: u64,
}

impl Costs {
    /// As measured.
    #[must_use]
    pub const fn measured() -> Self {
        Self { dial: 800, accept: 900, verify: 30, frame: 12, kib: 1, receive: 9, send: 8, tick: 5 }
    }

    /// The same on a machine of which a node has one part in `parts`.
    #[must_use]
    pub const fn shared(self, parts: u64) -> Self {
        Self {
            dial: self.dial * parts,
            accept: self.accept * parts,
            verify: self.verify * parts,
            frame: self.frame * parts,
            kib: self.kib * parts,
            receive: self.receive * parts,
            send: self.send * parts,
            tick: self.tick * parts,
        }
    }

    /// What an event costs, apart from the packets that it sends.
    pub(super) fn of(&self, what: &What) -> u64 {
        let frame = |len: usize| self.frame + self.receive + self.kib * (len as u64 / 1_024);
        match what {
            What::Hello { .. } => self.accept,
            What::Welcome { .. } => self.dial,
            What::Gossip { bytes, .. } => self.verify + frame(bytes.len()),
            What::Frame { payload, .. } => self.verify + frame(payload.len()),
            What::Datagram { .. } | What::Acknowledged { .. } | What::Closed { .. } => self.receive,
            What::Wake { .. } => self.tick,
            _ => 0,
        }
    }
}

/// The processors of all nodes.
#[derive(Debug)]
pub(super) struct Cpu {
    pub(super) costs: Costs,
    nodes: BTreeMap<usize, Queue>,
    /// Work done by all nodes, and the longest that any piece of it waited, in microseconds.
    pub(super) worked: u64,
    pub(super) latest: u64,
}

/// The work of one node.
#[derive(Debug, Default)]
struct Queue {
    /// Until when it works.
    busy: u64,
    /// What waits, and since when.
    waiting: VecDeque<(u64, What)>,
}

impl Cpu {
    pub(super) const fn new(costs: Costs) -> Self {
        Self { costs, nodes: BTreeMap::new(), worked: 0, latest: 0 }
    }

    /// Takes an event of a node: gives it back if the node has time for it now. Otherwise it waits; if nothing has
    /// waited before it, says when the node has time.
    pub(super) fn take(&mut self, slot: usize, now: u64, what: What) -> Result<What, Option<u64>> {
        let node = self.nodes.entry(slot).or_default();
        if node.busy <= now && node.waiting.is_empty() {
            return Ok(what);
        }
        let first = node.waiting.is_empty();
        node.waiting.push_back((now, what));
        Err(first.then_some(node.busy))
    }

    /// The next event that waits for a node which has time now.
    pub(super) fn next(&mut self, slot: usize, now: u64) -> Option<What> {
        let (since, what) = self.nodes.get_mut(&slot)?.waiting.pop_front()?;
        self.latest = self.latest.max(now.saturating_sub(since));
        Some(what)
    }

    /// A node works for so long; if something waits for it, returns when it has time.
    pub(super) fn work(&mut self, slot: usize, now: u64, cost: u64) -> Option<u64> {
        let node = self.nodes.entry(slot).or_default();
        node.busy = node.busy.max(now) + cost;
        self.worked += cost;
        (!node.waiting.is_empty()).then_some(node.busy)
    }
}
