//! Who hears of what, in which order, and what happens to those who fall behind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use gossipmonger::{
    Event, Gossipmonger, NodeId, Write,
    protocol::{event::ProtocolEvent, route::Counter},
    subscription::{Delivery, PrefixChange, SubscriptionError},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Semaphore;

use crate::harness::{Lab, all_live, drain, id, until};

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_told_how_much_it_missed() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.event_queue = 4;
    let node = lab.spawn_with(config, &[]).await;
    let mut events = node.subscribe();
    for n in 0..10 {
        node.set("n", n.to_string()).await.unwrap();
    }
    assert_eq!(events.next().await, Err(SubscriptionError::Lagged(6)));
    assert_eq!(node.counters().get(Counter::EventsLagged), 6);
    assert_eq!(node.get_str(node.node(), "n").as_deref(), Some("9"));
    let next = events.next().await.unwrap();
    assert!(
        matches!(&next, Event::Updated { value, .. } if value.as_str() == Some("6")),
        "{next:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_the_node_after_the_last_event() {
    let node = Lab::default().spawn("a", &[]).await;
    let mut events = node.subscribe();
    node.set("k", "v").await.unwrap();
    node.shutdown().await;
    assert!(matches!(events.next().await, Ok(Event::Updated { .. })));
    assert_eq!(events.next().await, Err(SubscriptionError::Ended));
    assert_eq!(events.next().await, Err(SubscriptionError::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_node_and_stays_ended() {
    let node = Lab::default().spawn("a", &[]).await;
    let (mut events, mut watch) = (node.subscribe(), node.watch_prefix("k"));
    let mut live = node.watch_live("k");
    node.set("k", "v").await.unwrap();
    node.shutdown().await;
    assert!(matches!(StreamExt::next(&mut events).await, Some(Ok(Event::Updated { .. }))));
    assert!(matches!(StreamExt::next(&mut watch).await, Some(Ok(_))));
    assert_eq!(StreamExt::next(&mut live).await.unwrap().value.unwrap().as_str(), Some("v"));
    for _ in 0..2 {
        assert_eq!(StreamExt::next(&mut events).await, None);
        assert_eq!(StreamExt::next(&mut watch).await, None);
        assert_eq!(StreamExt::next(&mut live).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lags_says_so_once_and_goes_on() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.event_queue = 4;
    let node = lab.spawn_with(config, &[]).await;
    let (events, watch, live) = (node.subscribe(), node.watch_prefix("n"), node.watch_live("n"));
    for n in 0..10 {
        node.set("n", n.to_string()).await.unwrap();
    }
    node.shutdown().await;
    let values = |change: PrefixChange| change.value.unwrap().as_str().unwrap().to_owned();
    let events: Vec<_> = events.collect().await;
    assert_eq!(events[0], Err(SubscriptionError::Lagged(6)));
    assert_eq!(events.len(), 5);
    assert!(events[1..].iter().all(Result::is_ok), "{events:?}");
    let watched: Vec<_> = watch.map(|change| change.map(values)).collect().await;
    let left = ["6", "7", "8", "9"].map(|value| Ok(value.to_owned()));
    assert_eq!(watched[0], Err(SubscriptionError::Lagged(6)));
    assert_eq!(watched[1..], left);
    // The last value is not lost, and nothing else is promised.
    assert_eq!(live.map(values).collect::<Vec<_>>().await, ["9"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_loses_no_event_to_a_call_that_was_cancelled() {
    let node = Lab::default().spawn("a", &[]).await;
    let mut events = node.subscribe();
    assert!(events.next().now_or_never().is_none());
    assert!(StreamExt::next(&mut events).now_or_never().is_none());
    node.set("k", "v").await.unwrap();
    assert!(matches!(StreamExt::next(&mut events).await, Some(Ok(Event::Updated { .. }))));
    assert!(events.next().now_or_never().is_none());
    node.delete("k").await.unwrap();
    assert!(matches!(events.next().await, Ok(Event::Deleted { .. })));
}

// C29 C32
#[tokio::test(start_paused = true)]
async fn a_prefix_watch_gives_the_rest_of_the_key() {
    let (a, b) = Lab::default().pair().await;
    let (mut some, mut all) = (b.watch_prefix("svc/"), b.watch_prefix(""));
    a.set("other", "1").await.unwrap();
    let version = a.set("svc/web", "2").await.unwrap();
    let change = some.next().await.unwrap();
    assert_eq!((change.key.as_str(), change.version), ("web", version));
    assert_eq!((change.peer, change.value.unwrap().as_str()), (id("a"), Some("2")));
    assert_eq!(all.next().await.unwrap().key.as_str(), "other");
    assert_eq!(all.next().await.unwrap().key.as_str(), "svc/web");
    drop(all);
    a.delete("svc/web").await.unwrap();
    assert_eq!(some.next().await.unwrap().value, None);
}

// C30
#[tokio::test(start_paused = true)]
async fn heartbeats_are_no_events() {
    let (a, b) = Lab::default().pair().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mut events, beats) = (a.subscribe(), a.counters().get(Counter::HeartbeatsReceived));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(a.counters().get(Counter::HeartbeatsReceived) > beats + 100);
    assert_eq!(drain(&mut events).await, []);
    b.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_watches_the_protocol_sees_both_directions() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let mut events = b.subscribe_protocol();
    a.set("color", "green").await.unwrap();
    b.set("color", "blue").await.unwrap();
    // Who is new compares all it knows with its seed.
    let c = lab.spawn("c", &["b"]).await;
    let (mut sent, mut received, mut told, mut heard) = (false, false, false, false);
    while !(sent && received && told && heard) {
        match events.next().await.unwrap() {
            ProtocolEvent::DigestSent { peer, .. } => sent |= peer == *c.node(),
            ProtocolEvent::DigestReceived { peer, .. } => received |= peer == *c.node(),
            ProtocolEvent::DeltasSent { delta, .. } => {
                told |= delta.nodes.iter().any(|node| node.node == id("b"));
            }
            ProtocolEvent::DeltasReceived { delta, .. } => {
                heard |= delta.nodes.iter().any(|node| node.node == id("a"));
            }
            _ => {}
        }
    }
}

// C31
#[tokio::test(start_paused = true)]
async fn an_actor_sees_the_same_before_and_after_a_join() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    a.set("own", "1").await.unwrap();
    let early = Mirror::of(&a).await;
    let b = lab.spawn("b", &["a"]).await;
    b.set("color", "green").await.unwrap();
    b.set("gone", "1").await.unwrap();
    b.delete("gone").await.unwrap();
    until("a has it", || a.get(b.node(), "color").is_some()).await;
    all_live(&[&a, &b]).await;
    let late = Mirror::of(&a).await;
    until("both agree", || early.seen() == late.seen() && early.matches(&a)).await;
    assert_eq!(early.seen().live, [id("b")]);
    let first = late.events.lock().unwrap()[0].clone();
    assert!(!matches!(first, Event::Deleted { .. }), "{first:?}");
    b.decommission().await.unwrap();
    until("both see it leave", || early.seen().live.is_empty() && late.seen().live.is_empty())
        .await;
    let left = |mirror: &Mirror| {
        let events = mirror.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::PeerLeft { .. })).count()
    };
    assert_eq!((left(&early), left(&late)), (1, 1));
}

/// A deletion that is older than the state told first must not be told after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_subscribes_under_load_ends_with_the_last_value() {
    let a = Lab::default().spawn("a", &[]).await;
    let writer = {
        let a = a.clone();
        tokio::spawn(async move {
            for n in 0..2_000 {
                a.delete("k").await.unwrap();
                a.set("k", n.to_string()).await.unwrap();
            }
        })
    };
    let mut mirrors = Vec::new();
    for n in 1..=20 {
        mirrors.push(Mirror::of(&a).await);
        let begun = n * 90;
        until("further", || {
            a.get_str(a.node(), "k").is_some_and(|k| k.parse::<u32>().unwrap() >= begun)
        })
        .await;
    }
    writer.await.unwrap();
    until("all have it", || mirrors.iter().all(|mirror| mirror.matches(&a))).await;
    assert_eq!(a.get_str(a.node(), "k").as_deref(), Some("1999"));
}

// C30 C31
#[tokio::test(start_paused = true)]
async fn an_actor_that_falls_behind_is_brought_up_to_date() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.event_queue = 8;
    let a = lab.spawn_with(config, &[]).await;
    a.set_many((0..50).map(|n| Write::set(format!("old{n}"), "1")).collect()).await.unwrap();
    let mirror = Mirror::of(&a).await;
    until("it has the state", || mirror.matches(&a)).await;
    let before = mirror.count();
    mirror.stall();
    for n in 0..300 {
        a.set(format!("k{}", n % 30), n.to_string()).await.unwrap();
        a.delete(format!("old{}", n % 50)).await.unwrap();
    }
    mirror.go_on();
    until("it has caught up", || mirror.matches(&a)).await;
    let told = mirror.count() - before;
    assert!(told < 150, "{told} events: what was replaced meanwhile was told too");
    // And then every change again.
    a.set("later", "1").await.unwrap();
    until("it has the change", || mirror.matches(&a)).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_subscribed_also_by_who_is_in_no_runtime() {
    let node = Lab::default().spawn("a", &[]).await;
    let mirror = Mirror { events: Arc::default(), gate: Arc::new(Semaphore::new(1)) };
    let arguments = (Arc::clone(&mirror.events), Arc::clone(&mirror.gate));
    let (actor, _) = Actor::spawn(None, Recorder, arguments).await.unwrap();
    let here = node.clone();
    std::thread::spawn(move || drop(here.subscribe_actor(actor))).join().unwrap();
    node.set("k", "v").await.unwrap();
    until("it has the key", || mirror.matches(&node)).await;
}

/// What an actor makes of the events it is sent.
struct Mirror {
    events: Arc<Mutex<Vec<Event>>>,
    gate: Arc<Semaphore>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    live: Vec<NodeId>,
    keys: BTreeMap<(NodeId, String), String>,
}

impl Mirror {
    async fn of(node: &Gossipmonger) -> Self {
        let mirror = Self { events: Arc::default(), gate: Arc::new(Semaphore::new(1)) };
        let arguments = (Arc::clone(&mirror.events), Arc::clone(&mirror.gate));
        let (actor, _) = Actor::spawn(None, Recorder, arguments).await.unwrap();
        node.subscribe_actor(actor);
        mirror
    }

    fn stall(&self) {
        self.gate.forget_permits(1);
    }

    fn go_on(&self) {
        self.gate.add_permits(1);
    }

    fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for event in &*self.events.lock().unwrap() {
            match event.clone() {
                Event::PeerLive { peer, .. } => seen.live.push(peer),
                Event::PeerDead { peer, .. } | Event::PeerLeft { peer, .. } => {
                    seen.live.retain(|live| *live != peer);
                }
                Event::Updated { peer, key, value, .. } => {
                    let value = value.as_str().unwrap().to_owned();
                    seen.keys.insert((peer, key.to_string()), value);
                }
                Event::Deleted { peer, key, .. } => {
                    seen.keys.remove(&(peer, key.to_string()));
                }
                _ => {}
            }
        }
        seen
    }

    /// Whether it has the keys that the node has.
    fn matches(&self, node: &Gossipmonger) -> bool {
        let snapshot = node.snapshot();
        let keys = snapshot.members().flat_map(|member| {
            let of = |(key, value): (&gossipmonger::Key, &gossipmonger::Value)| {
                ((member.node.clone(), key.to_string()), value.as_str().unwrap().to_owned())
            };
            snapshot.prefix(&member.node, "").map(of).collect::<Vec<_>>()
        });
        keys.collect::<BTreeMap<_, _>>() == self.seen().keys
    }
}

struct Recorder;

struct Heard(Delivery);

impl From<Delivery> for Heard {
    fn from(delivery: Delivery) -> Self {
        Self(delivery)
    }
}

#[cfg(feature = "cluster")]
impl ractor::Message for Heard {}

type Records = (Arc<Mutex<Vec<Event>>>, Arc<Semaphore>);

#[ractor::actor(message = Heard, state = Records, arguments = Records)]
impl Recorder {
    async fn pre_start(
        &self,
        _: ActorRef<Heard>,
        records: Records,
    ) -> Result<Records, ActorProcessingErr> {
        Ok(records)
    }

    async fn handle(
        &self,
        _: ActorRef<Heard>,
        Heard(delivery): Heard,
        (events, gate): &mut Records,
    ) -> Result<(), ActorProcessingErr> {
        let _open = gate.acquire().await?;
        events.lock().unwrap().push(delivery.event.clone());
        Ok(())
    }
}
