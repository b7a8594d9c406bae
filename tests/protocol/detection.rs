//! Who is thought to be live: what counts as a sign of life, and what silence means.
//!
//! The detector is node `me`; the test plays its transport (each heartbeat and probe is answered
//! after a round trip, by whoever is there) and its storage (whom a question reaches, and what comes
//! of an accusation).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gossipmonger::protocol::{
    event::Event,
    gossip::{Answer, Ask},
    id::{Generation, Incarnation, NodeId},
    liveness::{HEALTH_MAX, Liveness, LivenessConfig},
    questions::precedes,
    reason::{Cause, TRANSITIONS_MAX, Transition},
    record::Status,
    route::{Counter, DetectorInput, Output, SchedulerInput, Sign, StorageInput, TransportInput},
    rules::Rules,
    state::PeerState,
    time::Time,
    verdict::{Level, Verdict},
    watch::{Scale, TICKS_PER_INTERVAL, Watch},
};

use crate::support::{at, node};

/// A detector, and all that it talks to.
struct Stage {
    liveness: Liveness,
    now: Time,
    wake: Option<Time>,
    /// What is on its way to the detector, in the order of arrival.
    mail: BTreeMap<(Time, usize), DetectorInput>,
    sent: usize,
    peers: BTreeMap<NodeId, Peer>,
    /// How many there are to be asked, as storage says.
    observers: Option<usize>,
    events: Vec<Event>,
    asked: Vec<(Time, NodeId)>,
    answers: Vec<(Time, NodeId, bool)>,
    accused: Vec<(Time, NodeId, Verdict, Arc<[NodeId]>)>,
    probes: Vec<(Time, NodeId)>,
    beats: Vec<(Time, NodeId)>,
    /// Whose connection is to be replaced.
    renewed: Vec<NodeId>,
    counts: BTreeMap<Counter, u64>,
    /// Which bridges were said to be silent, or heard again.
    bridges: Vec<(Time, NodeId, bool)>,
}

#[derive(Clone, Copy)]
struct Peer {
    generation: Generation,
    there: bool,
    /// One of so many probes is answered.
    answers_every: usize,
    probed: usize,
    rtt: Duration,
    /// When its next heartbeat comes, if it dialed.
    next_beat: Option<Time>,
}

impl Stage {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let config = LivenessConfig {
            node: node("me"),
            suspicion: 2 * T,
            heartbeat_interval: T,
            dead_peer_phi: 8.0,
            join_grace: Duration::from_secs(10),
            forget_after: Duration::from_secs(100),
            rules,
        };
        Self {
            liveness: Liveness::new(config),
            now: Time::ZERO,
            wake: Some(Time::ZERO),
            mail: BTreeMap::new(),
            sent: 0,
            peers: BTreeMap::new(),
            observers: Some(1),
            events: Vec::new(),
            asked: Vec::new(),
            answers: Vec::new(),
            accused: Vec::new(),
            probes: Vec::new(),
            beats: Vec::new(),
            renewed: Vec::new(),
            counts: BTreeMap::new(),
            bridges: Vec::new(),
        }
    }

    /// These are introduced, connected and heard once. This end dialed the first, the third and so on.
    fn among(names: &[&str]) -> Self {
        Self::among_with(Rules::default(), names)
    }

    fn among_with(rules: Rules, names: &[&str]) -> Self {
        let mut stage = Self::with(rules);
        for (index, name) in names.iter().enumerate() {
            stage.introduce(name, 1).connect(name, index % 2 == 0).hear(name, 1);
        }
        stage.observers = Some(names.len());
        stage.run(5_050);
        assert!(names.iter().all(|name| stage.state(name) == Some(PeerState::Live)));
        stage
    }

    /// Runs until something is so, which has to be soon.
    fn run_until(&mut self, so: impl Fn(&Self) -> bool) -> &mut Self {
        for _ in 0..500 {
            if so(self) {
                return self;
            }
            self.run(10);
        }
        panic!("not within five seconds");
    }

    fn introduce(&mut self, name: &str, generation: u64) -> &mut Self {
        self.member(name, generation, Status::Up, Verdict::default())
    }

    fn member(
        &mut self,
        name: &str,
        generation: u64,
        status: Status,
        verdict: Verdict,
    ) -> &mut Self {
        let (peer, generation) = (node(name), Generation(generation));
        let observers = Arc::default();
        self.tell(DetectorInput::Member { peer, generation, status, verdict, observers })
    }

    fn connect(&mut self, name: &str, dialed: bool) -> &mut Self {
        let next_beat = (!dialed).then_some(self.now + T / 2);
        let peer = Peer {
            generation: Generation(1),
            there: true,
            answers_every: 1,
            probed: 0,
            rtt: Duration::from_millis(2),
            next_beat,
        };
        self.peers.insert(node(name), peer);
        self.tell(DetectorInput::Linked { peer: node(name), up: true, dialed })
    }

    fn hear(&mut self, name: &str, generation: u64) -> &mut Self {
        let (peer, generation, sign) = (node(name), Generation(generation), Sign::Heartbeat);
        self.tell(DetectorInput::Heard { peer, generation, sign, at: self.now })
    }

    fn observe(&mut self, judged: &[&str], witnessed: &[&str]) -> &mut Self {
        let nodes = |names: &[&str]| names.iter().map(|name| node(name)).collect();
        let (judged, witnessed) = (nodes(judged), nodes(witnessed));
        self.tell(DetectorInput::Observe { judged, witnessed })
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(&node(name)).unwrap()
    }

    /// From now on nothing comes from it.
    fn silence(&mut self, name: &str) -> &mut Self {
        self.peer(name).there = false;
        self.mail.retain(|_, input| !comes_from(input, name));
        self
    }

    fn revive(&mut self, name: &str) -> &mut Self {
        self.peer(name).there = true;
        self
    }

    /// An observer answers the last question about a peer, or the peer itself does.
    fn answer(&mut self, observer: &str, subject: &str, hears: bool) -> &mut Self {
        let ask = ask(subject, "me");
        self.tell(DetectorInput::Answered(Answer { ask, observer: node(observer), hears }))
    }

    fn observers(&self) -> Option<Arc<[NodeId]>> {
        Some((0..self.observers?).map(|n| node(&format!("o{n}"))).collect())
    }

    fn tell(&mut self, input: DetectorInput) -> &mut Self {
        let mut out = Vec::new();
        self.liveness.handle(self.now, input, &mut out);
        for output in out {
            self.act(output);
        }
        self
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Event(event) => self.events.push(event),
            Output::Wake(wait) => self.wake = Some(self.now + wait),
            Output::Count(counter, n) => *self.counts.entry(counter).or_default() += n,
            Output::Scheduler(SchedulerInput::Witness { peer, heard }) => {
                self.bridges.push((self.now, peer, heard));
            }
            Output::Scheduler(_) => {}
            Output::Transport(TransportInput::Heartbeat { peers, .. }) => {
                for peer in peers {
                    self.beats.push((self.now, peer.clone()));
                    self.echo(&peer, Sign::Traffic);
                }
            }
            Output::Transport(TransportInput::Probe { probes, .. }) => {
                for (peer, number) in probes {
                    self.probes.push((self.now, peer.clone()));
                    self.echo(&peer, Sign::Echo(number));
                }
            }
            Output::Transport(TransportInput::Renew(peers)) => self.renewed.extend(peers),
            Output::Storage(StorageInput::Ask(peer, _)) => {
                self.asked.push((self.now, peer.clone()));
                self.post(Duration::ZERO, DetectorInput::Asking(peer, self.observers()));
            }
            Output::Storage(StorageInput::Answer(ask, hears)) => {
                self.answers.push((self.now, ask.subject, hears));
            }
            Output::Storage(StorageInput::Accuse(peer, generation, verdict, observers)) => {
                self.accused.push((self.now, peer.clone(), verdict, Arc::clone(&observers)));
                let status = Status::Up;
                let member = DetectorInput::Member { peer, generation, status, verdict, observers };
                self.post(Duration::ZERO, member);
            }
            Output::Storage(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// What the peer at the other end does with a packet, if it is there.
    fn echo(&mut self, name: &NodeId, sign: Sign) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.there) else { return };
        peer.probed += 1;
        if !peer.probed.is_multiple_of(peer.answers_every) {
            return;
        }
        let (generation, rtt) = (peer.generation, peer.rtt);
        let heard = DetectorInput::Heard { peer: name.clone(), generation, sign, at: now + rtt };
        self.post(rtt, heard);
    }

    fn post(&mut self, after: Duration, input: DetectorInput) {
        self.sent += 1;
        self.mail.insert((self.now + after, self.sent), input);
    }

    /// Lets so many milliseconds pass, and everything happen that is due.
    fn run(&mut self, millis: u64) -> &mut Self {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let beat = self.peers.values().filter_map(|peer| peer.next_beat).min();
            let Some(next) = [mail, beat, self.wake].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if mail == Some(next) {
                let (_, input) = self.mail.pop_first().unwrap();
                self.tell(input);
            } else if beat == Some(next) {
                self.beat(next);
            } else {
                self.wake = None;
                self.tell(DetectorInput::Tick);
            }
        }
        self.now = end;
        self
    }

    /// Those whose heartbeat is due send it.
    fn beat(&mut self, due: Time) {
        let mut heard = Vec::new();
        for (name, peer) in &mut self.peers {
            if peer.next_beat == Some(due) {
                peer.next_beat = Some(due + T);
                heard.extend(peer.there.then_some((name.clone(), peer.generation)));
            }
        }
        for (peer, generation) in heard {
            let sign = Sign::Heartbeat;
            self.tell(DetectorInput::Heard { peer, generation, sign, at: self.now });
        }
    }

    /// This process stands still: what was on its way is lost, and what should have been sent is not.
    fn stand_still(&mut self, millis: u64) -> &mut Self {
        self.mail.clear();
        self.now = self.now + Duration::from_millis(millis);
        let now = self.now;
        for (index, peer) in self.peers.values_mut().enumerate() {
            // They are at different points of their interval.
            let soon = now + T * u32::try_from(index % 10).unwrap() / 10;
            peer.next_beat = peer.next_beat.map(|_| soon + T / 20);
        }
        self
    }

    fn state(&self, name: &str) -> Option<PeerState> {
        self.liveness.life(&node(name)).map(|life| life.state)
    }

    /// The life that the state of a peer is about.
    fn generation(&self, name: &str) -> u64 {
        self.liveness.life(&node(name)).unwrap().generation.0
    }

    /// The events of one peer.
    fn told(&self, name: &str) -> Vec<&'static str> {
        let about = |event: &Event| match event {
            Event::PeerLive { peer, .. } => (*peer == node(name)).then_some("live"),
            Event::PeerSuspect { peer, .. } => (*peer == node(name)).then_some("suspect"),
            Event::PeerDead { peer, .. } => (*peer == node(name)).then_some("dead"),
            Event::PeerLeft { peer, .. } => (*peer == node(name)).then_some("left"),
            other => panic!("{other:?}"),
        };
        self.events.iter().filter_map(about).collect()
    }

    fn last(&self, name: &str) -> Transition {
        let history = self.liveness.history(&node(name)).expect("it has changed");
        history.iter().next_back().cloned().unwrap()
    }

    /// Since when, in milliseconds.
    fn since(&self, name: &str, from: Time) -> u128 {
        self.liveness.life(&node(name)).unwrap().since.since(from).as_millis()
    }

    fn accuses(&self, name: &str) -> bool {
        self.accused.iter().any(|(_, peer, ..)| *peer == node(name))
    }
}

fn comes_from(input: &DetectorInput, name: &str) -> bool {
    matches!(input, DetectorInput::Heard { peer, .. } if *peer == node(name))
}

fn ask(subject: &str, asker: &str) -> Ask {
    Ask { subject: node(subject), generation: Generation(1), asker: node(asker), round: 1 }
}

const T: Duration = Duration::from_secs(1);
/// This node and ten more: each is heard by ten.
const TEN: [&str; 10] = ["p", "q", "r", "s", "t", "u", "v", "w", "x", "y"];

// --- what counts as a sign of life

#[test]
fn who_was_not_introduced_is_not_live() {
    assert_eq!(Stage::new().hear("p", 1).state("p"), None);
}

// C58
#[test]
fn a_sign_of_an_earlier_life_is_none() {
    let mut stage = Stage::new();
    stage.introduce("p", 5).hear("p", 4);
    assert_eq!(stage.state("p"), Some(PeerState::Unheard));
}

// C58
#[test]
fn who_is_told_of_is_not_live_before_it_is_heard() {
    let mut stage = Stage::new();
    stage.introduce("p", 1);
    (0..5).for_each(|_| {
        stage.introduce("p", 1).run(1_000);
    });
    assert_eq!(stage.state("p"), Some(PeerState::Unheard));
}

#[test]
fn a_clock_far_ahead_in_a_sign_of_life_changes_nothing() {
    let mut stage = Stage::among(&["p"]);
    stage.silence("p");
    let (peer, generation, sign) = (node("p"), Generation(1), Sign::Heartbeat);
    stage.tell(DetectorInput::Heard { peer, generation, sign, at: at(1_000_000) }).run(10_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

// C44
#[test]
fn who_left_before_it_was_ever_heard_has_left() {
    let mut stage = Stage::new();
    stage.member("p", 1, Status::Left, Verdict::default()).hear("p", 1).run(30_000);
    assert_eq!(stage.state("p"), Some(PeerState::Left));
    assert_eq!(stage.told("p"), ["left"]);
}

// C45
#[test]
fn who_left_may_come_back_in_a_new_life_or_in_the_same() {
    for generation in [1, 2] {
        let mut stage = Stage::new();
        stage.introduce("p", 1).hear("p", 1).member("p", 1, Status::Left, Verdict::default());
        assert_eq!(stage.state("p"), Some(PeerState::Left));
        stage.introduce("p", generation).hear("p", generation);
        assert_eq!(stage.state("p"), Some(PeerState::Live));
    }
}

// C60
#[test]
fn who_dies_before_its_first_heartbeat_is_found() {
    let mut stage = Stage::new();
    stage.introduce("p", 1).run(13_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    assert_eq!(stage.told("p"), ["suspect", "dead"]);
}

// C61
#[test]
fn who_joins_is_not_accused_while_its_news_is_late() {
    let mut stage = Stage::new();
    stage.introduce("p", 1).run(9_500);
    assert_eq!(stage.state("p"), Some(PeerState::Unheard));
    stage.connect("p", true).run(10_000);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
    assert_eq!(stage.told("p"), ["live"]);
}

// C46
#[test]
fn a_restart_of_a_dead_peer_is_given_time_anew() {
    let mut stage = Stage::new();
    stage.introduce("p", 1).run(13_000).introduce("p", 2);
    assert_eq!(stage.state("p"), Some(PeerState::Unheard));
    stage.run(1_000).hear("p", 1);
    assert_eq!(stage.state("p"), Some(PeerState::Unheard), "the old life does not count");
    stage.hear("p", 2);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
}

// C62
#[test]
fn live_suspect_dead_and_live_again() {
    let mut stage = Stage::among(&["p"]);
    stage.silence("p").run(10_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    stage.revive("p").run(30_000);
    assert_eq!(stage.told("p"), ["live", "suspect", "dead", "live"]);
    let history = stage.liveness.history(&node("p")).unwrap();
    let causes: Vec<_> = history.iter().map(|transition| transition.reason.cause).collect();
    assert_eq!(causes, [Cause::Heard, Cause::Alone, Cause::Unrefuted, Cause::Heard]);
}

// --- what silence means

#[test]
fn heartbeats_are_sent_by_who_dialed_and_spread_over_the_interval() {
    let mut stage = Stage::among(&TEN);
    stage.beats.clear();
    stage.run(10_000);
    let whom: BTreeSet<_> = stage.beats.iter().map(|(_, peer)| peer.as_str()).collect();
    assert_eq!(whom, BTreeSet::from(["p", "r", "t", "v", "x"]));
    assert_eq!(stage.beats.len(), 50, "one to each in an interval");
    let moments: BTreeSet<_> = stage.beats.iter().map(|(at, _)| *at).collect();
    assert_eq!(moments.len(), 50, "never two at once");
    assert!(stage.asked.is_empty() && stage.probes.len() < 20, "{}", stage.probes.len());
}

#[test]
fn one_unanswered_heartbeat_begins_the_probing_and_asks() {
    let mut stage = Stage::among(&TEN);
    stage.probes.clear();
    stage.beats.clear();
    stage.silence("p").run(1_500);
    let (beat, _) = *stage.beats.iter().find(|(_, peer)| *peer == node("p")).unwrap();
    let probes = stage.probes.iter().filter(|(_, peer)| *peer == node("p"));
    let probes: Vec<_> = probes.map(|(at, _)| at.since(beat).as_millis()).collect();
    assert!((100..=110).contains(&probes[0]), "after a tenth of an interval: {probes:?}");
    assert!(probes[1..5].is_sorted() && probes[4] - probes[0] <= 30, "{probes:?}");
    let (asked, peer) = &stage.asked[0];
    let late = asked.since(beat).as_millis() - probes[0];
    assert!(*peer == node("p") && (5..=30).contains(&late), "after a few: {late}");
    assert_eq!(stage.asked.len(), 1, "and not again");
    assert!(!stage.accuses("p"), "it alone is not enough");
}

#[test]
fn a_heartbeat_that_should_have_come_is_missed_as_well() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.silence("q").run(1_200);
    assert_eq!(stage.asked.iter().map(|(_, peer)| peer).collect::<Vec<_>>(), [&node("q")]);
}

#[test]
fn unanswered_probes_convince_the_sooner_the_better_the_path_is() {
    let probes = [0.01, 0.1, 0.3].map(|loss| {
        let mut stage = Stage::among(&["p"]);
        stage.tell(DetectorInput::Loss(node("p"), loss));
        stage.silence("p").run(5_000);
        let history = stage.liveness.history(&node("p")).unwrap();
        let suspected = history.iter().find(|change| change.to == PeerState::Suspect).unwrap();
        let evidence = suspected.reason.evidence.unwrap();
        assert!(suspected.reason.phi >= 8.0, "{}", suspected.reason.phi);
        assert!((evidence.loss - loss).abs() < 1e-9);
        evidence.probes
    });
    // log10(1 - 0.99^2) = -1.7, log10(1 - 0.9^2) = -0.72, log10(1 - 0.7^2) = -0.29.
    assert!(probes[0] <= 5 && probes[0] < probes[1] && probes[1] < probes[2], "{probes:?}");
    assert!((18..=28).contains(&probes[2]), "{probes:?}");
}

// C63
#[test]
fn who_answers_every_other_time_is_not_accused() {
    let mut stage = Stage::among(&["p", "q"]);
    for name in ["p", "q"] {
        stage.peer(name).answers_every = 2;
    }
    stage.run(60_000);
    assert!(stage.accused.is_empty(), "{:?}", stage.accused);
    assert_eq!((stage.told("p"), stage.told("q")), (vec!["live"], vec!["live"]));
}

// C70
#[test]
fn what_is_expected_at_first_is_the_interval_and_then_what_came() {
    let mut stage = Stage::new();
    stage.introduce("p", 1).hear("p", 1);
    let mean = |stage: &Stage| stage.liveness.estimates().next().unwrap().1.mean;
    assert!((mean(&stage) - 1.0).abs() < 1e-9, "{}", mean(&stage));
    for _ in 0..200 {
        stage.now = stage.now + Duration::from_millis(500);
        stage.hear("p", 1);
    }
    assert!((mean(&stage) - 0.5).abs() < 0.01, "{}", mean(&stage));
}

#[test]
fn a_process_that_is_always_late_still_finds_the_dead() {
    let mut stage = Stage::among(&["p"]);
    stage.silence("p");
    for _ in 0..60 {
        stage.stand_still(2_000).run(500);
    }
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

// --- who decides

#[test]
fn of_two_nodes_each_decides_alone_and_at_once() {
    let mut stage = Stage::among(&["p"]);
    let before = stage.now;
    stage.silence("p").run(10_000);
    assert_eq!(stage.told("p"), ["live", "suspect", "dead"]);
    let (suspected, _, verdict, observers) = &stage.accused[0];
    assert!(suspected.since(before) < Duration::from_millis(1_300), "{suspected:?}");
    assert_eq!((verdict.level, &**observers), (Level::Suspect, &[node("me")][..]));
    assert!(stage.since("p", before) < 3_500, "{}", stage.since("p", before));
}

// C67
#[test]
fn five_of_ten_have_to_agree_and_one_that_repeats_itself_does_not_count() {
    let mut stage = Stage::among(&TEN);
    stage.silence("p").run_until(|stage| !stage.asked.is_empty()).run(40);
    (0..10).for_each(|_| {
        stage.answer("a", "p", false);
    });
    ["b", "c"].iter().for_each(|name| {
        stage.answer(name, "p", false);
    });
    assert_eq!(stage.state("p"), Some(PeerState::Live));
    stage.answer("d", "p", false);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    let (_, peer, verdict, observers) = stage.accused.last().unwrap();
    assert_eq!((peer, verdict.level), (&node("p"), Level::Suspect));
    assert_eq!(**observers, ["a", "b", "c", "d", "me"].map(node));
    assert_eq!(stage.last("p").reason.cause, Cause::Quorum);
}

#[test]
fn more_who_agree_are_quicker_than_one_alone() {
    let suspected = |answers: &[&str]| {
        let mut stage = Stage::among(&TEN);
        let before = stage.now;
        stage.silence("p").run(1_400);
        answers.iter().for_each(|name| {
            stage.answer(name, "p", false);
        });
        stage.run(20_000);
        stage.accused.first().map(|(at, ..)| at.since(before)).unwrap()
    };
    let (many, alone) = (suspected(&["a", "b", "c", "d"]), suspected(&[]));
    assert!(many <= Duration::from_millis(1_400), "{many:?}");
    assert!(alone >= 2 * T, "those who could be asked have two intervals: {alone:?}");
}

#[test]
fn whom_most_others_hear_is_not_accused() {
    let mut stage = Stage::among(&TEN);
    stage.silence("p");
    for _ in 0..60 {
        let before = stage.asked.len();
        stage.run(1_000);
        if stage.asked.len() > before {
            TEN[1..].iter().for_each(|name| {
                stage.answer(name, "p", true);
            });
        }
    }
    assert!(!stage.accuses("p"), "{:?}", stage.accused);
    assert_eq!(stage.told("p"), ["live"]);
    assert!((1..15).contains(&stage.asked.len()), "not all the time: {}", stage.asked.len());
}

// C76
#[test]
fn who_answers_itself_by_another_way_is_not_accused() {
    let mut stage = Stage::among(&TEN);
    stage.silence("p").run_until(|stage| !stage.asked.is_empty());
    ["a", "b", "c"].iter().for_each(|name| {
        stage.answer(name, "p", false);
    });
    stage.answer("p", "p", true);
    stage.answer("d", "p", false).run(1_000);
    assert_eq!(stage.told("p"), ["live"]);
    assert_eq!(stage.renewed, [node("p")]);
}

// C68
#[test]
fn who_has_just_refuted_is_not_accused_before_a_new_connection_had_its_time() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p").run(1_500);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    let known = stage.accused.len();
    stage.member("p", 1, Status::Up, Verdict::alive(Incarnation(1))).run(5_900);
    assert_eq!(stage.accused.len(), known, "a handshake may take five seconds");
    // Nor for ever.
    stage.run(20_000);
    assert!(stage.accused.len() > known);
}

#[test]
fn a_question_about_an_earlier_life_is_not_answered() {
    let mut stage = Stage::among(&["p"]);
    stage.introduce("p", 2).silence("p");
    stage.tell(DetectorInput::Asked(ask("p", "a"), true)).run(1_000);
    assert!(stage.answers.is_empty());
}

#[test]
fn who_is_asked_looks_and_says_what_it_has_seen() {
    let mut stage = Stage::among(&TEN);
    let before = stage.now;
    stage.probes.clear();
    stage.tell(DetectorInput::Asked(ask("p", "a"), true)).run(50);
    assert_eq!(stage.probes[0], (before, node("p")), "at once");
    assert!(matches!(&stage.answers[..], [(_, peer, true)] if *peer == node("p")));
    stage.silence("p");
    let before = stage.now;
    stage.tell(DetectorInput::Asked(ask("p", "b"), true)).run(500);
    let (when, _, hears) = stage.answers.last().unwrap();
    assert!(!hears && when.since(before) < Duration::from_millis(150), "{when:?} {before:?}");
    assert!(!stage.accuses("p"), "who is asked leaves it to the asker");
}

#[test]
fn a_witness_asks_and_never_accuses() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observe(&["q"], &["p"]).silence("p").run(60_000);
    assert!(stage.asked.iter().any(|(_, peer)| *peer == node("p")));
    assert!(!stage.accuses("p"), "{:?}", stage.accused);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
    stage.run(1_000).answer("a", "p", false).answer("b", "p", false).run(30_000);
    assert!(stage.asked.len() < 40, "{}", stage.asked.len());
}

#[test]
fn a_witness_says_which_bridge_is_silent_whoever_else_hears_it() {
    let mut stage = Stage::among(&["p", "q", "r"]);
    stage.observe(&["r"], &["p", "q"]).run(10_000);
    assert_eq!(stage.bridges, [], "all are heard");
    let before = stage.now;
    stage.silence("p").silence("r").run(1_500).answer("p", "p", true).run(10_000);
    let [(when, peer, false)] = &stage.bridges[..] else { panic!("{:?}", stage.bridges) };
    assert_eq!(*peer, node("p"), "r is judged");
    assert!(when.since(before) < 3 * T, "{when:?} {before:?}");
    // Whoever forgot it is told again.
    stage.observe(&["r"], &["p"]);
    assert_eq!(stage.bridges.len(), 2);
    stage.revive("p").run(2_000);
    let (_, peer, heard) = &stage.bridges[2];
    assert_eq!((peer, *heard), (&node("p"), true));
    stage.run(10_000);
    assert_eq!(stage.bridges.len(), 3);
}

/// A packet from the grave, or a peer that was there for a moment.
#[test]
fn who_was_heard_once_since_it_was_called_dead_is_given_up_again() {
    for observed in [true, false] {
        let mut stage = Stage::among(&["p", "q"]);
        stage.silence("p").observe(&["q"], if observed { &["p"] } else { &[] }).run(3_000);
        let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
        stage.member("p", 1, Status::Up, dead).run(3_000);
        assert_eq!(stage.state("p"), Some(PeerState::Dead));
        stage.hear("p", 1).run(5_000);
        assert_eq!(stage.state("p"), Some(PeerState::Live), "it may be about to refute that");
        stage.run(20_000);
        assert_eq!(stage.state("p"), Some(PeerState::Dead), "observed: {observed}");
        // And if it does refute it, it is live, heard here or not.
        stage.hear("p", 1);
        let refuted = Verdict { incarnation: Incarnation(1), level: Level::Alive };
        stage.member("p", 1, Status::Up, refuted).run(30_000);
        assert_eq!(stage.state("p"), Some(PeerState::Live));
    }
}

/// A node that ends in the moment after it has introduced itself, or one whose news is lost.
#[test]
fn a_life_of_which_no_news_comes_is_given_up_once_it_is_silent() {
    for (observed, left) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut stage = Stage::among(&["p", "q"]);
        stage.silence("p").observe(&["q"], if observed { &["p"] } else { &[] }).run(3_000);
        let over = Verdict { incarnation: Incarnation(0), level: Level::Dead };
        let (status, verdict, state) = match left {
            true => (Status::Left, Verdict::default(), PeerState::Left),
            false => (Status::Up, over, PeerState::Dead),
        };
        stage.member("p", 1, status, verdict).run(3_000);
        assert_eq!(stage.state("p"), Some(state));
        stage.hear("p", 2).run(5_000);
        assert_eq!(stage.state("p"), Some(PeerState::Live), "its news may be on the way");
        assert_eq!(stage.generation("p"), 2);
        stage.run(10_000);
        assert_eq!(stage.state("p"), Some(state), "observed: {observed}");
        assert_eq!(stage.generation("p"), 1, "that is the life that storage knows");
        // Once there is news of that life, it holds.
        stage.hear("p", 2).introduce("p", 2).run(30_000);
        assert_eq!(stage.state("p"), Some(PeerState::Live));
        assert_eq!(stage.generation("p"), 2);
    }
}

#[test]
fn what_storage_says_last_of_the_life_that_it_knows_counts() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observe(&["q"], &["p"]).silence("p").hear("p", 2).run(1_000);
    let dead = Verdict { incarnation: Incarnation(3), level: Level::Dead };
    stage.member("p", 1, Status::Up, dead).run(1_000);
    assert_eq!(stage.state("p"), Some(PeerState::Live), "that is not about this life");
    stage.run(12_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    assert_eq!(stage.generation("p"), 1);
}

#[test]
fn a_life_of_which_no_news_comes_is_live_as_long_as_it_is_heard() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.peer("p").generation = Generation(2);
    stage.run(60_000);
    assert_eq!((stage.state("p"), stage.generation("p")), (Some(PeerState::Live), 2));
}

/// The accusers are gone, or others are there again to judge, who know nothing of it.
#[test]
fn a_suspicion_ends_also_without_a_voice() {
    let suspect = Verdict { incarnation: Incarnation(0), level: Level::Suspect };
    // This node has a voice when it begins to suspect, and loses it.
    let mut stage = Stage::among(&["p", "q"]);
    stage.silence("p").run_until(|stage| stage.state("p") == Some(PeerState::Suspect));
    stage.observe(&["q"], &["p"]).run(9_000);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect), "others may know better");
    stage.run(2_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    assert!(stage.accuses("p"), "storage is to know what the detector thinks");
    // It never had one: somebody else has begun, and is gone.
    for witnessed in [&["p"][..], &[]] {
        let mut stage = Stage::among(&["p", "q"]);
        stage.observe(&["q"], witnessed).silence("p").run(5_000);
        stage.member("p", 1, Status::Up, suspect).run(9_000);
        assert_eq!(stage.state("p"), Some(PeerState::Suspect));
        stage.run(2_000);
        assert_eq!(stage.state("p"), Some(PeerState::Dead), "{witnessed:?}");
    }
    // Others suspected it while it was heard here; then it fell silent.
    let mut stage = Stage::among(&["p", "q"]);
    stage.observe(&["q"], &["p"]).member("p", 1, Status::Up, suspect).run(2_000);
    assert_eq!(stage.state("p"), Some(PeerState::Live), "it is heard");
    stage.silence("p").run(25_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

#[test]
fn who_may_be_cut_off_itself_waits_ten_intervals() {
    let mut stage = Stage::among(&TEN);
    let before = stage.now;
    TEN.iter().for_each(|name| {
        stage.silence(name);
    });
    stage.run(9_900);
    assert!(stage.accused.is_empty(), "{:?}", stage.accused[0]);
    stage.run(10_000);
    let first = stage.accused[0].0.since(before);
    assert!(first >= 10 * T && first < 13 * T, "{first:?}");
}

#[test]
fn questions_are_rationed() {
    let mut stage = Stage::among(&TEN);
    stage.observers = Some(100);
    TEN.iter().for_each(|name| {
        stage.silence(name);
    });
    stage.run(1_000);
    assert!(stage.asked.len() <= 10);
    assert_eq!(stage.counts[&Counter::Inquiries], stage.asked.len() as u64);
}

// --- what is told

// C51
#[test]
fn who_is_removed_by_others_is_forgotten_if_it_is_not_heard_here() {
    let told = |stage: &mut Stage| {
        let mut out = Vec::new();
        let (peer, by) = (node("p"), node("q"));
        let removal = DetectorInput::Removal { peer, generation: Generation(1), by };
        stage.liveness.handle(stage.now, removal, &mut out);
        let told = |by: &Option<NodeId>| *by == Some(node("q"));
        let remove = |o: &Output| match o {
            Output::Storage(StorageInput::Remove { by, .. }) => told(by),
            _ => false,
        };
        out.iter().any(remove)
    };
    let mut stage = Stage::among(&["p"]);
    assert!(!told(&mut stage), "it is live");
    stage.silence("p").run(10_000);
    assert!(told(&mut stage));
    stage.introduce("p", 2);
    assert!(!told(&mut stage), "it lives anew");
}

#[test]
fn whom_this_node_hears_it_does_not_give_up_for_what_others_say() {
    let mut stage = Stage::among(&["p"]);
    let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    stage.member("p", 1, Status::Up, dead).run(5_000);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
}

// C68
#[test]
fn who_is_called_dead_out_of_the_blue_has_the_time_to_refute_that() {
    let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    let mut stage = Stage::new();
    stage.observe(&[], &[]).introduce("p", 1).introduce("q", 1).run(5_000);
    stage.member("p", 1, Status::Up, dead).member("q", 1, Status::Up, dead);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.run(1_000).member("p", 1, Status::Up, Verdict::alive(Incarnation(1)));
    stage.run(5_000);
    assert_eq!(
        (stage.told("p"), stage.told("q")),
        (vec!["live", "suspect", "live"], vec!["live", "suspect", "dead"],)
    );
    // Who was never known otherwise is not waited for.
    stage.member("r", 1, Status::Up, dead);
    assert_eq!(stage.state("r"), Some(PeerState::Dead));
}

// C68
#[test]
fn who_refutes_a_suspicion_is_live_and_what_was_refuted_is_not_said_again() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p").run(1_500);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    let stale = Verdict { incarnation: Incarnation(0), level: Level::Suspect };
    let refuted = Verdict { incarnation: Incarnation(1), level: Level::Alive };
    stage.member("p", 1, Status::Up, refuted);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
    assert_eq!(stage.last("p").reason.cause, Cause::Refuted);
    stage.member("p", 1, Status::Up, stale);
    assert_eq!(stage.state("p"), Some(PeerState::Live), "the suspicion came late");
    assert_eq!(stage.renewed, [node("p")], "its connection may be what is dead");
    stage.run(30_000);
    let later = stage.accused.iter().filter(|(_, peer, ..)| *peer == node("p")).skip(1);
    assert!(
        later.clone().count() > 0
            && later.clone().all(|(_, _, verdict, _)| verdict.incarnation == Incarnation(1))
    );
}

// C68
#[test]
fn who_refutes_again_and_again_is_given_more_and_more_time() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p");
    let (accusations, deaths) = refuted_for_ten_minutes(stage);
    assert_eq!(deaths, 0);
    assert!((1..=30).contains(&accusations), "{accusations}");
    let (accusations, deaths) = refuted_for_ten_minutes(newly_observed());
    assert_eq!(deaths, 0);
    assert!((1..=10).contains(&accusations), "{accusations}");
}

/// How often `p` is accused, and found dead, that others reach and that reaches them.
fn refuted_for_ten_minutes(mut stage: Stage) -> (usize, usize) {
    let mut deaths = 0;
    for _ in 0..600 {
        let known = stage.accused.len();
        stage.run(1_000);
        if stage.accused.len() > known {
            let (_, _, verdict, _) = stage.accused.last().unwrap();
            deaths += usize::from(verdict.level == Level::Dead);
            let refuted = Verdict::alive(verdict.incarnation.next());
            stage.member("p", 1, Status::Up, refuted);
        }
    }
    (stage.accused.len(), deaths)
}

// C68
#[test]
fn who_is_heard_though_suspect_is_told_so_that_it_can_refute_that() {
    let mut stage = Stage::among(&["p"]);
    let suspect = Verdict { incarnation: Incarnation(0), level: Level::Suspect };
    stage.silence("p").run(2_000);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.member("p", 1, Status::Up, suspect).revive("p").run(1_000);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
}

/// Others hear `p`, and from the start on this node is to hear it as well.
fn newly_observed() -> Stage {
    let mut stage = Stage::new();
    stage.observe(&[], &[]).introduce("p", 1);
    assert_eq!(stage.state("p"), Some(PeerState::Live), "others hear it");
    stage.observe(&["p"], &[]);
    stage
}

#[test]
fn who_was_heard_by_others_and_is_not_heard_here_is_first_suspected() {
    let mut stage = newly_observed();
    stage.run(9_900);
    assert_eq!(stage.state("p"), Some(PeerState::Live));
    stage.run(300);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.run(2_500);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

#[test]
fn who_refutes_what_was_never_heard_here_is_given_twice_the_time() {
    let mut stage = newly_observed();
    stage.run(13_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    stage.member("p", 1, Status::Up, Verdict::alive(Incarnation(1))).run(19_500);
    assert_eq!(stage.told("p"), ["live", "suspect", "dead", "live"]);
    stage.run(4_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

#[test]
fn who_is_suspect_is_judged_to_the_end_by_whoever_missed_it() {
    let mut stage = newly_observed();
    stage.run(10_500);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.observe(&[], &[]).run(3_500);
    assert_eq!(stage.state("p"), Some(PeerState::Dead), "although another is heard in its place");
}

// --- this process itself

// C72
#[test]
fn a_process_that_stood_still_accuses_nobody_for_it() {
    for names in [&TEN[..], &TEN[..1], &TEN[..2]] {
        for millis in [1_000, 3_000, 10_000, 30_000, 600_000] {
            for offset in 0..10 {
                let mut stage = Stage::among(names);
                stage.run(offset * 107).stand_still(millis).run(20_000);
                assert!(stage.accused.is_empty(), "{millis} ms: {:?}", stage.accused[0]);
                assert_eq!(stage.events.len(), names.len(), "{millis} ms");
            }
        }
    }
}

// C72
#[test]
fn a_process_that_stops_again_and_again_accuses_nobody() {
    let mut stage = Stage::among(&TEN);
    for n in 0..300 {
        stage.stand_still(200 + n * 37 % 1_700).run(100 + n * 53 % 900);
    }
    assert!(stage.accused.is_empty(), "{:?}", stage.accused[0]);
}

// C72
#[test]
fn a_silence_that_outlasts_the_stall_counts() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p").stand_still(3_000).run(20_000);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    assert_eq!(stage.state("q"), Some(PeerState::Live));
    let history = stage.liveness.history(&node("p")).unwrap();
    let suspected = history.iter().find(|change| change.to == PeerState::Suspect).unwrap();
    assert!(suspected.reason.stall >= 2 * T, "and the stall is told: {suspected:?}");
}

// C66
#[test]
fn a_stall_makes_patient_and_that_passes() {
    let mut stage = Stage::among(&TEN);
    assert_eq!(stage.liveness.health(), 0);
    for _ in 0..20 {
        stage.stand_still(300).run(150);
    }
    let ill = stage.liveness.health();
    assert!((4..=HEALTH_MAX).contains(&ill), "{ill}");
    stage.run(1_500 + u64::from(ill) * 1_000);
    assert_eq!(stage.liveness.health(), 0, "as the timers are on time again");
}

// C66
#[test]
fn who_is_slow_takes_longer_to_be_convinced() {
    let convinced = |stalls: u32| {
        let taken = (0..10).map(|offset| {
            let mut stage = Stage::among(&["p", "q"]);
            stage.observers = Some(1);
            stage.run(offset * 100);
            for _ in 0..stalls {
                stage.stand_still(300).run(150);
            }
            let before = stage.now;
            stage.silence("p").run(20_000);
            stage.accused[0].0.since(before)
        });
        taken.sum::<Duration>() / 10
    };
    // It is on time since, so that its patience shrinks meanwhile.
    let times = [0, 8].map(convinced);
    assert!(times[1] > times[0] + Duration::from_millis(200), "{times:?}");
}

/// How long a detector takes from the first probe after a miss to its conviction.
fn conviction(health: u32, peer: u8, linear: bool) -> Duration {
    let scale = Scale {
        interval: T,
        join_grace: 10 * T,
        dead_peer_phi: 8.0,
        health,
        lag: Duration::ZERO,
        few: false,
        linear,
    };
    let mut watch = Watch::new(Time::ZERO, T, true);
    watch.linked(true, true);
    watch.set_health(peer);
    let silent = Time::from_origin(10 * T);
    let mut probed = None;
    for millis in 0..100_000 {
        let now = Time::from_origin(Duration::from_millis(millis));
        let tick = u64::from(1_000 / TICKS_PER_INTERVAL);
        let ticks = if millis % tick == 0 { millis / tick..millis / tick + 1 } else { 0..0 };
        let due = watch.tick(now, ticks, millis, &scale);
        if now < silent {
            if due.beat {
                watch.hear(Sign::Heartbeat, now);
            }
            if due.probe {
                watch.hear(Sign::Echo(millis), now + Duration::from_millis(1));
            }
        } else {
            let begins = due.probe && watch.is_missing();
            probed = probed.or_else(|| begins.then_some(now));
            if watch.convinces(now, &scale) {
                return now.since(probed.unwrap());
            }
        }
    }
    panic!("not within 90 s");
}

#[test]
fn the_time_to_suspicion_grows_with_the_own_slowness_once() {
    let usual = conviction(0, 0, true);
    assert!(usual <= Duration::from_millis(40), "{usual:?}");
    for health in 1..=HEALTH_MAX {
        for peer in 0..=2 {
            let taken = conviction(health, peer, true).as_secs_f64() / usual.as_secs_f64();
            let linear = f64::from(1 + health);
            assert!((0.7..=2.0).contains(&(taken / linear)), "{health} {peer}: {taken} times");
        }
    }
    let squared = conviction(HEALTH_MAX, 0, false);
    assert!(squared > usual * 3 * (1 + HEALTH_MAX), "by the earlier rule: {squared:?}");
}

#[test]
fn a_node_that_is_on_time_again_is_soon_as_quick_as_before() {
    for (linear, quick) in [(true, true), (false, false)] {
        let rules = Rules { linear_patience: linear, ..Rules::default() };
        let mut stage = Stage::among_with(rules, &TEN);
        for _ in 0..20 {
            stage.stand_still(300).run(100);
        }
        assert!(stage.liveness.health() >= 4);
        stage.run(2_000);
        assert_eq!(stage.liveness.health() == 0, quick, "{}", stage.liveness.health());
    }
}

// --- a node that is late

fn late(stage: &mut Stage, millis: u64) -> &mut Stage {
    stage.tell(DetectorInput::Lag(Duration::from_millis(millis)))
}

#[test]
fn a_node_that_is_late_asks_nothing_about_a_short_silence() {
    for (quiet, asks) in [(true, 0), (false, 2)] {
        let rules = Rules { quiet_when_late: quiet, ..Rules::default() };
        let mut stage = Stage::among_with(rules, &TEN);
        late(&mut stage, 300).probes.clear();
        stage.silence("p").silence("q").run(2_500);
        assert_eq!(stage.asked.len(), asks, "{:?}", stage.asked);
        let probes = stage.probes.len();
        assert_eq!(probes <= 2 * 25, quiet, "one at a time: {probes}");
        stage.revive("p").revive("q").run(20_000);
        assert_eq!(stage.accused.is_empty(), quiet, "{:?}", stage.accused);
    }
}

#[test]
fn a_node_that_is_always_late_asks_about_one_peer_at_a_time() {
    let mut stage = Stage::among(&TEN);
    late(&mut stage, 300).run(5_000);
    let before = stage.now;
    TEN[..4].iter().for_each(|name| {
        stage.silence(name);
    });
    stage.run(12_500);
    let asked: Vec<_> = stage.asked.iter().map(|(at, _)| at.since(before)).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[0] <= Duration::from_secs(4), "{asked:?}");
    assert!(asked.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(3)), "{asked:?}");
}

#[test]
fn a_node_that_was_late_within_the_last_interval_waits_still() {
    for (quiet, asks) in [(true, false), (false, true)] {
        let rules = Rules { quiet_when_late: quiet, ..Rules::default() };
        let mut stage = Stage::among_with(rules, &TEN);
        late(&mut stage, 60).run(100);
        late(&mut stage, 0).silence("p").silence("r").silence("t").run(700);
        assert_eq!(!stage.asked.is_empty(), asks, "{:?}", stage.asked);
        stage.run(3_000);
        assert_eq!(stage.asked.len(), 3);
    }
}

#[test]
fn a_verdict_tells_how_slow_and_how_late_its_node_was() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    for _ in 0..8 {
        stage.stand_still(300).run(100);
    }
    late(&mut stage, 40).silence("p").run(5_000);
    let history = stage.liveness.history(&node("p")).unwrap();
    let suspected = history.iter().find(|change| change.to == PeerState::Suspect).unwrap();
    let reason = &suspected.reason;
    assert_eq!(reason.lag, Duration::from_millis(40));
    assert_eq!(reason.factor, 1 + reason.slowness);
    assert!(reason.phi >= 8.0, "{reason:?}");
}

#[test]
fn a_question_is_left_to_the_asker_that_comes_first() {
    for (one_question, again) in [(true, 2), (false, 1)] {
        let rules = Rules { one_question, ..Rules::default() };
        let mut stage = Stage::among_with(rules, &TEN);
        stage.silence("p").run_until(|stage| !stage.asked.is_empty());
        let askers = ["a", "b", "c", "d", "e", "f"].map(|asker| ask("p", asker));
        let first = askers.iter().find(|ask| precedes(ask, &node("me"))).unwrap();
        let after = askers.iter().find(|ask| !precedes(ask, &node("me"))).unwrap();
        stage.tell(DetectorInput::Asked(after.clone(), true));
        stage.tell(DetectorInput::Asked(first.clone(), true)).run(100);
        for name in ["b", "c", "d", "e"] {
            stage.answer(name, "p", false);
        }
        assert_eq!(stage.accused.is_empty(), one_question, "the answers are not all there");
        stage.run(1_000);
        assert_eq!(stage.asked.len(), again, "but it is asked again soon: {:?}", stage.asked);
    }
}

// C66
#[test]
fn answers_that_come_too_late_are_its_own_fault() {
    let mut stage = Stage::among(&TEN);
    // It takes this node so long to read them.
    stage.peers.values_mut().for_each(|peer| peer.rtt = Duration::from_millis(250));
    stage.run(2_000);
    assert!(stage.liveness.health() > 0);
    stage.run(60_000);
    assert!(stage.accused.is_empty(), "{:?}", stage.accused[0]);
}

// --- why

#[test]
fn the_last_changes_are_kept_each_with_its_reason() {
    let mut stage = Stage::among(&["p"]);
    for _ in 0..TRANSITIONS_MAX {
        stage.silence("p").run(10_000).revive("p").run(30_000);
    }
    let history = stage.liveness.history(&node("p")).unwrap();
    assert_eq!(history.len(), TRANSITIONS_MAX);
    let (mut before, mut when) = (None, Time::ZERO);
    for change in history.iter() {
        assert!(before.is_none_or(|before| before == change.from) && change.at >= when);
        (before, when) = (Some(change.to), change.at);
    }
    let suspected = history.iter().find(|change| change.to == PeerState::Suspect).unwrap();
    let evidence = suspected.reason.evidence.unwrap();
    assert!(evidence.heard && evidence.dialed == Some(true) && evidence.probes > 0);
    assert!(evidence.silence > Duration::from_millis(100), "{evidence:?}");
    assert_eq!(*suspected.reason.observers, [node("me")]);
}

// --- what went wrong once

#[test]
fn a_path_does_not_look_worse_the_longer_it_is_used() {
    let mut stage = Stage::among(&["p", "q"]);
    // One heartbeat in a hundred is lost, for some hours.
    for n in 0..30_000_u32 {
        if n.is_multiple_of(100) {
            stage.peer("q").there = false;
            stage.run(1_110).revive("q").run(1_000);
        } else {
            stage.run(1_000);
        }
    }
    stage.silence("q").run(5_000);
    let evidence = stage.last("q").reason.evidence.unwrap();
    assert!(evidence.loss < 0.1, "{evidence:?}");
}

#[test]
fn what_others_miss_is_no_loss_of_this_path() {
    let mut stage = Stage::among(&["p", "q"]);
    for _ in 0..300 {
        stage.tell(DetectorInput::Asked(ask("p", "a"), true)).run(1_000);
    }
    stage.silence("p").run(5_000);
    let history = stage.liveness.history(&node("p")).unwrap();
    let evidence = history.iter().next_back().unwrap().reason.evidence.unwrap();
    assert!(evidence.loss < 0.05, "{evidence:?}");
}

#[test]
fn who_starts_anew_while_suspect_is_not_convicted() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p").run(1_500);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.introduce("p", 2).run(5_000);
    assert_ne!(stage.state("p"), Some(PeerState::Dead), "{:?}", stage.told("p"));
    assert_eq!(stage.told("p"), ["live", "suspect", "live"]);
}

#[test]
fn who_has_refuted_and_is_suspect_again_is_given_its_time_anew() {
    let mut stage = Stage::among(&["p", "q"]);
    stage.observers = Some(1);
    stage.silence("p").run_until(|stage| stage.state("p") == Some(PeerState::Suspect));
    stage.run(1_500);
    let again = Verdict { incarnation: Incarnation(1), level: Level::Suspect };
    stage.member("p", 1, Status::Up, again).run(1_500);
    assert_eq!(stage.state("p"), Some(PeerState::Suspect));
    stage.run(1_500);
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
}

#[test]
fn who_asks_without_end_does_not_keep_the_dead_alive() {
    let mut stage = Stage::among(&TEN);
    let before = stage.now;
    stage.silence("p");
    for n in 0..60 {
        let forged = Ask { round: n, ..ask("p", "z") };
        stage.tell(DetectorInput::Asked(forged, true)).run(400);
    }
    assert_eq!(stage.state("p"), Some(PeerState::Dead));
    assert!(stage.since("p", before) < 8_000, "{}", stage.since("p", before));
}

#[test]
fn who_stops_in_the_middle_of_a_question_accuses_nobody() {
    for millis in [1_000, 3_000, 10_000] {
        for answers in [true, false] {
            for early in (0..400).step_by(7) {
                let mut stage = Stage::among(&TEN);
                // Before half an interval is over, after which a few answers are enough.
                stage.silence("p").run_until(|stage| !stage.asked.is_empty()).run(early);
                stage.revive("p").stand_still(millis);
                if answers {
                    stage.answer("a", "p", false);
                }
                stage.run(20_000);
                assert!(stage.accused.is_empty(), "{millis} {early}: {:?}", stage.accused[0]);
            }
        }
    }
}

#[test]
fn a_path_that_grows_longer_is_soon_known_to_be() {
    for (name, rtt) in [("p", 90), ("q", 90), ("p", 150), ("q", 150), ("p", 400), ("q", 400)] {
        let mut stage = Stage::among(&TEN);
        stage.observers = Some(1);
        stage.run(10_000).peer(name).rtt = Duration::from_millis(rtt);
        // Now and then somebody asks.
        for n in 0..30 {
            let asked = Ask { round: n, ..ask(name, "z") };
            stage.tell(DetectorInput::Asked(asked, true)).run(4_030);
        }
        let wrong = stage.answers.iter().filter(|(_, _, hears)| !hears).count();
        assert!(
            stage.accused.len() <= 1 && wrong <= 2,
            "{name} {rtt}: {wrong} {:?}",
            stage.accused
        );
    }
}

#[test]
fn a_pause_of_a_peer_is_not_taken_for_the_length_of_the_path() {
    for name in ["p", "q"] {
        let mut stage = Stage::among(&TEN);
        stage.peer(name).rtt = Duration::from_millis(1_500);
        stage.run(4_000).peer(name).rtt = Duration::from_millis(2);
        stage.run(10_000);
        let before = stage.now;
        stage.silence(name).observers = Some(1);
        stage.run(3_000);
        let rtt = stage.last(name).reason.evidence.unwrap().rtt.unwrap();
        assert!(rtt < Duration::from_millis(10), "{name}: {rtt:?}");
        assert!(stage.accused[0].0.since(before) < T * 3 / 2, "{:?}", stage.accused);
    }
}
