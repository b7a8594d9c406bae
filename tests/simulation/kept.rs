//! What random lives have found, as lists of events: each kept here when it was mended.

use std::time::Duration;

use gossipmonger::protocol::{
    id::{Datacenter, NodeId},
    state::PeerState,
};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

/// So many machines, all running and agreed: `places` says in which datacenter each is.
fn booted(places: &[usize], settings: Settings) -> World {
    let mut cluster = crate::world(1, places.len(), settings, Network::perfect());
    for (slot, place) in places.iter().enumerate() {
        cluster.slots[slot].datacenter = Datacenter::new(&format!("dc{place}")).unwrap();
        cluster.boot(slot);
    }
    cluster.run_until(secs(60), World::converged);
    cluster.run_for(secs(10));
    cluster
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(slot: usize) -> NodeId {
    NodeId::new(&format!("n{slot}")).unwrap()
}

fn state(cluster: &World, reader: usize, peer: usize) -> Option<PeerState> {
    cluster.node(reader).liveness.life(&name(peer)).map(|life| life.state)
}

/// Whether the detector of one has heard another in a life that its storage does not know.
fn is_ahead(cluster: &World, reader: usize, peer: usize) -> bool {
    let reader = cluster.node(reader);
    let heard = reader.liveness.life(&name(peer)).map(|life| life.generation);
    heard > reader.replica.copy(&name(peer)).map(|copy| copy.generation())
}

/// The machine starts again after all have called its node dead, and the process ends as soon as each of
/// `heard` has its Hello and no news of it. Nobody else hears of that life.
fn start_and_end(cluster: &mut World, young: usize, heard: &[usize]) {
    let all = 0..cluster.slots.len();
    let others: Vec<_> = all.filter(|slot| *slot != young && !heard.contains(slot)).collect();
    cluster.network.cut(&[young], &others);
    cluster.boot(young);
    // Of the second one the first is not to hear more than the Hello either.
    for (index, reader) in heard.iter().enumerate() {
        cluster.run_to("its Hello is there", |cluster| is_ahead(cluster, *reader, young));
        cluster.network.cut(&[young], &heard[..=index]);
    }
    cluster.crash(young);
    cluster.network.heal();
    for reader in heard {
        assert_eq!(state(cluster, *reader, young), Some(PeerState::Live), "there was a sign of it");
    }
}

/// It ends without notice, and all find that out.
fn found_dead(cluster: &mut World, slot: usize) {
    cluster.crash(slot);
    cluster.run_until(secs(60), |cluster| {
        let thinks = |reader: &usize| state(cluster, *reader, slot) != Some(PeerState::Dead);
        match cluster.running().into_iter().find(thinks) {
            Some(reader) => Err(format!("n{reader} does not think so")),
            None => Ok(()),
        }
    });
}

fn seeded(seeds: &[usize]) -> Settings {
    // They were found when news went over all links at once: so each has the Hello for a moment, and no news.
    let mut settings = Settings { seeds: seeds.to_vec(), ..Settings::roomy() };
    settings.rules.tree_first = false;
    settings
}

#[test]
fn who_ends_between_its_hello_and_its_news_is_dead_at_the_end_of_a_bridge() {
    for heard in [0, 1] {
        let mut cluster = booted(&[0, 0, 1, 1, 1], seeded(&[heard]));
        found_dead(&mut cluster, 4);
        start_and_end(&mut cluster, 4, &[heard]);
        cluster.run_until(secs(40), World::converged);
        assert_eq!(state(&cluster, heard, 4), Some(PeerState::Dead));
    }
}

#[test]
fn who_ends_between_its_hello_and_its_news_is_dead_at_the_ends_of_two_bridges() {
    let mut cluster = booted(&[0, 0, 1, 1, 1], seeded(&[0, 1]));
    found_dead(&mut cluster, 4);
    start_and_end(&mut cluster, 4, &[0, 1]);
    cluster.run_until(secs(40), World::converged);
    assert_eq!([0, 1].map(|reader| state(&cluster, reader, 4)), [Some(PeerState::Dead); 2]);
}

#[test]
fn who_ends_between_its_hello_and_its_news_is_dead_in_its_own_datacenter() {
    let mut cluster = booted(&[0, 0, 0, 1], seeded(&[0]));
    found_dead(&mut cluster, 2);
    start_and_end(&mut cluster, 2, &[0]);
    cluster.run_until(secs(60), World::converged);
    assert_eq!(state(&cluster, 0, 2), Some(PeerState::Dead));
}

#[test]
fn who_ends_between_its_hello_and_its_news_and_is_removed_elsewhere_can_be_removed() {
    let mut cluster = booted(&[0, 0, 1, 1, 1], seeded(&[0]));
    found_dead(&mut cluster, 4);
    start_and_end(&mut cluster, 4, &[0]);
    [1, 2, 3].iter().for_each(|slot| cluster.remove(*slot, "n4"));
    cluster.run_until(secs(40), World::converged);
    assert_eq!(state(&cluster, 0, 4), Some(PeerState::Dead), "it did not hear that");
    cluster.remove(1, "n4");
    cluster.remove(0, "n4");
    assert_eq!(state(&cluster, 0, 4), None);
}

/// The only node outside of a datacenter suspects the last node there, alone. Before the time is over the
/// others of that datacenter are back, so that it has no voice any more, and those know nothing of it.
#[test]
fn a_suspicion_ends_though_the_accuser_has_lost_its_voice() {
    let mut cluster = booted(&[0, 0, 0, 1], seeded(&[0, 3]));
    found_dead(&mut cluster, 1);
    found_dead(&mut cluster, 0);
    cluster.crash(2);
    let suspects = |cluster: &World| state(cluster, 3, 2) == Some(PeerState::Suspect);
    cluster.run_to("n3 suspects n2", suspects);
    cluster.boot(0);
    cluster.boot(1);
    let back =
        |cluster: &World| [0, 1].map(|peer| state(cluster, 3, peer)) == [Some(PeerState::Live); 2];
    cluster.run_to("n3 hears n0 and n1", back);
    for slot in [0, 1] {
        let told = |cluster: &World| cluster.node(slot).replica.copy(&name(2)).is_some();
        cluster.run_to("it is told of n2", told);
        cluster.remove(slot, "n2");
    }
    assert!(suspects(&cluster), "not yet convicted");
    cluster.run_until(secs(30), World::converged);
    // Once it is dead for n3, n3 may hear that it was removed, and forget it.
    let over = state(&cluster, 3, 2);
    assert!(matches!(over, None | Some(PeerState::Dead)), "{over:?}");
}
