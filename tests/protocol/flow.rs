//! Own writes are pushed at once, and more slowly while the links have had no room for a while.

use std::time::Duration;

use gossipmonger::protocol::{
    delta::Delta,
    push::CROWDED_AFTER,
    record::Status,
    replica::{CADENCE_BUSY, Replica},
    route::{Output, StorageInput, TransportInput},
    time::Time,
    write::Write,
};

use crate::support::{at, node, replica};

/// How long own writes may wait at most.
const HOLD_MAX: Duration = Duration::from_secs(2);

fn linked(peers: &[&str]) -> Replica {
    let mut owner = replica("owner");
    for peer in peers {
        tell(&mut owner, at(1), StorageInput::Linked(node(peer), true));
    }
    tell(&mut owner, at(1), StorageInput::Tick);
    owner
}

/// Returns what was pushed.
fn tell(owner: &mut Replica, now: Time, input: StorageInput) -> Vec<Delta> {
    let mut out = Vec::new();
    owner.handle(now, input, &mut out);
    pushes(out)
}

fn write(owner: &mut Replica, now: Time, key: &str, value: u32) -> Vec<Delta> {
    let mut out = Vec::new();
    owner.write(now, vec![Write::set(key, value.to_string())], &mut out).unwrap();
    pushes(out)
}

fn pushes(out: Vec<Output>) -> Vec<Delta> {
    let push = |output| match output {
        Output::Transport(TransportInput::Gossip { gossip, .. }) => {
            gossip.news().map(|(_, delta)| delta.clone())
        }
        _ => None,
    };
    out.into_iter().filter_map(push).collect()
}

/// Writes a hundred times a second while the links are full or not. Returns when it ended.
fn load(owner: &mut Replica, from: Time, time: Duration) -> Time {
    let steps = u32::try_from(time.as_millis() / 10).unwrap();
    for step in 0..steps {
        write(owner, from + Duration::from_millis(10) * step, "busy", step);
    }
    from + time
}

fn congest(owner: &mut Replica, now: Time, peers: &[&str], congested: bool) {
    for peer in peers {
        tell(owner, now, StorageInput::Congested(node(peer), congested));
    }
}

#[test]
fn one_full_link_of_three_slows_nobody_down() {
    let mut owner = linked(&["a", "b", "c"]);
    congest(&mut owner, at(2), &["a"], true);
    let now = load(&mut owner, at(2), CROWDED_AFTER * 3);
    assert_eq!(write(&mut owner, now + CADENCE_BUSY, "k", 1).len(), 1);
}

#[test]
fn links_that_are_full_for_a_moment_slow_nobody_down() {
    let mut owner = linked(&["a", "b", "c"]);
    congest(&mut owner, at(2), &["a", "b", "c"], true);
    let now = load(&mut owner, at(2), CROWDED_AFTER - Duration::from_millis(100));
    congest(&mut owner, now, &["a", "b", "c"], false);
    assert_eq!(write(&mut owner, now + CADENCE_BUSY, "k", 1).len(), 1);
}

#[test]
fn after_an_overload_own_writes_are_joined_until_they_may_go() {
    let mut owner = linked(&["a", "b", "c"]);
    congest(&mut owner, at(2), &["a", "b", "c"], true);
    let now = load(&mut owner, at(2), CROWDED_AFTER * 2);
    congest(&mut owner, now, &["a", "b", "c"], false);
    let begin = now + Duration::from_millis(10);
    let mut told = Vec::new();
    for step in 0..200 {
        let now = begin + Duration::from_millis(10) * step;
        told.extend(write(&mut owner, now, "busy", 1_000 + step));
    }
    // At most as many as it was limited to, for two seconds; each has the latest value alone.
    assert!((1..150).contains(&told.len()), "{}", told.len());
    let mut reach = None;
    for delta in &told {
        let [news] = &delta.nodes[..] else { panic!("{delta:?}") };
        assert_eq!(news.entries.len(), 1, "{news:?}");
        assert!(reach.is_none_or(|reach| news.from == reach), "a gap, or twice: {news:?}");
        reach = Some(news.to);
    }
    assert!(
        tell(&mut owner, begin + Duration::from_secs(2) + HOLD_MAX, StorageInput::Tick)
            .iter()
            .all(|delta| delta.nodes[0].from == reach.unwrap())
    );
}

#[test]
fn that_a_node_leaves_is_told_at_once_with_what_waits() {
    let mut owner = linked(&["a", "b", "c"]);
    congest(&mut owner, at(2), &["a", "b", "c"], true);
    let now = load(&mut owner, at(2), CROWDED_AFTER * 2);
    congest(&mut owner, now, &["a", "b", "c"], false);
    let mut now = now + Duration::from_millis(10);
    while !write(&mut owner, now, "busy", 7).is_empty() {
        write(&mut owner, now, "busy", 8);
        now = now + Duration::from_millis(2);
    }
    write(&mut owner, now, "waits", 1);
    let mut out = Vec::new();
    let later = now + Duration::from_millis(3);
    owner.set_status(later, Status::Leaving, &mut out);
    let told = pushes(out);
    let keys: Vec<_> = told[0].nodes[0].entries.iter().map(|entry| entry.key.as_str()).collect();
    assert!(keys.contains(&"waits"), "{told:?}");
}

/// How many writes are pushed in two seconds after a node was this late for so long.
fn told_after_lag(lag: Duration, lasted: Duration) -> usize {
    let mut owner = linked(&["a", "b", "c"]);
    let late = |owner: &mut Replica, now, lag| drop(tell(owner, now, StorageInput::Lag(lag)));
    late(&mut owner, at(2), lag);
    let now = load(&mut owner, at(2), lasted);
    late(&mut owner, now, Duration::ZERO);
    let begin = now + Duration::from_millis(10);
    let told = (0..200).map(|step| {
        let now = begin + Duration::from_millis(10) * step;
        write(&mut owner, now, "busy", 1_000 + step).len()
    });
    told.sum()
}

#[test]
fn a_node_that_is_late_for_long_sends_its_own_writes_less_often() {
    let (late, long) = (Duration::from_millis(300), Duration::from_secs(3));
    let usual = told_after_lag(Duration::ZERO, long) * 9 / 10;
    let told = told_after_lag(late, long);
    assert!(told < usual, "{told} of {usual}");
    assert!(told_after_lag(late, Duration::from_millis(900)) >= usual, "not for long");
    assert!(told_after_lag(Duration::from_millis(150), long) >= usual, "not very late");
}
