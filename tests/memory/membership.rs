//! Death, return, departure, and being forgotten, in virtual time.

use std::{sync::Arc, time::Duration};

use gossipmonger::{Event, Gossipmonger, PeerState, SpawnError, store::memory::MemoryStore};

use crate::harness::{Lab, all_live, drain, id, names, next_event, until};
use crate::start::spawn;

// C45 C99
#[tokio::test(start_paused = true)]
async fn refuses_to_start_after_leaving_unless_told_to_rejoin() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let storage = Arc::new(MemoryStore::new());
    let config = || {
        let mut config = lab.config("b");
        config.storage = storage.clone();
        config.seeds = vec!["a:1".to_owned()];
        config
    };
    let b = spawn(config()).await.unwrap().0;
    all_live(&[&a, &b]).await;
    assert_eq!(b.decommission().await.unwrap(), 1);
    let refused = spawn(config()).await.unwrap_err();
    assert!(matches!(refused, SpawnError::HasLeft), "{refused}");
    let mut again = config();
    again.rejoin = true;
    let b = spawn(again).await.unwrap().0;
    all_live(&[&a, &b]).await;
    b.shutdown().await;
    // It is in again, so the next start is an ordinary one.
    spawn(config()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_leaves_for_now_comes_back_unasked() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let storage = Arc::new(MemoryStore::new());
    let config = || {
        let mut config = lab.config("b");
        config.storage = storage.clone();
        config
    };
    let b = lab.spawn_with(config(), &["a"]).await;
    all_live(&[&a, &b]).await;
    assert_eq!(b.leave_for_now().await.unwrap(), 1);
    assert_eq!(a.snapshot().member(b.node()).unwrap().state, PeerState::Left);
    let b = lab.spawn_with(config(), &["a"]).await;
    all_live(&[&a, &b]).await;
}

// C42
#[tokio::test(start_paused = true)]
async fn who_leaves_is_left_and_never_dead() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let mut events = a.subscribe();
    assert_eq!(c.decommission().await.unwrap(), 2);
    let state = |node: &Gossipmonger| node.snapshot().member(c.node()).unwrap().state;
    until("both know", || state(&a) == PeerState::Left && state(&b) == PeerState::Left).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state(&a), PeerState::Left);
    let told = drain(&mut events).await;
    let left = told.iter().filter(|event| matches!(event, Event::PeerLeft { .. }));
    assert_eq!(left.count(), 1, "{told:?}");
    assert!(!told.iter().any(|event| matches!(event, Event::PeerDead { .. })), "{told:?}");
    assert!(a.dead_peers().is_empty());
    assert_eq!(names(&a.live_peers()), ["b"]);
}

// C62 C74
#[tokio::test(start_paused = true)]
async fn silence_is_suspected_then_dead_and_forgiven_when_heard() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(a.phi(&id("nobody")), None);
    assert!(a.phi(b.node()).unwrap() < 2.0);
    let mut events = a.subscribe();
    lab.isolate(b.node(), &[&a]);
    let suspected = next_event(&mut events, |event| match event {
        Event::PeerSuspect { reason, .. } => Some(reason.phi),
        Event::PeerDead { .. } => panic!("dead before it was suspect"),
        _ => None,
    })
    .await;
    assert_eq!(names(&a.live_peers()), ["b"], "a suspect is still counted on");
    let dead = next_event(&mut events, |event| match event {
        Event::PeerDead { reason, .. } => Some(reason.phi),
        _ => None,
    })
    .await;
    assert!(suspected >= 4.0 && dead >= 8.0, "{suspected} {dead}");
    assert!(a.phi(b.node()).unwrap() >= 8.0);
    assert_eq!((a.live_peers().len(), names(&a.dead_peers())), (0, vec!["b"]));
    a.set("while", "apart").await.unwrap();
    lab.network.heal();
    next_event(&mut events, |event| matches!(event, Event::PeerLive { .. }).then_some(())).await;
    until("b has what was written meanwhile", || b.get(a.node(), "while").is_some()).await;
}

// C51
#[tokio::test(start_paused = true)]
async fn who_is_removed_is_forgotten_by_all_and_stays_away_until_it_starts_anew() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let away = lab.spawn("away", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    c.set("color", "green").await.unwrap();
    all_live(&[&a, &b, &away, &c]).await;
    until("a has it", || a.get(c.node(), "color").is_some()).await;
    let c_id = c.node().clone();
    c.shutdown().await;
    let all = [&a, &b, &away];
    until("it is dead", || all.iter().all(|node| node.dead_peers().len() == 1)).await;
    lab.isolate(away.node(), &[&a, &b]);
    until("one is cut off", || [&a, &b].iter().all(|node| node.dead_peers().len() == 2)).await;
    let mut events = b.subscribe();
    a.remove(&c_id).unwrap();
    let forgotten = |event| match event {
        Event::PeerForgotten { peer } => Some(peer),
        _ => None,
    };
    assert_eq!(next_event(&mut events, forgotten).await, c_id);
    until("a forgets it too", || names(&a.peers()) == ["away", "b"]).await;
    // Who was away goes on telling of it, for a while.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(names(&away.peers()), ["a", "b", "c"]);
    lab.network.heal();
    all_live(&all).await;
    until("it is forgotten everywhere", || all.iter().all(|node| node.peers().len() == 2)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(all.iter().all(|node| node.peers().len() == 2), "old state has come back");
    assert_eq!(a.get(&c_id, "color"), None);
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &away, &c]).await;
}

// C51 C75
#[tokio::test(start_paused = true)]
async fn who_was_removed_or_forgotten_by_mistake_comes_back_by_itself() {
    let lab = Lab::default();
    let config = |name| {
        let mut config = lab.config(name);
        config.forget_after = Duration::from_secs(3_600);
        config
    };
    let a = lab.spawn_with(config("a"), &[]).await;
    let b = lab.spawn_with(config("b"), &["a"]).await;
    b.set("color", "green").await.unwrap();
    all_live(&[&a, &b]).await;
    lab.isolate(b.node(), &[&a]);
    until("each finds the other dead", || a.dead_peers().len() + b.dead_peers().len() == 2).await;
    a.remove(b.node()).unwrap();
    until("it is gone", || a.peers().is_empty()).await;
    lab.network.heal();
    all_live(&[&a, &b]).await;
    until("with its keys", || a.get(b.node(), "color").is_some()).await;
    // And long enough for both to forget each other by themselves.
    lab.isolate(b.node(), &[&a]);
    tokio::time::sleep(Duration::from_secs(4_000)).await;
    assert!(a.peers().is_empty() && b.peers().is_empty());
    lab.network.heal();
    all_live(&[&a, &b]).await;
}

// C57
#[tokio::test(start_paused = true)]
async fn who_is_dead_for_long_is_forgotten_by_all() {
    let lab = Lab::default();
    let config = |name| {
        let mut config = lab.config(name);
        config.forget_after = Duration::from_secs(20);
        config
    };
    let a = lab.spawn_with(config("a"), &[]).await;
    let b = lab.spawn_with(config("b"), &["a"]).await;
    let c = lab.spawn_with(config("c"), &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    c.shutdown().await;
    until("both forget it", || a.peers().len() == 1 && b.peers().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1), "it has come back");
}

// C46
#[tokio::test(start_paused = true)]
async fn a_new_life_wins_and_keeps_only_what_the_store_kept() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let storage = Arc::new(MemoryStore::new());
    let kept = || {
        let mut config = lab.config("b");
        config.storage = storage.clone();
        config
    };
    let b = lab.spawn_with(kept(), &["a"]).await;
    b.set("color", "green").await.unwrap();
    all_live(&[&a, &b]).await;
    until("a has it", || a.get(b.node(), "color").is_some()).await;
    let (first, _) = a.snapshot().version(b.node()).unwrap();
    b.shutdown().await;
    let mut events = a.subscribe();
    let b = lab.spawn_with(kept(), &["a"]).await;
    let new_life = |event| match event {
        Event::PeerChanged { generation, .. } => Some(generation),
        Event::Deleted { .. } => panic!("a kept key is told as deleted"),
        _ => None,
    };
    assert!(next_event(&mut events, new_life).await > first);
    assert_eq!(a.get_str(b.node(), "color").as_deref(), Some("green"));
    b.shutdown().await;
    // Without the store the key is gone as soon as the new life is heard of.
    let b = lab.spawn("b", &["a"]).await;
    next_event(&mut events, |event| {
        let deleted = matches!(event, Event::Deleted { .. });
        deleted.then(|| assert_eq!(a.get(b.node(), "color"), None))
    })
    .await;
}
