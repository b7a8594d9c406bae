//! Clusters that have more to do than they have time for: whether it ends, and how much more is done than there is to
//! do.
//!
//! `COUNT=200 CORES=0.5` makes other clusters than usual, `SEEDS=100` more of them. `SEED=1 cargo test --test simulation
//! storm::shows -- --ignored --nocapture` prints the figures of one.

use std::time::Duration;

use gossipmonger::{
    protocol::rules::Rules,
    sim::{
        busy::Cluster,
        cpu::Work,
        load::Load,
        storm::{Outcome, Storm},
    },
};

/// Nodes of a cluster, and the cores that they share: from enough to so few that a cluster which does more when it is
/// late never comes to rest.
const CLUSTERS: [(usize, f64); 3] = [(COUNT, 2.0), (COUNT, 0.2), (COUNT, FEW)];
const COUNT: usize = 40;
const FEW: f64 = 0.05;

fn clusters() -> Vec<(usize, f64)> {
    let count = crate::number("COUNT").map(|count| count as usize);
    let cores: Option<f64> = std::env::var("CORES").ok().and_then(|cores| cores.parse().ok());
    match (count, cores) {
        (None, None) => CLUSTERS.to_vec(),
        (count, Some(cores)) => vec![(count.unwrap_or(COUNT), cores)],
        (Some(count), None) => [2.0, 1.0, 0.5, 0.2].map(|cores| (count, cores)).to_vec(),
    }
}

/// One of them takes as long as twenty random lives of a small cluster.
fn seeds() -> std::ops::RangeInclusive<u64> {
    if let Some(seed) = crate::number("SEED") {
        return seed..=seed;
    }
    1..=(crate::number("SEEDS").unwrap_or(1) / 20).max(1)
}

fn sharing(seed: u64, (nodes, cores): (usize, f64), rules: Rules) -> Cluster {
    let mut cluster = Cluster::sharing(seed, nodes, cores);
    cluster.settings.rules = rules;
    cluster
}

/// All rules but some.
fn without(some: impl FnOnce(&mut Rules)) -> Rules {
    let mut rules = Rules::default();
    some(&mut rules);
    rules
}

fn show(storm: &Storm, outcome: &Outcome) -> String {
    let Outcome { listed, calm, efforts, edges, .. } = outcome;
    let useful = storm.useful(outcome.span);
    let seconds = |micros: u64| micros as f64 / 1e6;
    let mut text = format!(
        "SEED={} COUNT={} CORES={}: all listed {listed:?}, calm {calm:?}, lag {:?}, {:.2} s of work ({:.2} useful), \
         {} dials, {} settlements, {} exchanges, {edges} edges, {:?}",
        storm.cluster.seed,
        storm.cluster.nodes,
        storm.cluster.processors.cores,
        outcome.lag(),
        seconds(efforts.worked.sum()),
        seconds(useful.sum()),
        efforts.dials,
        efforts.settlements,
        efforts.exchanges,
        efforts.handshakes,
    );
    for kind in Work::ALL {
        let [all, useful] = [efforts.worked, useful].map(|work| seconds(work.of(kind)));
        text += &format!("\n  {:10} {all:6.2} s, {useful:6.2} s useful", kind.as_str());
    }
    text
}

#[test]
fn without_its_rules_a_cluster_that_is_late_does_more_and_never_comes_to_rest() {
    let rules = without(|rules| {
        (rules.gate, rules.three_edges, rules.one_seed) = (false, false, false);
    });
    let mut storm = Storm::joins(sharing(1, (COUNT, FEW), rules));
    storm.limit = Duration::from_secs(30);
    let outcome = storm.run();
    let seen = show(&storm, &outcome);
    println!("{seen}");
    assert_eq!(outcome.calm, None, "{seen}");
    let shakes = outcome.efforts.handshakes;
    assert!(shakes.timeouts() > shakes.finished, "most are given up: {seen}");
    assert!(outcome.handshakes_per_edge() > 2.0, "and begun again: {seen}");
    // The same nodes with enough time do not need a second.
    storm.cluster.processors.cores = 2.0;
    let outcome = storm.run();
    assert!(outcome.calm < Some(Duration::from_secs(2)), "{}", show(&storm, &outcome));
    assert_eq!(outcome.efforts.handshakes.timeouts(), 0, "{}", show(&storm, &outcome));
}

#[test]
fn a_run_on_processors_that_are_never_busy_is_on_time() {
    let storm = Storm::joins(Cluster::sharing(1, 20, 1.0).without_limits());
    let outcome = storm.run();
    assert!(outcome.calm.is_some() && outcome.lag().is_zero(), "{}", show(&storm, &outcome));
    assert_eq!(storm.useful(outcome.span), outcome.efforts.worked, "it is its own measure");
}

#[test]
fn a_storm_follows_from_its_seed() {
    let run = |seed| {
        let outcome = Storm::joins(Cluster::sharing(seed, 20, 0.1)).run();
        format!("{outcome:?}")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn writes_on_processors_with_time_are_everywhere_at_once() {
    let load = Load {
        cluster: Cluster::sharing(1, 12, 2.0),
        rate: 50.0,
        bursts: false,
        time: Duration::from_secs(2),
        limit: Duration::from_secs(5),
        value_bytes: 100,
    };
    let spread = load.run();
    assert_eq!((spread.writes, spread.missing), (100, 0));
    assert_eq!(spread.everywhere.len(), 100);
    assert!(spread.everywhere.last() < Some(&50_000), "{:?}", spread.everywhere);
    // At one moment they wait for each other.
    let burst = Load { bursts: true, ..load }.run();
    let median = |of: &[u64]| of[of.len() / 2];
    assert!(median(&burst.everywhere) > median(&spread.everywhere), "{:?}", burst.everywhere);
}

#[test]
#[ignore = "prints the figures of one cluster"]
fn shows() {
    for cluster in clusters() {
        let storm = Storm::joins(sharing(*seeds().start(), cluster, Rules::default()));
        println!("{}", show(&storm, &storm.run()));
    }
}
