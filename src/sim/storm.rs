//! Storms: what makes all nodes of a cluster busy at once, on processors that may have no time for it.
//!
//! The question is not how long it takes but whether it ends, and how much more is done than there is to do: a cluster
//! that is late must do less, and not more, than one that is on time.

use std::time::Duration;

use super::{
    busy::{Cluster, Efforts, Moment, moments},
    cpu::{LAG_SPAN, Worked},
    world::World,
};

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// All nodes start at once.
    Join,
    /// One half was cut off from the other for so long, and the network is whole again.
    Rejoin(Duration),
    /// A datacenter was cut off from the others for so long, and comes back.
    Datacenter(Duration),
    /// Nothing; only the processors may be taken from it.
    Nothing,
}

/// A storm.
#[derive(Clone, Debug)]
pub struct Storm {
    /// The nodes.
    pub cluster: Cluster,
    /// What happens to them.
    pub trigger: Trigger,
    /// When it is given up.
    pub limit: Duration,
    /// How long it is looked at once it is over.
    pub after: Duration,
}

/// What came of a storm.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When all nodes listed all.
    pub listed: Option<Duration>,
    /// When all nodes held all others to live, and were connected with all their neighbours.
    pub calm: Option<Duration>,
    /// How long it was looked at until then, or until it was given up.
    pub span: Duration,
    /// What was done in that time.
    pub efforts: Efforts,
    /// Cores that were busy in the last half of the time after it.
    pub rest: f64,
    /// Pairs of neighbours, and a connection for each node to a seed.
    pub edges: u64,
    /// The run, in spans of [`LAG_SPAN`].
    pub moments: Vec<Moment>,
    /// The longest that a piece of work waited after it was over.
    pub lag_after: Duration,
}

impl Storm {
    /// All nodes of a cluster start at once.
    #[must_use]
    pub const fn joins(cluster: Cluster) -> Self {
        let (limit, after) = (Duration::from_secs(60), Duration::ZERO);
        Self { cluster, trigger: Trigger::Join, limit, after }
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut world = self.begin();
        let (start, before) = (world.now(), Efforts::of(&world));
        self.set_off(&mut world);
        let (mut listed, mut calm, mut ready) = (None, None, Vec::new());
        while calm.is_none() && world.now() - start < self.limit {
            world.run_for(Duration::from_micros(LAG_SPAN));
            let at = world.now() - start;
            let list = lists(&world);
            listed = listed.or_else(|| (list == self.cluster.nodes).then_some(at));
            let calms = if list == self.cluster.nodes { rests(&world) } else { 0 };
            calm = (calms == self.cluster.nodes).then_some(at);
            ready.push(list.min(list / 2 + calms.div_ceil(2)) as f64 / self.cluster.nodes as f64);
        }
        let span = world.now() - start;
        let efforts = Efforts::of(&world).since(&before);
        let half = self.after / 2;
        world.run_for(half);
        let settled = (world.worked().sum(), world.lags().len());
        world.run_for(half);
        let rest = (world.worked().sum() - settled.0) as f64 / half.as_micros().max(1) as f64;
        let lag_after = world.lags()[settled.1.saturating_sub(1)..].iter().max().copied();
        Outcome {
            listed,
            calm,
            span,
            efforts,
            rest,
            edges: edges(&world),
            moments: moments(&world, start, &ready),
            lag_after: lag_after.unwrap_or_default(),
        }
    }

    /// What there is to do in such a span: the work of the same nodes on processors that are never busy.
    #[must_use]
    pub fn useful(&self, span: Duration) -> Worked {
        let storm = Self { cluster: self.cluster.without_limits(), ..self.clone() };
        let mut world = storm.begin();
        let before = world.worked();
        storm.set_off(&mut world);
        world.run_for(span);
        world.worked().since(&before)
    }

    /// The cluster before anything happens to it.
    fn begin(&self) -> World {
        if self.trigger == Trigger::Join {
            let mut world = self.cluster.cold();
            world.charge(self.cluster.processors.clone());
            return world;
        }
        let mut world = self.cluster.warm();
        match self.trigger {
            Trigger::Rejoin(cut) => {
                world.cut(|node| node < self.cluster.nodes / 2);
                world.run_for(cut);
            }
            Trigger::Datacenter(cut) => {
                world.cut(|node| self.cluster.site(node) == 0);
                world.run_for(cut);
            }
            Trigger::Join | Trigger::Nothing => {}
        }
        world
    }

    fn set_off(&self, world: &mut World) {
        match self.trigger {
            Trigger::Join => (0..self.cluster.nodes).for_each(|node| world.boot(node)),
            Trigger::Rejoin(cut) | Trigger::Datacenter(cut) => world.heal(cut),
            Trigger::Nothing => {}
        }
    }
}

impl Outcome {
    /// The largest lag of the run.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.moments.iter().map(|moment| moment.lag).max().unwrap_or_default()
    }

    /// Handshakes begun for each edge.
    #[must_use]
    pub fn handshakes_per_edge(&self) -> f64 {
        self.efforts.handshakes.begun as f64 / self.edges.max(1) as f64
    }
}

/// How many nodes list all others.
fn lists(world: &World) -> usize {
    let all = world.running().len() - 1;
    world.running().iter().filter(|node| world.node(**node).replica.peer_count() >= all).count()
}

/// How many nodes hold all others to live, and are connected with all neighbours.
fn rests(world: &World) -> usize {
    let all = world.running().len() - 1;
    let rests = |node: &&usize| {
        let node = world.node(**node);
        let links = node.scheduler.links();
        node.scheduler.has_settled()
            && node.scheduler.neighbours().iter().all(|peer| links.has(peer))
            && node.liveness.lives().filter(|(_, life)| life.state.is_live()).count() == all
            && node.scheduler.unreachable().is_empty()
    };
    world.running().iter().filter(rests).count()
}

/// Pairs of neighbours, and one connection for each node to a seed.
fn edges(world: &World) -> u64 {
    let running = world.running();
    let wanted: usize = running.iter().map(|n| world.node(*n).scheduler.neighbours().len()).sum();
    (wanted / 2 + running.len()) as u64
}
