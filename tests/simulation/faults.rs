//! Random lives: who writes what when, and what goes wrong meanwhile, all out of one seed.

use std::time::Duration;

use gossipmonger::protocol::{id::Datacenter, map::MapLimits, write::Write};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

/// One random life of a small cluster; returns it as it is in the end.
///
/// For a while everything may happen. Then the network heals, crashed nodes return or do not, nobody
/// writes any more, and the nodes have to agree.
pub(crate) fn random_life(seed: u64) -> World {
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rng.random_range(2..=5);
    let settings = Settings {
        notary: (seed % 2 == 1).then(crate::notary).flatten(),
        ..random_settings(&mut rng)
    };
    let network = Network::random(&mut rng);
    // Drawn apart, as the places are below.
    let mut paths = SmallRng::seed_from_u64(seed ^ u64::from(u32::MAX));
    let settings = tight_budgets(&mut paths, settings);
    let mut cluster = crate::world(seed, count, settings, network);
    slow_paths(&mut cluster, &mut paths);
    cluster.note(format!("{:?} {:?}", cluster.settings, cluster.network));
    // Drawn apart: where the nodes are does not change what happens to them.
    let mut map = SmallRng::seed_from_u64(!seed);
    let places = map.random_range(1..=3);
    for slot in 0..count {
        cluster.slots[slot].datacenter = datacenter(map.random_range(0..places));
        cluster.boot(slot);
    }
    let steps = rng.random_range(20..120);
    for _ in 0..steps {
        random_step(&mut cluster, &mut rng);
        cluster.run_for(Duration::from_millis(random_pause(&mut rng)));
    }
    settle(&mut cluster, &mut rng);
    cluster
}

fn datacenter(number: u32) -> Datacenter {
    Datacenter::new(&format!("dc{number}")).expect("a label")
}

fn random_settings(rng: &mut SmallRng) -> Settings {
    let tight = rng.random_bool(0.5);
    Settings {
        delta_bytes: if tight { rng.random_range(50..1_000) } else { 64 << 10 },
        delta_entries: if rng.random_bool(0.2) { rng.random_range(1..5) } else { 1_000 },
        tombstone_grace: Duration::from_millis(rng.random_range(100..10_000)),
        forget_after: Duration::from_secs(if rng.random_bool(0.3) { 20 } else { 3_600 }),
        fanout: rng.random_range(1..=3),
        disk: if rng.random_bool(0.5) { 30_000 } else { 5_000_000 },
        limits: MapLimits { keys: 100, bytes: 64 << 10, key_bytes: 64, value_bytes: 16 << 10 },
        seeds: vec![0, 1],
        ..Settings::roomy()
    }
}

/// In some lives queues wait for their budget.
fn tight_budgets(rng: &mut SmallRng, settings: Settings) -> Settings {
    if rng.random_bool(0.7) {
        return settings;
    }
    let (push_bytes, wan_bytes) =
        (rng.random_range(2_000..40_000), rng.random_range(20_000..90_000));
    Settings { push_bytes, wan_bytes, ..settings }
}

/// In some lives some paths carry little.
fn slow_paths(cluster: &mut World, rng: &mut SmallRng) {
    let count = cluster.slots.len();
    if rng.random_bool(0.3) {
        for _ in 0..rng.random_range(1..=count) {
            let path = (rng.random_range(0..count), rng.random_range(0..count));
            cluster.network.rates.insert(path, rng.random_range(2_000..100_000));
        }
    }
}

fn random_pause(rng: &mut SmallRng) -> u64 {
    if rng.random_bool(0.1) { rng.random_range(1_000..10_000) } else { rng.random_range(0..400) }
}

fn random_step(cluster: &mut World, rng: &mut SmallRng) {
    let slot = rng.random_range(0..cluster.slots.len());
    if cluster.slots[slot].node.is_none() {
        if rng.random_bool(0.3) {
            restart(cluster, rng, slot);
        }
        return;
    }
    match rng.random_range(0..106) {
        0..55 => write(cluster, rng, slot),
        55..60 => cluster.tag(slot, "role", &rng.random_range(0..3).to_string()),
        60..70 => partition(cluster, rng),
        70..73 => {
            let other = rng.random_range(0..cluster.slots.len());
            cluster.note(format_args!("cut {slot} -> {other}"));
            cluster.network.cut_one_way(slot, other);
        }
        73..83 => {
            cluster.note("heal");
            cluster.network.heal();
        }
        83..92 => cluster.crash(slot),
        92..93 => cluster.stop(slot),
        93..94 => cluster.restart_storage(slot),
        94..95 => cluster.remove_one_of_the_dead(slot),
        95..97 => {
            cluster.leave(slot);
            cluster.run_for(Duration::from_secs(20));
            if cluster.slots[slot].node.is_some() {
                cluster.fail("it never got away");
            }
        }
        97..100 => cluster.run_for(Duration::from_secs(rng.random_range(1..30))),
        _ => disturb_connections(cluster, rng, slot),
    }
}

fn disturb_connections(cluster: &mut World, rng: &mut SmallRng, slot: usize) {
    let other = rng.random_range(0..cluster.slots.len());
    if other == slot || cluster.slots[other].node.is_none() {
        return;
    }
    match rng.random_range(0..10) {
        0..3 => cluster.break_connection(slot, other),
        3..5 => cluster.renew_certificate(slot),
        5..9 => {
            cluster.note(format_args!("{slot} and {other} dial each other"));
            cluster.dial_again(slot, other);
            cluster.dial_again(other, slot);
        }
        _ => cluster.flood(slot, other, 5_000),
    }
}

fn write(cluster: &mut World, rng: &mut SmallRng, slot: usize) {
    let keys = if rng.random_bool(0.3) { rng.random_range(2..6) } else { 1 };
    let batch = (0..keys).map(|_| random_write(rng)).collect();
    cluster.write(slot, batch);
}

fn random_write(rng: &mut SmallRng) -> Write {
    let key = format!("k{}", rng.random_range(0..8));
    let value = |rng: &mut SmallRng| {
        let len = if rng.random_bool(0.1) { rng.random_range(0..3_000) } else { 4 };
        let mut value = rng.random::<u32>().to_le_bytes().to_vec();
        value.resize(len, 7);
        value
    };
    match rng.random_range(0..10) {
        0..3 => Write::delete(key),
        3..5 => {
            let ttl = Duration::from_millis(rng.random_range(1..8_000));
            Write::set(key, value(rng)).with_ttl(ttl)
        }
        _ => Write::set(key, value(rng)),
    }
}

fn partition(cluster: &mut World, rng: &mut SmallRng) {
    let all = 0..cluster.slots.len();
    let one: Vec<_> = all.clone().filter(|_| rng.random_bool(0.5)).collect();
    let other: Vec<_> = all.filter(|n| !one.contains(n)).collect();
    cluster.note(format_args!("cut {one:?} from {other:?}"));
    cluster.network.cut(&one, &other);
}

fn restart(cluster: &mut World, rng: &mut SmallRng, slot: usize) {
    match rng.random_range(0..10) {
        0..2 => {
            cluster.note(format_args!("wipe {slot}"));
            cluster.wipe(slot);
        }
        2..4 => cluster.slots[slot].skew -= rng.random_range(0..10_000_000),
        // The seeds stay where they are.
        4..6 if slot > 1 => {
            cluster.slots[slot].address = format!("moved-{slot}-{}:1", rng.random::<u16>());
        }
        _ => {}
    }
    cluster.boot(slot);
}

fn settle(cluster: &mut World, rng: &mut SmallRng) {
    cluster.note("all heals");
    cluster.network.heal();
    cluster.network.breakage = cluster.network.breakage.min(0.01);
    cluster.network.loss = cluster.network.loss.min(0.02);
    // A frame has to move at a least rate.
    cluster.network.rates.values_mut().for_each(|rate| *rate = (*rate).max(50_000));
    let off = (0..cluster.slots.len()).filter(|&n| cluster.slots[n].node.is_none());
    let off: Vec<_> = off.collect();
    let gone = off.iter().copied().filter(|slot| *slot > 1).choose(rng);
    for slot in off {
        if gone != Some(slot) || rng.random_bool(0.5) {
            restart(cluster, rng, slot);
        }
    }
    cluster.run_until(Duration::from_secs(300), World::converged);
    // What was agreed stays agreed.
    cluster.run_for(Duration::from_secs(3));
    cluster.run_until(Duration::from_secs(60), World::converged);
}
