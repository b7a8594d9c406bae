//! What is counted and traced of calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    service::{Access, Call, CallEnd, CallOutcome, MethodFigures, Stub},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::harness::{Lab, id, until};

#[derive(Debug, Serialize, Deserialize)]
struct Ask(u32);

#[derive(Debug, Serialize, Deserialize)]
struct Tell;

#[derive(Debug, Serialize, Deserialize)]
struct Secret;

gossipmonger::service! {
    struct Oracle = "oracle", 3.0;

    1: call Ask -> u32;
    2: cast Tell;
    3: call Secret -> ();
}

const LONG: Duration = Duration::from_secs(600);

async fn offers(node: &Gossipmonger) -> (gossipmonger::service::Offer, Arc<Notify>) {
    offers_with_room(node, 2, 0).await
}

/// With room for so many requests that run, and that wait.
async fn offers_with_room(
    node: &Gossipmonger,
    concurrency: usize,
    queue: usize,
) -> (gossipmonger::service::Offer, Arc<Notify>) {
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let offer = node
        .offer::<Oracle>(Access::members())
        .call(move |ask: Ask, _| {
            let begins = Arc::clone(&begins);
            async move {
                match ask.0 {
                    0 => panic!("a handler panics on purpose"),
                    1 => {
                        begins.notify_one();
                        std::future::pending().await
                    }
                    answer => answer,
                }
            }
        })
        .cast(|_: Tell, _| async {})
        .call(|_: Secret, _| async {})
        .restrict(Secret::METHOD, Access::nobody())
        .room(concurrency, queue)
        .per_caller(100)
        .start()
        .await
        .unwrap();
    (offer, begun)
}

async fn oracle(node: &Gossipmonger) -> Stub<Oracle> {
    let oracle = node.service::<Oracle>();
    oracle.ready(1, LONG).await.unwrap();
    oracle
}

fn figures(node: &Gossipmonger, end: CallEnd, method: &str) -> MethodFigures {
    let all = node.service_figures().methods.into_iter();
    let mut wanted = all.filter(|row| {
        row.end == end && row.method.as_ref().is_some_and(|(_, name)| *name == method)
    });
    wanted.next().unwrap_or_else(|| panic!("no figures of {method}"))
}

/// The outcomes that are not zero.
fn ended(node: &Gossipmonger, end: CallEnd, method: &str) -> BTreeMap<&'static str, u64> {
    let row = figures(node, end, method);
    let ended = CallOutcome::ALL.map(|outcome| (outcome.as_str(), row.ended(outcome)));
    ended.into_iter().filter(|(_, times)| *times > 0).collect()
}

#[tokio::test(start_paused = true)]
async fn calls_and_casts_are_counted_by_outcome_at_both_ends() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, begun) = offers(&b).await;
    let oracle = oracle(&a).await;
    assert!(ended(&a, CallEnd::Caller, "Ask").is_empty());
    assert!(oracle.call(Secret).await.is_err());
    assert!(oracle.call(Ask(0)).await.is_err());
    for _ in 0..3 {
        assert_eq!(oracle.call(Ask(7)).await.unwrap(), 7);
    }
    oracle.cast(Tell).await.unwrap();
    let runs = tokio::spawn(oracle.call(Ask(1)).within(LONG).into_future());
    begun.notified().await;
    assert_eq!(figures(&a, CallEnd::Caller, "Ask").in_flight, 1);
    until("the cast has ended", || figures(&b, CallEnd::Provider, "Tell").in_flight == 0).await;
    assert_eq!(figures(&b, CallEnd::Provider, "Ask").in_flight, 1);
    let late = tokio::spawn(oracle.call(Ask(1)).within(Duration::from_secs(9)).into_future());
    begun.notified().await;
    assert!(oracle.call(Ask(7)).await.is_err(), "there is no room");
    assert!(late.await.unwrap().is_err());
    runs.abort();
    until("it is cancelled", || figures(&b, CallEnd::Provider, "Ask").in_flight == 0).await;

    let of = |list: &[(&'static str, u64)]| list.iter().copied().collect::<BTreeMap<_, _>>();
    let caller = of(&[("ok", 3), ("shed", 1), ("unknown", 1), ("failed", 1), ("cancelled", 1)]);
    assert_eq!(ended(&a, CallEnd::Caller, "Ask"), caller);
    let provider = of(&[("ok", 3), ("shed", 1), ("failed", 1), ("cancelled", 2)]);
    assert_eq!(ended(&b, CallEnd::Provider, "Ask"), provider);
    for (node, end) in [(&a, CallEnd::Caller), (&b, CallEnd::Provider)] {
        assert_eq!(ended(node, end, "Secret"), of(&[("not_run", 1)]));
        assert_eq!(ended(node, end, "Tell"), of(&[("ok", 1)]));
    }
    // Answered calls at the caller, all that ran at the provider.
    let counts = |node, end| figures(node, end, "Ask").latency().last().unwrap();
    assert_eq!(counts(&a, CallEnd::Caller), (None, 3));
    assert_eq!(counts(&b, CallEnd::Provider), (None, 6));
    // One ran until its deadline.
    let row = figures(&b, CallEnd::Provider, "Ask");
    assert!(row.latency_sum >= Duration::from_secs(9), "{:?}", row.latency_sum);
    let within_5s = row.latency().find(|(bound, _)| *bound == Some(Duration::from_secs(5)));
    assert!(within_5s.unwrap().1 < 6);
    let all = a.service_figures();
    assert_eq!((all.connections_out, all.connections_in, all.lane_queue_bytes), (1, 0, 0));
    assert_eq!(b.service_figures().connections_in, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_tried_again_counts_once_and_its_retries_apart() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    crate::harness::all_live(&[&a, &b, &c]).await;
    let (_at_b, begun) = offers(&b).await;
    let oracle = oracle(&a).await;
    let _full: Vec<_> = {
        let mut full = Vec::new();
        for _ in 0..2 {
            full.push(tokio::spawn(oracle.call(Ask(1)).within(LONG).into_future()));
            begun.notified().await;
        }
        full
    };
    let (_at_c, _) = offers(&c).await;
    oracle.ready(2, LONG).await.unwrap();
    let before = figures(&a, CallEnd::Caller, "Ask").ended(CallOutcome::Ok);
    while figures(&a, CallEnd::Caller, "Ask").retries == 0 {
        // A fresh stub does not know who is overloaded.
        let fresh = a.service::<Oracle>();
        assert_eq!(fresh.call(Ask(5)).await.unwrap(), 5);
    }
    let row = figures(&a, CallEnd::Caller, "Ask");
    assert!(row.ended(CallOutcome::Ok) > before);
    assert_eq!((row.retries, row.ended(CallOutcome::Shed)), (1, 0));
    assert!(oracle.at(&id("c")).is_some());
}

/// Keeps the fields of the spans of calls, and which spans are entered. The number of a span's parent is a field of it. If
/// the last field is true, the spans of nodes and of their exchanges are kept instead.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>, Arc<Mutex<Vec<Id>>>, bool);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match self.2 {
            true => ["node", "exchange"].contains(&metadata.name()),
            false => metadata.target() == "gossipmonger::service",
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::from([("span", span.metadata().name().to_owned())]);
        span.record(&mut Fields(&mut fields));
        let current = || self.1.lock().unwrap().last().cloned();
        let parent = if span.is_contextual() { current() } else { span.parent().cloned() };
        fields.insert("parent", parent.map_or(0, |id| id.into_u64()).to_string());
        let mut spans = self.0.lock().unwrap();
        spans.push(fields);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let place = span.into_u64() as usize - 1;
        values.record(&mut Fields(&mut self.0.lock().unwrap()[place]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.1.lock().unwrap().push(id.clone());
    }

    fn exit(&self, id: &Id) {
        let mut entered = self.1.lock().unwrap();
        if let Some(place) = entered.iter().rposition(|entered| entered == id) {
            entered.remove(place);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_span_at_each_end_if_a_subscriber_wants_it() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b).await;
    let oracle = oracle(&a).await;
    let spans = Spans::default();
    let guard = tracing::subscriber::set_default(spans.clone());
    assert_eq!(oracle.call(Ask(7)).await.unwrap(), 7);
    assert!(oracle.call(Ask(0)).await.is_err());
    drop(guard);
    assert_eq!(oracle.call(Ask(7)).await.unwrap(), 7);
    let spans = spans.0.lock().unwrap().clone();
    let row = |span: &BTreeMap<&'static str, String>| {
        let field = |name| span.get(name).cloned().unwrap_or_default();
        ["span", "service", "method", "node", "caller"].map(field)
    };
    let rows: Vec<_> = spans.iter().map(row).collect();
    let call = ["call", "oracle/3", "Ask", "b", ""].map(str::to_owned);
    let serve = ["serve", "oracle/3", "Ask", "", "node a"].map(str::to_owned);
    assert_eq!(rows, [call.clone(), serve.clone(), call, serve]);
    assert_eq!((&spans[0]["outcome"][..], &spans[2]["outcome"][..]), ("ok", "failed"));
    assert!(spans[2]["error"].contains("panicked"), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_request_that_has_waited_is_part_of_its_own_call() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let (_offer, begun) = offers_with_room(&a, 1, 8).await;
    let oracle = oracle(&a).await;
    let spans = Spans::default();
    let guard = tracing::subscriber::set_default(spans.clone());
    let first = tokio::spawn(oracle.call(Ask(1)).within(LONG).into_future());
    begun.notified().await;
    let second = tokio::spawn(oracle.call(Ask(7)).within(LONG).into_future());
    until("it waits", || figures(&a, CallEnd::Provider, "Ask").in_flight == 2).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), 7);
    drop(guard);
    let spans = spans.0.lock().unwrap().clone();
    let rows: Vec<_> = spans.iter().map(|span| (&span["span"][..], &span["parent"][..])).collect();
    // The numbers of the spans count from one.
    assert_eq!(rows, [("call", "0"), ("serve", "1"), ("call", "0"), ("serve", "3")]);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_has_a_span_at_each_end_in_that_of_its_node() {
    let lab = Lab::default();
    let spans = Spans(Arc::default(), Arc::default(), true);
    let guard = tracing::subscriber::set_default(spans.clone());
    let (_a, _b) = lab.pair().await;
    // Each exchange: which end has begun it, with whom, and at which node, by the span that it is in.
    let exchanges = || -> Vec<[String; 3]> {
        let spans = spans.0.lock().unwrap();
        let node = |span: &BTreeMap<&'static str, String>| {
            let place = span["parent"].parse::<usize>().unwrap().checked_sub(1)?;
            spans[place].get("node").cloned()
        };
        let exchanges = spans.iter().filter(|span| span["span"] == "exchange");
        let row = |span: &BTreeMap<_, String>| {
            [span["begun"].clone(), span["peer"].clone(), node(span).unwrap_or_default()]
        };
        exchanges.map(row).collect()
    };
    let begun = ["here", "a", "b"].map(str::to_owned);
    let answered = ["there", "b", "a"].map(str::to_owned);
    until("b has exchanged with its seed", || {
        let exchanges = exchanges();
        exchanges.contains(&begun) && exchanges.contains(&answered)
    })
    .await;
    drop(guard);
}
