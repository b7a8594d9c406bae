//! Nodes that start, restart, leave, are removed, or find somebody else under their name.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        claim::{ANSWER_STEP, HEARSAY_AHEAD_MAX_MS, HEARSAY_LIVES_MAX, Heard},
        delta::{Delta, NodeDelta},
        digest::{Digest, DigestEntry},
        event::{Event, Problem},
        exchange::Ask,
        gossip::{Gossip, Removal},
        id::{Generation, Incarnation, NodeId, Version},
        record::Status,
        replica::{Replica, ReplicaConfig},
        route::{Counter, DetectorInput, Output, StorageInput, TransportInput},
        seal::{Seals, Signing},
        verdict::{Level, Verdict},
        write::Write,
    },
    store::{Change, KnownPeer, Stored, StoredEntry},
};

use crate::{
    notary::TestNotary,
    support::{
        at, config, exchange, news, node, record, replica, seen, set, start, told, told_at, value,
        write,
    },
};

/// What a store holds of a node now.
pub(crate) fn stored(replica: &Replica) -> Stored {
    let mut stored = Stored::default();
    let own = replica.own();
    stored.head.generation = own.generation();
    stored.head.max_version = own.max_version();
    stored.head.gc_floor = own.gc_floor();
    stored.head.ancestry = own.ancestry().to_vec();
    for (key, entry) in own.entries() {
        let value = entry.visible(at(0)).cloned();
        let entry = StoredEntry { version: entry.version, value, expires: None };
        stored.entries.insert(key.clone(), entry);
    }
    stored
}

fn stops(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Stop(Problem::Displaced { .. })))
}

fn conflicts(out: &[Output]) -> usize {
    let conflict = |output: &&Output| {
        matches!(output, Output::Event(Event::Error(Problem::NameConflict { .. })))
    };
    out.iter().filter(conflict).count()
}

// C32
#[test]
fn a_remote_write_is_told_with_its_owner_and_version() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    let version = set(&mut owner, "key", "1");
    let outcome = exchange(&mut owner, &mut reader, at(1));
    let updated = Event::Updated {
        peer: node("owner"),
        key: "key".into(),
        value: "1".into(),
        generation: owner.own().generation(),
        version,
    };
    assert_eq!(outcome.events(1).iter().filter(|event| ***event == updated).count(), 1);
    let again = exchange(&mut owner, &mut reader, at(1));
    assert_eq!(again.events(1), Vec::<&Event>::new());
}

// C46
#[test]
fn a_restart_wins_at_once_and_carries_its_copies_over() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    (0..100).for_each(|n| {
        set(&mut owner, &format!("k{n}"), "1");
    });
    exchange(&mut owner, &mut reader, at(1));
    let old = owner.own().generation();
    let mut owner = start(config("owner"), stored(&owner));
    set(&mut owner, "new", "1");
    let outcome = exchange(&mut reader, &mut owner, at(2));
    let copy = reader.copy(&node("owner")).unwrap();
    assert!(copy.generation() > old, "although the clock stood still");
    assert_eq!(copy.entries(), owner.own().entries());
    assert_eq!(outcome.entries, 1, "what is known already is not sent again");
}

// C46
#[test]
fn a_write_that_was_told_and_then_lost_in_a_crash_is_forgotten() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "kept", "1");
    let disk = stored(&owner);
    set(&mut owner, "lost", "1");
    exchange(&mut owner, &mut reader, at(1));
    assert_eq!(seen(&reader, "owner", "lost", at(1)).unwrap(), "1");
    let mut owner = start(config("owner"), disk);
    let outcome = exchange(&mut reader, &mut owner, at(2));
    assert_eq!(seen(&reader, "owner", "lost", at(2)), None);
    assert_eq!(seen(&reader, "owner", "kept", at(2)).unwrap(), "1");
    let gone =
        |event: &&&Event| matches!(event, Event::Deleted { key, .. } if key.as_str() == "lost");
    assert_eq!(outcome.events(0).iter().filter(gone).count(), 1, "and that is told");
}

// C47
#[test]
fn a_restart_at_another_address_is_known_there() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    exchange(&mut owner, &mut reader, at(1));
    let moved = ReplicaConfig { record: record("elsewhere:9"), ..config("owner") };
    let mut owner = start(moved, stored(&owner));
    exchange(&mut owner, &mut reader, at(2));
    let copy = reader.copy(&node("owner")).unwrap();
    assert_eq!(copy.record().unwrap().addresses, ["elsewhere:9"]);
}

// C45
#[test]
fn who_left_comes_back_with_other_tags() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    owner.set_status(at(0), Status::Left, &mut Vec::new());
    exchange(&mut owner, &mut reader, at(1));
    assert_eq!(reader.copy(&node("owner")).unwrap().record().unwrap().status, Status::Left);
    let mut again = config("owner");
    again.record.tags = BTreeMap::from([("role".into(), "worker".into())]);
    let mut owner = start(again, stored(&owner));
    let outcome = exchange(&mut owner, &mut reader, at(2));
    let record = reader.copy(&node("owner")).unwrap().record().unwrap().clone();
    assert_eq!((record.status, record.tags["role"].as_str()), (Status::Up, "worker"));
    let up = |output: &Output| {
        matches!(output, Output::Detector(DetectorInput::Member { status: Status::Up, .. }))
    };
    assert!(outcome.outputs[1].iter().any(up));
}

// C49
#[test]
fn who_left_or_died_is_not_introduced_to_others() {
    let mut relay = replica("relay");
    told(&mut relay, "live", news("live", 0, 1, 0));
    told(&mut relay, "dead", news("dead", 0, 1, 0));
    let mut left = news("left", 0, 1, 0);
    left.record.as_mut().unwrap().1.status = Status::Left;
    told(&mut relay, "left", left);
    let dead = Verdict { incarnation: Incarnation::ZERO, level: Level::Dead };
    let accuse = StorageInput::Accuse(node("dead"), Generation(1_000), dead, [].into());
    relay.handle(at(1), accuse, &mut Vec::new());
    let mut new = replica("new");
    exchange(&mut new, &mut relay, at(1));
    exchange(&mut relay, &mut new, at(1));
    let known: Vec<_> = new.peers().map(|(peer, _)| peer.as_str()).collect();
    assert_eq!(known, ["live", "relay"]);
    // Whoever knows it hears what is new, and when it is back everybody does.
    told(&mut relay, "dead", news("dead", 1, 3, 0));
    let mut old = replica("old");
    told(&mut old, "dead", news("dead", 0, 1, 0));
    exchange(&mut old, &mut relay, at(1));
    assert_eq!(old.copy(&node("dead")).unwrap().max_version(), Version(3));
    let mut refuted = news("dead", 3, 4, 0);
    let (version, record) = refuted.record.as_mut().unwrap();
    (*version, record.incarnation) = (Version(4), Incarnation(1));
    told(&mut relay, "dead", refuted);
    exchange(&mut new, &mut relay, at(1));
    assert!(new.copy(&node("dead")).is_some());
}

// C57 C51
#[test]
fn who_was_forgotten_comes_back_only_by_itself_or_in_a_new_life() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    let mut out = Vec::new();
    reader.handle(at(1), StorageInput::Forget(node("owner"), Generation(1_000)), &mut out);
    assert!(out.iter().any(|o| matches!(o, Output::Event(Event::PeerForgotten { .. }))));
    told(&mut reader, "relay", news("owner", 0, 9, 0));
    assert!(reader.copy(&node("owner")).is_none(), "hearsay");
    let line = DigestEntry { generation: Generation(1_000), ..DigestEntry::unknown(node("owner")) };
    let offer = Digest { entries: vec![line] };
    let (wants, _) = reader.answer(at(1), &node("relay"), &offer, &mut Vec::new());
    assert_eq!(wants.entries, [], "nor is it asked for");
    let mut restarted = news("owner", 0, 1, 0);
    restarted.generation = Generation(1_001);
    told(&mut reader, "relay", restarted);
    assert!(reader.copy(&node("owner")).is_some(), "a new life");

    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    reader.handle(at(1), StorageInput::Forget(node("owner"), Generation(1_000)), &mut Vec::new());
    // It speaks for itself, and hears that it was forgotten.
    let out = told(&mut reader, "owner", news("owner", 0, 9, 0));
    assert_eq!(removals(&out), [(vec![node("owner")], removal("owner", 0))]);
    let mut refuted = news("owner", 0, 9, 0);
    refuted.record.as_mut().unwrap().1.incarnation = Incarnation(1);
    told(&mut reader, "owner", refuted);
    assert!(reader.copy(&node("owner")).is_some(), "it has refuted that");
}

#[test]
fn who_lost_its_store_and_has_a_clock_behind_is_known_again_when_it_speaks_for_itself() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    reader.handle(at(1), StorageInput::Forget(node("owner"), Generation(1_000)), &mut Vec::new());
    let early = || NodeDelta { generation: Generation(900), ..news("owner", 0, 2, 0) };
    told(&mut reader, "relay", early());
    assert!(reader.copy(&node("owner")).is_none(), "hearsay");
    told(&mut reader, "owner", early());
    assert!(reader.copy(&node("owner")).is_some());
}

// C51
#[test]
fn no_relay_brings_back_the_last_life_of_one_that_was_forgotten_or_removed() {
    let remove_owner = StorageInput::Remove { peer: node("owner"), by: None };
    for gone in [StorageInput::Forget(node("owner"), Generation(1_000)), remove_owner] {
        let mut reader = replica("reader");
        told(&mut reader, "owner", news("owner", 0, 5, 0));
        reader.handle(at(1), gone.clone(), &mut Vec::new());
        // Ten minutes, an hour, a week later, again and again.
        for later in [602, 3_600, 86_400, 7 * 86_400] {
            reader.handle(at(later), StorageInput::Tick, &mut Vec::new());
            told_at(&mut reader, at(later), "relay", news("owner", 0, 9, 0));
            assert!(reader.copy(&node("owner")).is_none(), "{gone:?}: back after {later} s");
            // The verdict that comes with news is not signed.
            let mut raised = news("owner", 0, 9, 0);
            raised.verdict = Verdict::alive(Incarnation(7));
            told_at(&mut reader, at(later), "relay", raised);
            assert!(reader.copy(&node("owner")).is_none(), "{gone:?}: back by a raised verdict");
        }
    }
}

/// What it tells that somebody was removed, and whom.
fn removals(out: &[Output]) -> Vec<(Vec<NodeId>, Removal)> {
    let removal = |output: &Output| match output {
        Output::Transport(TransportInput::Gossip { to, gossip }) => match &**gossip {
            Gossip::Removal(removal) => Some((to.clone(), removal.clone())),
            _ => None,
        },
        _ => None,
    };
    out.iter().filter_map(removal).collect()
}

fn remove(replica: &mut Replica, name: &str) -> Vec<Output> {
    let mut out = Vec::new();
    replica.handle(at(1), StorageInput::Remove { peer: node(name), by: None }, &mut out);
    out
}

fn removal(name: &str, incarnation: u64) -> Removal {
    let (subject, generation) = (node(name), Generation(1_000));
    Removal { subject, generation, incarnation: Incarnation(incarnation) }
}

fn hear(replica: &mut Replica, from: &str, removal: Removal) -> Vec<Output> {
    let mut out = Vec::new();
    let gossip = Box::new(Gossip::Removal(removal));
    replica.handle(at(2), StorageInput::Gossip(node(from), gossip), &mut out);
    out
}

// C51
#[test]
fn a_removal_is_told_to_all_and_to_whoever_still_knows_the_removed() {
    let mut reader = replica("reader");
    reader.handle(at(1), StorageInput::Linked(node("relay"), true), &mut Vec::new());
    told(&mut reader, "relay", news("owner", 0, 5, 0));
    let out = remove(&mut reader, "owner");
    assert_eq!(removals(&out), [(vec![node("relay")], removal("owner", 0))]);
    assert!(out.iter().any(|o| matches!(o, Output::Event(Event::PeerForgotten { .. }))));
    // One who was away tells of it, by news or in a digest.
    let out = told(&mut reader, "late", news("owner", 0, 9, 0));
    assert!(reader.copy(&node("owner")).is_none());
    assert_eq!(removals(&out), [(vec![node("late")], removal("owner", 0))]);
    let line = DigestEntry { generation: Generation(1_000), ..DigestEntry::unknown(node("owner")) };
    let mut out = Vec::new();
    let (wants, _) = reader.answer(at(1), &node("late"), &Digest { entries: vec![line] }, &mut out);
    assert_eq!(wants.entries, []);
    assert_eq!(removals(&out), [(vec![node("late")], removal("owner", 0))]);
}

// C51 C57
#[test]
fn the_removed_is_back_only_when_it_has_refuted_that_or_lives_anew() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    remove(&mut reader, "owner");
    let out = told(&mut reader, "owner", news("owner", 0, 9, 0));
    assert!(reader.copy(&node("owner")).is_none(), "it does not know yet");
    assert_eq!(removals(&out), [(vec![node("owner")], removal("owner", 0))]);
    let mut refuted = news("owner", 0, 9, 0);
    refuted.verdict = Verdict::alive(Incarnation(1));
    refuted.record.as_mut().unwrap().1.incarnation = Incarnation(1);
    told(&mut reader, "relay", refuted);
    assert!(reader.copy(&node("owner")).is_some(), "by whatever way");

    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    remove(&mut reader, "owner");
    let anew = NodeDelta { generation: Generation(1_001), ..news("owner", 0, 1, 0) };
    told(&mut reader, "relay", anew);
    assert!(reader.copy(&node("owner")).is_some());
}

// C51 C56
#[test]
fn who_lives_refutes_its_removal() {
    let mut owner = replica("owner");
    assert_eq!(owner.own().generation(), Generation(1_000));
    hear(&mut owner, "relay", removal("owner", 0));
    assert_eq!(owner.own().record().unwrap().incarnation, Incarnation(1));
    hear(&mut owner, "relay", removal("owner", 0));
    assert_eq!(owner.own().record().unwrap().incarnation, Incarnation(1), "it was refuted");
}

// C51
#[test]
fn a_node_that_is_back_in_an_earlier_life_is_told_of_its_removal_and_not_judged_for_it() {
    // Its store was lost and its clock is behind: the others have marked a later life.
    let mut relay = replica("relay");
    relay.handle(at(1), StorageInput::Linked(node("owner"), true), &mut Vec::new());
    let early = NodeDelta { generation: Generation(10), ..news("owner", 0, 5, 0) };
    told(&mut relay, "owner", early);
    for _ in 0..3 {
        let out = hear(&mut relay, "marked", removal("owner", 0));
        assert_eq!(removals(&out), [(vec![node("owner")], removal("owner", 0))]);
        assert_eq!(relay.copy(&node("owner")).unwrap().verdict(), Verdict::default());
    }
}

// C51
#[test]
fn whether_a_removal_is_followed_is_the_detectors_to_say() {
    let mut reader = replica("reader");
    told(&mut reader, "owner", news("owner", 0, 5, 0));
    let asks = |out: &[Output]| {
        let (peer, by) = (node("owner"), node("relay"));
        let asked = DetectorInput::Removal { peer, generation: Generation(1_000), by };
        out.iter().any(|o| matches!(o, Output::Detector(input) if *input == asked))
    };
    assert!(asks(&hear(&mut reader, "relay", removal("owner", 0))));
    assert!(reader.copy(&node("owner")).is_some());
    let earlier = Removal { generation: Generation(999), ..removal("owner", 0) };
    assert!(!asks(&hear(&mut reader, "relay", earlier)), "an earlier life");
    let mut refuted = news("owner", 5, 9, 0);
    refuted.verdict = Verdict::alive(Incarnation(1));
    told(&mut reader, "owner", refuted);
    assert!(!asks(&hear(&mut reader, "relay", removal("owner", 0))), "it was refuted");
    assert!(hear(&mut reader, "relay", removal("stranger", 0)).is_empty());
}

/// What the detector is told is thought of the owner, last.
fn level_of_owner(out: &[Output]) -> Option<Level> {
    let level = |output: &Output| match output {
        Output::Detector(DetectorInput::Member { peer, verdict, .. }) if *peer == node("owner") => {
            Some(verdict.level)
        }
        _ => None,
    };
    out.iter().rev().find_map(level)
}

#[test]
fn a_life_that_others_have_forgotten_is_called_dead_so_that_it_can_refute_that() {
    // The life that is known here, and an earlier one: all others know only later ones.
    for generation in [1_000, 900] {
        let mut reader = replica("reader");
        let life = NodeDelta { generation: Generation(generation), ..news("owner", 0, 5, 0) };
        told(&mut reader, "owner", life);
        let out = hear(&mut reader, "relay", removal("owner", 0));
        assert_eq!(level_of_owner(&out), Some(Level::Dead), "generation {generation}");
        assert!(reader.copy(&node("owner")).is_some(), "its own detector has not found it gone");
        let told = |o: &Output| matches!(o, Output::Event(Event::PeerForgotten { .. }));
        assert!(!out.iter().any(told));
    }
    let mut reader = replica("reader");
    let later = NodeDelta { generation: Generation(1_001), ..news("owner", 0, 5, 0) };
    told(&mut reader, "owner", later);
    let out = hear(&mut reader, "relay", removal("owner", 0));
    assert_eq!(level_of_owner(&out), None, "a later life is none of what was removed");
}

#[test]
fn a_removal_that_is_followed_says_who_told_it_and_is_counted() {
    for by in [None, Some(node("relay"))] {
        let mut reader = replica("reader");
        reader.handle(at(1), StorageInput::Linked(node("relay"), true), &mut Vec::new());
        reader.handle(at(1), StorageInput::Linked(node("third"), true), &mut Vec::new());
        told(&mut reader, "owner", news("owner", 0, 5, 0));
        let mut out = Vec::new();
        let remove = StorageInput::Remove { peer: node("owner"), by: by.clone() };
        reader.handle(at(1), remove.clone(), &mut out);
        // Whoever told it need not hear it.
        let to: Vec<_> = removals(&out).into_iter().flat_map(|(to, _)| to).collect();
        let others = by.is_none().then(|| node("relay"));
        assert_eq!(to, others.into_iter().chain([node("third")]).collect::<Vec<_>>());
        let removed = Event::PeerRemoved { peer: node("owner"), by: by.clone() };
        assert!(out.iter().any(|o| matches!(o, Output::Event(event) if *event == removed)));
        let counted = |o: &Output| matches!(o, Output::Count(Counter::RemovalsFollowed, 1));
        assert_eq!(out.iter().any(counted), by.is_some());
        let mut out = Vec::new();
        reader.handle(at(1), remove, &mut out);
        let told = |o: &Output| matches!(o, Output::Event(_));
        assert!(!out.iter().any(told), "it is gone already");
    }
}

#[test]
fn a_machine_that_was_suspended_for_longer_than_forget_after_drops_what_it_knew_of_others() {
    let mut sleeper = replica("sleeper");
    told(&mut sleeper, "owner", news("owner", 0, 5, 0));
    let wall = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // The monotonic clock has stood still; the other one shows how long that was.
    sleeper.set_wall(at(3), wall(2 + 99));
    sleeper.handle(at(3), StorageInput::Tick, &mut Vec::new());
    assert!(sleeper.copy(&node("owner")).is_some());
    sleeper.set_wall(at(4), wall(2 + 99 + 101));
    let mut out = Vec::new();
    sleeper.handle(at(4), StorageInput::Tick, &mut out);
    assert!(sleeper.copy(&node("owner")).is_none());
    let overslept = |output: &&Output| {
        matches!(output, Output::Event(Event::Error(Problem::Overslept { peers: 1, .. })))
    };
    assert_eq!(out.iter().filter(overslept).count(), 1);
}

#[test]
fn who_stood_still_for_longer_than_forget_after_drops_what_it_knew_of_others() {
    let mut sleeper = replica("sleeper");
    told(&mut sleeper, "owner", news("owner", 0, 5, 0));
    // It is called as late as a node may be that others have not forgotten.
    let mut out = Vec::new();
    sleeper.handle(at(60 + 99), StorageInput::Tick, &mut out);
    assert!(sleeper.copy(&node("owner")).is_some());
    let digest = sleeper.digest();
    let ask = Ask::Answer { digest };
    sleeper.serve(at(159 + 60 + 101), &node("relay"), ask, &mut out);
    assert!(sleeper.copy(&node("owner")).is_none());
    let overslept = |output: &&Output| {
        let event = |problem: &Problem| matches!(problem, Problem::Overslept { peers: 1, .. });
        matches!(output, Output::Event(Event::Error(problem)) if event(problem))
    };
    assert_eq!(out.iter().filter(overslept).count(), 1);
    let known: Vec<_> = sleeper.digest().entries.iter().map(|line| line.node.clone()).collect();
    assert_eq!(known, [node("sleeper")], "it tells of nobody else");
    // A node that lives is known again as soon as anybody tells of it.
    told_at(&mut sleeper, at(320), "relay", news("owner", 0, 5, 0));
    assert!(sleeper.copy(&node("owner")).is_some());
}

#[test]
fn who_asks_to_forget_a_stranger_hears_that_it_is_gone() {
    let mut out = Vec::new();
    replica("reader").handle(
        at(1),
        StorageInput::Forget(node("stranger"), Generation(1_000)),
        &mut out,
    );
    let gone = DetectorInput::Forgotten(node("stranger"));
    assert!(out.iter().any(|o| matches!(o, Output::Detector(input) if *input == gone)));
    assert!(!out.iter().any(|o| matches!(o, Output::Event(_))));
}

#[test]
fn an_up_to_date_peer_is_no_name_conflict() {
    let mut owner = replica("owner");
    let ours = owner.own().generation();
    let mut out = Vec::new();
    for generation in [Generation::ZERO, ours] {
        let said = Heard::Said(node("peer"));
        owner.handle(at(1), StorageInput::HeardOfSelf(generation, said), &mut out);
    }
    assert!(out.is_empty() && owner.own().generation() == ours);
}

// C50
#[test]
fn of_a_process_with_its_name_the_first_word_renews_and_the_second_ends() {
    let mut owner = replica("owner");
    set(&mut owner, "key", "1");
    let mut out = Vec::new();
    owner.handle(at(1), StorageInput::HeardOfSelf(Generation(5_000), Heard::Present), &mut out);
    let renewed = Generation(5_000 + ANSWER_STEP);
    assert_eq!((owner.own().generation(), conflicts(&out)), (renewed, 1));
    assert!(!stops(&out));
    assert!(out.iter().any(|o| matches!(o, Output::Count(Counter::NameConflicts, 1))));
    assert_eq!(seen(&owner, "owner", "key", at(1)).unwrap(), "1");
    owner.handle(at(1), StorageInput::HeardOfSelf(Generation(9_000), Heard::Present), &mut out);
    assert!(stops(&out));
}

// C50 C56
#[test]
fn of_twins_exactly_one_ends_and_both_are_told() {
    for order in 0..8_u32 {
        let (mut relay, mut twins) =
            (replica("relay"), [start_at("twin", 10), start_at("twin", 20)]);
        for replica in twins.iter_mut().chain([&mut relay]) {
            replica.set_seals(Some(seals()));
        }
        let mut out = [Vec::new(), Vec::new()];
        let mut ended = [false, false];
        for turn in 0..20_u32 {
            let at_turn = (turn ^ (order >> (turn % 3))) as usize & 1;
            if ended[at_turn] {
                continue;
            }
            let twin = &mut twins[at_turn];
            write(twin, at(1), vec![Write::set("from", format!("{at_turn} {turn}"))]);
            let outcome = if turn % 2 == 0 {
                exchange(twin, &mut relay, at(1))
            } else {
                let outcome = exchange(&mut relay, twin, at(1));
                let [relay, twin] = outcome.outputs;
                crate::support::Outcome { outputs: [twin, relay], ..outcome }
            };
            let [said, _] = outcome.outputs;
            ended[at_turn] = stops(&said);
            out[at_turn].extend(said);
        }
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "order {order}: {ended:?}");
        assert!(out.iter().all(|out| conflicts(out) == 1), "order {order}: both are told");
        let stays = &twins[usize::from(ended[0])];
        assert_eq!(relay.copy(&node("twin")).unwrap().entries(), stays.own().entries());
    }
}

fn seals() -> Seals {
    Seals { notary: Arc::new(TestNotary::new(1)), signing: Signing::Require }
}

// C50
#[test]
fn nobody_ends_a_node_by_words_alone_wherever_they_stand() {
    for seals in [None, Some(seals())] {
        let mut owner = replica("owner");
        owner.set_seals(seals);
        let (mut out, signed) = (Vec::new(), owner.knows_seals());
        let before = owner.own().generation();
        for n in 0..100 {
            let generation = Generation(2_000 + n * 10_000);
            let liar = node(&format!("liar-{}", n % 5));
            let known = StorageInput::HeardOfSelf(generation, Heard::Said(liar.clone()));
            owner.handle(at(1), known, &mut out);
            let line = DigestEntry { generation, ..DigestEntry::unknown(node("owner")) };
            owner.answer(at(1), &liar, &Digest { entries: vec![line] }, &mut out);
            let bare = NodeDelta { generation, ..news("owner", 0, 1, 0) };
            let delta = Delta { nodes: vec![bare.clone()], more: false };
            owner.apply(at(1), &liar, &delta, &mut out);
            let pushed = Box::new(Gossip::Push(delta));
            owner.handle(at(1), StorageInput::Gossip(liar, pushed), &mut out);
        }
        assert!(!stops(&out), "signed: {signed}");
        let lives = if signed { 0 } else { HEARSAY_LIVES_MAX as usize };
        assert_eq!(conflicts(&out), lives, "signed: {signed}");
        let jumped = owner.own().generation().0 - before.0;
        assert!(jumped <= lives as u64 * (HEARSAY_AHEAD_MAX_MS + ANSWER_STEP));
        let told = out.iter().filter(|output| {
            matches!(output, Output::Event(Event::Error(Problem::ClaimUnproved { .. })))
        });
        assert!(told.count() >= 5, "who says so is told");
    }
}

fn start_at(name: &str, seconds: u64) -> Replica {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let (stored, copies) = (Stored::default(), imbl::OrdMap::new());
    Replica::start(config(name), stored, &copies, false, at(0), wall, &mut Vec::new())
}

#[test]
fn after_a_conflict_no_copy_of_the_other_is_taken_for_ours() {
    let (mut one, mut other) = (start_at("twin", 10), start_at("twin", 10));
    let mut reader = replica("reader");
    set(&mut one, "key", "of one");
    set(&mut other, "key", "of the other");
    exchange(&mut other, &mut reader, at(1));
    write(&mut one, at(1), vec![Write::set("more", "1"), Write::set("and", "1")]);
    // `one` reaches as far as the copy of `other`, in the same generation, and now hears of it.
    let ours = one.own().generation();
    let other_is_there = StorageInput::HeardOfSelf(ours.next(), Heard::Present);
    one.handle(at(1), other_is_there, &mut Vec::new());
    exchange(&mut one, &mut reader, at(1));
    assert_eq!(seen(&reader, "twin", "key", at(1)).unwrap(), "of one");
}

// C50
#[test]
fn a_peer_that_knows_more_of_us_says_so_when_we_ask() {
    let mut relay = replica("relay");
    let mut later = news("owner", 0, 9, 0);
    later.generation = Generation(7_000);
    later.entries = vec![value("key", 9, "of a later life")];
    told(&mut relay, "owner", later);
    let mut owner = replica("owner");
    let outcome = exchange(&mut owner, &mut relay, at(1));
    assert_eq!(
        (conflicts(&outcome.outputs[0]), owner.own().generation()),
        (1, Generation(7_000 + ANSWER_STEP))
    );
}

#[test]
fn every_start_is_a_new_life_whatever_the_clock_says() {
    let mut owner = replica("owner");
    let mut generations = vec![owner.own().generation()];
    for _ in 0..12 {
        set(&mut owner, "key", &generations.len().to_string());
        owner = start(config("owner"), stored(&owner));
        generations.push(owner.own().generation());
    }
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    assert!(owner.own().ancestry().len() <= gossipmonger::protocol::delta::ANCESTRY_MAX);
}

// C46
#[test]
fn a_copy_behind_its_record_stays_behind_when_storage_starts_again() {
    let mut reader = replica("reader");
    let mut part = news("owner", 0, 3, 0);
    part.record = Some((Version(6), record("owner:1")));
    part.entries = vec![value("early", 3, "1")];
    told(&mut reader, "relay", part);
    let views = reader.view().unwrap();
    let wall = SystemTime::UNIX_EPOCH;
    let stored = stored(&reader);
    let mut reader =
        Replica::start(config("reader"), stored, &views, false, at(2), wall, &mut Vec::new());
    assert_eq!(reader.copy(&node("owner")).unwrap().max_version(), Version(3));
    let mut rest = news("owner", 3, 6, 0);
    rest.entries = vec![value("late", 5, "1")];
    told(&mut reader, "relay", rest);
    assert_eq!(seen(&reader, "owner", "late", at(2)).unwrap(), "1");
}

// C46
#[test]
fn what_a_lost_write_had_replaced_is_there_again() {
    let cut = |name| ReplicaConfig { delta_entries: 2, ..config(name) };
    let mut owner = start(cut("owner"), Stored::default());
    for key in ["a", "b", "c"] {
        set(&mut owner, key, "kept");
    }
    let disk = stored(&owner);
    set(&mut owner, "b", "lost");
    // The reader gets as far as `c`, from an owner that has overwritten `b` by then.
    let mut reader = replica("reader");
    let digest = reader.digest();
    let (_, delta) = owner.answer(at(1), &node("reader"), &digest, &mut Vec::new());
    reader.apply(at(1), &node("owner"), &delta, &mut Vec::new());
    let reached = reader.copy(&node("owner")).unwrap();
    assert_eq!((reached.max_version(), reached.horizon()), (Version(4), Version(5)));
    let mut owner = start(config("owner"), disk);
    exchange(&mut reader, &mut owner, at(2));
    assert_eq!(seen(&reader, "owner", "b", at(2)).unwrap(), "kept");
    assert_eq!(reader.copy(&node("owner")).unwrap().entries(), owner.own().entries());
}

// C46
#[test]
fn a_floor_lost_in_a_crash_does_not_lock_an_incomplete_copy_out() {
    let mut reader = replica("reader");
    let mut part = news("owner", 0, 3, 7);
    part.horizon = Version(10);
    part.entries = vec![value("key", 3, "1")];
    told(&mut reader, "relay", part);
    let mut disk = Stored::default();
    disk.head.generation = Generation(1_000);
    disk.head.max_version = Version(10);
    disk.head.gc_floor = Version(4);
    let value = Some(gossipmonger::Value::from("1"));
    let kept = StoredEntry { version: Version(3), value, expires: None };
    disk.entries.insert(gossipmonger::Key::from("key"), kept);
    let mut owner = start(config("owner"), disk);
    set(&mut owner, "new", "1");
    exchange(&mut reader, &mut owner, at(2));
    assert_eq!(reader.copy(&node("owner")).unwrap().entries(), owner.own().entries());
    assert_eq!(owner.own().gc_floor(), Version(7), "it drops what it had dropped before");
}

#[test]
fn a_store_forgets_the_peers_of_earlier_runs_that_never_came_back() {
    let mut kept = Stored::default();
    for name in ["gone", "met"] {
        let node = node(name);
        let record = record("x:1");
        let (datacenter, addresses) = (record.datacenter, record.addresses);
        let generation = Generation(5);
        let peer = KnownPeer { node: node.clone(), datacenter, addresses, generation, dead: false };
        kept.peers.insert(node, peer);
    }
    let mut late = start(config("late"), kept);
    told(&mut late, "met", news("met", 0, 1, 0));
    let forgotten = |late: &mut Replica, now| {
        let mut out = Vec::new();
        late.handle(now, StorageInput::Tick, &mut out);
        let changes = out.into_iter().filter_map(|output| match output {
            Output::Persist(changes) => Some(changes),
            _ => None,
        });
        changes.flatten().collect::<Vec<_>>()
    };
    assert_eq!(forgotten(&mut late, at(99)), []);
    assert_eq!(forgotten(&mut late, at(100)), [Change::ForgetPeer(node("gone"))]);
    assert_eq!(forgotten(&mut late, at(200)), []);
}

#[test]
fn a_clock_that_was_wrong_at_the_start_does_not_shut_out_the_others_for_good() {
    // Started in 1970; the others were not.
    let (mut early, peer) = (replica("early"), node("other"));
    let today = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * 365 * 86_400);
    let mut told = news("other", 0, 1, 0);
    told.generation = Generation(60 * 365 * 86_400 * 1_000);
    let told = Delta { nodes: vec![told], more: false };
    early.apply(at(1), &peer, &told, &mut Vec::new());
    assert!(early.copy(&peer).is_none());
    early.set_wall(at(2), today);
    early.apply(at(2), &peer, &told, &mut Vec::new());
    assert!(early.copy(&peer).is_some());
}

#[test]
fn a_generation_that_no_clock_can_have_given_is_not_believed() {
    let (mut victim, liar) = (replica("victim"), node("liar"));
    let absurd = Generation(u64::MAX - 1);
    let ours = victim.own().generation();
    let entry = |name: &str| DigestEntry { generation: absurd, ..DigestEntry::unknown(node(name)) };
    let digest = Digest { entries: vec![entry("other"), entry("victim")] };
    let mut out = Vec::new();
    let (wants, _) = victim.answer(at(1), &liar, &digest, &mut out);
    assert!(wants.entries.is_empty(), "nothing of an absurd life is wanted: {wants:?}");
    victim.handle(at(1), StorageInput::HeardOfSelf(absurd, Heard::Said(liar.clone())), &mut out);
    let mut forged = news("other", 0, 1, 0);
    forged.generation = absurd;
    let forged = Delta { nodes: vec![forged], more: false };
    victim.apply(at(1), &liar, &forged, &mut out);
    assert!(victim.copy(&node("other")).is_none());
    assert_eq!(victim.own().generation(), ours);
    assert_eq!(conflicts(&out), 0);
    let counted =
        |o: &&Output| matches!(o, Output::Count(Counter::NewsRefused | Counter::ClaimsUnproved, 1));
    assert_eq!(out.iter().filter(counted).count(), 3, "each lie is counted");
}
