//! What is told, what is taken, and in which order.

use gossipmonger::{
    protocol::{
        delta::Delta,
        digest::{Digest, DigestEntry},
        event::{Event, ProtocolEvent},
        id::{Generation, NodeId, Version},
        map::MapLimits,
        message::{LENGTH_BYTES, Message},
        replica::{BATCH_BYTES_MAX, Replica, ReplicaConfig},
        route::{Counter, DetectorInput, Output, StorageInput},
        verdict::Verdict,
        write::{Write, WriteError},
    },
    store::Stored,
};
use proptest::prelude::*;

use crate::support::{
    LIMITS, at, config, delete, exchange, news, node, replica, seen, set, start, told, tombstone,
    value, write,
};

fn counted(out: &[Output], counter: Counter) -> bool {
    out.iter().any(|output| matches!(output, Output::Count(c, _) if *c == counter))
}

fn reach(replica: &Replica, peer: &str) -> Option<(u64, u64)> {
    replica.copy(&node(peer)).map(|copy| (copy.max_version().0, copy.gc_floor().0))
}

// C13
#[test]
fn refuses_news_that_starts_beyond_what_it_has() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 4, 0));
    let mut late = news("owner", 6, 9, 0);
    late.entries = vec![value("key", 7, "late")];
    let out = told(&mut reader, "owner", late);
    assert!(counted(&out, Counter::NewsRefused));
    assert_eq!(reach(&reader, "owner"), Some((4, 0)));
    assert_eq!(seen(&reader, "owner", "key", at(1)), None);
}

// C13
#[test]
fn refuses_an_unknown_owner_from_the_middle() {
    let mut reader = replica("reader");
    let out = told(&mut reader, "owner", news("owner", 3, 9, 0));
    assert!(counted(&out, Counter::NewsRefused));
    assert!(reader.copy(&node("owner")).is_none(), "no trace of it stays");
}

// C7
#[test]
fn ignores_what_it_has() {
    let mut reader = replica("reader");
    let mut first = news("owner", 0, 5, 0);
    first.entries = vec![value("key", 5, "new")];
    told(&mut reader, "owner", first.clone());
    assert!(reader.view().is_some());
    let mut old = news("owner", 0, 4, 0);
    old.entries = vec![value("key", 4, "old")];
    let mut same = first;
    same.entries = vec![value("key", 5, "forged")];
    for again in [old, same] {
        let out = told(&mut reader, "owner", again);
        assert!(out.iter().all(|output| matches!(output, Output::Count(..))), "{out:?}");
        assert!(reader.view().is_none(), "nothing changed");
        assert_eq!(seen(&reader, "owner", "key", at(1)).unwrap(), "new");
    }
}

// C11
#[test]
fn news_of_somebody_nobody_introduced_is_counted_and_the_rest_is_taken() {
    let mut reader = replica("reader");
    let mut stranger = news("stranger", 0, 5, 0);
    stranger.record = None;
    let out = told(&mut reader, "relay", stranger);
    assert!(counted(&out, Counter::UnknownPeers));
    let unknown = ProtocolEvent::UnknownPeer { peer: node("stranger") };
    assert!(out.iter().any(|o| matches!(o, Output::Protocol(event) if *event == unknown)));
    assert!(reader.copy(&node("stranger")).is_none());
    told(&mut reader, "relay", news("owner", 0, 5, 0));
    assert_eq!(reach(&reader, "owner"), Some((5, 0)));
}

// C10
#[test]
fn nobody_tells_a_node_what_it_wrote_itself() {
    let mut reader = replica("reader");
    set(&mut reader, "key", "mine");
    let mut forged = news("reader", 0, 9, 0);
    forged.entries = vec![value("key", 9, "forged")];
    told(&mut reader, "relay", forged);
    assert_eq!(seen(&reader, "reader", "key", at(1)).unwrap(), "mine");
    assert!(reader.copy(&node("reader")).is_none());
}

// C18
#[test]
fn refuses_a_reset_to_an_older_state() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 20, 12));
    let mut old = news("owner", 0, 15, 10);
    old.entries = vec![value("key", 15, "old")];
    told(&mut reader, "owner", old);
    assert_eq!(reach(&reader, "owner"), Some((20, 12)));
    let mut earlier = news("owner", 0, 99, 99);
    earlier.generation = Generation(999);
    let out = told(&mut reader, "owner", earlier);
    assert!(counted(&out, Counter::NewsRefused));
    assert_eq!(reach(&reader, "owner"), Some((20, 12)));
}

#[test]
fn refuses_malformed_news_and_stays_as_it_was() {
    let out_of_order = [value("a", 8, ""), value("b", 7, "")];
    let below = [value("a", 5, "")];
    let beyond = [value("a", 10, "")];
    let nameless = [value("", 7, "")];
    let long_key = [value(&"k".repeat(513), 7, "")];
    for entries in [&out_of_order[..], &below, &beyond, &nameless, &long_key] {
        let mut reader = replica("reader");
        told(&mut reader, "owner", news("owner", 0, 5, 0));
        let mut bad = news("owner", 5, 9, 0);
        bad.entries = entries.to_vec();
        let out = told(&mut reader, "owner", bad);
        assert!(counted(&out, Counter::NewsRefused), "{entries:?}");
        assert!(out.iter().any(|o| matches!(o, Output::Event(Event::Error(_)))), "it is told");
        assert_eq!(reach(&reader, "owner"), Some((5, 0)));
    }
}

#[test]
fn refuses_a_new_life_without_a_record() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    let mut bare = news("owner", 0, 5, 0);
    bare.generation = Generation(2_000);
    bare.record = None;
    assert!(counted(&told(&mut reader, "relay", bare), Counter::NewsRefused));
    assert!(reader.copy(&node("owner")).unwrap().record().is_some());
}

#[test]
fn takes_up_no_more_peers_than_allowed_and_asks_for_none() {
    let mut reader = start(ReplicaConfig { peers_max: 2, ..config("reader") }, Stored::default());
    for name in ["a", "b"] {
        told(&mut reader, name, news(name, 0, 1, 0));
    }
    let out = told(&mut reader, "c", news("c", 0, 1, 0));
    assert!(counted(&out, Counter::PeersShed));
    assert!(reader.copy(&node("c")).is_none());
    let digest = Digest { entries: vec![line("c", 1_000, 1, 0)] };
    let (wants, _) = reader.answer(at(1), &node("c"), &digest, &mut Vec::new());
    assert_eq!(wants.entries, []);
}

// C22
#[test]
fn a_batch_beyond_its_limit_is_refused_whole() {
    let mut owner = replica("owner");
    let value = "v".repeat(BATCH_BYTES_MAX / 3);
    let batch = ["a", "b", "c"].map(|key| Write::set(key, value.as_str())).to_vec();
    let refused = owner.write(at(1), batch, &mut Vec::new());
    assert!(matches!(refused, Err(WriteError::Batch { .. })), "{refused:?}");
    assert_eq!((owner.own().live_keys(), owner.own().max_version()), (0, Version(1)));
}

// C1
#[test]
fn the_record_is_version_1_and_every_write_takes_the_next() {
    let mut owner = replica("owner");
    assert_eq!(owner.own().record_version(), Version(1));
    assert_eq!(set(&mut owner, "a", "1"), Version(2));
    assert_eq!(set(&mut owner, "b", "1"), Version(3));
    assert_eq!(set(&mut owner, "a", "2"), Version(4));
}

// C2
#[test]
fn writing_what_is_there_takes_no_version() {
    let mut owner = replica("owner");
    set(&mut owner, "a", "1");
    let mut out = Vec::new();
    let again = owner.write(at(1), vec![Write::set("a", "1")], &mut out).unwrap();
    assert_eq!((again.version, again.changed), (Version(2), false));
    assert!(again.persist.is_empty() && out.is_empty());
    let gone = owner.write(at(1), vec![Write::delete("none")], &mut out).unwrap();
    assert!(!gone.changed);
}

// C3
#[test]
fn the_digest_of_a_lone_node_lists_itself() {
    let digest = replica("lone").digest();
    let listed: Vec<_> = digest.entries.iter().map(|entry| entry.node.as_str()).collect();
    assert_eq!(listed, ["lone"]);
}

// C4
#[test]
fn a_digest_lists_itself_and_all_peers_in_order() {
    let mut middle = replica("m");
    for name in ["z", "a"] {
        exchange(&mut replica(name), &mut middle, at(1));
    }
    let digest = middle.digest();
    let listed: Vec<_> = digest.entries.iter().map(|entry| entry.node.as_str()).collect();
    assert_eq!(listed, ["a", "m", "z"]);
    assert!(digest.is_sorted());
}

// C5
#[test]
fn only_what_is_newer_is_told() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "old", "1");
    exchange(&mut owner, &mut reader, at(1));
    set(&mut owner, "new", "1");
    let outcome = exchange(&mut owner, &mut reader, at(1));
    assert_eq!(outcome.entries, 1);
    assert_eq!(seen(&reader, "owner", "new", at(1)).unwrap(), "1");
}

// C6
#[test]
fn nothing_newer_tells_nothing() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "key", "1");
    exchange(&mut owner, &mut reader, at(1));
    let digest = reader.digest();
    let (wants, delta) = owner.answer(at(1), &node("reader"), &digest, &mut Vec::new());
    assert!(wants.entries.is_empty() && delta.is_empty() && !delta.more);
}

fn line(name: &str, generation: u64, max: u64, record: u64) -> DigestEntry {
    DigestEntry {
        node: node(name),
        generation: Generation(generation),
        max_version: Version(max),
        horizon: Version(max),
        gc_floor: Version(0),
        record: Version(record),
        verdict: Verdict::default(),
    }
}

/// A relay that knows three owners, each with this many keys.
fn relay(keys: [(&str, u64); 3], config: ReplicaConfig) -> Replica {
    let mut relay = start(config, Stored::default());
    for (name, keys) in keys {
        let mut owner = news(name, 0, keys + 1, 0);
        let key = |n: u64| value(&format!("k{n}"), n + 1, "value");
        owner.entries = (1..=keys).map(key).collect();
        told(&mut relay, name, owner);
    }
    relay
}

// C8 C9
#[test]
fn a_short_budget_tells_the_oldest_first_and_the_most_outdated_node_first() {
    let config = ReplicaConfig { delta_entries: 12, ..config("relay") };
    let mut relay = relay([("a", 5), ("b", 10), ("c", 3)], config);
    let known = ["a", "b", "c"].map(|name| line(name, 1_000, 1, 1));
    let mut entries = known.to_vec();
    entries.push(line("relay", 1_000, 1, 1));
    let digest = Digest { entries };
    let (_, delta) = relay.answer(at(1), &node("reader"), &digest, &mut Vec::new());
    let told: Vec<_> = delta.nodes.iter().map(|n| (n.node.as_str(), n.entries.len())).collect();
    assert_eq!(told, [("b", 10), ("a", 2)], "the rest of the budget goes to the next");
    assert!(delta.more);
    let versions: Vec<_> = delta.nodes[1].entries.iter().map(|e| e.version.0).collect();
    assert_eq!((versions, delta.nodes[1].to), (vec![2, 3], Version(3)));
}

// C10
#[test]
fn who_is_only_listed_becomes_known() {
    let mut reader = replica("reader");
    let digest = Digest { entries: vec![line("new", 7, 3, 1)] };
    let (wants, _) = reader.answer(at(1), &node("relay"), &digest, &mut Vec::new());
    assert_eq!(wants.entries, [DigestEntry::unknown(node("new"))]);
}

// C12
#[test]
fn an_exchange_leaves_both_equal() {
    let (mut one, mut other) = (replica("one"), replica("other"));
    for n in 0..20 {
        set(&mut one, &format!("k{n}"), "1");
        set(&mut other, &format!("k{}", n % 7), &n.to_string());
    }
    delete(&mut one, at(1), "k3");
    exchange(&mut one, &mut other, at(1));
    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.copy(&node("other")).unwrap().entries(), other.own().entries());
    assert_eq!(other.copy(&node("one")).unwrap().entries(), one.own().entries());
}

// C15
/// One was told before a key was replaced, the other after, and neither was told what replaced it.
#[test]
fn copies_that_reach_as_far_and_lack_different_keys_are_in_no_sum() {
    let one_at_a_time = ReplicaConfig { delta_entries: 1, ..config("owner") };
    let mut owner = start(one_at_a_time, Stored::default());
    let (mut early, mut late) = (replica("early"), replica("late"));
    let mut peers = 0;
    let mut tell = |owner: &mut Replica, reader: &mut Replica, upto: u64| {
        while reach(reader, "owner").is_none_or(|(reach, _)| reach < upto) {
            let (lines, _) = reader.lines(&[node("owner")], &[]);
            // Another one each time: who was told a part is to pull the rest.
            peers += 1;
            let peer = node(&format!("peer-{peers}"));
            let (_, news) = owner.answer(at(1), &peer, &lines, &mut Vec::new());
            let news = news.nodes.into_iter().find(|news| news.node == node("owner")).unwrap();
            told(reader, "owner", news);
        }
    };
    exchange(&mut early, &mut late, at(1));
    ["a", "replaced", "b"].iter().for_each(|key| {
        set(&mut owner, key, "old");
    });
    tell(&mut owner, &mut early, 4);
    set(&mut owner, "c", "new");
    set(&mut owner, "replaced", "new");
    tell(&mut owner, &mut early, 5);
    tell(&mut owner, &mut late, 5);
    // The owner is gone.
    let line = |replica: &Replica| replica.lines(&[node("owner")], &[]).0;
    assert_eq!(line(&early), line(&late), "by their lines they are equal");
    assert_eq!(seen(&early, "owner", "replaced", at(1)).as_deref(), Some("old"));
    assert_eq!(seen(&late, "owner", "replaced", at(1)), None, "and they are not");
    assert!(line(&early).entries[0].is_part());
    let symbols = [&early, &late].map(|replica| replica.sketch().symbols());
    assert_eq!(symbols, [2, 2], "their own lines and each other's");
    // Once one of them has all of it, it counts, and the other gets it.
    tell(&mut owner, &mut early, 6);
    assert_eq!(early.sketch().symbols(), 3);
    assert_ne!(early.root(), late.root());
    exchange(&mut late, &mut early, at(2));
    assert_eq!(early.root(), late.root());
    assert_eq!(seen(&late, "owner", "replaced", at(2)).as_deref(), Some("new"));
}

#[test]
fn a_floor_at_the_reach_of_a_copy_does_not_reset_it() {
    let mut reader = replica("reader");
    let mut first = news("owner", 0, 5, 0);
    first.entries = vec![value("kept", 2, "1"), tombstone("gone", 5)];
    told(&mut reader, "owner", first);
    told(&mut reader, "owner", news("owner", 5, 5, 5));
    let copy = reader.copy(&node("owner")).unwrap();
    assert_eq!((copy.gc_floor(), copy.tombstones(), copy.live_keys()), (Version(5), 0, 1));
    let (_, delta) =
        replica("other").answer(at(1), &node("reader"), &reader.digest(), &mut Vec::new());
    assert_eq!(delta.nodes.len(), 1, "nothing of the owner");
}

// C16
#[test]
fn who_is_behind_the_floor_is_reset_in_one_step_and_converges() {
    let small = |name| ReplicaConfig { delta_entries: 3, ..config(name) };
    let mut owner = start(small("owner"), Stored::default());
    let mut reader = start(small("reader"), Stored::default());
    for n in 0..20 {
        set(&mut owner, &format!("k{n}"), "1");
    }
    exchange(&mut owner, &mut reader, at(1));
    for n in 0..10 {
        delete(&mut owner, at(2), &format!("k{n}"));
    }
    set(&mut owner, "k19", "2");
    owner.handle(at(30), StorageInput::Tick, &mut Vec::new());
    assert_eq!((owner.own().gc_floor(), owner.own().tombstones()), (Version(31), 0));
    reader.view();
    let outcome = exchange(&mut reader, &mut owner, at(30));
    assert!(outcome.rounds > 2, "it takes several deltas");
    assert_eq!(reader.copy(&node("owner")).unwrap().entries(), owner.own().entries());
    let deleted = |event: &&&Event| matches!(event, Event::Deleted { .. });
    assert_eq!(outcome.events(0).iter().filter(deleted).count(), 10);
    assert_eq!(reader.digest(), owner.digest());
}

// C16
#[test]
fn a_copy_that_is_being_reset_stays_whole_for_readers() {
    let mut reader = replica("reader");
    let mut first = news("owner", 0, 5, 0);
    first.entries = (2..=5).map(|n| value(&format!("k{n}"), n, "1")).collect();
    told(&mut reader, "owner", first);
    let mut part = news("owner", 0, 3, 9);
    part.entries = vec![value("k3", 3, "1")];
    told(&mut reader, "owner", part);
    assert_eq!(reader.copy(&node("owner")).unwrap().live_keys(), 4, "still the old one");
    assert_eq!(reader.digest().get(&node("owner")).unwrap().max_version, Version(3));
    let mut rest = news("owner", 3, 12, 9);
    rest.entries = vec![value("k12", 12, "1")];
    told(&mut reader, "owner", rest);
    let copy = reader.copy(&node("owner")).unwrap();
    let keys: Vec<_> = copy.entries().keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["k12", "k3"]);
}

// C16 C46
#[test]
fn a_reset_that_a_restart_of_the_owner_interrupts_goes_on() {
    let mut reader = replica("reader");
    let mut first = news("owner", 0, 5, 0);
    first.entries = (2..=5).map(|n| value(&format!("k{n}"), n, "1")).collect();
    told(&mut reader, "owner", first);
    let mut part = news("owner", 0, 3, 9);
    part.entries = vec![value("k3", 3, "1")];
    told(&mut reader, "owner", part);
    // The sender goes by the digest: version 3 in generation 1,000, which the new life continues.
    let mut rest = news("owner", 3, 13, 9);
    rest.generation = Generation(2_000);
    rest.ancestry = vec![(Generation(1_000), Version(12))];
    rest.record = Some((Version(13), crate::support::record("owner:2")));
    rest.entries = vec![value("k12", 12, "1")];
    let out = told(&mut reader, "owner", rest);
    assert!(!counted(&out, Counter::NewsRefused));
    let copy = reader.copy(&node("owner")).unwrap();
    let keys: Vec<_> = copy.entries().keys().map(ToString::to_string).collect();
    assert_eq!((keys, copy.generation()), (vec!["k12".into(), "k3".into()], Generation(2_000)));
}

// C17
#[test]
fn a_reset_is_no_sign_of_life() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    let mut reset = news("owner", 0, 20, 10);
    reset.entries = vec![value("key", 20, "1")];
    let out = told(&mut reader, "owner", reset);
    assert_eq!(reach(&reader, "owner"), Some((20, 10)));
    let heard = |o: &Output| matches!(o, Output::Detector(DetectorInput::Heard { .. }));
    assert!(!out.iter().any(heard));
}

// C19
#[test]
fn a_value_larger_than_the_budget_arrives_and_blocks_nobody() {
    let small = |name| ReplicaConfig { delta_bytes: 1_000, ..config(name) };
    let mut owner = start(small("owner"), Stored::default());
    let mut reader = start(small("reader"), Stored::default());
    told(&mut owner, "third", news("third", 0, 3, 0));
    let large = "v".repeat(1 << 20);
    set(&mut owner, "before", "1");
    set(&mut owner, "large", &large);
    set(&mut owner, "after", "1");
    exchange(&mut reader, &mut owner, at(1));
    assert_eq!(seen(&reader, "owner", "large", at(1)).unwrap(), large);
    assert_eq!(seen(&reader, "owner", "after", at(1)).unwrap(), "1");
    assert_eq!(reach(&reader, "third"), Some((3, 0)));
}

// C20
#[test]
fn a_large_node_does_not_starve_a_small_new_one() {
    let mut sender =
        start(ReplicaConfig { delta_bytes: 64 << 10, ..config("large") }, Stored::default());
    let chunk = "v".repeat(10 << 10);
    for n in 0..1_024 {
        set(&mut sender, &format!("k{n}"), &chunk);
    }
    let mut small = news("small", 0, 2, 0);
    small.entries = vec![value("key", 2, "1")];
    told(&mut sender, "small", small);
    let mut reader = replica("reader");
    let (_, delta) = sender.answer(at(1), &node("reader"), &reader.digest(), &mut Vec::new());
    reader.apply(at(1), &node("large"), &delta, &mut Vec::new());
    assert!(delta.more);
    assert_eq!(seen(&reader, "small", "key", at(1)).unwrap(), "1", "in the very first delta");
}

// C22
#[test]
fn a_batch_becomes_visible_at_once() {
    let small = |name| ReplicaConfig { delta_bytes: 300, delta_entries: 3, ..config(name) };
    let mut owner = start(small("owner"), Stored::default());
    let mut reader = start(small("reader"), Stored::default());
    let batch = |value: &str| (0..50).map(|n| Write::set(format!("k{n}"), value)).collect();
    for value in ["one", "two"] {
        write(&mut owner, at(1), batch(value));
        for _ in 0..10 {
            let digest = reader.digest();
            let digest = (*digest).clone();
            let (_, delta) = owner.feed(at(1), &node("reader"), digest, true);
            reader.apply(at(1), &node("owner"), &delta, &mut Vec::new());
            let Some(copy) = reader.copy(&node("owner")) else { continue };
            let of = |n: u64| seen(&reader, "owner", &format!("k{n}"), at(1));
            assert!((0..50).all(|n| of(n) == of(0)), "at {}", copy.max_version());
        }
        assert_eq!(seen(&reader, "owner", "k49", at(1)).unwrap(), value);
    }
}

// C22
#[test]
fn a_batch_is_not_seen_in_part_although_a_part_of_it_was_replaced() {
    let small = |name| ReplicaConfig { delta_entries: 1, ..config(name) };
    let mut owner = start(small("owner"), Stored::default());
    let mut reader = start(small("reader"), Stored::default());
    set(&mut owner, "k1", "old");
    exchange(&mut owner, &mut reader, at(1));
    write(&mut owner, at(1), vec![Write::set("k1", "new"), Write::set("k2", "new")]);
    for n in 0..5 {
        set(&mut owner, &format!("x{n}"), "other");
    }
    // From here on nobody can be told the batch as it was.
    set(&mut owner, "k1", "newer");

    let (mut told, mut hidden) = (Vec::new(), 0);
    loop {
        let digest = reader.digest();
        let (_, delta) = owner.answer(at(1), &node("reader"), &digest, &mut Vec::new());
        if delta.is_empty() {
            break;
        }
        let mut out = Vec::new();
        reader.apply(at(1), &node("owner"), &delta, &mut out);
        told.extend(out.into_iter().filter_map(|output| match output {
            Output::Event(Event::Updated { key, .. }) => Some(key.to_string()),
            _ => None,
        }));
        let Some(view) = reader.view().map(|maps| maps[&node("owner")].clone()) else { continue };
        let of = |key: &str| {
            let entry = view.entries.get(key)?;
            entry.visible(at(1)).map(|value| value.as_str().unwrap().to_owned())
        };
        let pair = (of("k1"), of("k2"));
        let (old, new) = (pair.0.as_deref(), pair.1.as_deref());
        match (old, new) {
            (Some("old"), None) => {
                hidden += 1;
                assert!(told.is_empty(), "told before it can be read: {told:?}");
            }
            (Some("newer"), Some("new")) => {}
            half => panic!("half a batch: {half:?}"),
        }
    }
    assert!(hidden > 3, "the batch was told in parts");
    assert_eq!(told, ["k2", "x0", "x1", "x2", "x3", "x4", "k1"]);
}

// C22
#[test]
fn the_largest_batch_of_the_smallest_entries_fits_a_frame() {
    let most = BATCH_BYTES_MAX / (28 + 4);
    let name = |mut n: usize| {
        let mut key = String::new();
        for _ in 0..4 {
            key.push(char::from(b'a' + u8::try_from(n % 26).unwrap()));
            n /= 26;
        }
        key
    };
    let limits = MapLimits { keys: 1 << 20, ..LIMITS };
    let wide = |name| start(ReplicaConfig { limits, ..config(name) }, Stored::default());
    let (mut owner, mut reader) = (wide("owner"), wide("reader"));
    write(&mut owner, at(1), (0..most).map(|n| Write::set(name(n), "")).collect());
    exchange(&mut owner, &mut reader, at(1));
    assert_eq!(reader.copy(&node("owner")).unwrap().live_keys(), most);
}

#[test]
fn the_map_of_an_owner_at_its_limits_is_taken() {
    let limits = MapLimits { keys: 100, bytes: 1_300, key_bytes: 10, value_bytes: 10 };
    let tight = |name| start(ReplicaConfig { limits, ..config(name) }, Stored::default());
    let (mut owner, mut reader) = (tight("owner"), tight("reader"));
    for round in 0..4_u64 {
        let now = at(round * 20);
        owner.handle(now, StorageInput::Tick, &mut Vec::new());
        let one = |n: usize| format!("{}{n}", ["a", "b", "c", "d"][round as usize]);
        if round > 0 {
            let old = |n: usize| format!("{}{n}", ["a", "b", "c"][round as usize - 1]);
            write(&mut owner, now, (0..100).map(|n| Write::delete(old(n))).collect());
        }
        write(&mut owner, now, (0..100).map(|n| Write::set(one(n), "1234567")).collect());
        if round != 1 {
            let outcome = exchange(&mut owner, &mut reader, now);
            assert!(!counted(&outcome.outputs[1], Counter::NewsRefused), "round {round}");
        }
    }
    assert_eq!(reader.digest(), owner.digest());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // C21
    #[test]
    fn a_delta_stays_within_its_budget(
        owners in prop::collection::vec(prop::collection::vec((1_usize..40, 0_usize..300), 0..30), 1..8),
        budget in 400_usize..5_000,
        entries in 1_usize..50,
        tags in 0_usize..4,
    ) {
        let config = ReplicaConfig { delta_bytes: budget, delta_entries: entries, ..config("relay") };
        let mut relay = start(config, Stored::default());
        for (owner, keys) in owners.iter().enumerate() {
            let name = format!("owner-{owner}");
            let mut all = news(&name, 0, keys.len() as u64 + 1, 0);
            if let Some((_, record)) = &mut all.record {
                record.tags.extend((0..tags).map(|n| (format!("tag{n}"), "t".repeat(n * 9))));
            }
            let key = |(n, (key, len)): (usize, &(usize, usize))| {
                value(&format!("{n:x}{}", "k".repeat(*key)), n as u64 + 2, &"v".repeat(*len))
            };
            all.entries = keys.iter().enumerate().map(key).collect();
            told(&mut relay, &name, all);
        }
        let mut reader = replica("reader");
        for _ in 0..1_000 {
            let digest = reader.digest();
            let (_, told) = relay.answer(at(1), &node("reader"), &digest, &mut Vec::new());
            let bytes = |delta: &Delta| {
                Message::Ack { delta: delta.clone() }.encode().unwrap().len() - LENGTH_BYTES - 2
            };
            prop_assert!(bytes(&told) <= budget && told.len() <= entries, "what nobody asked for");
            let (_, delta) = relay.feed(at(1), &node("reader"), (*digest).clone(), true);
            let single = delta.nodes.len() <= 1 && delta.len() <= 1;
            let bytes = bytes(&delta);
            prop_assert!(bytes <= budget || single, "{bytes} of {budget}: {delta:?}");
            prop_assert!(delta.len() <= entries || single);
            prop_assert!(delta.more || !delta.is_empty() || reader.peers().count() == owners.len() + 1);
            let whole = !delta.more;
            reader.apply(at(1), &node("relay"), &delta, &mut Vec::new());
            if whole {
                break;
            }
        }
        for (owner, keys) in owners.iter().enumerate() {
            let name: NodeId = node(&format!("owner-{owner}"));
            prop_assert_eq!(reader.copy(&name).unwrap().live_keys(), keys.len());
        }
    }
}
