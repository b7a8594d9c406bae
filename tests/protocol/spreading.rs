//! Who gets what of news that travels along trees, at one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gossipmonger::protocol::{
    delta::{DeltaContent, DeltaEntry, NodeDelta},
    digest::DigestEntry,
    edges::{Edges, Home},
    gossip::{Have, OWNERS_MAX},
    id::{Datacenter, Generation, NodeId, Version},
    mode::{LATE, Mode},
    overlay::ring_neighbours,
    push::{
        FIRST_FLOOD_DELAY, FIRST_NOTE_DELAY, FLOOD_DELAY, FLOODS_WAITING_MAX, Item, Limits,
        NOTE_DELAY, NOTE_INTERVAL, Push, Told,
    },
    rules::Rules,
    spanning::{Trees, tree_of},
    time::Time,
    verdict::Verdict,
};
use proptest::prelude::*;

const LIFE: Generation = Generation(1);
const NOW: Time = Time::ZERO;
const NO_LAG: Duration = Duration::ZERO;
const LIMITS: Limits = Limits { introductions: usize::MAX, lag: NO_LAG };

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn home() -> Datacenter {
    Datacenter::new("home").unwrap()
}

/// A node with links to these peers.
fn node(name: &NodeId, peers: impl IntoIterator<Item = NodeId>, edges: Edges) -> Push {
    let mut push = Push::new(NOW, name.clone(), home(), Rules::default());
    peers.into_iter().for_each(|peer| push.linked(NOW, peer, true));
    push.lead(Arc::new(edges));
    push
}

fn edges(home: Home) -> Edges {
    Edges { home, bridges: Vec::new(), suspects: BTreeSet::new() }
}

/// The update of an owner from one version to the next.
fn update(owner: &NodeId, to: u64) -> NodeDelta {
    let content = DeltaContent::Value { value: vec![7; 100].as_slice().into(), ttl_ms: None };
    NodeDelta {
        node: owner.clone(),
        generation: LIFE,
        ancestry: Vec::new(),
        from: Version(to - 1),
        to: Version(to),
        horizon: Version(to),
        torn: Version(0),
        gc_floor: Version(0),
        verdict: Verdict::default(),
        record: None,
        entries: vec![DeltaEntry { key: "key".into(), version: Version(to), content }],
        sealed: None,
    }
}

/// What the links get of an update along the tree that a peer has sent.
fn passed_on(
    push: &mut Push,
    now: Time,
    owner: &NodeId,
    to: u64,
    from: &NodeId,
) -> BTreeMap<NodeId, Told> {
    relayed(push, now, (owner, to), from, Mode::Tree)
}

/// What they get of one that travels like this.
fn relayed(
    push: &mut Push,
    now: Time,
    (owner, to): (&NodeId, u64),
    from: &NodeId,
    mode: Mode,
) -> BTreeMap<NodeId, Told> {
    let since = DigestEntry {
        generation: LIFE,
        max_version: Version(to - 1),
        ..DigestEntry::unknown(owner.clone())
    };
    let delta = update(owner, to);
    push.arrived(now, from, &delta, true);
    push.pass_on(since, from, mode, false);
    let fresh = push.take(now);
    let item = |fresh| Item { delta: delta.clone(), bytes: 100, noted: false, fresh };
    let items: Vec<_> = fresh.into_iter().map(item).collect();
    assert_eq!(items.len(), 1);
    push.share(now, &items, LIMITS, |_| None, |_, _| false).into_iter().collect()
}

/// The notes that are sent by a time.
fn notes(push: &mut Push, by: Time, version: u64) -> BTreeMap<NodeId, Vec<NodeId>> {
    let mut notes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (peer, owners) in push.take_notes(by) {
        for (owner, _) in owners.into_iter().filter(|(_, has)| *has < (LIFE, Version(version))) {
            notes.entry(peer.clone()).or_default().push(owner);
        }
    }
    notes
}

fn owner_of_tree(tree: usize) -> NodeId {
    (0..).map(|n| id(&format!("owner-{n}"))).find(|owner| tree_of(owner) == tree).unwrap()
}

fn members(count: usize, seed: u64) -> Vec<NodeId> {
    (0..count).map(|n| id(&format!("s{seed}-{n}"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn beside_a_node_that_is_gone_a_note_leaves_over_every_other_link_at_once(
        count in 12_usize..80,
        seed: u64,
        gone in 0..80_usize,
        tree in 0..2_usize,
    ) {
        let members = members(count, seed);
        let (gone, owner) = (&members[gone % count], owner_of_tree(tree));
        let trees = Trees::of(members.clone()).unwrap();
        for beside in trees.neighbours(tree, gone) {
            let fellows = members.iter().filter(|fellow| **fellow != beside);
            let links: Vec<_> = ring_neighbours(&beside, fellows, 1)
                .into_iter()
                .filter(|link| *link != gone)
                .cloned()
                .collect();
            let home = Home::Trees([0, 1].map(|tree| trees.neighbours(tree, &beside)));
            let Some(from) = links.first().cloned() else { continue };
            let mut push = node(&beside, links.clone(), edges(home));
            let told = passed_on(&mut push, NOW, &owner, 1, &from);
            for link in links.iter().filter(|link| **link != from) {
                let told = told.get(link).map(|told| told.news.len() + told.notes.len());
                prop_assert_eq!(told, Some(1), "{} tells {}", &beside, link);
            }
        }
    }
}

/// A node with two edges in each tree, and two links more.
fn usual() -> Push {
    let beside = vec![id("a"), id("b")];
    let home = Home::Trees([beside.clone(), beside]);
    node(&id("me"), ["a", "b", "c", "d"].map(id), edges(home))
}

fn news_to(told: &BTreeMap<NodeId, Told>) -> Vec<&str> {
    let news = told.iter().filter(|(_, told)| !told.news.is_empty());
    news.map(|(peer, _)| peer.as_str()).collect()
}

fn noted(notes: &BTreeMap<NodeId, Vec<NodeId>>) -> Vec<&str> {
    notes.keys().map(NodeId::as_str).collect()
}

#[test]
fn news_goes_along_the_tree_and_the_other_links_get_one_note_of_it() {
    let (mut push, owner) = (usual(), id("owner"));
    let told = passed_on(&mut push, NOW, &owner, 1, &id("a"));
    assert_eq!(news_to(&told), ["b"]);
    assert_eq!(told.len(), 1, "no note at once");
    let told = passed_on(&mut push, NOW + Duration::from_millis(9), &owner, 2, &id("a"));
    assert_eq!(news_to(&told), ["b"]);
    let early = NOW + (FIRST_NOTE_DELAY - Duration::from_millis(1));
    assert!(notes(&mut push, early, 2).is_empty());
    let mut all = notes(&mut push, NOW + FIRST_NOTE_DELAY, 2);
    all.extend(notes(&mut push, NOW + NOTE_DELAY, 2));
    assert_eq!(noted(&all), ["c", "d"]);
    assert!(notes(&mut push, NOW + NOTE_INTERVAL * 2, 2).is_empty());
    assert_eq!(push.due(NOW), None);
}

#[test]
fn the_ends_of_a_link_take_turns_to_note_and_no_note_waits_for_ever() {
    let (mut push, owner) = (usual(), id("owner"));
    let ms = Duration::from_millis;
    passed_on(&mut push, NOW, &owner, 1, &id("a"));
    let sent = NOW + NOTE_DELAY;
    assert_eq!(noted(&notes(&mut push, sent, 1)), ["c", "d"]);
    passed_on(&mut push, sent + ms(1), &owner, 2, &id("a"));
    // One end answers at a quarter of the interval. Then it is this one's turn after as long again.
    push.was_noted(sent + NOTE_INTERVAL / 4, &id("c"));
    let soon = NOTE_INTERVAL / 4 + NOTE_DELAY - ms(1);
    let turn = sent + soon + ms(1);
    assert!(notes(&mut push, sent + soon, 2).is_empty());
    assert_eq!(
        noted(&notes(&mut push, turn, 2)),
        ["c"],
        "the end of the other link has not answered"
    );
    // An end that never stops keeps the other one waiting for one interval.
    passed_on(&mut push, turn + ms(1), &owner, 3, &id("a"));
    for n in 1..=500 {
        push.was_noted(turn + ms(n), &id("c"));
    }
    assert_eq!(noted(&notes(&mut push, turn + ms(1) + NOTE_INTERVAL, 3)), ["c", "d"]);
}

#[test]
fn a_peer_that_says_that_it_has_the_news_gets_neither_news_nor_note() {
    let (mut push, owner) = (usual(), id("owner"));
    for peer in ["b", "c"] {
        push.reaches(NOW, &id(peer), &owner, (LIFE, Version(1)));
    }
    let told = passed_on(&mut push, NOW, &owner, 1, &id("a"));
    assert!(told.is_empty(), "{told:?}");
    push.reaches(NOW, &id("d"), &owner, (LIFE, Version(1)));
    assert!(notes(&mut push, NOW + NOTE_INTERVAL, 1).is_empty());
}

#[test]
fn what_was_dropped_is_due_as_a_note_as_soon_as_the_link_has_room() {
    let (mut push, owner) = (usual(), id("owner"));
    assert_eq!(news_to(&passed_on(&mut push, NOW, &owner, 1, &id("a"))), ["b"]);
    push.congested(&id("b"), true);
    // The next one is owed, but after the dropped one it would not connect.
    passed_on(&mut push, NOW + Duration::from_millis(9), &owner, 2, &id("a"));
    push.shed(NOW, &id("b"), vec![owner.clone()]);
    let missed = push.congested(&id("b"), false);
    assert!(missed.owed.is_empty(), "{missed:?}");
    assert_eq!(missed.shed, BTreeSet::from([owner.clone()]));
    let told = passed_on(&mut push, NOW + Duration::from_millis(18), &owner, 2, &id("a"));
    assert_eq!(news_to(&told), ["b"], "the peer is not believed to have it");
}

#[test]
fn a_peer_whose_notes_are_dropped_too_is_sent_them_in_its_turn_and_not_in_a_circle() {
    let (mut push, owner) = (usual(), id("owner"));
    let mut now = NOW;
    for _ in 0..10 {
        push.shed(now, &id("b"), vec![owner.clone()]);
        let due = push.due(now).unwrap();
        assert!((now + FIRST_NOTE_DELAY..=now + NOTE_INTERVAL).contains(&due));
        assert_eq!(noted(&notes(&mut push, due, 1)), ["b"]);
        now = due;
    }
}

#[test]
fn no_more_owners_are_kept_for_a_full_link_than_a_note_can_name() {
    let mut push = usual();
    push.congested(&id("b"), true);
    for round in 0..3 {
        push.shed(NOW, &id("b"), (0..OWNERS_MAX).map(|n| id(&format!("o{round}-{n}"))).collect());
    }
    assert_eq!(push.congested(&id("b"), false).shed.len(), OWNERS_MAX);
}

#[test]
fn a_link_that_comes_back_is_noted_what_was_told_meanwhile() {
    let (mut push, owner) = (usual(), id("owner"));
    push.linked(NOW, id("c"), false);
    passed_on(&mut push, NOW, &owner, 1, &id("a"));
    notes(&mut push, NOW + NOTE_INTERVAL, 1);
    let back = NOW + NOTE_INTERVAL * 2;
    push.linked(back, id("c"), true);
    assert_eq!(noted(&notes(&mut push, back + NOTE_INTERVAL, 1)), ["c"]);
}

#[test]
fn a_congested_link_of_the_tree_is_owed_the_news_and_the_others_get_a_note_at_once() {
    let (mut push, owner) = (usual(), id("owner"));
    push.congested(&id("b"), true);
    let told = passed_on(&mut push, NOW, &owner, 1, &id("a"));
    assert_eq!(news_to(&told), [""; 0]);
    assert_eq!(told.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["c", "d"]);
    let missed = push.congested(&id("b"), false);
    assert_eq!(missed.owed.iter().map(|line| line.node.as_str()).collect::<Vec<_>>(), ["owner"]);
}

/// The links that get a flood by a time, and of how many updates.
fn floods(push: &mut Push, by: Time) -> BTreeMap<NodeId, usize> {
    let mut floods = BTreeMap::new();
    for peer in push.take_floods(by, NO_LAG).into_iter().flat_map(|(_, peers)| peers) {
        *floods.entry(peer).or_default() += 1;
    }
    floods
}

#[test]
fn a_flood_takes_the_tree_first_and_the_other_links_later_unless_their_ends_have_it() {
    let (mut push, owner) = (usual(), id("owner"));
    let told = relayed(&mut push, NOW, (&owner, 1), &id("a"), Mode::Flood);
    assert_eq!(news_to(&told), ["b"]);
    assert!(push.due(NOW).is_some_and(|due| due >= NOW + FIRST_FLOOD_DELAY), "it wakes for them");
    assert!(floods(&mut push, NOW).is_empty());
    push.repeated(NOW, &id("c"), &owner, (LIFE, Version(1)));
    let mut all = floods(&mut push, NOW + FIRST_FLOOD_DELAY);
    all.extend(floods(&mut push, NOW + FLOOD_DELAY));
    assert_eq!(all, BTreeMap::from([(id("d"), 1)]));
    assert_eq!(push.due(NOW), None);
}

#[test]
fn a_flood_waits_for_no_link_beside_a_broken_tree() {
    let mut push = usual();
    push.congested(&id("b"), true);
    let told = relayed(&mut push, NOW, (&id("owner"), 1), &id("a"), Mode::Flood);
    assert_eq!(news_to(&told), ["c", "d"]);
    assert!(floods(&mut push, NOW + FLOOD_DELAY).is_empty());
}

#[test]
fn a_flood_for_a_link_that_is_full_or_gone_by_then_is_owed_or_dropped() {
    let (mut push, owner) = (usual(), id("owner"));
    relayed(&mut push, NOW, (&owner, 1), &id("a"), Mode::Flood);
    push.congested(&id("c"), true);
    push.linked(NOW, id("d"), false);
    assert!(floods(&mut push, NOW + FLOOD_DELAY).is_empty());
    let missed = push.congested(&id("c"), false);
    assert_eq!(missed.owed.iter().map(|line| &line.node).collect::<Vec<_>>(), [&owner]);
}

#[test]
fn a_node_that_is_late_by_then_notes_what_it_has_not_flooded() {
    let (mut push, owner) = (usual(), id("owner"));
    relayed(&mut push, NOW, (&owner, 1), &id("a"), Mode::Flood);
    assert!(push.take_floods(NOW + FLOOD_DELAY, LATE).is_empty());
    let all = notes(&mut push, NOW + FLOOD_DELAY + NOTE_DELAY, 1);
    assert_eq!(noted(&all), ["c", "d"]);
}

#[test]
fn no_more_floods_wait_than_the_limit_and_further_ones_go_to_all_at_once() {
    let mut push = usual();
    let mut at_once = 0;
    // Slowly enough for the floods of one node to be relayed.
    for n in 0..2 * FLOODS_WAITING_MAX as u64 {
        let now = NOW + Duration::from_millis(20) * n as u32;
        let owner = id(&format!("owner-{n}"));
        let told = relayed(&mut push, now, (&owner, 1), &id("a"), Mode::Flood);
        at_once += u64::from(news_to(&told).len() == 3);
    }
    let waited = floods(&mut push, NOW + Duration::from_secs(60));
    assert!(waited.values().all(|count| *count <= FLOODS_WAITING_MAX), "{waited:?}");
    assert!(at_once >= FLOODS_WAITING_MAX as u64, "{at_once}");
}

#[test]
fn without_edges_news_goes_to_all() {
    let mut push = Push::new(NOW, id("me"), home(), Rules::default());
    ["a", "b", "c"].map(id).into_iter().for_each(|peer| push.linked(NOW, peer, true));
    let told = passed_on(&mut push, NOW, &id("owner"), 1, &id("a"));
    assert_eq!(news_to(&told), ["b", "c"]);
}

#[test]
fn what_was_noted_and_does_not_come_is_asked_for_and_then_noted_at_once() {
    let (mut push, owner) = (usual(), id("owner"));
    let have = Have { node: owner.clone(), generation: LIFE, version: Version(1) };
    push.heard_of(NOW, &id("c"), have, true, NO_LAG);
    let due = push.due(NOW).unwrap();
    assert!(due > NOW);
    let asked = push.overdue(due, &BTreeSet::from([owner.clone()]));
    assert_eq!(asked, BTreeMap::from([(id("c"), vec![owner.clone()])]));
    assert!(push.arrived(due, &id("c"), &update(&owner, 1), true), "on request");
}
