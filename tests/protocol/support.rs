//! Replicas to talk to, and an exchange between two of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        entry::Key,
        event::Event,
        exchange::{Ask, Half, Initiator, Reply, Responder, Step},
        id::{Datacenter, Generation, Incarnation, NodeId, Version},
        map::MapLimits,
        message::{LENGTH_BYTES, Message},
        overlay,
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig, Write},
        route::Output,
        sketch::SketchKey,
        time::Time,
    },
    store::Stored,
};
use imbl::OrdMap;

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// So many names of nodes that `local` dials, in order.
pub(crate) fn dialed_by(local: &str, count: usize) -> Vec<String> {
    named(count, |name| overlay::dials(&node(local), name))
}

/// So many names of nodes that dial `local`, in order.
pub(crate) fn dialing(local: &str, count: usize) -> Vec<String> {
    named(count, |name| !overlay::dials(&node(local), name))
}

fn named(count: usize, which: impl Fn(&NodeId) -> bool) -> Vec<String> {
    let names = (100..).map(|n| format!("x{n}"));
    names.filter(|name| which(&node(name))).take(count).collect()
}

pub(crate) fn at(seconds: u64) -> Time {
    Time::from_origin(Duration::from_secs(seconds))
}

pub(crate) fn record(address: &str) -> NodeRecord {
    NodeRecord {
        datacenter: Datacenter::new("dc1").unwrap(),
        addresses: vec![address.to_owned()],
        tags: BTreeMap::new(),
        wire: (1, 1),
        status: Status::Up,
        incarnation: Incarnation::ZERO,
        severed: BTreeSet::new(),
    }
}

pub(crate) fn config(name: &str) -> ReplicaConfig {
    ReplicaConfig {
        node: node(name),
        record: record(&format!("{name}:1")),
        limits: LIMITS,
        peers_max: 100,
        delta_bytes: 64 << 10,
        delta_entries: 10_000,
        tombstone_grace: Duration::from_secs(10),
        forget_after: Duration::from_secs(100),
        sketch_key: SketchKey(*b"a key of a test."),
    }
}

pub(crate) const LIMITS: MapLimits =
    MapLimits { keys: 10_000, bytes: 32 << 20, key_bytes: 512, value_bytes: 2 << 20 };

/// A new node.
pub(crate) fn replica(name: &str) -> Replica {
    start(config(name), Stored::default())
}

/// A node on what a store kept; its generation is 1,000 or follows the stored one.
pub(crate) fn start(config: ReplicaConfig, stored: Stored) -> Replica {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    Replica::start(config, stored, &OrdMap::new(), false, Time::ZERO, wall, &mut Vec::new())
}

/// Writes one key; returns the version.
pub(crate) fn set(replica: &mut Replica, key: &str, value: &str) -> Version {
    write(replica, at(1), vec![Write::set(key, value)])
}

pub(crate) fn delete(replica: &mut Replica, now: Time, key: &str) -> Version {
    write(replica, now, vec![Write::delete(key)])
}

pub(crate) fn write(replica: &mut Replica, now: Time, batch: Vec<Write>) -> Version {
    replica.write(now, batch, &mut Vec::new()).unwrap().version
}

/// The value that `reader` sees.
pub(crate) fn seen(reader: &Replica, owner: &str, key: &str, now: Time) -> Option<String> {
    let owner = node(owner);
    let map = if *reader.node() == owner { Some(reader.own()) } else { reader.copy(&owner) }?;
    let value = map.entries().get(key)?.visible(now)?;
    Some(value.as_str().unwrap().to_owned())
}

/// What came of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Rounds on the stream.
    pub(crate) rounds: usize,
    /// Writes carried, both ways.
    pub(crate) entries: usize,
    /// What the initiator and the responder said.
    pub(crate) outputs: [Vec<Output>; 2],
}

impl Outcome {
    /// The events of one side.
    pub(crate) fn events(&self, side: usize) -> Vec<&Event> {
        let outputs = self.outputs[side].iter();
        let event = outputs.filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        });
        event.collect()
    }
}

/// One whole exchange, what is pulled included.
pub(crate) fn exchange(one: &mut Replica, other: &mut Replica, now: Time) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut initiator, opening) = Initiator::open(one.digest());
    let mut responder = Responder::new();
    let names = [one.node().clone(), other.node().clone()];
    let mut inboxes = [VecDeque::<Vec<u8>>::new(), VecDeque::new()];
    let mut steps = [opening, Step::Read];
    let mut taken = 0;
    let mut turn = 0;
    loop {
        taken += 1;
        assert!(taken < 1_000_000, "an exchange without an end");
        let (replica, half): (&mut Replica, &mut dyn Half) =
            if turn == 0 { (&mut *one, &mut initiator) } else { (&mut *other, &mut responder) };
        let out = &mut outcome.outputs[turn];
        steps[turn] = match std::mem::replace(&mut steps[turn], Step::Done) {
            Step::Ask(ask) => half.reply(answer(replica, now, &names[1 - turn], ask, out)),
            // The stream was ended under it.
            Step::Send(_) if steps[1 - turn] == Step::Done => return outcome,
            Step::Send(message) => {
                let opens = matches!(message, Message::Syn { .. } | Message::More { .. });
                outcome.rounds += usize::from(opens);
                outcome.entries += carried(&message);
                inboxes[1 - turn].push_back(message.encode().unwrap());
                let next = half.sent();
                // The other one may be quicker than the next frame.
                steps[turn] = next;
                turn = 1 - turn;
                continue;
            }
            Step::Read if !inboxes[turn].is_empty() => {
                let frame = inboxes[turn].pop_front().unwrap();
                half.frame(Message::decode(&frame[LENGTH_BYTES..]).unwrap())
            }
            Step::Broken(breach) => panic!("{breach}"),
            waits => {
                steps[turn] = waits;
                turn = 1 - turn;
                let idle = match steps[turn] {
                    Step::Read => inboxes[turn].is_empty(),
                    Step::Done => true,
                    _ => false,
                };
                if idle {
                    return outcome;
                }
                continue;
            }
        };
    }
}

fn carried(message: &Message) -> usize {
    match message {
        Message::SynAck { delta, .. } | Message::Ack { delta } | Message::More { delta } => {
            delta.len()
        }
        _ => 0,
    }
}

/// What storage does.
pub(crate) fn answer(
    replica: &mut Replica,
    now: Time,
    peer: &NodeId,
    ask: Ask,
    out: &mut Vec<Output>,
) -> Reply {
    replica.serve(now, peer, ask, out)
}

/// News of `name` in generation 1,000, with its record at version 1.
pub(crate) fn news(name: &str, from: u64, to: u64, gc_floor: u64) -> NodeDelta {
    NodeDelta {
        sealed: None,
        node: node(name),
        generation: Generation(1_000),
        ancestry: Vec::new(),
        from: Version(from),
        to: Version(to),
        horizon: Version(to),
        torn: Version::ZERO,
        gc_floor: Version(gc_floor),
        verdict: gossipmonger::protocol::verdict::Verdict::default(),
        record: Some((Version(1), record(&format!("{name}:1")))),
        entries: Vec::new(),
    }
}

pub(crate) fn value(key: &str, version: u64, value: &str) -> DeltaEntry {
    let content = DeltaContent::Value { value: value.into(), ttl_ms: None };
    DeltaEntry { key: Key::from(key), version: Version(version), content }
}

pub(crate) fn tombstone(key: &str, version: u64) -> DeltaEntry {
    let content = DeltaContent::Tombstone;
    DeltaEntry { key: Key::from(key), version: Version(version), content }
}

/// Applies news that `from` tells; returns what the replica said.
pub(crate) fn told(replica: &mut Replica, from: &str, news: NodeDelta) -> Vec<Output> {
    let mut out = Vec::new();
    let delta = Delta { nodes: vec![news], more: false };
    replica.apply(at(1), &node(from), &delta, &mut out);
    out
}
