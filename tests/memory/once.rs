//! Calls that come again, and what travels beside a question.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    Counter, Gossipmonger,
    service::{
        Access, By, CallFailure, Failure, Lost, NotRun, ONCE_PER_CALLER, ONCE_REPLY_MAX, Offer,
        OfferError, Propagator, TraceContext,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::harness::{Lab, id, until};

/// Takes so much.
#[derive(Clone, Serialize, Deserialize)]
struct Take(u32);

/// Says which call it is, and of which trace.
#[derive(Serialize, Deserialize)]
struct Which;

gossipmonger::service! {
    /// For tests.
    struct Till = "till", 1.0;

    1: call Take -> Vec<u8>;
    2: call Which -> (String, Option<String>), idempotent;
}

const LONG: Duration = Duration::from_secs(600);
const WINDOW: Duration = Duration::from_secs(60);

/// A till at a node, which counts what it takes. Each run of `Take` waits for a permit, then answers so many bytes;
/// none for 0: then it panics.
struct Shop {
    _offer: Offer,
    runs: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

async fn shop(node: &Gossipmonger, once: Option<Duration>) -> Shop {
    let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (ran, gone) = (Arc::clone(&runs), Arc::clone(&go));
    let builder = node
        .offer::<Till>(Access::members())
        .call(move |take: Take, _| {
            let (ran, gone) = (Arc::clone(&ran), Arc::clone(&gone));
            async move {
                ran.fetch_add(1, Ordering::Relaxed);
                gone.acquire().await.unwrap().forget();
                assert!(take.0 > 0, "a handler panics on purpose");
                vec![7; take.0 as usize]
            }
        })
        .call(|_: Which, context| {
            let trace = context.trace().map(|trace| trace.to_string());
            std::future::ready((context.id().to_string(), trace))
        });
    let builder = match once {
        Some(window) => builder.once(window),
        None => builder,
    };
    Shop { _offer: builder.start().await.unwrap(), runs, go }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_nothing_or_of_more_than_a_day_is_refused() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    for window in [Duration::ZERO, Duration::from_secs(86_401)] {
        let builder = a
            .offer::<Till>(Access::members())
            .call(|_: Take, _| std::future::ready(Vec::new()))
            .call(|_: Which, _| std::future::ready((String::new(), None)));
        let refused = builder.once(window).start().await.unwrap_err();
        assert_eq!(refused, OfferError::Limits("once"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_again_runs_once_if_the_offer_remembers_it() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let shop = shop(&b, Some(WINDOW)).await;
    let till = a.service::<Till>();
    till.ready(1, LONG).await.unwrap();
    let there = till.at(&id("b")).unwrap();
    // Its caller gives up before it has ended.
    let first = there.call(Take(3)).within(Duration::from_secs(1));
    let number = first.number();
    let lost = first.await.unwrap_err();
    assert_eq!(*lost.failure(), CallFailure::Unknown(Lost::Deadline));
    let again = tokio::spawn(there.call(Take(3)).repeats(number).within(LONG).into_future());
    until("it is known again", || b.counters().get(Counter::CallsRecalled) == 1).await;
    shop.go.add_permits(1);
    assert_eq!(again.await.unwrap().unwrap(), [7; 3]);
    assert_eq!(there.call(Take(3)).repeats(number).alone().await.unwrap(), [7; 3]);
    assert_eq!(shop.runs.load(Ordering::Relaxed), 1);
    // Another call is another one, and so is the same number of another caller.
    shop.go.add_permits(2);
    assert_eq!(there.call(Take(4)).await.unwrap(), [7; 4]);
    let own = b.service::<Till>().at(&id("b")).unwrap();
    assert_eq!(own.call(Take(5)).repeats(number).await.unwrap(), [7; 5]);
    assert_eq!(shop.runs.load(Ordering::Relaxed), 3);
    tokio::time::sleep(WINDOW).await;
    shop.go.add_permits(1);
    assert_eq!(there.call(Take(6)).repeats(number).await.unwrap(), [7; 6]);
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_or_was_too_long_is_not_run_again_either() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let shop = shop(&b, Some(WINDOW)).await;
    shop.go.add_permits(2);
    let till = a.service::<Till>();
    till.ready(1, LONG).await.unwrap();
    let there = till.at(&id("b")).unwrap();
    let panics = there.call(Take(0));
    let number = panics.number();
    let failed = panics.await.unwrap_err();
    assert_eq!(*failed.failure(), CallFailure::Failed(Failure::Panicked));
    let again = there.call(Take(0)).repeats(number).await.unwrap_err();
    assert_eq!(again.failure(), failed.failure());
    let long = there.call(Take(ONCE_REPLY_MAX as u32));
    let number = long.number();
    assert_eq!(long.await.unwrap().len(), ONCE_REPLY_MAX);
    let again = there.call(Take(1)).repeats(number).await.unwrap_err();
    assert_eq!(*again.failure(), CallFailure::Failed(Failure::NoAnswer), "the head counts too");
    assert_eq!(shop.runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_remembered_does_not_run() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let shop = shop(&b, Some(WINDOW)).await;
    shop.go.add_permits(Semaphore::MAX_PERMITS);
    let till = a.service::<Till>();
    till.ready(1, LONG).await.unwrap();
    for _ in 0..ONCE_PER_CALLER {
        till.call(Take(1)).await.unwrap();
    }
    let full = till.call(Take(1)).await.unwrap_err();
    let by_peer =
        CallFailure::NotRun(NotRun::Overloaded { by: By::Peer, retry_after: Duration::ZERO });
    assert_eq!(*full.failure(), by_peer);
    assert_eq!(shop.runs.load(Ordering::Relaxed), ONCE_PER_CALLER);
    assert_eq!(b.service::<Till>().call(Take(1)).await.unwrap(), [7], "another caller");
    tokio::time::sleep(WINDOW).await;
    till.call(Take(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_call_has_an_identity_of_its_own_by_whatever_way_it_comes() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _shop = shop(&b, None).await;
    let till = a.service::<Till>();
    till.ready(1, LONG).await.unwrap();
    let mut known = BTreeSet::new();
    for _ in 0..3 {
        for call in [till.call(Which), till.call(Which).alone(), b.service::<Till>().call(Which)] {
            known.insert(call.await.unwrap().0);
        }
    }
    assert_eq!(known.len(), 9, "{known:?}");
    let call = till.call(Which);
    let expected = format!("call {} of node a@", call.number());
    let answer = call.await.unwrap().0;
    assert!(answer.starts_with(&expected), "{answer}");
}

/// Says that all calls belong to one trace, and notes what it is told.
#[derive(Debug)]
struct Tracer(Mutex<Vec<TraceContext>>);

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

impl Propagator for Tracer {
    fn current(&self) -> Option<TraceContext> {
        TRACE.parse().ok()
    }

    fn received(&self, context: TraceContext, _span: &tracing::Span) {
        self.0.lock().unwrap().push(context);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_goes_with_its_calls() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _shop = shop(&b, None).await;
    let till = a.service::<Till>();
    till.ready(1, LONG).await.unwrap();
    let own: TraceContext = TRACE.replace("01", "00").parse().unwrap();
    assert_eq!(till.call(Which).await.unwrap().1, None);
    assert_eq!(till.call(Which).trace(own).await.unwrap().1, Some(own.to_string()));
    assert_eq!(till.call(Which).trace(own).alone().await.unwrap().1, Some(own.to_string()));
    let (ours, theirs) = (Arc::new(Tracer(Mutex::default())), Arc::new(Tracer(Mutex::default())));
    a.set_propagator(Arc::<Tracer>::clone(&ours));
    b.set_propagator(Arc::<Tracer>::clone(&theirs));
    assert_eq!(till.call(Which).await.unwrap().1.as_deref(), Some(TRACE));
    assert_eq!(till.call(Which).trace(own).await.unwrap().1, Some(own.to_string()));
    assert_eq!(*theirs.0.lock().unwrap(), [TRACE.parse().unwrap(), own]);
    assert!(ours.0.lock().unwrap().is_empty());
}
