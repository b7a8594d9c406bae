//! Both halves of an exchange: the order of frames, and that it ends whatever the peer does.

use std::sync::Arc;

use gossipmonger::protocol::{
    bulk::{FEEDS_MAX, LEASE},
    delta::{Delta, NodeDelta},
    digest::{Digest, DigestEntry},
    exchange::{Ask, Breach, CHUNKS_MAX, Half, Initiator, Reply, Responder, Step},
    gossip::Gossip,
    id::{NodeId, Version},
    map::MapLimits,
    message::Message,
    replica::{Replica, ReplicaConfig},
    route::{Output, StorageInput, TransportInput},
    write::Write,
};

use crate::support::{LIMITS, at, config, exchange, news, node, replica, set, start};

fn syn() -> Message {
    Message::Syn { digest: Digest::default() }
}

fn syn_ack(more: bool) -> Message {
    Message::SynAck { wants: Digest::default(), delta: Delta { nodes: Vec::new(), more } }
}

fn ack(more: bool) -> Message {
    Message::Ack { delta: Delta { nodes: Vec::new(), more } }
}

const BROKEN: Step = Step::Broken(Breach::Order);

#[test]
fn refuses_frames_out_of_order() {
    let open = || Initiator::open(Arc::default()).0;
    assert_eq!(open().frame(syn()), BROKEN);
    assert_eq!(open().frame(ack(false)), BROKEN);
    let mut initiator = open();
    assert!(matches!(initiator.frame(syn_ack(false)), Step::Ask(Ask::Merge { .. })));
    assert_eq!(initiator.frame(syn_ack(false)), BROKEN);

    assert_eq!(Responder::new().frame(syn_ack(false)), BROKEN);
    assert_eq!(Responder::new().frame(ack(false)), BROKEN, "nothing was told that it could answer");
    let mut responder = Responder::new();
    assert!(matches!(responder.frame(syn()), Step::Ask(Ask::Answer { .. })));
    let answer = Reply::Answer { wants: Digest::default(), delta: Delta::default() };
    assert!(matches!(responder.reply(answer), Step::Send(Message::SynAck { .. })));
    assert_eq!(responder.sent(), Step::Read);
    assert!(!responder.may_end(), "the peer owes an answer");
    assert_eq!(responder.frame(syn()), BROKEN);
}

#[test]
fn an_exchange_without_more_is_one_round() {
    let (mut initiator, step) = Initiator::open(Arc::default());
    assert_eq!(step, Step::Send(syn()));
    assert_eq!(initiator.sent(), Step::Read);
    assert!(matches!(initiator.frame(syn_ack(false)), Step::Ask(Ask::Merge { .. })));
    assert_eq!(initiator.reply(Reply::Merged(Delta::default())), Step::Send(ack(false)));
    assert_eq!(initiator.sent(), Step::Done);
}

fn more(more: bool) -> Message {
    Message::More { delta: Delta { nodes: Vec::new(), more } }
}

/// An initiator that has just asked for the rest of a delta that was cut.
fn pulling() -> Initiator {
    let (mut initiator, _) = Initiator::open(Arc::default());
    assert_eq!(initiator.sent(), Step::Read);
    assert!(matches!(initiator.frame(syn_ack(true)), Step::Ask(Ask::Merge { .. })));
    assert_eq!(initiator.reply(Reply::Merged(Delta::default())), Step::Send(ack(false)));
    assert_eq!(initiator.sent(), Step::Ask(Ask::Pull { about: None }));
    let pull = initiator.reply(Reply::Pull(Some(Digest::default())));
    assert_eq!(pull, Step::Send(Message::Pull { digest: Some(Digest::default()), all: true }));
    assert_eq!(initiator.sent(), Step::Read);
    assert!(initiator.is_bulk());
    initiator
}

#[test]
fn refuses_bulk_that_was_not_asked_for() {
    let (mut initiator, _) = Initiator::open(Arc::default());
    assert_eq!(initiator.frame(more(false)), BROKEN);
    assert_eq!(pulling().frame(syn_ack(true)), BROKEN);
    assert_eq!(pulling().frame(Message::Pull { digest: None, all: true }), BROKEN);
    assert_eq!(Responder::new().frame(Message::Pull { digest: None, all: true }), BROKEN);
}

#[test]
fn cuts_off_a_peer_that_says_more_for_ever() {
    let mut initiator = pulling();
    for _ in 0..CHUNKS_MAX {
        assert!(matches!(initiator.frame(more(true)), Step::Ask(Ask::Take { .. })));
        assert_eq!(initiator.reply(Reply::Took(true)), Step::Read);
    }
    assert_eq!(initiator.frame(more(true)), Step::Broken(Breach::Endless));
}

#[test]
fn ends_the_stream_under_deltas_of_no_use() {
    let mut initiator = pulling();
    assert!(matches!(initiator.frame(more(true)), Step::Ask(Ask::Take { .. })));
    assert_eq!(initiator.reply(Reply::Took(false)), Step::Done);
    assert!(!initiator.is_bulk());
}

#[test]
fn asks_for_nothing_while_it_pulls_from_another() {
    let mut strange = replica("strange");
    let (one, other) = (node("one"), node("other"));
    assert!(strange.pull(at(1), &one, None).is_some());
    assert!(strange.pull(at(1), &other, None).is_none());
    assert!(strange.pull(at(1), &one, None).is_none(), "not on a second stream either");
    let mut out = Vec::new();
    strange.handle(at(2), StorageInput::BulkBroken(other.clone()), &mut out);
    assert!(strange.pull(at(2), &other, None).is_none());
    strange.handle(at(2), StorageInput::BulkBroken(one), &mut out);
    assert!(strange.pull(at(2), &other, None).is_some(), "the pull has broken off");
    let late = at(2) + LEASE;
    assert!(strange.pull(late, &node("third"), None).is_some(), "nothing has come for too long");
}

#[test]
fn tells_nobody_twice_what_it_is_feeding_it() {
    let mut large = large(10, 205);
    let (small, other) = (node("small"), node("other"));
    let mut out = Vec::new();
    let nothing = Digest::default();
    let (_, first) = large.answer(at(1), &small, &nothing, &mut out);
    assert_eq!((first.len(), first.more), (10, true));
    let (_, again) = large.answer(at(1), &small, &nothing, &mut out);
    assert_eq!((again.len(), again.more), (0, true), "it may pull, if it does not");
    assert_eq!(large.answer(at(1), &other, &nothing, &mut out).1.len(), 10);
    let (theirs, fed) = large.feed(at(1), &small, nothing.clone(), true);
    assert_eq!(fed.nodes[0].from, Version(0));
    assert_eq!(large.feed(at(1), &small, theirs, true).1.nodes[0].from, fed.nodes[0].to);
    large.handle(at(2), StorageInput::BulkBroken(small.clone()), &mut out);
    assert_eq!(large.answer(at(2), &small, &nothing, &mut out).1.len(), 10);
}

#[test]
fn pushes_nothing_that_it_is_feeding() {
    let mut large = large(10, 205);
    let (fed, other) = (node("fed"), node("other"));
    for peer in [&fed, &other] {
        large.handle(at(1), StorageInput::Linked(peer.clone(), true), &mut Vec::new());
    }
    let (mut theirs, mut more) = (Digest::default(), true);
    let write = |large: &mut Replica, second: u64| {
        let mut out = Vec::new();
        large.write(at(second), vec![Write::set(format!("new{second}"), "1")], &mut out).unwrap();
        large.handle(at(second), StorageInput::Tick, &mut out);
        [&fed, &other].map(|peer| is_told(&out, peer))
    };
    while more {
        let delta;
        (theirs, delta) = large.feed(at(2), &node("fed"), theirs, true);
        more = delta.more;
        if delta.nodes[0].from == Version(0) {
            assert_eq!(write(&mut large, 3), [false, true], "the pull brings it");
            let mut out = Vec::new();
            let graft = Gossip::Graft(vec![DigestEntry::unknown(node("large"))]);
            let graft = StorageInput::Gossip(node("fed"), Box::new(graft));
            large.handle(at(3), graft, &mut out);
            assert!(!is_told(&out, &node("fed")), "it does so whoever asks");
        }
    }
    assert_eq!(theirs.get(&node("large")).unwrap().max_version, large.own().max_version());
    assert_eq!(write(&mut large, 4), [true, true]);
}

/// Whether a peer is told news of keys.
fn is_told(out: &[Output], peer: &NodeId) -> bool {
    out.iter().any(|output| match output {
        Output::Transport(TransportInput::Gossip { to, gossip }) => {
            let keys = matches!(&**gossip, Gossip::Push(delta) if delta.nodes.iter().any(|n| !n.entries.is_empty()));
            keys && to.contains(peer)
        }
        _ => false,
    })
}

#[test]
fn asks_nobody_for_what_a_pull_is_bringing() {
    let (mut small, mut out) = (replica("small"), Vec::new());
    let (feeder, other) = (node("feeder"), node("other"));
    small.apply(at(1), &feeder, &delta_of(news("owner", 0, 5, 0), true), &mut out);
    let gap = || Box::new(Gossip::Push(delta_of(news("owner", 7, 8, 0), false)));
    let asks = |out: &[Output]| {
        let graft = |gossip: &Gossip| matches!(gossip, Gossip::Graft(_));
        let gossip = |output: &Output| match output {
            Output::Transport(TransportInput::Gossip { gossip, .. }) => graft(gossip),
            _ => false,
        };
        out.iter().any(gossip)
    };
    small.handle(at(1), StorageInput::Gossip(other.clone(), gap()), &mut out);
    assert!(asks(&out));
    assert!(small.pull(at(2), &feeder, None).is_some());
    assert!(small.take(at(2), &feeder, &delta_of(news("owner", 5, 6, 0), true), &mut out));
    out.clear();
    small.handle(at(2), StorageInput::Gossip(other.clone(), gap()), &mut out);
    assert!(!asks(&out));
    assert!(small.take(at(2), &feeder, &delta_of(news("owner", 6, 7, 0), false), &mut out));
    let gap = Box::new(Gossip::Push(delta_of(news("owner", 9, 10, 0), false)));
    small.handle(at(2), StorageInput::Gossip(other, gap), &mut out);
    assert!(asks(&out), "the pull is over");
}

fn delta_of(news: NodeDelta, more: bool) -> Delta {
    Delta { nodes: vec![news], more }
}

#[test]
fn feeds_only_so_many_at_once() {
    let mut large = large(10, 205);
    let fed = |n: usize| node(&format!("fed{n}"));
    for n in 0..FEEDS_MAX {
        assert!(large.feed(at(1), &fed(n), Digest::default(), true).1.more);
    }
    let (_, shed) = large.feed(at(1), &node("late"), Digest::default(), true);
    assert!(shed.is_empty() && !shed.more);
    large.handle(at(2), StorageInput::BulkBroken(fed(0)), &mut Vec::new());
    assert!(large.feed(at(2), &node("late"), Digest::default(), true).1.more);
}

/// A node with so many keys, whose deltas are cut after so many.
fn large(cut: usize, keys: usize) -> Replica {
    let cut = ReplicaConfig { delta_entries: cut, ..config("large") };
    let mut large = start(cut, Default::default());
    (0..keys).for_each(|n| {
        set(&mut large, &format!("k{n}"), "1");
    });
    large
}

#[test]
fn ends_with_a_peer_that_refuses_what_it_is_sent() {
    let limits = MapLimits { keys: 1, ..LIMITS };
    let mut strict = start(ReplicaConfig { limits, ..config("strict") }, Default::default());
    let mut large = large(10, 100);
    assert!(exchange(&mut large, &mut strict, at(1)).rounds <= 4);
    assert!(exchange(&mut strict, &mut large, at(1)).rounds <= 4);
    assert!(strict.copy(&node("large")).is_none());
}

#[test]
fn bulk_goes_through_in_one_exchange_whoever_begins() {
    for begins in [true, false] {
        let mut large = large(10, 205);
        let mut small = replica("small");
        let outcome = if begins {
            exchange(&mut large, &mut small, at(1))
        } else {
            exchange(&mut small, &mut large, at(1))
        };
        assert_eq!(small.copy(&node("large")).unwrap().live_keys(), 205);
        assert_eq!(outcome.entries, 205, "nothing is sent twice");
        assert!(outcome.rounds <= 22, "{}", outcome.rounds);
    }
}
