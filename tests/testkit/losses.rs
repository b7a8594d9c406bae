//! Calls whose request or reply is lost.

use std::{sync::atomic::Ordering, time::Duration};

use gossipmonger::testkit::{Kit, Loss, run};

use crate::shop::{Buy, DEADLINE, buy, call, open};

/// Calls of which some are lost.
const CALLS: u32 = 60;

fn set(kit: &Kit, request: bool, loss: Loss) {
    match request {
        true => kit.lose_requests("a", "b", loss),
        false => kit.lose_replies("a", "b", loss),
    }
}

#[test]
fn a_lost_request_does_not_run_and_a_lost_reply_does() {
    for (request, ran) in [(true, 0), (false, 7)] {
        // On the lane, and on a stream of its own.
        for padding in [0, 20_000] {
            run(1, async |kit| {
                let sold = open(&kit);
                let [a, b] = kit.start_all(["a", "b"]).await;
                set(&kit, request, Loss::Next(1));
                let begun = kit.now();
                let lost = Buy { count: 7, padding: vec![0; padding] };
                let error = call(&a, b.node(), lost).await.unwrap_err();
                assert!(error.may_have_run(), "{error}");
                assert!(kit.now() - begun >= DEADLINE, "it waits for its deadline");
                assert_eq!(sold.load(Ordering::Relaxed), ran);
                let next = Buy { count: 1, padding: vec![0; padding] };
                assert_eq!(call(&a, b.node(), next).await, Ok(ran + 1), "only one is lost");
            });
        }
    }
}

#[test]
fn only_calls_of_that_direction_are_lost() {
    run(1, async |kit| {
        open(&kit);
        let [a, b] = kit.start_all(["a", "b"]).await;
        kit.lose_requests("a", "b", Loss::Part(1.0));
        assert!(buy(&a, b.node(), 1).await.is_err());
        assert!(buy(&b, a.node(), 1).await.is_ok());
        assert!(buy(&a, a.node(), 1).await.is_ok(), "no network is in between");
        kit.lose_nothing();
        assert!(buy(&a, b.node(), 1).await.is_ok());
    });
}

#[test]
fn a_part_is_lost_as_the_seed_says() {
    let lost = |seed| {
        run(seed, async |kit| {
            open(&kit);
            let [a, b] = kit.start_all(["a", "b"]).await;
            kit.lose_replies("a", "b", Loss::Part(0.5));
            let mut lost = Vec::new();
            for _ in 0..CALLS {
                lost.push(buy(&a, b.node(), 1).await.is_err());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            lost
        })
    };
    let first = lost(1);
    let count = first.iter().filter(|lost| **lost).count();
    // Six standard deviations of a fair coin are 23.
    assert!((7..=53).contains(&count), "{count} of {CALLS}");
    assert_eq!(first, lost(1));
    assert_ne!(first, lost(2));
}
