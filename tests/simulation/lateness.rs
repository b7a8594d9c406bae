//! Nodes that have more to do than they have time for.

use std::time::Duration;

use gossipmonger::{
    protocol::write::Write,
    sim::{cpu::Costs, network::Network, settings::Settings, world::World},
};

/// How long twenty nodes take to meet, and their work and lateness.
fn meeting(costs: Option<Costs>) -> (Duration, Duration, Duration) {
    let mut cluster = crate::world(1, 20, Settings::roomy(), Network::perfect());
    if let Some(costs) = costs {
        cluster.charge(costs);
    }
    (0..20).for_each(|slot| cluster.boot(slot));
    let met = cluster.run_while(Duration::from_millis(10), Duration::from_secs(120), |cluster| {
        cluster.holds_all().is_ok()
    });
    assert!(met, "they never meet");
    let took = cluster.now();
    cluster.run_until(Duration::from_secs(120), World::converged);
    cluster.write(3, vec![Write::set("key", "value")]);
    cluster.run_until(Duration::from_secs(60), World::converged);
    let (worked, latest) = cluster.work();
    (took, worked, latest)
}

#[test]
fn work_takes_time_and_a_node_without_time_is_late() {
    let (fast, none, never) = meeting(None);
    assert_eq!((none, never), (Duration::ZERO, Duration::ZERO));
    let (usual, worked, late) = meeting(Some(Costs::typical()));
    let (slow, more, later) = meeting(Some(Costs::typical().shared(30)));
    println!("{fast:?}; {usual:?} {worked:?} {late:?}; {slow:?} {more:?} {later:?}");
    assert!(worked > Duration::from_millis(20), "twenty nodes have shaken hands");
    assert!(more > worked * 10, "each piece of work takes thirty times as long");
    assert!(later > late && slow > fast, "so the nodes are late");
}

#[test]
fn a_run_with_processors_follows_from_its_seed() {
    let once = meeting(Some(Costs::typical().shared(10)));
    assert_eq!(once, meeting(Some(Costs::typical().shared(10))));
}
