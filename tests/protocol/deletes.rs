//! Deletions, keys that expire, and tombstones that are collected: nothing comes back.

use std::time::Duration;

use gossipmonger::protocol::{
    entry::Key,
    event::Event,
    id::Version,
    replica::{Replica, ReplicaConfig},
    route::StorageInput,
    time::Time,
    write::Write,
};

use crate::support::{
    Outcome, at, config, delete, exchange, node, replica, seen, set, start, write,
};

fn tick(replica: &mut Replica, now: Time) {
    replica.handle(now, StorageInput::Tick, &mut Vec::new());
}

fn deletions(outcome: &Outcome, side: usize) -> usize {
    let deleted = |event: &&&Event| matches!(event, Event::Deleted { .. });
    outcome.events(side).iter().filter(deleted).count()
}

// C23
#[test]
fn a_deletion_hides_at_once_and_replicates() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "key", "1");
    exchange(&mut owner, &mut reader, at(1));
    delete(&mut owner, at(1), "key");
    assert_eq!(seen(&owner, "owner", "key", at(1)), None);
    assert_eq!(seen(&reader, "owner", "key", at(1)).unwrap(), "1");
    exchange(&mut owner, &mut reader, at(1));
    assert_eq!(seen(&reader, "owner", "key", at(1)), None);
    assert_eq!(reader.copy(&node("owner")).unwrap().tombstones(), 1);
}

// C28
#[test]
fn a_deletion_is_told_once() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "key", "1");
    exchange(&mut owner, &mut reader, at(1));
    delete(&mut owner, at(1), "key");
    assert_eq!(deletions(&exchange(&mut owner, &mut reader, at(1)), 1), 1);
    for now in [1, 2, 20, 40] {
        tick(&mut owner, at(now));
        set(&mut owner, "other", &now.to_string());
        assert_eq!(deletions(&exchange(&mut owner, &mut reader, at(now)), 1), 0);
    }
    assert_eq!(owner.own().tombstones(), 0);
}

// C28
#[test]
fn who_never_saw_a_key_is_not_told_that_it_is_gone() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "key", "1");
    delete(&mut owner, at(1), "key");
    assert_eq!(deletions(&exchange(&mut owner, &mut reader, at(1)), 1), 0);
}

// C24
#[test]
fn a_key_with_a_ttl_is_seen_until_then_and_gone_everywhere_after() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    let short = Write::set("key", "1").with_ttl(Duration::from_secs(10));
    write(&mut owner, at(1), vec![short]);
    exchange(&mut owner, &mut reader, at(5));
    for replica in [&owner, &reader] {
        assert_eq!(seen(replica, "owner", "key", at(10)).unwrap(), "1");
        assert_eq!(seen(replica, "owner", "key", at(11)), None, "without a word from anybody");
    }
    tick(&mut owner, at(11));
    assert_eq!(owner.own().tombstones(), 1);
    assert_eq!(deletions(&exchange(&mut owner, &mut reader, at(11)), 1), 1);
    tick(&mut owner, at(40));
    exchange(&mut owner, &mut reader, at(40));
    for map in [owner.own(), reader.copy(&node("owner")).unwrap()] {
        assert!(map.entries().is_empty());
    }
}

#[test]
fn a_key_set_again_without_a_ttl_stays() {
    let mut owner = replica("owner");
    write(&mut owner, at(1), vec![Write::set("key", "1").with_ttl(Duration::from_secs(10))]);
    write(&mut owner, at(2), vec![Write::set("key", "1")]);
    tick(&mut owner, at(100));
    assert_eq!(seen(&owner, "owner", "key", at(100)).unwrap(), "1");
}

// C25
#[test]
fn what_was_deleted_and_collected_behind_a_cut_does_not_come_back() {
    let mut nodes = ["a", "b", "c", "d"].map(replica);
    for key in ["kept", "gone"] {
        set(&mut nodes[0], key, "1");
    }
    mix(&mut nodes, at(1));
    delete(&mut nodes[0], at(2), "gone");
    let [a, b, ..] = &mut nodes;
    exchange(a, b, at(3));
    tick(a, at(30));
    exchange(a, b, at(30));
    assert_eq!(nodes[1].copy(&node("a")).unwrap().tombstones(), 0);
    for now in 31..34 {
        mix(&mut nodes, at(now));
    }
    for reader in &nodes {
        assert_eq!(seen(reader, "a", "gone", at(40)), None, "{}", reader.node());
        assert_eq!(seen(reader, "a", "kept", at(40)).unwrap(), "1");
    }
}

/// Everybody with everybody, those furthest from the owner first.
fn mix(nodes: &mut [Replica], now: Time) {
    for one in (0..nodes.len()).rev() {
        for other in (0..one).rev() {
            let (left, right) = nodes.split_at_mut(one);
            exchange(&mut right[0], &mut left[other], now);
        }
    }
}

// C26
#[test]
fn heavy_churn_of_keys_converges() {
    let cut = |name| ReplicaConfig { delta_entries: 7, ..config(name) };
    let mut owner = start(cut("owner"), Default::default());
    let mut readers = ["r1", "r2"].map(|name| start(cut(name), Default::default()));
    for n in 0..3_000_u64 {
        let (now, key) = (at(n / 50), format!("k{}", n * 7 % 61));
        if n % 3 == 0 {
            delete(&mut owner, now, &key);
        } else {
            write(&mut owner, now, vec![Write::set(key, n.to_string())]);
        }
        tick(&mut owner, now);
        // The second one hears of it rarely, and then only from the first.
        let [r1, r2] = &mut readers;
        if n % 5 == 0 {
            exchange(r1, &mut owner, now);
        }
        if n % 700 == 699 {
            exchange(r2, r1, now);
        }
    }
    let [r1, r2] = &mut readers;
    exchange(r1, &mut owner, at(60));
    exchange(r2, r1, at(60));
    for reader in [r1, r2] {
        assert_eq!(reader.copy(&node("owner")).unwrap().entries(), owner.own().entries());
    }
}

#[test]
fn a_large_map_gets_through_while_its_owner_deletes_all_the_time() {
    let grace = Duration::from_secs(10);
    let cut = |name| ReplicaConfig { delta_entries: 10, tombstone_grace: grace, ..config(name) };
    let mut owner = start(cut("owner"), Default::default());
    for n in 0..1_000 {
        set(&mut owner, &format!("large{n}"), "1");
    }
    // A deletion and ten entries on their way every 20 ms: 100 deltas take 2 s, less than a quarter
    // of the grace.
    let mut reader = start(cut("reader"), Default::default());
    let mut now = at(1);
    for n in 0..3_000 {
        now = now + Duration::from_millis(20);
        write(&mut owner, now, vec![Write::set(format!("short{n}"), "1")]);
        delete(&mut owner, now, &format!("short{n}"));
        tick(&mut owner, now);
        if now < at(30) {
            continue;
        }
        let digest = reader.digest();
        let (_, delta) = owner.answer(now, &node("reader"), &digest, &mut Vec::new());
        reader.apply(now, &node("owner"), &delta, &mut Vec::new());
        if reader.copy(&node("owner")).is_some_and(|copy| copy.live_keys() >= 1_000) {
            return;
        }
    }
    panic!("it never got through: {:?}", reader.digest().get(&node("owner")));
}

#[test]
fn more_tombstones_than_keys_allowed_are_collected_early() {
    let mut limits = crate::support::LIMITS;
    limits.keys = 10;
    let mut owner = start(ReplicaConfig { limits, ..config("owner") }, Default::default());
    for n in 0..100 {
        set(&mut owner, &format!("k{n}"), "1");
        delete(&mut owner, at(1), &format!("k{n}"));
    }
    tick(&mut owner, at(1));
    assert!(owner.own().tombstones() <= 10, "{}", owner.own().tombstones());
    assert!(owner.own().gc_floor() > Version(150));
}

#[test]
fn a_tombstone_outlives_its_grace_whole() {
    let mut owner = replica("owner");
    set(&mut owner, "key", "1");
    delete(&mut owner, at(3), "key");
    tick(&mut owner, at(12));
    assert!(owner.own().entries().contains_key(&Key::from("key")));
    tick(&mut owner, at(16));
    assert!(owner.own().entries().is_empty());
}
