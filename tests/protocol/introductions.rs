//! How introductions spread while many nodes join.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gossipmonger::{
    NodeId,
    protocol::{
        delta::Delta,
        digest::DigestEntry,
        gossip::Gossip,
        push::INTRODUCTIONS_PER_SECOND,
        replica::{Replica, ReplicaConfig},
        route::{Output, StorageInput, TransportInput},
        seal::{Seals, Signing},
        time::Time,
    },
    store::Stored,
};

use crate::{
    notary::TestNotary,
    support::{config, node, set, start},
};

const JOINERS: usize = 200;
/// The time between two joins.
const PAUSE: Duration = Duration::from_millis(20);
/// Pauses after the last join, in which the last batch goes out.
const REST: usize = 30;
const LINKS: [&str; 5] = ["l0", "l1", "l2", "l3", "l4"];

/// What a relay has sent while others joined.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    /// The joiners whose introduction it has sent to somebody unasked.
    told: BTreeSet<NodeId>,
    /// Those that it has announced.
    noted: BTreeSet<NodeId>,
}

fn signed(name: &str) -> Replica {
    let mut replica = start(ReplicaConfig { peers_max: 1_000, ..config(name) }, Stored::default());
    let notary = Arc::new(TestNotary::new(7));
    replica.set_seals(Some(Seals { notary, signing: Signing::Require }));
    replica
}

/// The introduction of a new node with so many keys.
fn introduction(name: &str, keys: usize) -> Delta {
    let mut owner = signed(name);
    for n in 0..keys {
        set(&mut owner, &format!("k{n}"), "v");
    }
    let mut out = Vec::new();
    let all = Gossip::Graft(vec![DigestEntry::unknown(node(name))]);
    let all = StorageInput::Gossip(node("reader"), Box::new(all));
    owner.handle(Time::ZERO, StorageInput::Linked(node("reader"), true), &mut out);
    owner.handle(Time::ZERO, all, &mut out);
    let news = out.into_iter().find_map(|output| match output {
        Output::Transport(TransportInput::Gossip { gossip, .. }) => match &*gossip {
            Gossip::Push(news) => Some(news.clone()),
            _ => None,
        },
        _ => None,
    });
    news.expect("its own map")
}

/// A relay with five links hears of one joiner after the other; `by`: how, and from whom.
fn relay(keys: usize, by: impl Fn(&mut Replica, Time, Delta, &mut Vec<Output>)) -> Sent {
    late_relay(Duration::ZERO, keys, by)
}

/// The same if it is late.
fn late_relay(
    lag: Duration,
    keys: usize,
    by: impl Fn(&mut Replica, Time, Delta, &mut Vec<Output>),
) -> Sent {
    let mut relay = signed("relay");
    relay.handle(Time::ZERO, StorageInput::Lag(lag), &mut Vec::new());
    for link in LINKS {
        relay.handle(Time::ZERO, StorageInput::Linked(node(link), true), &mut Vec::new());
    }
    let mut sent = Sent::default();
    let mut now = Time::ZERO + Duration::from_secs(1);
    for n in 0..JOINERS + REST {
        let mut out = Vec::new();
        if n < JOINERS {
            by(&mut relay, now, introduction(&format!("j{n}"), keys), &mut out);
        }
        for _ in 0..2 {
            now = now + PAUSE / 2;
            relay.handle(now, StorageInput::Tick, &mut out);
        }
        sent.note(out);
    }
    assert_eq!(relay.peer_count(), JOINERS);
    sent
}

impl Sent {
    fn note(&mut self, out: Vec<Output>) {
        for output in out {
            let Output::Transport(TransportInput::Gossip { gossip, .. }) = output else { continue };
            match &*gossip {
                Gossip::Push(news) => {
                    self.told.extend(news.nodes.iter().map(|news| news.node.clone()));
                }
                Gossip::Have(haves) => {
                    self.noted.extend(haves.iter().map(|have| have.node.clone()));
                }
                _ => {}
            }
        }
    }
}

fn pushed(relay: &mut Replica, now: Time, news: Delta, out: &mut Vec<Output>) {
    relay.handle(now, StorageInput::Gossip(node("l0"), Box::new(Gossip::Push(news))), out);
}

#[test]
fn of_a_crowd_that_joins_a_relay_tells_a_few_and_notes_the_rest() {
    let (bare, full) = (relay(0, pushed), relay(2, pushed));
    let seconds = (PAUSE * JOINERS as u32).as_secs_f64();
    let most = (f64::from(INTRODUCTIONS_PER_SECOND) * (1.0 + seconds)).ceil() as usize;
    assert!(bare.told.len() <= most, "{} of {JOINERS} in {seconds} s", bare.told.len());
    assert!(bare.told.len() + bare.noted.len() >= JOINERS, "none is left out");
    assert_eq!(bare, full, "keys make no difference");
}

#[test]
fn what_an_exchange_brings_about_others_is_noted_only() {
    let apply = |from: &'static str| {
        move |relay: &mut Replica, now: Time, news: Delta, out: &mut Vec<Output>| {
            let owner = news.nodes[0].node.clone();
            let from = if from == "owner" { owner } else { node(from) };
            relay.apply(now, &from, &news, out);
        }
    };
    for keys in [0, 2] {
        let sent = relay(keys, apply("l0"));
        assert_eq!((sent.told.len(), sent.noted.len()), (0, JOINERS), "{keys} keys");
        let sent = relay(keys, apply("owner"));
        assert!(!sent.told.is_empty(), "nobody else knows it yet");
        assert!(sent.told.len() + sent.noted.len() >= JOINERS);
    }
}

#[test]
fn a_relay_that_is_late_announces_nearly_all() {
    let seconds = (PAUSE * JOINERS as u32).as_secs_f64();
    for (lag, pause) in [(50, 1.0), (300, 3.0)] {
        let sent = late_relay(Duration::from_millis(lag), 2, pushed);
        let most = (seconds / pause) as usize + 1;
        assert!((1..=most).contains(&sent.told.len()), "{lag} ms: {:?}", sent.told);
        assert!(sent.told.len() + sent.noted.len() >= JOINERS, "none is left out");
    }
}
