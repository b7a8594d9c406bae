//! The processor of each node: a queue of work, and what each piece of it costs. It is off by default.
//!
//! A node does one piece of work after the other. What happens to it meanwhile waits, its timers included: a node
//! that has too much to do is late. Heartbeats that a run leaves out cost nothing.

use std::collections::{BTreeMap, VecDeque};

use super::event::What;

/// What work costs, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A handshake with two certificates, at the end that dials.
    pub dial: u64,
    /// The same, at the end that accepts.
    pub accept: u64,
    /// To sign a write.
    pub sign: u64,
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
    /// Round figures for one core of an x86-64 server; their ratios matter, not their sum. The two ends of a handshake
    /// take what `gossipmonger bench handshake` shows for both. A signature and its check are those of Ed25519. The
    /// costs of packets and frames are a model, not a measurement.
    #[must_use]
    pub const fn typical() -> Self {
        Self {
            dial: 800,
            accept: 900,
            sign: 18,
            verify: 30,
            frame: 12,
            kib: 1,
            receive: 9,
            send: 8,
            tick: 5,
        }
    }

    /// The same on a machine of which a node has one part in `parts`.
    #[must_use]
    pub const fn shared(self, parts: u64) -> Self {
        Self {
            dial: self.dial * parts,
            accept: self.accept * parts,
            sign: self.sign * parts,
            verify: self.verify * parts,
            frame: self.frame * parts,
            kib: self.kib * parts,
            receive: self.receive * parts,
            send: self.send * parts,
            tick: self.tick * parts,
        }
    }

    /// What an event costs, apart from the signatures that it checks and the packets that it sends.
    pub(super) fn of(&self, what: &What) -> u64 {
        let frame = |len: usize| self.frame + self.receive + self.kib * (len as u64 / 1_024);
        match what {
            What::Hello { .. } => self.accept,
            What::Welcome { .. } => self.dial,
            What::Gossip { bytes, .. } => frame(bytes.len()),
            What::Frame { payload, .. } => frame(payload.len()),
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
    /// What the present event costs beyond what its kind does.
    pub(super) extra: u64,
}

/// The work of one node.
#[derive(Debug, Default)]
struct Queue {
    /// Until when it works.
    busy: u64,
    /// What waits, and since when.
    waiting: VecDeque<(u64, What)>,
    /// When it goes on with what waits, if that is settled.
    goes_on: Option<u64>,
}

impl Cpu {
    pub(super) const fn new(costs: Costs) -> Self {
        Self { costs, nodes: BTreeMap::new(), worked: 0, latest: 0, extra: 0 }
    }

    /// Takes an event of a node: gives it back if the node has time for it now, otherwise it waits.
    pub(super) fn take(&mut self, slot: usize, now: u64, what: What) -> Option<What> {
        let node = self.nodes.entry(slot).or_default();
        if node.busy <= now && node.waiting.is_empty() {
            return Some(what);
        }
        node.waiting.push_back((now, what));
        None
    }

    /// The next event that waits for a node, if it goes on now.
    pub(super) fn next(&mut self, slot: usize, now: u64) -> Option<What> {
        let node =
            self.nodes.get_mut(&slot).filter(|node| node.goes_on.is_some_and(|at| at <= now))?;
        node.goes_on = None;
        if node.busy > now {
            return None;
        }
        let (since, what) = node.waiting.pop_front()?;
        self.latest = self.latest.max(now.saturating_sub(since));
        Some(what)
    }

    /// When a node goes on with what waits, unless that is settled or nothing waits.
    pub(super) fn settle(&mut self, slot: usize) -> Option<u64> {
        let waits = |node: &&mut Queue| node.goes_on.is_none() && !node.waiting.is_empty();
        let node = self.nodes.get_mut(&slot).filter(waits)?;
        node.goes_on = Some(node.busy);
        node.goes_on
    }

    /// A node works for so long.
    pub(super) fn work(&mut self, slot: usize, now: u64, cost: u64) {
        let node = self.nodes.entry(slot).or_default();
        node.busy = node.busy.max(now) + cost;
        self.worked += cost;
    }

    /// The process of a node is gone, with all that waited for it.
    pub(super) fn forget(&mut self, slot: usize) {
        self.nodes.remove(&slot);
    }
}
