//! Certificates that expire and are renewed, and wall clocks that are set.

use std::time::Duration;

use gossipmonger::{
    Event, PeerState,
    testkit::{Kit, run},
};

use crate::shop::PATIENCE;

/// How long the first certificates are valid.
const VALID: Duration = Duration::from_secs(600);

fn is_live(kit: &Kit) -> bool {
    kit.node("a").live_peers().len() == 1 && kit.node("b").live_peers().len() == 1
}

/// Two nodes with certificates for ten minutes.
async fn pair(kit: &Kit) {
    kit.start("a").await;
    kit.renew("a", VALID);
    kit.start("b").await;
    kit.renew("b", VALID);
    for name in ["a", "b"] {
        kit.kill(name).await;
        kit.restart(name).await;
    }
    kit.converged(PATIENCE).await;
}

#[test]
fn a_node_whose_certificate_has_expired_is_refused_until_it_has_a_new_one() {
    run(1, async |kit| {
        pair(&kit).await;
        kit.renew("a", 3 * VALID);
        tokio::time::sleep(VALID + PATIENCE).await;
        kit.until("the peer is not live", PATIENCE, || !is_live(&kit)).await;
        let trace = kit.trace();
        let refused = "the certificate of b expired on";
        assert!(trace.iter().any(|line| line.contains(refused)), "{trace:#?}");
        kit.renew("b", VALID);
        kit.converged(5 * PATIENCE).await;
    });
}

#[test]
fn a_renewed_certificate_replaces_the_connection_without_a_missed_heartbeat() {
    run(1, async |kit| {
        pair(&kit).await;
        let mut events = kit.node("a").subscribe();
        for name in ["a", "b"] {
            kit.renew(name, 3 * VALID);
        }
        tokio::time::sleep(2 * VALID).await;
        assert!(is_live(&kit));
        while let Ok(Ok(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            let suspects = matches!(event, Event::PeerSuspect { .. } | Event::PeerDead { .. });
            assert!(!suspects, "{event:?}");
        }
    });
}

#[test]
fn a_wall_clock_that_is_set_expires_a_certificate_and_no_timer() {
    run(1, async |kit| {
        pair(&kit).await;
        let begun = kit.now();
        kit.set_wall("b", kit.wall("b") + 2 * VALID);
        kit.until("b cuts itself off", PATIENCE, || !is_live(&kit)).await;
        assert!(kit.now() - begun < 2 * PATIENCE);
    });
}

#[test]
fn a_wall_clock_that_is_set_back_does_not_bring_an_old_generation_back() {
    run(1, async |kit| {
        let [a, b] = kit.start_all(["a", "b"]).await;
        let before = b.snapshot().member(a.node()).unwrap().generation;
        kit.kill("a").await;
        kit.set_wall("a", kit.wall("a") - 144 * VALID);
        kit.restart("a").await;
        kit.converged(PATIENCE).await;
        let member = b.snapshot().member(a.node()).unwrap();
        assert!(member.generation > before);
        assert_eq!(member.state, PeerState::Live);
    });
}
