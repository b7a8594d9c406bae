//! Two nodes apart from all others: the cost of one exchange between them.

use super::{
    exchanging::{FRAME_BYTES, message_len},
    world::World,
};
use crate::protocol::{
    delta::Delta,
    exchange::{Half, Responder, Step},
    map::Budget,
    message::Message,
    write::Write,
};

impl World {
    /// Has some nodes write a key, and sends the writes to only one of them.
    pub fn write_apart(&mut self, writers: &[usize], to: usize, value: &str) {
        for &writer in writers {
            let (clock, name) = (self.local(writer), self.slots[writer].name.clone());
            let Some(node) = self.node_mut(writer) else { continue };
            let mut out = Vec::new();
            let batch = vec![Write::set("key", value.as_bytes().to_vec())];
            let written = node.replica.write(clock, batch, &mut out);
            debug_assert!(written.is_ok(), "a short key is within the limits");
            let [Some(own), Some(reader)] = [writer, to].map(|n| self.slots[n].node.as_ref())
            else {
                continue;
            };
            let Some(copy) = reader.replica.copy(&name) else { continue };
            let mut budget = Budget { bytes: usize::MAX, entries: usize::MAX, untouched: true };
            let line = copy.digest_entry(name.clone());
            let news = own.replica.own().delta(clock, &line, &mut budget);
            let nodes = news.into_iter().map(|(delta, _)| delta).collect();
            if let Some(reader) = self.node_mut(to) {
                let delta = Delta { nodes, more: false };
                reader.replica.apply(clock, &name, &delta, &mut out);
            }
        }
    }

    /// Runs an exchange between two nodes at once, and returns its cost.
    pub fn reconcile(&mut self, one: usize, other: usize) -> Reconciled {
        let mut bytes = Reconciled::default();
        let Some(node) = self.node_mut(one) else { return bytes };
        let (mut initiator, mut step) = node.replica.summary().open();
        let mut responder = Responder::new();
        let (nodes, mut side) = ([one, other], 0);
        loop {
            let half: &mut dyn Half = if side == 0 { &mut initiator } else { &mut responder };
            step = match step {
                Step::Ask(ask) => {
                    let (clock, peer) =
                        (self.local(nodes[side]), self.slots[nodes[1 - side]].name.clone());
                    let Some(node) = self.node_mut(nodes[side]) else { return bytes };
                    half.reply(node.replica.serve(clock, &peer, ask, &mut Vec::new()))
                }
                Step::Send(message) => {
                    bytes.add(&message);
                    let after = half.sent();
                    side = 1 - side;
                    let half: &mut dyn Half =
                        if side == 0 { &mut initiator } else { &mut responder };
                    let next = half.frame(message);
                    match after {
                        Step::Read | Step::Done => next,
                        Step::Ask(_) | Step::Send(_) | Step::Broken(_) => return bytes,
                    }
                }
                Step::Read | Step::Done | Step::Broken(_) => return bytes,
            };
        }
    }

    /// Whether two nodes know the same.
    #[must_use]
    pub fn agree(&self, one: usize, other: usize) -> bool {
        let root = |n: usize| self.slots[n].node.as_ref().map(|n| n.replica.sketch().root());
        root(one) == root(other)
    }
}

/// The traffic of an exchange between two nodes, frames included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconciled {
    /// Bytes until both knew the difference.
    pub found: usize,
    /// Bytes of the lines and entries sent then.
    pub told: usize,
}

impl Reconciled {
    fn add(&mut self, message: &Message) {
        let len = message_len(message) + FRAME_BYTES;
        match message {
            Message::SynAck { .. } | Message::Ack { .. } | Message::More { .. } => {
                self.told += len;
            }
            _ => self.found += len,
        }
    }
}
