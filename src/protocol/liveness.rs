//! The liveness of peers, from what this node hears and what the others report: the machine inside the
//! detector actor.
//!
//! A node observes its neighbours itself ([`watch`](super::watch)) and receives reports about all other
//! nodes. When it misses a neighbour it asks all other observers of that peer ([`inquiry`](super::inquiry)).
//! Once a quorum agrees, the peer is announced to all nodes as suspect, and as dead if it does not refute
//! this in time. Only the peer itself raises its incarnation, so a refutation is a sign of life, whichever
//! node relays it.
//!
//! Alive -> Suspect -> Dead -> Forgotten, or Left on purpose; back to Alive when the peer is heard again, or
//! when it refutes the suspicion.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use super::{
    id::{Generation, NodeId},
    phi::PhiEstimate,
    reason::{Cause, History, Reason, Transition},
    route::{DetectorInput, Output, SchedulerInput, Sign, StorageInput, TransportInput},
    rules::Rules,
    state::{PeerLife, PeerState},
    time::Time,
    verdict::Level,
    watch::{Scale, Watch},
};

mod announcing;
mod asking;
mod ears;
mod health;
mod inquiring;
mod lateness;
mod lives;
mod report;
mod reporting;
mod returns;
mod sentencing;
mod ticks;

pub use super::watch::TICKS_PER_INTERVAL;
pub use asking::{ASKS_MAX, ASKS_PER_INTERVAL, QUESTIONS_MAX};
pub use health::HEALTH_MAX;
pub use lateness::{ASK_LAGS, LATE};

use announcing::{tell_state, witness};
use asking::Asking;
use ears::{Ears, Sendings, Whom};
use health::Health;
use lateness::Lateness;
use lives::{Aged, Ahead, Lives, Peer};
use report::Told;
use ticks::Ticks;

/// For this many times the time of a refutation, what this node hears itself counts more than reports of
/// others or of storage; after that time every suspicion ends, even if no observer is left.
pub const DEFIANCE: u32 = 5;

/// When a peer is suspected, dead, forgotten.
#[derive(Clone, Debug)]
pub struct LivenessConfig {
    /// This node.
    pub node: NodeId,
    /// How often a heartbeat is expected.
    pub heartbeat_interval: Duration,
    /// Level of suspicion at which one observer is convinced.
    pub dead_peer_phi: f64,
    /// How long a suspect may take to refute the suspicion.
    pub suspicion: Duration,
    /// How long a peer that was never heard may take until its observers are convinced that it is gone.
    pub join_grace: Duration,
    /// How long a dead peer is kept.
    pub forget_after: Duration,
    /// The rules in force.
    pub rules: Rules,
}

/// The failure detector of one node.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    lives: Lives,
    ears: Ears,
    asking: Asking,
    ticks: Ticks,
    health: Health,
    lateness: Lateness,
}

impl Liveness {
    /// No peer is known.
    #[must_use]
    pub fn new(config: LivenessConfig) -> Self {
        let interval = config.heartbeat_interval;
        Self {
            lives: Lives::default(),
            ears: Ears::new(config.node.clone(), interval),
            asking: Asking::new(),
            ticks: Ticks::new(interval),
            health: Health::new(interval, &config.rules),
            lateness: Lateness::new(interval),
            config,
        }
    }

    /// Handles a message that needs no reply.
    pub fn handle(&mut self, now: Time, input: DetectorInput, out: &mut Vec<Output>) {
        match input {
            DetectorInput::Tick => self.tick(now, out),
            // This does not change the state of the peer: it lives. It is recorded beside the transitions,
            // since it explains the ones that follow.
            DetectorInput::CutOff(peer, deed) => self.lives.note(now, &peer, Cause::CutOff, deed),
            DetectorInput::Member { peer, generation, status, verdict, observers } => {
                self.member(now, &peer, Told { generation, status, verdict, observers }, out);
            }
            DetectorInput::Observe { judged, witnessed } => {
                self.observe(now, Whom { judged, witnessed }, out);
            }
            DetectorInput::Linked { peer, up, dialed } => self.ears.linked(&peer, up, dialed),
            DetectorInput::Loss(peer, loss) => {
                if let Some(watch) = self.ears.get_mut(&peer) {
                    watch.set_loss(loss);
                }
            }
            DetectorInput::Health(peer, health) => {
                if let Some(watch) = self.ears.get_mut(&peer) {
                    watch.set_health(health);
                }
            }
            DetectorInput::Asked(ask, near) => self.asked(now, ask, near, out),
            DetectorInput::Asking(peer, observers) => {
                self.excuse(now);
                if let Some(inquiry) = self.asking.inquiry_mut(&peer) {
                    inquiry.expect(observers);
                }
                self.decide(now, &peer, out);
            }
            DetectorInput::Answered(answer) => {
                self.excuse(now);
                self.answered(now, answer, out);
            }
            DetectorInput::Heard { peer, generation, sign, at } => {
                self.heard(now, &peer, generation, sign, at.min(now), out);
            }
            DetectorInput::HeardAll(peers) => {
                self.ticks.looked_after();
                for (peer, generation, sign, at) in peers {
                    self.heard(now, &peer, generation, sign, at.min(now), out);
                }
                self.tick(now, out);
            }
            DetectorInput::Removal { peer, generation, by } => {
                let life = self.lives.peers.get(&peer).filter(|life| life.generation == generation);
                out.extend(life.map(|life| {
                    if life.is_gone() {
                        Output::Storage(StorageInput::Remove { peer, by: Some(by) })
                    } else {
                        Output::Scheduler(SchedulerInput::Removal { peer, by })
                    }
                }));
            }
            DetectorInput::Returned(peer, how) => self.returned(now, &peer, &how, out),
            DetectorInput::Forgotten(peer) => {
                self.ears.remove(&peer);
                self.asking.drop(&peer);
                self.lives.forget(peer);
            }
            DetectorInput::Lag(lag) => self.lateness.set(now, lag),
        }
    }

    /// Takes over the state of a peer from an earlier detector. The usual intervals of the peer are learned
    /// again, as if it had just been heard.
    pub fn restore(
        &mut self,
        now: Time,
        node: NodeId,
        life: PeerLife,
        history: Option<Arc<History>>,
    ) {
        if !self.lives.restore(&node, life, history) {
            let mut watch = Watch::new(now, self.config.heartbeat_interval, true);
            if life.state != PeerState::Unheard {
                watch.assume_heard();
            }
            self.ears.insert(node, watch);
        }
    }

    /// The states of all peers.
    pub fn lives(&self) -> impl Iterator<Item = (&NodeId, PeerLife)> {
        self.lives.peers.iter().map(|(node, peer)| (node, Self::describe(peer)))
    }

    /// The state of one peer.
    #[must_use]
    pub fn life(&self, peer: &NodeId) -> Option<PeerLife> {
        self.lives.peers.get(peer).map(Self::describe)
    }

    /// The latest state transitions of a peer. Becoming known is not one of them.
    #[must_use]
    pub fn history(&self, peer: &NodeId) -> Option<&Arc<History>> {
        self.lives.history(peer)
    }

    /// How slow this node considers itself, up to [`HEALTH_MAX`]; 0 is normal.
    #[must_use]
    pub const fn health(&self) -> u32 {
        self.health.score()
    }

    /// How late this node is served, as it was told last.
    #[must_use]
    pub const fn lag(&self) -> Duration {
        self.lateness.lag()
    }

    /// The peers whose state has changed since the last call, including forgotten ones.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.lives.changed)
    }

    /// The figures behind the judgement of each peer that this node observes, by name.
    pub fn estimates(&self) -> impl Iterator<Item = (&NodeId, PhiEstimate)> {
        self.ears.iter().map(|(node, watch)| (node, watch.estimate()))
    }

    /// All of these are live, according to others, and no other peer is known.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Generation)>) {
        self.lives.reset(now, members);
        self.ears.close();
    }

    /// Whether all observed peers are heard, and no peer is gone: as long as that lasts, ticks only send
    /// heartbeats, and a caller that knows this may leave them out ([`Liveness::skip_to`]).
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let well = |peer: &Peer| (peer.state, peer.level) == (PeerState::Live, Level::Alive);
        let live = |node| self.lives.peers.get(node).is_some_and(well);
        self.lives.are_at_rest()
            && self.health.score() == 0
            && self.lateness.worst().is_zero()
            && self.ears.iter().all(|(node, watch)| watch.is_settled() && live(node))
    }

    /// The tick of an interval in which a peer is sent its heartbeat, if this node is the one to send it.
    #[must_use]
    pub fn heartbeat_tick(&self, peer: &NodeId) -> Option<u64> {
        self.ears.get(peer)?.slot()
    }

    /// Reports that the ticks up to `now` were left out on purpose, and that there was nothing to judge.
    pub fn skip_to(&mut self, now: Time) {
        self.ticks.skip_to(now);
    }

    const fn describe(peer: &Peer) -> PeerLife {
        PeerLife { state: peer.state, since: peer.since, generation: peer.generation }
    }

    fn scale(&self) -> Scale {
        let rules = &self.config.rules;
        let quiet = if rules.quiet_when_late { self.lateness.worst() } else { Duration::ZERO };
        Scale {
            interval: self.config.heartbeat_interval,
            join_grace: self.config.join_grace,
            dead_peer_phi: self.config.dead_peer_phi,
            health: self.health.score(),
            lag: quiet,
            few: self.ears.are_few(),
            linear: rules.linear_patience,
        }
    }

    /// From now on this node observes these peers itself. A peer that it misses it judges to the end: if
    /// every end of a bridge stopped observing a suspect, no node would ever declare one dead.
    fn observe(&mut self, now: Time, whom: Whom, out: &mut Vec<Output>) {
        let mut dropped = self.ears.turn_to(whom.clone());
        dropped.retain(|node| !self.lives.is_suspect(node));
        for (node, judged) in whom.iter() {
            if let Some(watch) = self.ears.get_mut(node) {
                watch.set_judged(judged);
                // The scheduler, which decides whom to observe, may have forgotten it.
                if !judged && watch.is_reported() {
                    out.push(witness(node, false));
                }
            } else if self.lives.peers.contains_key(node) {
                self.ears.listen(now, node, judged);
                self.lives.changed.insert(node.clone());
            }
        }
        for node in dropped {
            self.ears.remove(&node);
            self.asking.drop(&node);
            self.lives.changed.insert(node.clone());
            if self.lives.peers.get(&node).is_some_and(|peer| peer.state == PeerState::Unheard) {
                self.enter(now, &node, PeerState::Live, Cause::Vouched, Arc::default(), out);
            }
        }
        self.ears.spread();
    }

    // --- signs of life

    fn heard(
        &mut self,
        now: Time,
        node: &NodeId,
        generation: Generation,
        sign: Sign,
        at: Time,
        out: &mut Vec<Output>,
    ) {
        // The peer has not been introduced yet, or its connection is of an earlier generation.
        let Some(peer) = self.lives.peers.get_mut(node) else { return };
        if generation < peer.generation {
            return self.heard_earlier(now, node, generation, at, out);
        }
        if let Some(ahead) = self.lives.ahead.get_mut(node) {
            ahead.heard = ahead.heard.max(at);
        }
        let watch = self.ears.get_mut(node);
        // Most signs of life have no consequences.
        let well = (peer.state, peer.level) == (PeerState::Live, Level::Alive);
        let watch = match watch {
            Some(watch) if well && generation == peer.generation && watch.is_quiet() => {
                return watch.hear(sign, at);
            }
            watch => watch,
        };
        let asked = self.asking.has_questions(node);
        let missed = !asked && watch.as_ref().is_some_and(|watch| watch.is_doubted());
        if generation > peer.generation {
            // A second generation that storage does not know either does not change what storage knows.
            let told = Ahead { heard: at, ..peer.as_told() };
            self.lives.ahead.entry(node.clone()).or_insert(told).heard = at;
            peer.generation = generation;
            self.lives.changed.insert(node.clone());
            (peer.incarnation, peer.level) = (0, Level::Alive);
            if let Some(watch) = watch {
                watch.renew(at, self.config.heartbeat_interval);
                watch.hear(sign, at);
            }
        } else if peer.state == PeerState::Left {
            return;
        } else if let Some(watch) = watch {
            if peer.state == PeerState::Dead {
                watch.pause();
            }
            watch.hear(sign, at);
        }
        let (state, level) = (peer.state, peer.level);
        if self.ears.get_mut(node).is_some_and(Watch::speaks_again) {
            out.push(witness(node, true));
        }
        let missing = self.ears.misses(node);
        if !missing {
            if missed {
                // It was there all the time: its answers, or our reading of them, were late.
                self.health.fall_ill(now);
            }
            self.asking.conclude(node);
            for question in self.asking.take_questions(node) {
                out.push(Output::Storage(StorageInput::Answer(question.ask, true)));
            }
        }
        if level > Level::Alive && self.may_confront(now, node) {
            out.push(Output::Storage(StorageInput::Back(node.clone())));
        }
        // Packets that were read before the suspicion do not refute it.
        let late = state == PeerState::Suspect && missing;
        if !late {
            self.enter(now, node, PeerState::Live, Cause::Heard, Arc::default(), out);
        }
        self.lives.note_defiance(node);
    }

    /// Whether to send a peer the report about it now, so that it can refute it.
    fn may_confront(&mut self, now: Time, node: &NodeId) -> bool {
        let interval = self.config.heartbeat_interval;
        self.ears.get_mut(node).is_none_or(|watch| watch.may_confront(now, interval))
    }

    fn accuse(
        &mut self,
        now: Time,
        node: &NodeId,
        level: Level,
        cause: Cause,
        observers: Arc<[NodeId]>,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.lives.peers.get(node) else { return };
        let (generation, verdict) = peer.accusation(level);
        let accuse =
            StorageInput::Accuse(node.clone(), generation, verdict, Arc::clone(&observers));
        out.push(Output::Storage(accuse));
        let next = if level == Level::Dead { PeerState::Dead } else { PeerState::Suspect };
        self.enter(now, node, next, cause, observers, out);
    }

    /// Changes the state of a peer, and informs all that need to know.
    fn enter(
        &mut self,
        now: Time,
        node: &NodeId,
        next: PeerState,
        cause: Cause,
        observers: Arc<[NodeId]>,
        out: &mut Vec<Output>,
    ) {
        let scale = self.scale();
        let Some(before) = self.lives.enter(now, node, next) else { return };
        let watch = self.ears.get(node);
        let reason = Arc::new(Reason {
            phi: watch.map_or(0.0, |watch| watch.phi(now, &scale)),
            evidence: watch.map(|watch| watch.evidence(now)),
            observers,
            stall: self.health.stall(now),
            slowness: self.health.score(),
            lag: self.lateness.lag(),
            factor: watch.map_or(1, |watch| watch.patience_factor(&scale)),
            ..Reason::of(cause)
        });
        if self.lives.is_gone(node) {
            if let Some(watch) = self.ears.get_mut(node) {
                watch.pause();
            }
            self.asking.drop(node);
        }
        if before == PeerState::Suspect && self.ears.role(node).is_none() {
            self.ears.remove(node);
        }
        // There may be millions of peers that another node has met.
        if before != PeerState::Unheard || cause != Cause::Vouched {
            let transition =
                Transition { at: now, from: before, to: next, reason: Arc::clone(&reason) };
            self.lives.remember(node, transition);
        }
        tell_state(node, before, next, reason, out);
    }

    // --- time

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.excuse(now);
        self.ticks.reached(now);
        self.health.recover(now);
        self.lateness.pass(now);
        let ticks = self.ticks.take_due(now);
        let whole = !ticks.is_empty();
        self.look(now, &ticks, out);
        for node in self.ears.missed() {
            self.judge(now, &node, out);
        }
        if whole {
            self.miss_bridges(now, out);
            self.convict(now, out);
            self.yield_to_the_others(now, out);
            self.give_up_unknown_lives(now, out);
            self.age(now, out);
        }
        self.wake(now, out);
    }

    /// Checks all observed peers; sends heartbeats and probes.
    fn look(&mut self, now: Time, ticks: &Range<u64>, out: &mut Vec<Output>) {
        let (scale, health) = (self.scale(), self.health.as_byte());
        let lives = &self.lives;
        let Sendings { beats, probes } =
            self.ears.look(now, ticks, &scale, |node| !lives.is_gone(node));
        if !beats.is_empty() {
            out.push(Output::Transport(TransportInput::Heartbeat { peers: beats, health }));
        }
        if !probes.is_empty() {
            out.push(Output::Transport(TransportInput::Probe { probes, health }));
        }
    }

    /// Checks the peers that are heard on behalf of their datacenter, and are silent.
    fn miss_bridges(&mut self, now: Time, out: &mut Vec<Output>) {
        let scale = self.scale();
        let silent = self.ears.fall_silent(now, &scale);
        out.extend(silent.map(|node| witness(node, false)));
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Output>) {
        let look = self.ears.next_look(&self.scale());
        out.extend(self.ticks.wait(now, look).map(Output::Wake));
    }

    /// Excludes the time during which this process stood still from all that is judged. The first input after
    /// that is examined only then.
    fn excuse(&mut self, now: Time) {
        let Some(stalled) = self.ticks.stalled(now) else { return };
        self.health.stalled(now, stalled);
        self.ticks.reached(now);
        self.ears.excuse(stalled, now);
        self.asking.excuse(stalled, now);
        self.lives.excuse(stalled, now);
    }

    /// A dead peer is left out of digests after half the time, and forgotten after all of it, so that no node
    /// learns of it again from another whose clock runs a little later.
    fn age(&mut self, now: Time, out: &mut Vec<Output>) {
        for (aged, node, generation) in self.lives.age(now, self.config.forget_after) {
            out.push(Output::Storage(match aged {
                Aged::Retire => StorageInput::Retire(node, generation),
                Aged::Forget => StorageInput::Forget(node, generation),
            }));
        }
    }
}
