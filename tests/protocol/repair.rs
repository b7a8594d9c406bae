//! With whom an exchange is worth its bytes.

use gossipmonger::protocol::repair::Repair;
use rand::{SeedableRng, rngs::SmallRng};

use crate::support::{dialed_by, dialing, node};

/// Node `m` and its links, round by round.
struct Desk {
    repair: Repair,
    rng: SmallRng,
    told: usize,
}

impl Desk {
    fn new(peers: &[&str]) -> Self {
        let mut repair = Repair::new(node("m"));
        peers.iter().for_each(|peer| repair.up(node(peer), false));
        Self { repair, rng: SmallRng::seed_from_u64(1), told: 0 }
    }

    fn hears(&mut self, peer: &str, root: u64) {
        assert!(!self.repair.heard(&node(peer), root), "at once");
    }

    /// A round at this root; who gets an exchange.
    fn round(&mut self, root: u64) -> Vec<String> {
        let (told, repaired) = self.repair.round(root, FANOUT, 1, |_| true, &mut self.rng);
        self.told += told.len();
        repaired.iter().map(ToString::to_string).collect()
    }
}

const FANOUT: usize = 3;
const NOBODY: [&str; 0] = [];

#[test]
fn equal_roots_are_told_once_and_repaired_never() {
    let mut desk = Desk::new(&["a", "x"]);
    ["a", "x"].iter().for_each(|peer| desk.hears(peer, 7));
    for _ in 0..100 {
        assert_eq!(desk.round(7), NOBODY);
    }
    assert_eq!(desk.told, 2 * 4, "at first, and every thirty rounds");
}

#[test]
fn a_peer_that_differs_once_is_only_late() {
    let mut desk = Desk::new(&["x"]);
    desk.hears("x", 1);
    assert_eq!(desk.round(1), NOBODY);
    for root in 2..50 {
        assert_eq!(desk.round(root), NOBODY);
        desk.hears("x", root);
    }
    for root in 50..90 {
        desk.hears("x", root - 1);
        assert_eq!(desk.round(root), NOBODY, "it is where we were a round ago");
    }
}

#[test]
fn one_of_two_that_differ_for_two_rounds_begins() {
    let (x, a) = (dialed_by("m", 1).remove(0), dialing("m", 1).remove(0));
    let mut desk = Desk::new(&[&x]);
    desk.hears(&x, 1);
    assert_eq!(desk.round(2), NOBODY);
    assert_eq!(desk.round(2), [x]);
    let mut other = Desk::new(&[&a]);
    other.hears(&a, 1);
    assert_eq!(other.round(2), NOBODY);
    assert_eq!(other.round(2), NOBODY, "who dials is to begin");
    assert_eq!(other.round(2), [a], "but it has not");
}

#[test]
fn a_round_repairs_no_more_than_the_fanout() {
    let names: Vec<_> = (0..20).map(|n| format!("x{n}")).collect();
    let mut desk = Desk::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    names.iter().for_each(|name| desk.hears(name, 1));
    desk.round(2);
    assert_eq!(desk.round(2).len(), FANOUT);
}

#[test]
fn while_everybody_writes_one_a_round_is_repaired() {
    let names: Vec<_> = (0..10).map(|n| format!("x{n}")).collect();
    let mut desk = Desk::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut repairs = 0;
    for round in 0..160 {
        names.iter().enumerate().for_each(|(n, name)| desk.hears(name, round * 100 + n as u64));
        let repaired = desk.round(1_000_000 + round).len();
        assert!(repaired <= 1);
        repairs += repaired;
    }
    assert!((50..=130).contains(&repairs), "each gets one in about sixteen rounds: {repairs}");
}

#[test]
fn what_does_not_help_is_tried_more_and_more_rarely_until_something_changes() {
    let mut desk = Desk::new(&["x"]);
    desk.hears("x", 1);
    let repairs: usize = (0..200).map(|_| desk.round(2).len()).sum();
    assert!((10..=18).contains(&repairs), "{repairs}");
    desk.hears("x", 3);
    let soon: usize = (0..4).map(|_| desk.round(2).len()).sum();
    assert!(soon >= 1, "it has changed");
}

#[test]
fn a_new_neighbour_that_differs_is_compared_at_once_and_only_once() {
    let mut repair = Repair::new(node("m"));
    repair.up(node("x"), true);
    repair.up(node("y"), false);
    let (told, differ) = repair.introduce(1);
    assert_eq!((told, differ), (vec![node("x"), node("y")], vec![]));
    assert!(repair.heard(&node("x"), 2));
    assert!(!repair.heard(&node("x"), 3));
    assert!(!repair.heard(&node("y"), 2));
    assert_eq!(repair.introduce(1), (vec![], vec![]), "both know it");
}
