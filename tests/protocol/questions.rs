//! How questions about a missed peer travel: how many frames they cost, and whom the answers reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gossipmonger::protocol::{
    gossip::Gossip,
    id::{Generation, NodeId},
    overlay::{NEIGHBOURS, ring_neighbours},
    questions::{Questions, REST_INTERVALS},
    replica::{Replica, ReplicaConfig},
    route::{DetectorInput, Output, StorageInput, TransportInput},
    rules::Rules,
    time::Time,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{at, config, node, start};

const NODES: usize = 100;
const T: Duration = Duration::from_secs(1);

/// A datacenter in which one node is silent.
struct Town {
    replicas: BTreeMap<NodeId, Replica>,
    subject: NodeId,
    observers: Vec<NodeId>,
    /// Frames on their way, by the time of their arrival.
    mail: BTreeMap<(Time, u64), (NodeId, NodeId, Gossip)>,
    rng: StdRng,
    sent: u64,
    /// Questions sent, by all nodes.
    questions: usize,
    /// The observers that have answered, by asker.
    answered: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Town {
    fn new(seed: u64, rules: Rules) -> Self {
        let names: Vec<_> = (0..NODES).map(|n| node(&format!("n{n}"))).collect();
        let near = |name: &NodeId| -> Vec<NodeId> {
            let others = names.iter().filter(|other| *other != name);
            ring_neighbours(name, others, 1).into_iter().cloned().collect()
        };
        let one = |name: &NodeId| {
            let config = ReplicaConfig { rules, peers_max: 1_000, ..config(name.as_str()) };
            start(config, Default::default())
        };
        let mut replicas: BTreeMap<_, _> = names.iter().map(|n| (n.clone(), one(n))).collect();
        let maps = replicas.iter().map(|(name, at)| (name.clone(), Arc::new(at.own().clone())));
        let maps: BTreeMap<_, _> = maps.collect();
        let links: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), near(name))).collect();
        for (name, replica) in &mut replicas {
            let mut others = maps.clone();
            others.remove(name);
            replica.adopt(others, None);
            for peer in &links[name] {
                replica.handle(at(1), StorageInput::Linked(peer.clone(), true), &mut Vec::new());
            }
        }
        let subject = names[usize::try_from(seed).unwrap() % NODES].clone();
        let observers = links[&subject].clone();
        Self {
            replicas,
            subject,
            observers,
            mail: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            sent: 0,
            questions: 0,
            answered: BTreeMap::new(),
        }
    }

    /// All observers ask within a few milliseconds, and every frame arrives.
    fn ask(&mut self) {
        for asker in self.observers.clone() {
            let now = at(10) + Duration::from_millis(self.rng.random_range(0..20));
            self.input(now, &asker, StorageInput::Ask(self.subject.clone(), Generation(1_000)));
        }
        while let Some(((now, _), (from, to, gossip))) = self.mail.pop_first() {
            self.input(now, &to, StorageInput::Gossip(from, Box::new(gossip)));
        }
    }

    fn input(&mut self, now: Time, name: &NodeId, input: StorageInput) {
        let mut out = Vec::new();
        self.replicas.get_mut(name).unwrap().handle(now, input, &mut out);
        for output in out {
            match output {
                Output::Transport(TransportInput::Gossip { to, gossip }) => {
                    for peer in to.into_iter().filter(|peer| *peer != self.subject) {
                        self.questions += usize::from(matches!(*gossip, Gossip::Ask(_)));
                        self.sent += 1;
                        let delay = Duration::from_micros(self.rng.random_range(200..20_000));
                        let frame = (name.clone(), peer, (*gossip).clone());
                        self.mail.insert((now + delay, self.sent), frame);
                    }
                }
                // An observer does not hear the subject either.
                Output::Detector(DetectorInput::Asked(ask, near)) => {
                    assert!(near);
                    if self.observers.contains(name) {
                        self.input(now, name, StorageInput::Answer(ask, false));
                    }
                }
                Output::Detector(DetectorInput::Answered(answer)) => {
                    self.answered.entry(name.clone()).or_default().insert(answer.observer);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn ten_observers_that_ask_at_once_make_three_floods_at_most() {
    let (mut all, mut each) = (0, Vec::new());
    for seed in 0..20 {
        let mut town = Town::new(seed, Rules::default());
        town.ask();
        each.push(town.questions);
        all += town.questions;
        let best = town.answered.values().map(BTreeSet::len).max().unwrap();
        let others = town.observers.len() - 1;
        assert_eq!(best, others, "one of them gets all answers: {:?}", town.answered);
    }
    assert!(all / each.len() <= 3 * NODES * NEIGHBOURS, "{each:?}");
    let mut town = Town::new(0, Rules { one_question: false, ..Rules::default() });
    town.ask();
    assert!(town.questions > 3 * NODES * NEIGHBOURS, "without the rule: {}", town.questions);
}

#[test]
fn a_question_holds_others_back_for_half_an_interval_and_not_again_soon() {
    let question = |asker: &str, round| gossipmonger::protocol::gossip::Ask {
        subject: node("s"),
        generation: Generation(1),
        asker: node(asker),
        round,
    };
    let askers: Vec<_> = (0..10).map(|n| format!("a{n}")).collect();
    let mut ranked: Vec<_> = askers.iter().map(|asker| question(asker, 0)).collect();
    ranked.sort_by(|one, other| {
        let first = gossipmonger::protocol::questions::precedes(one, &other.asker);
        if first { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
    });
    let mut questions = Questions::new(Time::ZERO);
    let mut held = |millis: u64, ask: usize, holds: bool| {
        let now = Time::from_origin(Duration::from_millis(millis));
        questions.is_held_back(now, &ranked[ask], T, holds)
    };
    assert!(!held(0, 5, false), "one that may come from anybody");
    assert!(!held(1, 6, true), "holds nothing back");
    assert!(held(2, 7, true));
    assert!(!held(3, 2, true), "the one that comes first goes on");
    assert!(held(4, 6, true) && held(499, 5, true));
    assert!(!held(501, 5, true), "half an interval is over");
    let rest = u64::from(REST_INTERVALS) * 1_000;
    assert!(!held(502, 9, true) && !held(rest - 1, 9, true), "and it does not begin again");
    assert!(!held(rest + 2, 5, true) && held(rest + 3, 9, true));
}
