//! The settings of the state machines by a configuration: the same for the actors and for `simulate`.

use std::collections::BTreeSet;

use super::Config;
use crate::protocol::{
    id::Incarnation,
    liveness::LivenessConfig,
    map::MapLimits,
    message::WIRE_MAJOR,
    record::{NodeRecord, Status},
    replica::ReplicaConfig,
    rules::Rules,
    scheduler::SchedulerConfig,
    sketch::SketchKey,
};

impl Config {
    /// The settings of storage. For the benchmarks; it has no semantic versioning.
    #[doc(hidden)]
    #[must_use]
    pub fn replica(&self, sketch_key: SketchKey) -> ReplicaConfig {
        ReplicaConfig {
            node: self.node.clone(),
            record: NodeRecord {
                datacenter: self.datacenter.clone(),
                addresses: self.advertise.clone(),
                tags: self.tags.clone(),
                wire: (WIRE_MAJOR, WIRE_MAJOR),
                status: Status::Up,
                incarnation: Incarnation::ZERO,
                severed: BTreeSet::new(),
                // Set by the transport.
                not_before: None,
                not_after: None,
            },
            limits: MapLimits {
                keys: self.limits.keys,
                bytes: self.limits.state_bytes,
                key_bytes: self.limits.key_bytes,
                value_bytes: self.limits.value_bytes,
            },
            peers_max: self.peers_max,
            delta_bytes: self.max_delta_bytes,
            delta_entries: self.max_deltas_per_gossip,
            tombstone_grace: self.tombstone_grace,
            forget_after: self.forget_after,
            interval: self.gossip_interval,
            sketch_key,
            rules: self.rules(),
        }
    }

    pub(crate) fn liveness(&self) -> LivenessConfig {
        LivenessConfig {
            node: self.node.clone(),
            heartbeat_interval: self.gossip_interval,
            dead_peer_phi: self.dead_peer_phi,
            suspicion: self.gossip_interval * SUSPICION_INTERVALS,
            join_grace: self.gossip_interval * JOIN_GRACE_INTERVALS,
            forget_after: self.forget_after,
            rules: self.rules(),
        }
    }

    /// `candidates`: addresses of peers known from an earlier run.
    pub(crate) fn scheduler(&self, candidates: Vec<String>) -> SchedulerConfig {
        SchedulerConfig {
            node: self.node.clone(),
            datacenter: self.datacenter.clone(),
            gossip_interval: self.gossip_interval,
            gossip_fanout: self.gossip_fanout,
            minimum_live_peers: self.minimum_live_peers,
            seeds: self.seeds.clone(),
            candidates,
            seed_interval: self.gossip_interval * SEED_INTERVALS,
            exchange_timeout: self.quic.exchange_timeout * 2,
            rules: self.rules(),
        }
    }

    /// The rules in force: only tests switch one off.
    pub(crate) fn rules(&self) -> Rules {
        #[cfg(feature = "sim")]
        return self.rules;
        #[cfg(not(feature = "sim"))]
        Rules::default()
    }
}

/// Rounds in which a suspect can refute before it is dead: 2 s by default.
const SUSPICION_INTERVALS: u32 = 2;
/// Rounds in which a peer known by name has to be heard.
const JOIN_GRACE_INTERVALS: u32 = 20;
/// A seed that is not a live member is tried once in this many intervals: 30 s by default.
const SEED_INTERVALS: u32 = 30;
