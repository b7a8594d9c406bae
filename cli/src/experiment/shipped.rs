//! The shipped [`Replica`]s, driven as the actors drive them: a digest, an answer, a merge.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    protocol::{
        entry::Key,
        id::{Datacenter, Incarnation, NodeId},
        map::MapLimits,
        message::WIRE_MAJOR,
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        sketch::SketchKey,
        time::Time,
        write::Write,
    },
    store::Stored,
};
use imbl::OrdMap;
use rand::rngs::SmallRng;

use super::{Fit, Settings, System, ledger::Reach};
use crate::error::CliError;

/// Nodes that hold the state of all owners, without network or disk.
#[derive(Debug)]
pub(super) struct Shipped {
    nodes: Vec<Replica>,
    names: Vec<NodeId>,
    keys: Vec<Key>,
    /// Writes so far: each value differs.
    writes: u64,
}

impl Shipped {
    /// All nodes have everything.
    pub(super) fn new(settings: &Settings) -> Result<Self, CliError> {
        let names: Vec<_> = (0..settings.nodes)
            .map(|node| NodeId::new(&format!("n{node}")).map_err(CliError::failed))
            .collect::<Result<_, _>>()?;
        let keys: Vec<_> = (0..settings.keys).map(|key| Key::from(format!("k{key}"))).collect();
        let datacenter = Datacenter::new("dc1").map_err(CliError::failed)?;
        let wall = SystemTime::UNIX_EPOCH + GENERATION;
        let mut nodes = Vec::with_capacity(names.len());
        for name in &names {
            let config = config(settings, name.clone(), datacenter.clone());
            let (stored, mut out) = (Stored::default(), Vec::new());
            let copies = OrdMap::new();
            let mut node =
                Replica::start(config, stored, &copies, false, Time::ZERO, wall, &mut out);
            // One by one: a batch is one version, and may exceed the budget.
            for key in &keys {
                let write = vec![Write::set(key.clone(), "-")];
                node.write(Time::ZERO, write, &mut out).map_err(CliError::failed)?;
            }
            nodes.push(node);
        }
        let mut this = Self { nodes, names, keys, writes: 0 };
        this.introduce_all();
        Ok(this)
    }

    /// Each node sends all others what the next one lacks, as often as the budget requires.
    fn introduce_all(&mut self) {
        let count = self.nodes.len();
        let mut quiet = 0;
        for at in (0..count).cycle() {
            let (mut out, next) = (Vec::new(), (at + 1) % count);
            let digest = self.nodes[next].digest();
            let (_, news) = self.nodes[at].answer(Time::ZERO, &self.names[next], &digest, &mut out);
            quiet = if news.is_empty() { quiet + 1 } else { 0 };
            if quiet == count {
                return;
            }
            for (_, node) in self.nodes.iter_mut().enumerate().filter(|(to, _)| *to != at) {
                node.apply(Time::ZERO, &self.names[at], &news, &mut out);
            }
        }
    }
}

impl System for Shipped {
    fn write(&mut self, now: Time, owner: usize, key: usize) -> u64 {
        self.writes += 1;
        let write = Write::set(self.keys[key].clone(), self.writes.to_string());
        let written = self.nodes[owner].write(now, vec![write], &mut Vec::new());
        written.expect("a short value of a key that is there, never written before").version.0
    }

    fn exchange(&mut self, now: Time, from: usize, to: usize, _: &mut SmallRng) -> Fit {
        let mut out = Vec::new();
        let (begins, answers) = (&self.names[from], &self.names[to]);
        let digest = self.nodes[from].digest();
        let (wants, answer) = self.nodes[to].answer(now, begins, &digest, &mut out);
        let news = self.nodes[from].merge(now, answers, &wants, &answer, &mut out);
        self.nodes[to].apply(now, begins, &news, &mut out);
        Fit { from: !news.more, to: !answer.more }
    }

    fn reach(&self, node: usize, owner: usize) -> Reach<'_> {
        let copy = self.nodes[node].copy(&self.names[owner]);
        Reach::UpTo(copy.map_or(0, |copy| copy.max_version().0))
    }
}

fn config(settings: &Settings, node: NodeId, datacenter: Datacenter) -> ReplicaConfig {
    ReplicaConfig {
        node,
        record: NodeRecord {
            datacenter,
            addresses: Vec::new(),
            tags: BTreeMap::new(),
            wire: (WIRE_MAJOR, WIRE_MAJOR),
            status: Status::Up,
            incarnation: Incarnation::ZERO,
            severed: BTreeSet::new(),
            not_before: None,
            not_after: None,
        },
        limits: MapLimits { keys: settings.keys, bytes: 1 << 20, key_bytes: 64, value_bytes: 64 },
        peers_max: settings.nodes,
        // The budget is a number of entries; this one is never reached first.
        delta_bytes: 64 << 20,
        delta_entries: settings.budget,
        tombstone_grace: Duration::from_secs(3_600),
        forget_after: Duration::from_secs(3_600),
        interval: Duration::from_secs(1),
        sketch_key: SketchKey([0; 16]),
        rules: Default::default(),
    }
}

/// The start of the first generation of all nodes, by an arbitrary wall clock.
const GENERATION: Duration = Duration::from_secs(1_000_000_000);
