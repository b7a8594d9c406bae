//! Calls over streams of their own: long messages, many items, and plain bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gossipmonger::{
    Counter, Event, Gossipmonger,
    protocol::service::stream::STREAMS_PER_PEER,
    service::{
        Access, By, CallError, CallFailure, Failure, Lost, NotRun, Offer, stream::ItemError,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use crate::harness::{Lab, all_live, id, next_event, until};

/// Asks for this many numbers; the last one stands for a way to fail.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Count {
    to: u32,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Ends {
    Well,
    Failed,
    Panicked,
    Never,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Number(u32);

#[derive(Debug, Serialize, Deserialize)]
struct Sum {
    /// The handler answers after this many.
    until: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    fails_after: Option<usize>,
}

/// Takes bytes until their end, and keeps them a second later.
#[derive(Debug, Serialize, Deserialize)]
struct Store;

#[derive(Debug, Serialize, Deserialize)]
struct Blob(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Keep(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Grow {
    bytes: usize,
}

gossipmonger::service! {
    struct Numbers = "numbers", 1.0;

    1: stream Count -> Number;
    2: collect Sum of Number -> u32;
    3: duplex Echo;
    4: call Blob -> usize, idempotent;
    5: call Grow -> Vec<u8>, idempotent;
    6: cast Keep;
    7: duplex Store;
}

/// What has happened at a provider.
#[derive(Clone, Default)]
struct Seen {
    /// Handlers that run.
    running: Arc<AtomicUsize>,
    /// Items that were handed over.
    sent: Arc<AtomicUsize>,
    /// Bytes of casts.
    kept: Arc<AtomicUsize>,
    finish: Arc<Notify>,
}

struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn begin(seen: &Seen) -> Self {
        seen.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&seen.running))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn offers(node: &Gossipmonger, access: Access, running: usize) -> (Offer, Seen) {
    let seen = Seen::default();
    let (counts, sums, echoes, keeps) = (seen.clone(), seen.clone(), seen.clone(), seen.clone());
    let stores = seen.clone();
    let builder = node
        .offer::<Numbers>(access)
        .stream(move |ask: Count, mut items, _| {
            let seen = counts.clone();
            async move {
                let _runs = Runs::begin(&seen);
                for number in 0..ask.to {
                    items.send(&Number(number)).await?;
                    seen.sent.fetch_add(1, Ordering::Relaxed);
                }
                match ask.ends {
                    Ends::Well => Ok(()),
                    Ends::Failed => Err(ItemError::NotEncoded("it is a secret".to_owned())),
                    Ends::Panicked => panic!("as the test wants it"),
                    Ends::Never => {
                        seen.finish.notified().await;
                        Ok(())
                    }
                }
            }
        })
        .collect(move |ask: Sum, mut items, _| {
            let seen = sums.clone();
            async move {
                let _runs = Runs::begin(&seen);
                let mut sum = 0;
                for _ in 0..ask.until {
                    let Some(Number(number)) = items.next().await? else { break };
                    sum += number;
                }
                Ok(sum)
            }
        })
        .duplex(move |ask: Echo, (mut tx, mut rx), _| {
            let seen = echoes.clone();
            async move {
                let _runs = Runs::begin(&seen);
                let mut left = ask.fails_after;
                while let Some(bytes) = rx.next().await? {
                    if let Some(left) = &mut left {
                        *left = left.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::Other)?;
                    }
                    tx.send(bytes).await?;
                }
                tx.finish().await
            }
        })
        .duplex(move |_: Store, (tx, mut rx), _| {
            let seen = stores.clone();
            async move {
                let mut bytes = 0;
                while let Some(chunk) = rx.next().await? {
                    bytes += chunk.len();
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.kept.fetch_add(bytes, Ordering::Relaxed);
                tx.finish().await
            }
        })
        .call(|ask: Blob, _| async move { ask.0.len() })
        .call(|ask: Grow, _| async move { vec![7; ask.bytes] })
        .cast(move |keep: Keep, _| {
            let seen = keeps.clone();
            async move {
                seen.kept.fetch_add(keep.0.len(), Ordering::Relaxed);
            }
        })
        .room(running, 0)
        .per_caller(100);
    (builder.start().await.unwrap(), seen)
}

fn failure(result: Result<impl std::fmt::Debug, CallError>) -> CallFailure {
    result.unwrap_err().failure().clone()
}

const LONG: Duration = Duration::from_secs(600);
const ALL: usize = 100;

async fn found(node: &Gossipmonger) {
    node.service::<Numbers>().ready(1, LONG).await.unwrap();
}

fn count(to: u32, ends: Ends) -> Count {
    Count { to, ends }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_call_gets_no_stream() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::node(id("c")), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let forbidden = CallFailure::NotRun(NotRun::Forbidden);
    assert_eq!(failure(numbers.stream(count(3, Ends::Well)).await), forbidden);
    assert_eq!(failure(numbers.collect(Sum { until: 9 }).await), forbidden);
    assert_eq!(failure(numbers.duplex(Echo { fails_after: None }).await), forbidden);
    assert_eq!(failure(numbers.call(Blob(vec![0; 100_000])).await), forbidden);
    assert_eq!(
        (seen.running.load(Ordering::Relaxed), b.counters().get(Counter::CallsRefused)),
        (0, 4)
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_above_its_limit_is_not_sent() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        let long = failure(numbers.call(Blob(vec![0; 1 << 20])).await);
        let too_large = matches!(long, CallFailure::NotRun(NotRun::TooLarge { allowed, .. }) if allowed == 1 << 20);
        assert!(too_large, "{long:?}");
        let long = failure(numbers.call(Grow { bytes: 1 << 20 }).await);
        assert!(matches!(long, CallFailure::Failed(Failure::ReplyTooLarge(_))), "{long:?}");
        assert!(numbers.cast(Keep(vec![0; 1 << 20])).await.is_err());
    }
    // A stream has to be waited for.
    let refused = a.service::<Numbers>().try_cast(&Keep(vec![0; 20_000]));
    assert!(matches!(failure(refused), CallFailure::NotRun(NotRun::TooLarge { .. })));
    assert_eq!(seen.kept.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn long_messages_arrive_whole() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for (nodes, node) in [&a, &b].into_iter().enumerate() {
        let numbers = node.service::<Numbers>();
        for bytes in [16_000, 17_000, 500_000, 1_000_000] {
            assert_eq!(numbers.call(Blob(vec![1; bytes])).await.unwrap(), bytes);
            // The first long answer to a call on the lane, and then those to calls with a stream.
            for _ in 0..2 {
                assert_eq!(numbers.call(Grow { bytes }).await.unwrap(), vec![7; bytes]);
            }
            assert_eq!(numbers.call(Grow { bytes }).alone().await.unwrap().len(), bytes);
        }
        assert_eq!(numbers.call(Blob(Vec::new())).alone().await.unwrap(), 0);
        numbers.cast(Keep(vec![0; 300_000])).await.unwrap();
        let kept = || seen.kept.load(Ordering::Relaxed) == 300_000 * (nodes + 1);
        until("the long message arrives", kept).await;
    }
    // Small calls and long messages have a connection each.
    assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), 2);
}

#[tokio::test(start_paused = true)]
async fn long_answers_come_back_side_by_side() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    // One caller may use half of the room for answers that wait.
    let calls: Vec<_> = (0..40)
        .map(|_| tokio::spawn(numbers.call(Grow { bytes: 700_000 }).within(LONG).into_future()))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().len(), 700_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_never_taken_for_a_whole_one() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        for (ends, expected) in
            [(Ends::Failed, Failure::NoAnswer), (Ends::Panicked, Failure::Panicked)]
        {
            let mut items = numbers.stream(count(3, ends)).await.unwrap();
            for number in 0..3 {
                assert_eq!(items.next().await.unwrap(), Some(Number(number)));
            }
            let error = items.next().await.unwrap_err();
            assert_eq!(*error.failure(), CallFailure::Failed(expected));
            assert_eq!(error.node(), Some(b.node()));
            assert_eq!(items.next().await.unwrap(), None, "nothing comes after an error");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn items_arrive_in_order_and_then_the_end() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let mut items = node.service::<Numbers>().stream(count(500, Ends::Well)).await.unwrap();
        let mut expected = 0;
        while let Some(Number(number)) = items.next().await.unwrap() {
            assert_eq!(number, expected);
            expected += 1;
        }
        assert_eq!(expected, 500);
    }
    until("the handlers end", || seen.running.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_waits_for_a_caller_that_does_not_read() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        seen.sent.store(0, Ordering::Relaxed);
        let numbers = node.service::<Numbers>();
        let mut items = numbers.stream(count(100_000, Ends::Well)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let sent = seen.sent.load(Ordering::Relaxed);
        assert!((1..1_000).contains(&sent), "{sent}");
        for number in 0..2_000 {
            assert_eq!(items.next().await.unwrap(), Some(Number(number)));
        }
        // Calls are not held up meanwhile.
        assert_eq!(numbers.call(Blob(vec![0; 100_000])).await.unwrap(), 100_000);
        drop(items);
        until("the handler is dropped", || seen.running.load(Ordering::Relaxed) == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_drops_its_stream_stops_the_handler() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let running = |expected: usize| {
        let running = Arc::clone(&seen.running);
        async move {
            until("so many handlers run", || running.load(Ordering::Relaxed) == expected).await;
        }
    };
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        let items = numbers.stream(count(1, Ends::Never)).await.unwrap();
        let mut upload = numbers.collect(Sum { until: 9 }).await.unwrap();
        upload.send(&Number(1)).await.unwrap();
        let bytes = numbers.duplex(Echo { fails_after: None }).await.unwrap();
        running(3).await;
        drop(items);
        running(2).await;
        drop(upload);
        running(1).await;
        drop(bytes);
        running(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_items_have_one_answer_which_may_come_early() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        for (until, sum) in [(1_000, 4_950), (3, 3), (0, 0)] {
            let mut upload = numbers.collect(Sum { until }).await.unwrap();
            for number in 0..100 {
                upload.send(&Number(number)).await.unwrap();
            }
            assert_eq!(upload.finish().await.unwrap(), sum, "{until}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_end_on_purpose_only() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        let (mut tx, mut rx) = numbers.duplex(Echo { fails_after: None }).await.unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|byte| byte as u8).collect();
        let writes = async {
            tx.write_all(&sent).await.unwrap();
            tx.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, read_bytes) = tokio::join!(writes, rx.read_to_end(&mut read));
        assert_eq!((read_bytes.unwrap(), read == sent), (sent.len(), true));

        // A handler that fails.
        let (mut tx, mut rx) = numbers.duplex(Echo { fails_after: Some(5) }).await.unwrap();
        tx.send(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(rx.next().await.unwrap(), Some(Bytes::from_static(b"hello")));
        tx.send(Bytes::from_static(b"!")).await.unwrap();
        assert!(rx.next().await.is_err());
        assert!(rx.next().await.unwrap().is_none());

        // A caller that drops its half without an end.
        let (tx, mut rx) = numbers.duplex(Echo { fails_after: None }).await.unwrap();
        drop(tx);
        assert!(rx.next().await.is_err(), "the handler has failed, as its reading has");
    }
    until("the handlers end", || seen.running.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_bytes_ends_its_work_although_its_caller_is_gone() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        seen.kept.store(0, Ordering::Relaxed);
        let (mut tx, rx) = node.service::<Numbers>().duplex(Store).await.unwrap();
        tx.send(Bytes::from_static(b"all of it")).await.unwrap();
        tx.finish().await.unwrap();
        drop(rx);
        until("they are kept", || seen.kept.load(Ordering::Relaxed) == 9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_sent_is_no_call_that_has_not_run() {
    let lab = Lab::default();
    let config = |name| {
        let mut config = lab.config(name);
        config.services.request_bytes = 4;
        config
    };
    let a = lab.spawn_with(config("a"), &[]).await;
    let b = lab.spawn_with(config("b"), &["a"]).await;
    all_live(&[&a, &b]).await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let mut upload = a.service::<Numbers>().collect(Sum { until: 9 }).await.unwrap();
    let failed = failure(upload.send(&Number(u32::MAX)).await);
    assert!(matches!(failed, CallFailure::Failed(Failure::ItemNotSent(_))), "{failed:?}");
    upload.send(&Number(7)).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_link_with_all_its_streams_open_is_full_until_one_has_ended() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b, Access::members(), 2 * STREAMS_PER_PEER).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let echo = || numbers.duplex(Echo { fails_after: None }).within(Duration::from_secs(1));
    let mut open = Vec::new();
    for _ in 0..STREAMS_PER_PEER {
        open.push(echo().await.unwrap());
    }
    let full =
        CallFailure::NotRun(NotRun::Overloaded { by: By::Link, retry_after: Duration::ZERO });
    assert_eq!(failure(echo().await), full);
    assert_eq!(failure(numbers.stream(count(0, Ends::Well)).await), full);
    // Both halves have ended, and are kept.
    let (tx, rx) = &mut open[0];
    tx.shutdown().await.unwrap();
    assert_eq!(rx.next().await.unwrap(), None);
    echo().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_from_the_end_of_its_last_stream_on() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let mut items = numbers.stream(count(0, Ends::Never)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    seen.finish.notify_one();
    assert_eq!(items.next().await.unwrap(), None);
    drop(items);
    tokio::time::sleep(Duration::from_secs(30)).await;
    drop(numbers.stream(count(0, Ends::Well)).await.unwrap());
    assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), 1);
    tokio::time::sleep(Duration::from_secs(150)).await;
    drop(numbers.stream(count(0, Ends::Well)).await.unwrap());
    assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_room_for_a_connection_for_streams_is_left_alone_for_a_while() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let mut config = lab.config("b");
    config.services.connections_per_peer = 1;
    let b = lab.spawn_with(config, &["a"]).await;
    all_live(&[&a, &b]).await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    assert_eq!(numbers.call(Blob(vec![0; 9])).await.unwrap(), 9);
    for _ in 0..20 {
        let failed = failure(numbers.stream(count(0, Ends::Well)).await);
        assert!(matches!(failed, CallFailure::NotRun(NotRun::NotConnected(_))), "{failed:?}");
        // Its lane has nothing to do with that.
        assert_eq!(numbers.call(Blob(vec![0; 9])).await.unwrap(), 9);
    }
    assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_over_a_stream_is_counted_once() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    for node in [&a, &b] {
        let numbers = node.service::<Numbers>();
        for _ in 0..3 {
            drop(numbers.stream(count(0, Ends::Well)).await.unwrap());
        }
    }
    let callers = b.callers();
    let [one] = &callers[..] else { panic!("{callers:?}") };
    assert_eq!((&one.caller[..], one.calls), ("node a", 3));
}

#[tokio::test(start_paused = true)]
async fn a_dead_verdict_ends_streams() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let mut items = numbers.stream(count(1, Ends::Never)).await.unwrap();
    assert_eq!(items.next().await.unwrap(), Some(Number(0)));
    let upload = numbers.collect(Sum { until: 9 }).await.unwrap();
    let (_tx, mut rx) = numbers.duplex(Echo { fails_after: None }).await.unwrap();
    let mut events = a.subscribe();
    lab.isolate(b.node(), &[&a]);
    let dead = |event| matches!(event, Event::PeerDead { .. }).then_some(());
    next_event(&mut events, dead).await;
    let lost = |failure: CallFailure| {
        assert!(
            matches!(failure, CallFailure::Unknown(Lost::NodeDead | Lost::Connection(_))),
            "{failure:?}"
        );
    };
    lost(failure(items.next().await));
    lost(failure(upload.finish().await));
    assert!(rx.next().await.is_err());
    until("the handlers are dropped", || seen.running.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_room_is_refused_and_goes_elsewhere() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_at_b, at_b) = offers(&b, Access::members(), 1).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let first = numbers.stream(count(0, Ends::Never)).await.unwrap();
    until("it runs", || at_b.running.load(Ordering::Relaxed) == 1).await;
    let refused = failure(numbers.stream(count(0, Ends::Never)).await);
    let CallFailure::NotRun(NotRun::Overloaded { by: By::Service, .. }) = refused else {
        panic!("{refused:?}");
    };
    let (_at_a, at_a) = offers(&a, Access::members(), 1).await;
    numbers.ready(2, LONG).await.unwrap();
    let second = numbers.stream(count(0, Ends::Never)).await.unwrap();
    assert_eq!(at_a.running.load(Ordering::Relaxed), 1);
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_lets_streams_end() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, seen) = offers(&b, Access::members(), ALL).await;
    found(&a).await;
    let numbers = a.service::<Numbers>();
    let mut items = numbers.stream(count(2, Ends::Never)).await.unwrap();
    let drains = {
        let b = b.clone();
        tokio::spawn(async move { b.drain(LONG).await })
    };
    until("it is known", || a.offered().iter().all(|found| found.draining)).await;
    assert_eq!(
        failure(numbers.stream(count(2, Ends::Well)).await),
        CallFailure::NotRun(NotRun::Draining)
    );
    assert_eq!(items.next().await.unwrap(), Some(Number(0)));
    seen.finish.notify_one();
    assert_eq!(items.next().await.unwrap(), Some(Number(1)));
    assert_eq!(items.next().await.unwrap(), None);
    assert!(drains.await.unwrap());
}
