//! Updates of one owner that arrive together: one signature is verified for all of them, and a forged one among
//! them gets nowhere and costs no honest one.

use std::{collections::BTreeMap, sync::Arc};

use gossipmonger::protocol::{
    delta::{Delta, DeltaContent, NodeDelta},
    digest::Digest,
    entry::{Entry, Key},
    event::Event,
    exchange::Ask,
    gossip::Gossip,
    id::Version,
    replica::{Replica, ReplicaConfig},
    route::{Counter, Output},
    rules::Rules,
    seal::{Seal, Seals, Signature, Signing},
    tree::Hash,
};
use imbl::OrdMap;
use proptest::{collection::vec, prelude::*};

use crate::{
    notary::TestNotary,
    support::{at, config, delete, exchange, node, set, start, value},
};

/// An owner and what it tells after each of its writes.
struct Story {
    owner: Replica,
    /// Its state at each version.
    states: BTreeMap<Version, OrdMap<Key, Entry>>,
    /// One update for each write, and one for each write and the one before it.
    told: Vec<NodeDelta>,
    longer: Vec<NodeDelta>,
}

impl Story {
    /// The owner has told a reader of its first state.
    fn of(writes: &[(u8, bool)], readers: &mut [&mut Replica]) -> Self {
        let mut owner = signing("a", Rules::default());
        set(&mut owner, "k0", "first");
        readers.iter_mut().for_each(|reader| drop(exchange(reader, &mut owner, at(1))));
        let states = BTreeMap::from([(owner.own().max_version(), owner.own().entries().clone())]);
        let mut story = Self { owner, states, told: Vec::new(), longer: Vec::new() };
        let mut before = story.owner.own().digest_entry(node("a"));
        for (n, (key, deleted)) in writes.iter().enumerate() {
            let line = story.owner.own().digest_entry(node("a"));
            let key = format!("k{key}");
            if *deleted && story.owner.own().entries().contains_key(&Key::from(&*key)) {
                delete(&mut story.owner, at(1), &key);
            }
            // A deletion of nothing is no write, and every step has to be one.
            if story.owner.own().max_version() == line.max_version {
                set(&mut story.owner, &key, &format!("value {n}"));
            }
            story.told.push(tell(&mut story.owner, line.clone()));
            story.longer.push(tell(&mut story.owner, before));
            before = line;
            let own = story.owner.own();
            story.states.insert(own.max_version(), own.entries().clone());
        }
        story
    }

    /// The reader has a state of the owner, of which version it is.
    fn version_of(&self, reader: &Replica) -> Version {
        let copy = reader.copy(&node("a")).unwrap();
        assert_eq!(Some(copy.entries()), self.states.get(&copy.max_version()));
        assert!(copy.is_whole(), "its last head was verified");
        copy.max_version()
    }
}

fn tell(owner: &mut Replica, line: gossipmonger::protocol::digest::DigestEntry) -> NodeDelta {
    let digest = Digest { entries: vec![line] };
    let (_, mut delta) = owner.answer(at(1), &node("z"), &digest, &mut Vec::new());
    delta.nodes.pop().unwrap()
}

fn signing(name: &str, rules: Rules) -> Replica {
    let mut replica = start(ReplicaConfig { rules, ..config(name) }, Default::default());
    let notary = Arc::new(TestNotary::new(1));
    replica.set_seals(Some(Seals { notary, signing: Signing::Require }));
    replica
}

/// Two readers: one takes updates together, the other one by one.
fn readers() -> [Replica; 2] {
    let apart = Rules { verify_once: false, ..Rules::default() };
    [signing("b", Rules::default()), signing("b", apart)]
}

/// Each in a frame of its own, all of them in one message.
fn take(reader: &mut Replica, updates: &[NodeDelta]) -> Vec<Output> {
    let push = |news: &NodeDelta| Gossip::Push(Delta { nodes: vec![news.clone()], more: false });
    let mut out = Vec::new();
    for turn in Ask::Gossip(updates.iter().map(push).collect()).turns() {
        reader.serve(at(2), &node("x"), turn, &mut out);
    }
    out
}

fn count(out: &[Output], counter: Counter) -> u64 {
    let counts = out.iter().filter_map(|output| match output {
        Output::Count(found, n) if *found == counter => Some(*n),
        _ => None,
    });
    counts.sum()
}

/// What the readers of the node were told of keys: of each the last; deletions only of the key that was there.
fn shown(out: &[Output]) -> BTreeMap<Key, Option<String>> {
    let change = |output: &Output| match output {
        Output::Event(Event::Updated { key, value, .. }) => {
            Some((key.clone(), value.as_str().map(str::to_owned)))
        }
        Output::Event(Event::Deleted { key, .. }) => Some((key.clone(), None)),
        _ => None,
    };
    let mut last: BTreeMap<_, _> = out.iter().filter_map(change).collect();
    last.retain(|key, value| value.is_some() || *key == Key::from("k0"));
    last
}

#[test]
fn one_head_is_verified_for_all_updates_of_an_owner_that_arrive_together() {
    let [mut together, mut apart] = readers();
    let writes: Vec<_> = (0..10).map(|n| (n % 4, false)).collect();
    let story = Story::of(&writes, &mut [&mut together, &mut apart]);
    let (one, each) = (take(&mut together, &story.told), take(&mut apart, &story.told));
    assert_eq!((count(&one, Counter::SealsVerified), count(&one, Counter::SealsCovered)), (1, 9));
    assert_eq!(count(&each, Counter::SealsVerified), 10, "without the rule");
    assert_eq!(story.version_of(&together), story.owner.own().max_version());
    assert_eq!(story.version_of(&apart), story.owner.own().max_version());
    for counter in [Counter::EntriesReceived, Counter::EntriesApplied] {
        assert_eq!(count(&one, counter), count(&each, counter), "{counter:?}");
    }
    assert_eq!(shown(&one), shown(&each));
    assert_eq!(together.root(), apart.root());
}

#[test]
fn a_forged_last_head_loses_no_honest_update() {
    let (mut fresh, writes) = (readers(), [(0, false), (1, false), (0, true), (2, false)]);
    let [together, apart] = &mut fresh;
    let story = Story::of(&writes, &mut [together, apart]);
    let mut updates = story.told.clone();
    updates.last_mut().unwrap().sealed.as_mut().unwrap().seal.signature = Signature([7; 64]);
    for reader in [together, apart] {
        let out = take(reader, &updates);
        let last_but_one = *story.states.keys().nth(3).unwrap();
        assert_eq!(story.version_of(reader), last_but_one);
        assert_eq!(count(&out, Counter::NewsRefused), 1, "and the forged one is refused");
    }
}

#[test]
fn a_forged_value_that_a_later_head_covers_is_never_shown() {
    let [mut together, mut apart] = readers();
    let story = Story::of(&[(1, false), (1, false)], &mut [&mut together, &mut apart]);
    let mut updates = story.told.clone();
    let forged = value("k1", updates[0].to.0, "forged");
    updates[0].entries = vec![forged];
    let out = take(&mut together, &updates);
    assert_eq!(shown(&out), BTreeMap::from([(Key::from("k1"), Some("value 1".to_owned()))]));
    assert!(!format!("{out:?}").contains("forged"), "{out:?}");
    assert_eq!(story.version_of(&together), story.owner.own().max_version());
}

/// What a relay does to an update.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Pass,
    /// It sends a longer one instead.
    Longer,
    Drop,
    Repeat,
    ForgeValue,
    ForgeSignature,
    ForgeRoot,
    ForgeVersion,
    LeaveOut,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => Just(Deed::Pass),
        2 => Just(Deed::Longer),
        1 => Just(Deed::Drop),
        1 => Just(Deed::Repeat),
        1 => Just(Deed::ForgeValue),
        1 => Just(Deed::ForgeSignature),
        1 => Just(Deed::ForgeRoot),
        1 => Just(Deed::ForgeVersion),
        1 => Just(Deed::LeaveOut),
    ]
}

fn seal(news: &mut NodeDelta) -> &mut Seal {
    &mut news.sealed.as_mut().unwrap().seal
}

fn done(story: &Story, deeds: &[Deed]) -> Vec<NodeDelta> {
    let mut sent = Vec::new();
    for (n, deed) in deeds.iter().enumerate().take(story.told.len()) {
        let mut news = story.told[n].clone();
        match deed {
            Deed::Drop => continue,
            Deed::Longer => news = story.longer[n].clone(),
            Deed::Repeat => sent.push(news.clone()),
            Deed::ForgeValue => news.entries.iter_mut().for_each(|entry| {
                entry.content = DeltaContent::Value { value: "forged".into(), ttl_ms: None };
            }),
            Deed::ForgeSignature => seal(&mut news).signature = Signature([7; 64]),
            Deed::ForgeRoot => seal(&mut news).root = Hash([7; 32]),
            Deed::ForgeVersion => seal(&mut news).upto = news.to.next(),
            Deed::LeaveOut => news.entries.clear(),
            Deed::Pass => {}
        }
        sent.push(news);
    }
    sent
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever is forged among them, together as much is taken as one by one, and nothing that is not honest;
    /// and if all are honest, in whatever order, the result is the same.
    #[test]
    fn together_comes_what_comes_one_by_one(
        writes in vec((0_u8..4, any::<bool>()), 1..8),
        deeds in vec(deed(), 8),
        swaps in vec((0_usize..8, 0_usize..8), 0..3),
        honest in any::<bool>(),
    ) {
        let [mut together, mut apart] = readers();
        let mut story = Story::of(&writes, &mut [&mut together, &mut apart]);
        let is_honest = |deed: &Deed| {
            matches!(deed, Deed::Pass | Deed::Longer | Deed::Drop | Deed::Repeat)
        };
        let deeds: Vec<_> = deeds
            .into_iter()
            .map(|deed| if honest && !is_honest(&deed) { Deed::Pass } else { deed })
            .collect();
        let mut sent = done(&story, &deeds);
        for (one, other) in swaps {
            if one.max(other) < sent.len() {
                sent.swap(one, other);
            }
        }
        let outs = [take(&mut together, &sent), take(&mut apart, &sent)];
        let (all, each) = (story.version_of(&together), story.version_of(&apart));
        prop_assert!(all >= each, "{all} together, {each} one by one");
        let known = format!("{:?}", shown(&outs[0]));
        prop_assert!(!known.contains("forged"), "{}", known);
        if honest {
            prop_assert_eq!(all, each);
            prop_assert_eq!(shown(&outs[0]), shown(&outs[1]));
            prop_assert_eq!(together.root(), apart.root());
        }
        // And both come to the owner's last state.
        for reader in [&mut together, &mut apart] {
            exchange(reader, &mut story.owner, at(3));
            prop_assert_eq!(story.version_of(reader), story.owner.own().max_version());
        }
    }
}
