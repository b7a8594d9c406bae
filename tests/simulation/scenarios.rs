//! Named cases in virtual time.

use std::time::Duration;

use gossipmonger::protocol::{id::NodeId, state::PeerState, write::Write};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

fn running(count: usize, settings: Settings) -> World {
    let mut cluster = crate::world(1, count, settings, Network::perfect());
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    cluster
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn number(variable: &str) -> Option<usize> {
    crate::number(variable).and_then(|number| usize::try_from(number).ok())
}

fn state(cluster: &World, reader: usize, peer: &str) -> Option<PeerState> {
    let peer = NodeId::new(peer).unwrap();
    cluster.node(reader).liveness.life(&peer).map(|life| life.state)
}

// C56 C50
#[test]
fn of_two_processes_with_one_name_exactly_one_ends() {
    for seed in 0..20 {
        let settings = Settings { notary: crate::notary(), ..Settings::roomy() };
        let mut cluster = crate::world(seed, 4, settings, Network::perfect());
        cluster.twins = true;
        cluster.slots[3].name = cluster.slots[2].name.clone();
        (0..3).for_each(|slot| cluster.boot(slot));
        cluster.run_until(secs(60), World::converged);
        cluster.boot(3);
        cluster.write(2, vec![Write::set("from", "the first")]);
        cluster.write(3, vec![Write::set("from", "the second")]);
        cluster.run_until(secs(60), |cluster| match cluster.running().len() {
            3 => Ok(()),
            more => Err(format!("{more} run")),
        });
        let ended = [2, 3].map(|slot| cluster.slots[slot].displaced);
        assert!(ended[0] != ended[1], "SEED={seed}: {ended:?}");
        let stays = if ended[0] { 3 } else { 2 };
        assert!(cluster.node(stays).replica.renewed(), "SEED={seed}: it was not told");
        cluster.run_until(secs(60), World::converged);
        cluster.run_for(secs(30));
        assert_eq!(cluster.running().len(), 3, "SEED={seed}");
    }
}

// C46
#[test]
fn a_node_without_its_disk_and_its_clock_comes_back() {
    for signed in [false, true] {
        let mut cluster = running(
            5,
            Settings { notary: signed.then(crate::notary).flatten(), ..Settings::roomy() },
        );
        cluster.write(2, vec![Write::set("old", "1")]);
        cluster.run_until(secs(60), World::converged);
        cluster.crash(2);
        cluster.wipe_only(2);
        cluster.slots[2].skew = -10_000_000;
        cluster.boot(2);
        cluster.write(2, vec![Write::set("new", "1")]);
        cluster.run_until(secs(60), World::converged);
        assert!(cluster.node(2).replica.has_answered_for_its_name());
        assert_eq!(cluster.node(2).replica.renewed(), signed, "with a proof where there is one");
        let copy = cluster.node(0).replica.copy(&cluster.slots[2].name).unwrap();
        assert!(copy.entries().contains_key("new") && !copy.entries().contains_key("old"));
    }
}

// C74 C77
#[test]
fn two_halves_heal_into_one_twice() {
    let mut cluster = running(6, Settings::roomy());
    for round in 0..2 {
        cluster.network.cut(&[0, 1, 2], &[3, 4, 5]);
        cluster.run_for(secs(20));
        assert_eq!(state(&cluster, 0, "n3"), Some(PeerState::Dead));
        cluster.write(0, vec![Write::set("half", format!("left {round}"))]);
        cluster.write(5, vec![Write::set("half", format!("right {round}")), Write::delete("x")]);
        cluster.run_for(secs(20));
        cluster.network.heal();
        cluster.run_until(secs(60), World::converged);
    }
}

// C75
#[test]
fn one_cut_off_until_all_is_forgotten_comes_back_by_itself() {
    let settings = Settings { forget_after: secs(60), seeds: vec![0], ..Settings::roomy() };
    for lonely in [0, 3] {
        let mut cluster = running(4, settings.clone());
        let rest: Vec<_> = (0..4).filter(|n| *n != lonely).collect();
        cluster.network.cut(&[lonely], &rest);
        cluster.run_for(secs(90));
        assert_eq!(cluster.node(lonely).replica.peers().count(), 0, "it has forgotten all");
        assert_eq!(state(&cluster, rest[0], &format!("n{lonely}")), None, "all have forgotten it");
        cluster.network.heal();
        cluster.run_until(secs(120), World::converged);
    }
}

// C49
#[test]
fn the_dead_are_forgotten_also_while_others_join_all_the_time() {
    let settings = Settings { forget_after: secs(40), ..Settings::roomy() };
    let mut cluster = crate::world(1, 30, settings, Network::perfect());
    (0..3).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    for slot in 3..30 {
        cluster.boot(slot);
        cluster.write(slot, vec![Write::set("short", "life")]);
        cluster.run_for(secs(15));
        if slot > 4 {
            cluster.crash(slot - 2);
        }
    }
    // Of 25 who died, at 15 seconds' distance, only the last few are still known.
    for slot in cluster.running() {
        let known = cluster.node(slot).replica.peers().count();
        assert!(known <= 12, "n{slot} knows {known}: {:?}", state(&cluster, slot, "n4"));
    }
    cluster.run_for(secs(120));
    for slot in cluster.running() {
        assert_eq!(cluster.node(slot).replica.peers().count(), cluster.running().len() - 1);
    }
}

// C76
#[test]
fn one_way_cuts_heal() {
    for (from, to) in [(0, 2), (2, 0)] {
        let mut cluster = running(3, Settings::roomy());
        cluster.network.cut_one_way(from, to);
        cluster.write(2, vec![Write::set("key", "value")]);
        cluster.run_for(secs(40));
        let copy = cluster.node(0).replica.copy(&cluster.slots[2].name).unwrap();
        assert!(copy.entries().contains_key("key"), "it goes round by n1");
        cluster.network.heal();
        cluster.run_until(secs(60), World::converged);
    }
}

// C37
#[test]
fn twenty_start_at_once_on_one_seed() {
    let mut cluster = running(20, Settings::roomy());
    assert_eq!(cluster.node(7).replica.peers().count(), 19);
    cluster.run_for(secs(10));
    assert_eq!(cluster.converged(), Ok(()));
}

// C37
#[test]
fn a_crowd_that_starts_at_once_dials_its_neighbours_and_hardly_anybody_else() {
    let count = number("COUNT").unwrap_or(60);
    let mut cluster = crate::world(1, count, Settings::roomy(), Network::perfect());
    (0..count).for_each(|slot| cluster.boot(slot));
    let listed = |cluster: &World| {
        let all = |slot: &usize| cluster.node(*slot).replica.peers().count() == count - 1;
        match cluster.running().iter().filter(|slot| all(slot)).count() {
            listing if listing == count => Ok(()),
            listing => Err(format!("{listing} list all")),
        }
    };
    cluster.run_until(secs(3), listed);
    println!("{count} list all after {:?}", cluster.now());
    cluster.run_until(secs(10), World::converged);
    println!("{count} live after {:?}", cluster.now());
    cluster.run_for(secs(10));
    let links: Vec<_> =
        cluster.running().iter().map(|n| cluster.node(*n).scheduler.links().len()).collect();
    let most = *links.iter().max().unwrap();
    println!(
        "{} connections made, {} stay",
        cluster.counts.connected,
        links.iter().sum::<usize>() / 2
    );
    assert!(
        cluster.counts.connected <= 7 * count as u64,
        "{} connections",
        cluster.counts.connected
    );
    assert!(most <= 30, "a node keeps {most}");
    assert_eq!(cluster.converged(), Ok(()));
}

// C47
#[test]
fn a_name_may_move_to_another_address() {
    let mut cluster = running(3, Settings::roomy());
    cluster.crash(2);
    cluster.slots[2].address = "elsewhere:1".into();
    cluster.boot(2);
    cluster.run_until(secs(20), World::converged);
    let copy = cluster.node(0).replica.copy(&cluster.slots[2].name).unwrap();
    assert_eq!(copy.record().unwrap().addresses, ["elsewhere:1"]);
}
