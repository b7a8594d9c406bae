//! Datacenters that are cut off, and what is thought of those who are in them.

use std::{collections::BTreeSet, time::Duration};

use gossipmonger::protocol::{
    event::Event,
    id::{Datacenter, NodeId},
    state::PeerState,
    write::Write,
};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

use crate::number;

/// One datacenter after the other: `dc0` with so many nodes, `dc1` with so many, and so on.
fn booted(sizes: &[usize]) -> World {
    booted_but(sizes, &[], Network::perfect())
}

/// The same, on such a network, with some machines switched off.
fn booted_but(sizes: &[usize], off: &[usize], network: Network) -> World {
    let seed = number("SEED").unwrap_or(1);
    let count = sizes.iter().sum();
    let firsts = sizes.iter().scan(0, |sum, size| Some(std::mem::replace(sum, *sum + size)));
    let settings = Settings { seeds: firsts.collect(), ..Settings::roomy() };
    let mut cluster = crate::world(seed, count, settings, network);
    let places = sizes.iter().enumerate().flat_map(|(n, size)| std::iter::repeat_n(n, *size));
    for (slot, place) in places.enumerate() {
        cluster.slots[slot].datacenter = name(place);
    }
    (0..count).filter(|slot| !off.contains(slot)).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    cluster.run_for(secs(10));
    cluster.said.told.clear();
    cluster
}

fn name(place: usize) -> Datacenter {
    Datacenter::new(&format!("dc{place}")).unwrap()
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn state(cluster: &World, reader: usize, peer: usize) -> Option<PeerState> {
    let peer = &cluster.slots[peer].name;
    cluster.node(reader).liveness.life(peer).map(|life| life.state)
}

fn inside(cluster: &World, place: usize) -> Vec<usize> {
    let all = 0..cluster.slots.len();
    all.filter(|slot| cluster.slots[*slot].datacenter == name(place)).collect()
}

fn outside(cluster: &World, place: usize) -> Vec<usize> {
    let all = 0..cluster.slots.len();
    all.filter(|slot| cluster.slots[*slot].datacenter != name(place)).collect()
}

fn cut_off(cluster: &mut World, place: usize) {
    let (inside, outside) = (inside(cluster, place), outside(cluster, place));
    cluster.network.cut(&inside, &outside);
}

fn unreachable(cluster: &World, reader: usize) -> BTreeSet<Datacenter> {
    (**cluster.node(reader).scheduler.unreachable()).clone()
}

/// Every process cannot reach what it should not reach, and nothing else.
fn all_see_unreachable(
    cluster: &World,
    lost: impl Fn(&Datacenter) -> BTreeSet<Datacenter>,
) -> Result<(), String> {
    for slot in cluster.running() {
        let (sees, right) = (unreachable(cluster, slot), lost(&cluster.slots[slot].datacenter));
        if sees != right {
            return Err(format!("n{slot} cannot reach {sees:?}, should not {right:?}"));
        }
    }
    Ok(())
}

/// What nobody reaches while one datacenter of so many is cut off.
fn lost(cut: usize, places: usize) -> impl Fn(&Datacenter) -> BTreeSet<Datacenter> {
    move |here| {
        let others = (0..places).filter(move |other| *other != cut);
        if *here == name(cut) { others.map(name).collect() } else { [name(cut)].into() }
    }
}

fn deaths(cluster: &World) -> Vec<(usize, NodeId)> {
    let dead = cluster.said.told.iter().filter_map(|(_, observer, event)| match event {
        Event::PeerDead { peer, .. } => Some((*observer, peer.clone())),
        _ => None,
    });
    dead.collect()
}

/// How often each process was told that a datacenter is lost and that it is back.
fn changes(cluster: &World, slot: usize) -> (usize, usize) {
    let of = cluster.said.told.iter().filter(|(_, observer, _)| *observer == slot);
    of.fold((0, 0), |(lost, found), (.., event)| match event {
        Event::DatacenterUnreachable { .. } => (lost + 1, found),
        Event::DatacenterReachable { .. } => (lost, found + 1),
        _ => (lost, found),
    })
}

/// The connections between nodes of different datacenters.
fn bridges(cluster: &World) -> BTreeSet<BTreeSet<NodeId>> {
    let mut bridges = BTreeSet::new();
    for slot in cluster.running() {
        let here = &cluster.slots[slot];
        let place = |peer: &NodeId| {
            cluster.slots.iter().find(|other| other.name == *peer).map(|other| &other.datacenter)
        };
        let links = cluster.node(slot).scheduler.links().peers();
        let abroad = links.filter(|peer| place(peer) != Some(&here.datacenter));
        bridges.extend(abroad.map(|peer| [peer.clone(), here.name.clone()].into()));
    }
    bridges
}

fn whole(cluster: &World) -> Result<(), String> {
    all_see_unreachable(cluster, |_| BTreeSet::new())?;
    cluster.converged()
}

#[test]
fn a_datacenter_that_is_cut_off_is_unreachable_and_nobody_there_is_dead() {
    for sizes in [&[5, 5, 5][..], &[3, 3], &[4, 7, 20], &[2, 2], &[2, 3, 2]] {
        let mut cluster = booted(sizes);
        let cut = 0;
        cut_off(&mut cluster, cut);
        let begun = cluster.now();
        let lost = lost(cut, sizes.len());
        cluster.run_until(secs(10), |cluster| all_see_unreachable(cluster, &lost));
        println!("{sizes:?}: unreachable after {:?}", cluster.now() - begun);
        for slot in [0, sizes[0]] {
            cluster.write(slot, vec![Write::set("written", "apart")]);
        }
        for _ in 0..60 {
            cluster.run_for(secs(1));
            cluster.promise(all_see_unreachable(&cluster, &lost));
        }
        cluster.network.heal();
        let healed = cluster.now();
        cluster.run_until(secs(20), whole);
        println!("{sizes:?}: one view {:?} after the heal", cluster.now() - healed);
        cluster.run_for(secs(30));
        cluster.promise(whole(&cluster));
        assert_eq!(deaths(&cluster), [], "{sizes:?}");
        for slot in cluster.running() {
            let times = if slot < sizes[0] { sizes.len() - 1 } else { 1 };
            assert_eq!(changes(&cluster, slot), (times, times), "{sizes:?}: n{slot}");
        }
    }
}

#[test]
fn who_dies_in_a_datacenter_that_is_cut_off_is_found_there_and_known_after_the_heal() {
    let mut cluster = booted(&[5, 5, 5]);
    cut_off(&mut cluster, 0);
    cluster.run_until(secs(10), |cluster| all_see_unreachable(cluster, lost(0, 3)));
    cluster.crash(1);
    cluster.run_for(secs(30));
    for slot in cluster.running() {
        let dead = state(&cluster, slot, 1) == Some(PeerState::Dead);
        assert_eq!(dead, slot < 5, "n{slot} thinks {:?}", state(&cluster, slot, 1));
    }
    cluster.network.heal();
    cluster.run_until(secs(20), whole);
    for slot in cluster.running() {
        assert_eq!(state(&cluster, slot, 1), Some(PeerState::Dead), "n{slot}");
    }
    let victim = &cluster.slots[1].name;
    assert!(deaths(&cluster).iter().all(|(_, dead)| dead == victim));
}

#[test]
fn the_ends_of_all_bridges_may_die_at_once_and_their_datacenter_is_still_reached() {
    let mut cluster = booted(&[8, 8]);
    let bridged = |cluster: &World, slot: usize| {
        let abroad = outside(cluster, 0).into_iter().map(|other| &cluster.slots[other].name);
        let neighbours = cluster.node(slot).scheduler.neighbours();
        abroad.filter(|name| neighbours.contains(name)).cloned().collect::<Vec<_>>()
    };
    let ends: BTreeSet<_> =
        inside(&cluster, 0).into_iter().flat_map(|slot| bridged(&cluster, slot)).collect();
    assert_eq!(ends.len(), 2, "two bridges");
    for slot in outside(&cluster, 0) {
        if ends.contains(&cluster.slots[slot].name) {
            cluster.crash(slot);
        }
    }
    cluster.run_until(secs(40), whole);
    assert!(cluster.running().iter().all(|slot| changes(&cluster, *slot) == (0, 0)));
    assert!(deaths(&cluster).iter().all(|(_, dead)| ends.contains(dead)));
    assert_eq!(deaths(&cluster).len(), 2 * 14, "all have heard it");
}

#[test]
fn a_datacenter_of_one_node_is_judged_by_the_others() {
    let mut cluster = booted(&[3, 1]);
    cluster.crash(3);
    let dead = |cluster: &World| match cluster
        .running()
        .iter()
        .all(|n| state(cluster, *n, 3) == Some(PeerState::Dead))
    {
        true => Ok(()),
        false => Err("not dead everywhere".to_owned()),
    };
    cluster.run_until(secs(20), dead);
    assert!(cluster.running().iter().all(|slot| changes(&cluster, *slot) == (0, 0)));
    cluster.boot(3);
    cluster.run_until(secs(20), whole);
    // And a cut cannot be told from its death; it refutes it.
    cut_off(&mut cluster, 1);
    cluster.run_until(secs(20), dead_but_one);
    cluster.network.heal();
    cluster.run_until(secs(30), whole);

    fn dead_but_one(cluster: &World) -> Result<(), String> {
        let dead = (0..3).all(|n| state(cluster, n, 3) == Some(PeerState::Dead));
        if dead { Ok(()) } else { Err("not dead everywhere".to_owned()) }
    }
}

#[test]
fn of_two_nodes_of_a_datacenter_the_one_that_dies_is_found() {
    for sizes in [&[3, 2][..], &[12, 2], &[2, 2]] {
        let mut cluster = booted(sizes);
        let victim = sizes[0];
        cluster.crash(victim);
        cluster.run_until(secs(30), |cluster| {
            let all = cluster.running();
            let missing = all.iter().find(|n| state(cluster, **n, victim) != Some(PeerState::Dead));
            missing.map_or(Ok(()), |n| Err(format!("n{n} does not know")))
        });
        cluster.run_for(secs(20));
        cluster.promise(whole(&cluster));
        assert!(cluster.running().iter().all(|slot| changes(&cluster, *slot) == (0, 0)));
    }
}

#[test]
fn of_many_datacenters_one_without_bridges_to_ours_is_missed_as_well() {
    let sizes = [3; 14];
    let mut cluster = booted(&sizes);
    cut_off(&mut cluster, 5);
    cluster.run_until(secs(12), |cluster| all_see_unreachable(cluster, lost(5, 14)));
    cluster.network.heal();
    cluster.run_until(secs(30), whole);
    assert_eq!(deaths(&cluster), []);
}

#[test]
fn a_cut_behind_a_lossy_wide_area_network_kills_nobody_either() {
    let mut network = Network::perfect();
    (network.loss, network.delay, network.jitter) = (0.03, 40_000, 5_000);
    let mut cluster = booted_but(&[5, 5, 5], &[], network);
    cluster.run_for(secs(120));
    for slot in cluster.running() {
        assert_eq!(changes(&cluster, slot), (0, 0), "n{slot}: loss is no cut");
    }
    for cut in 0..3 {
        cut_off(&mut cluster, cut);
        cluster.run_until(secs(15), |cluster| all_see_unreachable(cluster, lost(cut, 3)));
        cluster.run_for(secs(20));
        cluster.network.heal();
        cluster.run_until(secs(30), whole);
    }
    assert_eq!(deaths(&cluster), []);
}

/// Two datacenters that do not hear each other, and a third that hears both.
#[test]
fn what_two_datacenters_do_not_hear_of_each_other_a_third_tells_them() {
    let mut cluster = booted(&[4, 4, 4]);
    let (one, other) = (inside(&cluster, 0), inside(&cluster, 1));
    cluster.network.cut(&one, &other);
    cluster.run_until(secs(12), |cluster| {
        all_see_unreachable(cluster, |here| match here.as_str() {
            "dc0" => [name(1)].into(),
            "dc1" => [name(0)].into(),
            _ => BTreeSet::new(),
        })
    });
    assert_eq!(deaths(&cluster), []);
    cluster.crash(1);
    cluster.write(2, vec![Write::set("heard", "by way of dc2")]);
    cluster.run_for(secs(10));
    for slot in cluster.running() {
        assert_eq!(state(&cluster, slot, 1), Some(PeerState::Dead), "n{slot}");
    }
    let copy = cluster.node(4).replica.copy(&cluster.slots[2].name).unwrap();
    assert!(copy.entries().contains_key("heard"));
    cluster.network.heal();
    cluster.run_until(secs(20), whole);
    let victim = &cluster.slots[1].name;
    assert!(deaths(&cluster).iter().all(|(_, dead)| dead == victim));
}

// C78
#[test]
fn who_joins_while_datacenters_are_cut_off_is_known_everywhere_after_the_heal() {
    let mut cluster = booted_but(&[5, 5], &[4, 9], Network::perfect());
    cut_off(&mut cluster, 0);
    cluster.run_until(secs(12), |cluster| all_see_unreachable(cluster, lost(0, 2)));
    for joiner in [4, 9] {
        cluster.boot(joiner);
        cluster.write(joiner, vec![Write::set("joined", "apart")]);
    }
    cluster.run_for(secs(20));
    for (joiner, near, far) in [(4, 0..4, 5..9), (9, 5..9, 0..4)] {
        assert!(near.clone().all(|n| state(&cluster, n, joiner) == Some(PeerState::Live)));
        assert!(far.clone().all(|n| state(&cluster, n, joiner).is_none()));
    }
    cluster.network.heal();
    cluster.run_until(secs(20), whole);
    assert_eq!(deaths(&cluster), []);
}

// C80
#[test]
fn few_connections_cross_between_datacenters_and_others_take_over() {
    let mut cluster = booted(&[15, 15, 15]);
    let settled = |cluster: &World| match bridges(cluster).len() {
        6 => Ok(()),
        other => Err(format!("{other} connections cross, two for each pair should")),
    };
    cluster.run_until(secs(30), settled);
    for round in 0..4 {
        let before = bridges(&cluster);
        let holder = before.iter().flatten().next().unwrap().clone();
        let slot = (0..45).find(|slot| cluster.slots[*slot].name == holder).unwrap();
        if round % 2 == 0 {
            cluster.leave(slot);
        } else {
            cluster.crash(slot);
        }
        cluster.run_until(secs(30), |cluster| {
            let now = bridges(cluster);
            let taken_over = !now.iter().flatten().any(|end| *end == holder);
            if taken_over { settled(cluster) } else { Err(format!("{holder} holds on")) }
        });
        let kept = bridges(&cluster).intersection(&before).count();
        assert!(kept >= 3, "only {kept} of six stayed where they were");
        let writer = cluster.running()[0];
        cluster.write(writer, vec![Write::set("round", round.to_string())]);
        cluster.run_for(secs(1));
        let name = &cluster.slots[writer].name;
        let version = cluster.node(writer).replica.own().max_version();
        for reader in cluster.running().into_iter().filter(|reader| *reader != writer) {
            let copy = cluster.node(reader).replica.copy(name).unwrap();
            assert_eq!(copy.max_version(), version, "n{reader}");
        }
    }
    assert!(cluster.running().iter().all(|slot| changes(&cluster, *slot) == (0, 0)));
}
