//! What all nodes of a run have in common, and what a run leaves out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    node::config::Config,
    protocol::{
        id::{Datacenter, Incarnation, NodeId},
        liveness::{LivenessConfig, TICKS_PER_INTERVAL},
        map::MapLimits,
        peering::PeeringConfig,
        record::{NodeRecord, Status},
        replica::ReplicaConfig,
        rules::Rules,
        scheduler::SchedulerConfig,
        seal::{Notary, Seals, Signing},
        sketch::SketchKey,
    },
};

/// The settings of all nodes of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub delta_bytes: usize,
    pub delta_entries: usize,
    pub tombstone_grace: Duration,
    pub forget_after: Duration,
    pub fanout: usize,
    pub gossip_interval: Duration,
    pub dead_peer_phi: f64,
    /// How long a peer that is known by name may take until it is heard.
    pub join_grace: Duration,
    /// A commit is on the disk after so long at most, in microseconds. Without any time there is no disk.
    pub disk: u64,
    pub limits: MapLimits,
    pub peers_max: usize,
    /// The machines whose first addresses are seeds.
    pub seeds: Vec<usize>,
    /// If there is one, all nodes sign their own maps, and accept nothing that is not signed.
    pub notary: Option<Arc<dyn Notary>>,
    /// Bytes of news to one peer, and of all to another datacenter, in a second.
    pub push_bytes: usize,
    pub wan_bytes: usize,
    /// How long a disconnected peer is refused.
    pub bar: Duration,
    /// Exchanges that a peer may begin in a second.
    pub exchanges_per_peer: u32,
    /// When an exchange, a handshake and a silent connection are given up.
    pub exchange_timeout: Duration,
    pub handshake_timeout: Duration,
    pub idle_timeout: Duration,
    /// The rules in force.
    pub rules: Rules,
    /// So many machines, the first ones, run a version that knows no trees.
    pub without_trees: usize,
}

/// Which parts of a run are modelled. What is left out is not judged by the run either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// The messages of exchanges are encoded and decoded.
    pub codec: bool,
    /// Heartbeats are packets like others. Otherwise a heartbeat on a connection that is well is only noted.
    pub packets: bool,
    /// Calls of machines that have no effect are left out. Not together with `packets`.
    pub elide: bool,
    /// Equal copies of a map are held once for all nodes.
    pub share: bool,
    /// After each span the rules that hold for every cluster are checked, and the trace of the run is kept.
    pub checks: bool,
    /// Every other exchange begins with a sketch, as in a cluster that is large enough.
    pub sketches: bool,
}

impl Switches {
    /// For clusters of up to a hundred nodes: nothing is left out.
    #[must_use]
    pub const fn whole() -> Self {
        Self {
            codec: true,
            packets: true,
            elide: false,
            share: false,
            checks: true,
            sketches: true,
        }
    }

    /// For clusters of ten thousand nodes.
    #[must_use]
    pub const fn large() -> Self {
        Self {
            codec: false,
            packets: false,
            elide: true,
            share: true,
            checks: false,
            sketches: false,
        }
    }
}

impl Settings {
    /// Room for everything, and no node is forgotten.
    #[must_use]
    pub fn roomy() -> Self {
        Self {
            delta_bytes: 64 << 10,
            delta_entries: 1_000,
            tombstone_grace: Duration::from_secs(5),
            forget_after: Duration::from_secs(3_600),
            fanout: 3,
            gossip_interval: Duration::from_secs(1),
            dead_peer_phi: 8.0,
            join_grace: Duration::from_secs(10),
            disk: 30_000,
            limits: MapLimits { keys: 1_000, bytes: 1 << 20, key_bytes: 64, value_bytes: 64 << 10 },
            peers_max: 1_000,
            seeds: vec![0],
            notary: None,
            push_bytes: 16 << 20,
            wan_bytes: 64 << 20,
            bar: Duration::from_secs(30),
            exchanges_per_peer: 500,
            exchange_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            rules: Rules::default(),
            without_trees: 0,
        }
    }

    /// The settings of a configuration that ships, so that the two cannot differ.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let (replica, liveness) = (config.replica(SKETCH_KEY), config.liveness());
        Self {
            delta_bytes: replica.delta_bytes,
            delta_entries: replica.delta_entries,
            tombstone_grace: replica.tombstone_grace,
            forget_after: replica.forget_after,
            fanout: config.gossip_fanout,
            gossip_interval: config.gossip_interval,
            dead_peer_phi: liveness.dead_peer_phi,
            join_grace: liveness.join_grace,
            disk: 0,
            limits: replica.limits,
            peers_max: replica.peers_max,
            seeds: Vec::new(),
            notary: None,
            push_bytes: config.push_bytes_per_second,
            wan_bytes: config.wan_bytes_per_second,
            bar: config.quic.bar,
            exchanges_per_peer: config.quic.exchanges_per_peer,
            exchange_timeout: config.quic.exchange_timeout,
            handshake_timeout: config.quic.handshake_timeout,
            idle_timeout: config.quic.idle_timeout,
            rules: replica.rules,
            without_trees: 0,
        }
    }

    /// The time between two looks at all connections.
    pub(super) fn look(&self) -> Duration {
        (self.gossip_interval / TICKS_PER_INTERVAL).max(LOOK_MIN)
    }

    /// How long a suspect has to refute the accusation.
    pub(super) fn suspicion(&self) -> Duration {
        self.gossip_interval * 2
    }

    pub(super) fn seals(&self) -> Option<Seals> {
        let notary = self.notary.clone()?;
        Some(Seals { notary, signing: Signing::Require })
    }

    pub(super) fn replica(
        &self,
        node: &NodeId,
        datacenter: &Datacenter,
        address: &str,
    ) -> ReplicaConfig {
        ReplicaConfig {
            node: node.clone(),
            record: NodeRecord {
                datacenter: datacenter.clone(),
                addresses: vec![address.to_owned()],
                tags: BTreeMap::new(),
                wire: (1, 1),
                status: Status::Up,
                incarnation: Incarnation::ZERO,
                severed: BTreeSet::new(),
                not_before: None,
                not_after: None,
            },
            limits: self.limits,
            peers_max: self.peers_max,
            delta_bytes: self.delta_bytes,
            delta_entries: self.delta_entries,
            tombstone_grace: self.tombstone_grace,
            forget_after: self.forget_after,
            interval: self.gossip_interval,
            sketch_key: SKETCH_KEY,
            rules: self.rules,
        }
    }

    /// The rules of one machine.
    pub(super) const fn rules_of(&self, slot: usize) -> Rules {
        Rules { trees: self.rules.trees && slot >= self.without_trees, ..self.rules }
    }

    pub(super) fn liveness(&self, node: &NodeId) -> LivenessConfig {
        LivenessConfig {
            node: node.clone(),
            suspicion: self.suspicion(),
            heartbeat_interval: self.gossip_interval,
            dead_peer_phi: self.dead_peer_phi,
            join_grace: self.join_grace,
            forget_after: self.forget_after,
            rules: self.rules,
        }
    }

    pub(super) fn peering(&self, node: &NodeId, datacenter: &Datacenter) -> PeeringConfig {
        PeeringConfig {
            node: node.clone(),
            datacenter: datacenter.clone(),
            gossip_interval: self.gossip_interval,
            bar: self.bar,
            push_bytes_per_second: self.push_bytes,
            wan_bytes_per_second: self.wan_bytes,
        }
    }

    pub(super) fn scheduler(
        &self,
        node: &NodeId,
        datacenter: &Datacenter,
        seeds: Vec<String>,
        candidates: Vec<String>,
    ) -> SchedulerConfig {
        SchedulerConfig {
            node: node.clone(),
            datacenter: datacenter.clone(),
            gossip_interval: self.gossip_interval,
            gossip_fanout: self.fanout,
            minimum_live_peers: 1,
            seeds,
            candidates,
            seed_interval: self.gossip_interval * 30,
            exchange_timeout: self.exchange_timeout * 2,
            rules: self.rules,
        }
    }
}

/// One key for all nodes, so that a run follows from its seed.
const SKETCH_KEY: SketchKey = SketchKey(*b"of the simulator");
/// Connections are not looked at more often than this.
const LOOK_MIN: Duration = Duration::from_millis(5);
