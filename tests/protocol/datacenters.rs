//! Which datacenters a scheduler says cannot be reached, and whom it has judged from abroad.

use std::{collections::BTreeSet, time::Duration};

use gossipmonger::protocol::{
    datacenters::UNREACHABLE_AFTER,
    event::Event,
    id::{Datacenter, NodeId},
    route::{DetectorInput, Output, Reach, SchedulerInput, StorageInput, Target},
    scheduler::{Scheduler, SchedulerConfig},
    time::Time,
};

use crate::support::node;

/// The scheduler of node `a0` in datacenter `a`, and the time.
struct Machine {
    scheduler: Scheduler,
    now: u64,
    said: Vec<Output>,
}

impl Machine {
    /// Datacenter `a` has nodes `a0` and so on, all heard and connected as far as they are neighbours.
    fn new(sizes: &[(char, usize)]) -> Self {
        let config = SchedulerConfig {
            node: node("a0"),
            datacenter: dc("a"),
            gossip_interval: Duration::from_secs(1),
            gossip_fanout: 3,
            minimum_live_peers: 1,
            seeds: Vec::new(),
            candidates: Vec::new(),
            seed_interval: Duration::from_secs(30),
            exchange_timeout: Duration::from_secs(10),
            rules: Default::default(),
        };
        let scheduler = Scheduler::new(config, Time::ZERO, 1);
        let mut this = Self { scheduler, now: 0, said: Vec::new() };
        for (place, size) in sizes {
            for n in 0..*size {
                let peer = node(&format!("{place}{n}"));
                if peer != node("a0") {
                    this.tell(SchedulerInput::Located(peer.clone(), dc(&place.to_string())));
                    this.tell(SchedulerInput::Peer(peer, Reach::Live));
                }
            }
        }
        this.run(3);
        for peer in this.scheduler.neighbours().to_vec() {
            this.link(peer.as_str(), true);
        }
        this.run(2);
        this.tried().iter().for_each(|peer| this.ended(peer.as_str(), true));
        this.said.clear();
        this
    }

    fn tell(&mut self, input: SchedulerInput) {
        let now = Time::from_origin(Duration::from_millis(self.now));
        self.scheduler.handle(now, input, &mut self.said);
    }

    fn link(&mut self, peer: &str, up: bool) {
        self.tell(SchedulerInput::Linked { peer: node(peer), up, dialed: true });
    }

    fn witness(&mut self, peer: &str, heard: bool) {
        self.tell(SchedulerInput::Witness { peer: node(peer), heard });
    }

    fn ended(&mut self, peer: &str, ok: bool) {
        let (target, node) = (Target::Peer(node(peer)), Some(node(peer)));
        self.tell(SchedulerInput::Ended { target, node, ok });
    }

    fn severs(&mut self, peer: &str, from: &[&str]) {
        let from = from.iter().map(|name| dc(name)).collect();
        self.tell(SchedulerInput::Severed(node(peer), from));
    }

    /// Ticks every tenth of a second.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += 100;
            self.tell(SchedulerInput::Tick);
        }
    }

    /// The neighbours in a datacenter.
    fn neighbours(&self, place: &str) -> Vec<NodeId> {
        let all = self.scheduler.neighbours().iter();
        all.filter(|peer| peer.as_str().starts_with(place)).cloned().collect()
    }

    fn silence(&mut self, place: &str) {
        for peer in self.neighbours(place) {
            self.witness(peer.as_str(), false);
        }
    }

    /// What the own record was to say last, of what was said since this was last called.
    fn severed(&mut self) -> Option<BTreeSet<Datacenter>> {
        self.taken(|output| match output {
            Output::Storage(StorageInput::Severed(from)) => Some(from.clone()),
            _ => None,
        })
        .pop()
    }

    fn tried(&mut self) -> Vec<NodeId> {
        let tried = self.taken(|output| match output {
            Output::Storage(StorageInput::BeginRound(targets)) => Some(targets.clone()),
            _ => None,
        });
        let peers = tried.into_iter().flatten().filter_map(|target| match target {
            Target::Peer(peer) => Some(peer),
            Target::Address(_) => None,
        });
        peers.collect()
    }

    fn judged(&mut self) -> Option<Vec<NodeId>> {
        self.taken(|output| match output {
            Output::Detector(DetectorInput::Observe { judged, .. }) => Some(judged.to_vec()),
            _ => None,
        })
        .pop()
    }

    /// The datacenters that were lost and found, and each time before that the whole set.
    fn told(&mut self) -> Vec<String> {
        self.taken(|output| match output {
            Output::Unreachable(set) => Some(format!("{set:?}")),
            Output::Event(Event::DatacenterUnreachable { datacenter }) => {
                Some(format!("-{datacenter}"))
            }
            Output::Event(Event::DatacenterReachable { datacenter }) => {
                Some(format!("+{datacenter}"))
            }
            _ => None,
        })
    }

    fn taken<T>(&mut self, wanted: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for output in std::mem::take(&mut self.said) {
            match wanted(&output) {
                Some(value) => taken.push(value),
                None => rest.push(output),
            }
        }
        self.said = rest;
        taken
    }
}

fn dc(name: &str) -> Datacenter {
    Datacenter::new(name).unwrap()
}

fn set(names: &[&str]) -> BTreeSet<Datacenter> {
    names.iter().map(|name| dc(name)).collect()
}

const AFTER: u64 = UNREACHABLE_AFTER as u64;

#[test]
fn one_silent_neighbour_severs_nothing_while_another_is_heard() {
    let mut machine = Machine::new(&[('a', 3), ('b', 4)]);
    machine.witness("b0", false);
    machine.run(30);
    assert_eq!(machine.severed(), None);
    assert_eq!(machine.told(), [""; 0]);
}

#[test]
fn who_answers_in_place_of_the_silent_keeps_a_datacenter() {
    let mut machine = Machine::new(&[('a', 20), ('b', 20)]);
    let ends: Vec<_> = (0..20).map(|n| format!("b{n}")).collect();
    if machine.neighbours("b").is_empty() {
        machine = Machine::new(&[('a', 2), ('b', 20)]);
    }
    let neighbours = machine.neighbours("b");
    machine.silence("b");
    let first = machine.tried();
    assert_eq!(first.len(), 1, "somebody else is tried at once");
    assert!(!neighbours.contains(&first[0]) && ends.contains(&first[0].to_string()));
    machine.ended(first[0].as_str(), true);
    for _ in 0..10 {
        machine.run(2);
        let tried = machine.tried();
        assert!(!tried.is_empty(), "one answer is not enough for ever");
        tried.iter().for_each(|peer| machine.ended(peer.as_str(), true));
    }
    assert_eq!(machine.severed(), None);
}

#[test]
fn an_end_that_hears_nobody_says_so_until_somebody_answers() {
    let mut machine = Machine::new(&[('a', 3), ('b', 4)]);
    machine.silence("b");
    machine.run(AFTER - 1);
    assert_eq!(machine.severed(), None);
    machine.run(2);
    assert_eq!(machine.severed(), Some(set(&["b"])));
    assert_eq!(machine.told(), [""; 0], "the others hear it");
    let tried: BTreeSet<_> = machine.tried().into_iter().collect();
    assert!(tried.len() > 2, "it goes on trying: {tried:?}");
    machine.ended("b2", true);
    assert_eq!(machine.severed(), Some(set(&[])));
}

#[test]
fn a_datacenter_is_unreachable_while_all_ends_say_so() {
    let mut machine = Machine::new(&[('a', 3), ('b', 4)]);
    machine.silence("b");
    machine.run(AFTER + 1);
    machine.severs("a1", &["b"]);
    assert_eq!(machine.told(), [""; 0], "a2 hears it");
    machine.severs("a2", &["b"]);
    assert_eq!(machine.told(), ["{b}", "-b"]);
    assert_eq!(**machine.scheduler.unreachable(), set(&["b"]));
    // Who joins it or dies there changes nothing.
    machine.tell(SchedulerInput::Peer(node("b1"), Reach::Dead));
    machine.run(10);
    assert_eq!(machine.told(), [""; 0]);
    machine.severs("a1", &[]);
    assert_eq!(machine.told(), ["{}", "+b"]);
}

#[test]
fn an_end_that_is_suspect_or_gone_has_no_say() {
    let mut machine = Machine::new(&[('a', 3), ('b', 4)]);
    machine.silence("b");
    machine.run(AFTER + 1);
    machine.severs("a1", &["b"]);
    machine.tell(SchedulerInput::Suspected(node("a2"), true));
    assert_eq!(machine.told(), ["{b}", "-b"]);
    machine.tell(SchedulerInput::Suspected(node("a2"), false));
    assert_eq!(machine.told(), ["{}", "+b"]);
    machine.tell(SchedulerInput::Peer(node("a2"), Reach::Dead));
    assert_eq!(machine.told(), ["{b}", "-b"]);
    // Nor has what somebody says who is forgotten.
    machine.tell(SchedulerInput::Forgotten(node("a1")));
    machine.run(1);
    assert_eq!(**machine.scheduler.unreachable(), set(&["b"]), "a0 is the only one left");
}

#[test]
fn of_a_large_datacenter_the_ends_decide_and_nobody_else() {
    let mut machine = Machine::new(&[('a', 40), ('b', 40), ('c', 3)]);
    machine.severs("a7", &["b"]);
    assert_eq!(machine.told(), [""; 0], "there are two bridges");
    machine.severs("c0", &["b"]);
    assert_eq!(machine.told(), [""; 0], "not one of ours");
    machine.severs("a8", &["b", "c"]);
    assert_eq!(machine.told(), ["{b}", "-b"]);
}

#[test]
fn a_datacenter_that_loses_its_last_node_is_not_unreachable() {
    let mut machine = Machine::new(&[('a', 2), ('b', 2)]);
    machine.silence("b");
    machine.severs("a1", &["b"]);
    machine.run(AFTER + 1);
    assert_eq!(machine.told(), ["{b}", "-b"]);
    ["b0", "b1"].iter().for_each(|peer| machine.tell(SchedulerInput::Forgotten(node(peer))));
    machine.run(5);
    assert_eq!(machine.told(), ["{}", "+b"]);
    assert_eq!(machine.severed(), Some(set(&[])));
}

#[test]
fn only_the_last_of_a_datacenter_is_judged_from_abroad() {
    let mut machine = Machine::new(&[('a', 2), ('b', 3), ('c', 1)]);
    machine.tell(SchedulerInput::Interrupted);
    assert_eq!(machine.judged(), Some(vec![node("a1"), node("c0")]));
    machine.tell(SchedulerInput::Peer(node("b0"), Reach::Dead));
    machine.tell(SchedulerInput::Peer(node("b2"), Reach::Dead));
    machine.run(3);
    assert_eq!(machine.judged(), Some(vec![node("a1"), node("b1"), node("c0")]));
}

#[test]
fn of_two_one_is_judged_once_the_other_has_answered_since() {
    let mut machine = Machine::new(&[('a', 2), ('b', 2)]);
    machine.witness("b0", false);
    assert_eq!(machine.tried(), [node("b1")]);
    machine.run(1);
    assert_eq!(machine.judged(), None);
    machine.ended("b1", true);
    assert_eq!(machine.judged(), None, "after a cut they do not all answer at once");
    machine.run(4);
    assert_eq!(machine.judged(), Some(vec![node("a1"), node("b0")]));
    machine.witness("b0", true);
    assert_eq!(machine.judged(), Some(vec![node("a1")]));

    machine.witness("b0", false);
    machine.ended("b1", true);
    machine.witness("b1", false);
    machine.run(AFTER + 3);
    assert_eq!(machine.judged(), None, "both are silent");
    assert_eq!(machine.severed(), Some(set(&["b"])));
}

#[test]
fn a_new_scheduler_takes_over_what_was_published() {
    let mut machine = Machine::new(&[('a', 3), ('b', 4)]);
    machine.scheduler.restore(set(&["b"]).into(), set(&["b"]));
    machine.run(1);
    assert_eq!(machine.severed(), Some(set(&[])), "it hears b");
    assert_eq!(machine.told(), ["{}", "+b"]);
}
