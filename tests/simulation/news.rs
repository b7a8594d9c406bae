//! How the news of many writers spreads: every node has it soon, and it takes about one copy a node.

use std::time::Duration;

use gossipmonger::{
    protocol::{rules::Rules, write::Write},
    sim::{network::Network, settings::Settings, world::World},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Updates of a cluster in a second.
const RATE: u64 = 100;
/// Within this time every live node has to have every update.
const SOON: Duration = Duration::from_millis(500);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cluster of nodes that know each other.
fn met(seed: u64, count: usize, settings: Settings, network: Network) -> World {
    let mut cluster = World::new(seed, count, settings, network);
    // Whatever is drawn for the exchanges, they repair nothing that has not been missed for long.
    cluster.switches().checks = false;
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(120), World::converged);
    cluster.run_for(secs(5));
    cluster
}

fn rules(change: impl FnOnce(&mut Rules)) -> Settings {
    let mut settings = Settings::roomy();
    change(&mut settings.rules);
    settings
}

/// The writers of a load, one after the other, and their updates.
struct Load {
    rng: SmallRng,
    written: u64,
}

impl Load {
    fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), written: 0 }
    }

    /// Some running node writes a value that it has not written before.
    fn write(&mut self, cluster: &mut World) {
        let running = cluster.running();
        let writer = running[self.rng.random_range(0..running.len())];
        self.written += 1;
        cluster.watch(writer);
        cluster.write(writer, vec![Write::set("load", format!("{:0100}", self.written))]);
        cluster.run_for(secs(1) / RATE as u32);
    }

    fn write_for(&mut self, cluster: &mut World, span: Duration) {
        let end = cluster.now() + span;
        while cluster.now() < end {
            self.write(cluster);
        }
    }
}

/// After how long the last live node had each update; `None`: some node never had it.
fn staleness(cluster: &mut World) -> Vec<Option<Duration>> {
    let last = |times: Vec<Option<u64>>| {
        times.into_iter().try_fold(0, |last, at| Some(last.max(at?))).map(Duration::from_micros)
    };
    cluster.arrivals().into_iter().map(last).collect()
}

/// Asserts that each update was at the last node soon.
fn assert_soon(cluster: &mut World, what: &str) {
    let mut times = staleness(cluster);
    times.sort_unstable();
    let never = times.iter().filter(|time| time.is_none()).count();
    let late = times.iter().flatten().filter(|time| **time > SOON).count();
    println!("{what}: median {:?}, last {:?}", times[times.len() / 2], times[times.len() - 1]);
    assert_eq!((never, late), (0, 0), "{what}: of {} updates, never and late", times.len());
}

/// Copies of updates that nodes received for each copy that they needed, while `act` runs, with the number of
/// updates that it returns.
fn copies(cluster: &mut World, act: impl FnOnce(&mut World) -> u64) -> f64 {
    let before = cluster.counts.news;
    let updates = act(cluster);
    let needed = updates * (cluster.running().len() as u64 - 1);
    (cluster.counts.news - before) as f64 / needed as f64
}

/// One copy a node, with a steady load among nodes that are well.
fn copies_of_a_steady_load(settings: Settings) -> f64 {
    let mut cluster = met(1, 50, settings, Network::perfect());
    let mut load = Load::new(1);
    // The owners have to see the rate first, and the trees have to be there.
    load.write_for(&mut cluster, secs(3));
    let copies = copies(&mut cluster, |cluster| {
        let before = load.written;
        load.write_for(cluster, secs(5));
        load.written - before
    });
    cluster.run_for(secs(1));
    assert_soon(&mut cluster, "steady");
    copies
}

#[test]
fn the_news_of_many_writers_takes_one_copy_a_node() {
    let copies = copies_of_a_steady_load(Settings::roomy());
    println!("{copies:.3} copies");
    assert!(copies <= 1.1, "{copies} copies");
}

#[test]
fn without_trees_it_takes_several() {
    let copies = copies_of_a_steady_load(rules(|rules| rules.trees = false));
    assert!(copies > 3.0, "{copies} copies");
}

#[test]
fn without_filters_peers_are_told_of_what_they_have() {
    let notes = |filters| {
        let mut cluster = met(1, 30, rules(|rules| rules.filters = filters), Network::perfect());
        let mut load = Load::new(1);
        load.write_for(&mut cluster, secs(3));
        let before = (cluster.counts.notes, load.written);
        load.write_for(&mut cluster, secs(5));
        (cluster.counts.notes - before.0) as f64 / (load.written - before.1) as f64
    };
    let (with, without) = (notes(true), notes(false));
    println!("{with:.1} notes an update, without filters {without:.1}");
    assert!(without > 1.3 * with, "{without} notes without filters, {with} with them");
}

#[test]
fn a_cluster_of_two_versions_loses_nothing_and_costs_no_more_than_the_earlier_one() {
    let copies = |old: usize| {
        let copies = copies_of_a_steady_load(Settings { without_trees: old, ..Settings::roomy() });
        println!("{old} of 50 nodes are of the earlier version: {copies:.3} copies");
        copies
    };
    let (all, some) = (copies(50), copies(10));
    assert!(some < all, "{some} copies, all of the earlier version {all}");
}

#[test]
fn every_live_node_has_every_update_soon_while_others_die_and_join() {
    for seed in 1..=2 {
        let mut cluster = met(seed, 60, Settings::roomy(), Network::lossy(0.01));
        let mut load = Load::new(seed);
        // These are not there yet: the lists differ while they join.
        (57..60).for_each(|slot| cluster.crash(slot));
        cluster.run_for(secs(20));
        load.write_for(&mut cluster, secs(3));
        drop(staleness(&mut cluster));
        let copies = copies(&mut cluster, |cluster| {
            let before = load.written;
            // Nobody notices for a while that these have died.
            (50..57).for_each(|slot| cluster.crash(slot));
            load.write_for(cluster, secs(8));
            load.written - before
        });
        cluster.run_for(secs(1));
        assert_soon(&mut cluster, &format!("SEED={seed}, others die"));
        println!("SEED={seed}: {copies:.3} copies");
        assert!(copies <= 1.5, "SEED={seed}: {copies} copies");
    }
}

#[test]
fn one_update_among_few_floods() {
    let mut cluster = met(1, 50, Settings::roomy(), Network::perfect());
    let mut load = Load::new(1);
    for _ in 0..5 {
        load.write(&mut cluster);
        cluster.run_for(secs(1));
        let times = staleness(&mut cluster);
        assert!(times[0].is_some_and(|time| time < Duration::from_millis(20)), "{times:?}");
    }
}

/// The copies of single updates, one a second, and after how long the last live node had one.
fn single_updates(cluster: &mut World, load: &mut Load, count: u64) -> (f64, Duration) {
    let copies = copies(cluster, |cluster| {
        for _ in 0..count {
            load.write(cluster);
            cluster.run_for(secs(1));
        }
        count
    });
    let last = staleness(cluster).into_iter().map(|time| time.expect("an update is missing")).max();
    (copies, last.unwrap_or_default())
}

#[test]
fn beside_the_tree_one_end_of_a_link_sends_what_floods() {
    let copies = |tree_first| {
        let mut cluster =
            met(1, 50, rules(|rules| rules.tree_first = tree_first), Network::perfect());
        let mut load = Load::new(1);
        single_updates(&mut cluster, &mut load, 5);
        single_updates(&mut cluster, &mut load, 20).0
    };
    let (with, without) = (copies(true), copies(false));
    println!("{with:.2} copies of a single update, {without:.2} if it goes to all links at once");
    assert!(with < 0.75 * without, "{with} copies, {without} without the rule");
}

#[test]
fn a_flood_goes_around_nodes_that_have_just_died() {
    for seed in 1..=3 {
        let mut cluster = met(seed, 50, Settings::roomy(), Network::perfect());
        let mut load = Load::new(seed);
        single_updates(&mut cluster, &mut load, 5);
        (40..45).for_each(|slot| cluster.crash(slot));
        // Before anybody suspects them: no link is known to be broken.
        let (_, last) = single_updates(&mut cluster, &mut load, 1);
        println!("SEED={seed}: last live node after {last:?}");
        assert!(last < Duration::from_millis(150), "SEED={seed}: {last:?}");
    }
}

// C24
#[test]
fn what_was_shed_held_back_or_lost_with_a_link_arrives() {
    for seed in 1..=2 {
        let settings = Settings { push_bytes: 30_000, ..Settings::roomy() };
        let mut cluster = met(seed, 20, settings, Network::lossy(0.02));
        let mut load = Load::new(seed);
        for round in 0..6 {
            load.write_for(&mut cluster, secs(2));
            let slot = load.rng.random_range(0..20);
            match round % 3 {
                0 => cluster.restart_storage(slot),
                1 => {
                    let rest: Vec<_> = (0..20).filter(|other| *other != slot).collect();
                    cluster.network.cut(&[slot], &rest);
                    load.write_for(&mut cluster, secs(1));
                    cluster.network.heal();
                }
                _ => {
                    let value = "x".repeat(40_000);
                    cluster.write(slot, vec![Write::set("large", value)]);
                }
            }
        }
        cluster.run_until(secs(60), World::converged);
        // What nodes believe of each other by now holds nothing back.
        cluster.run_for(secs(2));
        drop(staleness(&mut cluster));
        load.write_for(&mut cluster, secs(3));
        cluster.run_for(secs(1));
        assert_soon(&mut cluster, &format!("SEED={seed}, after all that"));
    }
}
