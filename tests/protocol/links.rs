//! Which connections a node dials, keeps and closes.

use std::{collections::BTreeSet, time::Duration};

use gossipmonger::protocol::{
    id::NodeId,
    links::{ACCEPTED_MAX, CROWD_MAX, DIALS_MAX, ERRANDS_MAX, LINKS_MAX, Links, LinksConfig},
    route::{Output, TransportInput},
    time::Time,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use crate::support::{dialed_by, dialing, node};

/// The connections of node `m`, and what its transport was told, moment by moment.
struct Desk {
    links: Links,
    rng: SmallRng,
    now: u64,
    dialed: Vec<NodeId>,
    closed: Vec<NodeId>,
}

impl Desk {
    fn new() -> Self {
        let interval = Duration::from_secs(1);
        let config =
            LinksConfig { node: node("m"), interval, dial_timeout: Duration::from_secs(10) };
        let (dialed, closed) = (Vec::new(), Vec::new());
        Self { links: Links::new(config), rng: SmallRng::seed_from_u64(1), now: 0, dialed, closed }
    }

    fn time(&self) -> Time {
        Time::from_origin(Duration::from_millis(self.now))
    }

    fn aim(&mut self, names: &[&str]) {
        let mut neighbours: Vec<_> = names.iter().map(|name| node(name)).collect();
        neighbours.sort();
        self.links.aim(self.time(), &neighbours, 20);
        self.pass(0);
    }

    fn up(&mut self, name: &str, dialed: bool) {
        self.links.up(self.time(), node(name), dialed);
        self.pass(0);
    }

    fn down(&mut self, name: &str) {
        self.links.down(self.time(), &node(name), &mut self.rng);
        self.pass(0);
    }

    fn failed(&mut self, name: &str) {
        self.links.failed(self.time(), &node(name), &mut self.rng);
        self.pass(0);
    }

    /// Lets so many milliseconds pass, and everything happen that is due.
    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let mut out = Vec::new();
            self.links.tick(self.time(), &mut self.rng, &mut out);
            for output in out {
                match output {
                    Output::Transport(TransportInput::Dial(peers)) => self.dialed.extend(peers),
                    Output::Transport(TransportInput::Close(peers)) => self.closed.extend(peers),
                    other => panic!("{other:?}"),
                }
            }
            let due = self.links.due().map(|due| due.since_origin().as_micros().div_ceil(1_000));
            match due.map(|due| u64::try_from(due).unwrap()).filter(|due| *due <= end) {
                Some(due) => self.now = due.max(self.now),
                None => break,
            }
        }
        self.now = end;
    }

    fn dialed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dialed).iter().map(ToString::to_string).collect()
    }

    fn closed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.closed).iter().map(ToString::to_string).collect()
    }
}

#[test]
fn refuses_a_crowd_that_is_too_large() {
    let mut desk = Desk::new();
    for n in 0..2 * CROWD_MAX {
        desk.up(&format!("x{n}"), false);
    }
    assert_eq!(desk.closed().len(), CROWD_MAX, "the first to come have been served");
    for n in 0..2 * CROWD_MAX {
        desk.down(&format!("x{n}"));
    }
    assert!(desk.links.is_empty());
}

#[test]
fn a_crowd_goes_after_a_while_but_for_a_few() {
    let mut desk = Desk::new();
    (0..200).for_each(|n| desk.up(&format!("x{n}"), false));
    desk.pass(4_500);
    assert!(desk.closed().is_empty());
    desk.pass(1_000);
    assert_eq!(desk.closed().len(), 200 - ACCEPTED_MAX);
}

#[test]
fn never_has_more_than_the_limit_whatever_happens() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut desk = Desk::new();
        let names: Vec<_> = (0..1_000).map(|n| format!("x{n}")).collect();
        let mut up = BTreeSet::new();
        for _ in 0..3_000 {
            let name = names.iter().choose(&mut rng).unwrap();
            match rng.random_range(0..100) {
                0..1 => {
                    let some: Vec<_> = names.iter().map(String::as_str).sample(&mut rng, 60);
                    desk.aim(&some);
                }
                1..80 => {
                    up.insert(name.clone());
                    desk.up(name, rng.random());
                }
                80..90 => desk.failed(name),
                _ => desk.pass(rng.random_range(0..200)),
            }
            for name in desk.closed() {
                up.remove(&name);
                desk.down(&name);
            }
            assert!(up.len() <= LINKS_MAX, "SEED={seed}: {}", up.len());
            assert_eq!(desk.links.len(), up.len());
        }
    }
}

#[test]
fn one_end_dials_and_the_other_one_if_nothing_comes() {
    let (ours, theirs) = (dialed_by("m", 1).remove(0), dialing("m", 1).remove(0));
    let mut desk = Desk::new();
    desk.aim(&[&ours, &theirs]);
    desk.pass(1_000);
    assert_eq!(desk.dialed(), [&*ours]);
    desk.up(&ours, true);
    desk.pass(3_000);
    assert_eq!(desk.dialed(), [theirs]);
}

#[test]
fn passing_neighbours_are_not_dialed() {
    let mut desk = Desk::new();
    desk.up("seed", true);
    for n in 0..100 {
        let names: Vec<_> = (0..10).map(|k| format!("x{}", n + k)).collect();
        desk.aim(&names.iter().map(String::as_str).collect::<Vec<_>>());
        desk.pass(15);
    }
    assert_eq!(desk.dialed().len(), 0);
    desk.pass(200);
    assert_eq!(desk.dialed().len(), DIALS_MAX);
}

#[test]
fn a_few_are_dialed_at_a_time_and_the_hopeless_last() {
    let mut desk = Desk::new();
    let x = dialed_by("m", 8);
    desk.aim(&x.iter().map(String::as_str).collect::<Vec<_>>());
    desk.pass(1_000);
    assert_eq!(desk.dialed(), x[..3]);
    desk.failed(&x[1]);
    assert_eq!(desk.dialed(), x[3..4]);
    desk.pass(5_000);
    assert_eq!(desk.dialed().len(), 0);
    desk.up(&x[0], true);
    assert_eq!(desk.dialed(), x[4..5]);
    x[2..5].iter().for_each(|name| desk.up(name, true));
    assert_eq!(desk.dialed(), x[5..]);
    desk.up(&x[5], true);
    assert_eq!(desk.dialed(), x[1..2]);
}

#[test]
fn a_list_that_never_rests_is_taken_as_it_is() {
    let mut desk = Desk::new();
    desk.up("seed", true);
    for n in 0..300 {
        desk.aim(&[&format!("x{n}")]);
        desk.pass(100);
    }
    let dialed = desk.dialed().len();
    assert!((10..=15).contains(&dialed), "{dialed} in half a minute");
}

#[test]
fn who_is_alone_dials_at_once() {
    let x = dialed_by("m", 1).remove(0);
    let mut desk = Desk::new();
    desk.aim(&[&x]);
    desk.pass(20);
    assert_eq!(desk.dialed(), [&*x]);
    let mut desk = Desk::new();
    desk.up("seed", true);
    desk.aim(&[&x]);
    desk.down("seed");
    desk.pass(20);
    assert_eq!(desk.dialed(), [x]);
}

#[test]
fn the_first_connection_stays_until_others_have_taken_its_place() {
    let mut desk = Desk::new();
    desk.up("seed", true);
    desk.aim(&["n", "o", "p", "q", "r", "s"]);
    desk.pass(30_000);
    assert!(desk.closed().is_empty());
    ["n", "o", "p", "q"].iter().for_each(|name| desk.up(name, true));
    desk.pass(30_000);
    assert!(desk.closed().is_empty());
    desk.up("r", true);
    desk.pass(2_000);
    assert_eq!(desk.closed(), ["seed"]);
}

#[test]
fn an_errand_ends_with_its_exchange_if_it_is_nothing_more() {
    let mut desk = Desk::new();
    desk.aim(&["n"]);
    desk.pass(1_000);
    desk.up("n", true);
    desk.up("far", true);
    desk.up("guest", false);
    let mut out = Vec::new();
    for name in ["far", "n", "guest", "far"] {
        desk.links.release(desk.time(), &node(name), &mut out);
    }
    let [Output::Transport(TransportInput::Close(peers))] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert_eq!(*peers, [node("far")]);
    (0..2 * ERRANDS_MAX).for_each(|n| desk.up(&format!("x{n}"), true));
    assert_eq!(desk.closed().len(), ERRANDS_MAX, "too many at once");
}

#[test]
fn who_cannot_be_dialed_is_dialed_more_and_more_rarely() {
    let mut desk = Desk::new();
    desk.aim(&["x"]);
    let mut dials = 0;
    for _ in 0..200 {
        desk.pass(1_000);
        for name in desk.dialed() {
            dials += 1;
            desk.failed(&name);
        }
    }
    assert!((14..30).contains(&dials), "{dials}");
}

#[test]
fn a_dial_that_nobody_reports_the_end_of_has_failed() {
    let mut desk = Desk::new();
    desk.aim(&[&dialed_by("m", 1)[0]]);
    desk.pass(9_000);
    assert_eq!(desk.dialed().len(), 1);
    desk.pass(3_000);
    assert_eq!(desk.dialed().len(), 1);
}

#[test]
fn a_neighbour_that_hangs_up_is_dialed_again_but_not_all_the_time() {
    let mut desk = Desk::new();
    let a = dialing("m", 1).remove(0);
    desk.aim(&[&a]);
    desk.up(&a, false);
    desk.pass(60_000);
    desk.down(&a);
    desk.pass(1_000);
    assert_eq!(desk.dialed(), [a], "although it is the other's to dial");
    let mut dials = 0;
    for _ in 0..1_200 {
        desk.pass(100);
        for name in desk.dialed() {
            dials += 1;
            desk.up(&name, true);
            desk.down(&name);
        }
    }
    assert!(dials < 30, "{dials} in two minutes");
}

#[test]
fn what_another_transport_had_is_told_again_before_it_is_dialed() {
    let mut desk = Desk::new();
    desk.aim(&["x", "y"]);
    desk.pass(1_000);
    ["x", "y"].iter().for_each(|name| desk.up(name, true));
    desk.dialed();
    desk.links.reset(desk.time());
    desk.pass(100);
    desk.up("x", true);
    desk.pass(2_000);
    assert_eq!(desk.dialed(), ["y"]);
}
