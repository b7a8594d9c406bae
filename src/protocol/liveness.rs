//! Who is live, by what this node itself hears and by what the others say: what the detector actor wraps.
//!
//! A node hears its neighbours itself ([`watch`](super::watch)); of all others it is told. When it
//! misses one it asks everybody else who should hear it ([`inquiry`](super::inquiry)), and once
//! enough of them agree the peer is accused before everybody, as suspect; if it does not refute that
//! in time, as dead. Nobody but a peer itself raises its incarnation, so a refutation is a sign of
//! life, whoever relays it.
//!
//! Alive -> Suspect -> Dead -> Forgotten, or Left on purpose; back to Alive when heard again, or when
//! it refutes what was said.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use super::{
    bucket::Bucket,
    event::Event,
    gossip::{Answer, Ask},
    id::{Generation, Incarnation, NodeId},
    inquiry::{Asker, Finding, Inquiry},
    overlay,
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

pub use super::watch::TICKS_PER_INTERVAL;

/// How slow a node may find itself at most (Dadgar, Phillips and Currey, "Lifeguard", DSN-W 2018,
/// section IV-A).
pub const HEALTH_MAX: u32 = 8;
/// Most questions that a node asks in a row; after them it may ask [`ASKS_PER_INTERVAL`].
pub const ASKS_MAX: f64 = 10.0;
/// See [`ASKS_MAX`].
pub const ASKS_PER_INTERVAL: f64 = 2.0;
/// For so many times as long as a suspect has to refute that, what was heard here counts more than what
/// others or storage say; and after that time a suspicion ends, whoever has a voice.
pub const DEFIANCE: u32 = 5;
/// Most questions of others about one peer that wait to be answered.
pub const QUESTIONS_MAX: usize = 8;

/// When a peer is suspected, dead, forgotten.
#[derive(Clone, Debug)]
pub struct LivenessConfig {
    /// This node.
    pub node: NodeId,
    /// How often a heartbeat is expected.
    pub heartbeat_interval: Duration,
    /// Level of suspicion at which one observer is convinced.
    pub dead_peer_phi: f64,
    /// How long a suspect may take to refute that.
    pub suspicion: Duration,
    /// How long a peer that was never heard may take until its observers are convinced that it is
    /// not there.
    pub join_grace: Duration,
    /// How long a dead peer is kept.
    pub forget_after: Duration,
}

/// The failure detector of one node.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    peers: BTreeMap<NodeId, Peer>,
    /// Those to be heard by this node itself; everybody until it is told whom.
    observed: BTreeMap<NodeId, Watch>,
    whom: Option<Whom>,
    /// The connections there are, and which of them this end dialed.
    links: BTreeMap<NodeId, bool>,
    /// What this node has asked about those it misses.
    inquiries: BTreeMap<NodeId, Inquiry>,
    /// What others have asked and is not answered yet.
    questions: BTreeMap<NodeId, Vec<Question>>,
    /// How many questions may be asked.
    asks: Bucket,
    /// Dead or left, to be forgotten some day.
    gone: BTreeSet<NodeId>,
    /// Heard here though others accuse them, which they have not refuted.
    defied: BTreeSet<NodeId>,
    /// Heard here in a life that storage does not know yet.
    ahead: BTreeMap<NodeId, Ahead>,
    suspects: BTreeSet<NodeId>,
    /// Few nodes judge each other here: see [`Scale::few`].
    few: bool,
    histories: BTreeMap<NodeId, Arc<History>>,
    last_tick: Option<Time>,
    /// When a wake-up was asked for.
    armed: Option<Time>,
    /// How long after the last tick the next one was to come.
    expected: Duration,
    /// The tick that comes next, counted from the origin.
    next_tick: u64,
    /// The transport looks at its connections once in a tick, and says when it has.
    looked_after: bool,
    /// The number of the last probe.
    probes: u64,
    health: Health,
    /// Whose life is not as it was when the changes were last taken.
    changed: BTreeSet<NodeId>,
}

/// Whom this node has to hear itself.
#[derive(Clone, Debug)]
struct Whom {
    judged: Arc<[NodeId]>,
    witnessed: Arc<[NodeId]>,
}

/// How slow this node finds itself: it is as patient with others as it is slow.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    score: u32,
    /// When it last changed.
    since: Time,
    /// For how long this process stood still lately, and until when.
    stall: (Duration, Time),
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

impl Liveness {
    /// Nobody is known.
    #[must_use]
    pub fn new(config: LivenessConfig) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            observed: BTreeMap::new(),
            whom: None,
            links: BTreeMap::new(),
            inquiries: BTreeMap::new(),
            questions: BTreeMap::new(),
            asks: Bucket::holding(Time::ZERO, ASKS_MAX),
            gone: BTreeSet::new(),
            defied: BTreeSet::new(),
            ahead: BTreeMap::new(),
            suspects: BTreeSet::new(),
            few: false,
            histories: BTreeMap::new(),
            last_tick: None,
            armed: None,
            expected: Duration::ZERO,
            next_tick: 0,
            looked_after: false,
            probes: 0,
            health: Health::default(),
            changed: BTreeSet::new(),
        }
    }

    /// Does what a cast says.
    pub fn handle(&mut self, now: Time, input: DetectorInput, out: &mut Vec<Output>) {
        match input {
            DetectorInput::Tick => self.tick(now, out),
            DetectorInput::CutOff(peer, deed) => self.cut_off(now, &peer, deed),
            DetectorInput::Member { peer, generation, status, verdict, observers } => {
                self.member(now, &peer, Told { generation, status, verdict, observers }, out);
            }
            DetectorInput::Observe { judged, witnessed } => {
                self.observe(now, Whom { judged, witnessed }, out);
            }
            DetectorInput::Linked { peer, up, dialed } => self.linked(&peer, up, dialed),
            DetectorInput::Loss(peer, loss) => {
                if let Some(watch) = self.observed.get_mut(&peer) {
                    watch.set_loss(loss);
                }
            }
            DetectorInput::Health(peer, health) => {
                if let Some(watch) = self.observed.get_mut(&peer) {
                    watch.set_health(health);
                }
            }
            DetectorInput::Asked(ask, near) => self.asked(now, ask, near, out),
            DetectorInput::Asking(peer, observers) => {
                self.excuse(now);
                if let Some(inquiry) = self.inquiries.get_mut(&peer) {
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
                self.looked_after = true;
                for (peer, generation, sign, at) in peers {
                    self.heard(now, &peer, generation, sign, at.min(now), out);
                }
                self.tick(now, out);
            }
            DetectorInput::Removal { peer, generation, by } => {
                let life = self.peers.get(&peer).filter(|life| life.generation == generation);
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
                self.peers.remove(&peer);
                self.observed.remove(&peer);
                self.gone.remove(&peer);
                self.defied.remove(&peer);
                self.ahead.remove(&peer);
                self.suspects.remove(&peer);
                self.histories.remove(&peer);
                self.drop_questions(&peer);
                self.changed.insert(peer);
            }
        }
    }

    /// Takes over what a detector before this one thought of a peer. What is usual for it is learned
    /// anew, as if it had just been heard.
    pub fn restore(
        &mut self,
        now: Time,
        node: NodeId,
        life: PeerLife,
        history: Option<Arc<History>>,
    ) {
        let PeerLife { state, since, generation } = life;
        let level = if state == PeerState::Dead { Level::Dead } else { Level::Alive };
        let peer = Peer { since, generation, incarnation: 0, level, state, retired: false };
        if peer.is_gone() {
            self.gone.insert(node.clone());
        } else {
            if state == PeerState::Suspect {
                self.suspects.insert(node.clone());
            }
            let mut watch = Watch::new(now, self.config.heartbeat_interval, true);
            if state != PeerState::Unheard {
                watch.assume_heard();
            }
            self.observed.insert(node.clone(), watch);
        }
        if let Some(history) = history {
            self.histories.insert(node.clone(), history);
        }
        self.changed.insert(node.clone());
        self.peers.insert(node, peer);
    }

    /// What is thought of everybody.
    pub fn lives(&self) -> impl Iterator<Item = (&NodeId, PeerLife)> {
        self.peers.iter().map(|(node, peer)| (node, Self::describe(peer)))
    }

    /// What is thought of one peer.
    #[must_use]
    pub fn life(&self, peer: &NodeId) -> Option<PeerLife> {
        self.peers.get(peer).map(Self::describe)
    }

    /// The last changes of what is thought of a peer. That it was once met is none.
    #[must_use]
    pub fn history(&self, peer: &NodeId) -> Option<&Arc<History>> {
        self.histories.get(peer)
    }

    /// How slow this node finds itself, up to [`HEALTH_MAX`]; 0 is as it should be.
    #[must_use]
    pub const fn health(&self) -> u32 {
        self.health.score
    }

    /// Whose life has changed since this was last asked; those that were forgotten as well.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// How the silence of those is judged that this node hears itself, by name.
    pub fn estimates(&self) -> impl Iterator<Item = (&NodeId, PhiEstimate)> {
        self.observed.iter().map(|(node, watch)| (node, watch.estimate()))
    }

    /// All of these are live, by what others say, and nobody else is known.
    pub fn meet_all(&mut self, now: Time, members: impl IntoIterator<Item = (NodeId, Generation)>) {
        let met = |generation| Peer { state: PeerState::Live, ..Peer::unheard(now, generation) };
        self.peers = members.into_iter().map(|(node, life)| (node, met(life))).collect();
        self.whom = Some(Whom { judged: Arc::new([]), witnessed: Arc::new([]) });
        (self.observed, self.gone) = (BTreeMap::new(), BTreeSet::new());
        self.ahead.clear();
    }

    /// Whether all who are to be heard are, and nobody is gone: then ticks do nothing as long as that
    /// goes on but to send heartbeats, and may be left out by whoever knows that it does
    /// ([`Liveness::skip_to`]).
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let well = |peer: &Peer| (peer.state, peer.level) == (PeerState::Live, Level::Alive);
        let live = |node| self.peers.get(node).is_some_and(well);
        self.gone.is_empty()
            && self.defied.is_empty()
            && self.ahead.is_empty()
            && self.health.score == 0
            && self.observed.iter().all(|(node, watch)| watch.is_settled() && live(node))
    }

    /// In which tick of an interval a peer is sent its heartbeat, if that is for this node to do.
    #[must_use]
    pub fn heartbeat_tick(&self, peer: &NodeId) -> Option<u64> {
        self.observed.get(peer)?.slot()
    }

    /// Says that the ticks up to `now` were left out on purpose, and that nothing was to be judged.
    pub fn skip_to(&mut self, now: Time) {
        self.last_tick = Some(now);
        self.next_tick = self.tick_number(now) + 1;
    }

    const fn describe(peer: &Peer) -> PeerLife {
        PeerLife { state: peer.state, since: peer.since, generation: peer.generation }
    }

    const fn scale(&self) -> Scale {
        Scale {
            interval: self.config.heartbeat_interval,
            join_grace: self.config.join_grace,
            dead_peer_phi: self.config.dead_peer_phi,
            health: self.health.score,
            few: self.few,
        }
    }

    // --- what is told

    fn member(&mut self, now: Time, node: &NodeId, told: Told, out: &mut Vec<Output>) {
        let Told { generation, status, verdict, observers } = told;
        let role = self.role(node);
        if let Some(judged) = role
            && !self.observed.contains_key(node)
        {
            self.watch(now, node, judged);
        }
        let known = self.peers.contains_key(node);
        let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer::unheard(now, generation));
        if generation < peer.generation {
            let ahead = Ahead::of(generation, status, verdict, now);
            let known = self.ahead.entry(node.clone()).or_insert(ahead);
            if generation >= known.generation {
                *known = Ahead { heard: known.heard, ..ahead };
            }
            return;
        }
        self.ahead.remove(node);
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
            self.changed.insert(node.clone());
        }
        if renewed && let Some(watch) = self.observed.get_mut(node) {
            watch.renew(now, self.config.heartbeat_interval);
        }
        if refuted {
            self.drop_questions(node);
        }
        let came_back = status != Status::Left && state == PeerState::Left;
        let (next, cause) = if status == Status::Left {
            (PeerState::Left, Cause::Left)
        } else if refuted && verdict.level == Level::Alive {
            let next = absolved(now, state, renewed, known, self.observed.get_mut(node));
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
            let hears = self.observed.get(node).is_some_and(|w| w.hears(now, &self.scale()));
            let suspected = now.since(since) >= self.config.suspicion / 2;
            let told = !known || (state == PeerState::Suspect && suspected);
            // Nobody stands for it: it comes from somebody who was alone, or cut off.
            let hearsay = level == Level::Suspect && observers.is_empty();
            let next = if hears && hearsay { state } else { accused(state, level, told, hears) };
            (next, Cause::Told)
        } else {
            (state, Cause::Told)
        };
        if refuted && (state, next) == (PeerState::Suspect, PeerState::Suspect) {
            // What was said before it has refuted, though nobody told us: its time begins anew.
            if let Some(peer) = self.peers.get_mut(node) {
                peer.since = now;
                self.changed.insert(node.clone());
            }
        }
        self.enter(now, node, next, cause, observers, out);
        self.note_defiance(node);
    }

    /// Whether this node is to hear a peer itself, and if so whether it has a voice in what becomes
    /// of it.
    fn role(&self, node: &NodeId) -> Option<bool> {
        match &self.whom {
            None => Some(true),
            Some(whom) if whom.judged.contains(node) => Some(true),
            Some(whom) if whom.witnessed.contains(node) => Some(false),
            Some(_) => None,
        }
    }

    /// From now on these are to be heard by this node itself. Whom it misses it judges to the end: if
    /// every end of a bridge were let go as suspect, nobody would ever find one dead.
    fn observe(&mut self, now: Time, whom: Whom, out: &mut Vec<Output>) {
        self.whom = Some(whom.clone());
        let missed = |node: &NodeId| {
            self.peers.get(node).is_some_and(|peer| peer.state == PeerState::Suspect)
        };
        let dropped =
            self.observed.keys().filter(|node| self.role(node).is_none() && !missed(node));
        let dropped: Vec<_> = dropped.cloned().collect();
        for (node, judged) in whom.iter() {
            if let Some(watch) = self.observed.get_mut(node) {
                watch.set_judged(judged);
                // Whoever is told whom to observe may have forgotten it.
                if !judged && watch.is_reported() {
                    out.push(witness(node, false));
                }
            } else if self.peers.contains_key(node) {
                self.watch(now, node, judged);
                self.changed.insert(node.clone());
            }
        }
        for node in dropped {
            self.observed.remove(&node);
            self.drop_questions(&node);
            self.changed.insert(node.clone());
            if self.peers.get(&node).is_some_and(|peer| peer.state == PeerState::Unheard) {
                self.enter(now, &node, PeerState::Live, Cause::Vouched, Arc::default(), out);
            }
        }
        self.spread();
    }

    /// That is no change of what is thought of it: it lives. It is kept beside the changes, since it
    /// explains those that follow.
    fn cut_off(&mut self, now: Time, node: &NodeId, deed: Arc<str>) {
        self.note(now, node, Cause::CutOff, deed);
    }

    /// A peer is in another life, or at another address: says what is odd about that.
    fn returned(&mut self, now: Time, node: &NodeId, how: &Return, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(node) else { return };
        let Return { earlier, generation, .. } = *how;
        let (known, state, interval) =
            (peer.generation, peer.state, self.config.heartbeat_interval);
        let watch = self.observed.get(node);
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
        self.note(now, node, cause, deed.into());
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
        self.note(now, node, how.cause(), how.detail().into());
        let peer = node.clone();
        out.push(Output::Event(Event::PeerReturned { peer, generation, how }));
    }

    /// Keeps what a peer has done beside the changes of what is thought of it.
    fn note(&mut self, now: Time, node: &NodeId, cause: Cause, deed: Arc<str>) {
        let Some(peer) = self.peers.get(node) else { return };
        let reason = Arc::new(Reason { deed: Some(deed), ..Reason::of(cause) });
        let transition = Transition { at: now, from: peer.state, to: peer.state, reason };
        Arc::make_mut(self.histories.entry(node.clone()).or_default()).push(transition);
        self.changed.insert(node.clone());
    }

    // --- what is heard

    fn linked(&mut self, node: &NodeId, up: bool, dialed: bool) {
        if up {
            self.links.insert(node.clone(), dialed);
        } else {
            self.links.remove(node);
        }
        if let Some(watch) = self.observed.get_mut(node) {
            watch.linked(up, dialed);
            self.spread();
        }
    }

    /// From now on a peer is to be heard by this node itself.
    fn watch(&mut self, now: Time, node: &NodeId, judged: bool) {
        let mut watch = Watch::new(now, self.config.heartbeat_interval, judged);
        if let Some(dialed) = self.links.get(node) {
            watch.linked(true, *dialed);
        }
        self.observed.insert(node.clone(), watch);
        self.spread();
    }

    /// Spreads the heartbeats that are ours to send evenly over the interval, so that a node that goes
    /// silent is missed by somebody soon.
    fn spread(&mut self) {
        let ours = || self.observed.values().filter(|watch| watch.is_ours_to_beat()).count();
        let count = ours().max(1) as u64;
        self.few = self.observed.values().filter(|watch| watch.is_judged()).count() <= FEW_MAX;
        let ticks = u64::from(TICKS_PER_INTERVAL);
        let first = overlay::offset(&self.config.node, ticks);
        let ours = self.observed.values_mut().filter(|watch| watch.is_ours_to_beat());
        for (index, watch) in (0..).zip(ours) {
            watch.set_slot((first + index * ticks / count) % ticks);
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
            return self.heard_earlier(now, node, generation, at, out);
        }
        if let Some(ahead) = self.ahead.get_mut(node) {
            ahead.heard = ahead.heard.max(at);
        }
        let watch = self.observed.get_mut(node);
        // Nothing follows from most of what is heard.
        let well = (peer.state, peer.level) == (PeerState::Live, Level::Alive);
        let watch = match watch {
            Some(watch) if well && generation == peer.generation && watch.is_quiet() => {
                return watch.hear(sign, at);
            }
            watch => watch,
        };
        let asked = self.questions.contains_key(node);
        let missed = !asked && watch.as_ref().is_some_and(|watch| watch.is_doubted());
        if generation > peer.generation {
            // A second life that storage does not know either changes nothing of what it knows.
            let told = Ahead { heard: at, ..peer.as_told() };
            self.ahead.entry(node.clone()).or_insert(told).heard = at;
            peer.generation = generation;
            self.changed.insert(node.clone());
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
        if self.observed.get_mut(node).is_some_and(Watch::speaks_again) {
            out.push(witness(node, true));
        }
        let missing = self.observed.get(node).is_some_and(Watch::is_missing);
        if !missing {
            if missed {
                // It was there all the time: its answers were late, or our ears.
                self.fall_ill(now);
            }
            self.inquiries.remove(node);
            for question in self.questions.remove(node).into_iter().flatten() {
                out.push(Output::Storage(StorageInput::Answer(question.ask, true)));
            }
        }
        if level > Level::Alive && self.may_confront(now, node) {
            out.push(Output::Storage(StorageInput::Back(node.clone())));
        }
        // What was read before the suspicion says nothing against it.
        let late = state == PeerState::Suspect && missing;
        if !late {
            self.enter(now, node, PeerState::Live, Cause::Heard, Arc::default(), out);
        }
        self.note_defiance(node);
    }

    /// A connection of an earlier life than the one known is closed; if that life is heard all the same,
    /// two processes use one name.
    fn heard_earlier(
        &mut self,
        now: Time,
        node: &NodeId,
        earlier: Generation,
        at: Time,
        out: &mut Vec<Output>,
    ) {
        let (Some(peer), Some(watch)) = (self.peers.get(node), self.observed.get_mut(node)) else {
            return;
        };
        let generation = peer.generation;
        if watch.hears_earlier(at, self.config.heartbeat_interval) {
            out.push(Output::Count(Counter::PeersTwice, 1));
            self.tell_return(now, node, generation, Returned::Twice { earlier }, out);
        }
    }

    /// It may be that others say of a peer what this node does not believe.
    fn note_defiance(&mut self, node: &NodeId) {
        if self.peers.get(node).is_some_and(Peer::is_defied) {
            self.defied.insert(node.clone());
        }
    }

    /// Whether a peer is to be told now what is said of it, so that it can refute that.
    fn may_confront(&mut self, now: Time, node: &NodeId) -> bool {
        let interval = self.config.heartbeat_interval;
        self.observed.get_mut(node).is_none_or(|watch| watch.may_confront(now, interval))
    }

    // --- what is asked

    /// Asks those who should hear a peer, unless that was done just now, or too often.
    fn ask(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        if self.inquiries.contains_key(node) {
            return;
        }
        let Some(peer) = self.peers.get(node) else { return };
        let rate = ASKS_PER_INTERVAL / self.config.heartbeat_interval.as_secs_f64();
        if !self.asks.pays_of(now, rate, ASKS_MAX) {
            return;
        }
        self.inquiries.insert(node.clone(), Inquiry::new(now));
        out.push(Output::Count(Counter::Inquiries, 1));
        out.push(Output::Storage(StorageInput::Ask(node.clone(), peer.generation)));
    }

    /// Another node asks whether we hear a peer.
    fn asked(&mut self, now: Time, ask: Ask, near: bool, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(&ask.subject) else { return };
        let Some(watch) = self.observed.get_mut(&ask.subject) else { return };
        if ask.generation != peer.generation || peer.state == PeerState::Left {
            return;
        }
        watch.begin_probing(now);
        let questions = self.questions.entry(ask.subject.clone()).or_default();
        if questions.len() < QUESTIONS_MAX {
            questions.push(Question { ask, at: now, near, answered: false });
        }
        self.armed = Some(now);
        out.push(Output::Wake(Duration::ZERO));
    }

    fn answered(&mut self, now: Time, answer: Answer, out: &mut Vec<Output>) {
        let subject = answer.ask.subject.clone();
        let Some(peer) = self.peers.get(&subject) else { return };
        if answer.ask.generation != peer.generation {
            return;
        }
        let Some(inquiry) = self.inquiries.get_mut(&subject) else { return };
        if answer.observer == subject && answer.hears {
            return self.acquit(now, &subject, out);
        }
        inquiry.answer(answer.observer, answer.hears);
        self.decide(now, &subject, out);
    }

    /// The peer is there, and this node does not hear it: the way between them is broken.
    fn acquit(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        self.inquiries.remove(node);
        out.push(renew(node));
        if let Some(watch) = self.observed.get_mut(node) {
            watch.vouched(now);
        }
    }

    /// Concludes a question of ours, if enough is known.
    fn decide(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let (scale, isolated) = (self.scale(), self.is_isolated());
        let (Some(inquiry), Some(peer)) = (self.inquiries.get(node), self.peers.get(node)) else {
            return;
        };
        if peer.is_gone() || peer.state == PeerState::Suspect {
            return;
        }
        let convinced = |watch: &Watch| watch.is_judged() && watch.convinces(now, &scale);
        let convinced = self.observed.get(node).is_some_and(convinced);
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
        let Some(peer) = self.peers.get(node) else { return };
        let (generation, verdict) = peer.accusation(level);
        let accuse =
            StorageInput::Accuse(node.clone(), generation, verdict, Arc::clone(&observers));
        out.push(Output::Storage(accuse));
        let next = if level == Level::Dead { PeerState::Dead } else { PeerState::Suspect };
        self.enter(now, node, next, cause, observers, out);
    }

    /// Whether a peer is missed here, or thought to be gone.
    fn misses(&self, node: &NodeId) -> bool {
        self.observed.get(node).is_some_and(Watch::is_missing)
            || self
                .peers
                .get(node)
                .is_some_and(|peer| peer.is_gone() || peer.state == PeerState::Suspect)
    }

    /// Whether more than half of those that this node is to hear are silent together.
    fn is_isolated(&self) -> bool {
        let heard = || self.observed.values().filter(|watch| watch.is_heard());
        let (all, missing) = (heard().count(), heard().filter(|watch| watch.is_missing()).count());
        all > 1 && missing * 2 > all
    }

    fn drop_questions(&mut self, node: &NodeId) {
        self.inquiries.remove(node);
        self.questions.remove(node);
    }

    /// Changes what is thought of a peer, and tells everybody whom that concerns.
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
        let Some(peer) = self.peers.get_mut(node) else { return };
        let before = peer.state;
        if before == next {
            return;
        }
        self.changed.insert(node.clone());
        if next == PeerState::Suspect {
            self.suspects.insert(node.clone());
        } else if before == PeerState::Suspect {
            self.suspects.remove(node);
        }
        (peer.state, peer.since, peer.retired) = (next, now, false);
        let watch = self.observed.get(node);
        let stall = if now <= self.health.stall.1 { self.health.stall.0 } else { Duration::ZERO };
        let reason = Arc::new(Reason {
            phi: watch.map_or(0.0, |watch| watch.phi(now, &scale)),
            evidence: watch.map(|watch| watch.evidence(now)),
            observers,
            stall,
            ..Reason::of(cause)
        });
        if peer.is_gone() {
            self.gone.insert(node.clone());
            if let Some(watch) = self.observed.get_mut(node) {
                watch.pause();
            }
            self.drop_questions(node);
        } else {
            self.gone.remove(node);
        }
        if before == PeerState::Suspect && self.role(node).is_none() {
            self.observed.remove(node);
        }
        // There may be millions of those that somebody else has met.
        if before != PeerState::Unheard || cause != Cause::Vouched {
            let transition =
                Transition { at: now, from: before, to: next, reason: Arc::clone(&reason) };
            let history = self.histories.entry(node.clone()).or_default();
            Arc::make_mut(history).push(transition);
        }
        tell_state(node, before, next, reason, out);
    }

    // --- time

    fn tick_number(&self, now: Time) -> u64 {
        let tick = (self.config.heartbeat_interval / TICKS_PER_INTERVAL).as_micros().max(1);
        u64::try_from(now.since_origin().as_micros() / tick).unwrap_or(u64::MAX)
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.excuse(now);
        self.last_tick = Some(now);
        self.recover(now);
        let this = self.tick_number(now);
        let ticks = self.next_tick.min(this + 1)..this + 1;
        self.next_tick = this + 1;
        let whole = !ticks.is_empty();
        self.look(now, ticks, out);
        let missed = self.observed.iter().filter(|(_, watch)| watch.is_missing());
        let missed: Vec<_> = missed.map(|(node, _)| node.clone()).collect();
        for node in missed {
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

    /// Looks at all who are to be heard; sends heartbeats and probes.
    fn look(&mut self, now: Time, ticks: Range<u64>, out: &mut Vec<Output>) {
        let (scale, health) = (self.scale(), self.health.as_byte());
        let (mut beats, mut probes) = (Vec::new(), Vec::new());
        for (node, watch) in &mut self.observed {
            // The dead as well: if we are wrong about one and fell silent ourselves, it would be
            // wrong about us next. But nobody asks for them.
            let due = watch.tick(now, ticks.clone(), self.probes + 1, &scale);
            if due.beat {
                beats.push(node.clone());
            }
            if due.probe && !self.gone.contains(node) {
                self.probes += 1;
                probes.push((node.clone(), self.probes));
            }
        }
        if !beats.is_empty() {
            out.push(Output::Transport(TransportInput::Heartbeat { peers: beats, health }));
        }
        if !probes.is_empty() {
            out.push(Output::Transport(TransportInput::Probe { probes, health }));
        }
    }

    /// A peer is missed: asks others, answers them, decides.
    fn judge(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        let scale = self.scale();
        let (Some(watch), Some(peer)) = (self.observed.get(node), self.peers.get(node)) else {
            return;
        };
        if peer.state == PeerState::Left {
            return;
        }
        let accused = peer.state == PeerState::Suspect || peer.is_gone();
        let (judged, convinced) = (watch.is_judged(), watch.convinces(now, &scale));
        // Not for every packet that is lost: each question goes to everybody.
        let doubtful = watch.phi(now, &scale) >= scale.dead_peer_phi * ASK_PART;
        let mut waits = false;
        if let Some(questions) = self.questions.get_mut(node) {
            questions
                .retain(|question| now.since(question.at) < scale.interval * QUESTION_INTERVALS);
            // Who asks from the peer's own datacenter shows that it is not cut off: then a witness has
            // a voice as well, which counts where there are few others.
            for question in questions.iter_mut().filter(|q| convinced && (judged || q.near)) {
                if !std::mem::replace(&mut question.answered, true) {
                    out.push(Output::Storage(StorageInput::Answer(question.ask.clone(), false)));
                }
            }
            // Whoever can answer does so there. Not without end: somebody asks for ever, or pretends to.
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

    /// Those who are heard for the sake of their datacenter, and are not.
    fn miss_bridges(&mut self, now: Time, out: &mut Vec<Output>) {
        let scale = self.scale();
        for (node, watch) in &mut self.observed {
            if watch.falls_silent(now, &scale) {
                out.push(witness(node, false));
            }
        }
    }

    /// Those whose suspicion was not refuted in time are dead. One of its observers says so first, so
    /// that not all do at once. Every suspicion ends, also if those who raised it are gone or have no
    /// voice any more: then the others call the suspect dead, later.
    fn convict(&mut self, now: Time, out: &mut Vec<Output>) {
        self.follow(now, out);
        let mut convicted = Vec::new();
        for node in &self.suspects {
            let (watch, Some(peer)) = (self.observed.get(node), self.peers.get(node)) else {
                continue;
            };
            let heard = watch.filter(|watch| !watch.is_missing()).and_then(Watch::last_heard);
            if heard.is_some_and(|at| at >= peer.since) {
                continue;
            }
            let observers = self.suspected_by(node);
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

    /// Those whom others call dead had the time to refute that as well.
    fn follow(&mut self, now: Time, out: &mut Vec<Output>) {
        let silent = |node: &NodeId| self.observed.get(node).is_none_or(|w| w.is_missing());
        let due = |node: &NodeId| {
            self.peers.get(node).is_some_and(|peer| {
                peer.level == Level::Dead && now.since(peer.since) >= self.config.suspicion
            })
        };
        let dead = self.suspects.iter().filter(|node| due(node) && silent(node));
        for node in dead.cloned().collect::<Vec<_>>() {
            let observers = self.suspected_by(&node);
            self.enter(now, &node, PeerState::Dead, Cause::Unrefuted, observers, out);
        }
    }

    /// Whom this node has heard, but has no voice about: a peer that is there refutes what the others say.
    /// If that does not happen, and nothing is heard any more, the others are right.
    fn yield_to_the_others(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut over = Vec::new();
        let patience = self.config.suspicion * DEFIANCE;
        for node in &self.defied {
            let peer = self.peers.get(node);
            match peer.filter(|peer| peer.is_defied()) {
                None => over.push((node.clone(), None)),
                Some(_) if self.role(node) == Some(true) => {}
                Some(peer) => {
                    let heard = self.observed.get(node).map_or(peer.since, Watch::last_answer);
                    if now.since(heard.max(peer.since)) >= patience {
                        over.push((node.clone(), peer.accused_as()));
                    }
                }
            }
        }
        for (node, state) in over {
            self.defied.remove(&node);
            if let Some(state) = state {
                self.enter(now, &node, state, Cause::Told, Arc::default(), out);
            }
            self.note_defiance(&node);
        }
    }

    /// A life of which no news has come, and which is not heard any more, is as if it had never been
    /// heard: what storage says of the peer holds again. Otherwise nobody could judge it, since those
    /// who are asked about a life that they do not know say nothing.
    fn give_up_unknown_lives(&mut self, now: Time, out: &mut Vec<Output>) {
        let patience = self.config.suspicion * DEFIANCE;
        let silent = |ahead: &Ahead| now.since(ahead.heard) >= patience;
        let silent = self.ahead.iter().filter(|(_, ahead)| silent(ahead));
        let silent: Vec<_> = silent.map(|(node, ahead)| (node.clone(), *ahead)).collect();
        for (node, told) in silent {
            self.ahead.remove(&node);
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            (peer.generation, peer.incarnation, peer.level) =
                (told.generation, told.incarnation, told.level);
            let (state, next) =
                (peer.state, if told.left { Some(PeerState::Left) } else { peer.accused_as() });
            self.changed.insert(node.clone());
            self.drop_questions(&node);
            if let Some(watch) = self.observed.get_mut(&node) {
                watch.renew(now, self.config.heartbeat_interval);
            }
            match next {
                Some(next) => self.enter(now, &node, next, Cause::Told, Arc::default(), out),
                // The life before it has ended as well.
                None if state == PeerState::Dead => {
                    let observers = self.suspected_by(&node);
                    self.accuse(now, &node, Level::Dead, Cause::Unrefuted, observers, out);
                }
                None => {}
            }
        }
    }

    /// Who agreed on the suspicion.
    fn suspected_by(&self, node: &NodeId) -> Arc<[NodeId]> {
        let last = self.histories.get(node).and_then(|history| history.last_change());
        last.map_or_else(Arc::default, |last| Arc::clone(&last.reason.observers))
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Output>) {
        let scale = self.scale();
        let tick = self.config.heartbeat_interval / TICKS_PER_INTERVAL;
        let elapsed = tick.as_micros().max(1);
        let into = Duration::from_micros((now.since_origin().as_micros() % elapsed) as u64);
        let looks = self.observed.values().filter_map(|watch| watch.next_look(&scale));
        let look = looks.map(|at| at.since(now).max(WAIT_MIN)).min();
        // Whoever looks at the connections says when it has: the clock here only stands in for it.
        let regular = if self.looked_after { tick + tick / 2 } else { tick - into };
        self.expected = look.unwrap_or(regular).min(regular).max(WAIT_MIN);
        let wait = match look {
            None if self.looked_after => self.config.heartbeat_interval,
            _ => self.expected,
        };
        // One that is on its way is as good, as long as it is not too late.
        let pending = self.armed.is_some_and(|at| at > now && at <= now + wait);
        if !pending {
            self.armed = Some(now + wait);
            out.push(Output::Wake(wait));
        }
    }

    /// Takes the time out of all that is judged for which this process stood still. Whatever comes
    /// first after that is looked at only then.
    fn excuse(&mut self, now: Time) {
        let stalled = self.stalled(now);
        if stalled.is_zero() {
            return;
        }
        self.last_tick = Some(now);
        self.observed.values_mut().for_each(|watch| watch.excuse(stalled, now));
        self.inquiries.values_mut().for_each(|inquiry| inquiry.excuse(stalled, now));
        self.ahead.values_mut().for_each(|ahead| ahead.heard = (ahead.heard + stalled).min(now));
        // A suspect could not be heard to refute that.
        for node in &self.suspects {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            peer.since = (peer.since + stalled).min(now);
            self.changed.insert(node.clone());
        }
    }

    /// For how long this process itself stood still: it could not hear anybody then, so nobody's
    /// silence counts.
    fn stalled(&mut self, now: Time) -> Duration {
        let Some(last) = self.last_tick else { return Duration::ZERO };
        let late = now.since(last + self.expected);
        if late < STALL_MIN {
            return Duration::ZERO;
        }
        let memory = self.config.heartbeat_interval * STALL_MEMORY;
        self.health.stall = (late, now + memory);
        if late >= self.config.heartbeat_interval / TICKS_PER_INTERVAL {
            self.fall_ill(now);
        }
        late
    }

    /// Once in a tick is enough.
    fn fall_ill(&mut self, now: Time) {
        let tick = self.config.heartbeat_interval / TICKS_PER_INTERVAL;
        if self.health.score > 0 && now.since(self.health.since) < tick {
            return;
        }
        self.health.score = (self.health.score + 1).min(HEALTH_MAX);
        self.health.since = now;
    }

    fn recover(&mut self, now: Time) {
        if self.health.score > 0 && now.since(self.health.since) >= self.config.heartbeat_interval {
            self.health.score -= 1;
            self.health.since = now;
        }
    }

    /// A dead peer is no longer told of after half the time, and forgotten after all of it, so that
    /// nobody hears of it anew from somebody whose clock runs a little later.
    fn age(&mut self, now: Time, out: &mut Vec<Output>) {
        for node in &self.gone {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            let age = now.since(peer.since);
            if age >= self.config.forget_after {
                out.push(Output::Storage(StorageInput::Forget(node.clone(), peer.generation)));
            } else if age >= self.config.forget_after / 2 && !peer.retired {
                peer.retired = true;
                out.push(Output::Storage(StorageInput::Retire(node.clone(), peer.generation)));
            }
        }
    }
}

/// What storage says of a peer that this node has heard in a later life.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    generation: Generation,
    incarnation: u32,
    level: Level,
    left: bool,
    /// When the later life was last heard.
    heard: Time,
}

impl Ahead {
    fn of(generation: Generation, status: Status, verdict: Verdict, heard: Time) -> Self {
        let incarnation = u32::try_from(verdict.incarnation.0).unwrap_or(u32::MAX);
        Self { generation, incarnation, level: verdict.level, left: status == Status::Left, heard }
    }
}

/// What another node asks.
#[derive(Debug)]
struct Question {
    ask: Ask,
    at: Time,
    /// It comes from the peer's own datacenter, where the answers are counted soon.
    near: bool,
    answered: bool,
}

/// What storage says of a member.
struct Told {
    generation: Generation,
    status: Status,
    verdict: Verdict,
    observers: Arc<[NodeId]>,
}

impl Whom {
    fn iter(&self) -> impl Iterator<Item = (&NodeId, bool)> {
        let judged = self.judged.iter().map(|node| (node, true));
        judged.chain(self.witnessed.iter().map(|node| (node, false)))
    }
}

impl Health {
    fn as_byte(self) -> u8 {
        u8::try_from(self.score).unwrap_or(u8::MAX)
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

    /// Whether others accuse it and this node thinks better of it.
    fn is_defied(&self) -> bool {
        match self.level {
            Level::Alive => false,
            Level::Suspect => !self.is_gone() && self.state != PeerState::Suspect,
            Level::Dead => !self.is_gone(),
        }
    }

    /// What it is by what others accuse it of, if they do.
    const fn accused_as(&self) -> Option<PeerState> {
        match self.level {
            Level::Alive => None,
            Level::Suspect => Some(PeerState::Suspect),
            Level::Dead => Some(PeerState::Dead),
        }
    }

    /// What storage says of it, as long as nothing else was heard.
    fn as_told(&self) -> Ahead {
        let Self { generation, incarnation, level, .. } = *self;
        let left = self.state == PeerState::Left;
        Ahead { generation, incarnation, level, left, heard: Time::ZERO }
    }

    /// What to accuse it of: what it has refuted already is not said again.
    fn accusation(&self, level: Level) -> (Generation, Verdict) {
        let incarnation = Incarnation(self.incarnation.into());
        (self.generation, Verdict { incarnation, level })
    }
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
        // The one that was suspected is another life: this one is not convicted for it.
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

/// What becomes of a peer that others accuse. Whom this node hears at this moment it does not give up.
/// Of whom it hears out of the blue that it is dead, after a partition or from one who could not be
/// heard for a while, it thinks as of a suspect, unless it is `told` in time: nobody is dead who had
/// no time to refute that.
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

/// It lives, and is not heard here: that may be for its connection, which has waited through an outage
/// and goes on waiting.
fn renew(node: &NodeId) -> Output {
    Output::Transport(TransportInput::Renew(vec![node.clone()]))
}

/// Tells the scheduler and the subscribers.
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

/// Others are asked at this part of the level at which this node is convinced.
const ASK_PART: f64 = 0.25;
/// A question may be answered for so many intervals.
const QUESTION_INTERVALS: u32 = 2;
/// For so many intervals a node leaves the asking to others.
const WAIT_INTERVALS: u32 = 2;
/// Up to so many peers are sent heartbeats by both ends of an edge.
const FEW_MAX: usize = 4;
/// A tick that comes this much too late counts as a stall.
const STALL_MIN: Duration = Duration::from_millis(10);
/// For so many intervals a stall is told with every verdict.
const STALL_MEMORY: u32 = 10;
/// No wait is shorter.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// An observer waits for at most so many others to say that a suspect is dead.
const TURNS_MAX: u32 = 9;
