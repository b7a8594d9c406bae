//! Connections in virtual time: two for one pair, queues that fill, bulk that breaks off, penalties, renewal.

use std::time::Duration;

use gossipmonger::protocol::{event::Event, id::NodeId, state::PeerState, write::Write};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

/// So many nodes that run and have agreed.
fn running(count: usize, settings: Settings) -> World {
    let seed = crate::number("SEED").unwrap_or(1);
    let mut cluster = crate::world(seed, count, settings, Network::perfect());
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(60), World::converged);
    cluster.run_for(secs(10));
    cluster.said.told.clear();
    cluster.said.suspected.clear();
    cluster
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(slot: usize) -> NodeId {
    NodeId::new(&format!("n{slot}")).unwrap()
}

/// How many keys of a node a reader has.
fn keys(cluster: &World, reader: usize, owner: usize) -> usize {
    let copy = cluster.node(reader).replica.copy(&name(owner));
    copy.map_or(0, |copy| copy.entries().len())
}

fn nobody_was_missed(cluster: &World) {
    let dead = |(_, _, event): &&(Duration, usize, Event)| matches!(event, Event::PeerDead { .. });
    let missed =
        cluster.said.told.iter().find(dead).map(|(at, by, event)| format!("{at:?} {by} {event:?}"));
    assert_eq!(missed, None);
    assert_eq!(cluster.said.suspected, []);
}

#[test]
fn two_that_dial_each_other_all_the_time_agree_on_one_connection() {
    for count in [2, 5] {
        let mut cluster = running(count, Settings::roomy());
        // Later than a handshake takes, or in the midst of one.
        for round in 0..400 {
            cluster.dial_again(0, 1);
            cluster.run_for(Duration::from_micros(round * 37 % 2_500));
            cluster.dial_again(1, 0);
            cluster.write(round as usize % 2, vec![Write::set("round", round.to_string())]);
            cluster.run_for(millis(round * 13 % 300));
        }
        assert!(cluster.counts.duplicates > 50, "{}", cluster.counts.duplicates);
        cluster.run_for(secs(2));
        assert!(cluster.share_a_connection(0, 1), "SEED={:?}", crate::number("SEED"));
        assert_eq!(cluster.converged(), Ok(()));
        nobody_was_missed(&cluster);
    }
}

#[test]
fn a_slow_connection_is_congested_and_gets_the_last_value_of_each_key() {
    let mut cluster = running(2, Settings::roomy());
    cluster.network.rates.insert((0, 1), 50_000);
    // Three times of what the path carries.
    for round in 0..300_u32 {
        let value = format!("{round} {}", "x".repeat(7_500));
        cluster.write(0, vec![Write::set(format!("key {}", round % 3), value)]);
        cluster.run_for(millis(50));
    }
    assert!(cluster.counts.congestions > 0, "storage was never told");
    let behind = cluster.node(0).replica.own().max_version();
    cluster.run_until(secs(10), World::converged);
    let copy = cluster.node(1).replica.copy(&name(0)).unwrap();
    assert_eq!(copy.max_version(), behind);
    nobody_was_missed(&cluster);
}

#[test]
fn news_waits_for_its_budget_and_nobody_is_missed_meanwhile() {
    let settings = Settings { push_bytes: 20_000, ..Settings::roomy() };
    let mut cluster = running(3, settings);
    for round in 0..100_u32 {
        let value = format!("{round} {}", "x".repeat(5_000));
        cluster.write(0, vec![Write::set(format!("key {}", round % 3), value)]);
        cluster.run_for(millis(100));
    }
    assert!(cluster.counts.waits > 0, "no queue has waited");
    cluster.run_until(secs(20), World::converged);
    nobody_was_missed(&cluster);
}

#[test]
fn bulk_that_breaks_off_goes_on_with_the_next_exchange() {
    const KEYS: usize = 60;
    let settings = Settings { delta_bytes: 8 << 10, ..Settings::roomy() };
    let mut cluster = running(2, settings);
    cluster.crash(1);
    cluster.wipe(1);
    for key in 0..KEYS {
        cluster.write(0, vec![Write::set(format!("key {key}"), "x".repeat(10_000))]);
    }
    cluster.network.rates.insert((0, 1), 100_000);
    cluster.boot(1);
    for part in [10, 20, 30] {
        let broken = cluster.counts.bulk_broken;
        cluster.run_to("a part of it has come", |cluster| keys(cluster, 1, 0) >= part);
        assert!(keys(&cluster, 1, 0) < KEYS);
        cluster.break_connection(0, 1);
        cluster.run_for(millis(10));
        assert!(cluster.counts.bulk_broken > broken, "no bulk was under way");
        assert!(keys(&cluster, 1, 0) >= part, "what has come stays");
    }
    cluster.run_until(secs(20), World::converged);
    assert_eq!(keys(&cluster, 1, 0), KEYS);
}

#[test]
fn a_member_that_floods_is_disconnected_and_may_come_back() {
    let mut cluster = running(5, Settings::roomy());
    cluster.flood(3, 0, 5_000);
    cluster.run_for(secs(1));
    let begun = cluster.now();
    let all: Vec<_> =
        cluster.counts.disconnected.iter().map(|(_, by, peer)| (*by, peer.clone())).collect();
    assert_eq!(all, [(0, name(3))], "once, and by the one that was flooded");
    // Until then neither end gets a connection, and what the others tell of it is enough.
    while cluster.now() < begun + secs(28) {
        cluster.run_for(millis(100));
        assert!(!cluster.share_a_connection(0, 3), "it is barred");
    }
    assert!(cluster.node(0).liveness.life(&name(3)).unwrap().state.is_live());
    cluster.run_until(secs(60), |cluster| match cluster.share_a_connection(0, 3) {
        true => Ok(()),
        false => Err("they are not connected".into()),
    });
    assert_eq!(cluster.converged(), Ok(()));
    assert!(cluster.said.told.iter().all(|(_, _, event)| !matches!(event, Event::PeerDead { .. })));
    assert_eq!(cluster.node(3).liveness.life(&name(0)).unwrap().state, PeerState::Live);
}

#[test]
fn a_new_certificate_renews_connections_and_nobody_notices() {
    let mut cluster = running(6, Settings::roomy());
    for round in 0..20_u32 {
        cluster.renew_certificate(round as usize % 6);
        for part in 0..10 {
            cluster.write(2, vec![Write::set("round", format!("{round} {part}"))]);
            cluster.run_for(millis(u64::from(round) * 17 % 400));
        }
    }
    assert!(cluster.counts.renewed > 20, "{}", cluster.counts.renewed);
    cluster.run_until(secs(10), World::converged);
    nobody_was_missed(&cluster);
}

/// An end asks less and less often for the acknowledgement of what was cut off, so the connection would be silent for a
/// while longer than the cut.
#[test]
fn a_silent_connection_is_replaced_once_its_peer_is_said_to_live() {
    let mut cluster = running(12, Settings::roomy());
    let rest: Vec<_> = (0..12).filter(|slot| *slot != 1).collect();
    cluster.network.cut(&[1], &rest);
    cluster.run_for(secs(12));
    cluster.network.heal();
    cluster.run_until(secs(10), World::converged);
    assert!(cluster.counts.hurried > 0, "no connection was replaced");
}
