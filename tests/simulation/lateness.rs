//! Nodes that have more to do than they have time for.

use std::time::Duration;

use gossipmonger::{
    protocol::write::Write,
    sim::{cpu::Processors, network::Network, settings::Settings, world::World},
};

/// How long twenty nodes take to meet, and their work and lateness.
fn meeting(processors: Option<Processors>) -> (Duration, Duration, Duration) {
    let mut cluster = crate::world(1, 20, Settings::roomy(), Network::perfect());
    if let Some(processors) = processors {
        cluster.charge(processors);
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
    (took, Duration::from_micros(cluster.worked().sum()), cluster.latest())
}

#[test]
fn work_takes_time_and_a_node_without_time_is_late() {
    let (fast, none, never) = meeting(None);
    assert_eq!((none, never), (Duration::ZERO, Duration::ZERO));
    let (usual, worked, late) = meeting(Some(Processors::each(1.0)));
    let (slow, more, later) = meeting(Some(Processors::each(1.0 / 30.0)));
    println!("{fast:?}; {usual:?} {worked:?} {late:?}; {slow:?} {more:?} {later:?}");
    assert!(worked > Duration::from_millis(20), "twenty nodes have shaken hands");
    assert!(more < worked * 5, "they do not do much more: each piece takes longer");
    assert!(later > late && slow > fast, "so the nodes are late");
}

#[test]
fn a_run_with_processors_follows_from_its_seed() {
    let once = meeting(Some(Processors::each(0.1)));
    assert_eq!(once, meeting(Some(Processors::each(0.1))));
}
