//! A cluster whose work takes time, and its figures.

use std::time::Duration;

use super::{
    cpu::{Hog, LAG_SPAN, Processors, Worked},
    network::{Network, Sent},
    queue::micros,
    settings::{Settings, Switches},
    shake::Handshakes,
    warm,
    watched::Counts,
    world::World,
};

/// The nodes of a run with processors.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many datacenters they are spread over, in turn.
    pub datacenters: u16,
    /// Round trip between datacenters.
    pub wan_rtt: Duration,
    /// Part of the packets that is lost.
    pub loss: f64,
    /// The settings of all nodes.
    pub settings: Settings,
    /// Where their work is done.
    pub processors: Processors,
}

/// What a cluster did.
#[derive(Clone, Debug, Default)]
pub struct Efforts {
    /// The work of all nodes.
    pub worked: Worked,
    /// What became of handshakes.
    pub handshakes: Handshakes,
    /// Dials begun.
    pub dials: u64,
    /// How often a node has taken other neighbours.
    pub settlements: u64,
    /// Exchanges begun.
    pub exchanges: u64,
    /// News of an owner that came in a frame of gossip, also what was known.
    pub received: u64,
    /// The traffic.
    pub sent: Sent,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub at: Duration,
    /// The longest that a piece of work waited which had its turn in the span of time before.
    pub lag: Duration,
    /// The part of the nodes that is where it is to be.
    pub ready: f64,
}

impl Cluster {
    /// Nodes of one datacenter that share processors.
    #[must_use]
    pub fn sharing(seed: u64, nodes: usize, cores: f64) -> Self {
        let settings = Settings { disk: 0, seeds: vec![0, 1, 2], ..Settings::roomy() };
        Self {
            seed,
            nodes,
            datacenters: 1,
            wan_rtt: Duration::ZERO,
            loss: 0.0,
            settings,
            processors: Processors::shared(cores),
        }
    }

    /// The same cluster with processors that are never busy: what it does then is what there is to do.
    #[must_use]
    pub fn without_limits(&self) -> Self {
        let mut same = self.clone();
        (same.processors.cores, same.processors.hog) = (f64::INFINITY, None);
        same.processors.apart.clear();
        same
    }

    /// The same with somebody else on its processors.
    #[must_use]
    pub fn with_hog(mut self, hog: Hog) -> Self {
        self.processors.hog = Some(hog);
        self
    }

    /// The datacenter of a node.
    #[must_use]
    pub const fn site(&self, node: usize) -> u16 {
        (node % self.datacenters as usize) as u16
    }

    /// Machines of which none runs. Its heartbeats are packets, since they are work.
    pub(super) fn cold(&self) -> World {
        let sites = (0..self.nodes).map(|node| self.site(node)).collect();
        let network = Network::new(self.seed, micros(self.wan_rtt), self.loss, sites);
        let mut world = World::large(self.seed, self.nodes, self.settings.clone(), network);
        *world.switches() = Switches { packets: true, elide: false, ..Switches::large() };
        world
    }

    /// All nodes have met long ago.
    pub(super) fn warm(&self) -> World {
        let mut world = self.cold();
        warm::start(&mut world, self.nodes);
        world.charge(self.later(&world));
        world.run_for(SETTLE);
        world
    }

    /// The processors of a run that begins now: the hog comes so much later.
    pub(super) fn later(&self, world: &World) -> Processors {
        let mut processors = self.processors.clone();
        let by = world.now() + SETTLE;
        processors.hog =
            processors.hog.map(|hog| Hog { from: hog.from + by, until: hog.until + by, ..hog });
        processors
    }
}

impl Efforts {
    /// All so far.
    pub(super) fn of(world: &World) -> Self {
        let Counts { handshakes, dials, settlements, exchanges, received, .. } = world.counts;
        let (worked, sent) = (world.worked(), world.network.sent);
        Self { worked, handshakes, dials, settlements, exchanges, received, sent }
    }

    /// Since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            worked: self.worked.since(&earlier.worked),
            handshakes: self.handshakes.since(&earlier.handshakes),
            dials: self.dials - earlier.dials,
            settlements: self.settlements - earlier.settlements,
            exchanges: self.exchanges - earlier.exchanges,
            received: self.received - earlier.received,
            sent: self.sent.since(earlier.sent),
        }
    }
}

/// The moments of a run since it began at `start`, with this part of the nodes ready at each.
pub(super) fn moments(world: &World, start: Duration, ready: &[f64]) -> Vec<Moment> {
    let lags = world.lags();
    let first = (micros(start) / LAG_SPAN) as usize;
    let lag = |span: usize| lags.get(first + span).copied().unwrap_or_default();
    let at = |span: usize| Duration::from_micros((span as u64 + 1) * LAG_SPAN);
    let moment =
        |(span, ready): (usize, &f64)| Moment { at: at(span), lag: lag(span), ready: *ready };
    ready.iter().enumerate().map(moment).collect()
}

/// Time to come to rest before anything happens to a warm cluster.
const SETTLE: Duration = Duration::from_secs(4);
