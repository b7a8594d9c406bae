//! Our rule: the shipped state machines, on a simulated network that leaves nothing out.

use std::time::Duration;

use gossipmonger::sim::{
    settings::{Settings, Switches},
    warm,
    watched::{Seen, Sighting},
    world::World,
};
use rand::RngExt;

use super::{
    super::super::bench::machine::cpu_seconds,
    Experiment, micros,
    outcome::{Figures, Tally, Views, mark},
};

/// Figures that only our rule has.
#[derive(Debug)]
pub(super) struct Ours {
    /// For each victim, the time until the first verdict: in milliseconds, sorted.
    pub(super) quorum_ms: Vec<f64>,
    /// In these [`Figures`] a suspicion counts as `dead`.
    pub(super) suspicions: Figures,
    pub(super) bytes_per_node_s: f64,
    pub(super) realtime: f64,
}

/// Runs the experiment with this `dead_peer_phi`; also returns when the observation of views began.
pub(super) fn run(experiment: &Experiment, threshold: f64) -> (Figures, Views, u64, Ours) {
    let mut world = world(experiment, threshold);
    let nodes = experiment.plan.nodes;
    let start = world.micros();
    let faults = experiment.faults.later(start);
    world.network.afflict(faults.clone());
    world.watch_verdicts();
    world.settle_accounts();
    let (sent, begun) = (world.network.sent, cpu_seconds());
    if experiment.is_cold() {
        start_all(&mut world, experiment);
    }
    let end = start + experiment.length;
    for (at, victim) in faults.crashes() {
        world.run_by(at.min(end));
        world.crash(victim);
    }
    world.run_by(end);
    let took = cpu_seconds() - begun;
    world.settle_accounts();
    let sent = world.network.sent.since(sent);

    let mut dead = Tally::new(&faults, nodes, start);
    let mut suspect = Tally::new(&faults, nodes, start);
    let well = (0..nodes).map(|node| !faults.is_faulty(node as usize)).collect();
    let mut views = Looks::new(well, start, experiment.is_cold());
    let mut first = vec![None; nodes as usize];
    for Sighting { at, observer, subject, seen } in world.sightings() {
        let (observer, subject) = (*observer as u32, *subject as u32);
        let is_due = faults.is_faulty(subject as usize)
            && faults.crash_of(subject as usize).is_none_or(|c| c <= *at);
        if *seen != Seen::Live && is_due {
            first[subject as usize].get_or_insert(*at);
        }
        let before = views.happen(*at, observer, subject, *seen);
        match seen {
            Seen::Live => {
                dead.live(observer, subject);
                suspect.live(observer, subject);
            }
            Seen::Suspect => suspect.dead(*at, observer, subject),
            Seen::Dead => dead.dead(*at, observer, subject),
        }
        // A node that is called dead at once counts as suspected too.
        if (*seen, before) == (Seen::Dead, Some(Seen::Live)) {
            suspect.dead(*at, observer, subject);
        }
    }
    let since = |node: usize| faults.crash_of(node).unwrap_or(start);
    let found =
        first.iter().enumerate().filter_map(|(node, at)| Some(((*at)? - since(node)) as f64));
    let mut quorum_ms: Vec<_> = found.map(|micros| micros / 1e3).collect();
    quorum_ms.sort_by(f64::total_cmp);
    let seconds = experiment.length as f64 / 1e6;
    let ours = Ours {
        quorum_ms,
        suspicions: suspect.figures(),
        bytes_per_node_s: sent.bytes as f64 / f64::from(nodes) / seconds,
        realtime: seconds / took.max(1e-9),
    };
    (dead.figures(), views.close(end), start, ours)
}

/// The cluster at the beginning of the faults.
fn world(experiment: &Experiment, threshold: f64) -> World {
    let plan = &experiment.plan;
    let network = experiment.network();
    let settings = Settings { dead_peer_phi: threshold, ..plan.settings(plan.nodes) };
    let mut world = World::large(plan.seed, plan.nodes as usize, settings, network);
    *world.switches() = Switches { packets: true, elide: false, ..Switches::large() };
    // Time passes before the start: clocks began at different times.
    world.run_for(plan.interval);
    if !experiment.is_cold() {
        warm::start(&mut world, plan.nodes as usize);
        world.run_for(WARM);
    }
    plan.charge(&mut world);
    world
}

/// Starts all nodes within one round.
fn start_all(world: &mut World, experiment: &Experiment) {
    let interval = micros(experiment.plan.interval);
    let mut starts: Vec<_> = (0..experiment.plan.nodes)
        .map(|node| (world.micros() + world.rng.random_range(0..interval), node))
        .collect();
    starts.sort_unstable();
    for (at, node) in starts {
        world.run_by(at);
        world.boot(node as usize);
    }
}

/// The views of the healthy nodes, observed once a second.
#[derive(Debug)]
struct Looks {
    views: Views,
    start: u64,
    well: Vec<bool>,
    nodes: Vec<Look>,
    /// The state of each node in each view, if it is known there.
    states: Vec<Option<Seen>>,
}

#[derive(Clone, Debug)]
struct Look {
    set: u64,
    size: u32,
    /// The last second that was observed.
    second: u64,
}

impl Looks {
    fn new(well: Vec<bool>, start: u64, cold: bool) -> Self {
        let nodes = well.len() as u32;
        let all = (0..nodes).fold(0, |set, node| set ^ mark(node));
        let look = |node| match cold {
            true => Look { set: mark(node), size: 1, second: 0 },
            false => Look { set: all, size: nodes, second: 0 },
        };
        let views = Views::new(nodes);
        let states = vec![if cold { None } else { Some(Seen::Live) }; well.len() * well.len()];
        Self { views, start, nodes: (0..nodes).map(look).collect(), states, well }
    }

    /// Records a state in a view; returns the state until now.
    fn happen(&mut self, at: u64, observer: u32, subject: u32, seen: Seen) -> Option<Seen> {
        let state = &mut self.states[observer as usize * self.well.len() + subject as usize];
        let before = state.replace(seen);
        let counts = |state| matches!(state, Some(Seen::Live | Seen::Suspect));
        let is = counts(Some(seen));
        if counts(before) != is && self.well[observer as usize] {
            self.look(at, observer);
            let look = &mut self.nodes[observer as usize];
            look.set ^= mark(subject);
            look.size = if is { look.size + 1 } else { look.size - 1 };
        }
        before
    }

    /// Records the view at the full seconds since the last observation.
    fn look(&mut self, now: u64, observer: u32) {
        let second = (now - self.start) / SECOND;
        let look = &mut self.nodes[observer as usize];
        if second > look.second {
            let at = self.start + (look.second + 1) * SECOND;
            look.second = second;
            let (set, size) = (look.set, look.size);
            self.views.look(at, observer, set, size);
        }
    }

    fn close(mut self, end: u64) -> Views {
        let well = self.well.clone();
        let well = well.iter().zip(0..).filter(|(well, _)| **well);
        well.for_each(|(_, node)| self.look(end, node));
        self.views
    }
}

/// The time to learn what is usual on each path.
const WARM: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000;
