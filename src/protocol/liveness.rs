//! Who is live, by what this node itself hears and by what the others say: what the detector actor wraps.
//!
//! A node hears its neighbours itself and judges their silence (observed peers); of all others it is
//! told. Once an observer is half convinced it accuses the peer before everybody, as suspect; once
//! convinced, as dead. Between the two the accused may refute it: nobody but a peer itself raises its
//! incarnation, so that is a sign of life, whoever relays it.
//!
//! Alive -> Suspect -> Dead -> Forgotten, or Left on purpose; back to Alive when heard again, or when
//! it refutes what was said.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    event::Event,
    id::{Generation, Incarnation, NodeId},
    phi::{PhiEstimate, PhiWindow},
    record::Status,
    route::{Counter, DetectorInput, Output, Reach, SchedulerInput, Sign, StorageInput},
    time::Time,
    verdict::{Level, Verdict},
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
    /// How its silence is judged; `None` if this node does not hear it itself, but is told of it.
    pub estimate: Option<PhiEstimate>,
}

/// The failure detector of one node.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    peers: BTreeMap<NodeId, Peer>,
    /// Those to be heard by this node itself; everybody until it is told whom.
    observed: BTreeMap<NodeId, Watch>,
    whom: Option<Arc<[NodeId]>>,
    /// Dead or left, to be forgotten some day.
    gone: BTreeSet<NodeId>,
    last_tick: Option<Time>,
    /// Whose life is not as it was when the changes were last taken.
    changed: BTreeSet<NodeId>,
}

/// A thousand million of these fit into the memory of a machine that simulates a large cluster.
#[derive(Clone, Copy, Debug)]
struct Peer {
    since: Time,
    generation: Generation,
    incarnation: u32,
    level: Level,
    state: PeerState,
    retired: bool,
}

/// How a peer is heard that this node hears itself.
#[derive(Debug)]
struct Watch {
    window: PhiWindow,
    /// Since when it is to be heard.
    since: Time,
    /// It was heard at least once.
    heard: bool,
    /// How often it has refuted us since it was last heard here: the way between us is broken, not
    /// the peer.
    doubts: u32,
    /// When it was last told what is said of it.
    confronted: Option<Time>,
}

impl Liveness {
    /// Nobody is known.
    #[must_use]
    pub const fn new(config: LivenessConfig) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            observed: BTreeMap::new(),
            whom: None,
            gone: BTreeSet::new(),
            last_tick: None,
            changed: BTreeSet::new(),
        }
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: DetectorInput, out: &mut Vec<Output>) {
        match input {
            DetectorInput::Tick => self.tick(now, out),
            DetectorInput::Member { peer, generation, status, verdict } => {
                self.member(now, &peer, generation, status, verdict, out);
            }
            DetectorInput::Observe(whom) => self.observe(now, whom, out),
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
                self.observed.remove(&peer);
                self.gone.remove(&peer);
                self.changed.insert(peer);
            }
        }
    }

    /// Takes over what a detector before this one thought of a peer. What is usual for it is learned
    /// anew, as if it had just been heard.
    pub fn restore(&mut self, now: Time, node: NodeId, life: PeerLife) {
        let PeerLife { state, since, generation, estimate } = life;
        let level = if state == PeerState::Dead { Level::Dead } else { Level::Alive };
        let peer = Peer { since, generation, incarnation: 0, level, state, retired: false };
        if peer.is_gone() {
            self.gone.insert(node.clone());
        } else {
            let mut watch = Watch::new(now, &self.config);
            watch.heard = estimate.is_some() && state != PeerState::Unheard;
            self.observed.insert(node.clone(), watch);
        }
        self.changed.insert(node.clone());
        self.peers.insert(node, peer);
    }

    /// What is thought of everybody.
    pub fn lives(&self) -> impl Iterator<Item = (&NodeId, PeerLife)> {
        self.peers.iter().map(|(node, peer)| (node, self.describe(node, peer)))
    }

    /// What is thought of one peer.
    #[must_use]
    pub fn life(&self, peer: &NodeId) -> Option<PeerLife> {
        self.peers.get(peer).map(|life| self.describe(peer, life))
    }

    /// Whose life has changed since this was last asked; those that were forgotten as well.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// All of these are live, by what others say, and nobody else is known.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Generation)>) {
        let met = |generation| Peer { state: PeerState::Live, ..Peer::unheard(now, generation) };
        self.peers = members.into_iter().map(|(node, life)| (node, met(life))).collect();
        self.whom = Some(Arc::new([]));
        (self.observed, self.gone) = (BTreeMap::new(), BTreeSet::new());
    }

    /// Whether all who are to be heard are, and nobody is gone: then ticks do nothing as long as that
    /// goes on, and may be left out by whoever knows that it does ([`Liveness::skip_to`]).
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let well = |peer: &Peer| (peer.state, peer.level) == (PeerState::Live, Level::Alive);
        let live = |node| self.peers.get(node).is_some_and(well);
        self.gone.is_empty() && self.observed.iter().all(|(node, watch)| watch.heard && live(node))
    }

    /// Says that the ticks up to `now` were left out on purpose, and that nothing was to be judged.
    pub fn skip_to(&mut self, now: Time) {
        self.last_tick = Some(now);
    }

    fn describe(&self, node: &NodeId, peer: &Peer) -> PeerLife {
        PeerLife {
            state: peer.state,
            since: peer.since,
            generation: peer.generation,
            estimate: self.observed.get(node).map(|watch| watch.window.estimate()),
        }
    }

    // --- what is told

    fn member(
        &mut self,
        now: Time,
        node: &NodeId,
        generation: Generation,
        status: Status,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let observed = self.is_to_be_observed(node);
        if observed && !self.observed.contains_key(node) {
            self.observed.insert(node.clone(), Watch::new(now, &self.config));
        }
        let known = self.peers.contains_key(node);
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer::unheard(now, generation));
        if generation < peer.generation {
            return;
        }
        let incarnation = u32::try_from(verdict.incarnation.0).unwrap_or(u32::MAX);
        let renewed = generation > peer.generation;
        let refuted = renewed || !known || incarnation > peer.incarnation;
        peer.generation = generation;
        if renewed && observed {
            self.observed.insert(node.clone(), Watch::new(now, &self.config));
        }
        let graver = refuted || verdict.level > peer.level;
        if refuted || incarnation == peer.incarnation {
            (peer.incarnation, peer.level) =
                (incarnation, if refuted { verdict.level } else { peer.level.max(verdict.level) });
        }
        let came_back = status != Status::Left && peer.state == PeerState::Left;
        let next = if status == Status::Left {
            PeerState::Left
        } else if refuted && verdict.level == Level::Alive {
            Self::absolved(now, peer.state, renewed, known, self.observed.get_mut(node))
        } else if came_back {
            if observed { PeerState::Unheard } else { PeerState::Live }
        } else if graver {
            accused(peer.state, verdict.level, self.observed.get(node))
        } else {
            peer.state
        };
        self.enter(now, node, next, 0.0, out);
    }

    /// What becomes of a peer that is new, or lives anew, or has refuted what was said of it.
    fn absolved(
        now: Time,
        state: PeerState,
        renewed: bool,
        known: bool,
        watch: Option<&mut Watch>,
    ) -> PeerState {
        let over = matches!(state, PeerState::Dead | PeerState::Left);
        match watch {
            // Others have heard it.
            None => PeerState::Live,
            Some(_) if !known || (renewed && over) => PeerState::Unheard,
            Some(_) if renewed => state,
            Some(watch) => {
                if matches!(state, PeerState::Suspect | PeerState::Dead) {
                    watch.doubts = (watch.doubts + 1).min(DOUBTS_MAX);
                    watch.window.pause();
                    watch.window.heard(now);
                    watch.since = now;
                    PeerState::Live
                } else {
                    state
                }
            }
        }
    }

    fn is_to_be_observed(&self, node: &NodeId) -> bool {
        self.whom.as_ref().is_none_or(|whom| whom.contains(node))
    }

    /// From now on these are to be heard by this node itself. Whom it misses it judges to the end: if
    /// every end of a bridge were let go as suspect, nobody would ever find one dead.
    fn observe(&mut self, now: Time, whom: Arc<[NodeId]>, out: &mut Vec<Output>) {
        let missed = |node: &NodeId| {
            self.peers.get(node).is_some_and(|peer| peer.state == PeerState::Suspect)
        };
        let dropped = self.observed.keys().filter(|node| !whom.contains(node) && !missed(node));
        let dropped: Vec<_> = dropped.cloned().collect();
        for node in &*whom {
            if self.peers.contains_key(node) && !self.observed.contains_key(node) {
                self.observed.insert(node.clone(), Watch::new(now, &self.config));
                self.changed.insert(node.clone());
            }
        }
        self.whom = Some(whom);
        for node in dropped {
            self.observed.remove(&node);
            self.changed.insert(node.clone());
            if self.peers.get(&node).is_some_and(|peer| peer.state == PeerState::Unheard) {
                self.enter(now, &node, PeerState::Live, 0.0, out);
            }
        }
    }

    // --- what is heard

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
        let watch = self.observed.get_mut(node);
        if generation > peer.generation {
            peer.generation = generation;
            (peer.incarnation, peer.level) = (0, Level::Alive);
            if let Some(watch) = watch {
                *watch = Watch::new(at, &self.config);
                watch.hear(sign, at);
            }
        } else if peer.state == PeerState::Left {
            return;
        } else if let Some(watch) = watch {
            if matches!(peer.state, PeerState::Dead | PeerState::Left) {
                watch.window.pause();
            }
            watch.hear(sign, at);
        }
        self.changed.insert(node.clone());
        if peer.level > Level::Alive && self.may_confront(now, node) {
            out.push(Output::Storage(StorageInput::Back(node.clone())));
        }
        self.enter(now, node, PeerState::Live, 0.0, out);
    }

    /// Whether a peer is to be told now what is said of it, so that it can refute that.
    fn may_confront(&mut self, now: Time, node: &NodeId) -> bool {
        let Some(watch) = self.observed.get_mut(node) else { return true };
        let lately = |at: Time| now.since(at) < self.config.heartbeat_interval;
        if watch.confronted.is_some_and(lately) {
            return false;
        }
        watch.confronted = Some(now);
        true
    }

    /// Changes what is thought of a peer, and tells everybody whom that concerns.
    fn enter(
        &mut self,
        now: Time,
        node: &NodeId,
        next: PeerState,
        phi: f64,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let before = peer.state;
        self.changed.insert(node.clone());
        if before == next {
            return;
        }
        (peer.state, peer.since, peer.retired) = (next, now, false);
        if peer.is_gone() {
            self.gone.insert(node.clone());
            if let Some(watch) = self.observed.get_mut(node) {
                watch.window.pause();
            }
        } else {
            self.gone.remove(node);
        }
        if before == PeerState::Suspect && !self.is_to_be_observed(node) {
            self.observed.remove(node);
        }
        let reach = match next {
            PeerState::Unheard => Reach::Unheard,
            PeerState::Live | PeerState::Suspect => Reach::Live,
            PeerState::Dead | PeerState::Left => Reach::Dead,
        };
        let pair = (before, next);
        if !matches!(
            pair,
            (PeerState::Live, PeerState::Suspect)
                | (PeerState::Suspect, PeerState::Live)
                | (PeerState::Dead, PeerState::Left)
        ) {
            out.push(Output::Scheduler(SchedulerInput::Peer(node.clone(), reach)));
        }
        if (before == PeerState::Suspect) != (next == PeerState::Suspect) {
            let suspected = next == PeerState::Suspect;
            out.push(Output::Scheduler(SchedulerInput::Suspected(node.clone(), suspected)));
        }
        let peer = node.clone();
        match next {
            PeerState::Unheard => {}
            PeerState::Live => out.push(Output::Event(Event::PeerLive { peer })),
            PeerState::Suspect => {
                out.push(Output::Count(Counter::PeersSuspected, 1));
                out.push(Output::Event(Event::PeerSuspect { peer, phi }));
            }
            PeerState::Dead => out.push(Output::Event(Event::PeerDead { peer, phi })),
            PeerState::Left => out.push(Output::Event(Event::PeerLeft { peer })),
        }
    }

    // --- time

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let wait = self.config.heartbeat_interval / TICKS_PER_INTERVAL;
        let stalled = self.stalled(now, wait);
        self.last_tick = Some(now);
        let mut convictions = Vec::new();
        for (node, watch) in &mut self.observed {
            let Some(peer) = self.peers.get(node).filter(|peer| !peer.is_gone()) else { continue };
            if !stalled.is_zero() {
                watch.excuse(stalled, now);
            }
            let (level, phi) = watch.judge(now, peer.state, &self.config);
            let graver = match peer.state {
                PeerState::Suspect => level > Level::Suspect,
                _ => level > Level::Alive,
            };
            if graver {
                convictions.push((node.clone(), peer.accusation(level), phi));
            }
        }
        for (node, (generation, verdict), phi) in convictions {
            out.push(Output::Storage(StorageInput::Accuse(node.clone(), generation, verdict)));
            let dead = verdict.level == Level::Dead;
            let next = if dead { PeerState::Dead } else { PeerState::Suspect };
            self.enter(now, &node, next, phi, out);
        }
        self.age(now, out);
        out.push(Output::Wake(wait));
    }

    /// For how long this process itself stood still, if it did for more than a heartbeat: it could
    /// not hear anybody then, so nobody's silence counts (Lifeguard, "local health").
    fn stalled(&self, now: Time, wait: Duration) -> Duration {
        let late = self.last_tick.map_or(Duration::ZERO, |last| now.since(last + wait));
        if late > self.config.heartbeat_interval { late } else { Duration::ZERO }
    }

    /// A dead peer is no longer told of after half the time, and forgotten after all of it, so that
    /// nobody hears of it anew from somebody whose clock runs a little later.
    fn age(&mut self, now: Time, out: &mut Vec<Output>) {
        for node in &self.gone {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            let age = now.since(peer.since);
            if age >= self.config.forget_after {
                out.push(Output::Storage(StorageInput::Forget(node.clone())));
            } else if age >= self.config.forget_after / 2 && !peer.retired {
                peer.retired = true;
                out.push(Output::Storage(StorageInput::Retire(node.clone())));
            }
        }
    }
}

impl Peer {
    const fn unheard(now: Time, generation: Generation) -> Self {
        Self {
            since: now,
            generation,
            incarnation: 0,
            level: Level::Alive,
            state: PeerState::Unheard,
            retired: false,
        }
    }

    const fn is_gone(&self) -> bool {
        matches!(self.state, PeerState::Dead | PeerState::Left)
    }

    /// What to accuse it of: what it has refuted already is not said again.
    fn accusation(&self, level: Level) -> (Generation, Verdict) {
        let incarnation = Incarnation(self.incarnation.into());
        (self.generation, Verdict { incarnation, level })
    }
}

impl Watch {
    fn new(now: Time, config: &LivenessConfig) -> Self {
        let window = PhiWindow::new(now, config.heartbeat_interval);
        Self { window, since: now, heard: false, doubts: 0, confronted: None }
    }

    fn hear(&mut self, sign: Sign, at: Time) {
        self.heard = true;
        self.doubts = 0;
        match sign {
            Sign::Heartbeat => self.window.heartbeat(at),
            Sign::Traffic => self.window.heard(at),
        }
    }

    /// Takes time out of the silence.
    fn excuse(&mut self, stalled: Duration, now: Time) {
        self.since = (self.since + stalled).min(now);
        self.window.excuse(stalled, now);
    }

    /// How bad it looks, by what was heard here.
    fn judge(&self, now: Time, state: PeerState, config: &LivenessConfig) -> (Level, f64) {
        if !self.heard {
            let (silent, grace) = (now.since(self.since), config.join_grace * (1 << self.doubts));
            // Others have heard it, and perhaps this node alone cannot: it may refute that first.
            let met = state != PeerState::Unheard;
            let level = match silent {
                _ if silent >= grace => Level::Dead,
                _ if met && silent >= grace / 4 * 3 => Level::Suspect,
                _ => Level::Alive,
            };
            return (level, 0.0);
        }
        // Nothing is missed yet: most peers, most of the time.
        if state == PeerState::Live && self.window.silence(now) < config.heartbeat_interval {
            return (Level::Alive, 0.0);
        }
        let phi = self.window.phi(now);
        let patience = f64::from(1 << self.doubts);
        if phi >= config.dead_peer_phi * patience {
            (Level::Dead, phi)
        } else if phi >= config.dead_peer_phi * SUSPECT_PART * patience {
            (Level::Suspect, phi)
        } else {
            (Level::Alive, phi)
        }
    }
}

/// What becomes of a peer that somebody else accuses. Whom this node hears itself it judges itself.
fn accused(state: PeerState, level: Level, watch: Option<&Watch>) -> PeerState {
    let heard = watch.is_some_and(|watch| watch.heard);
    match (state, level) {
        (PeerState::Live, Level::Suspect | Level::Dead) if heard => state,
        (PeerState::Unheard | PeerState::Live, Level::Suspect) => PeerState::Suspect,
        (PeerState::Unheard | PeerState::Live | PeerState::Suspect, Level::Dead) => PeerState::Dead,
        (_, Level::Alive | Level::Suspect) | (PeerState::Dead | PeerState::Left, _) => state,
    }
}

/// A peer is suspect at this part of the level at which it is dead.
const SUSPECT_PART: f64 = 0.5;
/// A peer that refutes us again and again is given up to eight times as long.
const DOUBTS_MAX: u32 = 3;
/// How often silence is judged within one heartbeat interval.
const TICKS_PER_INTERVAL: u32 = 4;
