//! Nodes that come back with less than they had, after they left on purpose, elsewhere, or twice.

use std::{sync::Arc, time::Duration};

use gossipmonger::{
    protocol::{
        claim::ANSWER_STEP,
        event::{Behind, Event, Problem},
        gossip::{Gossip, Have},
        id::{Generation, NodeId, Version},
        liveness::{Liveness, LivenessConfig},
        reason::Cause,
        record::Status,
        replica::Replica,
        returning::{Return, Returned},
        route::{Counter, DetectorInput, Output, Sign, StorageInput, TransportInput},
        verdict::Verdict,
    },
    store::Stored,
};

use crate::{
    lifecycle::stored,
    support::{at, config, exchange, news, node, record, replica, set, start, told},
};

/// To whom this is sent.
type Sent = (Vec<NodeId>, Vec<Have>);

/// What the detector is told of returns, and what the returned are told of their past.
fn returns(out: &[Output]) -> (Vec<Arc<Return>>, Vec<Sent>) {
    let (mut returns, mut pasts) = (Vec::new(), Vec::new());
    for output in out {
        match output {
            Output::Detector(DetectorInput::Returned(_, how)) => returns.push(Arc::clone(how)),
            Output::Transport(TransportInput::Gossip { to, gossip }) => {
                if let Gossip::Have(haves) = &**gossip
                    && haves.iter().all(|have| to.contains(&have.node))
                {
                    pasts.push((to.clone(), haves.clone()));
                }
            }
            _ => {}
        }
    }
    (returns, pasts)
}

/// A reader that knows three keys of an owner whose store has but the first; linked to it.
fn restored() -> (Replica, Replica, Generation) {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "k1", "1");
    let disk = stored(&owner);
    set(&mut owner, "k2", "1");
    set(&mut owner, "k3", "1");
    exchange(&mut owner, &mut reader, at(1));
    reader.handle(at(1), StorageInput::Linked(node("owner"), true), &mut Vec::new());
    let earlier = owner.own().generation();
    (start(config("owner"), disk), reader, earlier)
}

fn behind(out: &[Output]) -> Vec<Behind> {
    let behind = |output: &Output| match output {
        Output::Event(Event::Error(Problem::Behind(behind))) => Some(behind.clone()),
        _ => None,
    };
    out.iter().filter_map(behind).collect()
}

fn say(owner: &mut Replica, from: &str, generation: Generation, version: u64) -> Vec<Output> {
    let past = Have { node: node("owner"), generation, version: Version(version) };
    let mut out = Vec::new();
    let gossip = Box::new(Gossip::Have(vec![past]));
    owner.handle(at(3), StorageInput::Gossip(node(from), gossip), &mut out);
    out
}

#[test]
fn a_node_restored_from_an_older_store_hears_of_its_peers_what_it_has_lost() {
    let (mut owner, mut reader, earlier) = restored();
    let outcome = exchange(&mut owner, &mut reader, at(2));
    let (returns, pasts) = returns(&outcome.outputs[1]);
    let [how] = &returns[..] else { panic!("{returns:?}") };
    assert_eq!((how.earlier, how.lost, how.lost_keys), (earlier, 2, true));
    let [(to, haves)] = &pasts[..] else { panic!("{pasts:?}") };
    assert_eq!((&to[..], haves[0].generation), (&[node("owner")][..], earlier));
    // It hears it again over each new connection: the first may have come after the news.
    let mut out = Vec::new();
    reader.handle(at(2), StorageInput::Linked(node("owner"), true), &mut out);
    assert!(self::returns(&out).1.iter().any(|(_, again)| again == haves));
    let out = say(&mut owner, "reader", haves[0].generation, haves[0].version.0);
    let [lost] = &behind(&out)[..] else { panic!("{out:?}") };
    assert_eq!((lost.generation, lost.versions, &lost.told_by), (earlier, 2, &node("reader")));
    assert!(lost.to_string().contains("reader knew 2 versions of this node's generation"));
}

#[test]
fn a_node_that_comes_back_without_its_store_hears_of_all_that_it_has_lost() {
    let (_, mut reader, earlier) = restored();
    let known = reader.copy(&node("owner")).unwrap().max_version().0;
    let mut disk = Stored::default();
    disk.head.generation = earlier;
    let mut owner = start(config("owner"), disk);
    let outcome = exchange(&mut owner, &mut reader, at(2));
    let (returns, _) = returns(&outcome.outputs[1]);
    assert!(returns.iter().any(|how| how.lost == known && how.lost_keys), "{returns:?}");
}

#[test]
fn a_node_that_has_lost_nothing_hears_nothing() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "k1", "1");
    exchange(&mut owner, &mut reader, at(1));
    reader.handle(at(1), StorageInput::Linked(node("owner"), true), &mut Vec::new());
    let (earlier, reach) = (owner.own().generation(), owner.own().max_version());
    let mut owner = start(config("owner"), stored(&owner));
    let outcome = exchange(&mut owner, &mut reader, at(2));
    let (returns, pasts) = returns(&outcome.outputs[1]);
    let [how] = &returns[..] else { panic!("{returns:?}") };
    assert_eq!((how.lost, how.lost_keys, how.had_left), (0, false, false));
    assert_eq!(pasts, []);
    // Somebody who is late tells how far it knew the earlier life: the store has all of that.
    let out = say(&mut owner, "reader", earlier, reach.0);
    assert_eq!(behind(&out), []);
}

#[test]
fn what_others_make_up_of_a_nodes_past_is_counted_and_changes_nothing() {
    let (mut owner, _, earlier) = restored();
    let digest = owner.digest();
    let (mut reports, mut counted) = (0, 0);
    for version in (0..1_000).chain([u64::MAX]) {
        for generation in [earlier, Generation(1), Generation(0)] {
            let out = say(&mut owner, "liar", generation, version);
            reports += behind(&out).len();
            let told = |o: &&Output| matches!(o, Output::Count(Counter::BehindTold, 1));
            counted += out.iter().filter(told).count();
            assert!(!out.iter().any(|o| matches!(o, Output::Persist(_) | Output::Stop(_))));
        }
    }
    assert!((1..=8).contains(&reports) && counted > 1_000, "{reports} of {counted}");
    assert_eq!(owner.digest(), digest);
    // Of the present life, or a later one, that is no past.
    let ours = owner.own().generation();
    assert_eq!(behind(&say(&mut owner, "liar", ours, u64::MAX)), []);
    assert_eq!(owner.own().generation(), ours);
}

#[test]
fn a_store_from_before_the_node_left_is_known_by_what_it_lacks() {
    for (knows, lost) in [(true, 0), (false, 1)] {
        let (mut owner, mut reader) = (replica("owner"), replica("reader"));
        set(&mut owner, "k1", "1");
        let before = stored(&owner);
        owner.set_status(at(0), Status::Left, &mut Vec::new());
        exchange(&mut owner, &mut reader, at(1));
        let disk = if knows { stored(&owner) } else { before };
        let mut owner = start(config("owner"), disk);
        let outcome = exchange(&mut owner, &mut reader, at(2));
        let (returns, pasts) = returns(&outcome.outputs[1]);
        let [how] = &returns[..] else { panic!("{returns:?}") };
        assert_eq!((how.had_left, how.lost), (true, lost), "its store knows: {knows}");
        assert!(!how.lost_keys && pasts.is_empty(), "no key is lost");
    }
}

#[test]
fn a_life_that_a_conflict_of_names_has_begun_is_known_as_such() {
    let (mut owner, mut reader) = (replica("owner"), replica("reader"));
    set(&mut owner, "k1", "1");
    exchange(&mut owner, &mut reader, at(1));
    let heard = Generation(5_000);
    let twin =
        gossipmonger::protocol::delta::NodeDelta { generation: heard, ..news("owner", 0, 1, 0) };
    told(&mut reader, "owner", twin);
    let mut third = news("owner", 0, 9, 0);
    third.generation = Generation(heard.0 + ANSWER_STEP);
    third.record.as_mut().unwrap().0 = Version(9);
    let (returns, _) = returns(&told(&mut reader, "owner", third));
    let [how] = &returns[..] else { panic!("{returns:?}") };
    assert_eq!((how.earlier, how.is_conflict, how.lost_keys), (heard, true, false));
}

// --- what the detector makes of it

const T: Duration = Duration::from_secs(1);

fn detector() -> Liveness {
    let mut liveness = Liveness::new(LivenessConfig {
        node: node("me"),
        suspicion: 2 * T,
        heartbeat_interval: T,
        dead_peer_phi: 8.0,
        join_grace: 10 * T,
        forget_after: 100 * T,
        rules: Default::default(),
    });
    member(&mut liveness, 1);
    hear(&mut liveness, 1, 1);
    liveness
}

fn member(liveness: &mut Liveness, generation: u64) {
    let member = DetectorInput::Member {
        peer: node("owner"),
        generation: Generation(generation),
        status: Status::Up,
        verdict: Verdict::default(),
        observers: [].into(),
    };
    liveness.handle(at(1), member, &mut Vec::new());
}

fn hear(liveness: &mut Liveness, second: u64, generation: u64) -> Vec<Output> {
    let (peer, generation) = (node("owner"), Generation(generation));
    let heard = DetectorInput::Heard { peer, generation, sign: Sign::Heartbeat, at: at(second) };
    let mut out = Vec::new();
    liveness.handle(at(second), heard, &mut out);
    out
}

fn oddities(out: &[Output]) -> Vec<Returned> {
    let how = |output: &Output| match output {
        Output::Event(Event::PeerReturned { how, .. }) => Some(*how),
        _ => None,
    };
    out.iter().filter_map(how).collect()
}

fn causes(liveness: &Liveness) -> Vec<Cause> {
    let history = liveness.history(&node("owner"));
    let rows = history.iter().flat_map(|history| history.iter());
    rows.map(|row| row.reason.cause).collect()
}

/// What a reader says that knows a life of the owner at `from`, of the one after that at `to`.
fn moved(from: &str, to: &str) -> Arc<Return> {
    let mut reader = replica("reader");
    let life = |generation, address: &str| {
        let mut life = news("owner", 0, 1, 0);
        life.generation = Generation(generation);
        let earlier = (Generation(1), Version(1));
        life.ancestry = (generation > 1).then_some(earlier).into_iter().collect();
        life.record.as_mut().unwrap().1 = record(address);
        life
    };
    told(&mut reader, "owner", life(1, from));
    let (returns, _) = returns(&told(&mut reader, "owner", life(7, to)));
    let [how] = &returns[..] else { panic!("{returns:?}") };
    Arc::clone(how)
}

#[test]
fn a_life_elsewhere_while_the_earlier_one_is_heard_is_called_a_second_process() {
    for (to, second, twice) in [("b:1", 2, true), ("b:1", 9, false), ("a:1", 2, false)] {
        let mut liveness = detector();
        let how = moved("a:1", to);
        let mut out = Vec::new();
        let returned = DetectorInput::Returned(node("owner"), how);
        liveness.handle(at(second), returned, &mut out);
        let told = oddities(&out);
        let expected = twice.then_some(Returned::Twice { earlier: Generation(1) });
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{to} {second}");
        let rows = causes(&liveness);
        assert!(rows.contains(&Cause::Renewed), "a new life is a row: {rows:?}");
        assert_eq!(rows.contains(&Cause::Twice), twice);
    }
}

#[test]
fn a_life_that_is_heard_after_a_later_one_has_begun_is_called_a_second_process_once() {
    let mut liveness = detector();
    member(&mut liveness, 2);
    assert_eq!(oddities(&hear(&mut liveness, 2, 1)), [], "that was on its way");
    let twice = Returned::Twice { earlier: Generation(1) };
    assert_eq!(oddities(&hear(&mut liveness, 4, 1)), [twice]);
    assert_eq!(oddities(&hear(&mut liveness, 5, 1)), []);
    assert_eq!(causes(&liveness).last(), Some(&Cause::Twice));
}

#[test]
fn a_peer_without_some_of_its_versions_or_after_it_left_is_reported_and_explained() {
    let (mut owner, mut reader, earlier) = restored();
    let outcome = exchange(&mut owner, &mut reader, at(2));
    let how = returns(&outcome.outputs[1]).0.remove(0);
    let mut liveness = detector();
    let mut out = Vec::new();
    liveness.handle(at(2), DetectorInput::Returned(node("owner"), how), &mut out);
    assert_eq!(oddities(&out), [Returned::Behind { earlier, versions: 2 }]);
    assert!(out.iter().any(|o| matches!(o, Output::Count(Counter::PeersBehind, 1))));
    let rows = liveness.history(&node("owner")).unwrap();
    let row = rows.iter().last().unwrap();
    let deed = row.reason.deed.as_deref().unwrap();
    assert!(deed.contains("2 versions of generation"), "{deed}");
    assert!(row.from == row.to && row.reason.cause == Cause::Behind);
}
