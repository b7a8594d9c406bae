//! Signed heads: what a relay may do to news, and that none of it gets in.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    lifecycle::stored,
    notary::TestNotary,
    support::{at, config, delete, exchange, node, seen, set, start, tombstone, value, write},
};
use gossipmonger::{
    NodeId,
    protocol::{
        delta::{Delta, DeltaContent, NodeDelta},
        event::{Event, Problem},
        gossip::Gossip,
        id::{Generation, Incarnation, Version},
        map::Refusal,
        record::Status,
        replica::{OWN_HEADS_SAVED_MAX, Replica, ReplicaConfig},
        route::{Counter, Output, StorageInput, TransportInput},
        seal::{Certified, Credential, LifeKey, Notary, Seals, Signature, Signing},
        tree::Hash,
        verdict::{Level, Verdict},
        write::Write,
    },
    store::{Stored, StoredEntry},
};

// C85
#[test]
fn refuses_a_value_that_a_relay_has_made_up() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    let mut news = told(&mut owner, &reader);
    news.entries[0].content = DeltaContent::Value { value: "red".into(), ttl_ms: None };
    assert_eq!(refused(&take(&mut reader, "x", news)), [Refusal::Forged]);
    assert_eq!(reader.copy(&node("a")).map(|copy| copy.max_version()), None);
    exchange(&mut reader, &mut owner, at(1));
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("green"));
}

// C85
#[test]
fn refuses_news_of_which_a_relay_has_left_something_out() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    set(&mut owner, "shape", "round");
    let mut less = told(&mut owner, &reader);
    less.entries.remove(0);
    assert_eq!(refused(&take(&mut reader, "x", less)), [Refusal::Forged]);
    let mut more = told(&mut owner, &reader);
    more.entries.insert(1, value("taste", 2, "sweet"));
    assert_eq!(refused(&take(&mut reader, "x", more)), [Refusal::Forged]);
    assert!(reader.copy(&node("a")).is_none());
}

#[test]
fn refuses_a_tombstone_that_a_relay_has_made_up() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    let version = set(&mut owner, "color", "green");
    let mut news = told(&mut owner, &reader);
    news.entries = vec![tombstone("color", version.0)];
    assert_eq!(refused(&take(&mut reader, "x", news)), [Refusal::Forged]);
}

// C85
#[test]
fn refuses_an_earlier_state_as_the_latest() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    let earlier = told(&mut owner, &reader);
    set(&mut owner, "color", "red");
    let later = told(&mut owner, &reader);
    // The earlier state with the later one's number, with its own signature or with the later one's.
    for sealed in [earlier.sealed.clone(), later.sealed.clone()] {
        let mut back = NodeDelta { sealed, to: later.to, horizon: later.to, ..earlier.clone() };
        if let Some(sealed) = &mut back.sealed {
            sealed.seal.upto = later.to;
        }
        assert_eq!(refused(&take(&mut reader, "x", back)), [Refusal::Forged]);
    }
    take(&mut reader, "x", later);
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("red"));
    take(&mut reader, "x", earlier);
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("red"));
}

#[test]
fn refuses_a_record_that_a_relay_has_changed() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    let changes: [fn(&mut NodeDelta); 8] = [
        |news: &mut NodeDelta| news.record.as_mut().unwrap().1.addresses = vec!["evil:1".into()],
        |news: &mut NodeDelta| news.record.as_mut().unwrap().1.status = Status::Left,
        |news: &mut NodeDelta| news.record.as_mut().unwrap().1.incarnation = Incarnation(9),
        |news: &mut NodeDelta| news.gc_floor = Version(1),
        |news: &mut NodeDelta| news.torn = Version(1),
        |news: &mut NodeDelta| news.ancestry = vec![(Generation(1), Version(1))],
        |news: &mut NodeDelta| news.generation = news.generation.next(),
        |news: &mut NodeDelta| news.node = node("c"),
    ];
    for change in changes {
        let mut news = told(&mut owner, &reader);
        change(&mut news);
        let refusals = refused(&take(&mut reader, "x", news));
        assert_eq!(refusals, [Refusal::Forged]);
        assert_eq!(reader.peer_count(), 0);
    }
}

#[test]
fn refuses_the_credential_of_another_node_life_or_authority() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    let (mut other, mut foreign) = (signed("c"), stranger("a"));
    let good = told(&mut owner, &reader);
    let credential = |news: &NodeDelta| news.sealed.as_ref().unwrap().credential.clone().unwrap();
    let mut of_another = good.clone();
    of_another.sealed.as_mut().unwrap().credential = Some(credential(&told(&mut other, &reader)));
    let of_another_authority = told(&mut foreign, &reader);
    let none = {
        let mut news = good.clone();
        news.sealed.as_mut().unwrap().credential = None;
        news
    };
    for news in [of_another, of_another_authority, none] {
        take(&mut reader, "x", news);
        assert_eq!(reader.peer_count(), 0);
    }
    let mut long = good.clone();
    let chain = vec![vec![0; 5_000]; 9];
    let key = LifeKey(credential(&good).key.0);
    let huge = Credential { key, chain, scheme: 0, signature: vec![0; 2_000] };
    long.sealed.as_mut().unwrap().credential = Some(Arc::new(huge));
    take(&mut reader, "x", long);
    assert_eq!(reader.peer_count(), 0);
}

#[test]
fn refuses_a_signature_that_is_none() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    let mut news = told(&mut owner, &reader);
    news.sealed.as_mut().unwrap().seal.signature = Signature([7; 64]);
    assert_eq!(refused(&take(&mut reader, "x", news)), [Refusal::Forged]);
    let mut news = told(&mut owner, &reader);
    news.sealed.as_mut().unwrap().seal.root = Hash([7; 32]);
    assert_eq!(refused(&take(&mut reader, "x", news)), [Refusal::Forged]);
}

#[test]
fn refuses_to_take_off_the_signature_of_one_who_signs() {
    let (mut owner, mut reader) = (signed("a"), with("b", Signing::Prefer));
    exchange(&mut reader, &mut owner, at(1));
    set(&mut owner, "color", "green");
    let mut news = told(&mut owner, &reader);
    news.sealed = None;
    assert_eq!(refused(&take(&mut reader, "x", news)), [Refusal::Unsigned]);
    assert_eq!(seen(&reader, "a", "color", at(1)), None);
}

#[test]
fn goes_from_unsigned_to_signed_a_node_at_a_time() {
    let mut nodes = [with("a", Signing::Off), with("b", Signing::Prefer)];
    set(&mut nodes[0], "color", "green");
    set(&mut nodes[1], "color", "blue");
    let mut strict = with("c", Signing::Require);
    for owner in &mut nodes {
        exchange(&mut strict, owner, at(1));
    }
    assert_eq!(seen(&strict, "a", "color", at(1)), None, "it signs nothing");
    assert_eq!(seen(&strict, "b", "color", at(1)).as_deref(), Some("blue"));
    let [off, prefer] = &mut nodes;
    exchange(off, prefer, at(1));
    assert_eq!(seen(off, "b", "color", at(1)).as_deref(), Some("blue"));
    assert_eq!(seen(prefer, "a", "color", at(1)).as_deref(), Some("green"));
    // Who signs nothing itself passes on what others have signed.
    let mut late = with("d", Signing::Require);
    exchange(&mut late, off, at(1));
    assert_eq!(seen(&late, "b", "color", at(1)).as_deref(), Some("blue"));
}

#[test]
fn takes_nothing_back_when_forged_news_comes_upon_what_is_here() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    set(&mut owner, "shape", "round");
    let gone = set(&mut owner, "gone", "soon");
    delete(&mut owner, at(1), "gone");
    exchange(&mut reader, &mut owner, at(1));
    let before = reader.copy(&node("a")).unwrap().entries().clone();
    set(&mut owner, "color", "red");
    let honest = told(&mut owner, &reader);
    let mut forged = honest;
    forged.entries.insert(0, value("shape", forged.from.0 + 1, "square"));
    forged.entries[1].version = forged.to;
    assert_eq!(refused(&take(&mut reader, "x", forged)), []);
    let copy = reader.copy(&node("a")).unwrap();
    assert_eq!(*copy.entries(), before);
    assert!(copy.max_version() > gone);
    // Whose fault that was is not known, so the whole map is asked for, and then it is all there.
    exchange(&mut reader, &mut owner, at(2));
    assert_eq!(seen(&reader, "a", "color", at(2)).as_deref(), Some("red"));
    assert_eq!(seen(&reader, "a", "shape", at(2)).as_deref(), Some("round"));
    assert_eq!(reader.root(), owner.root());
}

#[test]
fn a_relay_that_spoils_news_has_a_map_told_again_now_and_then_at_most() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    exchange(&mut reader, &mut owner, at(1));
    let asks_for_all = |reader: &Replica| {
        let (digest, _) = reader.lines(&[node("a")], &[]);
        digest.get(&node("a")).unwrap().max_version == Version::ZERO
    };
    let spoil = |owner: &mut Replica, reader: &mut Replica| {
        set(owner, "shape", "round");
        delete(owner, at(1), "shape");
        let good = told(owner, reader);
        let entries = vec![value("shape", good.to.0, "square")];
        take(reader, "x", NodeDelta { entries, ..good.clone() });
        good
    };
    let good = spoil(&mut owner, &mut reader);
    assert!(asks_for_all(&reader));
    // What is right shows that what is here was right as well.
    take(&mut reader, "y", good);
    assert!(!asks_for_all(&reader));
    let good = spoil(&mut owner, &mut reader);
    assert!(!asks_for_all(&reader), "not again at once");
    take(&mut reader, "y", good);
    assert_eq!(reader.copy(&node("a")).unwrap().max_version(), owner.own().max_version());
}

#[test]
fn a_copy_that_does_not_fit_gives_way_to_the_next_life() {
    let mut reader = signed("b");
    // Its key was in use twice, and the reader has the state that was given up.
    let (mut one, mut other) = (signed("a"), signed("a"));
    set(&mut one, "color", "green");
    set(&mut other, "color", "red");
    exchange(&mut reader, &mut one, at(1));
    set(&mut other, "shape", "round");
    let mut stored = Stored::default();
    let own = other.own();
    stored.head.generation = own.generation();
    stored.head.max_version = own.max_version();
    for (key, entry) in own.entries() {
        let value = entry.visible(at(1)).cloned();
        let entry = StoredEntry { version: entry.version, value, expires: None };
        stored.entries.insert(key.clone(), entry);
    }
    let mut owner = start(ReplicaConfig { delta_bytes: 64 << 10, ..config("a") }, stored);
    owner.set_seals(seals(1, Signing::Require));
    assert!(owner.own().ancestry().iter().any(|(life, _)| *life == one.own().generation()));
    exchange(&mut reader, &mut owner, at(2));
    exchange(&mut reader, &mut owner, at(3));
    assert_eq!(seen(&reader, "a", "color", at(3)).as_deref(), Some("red"));
    assert_eq!(seen(&reader, "a", "shape", at(3)).as_deref(), Some("round"));
    assert_eq!(reader.root(), owner.root());
}

/// More than one small delta holds.
const LATER_KEYS: usize = 50;

/// An owner whose store lost, in a crash, that tombstones were dropped, and a reader that was told so.
fn with_a_lost_floor() -> (Replica, Replica) {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    set(&mut owner, "shape", "round");
    delete(&mut owner, at(1), "shape");
    (0..LATER_KEYS).for_each(|n| _ = set(&mut owner, &format!("later{n}"), "here"));
    let disk = stored(&owner);
    owner.handle(at(10_000), StorageInput::Tick, &mut Vec::new());
    exchange(&mut reader, &mut owner, at(10_000));
    let floor = reader.copy(&node("a")).unwrap().gc_floor();
    assert!(floor > Version::ZERO && floor == owner.own().gc_floor());
    let owner = small("a", disk);
    assert_eq!(owner.own().gc_floor(), Version::ZERO);
    (owner, reader)
}

/// One that signs, and says little at a time.
fn small(name: &str, stored: Stored) -> Replica {
    let mut replica = start(ReplicaConfig { delta_bytes: 1_500, ..config(name) }, stored);
    replica.set_seals(seals(1, Signing::Require));
    replica
}

// C46
#[test]
fn an_owner_takes_over_the_floor_that_it_lost_in_a_crash() {
    let (mut owner, mut reader) = with_a_lost_floor();
    exchange(&mut reader, &mut owner, at(2));
    let copy = reader.copy(&node("a")).unwrap();
    assert_eq!(copy.generation(), owner.own().generation());
    assert_eq!(copy.gc_floor(), owner.own().gc_floor());
    assert!(copy.gc_floor() > Version::ZERO);
}

// C46
#[test]
fn a_floor_that_its_owner_lost_in_a_crash_keeps_no_copy_in_the_life_before() {
    let (mut owner, mut reader) = with_a_lost_floor();
    // A third tells of the new life: it has never heard of that floor.
    let mut third = signed("c");
    exchange(&mut third, &mut owner, at(2));
    exchange(&mut reader, &mut third, at(2));
    let copy = reader.copy(&node("a")).unwrap();
    assert_eq!(copy.generation(), owner.own().generation());
    assert_eq!(seen(&reader, "a", "color", at(2)).as_deref(), Some("green"));
}

// C46
#[test]
fn readers_lose_no_key_while_a_life_whose_floor_was_lost_is_told_in_parts() {
    // By the owner when the reader asks for what it lacks, and by a third, who cannot know the floor.
    for by_owner in [true, false] {
        let (mut owner, mut reader) = with_a_lost_floor();
        let mut third = small("c", Stored::default());
        exchange(&mut third, &mut owner, at(2));
        let mut teller = if by_owner { owner } else { third };
        reader.handle(at(3), StorageInput::Linked(teller.node().clone(), true), &mut Vec::new());
        let mut parts = 0;
        loop {
            let line = reader.copy(&node("a")).unwrap().digest_entry(node("a"));
            let mut out = Vec::new();
            let graft = Box::new(Gossip::Graft(vec![line]));
            teller.handle(at(3), StorageInput::Gossip(node("b"), graft), &mut out);
            let Some(news) = out.into_iter().find_map(pushed) else { break };
            parts += 1;
            let gossip = Box::new(Gossip::Push(news));
            let mut out = Vec::new();
            reader.handle(at(3), StorageInput::Gossip(teller.node().clone(), gossip), &mut out);
            let deleted = |output: &&Output| matches!(output, Output::Event(Event::Deleted { .. }));
            assert_eq!(out.iter().filter(deleted).count(), 0, "{out:?}");
        }
        assert!(parts > usize::from(!by_owner), "{parts} parts");
        assert!(reader.copy(&node("a")).unwrap().generation() > Generation(1_000));
        for key in ["color", "later7", "later49"] {
            assert!(seen(&reader, "a", key, at(3)).is_some(), "{key}");
        }
    }
}

fn pushed(output: Output) -> Option<Delta> {
    match output {
        Output::Transport(TransportInput::Gossip { gossip, .. }) => match &*gossip {
            Gossip::Push(delta) => Some(delta.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_certificate_that_cannot_sign_changes_nothing() {
    let notary = Arc::new(TestNotary::new(1));
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    owner.set_seals(Some(Seals { notary: notary.clone(), signing: Signing::Require }));
    exchange(&mut reader, &mut owner, at(1));
    let version = owner.own().max_version();
    notary.fail(true);
    notary.renew();
    let mut out = Vec::new();
    for _ in 0..3 {
        owner.renew_credential(at(1), &mut out);
    }
    assert_eq!((out.len(), owner.own().max_version()), (0, version));
    for expected in [1, 0] {
        let mut told = Vec::new();
        owner.handle(at(1), StorageInput::TellRoot, &mut told);
        let unsigned = |output: &&Output| {
            matches!(output, Output::Event(Event::Error(Problem::Unsigned { .. })))
        };
        assert_eq!(told.iter().filter(unsigned).count(), expected, "told once: {told:?}");
    }
    // The one before still vouches for what is new.
    set(&mut owner, "color", "green");
    exchange(&mut reader, &mut owner, at(1));
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("green"));
    notary.fail(false);
    notary.renew();
    owner.renew_credential(at(2), &mut out);
    assert!(owner.own().record_version() > version);
    exchange(&mut reader, &mut owner, at(2));
    assert_eq!(reader.root(), owner.root());
}

#[test]
fn a_relay_cannot_bring_back_the_credential_of_before() {
    let notary = Arc::new(TestNotary::new(1));
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    owner.set_seals(Some(Seals { notary: notary.clone(), signing: Signing::Require }));
    set(&mut owner, "color", "green");
    let old = told(&mut owner, &reader);
    notary.renew();
    owner.renew_credential(at(1), &mut Vec::new());
    exchange(&mut reader, &mut owner, at(1));
    // A graver verdict, which nobody signs, makes news of it.
    let verdict = Verdict { incarnation: Incarnation(0), level: Level::Dead };
    assert_eq!(refused(&take(&mut reader, "x", NodeDelta { verdict, ..old })), []);
    set(&mut owner, "color", "red");
    let news = told(&mut owner, &reader);
    assert_eq!(refused(&take(&mut reader, "y", news)), []);
    assert_eq!(seen(&reader, "a", "color", at(2)).as_deref(), Some("red"));
}

#[test]
fn a_life_is_vouched_for_by_no_certificate_that_had_ended_or_is_not_valid_yet() {
    // That it is not valid yet may be the fault of a clock, so nobody is blamed for that.
    let ended: &[Refusal] = &[Refusal::BadCredential];
    for (from, until, right, blame) in [
        (0, 600, false, ended),
        (1_000, 9_000, false, &[]),
        (0, 700, true, &[]),
        (300, 9_000, true, &[]),
    ] {
        let mut reader = signed("b");
        let (notary, mut owner) = certified("a", 1_000, dates(from, until, None));
        set(&mut owner, "color", "green");
        let news = told(&mut owner, &reader);
        let taken = refused(&take(&mut reader, "x", news));
        assert_eq!(taken, blame, "{from} to {until}, {}", notary.revision());
        assert_eq!(seen(&reader, "a", "color", at(1)).is_some(), right, "{from} to {until}");
    }
}

#[test]
fn a_life_goes_on_with_no_older_certificate_than_before() {
    for (from, until, right) in
        [(99, 8_999, false), (99, 9_000, true), (100, 8_000, true), (150, 9_000, true)]
    {
        let mut reader = signed("b");
        let (notary, mut owner) = certified("a", 1_000, dates(100, 9_000, None));
        set(&mut owner, "color", "green");
        let news = told(&mut owner, &reader);
        assert_eq!(refused(&take(&mut reader, "x", news)), []);
        notary.renew();
        notary.shows(dates(from, until, None));
        owner.renew_credential(at(1), &mut Vec::new());
        set(&mut owner, "color", "red");
        let news = told(&mut owner, &reader);
        // Who relays it cannot know what came here first, so it is not blamed.
        assert_eq!(refused(&take(&mut reader, "x", news)), []);
        let color = if right { "red" } else { "green" };
        assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some(color), "{from} to {until}");
    }
}

/// Whoever has the key of a certificate that was renewed since, and of which the end is past, begins no
/// life of its node: not even one that began before that end, as long as others know the newer one.
#[test]
fn a_certificate_that_was_replaced_begins_no_life_and_ends_no_node() {
    let (notary, mut owner) = certified("a", 1_000, dates(100, 2_000, None));
    let mut reader = signed("b");
    set(&mut owner, "color", "green");
    notary.renew();
    notary.shows(dates(200, 9_000, None));
    owner.renew_credential(at(1), &mut Vec::new());
    let news = told(&mut owner, &reader);
    take(&mut reader, "x", news);
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("green"));
    for life in [1_001, 1_500, 1_999, 2_299] {
        let (_, mut thief) = certified("a", life, dates(100, 2_000, None));
        set(&mut thief, "color", "black");
        let stolen = told(&mut thief, &signed("c"));
        take(&mut reader, "x", stolen.clone());
        assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("green"), "life {life}");
        let out = take(&mut owner, "x", stolen);
        assert!(!out.iter().any(|output| matches!(output, Output::Stop(_))), "{out:?}");
    }
    // The owner has taken it for its own past, and goes on after it.
    set(&mut owner, "color", "red");
    let news = told(&mut owner, &reader);
    assert_eq!(refused(&take(&mut reader, "x", news)), []);
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("red"));
}

#[test]
fn a_peer_that_shows_many_forged_heads_of_a_nodes_own_name_hides_no_true_one() {
    let (_, mut owner) = certified("a", 1_000, dates(0, 9_000, None));
    let (_, mut later) = certified("a", 2_000, dates(0, 9_000, None));
    set(&mut later, "color", "red");
    let shown = told(&mut later, &signed("c"));
    let mut forged = shown.clone();
    forged.sealed.as_mut().unwrap().seal.signature = Signature([7; 64]);
    let verified = |out: &[Output]| {
        let count = |output: &&Output| matches!(output, Output::Count(Counter::SealsVerified, _));
        out.iter().filter(count).count() as u32
    };
    let tries = 10 * OWN_HEADS_SAVED_MAX;
    let cost: u32 = (0..tries).map(|_| verified(&take(&mut owner, "liar", forged.clone()))).sum();
    assert_eq!(cost, OWN_HEADS_SAVED_MAX);
    assert!(owner.own().generation() < shown.generation);
    take(&mut owner, "b", shown.clone());
    assert!(owner.own().generation() > shown.generation, "it goes on after its past");
}

#[test]
fn a_record_says_no_other_datacenter_than_the_certificate() {
    for (place, right) in [(Some("dc2"), false), (Some("dc1"), true), (None, true)] {
        let mut reader = signed("b");
        let (_, mut owner) = certified("a", 1_000, dates(0, 9_000, place));
        let news = told(&mut owner, &reader);
        let taken = refused(&take(&mut reader, "x", news));
        let expected: &[Refusal] = if right { &[] } else { &[Refusal::Misplaced] };
        assert_eq!(taken, expected, "{place:?}");
    }
}

#[test]
fn a_node_moves_to_no_other_datacenter_in_one_life() {
    let mut reader = with("b", Signing::Off);
    let record = |version, place: &str, generation| {
        let mut news = crate::support::news("a", 0, version, 0);
        let mut record = crate::support::record("a:1");
        record.datacenter = place.parse().unwrap();
        news.generation = Generation(generation);
        NodeDelta { record: Some((Version(version), record)), ..news }
    };
    assert_eq!(refused(&take(&mut reader, "a", record(1, "dc1", 1_000))), []);
    let moved = refused(&take(&mut reader, "a", record(2, "dc2", 1_000)));
    assert_eq!(moved, [Refusal::Misplaced]);
    assert_eq!(refused(&take(&mut reader, "a", record(2, "dc2", 2_000))), []);
}

fn dates(not_before: u64, not_after: u64, place: Option<&str>) -> Certified {
    let datacenter = place.map(|name| name.parse().unwrap());
    Certified { not_before, not_after, datacenter }
}

/// A node whose life begins so many seconds after 1970, by a certificate that says this.
fn certified(name: &str, seconds: u64, says: Certified) -> (Arc<TestNotary>, Replica) {
    let (notary, wall) = (Arc::new(TestNotary::new(1)), UNIX_EPOCH + Duration::from_secs(seconds));
    notary.shows(says);
    let (stored, none) = (Stored::default(), imbl::OrdMap::new());
    let mut out = Vec::new();
    let mut replica = Replica::start(config(name), stored, &none, false, at(0), wall, &mut out);
    replica.set_seals(Some(Seals { notary: notary.clone(), signing: Signing::Require }));
    (notary, replica)
}

#[test]
fn a_state_above_64_kib_comes_in_parts_each_of_which_is_proved() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    for n in 0..400 {
        write(&mut owner, at(1), vec![Write::set(format!("key-{n}"), vec![n as u8; 1_000])]);
    }
    for n in (0..400).step_by(3) {
        write(&mut owner, at(1), vec![Write::set(format!("key-{n}"), vec![1; 500])]);
    }
    let parts = |owner: &mut Replica, reader: &Replica| told(owner, reader);
    let first = parts(&mut owner, &reader);
    let sealed = first.sealed.as_ref().unwrap();
    assert!(first.to < sealed.seal.upto && !sealed.proof.is_empty());
    // Nothing of a part can be forged or left out either.
    let mut less = first.clone();
    less.entries.remove(5);
    let mut forged = first.clone();
    forged.entries[5].content = DeltaContent::Value { value: "x".into(), ttl_ms: None };
    let mut longer = first.clone();
    longer.to = Version(longer.to.0 + 1);
    for bad in [less, forged, longer] {
        assert_eq!(refused(&take(&mut reader, "x", bad)), [Refusal::Forged]);
    }
    assert_eq!(reader.peer_count(), 0);
    take(&mut reader, "x", first);
    // A part is no state that the owner has signed: nobody is told of it.
    let mut third = signed("c");
    exchange(&mut third, &mut reader, at(1));
    assert!(third.copy(&node("a")).is_none());
    let whole = exchange(&mut reader, &mut owner, at(1));
    assert!(whole.entries >= 300);
    assert_eq!(reader.copy(&node("a")).unwrap().entries(), owner.own().entries());
    exchange(&mut third, &mut reader, at(1));
    assert_eq!(third.copy(&node("a")).unwrap().entries(), owner.own().entries());
}

/// What is in a part does not follow from how far it reaches: nobody can be shown it, and it is in no sum.
#[test]
fn parts_that_nobody_can_complete_are_compared_with_nobodys() {
    let mut owner = signed("a");
    for n in 0..400 {
        write(&mut owner, at(1), vec![Write::set(format!("key-{n}"), vec![n as u8; 1_000])]);
    }
    let (mut b, mut c) = (signed("b"), signed("c"));
    exchange(&mut b, &mut c, at(1));
    let first = told(&mut owner, &b);
    take(&mut b, "a", first.clone());
    take(&mut c, "a", first);
    let second = told(&mut owner, &c);
    take(&mut c, "a", second);
    let reach = |replica: &Replica| replica.copy(&node("a")).unwrap().max_version();
    assert!(reach(&b) < reach(&c) && reach(&c) < owner.own().max_version());
    assert_eq!(b.root(), c.root(), "their owner is gone, and no exchange could mend it");
    // Who has all of it differs from them, and mends them.
    let mut d = signed("d");
    exchange(&mut d, &mut owner, at(2));
    assert_ne!(d.root(), b.root());
    for one in [&mut b, &mut c] {
        exchange(one, &mut d, at(2));
        assert_eq!(one.copy(&node("a")).unwrap().entries(), owner.own().entries());
    }
    exchange(&mut b, &mut c, at(3));
    assert_eq!(b.root(), c.root());
}

#[test]
fn reports_a_node_that_has_signed_two_states_as_one() {
    let mut reader = signed("b");
    // Two processes with the key of one node: the same life, the same version, not the same value.
    let (mut one, mut other) = (signed("a"), signed("a"));
    set(&mut one, "color", "green");
    set(&mut other, "color", "red");
    let (green, red) = (told(&mut one, &reader), told(&mut other, &reader));
    assert!(liars(&take(&mut reader, "x", green)).is_empty());
    assert_eq!(liars(&take(&mut reader, "y", red.clone())), [node("a")]);
    assert_eq!(liars(&take(&mut reader, "y", red)), [], "once is enough");
    assert_eq!(seen(&reader, "a", "color", at(1)).as_deref(), Some("green"));
}

#[test]
fn says_nothing_of_two_states_of_which_one_is_forged() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    let good = told(&mut owner, &reader);
    take(&mut reader, "x", good.clone());
    let mut bad = good;
    bad.sealed.as_mut().unwrap().seal.root = Hash([3; 32]);
    assert_eq!(liars(&take(&mut reader, "x", bad)), []);
}

// C85
#[test]
fn a_relay_cannot_have_the_dead_live_in_a_later_incarnation() {
    let (mut owner, mut reader) = (signed("a"), signed("b"));
    exchange(&mut reader, &mut owner, at(1));
    let verdict = |level, n| Verdict { incarnation: Incarnation(n), level };
    let copy = |reader: &Replica| reader.copy(&node("a")).unwrap().verdict();
    let mut judge = |verdict| {
        let mut news = reader.copy(&node("a")).unwrap().judgement(node("a"));
        news.verdict = verdict;
        take(&mut reader, "x", news);
        copy(&reader)
    };
    assert_eq!(judge(verdict(Level::Alive, 5)), verdict(Level::Alive, 0));
    assert_eq!(judge(verdict(Level::Dead, 0)), verdict(Level::Dead, 0));
    assert_eq!(judge(verdict(Level::Alive, 1)), verdict(Level::Dead, 0));
    // The owner can.
    let mut out = Vec::new();
    let accusation = Gossip::Push(Delta {
        nodes: vec![reader.copy(&node("a")).unwrap().judgement(node("a"))],
        more: false,
    });
    owner.handle(at(2), StorageInput::Gossip(node("b"), Box::new(accusation)), &mut out);
    exchange(&mut reader, &mut owner, at(3));
    assert_eq!(copy(&reader), verdict(Level::Alive, 1));
}

#[test]
fn a_storage_that_starts_anew_still_has_what_others_have_signed() {
    let (mut owner, mut relay) = (signed("a"), signed("b"));
    set(&mut owner, "color", "green");
    exchange(&mut relay, &mut owner, at(1));
    let views = relay.view().unwrap();
    let wall = UNIX_EPOCH + Duration::from_secs(2);
    let mut out = Vec::new();
    let mut relay =
        Replica::start(config("b"), Stored::default(), &views, false, at(2), wall, &mut out);
    relay.set_seals(seals(1, Signing::Require));
    let mut late = signed("c");
    exchange(&mut late, &mut relay, at(3));
    assert_eq!(seen(&late, "a", "color", at(3)).as_deref(), Some("green"));
}

#[test]
fn one_signature_is_for_all_that_is_told_at_once() {
    let mut owner = signed("a");
    owner.handle(at(1), StorageInput::Linked(node("b"), true), &mut Vec::new());
    let mut seals = Vec::new();
    let mut out = Vec::new();
    for n in 0..100 {
        owner.write(at(2), vec![Write::set("counter", n.to_string())], &mut out).unwrap();
    }
    owner.handle(at(3), StorageInput::Tick, &mut out);
    for output in out {
        if let Output::Transport(TransportInput::Gossip { gossip, .. }) = output
            && let Gossip::Push(delta) = &*gossip
        {
            seals.extend(delta.nodes.iter().map(|news| news.sealed.as_ref().unwrap().seal.upto));
        }
    }
    assert!((1..=2).contains(&seals.len()), "{seals:?}");
    assert_eq!(seals.last(), Some(&owner.own().max_version()));
}

fn seals(secret: u8, signing: Signing) -> Option<Seals> {
    Some(Seals { notary: Arc::new(TestNotary::new(secret)), signing })
}

fn signed(name: &str) -> Replica {
    with(name, Signing::Require)
}

fn with(name: &str, signing: Signing) -> Replica {
    with_secret(name, signing, 1)
}

/// Its authority is another one.
fn stranger(name: &str) -> Replica {
    with_secret(name, Signing::Require, 2)
}

fn with_secret(name: &str, signing: Signing, secret: u8) -> Replica {
    let config = ReplicaConfig { delta_bytes: 64 << 10, ..config(name) };
    let mut replica = start(config, Stored::default());
    replica.set_seals(seals(secret, signing));
    replica
}

/// What the owner tells of itself to who has what `reader` has.
fn told(owner: &mut Replica, reader: &Replica) -> NodeDelta {
    let name = owner.node().clone();
    let (digest, _) = reader.lines(std::slice::from_ref(&name), &[]);
    let (_, delta) = owner.answer(at(1), &node("z"), &digest, &mut Vec::new());
    delta.nodes.into_iter().find(|news| news.node == name).unwrap()
}

fn take(reader: &mut Replica, from: &str, news: NodeDelta) -> Vec<Output> {
    crate::support::told(reader, from, news)
}

fn refused(out: &[Output]) -> Vec<Refusal> {
    let refusal = |output: &Output| match output {
        Output::Event(Event::Error(Problem::NewsRefused { refusal, .. })) => Some(*refusal),
        _ => None,
    };
    out.iter().filter_map(refusal).collect()
}

fn liars(out: &[Output]) -> Vec<NodeId> {
    let liar = |output: &Output| match output {
        Output::Event(Event::Error(Problem::Equivocation { peer })) => Some(peer.clone()),
        _ => None,
    };
    out.iter().filter_map(liar).collect()
}
