//! Crashes, bad networks and slow processes: who is called dead, by whom, and who is not.

use std::{collections::BTreeSet, time::Duration};

use gossipmonger::protocol::{event::Event, id::NodeId, state::PeerState, write::Write};
use rand::{SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

fn seed() -> u64 {
    crate::number("SEED").unwrap_or(1)
}

/// All of them run and have agreed, and have for a while.
fn running(count: usize, settings: Settings, network: Network) -> World {
    let mut cluster = crate::world(seed(), count, settings, network);
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(120), World::converged);
    cluster.run_for(secs(10));
    cluster.said.told.clear();
    cluster.said.suspected.clear();
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

/// Who was called dead by whom.
fn deaths(cluster: &World) -> BTreeSet<(usize, NodeId)> {
    let dead = |(_, by, event): &(Duration, usize, Event)| match event {
        Event::PeerDead { peer, .. } => Some((*by, peer.clone())),
        _ => None,
    };
    cluster.said.told.iter().filter_map(dead).collect()
}

/// None but these were called dead, by anybody.
fn none_dead_but(cluster: &World, slots: &[usize]) {
    let all: BTreeSet<_> = slots.iter().map(|slot| name(*slot)).collect();
    if let Some((by, peer)) = deaths(cluster).iter().find(|(_, peer)| !all.contains(peer)) {
        cluster.fail(format!("n{by} has called {peer} dead"));
    }
}

/// All who run think these dead, as far as they have known them, and everybody else live.
fn all_think_dead(cluster: &World, dead: &[usize]) -> Result<(), String> {
    for reader in cluster.running() {
        for slot in 0..cluster.slots.len() {
            let right = match state(cluster, reader, slot) {
                None => slot == reader || dead.contains(&slot),
                Some(PeerState::Dead) => dead.contains(&slot),
                Some(state) => state.is_live() && !dead.contains(&slot),
            };
            if !right {
                return Err(format!("n{reader} thinks n{slot} {:?}", state(cluster, reader, slot)));
            }
        }
    }
    Ok(())
}

// C59
#[test]
fn any_part_that_crashes_is_found_by_all_who_stay_and_nobody_else_is() {
    for share in [1, 10, 8, 10, 13] {
        let mut cluster = running(40, Settings::roomy(), Network::perfect());
        let mut rng = SmallRng::seed_from_u64(seed() + share);
        let crashed = (0..40).sample(&mut rng, share as usize);
        crashed.iter().for_each(|slot| cluster.crash(*slot));
        cluster.run_until(secs(20), |cluster| all_think_dead(cluster, &crashed));
        none_dead_but(&cluster, &crashed);
        cluster.run_for(secs(60));
        assert_eq!(all_think_dead(&cluster, &crashed), Ok(()), "SEED={}", seed());
        none_dead_but(&cluster, &crashed);
    }
}

#[test]
fn a_crash_is_suspected_within_a_round_and_a_half_and_dead_two_rounds_later() {
    for loss in [0.0, 0.01] {
        let network = Network::lossy(loss);
        let mut cluster = running(30, Settings::roomy(), network);
        for victim in 1..6 {
            let begun = cluster.now();
            cluster.crash(victim);
            cluster.run_for(secs(10));
            let victim = name(victim);
            let suspected = cluster.said.suspected.iter().find(|(_, _, peer)| *peer == victim);
            let suspected = suspected.expect("nobody has noticed").0 - begun;
            assert!(suspected <= Duration::from_millis(1_500), "SEED={}: {suspected:?}", seed());
            let dead = |(_, _, event): &&(Duration, usize, Event)| matches!(event, Event::PeerDead { peer, .. } if *peer == victim);
            let dead = cluster.said.told.iter().filter(dead).map(|(at, ..)| *at).max();
            let dead = dead.expect("it was not found") - begun;
            assert!(dead <= Duration::from_millis(4_000), "SEED={}: {dead:?}", seed());
        }
        none_dead_but(&cluster, &[1, 2, 3, 4, 5]);
    }
}

// C60
#[test]
fn who_is_gone_before_it_was_ever_heard_is_found() {
    let mut cluster = running(5, Settings::roomy(), Network::perfect());
    // It has told one node of itself, and nobody ever gets its heartbeats.
    cluster.crash(4);
    cluster.wipe(4);
    cluster.boot(4);
    cluster.run_for(Duration::from_millis(30));
    cluster.crash(4);
    cluster.run_until(secs(60), |cluster| all_think_dead(cluster, &[4]));
    none_dead_but(&cluster, &[4]);
}

// C61
#[test]
fn who_joins_over_a_slow_network_is_called_dead_by_nobody() {
    let mut network = Network::lossy(0.05);
    (network.delay, network.jitter) = (200_000, 100_000);
    let mut cluster = crate::world(seed(), 20, Settings::roomy(), network);
    for slot in 0..20 {
        cluster.boot(slot);
        cluster.run_for(Duration::from_millis(500));
    }
    cluster.run_until(secs(60), World::converged);
    cluster.run_for(secs(60));
    none_dead_but(&cluster, &[]);
}

// C62
#[test]
fn who_is_dead_and_comes_back_is_live_for_all_again() {
    let mut cluster = running(6, Settings::roomy(), Network::perfect());
    for _ in 0..3 {
        cluster.crash(3);
        cluster.run_until(secs(20), |cluster| all_think_dead(cluster, &[3]));
        cluster.boot(3);
        cluster.run_until(secs(30), World::converged);
        assert_eq!(all_think_dead(&cluster, &[]), Ok(()));
    }
}

// C63
#[test]
fn half_of_all_packets_lost_for_half_a_minute_kills_nobody() {
    let mut cluster = running(12, Settings::roomy(), Network::perfect());
    cluster.network.loss = 0.5;
    cluster.run_for(secs(30));
    none_dead_but(&cluster, &[]);
    cluster.network.loss = 0.0;
    cluster.run_until(secs(30), World::converged);
    none_dead_but(&cluster, &[]);
}

#[test]
fn one_packet_in_twenty_lost_for_an_hour_kills_nobody() {
    let network = Network::lossy(0.05);
    let mut cluster = running(12, Settings::roomy(), network);
    cluster.run_for(secs(3_600));
    none_dead_but(&cluster, &[]);
    assert!(cluster.said.suspected.is_empty(), "SEED={}: {:?}", seed(), cluster.said.suspected[0]);
}

// C64
#[test]
fn a_node_that_loses_most_of_what_is_sent_to_it_takes_nobody_with_it() {
    let mut cluster = running(50, Settings::roomy(), Network::perfect());
    cluster.network.ingress.insert(7, 0.8);
    cluster.run_for(secs(120));
    none_dead_but(&cluster, &[7]);
    let others: Vec<_> =
        cluster.said.suspected.iter().filter(|(_, _, peer)| *peer != name(7)).collect();
    assert!(others.is_empty(), "SEED={}: {:?}", seed(), others[0]);
    cluster.network.ingress.clear();
    cluster.run_until(secs(60), World::converged);
}

// C65
#[test]
fn a_node_that_reaches_others_every_other_twenty_seconds_takes_nobody_with_it() {
    for towards in [false, true] {
        let mut cluster = running(20, Settings::roomy(), Network::perfect());
        for _ in 0..4 {
            for other in (0..20).filter(|other| *other != 7) {
                let (from, to) = if towards { (other, 7) } else { (7, other) };
                cluster.network.cut_one_way(from, to);
            }
            cluster.run_for(secs(20));
            cluster.network.heal();
            cluster.run_for(secs(20));
        }
        let wrong: Vec<_> = deaths(&cluster)
            .into_iter()
            .filter(|(by, peer)| *by != 7 && *peer != name(7))
            .collect();
        assert!(wrong.is_empty(), "SEED={}: {wrong:?}", seed());
        cluster.run_until(secs(60), World::converged);
    }
}

// C66
#[test]
fn a_slow_node_accuses_nobody() {
    let mut cluster = running(12, Settings::roomy(), Network::perfect());
    for n in 0..120 {
        cluster.freeze(4, Duration::from_millis(200 + n * 53 % 700));
        cluster.run_for(secs(1));
    }
    none_dead_but(&cluster, &[4]);
    let others: Vec<_> =
        cluster.said.suspected.iter().filter(|(_, _, peer)| *peer != name(4)).collect();
    assert!(others.is_empty(), "SEED={}: {:?}", seed(), others[0]);
    assert!(cluster.node(4).liveness.health() > 0, "it knows that it is slow");
    cluster.run_for(secs(30));
    assert_eq!(cluster.node(4).liveness.health(), 0);
    assert_eq!(all_think_dead(&cluster, &[]), Ok(()));
}

// C68
#[test]
fn a_suspect_that_lives_refutes_that_and_is_not_called_dead() {
    let mut cluster = running(12, Settings::roomy(), Network::perfect());
    for _ in 0..20 {
        // Long enough to be suspected, and not to be dead.
        cluster.freeze(4, Duration::from_millis(2_000));
        cluster.run_for(secs(15));
    }
    assert!(!cluster.said.suspected.is_empty());
    none_dead_but(&cluster, &[]);
    assert_eq!(all_think_dead(&cluster, &[]), Ok(()));
    let own = cluster.node(4).replica.own().record().unwrap();
    assert!(own.incarnation.0 > 0);
}

// C72
#[test]
fn who_was_stopped_and_goes_on_accuses_nobody() {
    for count in [2, 3, 12] {
        for span in [1, 3, 10, 30] {
            let mut cluster = running(count, Settings::roomy(), Network::perfect());
            cluster.freeze(1, secs(span));
            cluster.run_for(secs(span + 30));
            none_dead_but(&cluster, &[1]);
            let others: Vec<_> =
                cluster.said.suspected.iter().filter(|(_, _, peer)| *peer != name(1)).collect();
            assert!(others.is_empty(), "SEED={} {count} {span}: {:?}", seed(), others[0]);
            cluster.run_until(secs(60), World::converged);
        }
    }
}

// C76
#[test]
fn whoever_is_heard_by_somebody_is_live() {
    // Between two members only, in one direction or in both.
    for cuts in [&[(1, 2)][..], &[(1, 2), (2, 1)]] {
        let mut cluster = running(12, Settings::roomy(), Network::perfect());
        cuts.iter().for_each(|(from, to)| cluster.network.cut_one_way(*from, *to));
        cluster.run_for(secs(120));
        none_dead_but(&cluster, &[]);
        assert_eq!(all_think_dead(&cluster, &[]), Ok(()), "SEED={}", seed());
    }
    // Nothing reaches it, nothing comes from it, or both: it alone is gone.
    for (in_cut, out_cut) in [(true, false), (false, true), (true, true)] {
        let mut cluster = running(12, Settings::roomy(), Network::perfect());
        for other in (0..12).filter(|other| *other != 5) {
            if in_cut {
                cluster.network.cut_one_way(other, 5);
            }
            if out_cut {
                cluster.network.cut_one_way(5, other);
            }
        }
        cluster.run_for(secs(60));
        let wrong = deaths(&cluster).into_iter().find(|(by, peer)| *by != 5 && *peer != name(5));
        assert_eq!(wrong, None, "SEED={}", seed());
        assert!(deaths(&cluster).contains(&(0, name(5))));
        cluster.network.heal();
        cluster.run_until(secs(60), World::converged);
    }
}

// C78
#[test]
fn who_joins_a_part_is_known_to_all_once_it_heals() {
    let mut cluster = crate::world(seed(), 8, Settings::roomy(), Network::perfect());
    (0..6).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    cluster.network.cut(&[0, 1, 2, 6], &[3, 4, 5, 7]);
    // Both parts have a seed.
    cluster.names.insert("near:1".into(), 3);
    cluster.run_for(secs(20));
    cluster.boot(6);
    cluster.boot(7);
    cluster.write(6, vec![Write::set("joined", "here")]);
    cluster.write(7, vec![Write::set("joined", "there")]);
    cluster.run_for(secs(20));
    assert_eq!((state(&cluster, 0, 6), state(&cluster, 0, 7)), (Some(PeerState::Live), None));
    assert_eq!((state(&cluster, 3, 6), state(&cluster, 3, 7)), (None, Some(PeerState::Live)));
    cluster.network.heal();
    cluster.run_until(secs(60), World::converged);
}

// C82
#[test]
fn a_seed_is_found_where_its_name_leads_now() {
    let settings = Settings { seeds: Vec::new(), forget_after: secs(60), ..Settings::roomy() };
    let mut cluster = crate::world(seed(), 6, settings, Network::perfect());
    cluster.names.insert("seed:1".into(), 0);
    (0..4).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    // The machine of the seed is gone; another one has its name.
    cluster.crash(0);
    cluster.names.insert("seed:1".into(), 3);
    cluster.boot(4);
    cluster.run_until(secs(60), |cluster| {
        let live = state(cluster, 4, 3) == Some(PeerState::Live);
        if live { Ok(()) } else { Err("it has not joined".into()) }
    });
    // All move at once: each is at another address, and all have forgotten each other.
    cluster.run_for(secs(120));
    (1..5).for_each(|slot| cluster.stop(slot));
    for slot in 1..5 {
        cluster.wipe(slot);
        cluster.slots[slot].address = format!("moved-{slot}:1");
        cluster.boot(slot);
    }
    cluster.names.insert("seed:1".into(), 2);
    // Two of them have found one there while the name still led to it: they look again later.
    cluster.run_until(secs(600), World::converged);
}

// --- small clusters

#[test]
fn of_two_nodes_each_finds_the_other_dead_and_live_again() {
    let mut cluster = running(2, Settings::roomy(), Network::perfect());
    cluster.crash(1);
    cluster.run_until(secs(4), |cluster| all_think_dead(cluster, &[1]));
    cluster.boot(1);
    cluster.run_until(secs(30), World::converged);
    cluster.network.cut(&[0], &[1]);
    cluster.run_for(secs(20));
    assert_eq!(state(&cluster, 0, 1), Some(PeerState::Dead));
    assert_eq!(state(&cluster, 1, 0), Some(PeerState::Dead));
    cluster.network.heal();
    cluster.run_until(secs(30), World::converged);
}

#[test]
fn of_three_nodes_two_are_enough_and_one_is_as_well() {
    let mut cluster = running(3, Settings::roomy(), Network::perfect());
    cluster.crash(1);
    cluster.run_until(secs(6), |cluster| all_think_dead(cluster, &[1]));
    cluster.crash(0);
    cluster.run_until(secs(20), |cluster| all_think_dead(cluster, &[0, 1]));
    cluster.boot(1);
    // The only seed is gone: it knows whom to ask from its store, and is tried as one of the dead.
    cluster.run_until(secs(60), |cluster| all_think_dead(cluster, &[0]));
}

// C74
#[test]
fn the_halves_of_a_small_cluster_heal() {
    for count in [4, 5] {
        let mut cluster = running(count, Settings::roomy(), Network::perfect());
        let (one, other): (Vec<_>, Vec<_>) = (0..count).partition(|slot| slot % 2 == 0);
        cluster.network.cut(&one, &other);
        cluster.run_for(secs(40));
        assert_eq!(state(&cluster, 0, 1), Some(PeerState::Dead));
        cluster.network.heal();
        cluster.run_until(secs(60), World::converged);
    }
}

#[test]
fn a_cluster_goes_on_when_all_seeds_are_gone() {
    let mut cluster = running(5, Settings::roomy(), Network::perfect());
    cluster.crash(0);
    cluster.run_until(secs(20), |cluster| all_think_dead(cluster, &[0]));
    cluster.network.cut(&[1], &[2, 3, 4]);
    cluster.run_for(secs(40));
    cluster.network.heal();
    cluster.run_until(secs(60), |cluster| all_think_dead(cluster, &[0]));
    cluster.crash(2);
    cluster.run_for(secs(20));
    cluster.boot(2);
    cluster.run_until(secs(60), |cluster| all_think_dead(cluster, &[0]));
}

// C75
#[test]
fn those_who_have_forgotten_each_other_meet_again_although_all_seeds_are_gone() {
    for (count, lonely) in [(3, vec![1]), (4, vec![3]), (7, vec![4, 5, 6])] {
        let settings = Settings { forget_after: secs(60), ..Settings::roomy() };
        let mut cluster = running(count, settings, Network::perfect());
        cluster.crash(0);
        let rest: Vec<_> = (1..count).filter(|slot| !lonely.contains(slot)).collect();
        cluster.network.cut(&lonely, &rest);
        cluster.run_for(secs(120));
        for (one, other) in [(lonely[0], rest[0]), (rest[0], lonely[0])] {
            assert_eq!(state(&cluster, one, other), None, "it has forgotten all");
        }
        cluster.network.heal();
        cluster.run_until(secs(300), World::converged);
    }
}

// --- removal

// C51 C53
#[test]
fn who_is_removed_is_forgotten_by_all_and_by_those_who_were_away() {
    let mut cluster = running(8, Settings::roomy(), Network::perfect());
    cluster.write(7, vec![Write::set("old", "state")]);
    cluster.run_until(secs(20), World::converged);
    cluster.crash(7);
    cluster.run_until(secs(20), |cluster| all_think_dead(cluster, &[7]));
    cluster.network.cut(&[5, 6], &[0, 1, 2, 3, 4]);
    cluster.run_for(secs(20));
    cluster.remove(0, "n7");
    cluster.run_for(secs(2));
    for slot in 0..5 {
        assert!(cluster.node(slot).replica.copy(&name(7)).is_none(), "n{slot}");
    }
    cluster.run_for(secs(900));
    assert!(cluster.node(5).replica.copy(&name(7)).is_some(), "it was away");
    cluster.network.heal();
    let gone = |cluster: &World| {
        let knows = |slot: &usize| cluster.node(*slot).replica.copy(&name(7)).is_some();
        match cluster.running().into_iter().find(knows) {
            None => Ok(()),
            Some(slot) => Err(format!("n{slot} still knows it")),
        }
    };
    cluster.run_until(secs(60), gone);
    cluster.run_until(secs(60), World::converged);
    cluster.run_for(secs(600));
    assert_eq!(gone(&cluster), Ok(()), "SEED={}", seed());
    // A new life of it is welcome.
    cluster.boot(7);
    cluster.run_until(secs(60), World::converged);
}

// C51 C56
#[test]
fn who_is_removed_and_lives_is_back_at_once() {
    let mut cluster = running(8, Settings::roomy(), Network::perfect());
    cluster.network.cut(&[7], &[0, 1, 2, 3, 4, 5, 6]);
    cluster.run_until(secs(20), |cluster| {
        let dead = (0..7).all(|slot| state(cluster, slot, 7) == Some(PeerState::Dead));
        if dead { Ok(()) } else { Err("not dead yet".into()) }
    });
    cluster.remove(3, "n7");
    cluster.run_for(secs(60));
    assert!((0..7).all(|slot| state(&cluster, slot, 7).is_none()));
    cluster.network.heal();
    cluster.run_until(secs(60), World::converged);
}
