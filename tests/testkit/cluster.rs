//! Nodes that are cut off, killed, stopped and restarted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    PeerState,
    testkit::{Kit, check, run},
};

use crate::shop::{DEADLINE, PATIENCE, buy, open};

const SECOND: Duration = Duration::from_secs(1);

fn state(kit: &Kit, at: &str, of: &str) -> Option<PeerState> {
    let peer = gossipmonger::NodeId::new(of).unwrap();
    kit.node(at).snapshot().member(&peer).map(|member| member.state)
}

fn refused(test: impl AsyncFn(&Kit)) -> String {
    let panicked = catch_unwind(AssertUnwindSafe(|| run(1, async |kit| test(&kit).await)));
    let panic = panicked.expect_err("the kit has accepted it");
    panic.downcast_ref::<String>().expect("a formatted message").clone()
}

#[test]
fn a_wrong_name_and_a_wrong_state_are_refused() {
    for (test, expected) in [
        (refused(async |kit| drop(kit.start("no name").await)), "\"no name\" is no name of a node"),
        (refused(async |kit| kit.kill("a").await), "a was never started"),
        (
            refused(async |kit| {
                kit.start("a").await;
                kit.start("a").await;
            }),
            "a was started before",
        ),
        (
            refused(async |kit| {
                kit.start("a").await;
                kit.restart("a").await;
            }),
            "a runs: kill or stop it first",
        ),
        (
            refused(async |kit| {
                kit.start("a").await;
                kit.kill("a").await;
                kit.stop("a").await;
            }),
            "a does not run",
        ),
    ] {
        assert!(test.contains(expected), "{test}");
    }
}

#[test]
fn a_state_that_does_not_come_fails_the_run_at_its_limit() {
    let words = refused(async |kit| {
        kit.start_all(["a", "b"]).await;
        kit.cut("a", "b");
        kit.until("a peer dies", PATIENCE, || state(kit, "a", "b") == Some(PeerState::Dead)).await;
        kit.converged(SECOND).await;
    });
    assert!(words.starts_with("not within 1s: all nodes see each other live"), "{words}");
}

#[test]
fn a_cut_is_seen_by_both_ends_and_heals() {
    check(1..=3, |kit| async move {
        kit.start_all(["a", "b", "c"]).await;
        kit.isolate("c");
        let dead = Some(PeerState::Dead);
        kit.until("c is dead at a and b", PATIENCE, || {
            state(&kit, "a", "c") == dead && state(&kit, "b", "c") == dead
        })
        .await;
        kit.heal();
        kit.converged(PATIENCE).await;
    });
}

#[test]
fn a_cut_of_one_direction_leaves_the_other_one_open() {
    run(1, async |kit| {
        let sold = open(&kit);
        let [a, b] = kit.start_all(["a", "b"]).await;
        buy(&a, b.node(), 1).await.unwrap();
        kit.cut_from("b", "a");
        let error = buy(&a, b.node(), 1).await.unwrap_err();
        assert!(error.may_have_run(), "{error}");
        assert_eq!(sold.load(Ordering::Relaxed), 2, "the request has arrived");
    });
}

#[test]
fn a_restarted_node_has_its_store_and_what_a_process_does_at_its_start() {
    check(1..=3, |kit| async move {
        open(&kit);
        let [a, b] = kit.start_all(["a", "b"]).await;
        a.set("color", "green").await.unwrap();
        kit.kill("a").await;
        let restarted = kit.restart("a").await;
        assert_eq!(restarted.get_str(a.node(), "color").as_deref(), Some("green"));
        kit.converged(PATIENCE).await;
        assert_eq!(b.get_str(a.node(), "color").as_deref(), Some("green"));
        kit.until("the service is found", PATIENCE, || {
            b.service::<crate::shop::Till>().at(a.node()).is_some()
        })
        .await;
        buy(&b, a.node(), 1).await.unwrap();
    });
}

#[test]
fn a_killed_node_says_nothing_and_a_stopped_one_does() {
    for (kills, expected) in [(true, PeerState::Dead), (false, PeerState::Left)] {
        run(1, async |kit| {
            kit.start_all(["a", "b"]).await;
            let begun = kit.now();
            if kills {
                kit.kill("a").await;
                assert_eq!(kit.now(), begun, "it takes no time");
                assert_eq!(state(&kit, "b", "a"), Some(PeerState::Live), "b knows nothing of it");
            } else {
                kit.stop("a").await;
            }
            kit.until("its peer knows", PATIENCE, || state(&kit, "b", "a") == Some(expected)).await;
            assert!(!kit.is_running("a"));
        });
    }
}

/// Says when it is dropped.
struct Says(Arc<AtomicBool>);

impl Drop for Says {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn tasks_and_values_of_a_process_end_with_it() {
    run(1, async |kit| {
        kit.start_all(["a", "b"]).await;
        let ended = [const { AtomicBool::new(false) }; 2].map(Arc::new);
        let process = kit.process("a");
        process.keep(Says(Arc::clone(&ended[0])));
        let says = Says(Arc::clone(&ended[1]));
        process.spawn(async move {
            let _says = says;
            std::future::pending::<()>().await;
        });
        kit.kill("b").await;
        tokio::time::sleep(SECOND).await;
        assert!(ended.iter().all(|ended| !ended.load(Ordering::Relaxed)), "b has ended, not a");
        kit.kill("a").await;
        tokio::time::sleep(SECOND).await;
        assert!(ended.iter().all(|ended| ended.load(Ordering::Relaxed)));
    });
}

#[test]
fn a_call_to_a_killed_node_ends_before_its_deadline_or_at_it() {
    run(1, async |kit| {
        open(&kit);
        let [a, b] = kit.start_all(["a", "b"]).await;
        buy(&a, b.node(), 1).await.unwrap();
        kit.kill("b").await;
        let begun = kit.now();
        let error = buy(&a, b.node(), 1).await.unwrap_err();
        assert!(kit.now() - begun <= DEADLINE, "{error}");
        assert!(kit.now() - begun > Duration::from_millis(100), "nobody has reported it: {error}");
    });
}

#[test]
fn messages_take_as_long_as_the_test_says() {
    run(1, async |kit| {
        open(&kit);
        let [a, b] = kit.start_all(["a", "b"]).await;
        buy(&a, b.node(), 1).await.unwrap();
        for millis in [10, 300] {
            let delay = Duration::from_millis(millis);
            kit.delay_from("a", "b", delay..=delay);
            let begun = kit.now();
            buy(&a, b.node(), 1).await.unwrap();
            let took = kit.now() - begun;
            assert!(took >= delay && took < delay + Duration::from_millis(20), "{took:?}");
        }
    });
}
