//! What one caller may send in a second, and what goes to other datacenters.

use std::{sync::Arc, time::Duration};

use gossipmonger::{
    Counter, Gossipmonger,
    service::{Access, By, CallError, CallFailure, NotRun, Offer},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    harness::{Lab, all_live, until},
    start::Start,
};

#[derive(Serialize, Deserialize)]
struct Ask(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Tell;

/// Asks for so many items of 16 KiB.
#[derive(Serialize, Deserialize)]
struct Send(usize);

#[derive(Serialize, Deserialize)]
struct Take;

#[derive(Serialize, Deserialize)]
struct Part(Vec<u8>);

gossipmonger::service! {
    /// For tests.
    struct Bulk = "bulk", 1.0;

    1: call Ask -> Vec<u8>;
    2: cast Tell;
    3: stream Send -> Vec<u8>;
    4: collect Take of Part -> usize;
}

#[derive(Serialize, Deserialize)]
struct Wait;

gossipmonger::service! {
    /// For tests.
    struct Slow = "slow", 1.0;

    1: call Wait -> ();
}

const LONG: Duration = Duration::from_secs(600);
const KIB: usize = 1 << 10;

#[expect(clippy::disallowed_methods, reason = "a rate is a matter of time")]
fn now() -> Instant {
    Instant::now()
}

async fn offers(node: &Gossipmonger) -> Offer {
    node.offer::<Bulk>(Access::members())
        .call(|ask: Ask, _| std::future::ready(ask.0))
        .cast(|_: Tell, _| std::future::ready(()))
        .stream(|ask: Send, mut items, _| async move {
            for _ in 0..ask.0 {
                items.send(&vec![7; 16 * KIB]).await?;
            }
            Ok(())
        })
        .collect(|_: Take, mut items, _| async move {
            let mut bytes = 0;
            while let Some(item) = items.next().await? {
                bytes += item.0.len();
            }
            Ok(bytes)
        })
        .start()
        .await
        .unwrap()
}

/// It has not run, since this limit was reached.
fn refused_by(error: &CallError, limit: By) {
    let CallFailure::NotRun(NotRun::Overloaded { by, .. }) = error.failure() else {
        panic!("{error}");
    };
    assert_eq!(*by, limit, "{error}");
}

/// Two nodes, of which the second one offers the service.
async fn pair(lab: &Lab, places: [&str; 2], config: impl Fn(&mut Start)) -> [Gossipmonger; 2] {
    let [mut one, mut other] = [lab.config_in(places[0], "a"), lab.config_in(places[1], "b")];
    config(&mut one);
    config(&mut other);
    let a = lab.spawn_with(one, &[]).await;
    let b = lab.spawn_with(other, &["a"]).await;
    all_live(&[&a, &b]).await;
    [a, b]
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_too_many_calls_in_a_second_is_refused_by_whatever_way_it_comes() {
    let lab = Lab::default();
    let [a, b] =
        pair(&lab, ["eu", "eu"], |config| config.services.rates.calls_per_second = Some(100)).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let _offer = offers(&b).await;
    let bulk = a.service::<Bulk>();
    bulk.ready(1, LONG).await.unwrap();
    let mut answered = 0;
    let refused = loop {
        match bulk.call(Ask(Vec::new())).await {
            Ok(_) => answered += 1,
            Err(refused) => break refused,
        }
    };
    assert!((101..120).contains(&answered), "{answered}");
    let CallFailure::NotRun(NotRun::Overloaded { by: By::Peer, retry_after }) = *refused.failure()
    else {
        panic!("{refused}");
    };
    assert!(!retry_after.is_zero() && retry_after <= Duration::from_millis(11), "{retry_after:?}");
    let alone = bulk.call(Ask(Vec::new())).alone().await.unwrap_err();
    refused_by(&alone, By::Peer);
    bulk.cast(Tell).await.unwrap();
    let others = c.service::<Bulk>();
    others.ready(1, LONG).await.unwrap();
    others.call(Ask(Vec::new())).await.unwrap();
    assert_eq!(b.counters().get(Counter::CastsRefused), 1);
    tokio::time::sleep(retry_after).await;
    bulk.call(Ask(Vec::new())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_a_caller_in_a_second_are_limited_and_its_streams_wait() {
    let lab = Lab::default();
    let [a, b] = pair(&lab, ["eu", "eu"], |c| c.services.rates.bytes_per_second = 1 << 20).await;
    let _offer = offers(&b).await;
    let bulk = a.service::<Bulk>();
    bulk.ready(1, LONG).await.unwrap();
    let begun = now();
    let mut upload = bulk.collect(Take).await.unwrap();
    for _ in 0..1_024 {
        upload.send(&Part(vec![7; 16 * KIB])).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), 16 << 20);
    // 16 MiB take 16 s, of which what comes in the first second goes at once.
    let took = begun.elapsed().as_secs_f64();
    assert!((13.0..18.0).contains(&took), "{took}");
    // What its streams leave to its calls is used up as well.
    let refused = loop {
        if let Err(refused) = bulk.call(Ask(vec![7; 9 * KIB])).await {
            break refused;
        }
    };
    refused_by(&refused, By::Peer);
}

#[tokio::test(start_paused = true)]
async fn streams_to_another_datacenter_keep_to_a_rate_and_others_do_not() {
    for (places, least) in [(["eu", "us"], 13.0), (["eu", "eu"], 0.0)] {
        let lab = Lab::default();
        let [a, b] = pair(&lab, places, |c| c.services.rates.wan_bytes_per_second = 1 << 20).await;
        let _offer = offers(&b).await;
        let bulk = a.service::<Bulk>();
        bulk.ready(1, LONG).await.unwrap();
        let begun = now();
        let mut items = bulk.stream(Send(1_024)).await.unwrap();
        let mut bytes = 0;
        while let Some(item) = items.next().await.unwrap() {
            bytes += item.len();
        }
        assert_eq!(bytes, 16 << 20);
        let took = begun.elapsed().as_secs_f64();
        assert!((least..least + 5.0).contains(&took), "down {places:?}: {took}");
        let begun = now();
        let mut upload = bulk.collect(Take).await.unwrap();
        for _ in 0..1_024 {
            upload.send(&Part(vec![7; 16 * KIB])).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap(), 16 << 20);
        let took = begun.elapsed().as_secs_f64();
        assert!((least..least + 5.0).contains(&took), "up {places:?}: {took}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_with_too_many_calls_in_flight_waits_and_then_refuses_itself() {
    let lab = Lab::default();
    let [a, b] = pair(&lab, ["eu", "eu"], |c| c.services.calls_in_flight = 2).await;
    let go = Arc::new(Semaphore::new(0));
    let gone = Arc::clone(&go);
    let _offer = b
        .offer::<Slow>(Access::members())
        .call(move |_: Wait, _| {
            let gone = Arc::clone(&gone);
            async move { gone.acquire().await.unwrap().forget() }
        })
        .start()
        .await
        .unwrap();
    let slow = a.service::<Slow>();
    slow.ready(1, LONG).await.unwrap();
    let calls: Vec<_> =
        (0..2).map(|_| tokio::spawn(slow.call(Wait).within(LONG).into_future())).collect();
    until("both are under way", || a.service::<Slow>().providers().len() == 1).await;
    tokio::task::yield_now().await;
    let refused = slow.call(Wait).within(Duration::from_secs(1)).await.unwrap_err();
    refused_by(&refused, By::Caller);
    let waits = tokio::spawn(slow.call(Wait).within(LONG).into_future());
    go.add_permits(3);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    waits.await.unwrap().unwrap();
}
