//! Watching providers, and ractor actors that refer to remote services.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    Counter, Gossipmonger,
    service::{
        Access, By, CallError, CallFailure, Forward, Gone, Lost, NotRun, Offer, ProviderChange,
        ProviderChanges, RemoteGone, Stub,
    },
    subscription::SubscriptionError,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::harness::{Lab, all_live, id, until};

#[derive(Debug, Serialize, Deserialize)]
struct Level(u32);

#[derive(Debug, Serialize, Deserialize)]
struct Wait;

#[derive(Debug, Serialize, Deserialize)]
struct Count(u32);

gossipmonger::service! {
    /// For tests.
    struct Shop = "shop", 1.0;

    1: call Level -> u32, idempotent;
    2: call Wait -> ();
    3: cast Count;
}

const LONG: Duration = Duration::from_secs(600);

/// Offers a shop that notes what it is told, in order: the levels that it is asked for, and the counts.
async fn offers(node: &Gossipmonger) -> (Offer, Arc<Mutex<Vec<u32>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (asked, waits, told) = (Arc::clone(&notes), Arc::clone(&notes), Arc::clone(&notes));
    let offer = node
        .offer::<Shop>(Access::members())
        .call(move |ask: Level, _| {
            asked.lock().unwrap().push(ask.0);
            async move { ask.0 }
        })
        .call(move |_: Wait, _| {
            waits.lock().unwrap().push(u32::MAX);
            std::future::pending()
        })
        .cast(move |count: Count, _| {
            told.lock().unwrap().push(count.0);
            async {}
        })
        .start()
        .await
        .unwrap();
    (offer, notes)
}

async fn shop(node: &Gossipmonger, providers: usize) -> Stub<Shop> {
    let shop = node.service::<Shop>();
    shop.ready(providers, LONG).await.unwrap();
    shop
}

/// A change as text, for example `joined b`.
fn text(change: &ProviderChange<Shop>) -> String {
    match change {
        ProviderChange::Joined { remote, offer } => {
            assert_eq!(*remote.node(), offer.node);
            format!("joined {}", offer.node)
        }
        ProviderChange::Changed { offer, .. } if offer.draining => format!("drains {}", offer.node),
        ProviderChange::Changed { offer, .. } if offer.suspect => format!("suspect {}", offer.node),
        ProviderChange::Changed { offer, .. } => format!("changed {}", offer.node),
        ProviderChange::Left { remote, why } => format!("left {}: {why:?}", remote.node()),
        other => panic!("{other:?}"),
    }
}

async fn next(changes: &mut ProviderChanges<Shop>) -> String {
    let next = tokio::time::timeout(LONG, changes.next()).await;
    text(&next.expect("no change").unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_what_nobody_offers_is_silent_and_ends_with_its_node() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let mut changes = a.service::<Shop>().watch();
    let silent = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    a.shutdown().await;
    assert!(matches!(changes.next().await, Err(SubscriptionError::Ended)));
    assert!(futures_util::StreamExt::next(&mut changes).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_reports_who_is_there_and_then_each_change_with_its_reason() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let (at_b, _) = offers(&b).await;
    let mut changes = shop(&a, 1).await.watch();
    assert_eq!(next(&mut changes).await, "joined b");
    let (_at_c, _) = offers(&c).await;
    assert_eq!(next(&mut changes).await, "joined c");
    assert!(at_b.withdraw(LONG).await);
    assert_eq!(next(&mut changes).await, "left b: Withdrawn");
    let (_at_b, notes) = offers(&b).await;
    assert_eq!(next(&mut changes).await, "joined b");
    let there = a.service::<Shop>().at(&id("b")).unwrap();
    // Something runs there, so it drains as long as it may.
    let _running = tokio::spawn(there.call(Wait).within(LONG).into_future());
    until("it runs", || !notes.lock().unwrap().is_empty()).await;
    tokio::spawn(async move { b.leave_for_now().await });
    assert_eq!(next(&mut changes).await, "drains b");
    assert_eq!(next(&mut changes).await, "left b: NodeLeft");
    lab.isolate(c.node(), &[&a]);
    let mut last = next(&mut changes).await;
    if last == "suspect c" {
        last = next(&mut changes).await;
    }
    assert_eq!(last, "left c: NodeDead");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_not_read_shows_the_newest_state() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (mut offer, _) = offers(&b).await;
    let shop = shop(&a, 1).await;
    let mut changes = shop.watch();
    assert_eq!(next(&mut changes).await, "joined b");
    for _ in 0..5 {
        assert!(offer.withdraw(LONG).await);
        offer = offers(&b).await.0;
    }
    let newest = |stub: &Stub<Shop>| stub.at(&id("b")).map(|remote| remote.address());
    let there = b.service::<Shop>();
    until("the last offer is seen", || newest(&shop) == newest(&there)).await;
    assert_eq!(next(&mut changes).await, "left b: Withdrawn");
    match changes.next().await.unwrap() {
        ProviderChange::Joined { remote, .. } => {
            assert_eq!(Some(remote.address()), newest(&there));
        }
        other => panic!("{other:?}"),
    }
    drop(offer);
    assert_eq!(next(&mut changes).await, "left b: Withdrawn", "nothing waits in between");
}

/// An actor that passes on what it gets, also what happens to its children.
struct Inbox;

#[derive(Debug)]
enum Got {
    Gone(Gone),
    /// An actor under this one failed, with the reason.
    Failed(Option<RemoteGone>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for Got {}

#[ractor::actor(message = Got, state = mpsc::UnboundedSender<Got>, arguments = mpsc::UnboundedSender<Got>)]
impl Inbox {
    async fn pre_start(
        &self,
        _: ActorRef<Got>,
        to: mpsc::UnboundedSender<Got>,
    ) -> Result<mpsc::UnboundedSender<Got>, ActorProcessingErr> {
        Ok(to)
    }

    async fn handle(
        &self,
        _: ActorRef<Got>,
        message: Got,
        to: &mut mpsc::UnboundedSender<Got>,
    ) -> Result<(), ActorProcessingErr> {
        let _ = to.send(message);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Got>,
        event: SupervisionEvent,
        to: &mut mpsc::UnboundedSender<Got>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, why) = event {
            let _ = to.send(Got::Failed(why.downcast_ref::<RemoteGone>().cloned()));
        }
        Ok(())
    }
}

/// What an [`Inbox`] gets.
struct All(mpsc::UnboundedReceiver<Got>);

impl All {
    async fn next(&mut self) -> Got {
        let next = tokio::time::timeout(LONG, self.0.recv()).await;
        next.expect("no message").unwrap()
    }
}

async fn inbox() -> (ActorRef<Got>, All) {
    let (to, from) = mpsc::unbounded_channel();
    let (inbox, _) = Actor::spawn(None, Inbox, to).await.unwrap();
    (inbox, All(from))
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_notified_once_and_only_as_long_as_it_asks() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (offer, _) = offers(&b).await;
    let there = shop(&a, 1).await.at(&id("b")).unwrap();
    let (inbox, mut got) = inbox().await;
    drop(there.notify(&inbox, |_| panic!("it was dropped")));
    let kept = there.notify(&inbox, Got::Gone);
    there.notify(&inbox, Got::Gone).detach();
    assert!(offer.withdraw(LONG).await);
    for _ in 0..2 {
        assert!(matches!(got.next().await, Got::Gone(Gone::Withdrawn)));
    }
    let further = tokio::time::timeout(Duration::from_secs(60), got.0.recv()).await;
    assert!(further.is_err(), "{further:?}");
    drop(kept);
    // What is gone already is told at once.
    there.notify(&inbox, Got::Gone).detach();
    assert!(matches!(got.next().await, Got::Gone(Gone::Withdrawn)));
}

#[tokio::test(start_paused = true)]
async fn a_notification_ends_with_its_actor_and_tells_of_the_end_of_its_own_node() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b).await;
    let there = shop(&a, 1).await.at(&id("b")).unwrap();
    let (ended, mut nothing) = inbox().await;
    let (told, mut got) = inbox().await;
    // The closure is dropped with the task that holds it.
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let ending = there.notify(&ended, move |gone| {
        drop(holds);
        Got::Gone(gone)
    });
    there.notify(&told, Got::Gone).detach();
    ended.stop_and_wait(None, None).await.unwrap();
    until("the notification has ended", || Arc::strong_count(&held) == 1).await;
    assert!(nothing.0.recv().await.is_none());
    drop(ending);
    a.shutdown().await;
    assert!(matches!(got.next().await, Got::Gone(Gone::Stopped)));
}

/// The messages of a local actor that stands for a shop.
enum Local {
    Level(u32, RpcReplyPort<u32>),
    /// The port takes the error as well.
    Checked(u32, RpcReplyPort<Result<u32, CallError>>),
    Wait(RpcReplyPort<Result<(), CallError>>),
    Count(u32),
    #[expect(dead_code, reason = "nothing reads what is refused")]
    Unknown(RpcReplyPort<u32>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for Local {}

fn forward(message: Local, to: &mut Forward<Shop>) {
    match message {
        Local::Level(item, reply) => to.call(Level(item), reply),
        Local::Checked(item, reply) => to.call(Level(item), reply),
        Local::Wait(reply) => to.call(Wait, reply),
        Local::Count(count) => to.cast(Count(count)),
        other => to.refuse(other),
    }
}

fn failure(result: Result<impl std::fmt::Debug, CallError>) -> CallFailure {
    result.unwrap_err().failure().clone()
}

#[tokio::test(start_paused = true)]
async fn an_address_of_an_invented_generation_is_refused_and_ends_no_link() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, notes) = offers(&b).await;
    let there = shop(&a, 1).await.at(&id("b")).unwrap();
    let running = tokio::spawn(there.call(Wait).within(LONG).into_future());
    until("it runs", || !notes.lock().unwrap().is_empty()).await;
    let address = serde_json::to_value(there.address()).unwrap();
    let present = address["generation"].as_u64().unwrap();
    for invented in [0, present - 1, present + 1, u64::MAX] {
        let mut address = address.clone();
        address["generation"] = invented.into();
        let other = a.bind::<Shop>(serde_json::from_value(address).unwrap()).unwrap();
        let failed = other.call(Level(1)).await.unwrap_err();
        let not_run = matches!(failed.failure(), CallFailure::NotRun(NotRun::NotConnected(_)));
        assert!(not_run, "{failed}");
    }
    assert_eq!(there.call(Level(7)).await.unwrap(), 7);
    assert!(!running.is_finished());
    assert_eq!(a.counters().get(Counter::ServiceConnectionsDialed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_what_nobody_offers_or_what_is_gone_does_not_start() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (supervisor, _) = inbox().await;
    let none = a.service::<Shop>().proxy(supervisor.get_cell(), forward).await.unwrap_err();
    let SpawnErr::StartupFailed(why) = none else { panic!("{none:?}") };
    let why = why.downcast_ref::<CallError>().unwrap().failure();
    assert_eq!(*why, CallFailure::NotRun(NotRun::NoProvider));
    let (offer, _) = offers(&b).await;
    let there = shop(&a, 1).await.at(&id("b")).unwrap();
    assert!(offer.withdraw(LONG).await);
    assert_eq!(there.gone().await, Gone::Withdrawn);
    let gone = there.proxy(supervisor.get_cell(), forward).await.unwrap_err();
    let SpawnErr::StartupFailed(why) = gone else { panic!("{gone:?}") };
    assert_eq!(why.downcast_ref::<RemoteGone>().unwrap().why, Gone::Withdrawn);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_has_no_more_calls_under_way_than_it_may() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, _) = offers(&b).await;
    let (supervisor, _) = inbox().await;
    let errors = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&errors);
    let proxy = shop(&a, 1)
        .await
        .proxy(supervisor.get_cell(), forward)
        .calls_max(2)
        .on_error(move |error| noted.lock().unwrap().push(error.failure().clone()))
        .await
        .unwrap();
    let waits: Vec<_> = (0..2)
        .map(|_| {
            let (to, from) = ractor::concurrency::oneshot();
            proxy.cast(Local::Wait(to.into())).unwrap();
            from
        })
        .collect();
    let full =
        CallFailure::NotRun(NotRun::Overloaded { by: By::Caller, retry_after: Duration::ZERO });
    let checked = proxy.call(|reply| Local::Checked(1, reply), Some(LONG)).await.unwrap();
    assert_eq!(failure(checked.unwrap()), full);
    // A port that takes no error is dropped, and so is that of a message that the shop has nothing for.
    let level = proxy.call(|reply| Local::Level(1, reply), Some(LONG)).await.unwrap();
    assert!(level.is_send_error(), "{level:?}");
    let unknown = proxy.call(Local::Unknown, Some(LONG)).await.unwrap();
    assert!(unknown.is_send_error(), "{unknown:?}");
    assert_eq!(*errors.lock().unwrap(), [full.clone(), full]);
    assert_eq!(a.counters().get(Counter::ProxyMessagesRefused), 3);
    // Its calls end with it.
    proxy.stop_and_wait(None, None).await.unwrap();
    for wait in waits {
        assert!(wait.await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_answers_local_ports_and_keeps_the_order_of_messages() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (_offer, notes) = offers(&b).await;
    let (supervisor, _) = inbox().await;
    let there = shop(&a, 1).await.at(&id("b")).unwrap();
    let proxy = there.proxy(supervisor.get_cell(), forward).name("the shop").await.unwrap();
    assert_eq!(ractor::registry::where_is("the shop").unwrap().get_id(), proxy.get_id());
    let mut answers = Vec::new();
    for n in 0..100 {
        let (to, from) = ractor::concurrency::oneshot();
        proxy.cast(Local::Level(2 * n, to.into())).unwrap();
        proxy.cast(Local::Count(2 * n + 1)).unwrap();
        answers.push((2 * n, from));
    }
    for (level, answer) in answers {
        assert_eq!(answer.await.unwrap(), level);
    }
    until("all have arrived", || notes.lock().unwrap().len() == 200).await;
    assert_eq!(*notes.lock().unwrap(), (0..200).collect::<Vec<_>>());
    // The timeout of the port is the deadline of the call.
    let (to, from) = ractor::concurrency::oneshot();
    proxy.cast(Local::Wait((to, Duration::from_millis(300)).into())).unwrap();
    assert_eq!(failure(from.await.unwrap()), CallFailure::Unknown(Lost::Deadline));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_fails_when_its_node_is_dead_and_another_one_takes_its_place() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let (_at_b, _) = offers(&b).await;
    let shop = shop(&a, 1).await;
    let (supervisor, mut got) = inbox().await;
    let proxy = shop.proxy(supervisor.get_cell(), forward).await.unwrap();
    let (to, pending) = ractor::concurrency::oneshot();
    proxy.cast(Local::Wait((to, LONG).into())).unwrap();
    let level = proxy.call(|reply| Local::Level(7, reply), Some(LONG)).await.unwrap();
    assert_eq!(level.unwrap(), 7);
    lab.isolate(b.node(), &[&a, &c]);
    let Got::Failed(Some(gone)) = got.next().await else { panic!("no reason") };
    assert_eq!((&gone.node, gone.why), (b.node(), Gone::NodeDead));
    assert_eq!(gone.to_string(), "shop/1 at b is gone: the node is dead");
    // The call that was under way has ended with its reason.
    let lost = failure(pending.await.unwrap());
    assert!(matches!(lost, CallFailure::Unknown(_)), "{lost:?}");
    assert!(proxy.cast(Local::Count(1)).is_err());
    let (_at_c, _) = offers(&c).await;
    shop.ready(1, LONG).await.unwrap();
    let again = shop.proxy(supervisor.get_cell(), forward).await.unwrap();
    let level = again.call(|reply| Local::Level(8, reply), Some(LONG)).await.unwrap();
    assert_eq!(level.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_stands_for_a_service_of_its_own_node_as_well() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let (offer, _) = offers(&a).await;
    let (supervisor, mut got) = inbox().await;
    let shop = shop(&a, 1).await;
    let proxy = shop.proxy(supervisor.get_cell(), forward).await.unwrap();
    let level = proxy.call(|reply| Local::Level(7, reply), Some(LONG)).await.unwrap();
    assert_eq!(level.unwrap(), 7);
    drop(offer);
    let Got::Failed(Some(gone)) = got.next().await else { panic!("no reason") };
    assert_eq!(gone.why, Gone::Withdrawn);
}
