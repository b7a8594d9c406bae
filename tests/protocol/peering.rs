//! The machine of connections: who stays, what is a sign of life, what waits, who is disconnected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::protocol::{
    close::Close,
    delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
    gossip::{Class, FEATURE_TREES, Gossip},
    id::{ClusterId, Datacenter, Generation, NodeId, Version},
    message::{Call, Heartbeat, Hello, LENGTH_BYTES, Message},
    outbox::Encoded,
    peering::{
        ConnectionId, Introduced, MALFORMED_MAX, Next, Packets, Peering, PeeringConfig,
        PeeringInput, PeeringOutput, REPLACED, Settled, Surroundings,
    },
    penalties::THROTTLED_MAX,
    rates::{GRAFTS_PER_SECOND, Traffic},
    route::{
        Counter, DetectorInput, Misconduct, Output, SchedulerInput, Sign, StorageInput,
        TransportInput,
    },
    session::{Met, Session, Unwelcome},
    time::Time,
    verdict::Verdict,
};

const INTERVAL: Duration = Duration::from_secs(1);
const BAR: Duration = Duration::from_secs(30);

#[test]
fn a_connection_that_has_ended_while_it_introduced_itself_changes_nothing() {
    let mut node = Node::new("b");
    let first = node.meets("a", true, 5);
    node.shell.open.remove(&ConnectionId(2));
    assert_eq!(node.introduces(ConnectionId(2), "a", false, 5, "p").0, Settled::Ended);
    assert_eq!(node.connection("a"), Some(first));
}

#[test]
fn an_earlier_generation_is_refused_and_told_the_later_one() {
    let mut node = Node::new("b");
    let first = node.meets("a", true, 7);
    let (settled, out) = node.meets_again("a", true, 6, "p");
    assert_eq!(settled, Settled::Outlived);
    assert_eq!(closed(&out), [(ConnectionId(2), Close::OldGeneration)]);
    assert!(words(&out)[0].ends_with("generation 7"));
    assert_eq!(node.connection("a"), Some(first));
}

#[test]
fn a_later_generation_takes_the_place_and_the_earlier_one_learns_of_it() {
    let mut node = Node::new("b");
    let first = node.meets("a", true, 7);
    let (settled, out) = node.meets_again("a", false, 8, "p");
    assert_eq!(settled, Settled::Kept);
    assert_eq!(closed(&out), [(first, Close::OldGeneration)]);
    assert!(words(&out)[0].ends_with("generation 8"));
    // What was on its way on the one before is lost, so its end is told before the new one.
    assert_eq!(linked(&out), [false, true]);
    assert_eq!(node.connection("a"), Some(ConnectionId(2)));
}

#[test]
fn of_two_that_dial_each_other_both_ends_keep_the_same_connection() {
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    // Each end sees its own dial first.
    a.meets("b", true, 5);
    b.meets("a", true, 5);
    let (at_a, _) = a.meets_again("b", false, 5, "p");
    let (at_b, out) = b.meets_again("a", false, 5, "p");
    let kept = |settled: Settled, dialed: bool| match settled {
        Settled::Kept => !dialed,
        Settled::Duplicate(ConnectionId(1)) => dialed,
        other => panic!("{other:?}"),
    };
    // The one kept was dialed by one end and accepted by the other one.
    assert_ne!(kept(at_a, true), kept(at_b, true));
    assert_eq!(closed(&out).len(), 1);
    assert_eq!(closed(&out)[0].1, Close::Duplicate);
}

#[test]
fn a_silent_connection_gives_way_to_one_that_answers() {
    let mut node = Node::new("a");
    let kept = node.meets("b", true, 5);
    assert!(matches!(node.meets_again("b", false, 5, "p").0, Settled::Duplicate(_)));
    node.beat("b");
    node.pass(INTERVAL * 2);
    let (settled, out) = node.meets_again("b", false, 5, "p");
    assert_eq!(settled, Settled::Kept);
    assert_eq!(closed(&out), [(kept, Close::Duplicate)]);
    assert_eq!(words(&out), [REPLACED]);
}

#[test]
fn what_has_come_since_the_last_look_keeps_a_connection() {
    let mut node = Node::new("a");
    let connection = node.meets("b", true, 5);
    node.beat("b");
    node.pass(INTERVAL * 2);
    assert!(node.peering.is_stale(node.now, &node.shell, connection));
    node.shell.received.insert(connection, 1);
    assert!(!node.peering.is_stale(node.now, &node.shell, connection));
}

#[test]
fn a_renewed_connection_loses_nothing_and_is_told_to_nobody() {
    let mut node = Node::new("a");
    let first = node.meets("b", true, 5);
    let (settled, out) = node.meets_again("b", true, 5, "another certificate");
    assert_eq!(settled, Settled::Renews(first));
    assert!(closed(&out).is_empty() && linked(&out).is_empty(), "{out:?}");
    assert!(!node.peering.is_current(first) && node.peering.is_current(ConnectionId(2)));
    // The end of the old one is nothing to the others.
    assert!(linked(&node.tell(PeeringInput::Ended(first))).is_empty());
    assert_eq!(node.connection("b"), Some(ConnectionId(2)));
}

#[test]
fn a_peer_that_renews_again_gives_up_the_connection_before() {
    let mut node = Node::new("a");
    let first = node.meets("b", true, 5);
    node.meets_again("b", true, 5, "second");
    let (settled, out) = node.meets_again("b", true, 5, "third");
    assert_eq!(settled, Settled::Renews(ConnectionId(2)));
    assert_eq!(closed(&out), [(first, Close::Duplicate)]);
}

#[test]
fn a_silent_connection_is_replaced_and_not_renewed() {
    let mut node = Node::new("a");
    let first = node.meets("b", true, 5);
    node.beat("b");
    node.pass(INTERVAL * 2);
    let (settled, out) = node.meets_again("b", true, 5, "another certificate");
    assert_eq!(settled, Settled::Kept);
    assert_eq!((closed(&out), linked(&out)), (vec![(first, Close::Duplicate)], vec![false, true]));
}

#[test]
fn who_is_connected_is_told_again_to_an_actor_that_starts_anew() {
    let mut node = Node::new("a");
    node.meets("b", true, 5);
    let gone = node.meets("c", false, 5);
    node.shell.open.remove(&gone);
    let out = node.tell(PeeringInput::Transport(TransportInput::TellLinks));
    assert_eq!(linked(&out), [true, false]);
    assert_eq!(node.connection("c"), None);
}

#[test]
fn a_dial_to_a_connected_peer_is_no_dial() {
    let mut node = Node::new("a");
    node.meets("b", true, 5);
    let out = node.tell(PeeringInput::Transport(TransportInput::Dial(vec![id("b"), id("c")])));
    assert_eq!(linked(&out), [true]);
    let dials = |out: &[PeeringOutput]| {
        out.iter().filter(|o| matches!(o, PeeringOutput::Dial(peer) if *peer == id("c"))).count()
    };
    assert_eq!(dials(&out), 1);
}

#[test]
fn a_connection_that_is_not_needed_ends_when_it_is_idle_and_a_forgotten_peer_at_once() {
    let mut node = Node::new("a");
    let connection = node.meets("b", true, 5);
    let out = node.tell(PeeringInput::Transport(TransportInput::Close(vec![id("b")])));
    assert!(matches!(&out[..], [PeeringOutput::Finish(c, closing)]
        if *c == connection && closing.code == Close::Unneeded));
    let out = node.tell(PeeringInput::Transport(TransportInput::Forget(id("b"))));
    assert_eq!(closed(&out), [(connection, Close::Forgotten)]);
}

#[test]
fn a_peer_that_others_say_lives_is_dialed_anew_only_where_it_is_silent() {
    let mut node = Node::new("a");
    node.meets("b", true, 5);
    let renew = || PeeringInput::Transport(TransportInput::Renew(vec![id("b")]));
    let stale = |out: Vec<PeeringOutput>| match &out[..] {
        [PeeringOutput::Hurry { stale, .. }] => *stale,
        other => panic!("{other:?}"),
    };
    assert!(!stale(node.tell(renew())));
    node.beat("b");
    node.pass(INTERVAL * 2);
    assert!(stale(node.tell(renew())));
}

#[test]
fn a_heartbeat_wakes_nobody_until_the_next_look() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let out = node.hears(connection, 5, Call::Beat);
    assert!(out.iter().all(|o| matches!(o, PeeringOutput::Route(Output::Count(..)))), "{out:?}");
    let at = node.now;
    node.pass(Duration::from_millis(100));
    assert_eq!(
        heard(&node.tell(PeeringInput::Look)),
        [(id("a"), Generation(5), Sign::Heartbeat, at)]
    );
    node.pass(Duration::from_millis(100));
    assert_eq!(heard(&node.tell(PeeringInput::Look)), []);
}

#[test]
fn a_probe_is_echoed_at_once_and_an_echo_is_told_at_once() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let out = node.hears(connection, 5, Call::Probe);
    let echo = out.iter().find_map(|o| match o {
        PeeringOutput::Datagram(to, bytes) if *to == connection => Heartbeat::decode(bytes).ok(),
        _ => None,
    });
    let echo = echo.expect("an echo");
    assert_eq!((echo.call, echo.sequence, echo.generation), (Call::Echo, 9, OWN));
    let out = node.hears(connection, 5, Call::Echo);
    assert_eq!(told(&out), [(id("a"), Generation(5), Sign::Echo(9))]);
}

#[test]
fn an_absurd_generation_in_a_heartbeat_is_not_believed() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let out = node.hears(connection, u64::MAX, Call::Beat);
    assert_eq!(counted(&out, Counter::FramesRefused), 1);
    assert_eq!(node.peering.met(connection).unwrap().generation, Generation(5));
}

#[test]
fn a_later_generation_in_a_heartbeat_is_told_at_once() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let out = node.hears(connection, 6, Call::Beat);
    assert_eq!(told(&out), [(id("a"), Generation(6), Sign::Traffic)]);
    assert_eq!(told(&node.hears(connection, 6, Call::Beat)), []);
}

#[test]
fn how_slow_a_peer_finds_itself_is_told_when_it_changes() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let mut said = |health| {
        let beat = Heartbeat { generation: Generation(5), sequence: 1, call: Call::Beat, health };
        let out = node.tell(PeeringInput::Datagram(connection, beat.encode().into()));
        out.iter()
            .filter(|o| {
                matches!(o, PeeringOutput::Route(Output::Detector(DetectorInput::Health(..))))
            })
            .count()
    };
    assert_eq!((said(0), said(3), said(3), said(0)), (0, 1, 0, 1));
}

#[test]
fn a_later_generation_of_this_node_is_sent_a_few_times_to_each_peer() {
    let mut node = Node::new("b");
    node.meets("a", false, 5);
    node.meets("c", true, 5);
    node.shell.own = Generation(OWN.0 + 1);
    let mut sent = 0;
    for _ in 0..20 {
        let out = node.tell(PeeringInput::Look);
        sent += out.iter().filter(|o| matches!(o, PeeringOutput::Datagram(..))).count();
    }
    assert_eq!(sent, 2 * 8);
}

#[test]
fn the_loss_of_a_connection_is_measured_now_and_then() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    node.shell.packets.insert(connection, Packets { sent: 120, lost: 30 });
    let mut losses = Vec::new();
    for _ in 0..100 {
        losses.extend(node.tell(PeeringInput::Look).into_iter().filter_map(|o| match o {
            PeeringOutput::Route(Output::Detector(DetectorInput::Loss(_, loss))) => Some(loss),
            _ => None,
        }));
    }
    assert_eq!(losses, [0.25]);
}

#[test]
fn a_peer_without_a_connection_gets_no_heartbeat_and_that_is_counted() {
    let mut node = Node::new("a");
    let beat = TransportInput::Heartbeat { peers: vec![id("b")], health: 0 };
    let out = node.tell(PeeringInput::Transport(beat));
    assert_eq!(counted(&out, Counter::HeartbeatsUnsent), 1);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_flood_of_heartbeats_is_throttled_and_then_ends_the_connection() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let (mut taken, mut throttled) = (0, 0);
    let end = loop {
        let out = node.hears(connection, 5, Call::Beat);
        taken += counted(&out, Counter::HeartbeatsReceived);
        throttled += counted(&out, Counter::FramesThrottled);
        if !closed(&out).is_empty() {
            break out;
        }
    };
    assert_eq!((taken, throttled), (1_000, THROTTLED_MAX as u64 + 1));
    assert_eq!(closed(&end), [(connection, Close::Misbehaviour)]);
    let why = "more heartbeats than 500 a second, again and again";
    assert_eq!(node.peering.barred(&id("a"), node.now), Some((BAR, why.to_owned())));
    node.pass(BAR);
    assert_eq!(node.peering.barred(&id("a"), node.now), None);
}

#[test]
fn another_connection_gives_a_flood_no_other_share() {
    let mut node = Node::new("b");
    let one = node.meets("a", false, 5);
    let floods = |node: &mut Node, connection| {
        (0..2_000)
            .map(|_| counted(&node.hears(connection, 5, Call::Beat), Counter::HeartbeatsReceived))
            .sum::<u64>()
    };
    assert_eq!(floods(&mut node, one), 1_000);
    node.tell(PeeringInput::Ended(one));
    let other = node.meets("a", false, 5);
    assert_eq!(floods(&mut node, other), 0);
}

#[test]
fn datagrams_that_are_no_heartbeats_end_the_connection() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    let mut junk = || node.tell(PeeringInput::Datagram(connection, vec![0xff; 3].into()));
    for _ in 1..MALFORMED_MAX {
        assert!(closed(&junk()).is_empty());
    }
    let out = junk();
    assert_eq!(closed(&out), [(connection, Close::Misbehaviour)]);
    assert_eq!(counted(&out, Counter::PeersCutOff), 1);
    assert!(out.iter().any(|o| matches!(o, PeeringOutput::Route(Output::Detector(DetectorInput::CutOff(peer, _))) if *peer == id("a"))));
}

#[test]
fn a_peer_that_is_disconnected_already_is_not_disconnected_again() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    node.shell.open.remove(&connection);
    assert!(node.tell(PeeringInput::Misbehaved(connection, "it drips".to_owned())).is_empty());
    assert_eq!(node.peering.barred(&id("a"), node.now), None);
}

#[test]
fn first_words_that_are_no_introduction_bar_the_name_that_was_proved() {
    let mut node = Node::new("b");
    let out = node.tell(PeeringInput::Offended(id("a"), "no hello".to_owned()));
    assert_eq!(counted(&out, Counter::PeersCutOff), 1);
    assert_eq!(node.peering.barred(&id("a"), node.now), Some((BAR, "no hello".to_owned())));
}

#[test]
fn work_in_vain_is_held_against_a_peer_also_without_a_connection() {
    let mut node = Node::new("b");
    let against = |node: &mut Node, price| {
        let why = Misconduct::RefusedNews;
        let input = TransportInput::HoldAgainst { peer: id("a"), price, why };
        node.tell(PeeringInput::Transport(input))
    };
    against(&mut node, THROTTLED_MAX as u32);
    assert_eq!(node.peering.barred(&id("a"), node.now), None);
    against(&mut node, 1);
    assert!(node.peering.barred(&id("a"), node.now).is_some());
    let connection = node.meets("a", false, 5);
    let out = against(&mut node, THROTTLED_MAX as u32 + 1);
    assert_eq!(closed(&out), [(connection, Close::Misbehaviour)]);
}

#[test]
fn grafts_and_exchanges_beyond_their_rates_are_refused_and_counted() {
    let mut node = Node::new("b");
    let connection = node.meets("a", false, 5);
    for (traffic, burst) in [(Traffic::Graft, 2 * GRAFTS_PER_SECOND), (Traffic::Exchange(50), 100)]
    {
        let admitted = |node: &mut Node| {
            let out = node.tell(PeeringInput::Admit(connection, traffic));
            (
                out.iter().any(|o| matches!(o, PeeringOutput::Admitted(true))),
                counted(&out, Counter::FramesThrottled),
            )
        };
        for _ in 0..burst {
            assert_eq!(admitted(&mut node), (true, 0));
        }
        assert_eq!(admitted(&mut node), (false, 1));
    }
}

#[test]
fn storage_is_asked_to_stop_before_frames_are_dropped_and_told_when_there_is_room() {
    let mut node = Node::new("a");
    let connection = node.meets("b", true, 5);
    let (mut stops, mut shed, mut told_shed) = (0, 0, 0);
    for _ in 0..600 {
        let out = node.send("b", &news(1_000));
        told_shed += out.iter().filter(tells_of_shed).count() as u64;
        stops += congestions(&out, true);
        shed += counted(&out, Counter::GossipShed);
    }
    assert_eq!(stops, 1);
    assert!(shed > 0 && shed == told_shed, "storage is told of each dropped frame");
    let mut goes = 0;
    while let (Next::Frame(Class::State, _), out) = node.next(connection) {
        goes += congestions(&out, false);
    }
    assert_eq!(goes, 1);
}

#[test]
fn a_renewed_connection_begins_with_room() {
    let mut node = Node::new("a");
    let old = node.meets("b", true, 5);
    (0..200).for_each(|_| drop(node.send("b", &news(1_000))));
    let (_, out) = node.meets_again("b", true, 5, "another certificate");
    assert_eq!(congestions(&out, false), 1);
    // What the old one still sends says nothing about the new one.
    let mut said = 0;
    while let (Next::Frame(..), out) = node.next(old) {
        said += congestions(&out, false);
    }
    assert_eq!(said, 0);
}

#[test]
fn news_waits_for_the_budget_and_liveness_does_not() {
    let mut node = Node::new("a");
    let connection = node.meets("b", true, 5);
    node.send("b", &news(4 << 20));
    assert!(matches!(node.next(connection).0, Next::Frame(Class::State, _)));
    node.send("b", &news(10));
    let Next::Wait(wait) = node.next(connection).0 else { panic!("it does not wait") };
    node.send("b", &Gossip::Root(7));
    assert!(matches!(node.next(connection).0, Next::Frame(Class::Liveness, _)));
    node.pass(wait + Duration::from_millis(1));
    assert!(matches!(node.next(connection).0, Next::Frame(Class::State, _)));
    assert_eq!(node.next(connection).0, Next::Nothing);
}

#[test]
fn all_peers_of_another_datacenter_share_one_budget() {
    let mut node = Node::new("a");
    let connections = ["b", "c"].map(|peer| {
        let connection = node.opens();
        node.introduces_from(connection, peer, true, 5, "p", "elsewhere");
        connection
    });
    node.tell(PeeringInput::Bulk(connections[0], 8 << 20));
    assert!(node.peering.bulk_waits(connections[1], node.now).is_some());
    let near = node.meets("d", true, 5);
    assert_eq!(node.peering.bulk_waits(near, node.now), None);
}

#[test]
fn frames_are_signs_of_life_that_are_told_now_and_then() {
    let mut node = Node::new("a");
    let connection = node.meets("b", true, 5);
    let mut lives = 0;
    for _ in 0..1_000 {
        node.pass(Duration::from_millis(1));
        lives += told(&node.tell(PeeringInput::Frame(connection))).len();
    }
    assert_eq!(lives, 8);
}

// --- who is admitted

#[test]
fn a_peer_of_another_cluster_or_name_or_generation_is_rejected() {
    let session = Session::new(cluster("demo"), id("a"));
    let judged = |hello: &Hello, proved: &str, wanted: Option<&str>| {
        let (wanted, wall) = (wanted.map(id), SystemTime::UNIX_EPOCH);
        let mut out = Vec::new();
        let judged = session.judge(hello, &id(proved), wanted.as_ref(), (OWN, wall), &mut out);
        (judged.map_err(|unwelcome| unwelcome.as_str()), out.len())
    };
    let hello = hello("demo", "b", 5, 0);
    let met = Met { node: id("b"), generation: Generation(5), features: 0 };
    assert_eq!(judged(&hello, "b", Some("b")), (Ok(met), 0));
    let other = Hello { cluster: cluster("other"), ..hello.clone() };
    assert_eq!(judged(&other, "b", None), (Err("wrong_cluster"), 0));
    assert_eq!(judged(&hello, "c", None), (Err("impostor"), 0));
    assert_eq!(judged(&hello, "b", Some("c")), (Err("unexpected_node"), 0));
    let absurd = Hello { generation: Generation(u64::MAX), ..hello };
    assert_eq!(judged(&absurd, "b", None), (Err("absurd_generation"), 0));
}

#[test]
fn a_process_with_our_name_is_ourselves_or_a_twin_and_a_later_twin_is_heard_of() {
    let session = Session::new(cluster("demo"), id("a"));
    let judged = |generation| {
        let (hello, wall) = (hello("demo", "a", generation, 0), SystemTime::UNIX_EPOCH);
        let mut out = Vec::new();
        let judged = session.judge(&hello, &id("a"), None, (OWN, wall), &mut out);
        (judged.unwrap_err(), out.len())
    };
    assert_eq!(judged(OWN.0), (Unwelcome::Ourselves, 0));
    assert_eq!(judged(OWN.0 - 1), (Unwelcome::Twin, 0));
    assert_eq!(judged(OWN.0 + 1), (Unwelcome::Twin, 1));
}

#[test]
fn a_peer_that_knows_a_later_generation_of_us_is_admitted_and_storage_is_told() {
    let session = Session::new(cluster("demo"), id("a"));
    let (hello, wall) = (hello("demo", "b", 5, OWN.0 + 3), SystemTime::UNIX_EPOCH);
    let mut out = Vec::new();
    assert!(session.judge(&hello, &id("b"), None, (OWN, wall), &mut out).is_ok());
    assert!(matches!(&out[..], [Output::Storage(StorageInput::HeardOfSelf(generation, _))]
        if generation.0 == OWN.0 + 3));
}

// --- the bench

const OWN: Generation = Generation(100);

struct Node {
    peering: Peering,
    shell: Shell,
    now: Time,
    opened: u64,
}

struct Shell {
    own: Generation,
    open: BTreeSet<ConnectionId>,
    received: BTreeMap<ConnectionId, u64>,
    packets: BTreeMap<ConnectionId, Packets>,
}

impl Surroundings for Shell {
    fn own(&self) -> Generation {
        self.own
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        self.open.contains(&connection)
    }

    fn received(&self, connection: ConnectionId) -> u64 {
        self.received.get(&connection).copied().unwrap_or(0)
    }

    fn packets(&self, connection: ConnectionId) -> Packets {
        self.packets.get(&connection).copied().unwrap_or_default()
    }
}

impl Node {
    fn new(name: &str) -> Self {
        let config = PeeringConfig {
            node: id(name),
            datacenter: Datacenter::new("here").unwrap(),
            gossip_interval: INTERVAL,
            bar: BAR,
            push_bytes_per_second: 1 << 20,
            wan_bytes_per_second: 1 << 20,
        };
        let (open, received, packets) = Default::default();
        let shell = Shell { own: OWN, open, received, packets };
        let now = Time::from_origin(Duration::from_secs(10));
        Self { peering: Peering::new(config), shell, now, opened: 0 }
    }

    fn tell(&mut self, input: PeeringInput) -> Vec<PeeringOutput> {
        let mut out = Vec::new();
        self.peering.handle(self.now, &self.shell, input, &mut out);
        // As any shell does.
        for output in &out {
            if let PeeringOutput::Close(connection, _) = output {
                self.shell.open.remove(connection);
            }
        }
        out
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn opens(&mut self) -> ConnectionId {
        self.opened += 1;
        self.shell.open.insert(ConnectionId(self.opened));
        ConnectionId(self.opened)
    }

    /// A first connection, which stays.
    fn meets(&mut self, peer: &str, dialed: bool, generation: u64) -> ConnectionId {
        let connection = self.opens();
        let (settled, out) = self.introduces(connection, peer, dialed, generation, "p");
        assert_eq!((settled, linked(&out)), (Settled::Kept, vec![true]));
        connection
    }

    fn meets_again(
        &mut self,
        peer: &str,
        dialed: bool,
        generation: u64,
        proof: &str,
    ) -> (Settled, Vec<PeeringOutput>) {
        let connection = self.opens();
        self.introduces(connection, peer, dialed, generation, proof)
    }

    fn introduces(
        &mut self,
        connection: ConnectionId,
        peer: &str,
        dialed: bool,
        generation: u64,
        proof: &str,
    ) -> (Settled, Vec<PeeringOutput>) {
        self.introduces_from(connection, peer, dialed, generation, proof, "here")
    }

    fn introduces_from(
        &mut self,
        connection: ConnectionId,
        peer: &str,
        dialed: bool,
        generation: u64,
        proof: &str,
        datacenter: &str,
    ) -> (Settled, Vec<PeeringOutput>) {
        let met = Met { node: id(peer), generation: Generation(generation), features: 0 };
        self.introduces_as(connection, met, dialed, proof, datacenter)
    }

    fn introduces_as(
        &mut self,
        connection: ConnectionId,
        met: Met,
        dialed: bool,
        proof: &str,
        datacenter: &str,
    ) -> (Settled, Vec<PeeringOutput>) {
        let out = self.tell(PeeringInput::Introduced(Introduced {
            connection,
            met,
            own: OWN,
            dialed,
            proof: proof.into(),
            datacenter: Datacenter::new(datacenter).unwrap(),
        }));
        let settled = out.iter().find_map(|output| match output {
            PeeringOutput::Settled(settled) => Some(*settled),
            _ => None,
        });
        (settled.expect("it is settled"), out)
    }

    fn connection(&self, peer: &str) -> Option<ConnectionId> {
        self.peering.connection(&self.shell, &id(peer))
    }

    fn beat(&mut self, peer: &str) {
        let beat = TransportInput::Heartbeat { peers: vec![id(peer)], health: 0 };
        self.tell(PeeringInput::Transport(beat));
    }

    fn hears(&mut self, from: ConnectionId, generation: u64, call: Call) -> Vec<PeeringOutput> {
        let generation = Generation(generation);
        let heartbeat = Heartbeat { generation, sequence: 9, call, health: 0 };
        self.tell(PeeringInput::Datagram(from, heartbeat.encode().into()))
    }

    fn send(&mut self, peer: &str, gossip: &Gossip) -> Vec<PeeringOutput> {
        let (to, gossip) = (vec![id(peer)], Arc::new(gossip.clone()));
        self.tell(PeeringInput::Transport(TransportInput::Gossip { to, gossip }))
    }

    fn next(&mut self, connection: ConnectionId) -> (Next, Vec<PeeringOutput>) {
        let out = self.tell(PeeringInput::Ready(connection));
        let next = out.iter().find_map(|output| match output {
            PeeringOutput::Frame(next) => Some(next.clone()),
            _ => None,
        });
        (next.expect("an answer"), out)
    }
}

fn closed(out: &[PeeringOutput]) -> Vec<(ConnectionId, Close)> {
    let closed = out.iter().filter_map(|output| match output {
        PeeringOutput::Close(connection, closing) => Some((*connection, closing.code)),
        _ => None,
    });
    closed.collect()
}

fn words(out: &[PeeringOutput]) -> Vec<String> {
    let words = out.iter().filter_map(|output| match output {
        PeeringOutput::Close(_, closing) => Some(String::from_utf8_lossy(&closing.words).into()),
        _ => None,
    });
    words.collect()
}

/// Whether connections come or go, as the scheduler is told; storage and the detector hear the same.
fn linked(out: &[PeeringOutput]) -> Vec<bool> {
    let mut told = [Vec::new(), Vec::new(), Vec::new()];
    for output in out {
        let PeeringOutput::Route(output) = output else { continue };
        match output {
            Output::Scheduler(SchedulerInput::Linked { up, .. }) => told[0].push(*up),
            Output::Detector(DetectorInput::Linked { up, .. }) => told[1].push(*up),
            Output::Storage(StorageInput::Linked(_, up)) => told[2].push(*up),
            _ => {}
        }
    }
    assert!(told[0] == told[1] && told[1] == told[2], "{told:?}");
    let [scheduler, ..] = told;
    scheduler
}

fn heard(out: &[PeeringOutput]) -> Vec<(NodeId, Generation, Sign, Time)> {
    let all = out.iter().find_map(|output| match output {
        PeeringOutput::Route(Output::Detector(DetectorInput::HeardAll(all))) => Some(all.clone()),
        _ => None,
    });
    all.expect("every look is told")
}

fn told(out: &[PeeringOutput]) -> Vec<(NodeId, Generation, Sign)> {
    let told = out.iter().filter_map(|output| match output {
        PeeringOutput::Route(Output::Detector(DetectorInput::Heard {
            peer,
            generation,
            sign,
            ..
        })) => Some((peer.clone(), *generation, *sign)),
        _ => None,
    });
    told.collect()
}

fn counted(out: &[PeeringOutput], counter: Counter) -> u64 {
    let counted = out.iter().filter_map(|output| match output {
        PeeringOutput::Route(Output::Count(which, times)) if *which == counter => Some(*times),
        _ => None,
    });
    counted.sum()
}

/// Whether storage is told that news of the node "n" for the peer "b" was dropped.
fn tells_of_shed(output: &&PeeringOutput) -> bool {
    let PeeringOutput::Route(Output::Storage(StorageInput::Shed(peer, owners))) = output else {
        return false;
    };
    *peer == id("b") && *owners == [id("n")]
}

fn congestions(out: &[PeeringOutput], congested: bool) -> usize {
    let is_it = |output: &&PeeringOutput| {
        matches!(output, PeeringOutput::Route(Output::Storage(StorageInput::Congested(_, is)))
            if *is == congested)
    };
    out.iter().filter(is_it).count()
}

fn news(bytes: usize) -> Gossip {
    let value = vec![7; bytes].as_slice().into();
    let content = DeltaContent::Value { value, ttl_ms: None };
    let node = NodeDelta {
        sealed: None,
        node: id("n"),
        generation: Generation(1),
        ancestry: Vec::new(),
        from: Version(0),
        to: Version(1),
        horizon: Version(1),
        torn: Version(0),
        gc_floor: Version(0),
        verdict: Verdict::default(),
        record: None,
        entries: vec![DeltaEntry { key: "key".into(), version: Version(1), content }],
    };
    Gossip::Push(Delta { nodes: vec![node], more: false })
}

/// The frames that wait for a peer, decoded.
fn waiting(node: &mut Node, connection: ConnectionId) -> Vec<Gossip> {
    let mut frames = Vec::new();
    while let (Next::Frame(_, frame), _) = node.next(connection) {
        let Ok(Message::Gossip(gossip)) = Message::decode(&frame[LENGTH_BYTES..]) else {
            panic!("no gossip: {frame:?}")
        };
        frames.push(gossip);
    }
    frames
}

#[test]
fn news_along_a_tree_is_plain_news_to_a_peer_of_an_earlier_version() {
    let mut node = Node::new("me");
    let old = node.meets("old", true, 5);
    let new = node.opens();
    let met = Met { node: id("new"), generation: Generation(5), features: FEATURE_TREES };
    node.introduces_as(new, met, true, "p", "here");
    let Gossip::Push(delta) = news(10) else { unreachable!() };
    let to = vec![id("old"), id("new")];
    let gossip = Arc::new(Gossip::Tree(delta.clone()));
    let encoded = Encoded::new(&gossip).unwrap();
    let here = TransportInput::Gossip { to: to.clone(), gossip: Arc::clone(&gossip) };
    // The transport encodes it before it takes the lock.
    for input in [PeeringInput::Transport(here), PeeringInput::Send { to, gossip, encoded }] {
        node.tell(input);
        assert_eq!(waiting(&mut node, old), [Gossip::Push(delta.clone())]);
        assert_eq!(waiting(&mut node, new), [Gossip::Tree(delta.clone())]);
    }
}

fn hello(cluster_name: &str, node: &str, generation: u64, known: u64) -> Hello {
    Hello {
        cluster: cluster(cluster_name),
        node: id(node),
        generation: Generation(generation),
        known: Generation(known),
        features: 0,
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}
