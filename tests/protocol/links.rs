//! Which connections a node dials, keeps and closes.

use std::{collections::BTreeSet, time::Duration};

use gossipmonger::protocol::{
    id::NodeId,
    links::{ACCEPTED_MAX, CROWD_MAX, DIALS_MAX, ERRANDS_MAX, LINKS_MAX, Links, LinksConfig},
    overlay::FirstEdges,
    route::{Counter, Output, TransportInput},
    rules::Rules,
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
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let interval = Duration::from_secs(1);
        let config =
            LinksConfig { node: node("m"), interval, dial_timeout: Duration::from_secs(10), rules };
        let (dialed, closed) = (Vec::new(), Vec::new());
        Self { links: Links::new(config), rng: SmallRng::seed_from_u64(1), now: 0, dialed, closed }
    }

    fn time(&self) -> Time {
        Time::from_origin(Duration::from_millis(self.now))
    }

    fn aim(&mut self, names: &[&str]) {
        let shared = names.iter().map(|name| node(name)).collect();
        self.aim_first(names, FirstEdges { shared, own: None });
    }

    /// These are the neighbours, and of them these the first edges.
    fn aim_first(&mut self, names: &[&str], first: FirstEdges) {
        let mut neighbours: Vec<_> = names.iter().map(|name| node(name)).collect();
        neighbours.sort();
        self.links.aim(self.time(), &neighbours, first, 20);
        self.pass(0);
    }

    /// For so many tenths of a second a member joins in each.
    fn crowd(&mut self, tenths: usize) {
        for _ in 0..tenths {
            self.links.moved(self.time(), 50);
            self.pass(100);
        }
    }

    fn lag(&mut self, millis: u64) {
        self.links.set_lag(self.time(), Duration::from_millis(millis));
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
                    Output::Count(Counter::Settlements | Counter::DialsHeld, _) => {}
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
    desk.pass(10_000);
    assert!(desk.dialed().is_empty(), "it may be late");
    desk.pass(2_000);
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

/// A node with ten neighbours, of which three are its first edges: the last of these is the other end's to dial.
fn newcomer(rules: Rules) -> (Desk, Vec<String>) {
    let mut desk = Desk::with(rules);
    desk.up("seed", true);
    let mut names = dialed_by("m", 9);
    names.insert(2, dialing("m", 1).remove(0));
    let first = FirstEdges {
        shared: names[..2].iter().map(|name| node(name)).collect(),
        own: Some(node(&names[2])),
    };
    desk.links.moved(desk.time(), 50);
    desk.links.moved(desk.time(), 50);
    desk.aim_first(&names.iter().map(String::as_str).collect::<Vec<_>>(), first);
    (desk, names)
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

#[test]
fn while_the_list_moves_only_the_first_edges_are_dialed() {
    for three_edges in [true, false] {
        let (mut desk, names) = newcomer(Rules { three_edges, ..Rules::default() });
        let mut dialed = Vec::new();
        for _ in 0..30 {
            desk.crowd(1);
            for name in desk.dialed() {
                desk.up(&name, true);
                dialed.push(name);
            }
        }
        dialed.extend(desk.dialed());
        if three_edges {
            assert_eq!(sorted(&dialed), sorted(&names[..3]));
            desk.pass(1_100);
            assert_eq!(sorted(&desk.dialed()), sorted(&names[3..6]), "the list rests");
        } else {
            let all = [&names[..2], &names[3..]].concat();
            assert_eq!(sorted(&dialed), sorted(&all));
        }
    }
}

#[test]
fn a_list_that_moves_for_ever_is_settled_in_the_end() {
    let (mut desk, _) = newcomer(Rules::default());
    desk.crowd(50);
    assert_eq!(desk.links.wanted().len(), 3);
    desk.crowd(150);
    assert_eq!(desk.links.wanted().len(), 10);
}

#[test]
fn a_node_settles_when_it_is_on_time_and_nothing_brings_more_members() {
    let (mut desk, _) = newcomer(Rules::default());
    desk.lag(150);
    desk.pass(5_000);
    assert_eq!(desk.links.wanted().len(), 3, "it is late");
    desk.lag(0);
    desk.pass(0);
    assert_eq!(desk.links.wanted().len(), 10);
    let (mut desk, _) = newcomer(Rules::default());
    desk.links.set_learning(desk.time(), true);
    desk.pass(1_500);
    assert_eq!(desk.links.wanted().len(), 3, "an exchange is under way");
    desk.links.set_learning(desk.time(), false);
    desk.pass(0);
    assert_eq!(desk.links.wanted().len(), 10);
    let (mut desk, _) = newcomer(Rules::default());
    desk.links.set_learning(desk.time(), true);
    desk.pass(2_500);
    assert_eq!(desk.links.wanted().len(), 10, "one that lasts is not waited for");
}

#[test]
fn edges_that_there_are_stay_when_the_list_begins_to_move() {
    let (mut desk, names) = newcomer(Rules::default());
    desk.pass(2_000);
    names.iter().for_each(|name| desk.up(name, true));
    assert_eq!(desk.links.wanted().len(), 10);
    let mut others: Vec<_> = names.iter().map(String::as_str).collect();
    others[9] = "new";
    let first = FirstEdges { shared: vec![node(others[0]), node(others[1])], own: None };
    desk.crowd(3);
    desk.aim_first(&others, first);
    desk.crowd(10);
    let wanted: Vec<_> = desk.links.wanted().iter().map(ToString::to_string).collect();
    assert_eq!(wanted, sorted(&names[..9]));
    desk.pass(2_000);
    assert!(desk.links.wanted().contains(&node("new")));
}

#[test]
fn a_late_node_dials_one_at_a_time_and_what_it_holds_is_no_failure() {
    let mut desk = Desk::new();
    let x = dialed_by("m", 8);
    desk.lag(50);
    desk.aim(&x.iter().map(String::as_str).collect::<Vec<_>>());
    desk.pass(5_000);
    assert_eq!(desk.dialed(), x[..1]);
    desk.up(&x[0], true);
    assert_eq!(desk.dialed(), x[1..2]);
    desk.lag(300);
    desk.up(&x[1], true);
    desk.pass(2_900);
    assert!(desk.dialed().is_empty());
    desk.pass(1_200);
    assert_eq!(desk.dialed(), x[2..3], "the trickle");
    desk.lag(10);
    assert_eq!(desk.dialed(), x[3..5], "at once, and as many as ever with the one under way");
}

#[test]
fn a_node_that_is_always_late_dials_all_its_neighbours_in_time() {
    for gate in [true, false] {
        let mut desk = Desk::with(Rules { gate, ..Rules::default() });
        let x = dialed_by("m", 10);
        desk.lag(90);
        desk.aim(&x.iter().map(String::as_str).collect::<Vec<_>>());
        desk.pass(300);
        desk.dialed().iter().for_each(|name| desk.up(name, true));
        desk.lag(500);
        let mut dials = Vec::new();
        for _ in 0..700 {
            desk.pass(100);
            for name in desk.dialed() {
                desk.up(&name, true);
                dials.push(desk.now);
            }
        }
        assert_eq!(desk.links.len(), 10);
        let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let trickles = pauses.iter().all(|pause| (4_900..=6_100).contains(pause));
        assert_eq!(trickles && dials.len() > 7, gate, "{pauses:?}");
    }
}

#[test]
fn a_peer_that_is_too_busy_is_dialed_again_without_back_off() {
    let mut desk = Desk::new();
    let x = dialed_by("m", 1).remove(0);
    desk.aim(&[&x]);
    desk.pass(1_000);
    assert_eq!(desk.dialed(), [&*x]);
    for _ in 0..10 {
        desk.links.busy(desk.time(), &node(&x), &mut desk.rng);
        desk.pass(900);
        assert!(desk.dialed().is_empty());
        desk.pass(700);
        assert_eq!(desk.dialed(), [&*x]);
    }
}

#[test]
fn no_connection_is_closed_while_the_node_is_late_or_the_list_moves() {
    let mut desk = Desk::new();
    (0..200).for_each(|n| desk.up(&format!("x{n}"), false));
    desk.lag(60);
    desk.pass(20_000);
    assert!(desk.closed().is_empty());
    desk.links.moved(desk.time(), 50);
    desk.crowd(1);
    desk.lag(0);
    assert!(desk.closed().is_empty());
    desk.pass(6_000);
    assert_eq!(desk.closed().len(), 200 - ACCEPTED_MAX);
}

#[test]
fn the_other_end_is_waited_for_on_the_served_clock() {
    let mut desk = Desk::new();
    let theirs = dialing("m", 1).remove(0);
    desk.aim(&[&theirs]);
    desk.pass(10_000);
    desk.links.set_late(Duration::from_secs(5));
    desk.pass(6_000);
    assert!(desk.dialed().is_empty());
    desk.pass(2_000);
    assert_eq!(desk.dialed(), [theirs]);
}
