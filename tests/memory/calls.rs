//! Calls between nodes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    Counter, Event, Gossipmonger, PeerState,
    service::{
        Access, By, CallError, CallFailure, Failure, Gone, Lost, NotRun, Offer, OfferError, Prefer,
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::harness::{Lab, all_live, id, next_event, until};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Level {
    item: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reserve {
    item: String,
    count: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counted(u32);

gossipmonger::service! {
    /// What a shop has in store.
    struct Stock = "stock", 2.1;

    1: call Level -> Option<u32>, idempotent;
    2: call Reserve -> Result<u32, String>;
    3: cast Counted, since 1;
}

/// The same service as a node knows it that was not upgraded.
mod old {
    use super::*;

    #[derive(Serialize, Deserialize)]
    pub(super) struct Level {
        pub(super) item: String,
    }

    gossipmonger::service! {
        pub(super) struct Stock = "stock", 2.0;
        1: call Level -> Option<u32>, idempotent;
    }
}

const LONG: Duration = Duration::from_secs(600);

fn tea() -> Level {
    Level { item: "tea".to_owned() }
}

fn reserve(count: u32) -> Reserve {
    Reserve { item: "tea".to_owned(), count }
}

/// Offers a stock whose level is `level`, and which answers each reservation by `answer`.
async fn offers<F>(
    node: &Gossipmonger,
    access: Access,
    level: u32,
    answer: impl Fn(u32) -> F + Clone + Send + Sync + 'static,
) -> Offer
where
    F: Future<Output = u32> + Send + 'static,
{
    let builder = node
        .offer::<Stock>(access)
        .call(move |_: Level, _| async move { Some(level) })
        .call(move |ask: Reserve, _| {
            let answer = answer.clone();
            async move { Ok(answer(ask.count).await) }
        })
        .cast(|_: Counted, _| async {});
    builder.start().await.unwrap()
}

async fn echoes(node: &Gossipmonger, level: u32) -> Offer {
    offers(node, Access::members(), level, |count| async move { count }).await
}

fn failure(result: Result<impl std::fmt::Debug, CallError>) -> CallFailure {
    result.unwrap_err().failure().clone()
}

async fn found(node: &Gossipmonger, providers: usize) {
    let waited = node.service::<Stock>().ready(providers, LONG).await;
    waited.unwrap_or_else(|_| panic!("{} does not find {providers} providers", node.node()));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_provider_has_not_run() {
    let lab = Lab::default();
    let (a, _b) = lab.pair().await;
    let failed = a.service::<Stock>().call(tea()).await;
    assert_eq!(failure(failed), CallFailure::NotRun(NotRun::NoProvider));
    let waited = a.service::<Stock>().ready(1, Duration::from_secs(1)).await;
    assert_eq!(failure(waited), CallFailure::NotRun(NotRun::NoProvider));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_call_is_refused() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = offers(&b, Access::node(id("c")), 3, |count| async move { count }).await;
    found(&a, 1).await;
    let failed = a.service::<Stock>().call(tea()).await.unwrap_err();
    assert_eq!(*failed.failure(), CallFailure::NotRun(NotRun::Forbidden));
    assert_eq!((failed.node(), failed.may_have_run()), (Some(&id("b")), false));
    assert_eq!(b.counters().get(Counter::CallsRefused), 1);
}

#[tokio::test(start_paused = true)]
async fn an_offer_needs_a_handler_for_each_method_and_a_name_of_its_own() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let level = |_: Level, _| async { Some(1) };
    let missing = a.offer::<Stock>(Access::members()).call(level).start().await;
    assert_eq!(
        missing.unwrap_err(),
        OfferError::NoHandler { service: "stock", number: 2, name: "Reserve" }
    );
    let twice = a.offer::<Stock>(Access::members()).call(level).call(level).start().await;
    assert_eq!(twice.unwrap_err(), OfferError::Methods { service: "stock", number: 1 });
    let _offer = echoes(&a, 1).await;
    let again = a
        .offer::<old::Stock>(Access::members())
        .call(|_: old::Level, _| async { None })
        .start()
        .await;
    assert!(matches!(again, Err(OfferError::Taken(_))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_cannot_be_published_or_comes_after_a_drain_fails() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.limits.keys = 1;
    let a = lab.spawn_with(config, &[]).await;
    a.set("key", "value").await.unwrap();
    let builder = |node: &Gossipmonger| {
        node.offer::<old::Stock>(Access::members()).call(|_: old::Level, _| async { None })
    };
    let refused = builder(&a).start().await.unwrap_err();
    assert!(matches!(refused, OfferError::NotAnnounced(_)), "{refused:?}");
    a.delete("key").await.unwrap();
    let _offer = builder(&a).start().await.unwrap();
    assert!(a.drain(LONG).await);
    assert_eq!(builder(&a).start().await.unwrap_err(), OfferError::Draining);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_calls_that_wait_can_be_given_up_at_once() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let _offer = a
        .offer::<Stock>(Access::members())
        .call(|_: Level, _| async { Some(1) })
        .call(move |ask: Reserve, _| {
            let gone = Arc::clone(&gone);
            async move {
                gone.notified().await;
                Ok(ask.count)
            }
        })
        .cast(|_: Counted, _| async {})
        .room(1, 1_000_000)
        .per_caller(100)
        .start()
        .await
        .unwrap();
    let stock = a.service::<Stock>();
    let first = tokio::spawn(stock.call(reserve(0)).within(LONG).into_future());
    let calls: Vec<_> = (0..30_000)
        .map(|n| tokio::spawn(stock.call(reserve(n)).within(LONG).into_future()))
        .collect();
    tokio::task::yield_now().await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    for call in calls {
        let _ = call.await;
    }
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), Ok(0));
    assert_eq!(stock.call(tea()).await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_node_itself_cannot_be_written() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let refused = a.set("~services", "nothing").await.unwrap_err();
    assert!(refused.to_string().contains("reserved"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_call_comes_back_with_the_answer_from_any_node() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = echoes(&b, 3).await;
    found(&a, 1).await;
    for node in [&a, &b] {
        let stock = node.service::<Stock>();
        assert_eq!(stock.call(tea()).await.unwrap(), Some(3), "{}", node.node());
        assert_eq!(stock.call(reserve(7)).await.unwrap(), Ok(7));
    }
    assert_eq!(b.counters().get(Counter::CallsAnswered), 4);
    assert_eq!(b.counters().get(Counter::ServiceConnectionsAccepted), 1);
}

#[tokio::test(start_paused = true)]
async fn the_caller_finds_only_providers_that_have_the_method() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = b
        .offer::<old::Stock>(Access::members())
        .call(|_: old::Level, _| async { Some(5) })
        .start()
        .await
        .unwrap();
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    assert_eq!(stock.call(tea()).await.unwrap(), Some(5));
    let too_old = failure(stock.cast(Counted(1)).await);
    assert!(matches!(too_old, CallFailure::NotRun(NotRun::TooOld { .. })), "{too_old:?}");
    // A caller that addresses the node itself learns it from there.
    let there = stock.at(&id("b")).unwrap();
    let failed = failure(there.call(reserve(1)).await);
    assert_eq!(failed, CallFailure::NotRun(NotRun::NoSuchMethod));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_or_is_late_fails_its_call_alone() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = offers(&b, Access::members(), 3, |count| async move {
        match count {
            1 => panic!("a handler panics on purpose"),
            2 => std::future::pending().await,
            count => count,
        }
    })
    .await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let failed = failure(stock.call(reserve(1)).await);
    assert_eq!(failed, CallFailure::Failed(Failure::Panicked));
    let late = stock.call(reserve(2)).within(Duration::from_millis(300)).await;
    assert_eq!(failure(late), CallFailure::Unknown(Lost::Deadline));
    assert_eq!(stock.call(reserve(3)).await.unwrap(), Ok(3));
    until("the late one is stopped", || b.counters().get(Counter::CallsAnswered) == 1).await;
    assert_eq!(b.counters().get(Counter::CallsFailed), 1);
}

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_stopped_at_the_other_end() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let begun = Arc::new(Notify::new());
    let begin = Arc::clone(&begun);
    let _offer = offers(&b, Access::members(), 3, move |_| {
        let (told, begin) = (Told(tell.clone()), Arc::clone(&begin));
        async move {
            begin.notify_one();
            let _told = told;
            std::future::pending().await
        }
    })
    .await;
    found(&a, 1).await;
    let call = tokio::spawn(a.service::<Stock>().call(reserve(1)).within(LONG).into_future());
    begun.notified().await;
    call.abort();
    told.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_verdict_ends_all_calls_before_it_is_told() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = Arc::clone(&begun);
    let _offer = offers(&b, Access::members(), 3, move |_| {
        begins.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    })
    .await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let mut calls: Vec<_> =
        (0..20).map(|n| tokio::spawn(stock.call(reserve(n)).within(LONG).into_future())).collect();
    let there = stock.at(&id("b")).unwrap();
    let watched = there.clone();
    let gone = tokio::spawn(async move { watched.gone().await });
    let mut events = a.subscribe();
    until("the calls run", || begun.load(Ordering::Relaxed) == 20).await;
    lab.isolate(b.node(), &[&a]);
    next_event(&mut events, |event| match event {
        Event::PeerDead { .. } => Some(()),
        _ => None,
    })
    .await;
    let mut kinds = Vec::new();
    for call in &mut calls {
        let ended = tokio::time::timeout(Duration::ZERO, call).await;
        kinds.push(failure(ended.expect("it ended before the event").unwrap()));
    }
    // The cut itself breaks the connection in memory.
    let expected = |kind: &CallFailure| {
        matches!(kind, CallFailure::Unknown(Lost::NodeDead | Lost::Connection(_)))
    };
    assert!(kinds.iter().all(expected), "{kinds:?}");
    assert_eq!(gone.await.unwrap(), Gone::NodeDead);
    assert_eq!(a.snapshot().member(b.node()).unwrap().state, PeerState::Dead);
    // Who calls it by its address is not kept waiting by a dial.
    let dead = failure(there.call(tea()).within(LONG).await);
    assert_eq!(dead, CallFailure::NotRun(NotRun::NotConnected("the node is dead".to_owned())));
    assert_eq!(a.counters().get(Counter::ServiceDialsFailed), 0);
    assert_eq!(failure(stock.call(tea()).await), CallFailure::NotRun(NotRun::NoProvider));
}

#[tokio::test(start_paused = true)]
async fn a_service_without_room_refuses_and_another_node_answers() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let runs = Arc::new(Notify::new());
    let begins = Arc::clone(&runs);
    let busy = |node: Gossipmonger| async move {
        node.offer::<Stock>(Access::members())
            .call(move |_: Level, _| {
                begins.notify_one();
                std::future::pending()
            })
            .call(|ask: Reserve, _| async move { Ok(ask.count) })
            .cast(|_: Counted, _| async {})
            .room(1, 0)
            .per_caller(100)
            .start()
            .await
            .unwrap()
    };
    let _at_b = busy(b.clone()).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let _running = tokio::spawn(stock.call(tea()).within(LONG).into_future());
    runs.notified().await;
    let refused = failure(stock.call(reserve(1)).await);
    assert!(
        matches!(
            refused,
            CallFailure::NotRun(NotRun::Overloaded { by: By::Peer | By::Service, .. })
        ),
        "{refused:?}"
    );
    let _at_c = echoes(&c, 9).await;
    found(&a, 2).await;
    for count in 0..20 {
        assert_eq!(stock.call(reserve(count)).await.unwrap(), Ok(count));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_room_begins_when_another_one_is_answered() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.services.calls_per_link = 1;
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
    let _offer = offers(&b, Access::members(), 3, move |count| {
        let (begun, go) = (Arc::clone(&begins), Arc::clone(&goes));
        async move {
            if count == 1 {
                begun.notify_one();
                go.notified().await;
            }
            count
        }
    })
    .await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let first = tokio::spawn(stock.call(reserve(1)).into_future());
    begun.notified().await;
    let within = Duration::from_secs(3);
    let second = tokio::spawn(stock.call(reserve(2)).within(within).into_future());
    // Paused time passes only when nothing else can go on: the second call waits for room then.
    tokio::time::sleep(Duration::from_millis(1)).await;
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), Ok(1));
    assert_eq!(second.await.unwrap().unwrap(), Ok(2), "it does not wait until its deadline");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_service_is_not_found_and_its_references_say_so() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let offer = echoes(&b, 3).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let there = stock.at(&id("b")).unwrap();
    assert_eq!(there.call(tea()).await.unwrap(), Some(3));
    assert!(offer.withdraw(LONG).await);
    assert_eq!(there.gone().await, Gone::Withdrawn);
    assert_eq!(failure(there.call(tea()).await), CallFailure::NotRun(NotRun::NoSuchService));
    assert_eq!(failure(stock.call(tea()).await), CallFailure::NotRun(NotRun::NoProvider));
    // The same service again is another registration.
    let _again = echoes(&b, 4).await;
    found(&a, 1).await;
    assert_eq!(there.is_gone(), Some(Gone::Withdrawn));
    assert_eq!(failure(there.call(tea()).await), CallFailure::NotRun(NotRun::NoSuchService));
    assert_ne!(stock.at(&id("b")).unwrap().address(), there.address());
}

#[tokio::test(start_paused = true)]
async fn an_address_travels_and_is_bound_to_its_service_only() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = echoes(&b, 3).await;
    found(&a, 1).await;
    let address = a.service::<Stock>().at(&id("b")).unwrap().address();
    let text = serde_json::to_string(&address).unwrap();
    let bound = b.bind::<Stock>(serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(bound.call(tea()).await.unwrap(), Some(3));

    #[derive(Serialize, Deserialize)]
    struct Ping;
    gossipmonger::service! { struct Other = "other", 1.0; 1: call Ping -> (); }
    let wrong = a.bind::<Other>(serde_json::from_str(&text).unwrap()).unwrap_err();
    assert!(wrong.to_string().contains("stock/2"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_drains_and_no_call_is_lost() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let slow = |count| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        count
    };
    let _at_b = offers(&b, Access::members(), 1, slow).await;
    let _at_c = offers(&c, Access::members(), 2, slow).await;
    found(&a, 2).await;
    let stock = a.service::<Stock>();
    let ended = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..50_u32)
        .map(|n| {
            let (stock, ended) = (stock.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                for round in 0..10 {
                    let count = n * 100 + round;
                    assert_eq!(stock.call(reserve(count)).await.unwrap(), Ok(count));
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("calls are under way", || ended.load(Ordering::Relaxed) > 50).await;
    b.leave_for_now().await.unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(b.counters().get(Counter::CallsAnswered) > 20);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_offers_nothing_of_before() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let config = lab.config("b");
    let b = lab.spawn_with(config.clone(), &["a"]).await;
    all_live(&[&a, &b]).await;
    let offer = echoes(&b, 3).await;
    found(&a, 1).await;
    let there = a.service::<Stock>().at(&id("b")).unwrap();
    b.shutdown().await;
    std::mem::forget(offer);
    let b = lab.spawn_with(config, &["a"]).await;
    all_live(&[&a, &b]).await;
    assert_eq!(there.gone().await, Gone::Restarted);
    assert!(a.service::<Stock>().at(&id("b")).is_none());
    let _offer = echoes(&b, 4).await;
    found(&a, 1).await;
    assert_eq!(a.service::<Stock>().call(tea()).await.unwrap(), Some(4));
    let old = failure(there.call(tea()).await);
    assert!(matches!(old, CallFailure::NotRun(NotRun::NotConnected(_))), "{old:?}");
}

#[tokio::test(start_paused = true)]
async fn each_provider_answers_a_gathering_question() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let _at_a = echoes(&a, 1).await;
    let _at_b = offers(&b, Access::nobody(), 2, |count| async move { count }).await;
    found(&a, 2).await;
    let answers = a.service::<Stock>().gather(&tea(), LONG).await;
    let [(first, level), (second, refused)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((first, level.as_ref().unwrap()), (&id("a"), &Some(1)));
    assert_eq!(second, &id("b"));
    assert!(refused.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_belongs_to_the_same_node_whoever_asks() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let _offers = (echoes(&a, 1).await, echoes(&b, 2).await);
    found(&a, 2).await;
    found(&b, 2).await;
    let owner = |node: &Gossipmonger, key: u32| {
        node.service::<Stock>().by_key(key.to_le_bytes()).unwrap().node().clone()
    };
    let owners: Vec<_> = (0..100).map(|key| owner(&a, key)).collect();
    assert!((0..100).all(|key| owner(&b, key) == owners[key as usize]));
    assert!(owners.iter().any(|node| *node == id("a")) && owners.iter().any(|n| *n == id("b")));
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_prefer_its_own_node() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offers = (echoes(&a, 1).await, echoes(&b, 2).await);
    found(&a, 2).await;
    let here = a.service::<Stock>().prefer(Prefer::Here);
    for _ in 0..20 {
        assert_eq!(here.call(tea()).await.unwrap(), Some(1));
    }
}

/// An actor whose messages are its own: nothing of them is for the wire.
struct Shelf;

enum ShelfMessage {
    Level(String, RpcReplyPort<Option<u32>>),
    Reserve(u32, RpcReplyPort<Result<u32, String>>),
    Count(u32),
}

#[cfg(feature = "cluster")]
impl ractor::Message for ShelfMessage {}

#[ractor::actor(message = ShelfMessage, state = Arc<Mutex<Vec<u32>>>, arguments = Arc<Mutex<Vec<u32>>>)]
impl Shelf {
    async fn pre_start(
        &self,
        _: ActorRef<ShelfMessage>,
        counted: Arc<Mutex<Vec<u32>>>,
    ) -> Result<Arc<Mutex<Vec<u32>>>, ActorProcessingErr> {
        Ok(counted)
    }

    async fn handle(
        &self,
        myself: ActorRef<ShelfMessage>,
        message: ShelfMessage,
        counted: &mut Arc<Mutex<Vec<u32>>>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShelfMessage::Level(item, reply) if item == "tea" => {
                assert!(reply.get_timeout().is_some());
                let _ = reply.send(Some(3));
            }
            // Dropped without an answer.
            ShelfMessage::Level(..) => {}
            ShelfMessage::Reserve(0, _port) => myself.stop(None),
            ShelfMessage::Reserve(count, reply) => drop(reply.send(Ok(count))),
            ShelfMessage::Count(count) => counted.lock().unwrap().push(count),
        }
        Ok(())
    }
}

async fn offers_shelf(node: &Gossipmonger) -> (Offer, Arc<Mutex<Vec<u32>>>) {
    let counted = Arc::new(Mutex::new(Vec::new()));
    let (shelf, _) = Actor::spawn(None, Shelf, Arc::clone(&counted)).await.unwrap();
    let offer = node
        .offer::<Stock>(Access::members())
        .actor(&shelf)
        .asks(|ask: Level, reply| ShelfMessage::Level(ask.item, reply))
        .asks(|ask: Reserve, reply| ShelfMessage::Reserve(ask.count, reply))
        .tells(|told: Counted| ShelfMessage::Count(told.0))
        .start()
        .await
        .unwrap();
    (offer, counted)
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_gives_no_answer_or_ends_fails_the_call_at_once() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers_shelf(&b).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    let there = stock.at(&id("b")).unwrap();
    let none = failure(stock.call(Level { item: "milk".to_owned() }).within(LONG).await);
    assert_eq!(none, CallFailure::Failed(Failure::NoAnswer));
    let ended = failure(stock.call(reserve(0)).within(LONG).await);
    assert!(
        matches!(ended, CallFailure::Failed(Failure::ActorEnded | Failure::NoAnswer)),
        "{ended:?}"
    );
    assert_eq!(there.gone().await, Gone::Withdrawn);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_to_messages_that_panics_fails_its_call_alone() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (shelf, _) = Actor::spawn(None, Shelf, Arc::default()).await.unwrap();
    let _offer = b
        .offer::<Stock>(Access::members())
        .actor(&shelf)
        .asks(|ask: Level, reply| ShelfMessage::Level(ask.item, reply))
        .asks(|_: Reserve, _| panic!("a mapping panics on purpose"))
        .tells(|_: Counted| panic!("a mapping panics on purpose"))
        .start()
        .await
        .unwrap();
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    for _ in 0..300 {
        stock.cast(Counted(1)).await.unwrap();
    }
    assert_eq!(failure(stock.call(reserve(1)).await), CallFailure::Failed(Failure::Panicked));
    assert_eq!(stock.call(tea()).await.unwrap(), Some(3));
    assert_eq!(b.counters().get(Counter::ServiceConnectionsAccepted), 1);
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_asked_and_told_in_order() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, counted) = offers_shelf(&b).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    assert_eq!(stock.call(tea()).await.unwrap(), Some(3));
    for count in 0..500 {
        stock.cast(Counted(count)).await.unwrap();
    }
    // It is behind them in the same order.
    assert_eq!(stock.call(reserve(7)).await.unwrap(), Ok(7));
    assert_eq!(*counted.lock().unwrap(), (0..500).collect::<Vec<_>>());
    assert_eq!(b.counters().get(Counter::CastsTaken), 500);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_the_next_call_opens_another() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.services.idle = Duration::from_millis(100);
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let _offer = echoes(&b, 3).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    for round in 1..20 {
        assert_eq!(stock.call(tea()).await.unwrap(), Some(3));
        assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), round);
        stock.cast(Counted(1)).await.unwrap();
        // In the last rounds about as long as it may be idle.
        let pause = if round < 5 { 500 } else { 195 + round };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cast_never_waits_if_it_may_not() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = echoes(&b, 3).await;
    found(&a, 1).await;
    let stock = a.service::<Stock>();
    // No turn of the runtime passes in between: nothing is sent.
    let mut sent = 0;
    let refused = loop {
        match stock.try_cast(&Counted(u32::MAX)) {
            Ok(()) => sent += 1,
            Err(refused) => break refused,
        }
    };
    let full =
        CallFailure::NotRun(NotRun::Overloaded { by: By::Link, retry_after: Duration::ZERO });
    assert_eq!((refused.failure(), sent > 1_000), (&full, true), "{sent}");
    stock.cast(Counted(1)).await.unwrap();
}

/// Two nodes that offer a stock: `b` answers when it is told to, `c` at once.
async fn slow_and_fast(lab: &Lab) -> ([Gossipmonger; 3], (Offer, Offer), Arc<Notify>) {
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let builder = b
        .offer::<Stock>(Access::members())
        .call(move |_: Level, _| {
            let told = Arc::clone(&told);
            async move {
                told.notified().await;
                Some(1)
            }
        })
        .call(|_: Reserve, _| std::future::pending())
        .cast(|_: Counted, _| async {});
    let slow = builder.start().await.unwrap();
    let fast = echoes(&c, 2).await;
    found(&a, 2).await;
    ([a, b, c], (slow, fast), go)
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_takes_the_first_answer_and_cancels_the_other_attempt() {
    let lab = Lab::default();
    let ([a, b, _c], _offers, _go) = slow_and_fast(&lab).await;
    let stock = a.service::<Stock>();
    let hedge = Duration::from_millis(50);
    // Until the slow node is picked first.
    while a.counters().get(Counter::CallsHedged) == 0 {
        let answer = stock.call(tea()).hedge(hedge).within(LONG).await;
        assert_eq!(answer.unwrap(), Some(2));
    }
    // What waits at the slow node was cancelled, so it can drain.
    assert!(b.drain(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_goes_to_no_node_that_has_failed_already() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let full = b
        .offer::<Stock>(Access::members())
        .call(|_: Level, _| std::future::pending())
        .call(|_: Reserve, _| std::future::pending())
        .cast(|_: Counted, _| async {})
        .room(1, 0);
    let _full = full.start().await.unwrap();
    let slow = c
        .offer::<Stock>(Access::members())
        .call(|_: Level, _| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some(2)
        })
        .call(|_: Reserve, _| std::future::pending())
        .cast(|_: Counted, _| async {});
    let _slow = slow.start().await.unwrap();
    found(&a, 2).await;
    let stock = a.service::<Stock>();
    let there = stock.at(b.node()).unwrap();
    let _taken = tokio::spawn(there.call(reserve(1)).within(LONG).into_future());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counted =
        || (a.counters().get(Counter::CallsRetried), a.counters().get(Counter::CallsHedged));
    loop {
        let before = counted();
        // A stub that knows nothing of the two yet.
        let call = a.service::<Stock>().call(tea()).hedge(Duration::from_millis(50)).within(LONG);
        assert_eq!(call.await.unwrap(), Some(2));
        if counted().0 > before.0 {
            assert_eq!(counted().1, before.1, "the node that has refused it is asked again");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_runs_in_the_task_of_a_reader_and_in_that_of_no_other_handler() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (notes, begins, goes) = (Arc::clone(&tasks), Arc::clone(&begun), Arc::clone(&go));
    let builder = b
        .offer::<Stock>(Access::members())
        .call(move |_: Level, _| {
            notes.lock().unwrap().push(tokio::task::try_id());
            async { Some(1) }
        })
        .call(move |_: Reserve, _| {
            let (begins, goes) = (Arc::clone(&begins), Arc::clone(&goes));
            async move {
                begins.notify_one();
                goes.notified().await;
                Ok(1)
            }
        })
        .cast(|_: Counted, _| async {})
        .room(1, 100)
        .per_caller(100);
    let _offer = builder.start().await.unwrap();
    found(&a, 1).await;
    let ran_in = || std::mem::take(&mut *tasks.lock().unwrap());
    let distinct = |mut tasks: Vec<_>| {
        tasks.dedup();
        tasks.len()
    };
    // Over a lane they run in the task of its reader, once they are known to be short.
    for _ in 0..100 {
        a.service::<Stock>().call(tea()).await.unwrap();
    }
    assert!(distinct(ran_in()) < 80);
    // Those of the node itself have a task each.
    for _ in 0..100 {
        b.service::<Stock>().call(tea()).await.unwrap();
    }
    let own = ran_in();
    assert!(own.iter().all(Option::is_some));
    assert_eq!(distinct(own), 100);
    // So have those that have waited for room.
    let stock = a.service::<Stock>();
    let first = tokio::spawn(stock.call(reserve(1)).within(LONG).into_future());
    begun.notified().await;
    let waiting: Vec<_> =
        (0..50).map(|_| tokio::spawn(stock.call(tea()).within(LONG).into_future())).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    go.notify_one();
    first.await.unwrap().unwrap().unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!(distinct(ran_in()), 50);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_must_not_run_twice_or_goes_to_one_node_is_not_hedged() {
    let lab = Lab::default();
    let ([a, b, _c], _offers, go) = slow_and_fast(&lab).await;
    let stock = a.service::<Stock>();
    let there = stock.at(b.node()).unwrap();
    let call = tokio::spawn(there.call(tea()).hedge(Duration::ZERO).within(LONG).into_future());
    let reserved = stock.at(b.node()).unwrap().call(reserve(1)).hedge(Duration::ZERO);
    assert!(reserved.within(Duration::from_secs(1)).await.is_err());
    go.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), Some(1));
    assert_eq!(a.counters().get(Counter::CallsHedged), 0);
}
