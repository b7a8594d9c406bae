//! One simulated node: the three machines that ship, set up as the actors set them up.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::{pool::Pool, world::News};
use crate::{
    node::config::Config,
    protocol::{
        id::NodeId, liveness::Liveness, replica::Replica, route::Output, scheduler::Scheduler,
        sketch::SketchKey, time::Time,
    },
    store::Stored,
};

/// The machines of a running node.
#[derive(Debug)]
pub struct Machines {
    pub replica: Replica,
    pub liveness: Liveness,
    pub scheduler: Scheduler,
    /// When it started, in microseconds.
    pub booted: u64,
    /// Which wake-up of each machine counts.
    pub wakes: [u32; 3],
    /// When the detector judges next; ticks without effect are left out.
    pub rest: Option<u64>,
    /// The root with which the scheduler is not called before something happens.
    pub drowsy: Option<u64>,
    /// Connections, by the number of the peer.
    pub links: Vec<(u32, u32)>,
    /// Packets received since the connections were last looked at.
    pub news: News,
}

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Storage,
    Detector,
    Scheduler,
}

impl Machines {
    /// A node that starts at `now` on an empty store. The outputs of storage are in `out`.
    pub(super) fn start(
        config: &Config,
        pool: &Arc<Pool>,
        seed: u64,
        now: u64,
        out: &mut Vec<Output>,
    ) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(EPOCH + now);
        let (stored, none) = (Stored::default(), OrdMap::new());
        let replica = config.replica(SketchKey([7; 16]));
        let mut replica = Replica::start(replica, stored, &none, false, Time::ZERO, wall, out);
        replica.share_copies(Arc::<Pool>::clone(pool));
        Self {
            replica,
            liveness: Liveness::new(config.liveness()),
            scheduler: Scheduler::new(config.scheduler(Vec::new()), Time::ZERO, seed),
            booted: now,
            wakes: [0; 3],
            rest: None,
            drowsy: None,
            links: Vec::new(),
            news: News::new(),
        }
    }

    /// The node's own clock, which began when it started.
    pub fn clock(&self, now: u64) -> Time {
        Time::from_origin(Duration::from_micros(now.saturating_sub(self.booted)))
    }

    /// The connection to a peer.
    pub fn link(&self, peer: u32) -> Option<u32> {
        let at = self.links.binary_search_by_key(&peer, |(peer, _)| *peer).ok()?;
        Some(self.links[at].1)
    }

    /// Takes a connection, in the place of one to the same peer.
    pub fn insert_link(&mut self, peer: u32, connection: u32) {
        match self.links.binary_search_by_key(&peer, |(peer, _)| *peer) {
            Ok(at) => self.links[at].1 = connection,
            Err(at) => self.links.insert(at, (peer, connection)),
        }
    }

    pub fn remove_link(&mut self, peer: u32) {
        if let Ok(at) = self.links.binary_search_by_key(&peer, |(peer, _)| *peer) {
            self.links.remove(at);
        }
    }
}

/// The number of a node in its name.
pub fn number(name: &NodeId) -> Option<u32> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

/// The wall clock when a run begins, in microseconds.
const EPOCH: u64 = 1_700_000_000_000_000;
