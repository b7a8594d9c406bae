//! When updates are sent: once for everything that waits for storage, and own ones not more often than all
//! others can verify.

use std::time::Duration;

use gossipmonger::protocol::{
    gossip::Gossip,
    id::Version,
    replica::{
        CADENCE_BUSY, CADENCE_MAX, CADENCE_OF_LAG, CADENCE_OF_ONE, Replica, ReplicaConfig, TURN_MAX,
    },
    route::{Output, StorageInput, TransportInput},
    rules::Rules,
    time::Time,
    write::Write,
};

use crate::support::{at, config, news, node, start, told_at, value};

/// A node with two links.
fn linked(rules: Rules) -> Replica {
    let config = ReplicaConfig { rules, peers_max: 5_000, ..config("a") };
    let mut replica = start(config, Default::default());
    for peer in ["x", "y"] {
        replica.handle(at(1), StorageInput::Linked(node(peer), true), &mut Vec::new());
    }
    replica.handle(at(2), StorageInput::Tell, &mut Vec::new());
    replica
}

fn handle(replica: &mut Replica, now: Time, input: StorageInput) -> Vec<Output> {
    let mut out = Vec::new();
    replica.handle(now, input, &mut out);
    out
}

/// An update of an owner arrives from `x`.
fn arrives(replica: &mut Replica, now: Time, owner: &str, version: u64) -> Vec<Output> {
    let mut delta = news(owner, version - 1, version, 0);
    delta.record = delta.record.filter(|_| version == 1);
    delta.entries = vec![value("k", version, &format!("v{version}"))];
    let delta = gossipmonger::protocol::delta::Delta { nodes: vec![delta], more: false };
    handle(replica, now, StorageInput::Gossip(node("x"), Box::new(Gossip::Push(delta))))
}

/// How many updates were sent in how many frames.
fn sent(out: &[Output]) -> (usize, usize) {
    let updates = |output: &Output| match output {
        Output::Transport(TransportInput::Gossip { gossip, .. }) => {
            gossip.news().map(|(_, delta)| delta.nodes.len())
        }
        _ => None,
    };
    let frames: Vec<_> = out.iter().filter_map(updates).collect();
    (frames.iter().sum(), frames.len())
}

fn turns(out: &[Output]) -> usize {
    out.iter().filter(|output| matches!(output, Output::Storage(StorageInput::Tell))).count()
}

fn millis(millis: u64) -> Time {
    at(10) + Duration::from_millis(millis)
}

#[test]
fn updates_are_sent_once_for_all_that_waits() {
    let mut replica = linked(Rules::default());
    let mut out = Vec::new();
    for owner in ["b", "c", "d", "e", "f"] {
        out.extend(arrives(&mut replica, millis(0), owner, 1));
    }
    assert_eq!((turns(&out), sent(&out)), (1, (0, 0)), "one turn is asked for");
    let out = handle(&mut replica, millis(1), StorageInput::Tell);
    assert_eq!(sent(&out), (5, 1));
    let mut replica = linked(Rules { batches: false, ..Rules::default() });
    assert_eq!(sent(&arrives(&mut replica, millis(0), "b", 1)), (1, 1), "without the rule");
}

#[test]
fn each_turn_that_was_asked_for_is_followed_by_the_next() {
    let mut replica = linked(Rules::default());
    for version in 1..20 {
        let out = arrives(&mut replica, millis(version * 10), "b", version);
        assert_eq!((turns(&out), sent(&out)), (1, (0, 0)), "{version}");
        let out = handle(&mut replica, millis(version * 10), StorageInput::Tell);
        assert_eq!(sent(&out), (1, 1), "{version}");
    }
}

#[test]
fn updates_do_not_wait_long_for_a_turn_that_does_not_come() {
    let mut replica = linked(Rules::default());
    arrives(&mut replica, millis(0), "b", 1);
    let most = TURN_MAX.as_millis() as u64;
    assert_eq!(sent(&arrives(&mut replica, millis(most - 1), "b", 2)), (0, 0));
    assert_eq!(sent(&arrives(&mut replica, millis(most), "c", 1)), (2, 1));
}

#[test]
fn updates_that_come_too_soon_after_others_are_sent_when_the_clock_says_so() {
    let mut replica = linked(Rules::default());
    arrives(&mut replica, millis(0), "b", 1);
    assert_eq!(sent(&handle(&mut replica, millis(0), StorageInput::Tell)), (1, 1));
    arrives(&mut replica, millis(0), "b", 2);
    let out = handle(&mut replica, millis(0), StorageInput::Tell);
    assert_eq!(sent(&out), (0, 0));
    assert!(out.iter().any(|output| matches!(output, Output::Wake(_))), "{out:?}");
    assert_eq!(sent(&handle(&mut replica, millis(1), StorageInput::Tick)), (1, 1));
}

// --- cadence

/// So many others write, and then this node does for a second, every few milliseconds. Returns how often it
/// sends its updates.
fn sends(rules: Rules, others: usize, every: u64) -> usize {
    sends_of_a_late_one(rules, others, every, Duration::ZERO)
}

/// The same for a node that is so late.
fn sends_of_a_late_one(rules: Rules, others: usize, every: u64, lag: Duration) -> usize {
    let mut replica = linked(rules);
    handle(&mut replica, at(3), StorageInput::Lag(lag));
    for n in 0..others {
        let mut delta = news(&format!("n{n}"), 0, 1, 0);
        delta.entries = vec![value("k", 1, "v")];
        told_at(&mut replica, at(3), "x", delta);
    }
    handle(&mut replica, at(4), StorageInput::Tell);
    let mut sends = 0;
    // In the first second it finds out how much there is to do.
    for n in 0..2_000_u64 {
        let now = millis(n);
        let mut out = Vec::new();
        if n < 200 {
            for owner in (0..others).filter(|owner| *owner as u64 % 200 == n) {
                out.extend(arrives(&mut replica, now, &format!("n{owner}"), 2));
            }
        } else if (1_000..1_200).contains(&n) {
            for owner in (0..others).filter(|owner| *owner as u64 % 200 == n - 1_000) {
                out.extend(arrives(&mut replica, now, &format!("n{owner}"), 3));
            }
        }
        if n % every == 0 {
            replica.write(now, vec![Write::set("own", format!("{n}"))], &mut out).unwrap();
        }
        out.extend(handle(&mut replica, now, StorageInput::Tick));
        let own = |output: &Output| match output {
            Output::Transport(TransportInput::Gossip { gossip, .. }) => gossip
                .news()
                .is_some_and(|(_, delta)| delta.nodes.iter().any(|news| news.node == node("a"))),
            _ => false,
        };
        sends += usize::from(n >= 1_000 && out.iter().any(own));
    }
    sends
}

#[test]
fn an_owner_among_many_signs_seldom_and_one_among_few_at_once() {
    let seldom = CADENCE_OF_ONE * 1_001;
    let most = (Duration::from_secs(1).as_micros() / seldom.as_micros()) as usize + 1;
    let among_many = sends(Rules::default(), 1_000, 10);
    assert!((most / 2..=most).contains(&among_many), "{among_many}, not {most}");
    let off = Rules { cadence: false, ..Rules::default() };
    assert!(sends(off, 1_000, 10) > 5 * most, "without the rule");
    // There is little to verify.
    assert_eq!(sends(Rules::default(), 10, 40), sends(off, 10, 40));
    assert!(CADENCE_OF_ONE * 5_000 > CADENCE_MAX);
}

#[test]
fn an_owner_that_writes_often_signs_several_updates_at_once() {
    let off = Rules { cadence: false, ..Rules::default() };
    assert_eq!(sends(off, 10, 10), 100);
    let most = 1_000 / CADENCE_BUSY.as_millis() as usize + 1;
    let sends = sends(Rules::default(), 10, 10);
    assert!((most - 2..=most).contains(&sends), "{sends}, not {most}");
}

#[test]
fn the_later_an_owner_is_the_fewer_signatures_it_makes() {
    let sends = |millis| {
        let lag = Duration::from_millis(millis);
        sends_of_a_late_one(Rules::default(), 10, 40, lag)
    };
    assert_eq!(sends(19), sends(0));
    let most = 1_000 / (CADENCE_OF_LAG as usize * 25) + 1;
    assert!((1..=most).contains(&sends(25)), "{}, not {most}", sends(25));
    // Three updates in a second are not held.
    let off = Rules { cadence: false, ..Rules::default() };
    let lag = Duration::from_millis(190);
    let seldom = |rules| sends_of_a_late_one(rules, 10, 350, lag);
    assert_eq!(seldom(Rules::default()), seldom(off));
    // Below the lag that counts as an overload it makes some whatever the lag.
    let least = (1_000 / CADENCE_MAX.as_millis()) as usize;
    assert!((least..=least + 1).contains(&sends(190)), "{}", sends(190));
}

#[test]
fn a_caller_that_waits_for_an_update_is_not_made_to_wait_for_the_cadence() {
    let mut replica = linked(Rules::default());
    for n in 0..1_000 {
        let owner = format!("n{n}");
        arrives(&mut replica, millis(n / 10), &owner, 1);
    }
    handle(&mut replica, millis(101), StorageInput::Tell);
    for n in 0..20 {
        let (now, mut out) = (millis(200 + n), Vec::new());
        replica.write(now, vec![Write::set("own", format!("{n}"))], &mut out).unwrap();
        handle(&mut replica, now, StorageInput::Tell);
    }
    let mut out = Vec::new();
    let version = replica.own().max_version();
    replica.count(millis(222), version, Duration::from_secs(1), &mut out);
    assert_eq!(sent(&out), (1, 1), "{out:?}");
    assert!(version > Version::ZERO);
}
