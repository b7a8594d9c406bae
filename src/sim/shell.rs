//! The shell around the machine of connections of each process: what the transport actor is in production.

use rand::RngExt;

use super::{
    dial::Purpose,
    event::Machine,
    exchanging::FRAME_BYTES,
    size::encoded_len,
    slot::{number, wall},
    wire::View,
    world::World,
};
use crate::protocol::{
    exchange::Summary,
    gossip::Gossip,
    id::NodeId,
    outbox::Encoded,
    peering::{ConnectionId, Next, PeeringInput, PeeringOutput, Settled},
    route::{Output, StorageInput, Target, TransportInput},
};

/// What the machine said that the caller has to see to.
#[derive(Default)]
pub(super) struct Said {
    /// To the other machines.
    pub(super) routes: Vec<Output>,
    pub(super) settled: Option<Settled>,
    pub(super) next: Option<Next>,
    pub(super) admitted: bool,
}

impl World {
    /// Tells the machine, and delivers what it says to the others.
    pub(super) fn peering(&mut self, slot: usize, input: PeeringInput) -> Said {
        let mut said = self.tell(slot, input);
        let routes = std::mem::take(&mut said.routes);
        if !routes.is_empty() {
            self.deliver(slot, Machine::Transport, routes);
        }
        said
    }

    /// Another machine wants this; returns what the others are to be told.
    pub(super) fn transport(&mut self, slot: usize, input: TransportInput) -> Vec<Output> {
        let (to, gossip) = match input {
            TransportInput::Gossip { to, gossip } => (to, gossip),
            TransportInput::Heartbeat { .. } | TransportInput::Probe { .. }
                if !self.switches.packets =>
            {
                return self.note_heartbeats(slot, input);
            }
            input => return self.tell(slot, PeeringInput::Transport(input)).routes,
        };
        self.account(slot, &to, &gossip);
        let mut routes = Vec::new();
        if !self.hooks.liars.contains_key(&slot) {
            let Ok(encoded) = Encoded::new(&gossip) else { return routes };
            return self.tell(slot, PeeringInput::Send { to, gossip, encoded }).routes;
        }
        for peer in to {
            let mut lie = (*gossip).clone();
            if let (Some(liar), Some(node)) =
                (self.hooks.liars.get_mut(&slot), &self.slots[slot].node)
            {
                let own = (&self.slots[slot].name, node.replica.own());
                liar.gossip(&mut self.rng, own, &peer, &mut lie);
            }
            let Ok(encoded) = Encoded::new(&lie) else { continue };
            let send = PeeringInput::Send { to: vec![peer], gossip: lie.into(), encoded };
            routes.extend(self.tell(slot, send).routes);
        }
        routes
    }

    /// Counts the frames of gossip that are about a watched write.
    fn account(&mut self, slot: usize, to: &[NodeId], gossip: &Gossip) {
        if self.watched.is_empty() || !self.is_watched(gossip) {
            return;
        }
        let linked = to.iter().filter(|peer| {
            let wire = self.connection(slot, peer).and_then(|id| self.wires.get(&id));
            wire.is_some_and(|wire| wire.beats.sick.is_none())
        });
        let wan = linked.clone().filter_map(number).filter(|peer| self.network.is_wan(slot, *peer));
        let (wan, all) = (wan.count() as u64, linked.count() as u64);
        self.counts.wan_messages += wan;
        if let Gossip::Have(haves) = gossip {
            self.counts.notes += all * haves.len() as u64;
        }
        if gossip.news().is_some() {
            self.counts.payloads += all;
            self.counts.payload_bytes += all * (encoded_len(gossip) + FRAME_BYTES) as u64;
        }
    }

    /// The machine looks at its connections, and is called again.
    pub(super) fn look_at_connections(&mut self, slot: usize) {
        self.peering(slot, PeeringInput::Look);
        self.arm(slot, Machine::Transport, self.settings.look());
    }

    pub(super) fn tell(&mut self, slot: usize, input: PeeringInput) -> Said {
        let (mut said, mut out) = (Said::default(), Vec::new());
        let (now, wall) = (self.local(slot), wall(self.queue.now(), self.slots[slot].skew));
        let Some(node) = self.slots[slot].node.as_deref_mut() else { return said };
        let own = node.replica.own().generation();
        let view = View { wires: &self.wires, slot, own, wall };
        node.peering.handle(now, &view, input, &mut out);
        out.into_iter().for_each(|output| self.carry_out(slot, output, &mut said));
        said
    }

    fn carry_out(&mut self, slot: usize, output: PeeringOutput, said: &mut Said) {
        let end = |world: &Self, connection: ConnectionId| {
            let wire = world.wires.get(&connection.0);
            (connection.0, wire.map_or(0, |wire| wire.end(slot)))
        };
        match output {
            PeeringOutput::Route(output) => {
                let congested = matches!(output, Output::Storage(StorageInput::Congested(_, true)));
                self.counts.congestions += u64::from(congested);
                said.routes.push(output);
            }
            PeeringOutput::Settled(settled) => said.settled = Some(settled),
            PeeringOutput::Frame(next) => said.next = Some(next),
            PeeringOutput::Admitted(admitted) => said.admitted = admitted,
            PeeringOutput::Close(connection, closing) => {
                let (wire, end) = end(self, connection);
                self.close(wire, end, closing);
            }
            PeeringOutput::Finish(connection, closing) => {
                let (wire, end) = end(self, connection);
                self.finish(wire, end, closing);
            }
            PeeringOutput::Datagram(connection, bytes) => {
                let (wire, end) = end(self, connection);
                self.send_datagram(wire, end, bytes.to_vec());
            }
            PeeringOutput::Filled(connection) => {
                let (wire, end) = end(self, connection);
                self.pump_at(wire, end, self.queue.now());
            }
            PeeringOutput::Queued(..) => {}
            PeeringOutput::Disconnected { peer, .. } => {
                self.counts.disconnected.push((self.now(), slot, peer));
            }
            PeeringOutput::Exchange(target, summary) => {
                let summary = match self.switches.sketches && self.rng.random::<bool>() {
                    true => Summary::Sketch(self.node(slot).replica.sketch()),
                    false => summary,
                };
                let purpose = Purpose::Exchange(target.clone(), summary);
                self.reach(slot, &target, purpose);
            }
            PeeringOutput::Dial(peer) => {
                let target = Target::Peer(peer.clone());
                self.reach(slot, &target, Purpose::Dial(peer));
            }
            PeeringOutput::Hurry { peer, stale } => self.hurry(slot, &peer, stale),
        }
    }
}
