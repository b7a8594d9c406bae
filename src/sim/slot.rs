//! A machine that a node may run on, and the process that runs there: the state machines that ship.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::dial::Dial;
use crate::protocol::{
    durable::{Change, Stored},
    id::{Datacenter, Generation, NodeId, Version},
    lag::Lag,
    liveness::Liveness,
    peering::Peering,
    replica::Replica,
    scheduler::Scheduler,
    service::manifest::Manifest,
    session::Session,
    time::Time,
    view::NodeView,
};

/// A machine that a node may run on, with its disk.
#[derive(Debug)]
pub struct Slot {
    pub name: NodeId,
    pub address: String,
    pub datacenter: Datacenter,
    /// How far its wall clock is ahead of the true one, in milliseconds.
    pub skew: i64,
    /// Which certificate its node shows.
    pub(super) certificate: u64,
    /// What is on the disk.
    pub(super) stored: Stored,
    /// Commits not on the disk yet, oldest first.
    pub(super) unsynced: VecDeque<Commit>,
    pub(super) commits: u64,
    /// The last version of each generation that was acknowledged to a caller.
    pub(super) acknowledged: Option<(Generation, Version)>,
    /// Counts the processes that ran here.
    pub(super) epoch: u64,
    pub node: Option<Box<Node>>,
    /// The last process ended because another one uses its name.
    pub displaced: bool,
    /// The services that its node offers as soon as it has started.
    pub offers: Option<Manifest>,
}

/// Changes on their way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) number: u64,
    pub(super) changes: Vec<Change>,
    /// What a caller is told once they are there.
    pub(super) acknowledges: Option<(Generation, Version)>,
}

/// A process.
#[derive(Debug)]
pub struct Node {
    pub replica: Replica,
    pub liveness: Liveness,
    pub scheduler: Scheduler,
    pub peering: Peering,
    pub(super) session: Session,
    /// Dials under way.
    pub(super) dials: BTreeMap<u64, Dial>,
    /// The connections that have not ended for it.
    pub(super) wires: BTreeSet<u64>,
    /// The origin of its clock, in microseconds.
    pub(super) booted: u64,
    /// Which wake-up of each machine counts.
    pub(super) wakes: [u64; 4],
    pub(super) generation: Generation,
    /// How far each map reached when readers saw it last.
    pub(super) seen: BTreeMap<NodeId, (Generation, Version)>,
    /// What readers saw last.
    pub(super) views: Views,
    /// When the detector judges next, while ticks without effect are left out.
    pub(super) rest: Option<u64>,
    /// The root with which the scheduler is not called before something happens.
    pub(super) drowsy: Option<u64>,
    /// How late it is served, if there are processors.
    pub(super) lag: Lag,
    pub(super) lateness: Duration,
}

pub(super) type Views = OrdMap<NodeId, Arc<NodeView>>;

impl Slot {
    pub(super) fn new(name: &str, address: String, datacenter: &str) -> Self {
        Self {
            name: NodeId::new(name).expect("a label"),
            address,
            datacenter: Datacenter::new(datacenter).expect("a label"),
            skew: 0,
            certificate: 0,
            stored: Stored::default(),
            unsynced: VecDeque::new(),
            commits: 0,
            acknowledged: None,
            epoch: 0,
            node: None,
            displaced: false,
            offers: None,
        }
    }
}

impl Node {
    /// The node's own clock, which began when it started.
    #[must_use]
    pub fn clock(&self, now: u64) -> Time {
        Time::from_origin(Duration::from_micros(now.saturating_sub(self.booted)))
    }
}

/// The number of a node in its name.
pub(super) fn number(name: &NodeId) -> Option<usize> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

/// The wall clock of a machine that is `skew` milliseconds ahead.
pub(super) fn wall(now: u64, skew: i64) -> SystemTime {
    let now = i64::try_from(now / 1_000).unwrap_or(i64::MAX);
    let millis = now.saturating_add(EPOCH_MILLIS).saturating_add(skew);
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The wall clock when a run begins.
const EPOCH_MILLIS: i64 = 1_700_000_000_000;
