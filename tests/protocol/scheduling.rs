//! Whom a node gossips with, and how it says that it leaves.

use std::time::Duration;

use gossipmonger::protocol::{
    route::{Output, Reach, SchedulerInput, StorageInput, Target},
    scheduler::{IN_FLIGHT_MAX, Scheduler, SchedulerConfig},
    time::Time,
};

use crate::support::{at, node};

fn scheduler(seeds: &[&str]) -> Scheduler {
    let config = SchedulerConfig {
        node: node("self"),
        gossip_interval: Duration::from_secs(1),
        gossip_fanout: 3,
        minimum_live_peers: 1,
        seeds: seeds.iter().map(ToString::to_string).collect(),
        candidates: Vec::new(),
        news_delay: Duration::from_millis(50),
        seed_interval: Duration::from_secs(30),
        exchange_timeout: Duration::from_secs(10),
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

#[test]
fn never_has_more_under_way_than_allowed() {
    let mut scheduler = scheduler(&[]);
    (0..500).for_each(|n| peer(&mut scheduler, &format!("p{n}"), Reach::Live));
    let mut begun = 0;
    for tenth in 0..50 {
        let now = Time::from_origin(Duration::from_millis(tenth * 100));
        tell(&mut scheduler, now, SchedulerInput::News);
        begun += rounds(&tell(&mut scheduler, now, SchedulerInput::Tick)).len();
    }
    assert_eq!(begun, IN_FLIGHT_MAX, "none of them ends");
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
    assert!((8..30).contains(&tries), "{tries}");
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
