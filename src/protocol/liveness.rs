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
    event::Event,
    gossip::{Answer, Ask},
    id::{Generation, NodeId},
    inquiry::{Asker, Finding},
    phi::PhiEstimate,
    reason::{Cause, History, Reason, Transition},
    record::Status,
    returning::{Return, Returned},
    route::{
        Counter, DetectorInput, Output, Reach, SchedulerInput, Sign, StorageInput, TransportInput,
    },
    state::{PeerLife, PeerState},
    time::Time,
    verdict::{Level, Verdict},
    watch::{Scale, Watch},
};

mod asking;
mod ears;
mod health;
mod lives;
mod ticks;

pub use super::watch::TICKS_PER_INTERVAL;
pub use asking::{ASKS_MAX, ASKS_PER_INTERVAL, QUESTIONS_MAX};
pub use health::HEALTH_MAX;

use asking::{Asking, Question};
use ears::{Ears, Sendings, Whom};
use health::Health;
use lives::{Aged, Ahead, Lives, Peer};
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
            health: Health::new(interval),
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

    const fn scale(&self) -> Scale {
        Scale {
            interval: self.config.heartbeat_interval,
            join_grace: self.config.join_grace,
            dead_peer_phi: self.config.dead_peer_phi,
            health: self.health.score(),
            few: self.ears.are_few(),
        }
    }

    // --- reports

    fn member(&mut self, now: Time, node: &NodeId, told: Told, out: &mut Vec<Output>) {
        let Told { generation, status, verdict, observers } = told;
        let role = self.ears.role(node);
        if let Some(judged) = role
            && !self.ears.contains(node)
        {
            self.ears.listen(now, node, judged);
        }
        let known = self.lives.peers.contains_key(node);
        let peer =
            self.lives.peers.entry(node.clone()).or_insert_with(|| Peer::unheard(now, generation));
        if generation < peer.generation {
            let ahead = Ahead::of(generation, status, verdict, now);
            let known = self.lives.ahead.entry(node.clone()).or_insert(ahead);
            if generation >= known.generation {
                *known = Ahead { heard: known.heard, ..ahead };
            }
            return;
        }
        self.lives.ahead.remove(node);
        let incarnation = u32::try_from(verdict.incarnation.0).unwrap_or(u32::MAX);
        let renewed = generation > peer.generation;
        let refuted = renewed || !known || incarnation > peer.incarnation;
        peer.generation = generation;
        let graver = refuted || verdict.level > peer.level;
        if refuted || incarnation == peer.incarnation {
            (peer.incarnation, peer.level) =
                (incarnation, if refuted { verdict.level } else { peer.level.max(verdict.level) });
        }
        let (state, level, since) = (peer.state, peer.level, peer.since);
        if renewed {
            self.lives.changed.insert(node.clone());
        }
        if renewed && let Some(watch) = self.ears.get_mut(node) {
            watch.renew(now, self.config.heartbeat_interval);
        }
        if refuted {
            self.asking.drop(node);
        }
        let came_back = status != Status::Left && state == PeerState::Left;
        let (next, cause) = if status == Status::Left {
            (PeerState::Left, Cause::Left)
        } else if refuted && verdict.level == Level::Alive {
            let next = absolved(now, state, renewed, known, self.ears.get_mut(node));
            if matches!(state, PeerState::Suspect | PeerState::Dead) && next == PeerState::Live {
                out.push(renew(node));
            }
            let cause = match (known, renewed) {
                (false, _) => Cause::Vouched,
                (_, true) => Cause::Renewed,
                (_, false) => Cause::Refuted,
            };
            (next, cause)
        } else if came_back {
            (if role.is_some() { PeerState::Unheard } else { PeerState::Live }, Cause::Renewed)
        } else if graver {
            let hears = self.ears.get(node).is_some_and(|w| w.hears(now, &self.scale()));
            let suspected = now.since(since) >= self.config.suspicion / 2;
            let told = !known || (state == PeerState::Suspect && suspected);
            // No observer stands for it: it comes from a node that was alone, or cut off.
            let hearsay = level == Level::Suspect && observers.is_empty();
            let next = if hears && hearsay { state } else { accused(state, level, told, hears) };
            (next, Cause::Told)
        } else {
            (state, Cause::Told)
        };
        if refuted && (state, next) == (PeerState::Suspect, PeerState::Suspect) {
            // The peer has refuted the previous report, though this node did not receive that: its time
            // starts again.
            if let Some(peer) = self.lives.peers.get_mut(node) {
                peer.since = now;
                self.lives.changed.insert(node.clone());
            }
        }
        self.enter(now, node, next, cause, observers, out);
        self.lives.note_defiance(node);
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

    /// A peer is in another generation, or at another address: reports anything unusual about that.
    fn returned(&mut self, now: Time, node: &NodeId, how: &Return, out: &mut Vec<Output>) {
        let Some(peer) = self.lives.peers.get(node) else { return };
        let Return { earlier, generation, .. } = *how;
        let (known, state, interval) =
            (peer.generation, peer.state, self.config.heartbeat_interval);
        let watch = self.ears.get(node);
        let overlaps = watch.is_some_and(|watch| {
            if known == earlier { watch.is_heard_lately(now, interval) } else { watch.overlaps() }
        });
        let there = matches!(state, PeerState::Live | PeerState::Suspect) && overlaps;
        let lives = format!("generation {generation} after {earlier}");
        let place = how
            .moved
            .as_ref()
            .map(|(from, to)| format!("at {} instead of {}", to.join(", "), from.join(", ")));
        let (cause, deed) = match place {
            None => (Cause::Renewed, lives),
            Some(place) if generation > earlier => (Cause::Renewed, format!("{lives}, {place}")),
            Some(place) => (Cause::Moved, place),
        };
        self.lives.note(now, node, cause, deed.into());
        if how.had_left && how.lost > 0 {
            self.tell_return(now, node, generation, Returned::AfterLeaving, out);
        }
        if how.lost_keys {
            out.push(Output::Count(Counter::PeersBehind, 1));
            let behind = Returned::Behind { earlier, versions: how.lost };
            self.tell_return(now, node, generation, behind, out);
        }
        let elsewhere = generation > earlier && how.moved.is_some() && there;
        if how.is_conflict || elsewhere {
            out.push(Output::Count(Counter::PeersTwice, 1));
            self.tell_return(now, node, generation, Returned::Twice { earlier }, out);
        }
    }

    fn tell_return(
        &mut self,
        now: Time,
        node: &NodeId,
        generation: Generation,
        how: Returned,
        out: &mut Vec<Output>,
    ) {
        self.lives.note(now, node, how.cause(), how.detail().into());
        let peer = node.clone();
        out.push(Output::Event(Event::PeerReturned { peer, generation, how }));
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

    /// A connection of an earlier generation than the known one is closed; if that generation is heard all
    /// the same, two processes use one name.
    fn heard_earlier(
        &mut self,
        now: Time,
        node: &NodeId,
        earlier: Generation,
        at: Time,
        out: &mut Vec<Output>,
    ) {
        let (Some(peer), Some(watch)) = (self.lives.peers.get(node), self.ears.get_mut(node))
        else {
            return;
        };
        let generation = peer.generation;
        if watch.hears_earlier(at, self.config.heartbeat_interval) {
            out.push(Output::Count(Counter::PeersTwice, 1));
            self.tell_return(now, node, generation, Returned::Twice { earlier }, out);
        }
    }

    /// Whether to send a peer the report about it now, so that it can refute it.
    fn may_confront(&mut self, now: Time, node: &NodeId) -> bool {
        let interval = self.config.heartbeat_interval;
        self.ears.get_mut(node).is_none_or(|watch| watch.may_confront(now, interval))
    }

    // --- questions

    /// Asks the observers of a peer, unless that was done just now, or too often.
    fn ask(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let Some(peer) = self.lives.get(node) else { return };
        if !self.asking.begin(now, node, self.config.heartbeat_interval) {
            return;
        }
        out.push(Output::Count(Counter::Inquiries, 1));
        out.push(Output::Storage(StorageInput::Ask(node.clone(), peer.generation)));
    }

    /// Another node asks whether we hear a peer.
    fn asked(&mut self, now: Time, ask: Ask, near: bool, out: &mut Vec<Output>) {
        let Some(peer) = self.lives.peers.get(&ask.subject) else { return };
        let Some(watch) = self.ears.get_mut(&ask.subject) else { return };
        if ask.generation != peer.generation || peer.state == PeerState::Left {
            return;
        }
        watch.begin_probing(now);
        self.asking.asked(now, ask, near);
        self.ticks.hurry(now);
        out.push(Output::Wake(Duration::ZERO));
    }

    fn answered(&mut self, now: Time, answer: Answer, out: &mut Vec<Output>) {
        let subject = answer.ask.subject.clone();
        let Some(peer) = self.lives.peers.get(&subject) else { return };
        if answer.ask.generation != peer.generation {
            return;
        }
        let Some(inquiry) = self.asking.inquiry_mut(&subject) else { return };
        if answer.observer == subject && answer.hears {
            return self.acquit(now, &subject, out);
        }
        inquiry.answer(answer.observer, answer.hears);
        self.decide(now, &subject, out);
    }

    /// The peer lives, and this node does not hear it: the path between them is broken.
    fn acquit(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        self.asking.conclude(node);
        out.push(renew(node));
        if let Some(watch) = self.ears.get_mut(node) {
            watch.vouched(now);
        }
    }

    /// Concludes a question of ours, if the answers are sufficient.
    fn decide(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let (scale, isolated) = (self.scale(), self.ears.is_isolated());
        let (Some(inquiry), Some(peer)) = (self.asking.inquiry(node), self.lives.peers.get(node))
        else {
            return;
        };
        if peer.is_gone() || peer.state == PeerState::Suspect {
            return;
        }
        let convinced = |watch: &Watch| watch.is_judged() && watch.convinces(now, &scale);
        let convinced = self.ears.get(node).is_some_and(convinced);
        let interval = scale.interval;
        let asker = Asker { node: &self.config.node, convinced, isolated, interval };
        let (cause, observers) = match inquiry.finding(now, asker, |node| self.misses(node)) {
            Finding::Open => return,
            Finding::Heard => return self.acquit(now, node, out),
            Finding::Silent(observers) => (Cause::Quorum, observers),
            Finding::Alone => (Cause::Alone, [self.config.node.clone()].into()),
        };
        self.accuse(now, node, Level::Suspect, cause, observers, out);
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

    /// Whether a peer is missed here, or considered gone.
    fn misses(&self, node: &NodeId) -> bool {
        let gone = |peer: &Peer| peer.is_gone() || peer.state == PeerState::Suspect;
        self.ears.misses(node) || self.lives.get(node).is_some_and(gone)
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

    /// A peer is missed: asks other observers, answers them, decides.
    fn judge(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let scale = self.scale();
        let (Some(watch), Some(peer)) = (self.ears.get(node), self.lives.peers.get(node)) else {
            return;
        };
        if peer.state == PeerState::Left {
            return;
        }
        let accused = peer.state == PeerState::Suspect || peer.is_gone();
        let (judged, convinced) = (watch.is_judged(), watch.convinces(now, &scale));
        // Not for every packet that is lost: each question goes to all nodes.
        let doubtful = watch.phi(now, &scale) >= scale.dead_peer_phi * ASK_PART;
        let mut waits = false;
        if let Some(questions) = self.asking.questions_mut(node) {
            questions
                .retain(|question| now.since(question.at) < scale.interval * QUESTION_INTERVALS);
            // A question from the peer's own datacenter shows that the datacenter is not cut off: then a
            // witness has a vote as well, which counts where there are few other observers.
            for question in questions.iter_mut().filter(|q| convinced && (judged || q.near)) {
                if !std::mem::replace(&mut question.answered, true) {
                    out.push(Output::Storage(StorageInput::Answer(question.ask.clone(), false)));
                }
            }
            // Answer as long as an answer is possible, but not without end: a node may ask for ever, or
            // pretend to.
            let patience = scale.interval * WAIT_INTERVALS;
            let patient = watch.missing_since().is_some_and(|since| now.since(since) < patience);
            let lately = |q: &Question| q.near && now.since(q.at) < scale.interval / 2;
            waits = patient && questions.iter().any(lately);
        }
        if doubtful && !waits && !accused {
            self.ask(now, node, out);
        }
        self.decide(now, node, out);
    }

    /// Checks the peers that are heard on behalf of their datacenter, and are silent.
    fn miss_bridges(&mut self, now: Time, out: &mut Vec<Output>) {
        let scale = self.scale();
        let silent = self.ears.fall_silent(now, &scale);
        out.extend(silent.map(|node| witness(node, false)));
    }

    /// Suspects that did not refute the suspicion in time are dead. One of their observers announces it
    /// first, so that not all do at once. Every suspicion ends, even if the accusers are gone or have no vote
    /// any more: then the other nodes declare the suspect dead, later.
    fn convict(&mut self, now: Time, out: &mut Vec<Output>) {
        self.follow(now, out);
        let mut convicted = Vec::new();
        for node in self.lives.suspects() {
            let (watch, Some(peer)) = (self.ears.get(node), self.lives.peers.get(node)) else {
                continue;
            };
            let heard = watch.filter(|watch| !watch.is_missing()).and_then(Watch::last_heard);
            if heard.is_some_and(|at| at >= peer.since) {
                continue;
            }
            let observers = self.lives.suspected_by(node);
            let place = observers.iter().position(|observer| *observer == self.config.node);
            let place = u32::try_from(place.unwrap_or(observers.len())).unwrap_or(u32::MAX);
            let turn = self.config.heartbeat_interval / TICKS_PER_INTERVAL * place.min(TURNS_MAX);
            let patience = match watch {
                Some(watch) if watch.is_judged() => self.config.suspicion + turn,
                Some(_) | None => self.config.suspicion * DEFIANCE,
            };
            if now.since(peer.since) >= patience {
                convicted.push((node.clone(), observers));
            }
        }
        for (node, observers) in convicted {
            self.accuse(now, &node, Level::Dead, Cause::Unrefuted, observers, out);
        }
    }

    /// Peers that others declare dead had the time to refute that as well.
    fn follow(&mut self, now: Time, out: &mut Vec<Output>) {
        let silent = |node: &NodeId| self.ears.get(node).is_none_or(|w| w.is_missing());
        let due = |node: &NodeId| {
            self.lives.peers.get(node).is_some_and(|peer| {
                peer.level == Level::Dead && now.since(peer.since) >= self.config.suspicion
            })
        };
        let dead = self.lives.suspects().iter().filter(|node| due(node) && silent(node));
        for node in dead.cloned().collect::<Vec<_>>() {
            let observers = self.lives.suspected_by(&node);
            self.enter(now, &node, PeerState::Dead, Cause::Unrefuted, observers, out);
        }
    }

    /// A peer that this node hears but has no vote on: if it is alive, it refutes what the others report. If
    /// it does not, and is not heard any more, the others are right.
    fn yield_to_the_others(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut over = Vec::new();
        let patience = self.config.suspicion * DEFIANCE;
        for node in &self.lives.defied {
            let peer = self.lives.peers.get(node);
            match peer.filter(|peer| peer.is_defied()) {
                None => over.push((node.clone(), None)),
                Some(_) if self.ears.role(node) == Some(true) => {}
                Some(peer) => {
                    let heard = self.ears.get(node).map_or(peer.since, Watch::last_answer);
                    if now.since(heard.max(peer.since)) >= patience {
                        over.push((node.clone(), peer.accused_as()));
                    }
                }
            }
        }
        for (node, state) in over {
            self.lives.defied.remove(&node);
            if let Some(state) = state {
                self.enter(now, &node, state, Cause::Told, Arc::default(), out);
            }
            self.lives.note_defiance(&node);
        }
    }

    /// A generation of which no state has arrived, and which is not heard any more, counts as never heard:
    /// what storage knows of the peer applies again. Otherwise no node could judge it, since nodes do not
    /// answer questions about a generation that they do not know.
    fn give_up_unknown_lives(&mut self, now: Time, out: &mut Vec<Output>) {
        let patience = self.config.suspicion * DEFIANCE;
        let silent = |ahead: &Ahead| now.since(ahead.heard) >= patience;
        let silent = self.lives.ahead.iter().filter(|(_, ahead)| silent(ahead));
        let silent: Vec<_> = silent.map(|(node, ahead)| (node.clone(), *ahead)).collect();
        for (node, told) in silent {
            self.lives.ahead.remove(&node);
            let Some(peer) = self.lives.peers.get_mut(&node) else { continue };
            (peer.generation, peer.incarnation, peer.level) =
                (told.generation, told.incarnation, told.level);
            let (state, next) =
                (peer.state, if told.left { Some(PeerState::Left) } else { peer.accused_as() });
            self.lives.changed.insert(node.clone());
            self.asking.drop(&node);
            if let Some(watch) = self.ears.get_mut(&node) {
                watch.renew(now, self.config.heartbeat_interval);
            }
            match next {
                Some(next) => self.enter(now, &node, next, Cause::Told, Arc::default(), out),
                // The generation before it has ended as well.
                None if state == PeerState::Dead => {
                    let observers = self.lives.suspected_by(&node);
                    self.accuse(now, &node, Level::Dead, Cause::Unrefuted, observers, out);
                }
                None => {}
            }
        }
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

/// The report of storage about a member.
struct Told {
    generation: Generation,
    status: Status,
    verdict: Verdict,
    observers: Arc<[NodeId]>,
}

/// The next state of a peer that is new, has a new generation, or has refuted a suspicion.
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
        // The suspicion was of another generation: this one is not convicted for it.
        Some(_) if renewed && state == PeerState::Suspect => PeerState::Live,
        Some(_) if renewed => state,
        Some(watch) => {
            if matches!(state, PeerState::Suspect | PeerState::Dead) {
                watch.vouched(now);
                PeerState::Live
            } else {
                state
            }
        }
    }
}

/// The next state of a peer that others accuse. A peer that this node hears at this moment stays live. A peer
/// that is suddenly reported dead, after a partition or by a node that could not be heard for a while,
/// becomes a suspect first, unless the report was `told` in time: a peer is not dead before it had time to
/// refute that.
const fn accused(state: PeerState, level: Level, told: bool, hears: bool) -> PeerState {
    match (state, level) {
        (PeerState::Live | PeerState::Suspect, Level::Dead) if hears => state,
        (PeerState::Unheard | PeerState::Live | PeerState::Suspect, Level::Dead) if !told => {
            PeerState::Suspect
        }
        (PeerState::Unheard | PeerState::Live, Level::Suspect) => PeerState::Suspect,
        (PeerState::Unheard | PeerState::Live | PeerState::Suspect, Level::Dead) => PeerState::Dead,
        (_, Level::Alive | Level::Suspect)
        | (PeerState::Unreachable | PeerState::Dead | PeerState::Left, _) => state,
    }
}

fn witness(node: &NodeId, heard: bool) -> Output {
    Output::Scheduler(SchedulerInput::Witness { peer: node.clone(), heard })
}

/// It lives, and is not heard here: the reason may be its connection, which has backed off during an outage
/// and is still waiting.
fn renew(node: &NodeId) -> Output {
    Output::Transport(TransportInput::Renew(vec![node.clone()]))
}

/// Informs the scheduler and the subscribers.
fn tell_state(
    node: &NodeId,
    before: PeerState,
    next: PeerState,
    reason: Arc<Reason>,
    out: &mut Vec<Output>,
) {
    let reach = match next {
        PeerState::Unheard => Reach::Unheard,
        PeerState::Live | PeerState::Suspect | PeerState::Unreachable => Reach::Live,
        PeerState::Dead | PeerState::Left => Reach::Dead,
    };
    if !matches!(
        (before, next),
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
        PeerState::Unheard | PeerState::Unreachable => {}
        PeerState::Live => out.push(Output::Event(Event::PeerLive { peer, reason })),
        PeerState::Suspect => {
            out.push(Output::Count(Counter::PeersSuspected, 1));
            out.push(Output::Event(Event::PeerSuspect { peer, reason }));
        }
        PeerState::Dead => out.push(Output::Event(Event::PeerDead { peer, reason })),
        PeerState::Left => out.push(Output::Event(Event::PeerLeft { peer, reason })),
    }
}

/// The share of the level of conviction at which this node asks others.
const ASK_PART: f64 = 0.25;
/// Intervals for which a question may be answered.
const QUESTION_INTERVALS: u32 = 2;
/// Intervals for which a node leaves the asking to others.
const WAIT_INTERVALS: u32 = 2;
/// The largest number of other observers that an observer lets declare a suspect dead first.
const TURNS_MAX: u32 = 9;
