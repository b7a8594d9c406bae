//! One simulated node: the three machines that ship, set up as the actors set them up.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::pool::Pool;
use crate::{
    config::Config,
    protocol::{
        id::{Incarnation, NodeId},
        liveness::{Liveness, LivenessConfig},
        map::MapLimits,
        message::WIRE_MAJOR,
        record::{NodeRecord, Status},
        replica::{Replica, ReplicaConfig},
        route::Output,
        scheduler::{Scheduler, SchedulerConfig},
        sketch::SketchKey,
        time::Time,
    },
    store::Stored,
};

/// The machines of a running node.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) replica: Replica,
    pub(super) liveness: Liveness,
    pub(super) scheduler: Scheduler,
    /// When it started, in microseconds.
    pub(super) booted: u64,
    /// Which wake-up of each machine counts.
    pub(super) wakes: [u32; 3],
    /// When the detector judges next; ticks that would do nothing are left out.
    pub(super) rest: Option<u64>,
    /// The root with which the scheduler is not called before something happens.
    pub(super) drowsy: Option<u64>,
    /// Connections, by the number of the peer.
    pub(super) links: Vec<(u32, u32)>,
}

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Storage,
    Detector,
    Scheduler,
}

impl Machines {
    /// A node that starts at `now` on an empty store. What storage says at that is in `out`.
    pub(super) fn start(
        config: &Config,
        pool: &Arc<Pool>,
        seed: u64,
        now: u64,
        out: &mut Vec<Output>,
    ) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(EPOCH + now);
        let (stored, none) = (Stored::default(), OrdMap::new());
        let replica = replica_config(config);
        let mut replica = Replica::start(replica, stored, &none, false, Time::ZERO, wall, out);
        replica.share_copies(Arc::<Pool>::clone(pool));
        Self {
            replica,
            liveness: Liveness::new(liveness_config(config)),
            scheduler: Scheduler::new(scheduler_config(config), Time::ZERO, seed),
            booted: now,
            wakes: [0; 3],
            rest: None,
            drowsy: None,
            links: Vec::new(),
        }
    }

    /// The node's own clock, which began when it started.
    pub(super) fn clock(&self, now: u64) -> Time {
        Time::from_origin(Duration::from_micros(now.saturating_sub(self.booted)))
    }

    /// The connection to a peer.
    pub(super) fn link(&self, peer: u32) -> Option<u32> {
        let at = self.links.binary_search_by_key(&peer, |(peer, _)| *peer).ok()?;
        Some(self.links[at].1)
    }

    /// Takes a connection, in the place of one to the same peer.
    pub(super) fn insert_link(&mut self, peer: u32, connection: u32) {
        match self.links.binary_search_by_key(&peer, |(peer, _)| *peer) {
            Ok(at) => self.links[at].1 = connection,
            Err(at) => self.links.insert(at, (peer, connection)),
        }
    }

    pub(super) fn remove_link(&mut self, peer: u32) {
        if let Ok(at) = self.links.binary_search_by_key(&peer, |(peer, _)| *peer) {
            self.links.remove(at);
        }
    }
}

fn replica_config(config: &Config) -> ReplicaConfig {
    ReplicaConfig {
        node: config.node.clone(),
        record: NodeRecord {
            datacenter: config.datacenter.clone(),
            addresses: config.advertise.clone(),
            tags: config.tags.clone(),
            wire: (WIRE_MAJOR, WIRE_MAJOR),
            status: Status::Up,
            incarnation: Incarnation::ZERO,
        },
        limits: MapLimits {
            keys: config.limits.keys,
            bytes: config.limits.state_bytes,
            key_bytes: config.limits.key_bytes,
            value_bytes: config.limits.value_bytes,
        },
        peers_max: config.peers_max,
        delta_bytes: config.max_delta_bytes,
        delta_entries: config.max_deltas_per_gossip,
        tombstone_grace: config.tombstone_grace,
        forget_after: config.forget_after,
        sketch_key: SketchKey([7; 16]),
    }
}

fn liveness_config(config: &Config) -> LivenessConfig {
    LivenessConfig {
        heartbeat_interval: config.gossip_interval,
        dead_peer_phi: config.dead_peer_phi,
        join_grace: config.gossip_interval * JOIN_GRACE_INTERVALS,
        forget_after: config.forget_after,
    }
}

fn scheduler_config(config: &Config) -> SchedulerConfig {
    let interval = config.gossip_interval;
    SchedulerConfig {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        gossip_interval: interval,
        gossip_fanout: config.gossip_fanout,
        minimum_live_peers: config.minimum_live_peers,
        seeds: config.seeds.clone(),
        candidates: Vec::new(),
        seed_interval: interval * SEED_INTERVALS,
        exchange_timeout: config.quic.exchange_timeout * 2,
    }
}

/// The number of a node in its name.
pub(super) fn number(name: &NodeId) -> Option<u32> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

/// The wall clock when a run begins, in microseconds.
const EPOCH: u64 = 1_700_000_000_000_000;
/// As the actors set it.
const JOIN_GRACE_INTERVALS: u32 = 20;
const SEED_INTERVALS: u32 = 30;
