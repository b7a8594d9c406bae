//! Who is live, by what this node itself has heard: what the detector actor wraps.
//!
//! Alive -> Suspect -> Dead -> Forgotten, or Left on purpose; back to Alive when heard again. Only
//! signs that come from the peer itself count, never what others relay.

use std::{collections::BTreeMap, time::Duration};

use super::{
    event::Event,
    id::{Generation, NodeId},
    phi::{PhiEstimate, PhiWindow},
    record::Status,
    route::{DetectorInput, Output, Reach, SchedulerInput, Sign, StorageInput},
    time::Time,
};

/// When a peer is suspected, dead, forgotten.
#[derive(Clone, Debug)]
pub struct LivenessConfig {
    /// How often a heartbeat is expected.
    pub heartbeat_interval: Duration,
    /// Level of suspicion above which a peer is dead.
    pub dead_peer_phi: f64,
    /// How long a peer that was never heard may take until it is called dead.
    pub join_grace: Duration,
    /// How long a dead peer is kept.
    pub forget_after: Duration,
}

/// What is thought of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerState {
    /// Known by name, not heard yet.
    Unheard,
    /// Heard, and not missed.
    Live,
    /// Missed for longer than usual.
    Suspect,
    /// Missed for too long.
    Dead,
    /// Gone on purpose.
    Left,
}

impl PeerState {
    /// Whether the peer may be counted on: live, or missed for a moment only.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Suspect)
    }
}

/// What is thought of a peer, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerLife {
    /// What is thought of it.
    pub state: PeerState,
    /// Since when.
    pub since: Time,
    /// The generation that this is about.
    pub generation: Generation,
    /// How its silence is judged.
    pub estimate: PhiEstimate,
}

/// The failure detector of one node.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    peers: BTreeMap<NodeId, Peer>,
    last_tick: Option<Time>,
}

#[derive(Debug)]
struct Peer {
    state: PeerState,
    since: Time,
    generation: Generation,
    retired: bool,
    window: PhiWindow,
}

impl Liveness {
    /// Nobody is known.
    #[must_use]
    pub const fn new(config: LivenessConfig) -> Self {
        Self { config, peers: BTreeMap::new(), last_tick: None }
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: DetectorInput, out: &mut Vec<Output>) {
        match input {
            DetectorInput::Tick => self.tick(now, out),
            DetectorInput::Observe(_) => {}
            DetectorInput::Member { peer, generation, status, .. } => {
                self.member(now, peer, generation, status, out);
            }
            DetectorInput::Heard { peer, generation, sign, at } => {
                self.heard(now, &peer, generation, sign, at.min(now), out);
            }
            DetectorInput::HeardAll(peers, at) => {
                for (peer, generation) in peers {
                    self.heard(now, &peer, generation, Sign::Traffic, at.min(now), out);
                }
            }
            DetectorInput::Forgotten(peer) => {
                self.peers.remove(&peer);
            }
        }
    }

    /// Takes over what a detector before this one thought of a peer. What is usual for it is learned
    /// anew, as if it had just been heard.
    pub fn restore(&mut self, now: Time, node: NodeId, life: PeerLife) {
        let mut window = PhiWindow::new(now, self.config.heartbeat_interval);
        if matches!(life.state, PeerState::Dead | PeerState::Left) {
            window.pause();
        }
        let PeerLife { state, since, generation, .. } = life;
        self.peers.insert(node, Peer { state, since, generation, retired: false, window });
    }

    /// What is thought of everybody.
    pub fn lives(&self) -> impl Iterator<Item = (&NodeId, PeerLife)> {
        self.peers.iter().map(|(node, peer)| (node, peer.life()))
    }

    /// What is thought of one peer.
    #[must_use]
    pub fn life(&self, peer: &NodeId) -> Option<PeerLife> {
        self.peers.get(peer).map(Peer::life)
    }

    fn member(
        &mut self,
        now: Time,
        node: NodeId,
        generation: Generation,
        status: Status,
        out: &mut Vec<Output>,
    ) {
        let interval = self.config.heartbeat_interval;
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer {
            state: PeerState::Unheard,
            since: now,
            generation,
            retired: false,
            window: PhiWindow::new(now, interval),
        });
        if generation < peer.generation {
            return;
        }
        if generation > peer.generation {
            peer.generation = generation;
            peer.window = PhiWindow::new(now, interval);
            if matches!(peer.state, PeerState::Dead | PeerState::Left) {
                peer.enter(PeerState::Unheard, now);
                out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), Reach::Unheard)));
            }
        }
        if status != Status::Left && peer.state == PeerState::Left {
            peer.enter(PeerState::Unheard, now);
            out.push(Output::Scheduler(SchedulerInput::Peer(node, Reach::Unheard)));
        } else if status == Status::Left && peer.state != PeerState::Left {
            peer.enter(PeerState::Left, now);
            out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), Reach::Dead)));
            out.push(Output::Event(Event::PeerLeft { peer: node }));
        }
    }

    fn heard(
        &mut self,
        now: Time,
        node: &NodeId,
        generation: Generation,
        sign: Sign,
        at: Time,
        out: &mut Vec<Output>,
    ) {
        // Nobody has introduced it yet, or its connection is of an earlier life.
        let Some(peer) = self.peers.get_mut(node) else { return };
        if generation < peer.generation {
            return;
        }
        if generation > peer.generation {
            peer.generation = generation;
            peer.window = PhiWindow::new(at, self.config.heartbeat_interval);
        } else if peer.state == PeerState::Left {
            return;
        }
        match sign {
            Sign::Heartbeat => peer.window.heartbeat(at),
            Sign::Traffic => peer.window.heard(at),
        }
        let known_dead = matches!(peer.state, PeerState::Dead | PeerState::Left);
        if known_dead {
            peer.window.pause();
            out.push(Output::Storage(StorageInput::Back(node.clone())));
        }
        if peer.state != PeerState::Live {
            let again = peer.state != PeerState::Suspect;
            peer.enter(PeerState::Live, now);
            if again {
                out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), Reach::Live)));
            }
            out.push(Output::Event(Event::PeerLive { peer: node.clone() }));
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let wait = self.config.heartbeat_interval / TICKS_PER_INTERVAL;
        let stalled = self.stalled(now, wait);
        self.last_tick = Some(now);
        for (node, peer) in &mut self.peers {
            if !stalled.is_zero() {
                peer.excuse(stalled, now);
            }
            peer.judge(now, node, &self.config, out);
        }
        out.push(Output::Wake(wait));
    }

    /// For how long this process itself stood still, if it did for more than a heartbeat: it could
    /// not hear anybody then, so nobody's silence counts (Lifeguard, "local health").
    fn stalled(&self, now: Time, wait: Duration) -> Duration {
        let late = self.last_tick.map_or(Duration::ZERO, |last| now.since(last + wait));
        if late > self.config.heartbeat_interval { late } else { Duration::ZERO }
    }
}

impl Peer {
    fn life(&self) -> PeerLife {
        PeerLife {
            state: self.state,
            since: self.since,
            generation: self.generation,
            estimate: self.window.estimate(),
        }
    }

    fn enter(&mut self, state: PeerState, now: Time) {
        self.state = state;
        self.since = now;
        self.retired = false;
    }

    /// Takes time out of the silence of a peer that is not given up yet.
    fn excuse(&mut self, stalled: Duration, now: Time) {
        match self.state {
            PeerState::Unheard => self.since = (self.since + stalled).min(now),
            PeerState::Live | PeerState::Suspect => self.window.excuse(stalled, now),
            PeerState::Dead | PeerState::Left => {}
        }
    }

    fn judge(&mut self, now: Time, node: &NodeId, config: &LivenessConfig, out: &mut Vec<Output>) {
        match self.state {
            PeerState::Unheard => {
                if now.since(self.since) >= config.join_grace {
                    self.die(now, node, out);
                }
            }
            PeerState::Live | PeerState::Suspect => self.judge_silence(now, node, config, out),
            PeerState::Dead | PeerState::Left => self.age(now, node, config, out),
        }
    }

    fn judge_silence(
        &mut self,
        now: Time,
        node: &NodeId,
        config: &LivenessConfig,
        out: &mut Vec<Output>,
    ) {
        let phi = self.window.phi(now);
        if phi >= config.dead_peer_phi {
            self.die(now, node, out);
        } else if phi >= config.dead_peer_phi * SUSPECT_PART && self.state == PeerState::Live {
            self.enter(PeerState::Suspect, now);
            out.push(Output::Event(Event::PeerSuspect { peer: node.clone(), phi }));
        }
    }

    fn die(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        self.enter(PeerState::Dead, now);
        self.window.pause();
        out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), Reach::Dead)));
        out.push(Output::Storage(StorageInput::Gone(node.clone())));
        out.push(Output::Event(Event::PeerDead { peer: node.clone(), phi: self.window.phi(now) }));
    }

    /// A dead peer is no longer told of after half the time, and forgotten after all of it, so that
    /// nobody hears of it anew from somebody whose clock runs a little later.
    fn age(&mut self, now: Time, node: &NodeId, config: &LivenessConfig, out: &mut Vec<Output>) {
        let age = now.since(self.since);
        if age >= config.forget_after {
            out.push(Output::Storage(StorageInput::Forget(node.clone())));
        } else if age >= config.forget_after / 2 && !self.retired {
            self.retired = true;
            out.push(Output::Storage(StorageInput::Retire(node.clone())));
        }
    }
}

/// A peer is suspect at this part of the level at which it is dead.
const SUSPECT_PART: f64 = 0.5;
/// How often silence is judged within one heartbeat interval.
const TICKS_PER_INTERVAL: u32 = 4;
