//! Whom a node gossips with, and how it says that it leaves.

use std::time::Duration;

use gossipmonger::protocol::{
    gossip::Gossip,
    id::{Datacenter, NodeId},
    overlay::NEIGHBOURS,
    route::{DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target, TransportInput},
    scheduler::{IN_FLIGHT_MAX, Scheduler, SchedulerConfig},
    time::Time,
};

use crate::support::{at, node};

fn scheduler(seeds: &[&str]) -> Scheduler {
    let config = SchedulerConfig {
        node: node("self"),
        datacenter: Datacenter::new("dc1").unwrap(),
        gossip_interval: Duration::from_secs(1),
        gossip_fanout: 3,
        minimum_live_peers: 1,
        seeds: seeds.iter().map(ToString::to_string).collect(),
        candidates: Vec::new(),
        seed_interval: Duration::from_secs(30),
        exchange_timeout: Duration::from_secs(10),
        rules: Default::default(),
    };
    Scheduler::new(config, Time::ZERO, 1)
}

fn tell(scheduler: &mut Scheduler, now: Time, input: SchedulerInput) -> Vec<Output> {
    let mut out = Vec::new();
    scheduler.handle(now, input, &mut out);
    out
}

fn peer(scheduler: &mut Scheduler, name: &str, reach: Reach) {
    tell(scheduler, at(0), SchedulerInput::Peer(node(name), reach));
}

fn ended(scheduler: &mut Scheduler, now: Time, target: &Target, ok: bool) -> Vec<Output> {
    tell(scheduler, now, SchedulerInput::Ended { target: target.clone(), node: None, ok })
}

fn rounds(out: &[Output]) -> Vec<Target> {
    let begun = out.iter().filter_map(|output| match output {
        Output::Storage(StorageInput::BeginRound(targets)) => Some(targets.clone()),
        _ => None,
    });
    begun.flatten().collect()
}

fn farewell(out: &[Output]) -> Option<usize> {
    out.iter().find_map(|output| match output {
        Output::Farewell(told) => Some(*told),
        _ => None,
    })
}

fn link(scheduler: &mut Scheduler, now: Time, name: &str, up: bool) -> Vec<Output> {
    tell(scheduler, now, SchedulerInput::Linked { peer: node(name), up, dialed: true })
}

/// What the transport is told.
fn transport(out: &[Output]) -> Vec<&TransportInput> {
    let told = out.iter().filter_map(|output| match output {
        Output::Transport(input) => Some(input),
        _ => None,
    });
    told.collect()
}

fn dialed(out: &[Output]) -> Vec<NodeId> {
    let dialed = transport(out).into_iter().filter_map(|input| match input {
        TransportInput::Dial(peers) => Some(peers.clone()),
        _ => None,
    });
    dialed.flatten().collect()
}

fn observed(out: &[Output]) -> Option<Vec<NodeId>> {
    out.iter().rev().find_map(|output| match output {
        Output::Detector(DetectorInput::Observe { judged, .. }) => Some(judged.to_vec()),
        _ => None,
    })
}

/// Ticks every tenth of a second, with this root, for so many seconds; all that was said.
fn run(scheduler: &mut Scheduler, seconds: std::ops::Range<u64>, root: u64) -> Vec<Output> {
    let mut said = Vec::new();
    for tenth in seconds.start * 10..seconds.end * 10 {
        let now = Time::from_origin(Duration::from_millis(tenth * 100));
        let mut out = tell(scheduler, now, SchedulerInput::Tick);
        if out.iter().any(|o| matches!(o, Output::Storage(StorageInput::TellRoot))) {
            out.extend(tell(scheduler, now, SchedulerInput::OwnRoot(root)));
        }
        said.extend(out);
    }
    said
}

#[test]
fn never_has_more_under_way_than_allowed() {
    let seeds: Vec<_> = (0..500).map(|n| format!("seed-{n}:1")).collect();
    let mut scheduler = scheduler(&seeds.iter().map(String::as_str).collect::<Vec<_>>());
    (0..500).for_each(|n| peer(&mut scheduler, &format!("dead-{n}"), Reach::Dead));
    (0..500).for_each(|n| peer(&mut scheduler, &format!("p{n}"), Reach::Live));
    let begun: usize = (0..100)
        .map(|tenth| Time::from_origin(Duration::from_millis(tenth * 100)))
        .map(|now| {
            link(&mut scheduler, now, "p0", true);
            link(&mut scheduler, now, "p0", false);
            rounds(&tell(&mut scheduler, now, SchedulerInput::Tick)).len()
        })
        .sum();
    assert_eq!(begun, IN_FLIGHT_MAX, "none of them ends");
}

#[test]
fn where_nothing_happens_the_scheduler_sends_nothing() {
    let mut scheduler = scheduler(&[]);
    for name in ["p", "q", "r"] {
        peer(&mut scheduler, name, Reach::Live);
        link(&mut scheduler, at(0), name, true);
        tell(&mut scheduler, at(0), SchedulerInput::Root(node(name), 7));
    }
    run(&mut scheduler, 0..5, 7);
    let said = run(&mut scheduler, 5..25, 7);
    assert_eq!(rounds(&said), []);
    let told = transport(&said);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn the_root_is_told_when_it_changes_and_to_who_is_new() {
    let mut scheduler = scheduler(&[]);
    let roots = |out: &[Output]| -> Vec<(Vec<NodeId>, u64)> {
        let told = transport(out).into_iter().filter_map(|told| match told {
            TransportInput::Gossip { to, gossip } => match **gossip {
                Gossip::Root(root) => Some((to.clone(), root)),
                _ => None,
            },
            _ => None,
        });
        told.collect()
    };
    ["p", "q"].iter().for_each(|name| peer(&mut scheduler, name, Reach::Live));
    let asked = link(&mut scheduler, at(0), "p", true);
    assert!(asked.iter().any(|o| matches!(o, Output::Storage(StorageInput::TellRoot))));
    let told = tell(&mut scheduler, at(0), SchedulerInput::OwnRoot(1));
    assert_eq!(roots(&told), [(vec![node("p")], 1)], "at once");
    assert_eq!(roots(&run(&mut scheduler, 0..10, 1)), []);
    assert_eq!(roots(&run(&mut scheduler, 10..20, 2)), [(vec![node("p")], 2)]);
    link(&mut scheduler, at(20), "q", true);
    let told = tell(&mut scheduler, at(20), SchedulerInput::OwnRoot(2));
    assert_eq!(roots(&told), [(vec![node("q")], 2)]);
}

#[test]
fn who_knows_something_else_for_two_rounds_gets_an_exchange() {
    let mut scheduler = scheduler(&[]);
    for name in ["t", "u"] {
        peer(&mut scheduler, name, Reach::Live);
        link(&mut scheduler, at(0), name, true);
    }
    tell(&mut scheduler, at(0), SchedulerInput::Root(node("t"), 7));
    tell(&mut scheduler, at(0), SchedulerInput::Root(node("u"), 8));
    let begun = rounds(&run(&mut scheduler, 0..4, 7));
    assert_eq!(begun, [Target::Peer(node("u"))], "and while it is under way no other");
}

#[test]
fn while_one_exchange_may_bring_all_no_other_begins() {
    let mut scheduler = scheduler(&["seed:1"]);
    let seed = Target::Address("seed:1".into());
    assert_eq!(rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick)), [seed]);
    for name in ["t", "u"] {
        peer(&mut scheduler, name, Reach::Live);
        link(&mut scheduler, at(0), name, true);
    }
    for second in 1..9 {
        let root = |n| SchedulerInput::Root(node("t"), second * 10 + n);
        assert_eq!(rounds(&tell(&mut scheduler, at(second), root(1))), []);
        tell(&mut scheduler, at(second), SchedulerInput::Tick);
        let own = SchedulerInput::OwnRoot(second);
        assert_eq!(rounds(&tell(&mut scheduler, at(second), own)), []);
    }
}

/// A node with one neighbour whose root differs.
fn differing() -> Scheduler {
    let mut scheduler = scheduler(&[]);
    peer(&mut scheduler, "t", Reach::Live);
    link(&mut scheduler, at(0), "t", true);
    tell(&mut scheduler, at(0), SchedulerInput::Root(node("t"), 7));
    run(&mut scheduler, 0..1, 7);
    scheduler
}

/// The exchanges that begin in these seconds, of which each ends at once and does not help.
fn repairs(scheduler: &mut Scheduler, seconds: std::ops::Range<u64>) -> usize {
    let mut begun = 0;
    for second in seconds {
        tell(scheduler, at(second), SchedulerInput::Root(node("t"), 100 + second));
        for target in rounds(&run(scheduler, second..second + 1, 8)) {
            begun += 1;
            ended(scheduler, at(second), &target, true);
        }
    }
    begun
}

#[test]
fn a_late_node_repairs_no_more_than_the_trickle() {
    let mut scheduler = differing();
    assert!(repairs(&mut scheduler, 1..4) > 0);
    let begun = repairs(&mut scheduler, 4..60);
    let mut scheduler = differing();
    tell(&mut scheduler, at(1), SchedulerInput::Lag(Duration::from_secs(3)));
    let late = repairs(&mut scheduler, 1..60);
    assert!((1..=2).contains(&late), "{late} in a minute");
    assert!(begun > late, "{begun}: it is the gate that holds them");
}

#[test]
fn who_has_repaired_for_too_long_waits() {
    let mut scheduler = differing();
    tell(&mut scheduler, at(1), SchedulerInput::Repaired(Duration::from_millis(2_000)));
    assert_eq!(repairs(&mut scheduler, 1..10), 0);
    assert!(repairs(&mut scheduler, 10..20) > 0, "a tenth of the time that has passed");
}

#[test]
fn while_its_own_list_moves_a_node_repairs_nothing() {
    let mut scheduler = differing();
    for second in 1..9 {
        for n in 0..4 {
            let name = format!("x{second}-{n}");
            tell(&mut scheduler, at(second), SchedulerInput::Peer(node(&name), Reach::Live));
        }
        assert_eq!(repairs(&mut scheduler, second..second + 1), 0);
    }
    assert!(repairs(&mut scheduler, 10..14) > 0);
}

#[test]
fn a_node_that_joins_has_one_seed_under_way_at_a_time() {
    let seeds: Vec<_> = (0..9).map(|n| format!("seed-{n}:1")).collect();
    let mut scheduler = scheduler(&seeds.iter().map(String::as_str).collect::<Vec<_>>());
    let first = rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick));
    assert_eq!(first.len(), 1);
    let next = rounds(&ended(&mut scheduler, at(0), &first[0], false));
    assert_eq!(next.len(), 1, "the next one at once");
    assert_ne!(first, next);
    let busy = SchedulerInput::Deferred(next[0].clone());
    let third = rounds(&tell(&mut scheduler, at(0), busy));
    assert_eq!(third.len(), 1);
    assert!(third != first && third != next);
    assert_eq!(rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick)), []);
}

#[test]
fn a_large_cluster_is_observed_and_dialed_by_neighbours_only() {
    let mut scheduler = scheduler(&[]);
    link(&mut scheduler, at(0), "x0", true);
    let mut said = Vec::new();
    for n in 0..200 {
        let known = SchedulerInput::Peer(node(&format!("x{n}")), Reach::Unheard);
        said.extend(tell(&mut scheduler, at(0), known));
        said.extend(tell(&mut scheduler, at(0), SchedulerInput::Tick));
    }
    assert_eq!(dialed(&said), [], "the list still grows");
    assert_eq!(observed(&said), Some(vec![]));
    let said = run(&mut scheduler, 0..6, 1);
    let (dialed, observed) = (dialed(&said), observed(&said).unwrap());
    assert!(observed.len() <= NEIGHBOURS, "{observed:?}");
    assert!(dialed.iter().all(|peer| observed.contains(peer)), "{dialed:?} {observed:?}");
    assert_eq!(scheduler.neighbours(), observed);
}

#[test]
fn a_suspect_stays_a_neighbour_and_a_dead_one_does_not() {
    let mut scheduler = scheduler(&[]);
    ["p", "q"].iter().for_each(|name| peer(&mut scheduler, name, Reach::Live));
    run(&mut scheduler, 0..3, 1);
    tell(&mut scheduler, at(3), SchedulerInput::Suspected(node("p"), true));
    run(&mut scheduler, 3..6, 1);
    assert_eq!(scheduler.neighbours(), [node("p"), node("q")]);
    tell(&mut scheduler, at(6), SchedulerInput::Peer(node("p"), Reach::Dead));
    run(&mut scheduler, 6..9, 1);
    assert_eq!(scheduler.neighbours(), [node("q")]);
}

#[test]
fn somebody_far_is_asked_once_a_minute_over_a_connection_of_its_own() {
    let mut scheduler = scheduler(&[]);
    (0..100).for_each(|n| peer(&mut scheduler, &format!("x{n}"), Reach::Live));
    run(&mut scheduler, 0..4, 1);
    for name in scheduler.neighbours().to_vec() {
        link(&mut scheduler, at(4), name.as_str(), true);
    }
    let mut asked = 0;
    for minute in 0..20 {
        for second in 0..60 {
            let now = at(4 + minute * 60 + second);
            for target in rounds(&tell(&mut scheduler, now, SchedulerInput::Tick)) {
                let Target::Peer(far) = &target else { panic!("{target:?}") };
                assert!(!scheduler.neighbours().contains(far));
                asked += 1;
                link(&mut scheduler, now, far.as_str(), true);
                let out = ended(&mut scheduler, now, &target, true);
                let closed = transport(&out).into_iter().any(
                    |told| matches!(told, TransportInput::Close(peers) if *peers == [far.clone()]),
                );
                assert!(closed, "{out:?}");
                link(&mut scheduler, now, far.as_str(), false);
            }
        }
    }
    assert!((16..=27).contains(&asked), "{asked} in 20 minutes");
}

#[test]
fn who_loses_its_last_connection_asks_around_at_once() {
    let mut scheduler = scheduler(&["seed:1"]);
    ["p", "q"].iter().for_each(|name| peer(&mut scheduler, name, Reach::Live));
    link(&mut scheduler, at(0), "p", true);
    for target in rounds(&run(&mut scheduler, 0..20, 1)) {
        let Target::Address(_) = target else { panic!("{target:?}") };
        let node = Some(node("p"));
        tell(&mut scheduler, at(20), SchedulerInput::Ended { target, node, ok: true });
    }
    link(&mut scheduler, at(20), "p", false);
    let asked = rounds(&tell(&mut scheduler, at(21), SchedulerInput::Tick));
    assert_eq!(asked.len(), 3, "both peers, and the seed: {asked:?}");
}

#[test]
fn after_an_interruption_all_is_told_again() {
    let mut scheduler = scheduler(&[]);
    peer(&mut scheduler, "p", Reach::Live);
    link(&mut scheduler, at(0), "p", true);
    run(&mut scheduler, 0..3, 1);
    let out = tell(&mut scheduler, at(3), SchedulerInput::Interrupted);
    assert_eq!(observed(&out), Some(vec![node("p")]));
    assert!(scheduler.links().is_empty());
    let out = link(&mut scheduler, at(3), "p", true);
    assert!(out.iter().any(|o| matches!(o, Output::Storage(StorageInput::TellRoot))));
    assert_eq!(dialed(&run(&mut scheduler, 3..9, 1)), []);
}

#[test]
fn a_peer_that_fails_is_left_alone_for_a_while() {
    let mut scheduler = scheduler(&[]);
    peer(&mut scheduler, "p", Reach::Live);
    let target = Target::Peer(node("p"));
    let mut tries = 0;
    for second in 0..120 {
        for target in rounds(&tell(&mut scheduler, at(second), SchedulerInput::Tick)) {
            tries += 1;
            ended(&mut scheduler, at(second), &target, false);
        }
    }
    assert!((30..60).contains(&tries), "{tries}");
    tell(&mut scheduler, at(120), SchedulerInput::Peer(node("p"), Reach::Live));
    let again = rounds(&tell(&mut scheduler, at(122), SchedulerInput::Tick));
    assert_eq!(again, [target], "it was heard again");
}

#[test]
fn the_dead_and_the_seeds_are_tried_when_nobody_is_live() {
    let mut scheduler = scheduler(&["seed:1"]);
    peer(&mut scheduler, "dead", Reach::Dead);
    let tried = rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick));
    assert_eq!(tried, [Target::Peer(node("dead")), Target::Address("seed:1".into())]);
}

// C39
#[test]
fn a_seed_that_is_this_node_itself_is_not_tried_again() {
    let mut scheduler = scheduler(&["self:1"]);
    let target = Target::Address("self:1".into());
    assert_eq!(rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick)), vec![target.clone()]);
    let myself = Some(node("self"));
    tell(&mut scheduler, at(0), SchedulerInput::Ended { target, node: myself, ok: false });
    for second in 1..100 {
        assert_eq!(rounds(&tell(&mut scheduler, at(second), SchedulerInput::Tick)), []);
    }
}

// C42
#[test]
fn a_farewell_counts_only_exchanges_that_began_after_it() {
    let mut scheduler = scheduler(&[]);
    peer(&mut scheduler, "p", Reach::Live);
    let target = Target::Peer(node("p"));
    assert_eq!(rounds(&tell(&mut scheduler, at(0), SchedulerInput::Tick)), vec![target.clone()]);
    let out = tell(&mut scheduler, at(0), SchedulerInput::Leave);
    assert_eq!(rounds(&out), vec![target.clone()]);
    let early = ended(&mut scheduler, at(1), &target, true);
    assert_eq!(farewell(&early), None, "that one began before");
    assert_eq!(farewell(&ended(&mut scheduler, at(1), &target, true)), Some(1));
}

// C42
#[test]
fn a_farewell_ends_although_nobody_is_there_or_answers() {
    let mut lone = scheduler(&[]);
    assert_eq!(farewell(&tell(&mut lone, at(0), SchedulerInput::Leave)), Some(0));

    let mut refused = scheduler(&[]);
    peer(&mut refused, "p", Reach::Live);
    tell(&mut refused, at(0), SchedulerInput::Leave);
    assert_eq!(farewell(&ended(&mut refused, at(1), &Target::Peer(node("p")), false)), Some(0));

    let mut interrupted = scheduler(&[]);
    peer(&mut interrupted, "p", Reach::Live);
    tell(&mut interrupted, at(0), SchedulerInput::Leave);
    assert_eq!(farewell(&tell(&mut interrupted, at(1), SchedulerInput::Interrupted)), Some(0));
}
