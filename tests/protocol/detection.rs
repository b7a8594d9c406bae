//! Who is thought to be live: what counts as a sign of life, and what silence means.

use std::time::Duration;

use gossipmonger::protocol::{
    event::Event,
    id::{Generation, Incarnation},
    liveness::{Liveness, LivenessConfig, PeerState},
    record::Status,
    route::{DetectorInput, Output, Sign},
    time::Time,
    verdict::{Level, Verdict},
};

use crate::support::{at, node};

/// A detector that hears of one peer, `p`.
struct Detector {
    liveness: Liveness,
    events: Vec<Event>,
}

impl Detector {
    fn new() -> Self {
        let config = LivenessConfig {
            node: node("me"),
            suspicion: Duration::from_secs(2),
            heartbeat_interval: Duration::from_secs(1),
            dead_peer_phi: 8.0,
            join_grace: Duration::from_secs(10),
            forget_after: Duration::from_secs(100),
        };
        Self { liveness: Liveness::new(config), events: Vec::new() }
    }

    fn tell(&mut self, now: Time, input: DetectorInput) -> &mut Self {
        let mut out = Vec::new();
        self.liveness.handle(now, input, &mut out);
        self.events.extend(out.into_iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        }));
        self
    }

    fn member(&mut self, now: Time, generation: u64, status: Status) -> &mut Self {
        let (peer, generation) = (node("p"), Generation(generation));
        self.tell(
            now,
            DetectorInput::Member {
                peer,
                generation,
                status,
                verdict: Verdict::default(),
                observers: [].into(),
            },
        )
    }

    fn beat(&mut self, now: Time, generation: u64) -> &mut Self {
        let (peer, generation) = (node("p"), Generation(generation));
        let sign = Sign::Heartbeat;
        self.tell(now, DetectorInput::Heard { peer, generation, sign, at: now })
    }

    fn ticks(&mut self, from: u64, to: u64) -> &mut Self {
        for quarter in from * 4..to * 4 {
            let now = Time::from_origin(Duration::from_millis(quarter * 250));
            self.tell(now, DetectorInput::Tick);
        }
        self
    }

    fn state(&self) -> Option<PeerState> {
        self.liveness.life(&node("p")).map(|life| life.state)
    }
}

#[test]
fn who_was_not_introduced_is_not_live() {
    assert_eq!(Detector::new().beat(at(1), 1).state(), None);
}

#[test]
fn an_earlier_life_is_no_sign_of_life() {
    let mut detector = Detector::new();
    detector.member(at(0), 5, Status::Up).beat(at(1), 4);
    assert_eq!(detector.state(), Some(PeerState::Unheard));
}

// C60
#[test]
fn who_dies_before_its_first_heartbeat_is_found() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up).ticks(0, 12);
    assert_eq!(detector.state(), Some(PeerState::Dead));
    assert!(detector.events.iter().any(|event| matches!(event, Event::PeerDead { .. })));
}

// C61
#[test]
fn who_joins_is_not_dead_while_its_news_is_late() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up).ticks(0, 9);
    assert_eq!(detector.state(), Some(PeerState::Unheard));
    detector.beat(at(9), 1).ticks(9, 11).beat(at(11), 1);
    assert_eq!(detector.state(), Some(PeerState::Live));
    assert!(!detector.events.iter().any(|event| matches!(event, Event::PeerDead { .. })));
}

// C62
#[test]
fn live_dead_and_live_again() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up);
    (0..20).for_each(|second| {
        detector.beat(at(second), 1).ticks(second, second + 1);
    });
    assert_eq!(detector.state(), Some(PeerState::Live));
    detector.ticks(20, 30);
    assert_eq!(detector.state(), Some(PeerState::Dead));
    detector.beat(at(30), 1);
    assert_eq!(detector.state(), Some(PeerState::Live));
    (31..60).for_each(|second| {
        detector.beat(at(second), 1).ticks(second, second + 1);
    });
    let names: Vec<_> = detector
        .events
        .iter()
        .map(|event| match event {
            Event::PeerLive { .. } => "live",
            Event::PeerSuspect { .. } => "suspect",
            Event::PeerDead { .. } => "dead",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["live", "suspect", "dead", "live"]);
}

// C46
#[test]
fn a_restart_of_a_dead_peer_is_given_time_anew() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up).ticks(0, 12).member(at(12), 2, Status::Up);
    assert_eq!(detector.state(), Some(PeerState::Unheard));
    detector.beat(at(13), 1);
    assert_eq!(detector.state(), Some(PeerState::Unheard), "the old life does not count");
    detector.beat(at(14), 2);
    assert_eq!(detector.state(), Some(PeerState::Live));
}

// C44
#[test]
fn who_left_before_it_was_ever_heard_has_left() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Left).beat(at(1), 1).ticks(1, 30);
    assert_eq!(detector.state(), Some(PeerState::Left));
    assert!(matches!(&detector.events[..], [Event::PeerLeft { peer, .. }] if *peer == node("p")));
}

// C45
#[test]
fn who_left_may_come_back_in_a_new_life_or_in_the_same() {
    for generation in [1, 2] {
        let mut detector = Detector::new();
        detector.member(at(0), 1, Status::Up).beat(at(1), 1).member(at(2), 1, Status::Left);
        assert_eq!(detector.state(), Some(PeerState::Left));
        detector.member(at(3), generation, Status::Up).beat(at(4), generation);
        assert_eq!(detector.state(), Some(PeerState::Live));
    }
}

#[test]
fn a_clock_far_ahead_in_a_sign_of_life_changes_nothing() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up);
    let peer = node("p");
    let (generation, sign) = (Generation(1), Sign::Heartbeat);
    let heard = DetectorInput::Heard { peer, generation, sign, at: at(1_000_000) };
    detector.tell(at(1), heard).ticks(1, 20);
    assert_eq!(detector.state(), Some(PeerState::Dead));
}

// C72
#[test]
fn a_process_that_stood_still_accuses_nobody_for_it() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up);
    for second in 0..10 {
        detector.beat(at(second), 1).ticks(second, second + 1);
    }
    // Nothing runs for a minute; what was sent meanwhile is lost.
    detector.ticks(70, 71);
    assert_eq!(detector.state(), Some(PeerState::Live), "{:?}", detector.events);
    detector.ticks(71, 80);
    assert_eq!(detector.state(), Some(PeerState::Dead), "but a silence that lasts counts");
}

#[test]
fn a_process_that_is_always_late_still_finds_the_dead() {
    let mut detector = Detector::new();
    detector.member(at(0), 1, Status::Up).beat(at(1), 1);
    for n in 1..40 {
        detector.tell(at(n * 5), DetectorInput::Tick);
    }
    assert_eq!(detector.state(), Some(PeerState::Dead));
}

/// Others hear `p`, and from the start on this node is to hear it as well.
fn newly_observed() -> Detector {
    let mut detector = Detector::new();
    detector
        .tell(at(0), DetectorInput::Observe { judged: [].into(), witnessed: [].into() })
        .member(at(0), 1, Status::Up);
    assert_eq!(detector.state(), Some(PeerState::Live), "others hear it");
    detector
        .tell(at(0), DetectorInput::Observe { judged: [node("p")].into(), witnessed: [].into() });
    detector
}

#[test]
fn who_was_heard_by_others_and_is_not_heard_here_is_first_suspected() {
    let mut detector = newly_observed();
    detector.ticks(0, 5);
    assert_eq!(detector.state(), Some(PeerState::Live));
    detector.ticks(5, 9);
    assert_eq!(detector.state(), Some(PeerState::Suspect));
    detector.ticks(9, 11);
    assert_eq!(detector.state(), Some(PeerState::Dead));
}

#[test]
fn who_refutes_what_was_never_heard_here_is_given_twice_the_time() {
    let mut detector = newly_observed();
    detector.ticks(0, 11);
    assert_eq!(detector.state(), Some(PeerState::Dead));
    let (peer, generation, status) = (node("p"), Generation(1), Status::Up);
    let verdict = Verdict { incarnation: Incarnation(1), level: Level::Alive };
    detector.tell(
        at(11),
        DetectorInput::Member { peer, generation, status, verdict, observers: [].into() },
    );
    detector.ticks(11, 20);
    assert_eq!(detector.state(), Some(PeerState::Live), "{:?}", detector.events);
    detector.ticks(20, 32);
    assert_eq!(detector.state(), Some(PeerState::Dead));
}

#[test]
fn who_is_suspect_is_judged_to_the_end_by_whoever_missed_it() {
    let mut detector = newly_observed();
    detector.ticks(0, 9);
    assert_eq!(detector.state(), Some(PeerState::Suspect));
    detector
        .tell(at(9), DetectorInput::Observe { judged: [].into(), witnessed: [].into() })
        .ticks(9, 11);
    assert_eq!(detector.state(), Some(PeerState::Dead), "although another is heard in its place");
}
