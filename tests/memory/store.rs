//! Stores that are foreign, fail, panic or take their time.

use std::sync::{Arc, atomic::Ordering};

use gossipmonger::{
    Error, Event, Problem, SpawnError, Version,
    protocol::route::Counter,
    store::{Change, Store, StoredEntry, memory::MemoryStore},
};

use crate::harness::{Held, Lab, Moody, all_live, next_event, until};
use crate::start::spawn;

#[tokio::test(start_paused = true)]
async fn refuses_the_store_of_another_node() {
    let lab = Lab::default();
    let storage = Arc::new(MemoryStore::new());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    lab.spawn_with(config, &[]).await.shutdown().await;
    let mut config = lab.config("b");
    config.storage = storage;
    let refused = spawn(config).await.unwrap_err();
    assert!(matches!(refused, SpawnError::ForeignStore { .. }));
    let said = refused.to_string();
    assert!(said.contains("node a in cluster test") && said.contains("this is b"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_store_is_told_and_made_up_for() {
    let lab = Lab::default();
    let storage = Arc::new(Moody::default());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let mut events = a.subscribe();
    for mood in [&storage.fails, &storage.panics] {
        mood.store(true, Ordering::SeqCst);
        let key = format!("k{}", a.counters().get(Counter::StoreFailures));
        let answer = a.set(key.as_str(), "v").await;
        assert!(matches!(answer, Err(Error::NotDurable(_))), "{answer:?}");
        next_event(&mut events, |event| {
            matches!(event, Event::Error(Problem::Store { .. })).then_some(())
        })
        .await;
        until("it is gossiped all the same", || b.get(a.node(), &key).is_some()).await;
        assert_eq!(storage.kept(&key), None);
        mood.store(false, Ordering::SeqCst);
        until("it is kept without another write", || storage.kept(&key).is_some()).await;
        a.set(key.as_str(), "w").await.unwrap();
        assert_eq!(storage.kept(&key).as_deref(), Some("w"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_delays_the_acknowledgement_and_nothing_else() {
    let lab = Lab::default();
    let storage = Arc::new(Moody::default());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let held = Held(Arc::clone(&storage));
    storage.hold();
    let writer = {
        let a = a.clone();
        tokio::spawn(async move { a.set("slow", "1").await })
    };
    until("visible at home", || a.get(a.node(), "slow").is_some()).await;
    until("gossiped", || b.get(a.node(), "slow").is_some()).await;
    b.set("other", "1").await.unwrap();
    until("hears others", || a.get(b.node(), "other").is_some()).await;
    // Whoever dialed sends them.
    let received = || [&a, &b].map(|n| n.counters().get(Counter::HeartbeatsReceived)).iter().sum();
    let beats: u64 = received();
    until("beats", || received() > beats + 3).await;
    assert!(!writer.is_finished(), "acknowledged before it was kept");
    assert_eq!(storage.kept("slow"), None);
    drop(held);
    writer.await.unwrap().unwrap();
    assert_eq!(storage.kept("slow").as_deref(), Some("1"));
}

/// Not even when the storage actor is just being started anew on it.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_keep_the_node_from_ending() {
    let lab = Lab::default();
    let storage = Arc::new(Moody::default());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    let a = lab.spawn_with(config, &[]).await;
    let _held = Held(Arc::clone(&storage));
    storage.hold();
    let oldest = a.cell().get_children().into_iter().min_by_key(ractor::ActorCell::get_id);
    oldest.unwrap().kill_and_wait(None).await.unwrap();
    until("it is being restarted", || a.counters().get(Counter::ActorRestarts) == 1).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), a.shutdown()).await;
    ended.expect("the end waits for the disk");
}

/// The departure is told and the node ends, also if the disk cannot remember it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_with_a_failing_store_leaves() {
    let lab = Lab::default();
    let storage = Arc::new(Moody::default());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    storage.fails.store(true, Ordering::SeqCst);
    assert!(matches!(a.decommission().await, Err(Error::NotDurable(_))));
    assert!(matches!(a.set("k", "v").await, Err(Error::Stopped { .. })));
    until("b knows", || b.live_peers().is_empty() && b.dead_peers().is_empty()).await;
}

/// Handles may be kept for as long as one likes; the store may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_or_refused_node_gives_its_store_back() {
    let lab = Lab::default();
    let storage = Arc::new(Moody::default());
    let mut config = lab.config("a");
    config.storage = storage.clone();
    let a = lab.spawn_with(config, &[]).await;
    a.set("k", "v").await.unwrap();
    a.shutdown().await;
    assert_eq!(Arc::strong_count(&storage), 1);
    let mut config = lab.config("b");
    config.storage = storage.clone();
    spawn(config).await.unwrap_err();
    assert_eq!(Arc::strong_count(&storage), 1);
}

#[test]
fn a_store_in_memory_shows_nobody_what_it_holds() {
    let storage = MemoryStore::new();
    let value = Some("hunter2".into());
    let entry = StoredEntry { version: Version(1), value, expires: None };
    storage.commit(&[Change::Put { key: "password".into(), entry }]).unwrap();
    assert_eq!(format!("{storage:?}"), "MemoryStore(..)");
}
