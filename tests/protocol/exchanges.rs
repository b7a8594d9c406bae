//! Both halves of an exchange: the order of frames, and that it ends whatever the peer does.

use std::sync::Arc;

use gossipmonger::protocol::{
    delta::Delta,
    digest::{Digest, DigestEntry},
    exchange::{Ask, Breach, Half, Initiator, Reply, Responder, Step},
    id::Version,
    map::MapLimits,
    message::Message,
    replica::ReplicaConfig,
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

/// Plays a peer that says the same in every round, to an initiator whose digest never changes.
fn rounds_against(wants: impl Fn(usize) -> Digest, delta: &Delta) -> usize {
    let (mut initiator, mut step) = Initiator::open(Arc::default());
    let mut rounds = 0;
    loop {
        step = match step {
            Step::Send(Message::Syn { .. }) => {
                rounds += 1;
                assert!(rounds < 100, "it goes on for ever");
                initiator.sent()
            }
            Step::Send(_) => initiator.sent(),
            Step::Read => {
                initiator.frame(Message::SynAck { wants: wants(rounds), delta: delta.clone() })
            }
            Step::Ask(Ask::Merge { .. }) => {
                initiator.reply(Reply::Merged(Delta { nodes: Vec::new(), more: true }))
            }
            Step::Ask(_) => initiator.reply(Reply::Digest(Arc::default())),
            Step::Done => return rounds,
            Step::Broken(breach) => panic!("{breach}"),
        };
    }
}

#[test]
fn ends_with_a_peer_that_always_wants_the_same() {
    let wants = Digest { entries: vec![DigestEntry::unknown(node("owner"))] };
    let more = Delta { nodes: vec![news("owner", 0, 5, 0)], more: true };
    assert_eq!(rounds_against(|_| wants.clone(), &Delta::default()), 2);
    assert_eq!(rounds_against(|_| wants.clone(), &more), 2);
    assert_eq!(rounds_against(|_| Digest::default(), &Delta { nodes: Vec::new(), more: true }), 2);
}

#[test]
fn goes_on_while_the_peer_gets_further() {
    let wants = |round: usize| {
        let reached = Version(round.min(10) as u64);
        let entry = DigestEntry { max_version: reached, ..DigestEntry::unknown(node("owner")) };
        Digest { entries: vec![entry] }
    };
    assert_eq!(rounds_against(wants, &Delta::default()), 11);
}

#[test]
fn ends_with_a_peer_that_refuses_what_it_is_sent() {
    let limits = MapLimits { keys: 1, ..LIMITS };
    let mut strict = start(ReplicaConfig { limits, ..config("strict") }, Default::default());
    let cut = ReplicaConfig { delta_entries: 10, ..config("large") };
    let mut large = start(cut, Default::default());
    (0..100).for_each(|n| {
        set(&mut large, &format!("k{n}"), "1");
    });
    assert!(exchange(&mut large, &mut strict, at(1)).rounds <= 3);
    assert!(exchange(&mut strict, &mut large, at(1)).rounds <= 3);
    assert!(strict.copy(&node("large")).is_none());
}

#[test]
fn bulk_goes_through_in_one_exchange_whoever_begins() {
    for begins in [true, false] {
        let cut = ReplicaConfig { delta_entries: 10, ..config("large") };
        let mut large = start(cut, Default::default());
        (0..205).for_each(|n| {
            set(&mut large, &format!("k{n}"), "1");
        });
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
