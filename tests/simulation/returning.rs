//! Nodes that come back after everybody else has forgotten somebody.

use std::time::Duration;

use gossipmonger::protocol::{event::Event, id::NodeId, state::PeerState, write::Write};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(slot: usize) -> NodeId {
    NodeId::new(&format!("n{slot}")).unwrap()
}

fn state(cluster: &World, reader: usize, peer: usize) -> Option<PeerState> {
    cluster.node(reader).liveness.life(&name(peer)).map(|life| life.state)
}

/// So many nodes that run and have agreed; the last one has written a key.
fn running(count: usize) -> World {
    let seed = crate::number("SEED").unwrap_or(1);
    let settings = Settings { forget_after: secs(60), ..Settings::roomy() };
    let mut cluster = crate::world(seed, count, settings, Network::perfect());
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.write(count - 1, vec![Write::set("old", "state")]);
    cluster.run_until(secs(120), World::converged);
    cluster.run_for(secs(10));
    cluster
}

/// Nobody but the sleeper knows the dead node, or is told of it, for a while after this.
fn stays_forgotten(cluster: &mut World, sleeper: usize, dead: usize) {
    cluster.said.told.clear();
    for _ in 0..300 {
        cluster.run_for(Duration::from_millis(100));
        for reader in cluster.running().into_iter().filter(|reader| *reader != sleeper) {
            if cluster.node(reader).replica.copy(&name(dead)).is_some() {
                cluster.fail(format!("n{reader} knows n{dead} again"));
            }
            if let Some(state) = state(cluster, reader, dead) {
                cluster.fail(format!("n{reader} calls n{dead} {state:?}"));
            }
        }
    }
    let told = cluster.said.told.iter().find(|(_, by, event)| {
        *by != sleeper && matches!(event, Event::NewPeer { peer } if *peer == name(dead))
    });
    assert!(told.is_none(), "{told:?}");
    // The sleeper learns that the node is gone, and forgets it as well.
    cluster.run_until(secs(60), |cluster| match state(cluster, sleeper, dead) {
        None => Ok(()),
        Some(state) => Err(format!("the sleeper still calls n{dead} {state:?}")),
    });
    cluster.run_until(secs(60), World::converged);
}

#[test]
fn one_that_slept_while_all_forgot_a_dead_node_does_not_bring_it_back() {
    for count in [4, 12] {
        let mut cluster = running(count);
        let (sleeper, dead) = (1, count - 1);
        cluster.freeze(sleeper, secs(900));
        cluster.crash(dead);
        cluster.run_for(secs(120));
        for reader in cluster.running().into_iter().filter(|reader| *reader != sleeper) {
            assert_eq!(state(&cluster, reader, dead), None, "n{reader} has not forgotten it");
        }
        cluster.run_for(secs(780));
        stays_forgotten(&mut cluster, sleeper, dead);
    }
}

#[test]
fn one_that_slept_while_a_dead_node_was_removed_does_not_bring_it_back() {
    let mut cluster = running(8);
    cluster.freeze(1, secs(900));
    cluster.crash(7);
    cluster.run_until(secs(20), |cluster| match state(cluster, 0, 7) {
        Some(PeerState::Dead) => Ok(()),
        state => Err(format!("{state:?}")),
    });
    cluster.remove(0, "n7");
    cluster.run_for(secs(890));
    stays_forgotten(&mut cluster, 1, 7);
}

/// The sleeper's clock does not show that it has slept: it goes on as if no time had passed.
#[test]
fn one_that_was_cut_off_while_all_forgot_a_dead_node_does_not_bring_it_back() {
    let mut cluster = running(8);
    // Two of them, so that they still hear each other and keep each other's news.
    cluster.network.cut(&[1, 2], &[0, 3, 4, 5, 6, 7]);
    cluster.crash(7);
    cluster.run_for(secs(900));
    cluster.network.heal();
    stays_forgotten(&mut cluster, 1, 7);
}
