//! The fourth machine: it owns the connections of a node.
//!
//! It decides which of two connections between the same nodes survives, what is a sign of life, when a connection
//! is silent for too long, what waits to be sent and in which order, what a peer may use up, and who is
//! disconnected. [`session`](super::session) decides who is admitted.
//!
//! A shell owns what the machine calls a connection: over QUIC, in memory, or simulated. In production the machine
//! is behind one lock, which is never held across an `await`, and connection tasks call it directly, so that a
//! heartbeat wakes no actor. The outputs of one input are delivered under that lock: so other machines hear of
//! connections in the order in which these come and go.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    budget::Budgets,
    close::Close,
    gossip::{Class, FEATURE_TREES, Gossip},
    id::{Datacenter, Generation, NodeId},
    message::{Call, Heartbeat},
    outbox::Encoded,
    overlay,
    penalties::Penalties,
    rates::{Rates, Traffic},
    route::{Counter, DetectorInput, Output, SchedulerInput, Sign, StorageInput, TransportInput},
    session::Met,
    time::Time,
};

mod life;
mod link;
mod loss;
mod step;

use self::link::Link;
pub use self::{
    loss::Packets,
    step::{ConnectionId, Introduced, Next, PeeringInput, PeeringOutput, Settled, Surroundings},
};

/// Why a connection is closed that another one replaces.
pub const REPLACED: &str = "replaced by another connection";
/// Datagrams that are no heartbeats until a peer is disconnected.
pub const MALFORMED_MAX: u32 = 16;
/// A handshake that waits for an answer is begun anew once it is so old and others say that the peer lives: by then
/// QUIC has repeated its first packet.
pub const HURRY_AFTER: Duration = Duration::from_secs(1);
/// How long a connection that another one renews stays open, so that what is on its way arrives.
pub const REPLACED_GRACE: Duration = Duration::from_secs(2);
/// Every so many looks all connections are asked what they have received, so that traffic of other kinds counts as
/// life as well.
const FULL_LOOKS: u64 = 5;
/// How often the loss of a connection is looked at, in looks.
const LOSS_LOOKS: u64 = 100;

/// What the machine is configured with.
#[derive(Clone, Debug)]
pub struct PeeringConfig {
    /// This node.
    pub node: NodeId,
    /// Where it is.
    pub datacenter: Datacenter,
    /// The time from one heartbeat to the next.
    pub gossip_interval: Duration,
    /// How long a disconnected peer is refused.
    pub bar: Duration,
    /// Bytes of news to one peer in a second.
    pub push_bytes_per_second: usize,
    /// Bytes to all peers of another datacenter in a second.
    pub wan_bytes_per_second: usize,
}

/// The connections of one node.
#[derive(Debug)]
pub struct Peering {
    config: PeeringConfig,
    links: BTreeMap<ConnectionId, Link>,
    /// The connection to each peer.
    current: BTreeMap<NodeId, ConnectionId>,
    /// Of each peer the connection that was renewed last, as long as it is open.
    retired: BTreeMap<NodeId, ConnectionId>,
    budgets: Budgets,
    rates: Rates,
    penalties: Penalties,
    /// Heartbeats sent.
    beats: u64,
    looks: u64,
}

impl Peering {
    /// Without a connection.
    #[must_use]
    pub fn new(config: PeeringConfig) -> Self {
        let (push, wan) = (config.push_bytes_per_second, config.wan_bytes_per_second);
        Self {
            budgets: Budgets::new(config.datacenter.clone(), push, wan),
            config,
            links: BTreeMap::new(),
            current: BTreeMap::new(),
            retired: BTreeMap::new(),
            rates: Rates::default(),
            penalties: Penalties::default(),
            beats: 0,
            looks: 0,
        }
    }

    // --- questions

    /// The connection to a peer, if one is open.
    #[must_use]
    pub fn connection(&self, shell: &dyn Surroundings, peer: &NodeId) -> Option<ConnectionId> {
        self.current.get(peer).copied().filter(|connection| shell.is_open(*connection))
    }

    /// How many frames of gossip wait on all connections, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.links.values().map(|link| link.outbox.waiting());
        waiting.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The connection to a peer, unless it has been silent for too long: then another one is better.
    #[must_use]
    pub fn fresh(
        &self,
        now: Time,
        shell: &dyn Surroundings,
        peer: &NodeId,
    ) -> Option<ConnectionId> {
        let connection = self.connection(shell, peer)?;
        (!self.is_stale(now, shell, connection)).then_some(connection)
    }

    /// Whether a connection has been silent for too long although an answer was due.
    #[must_use]
    pub fn is_stale(&self, now: Time, shell: &dyn Surroundings, connection: ConnectionId) -> bool {
        let interval = self.config.gossip_interval;
        let received = || shell.received(connection);
        self.links.get(&connection).is_some_and(|link| link.life.is_stale(now, interval, received))
    }

    /// Whether this is the connection to its peer, and not one that was replaced.
    #[must_use]
    pub fn is_current(&self, connection: ConnectionId) -> bool {
        let link = self.links.get(&connection);
        link.is_some_and(|link| self.current.get(&link.peer) == Some(&connection))
    }

    /// Whether this end dialed a connection.
    #[must_use]
    pub fn is_dialed(&self, connection: ConnectionId) -> bool {
        self.links.get(&connection).is_some_and(|link| link.dialed)
    }

    /// The peer of a connection, in the latest generation that it has shown there.
    #[must_use]
    pub fn met(&self, connection: ConnectionId) -> Option<Met> {
        self.links.get(&connection).map(Link::met)
    }

    /// The connections to all peers.
    pub fn connections(&self) -> impl Iterator<Item = (&NodeId, ConnectionId)> {
        self.current.iter().map(|(peer, connection)| (peer, *connection))
    }

    /// How long a peer is still refused since it was disconnected for misbehaviour, and for what.
    #[must_use]
    pub fn barred(&self, peer: &NodeId, now: Time) -> Option<(Duration, String)> {
        self.penalties.barred(peer, now)
    }

    /// How long the next bytes of an exchange have to wait for the budget between datacenters.
    #[must_use]
    pub fn bulk_waits(&self, connection: ConnectionId, now: Time) -> Option<Duration> {
        let link = self.links.get(&connection)?;
        self.budgets.wait(&link.allowance, now, Class::Bulk)
    }

    // --- inputs

    /// Takes one input.
    pub fn handle(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        input: PeeringInput,
        out: &mut Vec<PeeringOutput>,
    ) {
        match input {
            PeeringInput::Transport(input) => self.transport(now, shell, input, out),
            PeeringInput::Send { to, gossip, encoded } => self.send(&to, &gossip, &encoded, out),
            PeeringInput::Introduced(new) => {
                let settled = self.introduced(now, shell, new, out);
                out.push(PeeringOutput::Settled(settled));
            }
            PeeringInput::Ended(connection) => self.ended(connection, out),
            PeeringInput::Datagram(connection, bytes) => {
                self.datagram(now, shell, connection, &bytes, out);
            }
            PeeringInput::Ready(connection) => {
                let next = self.next(now, connection, out);
                out.push(PeeringOutput::Frame(next));
            }
            PeeringInput::Admit(connection, traffic) => {
                let admitted = self.admits(now, shell, connection, traffic, out);
                out.push(PeeringOutput::Admitted(admitted));
            }
            PeeringInput::Frame(connection) => self.frame(now, connection, out),
            PeeringInput::Bulk(connection, bytes) => {
                if let Some(link) = self.links.get_mut(&connection) {
                    self.budgets.charge(&mut link.allowance, now, Class::Bulk, bytes);
                }
            }
            PeeringInput::Misbehaved(connection, why) => {
                self.disconnect(now, shell, connection, &why, out);
            }
            PeeringInput::Offended(peer, why) => self.bar(now, &peer, &why, out),
            PeeringInput::Look => self.look(now, shell, out),
        }
    }

    fn transport(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        input: TransportInput,
        out: &mut Vec<PeeringOutput>,
    ) {
        match input {
            TransportInput::Round { targets, summary } => {
                let exchange = |target| PeeringOutput::Exchange(target, summary.clone());
                out.extend(targets.into_iter().map(exchange));
            }
            TransportInput::Heartbeat { peers, health } => {
                self.beats += 1;
                let beat = Heartbeat {
                    generation: shell.own(),
                    sequence: self.beats,
                    call: Call::Beat,
                    health,
                };
                let beat = Bytes::from(beat.encode());
                peers.iter().for_each(|peer| self.beat(now, shell, peer, beat.clone(), out));
            }
            TransportInput::Probe { probes, health } => {
                let generation = shell.own();
                for (peer, sequence) in probes {
                    let probe = Heartbeat { generation, sequence, call: Call::Probe, health };
                    self.beat(now, shell, &peer, probe.encode().into(), out);
                }
            }
            TransportInput::Dial(peers) => {
                for peer in peers {
                    match self.connection(shell, &peer) {
                        Some(connection) => self.tell_up(&peer, connection, out),
                        None => out.push(PeeringOutput::Dial(peer)),
                    }
                }
            }
            TransportInput::Renew(peers) => {
                for peer in peers {
                    let connection = self.connection(shell, &peer);
                    let stale = connection.is_some_and(|c| self.is_stale(now, shell, c));
                    out.push(PeeringOutput::Hurry { peer, stale });
                }
            }
            TransportInput::Close(peers) => {
                for connection in peers.iter().filter_map(|peer| self.connection(shell, peer)) {
                    let closing = Close::Unneeded.with("not needed any more");
                    out.push(PeeringOutput::Finish(connection, closing));
                }
            }
            TransportInput::Gossip { to, gossip } => match Encoded::new(&gossip) {
                Ok(encoded) => self.send(&to, &gossip, &encoded, out),
                Err(_) => out.push(count(Counter::GossipShed)),
            },
            TransportInput::HoldAgainst { peer, price, why } => {
                self.hold_against(now, shell, &peer, price, why.as_str(), out);
            }
            TransportInput::TellLinks => self.tell_links(shell, out),
            TransportInput::Forget(peer) => {
                if let Some(connection) = self.connection(shell, &peer) {
                    let closing = Close::Forgotten.with("you were forgotten");
                    out.push(PeeringOutput::Close(connection, closing));
                }
            }
        }
    }

    // --- connections that come and go

    /// Both ends come to the same choice: the later generation of the peer, else the connection that the lesser
    /// name dialed.
    fn introduced(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        new: Introduced,
        out: &mut Vec<PeeringOutput>,
    ) -> Settled {
        if !shell.is_open(new.connection) {
            // The peer may have closed it in favour of the one that there is.
            return Settled::Ended;
        }
        let old = self.connection(shell, &new.met.node).and_then(|old| self.links.get(&old));
        if let Some(old) = old {
            let (here, there) = (old.generation, new.met.generation);
            if there < here {
                out.push(PeeringOutput::Close(new.connection, Close::outlived(here)));
                return Settled::Outlived;
            }
            let stale = self.is_stale(now, shell, old.connection);
            if there > here {
                // If the earlier process still runs, it is a twin, and has to learn of this one.
                out.push(PeeringOutput::Close(old.connection, Close::outlived(there)));
            } else if old.dialed == new.dialed && old.proof != new.proof && !stale {
                let old = old.connection;
                self.renew(now, shell, old, new, out);
                return Settled::Renews(old);
            } else if old.dialed != new.dialed
                && overlay::keeps(&self.config.node, &new.met.node, old.dialed)
                && !stale
            {
                let closing = Close::Duplicate.with("another connection stays");
                out.push(PeeringOutput::Close(new.connection, closing));
                return Settled::Duplicate(old.connection);
            } else {
                let closing = Close::Duplicate.with(REPLACED);
                out.push(PeeringOutput::Close(old.connection, closing));
            }
        }
        let (peer, connection, dialed) = (new.met.node.clone(), new.connection, new.dialed);
        self.insert(now, new);
        if self.current.insert(peer.clone(), connection).is_some() {
            // What was on its way on the one before is lost.
            tell_linked(&peer, false, dialed, out);
        }
        tell_linked(&peer, true, dialed, out);
        Settled::Kept
    }

    /// A connection takes the place of one that both ends still use. On one that is silent what is on its way may
    /// well be lost, so that one is not renewed but replaced.
    fn renew(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        old: ConnectionId,
        new: Introduced,
        out: &mut Vec<PeeringOutput>,
    ) {
        let peer = new.met.node.clone();
        self.current.insert(peer.clone(), new.connection);
        self.insert(now, new);
        if self.links.get(&old).is_some_and(|link| link.outbox.is_congested()) {
            // The new one is empty.
            out.push(congested(&peer, false));
        }
        // A peer that renews again while the one before is on its way to its end gives that up.
        if let Some(before) = self.retired.insert(peer, old)
            && shell.is_open(before)
        {
            out.push(PeeringOutput::Close(before, Close::Duplicate.with(REPLACED)));
        }
    }

    fn insert(&mut self, now: Time, new: Introduced) {
        let allowance = self.budgets.allowance(&new.datacenter, now);
        self.links.insert(new.connection, Link::new(new, allowance));
    }

    fn ended(&mut self, connection: ConnectionId, out: &mut Vec<PeeringOutput>) {
        let Some(link) = self.links.remove(&connection) else { return };
        if let Entry::Occupied(current) = self.current.entry(link.peer.clone())
            && *current.get() == connection
        {
            current.remove();
            tell_linked(&link.peer, false, link.dialed, out);
        }
        if let Entry::Occupied(retired) = self.retired.entry(link.peer)
            && *retired.get() == connection
        {
            retired.remove();
        }
    }

    fn tell_up(&self, peer: &NodeId, connection: ConnectionId, out: &mut Vec<PeeringOutput>) {
        tell_linked(peer, true, self.is_dialed(connection), out);
    }

    /// Another machine has started anew.
    fn tell_links(&mut self, shell: &dyn Surroundings, out: &mut Vec<PeeringOutput>) {
        for (peer, connection) in &self.current {
            let Some(link) = self.links.get(connection) else { continue };
            let open = shell.is_open(*connection);
            tell_linked(peer, open, link.dialed, out);
            if open && link.outbox.is_congested() {
                out.push(congested(peer, true));
            }
        }
        self.current.retain(|_, connection| shell.is_open(*connection));
    }

    // --- signs of life

    fn beat(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        peer: &NodeId,
        datagram: Bytes,
        out: &mut Vec<PeeringOutput>,
    ) {
        let connection = self.connection(shell, peer);
        let link = connection.and_then(|connection| self.links.get_mut(&connection));
        let Some(link) = link else { return out.push(count(Counter::HeartbeatsUnsent)) };
        link.life.expect(now, shell.received(link.connection));
        out.push(PeeringOutput::Datagram(link.connection, datagram));
    }

    fn datagram(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        connection: ConnectionId,
        datagram: &[u8],
        out: &mut Vec<PeeringOutput>,
    ) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if !self.rates.pays(&link.peer, now, Traffic::Heartbeat) {
            out.push(count(Counter::FramesRefused));
            return self.throttle(now, shell, connection, "more heartbeats than 500 a second", out);
        }
        let Ok(heartbeat) = Heartbeat::decode(datagram) else {
            out.push(count(Counter::FramesMalformed));
            link.malformed += 1;
            if link.malformed >= MALFORMED_MAX {
                let why = "datagrams that are no heartbeats";
                self.disconnect(now, shell, connection, why, out);
            }
            return;
        };
        // Believed, it would outlive its sender: whoever has the name later would count as an earlier generation.
        if heartbeat.generation.is_absurd(shell.wall()) {
            return out.push(count(Counter::FramesRefused));
        }
        out.push(count(Counter::HeartbeatsReceived));
        if link.life.takes_health(heartbeat.health) {
            let health = DetectorInput::Health(link.peer.clone(), heartbeat.health);
            out.push(PeeringOutput::Route(Output::Detector(health)));
        }
        let later = link.raise(heartbeat.generation);
        match heartbeat.call {
            // The next look finds it: no actor is woken for it.
            Call::Beat => link.life.beaten(now),
            Call::Probe => {
                link.life.beaten(now);
                let (generation, call) = (shell.own(), Call::Echo);
                let echo = Heartbeat { generation, call, health: 0, ..heartbeat };
                out.push(PeeringOutput::Datagram(connection, echo.encode().into()));
            }
            Call::Echo => {
                let sign = Sign::Echo(heartbeat.sequence);
                out.push(heard(&link.peer, heartbeat.generation, sign, now));
            }
        }
        if later {
            out.push(heard(&link.peer, heartbeat.generation, Sign::Traffic, now));
        }
    }

    /// Tells the detector of all that were heard, and peers of a later generation of this node.
    fn look(&mut self, now: Time, shell: &dyn Surroundings, out: &mut Vec<PeeringOutput>) {
        self.looks += 1;
        let (own, interval) = (shell.own(), self.config.gossip_interval);
        let (all, measures) =
            (self.looks.is_multiple_of(FULL_LOOKS), self.looks.is_multiple_of(LOSS_LOOKS));
        let (mut signs, mut renewal) = (Vec::new(), None);
        for (peer, connection) in &self.current {
            let Some(link) = self.links.get_mut(connection) else { continue };
            let received = || shell.received(*connection);
            let progress = link.life.progress(now, interval, (all, link.dialed), received);
            if let Some((sign, at)) = progress {
                signs.push((peer.clone(), link.generation, sign, at));
            }
            if measures && let Some(loss) = link.loss.measure(shell.packets(*connection)) {
                let loss = DetectorInput::Loss(peer.clone(), loss);
                out.push(PeeringOutput::Route(Output::Detector(loss)));
            }
            if link.announces(own) {
                let datagram = renewal.get_or_insert_with(|| {
                    self.beats += 1;
                    let (sequence, call) = (self.beats, Call::Beat);
                    let beat = Heartbeat { generation: own, sequence, call, health: 0 };
                    Bytes::from(beat.encode())
                });
                out.push(PeeringOutput::Datagram(*connection, datagram.clone()));
            }
        }
        out.push(PeeringOutput::Route(Output::Detector(DetectorInput::HeardAll(signs))));
    }

    fn frame(&mut self, now: Time, connection: ConnectionId, out: &mut Vec<PeeringOutput>) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if link.life.gossiped(now, self.config.gossip_interval) {
            out.push(heard(&link.peer, link.generation, Sign::Traffic, now));
        }
    }

    // --- what is sent

    fn send(
        &mut self,
        to: &[NodeId],
        gossip: &Arc<Gossip>,
        encoded: &Encoded,
        out: &mut Vec<PeeringOutput>,
    ) {
        // For peers of an earlier version.
        let mut plain = None;
        for peer in to {
            let link = self.current.get(peer).and_then(|current| self.links.get_mut(current));
            let Some(link) = link else { continue };
            let encoded = match &**gossip {
                Gossip::Tree(_) if link.features & FEATURE_TREES == 0 => plain
                    .get_or_insert_with(|| {
                        gossip.without_trees().and_then(|plain| Encoded::new(&plain).ok())
                    })
                    .as_ref(),
                _ => Some(encoded),
            };
            let Some(encoded) = encoded else { continue };
            let (queued, full) = link.outbox.offer(encoded);
            if full {
                out.push(congested(peer, true));
            }
            if !queued {
                out.push(count(Counter::GossipShed));
                out.extend(shed(peer, gossip));
                continue;
            }
            out.push(PeeringOutput::Filled(link.connection));
            if gossip.news().is_some() {
                out.push(PeeringOutput::Queued(peer.clone(), Arc::clone(gossip)));
            }
        }
    }

    fn next(&mut self, now: Time, connection: ConnectionId, out: &mut Vec<PeeringOutput>) -> Next {
        let Some(link) = self.links.get_mut(&connection) else { return Next::Nothing };
        let (budgets, allowance) = (&mut self.budgets, &mut link.allowance);
        let Some((class, frame)) =
            link.outbox.pop(|| budgets.wait(allowance, now, Class::State).is_some())
        else {
            if !link.outbox.has_news() {
                return Next::Nothing;
            }
            return Next::Wait(budgets.wait(allowance, now, Class::State).unwrap_or_default());
        };
        budgets.charge(allowance, now, class, frame.len());
        // What a connection that was renewed still holds is nothing to storage.
        if link.outbox.drained() && self.current.get(&link.peer) == Some(&connection) {
            out.push(congested(&link.peer, false));
        }
        Next::Frame(class, frame)
    }

    // --- penalties

    fn admits(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        connection: ConnectionId,
        traffic: Traffic,
        out: &mut Vec<PeeringOutput>,
    ) -> bool {
        let Some(link) = self.links.get(&connection) else { return false };
        let pays = self.rates.pays(&link.peer, now, traffic);
        let beyond = match traffic {
            // What comes too often is handed on.
            Traffic::Duplicate | Traffic::Heartbeat => return pays,
            Traffic::Root | Traffic::Graft => {
                "more roots than 200 a second, or more grafts than 100"
            }
            Traffic::Exchange(_) => "more exchanges than it may begin in a second",
        };
        if !pays {
            if !matches!(traffic, Traffic::Exchange(_)) {
                out.push(count(Counter::FramesRefused));
            }
            self.throttle(now, shell, connection, beyond, out);
        }
        pays
    }

    /// The node has dropped something of the peer that was beyond a limit; a peer that goes on is disconnected.
    fn throttle(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        connection: ConnectionId,
        what: &str,
        out: &mut Vec<PeeringOutput>,
    ) {
        out.push(count(Counter::FramesThrottled));
        let Some(link) = self.links.get(&connection) else { return };
        if self.penalties.throttled(&link.peer, now, 1) {
            self.disconnect(now, shell, connection, &format!("{what}, again and again"), out);
        }
    }

    /// Holds something against a peer, also if it has closed its connection meanwhile.
    fn hold_against(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        peer: &NodeId,
        price: u32,
        what: &str,
        out: &mut Vec<PeeringOutput>,
    ) {
        if !self.penalties.throttled(peer, now, price) {
            return;
        }
        match self.connection(shell, peer) {
            Some(connection) => {
                self.disconnect(now, shell, connection, &format!("{what}, again and again"), out);
            }
            None => self.penalties.bar(peer, now, self.config.bar, what),
        }
    }

    /// Ends the connection with a peer that does not keep to the protocol, and refuses it for a while.
    fn disconnect(
        &mut self,
        now: Time,
        shell: &dyn Surroundings,
        connection: ConnectionId,
        why: &str,
        out: &mut Vec<PeeringOutput>,
    ) {
        let Some(link) = self.links.get(&connection) else { return };
        if !shell.is_open(connection) {
            // Several streams may say so at once.
            return;
        }
        let peer = link.peer.clone();
        let (label, reason) = ("misbehaviour", format!("cut off: {why}"));
        out.push(PeeringOutput::Disconnected { peer: peer.clone(), label, reason });
        self.bar(now, &peer, why, out);
        out.push(PeeringOutput::Close(connection, Close::Misbehaviour.with(why)));
    }

    fn bar(&mut self, now: Time, peer: &NodeId, why: &str, out: &mut Vec<PeeringOutput>) {
        self.penalties.bar(peer, now, self.config.bar, why);
        out.push(count(Counter::PeersCutOff));
        let cut_off = DetectorInput::CutOff(peer.clone(), why.into());
        out.push(PeeringOutput::Route(Output::Detector(cut_off)));
    }
}

const fn count(counter: Counter) -> PeeringOutput {
    PeeringOutput::Route(Output::Count(counter, 1))
}

fn heard(peer: &NodeId, generation: Generation, sign: Sign, at: Time) -> PeeringOutput {
    let heard = DetectorInput::Heard { peer: peer.clone(), generation, sign, at };
    PeeringOutput::Route(Output::Detector(heard))
}

fn shed(peer: &NodeId, gossip: &Gossip) -> Option<PeeringOutput> {
    let owners = gossip.owners();
    let input = || StorageInput::Shed(peer.clone(), owners.clone());
    (!owners.is_empty()).then(|| PeeringOutput::Route(Output::Storage(input())))
}

fn congested(peer: &NodeId, congested: bool) -> PeeringOutput {
    let input = StorageInput::Congested(peer.clone(), congested);
    PeeringOutput::Route(Output::Storage(input))
}

/// Tells storage, the detector and the scheduler that there is a connection to a peer, or that there is none any
/// more.
fn tell_linked(peer: &NodeId, up: bool, dialed: bool, out: &mut Vec<PeeringOutput>) {
    let linked = [
        Output::Storage(StorageInput::Linked(peer.clone(), up)),
        Output::Detector(DetectorInput::Linked { peer: peer.clone(), up, dialed }),
        Output::Scheduler(SchedulerInput::Linked { peer: peer.clone(), up, dialed }),
    ];
    out.extend(linked.map(PeeringOutput::Route));
}
