//! What a member can do to others by what it tells them, or by not answering: bounded, and undone.

use std::time::Duration;

use gossipmonger::protocol::{
    delta::{Delta, NodeDelta},
    gossip::{Answer, Ask, Gossip, Wave},
    id::{Generation, Incarnation, Version},
    replica::Replica,
    route::{DetectorInput, Output, StorageInput, TransportInput},
    time::Time,
    verdict::{INCARNATION_MAX, Level, Verdict},
};

use crate::support::{at, delete, exchange, news, node, record, replica, seen, set, told, value};

fn push(replica: &mut Replica, now: Time, from: &str, news: NodeDelta) -> Vec<Output> {
    let gossip = Gossip::Push(Delta { nodes: vec![news], more: false });
    handle(replica, now, StorageInput::Gossip(node(from), Box::new(gossip)))
}

fn handle(replica: &mut Replica, now: Time, input: StorageInput) -> Vec<Output> {
    let mut out = Vec::new();
    replica.handle(now, input, &mut out);
    out
}

fn accusation(replica: &Replica, verdict: Verdict) -> NodeDelta {
    let own = replica.own();
    NodeDelta { generation: own.generation(), verdict, record: None, ..news("a", 0, 0, 0) }
}

fn suspect(incarnation: u64) -> Verdict {
    Verdict { incarnation: Incarnation(incarnation), level: Level::Suspect }
}

/// Calls it whenever it asks to be called, up to `end`; returns how often that was.
fn run(replica: &mut Replica, mut now: Time, end: Time, mut wake: Option<Duration>) -> usize {
    let mut calls = 0;
    while let Some(wait) = wake.take() {
        now = now + wait;
        if now > end {
            break;
        }
        calls += 1;
        assert!(calls < 10_000, "it is called all the time");
        wake = wait_in(&handle(replica, now, StorageInput::Tick));
    }
    calls
}

/// How long until it wants to be called.
fn wait_in(out: &[Output]) -> Option<Duration> {
    let wakes = out.iter().filter_map(|output| match output {
        Output::Wake(wait) => Some(*wait),
        _ => None,
    });
    wakes.min()
}

#[test]
fn refutes_at_its_own_pace_whoever_accuses() {
    let mut a = replica("a");
    let before = a.own().max_version();
    let now = at(2);
    for incarnation in 0..1_000 {
        let news = accusation(&a, suspect(incarnation));
        push(&mut a, now, "m", news);
    }
    assert_eq!(a.own().max_version(), before.next());
    // What is not refuted yet is once it is time.
    handle(&mut a, at(3), StorageInput::Tick);
    assert_eq!(a.own().max_version(), before.next().next());
    assert!(Verdict::alive(a.own().record().unwrap().incarnation) > suspect(999));
}

#[test]
fn whoever_is_accused_in_its_last_incarnation_lives_anew() {
    let mut a = replica("a");
    set(&mut a, "key", "value");
    let generation = a.own().generation();
    let accused = Verdict { incarnation: INCARNATION_MAX, level: Level::Dead };
    let news = accusation(&a, accused);
    push(&mut a, at(2), "m", news);
    assert_eq!(a.own().generation(), generation.next());
    assert_eq!(a.own().ancestry()[0].0, generation);
    assert_eq!(a.own().verdict(), Verdict::default());
}

#[test]
fn refuses_a_verdict_beyond_the_last_incarnation() {
    let mut a = replica("a");
    told(&mut a, "b", news("b", 0, 1, 0));
    let beyond = Verdict { incarnation: INCARNATION_MAX.next(), level: Level::Dead };
    push(&mut a, at(2), "m", NodeDelta { verdict: beyond, ..news("b", 0, 2, 0) });
    assert_eq!(a.copy(&node("b")).unwrap().verdict(), Verdict::default());
    let (generation, version) = (a.own().generation(), a.own().max_version());
    let news = accusation(&a, beyond);
    push(&mut a, at(2), "m", news);
    assert_eq!((a.own().generation(), a.own().max_version()), (generation, version));
}

#[test]
fn what_is_decided_of_a_dead_life_does_not_befall_the_next_one() {
    // The detector decided while the news of the next life was on its way to it.
    for late in [
        StorageInput::Retire(node("b"), Generation(1_000)),
        StorageInput::Forget(node("b"), Generation(1_000)),
    ] {
        let mut a = replica("a");
        told(&mut a, "b", NodeDelta { generation: Generation(1_001), ..news("b", 0, 1, 0) });
        handle(&mut a, at(1), late);
        assert!(a.lists(&node("b")));
    }
}

#[test]
fn whoever_refutes_its_death_is_told_of_again() {
    let mut a = replica("a");
    let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    told(&mut a, "b", NodeDelta { verdict: dead, ..news("b", 0, 1, 0) });
    handle(&mut a, at(1), StorageInput::Retire(node("b"), Generation(1_000)));
    assert!(a.digest().get(&node("b")).is_none());
    // Others have heard it.
    let mut refuting = record("b:1");
    refuting.incarnation = Incarnation(1);
    let back = NodeDelta { record: Some((Version(2), refuting)), ..news("b", 0, 2, 0) };
    push(&mut a, at(2), "c", back);
    assert!(a.digest().get(&node("b")).is_some());
    assert_eq!(a.copy(&node("b")).unwrap().verdict().level, Level::Alive);
}

#[test]
fn a_verdict_is_passed_on_by_who_lacks_the_keys() {
    let mut a = replica("a");
    told(&mut a, "b", news("b", 0, 1, 0));
    handle(&mut a, at(2), StorageInput::Linked(node("c"), true));
    handle(&mut a, at(2), StorageInput::Linked(node("d"), true));
    let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    let gap = NodeDelta { verdict: dead, record: None, ..news("b", 5, 6, 0) };
    let out = push(&mut a, at(3), "c", gap);
    let told = out.iter().any(|output| match output {
        Output::Transport(TransportInput::Gossip { to, gossip }) => {
            let about = |news: &NodeDelta| news.node == node("b") && news.verdict == dead;
            let news = matches!(&**gossip, Gossip::Push(news) if news.nodes.iter().any(about));
            news && to.contains(&node("d"))
        }
        _ => false,
    });
    assert!(told, "{out:?}");
}

#[test]
fn waves_without_answers_keep_nobody_busy() {
    let mut a = replica("a");
    for peer in ["m", "b", "c"] {
        handle(&mut a, at(1), StorageInput::Linked(node(peer), true));
    }
    for id in 0..200 {
        let (generation, version) = (Generation(1), Version(1));
        let wave = Wave { origin: node("o"), id, generation, version, patience_ms: u32::MAX };
        let from = ["m", "b", "c"][id as usize % 3];
        let gossip = Box::new(Gossip::Wave(wave));
        handle(&mut a, at(1), StorageInput::Gossip(node(from), gossip));
    }
    set(&mut a, "key", "value");
    delete(&mut a, at(1), "key");
    let wake = wait_in(&handle(&mut a, at(1), StorageInput::Tick)).or(Some(Duration::ZERO));
    let calls = run(&mut a, at(1), at(30), wake);
    assert!(calls < 500, "{calls}");
}

#[test]
fn a_copy_that_its_dead_owner_cannot_complete_takes_what_others_have() {
    let mut copy = replica("a");
    let mut part = news("b", 0, 3, 11);
    part.horizon = Version(13);
    part.entries = vec![value("k2", 2, "two"), value("k3", 3, "three")];
    // Half of what the owner had after it collected up to 11.
    told(&mut copy, "b", part);
    let mut whole = replica("c");
    let mut all = news("b", 0, 12, 8);
    all.entries = vec![value("k2", 2, "two"), value("k3", 3, "three"), value("k9", 9, "nine")];
    told(&mut whole, "b", all);
    let line = copy.copy(&node("b")).unwrap().digest_entry(node("b"));
    assert_eq!(whole.copy(&node("b")).unwrap().staleness(&line), None, "it may come back");
    for replica in [&mut copy, &mut whole] {
        let generation = Generation(1_000);
        let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
        handle(replica, at(2), StorageInput::Accuse(node("b"), generation, dead, [].into()));
    }
    exchange(&mut copy, &mut whole, at(3));
    let line = |replica: &Replica| replica.copy(&node("b")).unwrap().digest_entry(node("b"));
    assert_eq!(line(&copy), line(&whole));
    assert_eq!(seen(&copy, "b", "k9", at(3)).as_deref(), Some("nine"));
}

// --- questions

/// A node that knows these and is linked to them.
fn among(names: &[&str]) -> Replica {
    let mut a = replica("a");
    for name in names {
        told(&mut a, name, news(name, 0, 1, 0));
        handle(&mut a, at(1), StorageInput::Linked(node(name), true));
    }
    handle(&mut a, at(2), StorageInput::Tick);
    a
}

fn gossip(replica: &mut Replica, from: &str, gossip: Gossip) -> Vec<Output> {
    handle(replica, at(2), StorageInput::Gossip(node(from), Box::new(gossip)))
}

fn ask(replica: &Replica, subject: &str, asker: &str, round: u64) -> Ask {
    let generation = replica.copy(&node(subject)).map_or(Generation(1), |copy| copy.generation());
    Ask { subject: node(subject), generation, asker: node(asker), round }
}

fn is_to_the_detector(output: &Output) -> bool {
    use DetectorInput::{Answered, Asked};
    matches!(output, Output::Detector(Asked(..) | Answered(_)))
}

/// Nobody is told anything.
fn is_quiet(out: &[Output]) -> bool {
    out.iter().all(|output| matches!(output, Output::Wake(_)))
}

#[test]
fn questions_that_nobody_can_answer_take_no_room() {
    let mut a = among(&["b", "c", "d"]);
    for round in 0..2_000 {
        let unknown = ask(&a, &format!("x{round}"), "y", round);
        let out = gossip(&mut a, "b", Gossip::Ask(unknown.clone()));
        assert!(is_quiet(&out), "{out:?}");
        let answer = Answer { ask: unknown, observer: node("z"), hears: false };
        assert!(is_quiet(&gossip(&mut a, "b", Gossip::Answer(answer))));
    }
    let real = ask(&a, "d", "b", 1);
    let out = gossip(&mut a, "b", Gossip::Ask(real.clone()));
    assert!(out.iter().any(is_to_the_detector), "{out:?}");
    assert!(is_quiet(&gossip(&mut a, "c", Gossip::Ask(real))), "once");
}

#[test]
fn an_answer_to_an_earlier_question_says_nothing_to_a_later_one() {
    let mut a = among(&["b", "c", "d"]);
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let generation = a.copy(&node("b")).unwrap().generation();
        let out = handle(&mut a, at(2), StorageInput::Ask(node("b"), generation));
        rounds.extend(out.iter().find_map(|output| match output {
            Output::Transport(TransportInput::Gossip { gossip, .. }) => match &**gossip {
                Gossip::Ask(ask) => Some(ask.clone()),
                _ => None,
            },
            _ => None,
        }));
    }
    let counts = [0, 1].map(|n: usize| {
        let answer = Answer { ask: rounds[n].clone(), observer: node("c"), hears: false };
        gossip(&mut a, "c", Gossip::Answer(answer)).iter().filter(|o| is_to_the_detector(o)).count()
    });
    assert_eq!(counts, [0, 1]);
}

#[test]
fn of_two_that_are_left_nobody_is_to_be_asked() {
    let mut a = among(&["b", "c"]);
    let dead = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    push(&mut a, at(2), "b", NodeDelta { verdict: dead, ..news("c", 0, 1, 0) });
    let generation = a.copy(&node("b")).unwrap().generation();
    let out = handle(&mut a, at(2), StorageInput::Ask(node("b"), generation));
    let asking = out.iter().find_map(|output| match output {
        Output::Detector(DetectorInput::Asking(_, observers)) => Some(observers.clone()),
        _ => None,
    });
    assert_eq!(asking, Some(Some([node("a")].into())));
}
