//! Load: many nodes of a settled cluster write all the time, on processors that may have no time for it.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    busy::{Cluster, Efforts, Moment, moments},
    cpu::{LAG_SPAN, Worked},
    queue::micros,
    world::World,
};
use crate::protocol::write::Write;

/// Writes of all nodes.
#[derive(Clone, Debug)]
pub struct Load {
    /// The nodes.
    pub cluster: Cluster,
    /// Writes of all of them in a second.
    pub rate: f64,
    /// All nodes write at the same moment, each once. Otherwise the writes are spread evenly, by nodes in turn.
    pub bursts: bool,
    /// How long they write.
    pub time: Duration,
    /// How long the last write is waited for.
    pub limit: Duration,
    /// Bytes of each value.
    pub value_bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Writes that were made.
    pub writes: u64,
    /// Those that some node did not have in the end.
    pub missing: usize,
    /// After how long each of the others was at the last node, in microseconds, in order.
    pub everywhere: Vec<u64>,
    /// What was done until then.
    pub efforts: Efforts,
    /// How long that took.
    pub span: Duration,
    /// The run, in spans of [`LAG_SPAN`]; where it is to be is a node whose writes are everywhere.
    pub moments: Vec<Moment>,
}

impl Load {
    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut world = self.cluster.warm();
        let (start, before) = (world.now(), Efforts::of(&world));
        let (mut writes, mut ready) = (0, Vec::new());
        let all = self.cluster.nodes as f64;
        let mut look = |world: &World| ready.push(1.0 - (world.missing() as f64 / all).min(1.0));
        let (end, mut looks) = (start + self.time, start);
        for (at, node) in self.plan() {
            while looks + SPAN <= start + at {
                looks += SPAN;
                world.run_by(micros(looks));
                look(&world);
            }
            world.run_by(micros(start + at));
            writes += 1;
            world.order(node, vec![Write::set("key", self.value(writes))]);
        }
        while looks < end || (world.missing() > 0 && looks < end + self.limit) {
            looks += SPAN;
            world.run_by(micros(looks));
            look(&world);
        }
        let mut everywhere = world.everywhere().to_vec();
        everywhere.sort_unstable();
        Outcome {
            writes,
            missing: world.missing(),
            everywhere,
            efforts: Efforts::of(&world).since(&before),
            span: looks - start,
            moments: moments(&world, start, &ready),
        }
    }

    /// The work of the same nodes with the same writes in such a span, on processors that are never busy.
    #[must_use]
    pub fn useful(&self, span: Duration) -> Worked {
        let load = Self { cluster: self.cluster.without_limits(), ..self.clone() };
        let mut world = load.cluster.warm();
        let (start, before) = (world.now(), world.worked());
        for (nth, (at, node)) in load.plan().into_iter().enumerate() {
            world.run_by(micros(start + at));
            world.order(node, vec![Write::set("key", load.value(nth as u64 + 1))]);
        }
        world.run_by(micros(start + span));
        world.worked().since(&before)
    }

    /// When which node writes. Writes that are spread evenly are shifted a little at random, so that they keep step with
    /// no timer.
    fn plan(&self) -> Vec<(Duration, usize)> {
        let nodes = self.cluster.nodes;
        let mut rng = SmallRng::seed_from_u64(self.cluster.seed ^ DRAW);
        let count = (self.rate * self.time.as_secs_f64()) as usize;
        let at = |nth: usize| Duration::from_secs_f64(nth as f64 / self.rate);
        if self.bursts {
            return (0..count).map(|nth| (at(nth / nodes * nodes), nth % nodes)).collect();
        }
        let step = at(1);
        let mut plan: Vec<_> = (0..count)
            .map(|nth| (at(nth) + step.mul_f64(rng.random_range(0.0..1.0)), nth % nodes))
            .collect();
        plan.sort_unstable();
        plan
    }

    /// No two values are the same: a write of what is there already would be none.
    fn value(&self, nth: u64) -> Vec<u8> {
        let mut value = nth.to_string().into_bytes();
        value.resize(self.value_bytes.max(value.len()), b'.');
        value
    }
}

const SPAN: Duration = Duration::from_micros(LAG_SPAN);
/// Sets the draws of a plan apart from those of the run.
const DRAW: u64 = 0x6c6f_6164;
