//! Exchanges opened by a sketch: both halves and two replicas, against the exchange of full digests.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        delta::{Delta, NodeDelta},
        digest::{Digest, DigestEntry},
        entry::Key,
        exchange::{Ask, Breach, Half, Initiator, Reply, Responder, Step, Summary},
        id::{Generation, Incarnation, NodeId, Version},
        map::NodeMap,
        message::{LENGTH_BYTES, Message},
        replica::{Replica, ReplicaConfig, SKETCH_LINES_MIN},
        route::{Counter, StorageInput},
        sketch::{CELLS_CACHED, CELLS_FIRST, CELLS_MAX, Cell, Cells, Sketch, SketchKey, Symbol},
        time::Time,
        verdict::{Level, Verdict},
        write::Write,
    },
    store::Stored,
};
use imbl::OrdMap;
use proptest::prelude::*;

use crate::support::{self, answer, at, config, exchange, node, replica, set, told, value};

/// One exchange, message by message.
#[derive(Debug, Default)]
struct Run {
    /// What went over the wire: who sent it (0: the initiator), the message, its bytes.
    sent: Vec<(usize, Message, usize)>,
    /// What was counted, by whom.
    counted: [Vec<Counter>; 2],
}

impl Run {
    fn count(&self, what: impl Fn(&Message) -> bool) -> usize {
        self.sent.iter().filter(|(_, message, _)| what(message)).count()
    }

    /// Bytes of what tells where the two differ: all but deltas and their frames.
    fn control_bytes(&self) -> usize {
        let control = self.sent.iter().map(|(_, message, bytes)| match message {
            Message::SynAck { wants, .. } => {
                let nothing = Message::Ack { delta: Delta::default() }.encode().unwrap().len();
                let wants = Message::SynAck { wants: wants.clone(), delta: Delta::default() };
                wants.encode().unwrap().len() - nothing
            }
            Message::Ack { .. } => 0,
            _ => *bytes,
        });
        control.sum()
    }
}

/// Runs an exchange to its end.
fn run(summary: Summary, one: &mut Replica, other: &mut Replica) -> Run {
    run_with(summary, one, other, |_, _| {})
}

/// The same; after each message something may happen to the two, who are told how many there were.
fn run_with(
    summary: Summary,
    one: &mut Replica,
    other: &mut Replica,
    mut after: impl FnMut(usize, [&mut Replica; 2]),
) -> Run {
    let mut run = Run::default();
    let (mut initiator, opening) = summary.open();
    let mut responder = Responder::new();
    let names = [one.node().clone(), other.node().clone()];
    let mut inboxes = [VecDeque::<Vec<u8>>::new(), VecDeque::new()];
    let mut steps = [opening, Step::Read];
    let mut turn = 0;
    for taken in 0.. {
        assert!(taken < 100_000, "an exchange without an end");
        let replica = if turn == 0 { &mut *one } else { &mut *other };
        let half: &mut dyn Half = if turn == 0 { &mut initiator } else { &mut responder };
        steps[turn] = match std::mem::replace(&mut steps[turn], Step::Done) {
            Step::Ask(ask) => {
                half.reply(answer(replica, at(1), &names[1 - turn], ask, &mut Vec::new()))
            }
            Step::Send(message) => {
                let frame = message.encode().unwrap();
                run.sent.push((turn, message, frame.len()));
                inboxes[1 - turn].push_back(frame);
                let step = half.sent();
                after(run.sent.len(), [&mut *one, &mut *other]);
                step
            }
            Step::Read if !inboxes[turn].is_empty() => {
                let frame = inboxes[turn].pop_front().unwrap();
                half.frame(Message::decode(&frame[LENGTH_BYTES..]).unwrap())
            }
            Step::Broken(breach) => panic!("{breach} by {}: {:?}", names[1 - turn], run.sent),
            waits => {
                steps[turn] = waits;
                turn = 1 - turn;
                let idle = steps[turn] == Step::Done
                    || (steps[turn] == Step::Read && inboxes[turn].is_empty());
                if idle {
                    break;
                }
                continue;
            }
        };
        let half: &mut dyn Half = if turn == 0 { &mut initiator } else { &mut responder };
        run.counted[turn].extend(half.counted());
    }
    assert!(inboxes.iter().all(VecDeque::is_empty), "something was not read");
    assert_eq!(steps[0], Step::Done);
    assert!(steps[1] == Step::Done || responder.may_end(), "{:?}", steps[1]);
    run
}

fn by_sketch(one: &mut Replica, other: &mut Replica) -> Run {
    run(Summary::Sketch(one.sketch()), one, other)
}

fn by_digest(one: &mut Replica, other: &mut Replica) -> Run {
    run(Summary::Digest(one.digest()), one, other)
}

/// A new node, by a clock of our days.
fn fresh(name: &str, delta_entries: usize) -> Replica {
    let config = ReplicaConfig { peers_max: 20_000, delta_entries, ..config(name) };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(TODAY.0);
    let (stored, copies) = (Stored::default(), OrdMap::new());
    Replica::start(config, stored, &copies, false, Time::ZERO, wall, &mut Vec::new())
}

const TODAY: Generation = Generation(1_700_000_000_000);

fn news(name: &str, from: u64, to: u64) -> NodeDelta {
    NodeDelta { generation: TODAY, ..support::news(name, from, to, 0) }
}

/// A node that knows so many others, all at version 1.
fn crowd(name: &str, nodes: usize) -> Replica {
    let mut replica = fresh(name, 10_000);
    let all = (0..nodes).map(|n| news(&format!("node-{n:05}"), 0, 1)).collect();
    let all = Delta { nodes: all, more: false };
    replica.apply(at(1), &node("somebody"), &all, &mut Vec::new());
    replica
}

/// Two that know the same others, and each other.
fn pair(nodes: usize) -> (Replica, Replica) {
    let (mut one, mut other) = (crowd("one", nodes), crowd("other", nodes));
    exchange(&mut one, &mut other, at(1));
    exchange(&mut one, &mut other, at(1));
    assert_eq!(one.digest(), other.digest());
    (one, other)
}

/// A node writes a key, of which this replica hears.
fn advance(replica: &mut Replica, n: usize, version: u64) {
    let mut news = news(&format!("node-{n:05}"), version - 1, version);
    news.entries = vec![value("key", version, &format!("value {version}"))];
    told(replica, "somebody", news);
}

// --- refusals

const BROKEN: Step = Step::Broken(Breach::Order);

fn cells(first: u32, count: usize) -> Message {
    Message::Cells(Cells { first, symbols: 1_000, cells: vec![Cell::default(); count] })
}

#[test]
fn refuses_frames_of_a_difference_out_of_order() {
    let sketch = || Sketch::new(SketchKey([7; 16]));
    let lines = Digest { entries: vec![DigestEntry::unknown(node("a"))] };
    let differ = || Message::Differ { lines: lines.clone(), unknown: vec![1] };
    let all = || [Message::Full, differ(), Message::Further { cells: 8 }, cells(0, 8)];
    for frame in all() {
        let mut initiator = Initiator::open(Default::default()).0;
        assert_eq!(initiator.frame(frame), BROKEN, "nobody has sent cells");
    }
    let mut initiator = Initiator::compare(sketch()).0;
    assert_eq!(initiator.frame(cells(0, 8)), BROKEN, "only who opens tells");
    for frame in [Message::Full, differ(), Message::Further { cells: 8 }, cells(32, 8)] {
        assert_eq!(Responder::new().frame(frame), BROKEN);
    }
    let mut initiator = Initiator::compare(sketch()).0;
    assert!(matches!(initiator.frame(differ()), Step::Ask(Ask::AnswerLines { .. })));
    for frame in all() {
        assert_eq!(initiator.frame(frame), BROKEN, "what differs is known");
    }
}

#[test]
fn refuses_cells_that_do_not_follow_the_ones_before() {
    let mut responder = Responder::new();
    let theirs =
        Sketch::collect(KEY, CELLS_MAX, (0..1_000).map(|n| Symbol { id: n, state: u64::from(n) }));
    let first = Message::Cells(theirs.batch(0, CELLS_FIRST));
    assert_eq!(responder.frame(first), Step::Ask(Ask::Sketch));
    let ours =
        Sketch::collect(KEY, CELLS_CACHED, (0..970).map(|n| Symbol { id: n, state: u64::from(n) }));
    let further = responder.reply(Reply::Sketch(ours));
    assert!(matches!(further, Step::Send(Message::Further { .. })), "{further:?}");
    assert_eq!(responder.sent(), Step::Read);
    assert!(!responder.may_end(), "the peer owes cells");
    assert_eq!(responder.frame(Message::Cells(theirs.batch(33, 8))), BROKEN);
}

const KEY: SketchKey = SketchKey([7; 16]);

#[test]
fn refuses_to_send_more_cells_than_there_may_be() {
    let (mut initiator, _) = Initiator::compare(Sketch::collect(KEY, CELLS_MAX, []));
    assert_eq!(initiator.frame(Message::Further { cells: 0 }), BROKEN);
    let (mut initiator, _) = Initiator::compare(Sketch::collect(KEY, CELLS_MAX, []));
    let mut sent = CELLS_FIRST;
    loop {
        match initiator.frame(Message::Further { cells: u32::MAX }) {
            Step::Send(Message::Cells(cells)) => sent += cells.cells.len(),
            step => {
                assert_eq!(step, BROKEN);
                break;
            }
        }
    }
    assert!((CELLS_MAX - 512..=CELLS_MAX).contains(&sent), "{sent}");
}

#[test]
fn refuses_cells_after_it_has_asked_for_all_lines() {
    let mut responder = Responder::new();
    let theirs = Sketch::collect(KEY, CELLS_MAX, (0..100).map(|n| symbol(n, 1)));
    let first = || Message::Cells(theirs.batch(0, CELLS_FIRST));
    assert_eq!(responder.frame(first()), Step::Ask(Ask::Sketch));
    let ours = Sketch::collect(KEY, CELLS_CACHED, (0..100).map(|n| symbol(n, 2)));
    assert_eq!(responder.reply(Reply::Sketch(ours)), Step::Send(Message::Full));
    assert_eq!(responder.sent(), Step::Read);
    assert!(!responder.may_end(), "the peer owes its lines");
    assert_eq!(responder.frame(first()), BROKEN);
}

fn symbol(id: u32, state: u64) -> Symbol {
    Symbol { id, state: state << 32 | u64::from(id) }
}

#[test]
fn refuses_a_peer_that_begins_its_sketch_again_and_again() {
    let mut responder = Responder::new();
    let ours =
        Sketch::collect(KEY, CELLS_CACHED, (0..970).map(|n| Symbol { id: n, state: u64::from(n) }));
    let theirs = Sketch::collect(
        KEY,
        CELLS_CACHED,
        (0..1_000).map(|n| Symbol { id: n, state: u64::from(n) }),
    );
    for _ in 0..2 * CELLS_MAX / CELLS_FIRST {
        let first = Message::Cells(theirs.batch(0, CELLS_FIRST));
        assert_eq!(responder.frame(first), Step::Ask(Ask::Sketch));
        let further = responder.reply(Reply::Sketch(ours.clone()));
        assert!(matches!(further, Step::Send(Message::Further { .. })), "{further:?}");
    }
    let first = Message::Cells(theirs.batch(0, CELLS_FIRST));
    assert_eq!(responder.frame(first), Step::Broken(Breach::Endless));
}

/// What a member tells that lies: names that nobody has, ids of nobody, lines of a life to come.
#[test]
fn takes_no_harm_from_a_difference_that_is_none() {
    let (mut one, other) = pair(100);
    let before = one.digest();
    let mut lines: Vec<_> = (0..50)
        .map(|n| DigestEntry::unknown(node(&format!("ghost-{n:02}"))))
        .chain((0..50).map(|n| DigestEntry {
            generation: Generation(u64::MAX),
            ..DigestEntry::unknown(node(&format!("node-{n:05}")))
        }))
        .collect();
    lines.sort_by(|a, b| a.node.cmp(&b.node));
    let (lines, unknown) = (Digest { entries: lines }, (0..1_000).collect::<Vec<u32>>());
    let (wants, delta) = one.answer_lines(at(1), other.node(), &lines, &unknown, &mut Vec::new());
    assert_eq!(wants.entries.len(), 50, "of ghosts one asks, as with a digest");
    assert!(delta.is_empty(), "{delta:?}");
    assert_eq!(one.digest(), before);
    let (lines, left) = other.lines(&[], &unknown);
    assert!(lines.entries.is_empty());
    assert_eq!(left, unknown);
}

// --- what goes over the wire

#[test]
fn tells_nothing_when_nothing_differs() {
    let (mut one, mut other) = pair(1_000);
    let run = by_sketch(&mut one, &mut other);
    let sent: Vec<_> = run.sent.iter().map(|(_, message, _)| message).collect();
    let nothing = Message::Differ { lines: Digest::default(), unknown: Vec::new() };
    assert!(matches!(sent[..], [Message::Cells(_), differ] if *differ == nothing), "{sent:?}");
    assert_eq!(run.counted, [vec![Counter::ReconciledBySketch], vec![Counter::ReconciledBySketch]]);
}

#[test]
fn small_clusters_open_with_the_digest() {
    for (nodes, sketched) in [(0, false), (SKETCH_LINES_MIN - 1, false), (SKETCH_LINES_MIN, true)] {
        let summary = crowd("one", nodes).summary();
        assert_eq!(matches!(summary, Summary::Sketch(_)), sketched, "{nodes}");
    }
}

#[test]
fn says_only_the_lines_that_differ() {
    let (mut one, mut other) = pair(1_000);
    (0..5).for_each(|n| advance(&mut one, n, 2));
    (5..9).for_each(|n| advance(&mut other, n, 2));
    told(&mut one, "somebody", news("new-to-other", 0, 1));
    told(&mut other, "somebody", news("new-to-one", 0, 1));
    let run = by_sketch(&mut one, &mut other);
    assert_eq!(one.digest(), other.digest());
    let differ = run.sent.iter().find_map(|(_, message, _)| match message {
        Message::Differ { lines, unknown } => Some((lines.entries.len(), unknown.len())),
        _ => None,
    });
    assert_eq!(differ, Some((10, 1)));
    let deltas = run.sent.iter().map(|(_, message, _)| match message {
        Message::SynAck { delta, .. } | Message::Ack { delta } => delta.nodes.len(),
        _ => 0,
    });
    assert_eq!(deltas.sum::<usize>(), 11);
}

#[test]
fn falls_back_to_the_digest_when_much_differs() {
    let (mut one, mut other) = pair(300);
    (0..200).for_each(|n| advance(&mut one, n, 2));
    let run = by_sketch(&mut one, &mut other);
    assert_eq!(run.count(|message| *message == Message::Full), 1);
    assert_eq!(run.count(|message| matches!(message, Message::Syn { .. })), 1);
    assert_eq!(run.counted, [vec![Counter::SketchFallbacks], vec![Counter::SketchFallbacks]]);
    assert_eq!(one.digest(), other.digest());
}

#[test]
fn falls_back_to_the_digest_when_keys_differ() {
    let (mut one, mut other) = pair(300);
    other.set_sketch_key(SketchKey([9; 16]));
    advance(&mut one, 7, 2);
    let run = by_sketch(&mut one, &mut other);
    assert_eq!(run.count(|message| *message == Message::Full), 1);
    assert_eq!(one.digest(), other.digest());
}

#[test]
fn finds_more_differences_than_the_cells_kept() {
    for differing in [80, 300] {
        let (mut one, mut other) = pair(3_000);
        (0..differing).for_each(|n| advance(&mut one, n, 2));
        let run = by_sketch(&mut one, &mut other);
        assert_eq!(run.count(|message| *message == Message::Full), 0);
        let cells = run.count(|message| matches!(message, Message::Cells(_)));
        assert!(cells <= 40, "{cells} round trips for {differing}");
        assert_eq!(one.digest(), other.digest());
    }
}

/// Somebody else tells one of them something between its first cells and those it has to make anew.
#[test]
fn begins_again_when_something_changes_meanwhile() {
    for who in [0, 1] {
        let (mut one, mut other) = pair(2_000);
        (0..200).for_each(|n| advance(&mut one, n, 2));
        let summary = Summary::Sketch(one.sketch());
        let run = run_with(summary, &mut one, &mut other, |messages, replicas| {
            if messages == 3 {
                advance(replicas[who], 1_999, 2);
            }
        });
        assert_eq!(run.count(|message| *message == Message::Full), 0, "{who}");
        let again = |message: &Message| matches!(message, Message::Cells(Cells { first: 0, .. }));
        assert_eq!(run.count(again), if who == 0 { 2 } else { 1 });
        assert_eq!(one.digest(), other.digest());
    }
}

/// What a budget cuts follows, and is about those lines alone.
#[test]
fn goes_on_until_nothing_is_cut() {
    for begins in [true, false] {
        let (mut one, mut other) = (crowd("one", 500), crowd("other", 500));
        exchange(&mut one, &mut other, at(1));
        exchange(&mut one, &mut other, at(1));
        let mut cut = fresh("cut", 10);
        exchange(&mut cut, &mut other, at(1));
        exchange(&mut cut, &mut one, at(1));
        exchange(&mut cut, &mut other, at(1));
        (0..95).for_each(|n| {
            set(&mut cut, &format!("k{n}"), "1");
        });
        let run =
            if begins { by_sketch(&mut cut, &mut other) } else { by_sketch(&mut other, &mut cut) };
        assert_eq!(other.copy(&node("cut")).unwrap().live_keys(), 95);
        assert_eq!(cut.digest(), other.digest());
        assert_eq!(run.count(|message| matches!(message, Message::Syn { .. })), 0);
        let asked = run.count(|message| match message {
            Message::Pull { digest: Some(lines), all } => {
                assert_eq!((lines.entries.len(), all), (1, &false));
                true
            }
            _ => false,
        });
        assert_eq!(asked, 1);
        let more = run.count(|message| matches!(message, Message::More { .. }));
        assert!((9..=11).contains(&more), "{more}");
    }
}

/// The figure of the design: 10 lines of 10,000 differ. Counted are all frames but deltas: their four
/// bytes of length, cells, questions for more, the lines and ids that differ, and what is wanted.
#[test]
fn ten_differences_among_ten_thousand_take_so_many_bytes() {
    const RUNS: usize = 100;
    let (mut one, mut other) = pair(10_000 - 2);
    let mut bytes = Vec::new();
    for round in 0..RUNS {
        for n in 0..10 {
            let ahead = if n % 2 == 0 { &mut one } else { &mut other };
            advance(ahead, round * 10 + n, 2);
        }
        let run = by_sketch(&mut one, &mut other);
        assert_eq!(run.count(|message| *message == Message::Full), 0);
        bytes.push(run.control_bytes());
    }
    assert_eq!(one.digest(), other.digest());
    bytes.sort_unstable();
    let (mean, p99) = (bytes.iter().sum::<usize>() / RUNS, bytes[RUNS * 99 / 100]);
    let digest = by_digest(&mut one, &mut other).control_bytes();
    println!("bytes to find 10 of 10,000: mean {mean}, p99 {p99}; digest {digest}");
    assert!(mean <= 1_100, "{mean}");
    assert!(p99 <= 1_500, "{p99}");
}

// --- the oracle

#[derive(Clone, Debug)]
enum Op {
    Set {
        owner: usize,
        key: u8,
    },
    Delete {
        owner: usize,
        key: u8,
    },
    /// Tombstones are collected, so that who is behind is reset.
    Collect {
        owner: usize,
    },
    /// A new life with nothing of the old one.
    Restart {
        owner: usize,
    },
    /// One of the two hears what there is of an owner.
    Hear {
        owner: usize,
        side: usize,
    },
    Accuse {
        owner: usize,
        side: usize,
        level: u8,
    },
    Retire {
        owner: usize,
        side: usize,
    },
    Forget {
        owner: usize,
        side: usize,
    },
    SetOwn {
        side: usize,
        key: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let owner = || 0..OWNERS;
    let side = || 0..2_usize;
    prop_oneof![
        4 => (owner(), 0..6_u8).prop_map(|(owner, key)| Op::Set { owner, key }),
        2 => (owner(), 0..6_u8).prop_map(|(owner, key)| Op::Delete { owner, key }),
        1 => owner().prop_map(|owner| Op::Collect { owner }),
        1 => owner().prop_map(|owner| Op::Restart { owner }),
        6 => (owner(), side()).prop_map(|(owner, side)| Op::Hear { owner, side }),
        1 => (owner(), side(), 0..3_u8)
            .prop_map(|(owner, side, level)| Op::Accuse { owner, side, level }),
        1 => (owner(), side()).prop_map(|(owner, side)| Op::Retire { owner, side }),
        1 => (owner(), side()).prop_map(|(owner, side)| Op::Forget { owner, side }),
        1 => (side(), 0..6_u8).prop_map(|(side, key)| Op::SetOwn { side, key }),
    ]
}

const OWNERS: usize = 12;

/// Two nodes, and owners that they hear of.
struct World {
    sides: [Replica; 2],
    owners: Vec<Replica>,
    now: u64,
    lives: u64,
}

impl World {
    fn new(ops: &[Op]) -> Self {
        let owners = (0..OWNERS).map(|n| replica(&format!("owner-{n:02}"))).collect();
        let sides = [replica("one"), replica("other")];
        let mut world = Self { sides, owners, now: 2, lives: 1 };
        ops.iter().for_each(|op| world.apply(op));
        world
    }

    fn apply(&mut self, op: &Op) {
        let (now, mut out) = (at(self.now), Vec::new());
        let name = |owner: &usize| node(&format!("owner-{owner:02}"));
        let value = format!("{now:?}");
        match op {
            Op::Set { owner, key } => {
                let write = Write::set(format!("k{key}"), value);
                self.owners[*owner].write(now, vec![write], &mut out).unwrap();
            }
            Op::Delete { owner, key } => {
                let write = Write::delete(format!("k{key}"));
                self.owners[*owner].write(now, vec![write], &mut out).unwrap();
            }
            Op::Collect { owner } => {
                self.now += 100;
                self.owners[*owner].handle(at(self.now), StorageInput::Tick, &mut out);
            }
            Op::Restart { owner } => {
                self.lives += 1;
                self.owners[*owner] = reborn(name(owner).as_str(), self.lives, self.now);
            }
            Op::Hear { owner, side } => {
                exchange(&mut self.owners[*owner], &mut self.sides[*side], now);
            }
            Op::Accuse { owner, side, level } => {
                let level = [Level::Alive, Level::Suspect, Level::Dead][usize::from(*level)];
                let verdict = Verdict { incarnation: Incarnation::ZERO, level };
                let generation = self.sides[*side]
                    .copy(&name(owner))
                    .map_or(Generation::ZERO, NodeMap::generation);
                let accuse = StorageInput::Accuse(name(owner), generation, verdict, [].into());
                self.sides[*side].handle(now, accuse, &mut out);
            }
            Op::Retire { owner, side } => {
                self.sides[*side].handle(
                    now,
                    StorageInput::Retire(name(owner), Generation(u64::MAX)),
                    &mut out,
                );
            }
            Op::Forget { owner, side } => {
                self.sides[*side].handle(
                    now,
                    StorageInput::Forget(name(owner), Generation(u64::MAX)),
                    &mut out,
                );
            }
            Op::SetOwn { side, key } => {
                let write = Write::set(format!("k{key}"), value);
                self.sides[*side].write(now, vec![write], &mut out).unwrap();
            }
        }
    }
}

fn reborn(name: &str, life: u64, now: u64) -> Replica {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(life);
    let (stored, copies) = (Stored::default(), OrdMap::new());
    Replica::start(config(name), stored, &copies, false, at(now), wall, &mut Vec::new())
}

/// The sums that are kept up to date must be those of the lines.
fn made_anew(replica: &mut Replica) -> Sketch {
    let (key, digest) = (replica.sketch().key(), replica.digest());
    let whole = digest.entries.iter().filter(|line| !line.is_part());
    Sketch::collect(key, CELLS_CACHED, whole.map(|line| key.symbol(line)))
}

/// All of what a node knows: the lines, and the keys behind them.
type Known = Vec<(NodeId, DigestEntry, Vec<(Key, Version, bool)>)>;

fn known(replica: &Replica) -> Known {
    let own = (replica.node(), replica.own());
    replica
        .peers()
        .chain([own])
        .map(|(node, map)| {
            let entries = map.entries().iter();
            let entries = entries.map(|(key, e)| (key.clone(), e.version, e.is_tombstone()));
            (node.clone(), map.digest_entry(node.clone()), entries.collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn leaves_both_as_an_exchange_of_digests_does(ops in prop::collection::vec(op(), 0..120)) {
        let (mut ours, mut oracle) = (World::new(&ops), World::new(&ops));
        let [one, other] = &mut ours.sides;
        let run = by_sketch(one, other);
        let fell_back = run.count(|message| *message == Message::Full) > 0;
        // Who answers cells tells its lines first, as who opens with a digest does.
        let [one, other] = &mut oracle.sides;
        if fell_back {
            by_digest(one, other);
        } else {
            by_digest(other, one);
        }
        for side in &mut ours.sides {
            prop_assert_eq!(side.sketch(), made_anew(side));
        }
        for side in 0..2 {
            prop_assert_eq!(known(&ours.sides[side]), known(&oracle.sides[side]), "{:?}", run.sent);
        }
        let counter = if fell_back { Counter::SketchFallbacks } else { Counter::ReconciledBySketch };
        prop_assert_eq!(run.counted, [vec![counter], vec![counter]]);
    }
}
