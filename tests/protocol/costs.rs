//! What news costs whoever is told it: counted, since times depend on the machine.

use std::sync::Arc;

use gossipmonger::{
    protocol::{
        bulk::PULL_BYTES_PER_SECOND_MIN,
        delta::{Delta, DeltaEntry, NodeDelta, TURN_NODES_MAX},
        digest::{Digest, DigestEntry},
        exchange::Ask,
        gossip::{Accusation, Ask as Question, Equivocation, Gossip, Removal, SignedHead, Wave},
        id::{Generation, Incarnation, Version},
        map::Refusal,
        overlay::ring_neighbours,
        questions::Questions,
        replica::{
            ACCUSATIONS_SAVED_MAX, LIVES_PER_MINUTE, LIVES_SAVED_MAX, Replica, ReplicaConfig,
            VERDICTS_SAVED_MAX, WAVES_PER_PEER,
        },
        route::{Counter, DetectorInput, Output, StorageInput, TransportInput},
        seal::{Seal, Seals, Signature, Signing},
        tree::Hash,
        verdict::{INCARNATION_MAX, Level, Verdict},
    },
    store::Stored,
};

use crate::{
    notary::TestNotary,
    support::{
        at, config, exchange, news, node, record, replica, seen, set, start, told, tombstone, value,
    },
};

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

// --- one frame, one turn

/// What is counted in `out`.
fn counted(out: &[Output], counter: Counter) -> u64 {
    let counts = out.iter().filter_map(|output| match output {
        Output::Count(of, times) if *of == counter => Some(*times),
        _ => None,
    });
    counts.sum()
}

/// What is held against a peer in `out`.
fn held_against(out: &[Output], who: &str) -> u32 {
    let prices = out.iter().filter_map(|output| match output {
        Output::Transport(TransportInput::HoldAgainst { peer, price, .. })
            if *peer == node(who) =>
        {
            Some(*price)
        }
        _ => None,
    });
    prices.sum()
}

fn serve(reader: &mut Replica, from: &str, ask: Ask) -> Vec<Output> {
    let mut out = Vec::new();
    reader.serve(at(1), &node(from), ask, &mut out);
    out
}

fn gossip(reader: &mut Replica, from: &str, gossip: Gossip) -> Vec<Output> {
    serve(reader, from, Ask::Gossip(vec![gossip]))
}

fn signing(name: &str) -> Replica {
    let mut replica = replica(name);
    seal(&mut replica);
    replica
}

fn seal(replica: &mut Replica) {
    let notary = Arc::new(TestNotary::new(1));
    replica.set_seals(Some(Seals { notary, signing: Signing::Require }));
}

/// Introductions of so many nodes, each with a signature that is wrong.
fn forged(count: usize) -> Delta {
    let mut owner = signing("v");
    set(&mut owner, "color", "green");
    let digest = Digest { entries: vec![DigestEntry::unknown(node("v"))] };
    let (_, mut told) = owner.answer(at(1), &node("z"), &digest, &mut Vec::new());
    let mut one = told.nodes.pop().unwrap();
    one.sealed.as_mut().unwrap().seal.signature = Signature([7; 64]);
    let named = |n| NodeDelta { node: node(&format!("n{n}")), ..one.clone() };
    Delta { nodes: (0..count).map(named).collect(), more: false }
}

#[test]
fn no_turn_verifies_more_than_so_many_signatures_whatever_a_frame_holds() {
    let count = 1_000;
    let asks: [fn(Delta) -> Ask; 4] = [
        |delta| Ask::Gossip(vec![Gossip::Push(delta)]),
        |delta| Ask::Apply { delta: Arc::new(delta) },
        |delta| Ask::Merge { wants: Digest::default(), delta: Arc::new(delta) },
        |delta| Ask::Take { delta: Arc::new(delta) },
    ];
    for ask in asks {
        let (mut reader, mut all) = (signing("m"), 0);
        for turn in ask(forged(count)).turns() {
            let out = serve(&mut reader, "x", turn);
            let verified = counted(&out, Counter::SealsVerified);
            assert!(verified <= TURN_NODES_MAX as u64, "{verified} in one turn");
            // Each of it was in vain, and is held against the one who sent it.
            let price = u64::from(held_against(&out, "x"));
            assert_eq!(price, verified * u64::from(Refusal::Forged.price()));
            all += verified;
        }
        assert_eq!(all, count as u64);
    }
}

#[test]
fn a_turn_takes_all_of_an_honest_delta_and_parts_of_no_nodes_news() {
    let delta = |nodes: u64, entries: u64| {
        let entries: Vec<_> = (1..=entries).map(|n| value(&format!("k{n}"), n, "v")).collect();
        let one = |n| NodeDelta { entries: entries.clone(), ..news(&format!("n{n}"), 0, KEYS, 0) };
        Delta { nodes: (0..nodes).map(one).collect(), more: true }
    };
    for (nodes, entries, turns) in
        [(0, 0, 1), (1, 100_000, 1), (32, 10, 1), (33, 10, 2), (4, 3_000, 2)]
    {
        let whole = delta(nodes, entries);
        let parts = whole.clone().turns();
        assert_eq!(parts.len(), turns, "{nodes} nodes of {entries}");
        assert!(parts.iter().all(|part| part.more));
        let joined: Vec<_> = parts.into_iter().flat_map(|part| part.nodes).collect();
        assert_eq!(joined, whole.nodes);
    }
}

#[test]
fn evidence_that_proves_nothing_is_held_against_who_shows_it() {
    let (mut owner, mut reader) = (signing("v"), signing("m"));
    set(&mut owner, "color", "green");
    exchange(&mut reader, &mut owner, at(1));
    let (own, seal) = (owner.own(), owner.own().signed().unwrap().seal);
    let head = |root| SignedHead {
        ancestry: Vec::new(),
        gc_floor: own.gc_floor(),
        torn: own.torn(),
        record: None,
        seal: Seal { root, ..seal },
    };
    let heads = [head(seal.root), head(Hash([7; 32]))];
    let evidence = Equivocation { node: node("v"), generation: own.generation(), heads };
    let out = gossip(&mut reader, "x", Gossip::Equivocation(Box::new(evidence)));
    assert_eq!(held_against(&out, "x"), Refusal::Forged.price());
    assert_eq!(counted(&out, Counter::Equivocations), 0);
}

#[test]
fn news_that_lost_a_race_is_held_against_nobody() {
    let mut reader = large();
    let gap = NodeDelta { record: None, ..news("x", KEYS + 5, KEYS + 6, 0) };
    for news in [gap, NodeDelta { generation: Generation(1), ..news("x", 0, 1, 0) }] {
        let out = told(&mut reader, "y", news);
        assert_eq!(counted(&out, Counter::NewsRefused), 1);
        assert_eq!(held_against(&out, "y"), 0);
    }
}

// --- what floods

#[test]
fn takes_up_no_more_lives_of_a_node_in_a_minute_than_so_many() {
    let mut reader = replica("m");
    told(&mut reader, "x", news("x", 0, 1, 0));
    let life = |n: u64| NodeDelta { generation: Generation(1_000 + n), ..news("x", 0, 1, 0) };
    let mut shed = 0;
    for n in 1..=200 {
        shed += counted(&told(&mut reader, "y", life(n)), Counter::LivesShed);
    }
    assert_eq!(200 - shed, u64::from(LIVES_SAVED_MAX));
    // It comes again with an exchange, and is taken once there is room; others are not concerned.
    let mut out = Vec::new();
    let delta = Delta { nodes: vec![life(200)], more: false };
    let later = at(1 + 60 / u64::from(LIVES_PER_MINUTE));
    reader.apply(later, &node("y"), &delta, &mut out);
    assert_eq!(counted(&out, Counter::LivesShed), 0);
    assert_eq!(reader.copy(&node("x")).unwrap().generation(), Generation(1_200));
    assert_eq!(counted(&told(&mut reader, "y", news("z", 0, 1, 0)), Counter::LivesShed), 0);
}

#[test]
fn lives_that_others_make_up_keep_no_node_from_its_own() {
    let (mut owner, mut reader) = (signing("v"), signing("m"));
    set(&mut owner, "color", "green");
    exchange(&mut reader, &mut owner, at(1));
    let digest = Digest { entries: vec![DigestEntry::unknown(node("v"))] };
    let (_, mut told_of) = owner.answer(at(1), &node("z"), &digest, &mut Vec::new());
    let real = told_of.nodes.pop().unwrap();
    for n in 0..4 * u64::from(LIVES_SAVED_MAX) {
        let made_up = NodeDelta { generation: Generation(2_000 + n), ..real.clone() };
        let out = told(&mut reader, "x", made_up);
        assert_eq!(
            (counted(&out, Counter::NewsRefused), counted(&out, Counter::LivesShed)),
            (1, 0)
        );
    }
    // The node was started again.
    let mut stored = Stored::default();
    stored.head.generation = owner.own().generation();
    let mut again = start(config("v"), stored);
    seal(&mut again);
    exchange(&mut reader, &mut again, at(2));
    assert_eq!(reader.copy(&node("v")).unwrap().generation(), Generation(1_001));
}

#[test]
fn one_frame_of_verdicts_makes_no_more_than_so_many_nodes_refute() {
    let count = 3 * VERDICTS_SAVED_MAX;
    let mut reader = start(ReplicaConfig { peers_max: 10_000, ..config("m") }, Stored::default());
    let mut out = Vec::new();
    let introduced = (0..count).map(|n| news(&format!("n{n}"), 0, 1, 0)).collect();
    reader.apply(at(1), &node("y"), &Delta { nodes: introduced, more: false }, &mut out);
    let dead = Verdict { level: Level::Dead, ..Verdict::default() };
    let judged =
        |n: u32| NodeDelta { record: None, verdict: dead, ..news(&format!("n{n}"), 0, 0, 0) };
    let frame = || Delta { nodes: (0..count).map(judged).collect(), more: false };
    let out = gossip(&mut reader, "x", Gossip::Push(frame()));
    let dead_now = |reader: &Replica| {
        reader.peers().filter(|(_, copy)| copy.verdict().level == Level::Dead).count()
    };
    assert_eq!(dead_now(&reader), VERDICTS_SAVED_MAX as usize);
    assert_eq!(counted(&out, Counter::VerdictsShed), u64::from(count - VERDICTS_SAVED_MAX));
    // What another one tells is not its debt.
    gossip(&mut reader, "z", Gossip::Push(frame()));
    assert_eq!(dead_now(&reader), 2 * VERDICTS_SAVED_MAX as usize);
}

/// What `x` says at this second about `m`: dead in the last incarnation there is.
fn called_dead(reader: &mut Replica, seconds: u64) -> Vec<Output> {
    let (subject, generation) = (node("m"), reader.own().generation());
    let removal = Removal { subject, generation, incarnation: INCARNATION_MAX };
    let mut out = Vec::new();
    let gossip = Ask::Gossip(vec![Gossip::Removal(removal)]);
    reader.serve(at(seconds), &node("x"), gossip, &mut out);
    out
}

#[test]
fn nobody_forces_a_node_that_signs_into_another_incarnation_or_life() {
    let mut reader = signing("m");
    let before = (reader.own().generation(), reader.own().max_version());
    for seconds in 1..60 {
        let out = called_dead(&mut reader, seconds);
        assert_eq!(counted(&out, Counter::ClaimsUnproved), 1);
    }
    assert_eq!((reader.own().generation(), reader.own().max_version()), before);
}

#[test]
fn a_node_is_forced_into_fewer_lives_than_others_take_up() {
    let mut reader = replica("m");
    let lives = |reader: &Replica| reader.own().generation();
    let mut forced = 0;
    for seconds in 1..=600 {
        let before = lives(&reader);
        called_dead(&mut reader, seconds);
        forced += u32::from(lives(&reader) != before);
    }
    assert_eq!(forced, 60);
    assert!(forced < 10 * LIVES_PER_MINUTE);
}

#[test]
fn accusations_of_one_peer_are_passed_on_so_often_and_those_of_another_as_well() {
    let mut reader = replica("m");
    for link in ["x", "z"] {
        reader.handle(at(1), StorageInput::Linked(node(link), true), &mut Vec::new());
    }
    const NODES: u32 = 20;
    let count = ACCUSATIONS_SAVED_MAX + 10;
    let introduced = (0..NODES).map(|n| news(&format!("n{n}"), 0, 1, 0)).collect();
    reader.apply(at(1), &node("y"), &Delta { nodes: introduced, more: false }, &mut Vec::new());
    let observers = |n: u32| -> Vec<_> {
        let subject = node(&format!("n{n}"));
        let fellows = (0..NODES).filter(|other| *other != n);
        let all: Vec<_> =
            fellows.map(|other| node(&format!("n{other}"))).chain([node("m")]).collect();
        ring_neighbours(&subject, all.iter(), 1).into_iter().cloned().collect()
    };
    let observers = [observers(0), observers(1)];
    let accuse = |reader: &mut Replica, from: &str, n: usize, incarnation: u64| {
        let (subject, observers) = (node(&format!("n{n}")), observers[n].clone());
        let verdict = Verdict { incarnation: Incarnation(incarnation), level: Level::Suspect };
        let generation = Generation(1_000);
        let accusation = Accusation { subject, generation, verdict, observers };
        gossip(reader, from, Gossip::Accusation(accusation))
    };
    let mut refused = 0;
    for incarnation in 1..=count {
        let out = accuse(&mut reader, "x", 0, incarnation.into());
        refused += counted(&out, Counter::AccusationsRefused);
    }
    assert_eq!(refused, 10);
    let out = accuse(&mut reader, "z", 1, 1);
    assert_eq!(counted(&out, Counter::AccusationsRefused), 0, "that is not its debt");
}

#[test]
fn waves_of_one_peer_leave_room_for_those_of_another() {
    let mut reader = replica("m");
    let wave = |reader: &mut Replica, from: &str, id: u64| {
        let origin = node(from);
        let (generation, version) = (Generation(1), Version(1));
        let wave = Wave { origin, id, generation, version, patience_ms: 1_000 };
        counted(&gossip(reader, from, Gossip::Wave(wave)), Counter::WavesShed)
    };
    let shed: u64 = (0..u64::from(2 * WAVES_PER_PEER)).map(|id| wave(&mut reader, "x", id)).sum();
    assert_eq!(shed, u64::from(WAVES_PER_PEER));
    assert_eq!(wave(&mut reader, "z", 1), 0);
}

#[test]
fn a_question_in_the_name_of_another_hides_none_of_its_own() {
    let mut reader = replica("m");
    for name in ["subject", "asker", "x"] {
        told(&mut reader, name, news(name, 0, 1, 0));
    }
    let question = |round| {
        let (subject, generation) = (node("subject"), Generation(1_000));
        Question { subject, generation, asker: node("asker"), round }
    };
    for round in [u64::MAX, 0, 1] {
        gossip(&mut reader, "x", Gossip::Ask(question(round)));
    }
    let true_one = question(77);
    let out = gossip(&mut reader, "asker", Gossip::Ask(true_one.clone()));
    let asked = |output: &Output| matches!(output, Output::Detector(DetectorInput::Asked(ask, _)) if *ask == true_one);
    assert!(out.iter().any(asked), "{out:?}");
    let mut out = Vec::new();
    reader.handle(at(1), StorageInput::Answer(true_one.clone(), true), &mut out);
    let answers = |output: &Output| {
        matches!(output, Output::Transport(TransportInput::Gossip { to, gossip })
            if *to == [node("asker")] && matches!(&**gossip, Gossip::Answer(_)))
    };
    assert!(out.iter().any(answers), "{out:?}");
}

#[test]
fn nobody_who_has_seen_the_numbers_of_questions_knows_the_next_one() {
    let numbers = |key: u8| {
        let mut questions = Questions::new(at(1));
        questions.set_key([key; 32]);
        (0..3).map(|_| questions.ask(node("subject"), Generation(1))).collect::<Vec<_>>()
    };
    assert_eq!(numbers(1), numbers(1));
    let shared = numbers(1).into_iter().filter(|number| numbers(2).contains(number));
    assert_eq!(shared.count(), 0, "without the key");
}

// --- what is asked for

#[test]
fn asks_for_no_more_unknown_nodes_than_it_may_know() {
    let mut reader = replica("m");
    told(&mut reader, "x", news("x", 0, 1, 0));
    let line = |n| DigestEntry {
        generation: Generation(1),
        max_version: Version(1),
        ..DigestEntry::unknown(node(&format!("n{n:06}")))
    };
    let mut entries: Vec<_> = (0..20_000).map(line).collect();
    // One that is known, behind all of them.
    let known = DigestEntry { generation: Generation(2_000), ..DigestEntry::unknown(node("x")) };
    entries.push(known);
    let digest = Digest { entries };
    let (wants, _) = reader.answer(at(2), &node("y"), &digest, &mut Vec::new());
    assert_eq!(wants.entries.len(), config("m").peers_max);
    assert_eq!(wants.entries.last().unwrap().node, node("x"));
}

#[test]
fn a_graft_of_a_peer_that_does_not_take_what_it_is_told_is_not_cut_for_it() {
    let mut reader = large();
    let link = |input| {
        let mut out = Vec::new();
        move |reader: &mut Replica| {
            reader.handle(at(1), input, &mut out);
            out
        }
    };
    link(StorageInput::Linked(node("y"), true))(&mut reader);
    link(StorageInput::Congested(node("y"), true))(&mut reader);
    let graft = || Gossip::Graft(vec![DigestEntry::unknown(node("x")); 1_000]);
    let pushed = |out: &[Output]| {
        let pushes = out.iter().filter_map(|output| match output {
            Output::Transport(TransportInput::Gossip { gossip, .. }) => match &**gossip {
                Gossip::Push(delta) => Some(delta.nodes.len()),
                _ => None,
            },
            _ => None,
        });
        pushes.sum::<usize>()
    };
    assert_eq!(pushed(&gossip(&mut reader, "y", graft())), 0);
    let out = link(StorageInput::Congested(node("y"), false))(&mut reader);
    assert_eq!(pushed(&out), 1, "it is told once there is room");
    assert_eq!(pushed(&gossip(&mut reader, "y", graft())), 1, "each node once");
}

#[test]
fn a_pull_that_drips_is_given_up_and_others_are_pulled_from_first() {
    let mut reader = replica("m");
    let pulls =
        |reader: &mut Replica, now, from: &str| reader.pull(now, &node(from), None).is_some();
    let part = |n: u64| Delta {
        nodes: vec![NodeDelta { entries: vec![value("k", n + 1, "v")], ..news("x", n, n + 1, 0) }],
        more: true,
    };
    assert!(pulls(&mut reader, at(1), "x"));
    let mut goes_on = Vec::new();
    for n in 0..4 {
        let now = at(1 + 4 * n);
        goes_on.push(reader.take(now, &node("x"), &part(n), &mut Vec::new()));
        assert!(n > 2 || !pulls(&mut reader, now, "y"), "one at a time");
    }
    assert_eq!(goes_on, [true, true, true, false]);
    assert!(!pulls(&mut reader, at(14), "x"), "it was too slow");
    assert!(pulls(&mut reader, at(14), "y"));
}

#[test]
fn a_pull_over_a_thin_path_goes_on() {
    let mut reader = replica("m");
    assert!(reader.pull(at(1), &node("x"), None).is_some());
    let bytes = "v".repeat(2 * PULL_BYTES_PER_SECOND_MIN);
    for n in 0..60 {
        let entries = vec![value(&format!("k{n}"), n + 1, &bytes)];
        let nodes = vec![NodeDelta { entries, ..news("x", n, n + 1, 0) }];
        let news = Delta { nodes, more: true };
        assert!(reader.take(at(1 + n), &node("x"), &news, &mut Vec::new()), "after {n} s");
        assert!(!reader.take(at(1 + n), &node("y"), &Delta::default(), &mut Vec::new()));
    }
}

#[test]
fn a_peer_that_asks_again_for_more_than_fits_gets_its_exchange_later_and_not_never() {
    let (mut owner, graft) = owner_of_much();
    let asks = |owner: &mut Replica| gossip(owner, "y", Gossip::Graft(vec![graft.clone()]));
    let out = asks(&mut owner);
    assert!(begins(&out), "{out:?}");
    assert!(!begins(&asks(&mut owner)), "it asks as often as it likes");
    let mut out = Vec::new();
    owner.handle(at(2), StorageInput::Tick, &mut out);
    assert!(begins(&out), "{out:?}");
}

#[test]
fn a_peer_that_was_sent_all_gets_its_next_exchange_at_once() {
    let (mut owner, graft) = owner_of_much();
    let asks = |owner: &mut Replica| gossip(owner, "y", Gossip::Graft(vec![graft.clone()]));
    assert!(begins(&asks(&mut owner)));
    let mut theirs = Digest { entries: vec![graft.clone()] };
    for _ in 0..100 {
        let (reached, delta) = owner.feed(at(1), &node("y"), theirs, false);
        if !delta.more {
            assert!(begins(&asks(&mut owner)));
            return;
        }
        theirs = reached;
    }
    panic!("it never ends");
}

/// A node with more keys than fit one delta, linked with `y`, and the line of a peer that has none of them.
fn owner_of_much() -> (Replica, DigestEntry) {
    let mut owner = replica("m");
    let value = "v".repeat(1_000);
    for n in 0..200 {
        set(&mut owner, &format!("k{n}"), &value);
    }
    owner.handle(at(1), StorageInput::Linked(node("y"), true), &mut Vec::new());
    (owner, DigestEntry::unknown(node("m")))
}

fn begins(out: &[Output]) -> bool {
    let begins =
        |output: &Output| matches!(output, Output::Transport(TransportInput::Round { .. }));
    out.iter().any(begins)
}
