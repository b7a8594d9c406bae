//! Who is revoked is forgotten by all, whoever goes on telling of it.

use std::time::Duration;

use gossipmonger::protocol::{event::Event, id::NodeId, write::Write};

use gossipmonger::sim::{network::Network, settings::Settings, world::World};

/// One that is revoked and does not listen, another one that does, and a member that does not listen
/// either and goes on telling of the first.
const REVOKED: usize = 50;
const HONEST: usize = 60;
const RELAY: usize = 20;

// C88
#[test]
fn a_revocation_reaches_a_hundred_through_loss_and_nobody_else_is_accused() {
    let mut cluster = running();
    cluster.hooks.deaf = [REVOKED].into();
    revoke(&mut cluster);
    let later = cluster.now() + secs(60);
    while cluster.now() < later {
        cluster.run_for(secs(1));
        all_have_forgotten(&cluster);
    }
    for (at, by, peer) in cluster.said.suspected.iter().filter(|(_, by, _)| *by != REVOKED) {
        if [REVOKED, HONEST].iter().all(|slot| *peer != name(*slot)) {
            cluster.fail(format!("n{by} suspected {peer} at {at:?}"));
        }
    }
    nobody_is_called_dead(&cluster, &[REVOKED]);
}

// C88
#[test]
fn a_member_that_goes_on_telling_of_the_revoked_brings_nobody_back() {
    let mut cluster = running();
    cluster.hooks.deaf = [REVOKED, RELAY].into();
    revoke(&mut cluster);
    for round in 0..60 {
        cluster.write(REVOKED, vec![Write::set("round", format!("{round}"))]);
        cluster.run_for(secs(1));
        all_have_forgotten(&cluster);
    }
    let relay = &cluster.node(RELAY).replica;
    assert!(relay.copy(&name(REVOKED)).is_some(), "the relay still knows it");
    // Between them the two can have others suspected, as any members can: those refute it.
    nobody_is_called_dead(&cluster, &[REVOKED, RELAY]);
}

/// A hundred who have agreed for a while, where each twentieth packet is lost.
fn running() -> World {
    let seed = crate::number("SEED").unwrap_or(1);
    let mut cluster = crate::world(seed, 100, Settings::roomy(), Network::lossy(0.05));
    (0..100).for_each(|slot| cluster.boot(slot));
    cluster.run_until(secs(120), World::converged);
    cluster.run_for(secs(10));
    cluster.said.told.clear();
    cluster.said.suspected.clear();
    cluster
}

/// Two are revoked, at two others; in two seconds all have to know.
fn revoke(cluster: &mut World) {
    let begun = cluster.now();
    cluster.revoke(7, REVOKED);
    cluster.revoke(90, HONEST);
    while let Err(why) = forgotten(cluster) {
        cluster.run_for(Duration::from_millis(10));
        if cluster.now() - begun > secs(2) {
            cluster.fail(format!("not within two seconds: {why}"));
        }
    }
    println!("forgotten by all after {:?}", cluster.now() - begun);
    assert!(cluster.slots[HONEST].node.is_none(), "it ends by itself");
    assert!(cluster.slots[REVOKED].node.is_some(), "it does not listen");
}

fn all_have_forgotten(cluster: &World) {
    if let Err(why) = forgotten(cluster) {
        cluster.fail(why);
    }
}

/// But by these.
fn nobody_is_called_dead(cluster: &World, but: &[usize]) {
    for (at, by, event) in cluster.said.told.iter().filter(|(_, by, _)| !but.contains(by)) {
        if let Event::PeerDead { peer, .. } = event {
            cluster.fail(format!("n{by} called {peer} dead at {at:?}"));
        }
    }
}

/// Whether all who listen know both statements, and neither of the two.
fn forgotten(cluster: &World) -> Result<(), String> {
    for slot in cluster.running().into_iter().filter(|slot| !cluster.hooks.deaf.contains(slot)) {
        let replica = &cluster.node(slot).replica;
        if replica.revocations().len() != 2 {
            return Err(format!("n{slot} has heard of {}", replica.revocations().len()));
        }
        if let Some(known) = [REVOKED, HONEST].iter().find(|n| replica.copy(&name(**n)).is_some()) {
            return Err(format!("n{slot} knows n{known}"));
        }
    }
    Ok(())
}

fn name(slot: usize) -> NodeId {
    NodeId::new(&format!("n{slot}")).unwrap()
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
