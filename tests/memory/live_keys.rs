//! Keys of the nodes that can be used now: what a service registry holds.

use std::{collections::BTreeMap, time::Duration};

use gossipmonger::{
    Event, NodeId, PeerState,
    subscription::{LiveKeys, SubscriptionError},
};

use crate::harness::{Lab, all_live, id, until};

/// What a consumer holds that only inserts and removes what it receives.
#[derive(Default)]
struct Registry(BTreeMap<(NodeId, String), String>);

impl Registry {
    /// Takes changes until it holds `wanted`.
    async fn until(&mut self, keys: &mut LiveKeys, wanted: &[(&str, &str, &str)]) {
        let wanted: BTreeMap<_, _> = wanted
            .iter()
            .map(|(node, key, value)| ((id(node), (*key).to_owned()), (*value).to_owned()))
            .collect();
        let taken = tokio::time::timeout(Duration::from_secs(120), async {
            while self.0 != wanted {
                let change = keys.next().await.unwrap();
                let at = (change.peer, change.key.as_str().to_owned());
                match change.value {
                    Some(value) => self.0.insert(at, value.as_str().unwrap().to_owned()),
                    None => self.0.remove(&at),
                };
            }
        });
        assert!(taken.await.is_ok(), "it holds {:?}, not {wanted:?}", self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_dead_node_go_and_come_back_with_it() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    b.set("svc/web", "10.0.0.2:80").await.unwrap();
    b.set("other", "1").await.unwrap();
    until("a has it", || a.get_str(b.node(), "svc/web").is_some()).await;
    let (mut keys, mut registry) = (a.watch_live("svc/"), Registry::default());
    registry.until(&mut keys, &[("b", "web", "10.0.0.2:80")]).await;

    lab.isolate(b.node(), &[&a, &c]);
    registry.until(&mut keys, &[]).await;
    assert_eq!(a.snapshot().member(b.node()).unwrap().state, PeerState::Dead);
    let still = a.get_str(b.node(), "svc/web");
    assert_eq!(still.as_deref(), Some("10.0.0.2:80"), "kept, but of a dead node");
    assert_eq!(a.snapshot().live_with("svc/web").count(), 0);

    lab.network.heal();
    registry.until(&mut keys, &[("b", "web", "10.0.0.2:80")]).await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_node_that_leaves_go_at_once() {
    let (a, b) = Lab::default().pair().await;
    a.set("svc/web", "1").await.unwrap();
    b.set("svc/web", "2").await.unwrap();
    let (mut keys, mut registry) = (a.watch_live("svc/"), Registry::default());
    registry.until(&mut keys, &[("a", "web", "1"), ("b", "web", "2")]).await;
    let snapshot = a.snapshot();
    let who: Vec<_> = snapshot.live_with("svc/web").map(|(node, _)| node.as_str()).collect();
    assert_eq!(who, ["a", "b"]);
    b.leave_for_now().await.unwrap();
    registry.until(&mut keys, &[("a", "web", "1")]).await;
    a.shutdown().await;
    assert!(matches!(keys.next().await, Err(SubscriptionError::Ended)));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_falls_behind_ends_with_the_last_values() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.event_queue = 4;
    let a = lab.spawn_with(config, &[]).await;
    let (mut keys, mut registry) = (a.watch_live(""), Registry::default());
    for n in 0..100 {
        a.set("n", n.to_string()).await.unwrap();
        a.set(format!("k{}", n % 3), n.to_string()).await.unwrap();
    }
    a.delete("k1").await.unwrap();
    registry.until(&mut keys, &[("a", "n", "99"), ("a", "k0", "99"), ("a", "k2", "98")]).await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_datacenter_that_cannot_be_reached_go_and_come_back() {
    let lab = Lab::default();
    let a = lab.spawn_with(lab.config_in("eu", "a"), &[]).await;
    let b = lab.spawn_with(lab.config_in("eu", "b"), &["a"]).await;
    let x = lab.spawn_with(lab.config_in("us", "x"), &["a"]).await;
    let y = lab.spawn_with(lab.config_in("us", "y"), &["a"]).await;
    all_live(&[&a, &b, &x, &y]).await;
    x.set("k", "1").await.unwrap();
    let (mut keys, mut registry) = (a.watch_live(""), Registry::default());
    registry.until(&mut keys, &[("x", "k", "1")]).await;
    for node in [&x, &y] {
        lab.isolate(node.node(), &[&a, &b]);
    }
    registry.until(&mut keys, &[]).await;
    assert_eq!(a.snapshot().member(x.node()).unwrap().state, PeerState::Unreachable);
    lab.network.heal();
    registry.until(&mut keys, &[("x", "k", "1")]).await;
}

/// Between a snapshot and a subscription taken apart a write is seen twice or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_its_events_neither_repeat_nor_miss_a_write() {
    let a = Lab::default().spawn("a", &[]).await;
    let writer = {
        let a = a.clone();
        tokio::spawn(async move {
            for n in 1..=1_000 {
                a.set("n", n.to_string()).await.unwrap();
            }
        })
    };
    for _ in 0..50 {
        let (snapshot, mut events) = a.subscribe_with_snapshot();
        let seen = number(snapshot.get(a.node(), "n").and_then(|value| value.as_str()));
        if seen == 1_000 {
            break;
        }
        let next = events.next().await.unwrap();
        let Event::Updated { value, .. } = next else { panic!("{next:?}") };
        assert_eq!(number(value.as_str()), seen + 1);
    }
    writer.await.unwrap();
}

fn number(text: Option<&str>) -> u32 {
    text.map_or(0, |text| text.parse().unwrap())
}
