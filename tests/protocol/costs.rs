//! What news costs whoever is told it: counted, since times depend on the machine.

use gossipmonger::protocol::{
    delta::{DeltaEntry, NodeDelta},
    id::{Generation, Version},
    replica::Replica,
};

use crate::support::{at, news, node, record, replica, seen, told, tombstone, value};

/// Keys of the large map.
const KEYS: u64 = 2_000;
/// Far more than any of the changes below is worth, far less than the map.
const FEW: u64 = 64;

/// A node that has a copy of a large map.
fn large() -> Replica {
    let mut reader = replica("m");
    told(&mut reader, "x", NodeDelta { entries: keys(), ..news("x", 0, KEYS, 0) });
    assert_eq!(reader.copy(&node("x")).unwrap().live_keys() as u64, KEYS);
    reader
}

fn keys() -> Vec<DeltaEntry> {
    (1..=KEYS).map(|n| value(&format!("k{n}"), n, "v")).collect()
}

/// How many entries are looked at when this is told.
fn examined(reader: &mut Replica, news: NodeDelta) -> u64 {
    let owner = news.node.clone();
    let looked = |reader: &Replica| reader.copy(&owner).map_or(0, |copy| copy.examined());
    let before = looked(reader);
    told(reader, "x", news);
    looked(reader) - before
}

/// News of the large map after `from`, in its first life.
fn after(from: u64, to: u64, gc_floor: u64) -> NodeDelta {
    NodeDelta { record: None, ..news("x", from, to, gc_floor) }
}

/// The life that follows the large map's, in which one key is new.
fn next_life() -> NodeDelta {
    NodeDelta {
        generation: Generation(1_001),
        ancestry: vec![(Generation(1_000), Version(KEYS))],
        record: Some((Version(KEYS + 1), record("x:1"))),
        entries: vec![value("new", KEYS + 1, "v")],
        ..news("x", KEYS, KEYS + 1, 0)
    }
}

#[test]
fn a_life_that_continues_a_large_map_costs_what_it_changes() {
    let mut reader = large();
    let looked = examined(&mut reader, next_life());
    assert!(looked <= FEW, "{looked} entries were looked at");
    let copy = reader.copy(&node("x")).unwrap();
    assert_eq!((copy.generation(), copy.live_keys() as u64), (Generation(1_001), KEYS + 1));
    assert_eq!(seen(&reader, "x", "k1", at(1)).as_deref(), Some("v"));
}

#[test]
fn a_life_that_is_refused_leaves_the_one_before_as_it_was() {
    let mut reader = large();
    let line = reader.copy(&node("x")).unwrap().digest_entry(node("x"));
    let gap = NodeDelta { from: Version(KEYS + 5), to: Version(KEYS + 6), ..next_life() };
    let gap = NodeDelta { horizon: gap.to, entries: vec![value("new", KEYS + 6, "v")], ..gap };
    let looked = examined(&mut reader, gap);
    assert!(looked <= FEW, "{looked} entries were looked at");
    let copy = reader.copy(&node("x")).unwrap();
    assert_eq!(copy.digest_entry(node("x")), line);
    assert!(copy.record().is_some());
    assert_eq!(copy.ancestry(), []);
}

#[test]
fn a_floor_that_rises_by_one_costs_what_it_drops() {
    let mut reader = large();
    let dead = vec![tombstone("k1", KEYS + 1), tombstone("k2", KEYS + 2)];
    told(&mut reader, "x", NodeDelta { entries: dead, ..after(KEYS, KEYS + 2, 0) });
    for floor in [KEYS + 1, KEYS + 2] {
        let looked = examined(&mut reader, after(KEYS + 2, KEYS + 2, floor));
        assert!(looked <= FEW, "{looked} entries were looked at");
    }
    let copy = reader.copy(&node("x")).unwrap();
    assert_eq!((copy.tombstones(), copy.live_keys() as u64), (0, KEYS - 2));
}

#[test]
fn a_batch_that_was_hidden_and_shows_costs_what_it_changes() {
    let mut reader = large();
    // The second half of the batch is to come.
    let part = NodeDelta {
        horizon: Version(KEYS + 2),
        torn: Version(KEYS + 2),
        ..after(KEYS, KEYS + 1, 0)
    };
    told(&mut reader, "x", NodeDelta { entries: vec![value("k1", KEYS + 1, "w")], ..part });
    let rest = NodeDelta { torn: Version(KEYS + 2), ..after(KEYS + 1, KEYS + 2, 0) };
    let rest = NodeDelta { entries: vec![value("k2", KEYS + 2, "w")], ..rest };
    let looked = examined(&mut reader, rest);
    assert!(looked <= FEW, "{looked} entries were looked at");
    assert_eq!(seen(&reader, "x", "k1", at(1)).as_deref(), Some("w"));
}
