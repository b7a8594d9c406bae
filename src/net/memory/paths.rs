//! What a test does to the paths between the nodes of a [`MemoryNetwork`](super::MemoryNetwork).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{net::Shown, protocol::id::NodeId};

/// A direction.
pub(super) type Path = (NodeId, NodeId);
/// A node's wall clock.
pub(super) type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The paths between all nodes, and the certificates that they show.
pub(super) struct Paths {
    cuts: BTreeSet<Path>,
    delay: RangeInclusive<Duration>,
    /// Of single directions, in place of `delay`.
    delays: BTreeMap<Path, RangeInclusive<Duration>>,
    rng: SmallRng,
    /// How long a connection survives a cut; `None`: it breaks at the first message.
    pub(super) patience: Option<Duration>,
    certificates: BTreeMap<NodeId, Certificate>,
}

/// A certificate that is only a date.
struct Certificate {
    serial: u64,
    expires: SystemTime,
    wall: WallClock,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            cuts: BTreeSet::new(),
            delay: Duration::ZERO..=Duration::ZERO,
            delays: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(0),
            patience: None,
            certificates: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paths").field("cuts", &self.cuts).finish_non_exhaustive()
    }
}

impl Paths {
    pub(super) fn cut(&mut self, from: &NodeId, to: &NodeId) {
        self.cuts.insert((from.clone(), to.clone()));
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn set_delay(&mut self, delay: RangeInclusive<Duration>) {
        self.delay = delay;
    }

    pub(super) fn set_delay_from(
        &mut self,
        from: &NodeId,
        to: &NodeId,
        delay: RangeInclusive<Duration>,
    ) {
        self.delays.insert((from.clone(), to.clone()), delay);
    }

    fn delay(&self, path: &Path) -> &RangeInclusive<Duration> {
        self.delays.get(path).unwrap_or(&self.delay)
    }

    /// The delay of the next message on a path; `None` if it is cut.
    pub(super) fn draw(&mut self, path: &Path) -> Option<Duration> {
        if self.cuts.contains(path) {
            return None;
        }
        let delay = self.delay(path).clone();
        if delay.start() >= delay.end() {
            return Some(*delay.start());
        }
        // tokio's timers count in milliseconds.
        let millis = delay.start().as_millis() as u64..=delay.end().as_millis() as u64;
        Some(Duration::from_millis(self.rng.random_range(millis)))
    }

    /// The mean delay of a path; `None` if it is cut.
    pub(super) fn mean(&self, path: &Path) -> Option<Duration> {
        let delay = self.delay(path);
        (!self.cuts.contains(path)).then(|| (*delay.start() + *delay.end()) / 2)
    }
}

#[cfg(feature = "testkit")]
impl Paths {
    pub(super) fn heal_path(&mut self, from: &NodeId, to: &NodeId) {
        self.cuts.remove(&(from.clone(), to.clone()));
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.rng = SmallRng::seed_from_u64(seed);
    }

    /// A new certificate of a node, which is valid until then on the clocks of its peers. `wall`: its own one.
    pub(super) fn certify(&mut self, node: &NodeId, expires: SystemTime, wall: WallClock) {
        let serial = self.certificates.get(node).map_or(1, |before| before.serial + 1);
        self.certificates.insert(node.clone(), Certificate { serial, expires, wall });
    }
}

impl Paths {
    /// What a node shows in a handshake; `None` if it has no certificate.
    pub(super) fn shown(&self, node: &NodeId) -> Option<Shown> {
        let certificate = self.certificates.get(node)?;
        let fingerprint = format!("{node} {}", certificate.serial);
        Some(Shown { fingerprint, expires: Some(certificate.expires) })
    }

    /// When the certificate that `node` shows has expired, by the clock of `judge`.
    pub(super) fn expired(&self, node: &NodeId, judge: &NodeId) -> Option<SystemTime> {
        let end = self.certificates.get(node)?.expires;
        let judge = self.certificates.get(judge)?;
        ((judge.wall)() > end).then_some(end)
    }
}
